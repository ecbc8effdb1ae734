"""The folders of others inside the spool: the only code that reads, writes or removes anything in them.

Whatever has a name there is theirs to change at any instant: nothing is opened through a link or waited for, what was
looked at is compared with what was opened, and what is written there takes the place of a name whatever it stood for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

from provisioning.clock import new_ulid
from provisioning.core.drop import Sight
from provisioning.storage import files
from provisioning.storage.naming import naming
from provisioning.storage.room import give_name

MOST_NAMES = 300_000
"""So many of a folder are read at once: its owner can make any number."""
PUBLIC = 0o644
"""Mode of receipts: only those who may enter the folder can reach them."""


class Changed(Exception):
    """It is no longer what it was when it was looked at."""


def _sight(name: bytes, found: os.stat_result) -> Sight:
    return Sight(
        name,
        found.st_dev,
        found.st_ino,
        found.st_mode,
        found.st_uid,
        found.st_gid,
        found.st_nlink,
        found.st_size,
        found.st_mtime_ns,
        found.st_ctime_ns,
    )


def look(folder: int | Path, name: bytes) -> Sight | None:
    """What the name stands for now, if for anything; no link is followed."""
    try:
        if isinstance(folder, Path):
            return _sight(name, os.lstat(os.path.join(os.fsencode(folder), name)))
        return _sight(name, os.stat(name, dir_fd=folder, follow_symlinks=False))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def open_folder(path: Path) -> int:
    """A descriptor of the folder, which must be one and no link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def list_sights(folder: int, wanted: Callable[[bytes], bool]) -> tuple[list[Sight], bool]:
    """What is in the folder under names that are wanted; whether that is all: no more than `MOST_NAMES` are read."""
    with os.scandir(folder) as entries:
        names = [os.fsencode(entry.name) for entry in itertools.islice(entries, MOST_NAMES)]
        whole = next(entries, None) is None
    seen = (look(folder, name) for name in names if wanted(name))
    return [sight for sight in seen if sight is not None], whole


