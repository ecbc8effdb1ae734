"""The drop door where the disk refuses a call by which it changes a file: it goes on, without a restart."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from provisioning.clock import boot_id, boottime, now
from provisioning.core.scheduler import Now
from provisioning.errors import SpoolUnusable
from tests.crash.test_drop_sweep import calls as calls
from tests.crash.test_drop_sweep import hold, points, prepared
from tests.doors import Doors
from tests.simulation.calls import Calls

NUMBERS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EPERM": errno.EPERM}


def work_on(doors: Doors) -> None:
    """As an orchestrator does: what the disk refuses is tried again later."""
    intake = doors.intake()
    for _ in range(300):
        intake._doorway.look_at = 0.0
        intake._doorway._rests.clear()
        intake._follow_at = intake._again_at = 0.0
        intake._later = dict.fromkeys(intake._later, 0.0)
        try:
            intake.step(Now(now(), boottime(), boot_id()))
        except SpoolUnusable:
            continue
        if intake._lock is not None and not intake.busy() and not intake._later:
            break
    assert not intake.busy()
    intake.step(Now(now(), boottime(), boot_id()))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 61])
def test_a_call_that_is_refused_once_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: Calls, every: int, name: str
) -> None:
    made = points(tmp_path / "undisturbed", monkeypatch, calls)
    wrong = []
    for number in range(1, made + 1, every):
        doors, workflow_id = prepared(tmp_path / f"at-{number}", monkeypatch)
        calls.count, refused = 0, list[str]()

        def before(call: str, at: int = number, refused: list[str] = refused) -> None:
            if calls.count == at:
                refused.append(call)
                raise OSError(NUMBERS[name], os.strerror(NUMBERS[name]))

        calls.before = before
        try:
            work_on(doors)
        finally:
            calls.before = lambda name: None
        assert refused
        try:
            hold(doors, workflow_id)
            doors.die()
            doors.work()
            hold(doors, workflow_id)
        except AssertionError as error:
            wrong.append(f"{number} {refused[0]}: {str(error).splitlines()[0]}")
        doors.close()
    assert wrong == [], "\n".join(wrong)
