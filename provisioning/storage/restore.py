"""A spool from a backup: built beside its place, every member held to the format, and there only when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from provisioning.clock import new_ulid
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, WorkflowCheckpoint
from provisioning.decoding import decoded
from provisioning.errors import Refused, SpoolUnusable
from provisioning.storage import files, reading
from provisioning.storage.backup import CHUNK_BYTES, Copied
from provisioning.storage.checkpoint import Damaged, WorkflowFolder, encode
from provisioning.storage.members import CONTENTS, Contents, limit_of, measure
from provisioning.storage.mount import refuse_network
from provisioning.storage.naming import naming
from provisioning.storage.opening import make_durably
from provisioning.storage.packed import HEADER_BYTES, NOT_WHOLE, Bounded
from provisioning.storage.spool import DOORS, FOLDERS, Spool


class NoBackup(SpoolUnusable):
    """A file that is no whole backup of a spool."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source} cannot be restored: {reason}", hint="nothing was made; take another backup")


def restore(file: BinaryIO, source: str, target: Path, *, network: bool = False) -> Copied:
    """Make the spool of a backup at `target`, which must be an empty folder or nothing. `network` as of `Spool.open`.

    NoBackup says what is wrong with the file, Refused what is at `target`; then nothing was made. What was under way
    when the backup was made counts as interrupted, whoever still works at it. A packed file that lacks no more than
    the end of gzip's own checksum is whole: its content has a digest of ours.
    """
    target = Path(os.path.realpath(target))
    refuse_network(target, allowed=network)
    _refuse_what_is_there(target)
    make_durably(target.parent)
    building = target.with_name(f".{target.name}.{new_ulid()}")
    try:
        for name in ("", *FOLDERS, *DOORS):
            files.make_dir(building / name)
        contents = _Unpacking(file, source, building).run()
        spool = Spool(building)
        _leave_out(spool, frozenset(contents.gone))
        copied = _interrupt(spool)
        # Last of all, for whoever finds what a power cut left of the building.
        files.write_new(building / "format", f"{FORMAT}\n".encode(), durable=True)
        for folder, _, _ in os.walk(building):
            files.sync_dir(Path(folder))
        files.move(building, target)
    except BaseException:
        if os.path.lexists(building):
            files.remove_tree(building)
        raise
    return copied


def _leave_out(spool: Spool, gone: frozenset[str]) -> None:
    """Remove what there is of workflows that were cleaned up while the backup was made."""
    for workflow_id in gone:
        if (path := spool.folder_path(workflow_id)) is not None:
            files.remove_tree(path)
    for name in reading.list_names(spool.requests):
        if name.partition(".")[0] in gone:
            files.remove(spool.requests / name)


def _refuse_what_is_there(target: Path) -> None:
    with naming(target, "read"):
        there = os.path.lexists(target) and (not target.is_dir() or bool(os.listdir(target)))
    if there:
        raise Refused(f"{target} is there and not empty", hint="name an empty folder, or one that is not there yet")


def _interrupt(spool: Spool) -> Copied:
    """Give every attempt that was under way its log: without one, it would count as never begun."""
    states: Counter[str] = Counter({WorkflowState.QUEUED: len(spool.incoming_ids())})
    interrupted = 0
    for workflow_id in spool.claimed_ids():
        folder = WorkflowFolder(spool.workflows / workflow_id)
        folder.prepare()
        with contextlib.suppress(Damaged):
            checkpoint = _unheld(folder)
            states[checkpoint.state if checkpoint else WorkflowState.QUEUED] += 1
        for path in sorted((folder.path / "tasks").iterdir()):
            with contextlib.suppress(Damaged):
                task = folder.task(path.name.removesuffix(".json"))
                if task.state is not TaskState.RUNNING or task.last is None:
                    continue
                if os.path.lexists(folder.outcome_path(task.task_id, task.last.number)):
                    continue
                interrupted += 1
                log = folder.log_path(task.task_id, task.last.number)
                if not os.path.lexists(log):
                    files.write_new(log, b"", durable=True)
    return Copied({state: count for state, count in sorted(states.items()) if count}, interrupted, ())


