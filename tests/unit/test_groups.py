"""Very many tasks on one screen: what needs a look, and the rest by group."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from provisioning.clock import now
from provisioning.views.groups import groups_of, groups_text
from provisioning.views.page_text import status_text
from provisioning.views.table import width_of

STATES = ["succeeded", "failed", "running", "pending", "skipped", "cancelled"]


def task(task_id: str, state: str, operation: str = "servers.create") -> dict[str, Any]:
    attempts = [{"attempt": 1, "outcome": None, "started_at": "2026-01-02T03:04:05Z", "ended_at": None, "error": None}]
    none: dict[str, Any] = {"reason": "", "waiting_for": [], "result": None}
    return {"task_id": task_id, "operation": operation, "state": state, "attempts": attempts, **none}


def page(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {state: sum(each["state"] == state for each in tasks) for state in STATES}
    facts = {"name": "n" * 64, "infra": "default", "operator": "alice", "door": "cli", "priority": 50, "requests": []}
    times = {"submitted_at": "2026-01-02T03:04:05Z", "started_at": "2026-01-02T03:04:05Z", "ended_at": None}
    shown = {"workflow_id": "0" * 26, "state": "abandoned", "reason": "because " * 40, "held": [], "tasks": tasks}
    return {**shown, **facts, **times, "counts": counts, "tasks_left_out": 0}


def test_ten_thousand_tasks_fit_a_terminal_and_hide_none_that_failed() -> None:
    tasks = [task(f"{'g' * 60}{i % 300}.{i}", STATES[i % 7 % 6]) for i in range(9_990)]
    tasks += [task(f"lone-{i}", "failed", f"taskservs.{'x' * 40}{i}") for i in range(10)]
    text = status_text(page(tasks), now(), width=80, every_task=False)
    lines = text.splitlines()
    assert max(map(width_of, lines)) <= 80
    assert len(lines) < 80
    assert "failed" in text
    assert len(status_text(page(tasks), now(), width=80).splitlines()) > 10_000


def test_few_tasks_are_all_shown() -> None:
    tasks = [task(f"web.{i}", "succeeded") for i in range(30)]
    assert sum("web." in line for line in status_text(page(tasks), now(), every_task=False).splitlines()) == 30


def test_what_is_alike_is_one_line() -> None:
    tasks = [task(f"{group}.{i}", "succeeded") for group in ("a", "b", "c") for i in range(5)]
    tasks += [task(f"d.{i}", "failed" if i else "running") for i in range(3)] + [task("alone", "pending", "x.y")]
    assert groups_text(page(tasks)).splitlines()[1:] == [
        "d.*       servers.create  3      2 failed, 1 running",
        "3 groups                  15     all succeeded",
        "x.y                       1      1 pending",
    ]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "b.c", "d"]), st.sampled_from(STATES)), max_size=20))
def test_every_task_is_in_one_group(drawn: list[tuple[str, str]]) -> None:
    tasks = [task(f"{name}.{i}" if name != "d" else f"d{i}", state) for i, (name, state) in enumerate(drawn)]
    groups = groups_of(page(tasks))
    assert sorted(each for group in groups for each in group.task_ids) == sorted(each["task_id"] for each in tasks)
    assert all(sum(group.counts.values()) == len(group.task_ids) for group in groups)
