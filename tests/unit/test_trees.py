"""Which trees of operations go, while others plan and claim beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provisioning.core.workflow import FORMAT, Plan, Workflow
from provisioning.errors import SpoolUnusable
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


def test_nobody_plans_while_trees_go_or_waits_for_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    files.make_dir(spool.nulib / NULIB)
    refused: list[str] = []
    real = Spool.discard

    def beside_a_plan(self: Spool, path: Path) -> Path:
        with pytest.raises(SpoolUnusable) as error, planning(spool):
            pass
        refused.append(str(error.value))
        return real(self, path)

    monkeypatch.setattr(Spool, "discard", beside_a_plan)
    assert list(Unneeded(spool, later()).discard()) == [NULIB]
    assert [str(spool.locks / "nulib") in text for text in refused] == [True]
    with planning(spool):
        assert not (spool.nulib / NULIB).exists()
