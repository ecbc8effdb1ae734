"""All workflows of a spool that have not ended, as they go on; those that come meanwhile too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage.active import active_ids
from provisioning.storage.spool import Spool
from provisioning.views.listing import workflow_rows
from provisioning.views.status import DAMAGED, OVER, REJECTED, Page, Rejected, find
from provisioning.views.watching import SETTLED_SECONDS, WatchedWorkflow


class Overview:
    """Looks at every workflow once, then only at those that had not ended, and at what has come since.

    A workflow that waits to be claimed costs a name in a list, as long as it waits.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._watched: dict[str, WatchedWorkflow | None] = {}
        """Those that have not ended; None for one that was queued when it was looked at last."""
        self._over: set[str] = set()
        for row in workflow_rows(spool):
            if row["state"] in OVER:
                self._over.add(row["workflow_id"])
            else:
                self._watched[row["workflow_id"]] = None
        self._queued: set[str] = set()
        self._claimed_at = -1
        """When the folder of claimed workflows was last changed, as far as its changes are known; in ns."""

    def watched(self) -> set[str]:
        """Those that have not ended, as of the last look."""
        return {*self._watched}

    def news(self, slots: int = 1) -> Iterator[Page]:
        """A page of each that has not ended, as `WatchedWorkflow.news` has it, and a last one when it has.

        One whose files cannot be read any more is left out from then on, with a page that says so.
        """
        incoming = {*self._spool.incoming_ids()}
        for workflow_id in active_ids(self._spool.root):
            if workflow_id in self._over and self._goes_on(workflow_id):
                self._over.discard(workflow_id)
        for workflow_id in sorted((incoming | {*self._claimed()}) - self._over):
            self._watched.setdefault(workflow_id, None)
        for workflow_id in sorted(self._watched):
            if workflow_id in incoming and workflow_id in self._queued:
                continue
            page = self._page(workflow_id, slots)
            if page is None:
                continue
            if page["state"] in OVER:
                self._forget(workflow_id)
            yield page
        self._queued = incoming

    def last_line(self, workflow_id: str, task_id: str, attempt: int) -> str:
        """The last line of an attempt's log so far; empty of a workflow that is not watched."""
        watched = self._watched.get(workflow_id)
        return watched.last_line(task_id, attempt) if watched else ""

    def _page(self, workflow_id: str, slots: int) -> Page | None:
        """Its page; None of one that is gone."""
        try:
            folder = find(self._spool, workflow_id)
            watched = self._watched[workflow_id]
            if watched is None or watched.folder.path != folder.path:
                self._watched[workflow_id] = watched = WatchedWorkflow(folder)
            return watched.news(slots)
        except Rejected as error:
            return _last(workflow_id, REJECTED, error.problems[0].message)
        except FileNotFoundError:  # claimed or removed while we read: the next look finds out
            return None
        except NotFound:
            self._forget(workflow_id)
            return None
        except SpoolUnusable as error:
            self._forget(workflow_id)
            return _last(workflow_id, DAMAGED, error.message)

    def _claimed(self) -> list[str]:
        """All that were claimed, if one has been since the last look: one may begin and end between two looks."""
        changed_at = os.stat(self._spool.workflows).st_mtime_ns
        if changed_at == self._claimed_at:
            return active_ids(self._spool.root)
        settled = time.time_ns() - changed_at > SETTLED_SECONDS * 1e9
        self._claimed_at = changed_at if settled else -1
        return self._spool.claimed_ids()

    def _goes_on(self, workflow_id: str) -> bool:
        """Whether one that had ended was asked to go on."""
        try:
            checkpoint = self._spool.workflow(workflow_id).workflow()
        except SpoolUnusable:
            return False
        return checkpoint is not None and str(checkpoint.state) not in OVER

    def _forget(self, workflow_id: str) -> None:
        self._watched.pop(workflow_id, None)
        self._over.add(workflow_id)


def _last(workflow_id: str, state: str, reason: str) -> Page:
    """The page of what cannot be shown as a workflow."""
    facts: Page = {"name": "", "started_at": None, "ended_at": None, "held": [], "counts": {}, "tasks": []}
    return {"workflow_id": workflow_id, "state": state, "reason": reason, **facts, "ends_at": None}
