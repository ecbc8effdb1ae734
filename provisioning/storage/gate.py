"""What every submission, request and workflow passes, whichever process moves it: who may, and what is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Protocol

from provisioning.core.workflow import Plan, Request, Submission, TaskCheckpoint
from provisioning.errors import Problem, SpoolUnusable


class Gate(Protocol):
    """Asked, and told, before anything happens. Without one nobody is refused and nothing is kept."""

    def refusals(self, submission: Submission, plan: Plan) -> list[Problem]:
        """What speaks against starting the workflow now."""

    def accepting(self, submission: Submission) -> None:
        """It is about to be put into `incoming/`, by another door than the drop folders."""

    def failed(self, submission: Submission) -> None:
        """It could not be put in."""

    def asking(self, request: Request) -> None:
        """It is about to be put into `requests/`."""

    def rejecting(self, submission: Submission, code: str, problems: list[Problem]) -> None:
        """What was accepted is about to be put aside instead of being claimed."""

    def starting(self, submission: Submission) -> None:
        """The workflow is about to be claimed."""

    def waiting(self, workflow_id: str, operator: str, task_id: str) -> None:
        """The workflow is about to be paused until a person says what is to become of that task."""

    def ending(self, workflow_id: str, operator: str, state: str, reason: str) -> None:
        """The workflow is about to end in this state."""

    def attempted(self, operation: str, after: TaskCheckpoint) -> None:
        """The latest attempt of a task has ended, as its checkpoint says by now."""

    def adopted(self, attempt: str) -> None:
        """An attempt that another process began is under way; said again and again while it is."""


@contextlib.contextmanager
def passing(gate: Gate | None, submission: Submission) -> Iterator[None]:
    """Tell the gate of a submission that is being put in, and if it is not then. Drops have their own account."""
    told = gate if submission.door != "drop" else None
    if told:
        told.accepting(submission)
    try:
        yield
    except SpoolUnusable:
        if told:
            told.failed(submission)
        raise
