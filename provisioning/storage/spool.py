"""The spool: its layout, what is put in and taken out by rename, and its locks."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.config import Disk
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.workflow import FORMAT, Request, Submission
from provisioning.errors import Invalid, NotFound, OrchestratorUnusable, SpoolUnusable
from provisioning.storage import disk, files, ids, reading, record
from provisioning.storage.checkpoint import (
    Damaged,
    Newer,
    WorkflowFolder,
    encode,
    owned,
)
from provisioning.storage.gate import Gate, passing
from provisioning.storage.lock import Lock
from provisioning.storage.mount import refuse_network
from provisioning.storage.naming import naming
from provisioning.storage.opening import DOORS, FOLDERS, begin, check_folders, check_format, refuse_open_to_others
from provisioning.storage.record import OrchestratorRecord
from provisioning.storage.request import load_request, request_name

__all__ = ["DOORS", "FOLDERS", "Lock", "OrchestratorRecord", "Spool"]

PATIENCE_SECONDS = 10.0
"""So long a submission with an `id` waits for others that have one: each takes milliseconds."""


class Spool:
    """A spool that exists and may be worked by this process. Use `open` or `create`."""

    def __init__(self, root: Path, marks: Disk | None = None) -> None:
        self.root = root
        self._marks = marks or Disk()
        self._scratch: files.Scratch | None = None
        self.gate: Gate | None = None
        for name in (*FOLDERS, *DOORS):
            setattr(self, name, root / name)

    incoming: Path
    requests: Path
    workflows: Path
    rejected: Path
    ids: Path
    nulib: Path
    locks: Path
    tmp: Path
    logs: Path
    drop: Path
    taking: Path
    receipts: Path

    @classmethod
    def create(cls, root: Path, *, network: bool = False) -> Spool:
        """Make a spool, or complete the one that is there. `network` as of `open`."""
        refuse_network(root, allowed=network)
        if os.path.lexists(root / "format"):
            check_format(root)  # before anything is made in a spool that is not ours or not of this format
        else:
            begin(root)
        for name in (*FOLDERS, *DOORS):
            files.make_dir(root / name)
        with naming(root):
            files.sync_dir(root)  # what is synced in them is lost with their names
        return cls.open(root, network=network)

    @classmethod
    def open(cls, root: Path, marks: Disk | None = None, *, network: bool = False) -> Spool:
        """The spool at `root`, its disk held to `marks`; SpoolUnusable or Refused says what is wrong with it.

        `network` allows a file system that other hosts may have mounted: no lock of ours binds them.
        """
        check_format(root)
        refuse_network(root, allowed=network)
        refuse_open_to_others(check_folders(root))
        return cls(root, marks)

    def shortage(self) -> disk.DiskLow | None:
        """What its disk has too little of for anything new; None where it has enough."""
        return disk.shortage(self.root, self._marks)

    @property
    def scratch(self) -> files.Scratch:
        """This process's own folder for files that are not complete yet."""
        if self._scratch is None:
            self._scratch = files.Scratch(self.tmp / new_ulid())
        return self._scratch

    def close(self) -> None:
        """Give the scratch folder back."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    # Submitting and claiming

    def submit(self, manifest: bytes, form: str, submission: Submission) -> str:
        """Put a checked manifest into `incoming/`, durably; its workflow_id, or the one its `id` already has."""
        disk.refuse_below(self.root, self._marks)
        return self.admit(submission, lambda decided: self._prepare(manifest, form, decided))

    def admit(self, submission: Submission, prepare: Callable[[Submission], Path]) -> str:
        """Put in the folder that `prepare` makes durable, once its workflow_id is decided; that, or the one it had."""
        if submission.id is None:
            return self._put(prepare(submission), submission)
        lock = Lock(self.locks / "ids")  # or two who submit the same id at once would both put it in
        if not lock.take(wait_seconds=PATIENCE_SECONDS):
            if self.locks.is_dir():
                text = (
                    f"another process has held {self.locks / 'ids'} for {PATIENCE_SECONDS:g} s: nothing was submitted"
                )
                raise SpoolUnusable(text, hint=f"see who, and end it if it is stopped: fuser -v {self.locks / 'ids'}")
            raise SpoolUnusable(f"{self.locks} is not there", hint=f"complete it: provisioning spool init {self.root}")
        try:
            there = lambda known: self.folder_path(known) is not None  # noqa: E731 - of one line
            workflow_id = ids.reserve(self.ids, submission, is_there=there, scratch=self.scratch)
            if path := self.folder_path(workflow_id):
                with naming(path):
                    files.sync_dir(path.parent)  # who put it in may have died before that
            if path or ids.was_cleaned(self.ids, workflow_id):
                return workflow_id
            decided = msgspec.structs.replace(submission, workflow_id=workflow_id)
            return self._put(prepare(decided), decided)
        finally:
            lock.release()

    def submit_held(self, manifest: bytes, form: str, submission: Submission) -> Lock:
        """Put in a manifest without an `id`, its lock held from its first instant: nobody else can claim it."""
        disk.refuse_below(self.root, self._marks)
        prepared = self._prepare(manifest, form, submission)
        lock = Lock(prepared / "lock")
        lock.take()
        try:
            self._put(prepared, submission)
        except BaseException:
            lock.release()
            raise
        return lock

    def _put(self, prepared: Path, submission: Submission) -> str:
        with passing(self.gate, submission):
            files.move(prepared, self.incoming / submission.workflow_id)
        return submission.workflow_id

    def _prepare(self, manifest: bytes, form: str, submission: Submission) -> Path:
        """The folder of a submission, complete and durable, where nobody sees it yet."""
        prepared = self.scratch.name()
        with naming(self.incoming):
            files.make_dir(prepared)
            files.write_new(prepared / f"manifest.{form}", manifest, durable=files.DURABLE["submission"])
            files.write_new(prepared / "submission.json", encode(submission), durable=files.DURABLE["submission"])
            files.sync_dir(prepared)
        return prepared

    def forget(self, workflow_id: str) -> Path:
        """Take an ended workflow out; the folder to remove. Only its lock's holder may; its `id` stays taken."""
        folder = self.workflow(workflow_id)
        if folder.submission().id is not None:
            ids.keep_taken(self.ids, workflow_id, self.scratch)
        return self.discard(folder.path)

    def discard(self, path: Path) -> Path:
        """Make a folder one of `tmp/` that nobody holds: to be removed, or swept. It takes no room on the disk."""
        gone = self.tmp / new_ulid()
        files.move(path, gone)
        return gone

    def lock(self, workflow_id: str) -> Lock | None:
        """The workflow's lock, if nobody has it, whether it is claimed or not."""
        path = self.folder_path(workflow_id)
        if path is None:
            return None
        lock = Lock(path / "lock")
        with owned(path / "lock"):
            if not lock.take():
                return None
        if self.folder_path(workflow_id) != path:  # claimed or removed in the meantime
            lock.release()
            return None
        return lock

    def claim(self, workflow_id: str) -> WorkflowFolder:
        """Move an incoming workflow to `workflows/`; the caller holds its lock."""
        with owned(self.workflows / workflow_id):
            files.remove(self.incoming / workflow_id / "reason.json")  # of a rejection that was cut off
            files.move(self.incoming / workflow_id, self.workflows / workflow_id)
        return self.workflow(workflow_id)

    def reject(self, folder: WorkflowFolder, error: Invalid) -> Path:
        """Put what cannot be claimed aside, with the reasons; the caller holds its lock."""
        stamp = now().strftime("%Y%m%dT%H%M%SZ")
        target = self.rejected / f"{stamp}-{folder.workflow_id}"
        reason = {"format": FORMAT, "code": error.code, "problems": list(error.problems)}
        path = folder.path / "reason.json"
        with owned(path):
            files.write_atomic(path, encode(reason), durable=files.DURABLE["rejected"], scratch=self.scratch)
        files.move(folder.path, target)
        return target

    # Looking

    def folder_path(self, workflow_id: str) -> Path | None:
        """Where the workflow is now: claimed, incoming or nowhere, as is whatever is no workflow_id."""
        if not WORKFLOW_ID.match(workflow_id):
            return None
        for _ in range(2):  # a claim between the two looks moves it behind our back
            for parent in (self.workflows, self.incoming):
                with contextlib.suppress(OSError):
                    if stat.S_ISDIR(os.lstat(parent / workflow_id).st_mode):
                        return parent / workflow_id
        return None

    def workflow(self, workflow_id: str) -> WorkflowFolder:
        """A claimed workflow's folder, for its holder."""
        return WorkflowFolder(self.workflows / workflow_id, self.scratch)

    def find(self, prefix: str) -> WorkflowFolder:
        """The folder of the one workflow whose id starts so, for readers."""
        path = self.folder_path(prefix)
        if path is not None:
            return WorkflowFolder(path)
        found = [name for name in self.workflow_ids() if prefix and name.startswith(prefix)]
        if len(found) == 1 and (path := self.folder_path(found[0])):
            return WorkflowFolder(path)
        if found:
            raise NotFound(f"{prefix!r} begins {len(found)} workflow ids", hint="type more of it")
        raise NotFound(f"no workflow {prefix!r} in {self.root}", hint="see: provisioning workflow list")

    def incoming_ids(self) -> list[str]:
        """Workflows that nobody has claimed yet, oldest first."""
        return sorted(filter(WORKFLOW_ID.match, reading.list_names(self.incoming, folders=True)))

    def claimed_ids(self) -> list[str]:
        """Workflows that were claimed, whatever their state, oldest first."""
        return sorted(filter(WORKFLOW_ID.match, reading.list_names(self.workflows, folders=True)))

    def workflow_ids(self) -> list[str]:
        """All workflows, oldest first."""
        return sorted({*self.incoming_ids(), *self.claimed_ids()})

    # Requests

    def request(self, request: Request) -> Path:
        """Ask something of a workflow, durably. It is applied after what was asked before, whatever the clock says."""
        asked = (path.name.split(".")[1] for path in self._request_paths(f"{request.workflow_id}."))
        latest = max(filter(WORKFLOW_ID.match, asked), default="")
        if request.request_id <= latest:
            request = msgspec.structs.replace(request, request_id=new_ulid(after=latest))
        path = self.requests / request_name(request)
        if self.gate:
            self.gate.asking(request)
        files.write_atomic(path, encode(request), durable=files.DURABLE["request"], scratch=self.scratch)
        return path

    def _request_paths(self, prefix: str = "") -> list[Path]:
        found = [n for n in reading.list_names(self.requests) if n.endswith(".json") and n.startswith(prefix)]
        return [self.requests / name for name in sorted(found, key=lambda name: name.split(".")[1:])]

    def pending_requests(self, workflow_id: str | None = None) -> Iterator[tuple[Path, Request]]:
        """Requests that nobody has applied yet, of one workflow or of all, oldest first; what is damaged or cannot be
        read is left out.
        """
        for path in self._request_paths(f"{workflow_id}." if workflow_id else ""):
            try:
                yield path, load_request(path)
            except (NotFound, SpoolUnusable):
                continue

    def requests_of(self, workflow_id: str) -> list[tuple[Path, Request]]:
        """Requests about one workflow, oldest first."""
        return list(self.pending_requests(workflow_id))

    def may_be_asked(self, workflow_id: str) -> bool:
        """Whether there is a request about the workflow, or that cannot be told. It is not read."""
        try:
            return bool(self._request_paths(f"{workflow_id}."))
        except SpoolUnusable:
            return True

    def set_aside_damaged_requests(self) -> list[tuple[str, str]]:
        """Put the requests that cannot be decoded into `rejected/`: name and reason of each. For orchestrators only.

        One of a newer format stays: somebody newer may apply it. So does one that cannot be read, for a person.
        """
        done: list[tuple[str, str]] = []
        for path in self._request_paths():
            try:
                load_request(path)
            except (NotFound, Newer):
                continue
            except Damaged as error:
                files.move(path, self.rejected / f"{new_ulid()}-{path.name}")
                done.append((path.name, f"it was put into rejected/: {error.reason}"))
            except SpoolUnusable as error:
                done.append((path.name, str(error)))
        return done

    def nudge(self) -> None:
        """Make whoever watches the spool look at once."""
        with contextlib.suppress(SpoolUnusable):
            files.write_atomic(self.requests / ".nudge", b"", durable=False, scratch=self.scratch)

    # The orchestrator

    def take_orchestrator_lock(self, *, wait_seconds: float = 0.0) -> Lock:
        """The lock of the one orchestrator of this spool; OrchestratorUnusable says who has had it for so long."""
        lock = Lock(self.locks / "orchestrator")
        if lock.take(wait_seconds=wait_seconds):
            return lock
        found = self.running_orchestrator()
        who = "another process"
        if found:
            who = f"pid {found.process.pid}"
        if found and found.started_at:
            who += f" on {found.host} since {found.started_at:%F %T} UTC"
        raise OrchestratorUnusable(
            f"the orchestrator's lock of {self.root} is held by {who}",
            hint="see: provisioning orchestrator status; beside it may run: orchestrator run --until-empty",
        )

    def running_orchestrator(self) -> OrchestratorRecord | None:
        """The orchestrator that has this spool now; of one whose record is lost, its process. No lock is tried."""
        return record.find_running(self.root, self.locks / "orchestrator")

    def orchestrator_record(self) -> OrchestratorRecord | None:
        """What the present or the last orchestrator said of itself, if that can be read: it is a view."""
        return record.read(self.root)

    def save_orchestrator_record(self, said: OrchestratorRecord) -> None:
        """Say who has the orchestrator's lock."""
        self._view("orchestrator.json", said)

    def _view(self, name: str, value: Any) -> None:
        data, durable = encode(value), files.DURABLE["view"]
        files.write_atomic(self.root / name, data, durable=durable, whole=True, scratch=self.scratch)
