"""What is carried away holds no secrets: those that operations declare so are taken out, by name and by value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from provisioning.core.conformity import credential_of
from provisioning.core.redaction import MIN_SECRET_CHARS, Redactor
from provisioning.core.workflow import Plan, Task
from provisioning.views.plan_text import masked

HIDDEN = "param"
"""Stands for the name of a secret that was written out and has none."""


def redactor_of(plan: Plan | None) -> Redactor:
    """Takes out the values of secret params that a plan has written out: no manifest may, but a file may say anything.

    Those that have names never were in the spool: the worker has taken them out of all that it wrote.
    """
    values = {text for text in map(_text, _literals(plan)) if len(text) >= MIN_SECRET_CHARS} if plan else set[str]()
    return Redactor({HIDDEN if len(values) == 1 else f"{HIDDEN}-{i}": text for i, text in enumerate(sorted(values), 1)})


def _literals(plan: Plan) -> Iterator[Any]:
    for task in plan.workflow.tasks:
        calls = [(task.operation, task.params)]
        if task.undo and task.undo.params:
            calls.append((task.undo.operation, task.undo.params))
        for operation, params in calls:
            secret = plan.operations[operation].secret if operation in plan.operations else ()
            yield from (params[name] for name in secret if name in params and credential_of(params[name]) is None)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def shown_params(plan: Plan, task: Task) -> dict[str, Any]:
    """A task's params: of a secret the name alone, `***` where somebody has written it out."""
    secret = plan.operations[task.operation].secret if task.operation in plan.operations else ()
    return masked(task.params, [name for name in secret if credential_of(task.params.get(name)) is None])
