"""What a worker holds in its scratch folder: room for outcomes, a note of whom to signal, files that wait for names."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from provisioning.storage.files import Scratch, write_all
from provisioning.storage.naming import StrPath, naming


def give_name(temporary: StrPath, path: StrPath) -> bool:
    """Rename a file of a scratch folder, not durably; False where the name is taken: nothing is replaced."""
    with naming(path):
        try:
            _rename_no_replace(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            return _link_and_unlink(temporary, path)
    return True


def _rename_no_replace(source: StrPath, target: StrPath) -> None:
    """renameat2(2) with RENAME_NOREPLACE, whose number is from <linux/fs.h>; some file systems do not have it."""
    import ctypes

    here = -100  # AT_FDCWD
    if _renameat2()(here, os.fsencode(source), here, os.fsencode(target), 1):
        raise OSError(number := ctypes.get_errno(), os.strerror(number))


@cache
def _renameat2() -> Callable[..., int]:
    import ctypes  # here: commands that start nothing do without it

    found: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
    return found


def _link_and_unlink(source: StrPath, target: StrPath) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    os.unlink(source)
    return True


class Slate:
    """A note of this process, rewritten in place: others read it when this one is dead, and then it is whole."""

    SIZE = 256

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def write(self, data: bytes) -> None:
        """Put the data, of at most SIZE bytes, in the place of what is there."""
        with naming(self._path):
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.pwrite(self._descriptor, data.ljust(self.SIZE), 0)

    def close(self) -> None:
        """Let the file go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Room:
    """Disk space taken ahead for a file that must land even on a disk that has become full; kept until it is needed.

    Folders are open descriptors: a spool may be renamed while its disk is full.
    """

    def __init__(self, scratch: Scratch) -> None:
        self._scratch = scratch
        self._descriptor = -1
        self._size = 0

    def make(self, size: int) -> None:
        """Take so many bytes, if they are not taken already; anew after each time that they were needed."""
        if self._descriptor >= 0 and self._size >= size:
            return
        self.close()
        self._name = self._scratch.new_name()
        self._spare = f"{self._name}.spare"
        with naming(self._scratch.path / self._name, "make room for"):
            self._descriptor, self._size = _open_new(self._name, self._scratch.descriptor), size
            try:
                os.posix_fallocate(self._descriptor, 0, size)
                here = self._scratch.descriptor  # tmpfs counts names as inodes: a spare one is given up for the last
                os.link(self._name, self._spare, src_dir_fd=here, dst_dir_fd=here)
            except BaseException:
                self.close()
                raise

    def publish(self, path: StrPath, data: bytes, folder: int) -> None:
        """Write a new file and link it as `path` into `folder`, which is open, durably; a taken name is an error.

        Where the disk has no room for another file, the one that was made takes the data, and is gone: bytes whose sync
        failed are lost, and are tried again in a room made anew only. After an error nothing of this call is there.
        """
        name = os.path.basename(path)
        with naming(path):
            try:
                self._publish_new(name, data, folder)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or self._descriptor < 0:
                    raise
                self._publish_made(name, data, folder)

    def _publish_new(self, name: str, data: bytes, folder: int) -> None:
        temporary = self._scratch.new_name()
        descriptor = _open_new(temporary, self._scratch.descriptor)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
            self._link(temporary, name, folder)
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # it is swept with the folder: what was published is not taken back
                os.unlink(temporary, dir_fd=self._scratch.descriptor)

    def _publish_made(self, name: str, data: bytes, folder: int) -> None:
        try:
            write_all(self._descriptor, data)
            os.ftruncate(self._descriptor, len(data))
            os.fsync(self._descriptor)
            os.unlink(self._spare, dir_fd=self._scratch.descriptor)
            self._link(self._name, name, folder)
        finally:
            self.close()

    def _link(self, temporary: str, name: str, folder: int) -> None:
        os.link(temporary, name, src_dir_fd=self._scratch.descriptor, dst_dir_fd=folder)
        try:
            os.fsync(folder)
        except OSError:
            os.unlink(name, dir_fd=folder)  # the name may be lost too: it is said again with the next try
            raise

    def close(self) -> None:
        """Give the room back."""
        if self._descriptor >= 0:
            for name in (self._name, self._spare):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._scratch.descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _open_new(name: str, folder: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
