"""Workflows that could not be taken or worked: why, and when each is tried again. Nothing else stops for them."""

from __future__ import annotations

import logging

from provisioning.errors import SpoolUnusable
from provisioning.storage.checkpoint import Damaged

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""Between two tries to take a workflow that could not be taken."""


def refused_by_disk(error: Exception) -> bool:
    """Whether the file system refused, which concerns every workflow; a damaged file concerns its own."""
    return isinstance(error, SpoolUnusable) and isinstance(error.__cause__, OSError) and not isinstance(error, Damaged)


class Complaints:
    """What one process has to say of workflows that it cannot work."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        """The latest error of each."""
        self._again_at: dict[str, float] = {}

    def add(self, workflow_id: str, error: Exception, boottime: float) -> None:
        """Take note of an error; it is logged once in a while."""
        if not self.silences(workflow_id, boottime):
            _log.error("workflow %s: %s", workflow_id, error)
        self._again_at[workflow_id] = boottime + AGAIN_SECONDS
        self.errors[workflow_id] = error

    def silences(self, workflow_id: str, boottime: float) -> bool:
        """Whether it is too soon to try the workflow again."""
        return self._again_at.get(workflow_id, 0.0) > boottime

    def forget(self, workflow_id: str) -> None:
        """The workflow can be worked."""
        self._again_at.pop(workflow_id, None)
        self.errors.pop(workflow_id, None)
