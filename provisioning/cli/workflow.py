"""`provisioning workflow`: look at workflows that were submitted, and ask things of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import NotFound, SpoolUnusable, UsageError

if TYPE_CHECKING:
    from provisioning.storage.checkpoint import WorkflowFolder
    from provisioning.storage.spool import Spool
    from provisioning.views.status import Page

SEEN = (0, 2, 3, 4, 6)
ASKED = (0, 2, 3, 4, 5, 6)
_APPLY_SECONDS = 5.0
"""So long a command waits for whoever holds the workflow to apply its request."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class WorkflowId(click.ParamType[str]):
    """A workflow_id or a prefix of one; the shell completes it from the spool."""

    name = "id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            ids = ctx.ensure_object(Context).spool.workflow_ids()
        except Exception:  # noqa: BLE001 - a completion that fails offers nothing
            return []
        return [CompletionItem(each) for each in reversed(ids) if each.startswith(incomplete)]


id_argument = click.argument("workflow_id", metavar="ID", type=WorkflowId())


@click.group("workflow", cls=Noun, no_args_is_help=True)
def workflow() -> None:
    """Look at workflows, and cancel, pause, resume, retry or roll them back; an ID may be shortened."""


@workflow.command("list", exits=(0, 2, 6))
@click.option("--state", "states", multiple=True, help="Only those in this state; may be given several times.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="The newest N only.")
@json_option
@pass_context
def list_(context: Context, states: tuple[str, ...], limit: int | None) -> None:
    """List workflows, the newest first; what was rejected too."""
    from provisioning.core.states import WorkflowState
    from provisioning.views.listing import list_text, workflow_rows
    from provisioning.views.status import ABANDONED, DAMAGED, REJECTED

    known = [*map(str, WorkflowState), ABANDONED, REJECTED, DAMAGED]
    if unknown := [state for state in states if state not in known]:
        raise UsageError(f"there is no state {unknown[0]!r}", hint=f"known are {', '.join(known)}")
    rows = workflow_rows(context.spool, states=frozenset(states), limit=limit)
    if context.json:
        context.answer_json(rows)
    elif rows:
        context.answer(list_text(rows, width=context.width))
    else:
        context.say("no workflows")


@workflow.command(exits=SEEN)
@id_argument
@click.option("--tasks", "every_task", is_flag=True, help="Each task, however many there are.")
@json_option
@pass_context
def status(context: Context, workflow_id: str, every_task: bool) -> None:  # noqa: FBT001
    """Show one workflow: its state, who asked for what, and its tasks.

    Of more than 30 tasks, those are listed that need a look, and the others counted by group. With --json, all tasks of
    a workflow of up to 1000.

    \b
    Example:
      provisioning wf status 01jd
    """
    from provisioning.clock import now
    from provisioning.views.groups import grouped_status
    from provisioning.views.page_text import status_text
    from provisioning.views.status import brief_status, workflow_status

    brief = brief_status if context.json else grouped_status
    page = page_of(context, workflow_id, workflow_status if every_task else brief)
    if context.json:
        context.answer_json(page)
    else:
        context.answer(status_text(page, now(), width=context.width, every_task=every_task))


def page_of(context: Context, workflow_id: str, look: Callable[[WorkflowFolder], Page] | None = None) -> Page:
    """The page of a workflow, whole or as `look` gives it; Rejected with the problems of one that was."""
    from provisioning.views.status import workflow_status
    from provisioning.views.waiting import page_of as shown

    return shown(context.spool, context.config.groups, workflow_id, look or workflow_status)


@workflow.command(exits=(0, 1, 2, 3, 4, 6, 7, 130))
@click.argument("workflow_id", metavar="[ID]", required=False, type=WorkflowId())
@click.option("--max-wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Watch so long at most.")
@json_option
@pass_context
def watch(context: Context, workflow_id: str | None, max_wait: float | None) -> None:
    """Show the progress of a workflow until it has ended; without an ID that of all, until none is left.

    Live on a terminal, one line per change elsewhere; with --json one object per line. Exit code 0 if it succeeded, 1
    if not, or if one of them did not.

    \b
    Example:
      provisioning workflow watch 01jd --json | jq -c 'select(.error)'
    """
    from provisioning.cli.watching import watch_all, watch_one
    from provisioning.views.status import find

    if workflow_id is None:
        watch_all(context, max_wait)
    else:
        watch_one(context, find(context.spool, workflow_id).workflow_id, max_wait)


@workflow.command(exits=SEEN)
@id_argument
@click.argument("task", required=False)
@click.option("--task", "option", metavar="TASK", help="The same as the argument TASK.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the workflow, or that task, has ended.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Of this attempt; the latest otherwise.")
@click.option("--all", "every", is_flag=True, help="Of every attempt, the first first.")
@json_option
@pass_context
def logs(
    context: Context,
    workflow_id: str,
    task: str | None,
    option: str | None,
    follow: bool,  # noqa: FBT001
    attempt: int | None,
    every: bool,  # noqa: FBT001
) -> None:
    """Show what tasks printed; of several tasks with whose line it is, and which attempt's if not the first's.

    With -f also of each attempt that begins meanwhile.

    \b
    Example:
      provisioning workflow logs 01jd web -f
    """
    from provisioning.cli.showing_logs import show_logs

    if task and option and task != option:
        raise UsageError(f"two tasks are named, {task} and {option}", hint="name one, or none for all")
    if attempt and every:
        raise UsageError("--attempt and --all do not go together", hint="leave one of them out")
    show_logs(context, workflow_id, task or option, attempt=attempt, every=every, follow=follow)


@workflow.command(exits=SEEN)
@id_argument
@click.argument("tasks", metavar="[TASK]…", nargs=-1)
@click.option("--task", "options", multiple=True, metavar="TASK", help="The same as an argument TASK.")
@json_option
@pass_context
def explain(context: Context, workflow_id: str, tasks: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Say why tasks are where they are, and what to do about it."""
    from provisioning.views.page_text import explain_text, note

    page = page_of(context, workflow_id)
    tasks = (*tasks, *options)
    _check_tasks(page, tasks)
    if not context.json:
        record = context.spool.running_orchestrator()
        worked = record is not None and record.state(context.spool.root) == "running"
        context.answer(explain_text(page, list(tasks), worked=worked))
        return
    chosen = [task for task in page["tasks"] if not tasks or task["task_id"] in tasks]
    keys = ("task_id", "state", "reason", "waiting_for", "held_by")
    told: list[dict[str, Any]] = [{**{key: task.get(key, []) for key in keys}, "text": note(task)} for task in chosen]
    head = {key: page[key] for key in ("workflow_id", "state", "reason", "held")}
    context.answer_json({**head, "tasks": told})


def _check_tasks(page: Page, tasks: Iterable[str]) -> None:
    from provisioning.core.catalogue import nearest_hint

    known = [task["task_id"] for task in page["tasks"]]
    for task in tasks:
        if task not in known:
            hint = nearest_hint(task, known) or f"see: provisioning workflow status {page['workflow_id']}"
            raise NotFound(f"workflow {page['workflow_id']} has no task {task!r}", hint=hint)


def _ask(
    context: Context, verb: str, workflow_id: str, tasks: tuple[str, ...] = (), preserve: tuple[str, ...] = ()
) -> None:
    """Ask it of the workflow, and say what became of it."""
    from provisioning.orchestrator.requests import ask
    from provisioning.views.status import find

    found = find(context.spool, workflow_id).workflow_id
    load = lambda: context.nulib  # noqa: E731 - read only where it is needed
    ask(context.spool, context.config, load, verb, found, operator=context.operator, tasks=tasks, preserve=preserve)
    deadline = time.monotonic() + _APPLY_SECONDS
    while (queued := bool(context.spool.requests_of(found))) and time.monotonic() < deadline:
        time.sleep(0.02)
    page = page_of(context, found)
    if context.json:
        context.answer_json({"workflow_id": found, "asked": verb, "state": page["state"], "queued": queued})
        return
    done = "cancelling" if page["reason"] == "cancelling" else f"{verb} done, it is {page['state']}"
    context.say(f"workflow {found}: {f'{verb} is asked for' if queued else done}")


@workflow.command(exits=ASKED)
@id_argument
@json_option
@pass_context
def cancel(context: Context, workflow_id: str) -> None:
    """End a workflow: its running tasks are told to end, the others never start."""
    _ask(context, "cancel", workflow_id)


@workflow.command(exits=ASKED)
@id_argument
@json_option
@pass_context
def pause(context: Context, workflow_id: str) -> None:
    """Start none of a workflow's tasks any more; running ones finish."""
    _ask(context, "pause", workflow_id)


@workflow.command(exits=ASKED)
@id_argument
@json_option
@pass_context
def resume(context: Context, workflow_id: str) -> None:
    """Go on with a paused workflow."""
    _ask(context, "resume", workflow_id)


@workflow.command(exits=ASKED)
@id_argument
@click.option(
    "--task", "tasks", multiple=True, metavar="TASK", help="Also this one, and what depends on it; repeatable."
)
@json_option
@pass_context
def retry(context: Context, workflow_id: str, tasks: tuple[str, ...]) -> None:
    """Do again what failed; what succeeded is kept, but for a --task and all that depends on it.

    \b
    Example:
      provisioning workflow retry 01jd --task web
    """
    _check_tasks(page_of(context, workflow_id), tasks)
    _ask(context, "retry", workflow_id, tasks)


@workflow.command(exits=ASKED)
@id_argument
@click.option("--to", "to", multiple=True, metavar="TASK", help="Undo only what waits for this one; repeatable.")
@click.option("--preserve", multiple=True, metavar="TASK", help="Leave what this one has done; repeatable.")
@json_option
@pass_context
def rollback(context: Context, workflow_id: str, to: tuple[str, ...], preserve: tuple[str, ...]) -> None:
    """Undo what the tasks of a workflow have done, the last first.

    Running tasks finish before. `workflow status` shows what could not be undone; the same command tries it again.

    \b
    Example:
      provisioning workflow rollback 01jd --to network
    """
    _check_tasks(page_of(context, workflow_id), (*to, *preserve))
    _ask(context, "rollback", workflow_id, to, preserve)


@workflow.command(exits=(0, 2, 6))
@click.option("--older-than", metavar="AGE", help="30m, 12h, 7d, 4w: since they ended. 7d, unless --keep is given.")
@click.option("--keep", type=click.IntRange(min=0), metavar="N", help="All but the N that ended last.")
@click.option("--dry-run", is_flag=True, help="Show what would go, and remove nothing.")
@json_option
@pass_context
def cleanup(context: Context, older_than: str | None, keep: int | None, dry_run: bool) -> None:  # noqa: FBT001
    """Remove workflows that ended some time ago, or all but the latest, with their logs.

    With both --older-than and --keep, what either catches goes. With an age, what was rejected longer ago goes too;
    and always the kept trees of operations that no workflow needs. An orchestrator does the same about once an hour,
    as [retention] in the config says.

    \b
    Example:
      provisioning workflow cleanup --older-than 4w --keep 1000 --dry-run
    """
    from provisioning.clock import now
    from provisioning.orchestrator.retention import Cleanup, Rule

    spool = context.spool  # a spool that cannot be used is said before anything about the age
    age = age_seconds(older_than or "7d") if older_than or keep is None else None
    cleaned = Cleanup(spool, Rule(age, keep), now(), dry_run=dry_run)
    cleaned.finish()
    if context.json:
        gone = {"removed": cleaned.workflows, "rejected": cleaned.rejected, "trees": cleaned.trees}
        context.answer_json({**gone, "dry_run": dry_run})
    else:
        workflows = [_ended_line(spool, each) for each in cleaned.workflows] if dry_run else cleaned.workflows
        aside = [f"rejected/{name}" for name in cleaned.rejected], [f"nulib/{digest}" for digest in cleaned.trees]
        context.answer("\n".join([*workflows, *aside[0], *aside[1]]))
        counts = f"{len(cleaned.workflows)} workflows, {len(cleaned.rejected)} rejected, {len(cleaned.trees)} trees"
        context.say(f"{counts} {'would be' if dry_run else 'were'} removed")
    if cleaned.problems:
        raise SpoolUnusable("\n".join(cleaned.problems), hint="see: provisioning spool check")


def _ended_line(spool: Spool, workflow_id: str) -> str:
    """What a workflow was, for who thinks about removing it: id, name, state and end."""
    from provisioning.views.status import workflow_status
    from provisioning.views.text import clock_time, safe

    try:
        page = workflow_status(spool.find(workflow_id))
    except (NotFound, SpoolUnusable):
        return workflow_id
    return f"{workflow_id}  {safe(page['name'])}  {page['state']}  {clock_time(page['ended_at'])}"


def age_seconds(text: str) -> float:
    """The seconds of an age such as 7d."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise UsageError(f"--older-than {text!r} is no age", hint="write a number and s, m, h, d or w: 7d")
    return float(int(number) * _UNITS[unit])
