"""The one table of what can be asked: from it come the routing, the checks of queries, and /openapi.json."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from aiohttp import web

from provisioning.core.states import TaskState, WorkflowState
from provisioning.errors import Invalid, Problem
from provisioning.gateway import changing, looking, streams
from provisioning.gateway.answers import JSON
from provisioning.gateway.site import Call
from provisioning.views.status import ABANDONED, DAMAGED, REJECTED

_ULID = "[0-7][0-9a-hjkmnp-tv-z]{0,25}"
_TASK = r"[a-z0-9][a-z0-9_~-]{0,68}(?:\.[a-z0-9][a-z0-9_~-]{0,68}){0,4}"
_NAME = "[a-z][a-z0-9-]{0,40}"
PARTS = {
    "{id}": (_ULID, "A workflow_id, or enough of its beginning."),
    "{task}": (_TASK, "A task_id."),
    "{task_of}": (rf"{_ULID}(?:\.{_TASK})?", "WORKFLOW_ID.TASK_ID, as /tasks has it."),
    "{domain}": (_NAME, "A domain of operations, also in the singular."),
    "{verb}": (_NAME, "What is done."),
}
"""What may stand in a path, as a pattern, and what it means. What does not match is not found."""

WORKFLOW_STATES = [*map(str, WorkflowState), ABANDONED, REJECTED, DAMAGED]
TASK_STATES = [*map(str, TaskState), "undone"]


def whole(pattern: str) -> str:
    """The pattern of a text that is that and nothing else, for a schema: readers in Python let `$` leave a newline."""
    return f"^{pattern}$(?!\\n)"


class Query(NamedTuple):
    """One parameter behind the `?`."""

    name: str
    schema: dict[str, Any]
    meaning: str

    def value(self, given: list[str]) -> Any:
        """What was given as the schema has it; Invalid where it is not so."""
        if self.schema["type"] == "array":
            allowed = self.schema["items"]["enum"]
            if unknown := [each for each in given if each not in allowed]:
                raise self._wrong(unknown[0], f"known are {', '.join(allowed)}")
            return tuple(given)
        text = given[0]
        if len(given) > 1:
            raise self._wrong(text, "give it once")
        if self.schema["type"] == "integer":
            least, most = self.schema["minimum"], self.schema["maximum"]
            if not (text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most):
                raise self._wrong(text, f"a whole number from {least} to {most}")
            return int(text)
        if text not in self.schema.get("enum", [text]):
            raise self._wrong(text, f"known are {', '.join(self.schema['enum'])}")
        if not re.fullmatch(self.schema.get("pattern", ".*"), text):
            raise self._wrong(text, f"it must match {self.schema['pattern']}")
        return text

    def _wrong(self, text: str, hint: str) -> Invalid:
        return Invalid([Problem("bad-value", f"{self.name}={text[:64]!r} cannot be", hint, "query", field=self.name)])


def _whole(name: str, least: int, most: int, default: int | None, meaning: str) -> Query:
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    return Query(name, schema if default is None else {**schema, "default": default}, meaning)


def _several(name: str, known: list[str], meaning: str) -> Query:
    return Query(name, {"type": "array", "items": {"type": "string", "enum": known}}, meaning)


def _text(name: str, meaning: str) -> Query:
    return Query(name, {"type": "string", "maxLength": 128, "pattern": whole("[^\\x00-\\x1f]{0,128}")}, meaning)


LIMIT = _whole("limit", 1, 1000, 50, "So many at most.")
OFFSET = _whole("offset", 0, 1_000_000_000, 0, "After so many others.")


class Route(NamedTuple):
    """One method of one path. Either `look` answers, in a thread, or `stream`, on the loop."""

    method: str
    path: str
    summary: str
    look: Callable[[Call], Any] | None = None
    stream: Callable[[Call, web.Request], Awaitable[web.StreamResponse]] | None = None
    query: tuple[Query, ...] = ()
    media: tuple[str, ...] = ()
    """Media types of the body, the first where it is said to be none."""
    answer: str = JSON
    schema: str = ""
    """Of `data`, by its name in openapi.SCHEMAS."""
    statuses: tuple[int, ...] = ()
    """What it may say besides what every route may."""

    @property
    def pattern(self) -> str:
        """The path as the router knows it."""
        path = self.path
        for part, (pattern, _) in PARTS.items():
            path = path.replace(part, f"{{{part[1:-1]}:{pattern}}}")
        return path

    def asked(self, given: list[tuple[str, str]]) -> dict[str, Any]:
        """The query, checked, with its defaults; Invalid where there is a name that is not known."""
        known = {each.name: each for each in self.query}
        if unknown := [name for name, _ in given if name not in known]:
            hint = f"known are {', '.join(known)}" if known else "nothing is taken here"
            raise Invalid([Problem("unknown-key", f"unknown in the query: {unknown[0][:64]!r}", hint, "query")])
        found = {name: query.schema["default"] for name, query in known.items() if "default" in query.schema}
        for name, query in known.items():
            if values := [value for key, value in given if key == name]:
                found[name] = query.value(values)
        return found


def _of_workflow(verb: str, summary: str) -> Route:
    return Route(
        "POST",
        f"/workflows/{{id}}/{verb}",
        summary,
        partial(changing.ask, verb=verb),
        media=(JSON,),
        schema="asked",
        statuses=(202, 404, 409, 410, 413, 415, 422),
    )


LOG_QUERY = (
    _whole("attempt", 1, 1_000_000, None, "Of this attempt; of the latest where it is left out."),
    _whole("offset", 0, 1 << 50, 0, "From this byte on."),
    _whole("lines", 1, 10_000, None, "The last so many lines instead."),
)
ROUTES = (
    Route(
        "GET", "/workflows", "Workflows, the newest first.", looking.workflows,
        query=(
            LIMIT, OFFSET, _several("state", WORKFLOW_STATES, "Only those in one of these states."),
            _text("name", "Only those whose name contains this, or whose workflow_id begins so."),
            _text("operator", "Only those that this operator has submitted."),
            _text("infra", "Only those of this infra."),
        ),
        schema="workflows", statuses=(422,),
    ),
    Route(
        "POST", "/workflows/batch", "Submit a manifest.", changing.submit_batch,
        media=(JSON, changing.TOML), schema="submitted", statuses=(202, 409, 413, 415, 422),
    ),
    Route(
        "POST", "/workflows/{domain}/{verb}", "Submit one operation.", changing.submit_operation,
        media=(JSON,), schema="submitted", statuses=(202, 404, 409, 413, 415, 422),
    ),
    Route(
        "GET", "/workflows/{id}", "One workflow and its tasks.", looking.workflow,
        query=(Query("tasks", {"type": "string", "enum": ["brief", "all"], "default": "brief"},
                     "All tasks, or of a large workflow only those that need a look."),),
        schema="workflow", statuses=(404, 410, 422),
    ),
    Route(
        "GET", "/workflows/{id}/events", "What happens to a workflow, until it has ended.", stream=streams.events,
        query=(Query("from", {"type": "string", "enum": ["beginning", "now"], "default": "beginning"},
                     "Where to begin, without the header Last-Event-ID."),),
        answer="text/event-stream", statuses=(204, 404, 410, 422),
    ),
    Route("GET", "/workflows/{id}/graph", "Who waits for whom, as a picture.", looking.graph,
          answer=looking.SVG_TYPE, statuses=(404, 410)),
    Route("GET", "/workflows/{id}/timeline", "When the attempts of a workflow ran, as a picture.", looking.timeline,
          answer=looking.SVG_TYPE, statuses=(404, 410)),
    Route(
        "GET", "/workflows/{id}/logs/{task}", "What an attempt of a task has printed.", looking.log,
        query=LOG_QUERY, answer="text/plain", statuses=(404, 410, 422),
    ),
    _of_workflow("cancel", "End a workflow: running tasks are told to end, the others never start."),
    _of_workflow("pause", "Start none of a workflow's tasks any more."),
    _of_workflow("resume", "Go on with a paused workflow."),
    _of_workflow("retry", "Do again what failed, and the tasks that are named."),
    _of_workflow("rollback", "Undo what the tasks of a workflow have done."),
    Route(
        "GET", "/tasks", "Tasks of all workflows, those of the newest first.", looking.tasks,
        query=(LIMIT, OFFSET, Query("workflow", {"type": "string", "pattern": whole(_ULID)}, "Of this workflow only."),
               _several("state", TASK_STATES, "Only those in one of these states.")),
        schema="tasks", statuses=(404, 410, 422),
    ),
    Route("GET", "/tasks/{task_of}", "One task, with its result.", looking.task, schema="task", statuses=(404, 410)),
    Route("GET", "/caller", "Who the gateway takes you for.", looking.caller, schema="caller"),
    Route("GET", "/operations", "What can be done, with the schemas of params and results.", looking.operations,
          schema="operations"),
    Route("GET", "/health", "Whether what is submitted would be started.", looking.health, schema="health"),
    Route("GET", "/metrics", "What the orchestrator tells monitoring.", looking.metrics, answer="text/plain",
          statuses=(404,)),
    Route("GET", "/openapi.json", "This description.", looking.described),
)  # fmt: skip
"""Every route that answers programs. Files of the page are no rows of it: they stand beside them in the application."""
