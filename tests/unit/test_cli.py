"""The command line without Nushell: nouns, aliases, help, params from words, errors and exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import provisioning.cli.root
from provisioning.cli import run
from provisioning.cli.context import Context
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.errors import NushellUnusable, Problem


def param(name: str, schema: dict[str, Any], **more: Any) -> Param:
    return Param(name, schema, **{"positional": False, "required": False, **more})


TEXT = {"type": "string"}
CREATE = Operation(
    "servers.create",
    "create-server",
    "Create a server.",
    "",
    (
        param("name", TEXT, positional=True, required=True, description="Its name"),
        param("provider", {"type": "string", "enum": ["local", "ssh"]}, default="local", description="Where"),
        param("cores", {"type": "integer"}, default=1),
        param("weight", {"type": "number"}),
        param("tags", {"type": "array", "items": TEXT}, default=[]),
        param("labels", {"type": "object"}),
        param("allow-failure", {"type": "boolean"}, default=False),
        param("wait_for", TEXT),
        param("password", TEXT),
    ),
    {"type": "object"},
    idempotent=True,
    secret=("password",),
)
EXEC = Operation(
    "servers.exec",
    "exec-server",
    "Run a command.",
    "",
    (
        param("name", TEXT, positional=True, required=True),
        param("argv", {"type": "array", "items": TEXT}, positional=True, required=True),
        param("dry", {"type": "boolean"}, default=False),
    ),
    {"type": "object"},
    check="dry",
)
ECHO = Operation("selftest.echo", "echo", "Echo.", "", (param("value", {}, positional=True, required=True),), {})
MAYBE = Operation("classes.maybe", "maybe", "Perhaps.", "", (param("name", TEXT, positional=True, default="x"),), None)
BROKEN = Problem("nulib-syntax", "a brace is missing", file="/n/taskservs/install.nu", field="taskservs.install")
CATALOGUE = Catalogue("0" * 64, {each.name: each for each in (CREATE, EXEC, ECHO, MAYBE)}, (BROKEN,))


@pytest.fixture(autouse=True)
def installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A catalogue without Nushell, and an environment of the test's own."""
    monkeypatch.setattr(Context, "catalogue", CATALOGUE)
    monkeypatch.setenv("PROVISIONING_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("PROVISIONING_PATHS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def checked(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The params that the words of an operation command make."""
    assert run([*words, "--check", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    params: dict[str, Any] = found["params"]
    return params


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "provisioning 0.1.0\n"


def test_the_version_loads_little(capsys: pytest.CaptureFixture[str]) -> None:
    import subprocess

    code = (
        "import sys; from provisioning.cli import run; run(['--version']);"
        "heavy = {'rich', 'jsonschema', 'fastjsonschema', 'msgspec', 'watchdog', 'filelock', 'tomllib', 'json'};"
        "print(*heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_help_is_one_screen_and_names_each_noun_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 32
    assert max(map(len, lines)) <= 80
    assert text.count("workflow (wf)") == 1
    assert "server (s)" in text
    assert "create exec" in text


def test_help_without_nushell_still_shows_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Context) -> Catalogue:
        raise NushellUnusable("Nushell was not found", hint="install it")

    monkeypatch.setattr(Context, "catalogue", property(fail))
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Nushell was not found" in text
    assert "workflow (wf)" in text
    assert run(["server", "list"]) == 6
    assert "install it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "ways",
    [
        (["wf", "--help"], ["wf", "help"], ["help", "wf"], ["wf", "-h"]),
        (["workflow", "retry", "--help"], ["workflow", "help", "retry"], ["help", "workflow", "retry"]),
        (["server", "create", "--help"], ["help", "server", "create"]),
        (["--help"], ["help"]),
    ],
)
def test_all_ways_to_ask_for_help_agree(ways: tuple[list[str], ...], capsys: pytest.CaptureFixture[str]) -> None:
    texts = set()
    for words in ways:
        assert run(words) == 0
        texts.add(capsys.readouterr().out.partition("\n")[2])
    assert len(texts) == 1


def test_every_verb_says_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    for noun, load in provisioning.cli.root.NOUNS.items():
        group = load()
        for verb in getattr(group, "commands", {}):
            assert run([noun, verb, "--help"]) == 0
            text = capsys.readouterr().out
            assert "Exit codes" in text, (noun, verb)
            assert "usage" in text


@pytest.mark.parametrize("noun", ["server", "servers", "s"])
def test_a_domain_by_all_its_names(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, noun, "create", "wuji")["name"] == "wuji"


def test_a_domain_that_ends_in_ses(capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "classe", "maybe") == {"name": "x"}


def test_params_from_words(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["wuji", "--provider", "ssh", "--cores", "4", "--weight", "1.5", "--tags", "a", "--tags", "b"]
    words += ["--labels", '{"x": [1]}', "--allow-failure", "--wait-for", "y", "--password", "hunter2"]
    params = checked(capsys, "server", "create", *words)
    assert params == {
        "name": "wuji",
        "provider": "ssh",
        "cores": 4,
        "weight": 1.5,
        "tags": ["a", "b"],
        "labels": {"x": [1]},
        "allow-failure": True,
        "wait_for": "y",
        "password": "***",
    }
    assert checked(capsys, "server", "create", "x", "--weight", "2")["weight"] == 2
    assert checked(capsys, "server", "create", "x", "--wait_for", "y")["wait_for"] == "y"


def test_what_follows_two_dashes_is_taken_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["selftest", "echo", "--check", "--json", "--"]
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == {"value": "--json"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("3", 3),
        ("true", True),
        ('{"a": 1}', {"a": 1}),
        ("null", None),
        ("plain", "plain"),
        ("[1", "[1"),
        ("NaN", "NaN"),
    ],
)
def test_any_value_is_json_or_else_text(word: str, value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert checked(capsys, "selftest", "echo", word) == {"value": value}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["server", "create"], 2, "Missing argument 'NAME'"),
        (["server", "create", "x", "--provider", "aws"], 2, "'local', 'ssh'"),
        (["server", "create", "x", "--cores", "1.5"], 2, "not a valid integer"),
        (["server", "create", "x", "--weight", "inf"], 2, "finite"),
        (["server", "create", "x", "--labels", "{"], 2, "not JSON"),
        (["server", "create", "x", "--labels", "[1]", "--check"], 3, "labels"),
        (["server", "create", "x", "--provder", "ssh"], 2, "--provider"),
        (["server", "creat", "x"], 2, "did you mean create"),
        (["server"], 2, "Usage:"),
        ([], 2, "Usage:"),
        (["sever", "create"], 2, "did you mean server"),
        (["taskserv", "install"], 2, "taskservs.install has errors"),
        (["help", "nothing"], 2, "no noun 'nothing'"),
        (["wf", "help", "lst"], 2, "did you mean list"),
        (["workflow", "cleanup", "--older-than", "7 days"], 6, "spool init"),
        (["workflow", "list"], 6, "spool init"),
        (["server", "exec", "x", "--", "hostname"], 6, "spool init"),
        (["batch", "submit", "/nonexistent.toml"], 4, "no file"),
        (["batch", "submit", "/"], 2, "directory"),
        (["batch", "validate", "-"], 2, "--format"),
        (["operation", "show", "servers.creat"], 4, "servers.create"),
        (["orchestrator", "run", "--max-wait", "3"], 2, "--until-empty"),
        (["--config", "/nonexistent.toml", "wf", "list"], 4, "no config file"),
    ],
)
def test_what_goes_wrong(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == code
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "Traceback" not in err


def test_an_error_is_json_on_stdout_where_json_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["workflow", "list", "--json"]) == 6
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["code"], error["exit_code"]) == ("spool-unusable", 6)
    assert error["message"] in err
    assert run(["server", "create", "x", "--labels", "[1]", "--check", "--json"]) == 3
    (problem,) = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert problem["field"] == "labels"


@pytest.mark.parametrize(
    "words", [["server", "crate"], ["nope"], ["server"], ["wf", "list", "--bogus"], ["server", "create"]]
)
def test_wrong_words_are_answered_in_json_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["exit_code"]) == ("usage", 2)


def test_an_alias_of_a_noun_that_is_not_there_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ss", "create"]) == 2
    assert "did you mean s?" in capsys.readouterr().err
    assert run(["tt", "create"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["batch", "submit", "/proc/self/mem"]) == 5
    assert "cannot read /proc/self/mem" in capsys.readouterr().err


def test_the_spool_may_be_named_behind_the_verb(installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = installation / "other"
    assert run(["spool", "init", "--spool", str(other)]) == 0
    assert capsys.readouterr().out == f"{other}\n"
    assert run(["wf", "list", "--json", "--spool", str(other)]) == 0
    assert run(["--spool", str(other), "wf", "list"]) == 0
    assert run(["spool", "init", str(other)]) == 0


def test_a_config_named_too_late_is_refused(installation: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["spool", "init", "--config", str(installation / "none")]) == 4
    capsys.readouterr()


def test_a_defect_is_one_line_without_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: Context) -> Catalogue:
        raise ZeroDivisionError("a\x1b[31m defect\nof two lines")

    monkeypatch.setattr(Context, "catalogue", property(fail))
    assert run(["operation", "list"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines() == [
        "error: internal error: ZeroDivisionError: a\\x1b[31m defect",
        "hint: --debug shows more; please report it",
    ]
    assert run(["operation", "list", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(_: Context) -> Catalogue:
        raise KeyboardInterrupt

    monkeypatch.setattr(Context, "catalogue", property(interrupt))
    assert run(["operation", "list"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_of_the_system_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_: Context) -> Catalogue:
        raise OSError(28, "No space left on device", "/spool/x")

    monkeypatch.setattr(Context, "catalogue", property(fail))
    assert run(["operation", "list"]) == 6
    assert "error: /spool/x: No space left on device" in capsys.readouterr().err


def test_a_manifest_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = b'{"schema": 1, "name": "n", "tasks": [{"id": "a", "operation": "servers.create", "params": {"nam": 1}}]}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert run(["batch", "validate", "-", "--format", "json", "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert {problem["file"] for problem in answer["problems"]} == {"<stdin>"}
    assert len(answer["problems"]) >= 2


def test_a_manifest_that_may_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.toml"
    path.write_text("")
    assert run(["batch", "validate", str(path)]) == 3
    assert "empty" in capsys.readouterr().err
    path.write_bytes(b"\xff")
    assert run(["batch", "validate", str(path)]) == 3
    assert "UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_PROVISIONING_COMPLETE" in capsys.readouterr().out
