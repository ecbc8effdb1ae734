"""The pictures of a workflow as SVG, drawn by what draws reports; however many look, each is made seldom enough."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from provisioning.clock import now
from provisioning.core.graph import Graph
from provisioning.core.workflow import Plan
from provisioning.errors import NotFound
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.views.pictures import Drawn, drawn_graph, drawn_timeline
from provisioning.views.status import ENDED, Page, WorkflowView, shown_state
from provisioning.views.timeline import timeline

KEPT = 4
"""So many workflows are kept in mind: the page of one of 5,000 tasks takes some 20 MB."""
LEAST_SECONDS = 1.0
SHARE = 5
"""While a workflow goes on, its tasks are looked at again after so many times as long as the last look took."""


class _Mark(NamedTuple):
    """What is another once the workflow has changed."""

    path: Path
    changed: tuple[int, ...]
    over: bool


class Look:
    """What one look at a workflow has found; each picture of it is drawn once."""

    def __init__(self, mark: _Mark, page: Page, plan: Plan) -> None:
        self.mark = mark
        self.again_at = 0.0
        self._page = page
        self._plan = plan
        self._graph = Graph(plan.workflow.tasks)
        self._line = timeline(page, self._graph, now())

    @cached_property
    def graph(self) -> Drawn:
        """Who waits for whom."""
        return drawn_graph(self._page, self._plan.workflow, self._graph, self._line)

    @cached_property
    def timeline(self) -> Drawn:
        """When the attempts ran. NotFound where there was none."""
        if not self._line.rows:
            raise NotFound(f"no attempt of workflow {self._page['workflow_id']} has begun yet", hint="ask again later")
        return drawn_timeline(self._page, self._line)


class _Watched:
    """One workflow that is looked at again and again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
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
        self._last = made = Look(mark, page, self._plan)
        end = time.monotonic()
        made.again_at = end + max(LEAST_SECONDS, SHARE * (end - begin))
        return made


class Pictures:
    """Draws. One thread at a time looks at a workflow, the others take what it has found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: OrderedDict[str, _Watched] = OrderedDict()

    def of(self, folder: WorkflowFolder) -> Look:
        """A look at the workflow."""
        with self._lock:
            watched = self._watched.setdefault(folder.workflow_id, _Watched())
            self._watched.move_to_end(folder.workflow_id)
            if len(self._watched) > KEPT:
                self._watched.popitem(last=False)
        with watched.lock:
            return watched.look(folder)


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
