"""A disk that keeps nothing but what was synced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from provisioning.storage import files
from provisioning.storage.naming import StrPath


class Unsynced:
    """What was written and not synced, which a power cut takes away: the worst that a disk may do."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._before: dict[Path, bytes | None] = {}
        self._whole: set[Path] = set()
        """Those of them whose bytes are on the disk already: they lack their names only."""
        self._write, self._sync_dir = files.write_atomic, files.sync_dir
        patched.setattr(files, "write_atomic", self._note)
        patched.setattr(files, "sync_dir", self._keep)

    def _note(self, name: StrPath, data: bytes, *, durable: bool, whole: bool = False, **rest: Any) -> None:
        path = Path(name)
        if path not in self._before:
            self._before[path] = path.read_bytes() if path.exists() else None
        self._whole.discard(path)
        if durable or whole:
            self._whole.add(path)
        self._write(path, data, durable=durable, whole=whole, **rest)

    def _keep(self, folder: StrPath) -> None:
        """Its names are on the disk from now on."""
        self._sync_dir(folder)
        for path in [path for path in self._before if path.parent == Path(folder)]:
            if path in self._whole:
                self._whole.discard(path)
                del self._before[path]
            elif path.exists():
                self._before[path] = b""  # the name alone

    def lose(self) -> None:
        """The power is cut."""
        for path, before in self._before.items():
            if before is not None:
                path.write_bytes(before)
            elif path.exists():
                path.unlink()
        self._before.clear()
        self._whole.clear()
