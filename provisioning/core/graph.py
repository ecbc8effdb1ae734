"""The graph of tasks: waves, the longest chain, and what is wrong with it. Linear, and without recursion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from provisioning.core.catalogue import nearest_hint
from provisioning.core.locate import Finding, shown
from provisioning.core.workflow import Plan, Task, Workflow

_HINTS_COMPARED = 50_000
"""So many names at most are compared for hints, or a manifest of nothing but misspellings would take hours."""
_RINGS = 20
"""So many rings at most are named."""


class Graph:
    """Who waits for whom, by number: the tasks in their order, then the groups that somebody waits for.

    A group is what the ids of its tasks begin with: `web.1` and `web.2` are `web`. It is a node of its own between its
    tasks and those that wait for it, so that a thousand that wait for a thousand are two thousand edges.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.size = len(tasks)
        """So many of the nodes are tasks; the others are groups."""
        self.index: dict[str, int] = {}
        """The number of each task, by its id; of two with one id the first."""
        self._members: dict[str, list[int]] = {}
        for i, task in enumerate(tasks):
            self.index.setdefault(task.id, i)
            if "." in task.id:
                for prefix in prefixes(task.id):
                    self._members.setdefault(prefix, []).append(i)
        self.names = [task.id for task in tasks]
        """The names of the nodes; a group may have two."""
        self._nodes: dict[tuple[str, bool], int] = {}
        self.waits: list[list[int]] = []
        """What each node waits for: `j` must have succeeded, `~j` must have ended, however."""
        for task in tasks:
            edges = self._edges(task.depends_on, must=True) if task.depends_on else []
            if task.after:
                known = {*edges}
                edges += [~j for j in self._edges(task.after, must=False) if j not in known]
            self.waits.append(edges)
        for name, must_succeed in self._nodes:  # in the order of their numbers
            self.waits.append([i if must_succeed else ~i for i in self._members[name]])

    def _edges(self, names: Sequence[str], *, must: bool) -> list[int]:
        """The numbers of what a task names, each once; unknown names are left out."""
        found = [j for name in names if (j := self._node(name, must=must)) is not None]
        return found if len(found) < 2 else list(dict.fromkeys(found))

    def _node(self, name: str, *, must: bool) -> int | None:
        """The number of a task, or of a group; None where there is neither."""
        i = self.index.get(name)
        if i is None and name in self._members:
            i = self._nodes.setdefault((name, must), len(self.names))
            if i == len(self.names):
                self.names.append(name)
        return i

    def members(self, name: str) -> Sequence[int]:
        """The tasks of a group, in their order; none where nothing is called so."""
        return self._members.get(name, ())

    def groups(self) -> Iterator[str]:
        """The names of all groups, whether somebody waits for them or not."""
        return iter(self._members)

    @functools.cached_property
    def dependents(self) -> list[list[int]]:
        """The same edges from the other end: whom each node lets go on, `~j` where it may have ended in any way."""
        found: list[list[int]] = [[] for _ in self.names]
        for i, edges in enumerate(self.waits):
            for j in edges:
                if j >= 0:
                    found[j].append(i)
                else:
                    found[~j].append(~i)
        return found

    @functools.cached_property
    def order(self) -> list[int]:
        """The nodes, each behind those it waits for; what is in a ring, or behind one, is not among them."""
        waits = [len(edges) for edges in self.waits]
        order = [i for i, count in enumerate(waits) if not count]
        dependents = self.dependents
        for i in order:
            for edge in dependents[i]:
                j = edge if edge >= 0 else ~edge
                waits[j] -= 1
                if not waits[j]:
                    order.append(j)
        return order

    def behind(self, task_ids: Iterable[str]) -> set[str]:
        """These tasks, and all that wait for one of them, directly or through others."""
        found = {self.index[task_id] for task_id in task_ids}
        dependents = self.dependents if found else []
        todo = list(found)
        while todo:
            new = {edge if edge >= 0 else ~edge for edge in dependents[todo.pop()]} - found
            found |= new
            todo += new
        return {self.names[i] for i in found if i < self.size}

    def backwards(self, chosen: Sequence[int], names: Sequence[str]) -> Graph:
        """The graph in which the chosen tasks, by these names, come after those that wait for them, however these end.

        All the others are nodes behind them, which end by themselves and pass the order on.
        """
        found = Graph(())
        number = {i: k for k, i in enumerate(chosen)}
        others = [i for i in range(len(self.names)) if i not in number]
        number |= {i: k for k, i in enumerate(others, len(chosen))}
        found.size = len(chosen)
        found.index = {name: k for k, name in enumerate(names)}
        found.names = [*names, *(self.names[i] for i in others)]
        found.waits = [
            [~number[edge if edge >= 0 else ~edge] for edge in self.dependents[i]] for i in (*chosen, *others)
        ]
        return found

    def depths(self) -> list[int]:
        """The number of tasks on the longest chain that leads to each node, itself counted if it is a task."""
        depths = [0] * len(self.names)
        for i in self.order:
            before = max((depths[j if j >= 0 else ~j] for j in self.waits[i]), default=0)
            depths[i] = before + (i < self.size)
        return depths


