"""Which trees of operations go, while others plan and claim beside it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provisioning.core.workflow import FORMAT, Plan, Workflow
from provisioning.storage import files, trees
from provisioning.storage.spool import Spool
from provisioning.storage.trees import Unneeded, planning
from tests.simulation.values import NULIB, submission

ONE = "01kc" + "0" * 22


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool.create(tmp_path / "spool")
    yield made
    made.close()


def later() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=trees.UNUSED_SECONDS)


def test_a_plan_that_comes_after_the_first_look_keeps_its_tree(spool: Spool) -> None:
    files.make_dir(spool.nulib / NULIB)
    spool.submit(b"{}", "json", submission(ONE))
    unneeded = Unneeded(spool, later())
    list(unneeded.search())
    assert unneeded.digests == {NULIB}
    folder = spool.claim(ONE)
    folder.save_plan(Plan(FORMAT, ONE, Workflow("w", ()), {}, NULIB))
    assert unneeded.discard() == {}
    assert os.listdir(spool.nulib) == [NULIB]


def test_a_workflow_claimed_between_two_looks_at_it_keeps_its_tree(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is found in `incoming/`, and has moved when the plan is read there."""
    files.make_dir(spool.nulib / NULIB)
    spool.submit(b"{}", "json", submission(ONE))
    spool.find(ONE).save_plan(Plan(FORMAT, ONE, Workflow("w", ()), {}, NULIB))
    real, calls = Spool.folder_path, list[str]()

    def claimed_behind(self: Spool, workflow_id: str) -> Path | None:
        found = real(self, workflow_id)
        if not calls:
            self.claim(workflow_id)
        calls.append(workflow_id)
        return found

    monkeypatch.setattr(Spool, "folder_path", claimed_behind)
    assert Unneeded(spool, later()).discard() == {}
    assert calls[0] == ONE
    assert os.listdir(spool.nulib) == [NULIB]


def test_no_tree_goes_while_somebody_plans(spool: Spool) -> None:
    files.make_dir(spool.nulib / NULIB)
    with planning(spool), planning(Spool.open(spool.root)):
        assert Unneeded(spool, later()).discard() == {}
    assert list(Unneeded(spool, later()).discard()) == [NULIB]


def test_who_plans_waits_until_the_trees_have_gone(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claimer is held at its lock while the tree goes, and then finds that it must make it again."""
    files.make_dir(spool.nulib / NULIB)
    there: list[bool] = []
    planner = threading.Thread(target=lambda: _plan(spool, there))
    real = Spool.discard

    def slow(self: Spool, path: Path) -> Path:
        planner.start()
        planner.join(0.2)
        assert there == []
        return real(self, path)

    monkeypatch.setattr(Spool, "discard", slow)
    assert list(Unneeded(spool, later()).discard()) == [NULIB]
    planner.join(20)
    assert there == [False]


def _plan(spool: Spool, there: list[bool]) -> None:
    with planning(spool):
        there.append((spool.nulib / NULIB).exists())
