"""The catalogue of a real tree, read by a real Nushell; its cache; and entries that run."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from provisioning.core.catalogue import Catalogue
from provisioning.errors import NushellUnusable, Refused
from provisioning.execution import nushell, reader
from provisioning.execution.nushell import Nushell, find_nu, load_catalogue, snapshot, sweep
from provisioning.resources import data_dir

pytestmark = pytest.mark.nu

ATTRIBUTE = 'export alias "attr operation" = echo\n'
HEAD = "use ../lib/operation.nu *\n"
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
    return find_nu(os.environ.get("PROVISIONING_NU"), search=os.environ.get("PATH", ""))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with the attribute and no operation."""
    folder = tmp_path / "nulib"
    write(folder, "lib/operation.nu", ATTRIBUTE)
    return folder


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def settle(*roots: Path) -> None:
    """Wait until the files count as old enough to be told from changed ones."""
    newest = max(path.stat().st_ctime_ns for root in roots for path in root.rglob("*"))
    while time.time_ns() < newest + 2 * nushell._CLOCK_TICK_NS:
        os.sched_yield()


def simple(command: str = "create-server", body: str = "1", result: str = "any") -> str:
    return f"{HEAD}\n# Do it.\n@operation {{}}\nexport def {command} []: nothing -> {result} {{ {body} }}\n"


def load(nu: Nushell, *roots: Path, cache: Path | None = None) -> Catalogue:
    return load_catalogue(nu, roots, cache or roots[0].parent / "cache")[0]


def forbid_nu(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("nu was started")

    monkeypatch.setattr(nushell, "run_nu", started)
    monkeypatch.setattr(reader, "run_nu", started)


def test_the_built_in_operations(nu: Nushell, tmp_path: Path) -> None:
    catalogue = load(nu, data_dir("nulib"), cache=tmp_path / "cache")
    assert catalogue.broken == ()
    create = catalogue.operation("servers.create")
    assert (create.command, create.undo, create.exclusive) == ("create-server", "servers.delete", ("server/{name}",))
    assert create.timeout_seconds == 600
    assert create.params[0].name == "name"
    assert create.params[0].required


def test_an_operation_in_full(nu: Nushell, root: Path) -> None:
    write(
        root,
        "servers/create.nu",
        HEAD
        + """
# Create a server.
#
# In detail.
@operation {timeout: 10min}
export def create-server [
  name: string # Its name
  --provider(-p): string@[local aws] = "local" # Where
  --wait-for: duration = 1min # How long
  --dry-run # Only look
  ...others: string # More names
]: nothing -> record<name: string> { {name: $name} }
export def another [] { }
""",
    )
    found = load(nu, root).operation("servers.create")
    assert (found.summary, found.description, found.timeout_seconds) == ("Create a server.", "In detail.", 600.0)
    assert {p.name: (p.default, p.description) for p in found.params} == {
        "name": (None, "Its name"),
        "others": ([], "More names"),
        "provider": ("local", "Where"),
        "wait-for": ("1min", "How long"),
        "dry-run": (False, "Only look"),
    }
    assert found.params_schema()["properties"]["provider"] == {"type": "string", "enum": ["local", "aws"]}
    assert found.result_schema == {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}},
    }


def test_files_with_errors_drop_out_alone(nu: Nushell, root: Path) -> None:
    write(root, "a/good.nu", simple("good-a"))
    write(root, "b/good.nu", simple("good-b"))
    write(root, "a/cut.nu", simple("cut-a")[:-4])
    write(root, "b/type.nu", f"{HEAD}@operation {{}}\nexport def type-b [x: strin] {{ }}\n")
    write(root, "lib/cut.nu", "export def f [ {\n")
    write(root, "c/imports.nu", f"use ../lib/cut.nu *\n{simple('imports-c')}")
    write(root, "c/key.nu", f"{HEAD}@operation {{nope: 1}}\nexport def key-c [] {{ }}\n")
    write(root, "c/private.nu", f"{HEAD}@operation {{}}\ndef private-c [] {{ }}\n")
    write(
        root,
        "c/two.nu",
        f"{HEAD}@operation {{}}\nexport def two-a [] {{ }}\n@operation {{}}\nexport def two-b [] {{ }}\n",
    )
    write(root, "c/Upper.nu", simple("upper-c"))
    write(root, "lib/inside.nu", simple("inside-lib").replace("../lib", "."))
    write(root, "c/none.nu", "# a helper that mentions @operation\nexport def none [] { }\n")
    catalogue = load(nu, root)
    assert sorted(catalogue.operations) == ["a.good", "b.good"]
    broken = {Path(p.file).relative_to(root).as_posix(): (p.code, p.line, p.field) for p in catalogue.broken}
    assert broken == {
        "a/cut.nu": ("nulib-syntax", 5, "a.cut"),
        "b/type.nu": ("nulib-syntax", 3, "b.type"),
        "c/imports.nu": ("nulib-syntax", None, "c.imports"),
        "c/key.nu": ("operation-key", 2, "c.key"),
        "c/private.nu": ("operation-command", 2, "c.private"),
        "c/two.nu": ("operation-command", 2, "c.two"),
        "c/Upper.nu": ("operation-name", 4, ""),
        "lib/inside.nu": ("operation-name", 4, ""),
    }
    assert "a/cut.nu has errors" in catalogue.nearest_hint("a.cut")


