"""Atheris at the drop door: inputs are made from those that reached new code. `fuzzing.py parsers|intake [libFuzzer…]`.

What a property of hypothesis must hold, it must hold here; what breaks it ends the program with the input that did.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

atheris: Any = importlib.import_module("atheris")  # of the extra `fuzz`: nothing of it is known to the type check
ROOT = Path(__file__).parents[2]
with atheris.instrument_imports(include=["provisioning", "tomllib", "json"]):
    sys.path.insert(0, str(ROOT))
    from provisioning.storage import receipts
    from tests.doors import Doors
    from tests.property.test_drops import verdict_holds

FORMS = ("toml", "json")
KINDS = ("manifest", "request", "either")
NAMES = ("a.toml", "b.json", "c.request.json", "a.toml.sha256", "a.toml.sig", "e", ".hidden", "a.toml.receipt.json")
LIVES = 100
"""So many folders of drops one spool is given."""


def parsers(data: bytes) -> None:
    """The first byte says which parser, and what for; the others are the file."""
    if data:
        verdict_holds(data[1:], FORMS[data[0] % 2], KINDS[data[0] // 2 % 3])


class Intake:
    """Each input is a folder: a byte for the name of a file, one for its length in eights, its bytes, and so on."""

    def __init__(self) -> None:
        self._patched = pytest.MonkeyPatch()
        self._made: tuple[Any, Doors] | None = None
        self._count = 0

    def __call__(self, data: bytes) -> None:
        doors = self._doors()
        while len(data) >= 2:
            name, size = NAMES[data[0] % len(NAMES)], data[1] * 8
            (doors.folder / name).write_bytes(data[2 : 2 + size])
            (doors.folder / name).chmod(0o600)
            data = data[2 + size :]
        doors.work()
        doors.work()
        assert [name for name in doors.left() if not name.startswith(".")] == []
        for path in doors.folder.glob("*.receipt.json"):
            receipt = receipts.read(path)
            if receipt is None:
                assert path.name == "a.toml.receipt.json"  # which an operator may put there
            else:
                assert receipt.answer in ("accepted", "rejected")
            path.unlink()

    def _doors(self) -> Doors:
        self._count += 1
        if self._made is None or self._count % LIVES == 0:
            if self._made is not None:
                self._made[1].close()
                self._made[0].cleanup()
            folder = tempfile.TemporaryDirectory()
            self._made = folder, Doors(Path(folder.name), self._patched, grace_seconds=0.0)
        return self._made[1]


def main() -> None:
    target = {"parsers": lambda: parsers, "intake": Intake}[sys.argv.pop(1)]()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
