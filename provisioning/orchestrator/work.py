"""What an attempt calls: the operation of its task, or its probe, with every reference in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from provisioning.config import Config
from provisioning.core.catalogue import Operation, filled
from provisioning.core.conformity import as_declared, credential_of, validate_params
from provisioning.core.identifiers import LOCAL, Executing
from provisioning.core.references import BadReference, Reference, resolved, value_at
from provisioning.core.rollback import SUFFIX, is_undo
from provisioning.core.tasks import with_infra
from provisioning.core.upstream import results_of
from provisioning.core.workflow import Condition, Task, TaskError
from provisioning.execution.executor import AttemptRequest, Key
from provisioning.execution.nulib import entry_command, settings_variables
from provisioning.execution.nushell import Nushell
from provisioning.execution.process import process_environment
from provisioning.storage.limits import Wanted
from provisioning.storage.spool import Spool

if TYPE_CHECKING:
    from provisioning.orchestrator.held import Held

GROUP = "group:"
"""Before the name of a group that an attempt must have room in."""
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
    wanted: tuple[Wanted, ...] = ()
    """The targets and groups that the attempt must hold."""
    skip: str = ""
    """Why it is not made after all: what its task asks of another's result is not so."""
    recorded: dict[str, Any] | None = None
    """The params as a checkpoint keeps them, where they were not all in the plan."""


def called(held: Held, task_id: str) -> Operation:
    """The operation that the task's next attempt calls: its own, or the probe of that."""
    operation = held.plan.operations[held.tasks[task_id].operation]
    probing = operation.probe is not None and held.task_checkpoint(task_id).probing
    return held.plan.operations[operation.probe] if probing and operation.probe else operation


def work_of(held: Held, task_id: str) -> Work:
    """What the task's next attempt calls: its operation, or the probe with those params that both have."""
    task = held.tasks[task_id]
    operation = held.plan.operations[task.operation]
    work = Work(operation, task.params)
    if is_undo(task_id):
        return _undo_of(held, held.tasks[task_id.removesuffix(SUFFIX)], operation)
    if task.when is not None and (decided := _decided(held, task.when, operation)):
        return decided
    if task.references:
        work = _resolved(held, task, operation)
    probe = called(held, task_id)
    if probe is operation or work.refusal:
        return work
    params = {param.name: work.params.get(param.name, param.default) for param in probe.params}
    return work._replace(operation=probe, params=probe.filled(params))


def _decided(held: Held, when: Condition, operation: Operation) -> Work | None:
    """What a condition makes of its task where it is not to be done; None where it is."""
    reference = ("tasks", *when.task.split("."), *when.path.split("."))
    try:
        value = _value(held, reference)
    except BadReference as error:
        return _missing(operation, error)
    if value == when.equals and isinstance(value, bool) is isinstance(when.equals, bool):
        return None
    return Work(operation, {}, skip=f"when: {when.task}.{when.path} is {_said(value)}, not {_said(when.equals)}")


def _said(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


def _missing(operation: Operation, error: BadReference) -> Work:
    return Work(operation, {}, TaskError("provisioning::reference::not-found", error.message, error.hint))


def _resolved(held: Held, task: Task, operation: Operation) -> Work:
    try:
        params = resolved(task.params, lambda words: _value(held, words))
    except BadReference as error:
        return _missing(operation, error)
    return _checked(operation, params)


def _undo_of(held: Held, task: Task, operation: Operation) -> Work:
    """The call that undoes a task: its params from those of the task and from its result."""
    assert task.undo is not None
    done = (
        _resolved(held, task, held.plan.operations[task.operation]) if task.references else Work(operation, task.params)
    )
    if done.refusal:  # it failed of that itself
        return done._replace(operation=operation)
    infra = done.params.get("infra") or held.plan.workflow.infra
    known = {"params": done.params, "result": held.folder.result(held.task_checkpoint(task.id))}
    if task.undo.params is None:
        result = known["result"] if isinstance(known["result"], dict) else {}
        params = {param.name: done.params.get(param.name, result.get(param.name)) for param in operation.params}
        given = {name: value for name, value in params.items() if value is not None}
        return _checked(operation, with_infra(given, operation, infra))

    def value_of(reference: Reference) -> Any:
        return value_at(known, reference[1:], reference) if reference[0] == "task" else _value(held, reference)

    try:
        return _checked(operation, with_infra(resolved(task.undo.params, value_of), operation, infra))
    except BadReference as error:
        return _missing(operation, error)


def _checked(operation: Operation, resolved: dict[str, Any]) -> Work:
    """The call with these params, or why the operation does not take them."""
    params = operation.filled(as_declared(resolved, operation.params_schema()))
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
        ".".join(reference), held.forward.graph, lambda other: held.folder.result(held.task_checkpoint(other))
    )


