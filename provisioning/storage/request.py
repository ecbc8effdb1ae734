"""The file of a request: its name, by which requests are found, and what is in it."""

from __future__ import annotations

from pathlib import Path

from provisioning.core.workflow import Request
from provisioning.errors import NotFound
from provisioning.storage.checkpoint import Damaged, load


def load_request(path: Path) -> Request:
    """A request file; NotFound where it has been applied meanwhile."""
    try:
        request = load(path, Request)
    except FileNotFoundError:
        raise NotFound(f"{path.name} is no longer there") from None
    if path.name != request_name(request):
        raise Damaged(path, f"it is the request {request_name(request)}")
    return request


def request_name(request: Request) -> str:
    """The name of its file, by which requests are found."""
    return f"{request.workflow_id}.{request.request_id}.json"
