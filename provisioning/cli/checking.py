"""What the tasks of a manifest would change: a workflow of its own asks their operations, and changes nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from provisioning.cli.context import Context
from provisioning.core.references import named
from provisioning.core.workflow import Retry

if TYPE_CHECKING:
    from provisioning.core.workflow import Workflow

NAME_LENGTH = 100
"""Of a workflow, at most."""
ONCE = Retry(max_attempts=1)


def checks(context: Context, workflow: Workflow) -> dict[str, dict[str, Any]]:
    """What each task would change whose operation can say it, by its id.

    `result` is what the operation says, `error` why it cannot, and `unknown` what its params hang on that is not known
    before the workflow runs. It is asked here, with the rights, targets, timeouts and logs of any other attempt.
    """
    told: dict[str, dict[str, Any]] = {}
    asked = []
    for task in workflow.tasks:
        switch = context.catalogue.operation(task.operation).check
        if switch is None:
            continue
        if task.references:
            told[task.id] = {"unknown": [named(tuple(each.split("."))) for each in task.references]}
            continue
        # Alone: it asks how things are now, whatever is to be done before it.
        bare = {"depends_on": (), "after": (), "when": None, "undo": None, "retry": ONCE, "on_failure": None}
        asked.append(msgspec.structs.replace(task, params={**task.params, switch: True}, **bare))
    if asked:
        told |= _ask(context, msgspec.structs.replace(workflow, tasks=tuple(asked)))
    return told


def _ask(context: Context, workflow: Workflow) -> dict[str, dict[str, Any]]:
    """Work the tasks here, as a workflow of its own, and say what came of each."""
    from provisioning.cli.following import Follower, work
    from provisioning.core import manifest
    from provisioning.storage.submission import checked
    from provisioning.views.progress import Lines

    head = {"id": None, "not_before": None, "expires_at": None, "target_host": None, "on_failure": "continue"}
    name = f"{workflow.name[: NAME_LENGTH - 6]}-check"
    data = manifest.write(msgspec.structs.replace(workflow, name=name, **head), form="json")
    submission = checked(
        data,
        "json",
        "check",
        context.catalogue,
        operator=context.operator,
        door="cli",
        limits=context.limits,
        sources=context.sources,
    )
    lock = context.spool.submit_held(data, "json", submission)
    progress = Lines(sys.stderr)
    follower = Follower(context.spool, submission.workflow_id, progress)
    try:
        work(context, follower, max_wait=None, lock=lock)
    finally:
        progress.close()
    return {task["task_id"]: _said(task) for task in follower.page()["tasks"]}


def _said(task: dict[str, Any]) -> dict[str, Any]:
    if task["state"] == "succeeded":
        return {"result": task["result"]}
    error = (task["attempts"][-1].get("error") if task["attempts"] else None) or {}
    return {"error": {"code": error.get("code", ""), "msg": error.get("msg") or task["reason"]}}
