"""The line on which each part of a manifest stands."""

from __future__ import annotations

import pytest

from provisioning.core.locate import Locator
from provisioning.core.tokens import Path

TOML = '''# a comment with "quotes" and [brackets]
name = "x"
text = """
[[tasks]]
id = "not this"
"""
literal = \'\'\'it''s
name = 1\'\'\'
a . "b c".d = 1
"qu\\u006fted" = 2

[[tasks]]   # first
id = "a"
params = { name = "}", list = [1, { deep = "]" }], last = 2026-12-01 02:00:00 }

[[tasks]]
id = "b"
depends_on = [
    # a comment, with a comma
    "a",
    "c", "d",
]
[tasks.params]
x = 3.5
[tasks.params.inner]
y = ["""
two lines""",
  'z']
[[tasks.steps]]
n = 1
[[tasks.steps]]
n = 2
[ defaults ]
timeout = "1s"
'''

TOML_LINES: dict[Path, int] = {
    ("name",): 2,
    ("text",): 3,
    ("literal",): 7,
    ("a",): 9,
    ("a", "b c", "d"): 9,
    ("quoted",): 10,
    ("tasks", 0): 12,
    ("tasks", 0, "id"): 13,
    ("tasks", 0, "params", "list", 1, "deep"): 14,
    ("tasks", 0, "params", "last"): 14,
    ("tasks", 0, "operation"): 12,
    ("tasks", 1): 16,
    ("tasks", 1, "depends_on"): 18,
    ("tasks", 1, "depends_on", 0): 20,
    ("tasks", 1, "depends_on", 2): 21,
    ("tasks", 1, "depends_on", 7): 18,
    ("tasks", 1, "params"): 23,
    ("tasks", 1, "params", "x"): 24,
    ("tasks", 1, "params", "inner", "y"): 26,
    ("tasks", 1, "params", "inner", "y", 1): 28,
    ("tasks", 1, "steps", 0, "n"): 30,
    ("tasks", 1, "steps", 1, "n"): 32,
    ("defaults", "timeout"): 34,
}

JSON = """{
  "name": "x", "te\\u0078t": "a \\"quoted\\" }",
  "tasks": [
    {"id": "a",
     "params": {"list": [1, -2.5e3, {"deep": [
        [], {}, "x"
     ]}], "last": null}},
    { "id" : "b" }
  ],
  "end": true
}
"""

JSON_LINES: dict[Path, int] = {
    ("name",): 2,
    ("text",): 2,
    ("tasks",): 3,
    ("tasks", 0): 4,
    ("tasks", 0, "params", "list", 1): 5,
    ("tasks", 0, "params", "list", 2, "deep"): 5,
    ("tasks", 0, "params", "list", 2, "deep", 0): 6,
    ("tasks", 0, "params", "list", 2, "deep", 2): 6,
    ("tasks", 0, "params", "last"): 7,
    ("tasks", 1, "id"): 8,
    ("tasks", 1, "operation"): 8,
    ("end",): 10,
}


@pytest.mark.parametrize(("text", "form", "lines"), [(TOML, "toml", TOML_LINES), (JSON, "json", JSON_LINES)])
def test_lines(text: str, form: str, lines: dict[Path, int]) -> None:
    assert Locator(text, form).lines(list(lines)) == lines


@pytest.mark.parametrize(("text", "form"), [(TOML, "toml"), (JSON, "json")])
def test_what_has_no_line(text: str, form: str) -> None:
    assert Locator(text, form).lines([(), ("missing",)]) == {}


def test_windows_line_ends() -> None:
    text = TOML.replace("\n", "\r\n")
    assert Locator(text, "toml").lines(list(TOML_LINES)) == TOML_LINES
