"""What `provisioning operation check` finds in a nulib tree. Every file is looked at, `tests/` apart.

| code                | what is wrong                                                              | the operation is |
|---------------------|----------------------------------------------------------------------------|------------------|
| nulib-syntax        | nu cannot load the file                                                    | left out         |
| operation-name      | a file that declares an operation is not `<domain>/<verb>.nu`              | left out         |
| operation-command   | not exactly one exported command carries `@operation`, or it wants input   | left out         |
| operation-key       | a key of `@operation` is unknown, has a wrong value, or names no param     | left out         |
| operation-type      | a param or the result has a type that JSON cannot carry                    | left out         |
| command-name        | the command's name does not contain the verb                               | kept             |
| external-unchecked  | an external command is piped into one that does not see that it failed      | kept             |
| external-unmarked   | a command that nu does not know, written without `^`: misspelt, mostly     | kept             |
| param-reserved      | a param has the name of an option that every operation command has         | kept             |
| result-type         | no type is declared for the result, or a duration, which JSON turns into a number | kept      |
| undocumented        | a command or a param without a comment                                     | kept             |
| unknown-operation   | `undo` or `probe` names no operation of the tree                           | kept             |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from provisioning.core.catalogue import Operation, nearest_hint
from provisioning.errors import Problem
from provisioning.execution.nushell import Nushell, sweep
from provisioning.execution.reader import (
    Declared,
    check_file,
    ide_facts,
    line_at,
    line_of_declaration,
    read_operations,
    working_copy,
)
from provisioning.execution.signature import Exported

RESERVED_PARAMS = frozenset({"help", "json", "orchestrated", "wait"})
"""Options of every operation command of the command line."""
_UNCHECKED = re.compile(
    rb"""(?: [^;{}()\n|'"] | "[^"\n]*" | '[^'\n]*' | \([^()\n]*\) )*  # the command and its arguments
    \n?[ \t]*\|\s*
    (\^ | (?:any|all|each|enumerate|first|from\ [cst]sv|ignore|is-empty|is-not-empty|last|length|lines|par-each
            |reduce|skip|str\ join|take|where)\b)""",
    re.VERBOSE,
)
"""An external command and what follows in its pipeline, where that reads a stream: measured with Nushell 0.115.1."""


def lint(nu: Nushell, roots: Sequence[Path]) -> list[Problem]:
    """Every problem of the merged tree, by file and line."""
    tree = sweep(roots)
    contents = tree.contents()
    found: list[Problem] = []
    with working_copy(contents) as copy:
        declared = read_operations(nu.path, copy, contents)
        for name, source in contents.items():
            if name.endswith(".nu"):
                found += _file_problems(nu.path, copy, name, source)
    operations = {one.operation.name: one.operation for one in declared.values() if one.operation}
    unloaded = {problem.file for problem in found if problem.code == "nulib-syntax"}
    for name, one in declared.items():
        line = line_of_declaration(contents[name])
        found += (replace(problem, file=name, line=line) for problem in _declaration_problems(one, operations))
        found += (problem for problem in one.problems if problem.code != "nulib-syntax" or name not in unloaded)
    problems = {replace(problem, file=str(tree.files[problem.file])) for problem in found}
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.field, problem.message))


def _file_problems(nu: Path, copy: Path, name: str, source: bytes) -> list[Problem]:
    """What holds for every file: it loads, external commands are marked, and their failures seen."""
    problems = check_file(nu, copy, name, source)
    for fact in ide_facts(nu, copy, ["--ide-ast"], name):
        start = fact["span"]["start"]
        if fact["shape"] != "shape_external":
            continue
        if source[start - 1 : start] == b"^":
            problems += _pipe_problems(name, source, start)
            continue
        hint = f"correct the name, or write ^{fact['content']} for an external command"
        text = f"nu knows no command {fact['content']!r}"
        problems.append(Problem("external-unmarked", text, hint, name, line_at(source, start)))
    return problems


def _pipe_problems(name: str, source: bytes, start: int) -> list[Problem]:
    """A failing external command is only noticed where all of its output is collected first."""
    found = _UNCHECKED.match(source, start)
    if found is None:
        return []
    text = f"a failure of this command is lost in the pipe to {found[1].decode()}"
    hint = "write | collect behind the command, or look at its exit code with | complete"
    return [Problem("external-unchecked", text, hint, name, line_at(source, start))]


def _declaration_problems(declared: Declared, operations: Mapping[str, Operation]) -> Iterator[Problem]:
    """What holds for operations: their names, comments, types, and the operations they point to."""
    operation, exported = declared.operation, declared.exported
    if operation is None or exported is None:
        return
    field = operation.name
    if operation.verb not in operation.command:
        text = f"the command {operation.command} does not contain the verb of its file"
        yield Problem("command-name", text, f"name it like {operation.verb}-…", field=field)
    if not operation.summary:
        yield Problem("undocumented", "no comment says what it does", "write one above @operation", field=field)
    for param in operation.params:
        if not param.description:
            text = f"no comment says what {param.name} is"
            yield Problem("undocumented", text, "write one behind the param, after a #", field=field)
        if param.name in RESERVED_PARAMS:
            text = f"--{param.name} is an option of every operation command"
            yield Problem("param-reserved", text, "give the param another name", field=field)
    yield from _result_problems(exported, field)
    for key, target in (("undo", operation.undo), ("probe", operation.probe)):
        if target is not None and target not in operations:
            text = f"{key} names {target}, which is not there"
            yield Problem("unknown-operation", text, nearest_hint(target, operations), field=field)


def _result_problems(exported: Exported, field: str) -> Iterator[Problem]:
    hint = "declare `]: nothing -> <type of the result>`"
    signature = exported.signatures.get("nothing")
    if signature is None:
        yield Problem("result-type", "no type is declared for the result", hint, field=field)
        return
    shapes = " ".join(facts["syntax_shape"] for facts in signature if facts["parameter_type"] == "output")
    if "duration" in shapes:
        text = "a duration in the result becomes a number of nanoseconds"
        yield Problem("result-type", text, "return seconds, and say so in the name", field=field)
