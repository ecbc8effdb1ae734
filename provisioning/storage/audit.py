"""The audit log: who asked for what and what became of it, one synced record after the other, as one chain."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import now
from provisioning.config import Audit as Settings
from provisioning.core.chain import Break, Head, breaks, link, record
from provisioning.errors import SpoolUnusable
from provisioning.storage import files, growing, reading
from provisioning.storage.lock import Lock
from provisioning.storage.naming import naming

PATIENCE_SECONDS = 10.0
"""So long a writer waits for others: each takes milliseconds."""
MAX_RECORD_BYTES = 64 << 10
_PART = re.compile(r"audit\.[0-9]{12}\.jsonl\Z")
_SYSLOG_PRIORITY = 10 * 8 + 5
"""LOG_AUTHPRIV, LOG_NOTICE (RFC 3164)."""


class Audit:
    """The audit log of one spool. One writer at a time, whichever process it is in."""

    def __init__(self, root: Path, settings: Settings | None = None) -> None:
        self._folder = root / "audit"
        self._path = self._folder / "audit.jsonl"
        self._lock_path = root / "locks" / "audit"
        self._settings = settings or Settings()
        self._known: tuple[tuple[int, int], Head] | None = None
        """Inode and size of the file, and its head, as this process left them."""

    def append(self, event: str, **facts: Any) -> Head:
        """Add a record, durably; the new head. SpoolUnusable where the disk refuses: then nothing was added."""
        said = {name: fact for name, fact in facts.items() if fact not in (None, "", (), {})}
        with self._locked():
            head, torn = self._head()
            if torn:
                said["cut_off_before_bytes"] = torn
            head = self._rotate(head)
            at = now().isoformat().replace("+00:00", "Z")
            line, head = record(head, at, event, _shortened(said))
            with naming(self._path):
                growing.append_durably(self._path, line)
                found = os.stat(self._path)
            self._known = ((found.st_ino, found.st_size), head)
        self._tell(head)
        return head

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        files.make_dir(self._folder)
        lock = Lock(self._lock_path)
        if not lock.take(wait_seconds=PATIENCE_SECONDS):
            hint = f"see who, and end it if it is stopped: fuser -v {self._lock_path}"
            raise SpoolUnusable(f"another process has held {self._lock_path} for {PATIENCE_SECONDS:g} s", hint=hint)
        try:
            yield
        finally:
            lock.release()

    def _head(self) -> tuple[Head, int]:
        """The head, and how many bytes of a record that its writer did not finish were cut off behind it."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return self._head_of_parts(), 0
        if self._known and self._known[0] == (found.st_ino, found.st_size):
            return self._known[1], 0
        if found.st_size == 0:
            return self._head_of_parts(), 0
        with naming(self._path, "read"), open(self._path, "rb") as file:
            file.seek(max(0, found.st_size - 2 * MAX_RECORD_BYTES))
            tail = file.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        torn = len(tail) - len(whole)
        if torn:  # nobody was told of what it says: it was never synced
            with naming(self._path):
                growing.cut(self._path, found.st_size - torn)
        if not whole:
            return self._head_of_parts(), torn
        last = link(whole[whole.rfind(b"\n", 0, -1) + 1 :])
        if last is None:
            hint = "see: provisioning audit verify; to go on behind it, move the file to audit/ under another name"
            raise SpoolUnusable(f"the last record of {self._path} is damaged: nothing is added to it", hint=hint)
        return Head(last.n, last.hash), torn

    def _head_of_parts(self) -> Head:
        for path in reversed(self.parts()):
            if path != self._path:
                _, head, _ = breaks([(path.name, _lines(path))])
                return head
        return Head()

    def _rotate(self, head: Head) -> Head:
        """Begin another file where this one has become large; the chain goes on in it."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._path).st_size >= self._settings.bytes:
                files.move(self._path, self._folder / f"audit.{head.n:012}.jsonl")
        return head

    def _tell(self, head: Head) -> None:
        """Let the system's log know the head: who cuts the end of ours off cannot take it back there."""
        import socket

        text = f"<{_SYSLOG_PRIORITY}>provisioning: audit head n={head.n} hash={head.hash}"
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
            log.setblocking(False)
            log.sendto(text.encode(), str(self._settings.syslog))

    # Looking

    def parts(self) -> list[Path]:
        """The files of the log, oldest first."""
        older = sorted(name for name in reading.list_names(self._folder) if _PART.match(name))
        paths = [self._folder / name for name in older]
        return [*paths, self._path] if self._path.exists() else paths

    def verify(self) -> tuple[list[Break], Head, int]:
        """Where the chain does not hold, its head, and the number of its first record."""
        return breaks((path.name, _lines(path)) for path in self.parts())

    def is_unfinished(self) -> bool:
        """Whether its writer did not finish the last record: nobody was told of it, and the next one cuts it off."""
        if not self._path.exists():
            return False
        with naming(self._path, "read"), open(self._path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            return file.read(1) not in (b"", b"\n")

    def head(self) -> Head:
        """The last record that is whole; a look that changes nothing and waits for nobody."""
        for path in reversed(self.parts()):
            with naming(path, "read"), open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - 2 * MAX_RECORD_BYTES))
                tail = file.read()
            for line in reversed(tail.splitlines(keepends=True)):
                if said := link(line):
                    return Head(said.n, said.hash)
        return Head()

    def records(self, *, newest: int | None = None) -> Iterator[dict[str, Any]]:
        """The records, oldest first, or so many of the newest; lines that cannot be read are left out."""
        lines: list[bytes] = []
        for path in reversed(self.parts()):
            lines = [*_lines(path), *lines]
            if newest is not None and len(lines) >= newest:
                lines = lines[len(lines) - newest :]
                break
        yield from _decoded(lines)

    def said(self, subjects: Collection[str]) -> set[tuple[str, str]]:
        """Subject and event of the records about these drops in the last two files: for who goes on after a crash."""
        found = set()
        for path in self.parts()[-2:] if subjects else ():
            for said in _decoded(_lines(path)):
                if (subject := said.get("take_id")) in subjects:
                    found.add((str(subject), str(said.get("event"))))
        return found


