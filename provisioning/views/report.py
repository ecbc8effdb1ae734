"""All about one workflow, to be carried away: its page, what its tasks were given, when they ran, and what was kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from provisioning import __version__
from provisioning.core.graph import Graph
from provisioning.core.redacted import redactor_of, shown_params, without_telling
from provisioning.core.states import Outcome
from provisioning.core.workflow import FORMAT, Plan
from provisioning.errors import SpoolUnusable
from provisioning.storage import logs
from provisioning.storage.checkpoint import Damaged, WorkflowFolder
from provisioning.views.status import Page, WorkflowView
from provisioning.views.text import instant
from provisioning.views.timeline import Timeline, timeline

LOG_LINES = 20
"""So many of the last lines of a failed task's log are in it."""
MOST_FAILURES = 100
RESULT_BYTES = 4096
"""A result that is larger, as JSON, is said by its size."""


class Guarantee(NamedTuple):
    """Something that was promised, and how this workflow shows it."""

    promise: str
    evidence: str
    kept: bool = True


class Failure(NamedTuple):
    """A task that did not end well."""

    task_id: str
    operation: str
    attempt: int | None
    error: Mapping[str, Any]
    reason: str
    log: str
    """The last lines, as the task printed them."""


class Report(NamedTuple):
    """What every form of a report is made from; secrets are taken out already."""

    made_at: datetime
    page: Page
    params: dict[str, Any]
    """Of each task by its id: as it was called, or as its manifest has it."""
    plan: Plan | None
    graph: Graph
    timeline: Timeline
    failures: list[Failure]
    failures_left_out: int
    guarantees: list[Guarantee]
    manifest: str
    form: str
    digest: str


def report_of(folder: WorkflowFolder, now: datetime, secrets: Mapping[str, str] | None = None) -> Report:
    """Everything there is about a workflow at this moment, without the `secrets`, which are by name.

    Damaged where its files cannot be read.
    """
    view = WorkflowView(folder)
    page = view.page()
    plan = folder.plan()
    redactor = redactor_of(plan, secrets)
    workflow = plan.workflow if plan else None
    graph = Graph(workflow.tasks if workflow else ())
    called = {task_id: without_telling(params) for task_id, params in view.params().items()}
    submission = folder.submission()
    data, form = folder.manifest()
    failed = [task for task in page["tasks"] if task["state"] == "failed" or task["task_id"] in page["held"]]
    shown = {**page, "tasks": [{**task, "result": _short(task["result"])} for task in page["tasks"]]}
    failures = [
        redactor.value(each) for each in map(_asdict, (_failure(folder, task) for task in failed[:MOST_FAILURES]))
    ]
    return Report(
        made_at=now,
        page=redactor.value(shown),
        params=redactor.value(
            {task.id: shown_params(plan, task) for task in plan.workflow.tasks} | without_telling(called)
        )
        if plan
        else {},
        plan=plan,
        graph=graph,
        timeline=timeline(page, graph, now),
        failures=[Failure(**each) for each in failures],
        failures_left_out=max(0, len(failed) - MOST_FAILURES),
        guarantees=list(_guarantees(folder, page, graph)),
        manifest=redactor.text(data.decode(errors="replace")),
        form=form,
        digest=submission.digest,
    )


def report_json(report: Report) -> Page:
    """The report as JSON: the page of `workflow status --json` and what goes beyond it."""
    plan, line = report.plan, report.timeline
    asked = {task.id: task for task in plan.workflow.tasks} if plan else {}
    return {
        "format": FORMAT,
        "version": __version__,
        "made_at": instant(report.made_at),
        "workflow": report.page,
        "tasks": {
            task_id: {"params": params, "depends_on": asked[task_id].depends_on, "after": asked[task_id].after}
            for task_id, params in report.params.items()
        },
        "timeline": {
            "seconds": line.seconds,
            "slots": [[bar._asdict() for bar in row] for row in line.rows],
            "critical_path": [link._asdict() for link in line.chain],
        },
        "failures": [failure._asdict() for failure in report.failures],
        "failures_left_out": report.failures_left_out,
        "guarantees": [each._asdict() for each in report.guarantees],
        "operations": {"digest": plan.nulib, "names": sorted(plan.operations)} if plan else None,
        "manifest": {"form": report.form, "digest": report.digest, "text": report.manifest},
    }


def _asdict(failure: Failure) -> dict[str, Any]:
    return {**failure._asdict(), "error": dict(failure.error)}


def _short(result: Any) -> Any:
    size = len(msgspec.json.encode(result))
    return result if size <= RESULT_BYTES else f"({size} bytes; see: provisioning workflow status --json)"


def _failure(folder: WorkflowFolder, task: Page) -> Failure:
    last = task["attempts"][-1] if task["attempts"] else {}
    number = last.get("attempt")
    said = b""
    if number is not None:
        try:
            said = logs.tail(folder.log_path(task["task_id"], number), LOG_LINES)
        except SpoolUnusable as error:
            said = error.message.encode()
    text = said.decode(errors="replace").rstrip("\n")
    return Failure(task["task_id"], task["operation"], number, last.get("error") or {}, task["reason"], text)


# What was promised


