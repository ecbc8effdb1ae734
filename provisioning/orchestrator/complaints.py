"""Workflows that could not be taken or worked: why, and when each is tried again. Nothing else stops for them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from provisioning.core.workflow import InvalidTransition
from provisioning.errors import ProvisioningError
from provisioning.storage.checkpoint import Damaged
from provisioning.storage.trees import TreesLeaving

_log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""Between two tries to take a workflow that could not be taken."""


FAULTS = (ProvisioningError, InvalidTransition, OSError, ValueError, TypeError, LookupError, ArithmeticError)
"""What a file that is not what it must be can lead to, wherever in the work on its workflow it shows."""
_OF_THE_HOST = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)


def concerns_all(error: Exception) -> bool:
    """Whether it is no matter of one workflow: disk or kernel refused, or nothing can be planned right now."""
    if isinstance(error, TreesLeaving):
        return True
    cause = error if isinstance(error, OSError) else error.__cause__
    return not isinstance(error, Damaged) and isinstance(cause, OSError) and cause.errno in _OF_THE_HOST


OnFailure = Callable[[str, Exception | None], object]
"""Told of each workflow that did not end well, and with the error of each that cannot be worked."""


class Complaints:
    """What one process has to say of workflows that did not end well, or that it cannot work."""

    def __init__(self, on_failure: OnFailure | None = None) -> None:
        self._on_failure = on_failure
        self.failed = False
        """Whether there was one."""
        self.errors: dict[str, Exception] = {}
        """The latest error of each."""
        self._again_at: dict[str, float] = {}
        self._told: set[str] = set()

    def add(self, workflow_id: str, error: Exception, boottime: float) -> None:
        """Take note of an error. It is logged, and the same one once in a while."""
        said = str(self.errors.get(workflow_id, ""))
        if self.silences(workflow_id, boottime) and str(error) == said:
            return
        _log.error("workflow %s: %s", workflow_id, error)
        if not said:
            self.note_failure(workflow_id, error)
        self._again_at[workflow_id] = boottime + AGAIN_SECONDS
        self.errors[workflow_id] = error

    def note_failure(self, workflow_id: str, error: Exception | None = None) -> None:
        """Take note of a workflow that did not end well."""
        self.failed = True
        if self._on_failure is not None:
            self._on_failure(workflow_id, error)

    def tell(self, text: str) -> None:
        """Log what is wrong with something that is no workflow, once."""
        if text not in self._told:
            self._told.add(text)
            _log.error("%s", text)

    def silences(self, workflow_id: str, boottime: float) -> bool:
        """Whether it is too soon to try the workflow again."""
        return self._again_at.get(workflow_id, 0.0) > boottime

    def forget(self, workflow_id: str) -> None:
        """The workflow can be worked."""
        self._again_at.pop(workflow_id, None)
        self.errors.pop(workflow_id, None)
