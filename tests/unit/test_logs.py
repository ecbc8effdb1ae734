"""Attempt logs: their lock, their bounds, and reading them from the end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.execution.ending import end_holders
from provisioning.storage import files, growing, logs
from provisioning.storage.checkpoint import Damaged
from provisioning.storage.logs import AttemptLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.1.log"


def written(path: Path, limit: int, *chunks: bytes) -> AttemptLog:
    descriptor = files.open_log(path)
    log = AttemptLog(descriptor, limit)
    for chunk in chunks:
        log.write(chunk)
    log.finish()
    os.close(descriptor)
    return log


def test_the_lock_says_that_something_lives(path: Path) -> None:
    assert not logs.attempt_is_alive(path)
    assert not path.exists()  # looking makes nothing
    descriptor = logs.open_attempt_log(path)
    assert descriptor is not None
    assert logs.attempt_is_alive(path)
    assert logs.open_attempt_log(path) is None
    inherited = os.dup(descriptor)
    os.close(descriptor)
    assert logs.attempt_is_alive(path)  # as long as anyone who inherited it lives
    os.close(inherited)
    assert not logs.attempt_is_alive(path)
    again = logs.open_attempt_log(path)
    assert again is not None
    os.close(again)


def test_who_gives_an_attempt_up_has_its_lock_and_is_no_part_of_it(path: Path) -> None:
    """A worker that finishes just then ends whoever can write to the log: not another process's recovery."""
    program = (
        "import sys, pathlib; from provisioning.storage import logs;"
        "assert logs.lock_ended_attempt(pathlib.Path(sys.argv[1])) is not None; print('locked', flush=True); input()"
    )
    words = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recovery:
        assert recovery.stdout is not None
        assert recovery.stdout.readline() == b"locked\n"
        assert path.read_bytes() == b"", "it was made where it was missing"
        assert logs.attempt_is_alive(path)
        assert logs.open_attempt_log(path) is None, "a late worker gives up"
        assert logs.lock_ended_attempt(path) is None, "and so does a second recovery"
        assert end_holders(path, 0.1) == ()
        assert recovery.poll() is None
        recovery.communicate(b"\n")
    assert not logs.attempt_is_alive(path)


def test_a_link_is_no_log(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    for use in (logs.open_attempt_log, logs.lock_ended_attempt, logs.attempt_is_alive):
        with pytest.raises(Damaged) as raised:
            use(path)
        assert raised.value.path == path


def test_short_output_is_there_at_once(path: Path) -> None:
    descriptor = files.open_log(path)
    log = AttemptLog(descriptor, 1 << 20)
    log.write(b"hello\n")
    assert path.read_bytes() == b"hello\n"
    log.finish()
    os.close(descriptor)
    assert (log.written, log.dropped) == (6, 0)


def test_the_head_and_the_tail_are_kept_and_the_gap_is_marked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptLog, "TAIL_BYTES", 10)
    log = written(path, 30, *(b"%09d\n" % number for number in range(100)))
    assert path.read_bytes() == b"000000000\n000000001\n\n[970 bytes of output left out here]\n000000099\n"
    assert log.dropped == 970


def test_output_that_just_fits_has_no_gap(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptLog, "TAIL_BYTES", 10)
    log = written(path, 30, b"x" * 7, b"y" * 23)
    assert path.read_bytes() == b"x" * 7 + b"y" * 23
    assert log.dropped == 0


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 100), st.integers(0, 50))
def test_the_bound_holds_for_any_output(chunks: list[bytes], limit: int, tail: int) -> None:
    reading, writing = os.pipe()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AttemptLog, "TAIL_BYTES", tail)
        log = AttemptLog(writing, limit)
    for chunk in chunks:
        log.write(chunk)
    log.finish()
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = file.read()
    whole = b"".join(chunks)
    assert log.written == len(found)
    if len(whole) <= limit:
        assert (found, log.dropped) == (whole, 0)
        return
    mark = f"\n[{log.dropped} bytes of output left out here]\n".encode()
    head, _, rest = found.partition(mark)
    assert mark in found
    assert len(head) + len(rest) == limit == len(whole) - log.dropped
    assert whole.startswith(head)
    assert whole.endswith(rest)


