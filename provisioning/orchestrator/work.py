"""What an attempt calls: the operation of its task, or its probe, with every reference in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from provisioning.config import Config
from provisioning.core.catalogue import Operation
from provisioning.core.conformity import as_declared, validate_params
from provisioning.core.references import BadReference, Reference, resolved
from provisioning.core.upstream import results_of
from provisioning.core.workflow import Task, TaskError
from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.nulib import UNPRIVILEGED_PATH, entry_command
from provisioning.execution.nushell import Nushell
from provisioning.storage.spool import Spool

if TYPE_CHECKING:
    from provisioning.orchestrator.held import Held

MOST_BYTES = 16 << 20
"""Params may become so large by what they refer to, as JSON."""
RECORDED_BYTES = 64 << 10
"""Resolved params that are larger are not kept in the task's checkpoint: each is said by its size."""


class Work(NamedTuple):
    """One call of an operation."""

    operation: Operation
    params: dict[str, Any]
    refusal: TaskError | None = None
    """Why it cannot be made: something that it refers to is not there, or is not what the operation takes."""
    recorded: dict[str, Any] | None = None
    """The params as a checkpoint keeps them, where they were not all in the plan."""


def work_of(held: Held, task_id: str) -> Work:
    """What the task's next attempt calls: its operation, or the probe with those params that both have."""
    task, probing = held.tasks[task_id], held.task_checkpoint(task_id).probing
    operation = held.plan.operations[task.operation]
    work = Work(operation, task.params)
    if task.references:
        work = _resolved(held, task, operation)
    if not probing or operation.probe is None or work.refusal:
        return work
    probe = held.plan.operations[operation.probe]
    params = {param.name: work.params.get(param.name, param.default) for param in probe.params}
    return work._replace(operation=probe, params=probe.filled(params))


def _resolved(held: Held, task: Task, operation: Operation) -> Work:
    try:
        params = as_declared(resolved(task.params, lambda words: _value(held, words)), operation.params_schema())
    except BadReference as error:
        return Work(operation, {}, TaskError("provisioning::reference::not-found", error.message, error.hint))
    if len(msgspec.json.encode(params)) > MOST_BYTES:
        text = f"with all that they refer to, the params have more than {MOST_BYTES} bytes"
        return Work(operation, {}, TaskError("provisioning::reference::invalid-size", text, "refer to less"))
    given = {name: value for name, value in params.items() if value is not None}  # null is what is not given
    if problems := validate_params(operation, given):
        text = "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
        return Work(operation, {}, TaskError("provisioning::reference::invalid-params", text, problems[0].hint))
    return Work(operation, params, recorded=_recorded(operation, params))


def _value(held: Held, reference: Reference) -> Any:
    if reference == ("workflow", "id"):
        return held.workflow_id
    return results_of(
        ".".join(reference), held.schedule.graph, lambda other: held.folder.result(held.task_checkpoint(other))
    )


def _recorded(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    """The params as a checkpoint keeps them: secrets never, and nothing large."""
    shown = {name: "***" if name in operation.secret and value is not None else value for name, value in params.items()}
    if len(msgspec.json.encode(shown)) <= RECORDED_BYTES:
        return shown
    return {name: f"({len(msgspec.json.encode(value))} bytes)" for name, value in shown.items()}


def attempt_request(  # noqa: PLR0913 - whose attempt, of what, with what
    held: Held, key: Key, work: Work, *, spool: Spool, config: Config, nu: Nushell
) -> AttemptRequest:
    """All that a worker must know to run that attempt."""
    settings = config.environment
    process = {"PATH": UNPRIVILEGED_PATH, "HOME": settings.home, "LANG": settings.lang, "NO_COLOR": "1"}
    if settings.tz:
        process["TZ"] = settings.tz
    return AttemptRequest(
        key=key,
        argv=entry_command(nu, spool, held.plan.nulib, work.operation.name),
        environment=process | dict(settings.variables),
        task_environment={
            "PATH": settings.path,
            "PROVISIONING_TASK": key.task_id,
            "PROVISIONING_WORKFLOW": key.workflow_id,
            "PROVISIONING_ATTEMPT": str(key.attempt),
            "PROVISIONING_IDEMPOTENCY_KEY": f"{key.workflow_id}/{key.task_id}",
        },
        params=work.params,
        refusal=work.refusal,
        result_schema=work.operation.result_schema,
        timeout_seconds=held.tasks[key.task_id].timeout_seconds,
        grace_seconds=config.limits.grace_seconds,
        log_bytes=config.limits.log_bytes,
        result_bytes=config.limits.result_bytes,
    )
