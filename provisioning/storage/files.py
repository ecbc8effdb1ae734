"""Every way in which a file of the spool comes to be, changes or goes. Nothing else opens for writing.

A file that another process may read appears by rename, complete. What must survive a power cut is written with
`durable`: its bytes are synced before the rename, its folder after it, and then the call returns. After a failed sync
the bytes count as lost: the temporary file is removed and the error goes to the caller, who has said nothing yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from provisioning.clock import new_ulid
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.storage import reading
from provisioning.storage.naming import StrPath, naming

DURABLE = {
    "format": True,
    "submission": True,
    "plan": True,
    "request": True,
    "rejected": True,
    "workflow ended": True,
    "rollback begins": True,
    "workflow": False,
    "task": False,
    "task, first attempt": False,
    "task starting, not idempotent": True,
    "task starting, after a crash of the host": True,
    "task starting on a cluster": True,
    "view": False,
}
"""Whether a kind of file must be on the disk before anyone is told of it. A start on a cluster must, as what runs there
outlives a crash of this host. Checkpoints that need not be are `whole`, but those of a first attempt that began here or
succeeded: a power cut may take their bytes, and its outcome says it all again.
What is published once is always: outcomes (`Room`), `ids/` (`write_once`), `nulib/` (`publish_tree`), every `move`."""


APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


class Scratch:
    """A folder under `tmp/` that is this process's own, and locked for as long as it lives.

    What a dead process leaves there is told from the work of a live one by the lock alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prefix = f"{path}/"
        self._count = 0
        with naming(path.parent):
            while not self._made():
                pass  # swept between its making and its locking

    def _made(self) -> bool:
        """Whether the folder was made and locked before anyone took it for a dead process's."""
        os.mkdir(self.path, 0o700)
        try:
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        if reading.names_this(self.path, self.descriptor):
            return True
        os.close(self.descriptor)
        return False

    def new_name(self) -> str:
        """A name in it that was never used."""
        self._count += 1
        return str(self._count)

    def new_path(self) -> str:
        """Such a name with the folder before it."""
        return self._prefix + self.new_name()

    def name(self) -> Path:
        """Such a name as a path."""
        return Path(self.new_path())

    def close(self) -> None:
        """Remove the folder and let its lock go."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.descriptor)


def sweep_scratch(parent: Path, spare: Collection[str] = ()) -> None:
    """Remove the scratch folders whose processes are gone, but those to be spared, and what has no name of ours."""
    swept = [name for name in reading.list_names(parent) if WORKFLOW_ID.match(name) and name not in spare]
    for path in (parent / name for name in swept):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # gone, or nobody's scratch folder
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if reading.names_this(path, descriptor):  # else it was made anew meanwhile, and may be a live one
                    shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def opened(path: StrPath, flags: int) -> Iterator[int]:
    """A descriptor of the file or folder for the block; a file that is made is its owner's only."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_dir(path: StrPath) -> None:
    """Make what was renamed, made or removed in the folder durable."""
    with opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