def test_commands_of_one_name_in_two_domains(nu: Nushell, root: Path) -> None:
    write(root, "a/list.nu", simple("list-all", "'a'"))
    write(root, "b/list.nu", simple("list-all", "'b'"))
    assert sorted(load(nu, root).operations) == ["a.list", "b.list"]


def test_an_earlier_root_hides_later_ones(nu: Nushell, root: Path, tmp_path: Path) -> None:
    write(root, "servers/create.nu", "use ../lib/text.nu *\n" + simple(body="some-text"))
    write(root, "lib/text.nu", "export def some-text [] { 'built in' }\n")
    site = tmp_path / "site"
    write(site, "lib/text.nu", "export def some-text [] { 'site' }\n")
    write(site, "extra/look.nu", simple("look-around"))
    catalogue, tree = load_catalogue(nu, [tmp_path / "missing", site, root], tmp_path / "cache")
    assert sorted(catalogue.operations) == ["extra.look", "servers.create"]
    assert tree.files["lib/text.nu"] == site / "lib/text.nu"
    snapshot(nu, catalogue, tree, tmp_path / "kept" / catalogue.digest)
    assert run_entry(nu, tmp_path / "kept" / catalogue.digest, "servers.create", {}) == (0, {"result": "site"})


def test_unchanged_tree_starts_no_nu(nu: Nushell, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    with monkeypatch.context() as patched:
        forbid_nu(patched)
        assert load(nu, root) == first
    path.write_text(simple(body="2"), encoding="utf-8")
    settle(root)
    changed = load(nu, root)
    assert changed.digest != first.digest
    path.unlink()
    assert load(nu, root).operations == {}


def test_a_change_in_the_same_clock_tick_is_seen(nu: Nushell, root: Path) -> None:
    """Same size, and time stamps too coarse to tell: a tree that young is not cached."""
    path = write(root, "servers/create.nu", simple(body="1"))
    found = sweep([root])
    assert load_catalogue(nu, [root], root.parent / "cache")[1].stamp == found.stamp
    path.write_text(simple(body="2"), encoding="utf-8")
    settle(root)
    again = load(nu, root)
    path.write_text(simple(body="3"), encoding="utf-8")
    assert load(nu, root).digest != again.digest


def test_damaged_cache_is_made_anew(nu: Nushell, root: Path) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    [kept] = (root.parent / "cache" / "catalogue").iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    assert load(nu, root) == first
    assert load(nu, root) == first
    assert json.loads(kept.read_bytes())["digest"] == first.digest


def test_cache_that_others_may_write_is_not_used(nu: Nushell, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    first = load(nu, root)
    (root.parent / "cache" / "catalogue").chmod(0o777)
    assert load(nu, root) == first
    forbid_nu(monkeypatch)
    with pytest.raises(AssertionError, match="nu was started"):
        load(nu, root)


def test_cache_that_cannot_be_made_is_done_without(nu: Nushell, root: Path) -> None:
    write(root, "servers/create.nu", simple())
    settle(root)
    in_the_way = write(root.parent, "file", "")
    assert load(nu, root, cache=in_the_way / "cache").operations


def test_few_old_catalogues_are_kept(nu: Nushell, root: Path) -> None:
    path = root / "servers/create.nu"
    for number in range(nushell._CACHED + 2):
        write(root, "servers/create.nu", simple(body="1" * (number + 1)))
        settle(root)
        load(nu, root)
    assert path.exists()
    assert len(list((root.parent / "cache" / "catalogue").iterdir())) == nushell._CACHED


def test_snapshot_stays_as_it_was(nu: Nushell, root: Path, tmp_path: Path) -> None:
    path = write(root, "servers/create.nu", simple(body="'old'"))
    catalogue, tree = load_catalogue(nu, [root], tmp_path / "cache")
    kept = tmp_path / "kept" / catalogue.digest
    snapshot(nu, catalogue, tree, kept)
    path.write_text(simple(body="'new'"), encoding="utf-8")
    assert run_entry(nu, kept, "servers.create", {}) == (0, {"result": "old"})
    assert json.loads((kept / "catalogue.json").read_bytes())["digest"] == catalogue.digest
    snapshot(nu, catalogue, tree, kept)
    with pytest.raises(Refused, match="changed"):
        snapshot(nu, catalogue, tree, tmp_path / "kept" / "other")
    assert not (tmp_path / "kept" / "other").exists()


def test_digest_does_not_depend_on_the_place(nu: Nushell, root: Path, tmp_path: Path) -> None:
    write(root, "servers/create.nu", simple())
    write(tmp_path / "copy", "lib/operation.nu", ATTRIBUTE)
    write(tmp_path / "copy", "servers/create.nu", simple())
    write(tmp_path / "copy", "tests/test_create.nu", "")
    assert load(nu, root).digest == load(nu, tmp_path / "copy").digest


# ---- nu itself


def fake_nu(path: Path, answer: str) -> Path:
    path.write_text(f"#!/bin/sh\n{answer}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_finds_nu_and_remembers_its_version(nu: Nushell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_nu(str(nu.path), search="", cache_dir=tmp_path)
    assert first.version >= nushell.MINIMUM
    forbid_nu(monkeypatch)
    assert find_nu(str(nu.path), search="", cache_dir=tmp_path) == first


def test_finds_nu_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    (tmp_path / "bin").mkdir()
    fake_nu(tmp_path / "bin" / "nu", "echo 0.200.0")
    found = find_nu(None, search=f"/nonexistent:{tmp_path / 'bin'}")
    assert found == Nushell(tmp_path / "bin" / "nu", (0, 200, 0))
    with pytest.raises(NushellUnusable, match="not found"):
        find_nu(None, search="/nonexistent")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("echo 0.114.0", "too old"),
        ("echo 0.109.1", "too old"),
        ("echo hello", "is not Nushell"),
        ("exit 1", "is not Nushell"),
    ],
)
def test_unusable_nu(tmp_path: Path, answer: str, words: str) -> None:
    with pytest.raises(NushellUnusable, match=words) as caught:
        find_nu(str(fake_nu(tmp_path / "nu", answer)), search="")
    assert "0.115.1" in caught.value.hint


def test_configured_nu_that_is_not_there_or_no_program(tmp_path: Path) -> None:
    with pytest.raises(NushellUnusable, match="is not at"):
        find_nu(str(tmp_path / "nu"), search=os.environ["PATH"])
    with pytest.raises(NushellUnusable, match="not an executable file"):
        find_nu(str(tmp_path), search=os.environ["PATH"])
    path = write(tmp_path, "binary", "\x7fELF")
    path.chmod(0o755)
    with pytest.raises(NushellUnusable, match="cannot be executed"):
        find_nu(str(path), search="")


# ---- entries


def run_entry(
    nu: Nushell, kept: Path, operation: str, params: dict[str, Any], env: dict[str, str] | None = None
) -> tuple[int, Any]:
    """Run an entry as an attempt does; its exit code and its answer."""
    request, answer = os.memfd_create("request"), os.memfd_create("answer")
    body = {"params": params, "env": {"PATH": "/usr/bin:/bin"} | (env or {})}
    os.write(request, json.dumps(body).encode())
    moves = f'exec 3<&{request} 4<&{answer}; exec "$@"'
    command = ["/bin/bash", "-c", moves, "-", str(nu.path), *reader.PLAIN, str(kept / "entries" / f"{operation}.nu")]
    done = subprocess.run(
        command, env=reader.ENVIRONMENT, pass_fds=[request, answer], capture_output=True, timeout=60, check=False
    )
    text = os.pread(answer, 1 << 24, 0)
    os.close(request)
    os.close(answer)
    run_entry_output.append((done.stdout, done.stderr))
    return done.returncode, json.loads(text) if text else None


run_entry_output: list[tuple[bytes, bytes]] = []


def kept_operation(nu: Nushell, root: Path, source: str) -> Path:
    """A snapshot of the tree with this one operation, `test.run`."""
    write(root, "test/run.nu", HEAD + source)
    catalogue, tree = load_catalogue(nu, [root], root.parent / "cache")
    assert not catalogue.broken, catalogue.broken
    kept = root.parent / "kept" / catalogue.digest
    snapshot(nu, catalogue, tree, kept)
    return kept


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
    kinds: ([$size $count $ratio $either $long $big $day ($spans | get -o 0) ($box | get -o a) ($box | get -o b)] | each { describe })
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
    code, answer = run_entry(nu, kept, "test.run", params)
    assert code == 0, answer
    result = answer["result"]
    assert (result["name"], result["size"], result["count"]) == ("x", 3, 2**63 - 1)
    assert (result["dry"], result["others"]) == (True, ["a", "b c"])
    assert result["free"] == {"deep": [1, None, True]}
    kinds = ["int", "int", "float", "float", "duration", "filesize", "datetime", "duration", "duration", "int"]
    assert result["kinds"] == kinds


def test_null_is_absent(nu: Nushell, root: Path) -> None:
    kept = kept_operation(nu, root, ALL_KINDS)
    catalogue = load(nu, root)
    params = catalogue.operation("test.run").filled({"name": "x"}) | {"dry-run": None}
    code, answer = run_entry(nu, kept, "test.run", params)
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
        assert run_entry(nu, kept, "test.run", params) == (0, {"result": [value, value, *HOSTILE]})


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
    assert run_entry(nu, kept, "test.run", {}) == (1, {"error": INNER})


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
    found, answer = run_entry(nu, kept, "test.run", {})
    assert (found, answer["error"]["code"]) == (exit_code, code)
    assert words in answer["error"]["msg"]


def test_nothing_shows_the_environment_of_an_error(nu: Nushell, root: Path) -> None:
    label = "{code: 'provisioning::a::b', msg: 'm', label: {text: 't', span: {start: 0, end: 5000}}}"
    body = f"if true {{ error make {label} }}"
    kept = kept_operation(nu, root, f"@operation {{}}\nexport def run-test []: nothing -> nothing {{ {body} }}\n")
    secret = "a-secret-in-the-environment"
    code, answer = run_entry(nu, kept, "test.run", {}, {"TOKEN": secret})
    assert code == 1
    assert secret not in json.dumps(answer)
    assert not any(secret.encode() in output for output in run_entry_output[-1])


def test_children_do_not_find_the_params(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test [token: string]: nothing -> string { ^cat /dev/fd/3 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {"token": "a secret"}) == (0, {"result": ""})


def test_what_children_write_to_the_answer_is_discarded(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test []: nothing -> int { ^sh -c 'echo a long lie >&4'; 1 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {}) == (0, {"result": 1})


def test_environment_and_path_come_with_the_request(nu: Nushell, root: Path) -> None:
    source = (
        "@operation {}\nexport def run-test []: nothing -> any"
        " { [$env.PROVISIONING_TASK ($env.PATH | describe) (^sh -c 'echo $PATH $PROVISIONING_TASK' | str trim)] }\n"
    )
    kept = kept_operation(nu, root, source)
    code, answer = run_entry(nu, kept, "test.run", {}, {"PROVISIONING_TASK": "web.1"})
    assert (code, answer) == (0, {"result": ["web.1", "list<string>", "/usr/bin:/bin web.1"]})


def test_output_is_the_log_and_not_the_answer(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def run-test []: nothing -> nothing { print one; print -e two; ^echo three }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {}) == (0, {"result": None})
    assert run_entry_output[-1] == (b"one\nthree\n", b"two\n")


def test_commands_with_the_names_of_built_in_ones(nu: Nushell, root: Path) -> None:
    source = "@operation {}\nexport def load-env []: nothing -> int { 1 }\nexport def open [] { 2 }\n"
    kept = kept_operation(nu, root, source)
    assert run_entry(nu, kept, "test.run", {}) == (0, {"result": 1})
