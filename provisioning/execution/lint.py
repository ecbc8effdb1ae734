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
| no-operation        | `<domain>/<verb>.nu` exports a command, but none with `@operation`         | there is none    |
| param-reserved      | a flag has the name of an option that every operation command has          | kept             |
| reserved-domain     | the command line has another noun of the domain's name                     | kept             |
| result-type         | no type is declared for the result, or a duration, which JSON turns into a number | kept      |
| undocumented        | a command or a param without a comment                                     | kept             |
| unknown-operation   | `undo` or `probe` names no operation of the tree                           | kept             |
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    operation_name,
    read_operations,
    working_copy,
)
from provisioning.execution.signature import NOT_DOMAINS, OPERATION_FILE, Exported

RESERVED_PARAMS = frozenset(
    {"check", "config", "debug", "help", "json", "max-wait", "orchestrated", "priority", "spool", "wait"}
)
"""Options of every operation command; `check` may be the switch that the operation declares as its own."""
RESERVED_DOMAINS = {
    **dict.fromkeys(
        ("audit", "authority", "batch", "bundle", "completion", "help", "infra", "install", "manifest", "manual")
    ),
    **dict.fromkeys(("operation", "orchestrator", "serve", "spool", "uninstall", "workflow")),
    "bat": "batch",
    "op": "operation",
    "orch": "orchestrator",
    "wf": "workflow",
    "cl": "cluster",
    "i": "infra",
    "s": "server",
    "t": "taskserv",
}
"""Nouns that never lead to a domain of this name, each with what it is short for."""
_EXPORTS = re.compile(rb"^[ \t]*export[ \t]+(?:def|extern)\b", re.MULTILINE)
_DERIVED = ("Unknown command: operation", "Module not found")
"""What nu also says of a file that has another error."""
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
    found += _domain_problems(one.operation for one in declared.values() if one.operation)
    operations = {one.operation.name: one.operation for one in declared.values() if one.operation}
    unloaded = {problem.file for problem in found if problem.code == "nulib-syntax"}
    found += _missing_operations(contents, {*declared, *unloaded})
    for name, one in declared.items():
        line = line_of_declaration(contents[name])
        found += (replace(problem, file=name, line=line) for problem in _declaration_problems(one, operations))
        found += (problem for problem in one.problems if problem.code != "nulib-syntax" or name not in unloaded)
    problems = {replace(problem, file=str(tree.files[problem.file])) for problem in found}
    return sorted(problems, key=lambda problem: (problem.file, problem.line or 0, problem.field, problem.message))


def _file_problems(nu: Path, copy: Path, name: str, source: bytes) -> list[Problem]:
    """What holds for every file: it loads, external commands are marked, and their failures seen."""
    problems = _real_problems(check_file(nu, copy, name, source))
    if problems:
        return problems  # what the file imports is not known then, so every command may look unknown
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


def _real_problems(said: list[Problem]) -> list[Problem]:
    """What nu says against a file, without what follows from something else that it says."""
    for problem in said:
        if problem.message.startswith(("Unclosed delimiter", "Unbalanced delimiter")):
            hint = "close the bracket or the quote that is open on this line or above"
            return [replace(problem, hint=hint)]
    for derived in _DERIVED:
        said = [problem for problem in said if not problem.message.startswith(derived)] or said
    return said


def _missing_operations(contents: Mapping[str, bytes], known: Collection[str]) -> Iterator[Problem]:
    """Files that look like an operation's and hold none."""
    for name, source in contents.items():
        place = OPERATION_FILE.match(name)
        if place is None or place[1] in NOT_DOMAINS or name in known:
            continue
        exported = _EXPORTS.search(source)
        if exported:
            text = "this file exports a command, but no operation"
            hint = "write @operation {} above its export def, or move what operations share to lib/"
            yield Problem("no-operation", text, hint, name, line_at(source, exported.start()), operation_name(name))


def _domain_problems(operations: Iterable[Operation]) -> Iterator[Problem]:
    """Domains that the command line does not reach by their noun; each is told once, at its first file."""
    first = {operation.domain: operation for operation in sorted(operations, key=lambda each: each.name, reverse=True)}
    for domain, operation in first.items():
        noun = domain[:-1] if domain.endswith("s") and not domain.endswith("ss") else domain
        taken = next((word for word in (domain, noun) if word in RESERVED_DOMAINS), None)
        if taken is not None:
            other = RESERVED_DOMAINS[taken]
            text = f"provisioning {taken} is " + (f"short for {other}" if other else "a command of the program itself")
        elif noun == domain and f"{domain}s" in first and not domain.endswith("s"):
            text = f"provisioning {domain} is the noun of the domain {domain}s"
        else:
            continue
        file = f"{domain}/{operation.verb}.nu"
        yield Problem("reserved-domain", text, "give the folder another name", file, field=domain)


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
        option = param.name.replace("_", "-")
        if option in RESERVED_PARAMS and not param.positional and param.name != operation.check:
            text = f"--{option} is an option of every operation command"
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
