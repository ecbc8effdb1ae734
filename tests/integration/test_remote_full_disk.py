"""What an orchestrator does with attempts on a cluster while the disk takes none of its records."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from provisioning.clock import boottime
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, OutcomeRecord
from provisioning.errors import SpoolUnusable
from provisioning.execution.executor import Key, News, Seen
from provisioning.execution.slurm.executor import Slurm, cluster
from provisioning.orchestrator.loop import Orchestrator
from provisioning.storage.checkpoint import WorkflowFolder, encode
from tests.benchmark.place import AtOnce
from tests.installation import Installation
from tests.simulation.values import EPOCH
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

POLL_SECONDS = 0.2
FULL_SECONDS = 2.0


@pytest.mark.parametrize("seen", [Seen.ENDED, Seen.NOT_STARTED])
def test_news_that_cannot_be_recorded_come_with_the_looks(
    site: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o700)
    site.settings(slurm_directory=directory, slurm_commands="/nonexistent", slurm_poll_seconds=POLL_SECONDS)
    full, told = False, list[News]()
    save, tell = WorkflowFolder.save_task, Slurm._tell

    def saving(*arguments: Any) -> None:
        if full:
            raise SpoolUnusable("cannot write", hint="") from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(*arguments)

    def telling(slurm: Slurm, news: News) -> None:
        told.append(news)
        tell(slurm, news)

    monkeypatch.setattr(WorkflowFolder, "save_task", saving)
    monkeypatch.setattr(Slurm, "_tell", telling)
    workflow_id = site.submit([{"id": "t", "operation": "selftest.noop", "executor": "slurm"}])
    config, nulib = site.config, site.nulib
    orchestrator = Orchestrator(site.spool, config, AtOnce(), lambda: nulib, slurm=cluster(site.spool, config))

    def goes_on() -> bool:
        orchestrator.tick()
        orchestrator.wait([], 0.1)
        return True

    try:
        orders = f"*/{workflow_id}/t.1/order.json"
        order = wait_for(lambda: next(iter(directory.glob(orders)), None) if goes_on() else None)
        assert order is not None
        full = True
        if seen is Seen.ENDED:
            (order.parent / "claim").mkdir()
            record = OutcomeRecord(FORMAT, *Key(workflow_id, "t", 1), Outcome.SUCCEEDED, EPOCH, EPOCH, 0)
            (order.parent / "beside").write_bytes(encode(record))
            (order.parent / "beside").rename(order.parent / "outcome.json")
        else:
            site.ask("cancel", workflow_id)
            orchestrator.scan_soon()
        wait_for(lambda: goes_on() and told)
        began = boottime()
        wait_for(lambda: goes_on() and boottime() > began + FULL_SECONDS)
        looks = (boottime() - began) / POLL_SECONDS + 2
        assert {news.seen for news in told} == {seen}
        assert len(told) <= (1 if seen is Seen.ENDED else looks), "it is not told over and over"
        full = False
        ends = "succeeded" if seen is Seen.ENDED else "cancelled"
        wait_for(lambda: goes_on() and site.state(workflow_id) == ends)
    finally:
        orchestrator.close()
