"""Reads operations with nu: one start for the whole tree, more only where a file has errors.

Everything happens in a copy of the merged tree, so that what nu reads is what the catalogue's digest says.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from provisioning.clock import new_ulid
from provisioning.core.catalogue import Operation
from provisioning.decoding import decoded
from provisioning.errors import Invalid, NushellUnusable, Problem, SpoolUnusable
from provisioning.execution import signature
from provisioning.execution.signature import NOT_DOMAINS, OPERATION_FILE, Exported
from provisioning.storage import files

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ENVIRONMENT = {"PATH": "/dev/null", "HOME": "/dev/null", "LANG": "C.UTF-8", "NO_COLOR": "1"}
"""All that nu gets to start with. Off a terminal it runs whatever `tput` is first on its PATH."""
PLAIN = ("-n", "--no-std-lib")
"""No configuration and no standard library: half the start-up time."""

_TEMPORARY = (Path("/tmp"), Path("/dev/shm"), Path("/var/tmp"))
"""Where a copy is made: in the first that takes it, for on many a host /tmp is full, or read-only."""
_DECLARES = re.compile(rb"^[ \t]*@operation\b", re.MULTILINE)
_READER = """\
scope commands
| where type == "custom" and name =~ '\\Ao[0-9]+( |\\z)'
| each {|command|
    let metadata = $command.attributes | where name == "operation" | each { get value }
    let rest = $command.signatures | values | flatten | where parameter_type == "rest" and parameter_name == ""
    let source = if ($rest | is-empty) { "" } else { view source $command.name }
    {
      name: $command.name
      summary: $command.description
      description: $command.extra_description
      signatures: $command.signatures
      metadata: $metadata
      timeouts: ($metadata | each {|value| try { $value.timeout | describe } catch { "nothing" } })
      rest: ($source | parse --regex '\\.\\.\\.(?<name>[A-Za-z_][A-Za-z0-9_]*)' | get --optional 0.name | default "")
    }
  }
| to json --raw
| print
"""


def run_nu(path: Path, arguments: Sequence[str], *, cwd: Path, timeout_seconds: float = 60) -> CompletedProcess[bytes]:
    """Run nu to its end in an environment built from nothing. OSError if it cannot be executed."""
    import subprocess  # a command that finds everything cached starts nothing

    try:
        return subprocess.run(
            [path, *arguments],
            cwd=cwd,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        text = f"{path} did not answer within {timeout_seconds:g} s"
        raise NushellUnusable(text, hint="see whether it runs by itself, and how busy this host is") from error


@contextlib.contextmanager
def working_copy(contents: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder that is removed afterwards, with the files in its subfolder `tree`."""
    folder = _copy(contents)
    try:
        yield folder
    finally:
        files.remove_tree(folder)


def _copy(contents: Mapping[str, bytes]) -> Path:
    for place in _TEMPORARY[:-1]:
        with contextlib.suppress(OSError, SpoolUnusable):
            return _copy_in(place, contents)
    return _copy_in(_TEMPORARY[-1], contents)


def _copy_in(place: Path, contents: Mapping[str, bytes]) -> Path:
    folder = place / f"provisioning-{new_ulid()}"
    files.make_dir(folder)
    try:
        for name, data in contents.items():
            path = folder / "tree" / name
            files.make_dir(path.parent)
            files.write_new(path, data, durable=False)
    except BaseException:
        files.remove_tree(folder)
        raise
    return folder


@dataclass(frozen=True, slots=True)
class Declared:
    """An operation as it was read, or what is wrong with its file."""

    operation: Operation | None
    exported: Exported | None
    problems: tuple[Problem, ...]


def read_operations(nu: Path, copy: Path, contents: Mapping[str, bytes]) -> dict[str, Declared]:
    """What each file that declares an operation holds, by its path in the tree; problems name that path."""
    declared: dict[str, Declared] = {}
    candidates = []
    for name in sorted(contents):
        if not name.endswith(".nu") or not _DECLARES.search(contents[name]):
            continue
        if OPERATION_FILE.match(name) and name.partition("/")[0] not in NOT_DOMAINS:
            candidates.append(name)
            continue
        text = "this is no place for an operation"
        hint = "an operation is <domain>/<verb>.nu, in lower case, outside lib, providers and tests"
        problem = Problem("operation-name", text, hint, name, line_of_declaration(contents[name]))
        declared[name] = Declared(None, None, (problem,))
    for name, found in _exported(nu, copy, candidates).items():
        if found is None:
            problems = (_syntax_problem(nu, copy, name, contents[name]),)
            declared[name] = Declared(None, None, problems)
        else:
            declared[name] = _declared(name, found, contents[name])
    return declared


