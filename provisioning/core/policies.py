"""Policies of tasks as a manifest writes them: durations, retries, what an interruption or a failure means."""

from __future__ import annotations

import re
from typing import Any

from provisioning.core.locate import Finding
from provisioning.core.tokens import Path
from provisioning.core.workflow import Retry

_UNIT_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


def seconds(duration: str) -> float:
    """The seconds of "1h30m"; the schema has checked its shape."""
    return sum(int(n) * _UNIT_MS[unit] for n, unit in re.findall(r"([0-9]+)(ms|[dhms])", duration)) / 1000


def duration(seconds: float) -> str:
    """The text of a duration, to the millisecond."""
    left, text = round(seconds * 1000), ""
    for unit, size in _UNIT_MS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def policies(table: dict[str, Any], defaults: dict[str, Any], path: Path, findings: list[Finding]) -> dict[str, Any]:
    """The fields of a Task that say how its attempts are made, those of `defaults` where the table has none."""
    made = dict(defaults)
    if "timeout" in table:
        made["timeout_seconds"] = seconds(table["timeout"])
    if "expected" in table:
        made["expected_seconds"] = seconds(table["expected"])
    if "on_interrupt" in table:
        made["on_interrupt"] = table["on_interrupt"]
    if "retry" in table:
        made["retry"] = retry = _retry(table["retry"])
        if retry.max_delay_seconds < retry.initial_delay_seconds:
            hint = "make max_delay at least as long as initial_delay"
            findings.append(
                Finding("bad-value", "max_delay is below initial_delay", hint, (*path, "retry", "max_delay"))
            )
    return made


def _retry(table: dict[str, Any]) -> Retry:
    first = seconds(table.get("initial_delay", "5s"))
    return Retry(
        max_attempts=int(table["max_attempts"]),
        backoff=table.get("backoff", "exponential"),
        initial_delay_seconds=first,
        max_delay_seconds=seconds(table["max_delay"]) if "max_delay" in table else max(300.0, first),
        on=tuple(table.get("on", ())),
    )
