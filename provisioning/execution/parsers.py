"""The parser processes: what strangers wrote is read in them alone, under limits, and no file holds up another."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import boottime
from provisioning.core.conformity import schema_findings
from provisioning.core.drop import Reason, Verdict
from provisioning.execution.judge import Case, Rules, judge
from provisioning.resources import schema
from provisioning.storage import reading

_log = logging.getLogger(__name__)

LARGE_BYTES = 32 << 10
"""What is larger waits for the last of the parsers: the others are there for what is soon done."""
ANSWER_SECONDS = 30.0
"""So long a parser may take by the clock, whatever it waits for."""
MAX_RULES_BYTES = 64 << 20


class _Asked(msgspec.Struct, frozen=True):
    """A case, and the file of the rules that it is held to."""

    case: Case
    rules: str


_ASKED = msgspec.msgpack.Decoder(_Asked)
_VERDICT = msgspec.msgpack.Decoder(Verdict)
_RULES = msgspec.json.Decoder(Rules)


def parse(connection: Connection) -> None:
    """Answer case after case until the pipe ends. The whole life of a parser process."""
    _keep_only(connection)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    schema_findings(schema("manifest"), {})  # imports what checking needs now: not in the time of the first case
    known, rules = "", None
    while True:
        try:
            asked = _ASKED.decode(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        try:
            if rules is None or asked.rules != known:
                rules, known = _RULES.decode(reading.read_regular(Path(asked.rules), MAX_RULES_BYTES)), asked.rules
                _limit_memory(rules.parse_bytes)
            verdict = judge(asked.case, rules)
        except MemoryError:
            verdict = _failed("too-much-memory", "reading it takes more memory than allowed")
        except Exception as error:  # noqa: BLE001 - whatever a stranger's file can lead to is that file's matter
            _log.error("the parser failed on %s: %s: %s", asked.case.key, type(error).__name__, error)
            verdict = _failed("parser-failed", f"the parser failed: {type(error).__name__}")
        with contextlib.suppress(OSError):
            connection.send_bytes(msgspec.msgpack.encode(verdict))


def _keep_only(connection: Connection) -> None:
    """Let go of what the forkserver passed on."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) in (0, 1, 2):
                os.dup2(nothing, int(name))
            elif int(name) != connection.fileno():
                os.close(int(name))


def _limit_memory(more: int) -> None:
    with open("/proc/self/statm", "rb") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _failed(code: str, text: str) -> Verdict:
    return Verdict((Reason(code, text, "make it simpler, or submit it on the host itself"),))


class _Parser:
    """One parser process as its owner sees it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=parse, args=(theirs,), name="parser")
        try:
            self.process.start()
        except (OSError, EOFError, RuntimeError):
            self.connection.close()
            raise
        finally:
            theirs.close()
        self.case: Case | None = None
        self.until = 0.0

    def end(self) -> int | None:
        """Make it go; how it went."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self.process.close()
        return code


class Parsers:
    """So many parser processes, each started when it is first needed and after each time that it died."""

    def __init__(self, count: int = 2) -> None:
        self._parsers: list[_Parser | None] = [None] * count

    def ask(self, case: Case, rules: Path, size_bytes: int) -> bool:
        """Give the case to a parser that is free; False where there is none for its size. OSError: no process."""
        lanes = range(len(self._parsers))
        for lane in lanes if size_bytes <= LARGE_BYTES else lanes[-1:]:
            parser = self._parsers[lane]
            if parser is None:
                try:
                    parser = self._parsers[lane] = _Parser()
                except (EOFError, RuntimeError) as error:
                    raise OSError(str(error)) from error
            if parser.case is None:
                parser.case, parser.until = case, boottime() + ANSWER_SECONDS
                with contextlib.suppress(OSError):  # it has died: found so by `answers`
                    parser.connection.send_bytes(msgspec.msgpack.encode(_Asked(case, str(rules))))
                return True
        return False

    def has_room(self, size_bytes: int) -> bool:
        """Whether a parser is free for a file of this size."""
        lanes = self._parsers if size_bytes <= LARGE_BYTES else self._parsers[-1:]
        return any(parser is None or parser.case is None for parser in lanes)

    def next_due(self) -> float | None:
        """The boottime at which a parser has taken too long."""
        return min((parser.until for parser in self._parsers if parser and parser.case), default=None)

    def waitables(self) -> list[Any]:
        """What to wait on for answers."""
        return [parser.connection for parser in self._parsers if parser and parser.case]

    def wait(self) -> None:
        """Until a verdict has come, or a parser has taken too long."""
        wait(self.waitables(), max(0.0, (self.next_due() or 0.0) - boottime()))

    def answers(self) -> Iterator[tuple[str, Verdict]]:
        """The verdicts that have come since, by key; and what is to be said where a parser has died instead."""
        for lane, parser in enumerate(self._parsers):
            if parser is None or parser.case is None:
                continue
            key = parser.case.key
            try:
                if not parser.connection.poll():
                    if boottime() >= parser.until:
                        self._parsers[lane] = None
                        parser.end()
                        yield key, _failed("too-slow", f"reading it takes longer than {ANSWER_SECONDS:g} s")
                    continue
                verdict = _VERDICT.decode(parser.connection.recv_bytes())
                parser.case = None
            except (EOFError, OSError, msgspec.MsgspecError):
                self._parsers[lane] = None
                parser.process.join(ANSWER_SECONDS)
                yield key, _of_the_dead(parser.end())
                continue
            if verdict.reasons and verdict.reasons[0].code == "too-much-memory":  # what it has left is little
                self._parsers[lane] = None
                parser.end()
            yield key, verdict

    def close(self) -> None:
        """End them all; what they were asked is asked again by whoever comes next."""
        for parser in self._parsers:
            if parser is not None:
                parser.end()
        self._parsers = [None] * len(self._parsers)


def _of_the_dead(code: int | None) -> Verdict:
    if code == -signal.SIGPROF:
        return _failed("too-slow", "reading it takes more processor time than allowed")
    return _failed("parser-failed", "the parser ended without an answer")
