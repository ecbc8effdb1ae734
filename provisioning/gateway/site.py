"""What one call has: the spool and its rules, who calls, and what was asked, checked against the table of routes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from provisioning.config import Config
from provisioning.core.catalogue import Catalogue
from provisioning.errors import NotFound, SpoolUnusable
from provisioning.gateway.callers import Caller
from provisioning.gateway.door import Door
from provisioning.gateway.drawing import Pictures
from provisioning.gateway.turns import Turns
from provisioning.storage.checkpoint import WorkflowFolder
from provisioning.storage.spool import Spool
from provisioning.views.status import Rejected, find

FULL_ID = 26


@dataclass
class Site:
    """What the gateway serves. It reads the spool; what changes goes through the door."""

    spool: Spool
    config: Config
    door: Door
    catalogue: Callable[[], Catalogue]
    """The operations as they are now."""
    say: Callable[[str], None]
    """Tells whoever runs the gateway what went wrong."""
    turns: Turns = field(default_factory=Turns)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    pictures: Pictures = field(default_factory=Pictures)


class Text(NamedTuple):
    """An answer that is not JSON."""

    data: bytes
    kind: str = "text/plain"
    headers: Mapping[str, str] = {}


class Call(NamedTuple):
    """One request, its parts checked."""

    site: Site
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: bytes = b""
    media: str = ""
    """The media type of the body; empty where there is none."""
    key: str | None = None
    """Of the header Idempotency-Key."""
    last_event: str | None = None
    """Of the header Last-Event-ID."""

    def folder(self) -> WorkflowFolder:
        """The folder of the workflow that the path names. NotFound where there is none that is the caller's matter."""
        workflow_id, caller = self.path["id"], self.caller
        missing = NotFound(f"no workflow {workflow_id!r}", hint="see /workflows")
        if not caller.own and len(workflow_id) < FULL_ID:
            raise missing  # how many there are of others is not said
        try:
            folder = find(self.site.spool, workflow_id)
        except Rejected as error:
            if caller.own or self._is_theirs(WorkflowFolder(error.path)):
                raise
            raise missing from None
        except NotFound as error:
            raise (error if caller.own else missing) from None  # or the text would tell what there is of others
        if caller.own or self.may_know(folder):
            return folder
        raise missing

    def _is_theirs(self, folder: WorkflowFolder) -> bool:
        """Whether the caller has submitted it; what cannot be read is its owner's alone."""
        try:
            return folder.submission().operator == self.caller.operator
        except (SpoolUnusable, FileNotFoundError):
            return False

    def may_know(self, folder: WorkflowFolder) -> bool:
        """Whether the workflow is the caller's matter; one that cannot be read is its owner's alone."""
        try:
            return self.caller.own or self.site.door.may_know(self.caller.operator, folder)
        except (SpoolUnusable, FileNotFoundError):
            return False
