"""What the thread that watches Slurm is told, and what it knows of each attempt."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.slurm.commands import Job
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.shared import AttemptFolder


class Begin(NamedTuple):
    """Queue an attempt."""

    request: AttemptRequest


class Follow(NamedTuple):
    """See an attempt through that has been begun."""

    key: Key
    worker: str


class Cancel(NamedTuple):
    """End an attempt."""

    key: Key


class Stop(NamedTuple):
    """Let go of everything."""


class Submitted(NamedTuple):
    """A submission has come back."""

    key: Key
    problem: str


class Listed(NamedTuple):
    """The queue as it was after `asked_at`; None where Slurm does not say."""

    asked_at: float
    jobs: dict[str, Job] | None
    problem: str = ""


class Told(NamedTuple):
    """A cancel has come back."""

    key: Key


class Probed(NamedTuple):
    """The submission of a probe to so many nodes has come back."""

    job: str
    nodes: int
    problem: str = ""


class Broken(NamedTuple):
    """An errand has ended as none may: nothing more is known of what it was sent for."""

    problem: str


Note = Begin | Follow | Cancel | Stop | Submitted | Listed | Told | Probed | Broken


@dataclass
class Followed:
    """An attempt, as far as it is known."""

    key: Key
    folder: AttemptFolder
    into: WorkflowFolder
    job: str
    own: bool
    """Whether this spool has begun it; of what a copy of the spool has, nothing is changed."""
    sought: bool = False
    """Whether it is still to be found out what became of what another process has begun, or may not have."""
    order: bytes = b""
    """Still to be put into its folder."""
    digest: str = ""
    """Of the operations that it needs there."""
    cancelled: bool = False
    telling: bool = False
    """Whether Slurm is being told to end it."""
    queued_at: float = -inf
    """The boottime of the last answer to a submission; infinite while there is none."""
    tries: int = 0
    again_at: float = 0.0
    waits: bool = False
    """Whether it was in the queue, and had not begun, when last looked."""
    sign: tuple[int, int] = (0, 0)
    quiet_since: float | None = None
    problem: str = ""
    """Why its last submission was refused."""
    reason: str = ""
    """Why it does not run."""
