"""The directory that the orchestrator's host and the nodes of a cluster share, and what they tell each other in it.

    DIRECTORY/<spool>/               of one spool; its name is in the spool's `slurm.json`
        nulib/<digest>/              the operations, as the spool keeps them
        tmp/                         files that are not complete yet
        <workflow_id>/<task>.<n>/    one attempt: order.json, claim/, log, outcome.json, and what Slurm says in `said`

No lock binds other hosts. What is relied on: a rename and a link are atomic, of several who make one folder one
succeeds, and what was closed by one host is seen by another that opens it afterwards. Whoever makes `claim` owns the
attempt: a node to run it, or the orchestrator to say that it will never be run.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.core.identifiers import WORKFLOW_ID, Ulid, ulid_milliseconds
from provisioning.core.states import ENDED_WORKFLOWS
from provisioning.core.workflow import FORMAT, OutcomeRecord
from provisioning.errors import ProvisioningError, Refused, SpoolUnusable
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import files, logs, reading
from provisioning.storage.checkpoint import MAX_RECORD_BYTES, Damaged, WorkflowFolder, encode, load
from provisioning.storage.lock import Lock
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool

NAMING_SECONDS = 10.0
"""So long a start waits for another to have chosen the name of the spool's folder."""
PROBE_SECONDS = 3600.0
"""After that a question to the nodes is nobody's any more: whoever asks gives up long before."""
SAID_BYTES = 300
"""So much of what a job said that did not begin its attempt is shown."""


class Share(msgspec.Struct, frozen=True):
    """`slurm.json` of a spool: what its folder in the shared directory is called."""

    format: int
    name: Ulid
    spool: str
    """Which folders the spool's are that says so: a copy of it has others."""
    directory: str
    """The shared directory in which it has that folder."""


def share_path(root: Path) -> Path:
    """Where the spool at `root` says so."""
    return root / "slurm.json"


