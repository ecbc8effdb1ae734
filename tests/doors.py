"""A spool whose drop door is worked in this process: real files, real judgement, no parser process."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from provisioning.clock import boot_id, boottime, now
from provisioning.config import Bounds, Config, Drop, Environment, Paths
from provisioning.config import Orchestrator as OrchestratorSettings
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.drop import Receipt, Verdict
from provisioning.core.proof import seal
from provisioning.core.scheduler import Now
from provisioning.core.states import TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, Task, TaskCheckpoint, Workflow, WorkflowCheckpoint
from provisioning.execution.judge import Case, Rules, judge
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator import doorway
from provisioning.orchestrator.intake import Intake
from provisioning.orchestrator.oversight import Oversight
from provisioning.orchestrator.trust import own_name
from provisioning.storage import files, receipts
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.spool import Spool

OWN = own_name()
GOOD = b'schema = 1\nname = "x"\n[[tasks]]\nid = "a"\noperation = "selftest.noop"\n'
OPERATIONS = {
    "selftest.noop": Operation("selftest.noop", "noop", "", "", (), None, idempotent=True),
    "selftest.echo": Operation(
        "selftest.echo", "echo-value", "", "", (Param("value", {}, positional=True, required=True),), {}
    ),
}
CATALOGUE = Catalogue("c" * 64, OPERATIONS)


def named(chosen: str, *, operation: str = "selftest.noop") -> bytes:
    """A manifest with this id."""
    return GOOD.replace(b'name = "x"', f'name = "x"\nid = "{chosen}"'.encode()).replace(
        b"selftest.noop", operation.encode()
    )


class AtOnce:
    """Stands for the parser processes: the same judgement, in this process."""

    def __init__(self) -> None:
        self._verdicts: list[tuple[str, Verdict]] = []

    def ask(self, case: Case, rules: Path, size_bytes: int) -> bool:
        self._verdicts.append((case.key, judge(case, load(rules, Rules))))
        return True

    def has_room(self, size_bytes: int) -> bool:
        return True

    def answers(self) -> Iterator[tuple[str, Verdict]]:
        said, self._verdicts = self._verdicts, []
        yield from said

    def next_due(self) -> float | None:
        return None

    def waitables(self) -> list[Any]:
        return []

    def close(self) -> None:
        self._verdicts = []


class Doors:
    """The drop door of one spool, from both sides."""

    def __init__(self, root: Path, patched: pytest.MonkeyPatch, **settings: Any) -> None:
        self.root = root / "spool"
        self.spool = Spool.create(self.root)
        self.folder = self.spool.drop / OWN
        self.folder.mkdir(mode=0o700)
        paths = Paths(self.root, root, authority=root / "authority.toml", signers=root / "allowed_signers")
        self.config = Config(
            paths, OrchestratorSettings(), Bounds(), Environment(), drop=Drop(**{"host": "here", **settings})
        )
        self._intake: Intake | None = None
        patched.setattr(doorway, "SETTLE_SECONDS", 0.0)

    # The operator's side

    def put(self, name: str, data: bytes = GOOD, *, proof: str = "seal") -> Path:
        """Drop a file with a proof that it is whole: a seal, a `.sha256`, or none."""
        path = self.folder / name
        path.write_bytes(seal(data) if proof == "seal" and not name.endswith(".json") else data)
        path.chmod(0o600)
        if proof == "sha256" or (proof == "seal" and name.endswith(".json")):
            listing = f"{hashlib.sha256(data).hexdigest()}  {name}\n"
            (self.folder / f"{name}.sha256").write_text(listing)
        return path

    def ask(self, name: str, **asked: Any) -> Path:
        """Drop a request."""
        return self.put(f"{name}.request.json", json.dumps(asked).encode())

    def receipt(self, name: str) -> Receipt:
        """The receipt of a file."""
        found = receipts.read(self.folder / receipts.name_of(name))
        assert found is not None, f"{name} has no receipt: {sorted(os.listdir(self.folder))}"
        return found

    def code(self, name: str) -> str:
        """The one reason for which a file was rejected, or waits."""
        reason = self.receipt(name).reason
        return reason.code if reason else ""

    def left(self) -> list[str]:
        """What is in the folder besides receipts."""
        return sorted(name for name in os.listdir(self.folder) if not name.endswith(".receipt.json"))

    # The orchestrator's side

    def intake(self) -> Intake:
        """The process that works the door, begun where there is none."""
        if self._intake is None:
            nulib = cast("Nulib", _Nulib())
            self._intake = Intake(self.spool, self.config, lambda: nulib, Oversight(self.spool, self.config))
            self._intake._parsers = cast("Any", AtOnce())
        return self._intake

    def work(self) -> None:
        """Look at everything until there is nothing more to do."""
        intake = self.intake()
        intake._doorway.look_at = 0.0
        intake._doorway._rests.clear()
        for _ in range(200):
            intake._follow_at = 0.0
            intake.step(Now(now(), boottime(), boot_id()))
            if not intake.busy():
                break
        assert not intake.busy()
        intake.step(Now(now(), boottime(), boot_id()))

    def die(self) -> None:
        """What is left of the process that works the door are its files."""
        if self._intake is not None:
            self._intake.close()
            self._intake = None
        if self.spool._scratch is not None:
            os.close(self.spool._scratch.descriptor)
            self.spool._scratch = None
        self.spool = Spool.open(self.root)

    def has_failed(self, workflow_id: str, state: WorkflowState = WorkflowState.FAILED) -> None:
        """Some process has claimed the workflow and worked it to that end: its only task `a` has failed."""
        self.spool.claim(workflow_id)
        folder = self.spool.workflows / workflow_id
        (folder / "tasks").mkdir(mode=0o700)
        tasks = (Task("a", "selftest.noop"),)
        plan = Plan(FORMAT, workflow_id, Workflow("x", tasks), OPERATIONS, CATALOGUE.digest)
        when = datetime.now(UTC)
        ended = WorkflowCheckpoint(FORMAT, workflow_id, state, OWN, when, "boot", ended_at=when)
        failed = TaskCheckpoint(FORMAT, "a", TaskState.FAILED)
        for name, record in (("plan", plan), ("workflow", ended), ("tasks/a", failed)):
            files.write_atomic(folder / f"{name}.json", encode(record), durable=False)

    def events(self) -> Counter[tuple[str, str]]:
        """How often each event of each drop is in the audit log."""
        records = Oversight(self.spool, self.config).audit.records()
        return Counter((str(each["event"]), str(each.get("name", ""))) for each in records)

    def close(self) -> None:
        """Let everything go."""
        if self._intake is not None:
            self._intake.close()
        self.spool.close()


class _Nulib:
    catalogue = CATALOGUE
