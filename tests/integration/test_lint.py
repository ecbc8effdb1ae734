"""`operation check` finds what nu itself lets pass."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from provisioning.cli.operations import operation_command
from provisioning.cli.root import ALIASES, NOUNS
from provisioning.core.catalogue import Operation, singular
from provisioning.errors import Refused
from provisioning.execution import lint as lint_module
from provisioning.execution.lint import lint
from provisioning.execution.nushell import Nushell
from provisioning.execution.reader import PLAIN, run_nu
from provisioning.resources import data_dir
from tests.integration.entry_runs import ATTRIBUTE, HEAD, nu_to_test, write

pytestmark = pytest.mark.nu

GOOD = f"""{HEAD}
# Create a server.
@operation {{undo: "servers.delete"}}
export def create-server [
  name: string # Its name
]: nothing -> string {{ ^echo $name }}
"""


@pytest.fixture(scope="module")
def nu() -> Nushell:
    return nu_to_test()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "lib/operation.nu", ATTRIBUTE)
    write(tmp_path, "servers/create.nu", GOOD)
    write(tmp_path, "servers/delete.nu", GOOD.replace("create", "delete").replace("Create", "Delete"))
    return tmp_path


def found(nu: Nushell, root: Path) -> list[tuple[str, str, int | None, str]]:
    problems = lint(nu, [root])
    return [(Path(p.file).relative_to(root).as_posix(), p.code, p.line, p.field) for p in problems]


def test_the_built_in_operations_have_no_problems(nu: Nushell) -> None:
    assert [problem for problem in lint(nu, [data_dir("nulib")]) if problem.code != "external-unchecked"] == []


def test_a_good_tree(nu: Nushell, root: Path) -> None:
    assert lint(nu, [root]) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        ("^echo", "echoo", "external-unmarked", 7),
        ("^echo $name", "^echo $name | lines | first", "external-unchecked", 7),
        ("^echo $name", "^echo 'a|b' (1)\n  | ^cat", "external-unchecked", 7),
        ("name: string #", "name: strin #", "nulib-syntax", 6),
        ("# Create a server.\n", "\n", "undocumented", 4),
        (" # Its name", "", "undocumented", 4),
        (": nothing -> string", "", "result-type", 4),
        ("-> string { ^echo $name }", "-> duration { 5sec }", "result-type", 4),
        ("-> string { ^echo $name }", "-> range { 1..2 }", "operation-type", 4),
        ("servers.delete", "servers.delet", "unknown-operation", 4),
        ("undo:", "undone:", "operation-key", 4),
        ("create-server", "make-server", "command-name", 4),
        ("name: string #", "name: string\n --json: string #", "param-reserved", 4),
        ("name: string #", "name: string\n --max-wait: int #", "param-reserved", 4),
        ("name: string #", "name: string\n --check #", "param-reserved", 4),
    ],
)
def test_one_problem(nu: Nushell, root: Path, old: str, new: str, code: str, line: int) -> None:
    broken = GOOD.replace(old, new)
    assert broken != GOOD
    if code == "param-reserved":
        broken = broken.replace("name: string\n", "name: string # Its name\n")
    write(root, "servers/create.nu", broken)
    expected = [("servers/create.nu", code, line, "" if line != 4 else "servers.create")]
    if code in ("nulib-syntax", "operation-type", "operation-key"):  # left out, so what points to it finds nothing
        delete = GOOD.replace("create", "delete").replace("servers.delete", "servers.create")
        write(root, "servers/delete.nu", delete)
        expected.append(("servers/delete.nu", "unknown-operation", 4, "servers.delete"))
    assert [problem for problem in found(nu, root) if problem[1] != "nulib-syntax" or problem[2] == line] == expected


@pytest.mark.parametrize(
    "pipe",
    ["^echo a | collect | lines | first", "^echo a | complete | get stdout", "[a] | first", "^echo 'a | lines'"],
)
def test_pipes_in_which_a_failure_is_seen(nu: Nushell, root: Path, pipe: str) -> None:
    write(root, "servers/create.nu", GOOD.replace("^echo $name", pipe))
    assert lint(nu, [root]) == []


@pytest.mark.parametrize(
    ("follower", "seen"),
    [("lines", False), ("first", False), ("^cat", False), ("collect | lines", True), ("str trim", True)],
)
def test_nu_loses_failures_as_the_rule_says(nu: Nushell, tmp_path: Path, follower: str, seen: bool) -> None:
    source = f"try {{ let x = (^/bin/sh -c 'echo a; exit 75' | {follower}); print lost }} catch {{ print seen }}"
    done = run_nu(nu.path, [*PLAIN, "-c", source.replace("^cat", "^/bin/cat")], cwd=tmp_path)
    assert done.stdout.strip() == (b"seen" if seen else b"lost")


def test_files_that_hold_no_operation_are_checked_too(nu: Nushell, root: Path) -> None:
    write(root, "lib/tools.nu", "export def f [] { mispelt 1; ^ls; ls; if true { alsobad } }\n")
    write(root, "lib/cut.nu", "export def f [ [\n")
    problems = found(nu, root)
    assert [problem for problem in problems if problem[0] == "lib/tools.nu"] == [
        ("lib/tools.nu", "external-unmarked", 1, "")
    ] * 2
    assert ("lib/cut.nu", "nulib-syntax", 1, "") in problems


@pytest.mark.parametrize(
    ("old", "new"),
    [("name }", "name "), ("^echo", "(^echo"), ("^echo ", '^echo "'), ("]: nothing", "  : nothing"), ('delete"}', "")],
)
def test_what_is_left_open_is_one_problem(nu: Nushell, root: Path, old: str, new: str) -> None:
    write(root, "servers/delete.nu", GOOD.replace("create", "delete").replace('undo: "servers.delete"', ""))
    write(root, "servers/create.nu", GOOD.replace(old, new))
    assert [problem[:2] for problem in found(nu, root)] == [("servers/create.nu", "nulib-syntax")]


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("use ../lib/operatio.nu *\n", "Module not found"),
        (f"{HEAD}use ../lib/none.nu [a]\n", "Module not found"),
        ("", "Unknown command: operation"),
    ],
)
def test_what_follows_from_a_missing_module_is_not_told(nu: Nushell, root: Path, use: str, expected: str) -> None:
    write(root, "servers/delete.nu", GOOD.replace("create", "delete").replace('undo: "servers.delete"', ""))
    write(root, "servers/create.nu", GOOD.replace(HEAD, use).replace("^echo", "a"))
    (problem,) = lint(nu, [root])
    assert problem.message.startswith(expected)


def test_a_command_that_is_no_operation_is_named(nu: Nushell, root: Path) -> None:
    plain = "# Greet.\nexport def say-hello [] { }\n"
    for name in ("lib/hello.nu", "providers/hello.nu", "tests/hello.nu", "greetings/hello.nu"):
        write(root, name, plain)
    write(root, "greetings/words.nu", "export const words = [hello]\n")
    assert found(nu, root) == [("greetings/hello.nu", "no-operation", 2, "greetings.hello")]


@pytest.mark.parametrize("domain", ["batch", "wf", "operations", "help", "s", "server"])
def test_a_domain_that_the_command_line_hides(nu: Nushell, root: Path, domain: str) -> None:
    write(root, f"{domain}/create.nu", GOOD)
    write(root, f"{domain}/delete.nu", GOOD.replace("create", "delete").replace("Create", "Delete"))
    assert found(nu, root) == [(f"{domain}/create.nu", "reserved-domain", None, domain)]


@pytest.mark.parametrize("check", ["check", "dry-run"])
def test_an_operation_may_have_its_own_check(nu: Nushell, root: Path, check: str) -> None:
    own = GOOD.replace('"servers.delete"}', f'"servers.delete", check: "{check}"}}')
    own = own.replace("name\n]", f"name\n  --{check} # Only look\n]")
    write(root, "servers/create.nu", own)
    assert lint(nu, [root]) == []


def test_reserved_words_are_those_of_the_command_line() -> None:
    operation = Operation("servers.list", "list-servers", "", "", (), None)
    command = operation_command(operation)
    options = command.get_params(click.Context(command))
    assert {name[2:] for one in options for name in one.opts if name.startswith("--")} == lint_module.RESERVED_PARAMS
    assert {**dict.fromkeys([*NOUNS, "help"]), **ALIASES} == lint_module.RESERVED_DOMAINS
    assert all(singular(domain) not in NOUNS for domain in ("servers", "glass"))


def test_a_root_that_is_a_file_is_named(nu: Nushell, tmp_path: Path) -> None:
    file = write(tmp_path, "create.nu", GOOD)
    with pytest.raises(Refused, match=r"create\.nu is a file, and a folder of operations is wanted"):
        lint(nu, [file])


def test_every_code_is_in_the_table() -> None:
    text = Path(lint_module.__file__).read_text(encoding="utf-8")
    sources = [Path(lint_module.__file__).parent / name for name in ("lint.py", "reader.py", "signature.py")]
    codes = {"nulib-syntax", "operation-name", "operation-command", "operation-key", "operation-type"}
    codes |= {
        "command-name",
        "external-unchecked",
        "external-unmarked",
        "no-operation",
        "param-reserved",
        "reserved-domain",
        "result-type",
        "undocumented",
        "unknown-operation",
    }
    assert all(f"| {code} " in text for code in codes)
    assert all(any(f'"{code}"' in source.read_text(encoding="utf-8") for source in sources) for code in codes)
