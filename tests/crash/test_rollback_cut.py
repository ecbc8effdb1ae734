"""A power cut while a workflow is rolled back: what is undone follows from records that the cut cannot take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from provisioning.core.workflow import Task, Undo
from tests.crash.host import Crash, Host
from tests.unsynced import Unsynced


@pytest.fixture
def disk() -> Iterator[Unsynced]:
    """Made before the host, whose writes it notes."""
    with pytest.MonkeyPatch.context() as patched:
        yield Unsynced(patched)


DONE = Task("a", "work.again", undo=Undo("work.again", {}))


def cut_in_its_rollback(host: Host, disk: Unsynced, workflow_id: str) -> None:
    """Cut the power as soon as the workflow is called rolling back, and boot again."""

    def crash() -> None:
        if host.state(workflow_id) == "rolling_back":
            raise Crash
        host.between("write_atomic", "/workflow.json", crash, after=True)

    host.between("write_atomic", "/workflow.json", crash, after=True)
    with pytest.raises(Crash):
        host.work()
    disk.lose()
    host.power_cut()
    host.recover()


def is_undone(host: Host, workflow_id: str) -> bool:
    """Whether the rollback has ended and undone what was done."""
    undone = host.outcomes(workflow_id, "a"), host.outcomes(workflow_id, "a~undo")
    return host.state(workflow_id) == "rolled_back" and undone == (["succeeded"], ["succeeded"])


def test_after_a_failure(disk: Unsynced, host: Host) -> None:
    failing = Task("b", "work.fail", depends_on=("a",), on_failure="rollback")
    workflow_id = host.submit(DONE, failing)
    cut_in_its_rollback(host, disk, workflow_id)
    assert is_undone(host, workflow_id)


def test_of_one_that_is_paused(disk: Unsynced, host: Host) -> None:
    workflow_id = host.submit(DONE, Task("b", "work.again", depends_on=("a",)))
    host.between("write_atomic", "/tasks/a.json", lambda: host.ask("pause", workflow_id), after=True)
    host.recover()
    assert (host.state(workflow_id), host.outcomes(workflow_id, "a")) == ("paused", ["succeeded"])
    host.ask("rollback", workflow_id)
    cut_in_its_rollback(host, disk, workflow_id)
    assert is_undone(host, workflow_id)
