"""Wakes the loop when something appears in the spool. Only a hint: the scan is the truth."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants

from provisioning.clock import boottime

_log = logging.getLogger(__name__)

RENEW_SECONDS = 1.0
"""Between two looks whether the watched folders are the same, while nothing arrives."""
AGAIN_SECONDS = 60.0
"""Between two tries to watch where the kernel refused."""


class _Arrivals(InotifyEmitter):
    """Asks the kernel for arrivals alone: behind a departure, such as a claim, the library holds all back for 0.5 s."""

    def get_event_mask_from_filter(self) -> Any:
        """The mask of the watch."""
        arrivals = InotifyConstants.IN_MOVED_TO | InotifyConstants.IN_CREATE | InotifyConstants.IN_CLOSE_WRITE
        return arrivals | InotifyConstants.IN_DELETE_SELF


class Watcher(FileSystemEventHandler):
    """Watches folders and makes its descriptor readable on every event in them."""

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        self._folders = folders
        """Which folders there are now."""
        self._observer: BaseObserver | None = None
        self._identities: list[tuple[int, int]] = []
        self._again_at = 0.0
        self._renew_at = 0.0
        self._arrived: list[str] = []
        self.descriptor, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._start()

    def _start(self) -> None:
        """Begin watching; where the kernel has no watches left, scanning alone must do."""
        try:
            self._identities = self._look()
            observer = BaseObserver(_Arrivals)
            for folder in self._folders():
                observer.schedule(self, str(folder))
            observer.start()
            self._observer = observer
        except OSError as error:
            self._again_at = boottime() + AGAIN_SECONDS
            _log.warning("cannot watch the spool (%s): it is scanned every few seconds instead", error.strerror)

    def _look(self) -> list[tuple[int, int]]:
        return [(status.st_dev, status.st_ino) for status in map(os.stat, self._folders())]

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Wake the loop; a full pipe is awake already."""
        if event.event_type in ("created", "moved", "closed"):
            self._arrived.append(os.fsdecode(event.dest_path or event.src_path))
            with contextlib.suppress(BlockingIOError):
                os.write(self._end, b"!")

    def drain(self) -> list[str]:
        """The paths of what has arrived since the last call: a hint, as some may be missing."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.descriptor, 4096):
                pass
        self._renew_at = 0.0  # it may be a folder to watch
        arrived, self._arrived = self._arrived, []  # after the pipe: what comes in between wakes the loop again
        return arrived

    def renew(self) -> None:
        """Watch again where a folder was replaced by another of its name, is new, or has gone."""
        this = boottime()
        if this < self._renew_at or (self._observer is None and this < self._again_at):
            return
        self._renew_at = this + RENEW_SECONDS
        try:
            if self._look() == self._identities and self._observer is not None:
                return
        except OSError:
            return  # it is away, and may come back
        if self._observer is not None:
            self._stop(self._observer)
        self._start()

    def _stop(self, observer: BaseObserver) -> None:
        observer.stop()
        observer.join(timeout=5)
        self._observer = None

    def close(self) -> None:
        """End the watching thread."""
        if self._observer is not None:
            self._stop(self._observer)
        os.close(self.descriptor)
        os.close(self._end)