class Opened:
    """A regular file that was looked at, open to read; while it is alone nobody can be writing to it."""

    def __init__(self, folder: int, sight: Sight) -> None:
        place = os.open(sight.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            if _sight(sight.name, os.fstat(place)) != sight:
                raise Changed
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
            self.descriptor = os.open(f"/proc/self/fd/{place}", flags)  # that very file, whatever has its name now
        finally:
            os.close(place)
        self._sight = sight
        self._leased = False

    def is_alone(self) -> bool:
        """Take a lease, so that whoever opens it to write has to wait for us; False where somebody has it open so.

        Only its owner and root may take one: for others the answer is that they do not know, which is True.
        """
        try:
            fcntl.fcntl(self.descriptor, fcntl.F_SETSIG, signal.SIGURG)  # which, unlike SIGIO, ends nobody
            fcntl.fcntl(self.descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            self._leased = True
        except OSError as error:
            return error.errno != errno.EAGAIN
        return True

    def is_wanted(self) -> bool:
        """Whether somebody waits to open it for writing: what they write then is another drop."""
        return self._leased and fcntl.fcntl(self.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK

    def read(self, limit: int) -> bytes:
        """Its bytes, one more than `limit` at most; Changed where they are not those that were looked at."""
        data = b""
        while len(data) <= limit and (more := os.pread(self.descriptor, limit + 1 - len(data), len(data))):
            data += more
        if _sight(self._sight.name, os.fstat(self.descriptor)) != self._sight:
            raise Changed
        return data

    def close(self) -> None:
        """Let it go, and whoever waits for it."""
        os.close(self.descriptor)


def hand_over(folder: Path, target: Path) -> None:
    """Rename a folder of ours durably: where its name appears is synced, which takes it from where it was as well."""
    with naming(target):
        os.rename(folder, target)
        files.sync_dir(target.parent)


HasItsBytes = Callable[[bytes], bool]
"""Whether these bytes are those that were taken."""


def take_away(folder: Path, sight: Sight, into: Path, has_its_bytes: HasItsBytes, opened: Opened | None = None) -> bool:
    """Remove the file that was taken, durably; False where the name stands for another by now, which stays.

    It is moved to `into`, beside our own copy, and compared there: so nothing that takes its place meanwhile is lost.
    """
    path = os.path.join(os.fsencode(folder), sight.name)
    found = look(folder, sight.name)
    if found is None or not (found == sight or _is_only_marked(path, found, sight, has_its_bytes)):
        return False
    with naming(folder, "remove what was taken from"):
        try:
            os.rename(path, into)
        except FileNotFoundError:
            return False
        wanted = opened is not None and opened.is_wanted()
        gone = settle_away(path, sight, into, has_its_bytes, wanted=wanted)
        files.sync_dir(folder)  # or it would be there again after a power cut, and be another drop
    return gone


def settle_away(path: bytes, sight: Sight, into: Path, has_its_bytes: HasItsBytes, *, wanted: bool) -> bool:
    """Of a file that was moved away: remove it if it is the one that was taken, or else put it back where it was."""
    moved = look(into.parent, os.fsencode(into.name))
    if moved is None:
        return True
    is_it = moved.same_file(sight) or _is_only_marked(os.fsencode(into), moved, sight, has_its_bytes)
    same = is_it and not wanted
    named = Path(os.fsdecode(path))
    if not same and give_name(into, named):
        return False
    if stat.S_ISDIR(moved.mode):  # nobody's drop, and not ours to remove: not even where its name is taken by now
        give_name(into, named.with_name(f"{named.name[:200]}.{new_ulid()}"))
    else:  # where a newer one has the name, that counts
        os.unlink(into)
    return same


def _is_only_marked(path: bytes, found: Sight, sight: Sight, has_its_bytes: HasItsBytes) -> bool:
    """Whether the file has all its bytes still, and merely other times or another mode.

    rsync --inplace, scp -p and others set them when all is written, by the name, and have nothing open any more.
    """
    as_before = (sight.device, sight.inode, sight.size, stat.S_IFREG)
    if (found.device, found.inode, found.size, stat.S_IFMT(found.mode)) != as_before:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        known = os.fstat(descriptor)
        data = os.pread(descriptor, found.size + 1, 0) if known.st_ino == found.inode else b""
    finally:
        os.close(descriptor)
    return len(data) == found.size and has_its_bytes(data)


def remove(folder: int, sight: Sight) -> None:
    """Remove a name that still stands for what was looked at, or that somebody else has removed."""
    with naming(Path(os.fsdecode(sight.name)), "remove"), contextlib.suppress(FileNotFoundError):
        if look(folder, sight.name) == sight:
            os.unlink(sight.name, dir_fd=folder)


def publish(folder: Path, name: str, data: bytes, scratch: files.Scratch) -> None:
    """Give a file of ours a name in the folder of others, whole and durably, whatever had the name."""
    temporary = scratch.name()
    with naming(folder / name):
        try:
            files.write_new(temporary, data, durable=True)
            os.chmod(temporary, PUBLIC)
            os.rename(temporary, folder / name)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        files.sync_dir(folder)


def replace(path: Path, data: bytes, mode: int, *, durable: bool = True) -> None:
    """Replace a file in a folder of others, whole, with this mode; what its name stood for is not followed."""
    temporary = path.with_name(f".{path.name[:200]}.{new_ulid()}")
    with naming(path):
        try:
            with files.opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW) as descriptor:
                os.fchmod(descriptor, mode)  # not by its name, which may be a link by now
                files.write_all(descriptor, data)
                if durable:
                    os.fsync(descriptor)
            os.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        if durable:
            files.sync_dir(path.parent)


def give(path: Path, *, owner: int, group: int, mode: int) -> None:
    """Make the folder if it is missing, and set its owner, group and mode; what is a link or no folder is an error."""
    with naming(path, "set owner and mode of"):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        descriptor = open_folder(path)
        try:
            os.fchown(descriptor, owner, group)
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def is_writable(folder: Path) -> bool:
    """Whether this process may take any name away from the folder and give it some."""
    found = os.lstat(folder)
    sticky = found.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid)
    return not sticky and os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