class AttemptFolder:
    """What both sides know of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.order = path / "order.json"
        self.log = path / "log"
        self.outcome = path / "outcome.json"
        self.said = path / "said"
        self._claim = path / "claim"

    def names(self) -> frozenset[str] | None:
        """What is in it, as the server of the file system has it now; None where it is not there."""
        with naming(self.path, "read"):
            try:
                return frozenset(os.listdir(self.path))
            except FileNotFoundError:
                return None

    def claim(self) -> bool:
        """Own the attempt; False where another does."""
        return files.claim(self._claim)

    def release(self) -> None:
        """Give it back, of which nothing was begun."""
        files.unclaim(self._claim)

    def beat(self) -> None:
        """Give a sign of life."""
        files.touch(self._claim)

    def last_words(self) -> str:
        """The end of what its jobs said, on one line."""
        text = logs.tail_bytes(self.said, SAID_BYTES).decode(errors="replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def sign(self) -> tuple[int, int]:
        """What changes while the attempt gives signs of life."""
        with contextlib.suppress(OSError):
            beaten = os.stat(self._claim).st_mtime_ns
            with contextlib.suppress(OSError):
                return beaten, os.stat(self.log).st_size
            return beaten, 0
        return 0, 0


class Shared:
    """A spool's part of the shared directory."""

    def __init__(self, spool: Spool, directory: Path, scratch: files.Scratch) -> None:
        """`scratch` is of the spool. Refused or SpoolUnusable says why the directory cannot be used."""
        self.directory, self._spool, self._spool_scratch = directory, spool, scratch
        _refuse_unless_private(directory)
        self.name = _name(spool, directory, scratch)
        self.root = directory / self.name
        for name in ("nulib", "tmp"):
            files.make_dir(self.root / name)
        self.scratch = files.Scratch(self.root / "tmp" / new_ulid())
        self._try_out()

    def _try_out(self) -> None:
        """Do once what is relied on, or SpoolUnusable."""
        tried = self.scratch.name()
        with naming(tried, "try out"):
            made = [files.claim(tried), files.claim(tried)]
            linked = files.write_once(tried / "linked", b"x", scratch=self.scratch)
            files.write_atomic(tried / "linked", b"xx", durable=False, scratch=self.scratch)
            if made != [True, False] or not linked or reading.read_regular(tried / "linked", 9) != b"xx":
                raise SpoolUnusable(
                    f"{self.directory} does not make folders, links and renames as it must",
                    hint="use a file system that all nodes mount and that does, such as NFS 4: slurm.directory",
                )
            files.remove_tree(tried)

    def attempt(self, worker: str, workflow_id: str, task_id: str, number: int) -> AttemptFolder:
        """The folder of an attempt, by what its checkpoint says of its worker."""
        return AttemptFolder(self.directory / worker / workflow_id / f"{task_id}.{number}")

    def insist(self) -> None:
        """SpoolUnusable while the spool's folder is not there: its file system is not mounted, and nothing follows."""
        with naming(self.root, "read"):
            if not self.root.is_dir():
                raise SpoolUnusable(f"{self.root} is not there", hint=f"mount {self.directory} again")

    def begin(self, folder: AttemptFolder, order: bytes) -> bool:
        """Put the order of an attempt there; False where it has one already, or was claimed."""
        self.insist()
        files.make_dir(folder.path.parent)
        if not files.claim(folder.path) and (folder.names() or frozenset()) & {"order.json", "claim"}:
            return False
        files.write_atomic(folder.order, order, durable=False, whole=True, scratch=self.scratch)
        return True

    def give_up(self, folder: AttemptFolder) -> bool:
        """Make sure that nobody ever begins the attempt, wherever its order is; False where somebody has."""
        self.insist()
        files.make_dir(folder.path)
        if not folder.claim():
            return False
        files.remove(folder.order)  # so that whoever finds only the claim knows whose it was
        return True

    def keep_operations(self, digest: str) -> Path:
        """The operations of that digest, copied from the spool where they are not there yet."""
        target = self.root / "nulib" / digest
        if not target.is_dir():  # looked at each time, as another process may have swept them
            source = self._spool.nulib / digest
            found = [Path(at, name) for at, _, names in os.walk(source) for name in names]
            contents = {str(path.relative_to(source)): path.read_bytes() for path in found}
            files.publish_tree(contents, target, self.scratch)
        return target

    def copy_log(self, folder: AttemptFolder, log: Path) -> None:
        """Add to the spool's log of the attempt what has come since."""
        have = 0
        with contextlib.suppress(FileNotFoundError):
            have = os.stat(log).st_size
        with naming(log):
            while data := logs.read_from(folder.log, have):
                files.append(log, data)
                have += len(data)

    def take(self, folder: AttemptFolder, into: WorkflowFolder, task_id: str, number: int) -> OutcomeRecord:
        """Publish the outcome that a node has left in the spool, durably, behind its log. Damaged where it is none."""
        data = reading.read_regular(folder.outcome, MAX_RECORD_BYTES)
        record = load(folder.outcome, OutcomeRecord)
        if (record.workflow_id, record.task_id, record.attempt) != (into.workflow_id, task_id, number):
            raise Damaged(folder.outcome, "it is the outcome of another attempt")
        self.copy_log(folder, into.log_path(task_id, number))
        files.write_once(into.outcome_path(task_id, number), data, scratch=self._spool_scratch)
        return record

    def taken(self, into: WorkflowFolder, task_id: str, number: int) -> OutcomeRecord | None:
        """The outcome that is in the spool already, durable from now on: who took it may have died before that."""
        record = into.outcome(task_id, number)
        if record is not None:
            with naming(into.path, "sync"):
                files.sync_dir(into.path / "outcomes")
        return record

    def remove(self, folder: AttemptFolder) -> None:
        """Remove the folder of an attempt whose outcome is in the spool."""
        with contextlib.suppress(SpoolUnusable):  # it goes with its workflow
            files.remove_tree(folder.path)
            files.unclaim(folder.path.parent)  # where it was the last

    def sweep(self) -> None:
        """Remove what is there of workflows that have ended or are gone, and of processes that are.

        So are operations that the spool has no more, and questions to nodes that nobody can still wait for.
        """
        files.sweep_scratch(self.root / "tmp")
        for workflow_id in filter(WORKFLOW_ID.match, reading.list_names(self.root, folders=True)):
            with contextlib.suppress(ProvisioningError):
                if self._spool.folder_path(workflow_id) is None:
                    files.remove_tree(self.root / workflow_id)
                elif lock := self._spool.lock(workflow_id):  # nobody begins an attempt of it meanwhile
                    try:
                        checkpoint = WorkflowFolder(self._spool.workflows / workflow_id).workflow()
                        if checkpoint is not None and checkpoint.state in ENDED_WORKFLOWS:
                            files.remove_tree(self.root / workflow_id)
                    finally:
                        lock.release()
        for digest in reading.list_names(self.root / "nulib", folders=True):
            if not (self._spool.nulib / digest).is_dir():
                self._take_out(self.root / "nulib" / digest)
        old = now().timestamp() - PROBE_SECONDS
        for name in filter(WORKFLOW_ID.match, reading.list_names(self.root / "probe", folders=True)):
            if ulid_milliseconds(name) < old * 1000:
                self._take_out(self.root / "probe" / name)

    def _take_out(self, folder: Path) -> None:
        """Remove it, of which nobody ever sees a part only."""
        with contextlib.suppress(SpoolUnusable):
            files.move(folder, gone := self.scratch.name())
            files.remove_tree(gone)

    def close(self) -> None:
        """Give the scratch folder back."""
        self.scratch.close()


