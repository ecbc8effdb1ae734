"""What runs attempts: the request for one, the news of them, and the protocol of whatever runs them."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from math import ceil
from typing import Any, NamedTuple, Protocol

import msgspec

from provisioning.clock import boottime
from provisioning.core.workflow import OutcomeRecord, TaskError
from provisioning.storage.limits import Wanted

HEED_SECONDS = 0.05
"""So long news is heeded alone, before everything else is looked at again: that costs as much as an attempt."""


class Key(NamedTuple):
    """The identity of an attempt, everywhere and after every restart."""

    workflow_id: str
    task_id: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.workflow_id}/{self.task_id}/{self.attempt}"


class AttemptRequest(msgspec.Struct, frozen=True):
    """All that a worker must know to run an attempt."""

    key: Key
    argv: tuple[str, ...]
    """The Nushell process: absolute path, options, entry."""
    environment: dict[str, str]
    """The whole environment of that process."""
    task_environment: dict[str, str]
    """What the entry adds to it: what belongs to the task, and the real PATH."""
    params: dict[str, Any]
    result_schema: dict[str, Any] | None
    timeout_seconds: float | None
    grace_seconds: float
    """Between TERM and KILL."""
    log_bytes: int
    result_bytes: int
    wanted: tuple[Wanted, ...] = ()
    """The targets and groups that it must hold."""
    refusal: TaskError | None = None
    """Why the operation cannot be called: the attempt fails of it, and no process is started."""
    credentials: dict[str, str] = {}
    """By param, the name of the secret that takes its place."""
    credentials_folder: str = ""


class Ahead(NamedTuple):
    """A process to be started before its attempt is known."""

    argv: tuple[str, ...]
    environment: dict[str, str]


class Seen(StrEnum):
    """What is known of an attempt."""

    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"
    NOT_STARTED = "not_started"
    """Nothing of it has happened."""


class News(NamedTuple):
    """Something that happened to an attempt."""

    key: Key
    seen: Seen
    record: OutcomeRecord | None = None
    """The outcome, without the result, which is in its file; None when the attempt is lost."""
    problem: str = ""


class Executor(Protocol):
    """Runs attempts. No call blocks."""

    descriptor: int
    """Readable when there is news."""

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        """Choose the worker of an attempt, best one where such a process waits; its name goes into the checkpoint.

        Without `argv` the attempt cannot have a process that was started before.
        """

    def start(self, request: AttemptRequest) -> None:
        """Begin the attempt in the worker that was assigned."""

    def withdraw(self, key: Key) -> None:
        """The attempt will not be started after all."""

    def cancel(self, key: Key) -> None:
        """End the attempt: TERM to its process group, KILL after its grace, then whatever still holds its log."""

    def free_slots(self) -> int:
        """Room for so many more attempts."""

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """Have processes wait for the attempts that will probably be made next, the likeliest first."""

    def news(self) -> Iterable[News]:
        """What has happened since the last call."""

    def trim(self, now: float) -> float | None:
        """End workers idle for long, continue those that are overdue; the boottime at which to call again."""

    def close(self) -> None:
        """Let go of all workers. Those that run an attempt finish it and end by themselves."""


class Remote(Executor, Protocol):
    """An executor whose attempts go on elsewhere: whoever works the spool next sees them through by the same means."""

    @property
    def busy(self) -> bool:
        """Whether an attempt is under way."""

    def adopt(self, key: Key, worker: str, wanted: Sequence[Wanted]) -> None:
        """See an attempt through that was begun before, by what its checkpoint says of its worker.

        There will be news of it, whatever has become of it. What it wants is held from now on where that can be had.
        """


class Waited(Protocol):
    """What can be waited for."""

    descriptor: int


def wait_for_news(executor: Waited, others: Sequence[int], seconds: float, heed: Callable[[], bool]) -> list[int]:
    """Sleep until the executor has news, one of the descriptors is readable or the time is over; which of `others` are.

    News is heeded at once, and does not end the sleep while `heed` says that more will come, for HEED_SECONDS at most.
    Callers look for news themselves: there may be some at any time.
    """
    poll = select.poll()
    for descriptor in (executor.descriptor, *others):
        poll.register(descriptor, select.POLLIN)
    until = boottime() + seconds
    while True:
        ready = {descriptor for descriptor, _ in poll.poll(ceil(max(0.0, until - boottime()) * 1000))}
        if ready != {executor.descriptor} or (this := boottime()) >= until or not heed():
            return [descriptor for descriptor in others if descriptor in ready]
        until = min(until, this + HEED_SECONDS)
