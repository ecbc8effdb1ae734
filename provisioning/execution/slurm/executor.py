"""The executor of a cluster: attempts are handed to a thread that talks to Slurm and reads the shared directory."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from provisioning.clock import new_ulid
from provisioning.config import Config
from provisioning.execution.executor import Ahead, AttemptRequest, Key, News, Remote, Seen
from provisioning.execution.slurm.commands import Commands
from provisioning.execution.slurm.notes import Begin, Cancel, Follow, Note, Stop
from provisioning.execution.slurm.watch import Watch
from provisioning.sections import Slurm as Settings
from provisioning.storage import files
from provisioning.storage.limits import Wanted, taken
from provisioning.storage.shared import Shared
from provisioning.storage.spool import Spool

CLOSE_SECONDS = 5.0
"""So long the thread may take to let go; what it is at goes on with whoever adopts it."""


class Slurm:
    """Has attempts made on the nodes of a cluster, up to `slots` at once, queued or running."""

    def __init__(self, spool: Spool, settings: Settings) -> None:
        """Refused, UsageError or SpoolUnusable says why the cluster's directory cannot be used."""
        assert settings.directory is not None
        self._spool, self._slots = spool, settings.slots
        commands = Commands(settings)
        self._scratch = files.Scratch(spool.tmp / new_ulid())
        try:
            self._shared = Shared(spool, settings.directory, self._scratch)
        except BaseException:
            self._scratch.close()
            raise
        self._held: dict[Key, contextlib.ExitStack] = {}
        """The attempts under way, each with what holds the room of its group."""
        self._heard: deque[News] = deque()
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._notes: queue.SimpleQueue[Note] = queue.SimpleQueue()
        watch = Watch(spool, settings, self._shared, commands, notes=self._notes, tell=self._tell)
        self._died = ""
        """Of what the thread has died."""
        self._thread = threading.Thread(target=self._work, args=(watch,), name="slurm", daemon=True)
        self._thread.start()

    def _tell(self, news: News) -> None:
        self._heard.append(news)
        os.eventfd_write(self.descriptor, 1)

    def _work(self, watch: Watch) -> None:
        try:
            watch.run()
        except Exception as error:
            self._died = repr(error)
            os.eventfd_write(self.descriptor, 1)
            raise

    def assign(self, key: Key, argv: tuple[str, ...]) -> str:
        """The spool's folder in the shared directory: a node is chosen by Slurm."""
        self._held[key] = contextlib.ExitStack()
        return self._shared.name

    def start(self, request: AttemptRequest) -> None:
        """Have the attempt queued. The room of its group is held here, as no lock of a node would bind this host."""
        held, others = self._held[request.key].enter_context(taken(self._spool.locks, request.wanted))
        if request.wanted and held is None:
            self._tell(News(request.key, Seen.NOT_STARTED, problem=f"{others} is held by others"))
            return
        self._notes.put(Begin(request))

    @property
    def busy(self) -> bool:
        """Whether an attempt is under way."""
        return bool(self._held)

    def adopt(self, key: Key, worker: str, wanted: Sequence[Wanted]) -> None:
        """See an attempt through that was begun before, by this process or another."""
        if key not in self._held:
            self._held[key] = contextlib.ExitStack()
            with contextlib.suppress(OSError):  # it goes on all the same, and without room held for it
                self._held[key].enter_context(taken(self._spool.locks, wanted))
        self._notes.put(Follow(key, worker))

    def withdraw(self, key: Key) -> None:
        """Nothing was queued yet."""
        if held := self._held.pop(key, None):
            held.close()

    def cancel(self, key: Key) -> None:
        """End it, as soon as Slurm can be told; at once where no node has begun it."""
        if key in self._held:
            self._notes.put(Cancel(key))

    def free_slots(self) -> int:
        """Room for so many more attempts."""
        return self._slots - len(self._held)

    def prepare(self, likely: Sequence[Ahead]) -> None:
        """Nothing waits on a node for what may come."""

    def news(self) -> Iterable[News]:
        """What has happened since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        if self._died:
            raise RuntimeError(f"the thread that watches Slurm has died of {self._died}")
        while self._heard:
            news = self._heard.popleft()
            self.withdraw(news.key)
            yield news

    def trim(self, now: float) -> float | None:
        """Nothing is idle, and the nodes keep the deadlines."""
        return None

    def close(self) -> None:
        """Let go of all attempts: they go on, and are adopted by whoever works the spool next."""
        self._notes.put(Stop())
        self._thread.join(CLOSE_SECONDS)
        for key in list(self._held):
            self.withdraw(key)
        if not self._thread.is_alive():
            self._shared.close()
            self._scratch.close()
            os.close(self.descriptor)


def cluster(spool: Spool, config: Config) -> Callable[[], Remote] | None:
    """What makes the executor of the cluster that is configured, when it is first needed; None where none is."""
    return partial(Slurm, spool, config.slurm) if config.slurm.directory else None
