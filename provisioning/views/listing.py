"""All workflows of a spool, one row each, from their submissions and workflow checkpoints alone."""

from __future__ import annotations

from typing import Any

from provisioning.clock import now
from provisioning.core.states import WorkflowState
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage.spool import Spool
from provisioning.views.status import shown_state
from provisioning.views.table import table
from provisioning.views.text import clock_time, instant, spent

_OVER = ("succeeded", "failed", "cancelled", "skipped")


def workflow_rows(
    spool: Spool, *, states: frozenset[str] = frozenset(), limit: int | None = None
) -> list[dict[str, Any]]:
    """One page per workflow, newest first; one that is damaged is a row too and stops nothing else."""
    rows: list[dict[str, Any]] = []
    for workflow_id in reversed(spool.workflow_ids()):
        if limit is not None and len(rows) >= limit:
            break
        try:
            row = _row(spool, workflow_id)
        except (FileNotFoundError, NotFound):
            continue  # cleaned up while we looked
        except SpoolUnusable as error:
            row = {"workflow_id": workflow_id, "name": "", "state": "damaged", "reason": error.message}
        if not states or row["state"] in states:
            rows.append(row)
    return rows


def _row(spool: Spool, workflow_id: str) -> dict[str, Any]:
    folder = spool.find(workflow_id)
    submission = folder.submission()
    checkpoint = folder.workflow()
    row: dict[str, Any] = {
        "workflow_id": workflow_id,
        "name": submission.name,
        "infra": submission.infra,
        "state": shown_state(checkpoint) if checkpoint else str(WorkflowState.QUEUED),
        "reason": checkpoint.reason if checkpoint else "",
        "operator": submission.operator,
        "priority": submission.priority,
        "submitted_at": instant(submission.submitted_at),
        "started_at": instant(checkpoint.started_at) if checkpoint and checkpoint.started_at else None,
        "ended_at": instant(checkpoint.ended_at) if checkpoint and checkpoint.ended_at else None,
        "tasks": submission.tasks,
        "counts": dict(checkpoint.counts) if checkpoint else {"pending": submission.tasks},
    }
    return row


def list_text(rows: list[dict[str, Any]], *, width: int | None = None) -> str:
    """The rows as a table."""
    cells = []
    moment = now()
    for row in rows:
        if row["state"] == "damaged":
            cells.append([row["workflow_id"], "", "damaged", "", "", "", row["reason"]])
            continue
        over = sum(row["counts"].get(state, 0) for state in _OVER)
        cells.append(
            [
                row["workflow_id"],
                row["name"],
                row["state"],
                f"{over}/{row['tasks']}",
                row["operator"],
                clock_time(row["submitted_at"]),
                spent(row["started_at"], row["ended_at"], moment),
            ]
        )
    return table(cells, ["workflow_id", "name", "state", "ended", "operator", "submitted", "time"], width=width)
