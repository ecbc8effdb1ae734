"""A report as one HTML file that needs nothing else: no script, no network, no font, no image from anywhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from provisioning import __version__
from provisioning.core.states import ENDED_WORKFLOWS
from provisioning.views.groups import FEW_TASKS, groups_of, told
from provisioning.views.markup import Html, join, tag
from provisioning.views.page_text import error_text, note
from provisioning.views.pictures import drawn_graph, drawn_timeline
from provisioning.views.report import Failure, Report
from provisioning.views.report_style import STYLE
from provisioning.views.status import Page
from provisioning.views.svg import MARKS, WORST
from provisioning.views.table import cut
from provisioning.views.text import compact, duration, instant, spent

FULL_TASKS = 300
"""Of a workflow with more tasks, params are cut to a line and results are left out: the JSON form has them."""
_LINE = 160


def report_html(report: Report) -> str:
    """The whole file."""
    page = report.page
    parts = [
        ("failures", "Failures", _failures(report)),
        ("graph", "Graph", _graph(report)),
        ("time", "Timeline", _timeline(report)),
        ("tasks", "Tasks", _tasks(report)),
        ("guarantees", "Guarantees", _guarantees(report)),
        ("requests", "Requests", _requests(page)),
        ("manifest", "Manifest", _manifest(report)),
    ]
    shown = [(name, title, content) for name, title, content in parts if content]
    sections = [
        tag(
            "section",
            tag("h2", title, id=f"{name}-title"),
            content,
            id=name,
            aria_labelledby=f"{name}-title",
            class_="alarm" if name == "failures" else None,
        )
        for name, title, content in shown
    ]
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in shown]
    body = tag(
        "body",
        tag("a", "To the content", href="#content", class_="skip"),
        tag("header", _head(report), tag("nav", tag("ul", links), aria_label="Sections")),
        tag("main", _counts(page), sections, id="content"),
        tag("footer", tag("p", _about(report))),
    )
    return f"<!DOCTYPE html>\n{tag('html', _meta(page), body, lang='en')}\n"


def _meta(page: Page) -> Html:
    """The head of the document. The policy allows this one style sheet and nothing else, whatever stands below."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{page['name']}: {page['state']}"),
        tag("style", Html(STYLE)),
    )


def _head(report: Report) -> Html:
    page = report.page
    facts = [
        ("Workflow", tag("code", page["workflow_id"])),
        ("Infra", page["infra"]),
        ("Submitted", f"{_time(page['submitted_at'])} by {page['operator']} ({page['door']})"),
        ("Started", _time(page["started_at"]) if page["started_at"] else "not yet"),
        ("Ended", _time(page["ended_at"]) if page["ended_at"] else "not yet"),
        ("Took", spent(page["started_at"], page["ended_at"], report.made_at) or "nothing yet"),
        ("Priority", str(page["priority"])),
        ("Reason", page["reason"]),
    ]
    return join(
        tag("div", tag("h1", page["name"]), _badge(page["state"]), class_="title"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value]),
    )


def _badge(state: str) -> Html:
    return tag(
        "span", tag("span", MARKS.get(state, "●"), aria_hidden="true"), state.replace("_", " "), class_=f"badge {state}"
    )


@functools.lru_cache(maxsize=64)
def _state(state: str) -> Html:
    mark = tag("span", MARKS.get(state, "●"), aria_hidden="true")
    return tag("span", mark, f" {state.replace('_', ' ')}", class_=f"state {state}")


def _time(at: str) -> str:
    """An instant of the page, to the second."""
    return f"{at[:10]} {at[11:19]} UTC"


def _counts(page: Page) -> Html:
    """How many tasks are in which state, as a bar and in words."""
    counts = {state: page["counts"][state] for state in (*WORST[::-1], *page["counts"]) if page["counts"].get(state)}
    total, at, parts = sum(counts.values()) or 1, 0.0, []
    for state, count in counts.items():
        width = 100 * count / total
        parts.append(tag("rect", x=f"{at:.3f}", y=0, width=f"{width:.3f}", height=1, class_=state))
        at += width
    bar = tag("svg", parts, viewBox="0 0 100 1", preserveAspectRatio="none", aria_hidden="true", class_="counts")
    legend = tag("ul", [tag("li", f"{count} ", _state(state)) for state, count in counts.items()], class_="legend")
    return tag(
        "section",
        tag("h2", f"States of {sum(counts.values())} tasks", id="counts"),
        bar,
        legend,
        aria_labelledby="counts",
    )


