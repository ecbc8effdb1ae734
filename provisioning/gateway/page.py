"""The page that a browser gets: files that came with the program, and what they share with reports.

They say nothing of the spool, so everybody may have them: who has a token cannot send it with an address. What they
show they ask for by the same routes as any program, and are refused the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from provisioning.core.large import LARGE_TASKS
from provisioning.core.states import ENDED_WORKFLOWS
from provisioning.gateway.looking import LOG_BYTES
from provisioning.gateway.routes import TASK_STATES, WORKFLOW_STATES
from provisioning.storage import reading
from provisioning.views.page_text import WAITING
from provisioning.views.report_style import STYLE
from provisioning.views.status import OVER
from provisioning.views.svg import MARKS, WORST

_FOLDER = Path(__file__).with_name("static")
_MAX_BYTES = 1 << 20
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Files of this gateway and nothing else; and no text becomes markup, whoever tries it."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}


class File(NamedTuple):
    """A file of the page."""

    data: bytes
    kind: str


def read_files() -> dict[str, File]:
    """All files of the page, by their paths. What an editor has left beside them is none."""
    shared = {"report.css": STYLE, "states.js": _states()}
    found = {name: text.encode() for name, text in shared.items()}
    names = [name for name in reading.list_names(_FOLDER) if Path(name).suffix in _KINDS]
    found |= {name: reading.read_regular(_FOLDER / name, _MAX_BYTES) for name in names}
    files = {f"/page/{name}": File(data, _KINDS[Path(name).suffix]) for name, data in found.items()}
    return {"/": files.pop("/page/index.html"), **files}


def _states() -> str:
    """What reports, routes and this page share, as a module."""
    said = {
        "MARKS": MARKS,
        "WORST": WORST,
        "WORKFLOW_STATES": WORKFLOW_STATES,
        "TASK_STATES": TASK_STATES,
        "ENDED": [state for state in WORKFLOW_STATES if state in ENDED_WORKFLOWS],
        "OVER": [state for state in WORKFLOW_STATES if state in OVER],
        "WAITING": WAITING,
        "LARGE_TASKS": LARGE_TASKS,
        "LOG_BYTES": LOG_BYTES,
    }
    lines = [f"export const {name} = {json.dumps(value)};\n" for name, value in said.items()]
    return "// Made by the gateway: the states there are, a sign for each, and why tasks wait.\n\n" + "".join(lines)