def _recorded(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    """The params as a checkpoint keeps them: secrets never, and nothing large."""
    shown = {name: "***" if name in operation.secret and value is not None else value for name, value in params.items()}
    if len(msgspec.json.encode(shown)) <= RECORDED_BYTES:
        return shown
    return {name: f"({len(msgspec.json.encode(value))} bytes)" for name, value in shown.items()}


def holds_something(task: Task, operation: Operation) -> bool:
    """Whether an attempt of the task must hold a target or room in a group, by the declarations alone."""
    return bool(operation.exclusive or operation.shared or task.group or operation.group)


def wanted_by(held: Held, task_id: str, work: Work, config: Config) -> tuple[Wanted, ...]:
    """What the attempt must hold: the targets of its operation, and room in its group."""
    if work.refusal:
        return ()
    infra = work.params.get("infra") or held.plan.workflow.infra
    targets = [
        Wanted(f"target:{infra}/{filled(template, work.params)}", exclusive=exclusive)
        for templates, exclusive in ((work.operation.exclusive, True), (work.operation.shared, False))
        for template in templates
    ]
    group = held.tasks[task_id].group or work.operation.group
    room = config.groups.get(group) if group else None
    groups = [Wanted(f"{GROUP}{group}", room=room)] if room else []
    return tuple({each.name: each for each in reversed([*targets, *groups])}.values())  # exclusive before shared


def executor_of(held: Held, task_id: str, work: Work, config: Config) -> Executing:
    """Where the attempt is made. What holds a target is made here: the lock of a target binds this host alone."""
    operation, task = work.operation, held.tasks[task_id]
    if work.refusal or operation.exclusive or operation.shared:
        return LOCAL
    of_group = config.executors.get(task.group or operation.group or "")
    return task.executor or of_group or operation.executor or config.orchestrator.executor


class Surroundings:
    """What the processes of all attempts have, whatever they call."""

    def __init__(self, spool: Spool, config: Config) -> None:
        self._spool = spool
        self.environment = process_environment(config.environment)
        self.variables = {"PATH": config.environment.path, **settings_variables(config)}
        """What their entries add to it."""
        self._argv: dict[tuple[str, str], tuple[str, ...]] = {}
        self._nu: Nushell | None = None

    def argv(self, nu: Nushell, digest: str, operation: str) -> tuple[str, ...]:
        """The words that call the operation of a kept tree. They are asked for several times for each attempt."""
        if nu is not self._nu:
            self._nu = nu
            self._argv.clear()
        words = self._argv.get((digest, operation))
        if words is None:
            words = self._argv[digest, operation] = entry_command(nu, self._spool, digest, operation)
        return words


def attempt_request(  # noqa: PLR0913 - whose attempt, of what, with what
    held: Held, key: Key, work: Work, *, surroundings: Surroundings, config: Config, nu: Nushell
) -> AttemptRequest:
    """All that a worker must know to run that attempt.

    What is a credential says the manifest alone: a value that a result brings is none, whatever it looks like.
    """
    task = held.tasks[key.task_id.removesuffix(SUFFIX)]
    said = [*task.params.values(), *((task.undo.params or {}).values() if task.undo else ())]
    secrets = {credential_of(value) for value in said} - {None}
    named = {name: credential_of(value) for name, value in work.params.items()}
    return AttemptRequest(
        key=key,
        argv=surroundings.argv(nu, held.plan.nulib, work.operation.name),
        environment=surroundings.environment,
        task_environment={
            **surroundings.variables,
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
        wanted=work.wanted,
        credentials={name: found for name, found in named.items() if found is not None and found in secrets},
        credentials_folder=str(config.paths.credentials),
    )
