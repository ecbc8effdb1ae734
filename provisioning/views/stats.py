"""What the workflows of a spool came to: by operation and by name of the workflow, from their files alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from provisioning.core.rollback import is_undo
from provisioning.core.states import Outcome
from provisioning.core.workflow import Attempt
from provisioning.errors import SpoolUnusable
from provisioning.storage.spool import Spool
from provisioning.views.table import table

Stats = dict[str, Any]


def percentile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least that share of all does not exceed (nearest rank); None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


class _Operation:
    """The attempts of one operation."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.seconds: list[float] = []

    def add(self, attempt: Attempt) -> None:
        if attempt.outcome is None:
            return
        self.outcomes[str(attempt.outcome)] += 1
        if attempt.error is not None and attempt.outcome in (Outcome.FAILED, Outcome.TIMED_OUT):
            self.codes[attempt.error.code] += 1
        if attempt.ended_at is not None and attempt.outcome is not Outcome.NOT_STARTED:
            self.seconds.append((attempt.ended_at - attempt.started_at).total_seconds())


def stats(spool: Spool, *, since: datetime | None = None, name: str | None = None) -> Stats:
    """Counts, failures by code, durations and waits, of the workflows submitted since then, with that name.

    What cannot be read is counted as `unreadable`.
    """
    operations: dict[str, _Operation] = defaultdict(_Operation)
    states: dict[str, Counter[str]] = defaultdict(Counter)
    waits: dict[str, list[float]] = defaultdict(list)
    took: dict[str, list[float]] = defaultdict(list)
    unreadable = 0
    for workflow_id in spool.claimed_ids():
        folder = spool.workflow(workflow_id)
        try:
            submission, checkpoint, plan = folder.submission(), folder.workflow(), folder.plan()
            if (since and submission.submitted_at < since) or (name and submission.name != name) or not plan:
                continue
            known = {task.id: task for task in plan.workflow.tasks}
            for task in folder.tasks():
                undo = known[task.task_id.removesuffix("~undo")].undo if is_undo(task.task_id) else None
                operation = undo.operation if undo else known[task.task_id.removesuffix("~undo")].operation
                for attempt in task.attempts:
                    operations[operation].add(attempt)
        except (SpoolUnusable, FileNotFoundError, KeyError):
            unreadable += 1
            continue
        states[submission.name][str(checkpoint.state) if checkpoint else "queued"] += 1
        if checkpoint and checkpoint.started_at:
            waits[submission.name].append((checkpoint.started_at - submission.submitted_at).total_seconds())
            if checkpoint.ended_at:
                took[submission.name].append((checkpoint.ended_at - checkpoint.started_at).total_seconds())
    return {
        "operations": {
            each: {
                "attempts": sum(found.outcomes.values()),
                "outcomes": dict(sorted(found.outcomes.items())),
                "failures": dict(found.codes.most_common()),
                "seconds": _quantiles(found.seconds),
            }
            for each, found in sorted(operations.items())
        },
        "workflows": {
            each: {
                "states": dict(sorted(found.items())),
                "seconds": _quantiles(took[each]),
                "queue_wait_seconds": _quantiles(waits[each]),
            }
            for each, found in sorted(states.items())
        },
        "unreadable": unreadable,
    }


def _quantiles(values: list[float]) -> dict[str, float | None]:
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95)}


def stats_text(found: Stats, *, width: int | None = None) -> str:
    """The same, for people."""
    operations = []
    for name, each in found["operations"].items():
        failures = ", ".join(f"{count} {code}" for code, count in list(each["failures"].items())[:3])
        good = each["outcomes"].get("succeeded", 0)
        seconds = each["seconds"]
        operations.append(
            [name, str(each["attempts"]), str(good), _said(seconds["p50"]), _said(seconds["p95"]), failures]
        )
    workflows = []
    for name, each in found["workflows"].items():
        states = ", ".join(f"{count} {state}" for state, count in each["states"].items())
        seconds, wait = each["seconds"], each["queue_wait_seconds"]
        row = [_said(seconds["p50"]), _said(seconds["p95"]), _said(wait["p50"]), _said(wait["p95"])]
        workflows.append([name, *row, states])
    head = ["workflow", "p50", "p95", "wait p50", "wait p95", "ended as"]
    parts = [table(operations, ["operation", "attempts", "succeeded", "p50", "p95", "failures"], width=width)]
    parts.append(table(workflows, head, width=width))
    if found["unreadable"]:
        parts.append(f"{found['unreadable']} workflows cannot be read; see: provisioning spool check")
    return "\n\n".join(parts)


def _said(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.0f} s"
