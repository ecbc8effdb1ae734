"""Logs: of attempts, whose kernel lock says that something of the attempt lives, and of the orchestrator."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from provisioning.core.redaction import Redactor
from provisioning.storage import files, growing, reading
from provisioning.storage.checkpoint import owned
from provisioning.storage.naming import StrPath, naming
from provisioning.storage.room import give_name

ORCHESTRATOR_LOG_BYTES = 10 << 20
"""Where a new log of the orchestrator begins; one older one is kept."""


def open_attempt_log(path: StrPath) -> int | None:
    """A descriptor of the log, with the attempt's lock; None where something of the attempt lives already."""
    with owned(path):
        return _locked(files.open_log(path))


def sync_attempt_log(descriptor: int) -> None:
    """Have all of it where another host reads it; output that the disk refuses is lost, and nothing else is."""
    with contextlib.suppress(OSError):
        os.fsync(descriptor)


def open_nameless_log(scratch: files.Scratch) -> tuple[str, int]:
    """A log that will be an attempt's, in the scratch folder, and a descriptor with its lock."""
    path = scratch.new_path()
    descriptor = files.open_log(path)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, descriptor


def name_attempt_log(nameless: StrPath, path: StrPath) -> bool:
    """Give a log of the scratch folder the name of an attempt's; False where the attempt has a log already."""
    with owned(path):
        return give_name(nameless, path)


def lock_ended_attempt(path: Path) -> tuple[int, bool] | None:
    """A descriptor with the attempt's lock, for whoever gives the attempt up; None where something of it lives.

    And whether there was no log: then its worker never began, and will find the attempt given up. Who can write to
    the log is taken for a part of the attempt, and ended: this descriptor cannot.
    """
    with owned(path):
        descriptor, made = files.open_log_to_lock(path)
    return None if _locked(descriptor) is None else (descriptor, made)


def _locked(descriptor: int) -> int | None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def attempt_is_alive(path: StrPath) -> bool:
    """Whether a process holds the attempt's lock. Only for whoever may act on it: readers never try a lock."""
    with owned(path):
        return reading.is_locked(path)


def read_from(path: Path, offset: int, limit: int = 1 << 20) -> bytes:
    """Up to `limit` bytes of the log from `offset`; nothing where there is no log yet."""
    with contextlib.suppress(FileNotFoundError), _reading(path) as file, naming(path, "read"):
        file.seek(offset)
        return file.read(limit)
    return b""


def tail_bytes(path: Path, limit: int) -> bytes:
    """So many bytes of the end of a log at most; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError), _reading(path) as file, naming(path, "read"):
        file.seek(max(0, file.seek(0, os.SEEK_END) - limit))
        return file.read(limit)
    return b""


def tail(path: Path, lines: int) -> bytes:
    """The last lines of the log, read from its end; a line ends at a line feed only."""
    return tail_and_end(path, lines)[0]


def tail_and_end(path: Path, lines: int) -> tuple[bytes, int]:
    """The last lines of the log, and the byte behind them: from there on is what comes next."""
    data, size = b"", 0
    with contextlib.suppress(FileNotFoundError), _reading(path) as file, naming(path, "read"):
        end = size = file.seek(0, os.SEEK_END)
        while lines > 0 and end > 0 and data.count(b"\n") <= lines:
            start = max(0, end - 65536)
            file.seek(start)
            data = file.read(end - start) + data
            end = start
    if lines <= 0:
        return b"", size
    kept = data.split(b"\n")
    return b"\n".join(kept[-lines - 1 :] if kept[-1] == b"" else kept[-lines:]), size


class Growing:
    """What is added to a log from now on, and to every file that takes its place when it has become large."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = self._opened()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def _opened(self) -> BinaryIO | None:
        with contextlib.suppress(FileNotFoundError):
            return _reading(self._path)
        return None

    def read(self) -> bytes:
        """What is new since the last call; nothing where nothing is."""
        if self._file is None:
            self._file = self._opened()
        elif not reading.names_this(self._path, self._file.fileno()):
            rest = self._rest()  # of the older file; then it goes on in the one that has its name
            if new := self._opened():
                self._file.close()
                self._file = new
            return rest or self._rest()
        return self._rest()

    def _rest(self) -> bytes:
        with naming(self._path, "read"):
            return self._file.read() if self._file is not None else b""

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()


