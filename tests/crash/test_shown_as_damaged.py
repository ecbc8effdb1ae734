"""What nobody can work is shown as damaged, and not as what it would be if it were whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.core.workflow import Task
from provisioning.storage.checkpoint import Damaged
from provisioning.views.listing import workflow_rows
from provisioning.views.status import workflow_status
from tests.crash.host import Host


def with_another_manifest(host: Host) -> Path:
    path = host.root / "incoming" / host.submit() / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b"trial", b"other"))
    return path


def without_its_checkpoint(host: Host) -> Path:
    path = host.root / "workflows" / host.ended() / "workflow.json"
    path.unlink()
    return path


@pytest.mark.parametrize("spoil", [with_another_manifest, without_its_checkpoint])
def test_a_workflow_that_nobody_can_work_is_not_shown_as_queued(host: Host, spoil: Callable[[Host], Path]) -> None:
    path = spoil(host)
    whole = host.submit(Task("z", "work.again"))
    rows = {row["workflow_id"]: row for row in workflow_rows(host.person)}
    assert (rows[path.parent.name]["state"], rows[whole]["state"]) == ("damaged", "queued")
    assert path.name in rows[path.parent.name]["reason"]
    with pytest.raises(Damaged, match=path.name):
        workflow_status(host.person.find(path.parent.name))
    assert workflow_status(host.person.find(whole))["state"] == "queued"


def test_a_workflow_that_is_claimed_while_it_is_looked_at_is_not_shown_as_damaged(host: Host) -> None:
    workflow_id = host.submit()
    folder = host.person.find(workflow_id)
    host.work()
    with pytest.raises(FileNotFoundError):
        folder.refuse_unless_waiting()
