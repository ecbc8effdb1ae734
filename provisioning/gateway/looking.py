"""What callers may look at: workflows, their tasks and logs, the operations, and how the installation is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from provisioning.core.catalogue import Operation
from provisioning.errors import Invalid, NotFound
from provisioning.gateway.drawing import Picture
from provisioning.gateway.site import Call, Text
from provisioning.storage import logs, reading
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.health import health_problems
from provisioning.views.listing import each_row
from provisioning.views.status import DAMAGED, REJECTED, Page, WorkflowView, brief_status, workflow_status
from provisioning.views.text import line_json
from provisioning.views.waiting import page_of

LOG_BYTES = 1 << 20
"""So much of a log is in one answer."""
_METRICS_BYTES = 16 << 20
METRICS_TYPE = "text/plain; version=0.0.4"
SVG_TYPE = "image/svg+xml"


class Unhealthy(Invalid):
    """Nothing that is submitted would be started now."""

    code = "unhealthy"


def caller(call: Call) -> Page:
    """Who it is that calls."""
    return {"operator": call.caller.operator, "own": call.caller.own}


def _rows(call: Call) -> Iterator[Page]:
    """The rows of the workflows that are the caller's matter, newest first."""
    operator = call.caller.operator
    for row in each_row(call.site.spool):
        if not _is_wanted(row, call.query):
            continue
        if call.caller.own or row.get("operator") == operator:
            yield row
        elif row["state"] not in (DAMAGED, REJECTED):
            path = call.site.spool.folder_path(row["workflow_id"])
            if path is not None and call.may_know(WorkflowFolder(path)):
                yield row


def _is_wanted(row: Page, query: Mapping[str, Any]) -> bool:
    """Whether a row is among those that were asked for; one that is damaged has nothing but its id, name and state."""
    states, text = query.get("state", ()), query.get("name", "").lower()
    named = text in row["name"].lower() or row["workflow_id"].startswith(text)
    exact = all(query.get(key) in (None, row.get(key)) for key in ("operator", "infra"))
    return named and exact and (not states or row["state"] in states)


def _part(found: Iterator[Page], call: Call, name: str) -> Page:
    """The part of a list that was asked for, and whether there is more."""
    limit, offset = call.query["limit"], call.query["offset"]
    part = list(islice(found, offset, offset + limit + 1))
    return {name: part[:limit], "limit": limit, "offset": offset, "more": len(part) > limit}


def workflows(call: Call) -> Page:
    """Workflows, newest first."""
    return _part(_rows(call), call, "workflows")


def workflow(call: Call) -> Page:
    """One workflow."""
    folder = call.folder()
    look = workflow_status if call.query["tasks"] == "all" else brief_status
    if call.caller.own:
        return page_of(call.site.spool, call.site.config.groups, folder.workflow_id, look)
    return look(folder)  # who holds what it waits for may be others' matter


def graph(call: Call) -> Text:
    """Who waits for whom, as SVG; the header Note says how to read it."""
    return _drawn(call.site.pictures.graph(call.folder()))


def timeline(call: Call) -> Text:
    """When the attempts of a workflow ran, as SVG."""
    return _drawn(call.site.pictures.timeline(call.folder()))


def _drawn(picture: Picture) -> Text:
    return Text(picture.svg, SVG_TYPE, {"Note": picture.note})


def tasks(call: Call) -> Page:
    """Tasks of all workflows, those of the newest first."""
    return _part(_tasks(call), call, "tasks")


def _tasks(call: Call) -> Iterator[Page]:
    named, states = call.query.get("workflow"), call.query.get("state", ())
    head = Call(call.site, call.caller, {"id": named or ""}, {})
    found = (_folder(call, row) for row in _rows(head)) if named is None else [head.folder()]
    for folder in found:
        if folder is None:
            continue
        try:
            page = WorkflowView(folder).glance()
        except FileNotFoundError:
            continue  # cleaned up while we looked
        yield from (_task(page, each) for each in page["tasks"] if not states or each["state"] in states)


def _folder(call: Call, row: Page) -> WorkflowFolder | None:
    path = call.site.spool.folder_path(row["workflow_id"]) if row["state"] not in (DAMAGED, REJECTED) else None
    return None if path is None else WorkflowFolder(path)


def _task(page: Page, task: Page) -> Page:
    return {"id": f"{page['workflow_id']}.{task['task_id']}", "workflow_id": page["workflow_id"], **task}


def task(call: Call) -> Page:
    """One task, with its result; the id of a workflow of one task is that task's as well."""
    workflow_id, _, task_id = call.path["id"].partition(".")
    page = WorkflowView(call._replace(path={"id": workflow_id}).folder()).page()
    found = [each for each in page["tasks"] if task_id in ("", each["task_id"])]
    if len(found) == 1:
        return _task(page, found[0])
    if not page["tasks"]:
        raise NotFound(
            f"workflow {workflow_id} is {page['state']}: its tasks are not known yet", hint="ask again later"
        )
    raise NotFound(f"no task {call.path['id']!r}", hint=f"see /tasks?workflow={workflow_id}")


def log(call: Call) -> Text:
    """What an attempt has printed, from a byte on; the header Next-Offset says where to go on."""
    folder, task_id = call.folder(), call.path["task"]
    known = [number for name, number, _ in logs.attempts_of(folder.path / "logs") if name == task_id]
    attempt = call.query.get("attempt") or max(known, default=0)
    if attempt not in known:
        plan = folder.plan()
        there = plan is not None and any(task.id == task_id for task in plan.workflow.tasks)
        text = f"task {task_id} has no log of attempt {attempt or 1} yet" if there else f"there is no task {task_id!r}"
        raise NotFound(text, hint=f"see /workflows/{folder.workflow_id}")
    path = folder.log_path(task_id, attempt)
    if "lines" in call.query:
        data, end = logs.tail_and_end(path, call.query["lines"])
    else:
        data = logs.read_from(path, call.query["offset"], LOG_BYTES)
        end = call.query["offset"] + len(data)
    return Text(data, headers={"Attempt": str(attempt), "Next-Offset": str(end)})


def operations(call: Call) -> list[Page]:
    """What can be done."""
    catalogue = call.site.catalogue()
    return [_operation(each) for _, each in sorted(catalogue.operations.items())]


def _operation(operation: Operation) -> Page:
    domain, verb = operation.domain, operation.verb
    return {
        "name": operation.name,
        "path": f"/workflows/{domain}/{verb}",
        "summary": operation.summary,
        "description": operation.description,
        "params": operation.params_schema(),
        "result": operation.result_schema,
        "idempotent": operation.idempotent,
        "timeout_seconds": operation.timeout_seconds,
        "retries": operation.retries,
        "undo": operation.undo,
        "secret": list(operation.secret),
    }


def health(call: Call) -> Page:
    """Whether what is submitted would be started; Unhealthy says why not."""
    problems = [*health_problems(call.site.spool), *call.site.catalogue().broken]
    if problems:
        raise Unhealthy(problems)
    return {"healthy": True}


def metrics(call: Call) -> Text:
    """What the orchestrator has written for monitoring."""
    path: Path = call.site.config.metrics.file or call.site.spool.root / "metrics.prom"
    try:
        return Text(reading.read_regular(path, _METRICS_BYTES), METRICS_TYPE)
    except FileNotFoundError:
        raise NotFound("no orchestrator has written metrics yet", hint="start one; see metrics.seconds") from None


def described(call: Call) -> Text:
    """The OpenAPI document."""
    from provisioning.gateway.openapi import document  # made from the table of routes, which names this function

    return Text(line_json(document(call.site.catalogue())).encode(), "application/json")