def prefixes(task_id: str) -> list[str]:
    """The groups that a task is in, by its id: `web.eu.1` is in `web` and in `web.eu`."""
    parts = task_id.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def waves(workflow: Workflow) -> list[list[str]]:
    """The tasks' ids by depth: those of a wave wait only for earlier ones."""
    graph = Graph(workflow.tasks)
    depths = graph.depths()
    found: list[list[str]] = [[] for _ in range(max(depths[: graph.size], default=0))]
    for i in range(graph.size):
        found[depths[i] - 1].append(graph.names[i])
    return found


def critical_path(workflow: Workflow) -> list[str]:
    """The chain of tasks that wait for each other and are expected to take longest together, first to last.

    Of several, the first in the file.
    """
    graph = Graph(workflow.tasks)
    ends = expected(workflow.tasks) + [0.0] * (len(graph.names) - graph.size)
    for i in graph.order:
        ends[i] += max((ends[j if j >= 0 else ~j] for j in graph.waits[i]), default=0.0)
    path: list[str] = []
    node = max(range(graph.size), key=ends.__getitem__, default=None)
    while node is not None:
        if node < graph.size:
            path.append(graph.names[node])
        before = (j if j >= 0 else ~j for j in graph.waits[node])
        node = max(before, key=ends.__getitem__, default=None)
    return path[::-1]


def expected(tasks: Sequence[Task]) -> list[float]:
    """The expected seconds of each task; the mean of those that are known, or 1, where nobody has said any."""
    known = [task.expected_seconds for task in tasks if task.expected_seconds is not None]
    mean = sum(known) / len(known) if known else 1.0
    return [mean if task.expected_seconds is None else task.expected_seconds for task in tasks]


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
    """What is wrong with who waits for whom, by the numbers of the tasks."""
    graph = Graph(tasks)
    for index, task in enumerate(tasks):
        if task.id and graph.index[task.id] != index:
            hint = "give every task its own id"
            yield Finding("duplicate-id", f"another task is called {shown(task.id)}", hint, ("tasks", index, "id"))
        elif task.id and graph.members(task.id):
            message, hint = f"other tasks are called {shown(task.id)} and more", "that is the name of all of them"
            yield Finding("duplicate-id", message, hint, ("tasks", index, "id"))
    yield from _unknown_names(tasks, graph)
    if len(graph.order) < len(graph.names):
        yield from _ring_findings(tasks, graph)


def _unknown_names(tasks: Sequence[Task], graph: Graph) -> Iterator[Finding]:
    offer = sparing(lambda name: nearest_hint(name, [*graph.index, *graph.groups()]), len(graph.index))
    for index, task in enumerate(tasks):
        for key, names in (("depends_on", task.depends_on), ("after", task.after)):
            path = ("tasks", index, key)
            for name in names:
                if name == task.id:
                    yield Finding("self-dependency", f"{shown(name)} waits for itself", "remove it", path)
                elif name not in graph.index and not graph.members(name):
                    hint = offer(name) or "name a task of this manifest"
                    yield Finding("unknown-dependency", f"no task is called {shown(name)}", hint, path)


def _ring_findings(tasks: Sequence[Task], graph: Graph) -> Iterator[Finding]:
    waits: dict[str, list[str]] = {name: [] for name in graph.names if name}
    for name, edges in zip(graph.names, graph.waits, strict=True):
        if name:
            others = (graph.names[j if j >= 0 else ~j] for j in edges)
            waits[name] += [other for other in others if other and other != name]
    for found in _rings(waits):
        # A ring of groups alone cannot be: whoever waits for one is a task.
        first = next(at for at, name in enumerate(found) if name in graph.index)
        ring = found[first:] + found[:first]
        named = [*ring, ring[0]] if len(ring) <= 20 else [*ring[:10], f"({len(ring) - 19} more)", *ring[-9:], ring[0]]
        index = graph.index[ring[0]]
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
