"""What keeps tasks that could start from starting: targets and groups, and who holds them. It takes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from provisioning.core.catalogue import filled
from provisioning.core.identifiers import SLURM
from provisioning.core.states import TaskState
from provisioning.core.workflow import Plan, Task
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.limits import Look, Wanted
from provisioning.storage.spool import Spool
from provisioning.storage.waiting import waiting_of
from provisioning.views.status import ENDED, Page, find, waiting_for_disk

_LOOKED_AT = 1000
"""Tasks of one page at most."""


def wanted(
    plan: Plan, task: Task, groups: Mapping[str, int], params: Mapping[str, object] | None = None
) -> list[Wanted]:
    """What an attempt of the task must hold, as far as that is known before its references are resolved."""
    operation, known = plan.operations[task.operation], params or task.params
    infra = known.get("infra") or plan.workflow.infra
    found = [
        Wanted(f"target:{infra}/{filled(template, known)}", exclusive=exclusive)
        for templates, exclusive in ((operation.exclusive, True), (operation.shared, False))
        for template in templates
    ]
    room = groups.get(task.group or "")
    return [*found, *([Wanted(f"group:{task.group}", room=room)] if room else [])]


def page_of(spool: Spool, groups: Mapping[str, int], workflow_id: str, look: Callable[[WorkflowFolder], Page]) -> Page:
    """What `look` says of a workflow, and what it waits for; Rejected with the problems of one that was."""
    for _ in range(3):
        try:
            page = look(find(spool, workflow_id))
            show_limits(page, spool, groups)
            show_slurm(page, spool)
            shortage = spool.shortage() if page["state"] not in ENDED else None
            return waiting_for_disk(page, shortage.message) if shortage else page
        except FileNotFoundError:  # claimed while we read
            continue
    raise NotFound(f"workflow {workflow_id} went away", hint="see: provisioning workflow list")


def show_limits(page: Page, spool: Spool, groups: Mapping[str, int]) -> None:
    """Say of the tasks that only wait for a slot if it is a target or a group that they wait for, and who holds it."""
    idle = [task for task in page["tasks"] if task["waiting_for"] == ["slot"]][:_LOOKED_AT]
    plan = spool.find(page["workflow_id"]).plan() if idle else None
    if plan is None:
        return
    tasks = {task.id: task for task in plan.workflow.tasks}
    look = Look(spool.locks)
    try:
        for shown in idle:
            found = wanted(plan, tasks[shown["task_id"]], groups)
            missing = [each for each in found if look.in_the_way([each])]
            if missing:
                shown["waiting_for"] = [each.name for each in missing]
                shown["held_by"] = [who for each in missing for who in _holders(spool, groups, each.name)]
    finally:
        look.close()


def show_slurm(page: Page, spool: Spool) -> None:
    """Say of the attempts that are with Slurm and do not run why."""
    running = [task for task in page["tasks"] if task["state"] == TaskState.RUNNING]
    folder = WorkflowFolder(spool.workflows / page["workflow_id"])
    said = waiting_of(folder.path) if running else {}
    for task in running:
        if task["task_id"] in said:
            last = folder.task(task["task_id"]).last  # it may have begun again since, here
            if last is not None and last.executor == SLURM:
                task["waiting_for"] = [f"slurm:{said[task['task_id']]}"]


def _holders(spool: Spool, groups: Mapping[str, int], name: str) -> Iterator[str]:
    """The running tasks that hold it, as `workflow/task`."""
    for workflow_id in spool.claimed_ids():
        folder = spool.workflow(workflow_id)
        try:
            running = [task for task in folder.tasks() if task.state is TaskState.RUNNING]
            plan = folder.plan() if running else None
        except (SpoolUnusable, FileNotFoundError):
            continue
        tasks = {task.id: task for task in plan.workflow.tasks} if plan else {}
        for each in running:
            if plan and each.task_id in tasks:
                held = wanted(plan, tasks[each.task_id], groups, each.params)
                if name in {one.name for one in held}:
                    yield f"{workflow_id}/{each.task_id}"