def write_new(path: StrPath, data: bytes, *, durable: bool) -> None:
    """Create the file, which must not exist, with all of `data`; its folder is not synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, data)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def filling(path: Path) -> Iterator[BinaryIO]:
    """The file, which must not exist, to be written in the block; then synced, or removed if the block fails."""
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
        except BaseException:
            os.unlink(path)
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def write_atomic(
    path: StrPath, data: bytes, *, durable: bool, whole: bool = False, scratch: Scratch | None = None
) -> None:
    """Replace the file at once and whole. Without a scratch folder the temporary file is beside the target.

    With `whole` a power cut may take back the replacement, but never leaves the name without its bytes.
    """
    folder, name = os.path.split(path)
    temporary = scratch.new_path() if scratch else os.path.join(folder, f".{name}.{new_ulid()}")
    with naming(path):
        try:
            write_new(temporary, data, durable=durable or whole)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        if durable:
            sync_dir(folder or ".")


def write_once(path: Path, data: bytes, *, scratch: Scratch) -> bool:
    """Publish the file durably unless its name is taken; whether it was this call that did.

    A taken name is durable too: whoever took it may have died before that. After an error nothing of this call is at
    `path`, unless the disk refuses even to remove it.
    """
    temporary = scratch.name()
    with naming(path):
        try:
            write_new(temporary, data, durable=True)
            os.link(temporary, path)
            published = True
        except FileExistsError:
            published = False
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        try:
            sync_dir(path.parent)
        except OSError:
            if published:
                os.unlink(path)
            raise
    return published


def publish_file(temporary: Path, path: Path, *, replace: bool) -> bool:
    """Give a synced file its name, durably; False where the name is taken, unless it is to be replaced.

    The caller removes `temporary`. After a failed sync of the folder the file stays at `path`; if durably is not known.
    """
    with naming(path), contextlib.suppress(FileExistsError):
        (os.rename if replace else os.link)(temporary, path)
        with naming(path, "be sure that the disk keeps"):
            sync_dir(path.parent)
        return True
    return False


def append(path: Path, data: bytes) -> None:
    """Add to the end of the file in one write; a FIFO in its place is an error and waits for nobody."""
    with opened(path, APPEND) as descriptor:
        write_all(descriptor, data)


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, which may exist; its folder must, and is never made."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def open_log(path: StrPath) -> int:
    """A descriptor that appends to the log of an attempt, which may exist; its folder must."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with naming(path, "open"):
        return reading.regular(path, os.open(path, flags, 0o600))


def open_log_to_lock(path: Path) -> tuple[int, bool]:
    """A descriptor that cannot write to the log of an attempt, and whether this call has made the log."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
    with naming(path, "open"):
        try:
            return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
        except FileExistsError:
            return reading.regular(path, os.open(path, flags)), False


def make_dir(path: Path) -> None:
    """Make the folder and its parents where they are missing."""
    with naming(path, "make"):
        os.makedirs(path, 0o700, exist_ok=True)


def claim(path: Path) -> bool:
    """Make the folder, whose parent must be there; False where it is there already. Of many hosts one makes it."""
    with naming(path, "make"):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return False
    return True


def unclaim(path: Path) -> None:
    """Take the empty folder back."""
    with naming(path, "remove"):
        os.rmdir(path)


def touch(path: Path) -> None:
    """Show that somebody is at work on it: its times are now."""
    with naming(path, "touch"):
        os.utime(path)


def open_folder(path: StrPath) -> int:
    """A descriptor of the folder, by which files are made in it wherever it is moved."""
    with naming(path, "open"):
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def close_to_others(path: Path) -> None:
    """Take the right to write in the folder from everybody but its owner; what is a link or no folder is an error."""
    with naming(path, "change the mode of"), opened(path, os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor:
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o7755)


def move(source: Path, target: Path) -> None:
    """Rename durably, never onto a folder with content. After an error it is back, if the disk and others let it."""
    with naming(target):
        os.rename(source, target)
        try:
            sync_dir(target.parent)
            sync_dir(source.parent)
        except OSError:
            with contextlib.suppress(OSError):  # whoever has taken it on meanwhile keeps it
                os.rename(target, source)
            raise


def remove(path: StrPath) -> None:
    """Remove the file if it is there."""
    with naming(path, "remove"), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    """Remove the folder and all that is in it."""
    with naming(path, "remove"):
        shutil.rmtree(path)


def publish_tree(files: Mapping[str, bytes], target: Path, scratch: Scratch) -> None:
    """Make a folder with these files (by relative path) appear at once; one that is there stays. Durable on return."""
    temporary = scratch.name()
    with naming(target):
        try:
            if not target.is_dir():
                for name, data in files.items():
                    path = temporary / name
                    os.makedirs(path.parent, 0o700, exist_ok=True)
                    write_new(path, data, durable=True)
                for folder, _, _ in os.walk(temporary):
                    sync_dir(Path(folder))
                os.rename(temporary, target)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            if not target.is_dir():  # another process published the same folder first
                raise
        sync_dir(target.parent)  # whoever has published it may have died before that