def _failures(report: Report) -> Html | None:
    if not report.failures:
        return None
    more = f"And {report.failures_left_out} more, which the table of tasks names."
    return join(
        [_failure(each, report) for each in report.failures], tag("p", more) if report.failures_left_out else None
    )


def _failure(failure: Failure, report: Report) -> Html:
    workflow_id = report.page["workflow_id"]
    last = f"Attempt {failure.attempt} of {failure.operation}" if failure.attempt else failure.operation
    held = failure.task_id in report.page["held"]
    again = f"provisioning workflow retry {workflow_id}" + (f" --task {failure.task_id}" if held else "")
    why = error_text(dict(failure.error)) or failure.reason
    return tag(
        "article",
        tag("h3", tag("a", failure.task_id, href=f"#{_anchor(failure.task_id)}")),
        tag("p", last, class_="soft"),
        tag("p", tag("strong", why)) if why else None,
        tag("p", failure.error["help"], class_="hint") if failure.error.get("help") else None,
        tag("p", "It was interrupted, and whether it did its work is not known: look, then decide.") if held else None,
        _pre(failure.log, f"Last lines of the log of {failure.task_id}")
        if failure.log
        else tag("p", "Its log is empty."),
        tag("p", "Again: ", tag("code", again), class_="soft"),
    )


def _pre(text: str, label: str) -> Html:
    """Text as it is; it may scroll, so that it can be reached without a mouse."""
    return tag("pre", text, tabindex="0", role="region", aria_label=label)


def _graph(report: Report) -> Html | None:
    if report.plan is None:
        return None
    picture, said = drawn_graph(report.page, report.plan.workflow, report.graph, report.timeline)
    return join(tag("p", said, class_="soft"), _scrolling(picture, "The graph", picture=True))


def _scrolling(content: Html, label: str, *, picture: bool = False) -> Html:
    """What may be wider than the page, or a picture that may be higher than the screen; reached without a mouse too."""
    return tag("div", content, class_="picture" if picture else "scroll", tabindex="0", role="region", aria_label=label)


def _timeline(report: Report) -> Html | None:
    line = report.timeline
    if not line.rows:
        return None
    steps = [
        [tag("a", link.task_id, href=f"#{_anchor(link.task_id)}"), duration(link.waited), duration(link.took)]
        for link in line.chain
    ]
    left = len(steps) - FULL_TASKS
    if left > 0:
        steps = [*steps[:FULL_TASKS], [f"and {left} more", "", ""]]
    waited, took = sum(link.waited for link in line.chain), sum(link.took for link in line.chain)
    took_all = f"{len(line.chain)} tasks, {duration(took)} of work, {duration(waited)} of waiting"
    told_of = f"The chain that took longest: {took_all}."
    chain = tag(
        "details", tag("summary", told_of), _table("Task by task", ["task", "waited", "took"], steps, numbers={1, 2})
    )
    picture, said = drawn_timeline(report.page, line)
    return join(tag("p", said, class_="soft"), _scrolling(picture, "The timeline", picture=True), chain)


def _table(caption: str, heads: list[str], rows: Iterable[list[Any]], *, numbers: Iterable[int] = ()) -> Html:
    """A table whose first cells are the headings of their rows."""
    right = {*numbers}
    head = [tag("th", name, scope="col", class_="n" if i in right else None) for i, name in enumerate(heads)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row", class_="id"),
            [tag("td", cell, class_="n" if i in right else None) for i, cell in enumerate(row[1:], 1)],
        )
        for row in rows
    ]
    table = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return _scrolling(table, caption)


def _anchor(task_id: str) -> str:
    return f"task-{task_id}"


def _tasks(report: Report) -> Html | None:
    """All tasks; of many, by group, and those groups closed in which all is well."""
    tasks = report.page["tasks"]
    if len(tasks) <= FEW_TASKS:
        return _task_table(f"{len(tasks)} tasks", tasks, report) if tasks else None
    by_id = {task["task_id"]: task for task in tasks}
    parts = []
    for group in groups_of(report.page):
        members = [by_id[task_id] for task_id in group.task_ids]
        trouble = group.counts.keys() & {"failed", "running", "cancelled"} and len(members) <= FEW_TASKS
        title = tag("summary", group.name, " ", tag("span", told(group.counts), class_="soft"))
        table = _task_table(f"{len(members)} tasks of {group.name}", members, report)
        parts.append(tag("details", title, table, class_="group", open=bool(trouble)))
    return join(parts)


