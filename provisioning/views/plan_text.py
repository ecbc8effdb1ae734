"""A manifest before it is submitted: its waves and its critical path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Operation, filled
from provisioning.core.graph import expected
from provisioning.core.redacted import masked
from provisioning.core.workflow import Task, Workflow
from provisioning.views.table import table
from provisioning.views.text import compact, safe

_NAMED = 8
"""Tasks of one wave that the text names at most."""


def plan_page(workflow: Workflow, catalogue: Catalogue) -> dict[str, Any]:
    """What a submission of the manifest would do, and in which order at the soonest."""
    operations: dict[str, int] = {}
    path = manifest.critical_path(workflow)
    for task in workflow.tasks:
        operations[task.operation] = operations.get(task.operation, 0) + 1
    return {
        "name": workflow.name,
        "infra": workflow.infra,
        "priority": workflow.priority,
        "on_failure": workflow.on_failure,
        "max_parallel": workflow.max_parallel,
        "counts": {"tasks": len(workflow.tasks), "operations": operations},
        "waves": manifest.waves(workflow),
        "critical_path": path,
        "critical_path_seconds": _seconds(workflow, path),
        "tasks": [
            {
                "task_id": task.id,
                "operation": task.operation,
                "params": masked(task.params, catalogue.operation(task.operation).secret),
                "depends_on": list(task.depends_on),
                "after": list(task.after),
                "timeout_seconds": task.timeout_seconds,
                "max_attempts": task.retry.max_attempts if task.retry else 1,
                "on_interrupt": task.on_interrupt,
                "references": list(task.references),
                "when": msgspec.structs.asdict(task.when) if task.when else None,
                "on_failure": task.on_failure,
                "undo": task.undo.operation if task.undo else None,
                "group": task.group,
                "executor": task.executor,
                "targets": _targets(task, catalogue.operation(task.operation), workflow.infra),
                "expected_seconds": task.expected_seconds,
                "can_check": catalogue.operation(task.operation).check is not None,
            }
            for task in workflow.tasks
        ],
    }


def _seconds(workflow: Workflow, path: Sequence[str]) -> float | None:
    """So long the tasks of the path are expected to take; None where no task of the workflow says how long it takes."""
    if all(task.expected_seconds is None for task in workflow.tasks):
        return None
    ids = (task.id for task in workflow.tasks)
    seconds = dict(zip(ids, expected(workflow.tasks), strict=True))
    return round(sum(seconds[task_id] for task_id in path), 3)


def _more(page: dict[str, Any]) -> Iterator[str]:
    """Groups, undos and targets, where there are any."""
    groups = Counter(task["group"] for task in page["tasks"] if task["group"])
    undos = Counter(task["undo"] for task in page["tasks"] if task["undo"])
    targets = Counter(
        f"{kind} {name}" for task in page["tasks"] for kind in task["targets"] for name in task["targets"][kind]
    )
    for what, found in (("groups", groups), ("undos", undos), ("targets", targets)):
        if found:
            told = ", ".join(f"{count} {name}" for name, count in sorted(found.items())[:_NAMED])
            yield f"{what}: {told}" + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _targets(task: Task, operation: Operation, infra: str) -> dict[str, list[str]]:
    """What the task will hold; what a reference decides is shown as it is written."""
    within = task.params.get("infra") or infra
    return {
        kind: [f"{within}/{filled(template, task.params)}" for template in templates]
        for kind, templates in (("exclusive", operation.exclusive), ("shared", operation.shared))
    }


def plan_text(page: dict[str, Any], *, width: int | None = None) -> str:
    """The plan for people."""
    waves: list[list[str]] = page["waves"]
    widest = max(map(len, waves), default=0)
    parallel = f", {page['max_parallel']} at once" if page["max_parallel"] else ""
    total = page["counts"]["tasks"]
    head = f"{safe(page['name'])}: {total} tasks in {len(waves)} waves, at most {widest} side by side{parallel}"
    rows = []
    for number, wave in enumerate(waves, 1):
        more = f" and {len(wave) - _NAMED} more" if len(wave) > _NAMED else ""
        rows.append([str(number), str(len(wave)), ", ".join(wave[:_NAMED]) + more])
    path = page["critical_path"]
    told = " > ".join(path if len(path) <= 2 * _NAMED else [*path[:_NAMED], "…", *path[-_NAMED:]])
    takes = f", {manifest.duration(page['critical_path_seconds'])}" if page["critical_path_seconds"] else ""
    counts = ", ".join(f"{count} {operation}" for operation, count in sorted(page["counts"]["operations"].items()))
    return "\n".join(
        [
            head,
            "",
            table(rows, ["wave", "tasks", ""], width=width),
            "",
            f"critical path ({len(path)}{takes}): {told}",
            f"operations: {counts}",
            *_more(page),
            f"on failure: {page['on_failure']}",
            *_checked(page, width),
        ]
    )


def _checked(page: dict[str, Any], width: int | None) -> Iterator[str]:
    """What each task would change, where that was asked; or that it can be."""
    able = [task for task in page["tasks"] if task["can_check"]]
    if not any("check" in task for task in page["tasks"]):
        if able:
            yield f"{len(able)} of {page['counts']['tasks']} tasks can say what they would change now: add --check"
        return
    if able:
        yield ""
        yield table([[task["task_id"], _change(task)] for task in able], ["task", "would change now"], width=width)
    others = sorted({task["operation"] for task in page["tasks"] if not task["can_check"]})
    if others:
        yield f"cannot say it: {', '.join(others)}"


def _change(task: dict[str, Any]) -> str:
    said = task["check"]
    if "unknown" in said:
        return f"not known before it runs: {', '.join(said['unknown'])}"
    if "error" in said:
        return f"not known: {said['error']['code']}: {said['error']['msg']}"
    result = said["result"]
    if not isinstance(result, dict):
        return compact(result)
    if result.get("changed") is False:
        return "nothing"
    news = {key: value for key, value in result.items() if key != "changed" and task["params"].get(key) != value}
    return ", ".join(f"{key}: {compact(value)}" for key, value in news.items() if value not in (None, [], {})) or "yes"
