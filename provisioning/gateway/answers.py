"""Answers as JSON: `{"success": true, "data": …}`, or `{"success": false, "error": {…}}` for every error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from aiohttp import web

from provisioning.errors import (
    Invalid,
    NotFound,
    NushellUnusable,
    OrchestratorUnusable,
    ProvisioningError,
    Refused,
    SpoolUnusable,
    UsageError,
)
from provisioning.views.status import Rejected
from provisioning.views.text import line_json

JSON = "application/json"
_STATUSES: dict[type[ProvisioningError], int] = {
    UsageError: 400,
    Invalid: 422,
    NotFound: 404,
    Refused: 409,
    SpoolUnusable: 503,
    OrchestratorUnusable: 503,
    NushellUnusable: 503,
}
_OF_CODES = {
    "not-granted": 403,
    "no-authority": 403,
    "unknown-signer": 403,
    "wrong-host": 403,
    "unknown-workflow": 404,
    "id-conflict": 409,
    "rejected": 410,
    "too-large": 413,
    "unhealthy": 503,
}
"""Where the code says more than the class."""


_TOLD: dict[int, dict[str, str]] = {HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"}}
"""Headers that go with a status."""


class Declined(ProvisioningError):
    """What HTTP itself speaks against: the caller, a header, the body."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.headers = {**_TOLD.get(status, {}), **(headers or {})}


def status_of(error: ProvisioningError) -> int:
    """The HTTP status that stands for the error."""
    if isinstance(error, Declined):
        return error.status
    codes = (
        [error.code, *(problem.code for problem in error.problems[:1])] if isinstance(error, Invalid) else [error.code]
    )
    for code in codes:
        if code in _OF_CODES:
            return _OF_CODES[code]
        if code.startswith("signature-"):
            return 403
    return next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), 500)


def success_text(data: Any) -> str:
    """What is asked for, as the text of an answer. It may be large: not for the loop to make."""
    return line_json({"success": True, "data": data})


def failure(error: ProvisioningError) -> web.Response:
    """The error as an answer."""
    page: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint}
    if isinstance(error, Invalid):
        first = error.problems[0]
        if not isinstance(error, Rejected):
            page |= {"message": first.message, "hint": first.hint}
        page["problems"] = [asdict(each) for each in error.problems]
    headers = error.headers if isinstance(error, Declined) else {}
    text = line_json({"success": False, "error": page})
    return web.Response(text=text, status=status_of(error), content_type=JSON, headers=headers)


def too_many(seconds: float) -> web.Response:
    """The answer to who was refused too often, until so many seconds have passed."""
    whole = math.ceil(seconds)
    hint, headers = f"mend them, and wait {whole} s", {"Retry-After": str(whole)}
    return failure(Declined(429, "too-many", "too many calls were refused", hint=hint, headers=headers))


def of_http(error: web.HTTPException) -> web.Response:
    """What aiohttp refuses by itself, in our form."""
    allow = error.headers.get("Allow")
    codes = {404: "not-found", 405: "method-not-allowed", 413: "too-large", 415: "media-type"}
    hints = {404: "see /openapi.json for what there is", 405: f"allowed here: {allow}", 413: "split it, or use the CLI"}
    code, hint = codes.get(error.status, "bad-request"), hints.get(error.status, "")
    headers = {"Allow": allow} if allow else {}
    return failure(Declined(error.status, code, HTTPStatus(error.status).phrase, hint=hint, headers=headers))