def _guarantees(folder: WorkflowFolder, page: Page, graph: Graph) -> Iterator[Guarantee]:
    """What the README promises, as far as this workflow can show it."""
    attempts = [each for task in page["tasks"] for each in task["attempts"]]
    yield _as_submitted(folder)
    yield _in_order(page, graph)
    yield _recorded(folder, page)
    again = [
        task for task in page["tasks"] if _count(task, Outcome.FAILED, Outcome.TIMED_OUT) and len(task["attempts"]) > 1
    ]
    tries = sum(len(task["attempts"]) - 1 for task in again)
    yield Guarantee("What failed is tried again as its policy says", _many(tries, "retry", "retries", len(again)))
    cut = [task for task in page["tasks"] if _count(task, Outcome.INTERRUPTED)]
    number = sum(each["outcome"] == Outcome.INTERRUPTED for each in attempts)
    after = f"; afterwards {_states(cut)}" if cut else ""
    yield Guarantee(
        "What was cut off is interrupted, not failed", _many(number, "interruption", "interruptions", len(cut)) + after
    )
    yield _adopted(folder, page)


def _as_submitted(folder: WorkflowFolder) -> Guarantee:
    promise = "What was submitted is what was done"
    try:
        folder.submitted_manifest()
    except Damaged as error:
        return Guarantee(promise, error.message, kept=False)
    return Guarantee(promise, f"the manifest still has the digest {folder.submission().digest[:16]}…")


def _in_order(page: Page, graph: Graph) -> Guarantee:
    """Each start of a task against the attempts of those that it waits for."""
    promise = "A task starts after what it depends on has ended"
    tasks = {task["task_id"]: task for task in page["tasks"]}
    again = [each["at"] for each in page["requests"] if each["verb"] in ("retry", "rollback")]
    checked, early = 0, []
    for task in page["tasks"]:
        for edge in graph.waits[graph.index[task["task_id"]]] if task["attempts"] else ():
            name = graph.names[edge if edge >= 0 else ~edge]
            before = tasks[name]["attempts"] if name in tasks else []
            checked += len(task["attempts"]) if before else 0
            if any(_too_early(each["started_at"], before, again) for each in task["attempts"] if before):
                early.append(f"{task['task_id']} before {name}")
    if early:
        return Guarantee(promise, f"{len(early)} of {checked}: {', '.join(early[:3])}", kept=False)
    return Guarantee(promise, f"{checked} starts compared with the ends of what they waited for, none too early")


def _too_early(start: str, before: list[Page], again: list[str]) -> bool:
    """Whether something had still to be waited for at that start.

    What was done again later, because somebody asked for that, had ended then: by an attempt, or without one.
    """
    begun = [each for each in before if not _later(each["started_at"], start)]
    if begun:
        return any(not each["ended_at"] or _later(each["ended_at"], start) for each in begun)
    first = before[0]["started_at"]
    return not any(_later(at, start) and not _later(at, first) for at in again)


def _later(one: str, other: str) -> bool:
    return datetime.fromisoformat(one) > datetime.fromisoformat(other)


def _recorded(folder: WorkflowFolder, page: Page) -> Guarantee:
    """Each attempt that ended by itself has an outcome on the disk."""
    there = set(folder.outcomes())
    ended = [
        (task["task_id"], each["attempt"])
        for task in page["tasks"]
        for each in task["attempts"]
        if each["outcome"] and each["outcome"] != Outcome.INTERRUPTED
    ]
    missing = [key for key in ended if key not in there]
    text = f"{len(ended) - len(missing)} of {len(ended)} attempts that ended have their outcome on the disk"
    return Guarantee("Every outcome is on the disk before anyone is told", text, kept=not missing)


def _adopted(folder: WorkflowFolder, page: Page) -> Guarantee:
    """Attempts that were under way when another process took it over, and ended by themselves all the same."""
    takeovers, under_way = 0, set[tuple[str, int]]()
    for event in folder.events():
        if event.get("event") != "held":
            continue
        takeovers += 1
        named = event.get("under_way")
        for each in named if isinstance(named, list) else ():
            task_id, _, number = str(each).rpartition(".")
            under_way |= {(task_id, int(number))} if number.isascii() and number.isdigit() else set()
    survived = sum(
        (task["task_id"], each["attempt"]) in under_way and each["outcome"] not in (None, Outcome.INTERRUPTED)
        for task in page["tasks"]
        for each in task["attempts"]
    )
    changes = max(0, takeovers - 1)
    often = {0: "never", 1: "once"}.get(changes, f"{changes} times")
    attempts = f"{survived} attempt{'' if survived == 1 else 's'}"
    text = f"taken over {often}; {attempts} outlived the process that had started them"
    return Guarantee("A task outlives its orchestrator", text)


def _count(task: Page, *outcomes: Outcome) -> int:
    return sum(each["outcome"] in outcomes for each in task["attempts"])


def _many(number: int, one: str, many: str, tasks: int) -> str:
    if not number:
        return f"no {many}"
    return f"{number} {one if number == 1 else many} of {tasks} task{'' if tasks == 1 else 's'}"


def _states(tasks: Iterable[Page]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        counts[task["state"]] = counts.get(task["state"], 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())
