"""The reference can disagree: each of these defects, planted on purpose, is found by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from provisioning.core.graph import Graph
from provisioning.core.scheduler import Schedule
from provisioning.core.workflow import Workflow
from provisioning.orchestrator import work
from provisioning.orchestrator.limits import Limits, Waiting
from provisioning.storage.limits import Wanted
from tests.property.driving import drive, workflows


def conditions_are_not_asked(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(work, "_decided", lambda *_: None)


def groups_have_room_for_all(patched: pytest.MonkeyPatch) -> None:
    original = Limits._is_free

    def careless(self: Limits, wanted: Wanted) -> bool:
        return wanted.name.startswith("group:") or original(self, wanted)

    patched.setattr(Limits, "_is_free", careless)


def who_shares_overtakes(patched: pytest.MonkeyPatch) -> None:
    original = Limits.in_the_way

    def careless(self: Limits, waiting: Any, wanted: Any) -> str:
        return original(self, waiting, [each for each in wanted if each.exclusive])

    patched.setattr(Limits, "in_the_way", careless)


def who_gives_up_its_place_is_lost(patched: pytest.MonkeyPatch) -> None:
    original = Limits.next_turns

    def careless(self: Limits, wants: Callable[[str, str], bool]) -> list[Waiting]:
        return [each for each in original(self, wants) if wants(*each)]

    patched.setattr(Limits, "next_turns", careless)


def undone_in_any_order(patched: pytest.MonkeyPatch) -> None:
    original = Graph.backwards

    def careless(self: Graph, chosen: Sequence[int], names: Sequence[str]) -> Graph:
        found = original(self, chosen, names)
        found.waits = [[] for _ in found.waits]
        return found

    patched.setattr(Graph, "backwards", careless)


def a_task_s_own_policy_is_not_heeded(patched: pytest.MonkeyPatch) -> None:
    original = Schedule._verdict

    def careless(self: Schedule) -> Any:
        self._policies.clear()
        return original(self)

    patched.setattr(Schedule, "_verdict", careless)


PLANTED = [
    conditions_are_not_asked,
    pytest.param(groups_have_room_for_all, marks=pytest.mark.long),
    who_shares_overtakes,
    pytest.param(who_gives_up_its_place_is_lost, marks=pytest.mark.long),
    undone_in_any_order,
    a_task_s_own_policy_is_not_heeded,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_defect_is_found(plant: Callable[[pytest.MonkeyPatch], None], tmp_path: Path) -> None:
    @settings(
        max_examples=1000,
        database=None,
        phases=[Phase.generate],
        derandomize=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(workflows(), st.integers(1, 5), st.data())
    def histories(workflow: Workflow, slots: int, data: st.DataObject) -> None:
        drive(workflow, slots, data, tmp_path)

    with pytest.MonkeyPatch.context() as patched:
        plant(patched)
        with pytest.raises(AssertionError):
            histories()
