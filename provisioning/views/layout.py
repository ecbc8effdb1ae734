"""Places for the nodes of a graph in layers, so that few edges cross and most are straight.

The usual method (Sugiyama's) in its simplest parts: nodes of long edges in between, the order of a layer by the mean
of its neighbours, and places that are as near to those means as the distances allow. No library fits: grandalf is under
the GPL or EPL and no longer kept up, fast-sugiyama is young and a compiled module of one author, Graphviz is a program
to install, and ELK and dagre would be scripts in the page.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

SWEEPS = 8
MOST_BENDS = 4000
"""With more nodes in between, edges are drawn straight through."""


class Layout(NamedTuple):
    """Where things are: along the layers in steps of one, and across them in steps of one."""

    across: list[float]
    """The place of each node in its layer, from 0."""
    bends: dict[tuple[int, int], list[float]]
    """Of each edge from a layer to one that is not the next, its place in each layer between."""
    width: float
    """The last place that is taken, across."""


def layout(layers: Sequence[int], edges: Sequence[tuple[int, int]]) -> Layout:
    """Places for nodes whose layers are given. An edge that does not lead to a later layer has no part in it."""
    rows: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for node, layer in enumerate(layers):
        rows[layer].append(node)
    above: list[list[int]] = [[] for _ in layers]
    below: list[list[int]] = [[] for _ in layers]
    chains: dict[tuple[int, int], list[int]] = {}
    forward = [(a, b) for a, b in edges if layers[a] < layers[b]]
    if sum(layers[b] - layers[a] - 1 for a, b in forward) > MOST_BENDS:
        forward = [(a, b) for a, b in forward if layers[b] - layers[a] == 1]
    for a, b in forward:
        chain = [a]
        for layer in range(layers[a] + 1, layers[b]):
            chain.append(len(above))
            above.append([])
            below.append([])
            rows[layer].append(chain[-1])
        chain.append(b)
        for upper, lower in itertools.pairwise(chain):
            below[upper].append(lower)
            above[lower].append(upper)
        if len(chain) > 2:
            chains[a, b] = chain[1:-1]
    _order(rows, above, below)
    at = _places(rows, above, below)
    least = min(at, default=0.0)
    at = [place - least for place in at]
    bends = {edge: [at[node] for node in chain] for edge, chain in chains.items()}
    return Layout(at[: len(layers)], bends, max(at, default=0.0))


def _order(rows: list[list[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> None:
    """Sort each row by the mean place of its neighbours, down and up in turn; the order that crosses least."""
    place = {node: float(i) for row in rows for i, node in enumerate(row)}
    best, fewest = [list(row) for row in rows], _crossings(rows, below, place)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            key = {node: _mean([place[other] for other in near[node]], place[node]) for node in row}
            row.sort(key=key.__getitem__)
            place.update((node, float(i)) for i, node in enumerate(row))
        if (crossings := _crossings(rows, below, place)) < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best


def _crossings(rows: Sequence[Sequence[int]], below: Sequence[Sequence[int]], place: dict[int, float]) -> int:
    """How many edges between neighbouring rows cross: inversions, counted by a tree of sums."""
    crossings = 0
    for row, next_row in itertools.pairwise(rows):
        ends = [int(place[lower]) for upper in row for lower in sorted(below[upper], key=place.__getitem__)]
        tree = [0] * (len(next_row) + 1)
        for seen, end in enumerate(ends):
            i, before = end + 1, 0
            while i:
                before += tree[i]
                i &= i - 1
            crossings += seen - before
            i = end + 1
            while i < len(tree):
                tree[i] += 1
                i += i & -i
    return crossings


def _places(
    rows: Sequence[Sequence[int]], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]
) -> list[float]:
    """A place for each node, in the order of its row and at least one from the next, near to its neighbours' mean."""
    at = [0.0] * len(above)
    for row in rows:
        for i, node in enumerate(row):
            at[node] = i - (len(row) - 1) / 2
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            near = above if down else below
            wanted = [_mean([at[other] for other in near[node]], at[node]) for node in row]
            for node, place in zip(row, _spread(wanted), strict=True):
                at[node] = place
    return at


def _spread(wanted: Sequence[float]) -> list[float]:
    """The places nearest to those wanted, by the sum of squares, each at least one behind the one before."""
    blocks: list[tuple[float, int]] = []  # of neighbours that touch: the mean of what they want, and how many they are
    for i, place in enumerate(wanted):
        mean, count = place - i, 1
        while blocks and blocks[-1][0] > mean:
            before, size = blocks.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    return [mean + i for i, mean in enumerate(flat)]


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
