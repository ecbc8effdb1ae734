"""A worker process of a simulated host, and what its attempts leave in the trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from provisioning.core.states import Outcome
from provisioning.core.workflow import OutcomeRecord
from provisioning.execution.executor import AttemptRequest, Key, News
from provisioning.storage import files
from provisioning.storage.room import Room


class Begin(NamedTuple):
    """An attempt began its work."""

    key: Key
    boot: int


class End(NamedTuple):
    """Nothing of the attempt lives any more; its outcome, if it was published."""

    key: Key
    outcome: Outcome | None


@dataclass
class Worker:
    """A worker process and the attempt that it runs."""

    name: str
    pid: int
    scratch: files.Scratch | None = None
    room: Room | None = None
    request: AttemptRequest | None = None
    log: int | None = None
    targets: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """The descriptor that holds what the attempt wants, which it has inherited."""
    alive: bool = True
    begun: bool = False
    cancelled: bool = False
    stubborn: bool = False
    """What it runs ends only by KILL."""
    record: OutcomeRecord | None = None
    """How its attempt ended, once it has."""
    news: Callable[[News], None] = field(default=lambda news: None)
    """Its pipe to the executor."""

    @property
    def key(self) -> Key:
        assert self.request is not None
        return self.request.key