def ordered_there(spool_root: Path, workflow_id: str) -> tuple[str, frozenset[str]]:
    """What the spool's folder is called, and which attempts of a workflow have an order in it, as `<task>.<n>`.

    None where the directory cannot be read, as while it is not mounted.
    """
    try:
        said = load(share_path(spool_root), Share)
        folder = Path(said.directory) / said.name / workflow_id
        names = reading.list_names(folder, folders=True)
    except (FileNotFoundError, SpoolUnusable):
        return "", frozenset()
    return said.name, frozenset(name for name in names if os.path.isfile(folder / name / "order.json"))


def _refuse_unless_private(directory: Path) -> None:
    if not directory.is_dir():
        raise SpoolUnusable(
            f"the shared directory {directory} is not there", hint=f"make it on a file system of all nodes: {directory}"
        )
    refuse_unless_ours(directory, "shared directory", os.geteuid())
    found = os.stat(directory)
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        text = f"others could read the params of attempts in the shared directory {directory}"
        raise Refused(text, hint=f"it must be of uid {os.geteuid()} and closed to others: chmod 700 {directory}")


def _name(spool: Spool, directory: Path, scratch: files.Scratch) -> str:
    """What the spool's folder is called; a copy of the spool takes another name, and so does it in another directory.

    SpoolUnusable where that cannot be read, or the folder has gone: without what is in it, attempts that run would
    count as never begun.
    """
    lock = Lock(spool.locks / "slurm")  # of two that start, one chooses
    if not lock.take(wait_seconds=NAMING_SECONDS):
        raise SpoolUnusable(
            f"another process has been reading {share_path(spool.root)} for long",
            hint=f"see who holds it: fuser -v {spool.locks / 'slurm'}",
        )
    try:
        return _locked_name(spool, directory, scratch)
    finally:
        lock.release()


def _locked_name(spool: Spool, directory: Path, scratch: files.Scratch) -> str:
    path, this = share_path(spool.root), _identity(spool)
    with contextlib.suppress(FileNotFoundError):
        said = load(path, Share)
        if (said.spool, said.directory) == (this, str(directory)):
            if not os.path.isdir(directory / said.name):
                raise SpoolUnusable(
                    f"{directory} does not have the folder {said.name} of this spool",
                    hint=f"mount it; or, if nothing of this spool is with Slurm any more: rm {path}",
                )
            return said.name
    name = new_ulid()
    files.make_dir(directory / name)
    files.sync_dir(directory)
    files.write_atomic(path, encode(Share(FORMAT, name, this, str(directory))), durable=True, scratch=scratch)
    return name


def _identity(spool: Spool) -> str:
    """What a copy of the spool has otherwise: numbers of folders. That of the device may change with each boot."""
    return ":".join(str(os.stat(path).st_ino) for path in (spool.root, spool.workflows))
