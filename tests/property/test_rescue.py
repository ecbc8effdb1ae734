"""What is left of any history is a manifest that is accepted, and holds all that is not done and nothing that is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue
from provisioning.core.rescue import rescued
from provisioning.core.rollback import undone
from provisioning.core.workflow import Workflow
from provisioning.resources import schema
from tests.property.driving import OPERATIONS, drive, workflows

CATALOGUE = Catalogue("c" * 64, OPERATIONS)


@pytest.mark.timeout(600)
@settings(max_examples=60)
@given(workflows(), st.integers(1, 5), st.sampled_from(["json", "toml"]), st.data())
def test_what_is_left_is_a_sound_manifest(
    locks: Path, workflow: Workflow, slots: int, form: str, data: st.DataObject
) -> None:
    driven = drive(workflow, slots, data, locks)
    known = driven.checkpoints
    left = rescued(driven.plan, known, driven.results.__getitem__)
    states = {task.id: str(known[task.id].state) if task.id in known else "pending" for task in workflow.tasks}
    done = {task_id for task_id, state in states.items() if state == "succeeded"} - undone(known)
    if left is None:
        assert not set(states.values()) & {"failed", "cancelled"}
        return
    text = manifest.write(left, form=form)
    read = manifest.read(text, form=form, file="rest", schema=schema("manifest"), catalogue=CATALOGUE)
    assert read == left
    ids = {task.id for task in left.tasks}
    assert not ids & done, "what is done is not done again"
    assert {task_id for task_id, state in states.items() if state in ("failed", "cancelled")} <= ids
    out = set(states) - ids - done
    assert not out or any(task.when is not None for task in workflow.tasks), f"{out} are lost"
