"""After the power is back: the spool as the disk has it, another boot, a drain, and a person where one is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from provisioning.clock import boot_id
from provisioning.core.states import WorkflowState
from provisioning.storage.check import check
from provisioning.storage.spool import Spool
from tests.crash.disk import State
from tests.crash.promises import Said, Submitted, unexplained
from tests.crash.trial import ENDS, MARKS, Recording
from tests.installation import Installation

ROUNDS = 5
"""A person is asked about each interrupted mark at most, and about the task that fails once."""
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def boot_again(site: Installation, root: Path, state: State, marks: Iterable[str]) -> None:
    """Make the disk and the marks what they were at the cut. The boot of then, in the files, becomes another one."""
    site.spool.close()
    shutil.rmtree(root)
    root.mkdir()
    for path, data in sorted(state.items()):
        if data is None:
            (root / path).mkdir(0o700)
        else:
            (root / path).write_bytes(data.replace(boot_id().encode(), OTHER_BOOT.encode()))
    site.marks.write_text("".join(f"{mark}\n" for mark in marks))
    site.spool = Spool.open(root / "spool")


def finish(site: Installation, recorded: Recording, said: list[Said]) -> None:
    """Work on until everything has ended. Nothing that was accepted is lost, no mark is made twice, none is missing."""
    there = {name for name, workflow_id in recorded.ids.items() if site.spool.folder_path(workflow_id)}
    accepted = {promise.workflow_id for promise in said if isinstance(promise, Submitted)}
    assert accepted <= {recorded.ids[name] for name in there}
    give_up_endless(site, recorded)
    for _ in range(ROUNDS):
        site.drain(max_wait=10)
        asked = [name for name in there if answer(site, recorded.ids[name])]
        if not asked:
            break
    made = site.mark_lines()
    assert len(made) == len(set(made)), f"made twice: {made}"
    ends = {name: site.state(recorded.ids[name]) for name in there}
    for name in there:
        plan = recorded.plans[recorded.ids[name]]
        marks = {task.id for task in plan.workflow.tasks} & set(MARKS)
        if ends[name] == "succeeded":
            assert marks <= set(made), (name, made)
            assert set(site.states(recorded.ids[name]).values()) == {"succeeded"}, name
        else:  # a person has given it up, as it was made or not: a mark that was interrupted and is there
            assert ends[name] == "cancelled", (ends, site.said())
            assert name == "endless" or marks & set(made), (name, made)
    assert "never" not in made
    assert ends.get("endless", ENDS["endless"]) == ENDS["endless"]
    assert unexplained(check(site.spool.root), recorded.plans, made=True) == []


def give_up_endless(site: Installation, recorded: Recording) -> None:
    """Cancel what would never end, where the cut came before that was asked."""
    workflow_id = recorded.ids["endless"]
    if site.spool.folder_path(workflow_id) and site.state(workflow_id) != "cancelled":
        site.ask("cancel", workflow_id)


def answer(site: Installation, workflow_id: str) -> bool:
    """Do what a person would for whom the workflow waits, by the marks that are there; whether anything was asked."""
    state = site.state(workflow_id)
    if state == WorkflowState.FAILED:
        site.ask("retry", workflow_id)
        return True
    if state != WorkflowState.PAUSED:
        return False
    held = [checkpoint.task_id for checkpoint in site.folder(workflow_id).tasks() if checkpoint.held]
    assert held, site.said()
    if set(held) & set(site.mark_lines()):
        site.ask("cancel", workflow_id)
    else:
        site.ask("retry", workflow_id, *held)
    return True
