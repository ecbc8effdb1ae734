"""A host whose orchestrator and workers run in this process, and end at any write of theirs that a test names.

All of it is the program's own: only the clock, Nushell (a shell that runs its entries) and the pool are made here. A
worker's locks are on open files of their own, so they exclude the orchestrator as those of a process would.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import pytest

from provisioning.clock import boot_id, boottime, new_ulid, now
from provisioning.config import Bounds, Config, Environment, Paths
from provisioning.config import Orchestrator as OrchestratorSettings
from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.scheduler import Now
from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import FORMAT, OutcomeRecord, Task, TaskCheckpoint, Workflow, WorkflowCheckpoint
from provisioning.execution.nulib import Nulib
from provisioning.execution.nushell import Nushell
from provisioning.orchestrator import claim, loop, recovery, requests
from provisioning.orchestrator.loop import Orchestrator
from provisioning.orchestrator.retention import Cleanup, Rule
from provisioning.storage import checkpoint, files, reading
from provisioning.storage.check import check
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.logs import open_attempt_log
from provisioning.storage.room import Room
from provisioning.storage.spool import Spool
from tests.crash.family import Family
from tests.crash.hands import OPERATIONS, Hands, ShellNulib
from tests.simulation.values import submission

STEPS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (files, ("write_atomic", "move", "remove", "write_once", "publish_tree", "make_dir", "remove_tree")),
    (files, ("open_lock", "open_log", "open_log_to_lock")),
    (Room, ("make", "publish")),
    (reading, ("read_regular",)),
)
"""Where a test may end a party or make it stand still: every write of storage, and the looks that decide."""
TICKS = 200
"""More than any of these histories needs."""


class Crash(BaseException):
    """The process that is at work ends here."""


def _crash() -> None:
    raise Crash


class Host:
    """A spool in a folder of its own, and whoever works it."""

    def __init__(self, root: Path, patched: pytest.MonkeyPatch) -> None:
        self.root = root / "spool"
        self.marks = root / "marks"
        self.person = Spool.create(self.root)
        self.config = Config(Paths(root, root), OrchestratorSettings(), Bounds(grace_seconds=0.1), Environment())
        self.operations = dict(OPERATIONS)
        nu = root / "nu"
        nu.write_text('#!/bin/sh\n. "$3"\n')
        nu.chmod(0o700)
        self._nu = Nushell(nu, (0, 115, 1))
        self.passed_seconds = 0.0
        self.boot = boot_id()
        self.orchestrator: Orchestrator | None = None
        self.hands: Hands | None = None
        self._spool: Spool | None = None
        self.cancels = False
        """Whether workers are told to end what they run."""
        self._at: tuple[str, str, bool] | None = None
        self._deed: Callable[[], object] = _crash
        self.family = Family(patched)
        for module in (claim, loop, requests):
            patched.setattr(module, "instant", self.instant)
        for module in (claim, checkpoint):
            patched.setattr(module, "boot_id", lambda: self.boot)
        for owner, names in STEPS:
            for name in names:
                patched.setattr(owner, name, self._ending(name, getattr(owner, name)))

    # Time

    def instant(self) -> Now:
        passed = self.passed_seconds
        return Now(now() + timedelta(seconds=passed), boottime() + passed, self.boot)

    def power_cut(self) -> None:
        """The host went down and is up again; nothing that ran lives."""
        self.die()
        self.boot = "00000000-0000-0000-0000-000000000001"

    # Ending at a write

    def _ending(self, step: str, original: Callable[..., Any]) -> Callable[..., Any]:
        position = {"move": 1, "publish_tree": 1, "publish": 1}.get(step, 0)

        def call(*args: Any, **rest: Any) -> Any:
            path = Path("/", str(args[position]))
            self.pass_by(step, path)
            result = original(*args, **rest)
            self.pass_by(step, path, after=True)
            return result

        return call

    def pass_by(self, step: str, path: Path, *, after: bool = False) -> None:
        """Where each writer comes by; one of them ends here if the test said so."""
        if self._at and self._at[0] == step and fnmatchcase(str(path), f"*{self._at[1]}") and self._at[2] == after:
            self._at = None
            self._deed()

    def between(self, step: str, path: str, deed: Callable[[], object], *, after: bool = False) -> None:
        """Have the deed done, once, right before (or after) that step of whoever comes to it first."""
        self._at, self._deed = (step, path, after), deed

    def crash(self, step: str, path: str = "", *, after: bool = False, of: Callable[[], Any] | None = None) -> None:
        """Do `of`, or work the spool, until the process ends before (or after) that write; then it is dead."""
        self.between(step, path, _crash, after=after)
        with pytest.raises(Crash):
            (of or self.work)()
        self.die()
        if of is not None:
            self._abandon(self.person)
            self.person = Spool.open(self.root)

    def die(self, *, workers: bool = True) -> None:
        """The orchestrator's process ends: its descriptors close and its locks with them; what it wrote stays."""
        if self.orchestrator is None or self.hands is None or self._spool is None:
            return
        for held in self.orchestrator._held.values():
            held.release()
        self._abandon(self._spool)
        for scratch in self.hands.workers.values() if workers else ():
            os.close(scratch.descriptor)
        self.orchestrator = self.hands = self._spool = None

    @staticmethod
    def _abandon(spool: Spool) -> None:
        if spool._scratch is not None:
            os.close(spool._scratch.descriptor)
            spool._scratch = None

    # Working

    def begin(self) -> Orchestrator:
        """Another orchestrator begins, as `daemon.run` does."""
        self._spool = Spool.open(self.root)
        self.hands = Hands(self, self._spool)
        self.orchestrator = Orchestrator(self._spool, self.config, self.hands, self.load_nulib)
        self.orchestrator.tick()
        files.sweep_scratch(self._spool.tmp, recovery.workers_with_children(self._spool))
        return self.orchestrator

    def work(self) -> None:
        """Let an orchestrator work until nothing can start any more; backoffs take no time."""
        orchestrator = self.orchestrator or self.begin()
        idle = 0  # ticks without anything to do; what one finds after its claims, such as a request, the next one does
        for _ in range(TICKS):
            orchestrator.scan_soon()
            orchestrator.tick()
            if orchestrator.running or (self.hands and self.hands.has_news()):
                self.passed_seconds += 0.2
                continue
            due = orchestrator.next_start()
            idle = idle + 1 if due is None else 0
            if idle == 2:
                return
            if due is None:
                continue
            self.passed_seconds += max(0.0, due - self.instant().boottime) + 0.001
        raise AssertionError("it has no end")

    def recover(self) -> None:
        """Another orchestrator works the spool until nothing is left to do, and stops; then the spool is sound."""
        self.begin()
        self.work()
        self._stop()
        found = check(self.root)
        assert not found, found
        mine = self.person._scratch
        assert reading.list_names(self.person.tmp) == ([mine.path.name] if mine else [])

    def other(self, ticks: int | None = None) -> None:
        """Another orchestrator does all that it can, or so many ticks, while the one at work stands still."""
        kept = self.orchestrator, self.hands, self._spool
        self.orchestrator = self.hands = self._spool = None
        orchestrator = self.begin()
        if ticks is None:
            self.work()
        for _ in range(ticks or 0):
            orchestrator.scan_soon()
            orchestrator.tick()
        self._stop()
        self.orchestrator, self.hands, self._spool = kept

    def _stop(self) -> None:
        """The orchestrator ends by itself."""
        assert self.orchestrator is not None
        assert self._spool is not None
        self.orchestrator.close()
        self._spool.close()
        self.orchestrator = self.hands = self._spool = None

    def let_go(self) -> None:
        """The orchestrator at work has died and its workers have not: all its locks are free."""
        for held in self.orchestrator._held.values() if self.orchestrator else ():
            held.release()

    def load_nulib(self) -> Nulib:
        operations = {name: Operation(name, name, "", "", (), None, **facts) for name, facts in self.operations.items()}
        return cast(Nulib, ShellNulib(self, Catalogue("d" * 64, operations), self._nu))

    # Asking

    def submit(self, *tasks: Task, **facts: Any) -> str:
        """Submit a workflow of these tasks, or of one; its workflow_id."""
        workflow = Workflow("trial", tasks or (Task("a", "work.once"),), on_failure="continue")
        data = manifest.write(workflow, form="json")
        facts |= {"digest": hashlib.sha256(data).hexdigest(), "tasks": len(workflow.tasks)}
        return self.person.submit(data, "json", submission(new_ulid(), **facts))

    def ask(self, verb: str, workflow_id: str, *tasks: str) -> None:
        requests.ask(self.person, self.config, self.load_nulib, verb, workflow_id, operator="alice", tasks=tuple(tasks))

    def clean(self) -> list[str]:
        """A person has all that ended removed; the workflows that were."""
        cleaned = Cleanup(self.person, Rule(None, 0), now())
        cleaned.finish()
        return cleaned.workflows

    def ended(self, *tasks: Task) -> str:
        """A workflow that was worked to its end."""
        workflow_id = self.submit(*tasks)
        self.recover()
        return workflow_id

    # Looking

    def folder(self, workflow_id: str) -> WorkflowFolder:
        return self.person.workflow(workflow_id)

    def has(self, workflow_id: str, *names: str) -> bool:
        """Whether the claimed workflow has these files."""
        return all((self.root / "workflows" / workflow_id / name).exists() for name in names)

    def workflow(self, workflow_id: str) -> WorkflowCheckpoint:
        found = self.folder(workflow_id).workflow()
        assert found is not None
        return found

    def state(self, workflow_id: str) -> str:
        return str(self.workflow(workflow_id).state)

    def task(self, workflow_id: str, task_id: str = "a") -> TaskCheckpoint:
        return self.folder(workflow_id).task(task_id)

    def outcomes(self, workflow_id: str, task_id: str = "a") -> list[str]:
        return [str(attempt.outcome) for attempt in self.task(workflow_id, task_id).attempts]

    def ran(self) -> list[str]:
        """The attempts whose operation began, such as `a.1`, in their order."""
        lines = self.marks.read_text().splitlines() if self.marks.exists() else []
        found = [json.loads(line)["env"] for line in lines]
        return [f"{env['PROVISIONING_TASK']}.{env['PROVISIONING_ATTEMPT']}" for env in found]

    # States by hand

    def started(self, operation: str = "work.once") -> tuple[str, files.Scratch]:
        """A workflow whose task `a` was handed to a worker that has done nothing yet; its orchestrator is dead."""
        workflow_id = self.submit(Task("a", operation))
        self.between("start", "", _crash)
        with pytest.raises(Crash):
            self.work()
        hands = self.hands
        assert hands is not None
        self.die(workers=False)
        (scratch,) = hands.workers.values()
        assert self.task(workflow_id).state is TaskState.RUNNING
        return workflow_id, scratch

    def log(self, workflow_id: str, attempt: int = 1) -> int:
        """The log of the attempt of `a`, locked."""
        descriptor = open_attempt_log(self.folder(workflow_id).log_path("a", attempt))
        assert descriptor is not None
        return descriptor

    def publish(self, workflow_id: str, scratch: files.Scratch, outcome: Outcome = Outcome.SUCCEEDED) -> None:
        """What a worker does once attempt 1 of `a` has ended."""
        wall = now()
        record = OutcomeRecord(FORMAT, workflow_id, "a", 1, outcome, started_at=wall, ended_at=wall)
        path = self.folder(workflow_id).outcome_path("a", 1)
        room, outcomes = Room(scratch), files.open_folder(path.parent)
        room.make(4096)
        room.publish(path, encode(record), outcomes)
        room.close()
        os.close(outcomes)

    def close(self) -> None:
        self.die()
        self.person.close()
