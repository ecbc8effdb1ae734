"""A schedule that knows how long tasks take ends nearly as soon as any could."""

from __future__ import annotations

from provisioning.core.graph import critical_path, expected
from provisioning.core.workflow import Task, Workflow
from tests.benchmark.makespan import above_bound, measured, simulated, worse_than_in_turn


def test_schedules_of_layered_graphs_end_within_a_percent_of_the_soonest() -> None:
    spans = measured(graphs=30)
    assert all(each.scheduled >= each.bound * (1 - 1e-9) for each in spans), "no schedule beats the bound"
    assert above_bound(spans) < 0.01
    assert worse_than_in_turn(spans) < 0.01


def sized(**seconds: float | None) -> Workflow:
    return Workflow("sized", tuple(Task(name, "selftest.noop", expected_seconds=s) for name, s in seconds.items()))


def test_the_longest_task_starts_first() -> None:
    """3 + 1 beside 2 + 2 is 4 s in two slots; in the order of the manifest it would be 5."""
    assert simulated(sized(a=1.0, b=2.0, c=2.0, d=3.0), slots=2) == 4.0


def test_a_task_that_nobody_knows_counts_as_the_mean_of_the_others() -> None:
    assert expected(sized(a=1.0, b=None, c=5.0).tasks) == [1.0, 3.0, 5.0]
    assert expected(sized(a=None, b=None).tasks) == [1.0, 1.0]


def test_the_critical_path_is_the_one_that_takes_longest_not_the_one_with_most_tasks() -> None:
    chain = (Task("a", "o", expected_seconds=1.0), Task("b", "o", depends_on=("a",), expected_seconds=1.0))
    assert critical_path(Workflow("w", (*chain, Task("slow", "o", expected_seconds=5.0)))) == ["slow"]
    assert critical_path(Workflow("w", (*chain, Task("quick", "o", expected_seconds=1.5)))) == ["a", "b"]