def _unheld(folder: WorkflowFolder) -> WorkflowCheckpoint | None:
    """The workflow's checkpoint, held by nobody: whoever held the original holds nothing of the copy."""
    checkpoint = folder.workflow()
    if checkpoint is None or checkpoint.holder is None or checkpoint.state in ENDED_WORKFLOWS:
        return checkpoint
    checkpoint = msgspec.structs.replace(checkpoint, holder=None)
    files.write_atomic(folder.path / "workflow.json", encode(checkpoint), durable=True)
    return checkpoint


class _Unpacking:
    """Writes the members of a backup into a folder, one after the other."""

    def __init__(self, file: BinaryIO, source: str, building: Path) -> None:
        self._source = source
        self._building = building
        self._free = shutil.disk_usage(building).free
        self._stream = Bounded(file)
        self._digest = hashlib.sha256()
        self._members = 0

    def run(self) -> Contents:
        """Write all, and say what the backup's last member says. NoBackup where it does not say what was there."""
        last: bytes | None = None
        for info in self._infos():
            if last is not None:
                raise NoBackup(self._source, f"{CONTENTS} is not its last member")
            if not self._members and info.name != "format":
                raise NoBackup(self._source, "it is no backup of a spool")
            self._refuse_strange(info)
            if info.name in ("format", CONTENTS):
                data = b"".join(self._chunks(info))
                if info.name == CONTENTS:
                    last = data
                else:
                    self._check_format(data)
            else:
                self._write(info)
        if last is None:
            raise NoBackup(self._source, "it is cut off")
        try:
            contents = decoded(last, Contents)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise NoBackup(self._source, f"{CONTENTS}: {error}") from error
        if (contents.members, contents.digest) != (self._members, self._digest.hexdigest()):
            raise NoBackup(self._source, "its content is not what was backed up: the digest differs")
        return contents

    def _infos(self) -> Iterator[tarfile.TarInfo]:
        with self._telling():
            tar = tarfile.open(fileobj=self._stream.opened(), mode="r|")  # noqa: SIM115 - closed with its stream
        while True:
            self._stream.allowance = HEADER_BYTES
            with self._telling():
                info = tar.next()
            if info is None:
                return
            self._tar = tar
            yield info
            tar.members = []  # type: ignore[attr-defined]  # it would remember every one

    def _refuse_strange(self, info: tarfile.TarInfo) -> None:
        limit = limit_of(info.name)
        if limit is None:
            raise NoBackup(self._source, f"a spool has no file {info.name!r}")
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.issparse():
            raise NoBackup(self._source, f"{info.name} is not a regular file")
        if not 0 <= info.size <= limit:
            raise NoBackup(self._source, f"{info.name} has {info.size} bytes, the format allows {limit}")
        self._free -= info.size
        if self._free < 0:
            raise NoBackup(self._source, f"what it holds does not fit on the disk of {self._building.parent}")

    def _check_format(self, data: bytes) -> None:
        if (text := data.decode("ascii", "replace").strip()) != str(FORMAT):
            reason = f"it has format {text[:20]!r}, this version works format {FORMAT}"
            raise NoBackup(self._source, reason)

    def _write(self, info: tarfile.TarInfo) -> None:
        path = self._building / info.name
        for parent in reversed(path.relative_to(self._building).parents):
            files.make_dir(self._building / parent)  # one by one: the mode is that of the last
        if os.path.lexists(path):
            raise NoBackup(self._source, f"it has {info.name} twice")
        with files.filling(path) as out:
            for chunk in self._chunks(info):
                out.write(chunk)

    def _chunks(self, info: tarfile.TarInfo) -> Iterator[bytes]:
        self._stream.allowance = info.size + HEADER_BYTES
        if info.name != CONTENTS:
            self._members += 1
            measure(self._digest, info.name, info.size)
        left = info.size
        with self._telling():
            content = self._tar.extractfile(info)
        assert content is not None
        while left:
            with self._telling():
                data = content.read(min(left, CHUNK_BYTES))
            if not data:
                raise NoBackup(self._source, "it is cut off")
            left -= len(data)
            if info.name != CONTENTS:
                self._digest.update(data)
            yield data

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """What tarfile and gzip find wrong, as what it means."""
        try:
            yield
        except NOT_WHOLE as error:
            raise NoBackup(self._source, f"it is no whole backup: {error}") from error
        except OSError as error:
            raise SpoolUnusable(f"cannot read {self._source}: {error.strerror or error}") from error