def test_a_full_disk_fails_nothing_and_is_counted(path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)
    log = AttemptLog(full, 1 << 20)
    log.write(b"x" * 100)
    log.write(b"y" * 50)
    log.finish()
    os.close(full)
    assert (log.written, log.dropped) == (0, 150)


class FullDisk:
    """Lets so many more bytes be written to one descriptor; a write that does not fit is cut short, then refused."""

    def __init__(self, patched: pytest.MonkeyPatch, descriptor: int) -> None:
        self.room = 0
        self._write = os.write
        self._descriptor = descriptor
        patched.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if descriptor != self._descriptor:
            return self._write(descriptor, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        landed = self._write(descriptor, bytes(data)[: self.room])
        self.room -= landed
        return landed


def test_a_write_that_lands_in_part_is_counted_for_what_landed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = files.open_log(path)
    disk = FullDisk(monkeypatch, descriptor)
    log = AttemptLog(descriptor, 1 << 20)
    disk.room = 4
    log.write(b"0123456789")
    assert (log.written, path.read_bytes()) == (4, b"0123")
    log.finish()
    os.close(descriptor)
    assert (log.written, log.dropped) == (4, 6)


def test_what_was_refused_lands_once_there_is_room_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor = files.open_log(path)
    disk = FullDisk(monkeypatch, descriptor)
    log = AttemptLog(descriptor, 1 << 20)
    disk.room = 4
    log.write(b"01234")
    log.write(b"56")
    disk.room = 1000
    log.write(b"789")
    assert path.read_bytes() == b"0123456789"
    log.finish()
    os.close(descriptor)
    assert (log.written, log.dropped) == (10, 0)


def test_what_a_full_disk_cost_is_marked_where_it_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AttemptLog, "TAIL_BYTES", 10)
    descriptor = files.open_log(path)
    disk = FullDisk(monkeypatch, descriptor)
    log = AttemptLog(descriptor, 1 << 20)
    disk.room = 4
    log.write(b"head" + b"x" * 33 + b"recent 10.")
    disk.room = 20  # half a mark would fit: it must not stay
    log.write(b"")
    assert path.read_bytes() == b"head"
    disk.room = 1000
    log.write(b"then this")
    log.finish()
    os.close(descriptor)
    mark = b"\n[33 bytes of output left out here]\n"
    assert path.read_bytes() == b"head" + mark + b"recent 10.then this"
    assert (log.written, log.dropped) == (path.stat().st_size, 33)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=40)), max_size=20),
    st.integers(0, 120),
    st.integers(0, 40),
    st.integers(0, 200),
)
def test_every_byte_is_written_or_counted_whatever_the_disk_refuses(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bytes]], limit: int, tail: int, last: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.1.log"
    descriptor = files.open_log(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(AttemptLog, "TAIL_BYTES", tail)
        log = AttemptLog(descriptor, limit)
        disk = FullDisk(patched, descriptor)
        letters = [(room, bytes(97 + byte % 26 for byte in data)) for room, data in steps]
        for room, data in letters:
            disk.room = room
            log.write(data)
        disk.room = last
        log.finish()
    os.close(descriptor)
    found, whole = path.read_bytes(), b"".join(data for _, data in letters)
    marks = re.findall(rb"\n\[(\d+) bytes of output left out here\]\n", found)
    parts = re.split(rb"\n\[\d+ bytes of output left out here\]\n", found)
    assert log.written == len(found)
    assert sum(map(len, parts)) + log.dropped == len(whole)
    place = 0
    for part, gap in zip(parts, [*map(int, marks), 0], strict=True):
        assert whole[place : place + len(part)] == part
        place += len(part) + gap


@pytest.mark.parametrize(
    ("data", "lines", "expected"),
    [
        (b"", 3, b""),
        (b"1\n2\n3\n", 2, b"2\n3\n"),
        (b"1\n2\n3", 2, b"2\n3"),
        (b"1\n2\n3\n", 3, b"1\n2\n3\n"),
        (b"1\n2\n3\n", 99, b"1\n2\n3\n"),
        (b"1\n2\n", 0, b""),
        (b"1\n\n\n", 2, b"\n\n"),
        (b"10%\r20%\r30%\ndone\n", 2, b"10%\r20%\r30%\ndone\n"),
        (b"\xff\x00\n\xfe\n", 1, b"\xfe\n"),
    ],
)
def test_tail(path: Path, data: bytes, lines: int, expected: bytes) -> None:
    path.write_bytes(data)
    assert logs.tail(path, lines) == expected


def test_tail_of_a_large_log_reads_only_its_end(path: Path) -> None:
    path.write_bytes(b"".join(b"line %07d\n" % number for number in range(100_000)))
    assert logs.tail(path, 2) == b"line 0099998\nline 0099999\n"
    found = logs.tail(path, 20_000)  # more than one block
    assert found.startswith(b"line 0080000\n")
    assert found.count(b"\n") == 20_000


def test_tail_and_read_of_nothing(tmp_path: Path) -> None:
    assert logs.tail(tmp_path / "gone", 5) == b""
    assert logs.read_from(tmp_path / "gone", 0) == b""


def test_read_from_follows(path: Path) -> None:
    path.write_bytes(b"0123456789")
    assert logs.read_from(path, 3, 4) == b"3456"
    assert logs.read_from(path, 10) == b""
    assert logs.read_from(path, 99) == b""


def test_attempts_of_knows_tasks_with_dots(tmp_path: Path) -> None:
    for name in ("web.1.2.log", "lb.1.log", "lb.x.log", ".hidden.1.log", "other.txt"):
        (tmp_path / name).write_bytes(b"")
    found = [(task, number) for task, number, _ in logs.attempts_of(tmp_path)]
    assert found == [("lb", 1), ("web.1", 2)]
    assert list(logs.attempts_of(tmp_path / "gone")) == []


@pytest.fixture
def program_log(tmp_path: Path) -> Iterator[Path]:
    kept = {name: (log.level, log.handlers, log.propagate) for name, log in program_loggers()}
    logs.log_to(tmp_path / "orchestrator.log")
    yield tmp_path / "orchestrator.log"
    for name, log in program_loggers():
        log.level, log.handlers, log.propagate = kept[name]


def program_loggers() -> list[tuple[str, logging.Logger]]:
    return [(name, logging.getLogger(name)) for name in ("provisioning", "watchdog")]


def test_one_record_is_one_line_whatever_it_says(program_log: Path) -> None:
    logging.getLogger("provisioning.x").warning("a\nb %s", "\x1b[31m\r2026 INFO forged")
    lines = program_log.read_text("utf-8").splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("WARNING a | b \\x1b[31m\\x0d2026 INFO forged")


def test_the_program_log_begins_anew_and_keeps_one(program_log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ORCHESTRATOR_LOG_BYTES", 100)
    for number in range(20):
        logging.getLogger("provisioning.x").info("line %d", number)
    assert sorted(os.listdir(program_log.parent)) == ["orchestrator.log", "orchestrator.log.1"]
    assert "line 19" in program_log.read_text() + program_log.with_name("orchestrator.log.1").read_text()
    assert program_log.with_name("orchestrator.log.1").stat().st_size < 200


def test_a_program_log_that_cannot_be_written_stops_nothing(program_log: Path) -> None:
    program_log.mkdir()
    logging.getLogger("provisioning.x").info("lost")


def test_a_log_is_followed_into_the_file_that_takes_its_place(path: Path) -> None:
    path.write_bytes(b"said before\n")
    with contextlib.closing(logs.Growing(path)) as grows:
        assert grows.read() == b""
        files.append(path, b"one\n")
        assert grows.read() == b"one\n"
        files.append(path, b"two\n")
        growing.rotate(path, 1)
        assert grows.read() == b"two\n", "the rest of the older file"
        assert grows.read() == b"", "there is no new one yet"
        files.append(path, b"three, longer than all of the older file\n")
        assert grows.read() + grows.read() == b"three, longer than all of the older file\n"
        growing.rotate(path, 1)
        files.append(path, b"4\n")
        assert grows.read() == b"4\n"


def test_a_log_that_is_not_there_yet_is_followed_from_its_first_byte(path: Path) -> None:
    with contextlib.closing(logs.Growing(path)) as grows:
        assert grows.read() == b""
        files.append(path, b"first\n")
        assert grows.read() == b"first\n"
