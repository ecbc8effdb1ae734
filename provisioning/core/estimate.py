"""How long a workflow will still take, as far as anybody can know: from the durations of what has ended before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from provisioning.core.graph import Graph
from provisioning.core.states import ENDED_TASKS, TaskState

OVERDUE = 0.1
"""A task that has run for longer than expected counts with this share of what was expected."""


def seconds_left(
    graph: Graph, states: Sequence[TaskState], seconds: Sequence[float], elapsed: Mapping[int, float], slots: int
) -> float:
    """So many seconds until the last task ends, if each takes as long as expected and nothing fails.

    Never less than what the longest chain of tasks needs, nor than all their work shared by `slots` at once. `seconds`
    are expected of each task and `elapsed` has passed of those that run, both by the task's number.
    """
    left = [0.0] * len(graph.names)
    for i in range(graph.size):
        if states[i] is TaskState.RUNNING:
            left[i] = max(seconds[i] - elapsed.get(i, 0.0), OVERDUE * seconds[i])
        elif states[i] not in ENDED_TASKS:
            left[i] = seconds[i]
    work = sum(left)
    dependents = graph.dependents
    for i in reversed(graph.order):
        left[i] += max((left[j if j >= 0 else ~j] for j in dependents[i]), default=0.0)
    return max(max(left, default=0.0), work / max(1, slots))


def expected_seconds(
    given: Sequence[float | None], operations: Sequence[str], measured: Mapping[str, tuple[int, float]]
) -> list[float] | None:
    """What is expected of each task: what is given, else the mean of its operation so far, else the mean of all others.

    `measured` has count and sum of the seconds of each operation's attempts that succeeded. None where nobody knows
    anything.
    """
    means = {name: total / count for name, (count, total) in measured.items() if count}
    known = [means.get(name) if at is None else at for at, name in zip(given, operations, strict=True)]
    said = [each for each in known if each is not None]
    if not said:
        return None
    mean = sum(said) / len(said)
    return [mean if each is None else each for each in known]
