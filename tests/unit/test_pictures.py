"""The pictures of a workflow: nothing lies over anything else, and however large it is they stay small."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.core.graph import Graph
from provisioning.core.workflow import Task
from provisioning.views.graph_shape import MOST_NODES, shape_of
from provisioning.views.layout import layout
from provisioning.views.svg import merged, ticks
from provisioning.views.timeline import Bar, timeline
from tests.unit.test_report import at, span

# The graph.


def tasks_of(edges: list[tuple[int, int]], count: int) -> tuple[Task, ...]:
    waits: dict[int, list[str]] = {}
    for a, b in edges:
        waits.setdefault(max(a, b), []).append(f"t{min(a, b)}")
    return tuple(Task(f"t{i}", "x.y", depends_on=tuple(dict.fromkeys(waits.get(i, ())))) for i in range(count))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_nodes_never_overlap_and_come_behind_what_they_wait_for(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 25))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] != pair[1])
    tasks = tasks_of(data.draw(st.lists(pairs, max_size=40)), count)
    shape = shape_of(tasks, Graph(tasks))
    edges = [(edge.source, edge.target) for edge in shape.edges]
    placed = layout(shape.layers, edges)
    assert all(shape.layers[a] < shape.layers[b] for a, b in edges)
    for layer in set(shape.layers):
        row = sorted(placed.across[k] for k in range(count) if shape.layers[k] == layer)
        assert all(b - a > 0.999 for a, b in itertools.pairwise(row))
    assert min(placed.across) > -0.001
    assert max(placed.across) <= placed.width + 0.001
    assert placed == layout(shape.layers, edges)  # the same graph is always drawn the same


def test_edges_that_need_not_cross_do_not() -> None:
    layers, edges = [0, 0, 0, 1, 1, 1], [(0, 5), (1, 4), (2, 3)]
    across = layout(layers, edges).across
    assert [across[0], across[1], across[2]] == [across[5], across[4], across[3]]


@pytest.mark.parametrize("kind", ["wide", "deep", "groups", "layers", "ring"])
def test_however_many_tasks_there_are_the_graph_stays_small(kind: str) -> None:
    many: dict[str, Iterator[Task]] = {
        "wide": (Task(f"t{i}", "x.y") for i in range(5000)),
        "deep": (Task(f"t{i}", "x.y", depends_on=(f"t{i - 1}",) if i else ()) for i in range(5000)),
        "groups": (
            Task(f"g{i % 50}.{i}", "x.y", depends_on=(f"g{i % 50 - 1}",) if i % 50 else ()) for i in range(5000)
        ),
        "layers": (Task(f"t{i}", f"x.y{i % 3}", depends_on=(f"t{i - 500}",) if i >= 500 else ()) for i in range(5000)),
        "ring": (
            Task(f"{'ab'[i % 2]}.{i}", "x.y", depends_on=(f"{'ab'[(i - 1) % 2]}.{i - 1}",) if i else ())
            for i in range(500)
        ),
    }
    tasks = tuple(many[kind])
    shape = shape_of(tasks, Graph(tasks))
    assert 1 <= len(shape.nodes) <= MOST_NODES
    assert sum(len(node.tasks) for node in shape.nodes) == len(tasks)
    assert shape.collapsed
    layout(shape.layers, [(edge.source, edge.target) for edge in shape.edges])


# The timeline.


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_attempts_of_one_row_never_overlap_and_there_are_no_more_rows_than_ran_at_once(
    spans: list[tuple[int, int]],
) -> None:
    tasks = tuple(Task(f"t{i}", "x.y") for i in range(len(spans)))
    shown = [{"task_id": f"t{i}", "attempts": [span(a, a + took)]} for i, (a, took) in enumerate(spans)]
    line = timeline({"tasks": shown, "started_at": None, "ended_at": None}, Graph(tasks), at(1000))
    assert sum(map(len, line.rows)) == len(spans)
    for row in line.rows:
        assert all(a.end <= b.begin for a, b in itertools.pairwise(row))
    at_once = max(sum(a <= x < a + max(took, 0.5) for a, took in spans) for x, _ in spans)
    assert len(line.rows) <= at_once


def test_the_chain_that_took_longest_is_followed_back_through_groups() -> None:
    tasks = (
        Task("a", "x.y"),
        Task("g.1", "x.y", depends_on=("a",)),
        Task("g.2", "x.y"),
        Task("z", "x.y", depends_on=("g",)),
    )
    shown = [
        {"task_id": "a", "attempts": [span(0, 2)]},
        {"task_id": "g.1", "attempts": [span(3, 4), span(5, 9, 2)]},
        {"task_id": "g.2", "attempts": [span(0, 8)]},
        {"task_id": "z", "attempts": [span(9, 10)]},
    ]
    page = {"tasks": shown, "started_at": at(-1).isoformat(), "ended_at": at(10).isoformat()}
    line = timeline(page, Graph(tasks), at(99))
    assert [(link.task_id, link.waited, link.took) for link in line.chain] == [
        ("a", 1.0, 2.0),
        ("g.1", 1.0, 6.0),
        ("z", 0.0, 1.0),
    ]
    assert line.seconds == 11.0


def test_bars_that_are_too_narrow_are_drawn_together() -> None:
    row = [Bar(f"t{i}", 1, "succeeded" if i != 50 else "failed", i * 0.01, i * 0.01 + 0.005) for i in range(100)]
    runs = merged(row, 1.0, set())
    assert [len(run) for run in runs] == [50, 1, 49]
    assert len(merged(row, 1.0, {"t20"})) == 5
    assert len(merged(row, 0.001, set())) == 100


@given(st.floats(0.001, 1e9))
def test_an_axis_has_round_and_few_instants(seconds: float) -> None:
    found = ticks(seconds)
    assert found[0] == 0.0
    assert 1 <= len(found) <= 9
    assert found[-1] <= seconds
