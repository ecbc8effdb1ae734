"""A workflow that is watched shows what a fresh look shows, at the cost of what has changed."""

from __future__ import annotations

import io
from pathlib import Path

import pyte
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provisioning.core.estimate import expected_seconds, seconds_left
from provisioning.core.graph import Graph
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Plan, Task, TaskCheckpoint, Workflow, WorkflowCheckpoint
from provisioning.processes import own_identity
from provisioning.storage import files, reading
from provisioning.storage.active import name_active
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.live import Live
from provisioning.views.log_lines import LogLines, Piece
from provisioning.views.overview import Overview
from provisioning.views.progress import Changes, Lines
from provisioning.views.status import Page, WorkflowView
from provisioning.views.watching import WatchedWorkflow
from tests.simulation.values import submission
from tests.unit.test_views import BOOT, BROKEN, ID, START, attempt

OTHER = ID[:-1] + "1"
TASKS = (
    Task("a", "selftest.noop"),
    Task("b.1", "selftest.noop", depends_on=("a",)),
    Task("b.2", "selftest.noop", depends_on=("a",)),
    Task("c", "selftest.noop", depends_on=("b",)),
    Task("d", "selftest.noop", after=("c",)),
)
ENDS = {
    TaskState.PENDING: (),
    TaskState.RUNNING: (attempt(1),),
    TaskState.SUCCEEDED: (attempt(1, Outcome.SUCCEEDED),),
    TaskState.FAILED: (attempt(1, Outcome.FAILED, BROKEN),),
}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool.create(tmp_path / "spool")


def claimed(spool: Spool, workflow_id: str = ID, tasks: tuple[Task, ...] = TASKS, name: str = "five") -> WorkflowFolder:
    spool.submit(b"{}", "json", submission(workflow_id))
    folder = spool.claim(workflow_id)
    folder.prepare()
    folder.save_plan(Plan(FORMAT, workflow_id, Workflow(name, tasks), {}, "0" * 64))
    save_workflow(folder, WorkflowState.RUNNING)
    return folder


def save_workflow(folder: WorkflowFolder, state: WorkflowState) -> None:
    ended = START if state in (WorkflowState.FAILED, WorkflowState.SUCCEEDED) else None
    folder.save_workflow(
        WorkflowCheckpoint(
            FORMAT, folder.workflow_id, state, "alice", START, BOOT, own_identity(), started_at=START, ended_at=ended
        )
    )


def save(folder: WorkflowFolder, task_id: str, state: TaskState, *, told: bool = True) -> None:
    folder.save_task(TaskCheckpoint(FORMAT, task_id, state, ENDS[state]))
    if told:
        folder.append_event({"event": "task", "task_id": task_id})


def shown(page: Page) -> dict[str, str]:
    return {task["task_id"]: task["state"] for task in page["tasks"]}


@given(
    steps=st.lists(st.tuples(st.sampled_from([task.id for task in TASKS]), st.sampled_from(list(ENDS))), max_size=12),
    told=st.booleans(),
    end=st.sampled_from([None, WorkflowState.FAILED, WorkflowState.CANCELLED, WorkflowState.PAUSED]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_news_add_up_to_is_what_a_fresh_look_shows(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, TaskState]],
    told: bool,
    end: WorkflowState | None,
) -> None:
    """Tasks are reopened too, and where no event tells of a change, it is found by looking at all."""
    folder = claimed(Spool.create(tmp_path_factory.mktemp("watched") / "spool"))
    watched, known = WatchedWorkflow(folder), dict[str, str]()
    for i, (task_id, state) in enumerate(steps):
        save(folder, task_id, state, told=told)
        watched._sweep_at = watched._sweep_at if told else 0.0
        page = watched.news()
        known |= shown(page)
        if i == len(steps) - 1 and end:
            save_workflow(folder, end)
            page = watched.news()
            known |= shown(page)
        fresh = WorkflowView(folder).glance()
        assert known == shown(fresh)
        assert (page["counts"], page["held"], page["state"]) == (fresh["counts"], fresh["held"], fresh["state"])


