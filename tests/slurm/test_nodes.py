"""What nodes of a real Slurm are asked before anything is handed over to them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from provisioning.execution.slurm.commands import Commands
from provisioning.storage.waiting import waiting_of
from tests.installation import CHECKOUT, Installation
from tests.slurm.cluster import NODES
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

PATIENCE_SECONDS = 90.0
CHECKOUT_ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("cluster")
def test_nodes_are_asked_before_anything_is_handed_over(site: Installation, tmp_path: Path) -> None:
    """By one job on two of them; what they say is kept for the next start."""
    directory = tmp_path / "fresh"
    directory.mkdir(mode=0o700)
    site.settings(slurm_directory=directory)
    site.orchestrator()
    workflow_id = site.submit([site.mark("t")])
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "succeeded"
    said = site.said()
    host = os.uname().nodename
    assert f"the nodes see the shared directory: {host}, {host}" in said
    assert (directory / "probed.json").exists()
    assert Commands(site.config.slurm).nodes() == len(NODES)
    site.settings(slurm_partition="other")
    assert Commands(site.config.slurm).nodes() == 0


@pytest.mark.usefixtures("cluster")
def test_a_node_that_does_not_answer_holds_everything_up(site: Installation, tmp_path: Path) -> None:
    """What it would make of an attempt is not known."""
    directory, program = tmp_path / "fresh", tmp_path / "program"
    directory.mkdir(mode=0o700)
    # Of the two that are started by one job one does not get there.
    program.write_text(f'#!/bin/sh\nmkdir "$3.one" || exit 1\ncd {CHECKOUT_ROOT} && exec {shlex.join(CHECKOUT)} "$@"\n')
    program.chmod(0o755)
    site.settings(slurm_directory=directory, slurm_program=program)
    site.orchestrator()
    workflow_id = site.submit([site.mark("t")])
    wait_for(
        lambda: "1 of 2 nodes answered" in waiting_of(site.folder(workflow_id).path).get("t", ""),
        PATIENCE_SECONDS,
        site.said,
    )
    assert not (directory / "probed.json").exists()
    site.ask("cancel", workflow_id)
    assert site.wait_ended(workflow_id, PATIENCE_SECONDS) == "cancelled"
    assert site.mark_lines() == []
