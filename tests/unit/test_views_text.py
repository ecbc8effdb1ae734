"""Views: text that no terminal obeys, tables, results, operations and plans for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.workflow import Retry, Task, Workflow
from provisioning.views.operation_text import kind, operation_text
from provisioning.views.plan_text import plan_page, plan_text
from provisioning.views.table import cut, shown_value, table, width_of
from provisioning.views.text import safe, safe_block, spent

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.text())
def test_no_text_reaches_the_terminal_with_a_control_character(text: str) -> None:
    assert all(char.isprintable() or char == " " or ord(char) > 0x9F for char in safe(text))
    assert not set(safe_block(text)) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    assert "\u202e" not in safe(text)
    safe(text).encode()


def test_what_is_made_harmless_can_still_be_read() -> None:
    assert safe("a\x1b[31mb\nc\u202ed\ud800") == "a\\x1b[31mb\\nc\\u202ed\\ud800"
    assert safe_block("a\tb\nc\r\x9b") == "a\tb\nc\\r\\x9b"
    assert safe("Größe 大小 ✓") == "Größe 大小 ✓"


def test_a_table_is_aligned_and_fits() -> None:
    rows = [["web", "a" * 90, "x"], ["大小", "b", "y"]]
    whole = table(rows, ["task", "note", "z"])
    assert whole.splitlines()[2].startswith("大小  b")
    narrow = table(rows, ["task", "note", "z"], width=60)
    assert max(width_of(line) for line in narrow.splitlines()) <= 60
    assert "…" in narrow
    assert table([]) == ""
    assert cut("大小大小", 5) == "大小…"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("plain\x1b\n", "plain\\x1b\n"),
        ({"name": "wuji", "ip": None}, "name  wuji\nip"),
        ([{"a": 1}, {"b": [2]}], "a  b\n1\n   [2]"),
        ([1, "x"], "1\nx"),
        ([], ""),
        ({}, "{}"),
        (True, "true"),
    ],
)
def test_a_result_for_people(value: Any, text: str) -> None:
    assert shown_value(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (12, "12s"), (200, "3m20s"), (7500, "2h05m"), (4 * 86400 + 3 * 3600, "4d03h"), (-5, "0.0s")],
)
def test_how_long_it_took(seconds: float, text: str) -> None:
    end = (START + timedelta(seconds=seconds)).isoformat()
    assert spent(START.isoformat(), end, START) == text
    assert spent(None, None, START) == ""


# Operations and plans.

CREATE = Operation(
    "servers.create",
    "create-server",
    "Create a server.",
    "More.",
    (
        Param("name", {"type": "string"}, positional=True, required=True, description="Its name"),
        Param("token", {"type": "string"}, positional=False, required=False),
        Param("tags", {"type": "array", "items": {"enum": ["a", "b"]}}, positional=False, required=False, default=[]),
    ),
    {"type": "object", "properties": {"name": {}, "changed": {}}},
    idempotent=True,
    exclusive=("server/{name}",),
    secret=("token",),
)


def test_an_operation_for_people() -> None:
    text = operation_text(CREATE)
    assert "name" in text
    assert "list of a | b" in text
    assert "record of name, changed" in text
    assert "server/{name}" in text
    assert kind(None) == "nothing"
    assert kind({"anyOf": [{"type": "string"}, {}]}) == "string or any"


def test_a_plan_shows_waves_and_no_secrets() -> None:
    tasks = (
        Task("a", "servers.create", {"name": "x", "token": "hunter2"}, retry=Retry(max_attempts=3)),
        Task("b", "servers.create", {"name": "y"}, depends_on=("a",)),
    )
    page = plan_page(Workflow("two", tasks), Catalogue("0", {CREATE.name: CREATE}))
    assert page["waves"] == [["a"], ["b"]]
    assert page["tasks"][0]["params"] == {"name": "x", "token": "***"}
    text = plan_text(page)
    assert "critical path (2): a > b" in text
    assert "hunter2" not in text + json.dumps(page)
