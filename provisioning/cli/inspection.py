"""Verbs of `provisioning workflow` and `batch` that look at graphs, figures and what is left."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import json_option, pass_context
from provisioning.cli.workflow import SEEN, id_argument, page_of, workflow
from provisioning.errors import Refused, UsageError

if TYPE_CHECKING:
    from provisioning.core.workflow import Plan


def instant_of(text: str, now: datetime) -> datetime:
    """The instant that somebody means: RFC 3339, `2026-12-01 02:00` or `02:00` of here, or `+90m` from now."""
    from provisioning.core.manifest import seconds

    try:
        if text.startswith("+") and re.fullmatch(
            r"\+(?=[0-9])([0-9]{1,4}d)?([0-9]{1,4}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?", text
        ):
            return now + timedelta(seconds=seconds(text))
        if re.fullmatch(r"[0-9]{2}:[0-9]{2}", text):
            here = now.astimezone()
            at = here.replace(hour=int(text[:2]), minute=int(text[3:]), second=0, microsecond=0)
            return (at if at > here else at + timedelta(days=1)).astimezone(UTC)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "write 2026-12-01T02:00:00Z, '2026-12-01 02:00', 02:00 or +90m"
        raise UsageError(f"--at {text!r} is no instant", hint=hint) from None


def _plan(context: Context, workflow_id: str) -> Plan:
    plan = context.spool.find(workflow_id).plan()
    if plan is None:
        raise Refused(f"workflow {workflow_id} is not claimed yet", hint="see: provisioning batch plan FILE")
    return plan


@workflow.command(exits=SEEN)
@id_argument
@click.option("--dot", is_flag=True, help="For Graphviz: pipe it into `dot -Tsvg`.")
@json_option
@pass_context
def graph(context: Context, workflow_id: str, dot: bool) -> None:  # noqa: FBT001
    """Show who waits for whom in a workflow, and how far each is.

    \b
    Example:
      provisioning workflow graph 01jd --dot | dot -Tsvg > graph.svg
    """
    from provisioning.views.graph_text import graph_dot, graph_page, graph_text

    page = page_of(context, workflow_id)
    asked = _plan(context, page["workflow_id"]).workflow
    states = {task["task_id"]: task["state"] for task in page["tasks"]}
    if context.json:
        context.answer_json(graph_page(asked, states))
    else:
        context.answer(graph_dot(asked, states) if dot else graph_text(asked, states, width=context.width))


@workflow.command(exits=(0, 2, 6))
@click.option("--since", metavar="AGE", help="Only of what was submitted within 30m, 12h, 7d, 4w.")
@click.option("--name", metavar="NAME", help="Only of workflows of this name.")
@json_option
@pass_context
def stats(context: Context, since: str | None, name: str | None) -> None:
    """Count what operations and workflows came to: outcomes, failures by code, durations and waits.

    \b
    Example:
      provisioning workflow stats --since 7d
    """
    from provisioning.cli.workflow import age_seconds
    from provisioning.clock import now
    from provisioning.views.stats import stats as count
    from provisioning.views.stats import stats_text

    spool = context.spool
    found = count(spool, since=now() - timedelta(seconds=age_seconds(since)) if since else None, name=name)
    if context.json:
        context.answer_json(found)
    else:
        context.answer(stats_text(found, width=context.width))
