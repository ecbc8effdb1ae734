"""/openapi.json: the table of routes with the schemas of the catalogue, in the words of OpenAPI 3.1."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from provisioning import __version__
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.gateway.answers import JSON
from provisioning.gateway.routes import PARTS, ROUTES, Query, Route, whole

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_JSON_TEXT: Schema = {"type": "string", "contentMediaType": JSON}
_TASK_ID: Schema = {"type": "string", "pattern": whole(PARTS["{task}"][0])}
_INSTANT: Schema = {"type": ["string", "null"], "format": "date-time"}
_COUNTS: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}


def _object(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(name: str) -> Schema:
    whole: Schema = {"type": "integer"}
    items: Schema = {"type": "array", "items": {"type": "object"}}
    listed = {name: items, "limit": whole, "offset": whole, "more": {"type": "boolean"}}
    return _object(f"{name} limit offset more", **listed)


_TASK = _object(
    "id workflow_id task_id operation state attempts",
    id=_TEXT,
    workflow_id=_TEXT,
    task_id=_TEXT,
    operation=_TEXT,
    state=_TEXT,
    reason=_TEXT,
    waiting_for={"type": "array", "items": _TEXT},
    attempts={"type": "array", "items": {"type": "object"}},
    result={},
)
SCHEMAS: dict[str, Schema] = {
    "submitted": _object("workflow_id", workflow_id=_TEXT),
    "asked": _object("workflow_id asked queued", workflow_id=_TEXT, asked=_TEXT, queued={"type": "boolean"}),
    "workflows": _list("workflows"),
    "workflow": _object(
        "workflow_id name infra state submitted_at counts tasks",
        workflow_id=_TEXT,
        name=_TEXT,
        infra=_TEXT,
        state=_TEXT,
        reason=_TEXT,
        priority={"type": "integer"},
        submitted_at=_INSTANT,
        started_at=_INSTANT,
        ended_at=_INSTANT,
        counts=_COUNTS,
        tasks={"type": "array", "items": {"type": "object"}},
    ),
    "tasks": _list("tasks"),
    "task": _TASK,
    "caller": _object("operator own", operator=_TEXT, own={"type": "boolean"}),
    "operations": {"type": "array", "items": _object("name path params", name=_TEXT, path=_TEXT, params={})},
    "health": _object("healthy", healthy={"const": True}),
}
"""What `data` is in an answer, by the names that the routes use."""

_ERROR = _object(
    "success error",
    success={"const": False},
    error=_object(
        "code message hint",
        code={"type": "string", "description": "Stable: programs rely on it."},
        message=_TEXT,
        hint={"type": "string", "description": "What to do."},
        problems={"type": "array", "items": {"type": "object"}},
    ),
)
_ALWAYS = (400, 401, 403, 405, 408, 417, 421, 422, 429, 500, 503)
_REQUEST_BODY = _object(
    "",
    tasks={"type": "array", "items": _TASK_ID, "description": "For retry and rollback: these tasks."},
    preserve={"type": "array", "items": _TASK_ID, "description": "For rollback: not these."},
) | {"additionalProperties": False}
_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The id of the workflow: the same key with the same body is the same workflow.",
    "schema": {"type": "string", "pattern": whole("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")},
}


def document(catalogue: Catalogue) -> dict[str, Any]:
    """The whole description."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        if "{domain}" not in route.path:
            paths.setdefault(_path(route.path), {})[route.method.lower()] = _described(route, _body(route))
            continue
        for _, operation in sorted(catalogue.operations.items()):
            path = route.path.replace("{domain}", operation.domain).replace("{verb}", operation.verb)
            told = _described(route._replace(path=path), _operation_body(operation))
            paths[path] = {"post": {**told, "summary": operation.summary, "description": operation.description}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "provisioning",
            "version": __version__,
            "description": "On a unix socket and on loopback the kernel says who calls; elsewhere a token does.",
        },
        "paths": paths,
        "components": {
            "schemas": {"error": _ERROR, **SCHEMAS},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _path(path: str) -> str:
    return path.replace("{task_of}", "{id}")


def _described(route: Route, body: Schema | None) -> dict[str, Any]:
    parameters = [_part(name) for name in re.findall(r"\{\w+\}", route.path)] + [_query(each) for each in route.query]
    if route.schema == "submitted":
        parameters.append(_KEY)
    statuses = dict.fromkeys((*route.statuses, *_ALWAYS))
    answers = {str(status): _error(status) for status in sorted(statuses) if status >= 400}
    answers["202" if 202 in statuses else "200"] = _answer(route)
    if 204 in statuses:
        answers["204"] = {"description": "Nothing more will happen."}
    told: dict[str, Any] = {"summary": route.summary, "parameters": parameters, "responses": answers}
    return told if body is None else {**told, "requestBody": body}


def _part(name: str) -> Schema:
    pattern, meaning = PARTS[name]
    schema = {"type": "string", "pattern": whole(pattern)}
    return {"name": _path(name)[1:-1], "in": "path", "required": True, "description": meaning, "schema": schema}


def _query(query: Query) -> Schema:
    return {"name": query.name, "in": "query", "description": query.meaning, "schema": query.schema}


def _answer(route: Route) -> Schema:
    schema: Schema = {"type": "string"}
    if route.schema:
        data = {"$ref": f"#/components/schemas/{route.schema}"}
        schema = _object("success data", success={"const": True}, data=data)
    elif route.stream is not None:
        schema = _object("data", data=_JSON_TEXT, event=_TEXT, id=_TEXT)
    elif route.answer == JSON:
        schema = {"type": "object"}
    return {"description": route.summary, "content": {route.answer: {"schema": schema}}}


def _error(status: int) -> Schema:
    content = {JSON: {"schema": {"$ref": "#/components/schemas/error"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _body(route: Route) -> Schema | None:
    if not route.media:
        return None
    if route.schema == "asked":
        return {"required": False, "content": {JSON: {"schema": _REQUEST_BODY}}}
    schema = {"type": "object", "description": "schemas/manifest.schema.json"}
    return {
        "required": True,
        "content": {media: {"schema": schema if media == JSON else _TEXT} for media in route.media},
    }


def _operation_body(operation: Operation) -> Schema:
    params = operation.params_schema()
    if any(param.name == "name" for param in operation.params):  # may be said by infra alone
        params["required"] = [name for name in params["required"] if name != "name"]
    infra = {"type": "string", "description": "Without params.name, where there is such a param, it is the name."}
    schema = _object("", infra=infra, params=params) | {"additionalProperties": False}
    return {"required": bool(params["required"]), "content": {JSON: {"schema": schema}}}
