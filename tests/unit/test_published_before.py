"""What another process has published and not synced, as it died between the two, is synced by whoever relies on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioning.storage import files
from provisioning.storage.spool import Spool
from tests.simulation.faults import PowerCut
from tests.simulation.values import MANIFEST, NULIB, ONE, TWO, submission


@contextlib.contextmanager
def dying_in_sync(folder: Path) -> Iterator[None]:
    """Whoever would sync the folder dies before it does."""
    sync = files.sync_dir

    def die(path: Path) -> None:
        if path == folder:
            raise PowerCut
        sync(path)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(files, "sync_dir", die)
        yield


def note_syncs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that are synced from now on."""
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_dir", synced.append)
    return synced


@pytest.mark.parametrize("folder", ["ids", "incoming"])
def test_an_id_that_is_submitted_again_is_accepted_durably(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    with dying_in_sync(spool.root / folder), pytest.raises(PowerCut):
        spool.submit(MANIFEST, "json", submission(ONE, id="nightly"))
    synced = note_syncs(monkeypatch)
    assert spool.submit(MANIFEST, "json", submission(TWO, id="nightly")) == ONE
    assert {spool.ids, spool.incoming} <= set(synced)


def test_operations_that_are_there_are_kept_durably(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"tree/a.nu": b"1"}
    with dying_in_sync(spool.nulib), pytest.raises(PowerCut):
        files.publish_tree(tree, spool.nulib / NULIB, spool.scratch)
    synced = note_syncs(monkeypatch)
    files.publish_tree(tree, spool.nulib / NULIB, spool.scratch)
    assert synced == [spool.nulib]
