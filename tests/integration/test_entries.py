"""Entries run: values arrive as they were sent, errors are told by code, and nothing leaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from provisioning.execution.nushell import Nushell, load_catalogue
from tests.integration.entry_runs import ATTRIBUTE, kept_operation, nu_to_test, run_entry, write

pytestmark = pytest.mark.nu

HOSTILE = [
    "",
    "x\ny",
    '"; ls',
    "$(ls)",
    "(ls)",
    "--help",
    "-x",
    "true",
    "null",
    "=",
    "é\u2028",
    "'",
    "\\",
    "`ls`",
    "{}",
    "\x00",
]


@pytest.fixture(scope="module")
def nu() -> Nushell:
    return nu_to_test()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the attribute and no operation."""
    write(tmp_path / "nulib", "lib/operation.nu", ATTRIBUTE)
    return tmp_path / "nulib"


ALL_KINDS = """
@operation {}
export def run-test [
  name: string
  size?: int
  --text: string = "default"
  --count: int
  --ratio: float
  --either: number
  --long: duration
  --big: filesize
  --day: datetime
  --spans: list<duration>
  --box: record<a: duration, b: int>
  --rows: table<a: int>
  --free: any
  --dry-run
  ...others: string
]: nothing -> any {
  {
    name: $name size: $size text: $text count: $count dry: $dry_run others: $others free: $free rows: $rows
    kinds: ([
      $size $count $ratio $either $long $big $day ($spans | get -o 0) ($box | get -o a) ($box | get -o b)
    ] | each { describe })
  }
}
"""


def test_values_arrive_with_their_types(nu: Nushell, root: Path) -> None:
    kept = kept_operation(nu, root, ALL_KINDS)
    params = {
        "name": "x", "size": 3.0, "text": "t", "count": 2**63 - 1, "ratio": 5, "either": 1.5, "long": "1hr 30min",
        "big": "4GB", "day": "2026-12-01T02:00:00Z", "spans": ["5sec"], "box": {"a": "1min", "b": 2.0},
        "rows": [{"a": 1}], "free": {"deep": [1, None, True]}, "dry-run": True, "others": ["a", "b c"],
    }  # fmt: skip
    code, answer = run_entry(nu, kept, "test.run", params).verdict
    assert code == 0, answer
    result = answer["result"]
    assert (result["name"], result["size"], result["count"]) == ("x", 3, 2**63 - 1)
    assert (result["dry"], result["others"]) == (True, ["a", "b c"])
    assert result["free"] == {"deep": [1, None, True]}
    kinds = ["int", "int", "float", "float", "duration", "filesize", "datetime", "duration", "duration", "int"]
    assert result["kinds"] == kinds


def test_null_is_absent(nu: Nushell, root: Path) -> None:
    kept = kept_operation(nu, root, ALL_KINDS)
    catalogue = load_catalogue(nu, [root], root.parent / "cache")[0]
    params = catalogue.operation("test.run").filled({"name": "x"}) | {"dry-run": None}
    code, answer = run_entry(nu, kept, "test.run", params).verdict
    assert code == 0, answer
    result = answer["result"]
    assert (result["size"], result["text"], result["count"]) == (None, "default", None)
    assert (result["dry"], result["others"], result["free"]) == (False, [], None)
    assert set(result["kinds"]) == {"nothing"}


def test_hostile_strings_come_back_as_they_went(nu: Nushell, root: Path) -> None:
    kept = kept_operation(
        nu,
        root,
        "@operation {}\nexport def run-test [first: string --flag: string ...more: string]: nothing -> any"
        " { [$first $flag] ++ $more }\n",
    )
    for value in HOSTILE:
        params = {"first": value, "flag": value, "more": HOSTILE}
        assert run_entry(nu, kept, "test.run", params).verdict == (0, {"result": [value, value, *HOSTILE]})


RAISE = 'error make {code: "provisioning::test::inner", msg: "inner", help: "do this"}'
INNER = {"code": "provisioning::test::inner", "msg": "inner", "help": "do this"}


