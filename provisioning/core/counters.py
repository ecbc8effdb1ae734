"""What only grows while a process works: sums and histograms, as monitoring wants them. A restart begins them anew."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

from provisioning.core.states import Outcome, TaskState
from provisioning.core.workflow import TaskCheckpoint

BOUNDS_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)
"""Upper bounds of a histogram's buckets: what is equal to one is below it."""


class Histogram:
    """How often something took how long, in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        """By bucket; the last one has no bound."""
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count it."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.sum_seconds += seconds


class Counters:
    """What one orchestrator has counted since its start."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, str]] = Counter()
        """Records of the audit log, whichever process has added them, by event and its door, reason, verb or state."""
        self.attempts: Counter[str] = Counter()
        """Attempts that have ended, by outcome."""
        self.attempt_seconds: dict[str, Histogram] = defaultdict(Histogram)
        """By operation."""
        self.retries = 0
        self.adoptions = 0
        self.queue_seconds = Histogram()
        """From the instant at which a workflow could begin to its claim."""
        self.workflow_seconds = Histogram()
        """From its claim to its end."""

    def note_event(self, record: dict[str, object]) -> None:
        """Count a record of the audit log."""
        event = str(record.get("event", ""))
        of = {"accepted": "door", "rejected": "code", "request": "verb", "ended": "state"}.get(event, "")
        self.events[event, str(record.get(of, ""))] += 1

    def note_attempt(self, operation: str, after: TaskCheckpoint) -> None:
        """Count the latest attempt of a task, which has ended, by what its checkpoint says after it."""
        last = after.last
        if last is None or last.outcome is None:
            return
        self.attempts[str(last.outcome)] += 1
        if last.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and after.state is TaskState.PENDING and not after.held:
            self.retries += 1
        if last.ended_at is not None and last.outcome is not Outcome.NOT_STARTED:
            self.attempt_seconds[operation].observe(max(0.0, (last.ended_at - last.started_at).total_seconds()))
