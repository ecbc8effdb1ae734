"""Doing one operation from the command line: checked, submitted, worked here or left to the orchestrator."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from provisioning.cli.context import Context
from provisioning.core.catalogue import Operation
from provisioning.errors import InvalidParams, Refused

if TYPE_CHECKING:
    from pathlib import Path

    from provisioning.storage.lock import Lock


class Asked(NamedTuple):
    """The options that every operation command has."""

    orchestrated: bool
    wait: bool
    max_wait: float | None
    check: bool
    priority: int


def operate(context: Context, operation: Operation, params: dict[str, Any], asked: Asked) -> None:
    """Do what the operation command asks for, and answer with the result."""
    from provisioning.core.manifest import validate_params

    if asked.check and operation.check:
        params = {**params, operation.check: True}
    problems = validate_params(operation, params, file="", field="")
    if problems:
        raise InvalidParams(problems)
    from provisioning.storage.submission import checked, single

    infra = params.get("infra")
    manifest = single(
        operation, params, infra=infra if isinstance(infra, str) and infra else "default", priority=asked.priority
    )
    if asked.check and operation.plans:
        _answer_plan(context, manifest)
        return
    if asked.check and not operation.check:
        _answer(context, _intention(operation, params))
        return
    if (folder := context.drop_folder) is not None:
        _drop(context, folder, operation, manifest, asked)
        return
    submission = checked(
        manifest,
        "json",
        "command",
        context.catalogue,
        operator=context.operator,
        door="cli",
        limits=context.limits,
        sources=context.sources,
    )
    workflow_id, lock = submission.workflow_id, None
    if asked.orchestrated:
        context.spool.submit(manifest, "json", submission)
    else:
        lock = context.spool.submit_held(manifest, "json", submission)
    if asked.orchestrated and not asked.wait and asked.max_wait is None:
        if context.json:
            context.answer_json({"workflow_id": workflow_id})
        else:
            context.answer(workflow_id)
        context.note_if_unworked()
        return
    _see_through(context, workflow_id, asked, lock, many=operation.plans)


def _drop(context: Context, folder: Path, operation: Operation, manifest: bytes, asked: Asked) -> None:
    """Submit it into the own drop folder in another user's spool."""
    from provisioning.cli import dropping

    if not asked.orchestrated:
        text = f"the spool at {context.config.paths.spool} is another user's: it cannot be worked here"
        raise Refused(text, hint="submit it with --orchestrated, or name a spool of your own: --spool DIR")
    dropped = dropping.Dropped(manifest, "json", operation.name.replace(".", "-"))
    dropping.submit(context, folder, dropped, wait=asked.wait, max_wait=asked.max_wait)


def _answer_plan(context: Context, data: bytes) -> None:
    """What a planning operation would have done."""
    from provisioning.cli.batch import Text, workflow_of
    from provisioning.core.manifest import planned
    from provisioning.views.plan_text import plan_page, plan_text

    workflow = workflow_of(context, Text(data, "json", "command"))
    page = plan_page(planned(workflow, context.catalogue), context.catalogue)
    if context.json:
        context.answer_json(page)
    else:
        context.answer(plan_text(page, width=context.width))


def _see_through(context: Context, workflow_id: str, asked: Asked, lock: Lock | None, *, many: bool) -> None:
    """Work it here, or wait for the orchestrator; the result on stdout, all else on stderr."""
    from provisioning.cli.following import Follower, raise_unless_succeeded, wait, work
    from provisioning.views.progress import Lines

    progress = Lines(sys.stderr)
    follower = Follower(context.spool, workflow_id, progress)
    try:
        if lock is None:
            context.note_if_unworked()
            page = wait(follower, max_wait=asked.max_wait)
        else:
            page = work(context, follower, max_wait=asked.max_wait, lock=lock)
    finally:
        progress.close()
    raise_unless_succeeded(context, page)
    tasks = follower.page()["tasks"]
    _answer(context, {task["task_id"]: task["result"] for task in tasks} if many else tasks[0]["result"])


def _intention(operation: Operation, params: dict[str, Any]) -> dict[str, Any]:
    """What would be done, of an operation that cannot say it itself."""
    from provisioning.core.redacted import masked

    return {
        "operation": operation.name,
        "params": masked(operation.filled(params), operation.secret),
        "idempotent": operation.idempotent,
        "timeout_seconds": operation.timeout_seconds,
        "retries": operation.retries,
        "would_start": True,
    }


def _answer(context: Context, result: Any) -> None:
    if context.json:
        context.answer_json(result)
        return
    from provisioning.views.table import shown_value

    if isinstance(result, dict) and result.keys() >= {"exit_code", "stdout", "stderr"}:
        sys.stderr.write(_printed(str(result["stderr"])))
        context.answer(_printed(str(result["stdout"])))
        return
    context.answer(shown_value(result, width=context.width))


def _printed(stdout: str) -> str:
    """What a command printed: as it is for a pipe, harmless for a terminal."""
    from provisioning.views.text import safe_block

    return safe_block(stdout) if sys.stdout.isatty() else stdout
