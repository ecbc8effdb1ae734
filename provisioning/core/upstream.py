"""What tasks refer to of others: whether these are sure to have succeeded, and to return what is asked of them."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from provisioning.core.catalogue import Catalogue, nearest_hint
from provisioning.core.graph import Graph, prefixes
from provisioning.core.locate import Finding, shown
from provisioning.core.references import BadReference, Reference, clash, named, schema_at, value_at
from provisioning.core.tokens import Path
from provisioning.core.workflow import Task

_AT_ONCE = 2048
"""So many tasks that are referred to are looked for in one pass over the graph."""


def words_of(reference: str) -> Reference:
    """A reference as `Task.references` has it, by its words."""
    return tuple(reference.split("."))


def split(reference: Reference, graph: Graph) -> tuple[tuple[str, ...], Reference]:
    """The words that name one task or several, and those that lead into their results."""
    ends = [end for end in range(2, len(reference)) if reference[end] == "result"]
    if not ends:
        hint = f"write ${{tasks.{'.'.join(reference[1:2]) or 'web'}.result}}, and what of it"
        raise BadReference(f"{named(reference)} names no result of a task", hint)
    known = (end for end in ends if _is_known(reference[1:end], graph))
    end = next(known, ends[0])
    return reference[1:end], reference[end + 1 :]


def _is_known(words: tuple[str, ...], graph: Graph) -> bool:
    name = ".".join(words)
    return "*" in words or name in graph.index or bool(graph.members(name))


def matching(words: tuple[str, ...], graph: Graph) -> Sequence[int]:
    """The tasks that are named, by their numbers; a last `*` stands for whatever is behind the name."""
    name = ".".join(words)
    if "*" not in words:
        if name in graph.index:
            return [graph.index[name]]
        if many := graph.members(name):
            hint = f"name one, such as {graph.names[many[0]]}, or all: {name}.*"
            raise BadReference(f"{shown(name)} is {len(many)} tasks", hint)
        hint = nearest_hint(name[:64], graph.index) or "name a task of this manifest"
        raise BadReference(f"no task is called {shown(name)}", hint)
    first = words.index("*")
    members = graph.members(".".join(words[:first]))
    if words[first:] == ("*",):
        found = members
    else:
        found = [i for i in members if _fits(graph.names[i].split("."), words)]
    if not found:
        raise BadReference(
            f"no task is called like {shown(name)}", "name what a for_each makes, if it makes anything: web.*"
        )
    return found


def _fits(parts: list[str], words: tuple[str, ...]) -> bool:
    if words[-1] == "*" and len(parts) > len(words):
        parts = parts[: len(words)]
    return len(parts) == len(words) and all(word in ("*", part) for word, part in zip(words, parts, strict=True))


def reference_findings(tasks: Sequence[Task], catalogue: Catalogue | None) -> Iterator[Finding]:
    """What is wrong with the references in a graph that is sound, by the numbers of the tasks."""
    referring = [index for index, task in enumerate(tasks) if task.references or task.when]
    if not referring:
        return
    graph = Graph(tasks)
    results = _Results(tasks, catalogue)
    wanted: dict[int, dict[int, str]] = defaultdict(dict)
    for index in referring:
        for text in (*tasks[index].references, *_condition(tasks[index])):
            reference = words_of(text)
            if reference[0] != "tasks":
                continue
            try:
                words, rest = split(reference, graph)
                targets = matching(words, graph)
                results.check(tasks[index], reference, targets, rest, many="*" in words)
            except BadReference as error:
                yield Finding("bad-reference", error.message, error.hint, _place(tasks, index, text))
                continue
            for target in targets:
                wanted[index].setdefault(target, text)
    told: set[tuple[int, str]] = set()
    for index, target in _not_upstream(graph, wanted):
        name, text = graph.names[target], wanted[index][target]
        if (index, text) in told:
            continue
        told.add((index, text))
        message = f"${{{text}}} is of {shown(name)}, which may not have succeeded when this task starts"
        yield Finding("bad-reference", message, f"add {name} to depends_on", _place(tasks, index, text))


def _place(tasks: Sequence[Task], index: int, text: str) -> Path:
    """Where the reference is: in a task's params, or in its condition."""
    return ("tasks", index, "when" if text in _condition(tasks[index]) else "params")


def _condition(task: Task) -> list[str]:
    """What a task's condition refers to."""
    return [f"tasks.{task.when.task}.{task.when.path}"] if task.when else []


class _Results:
    """What operations return, against what is asked of it."""

    def __init__(self, tasks: Sequence[Task], catalogue: Catalogue | None) -> None:
        self._tasks = tasks
        self._catalogue = catalogue
        self._schema = functools.cache(self._find)

    def check(self, task: Task, reference: Reference, targets: Sequence[int], rest: Reference, *, many: bool) -> None:
        """BadReference where an operation cannot return it, or where it cannot be the param that it is."""
        if self._catalogue is None:
            return
        whole = [name for name, value in task.params.items() if value == named(reference)]
        taking = self._catalogue.operations.get(task.operation)
        for operation in {self._tasks[target].operation for target in targets}:
            schema = self._schema(operation, rest)
            if schema is None:
                continue
            given: Mapping[str, Any] = {"type": "array", "items": schema} if many else schema
            for param in taking.params if taking and whole else ():
                if param.name in whole and clash(given, param.schema):
                    message = f"{named(reference)} is {_kind(given)}, and {param.name} takes {_kind(param.schema)}"
                    raise BadReference(message, "refer to a part of it, or write it into a text")

    def _find(self, operation: str, rest: Reference) -> dict[str, Any] | None:
        """The schema of that part of an operation's result; None where the operation is not known."""
        assert self._catalogue is not None
        found = self._catalogue.operations.get(operation)
        if found is None:
            return None
        if found.result_schema is None:
            raise BadReference(f"{operation} returns nothing", "refer to a task that has a result")
        return schema_at(found.result_schema, rest, ("tasks", "…", "result", *rest))


def _kind(schema: Mapping[str, Any]) -> str:
    return str(schema.get("type", "any of several types"))


def _not_upstream(graph: Graph, wanted: Mapping[int, Mapping[int, str]]) -> Iterator[tuple[int, int]]:
    """Of the tasks that each refers to, those that it does not wait for the success of, directly or through others."""
    far: dict[int, list[int]] = defaultdict(list)
    for index, targets in wanted.items():
        must = {graph.names[j] for j in graph.waits[index] if j >= 0}
        for target in targets:
            if must.isdisjoint((graph.names[target], *prefixes(graph.names[target]))):
                far[target].append(index)
    order = graph.order if far else []
    listed = list(far)
    for start in range(0, len(listed), _AT_ONCE):
        bits = {target: 1 << k for k, target in enumerate(listed[start : start + _AT_ONCE])}
        before = [0] * len(graph.names)
        for i in order:
            found = 0
            for j in graph.waits[i]:
                if j >= 0:
                    found |= before[j]
            before[i] = found | bits.get(i, 0)
        for target, bit in bits.items():
            yield from ((index, target) for index in far[target] if not before[index] & bit or index == target)


def results_of(reference: str, graph: Graph, result: Any) -> Any:
    """The value of a reference to tasks; `result(task_id)` gives the result of one that has succeeded."""
    words = words_of(reference)
    of, rest = split(words, graph)
    values = [value_at(result(graph.names[i]), rest, words) for i in matching(of, graph)]
    return values if "*" in of else values[0]
