"""Many tasks on one screen: those that need a look one by one, the others by group, what succeeded as one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from provisioning.core.graph import prefixes
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.status import Page, WorkflowView, brief_status, workflow_status
from provisioning.views.table import table

FEW_TASKS = 30
"""A workflow of no more tasks is shown with all of them."""
MOST_TASKS = 20_000
"""Of one with more, only what needs a look is read."""
NOTED = 15
"""So many tasks of a kind, and so many groups, are listed at most."""


class Group(NamedTuple):
    """Tasks that belong together: those of one `for_each`, or else those of one operation."""

    name: str
    operation: str
    """Empty where they have several."""
    task_ids: tuple[str, ...]
    counts: dict[str, int]


def grouped_status(folder: WorkflowFolder) -> Page:
    """The page for people who look at a screen: with all tasks as long as that takes a second, results if they are few.

    Damaged where it seems to be queued and nobody could ever claim it.
    """
    checkpoint = folder.workflow()
    total = sum(checkpoint.counts.values()) if checkpoint else 0
    if checkpoint is not None and total > MOST_TASKS:
        return brief_status(folder)
    if total <= FEW_TASKS:
        return workflow_status(folder)
    return WorkflowView(folder).glance()


def groups_of(page: Page) -> list[Group]:
    """The tasks of a page by what their ids begin with; those that are in no group by their operation. In their order.

    A group of one task is none: it is among those of its operation.
    """
    outer = Counter(name for task in page["tasks"] for name in prefixes(task["task_id"])[:1])
    found: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for task in page["tasks"]:
        prefix = next(iter(prefixes(task["task_id"])), "")
        key = (True, prefix) if outer[prefix] > 1 else (False, task["operation"])
        found.setdefault(key, []).append(task)
    return [
        Group(
            f"{name}.*" if grouped else name,
            tasks[0]["operation"] if len({task["operation"] for task in tasks}) == 1 else "",
            tuple(task["task_id"] for task in tasks),
            dict(sorted(Counter(task["state"] for task in tasks).items())),
        )
        for (grouped, name), tasks in found.items()
    ]


def told(counts: dict[str, int]) -> str:
    """Counts by state, as text."""
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def groups_text(page: Page, *, width: int | None = None) -> str:
    """A line for each group in which something is under way; one for all that have succeeded, one for all that wait."""
    rows, alike = [], dict[str, list[Group]]()
    for group in groups_of(page):
        only = next(iter(group.counts)) if len(group.counts) == 1 else ""
        if only in ("succeeded", "pending", "skipped", "cancelled"):
            alike.setdefault(only, []).append(group)
        else:
            rows.append(_row(group))
    left = len(rows) - NOTED
    rows = rows[:NOTED] + ([[f"and {left} more groups", "", "", ""]] if left > 0 else [])
    for state, groups in alike.items():
        if len(groups) == 1:
            rows.append(_row(groups[0]))
        else:
            count = sum(len(group.task_ids) for group in groups)
            rows.append([f"{len(groups)} groups", "", str(count), f"all {state}"])
    return table(rows, ["group", "operation", "tasks", "states"], width=width)


def _row(group: Group) -> list[str]:
    operation = "" if group.operation == group.name else group.operation
    return [group.name, operation, str(len(group.task_ids)), told(group.counts)]


def noted_tasks(page: Page) -> Iterator[list[dict[str, Any]]]:
    """The tasks that need a look, by kind: those that wait for a person, have failed, or run. Of each kind not many."""
    held = {*page["held"]}
    kinds = (
        [task for task in page["tasks"] if task["task_id"] in held],
        [task for task in page["tasks"] if task["state"] == "failed"],
        [task for task in page["tasks"] if task["state"] == "running"],
    )
    yield from (kind for kind in kinds if kind)
