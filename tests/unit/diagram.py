"""The state machines as Mermaid diagrams, drawn from their tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from provisioning.core.states import TASK_TRANSITIONS, WORKFLOW_TRANSITIONS, TaskState, WorkflowState


def state_diagrams() -> str:
    """Both diagrams, as the README shows them."""
    return "\n\n".join(
        f"```mermaid\n{_diagram(transitions, first)}\n```"
        for transitions, first in ((WORKFLOW_TRANSITIONS, WorkflowState.QUEUED), (TASK_TRANSITIONS, TaskState.PENDING))
    )


def _diagram(transitions: Mapping[tuple[Any, Any], Any], first: StrEnum) -> str:
    arrows: dict[tuple[StrEnum, StrEnum], list[StrEnum]] = {}
    for (before, event), after in transitions.items():
        arrows.setdefault((before, after), []).append(event)
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    lines += [f"    {before} --> {after}: {' / '.join(events)}" for (before, after), events in arrows.items()]
    return "\n".join(lines)
