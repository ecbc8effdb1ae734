"""Reports: nothing in them is markup that was text, no secret is in them, and what they say is so."""

from __future__ import annotations

import json
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.core.catalogue import Operation
from provisioning.core.graph import Graph
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Attempt, Plan, Task, TaskCheckpoint, TaskError, Workflow
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.spool import Spool
from provisioning.views.markup import Html, tag, text
from provisioning.views.report import Report, _in_order, report_json, report_of
from provisioning.views.report_html import report_html
from provisioning.views.report_markdown import report_markdown
from provisioning.views.timeline import timeline
from tests.simulation.values import record, submission
from tests.unit.test_views import BOOT, ID, START
from tests.unit.test_watching import save_workflow

NASTY = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; \x1b[31m\u202eevil\x00"
SECRET = "hunter2-hunter2"
OPERATIONS = {
    "selftest.noop": Operation("selftest.noop", "noop", "", "", (), None, secret=("token",)),
    "x.y": Operation("x.y", "y", "", "", (), None),
}
TASKS = (
    Task("a", "selftest.noop", params={"token": SECRET, "name": NASTY}),
    Task("b", "x.y", depends_on=("a",), params={"token": {"credential": "upcloud-token"}}),
    Task("c", "x.y", depends_on=("b",)),
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def at(seconds: float) -> Any:
    return START + timedelta(seconds=seconds)


def attempt(number: int, begin: float, end: float, outcome: Outcome, error: TaskError | None = None) -> Attempt:
    return Attempt(number, at(begin), BOOT, "0" * 26, at(end), outcome, 0, error)


def claimed(spool: Spool, tasks: tuple[Task, ...] = TASKS) -> WorkflowFolder:
    """A workflow whose names, params, log, error and manifest try to be more than text, and which hides a secret."""
    manifest = json.dumps({"token": SECRET, "note": NASTY}).encode()
    facts = {"name": NASTY[:60], "operator": "<b>alice</b>", "digest": msgspec_digest(manifest), "tasks": len(tasks)}
    spool.submit(manifest, "json", submission(ID, **facts))
    folder = spool.claim(ID)
    folder.prepare()
    folder.save_plan(Plan(FORMAT, ID, Workflow("nasty", tasks), OPERATIONS, "0" * 64))
    return folder


def msgspec_digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def failed(spool: Spool) -> WorkflowFolder:
    folder = claimed(spool)
    error = TaskError("provisioning::x::y", NASTY + SECRET, NASTY)
    folder.save_task(TaskCheckpoint(FORMAT, "a", TaskState.SUCCEEDED, (attempt(1, 0, 2, Outcome.SUCCEEDED),)))
    tries = (
        attempt(1, 3, 4, Outcome.INTERRUPTED),
        attempt(2, 5, 6, Outcome.FAILED, error),
        attempt(3, 7, 9, Outcome.FAILED, error),
    )
    folder.save_task(TaskCheckpoint(FORMAT, "b", TaskState.FAILED, tries))
    for task_id, number in (("a", 1), ("b", 2), ("b", 3)):
        outcome = msgspec.structs.replace(record(task_id, Outcome.SUCCEEDED, number), workflow_id=ID, result=NASTY)
        files.write_once(folder.outcome_path(task_id, number), encode(outcome), scratch=spool.scratch)
    files.append(folder.log_path("b", 3), f"{NASTY}\n{SECRET}\nlast line\n".encode())
    folder.append_event({"event": "held"})
    folder.append_event({"event": "held", "under_way": ["b.3", "b.1", "nonsense", 7]})
    save_workflow(folder, WorkflowState.FAILED)
    return folder


class Reader(HTMLParser):
    """What a browser would make of it: the elements and their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize(
    "make", [report_html, report_markdown, lambda report: json.dumps(report_json(report), default=str)]
)
def test_no_form_of_a_report_has_a_secret_or_a_control_character(spool: Spool, make: Any) -> None:
    text = make(report_of(failed(spool), at(60)))
    assert SECRET not in text
    assert "upcloud-token" in text  # its name is no secret
    assert not {"\x1b", "\x00", "\u202e"} & set(text)
    assert "last line" in text


def test_text_cannot_become_markup(spool: Spool) -> None:
    html = report_html(report_of(failed(spool), at(60)))
    reader = Reader(html)
    assert not {"script", "img", "b", "iframe", "object", "link", "base", "form"} & set(reader.elements)
    assert not [name for name in reader.attributes if name.startswith("on") or name in ("style", "src")]
    assert any("<script>alert(1)</script>" in each for each in reader.texts)
    assert "default-src &#x27;none&#x27;" in html
    assert html.count("<style>") == 1
    assert len(reader.ids) == len({*reader.ids})


@given(st.text(), st.text())
def test_an_element_has_what_it_was_given_as_text(inner: str, value: str) -> None:
    reader = Reader(tag("p", inner, [inner, None], title=value))
    assert reader.elements == ["p"]
    assert "".join(reader.texts).replace("\n", "") == (text_of(inner) * 2).replace("\n", "")


def text_of(value: str) -> str:
    from provisioning.views.text import safe_block

    return safe_block(value)


@pytest.mark.parametrize("name", ["onclick", "style", "on_load", "x y", "a>b"])
def test_an_attribute_that_could_run_something_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no attribute"):
        tag("p", **{name: "x"})
    with pytest.raises(ValueError, match="is no element"):
        tag(f"p {name}")


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", tag("b", "<"), text("&")) == "<p><b>&lt;</b>&amp;</p>"
    assert tag("br") == "<br>"
    assert isinstance(tag("p"), Html)


def test_what_was_promised_is_compared_with_what_is_there(spool: Spool) -> None:
    report = report_of(failed(spool), at(60))
    said = {each.promise.split(" ")[0] + " " + each.promise.split(" ")[1]: each for each in report.guarantees}
    assert all(each.kept for each in report.guarantees)
    assert "2 retries of 1 task" in said["What failed"].evidence
    texts = [each.evidence for each in report.guarantees]
    assert any("1 interruption of 1 task; afterwards 1 failed" in each for each in texts)
    assert any("taken over once; 1 attempt outlived" in each for each in texts)
    assert any("3 of 3 attempts" in each for each in texts)


def test_a_promise_that_was_not_kept_is_said_to_be_so(spool: Spool) -> None:
    folder = failed(spool)
    folder.outcome_path("b", 2).unlink()
    (folder.path / "manifest.json").write_bytes(b"{}")
    early = TaskCheckpoint(FORMAT, "c", TaskState.SUCCEEDED, (attempt(1, 8, 10, Outcome.SUCCEEDED),))
    folder.save_task(early)
    broken = [each.evidence for each in report_of(folder, at(60)).guarantees if not each.kept]
    assert len(broken) == 3
    assert any("c before b" in each for each in broken)


def test_params_are_those_that_a_task_was_called_with(spool: Spool) -> None:
    folder = failed(spool)
    checkpoint = msgspec.structs.replace(folder.task("b"), params={"ip": "10.0.0.7", "token": "***"})
    folder.save_task(checkpoint)
    params = report_of(folder, at(60)).params
    assert params["b"] == {"ip": "10.0.0.7", "token": "***"}
    assert params["a"]["token"] == "***"


def test_a_queued_workflow_has_a_report(spool: Spool) -> None:
    spool.submit(b"{}", "json", submission(ID))
    report = report_of(spool.find(ID), at(60))
    assert "queued" in report_html(report)
    assert report_markdown(report).startswith("# ")


def span(begin: float, end: float, number: int = 1) -> dict[str, Any]:
    return {
        "attempt": number,
        "outcome": "succeeded",
        "started_at": at(begin).isoformat(),
        "ended_at": at(end).isoformat(),
    }


def many_tasks(count: int) -> Report:
    """A report of very many tasks, made without a disk."""
    tasks = tuple(
        Task(f"group-{i % 40}.{i}", "x.y", {"i": i}, depends_on=(f"group-{i % 40 - 1}",) if i % 40 else ())
        for i in range(count)
    )
    shown = []
    for i, task in enumerate(tasks):
        state = "failed" if i % 997 == 5 else "succeeded"
        begin = i * 0.3
        tried = {**span(begin, begin + 0.2 + i % 7), "outcome": state, "error": None, "exit_code": 0}
        none: dict[str, Any] = {"reason": "", "waiting_for": [], "result": {"i": i}}
        shown.append({"task_id": task.id, "operation": "x.y", "state": state, "attempts": [tried], **none})
    times = {
        "submitted_at": START.isoformat(),
        "started_at": START.isoformat(),
        "ended_at": at(count * 0.3 + 9).isoformat(),
    }
    facts: dict[str, Any] = {
        "name": "many",
        "infra": "default",
        "operator": "alice",
        "door": "cli",
        "priority": 50,
        "requests": [],
        "held": [],
    }
    wrong = sum(each["state"] == "failed" for each in shown)
    page: dict[str, Any] = {
        "workflow_id": ID,
        "state": "failed",
        "reason": "",
        "counts": {"succeeded": count - wrong, "failed": wrong},
    }
    page |= {**facts, **times, "tasks": shown, "tasks_left_out": 0}
    graph, plan = Graph(tasks), Plan(FORMAT, ID, Workflow("many", tasks), OPERATIONS, "0" * 64)
    params = {task.id: task.params for task in tasks}
    return Report(
        at(0), page, params, plan, graph, timeline(page, graph, at(0)), [], 0, [], "x = 1\n", "toml", "0" * 64
    )


def test_a_report_of_five_thousand_tasks_is_a_few_megabytes() -> None:
    html = report_html(many_tasks(5000))
    assert len(html) < 6_000_000
    reader = Reader(html)
    assert reader.elements.count("rect") < 8000
    assert reader.elements.count("details") < 100
    assert "group-7.47" in html


RETRY = {"verb": "retry", "operator": "alice"}


@pytest.mark.parametrize(
    ("a", "b", "requests", "kept"),
    [
        ([(0, 2)], [(2, 3)], [], True),
        ([(0, 2)], [(1, 3)], [], False),
        ([(0, None)], [(1, 3)], [], False),
        ([(1, 2)], [(0, 3)], [], False),
        # a was done again after b, because somebody asked for that; and then b after it
        ([(0, 2), (10, 12)], [(2, 3)], [9], True),
        ([(0, 2), (10, 12)], [(2, 3), (12, 13)], [9], True),
        # and where it was done again, b began before its end all the same
        ([(0, 2), (10, 12)], [(2, 3), (11, 13)], [9], False),
        ([(0, 2), (10, 12)], [(1, 3)], [9], False),
        # a was skipped at first, which is an end too: b only has to come after it
        ([(10, 12)], [(2, 3)], [9], True),
        ([(10, 12)], [(2, 3)], [1], False),
        ([(10, 12)], [(2, 3)], [11], False),
        ([(0, 1), (2, 4)], [(3, 5)], [], False),
        ([], [(3, 5)], [], True),
    ],
)
def test_an_early_start_is_told_whatever_people_have_asked_for(
    a: list[tuple[int, int | None]], b: list[tuple[int, int | None]], requests: list[int], kept: bool
) -> None:
    def shown(task_id: str, spans: list[tuple[int, int | None]]) -> dict[str, Any]:
        tries = [
            {"started_at": at(begin).isoformat(), "ended_at": None if end is None else at(end).isoformat()}
            for begin, end in spans
        ]
        return {"task_id": task_id, "attempts": tries}

    asked = [{**RETRY, "at": at(second).isoformat()} for second in requests]
    page = {"tasks": [shown("a", a), shown("b", b)], "requests": asked}
    graph = Graph((Task("a", "x.y"), Task("b", "x.y", depends_on=("a",))))
    found = _in_order(page, graph)
    assert found.kept is kept, found
    assert ("b before a" in found.evidence) is not kept
