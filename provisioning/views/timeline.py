"""When the attempts of a workflow ran, in as few rows as ran at once; and which chain of tasks took longest."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from provisioning.core.graph import Graph
from provisioning.views.status import Page


class Bar(NamedTuple):
    """One attempt."""

    task_id: str
    attempt: int
    outcome: str
    """`running` of one that has not ended."""
    begin: float
    """Seconds since the workflow's start."""
    end: float


class Link(NamedTuple):
    """A task on the chain that took longest."""

    task_id: str
    waited: float
    """Seconds between the end of the task before, or the workflow's start, and its first attempt."""
    took: float
    """Seconds from its first attempt to the end of its last, pauses between them included."""


class Timeline(NamedTuple):
    """All attempts, in rows in which none overlaps another."""

    seconds: float
    """From the workflow's start to its end, or to now."""
    rows: list[list[Bar]]
    chain: list[Link]


def timeline(page: Page, graph: Graph, now: datetime) -> Timeline:
    """The attempts of a page, undos included. A row is a slot as anybody can tell: the first that was free."""
    bars = []
    start = min(
        (_instant(each["started_at"]) for task in page["tasks"] for each in _attempts(task)),
        default=_instant(page["started_at"]) if page["started_at"] else now,
    )
    if page["started_at"]:
        start = min(start, _instant(page["started_at"]))
    for task in page["tasks"]:
        bars += [_bar(task["task_id"], each, start, now) for each in task["attempts"]]
        undone = task.get("undo", {}).get("attempts", ())
        bars += [_bar(f"{task['task_id']}~undo", each, start, now) for each in undone]
    over = _instant(page["ended_at"]) if page["ended_at"] else now
    ended = max([bar.end for bar in bars], default=0.0)
    seconds = max(ended, (over - start).total_seconds() if page["started_at"] else 0.0)
    return Timeline(seconds, _rows(bars), _chain(page["tasks"], graph, start, now))


def _attempts(task: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*task["attempts"], *task.get("undo", {}).get("attempts", ())]


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _bar(name: str, attempt: Mapping[str, Any], start: datetime, now: datetime) -> Bar:
    begin = (_instant(attempt["started_at"]) - start).total_seconds()
    ended = _instant(attempt["ended_at"]) if attempt["ended_at"] else now
    end = max(begin, (ended - start).total_seconds())  # a clock may have been set back
    return Bar(name, attempt["attempt"], attempt["outcome"] or "running", begin, end)


def _rows(bars: Sequence[Bar]) -> list[list[Bar]]:
    rows: list[list[Bar]] = []
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    for bar in sorted(bars, key=lambda bar: (bar.begin, bar.end, bar.task_id)):
        while busy and busy[0][0] <= bar.begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            row = heapq.heappop(free)
        else:
            row = len(rows)
            rows.append([])
        rows[row].append(bar)
        heapq.heappush(busy, (bar.end, row))
    return rows


def _chain(tasks: Sequence[Mapping[str, Any]], graph: Graph, start: datetime, now: datetime) -> list[Link]:
    """From the task that ended last back to the one, of those it waited for, that had ended last, and so on."""
    spans: dict[int, tuple[float, float]] = {}
    for task in tasks:
        i = graph.index.get(task["task_id"])
        if i is not None and task["attempts"]:
            first, last = task["attempts"][0], task["attempts"][-1]
            spans[i] = _bar("", first, start, now).begin, _bar("", last, start, now).end
    links: list[Link] = []
    i = max(spans, key=lambda k: spans[k][1], default=None)
    while i is not None:
        before = max((j for j in _waits(graph, i) if j in spans), key=lambda k: spans[k][1], default=None)
        free_at = spans[before][1] if before is not None else 0.0
        links.append(Link(graph.names[i], max(0.0, spans[i][0] - free_at), spans[i][1] - spans[i][0]))
        i = before
    return links[::-1]


def _waits(graph: Graph, i: int) -> list[int]:
    """The tasks that a task waits for, those of its groups included."""
    nodes = [edge if edge >= 0 else ~edge for edge in graph.waits[i]]
    members = [list(graph.members(graph.names[j])) if j >= graph.size else [j] for j in nodes]
    return [j for each in members for j in each]
