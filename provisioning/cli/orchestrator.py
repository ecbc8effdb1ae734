"""`provisioning orchestrator`: the process that runs workflows."""

from __future__ import annotations

import contextlib
import time
from functools import partial
from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import OrchestratorUnusable, ProvisioningError, UsageError

SECONDS = click.FloatRange(min=0)
STOP_GRACE_SECONDS = 15.0
"""Beyond the drain deadline, before stop gives up waiting."""


def _slots(ctx: click.Context, _: click.Parameter, value: int | None) -> None:
    ctx.ensure_object(Context).set_flag("orchestrator.slots", value)


slots_option = click.option(
    "--slots",
    type=click.IntRange(1, 1000),
    metavar="N",
    callback=_slots,
    expose_value=False,
    help="Tasks at once (10, or as the config says).",
)


@click.group("orchestrator", cls=Noun, no_args_is_help=True)
def orchestrator() -> None:
    """Run, start, stop and look at the orchestrator: the process that runs workflows."""


@orchestrator.command(exits=(0, 1, 2, 6, 7))
@slots_option
@click.option("--until-empty", is_flag=True, help="Stop when nothing can start: for cron. Safe beside another one.")
@click.option("--max-wait", type=SECONDS, metavar="SECONDS", help="With --until-empty: wait so long for a start.")
@click.option("--lock-wait", type=SECONDS, metavar="SECONDS", help="Be the only one: wait so long for another to end.")
@pass_context
def run(context: Context, *, until_empty: bool, max_wait: float | None, lock_wait: float | None) -> int:
    """Work the spool in this process until told to stop.

    SIGTERM stops it: nothing new starts, and what still runs at the drain deadline goes on for the next start to
    adopt. With --until-empty each workflow that did not end well is a line on stderr, with the end of its task's
    log, and the exit code is 1: cron mails what went wrong, and nothing else. Runs that overlap share the work, each
    with its own slots; with --lock-wait there is one at a time, and one that finds another ends with 7 and says
    nothing.

    \b
    Examples, from cron:
      */5 * * * *  provisioning orchestrator run --until-empty
      */5 * * * *  provisioning orchestrator run --until-empty --lock-wait 0
    """
    from provisioning.execution.nulib import load_nulib
    from provisioning.orchestrator.daemon import run as work

    if max_wait is not None and not until_empty:
        raise UsageError("--max-wait goes with --until-empty", hint="leave it out, or add --until-empty")
    return work(
        context.spool,
        context.config,
        lambda: load_nulib(context.config),
        until_empty=until_empty,
        max_wait_seconds=max_wait or 0.0,
        lock_wait_seconds=lock_wait,
        on_failure=partial(_tell_failure, context) if until_empty else None,
    )


def _tell_failure(context: Context, workflow_id: str, error: Exception | None) -> None:
    """A line of what did not end well, and the end of the log of the task to blame."""
    from provisioning.cli.following import log_end
    from provisioning.views.page_text import failure_line
    from provisioning.views.status import WorkflowView
    from provisioning.views.text import safe

    if error is None:
        try:
            page = WorkflowView(context.spool.find(workflow_id)).glance()
            context.say(failure_line(page))
            if end := log_end(context.spool, page):
                context.say(end)
            return
        except ProvisioningError as unreadable:
            error = unreadable
    context.say(safe(f"workflow {workflow_id}: {str(error).partition(chr(10))[0]}"))


@orchestrator.command(exits=(0, 2, 6))
@slots_option
@json_option
@pass_context
def start(context: Context) -> None:
    """Start an orchestrator in the background; returns when it works."""
    from provisioning.config import environment_of_a_daemon
    from provisioning.orchestrator.daemon import start as begin

    pid = begin(context.spool, _arguments(context), environment_of_a_daemon())
    if context.json:
        context.answer_json({"pid": pid, "spool": str(context.spool.root)})
    else:
        context.say(f"the orchestrator works {context.spool.root}, pid {pid}")


def _arguments(context: Context) -> list[str]:
    """The arguments that make this program the orchestrator, with the flags that were given here."""
    command = ["--spool", str(context.spool.root)]
    if context.config.file is not None:
        command += ["--config", str(context.config.file)]
    return [*command, "orchestrator", "run", "--slots", str(context.config.orchestrator.slots)]


