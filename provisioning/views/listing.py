"""All workflows of a spool, one row each, from their submissions and workflow checkpoints alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from provisioning.clock import now
from provisioning.core.states import WorkflowState
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.status import (
    DAMAGED,
    REJECTED,
    Rejected,
    ended_tasks,
    rejections,
    shown_counts,
    shown_reason,
    shown_state,
)
from provisioning.views.table import table
from provisioning.views.text import clock_time, instant, spent


def workflow_rows(
    spool: Spool, *, states: frozenset[str] = frozenset(), limit: int | None = None
) -> list[dict[str, Any]]:
    """One page per workflow, newest first; one that is damaged is a row too and stops nothing else."""
    return list(islice((row for row in each_row(spool) if not states or row["state"] in states), limit))


def each_row(spool: Spool) -> Iterator[dict[str, Any]]:
    """The rows of all workflows, newest first, each read when it is asked for."""
    rejected = rejections(spool)
    incoming = {*spool.incoming_ids()}  # first: what is claimed meanwhile is found there
    for workflow_id in sorted({*incoming, *spool.claimed_ids(), *rejected}, reverse=True):
        try:
            aside = rejected.get(workflow_id)
            folder = (
                spool.find(workflow_id) if workflow_id in incoming else WorkflowFolder(spool.workflows / workflow_id)
            )
            yield _present_row(folder) if aside is None else _rejected_row(workflow_id, aside)
        except (FileNotFoundError, NotFound):
            continue  # cleaned up while we looked
        except SpoolUnusable as error:
            yield {"workflow_id": workflow_id, "name": "", "state": DAMAGED, "reason": error.message}


def _present_row(folder: WorkflowFolder) -> dict[str, Any]:
    """The row of a workflow; Damaged where it seems to be queued and nobody could ever claim it."""
    row = _row(folder)
    if row["state"] == WorkflowState.QUEUED:
        folder.refuse_unless_waiting()
    return row


def _rejected_row(workflow_id: str, path: Path) -> dict[str, Any]:
    """The row of what never became a workflow."""
    reason = Rejected(workflow_id, path).problems[0].message
    return {**_row(WorkflowFolder(path)), "workflow_id": workflow_id, "state": REJECTED, "reason": reason}


def _row(folder: WorkflowFolder) -> dict[str, Any]:
    submission = folder.submission()
    checkpoint = folder.workflow()
    row: dict[str, Any] = {
        "workflow_id": folder.workflow_id,
        "name": submission.name,
        "infra": submission.infra,
        "state": shown_state(checkpoint) if checkpoint else str(WorkflowState.QUEUED),
        "reason": shown_reason(folder, checkpoint) if checkpoint else "",
        "operator": submission.operator,
        "priority": submission.priority,
        "submitted_at": instant(submission.submitted_at),
        "started_at": instant(checkpoint.started_at) if checkpoint and checkpoint.started_at else None,
        "ended_at": instant(checkpoint.ended_at) if checkpoint and checkpoint.ended_at else None,
        "tasks": submission.tasks,
        "counts": shown_counts(folder, checkpoint) if checkpoint else {"pending": submission.tasks},
    }
    return row


def list_text(rows: list[dict[str, Any]], *, width: int | None = None) -> str:
    """The rows as a table."""
    cells = []
    moment = now()
    for row in rows:
        if row["state"] == DAMAGED:
            cells.append([row["workflow_id"], "", DAMAGED, "", "", "", row["reason"]])
            continue
        cells.append(
            [
                row["workflow_id"],
                row["name"],
                row["state"],
                f"{ended_tasks(row['counts'])}/{row['tasks']}",
                row["operator"],
                clock_time(row["submitted_at"]),
                spent(row["started_at"], row["ended_at"], moment),
            ]
        )
    return table(cells, ["workflow_id", "name", "state", "ended", "operator", "submitted", "time"], width=width)
