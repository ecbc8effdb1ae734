"""The graph of a workflow as few enough nodes to be looked at: tasks, or groups of them where there are many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

from provisioning.core.graph import Graph, prefixes
from provisioning.core.workflow import Task

MOST_NODES = 120
"""More cannot be told apart on a screen."""


class Node(NamedTuple):
    """One task, or several that are drawn as one."""

    name: str
    detail: str
    """The operation, or what the tasks have in common."""
    tasks: tuple[int, ...]
    """By their numbers."""


class Edge(NamedTuple):
    """Node `target` waits for node `source`, both by their numbers."""

    source: int
    target: int
    must_succeed: bool


class Shape(NamedTuple):
    """What is to be drawn."""

    nodes: list[Node]
    edges: list[Edge]
    layers: list[int]
    """Of each node, behind how many others it comes at least."""
    collapsed: str
    """How tasks were drawn together, as a sentence; empty where each is a node."""


def shape_of(tasks: Sequence[Task], graph: Graph, most: int = MOST_NODES) -> Shape:
    """The nodes: each task; else those of one `for_each` together; else those of one depth and operation; else ranges.

    However large the workflow, there are no more than `most`.
    """
    depths = graph.depths()
    deepest = max(depths, default=0)
    groups = Counter(prefixes(task.id)[0] for task in tasks if "." in task.id)

    def grouped(i: int) -> Hashable:
        prefix = tasks[i].id.partition(".")[0]
        return prefix if groups[prefix] > 1 else i

    ways: list[tuple[str, Callable[[int], Hashable]]] = [
        ("", lambda i: i),
        ("Tasks of one for_each are drawn as one node.", grouped),
        (
            "Tasks of one operation and depth are drawn as one node.",
            lambda i: (depths[i], tasks[i].operation),
        ),
        ("Tasks of one depth are drawn as one node.", lambda i: depths[i]),
        ("Tasks of neighbouring depths are drawn as one node.", lambda i: depths[i] * most // (deepest + 1)),
    ]
    chosen: dict[Hashable, list[int]] = {}
    said = ""
    for text, key in ways:
        said = text
        chosen = {}
        for i in range(len(tasks)):
            chosen.setdefault(key(i), []).append(i)
        if len(chosen) <= most:
            break
    nodes = [_node(tasks, members, depths) for members in chosen.values()]
    home = {i: k for k, members in enumerate(chosen.values()) for i in members}
    edges = _edges(graph, home)
    return Shape(nodes, edges, _layers(nodes, edges, depths), said)


def _node(tasks: Sequence[Task], members: Sequence[int], depths: Sequence[int]) -> Node:
    first = tasks[members[0]]
    if len(members) == 1:
        return Node(first.id, first.operation, (members[0],))
    operations = {tasks[i].operation for i in members}
    detail = first.operation if len(operations) == 1 else f"{len(operations)} operations"
    prefix = {tasks[i].id.partition(".")[0] for i in members}
    if len(prefix) == 1:
        return Node(f"{prefix.pop()}.*", detail, tuple(members))
    low, high = min(depths[i] for i in members), max(depths[i] for i in members)
    return Node(f"depth {low}" if low == high else f"depths {low} to {high}", detail, tuple(members))


def _edges(graph: Graph, home: Mapping[int, int]) -> list[Edge]:
    """The edges between nodes, each once; what is known only by a group is drawn from its tasks."""
    found: dict[tuple[int, int], bool] = {}
    groups = {j: {home[k] for k in graph.members(graph.names[j])} for j in range(graph.size, len(graph.names))}
    for i in range(graph.size):
        for edge in graph.waits[i]:
            j = edge if edge >= 0 else ~edge
            for source in (groups[j] if j in groups else {home[j]}) - {home[i]}:
                found[source, home[i]] = found.get((source, home[i]), False) or edge >= 0
    return [Edge(source, target, must) for (source, target), must in sorted(found.items())]


def _layers(nodes: Sequence[Node], edges: Sequence[Edge], depths: Sequence[int]) -> list[int]:
    """The longest way to each node. Tasks that are drawn as one may wait for each other in a ring: an edge that leads
    to what begins earlier does not count.
    """
    rank = [(min(depths[i] for i in node.tasks), k) for k, node in enumerate(nodes)]
    behind: dict[int, list[int]] = {}
    for edge in edges:
        if rank[edge.source] < rank[edge.target]:
            behind.setdefault(edge.target, []).append(edge.source)
    layers = [0] * len(nodes)
    for k in sorted(range(len(nodes)), key=rank.__getitem__):
        layers[k] = max((layers[j] + 1 for j in behind.get(k, ())), default=0)
    return layers


def states_of(node: Node, states: Sequence[str]) -> dict[str, int]:
    """How many of a node's tasks are in which state."""
    return dict(Counter(states[i] for i in node.tasks).most_common())
