"""Metrics of a spool as text that Prometheus reads (exposition format 0.0.4); names follow its conventions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from provisioning.core.chain import Head
from provisioning.core.counters import BOUNDS_SECONDS, Counters, Histogram
from provisioning.core.drop import REASONS
from provisioning.core.states import ENDED_WORKFLOWS, Outcome, TaskState, WorkflowState

DOORS = ("cli", "drop", "receive", "gateway")
VERBS = ("cancel", "pause", "resume", "retry", "rollback")

Sample = tuple[str, dict[str, str], float]
"""What follows the name of the metric, labels, value."""


class Readings(NamedTuple):
    """All that is shown, of one spool at one instant. Times are seconds since 1970."""

    spool: str
    version: str
    started_at: float
    scanned_at: float
    """When the whole spool was last looked at."""
    slots: int
    running: int
    """Attempts under way, those of earlier orchestrators included."""
    free_bytes: int
    free_inodes: int
    wanted_bytes: int
    """Below so many, nothing is accepted or started."""
    head: Head
    """Of the audit log."""
    workflows: Mapping[str, int]
    """By state."""
    tasks: Mapping[str, int]
    counters: Counters


class Family(NamedTuple):
    """One metric: its samples, and what they mean."""

    name: str
    kind: str
    meaning: str
    samples: Iterable[Sample]


def metrics_text(readings: Readings) -> str:
    """The page. Every state, outcome, verb and reason is there from the beginning, as rates need it."""
    of_all = {"spool": readings.spool}
    lines = []
    for family in _families(readings):
        name = f"provisioning_{family.name}"
        lines += [f"# HELP {name} {family.meaning}", f"# TYPE {name} {family.kind}"]
        lines += [f"{name}{end}{_labels(of_all | labels)} {value!r}" for end, labels, value in family.samples]
    return "\n".join([*lines, ""])


def _families(found: Readings) -> Iterator[Family]:
    counters, events = found.counters, found.counters.events
    yield _one("build_info", "Version of the orchestrator; always 1.", 1, version=found.version)
    yield _one("start_time_seconds", "When the orchestrator started.", found.started_at)
    yield _one("last_scan_timestamp_seconds", "When the whole spool was last looked at.", found.scanned_at)
    yield _one("slots", "Attempts that may run at once.", found.slots)
    yield _one("slots_used", "Attempts under way, adopted ones included.", found.running)
    yield _one("free_bytes", "Free on the file system of the spool.", found.free_bytes)
    yield _one("free_bytes_wanted", "Below so many nothing is accepted or started.", found.wanted_bytes)
    yield _one("free_inodes", "Free inodes on the file system of the spool.", found.free_inodes)
    number = "Number of the last record of the audit log, with its hash: for audit verify --head."
    yield _one("audit_head_number", number, found.head.n, hash=found.head.hash)
    yield _by("workflows", "gauge", "Workflows in the spool.", "state", found.workflows, map(str, WorkflowState))
    yield _by("tasks", "gauge", "Tasks of claimed workflows.", "state", found.tasks, map(str, TaskState))
    accepted = _of_event(events, "accepted")
    yield _by("accepted_total", "counter", "Manifests that were accepted.", "door", accepted, DOORS)
    rejected = _of_event(events, "rejected")
    yield _by("rejected_total", "counter", "Drops and submissions that were rejected.", "reason", rejected, REASONS)
    asked = _of_event(events, "request")
    yield _by("requests_total", "counter", "What was asked of workflows.", "verb", asked, VERBS)
    started = sum(_of_event(events, "started").values())
    yield Family("workflows_started_total", "counter", "Workflows that were claimed.", [("", {}, started)])
    ended = _of_event(events, "ended")
    text = "Workflows that have ended."
    yield _by("workflows_ended_total", "counter", text, "state", ended, sorted(map(str, ENDED_WORKFLOWS)))
    text = "Attempts that have ended."
    yield _by("attempts_total", "counter", text, "outcome", counters.attempts, map(str, Outcome))
    interrupted = counters.attempts[str(Outcome.INTERRUPTED)]
    for name, meaning, value in (
        ("retries_total", "Attempts that failed and are followed by another.", counters.retries),
        ("interruptions_total", "Attempts that were cut off, so that their end is not known.", interrupted),
        ("adoptions_total", "Attempts of an earlier orchestrator that were found running.", counters.adoptions),
    ):
        yield Family(name, "counter", meaning, [("", {}, value)])
    by_operation = [
        sample
        for operation, histogram in sorted(counters.attempt_seconds.items())
        for sample in _buckets(histogram, operation=operation)
    ]
    yield Family("attempt_duration_seconds", "histogram", "How long attempts took.", by_operation)
    for name, meaning, histogram in (
        ("workflow_duration_seconds", "From the claim of a workflow to its end.", counters.workflow_seconds),
        ("queue_wait_seconds", "From when a workflow could begin to its claim.", counters.queue_seconds),
    ):
        yield Family(name, "histogram", meaning, _buckets(histogram))


def _one(name: str, meaning: str, value: float, **labels: str) -> Family:
    return Family(name, "gauge", meaning, [("", labels, value)])


def _by(  # noqa: PLR0913 - a family, and how its samples differ
    name: str, kind: str, meaning: str, label: str, values: Mapping[str, int], known: Iterable[str]
) -> Family:
    """A sample for each of `known`, and for what else there is."""
    names = dict.fromkeys([*known, *sorted(each for each, count in values.items() if count)])
    return Family(name, kind, meaning, [("", {label: each}, values.get(each, 0)) for each in names])


def _of_event(events: Mapping[tuple[str, str], int], event: str) -> dict[str, int]:
    return {detail: count for (name, detail), count in events.items() if name == event}


def _buckets(histogram: Histogram, **labels: str) -> Iterator[Sample]:
    up_to = list(itertools.accumulate(histogram.counts))
    for bound, count in zip((*map(_bound, BOUNDS_SECONDS), "+Inf"), up_to, strict=True):
        yield "_bucket", {**labels, "le": bound}, count
    yield "_sum", labels, histogram.sum_seconds
    yield "_count", labels, up_to[-1]


def _bound(seconds: float) -> str:
    return f"{seconds:g}"


def _labels(labels: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    """A label's value. No byte of a name that is no text, and no other control character, reaches whoever reads it."""
    text = value.encode("utf-8", "backslashreplace").decode()
    text = "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
