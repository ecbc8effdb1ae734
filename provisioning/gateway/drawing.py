"""The pictures of a workflow as SVG, drawn by what draws reports; however many look, each is made seldom enough."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from provisioning.clock import now
from provisioning.core.graph import Graph
from provisioning.core.workflow import Plan
from provisioning.errors import NotFound
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.pictures import Drawn, drawn_graph, drawn_timeline
from provisioning.views.status import ENDED, WorkflowView, shown_state
from provisioning.views.timeline import timeline

KEPT_TASKS = 20_000
"""Of workflows with so many tasks in all it is kept in mind what was read: of 5,000 tasks that is some 10 MB."""
KEPT_PICTURES = 64
"""Of so many workflows the pictures themselves are kept: of one of 5,000 tasks some 700 kB."""
LEAST_SECONDS = 1.0
SHARE = 5
"""While a workflow goes on, its tasks are looked at again after so many times as long as the last look took."""


class _Mark(NamedTuple):
    """What is another once the workflow has changed."""

    path: Path
    changed: tuple[int, ...]
    over: bool


class Picture(NamedTuple):
    """An SVG as it is sent, and how to read it."""

    svg: bytes
    note: str


class Look(NamedTuple):
    """The pictures that one look at a workflow has led to."""

    mark: _Mark
    again_at: float
    """Before that, on the monotonic clock, nobody looks again."""
    graph: Picture
    """Who waits for whom."""
    timeline: Picture | None
    """When the attempts ran; None where there was none."""


class _Watched:
    """One workflow that is looked at again and again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0
        """So many threads have it in hand: it must not be another's meanwhile."""
        self.tasks = 0
        """So many are kept in mind."""
        self._view: WorkflowView | None = None
        self._plan: Plan | None = None
        self._last: Look | None = None

    def look(self, folder: WorkflowFolder) -> Look:
        """What there is to see, or was a moment ago. NotFound before the workflow has a plan."""
        mark, last = _mark(folder), self._last
        if last is not None and (mark == last.mark if mark.over else time.monotonic() < last.again_at):
            return last
        begin = time.monotonic()
        if self._view is None or self._view.folder.path != folder.path:
            self._view = WorkflowView(folder)
        page = self._view.glance()
        self._plan = self._plan or folder.plan()
        if self._plan is None:
            text = f"workflow {folder.workflow_id} is {page['state']}: its tasks are not known yet"
            raise NotFound(text, hint="ask again later")
        workflow = self._plan.workflow
        self.tasks = len(workflow.tasks)
        graph = Graph(workflow.tasks)
        line = timeline(page, graph, now())
        drawn = _picture(drawn_graph(page, workflow, graph, line))
        attempts = _picture(drawn_timeline(page, line)) if line.rows else None
        end = time.monotonic()
        self._last = Look(mark, end + max(LEAST_SECONDS, SHARE * (end - begin)), drawn, attempts)
        return self._last

    def forget(self) -> None:
        """Keep the pictures, and until when they are good enough; what they were made of is read anew."""
        self._view = self._plan = None
        self.tasks = 0


class Pictures:
    """Draws. One thread at a time looks at a workflow, the others take what it has found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: OrderedDict[str, _Watched] = OrderedDict()

    def graph(self, folder: WorkflowFolder) -> Picture:
        """Who waits for whom. NotFound before the workflow has a plan."""
        return self._look(folder).graph

    def timeline(self, folder: WorkflowFolder) -> Picture:
        """When the attempts ran. NotFound where there was none."""
        found = self._look(folder).timeline
        if found is None:
            raise NotFound(f"no attempt of workflow {folder.workflow_id} has begun yet", hint="ask again later")
        return found

    def _look(self, folder: WorkflowFolder) -> Look:
        with self._lock:
            watched = self._watched.setdefault(folder.workflow_id, _Watched())
            self._watched.move_to_end(folder.workflow_id)
            watched.callers += 1
        try:
            with watched.lock:
                return watched.look(folder)
        finally:
            with self._lock:
                watched.callers -= 1
                self._make_room()

    def _make_room(self) -> None:
        """Let go of what nobody has in hand and was asked for longest ago."""
        idle = [(name, each) for name, each in self._watched.items() if not each.callers]
        tasks = sum(each.tasks for each in self._watched.values())
        for name, each in idle:
            if len(self._watched) > KEPT_PICTURES:
                del self._watched[name]
            elif tasks <= KEPT_TASKS:
                return
            tasks -= each.tasks
            each.forget()


def _picture(drawn: Drawn) -> Picture:
    return Picture(drawn.svg.encode(), drawn.note)


def _mark(folder: WorkflowFolder) -> _Mark:
    """Taken before a look, so that what changes during it shows as a change after it."""
    checkpoint = folder.workflow()
    changed: list[int] = []
    for name in ("workflow.json", "tasks"):
        try:
            found = os.stat(folder.path / name)
            changed += [found.st_ino, found.st_mtime_ns]
        except FileNotFoundError:
            changed += [0, 0]
    over = checkpoint is not None and shown_state(checkpoint) in ENDED
    return _Mark(folder.path, tuple(changed), over)