def _task_table(caption: str, tasks: list[Page], report: Report) -> Html:
    heads = ["task", "state", "operation", "attempts", "started", "took", "more"]
    head = [tag("th", name, scope="col", class_="n" if name in ("attempts", "took") else None) for name in heads]
    rows = [_task_row(task, report) for task in tasks]
    table = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", rows))
    return _scrolling(table, caption)


def _task_row(task: Page, report: Report) -> Html:
    attempts = task["attempts"]
    first, last = (attempts[0], attempts[-1]) if attempts else ({}, {})
    took = spent(first.get("started_at"), last.get("ended_at"), report.made_at) if attempts else ""
    began = first.get("started_at")
    return tag(
        "tr",
        tag("th", task["task_id"], scope="row", class_="id"),
        tag("td", _state(task["state"])),
        tag("td", task["operation"]),
        tag("td", str(len(attempts)), class_="n"),
        tag("td", tag("time", began[11:19], datetime=began) if began else ""),
        tag("td", took, class_="n"),
        tag("td", list(_more(task, report)), class_="wide"),
        id=_anchor(task["task_id"]),
    )


def _more(task: Page, report: Report) -> Iterator[Html]:
    """What else there is to say of a task: why it is so, what it was given, what it returned, its attempts."""
    if why := note(task):
        yield tag("div", why)
    params = report.params.get(task["task_id"])
    if len(report.page["tasks"]) > FULL_TASKS:
        if params:
            yield tag("code", cut(compact(params), _LINE))
        return
    said: list[tuple[str, str]] = [("params", _by_key(params))] if params else []
    if task["result"] is not None:
        said.append(("result", _by_key(task["result"])))
    if len(task["attempts"]) > 1:
        said.append(("attempts", "\n".join(_attempt(each, report) for each in task["attempts"])))
    if said:
        parts = [(tag("h4", name), _pre(text, f"{name} of {task['task_id']}")) for name, text in said]
        yield tag("details", tag("summary", ", ".join(name for name, _ in said)), parts)


def _by_key(value: Any) -> str:
    """A value as JSON, with a line for each of its keys."""
    if not isinstance(value, dict) or not value:
        return compact(value)
    lines = [
        f"  {json.dumps(key, ensure_ascii=False)}: {json.dumps(item, ensure_ascii=False)}"
        for key, item in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _attempt(attempt: Mapping[str, Any], report: Report) -> str:
    took = spent(attempt["started_at"], attempt["ended_at"], report.made_at)
    why = error_text(attempt["error"])
    return f"{attempt['attempt']}: {attempt['outcome'] or 'running'}, {_time(attempt['started_at'])}, {took}" + (
        f": {why}" if why else ""
    )


def _guarantees(report: Report) -> Html:
    rows: list[list[Any]] = [
        [
            join(each.promise, tag("div", each.evidence, class_="why")),
            _kept("succeeded", "kept") if each.kept else _kept("failed", "not shown"),
        ]
        for each in report.guarantees
    ]
    return _table("What was promised, and how this workflow shows it", ["promise and what shows it", "kept"], rows)


def _kept(state: str, word: str) -> Html:
    return tag("span", tag("span", MARKS[state], aria_hidden="true"), f" {word}", class_=f"state {state}")


def _requests(page: Page) -> Html | None:
    rows: list[list[Any]] = [
        [_time(each["at"]), each["verb"], each["operator"], ", ".join(each.get("tasks", ()))]
        for each in page["requests"]
    ]
    return _table("What people asked of it", ["when", "what", "who", "tasks"], rows) if rows else None


def _manifest(report: Report) -> Html:
    title = f"As it was submitted ({report.form}, SHA-256 {report.digest[:16]}…)"
    return tag("details", tag("summary", title), _pre(report.manifest, "The manifest"))


def _about(report: Report) -> str:
    over = report.page["state"] in {*map(str, ENDED_WORKFLOWS)}
    still = "" if over else " The workflow had not ended then."
    return f"Made by provisioning {__version__} at {_time(instant(report.made_at))}.{still}"