def _reading(path: Path) -> BinaryIO:
    return os.fdopen(reading.open_regular(path), "rb")


def attempts_of(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Every attempt that has a log: task, number, path; in the order of their names."""
    for name in sorted(reading.list_names(folder)):
        task_id, _, number = name.removesuffix(".log").rpartition(".")
        if name.endswith(".log") and number.isdigit():
            yield task_id, int(number), folder / name


class AttemptLog:
    """The output of an attempt, bounded: its head as it came, its tail at the end, every gap marked with its bytes.

    What a disk refuses is kept, up to the size of a tail, and tried again with the next output. Output never fails an
    attempt: what is lost is counted.
    """

    TAIL_BYTES = 64 << 10

    def __init__(self, descriptor: int, limit: int, redactor: Redactor | None = None) -> None:
        self._descriptor = descriptor
        self._redactor = redactor or Redactor()
        self._kept_bytes = min(limit, self.TAIL_BYTES)
        self._head = limit - self._kept_bytes
        """So many bytes more go out as they come."""
        self._kept = bytearray()
        self._gap = 0
        """So many bytes were left out between what is written and what is kept."""
        self.written = 0
        """What is in the file, marks of gaps included."""
        self.dropped = 0

    def write(self, data: bytes) -> None:
        """Take more output, without secrets; what may be the beginning of one waits for what follows."""
        self._keep(self._redactor.feed(data))

    def _keep(self, data: bytes) -> None:
        self._kept += data
        if self._head and self._mark_gap():
            landed = self._put(bytes(self._kept[: self._head]))
            del self._kept[:landed]
            self._head -= landed
        if (excess := len(self._kept) - self._kept_bytes) > 0:
            del self._kept[:excess]
            self._gap += excess

    def finish(self) -> None:
        """Write the tail behind the head."""
        self._keep(self._redactor.finish())
        if self._mark_gap():
            del self._kept[: self._put(bytes(self._kept))]
        self.dropped += self._gap + len(self._kept)

    def _mark_gap(self) -> bool:
        """Say in the log how much is missing, if anything is; whether the output may go on behind it."""
        if not self._gap:
            return True
        mark = f"\n[{self._gap} bytes of output left out here]\n".encode()
        landed = self._put(mark)
        if landed < len(mark):  # half a mark would look like output
            self._take_back(landed)
            return False
        self.dropped += self._gap
        self._gap = 0
        return True

    def _put(self, data: bytes) -> int:
        """Write as many of the bytes as the disk takes; how many."""
        landed = 0
        with contextlib.suppress(OSError):
            while landed < len(data):
                landed += os.write(self._descriptor, memoryview(data)[landed:])
        self.written += landed
        return landed

    def _take_back(self, count: int) -> None:
        """Cut the bytes written last off again."""
        with contextlib.suppress(OSError):  # a disk that refuses even that keeps them
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - count)
            self.written -= count


class _SpoolLog(logging.Handler):
    """Appends each line in one write, and begins a new file when this one has become large."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        # By its folder's descriptor: a spool that is renamed takes its log with it, and another's is never written.
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._path = Path(f"/proc/self/fd/{self._folder}", path.name)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a full disk loses it."""
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in record.getMessage().replace("\n", " | "))
        at = datetime.fromtimestamp(record.created, UTC)
        with contextlib.suppress(OSError):
            files.append(self._path, f"{at:%FT%T}.{at.microsecond // 1000:03}Z {record.levelname} {text}\n".encode())
            growing.rotate(self._path, ORCHESTRATOR_LOG_BYTES)

    def close(self) -> None:
        """Let the folder go."""
        super().close()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def log_to(path: Path) -> None:
    """Send what this program logs to the file, and to stderr where somebody looks."""
    handlers: list[logging.Handler] = [_SpoolLog(path)]
    if sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
    for name, level in (("provisioning", logging.INFO), ("watchdog", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        for former in logger.handlers:
            former.close()
        logger.handlers = handlers
        logger.propagate = False
