"""What others want to be told of, as the audit log has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

NOTICES = ("accepted", "rejected", "succeeded", "failed", "rolled-back", "cancelled", "waiting-for-person")
"""Every kind of notice."""
_ENDS = {"succeeded": "succeeded", "failed": "failed", "rolled_back": "rolled-back", "cancelled": "cancelled"}
_OTHERS = {"accepted": "accepted", "rejected": "rejected", "waiting": "waiting-for-person"}


class Notice(NamedTuple):
    """Something that has happened to one workflow."""

    n: int
    """The number of its record: the same notice has the same, however often it is told."""
    event: str
    at: str
    workflow_id: str
    """Empty of a drop that was rejected before it had one."""
    facts: dict[str, Any]
    """What else the record says."""


def notice_of(record: Mapping[str, Any]) -> Notice | None:
    """The notice of a record; None where nobody wants to be told of it, or it is none that can be read."""
    kind, number = record.get("event"), record.get("n")
    event = _ENDS.get(str(record.get("state"))) if kind == "ended" else _OTHERS.get(str(kind))
    if event is None or not isinstance(number, int):
        return None
    facts = {
        name: fact for name, fact in record.items() if name not in ("n", "event", "at", "workflow_id", "prev", "hash")
    }
    return Notice(number, event, str(record.get("at", "")), str(record.get("workflow_id", "")), facts)