@pytest.mark.parametrize(
    "body",
    [
        f"if true {{ {RAISE} }}",
        f"[1] | each {{|x| {RAISE} }}",
        f"[1] | par-each {{|x| {RAISE} }}",
        f"[1] | each {{|x| [2] | each {{|y| {RAISE} }} }}",
        f"{{a: ([1] | each {{|x| {RAISE} }})}}",
        f"try {{ {RAISE} }} catch {{|e| error make {{msg: 'outer', inner: [$e.details]}} }}",
    ],
)
def test_the_innermost_error_of_ours_is_told(nu: Nushell, root: Path, body: str) -> None:
    kept = kept_operation(nu, root, f"@operation {{}}\nexport def run-test []: nothing -> any {{ {body} }}\n")
    assert run_entry(nu, kept, "test.run", {}).verdict == (1, {"error": INNER})


@pytest.mark.parametrize(
    ("body", "exit_code", "code", "words"),
    [
        ("[1] | get 5", 1, "nu::shell::access_beyond_end", "too large"),
        ("[1] | each { 'x' | into int }", 1, "nu::shell::cant_convert", "convert"),
        ("^sh -c 'exit 75'", 75, "nu::shell::non_zero_exit_code", "75"),
        ("^sh -c 'exit 75' | str trim", 75, "nu::shell::non_zero_exit_code", "75"),
        ("^sh -c 'kill -9 $$'", 1, "nu::shell::terminated_by_signal", "SIGKILL"),
        ("^no-such-program", 1, "nu::shell::external_command", "no-such-program"),
        ("{|| 1}", 1, "nu::shell::unsupported_input", "nput"),
        ("error make {msg: 'plain'} | ignore; 1", 1, "nu::shell::error", "plain"),
    ],
)
def test_other_errors(nu: Nushell, root: Path, body: str, exit_code: int, code: str, words: str) -> None:
    kept = kept_operation(nu, root, f"@operation {{}}\nexport def run-test []: nothing -> any {{ {body} }}\n")
    found, answer = run_entry(nu, kept, "test.run", {}).verdict
    assert (found, answer["error"]["code"]) == (exit_code, code)
    assert words in answer["error"]["msg"]


def test_nothing_shows_the_environment_of_an_error(nu: Nushell, root: Path) -> None:
    label = "{code: 'provisioning::a::b', msg: 'm', label: {text: 't', span: {start: 0, end: 5000}}}"
    body = f"if true {{ error make {label} }}"
    kept = kept_operation(nu, root, f"@operation {{}}\nexport def run-test []: nothing -> nothing {{ {body} }}\n")
    secret = "a-secret-in-the-environment"
    run = run_entry(nu, kept, "test.run", {}, {"TOKEN": secret})
    assert run.exit_code == 1
    assert secret.encode() not in run.written + run.stdout + run.stderr


def test_children_do_not_find_the_params(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test [token: string]: nothing -> string { ^cat /dev/fd/3 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {"token": "a secret"}).verdict == (0, {"result": ""})


def test_what_children_write_to_the_answer_is_discarded(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test []: nothing -> int { ^sh -c 'echo a long lie >&4'; 1 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {}).verdict == (0, {"result": 1})


def test_environment_and_path_come_with_the_request(nu: Nushell, root: Path) -> None:
    source = (
        "@operation {}\nexport def run-test []: nothing -> any"
        " { [$env.PROVISIONING_TASK ($env.PATH | describe) (^sh -c 'echo $PATH $PROVISIONING_TASK' | str trim)] }\n"
    )
    kept = kept_operation(nu, root, source)
    code, answer = run_entry(nu, kept, "test.run", {}, {"PROVISIONING_TASK": "web.1"}).verdict
    assert (code, answer) == (0, {"result": ["web.1", "list<string>", "/usr/bin:/bin web.1"]})


def test_output_is_the_log_and_not_the_answer(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test []: nothing -> nothing { print one; print -e two; ^echo three }\n"
    kept = kept_operation(nu, root, source)
    run = run_entry(nu, kept, "test.run", {})
    assert run.verdict == (0, {"result": None})
    assert (run.stdout, run.stderr) == (b"one\nthree\n", b"two\n")


def test_commands_with_the_names_of_built_in_ones(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def load-env []: nothing -> int { 1 }\nexport def open [] { 2 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {}).verdict == (0, {"result": 1})