def operation_name(path: str) -> str:
    """The operation that the file of the tree holds: `servers/create.nu` is `servers.create`."""
    return path.removesuffix(".nu").replace("/", ".")


def line_of_declaration(source: bytes) -> int | None:
    """The line of the first `@operation`."""
    found = _DECLARES.search(source)
    return line_at(source, found.start()) if found else None


def line_at(source: bytes, offset: int) -> int:
    """The line of the byte."""
    return source.count(b"\n", 0, offset) + 1


def _declared(path: str, commands: list[Exported], source: bytes) -> Declared:
    name = operation_name(path)
    carriers = [command for command in commands if command.metadata]
    try:
        if len(carriers) != 1:
            count = "no exported command carries" if not carriers else f"{len(carriers)} commands carry"
            hint = "a file exports one operation: write @operation above one `export def`"
            raise Invalid([Problem("operation-command", f"{count} @operation", hint, field=name)])
        return Declared(signature.operation(name, carriers[0]), carriers[0], ())
    except Invalid as error:
        line = line_of_declaration(source)
        return Declared(None, None, tuple(replace(problem, file=path, line=line) for problem in error.problems))


def _exported(nu: Path, copy: Path, names: Sequence[str]) -> dict[str, list[Exported] | None]:
    """The exported commands of each file; None for a file with errors, found by halving."""
    if not names:
        return {}
    modules = [f"module o{number} {{ export use tree/{name} * }}\nuse o{number}\n" for number, name in enumerate(names)]
    script = copy / "read.nu"
    files.write_atomic(script, ("".join(modules) + _READER).encode(), durable=False)
    done = run_nu(nu, [*PLAIN, script.name], cwd=copy)
    if done.returncode == 0:
        found: dict[str, list[Exported] | None] = {name: [] for name in names}
        answer = done.stdout.strip().rpartition(b"\n")[2]
        for exported in decoded(answer, list[Exported]):
            commands = found[names[int(exported.name.partition(" ")[0][1:])]]
            assert commands is not None
            commands.append(exported)
        return found
    if len(names) == 1:
        return {names[0]: None}
    half = len(names) // 2
    return _exported(nu, copy, names[:half]) | _exported(nu, copy, names[half:])


def _syntax_problem(nu: Path, copy: Path, path: str, source: bytes) -> Problem:
    field = operation_name(path)
    for problem in check_file(nu, copy, path, source):
        return replace(problem, field=field)
    return Problem("nulib-syntax", "nu cannot load this file", "load it by hand: nu -c 'use FILE'", path, field=field)


def check_file(nu: Path, copy: Path, path: str, source: bytes) -> list[Problem]:
    """What nu says against the file, which is in the copy of the tree."""
    problems = []
    elsewhere = False
    for fact in ide_facts(nu, copy, ["--ide-check", "100"], path):
        if fact.get("type") != "diagnostic":
            continue
        start, end = fact["span"]["start"], fact["span"]["end"]
        if start > len(source):
            elsewhere = True
            continue
        excerpt = source[start : min(end, start + 60)].decode(errors="replace").split("\n")[0].strip()
        text = fact["message"].rstrip(".") + (f": {excerpt}" if excerpt else "")
        problems.append(Problem("nulib-syntax", text, file=path, line=line_at(source, start)))
    if elsewhere and not problems:
        text, hint = "a file that it imports has errors", "see: provisioning operation check"
        problems.append(Problem("nulib-syntax", text, hint, path))
    return problems


def ide_facts(nu: Path, copy: Path, option: Sequence[str], path: str) -> list[dict[str, Any]]:
    """The objects that nu prints about a file for editors, one a line or as one list."""
    done = run_nu(nu, [*PLAIN, *option, f"tree/{path}"], cwd=copy)
    facts: list[dict[str, Any]] = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(msgspec.DecodeError):
            value = msgspec.json.decode(line)
            facts += value if isinstance(value, list) else [value]
    return facts