@orchestrator.command(exits=(0, 2, 6, 7))
@click.option("--now", is_flag=True, help="End the running tasks as well.")
@pass_context
def stop(context: Context, now: bool) -> None:  # noqa: FBT001
    """Stop the orchestrator; returns when it has ended.

    Nothing new starts. Running tasks finish up to the drain deadline; what is left goes on, and the next start
    adopts it.
    """
    from provisioning.orchestrator import daemon

    config = context.config
    grace = config.limits.grace_seconds if now else config.orchestrator.drain_seconds
    _end(context, daemon.END if now else daemon.DRAIN, grace + STOP_GRACE_SECONDS)


@orchestrator.command(exits=(0, 2, 6, 7))
@click.option(
    "--max-wait", type=click.FloatRange(min=0), default=86400.0, metavar="SECONDS", help="Wait so long at most."
)
@pass_context
def drain(context: Context, max_wait: float) -> None:
    """Stop the orchestrator when all that runs has finished, however long that takes."""
    from provisioning.orchestrator import daemon

    _end(context, daemon.DRAIN_FULLY, max_wait)


def _end(context: Context, number: Any, timeout_seconds: float) -> None:
    from provisioning.orchestrator import daemon

    if not daemon.stop(context.spool, number=number, timeout_seconds=timeout_seconds):
        raise OrchestratorUnusable(
            f"no orchestrator works {context.spool.root}", hint="start one: provisioning orchestrator start"
        )
    context.say("the orchestrator has stopped")


@orchestrator.command(exits=(0, 2, 6))
@json_option
@pass_context
def status(context: Context) -> None:
    """Show whether an orchestrator works the spool, and what there is to do."""
    page = _page(context)
    if context.json:
        context.answer_json(page)
        return
    from provisioning.views.health import NOTES
    from provisioning.views.table import table

    counts = ", ".join(f"{count} {state}" for state, count in page["workflows"].items()) or "none"
    rows = [["orchestrator", page["state"] + (f": {note}" if (note := NOTES.get(page["state"])) else "")]]
    facts = ("pid", "host", "started_at", "slots", "version", *(["works"] if page["state"] == "away" else []))
    rows += [[name, str(page[name])] for name in facts if page.get(name)]
    rows += [["spool", page["spool"]], ["workflows", counts]]
    if page["disk"]:
        rows.append(["disk", f"waiting for disk space: {page['disk']}"])
    context.answer(table(rows, width=context.width))


def _page(context: Context) -> dict[str, Any]:
    from provisioning.views.listing import workflow_rows
    from provisioning.views.text import instant

    record = context.spool.running_orchestrator()
    counts: dict[str, int] = {}
    for row in workflow_rows(context.spool):
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    root = context.spool.root
    state = record.state(root) if record else "not running"
    page: dict[str, Any] = {"running": record is not None, "state": state, "spool": str(root)}
    if record is not None:  # what is null is not known: its record was lost, and it has not said it again
        page |= {
            "works": record.root or None,
            "pid": record.process.pid,
            "host": record.host or None,
            "started_at": instant(record.started_at) if record.started_at else None,
            "slots": record.slots or None,
            "version": record.version or None,
        }
    shortage = context.spool.shortage()
    return {**page, "workflows": dict(sorted(counts.items())), "disk": shortage.message if shortage else None}


@orchestrator.command(exits=(0, 2, 6))
@json_option
@pass_context
def health(context: Context) -> int:
    """Exit code 0 if an orchestrator works the spool, 6 if not.

    Checks that the spool can be opened and its disk has room, that the orchestrator lives and starts what comes, and
    that Nushell and the operations can be used. What is in the spool is for: provisioning spool check.
    """
    from provisioning.cli.ending import answer_problems
    from provisioning.errors import Problem
    from provisioning.views.health import health_problems

    problems: list[Problem] = []
    try:
        problems += health_problems(context.spool)
        problems += context.nulib.catalogue.broken
    except ProvisioningError as error:
        problems.append(Problem(error.code, error.message, error.hint))
    answer_problems(context, "healthy", problems)
    return OrchestratorUnusable.exit_code if problems else 0


@orchestrator.command(exits=(0, 2, 6))
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=40, show_default=True, help="The last so many.")
@pass_context
def logs(context: Context, follow: bool, lines: int) -> None:  # noqa: FBT001
    """Show the end of the orchestrator's log."""
    from provisioning.cli.following import POLL_SECONDS
    from provisioning.storage import logs as files
    from provisioning.views.text import safe_block

    path = context.spool.logs / "orchestrator.log"
    with contextlib.closing(files.Growing(path)) as growing:
        context.answer(safe_block(files.tail(path, lines).decode(errors="replace")))
        while follow:
            if data := growing.read():
                context.answer(safe_block(data.decode(errors="replace")))
            else:
                time.sleep(POLL_SECONDS)
