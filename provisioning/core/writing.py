"""A workflow written as the manifest that means it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec

from provisioning.core.policies import duration
from provisioning.core.references import escaped
from provisioning.core.workflow import Retry, Task, Undo, Workflow
from provisioning.errors import InvalidManifest, Problem


def write(workflow: Workflow, *, form: str) -> bytes:
    """The manifest (`form`: "toml" or "json") that `parse` reads as this workflow. InvalidManifest: a null in TOML."""
    head = {key: item for key in workflow.__struct_fields__ if (item := getattr(workflow, key)) is not None}
    document = {"schema": 1, **head, "tasks": [_written(task) for task in workflow.tasks]}
    if form == "json":
        return (json.dumps(document, indent=2, ensure_ascii=False, default=datetime.isoformat) + "\n").encode()
    import tomli_w

    try:
        return tomli_w.dumps(document).encode()
    except TypeError as error:
        raise InvalidManifest([Problem("bad-value", "TOML has no null", "write it as JSON")]) from error


def _written(task: Task) -> dict[str, Any]:
    table: dict[str, Any] = msgspec.to_builtins(task)
    table["params"] = task.params if table.pop("references", ()) else escaped(task.params)
    _write_policies(task, table)
    if task.expected_seconds is not None:
        table["expected"] = duration(table.pop("expected_seconds"))
    if task.undo is not None:
        _write_policies(task.undo, table["undo"])
    return table


def _write_policies(said: Task | Undo, table: dict[str, Any]) -> None:
    if said.timeout_seconds is not None:
        table["timeout"] = duration(table.pop("timeout_seconds"))
    if said.retry is not None:
        table["retry"] = _written_retry(said.retry)


def _written_retry(retry: Retry) -> dict[str, Any]:
    longest = retry.max_delay_seconds
    table: dict[str, Any] = {"max_attempts": retry.max_attempts, "backoff": retry.backoff}
    table |= {"max_delay": duration(longest), "initial_delay": duration(min(retry.initial_delay_seconds, longest))}
    return table | ({"on": list(retry.on)} if retry.on else {})
