"""A report as Markdown, for tickets and wikis: tables and lists, nothing that a renderer would take for markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from provisioning import __version__
from provisioning.views.groups import FEW_TASKS, groups_of, told
from provisioning.views.page_text import error_text, note
from provisioning.views.report import Failure, Report
from provisioning.views.table import cut
from provisioning.views.text import compact, duration, instant, safe, safe_block, spent

_MARKS = re.compile(r"([\\`*_{}\[\]<>#!|~&])")
"""What means something inside a line of Markdown or HTML; an escaped one is itself everywhere."""
_LINE = 160


def plain(text: str) -> str:
    """The text as itself, on one line."""
    return _MARKS.sub(r"\\\1", safe(text))


def report_markdown(report: Report) -> str:
    """The whole file."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    page = report.page
    yield f"# {plain(page['name'])}: {plain(page['state'])}"
    yield ""
    facts = {
        "workflow": page["workflow_id"],
        "infra": page["infra"],
        "submitted": f"{page['submitted_at']} by {page['operator']} ({page['door']})",
        "started": page["started_at"] or "not yet",
        "ended": page["ended_at"] or "not yet",
        "took": spent(page["started_at"], page["ended_at"], report.made_at),
        "tasks": told(page["counts"]),
        "reason": page["reason"],
    }
    yield from _table(["", ""], ([name, fact] for name, fact in facts.items() if fact))
    if report.failures:
        yield "## Failures"
        yield ""
        for failure in report.failures:
            yield from _failure(failure)
        if report.failures_left_out:
            yield f"And {report.failures_left_out} more."
            yield ""
    yield "## Tasks"
    yield ""
    if len(page["tasks"]) <= FEW_TASKS:
        yield from _tasks(report)
    else:
        groups = ([each.name, each.operation, str(len(each.task_ids)), told(each.counts)] for each in groups_of(page))
        yield from _table(["group", "operation", "tasks", "states"], groups)
    if report.timeline.chain:
        yield "## The chain that took longest"
        yield ""
        chain = ([each.task_id, duration(each.waited), duration(each.took)] for each in report.timeline.chain)
        yield from _table(["task", "waited", "took"], chain)
    yield "## Guarantees"
    yield ""
    kept = ([each.promise, "kept" if each.kept else "not shown", each.evidence] for each in report.guarantees)
    yield from _table(["promise", "", "shown by"], kept)
    yield f"## Manifest ({report.form}, SHA-256 {report.digest})"
    yield ""
    yield from _fenced(report.manifest)
    yield f"Made by provisioning {plain(__version__)} at {instant(report.made_at)}."


def _tasks(report: Report) -> Iterator[str]:
    rows = []
    for task in report.page["tasks"]:
        attempts = task["attempts"]
        took = spent(attempts[0]["started_at"], attempts[-1]["ended_at"], report.made_at) if attempts else ""
        params = cut(compact(report.params.get(task["task_id"])), _LINE)
        rows.append([task["task_id"], task["operation"], task["state"], str(len(attempts)), took, note(task), params])
    yield from _table(["task", "operation", "state", "attempts", "took", "note", "params"], rows)


def _table(heads: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(plain(cell) for cell in row)} |"
    yield ""


def _failure(failure: Failure) -> Iterator[str]:
    yield f"### {plain(failure.task_id)}"
    yield ""
    last = f"attempt {failure.attempt} of {failure.operation}: " if failure.attempt else ""
    yield plain(last + (error_text(dict(failure.error)) or failure.reason))
    yield ""
    if failure.error.get("help"):
        yield f"Hint: {plain(failure.error['help'])}"
        yield ""
    yield from _fenced(failure.log)


def _fenced(text: str) -> Iterator[str]:
    """Text as it is, in a fence that is longer than any in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    yield fence
    yield from safe_block(text).split("\n")
    yield fence
    yield ""
