"""Taking a workflow: under its lock, from `incoming/` by rename, or from a process that died with it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from provisioning.clock import boot_id, boottime, now
from provisioning.core import manifest
from provisioning.core.large import sharing
from provisioning.core.locate import Limits
from provisioning.core.scheduler import Now
from provisioning.core.states import WorkflowEvent, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, WorkflowCheckpoint, apply_workflow
from provisioning.errors import Invalid, InvalidManifest, Refused, SpoolUnusable
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator.held import Held
from provisioning.orchestrator.recovery import find_outcomes
from provisioning.processes import own_identity
from provisioning.resources import schema
from provisioning.storage.active import name_active
from provisioning.storage.checkpoint import MAX_PLAN_BYTES, Damaged, WorkflowFolder
from provisioning.storage.durations import with_expected
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool
from provisioning.storage.trees import planning


def instant() -> Now:
    """This instant, on both clocks."""
    return Now(now(), boottime(), boot_id())


class Rejected(Refused):
    """An incoming workflow that can no longer be accepted; it was put aside with the reasons."""


def take(spool: Spool, workflow_id: str, load_nulib: Callable[[], Nulib], lock: Lock | None = None) -> Held | None:
    """Take a workflow that nobody holds, and make what is on the disk consistent; None where somebody holds it.

    `lock` is the workflow's own, where the caller has it already.
    """
    lock = lock or spool.lock(workflow_id)
    if lock is None:
        return None
    try:
        name_active(spool.root, workflow_id)
        opened = _open(spool, workflow_id, load_nulib)
        if opened is not None:
            held = Held(lock, *opened)
            held.gate = spool.gate
            # Before their outcomes are taken: what has ended by itself meanwhile has outlived its orchestrator too.
            under_way = [f"{each.task_id}.{each.attempts[-1].number}" for each in held.running()]
            held.tell(opened[-1].wall, "held", under_way=under_way or None)
            find_outcomes(held, opened[-1])
            return held
    except BaseException:
        lock.release()
        raise
    lock.release()
    return None


def _open(
    spool: Spool, workflow_id: str, load_nulib: Callable[[], Nulib]
) -> tuple[WorkflowFolder, Plan, WorkflowCheckpoint, Now] | None:
    path = spool.folder_path(workflow_id)
    if path is None:
        return None
    this = instant()
    folder = WorkflowFolder(path, spool.scratch)
    checkpoint = folder.workflow()
    if checkpoint is None and folder.is_begun():  # no crash leaves that: what a person asked may be lost with it
        raise Damaged(folder.path / "workflow.json", "it is missing, and tasks were started")
    plan = folder.plan()
    if plan is not None and plan.workflow_id != workflow_id:
        raise Damaged(folder.path / "plan.json", f"it is the plan of {plan.workflow_id}")
    newly_claimed = path.parent == spool.incoming
    if plan is None or newly_claimed:
        plan = _permitted(spool, folder, plan, load_nulib)
    if not (spool.nulib / plan.nulib).is_dir():
        raise SpoolUnusable(f"the operations {plan.nulib[:12]} of {workflow_id} are not in {spool.nulib}")
    if newly_claimed and spool.gate:
        spool.gate.starting(folder.submission())
    if newly_claimed:
        folder = spool.claim(workflow_id)
    if checkpoint is None or checkpoint.state is WorkflowState.QUEUED:
        try:
            submission = folder.submission()
        except FileNotFoundError:
            raise Damaged(folder.path / "submission.json", "it is missing") from None
        queued = WorkflowCheckpoint(
            format=FORMAT,
            workflow_id=workflow_id,
            state=WorkflowState.QUEUED,
            operator=submission.operator,
            submitted_at=submission.submitted_at,
            boot_id=this.boot_id,
            host_crashed=not newly_claimed,  # that may be why it was claimed and has no checkpoint
        )
        checkpoint = apply_workflow(queued, WorkflowEvent.CLAIMED, started_at=this.wall, holder=own_identity())
        folder.save_workflow(checkpoint)
    folder.prepare()  # last: what it syncs has the name of the checkpoint too
    plan = msgspec.structs.replace(plan, workflow=sharing(plan.workflow))
    return folder, plan, checkpoint, this


def _permitted(spool: Spool, folder: WorkflowFolder, plan: Plan | None, load_nulib: Callable[[], Nulib]) -> Plan:
    """The plan, made and kept now where there is none.

    Rejected where the manifest has become invalid, or who submitted it may not have it done any more.
    """
    nulib = load_nulib() if plan is None else None
    try:
        made = plan or _plan(folder, nulib or load_nulib(), spool)
        if spool.gate and (refusals := spool.gate.refusals(folder.submission(), made)):
            raise InvalidManifest(refusals)
    except Invalid as error:
        if nulib is not None:
            _refuse_while_broken(error, nulib)
        if spool.gate:
            spool.gate.rejecting(folder.submission(), error.problems[0].code, list(error.problems))
        target = spool.reject(folder, error)
        raise Rejected(f"{folder.workflow_id} was put into {target}: {error}") from error
    if nulib is not None:
        with planning(spool):
            nulib.keep(spool)
            folder.save_plan(made)
    return made


def _refuse_while_broken(error: Invalid, nulib: Nulib) -> None:
    """Where an operation is missing because its file has errors now, the workflow waits until that is mended."""
    for broken in nulib.catalogue.broken:
        if any(
            problem.code == "unknown-operation" and f"'{broken.field}'" in problem.message for problem in error.problems
        ):
            raise Refused(
                f"operation {broken.field} cannot be read: {broken.message}", hint="see: provisioning operation check"
            )


def _plan(folder: WorkflowFolder, nulib: Nulib, spool: Spool) -> Plan:
    """What the manifest means with the operations of now; InvalidManifest where it has become invalid."""
    data, form = folder.submitted_manifest()
    checked = manifest.read(
        data,
        form=form,
        file=f"manifest.{form}",
        schema=schema("manifest"),
        catalogue=nulib.catalogue,
        limits=Limits(bytes=MAX_PLAN_BYTES),  # what was accepted is not measured again
        sources=nulib.sources(lambda: spool),
    )
    workflow = with_expected(spool.root, manifest.planned(checked, nulib.catalogue))
    named = {task.operation for task in workflow.tasks}
    named |= {task.undo.operation for task in workflow.tasks if task.undo}
    probes = {nulib.catalogue.operations[name].probe for name in named}
    names = sorted(name for name in named | probes if name in nulib.catalogue.operations)
    return Plan(
        format=FORMAT,
        workflow_id=folder.workflow_id,
        workflow=workflow,
        operations={name: nulib.catalogue.operations[name] for name in names},
        nulib=nulib.catalogue.digest,
    )


def hold(held: Held) -> None:
    """Say in the workflow's checkpoint who holds it now, in which boot, and whether the host may have crashed under it.

    That nothing is recorded as running in an earlier boot says little: the record of a start may be what was lost.
    """
    before = held.checkpoint
    crashed = before.host_crashed or before.boot_id != boot_id()
    held.save(msgspec.structs.replace(before, holder=own_identity(), boot_id=boot_id(), host_crashed=crashed))
