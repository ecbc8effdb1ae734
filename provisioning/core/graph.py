"""The graph of tasks: waves, the longest chain, and what is wrong with it. Linear, and without recursion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from provisioning.core.catalogue import nearest_hint
from provisioning.core.locate import Finding, shown
from provisioning.core.workflow import Plan, Task, Workflow

_HINTS_COMPARED = 50_000
"""So many names at most are compared for hints, or a manifest of nothing but misspellings would take hours."""
_RINGS = 20
"""So many rings at most are named."""


def waves(workflow: Workflow) -> list[list[str]]:
    """The tasks' ids by depth: those of a wave wait only for earlier ones."""
    return _waves(_waits(workflow.tasks))


def critical_path(workflow: Workflow) -> list[str]:
    """The chain of tasks that wait for each other and are expected to take longest together, first to last.

    Of several, the first in the file.
    """
    waits = _waits(workflow.tasks)
    ends = dict(zip(waits, expected(workflow.tasks), strict=True))
    for name in (name for wave in _waves(waits) for name in wave):
        ends[name] += max((ends[other] for other in waits[name]), default=0.0)
    path = [max(waits, key=ends.__getitem__)]
    while others := waits[path[-1]]:
        path.append(max(others, key=ends.__getitem__))
    return path[::-1]


def expected(tasks: Sequence[Task]) -> list[float]:
    """The expected seconds of each task; the mean of those that are known, or 1, where nobody has said any."""
    known = [task.expected_seconds for task in tasks if task.expected_seconds is not None]
    mean = sum(known) / len(known) if known else 1.0
    return [mean if task.expected_seconds is None else task.expected_seconds for task in tasks]


def _waits(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Whom each task waits for, in the order of the file; unknown ones and itself left out."""
    waits: dict[str, list[str]] = {task.id: [] for task in tasks if task.id}
    for task in tasks:
        if task.id:
            waits[task.id] += [name for name in task.depends_on + task.after if name in waits and name != task.id]
    return waits


def _waves(waits: Mapping[str, Sequence[str]]) -> list[list[str]]:
    sorter = TopologicalSorter(waits)
    sorter.prepare()
    found = []
    while sorter.is_active():
        found.append(list(sorter.get_ready()))
        sorter.done(*found[-1])
    return found


def _rings(waits: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Rings that share no task, each from its first task in the file on; at least one wherever there is one."""
    rest = dict(waits)
    for _ in range(_RINGS):
        try:
            TopologicalSorter({name: [other for other in rest[name] if other in rest] for name in rest}).prepare()
            return
        except CycleError as error:
            found = set(error.args[1])
            ring: list[str] = error.args[1][:0:-1]
        first = ring.index(next(name for name in waits if name in found))
        yield ring[first:] + ring[:first]
        rest = {name: others for name, others in rest.items() if name not in found}


def graph_findings(tasks: Sequence[Task]) -> Iterator[Finding]:
    first: dict[str, int] = {}
    for index, task in enumerate(tasks):
        if task.id and first.setdefault(task.id, index) != index:
            hint = "give every task its own id"
            yield Finding("duplicate-id", f"another task is called {shown(task.id)}", hint, ("tasks", index, "id"))
    offer = sparing(lambda name: nearest_hint(name, first), len(first))
    for index, task in enumerate(tasks):
        for key, names in (("depends_on", task.depends_on), ("after", task.after)):
            path = ("tasks", index, key)
            for name in names:
                if name == task.id:
                    yield Finding("self-dependency", f"{shown(name)} waits for itself", "remove it", path)
                elif name not in first:
                    hint = offer(name) or "name a task of this manifest"
                    yield Finding("unknown-dependency", f"no task is called {shown(name)}", hint, path)
    for ring in _rings(_waits(tasks)):
        named = [*ring, ring[0]] if len(ring) <= 20 else [*ring[:10], f"({len(ring) - 19} more)", *ring[-9:], ring[0]]
        index = first[ring[0]]
        key = "depends_on" if ring[1] in tasks[index].depends_on else "after"
        message = f"these tasks wait for each other: {' → '.join(named)}"
        yield Finding("cycle", message, "remove one of these dependencies", ("tasks", index, key))


def contradictions(plan: Plan) -> Iterator[str]:
    """What in a plan, each part of which is well formed, does not go together. One that was made has none."""
    tasks = plan.workflow.tasks
    if not tasks:
        yield "it has no task"
    for finding in graph_findings(tasks):
        yield finding.message
    for task in tasks:
        operation = plan.operations.get(task.operation)
        if operation is None:
            yield f"task {shown(task.id)} names operation {shown(task.operation)}, which is not in it"
        elif task.on_interrupt == "probe" and operation.probe not in plan.operations:
            yield f"task {shown(task.id)} asks a probe, and that of {shown(task.operation)} is not in it"


def sparing(ask: Callable[[str], str], size: int) -> Callable[[str], str]:
    """`ask` once for each name, and not for ever: comparing names costs more than all else."""
    left = iter(range(max(5, _HINTS_COMPARED // max(1, size))))
    return functools.cache(lambda name: ask(name[:64]) if next(left, None) is not None else "")
