"""Works one workflow in the process of the command that asked for it, or follows whoever works it."""

from __future__ import annotations

from collections.abc import Callable

from provisioning.clock import new_ulid, now
from provisioning.config import Config
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.core.workflow import FORMAT, Request
from provisioning.errors import Interrupted, ProvisioningError, Refused, SpoolUnusable
from provisioning.execution.nulib import Nulib
from provisioning.execution.pool import Pool
from provisioning.execution.slurm.executor import cluster
from provisioning.orchestrator.loop import Orchestrator
from provisioning.orchestrator.presence import Presence
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool

LOOK_SECONDS = 0.1
"""Between two looks at an interruption, and at a workflow that another process works."""
PATIENCE_SECONDS = 5.0
"""So long a foreground command waits for a full disk to have room again; its workflow waits longer."""


def work_workflow(  # noqa: PLR0913 - whose workflow, where, and how its user takes part
    spool: Spool,
    config: Config,
    load_nulib: Callable[[], Nulib],
    workflow_id: str,
    *,
    on_change: Callable[[], None],
    interruptions: Callable[[], int],
    operator: str,
    lock: Lock | None = None,
) -> WorkflowState:
    """Work or follow the workflow until it has ended, or waits for a person; its state.

    With `lock`, the workflow's own from its submission, it is worked here and by nobody else.

    The first interruption asks for a cancel, the second stops waiting for it: Interrupted. SpoolUnusable where the
    disk or the host lets nothing start: the workflow stays for whoever works the spool next.
    """
    pool = Pool(spool, config.orchestrator.slots, config.orchestrator.idle_worker_seconds)
    slurm = cluster(spool, config)
    orchestrator = Orchestrator(spool, config, pool, load_nulib, slurm=slurm, only=workflow_id, lock=lock)
    cancelled = False
    presence = Presence(spool.root)
    try:
        while True:
            presence.insist()
            orchestrator.tick()
            on_change()
            folder = spool.find(workflow_id)
            checkpoint = folder.workflow()
            if checkpoint and (checkpoint.state in ENDED_WORKFLOWS or checkpoint.state is WorkflowState.PAUSED):
                return checkpoint.state
            if error := orchestrator.errors.get(workflow_id):
                raise error if isinstance(error, ProvisioningError) else Refused(str(error))
            if error := orchestrator.stuck(PATIENCE_SECONDS):
                raise SpoolUnusable(
                    f"{error}; workflow {workflow_id} waits in the spool",
                    hint=f"when there is room: provisioning orchestrator start; or: workflow cancel {workflow_id}",
                ) from error
            if interruptions() and not cancelled:
                cancelled = True
                spool.request(Request(FORMAT, new_ulid(), workflow_id, "cancel", operator, now()))
                continue
            if interruptions() > 1:
                raise Interrupted(
                    f"workflow {workflow_id} goes on being cancelled",
                    hint=f"see: provisioning workflow status {workflow_id}",
                )
            orchestrator.wait([], at_most=LOOK_SECONDS)
    finally:
        orchestrator.close()
