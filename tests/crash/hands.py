"""A pool without processes: an attempt is made at once, by the code that a worker runs, and its Nushell is a shell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from provisioning.clock import new_ulid
from provisioning.core.catalogue import Catalogue
from provisioning.core.tasks import Sources
from provisioning.execution.attempt import Attempts, InSpool, NotStarted
from provisioning.execution.executor import Ahead, AttemptRequest, Key, News, Seen
from provisioning.execution.nushell import Nushell
from provisioning.processes import own_identity
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.spool import Spool
from tests.crash.family import Family

OPERATIONS: dict[str, dict[str, Any]] = {
    "work.once": {"idempotent": False},
    "work.again": {"idempotent": True},
    "work.fail": {"idempotent": True},
    "work.stubborn": {"idempotent": False},
}
MARK = "IFS= read -r request <&3\nprintf '%s\\n' \"$request\" >> {marks}\n"
SUCCEED = MARK + "printf '{{\"result\": 1}}' >&4\n"
FAIL = MARK + 'printf \'{{"error": {{"code": "work::no"}}}}\' >&4\n'
STUBBORN = "trap 'printf \"{{}}\" >&4; exit 0' TERM\n" + MARK + "while :; do /bin/sleep 0.01; done\n"
TEXTS = {"work.fail": FAIL, "work.stubborn": STUBBORN}


class Watching(Protocol):
    """The host, as its workers know it."""

    marks: Path
    cancels: bool
    family: Family

    def ran(self) -> list[str]: ...

    def pass_by(self, step: str, path: Path, *, after: bool = False) -> None: ...


class _Signals:
    """What a worker hears: nothing, or, once the operation has begun, that it is to be ended."""

    lag_seconds = 0.0

    def __init__(self, host: Watching) -> None:
        self._host = host
        self.descriptor, self._end = os.pipe()
        if host.cancels:
            os.write(self._end, b"!")

    def cancelled(self) -> bool:
        return self._host.cancels and bool(self._host.ran())

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._end)


class Hands:
    """The executor: an attempt is made at once, by the code that a worker runs."""

    descriptor = -1

    def __init__(self, host: Watching, spool: Spool) -> None:
        self._host = host
        self._spool = spool
        self.workers: dict[str, files.Scratch] = {}
        self._names: dict[Key, str] = {}
        self._news: list[News] = []

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        self._names[key] = name = new_ulid()
        self.workers[name] = scratch = files.Scratch(self._spool.tmp / name)
        # The session is that of what it starts; the start is nobody's, so that no signal to it ends the tests.
        nobody = msgspec.structs.replace(own_identity(), pid=os.getsid(0), starttime=1 << 60)
        (scratch.path / "process").write_bytes(encode(nobody))
        return name

    def withdraw(self, key: Key) -> None:
        self.workers.pop(self._names.pop(key)).close()

    def start(self, request: AttemptRequest) -> None:
        self._host.pass_by("start", Path(request.key.task_id))
        self._host.family.begin()
        scratch = self.workers[self._names[request.key]]
        signals = _Signals(self._host)
        attempts = Attempts(scratch, signals)
        try:
            folder = WorkflowFolder(self._spool.workflows / request.key.workflow_id, scratch)
            record = attempts.run(request, InSpool(request, folder, scratch), lambda: None)
            self._news.append(News(request.key, Seen.ENDED if record else Seen.LOST, record))
        except NotStarted as error:
            self._news.append(News(request.key, Seen.NOT_STARTED, problem=str(error)))
        finally:
            attempts.close()
            signals.close()
        self.workers.pop(self._names.pop(request.key)).close()
        self._host.pass_by("start", Path(request.key.task_id), after=True)

    def cancel(self, key: Key) -> None:
        raise AssertionError("no attempt of ours lasts")

    def free_slots(self) -> int:
        return 4

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """None waits here."""

    def has_news(self) -> bool:
        return bool(self._news)

    def news(self) -> Iterable[News]:
        found, self._news = self._news, []
        return found

    def trim(self, now: float) -> float | None:
        return None

    def close(self) -> None:
        """What runs goes on."""


class ShellNulib:
    """Operations as shell scripts."""

    def __init__(self, host: Watching, catalogue: Catalogue, nu: Nushell) -> None:
        self._host = host
        self.catalogue = catalogue
        self.nu = nu

    def sources(self, _spool: Callable[[], Spool]) -> Sources:
        return Sources()

    def keep(self, spool: Spool) -> None:
        texts = {name: TEXTS.get(name, SUCCEED) for name in self.catalogue.operations}
        tree = {f"entries/{name}.nu": text.format(marks=self._host.marks).encode() for name, text in texts.items()}
        files.publish_tree(tree, spool.nulib / self.catalogue.digest, spool.scratch)


def end(scratch: files.Scratch) -> None:
    """A worker dies: its locks are free, its folder stays."""
    os.close(scratch.descriptor)