class Tail:
    """Reads what is added to an audit log from now on, whichever process adds it, over the beginnings of new files."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._file, self._offset = 0, 0
        """Inode of the file that was read last, and how far."""
        if parts := audit.parts():
            found = os.stat(parts[-1])
            self._file, self._offset = found.st_ino, found.st_size

    def read(self, most_bytes: int) -> list[dict[str, Any]]:
        """The records that are new, of so many bytes at most; none where nothing is. A damaged one is left out."""
        paths = self._audit.parts()
        inodes = [os.stat(path).st_ino for path in paths]
        if self._file and self._file not in inodes:  # it was moved away: what it had then is not known
            self._file = 0
            paths, inodes = paths[-1:], inodes[-1:]
        at = inodes.index(self._file) if self._file else 0
        for path, inode in list(zip(paths, inodes, strict=True))[at:]:
            offset = self._offset if inode == self._file else 0
            with naming(path, "read"), open(path, "rb") as file:
                file.seek(min(offset, os.fstat(file.fileno()).st_size))
                offset, data = file.tell(), file.read(most_bytes)
            whole = data[: data.rfind(b"\n") + 1]
            self._file, self._offset = inode, offset + len(whole)
            if whole:
                return list(_decoded(whole.splitlines()))
        return []


def _decoded(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            yield msgspec.json.decode(line, type=dict[str, Any])


def _lines(path: Path) -> Iterator[bytes]:
    with naming(path, "read"), open(path, "rb") as file:
        yield from iter(lambda: file.readline(4 * MAX_RECORD_BYTES), b"")


def _shortened(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts, with what is too long for a record cut off."""
    text = msgspec.json.encode(facts)
    if len(text) < MAX_RECORD_BYTES // 4:
        return facts
    short: dict[str, Any] = {}
    for name, fact in facts.items():
        listed = list(itertools.islice(fact, 20)) if isinstance(fact, list | tuple) else fact
        short[name] = listed[:200] if isinstance(listed, str) else listed
    return short if len(msgspec.json.encode(short)) < MAX_RECORD_BYTES // 2 else {"facts": "too long"}