def test_a_look_reads_what_has_changed_and_nothing_else(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = claimed(spool)
    save(folder, "a", TaskState.SUCCEEDED)
    watched = WatchedWorkflow(folder)
    assert len(watched.news()["tasks"]) == len(TASKS)
    listed: list[Path] = []
    list_names = reading.list_names

    def listing(path: Path, *, folders: bool = False) -> list[str]:
        listed.append(path)
        return list_names(path, folders=folders)

    monkeypatch.setattr(reading, "list_names", listing)
    save(folder, "b.1", TaskState.RUNNING)
    assert shown(watched.news()) == {"b.1": "running"}
    assert shown(watched.news()) == {}
    save(folder, "b.1", TaskState.FAILED)
    assert shown(watched.news()) == {"b.1": "failed", "c": "skipped"}  # what follows is shown with it
    assert listed == []


def test_events_that_are_cut_off_or_nonsense_are_no_trouble(spool: Spool) -> None:
    folder = claimed(spool)
    watched = WatchedWorkflow(folder)
    watched.news()
    path = folder.path / "events.jsonl"
    for line in (b"\xff\n", b"[]\n", b'{"task_id": 1}\n', b'{"task_id": "../../x"}\n', b'{"task_id": "a"'):
        files.append(path, line)
    save(folder, "a", TaskState.RUNNING, told=False)
    watched.news()
    files.append(path, b"}\n")
    assert shown(watched.news()) in ({"a": "running"}, {})
    assert watched._shown[0] is TaskState.RUNNING


def test_what_is_left_is_the_longest_chain_or_the_work_of_all(spool: Spool) -> None:
    graph = Graph(TASKS)
    pending = [TaskState.PENDING] * len(graph.names)
    seconds = [10.0, 20.0, 30.0, 5.0, 1.0]
    assert seconds_left(graph, pending, seconds, {}, slots=10) == 46.0
    assert seconds_left(graph, pending, seconds, {}, slots=1) == 66.0
    going = [TaskState.SUCCEEDED, TaskState.RUNNING, TaskState.RUNNING, *pending[3:]]
    assert seconds_left(graph, going, seconds, {1: 5.0, 2: 29.0}, slots=10) == 21.0
    assert seconds_left(graph, going, seconds, {1: 500.0, 2: 500.0}, slots=10) == 9.0  # overdue: a tenth of it
    assert seconds_left(graph, [TaskState.SUCCEEDED] * len(graph.names), seconds, {}, slots=0) == 0.0


def test_what_nobody_knows_is_not_estimated() -> None:
    assert expected_seconds([None, None], ["x", "y"], {}) is None
    assert expected_seconds([None, 4.0, None], ["x", "x", "y"], {"x": (2, 6.0)}) == [3.0, 4.0, 3.5]


def test_a_workflow_says_when_it_will_have_ended(spool: Spool) -> None:
    folder = claimed(spool)
    watched = WatchedWorkflow(folder)
    assert watched.news()["ends_at"] is None
    save(folder, "a", TaskState.SUCCEEDED)
    watched._estimate_at = 0.0
    assert watched.news()["ends_at"] is not None
    save_workflow(folder, WorkflowState.PAUSED)
    assert watched.news()["ends_at"] is None


def test_a_workflow_whose_folders_are_still_to_be_made_is_shown(spool: Spool) -> None:
    folder = claimed(spool)
    for name in ("tasks", "outcomes", "logs"):
        (folder.path / name).rmdir()
    watched = WatchedWorkflow(folder)
    assert len(watched.news()["tasks"]) == len(TASKS)
    folder.prepare()
    save(folder, "a", TaskState.RUNNING, told=False)
    watched._sweep_at = 0.0
    assert shown(watched.news()) == {"a": "running"}


# All workflows.


def test_the_overview_has_what_has_not_ended_and_what_comes(spool: Spool) -> None:
    folder = claimed(spool)
    overview = Overview(spool)
    assert [page["workflow_id"] for page in overview.news()] == [ID]
    spool.submit(b"{}", "json", submission(OTHER))
    assert {page["workflow_id"]: page["state"] for page in overview.news()} == {ID: "running", OTHER: "queued"}
    assert [page["workflow_id"] for page in overview.news()] == [ID]  # what waits costs nothing
    save_workflow(folder, WorkflowState.SUCCEEDED)
    assert [page["state"] for page in overview.news()] == ["succeeded"]
    assert overview.watched() == {OTHER}
    (spool.incoming / OTHER).rename(spool.workflows / OTHER)
    (spool.workflows / OTHER / "plan.json").write_bytes(b"\xff")
    assert [(page["workflow_id"], page["state"]) for page in overview.news()] == [(OTHER, "damaged")]
    assert overview.watched() == set()


def test_a_workflow_that_comes_and_goes_between_two_looks_is_shown_all_the_same(spool: Spool) -> None:
    overview = Overview(spool)
    assert list(overview.news()) == []
    save_workflow(claimed(spool), WorkflowState.SUCCEEDED)
    assert [page["state"] for page in overview.news()] == ["succeeded"]
    assert list(overview.news()) == []


def test_one_that_had_ended_and_is_tried_again_is_shown_again(spool: Spool) -> None:
    folder = claimed(spool)
    save_workflow(folder, WorkflowState.FAILED)
    overview = Overview(spool)
    assert list(overview.news()) == []
    name_active(spool.root, ID)
    assert list(overview.news()) == []  # a name that is left says nothing yet
    save_workflow(folder, WorkflowState.RUNNING)
    assert [page["state"] for page in overview.news()] == ["running"]


def test_lines_of_several_workflows_say_whose_they_are(spool: Spool) -> None:
    folder = claimed(spool)
    save(folder, "a", TaskState.FAILED)
    out = io.StringIO()
    lines = Lines(out, several=True)
    for page in Overview(spool).news():
        lines.update(page)
    assert f"{ID} a failed 1.0s: provisioning::selftest::failed: it \\x1b[31mbroke; hint: look at it" in out.getvalue()


# On a terminal.


class Terminal(io.StringIO):
    """A screen that keeps what a program draws, as a terminal would."""

    def __init__(self, columns: int, lines: int) -> None:
        super().__init__()
        self.screen = pyte.HistoryScreen(columns, lines, history=1000)
        self._stream = pyte.Stream(self.screen)

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.feed(text.replace("\n", "\r\n"))
        return len(text)

    def rows(self) -> list[str]:
        return [row.rstrip() for row in self.screen.display if row.strip()]


@pytest.fixture
def size(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A terminal of 60 columns and 10 lines, until the test resizes it."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in (("COLUMNS", "60"), ("LINES", "10")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_live_view_is_drawn_in_place_and_keeps_failures_with_their_help(
    spool: Spool, size: pytest.MonkeyPatch
) -> None:
    folder, terminal = claimed(spool), Terminal(60, 10)
    watched = WatchedWorkflow(folder)
    save(folder, "b.1", TaskState.RUNNING)
    files.append(folder.log_path("b.1", 1), b"first\nfetching \x1b[2Jthe image\n")
    live = Live(terminal, lambda _workflow, task, number: watched.last_line(task, number))
    live.update(watched.news())
    assert "0/5" in terminal.rows()[0]
    assert terminal.rows()[-1].endswith("fetching \\x1b[2Jthe image")
    save(folder, "a", TaskState.FAILED)
    for _ in range(3):
        live.update(watched.news())
    rows = terminal.rows()
    assert [sum(mark in row for row in rows) for mark in ("a failed", "hint: look at it", "its log:", "b.1")] == [1] * 4
    live.close()
    assert not any("b.1" in row for row in terminal.rows())


def test_a_live_view_never_takes_more_than_the_terminal_has(spool: Spool, size: pytest.MonkeyPatch) -> None:
    tasks = tuple(Task(f"t.{i}", "selftest.noop") for i in range(40))
    folder, terminal = claimed(spool, tasks=tasks, name="n" * 80), Terminal(60, 10)
    for task in tasks:
        save(folder, task.id, TaskState.RUNNING)
    watched = WatchedWorkflow(folder)
    live = Live(terminal, lambda _workflow, _task, _number: "x" * 500)
    live.update(watched.news())
    assert terminal.rows()[-1] == "  and 36 more"
    for columns, lines in ((30, 6), (20, 4), (60, 10)):
        terminal.screen.resize(lines, columns)
        size.setenv("COLUMNS", str(columns))
        size.setenv("LINES", str(lines))
        terminal.screen.erase_in_display(2)
        terminal.screen.cursor_position(1, 1)
        live.update(watched.news())
        rows = terminal.rows()
        assert len(rows) < lines
        assert all(len(row) <= columns for row in rows)
    assert not terminal.screen.history.top
    live.close()


def test_a_live_view_of_several_workflows(spool: Spool, size: pytest.MonkeyPatch) -> None:
    first, terminal = claimed(spool), Terminal(60, 10)
    second = claimed(spool, OTHER, name="other")
    save(first, "a", TaskState.RUNNING)
    overview = Overview(spool)
    live = Live(terminal, overview.last_line, several=True)
    for page in overview.news():
        live.update(page)
    save_workflow(second, WorkflowState.FAILED)
    for page in overview.news():
        live.update(page)
    text = "\n".join(terminal.rows())
    assert f"workflow {OTHER} failed" in text
    assert "running" in text
    live.close()


def test_names_of_logs_have_the_colour_of_their_task_and_are_aligned(size: pytest.MonkeyPatch) -> None:
    lines = LogLines(Terminal(60, 10), as_json=False, plain=False)
    pieces = [Piece("a", 1, Path()), Piece("a", 2, Path()), Piece("long-name", 1, Path())]
    lines.expect([piece.name for piece in pieces])
    first, second, third = (lines.line(piece, b"said \x1b[2J") for piece in pieces)
    assert first[:5] == second[:5] != third[:5]
    assert first.endswith("        | said \\x1b[2J\n")
    assert "a#2" in second
    plain = LogLines(io.StringIO(), as_json=False, plain=False)
    assert plain.line(pieces[1], b"x") == "a#2 | x\n"


def test_changes_of_a_page_that_is_shown_again_are_none(spool: Spool) -> None:
    folder = claimed(spool)
    save(folder, "a", TaskState.RUNNING)
    changes = Changes()
    page = WorkflowView(folder).glance()
    assert [change.get("task_id") for change in changes.of(page)] == [None, "a"]
    assert changes.of(page) == []
