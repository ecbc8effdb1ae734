"""Metrics: what is counted of workflows and attempts, the text that Prometheus reads, and the file that it is in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.clock import boot_id, boottime, new_ulid, now
from provisioning.config import Audit as AuditSettings
from provisioning.config import Config
from provisioning.core.chain import Head
from provisioning.core.counters import BOUNDS_SECONDS, Counters, Histogram
from provisioning.core.drop import REASONS
from provisioning.core.scheduler import Now
from provisioning.core.states import Outcome, TaskState, WorkflowState
from provisioning.core.workflow import Attempt, TaskCheckpoint
from provisioning.orchestrator.metering import Meter
from provisioning.orchestrator.oversight import Oversight
from provisioning.storage import files
from provisioning.storage.active import name_active, unname_active
from provisioning.storage.audit import Audit, Tail
from provisioning.storage.spool import Spool
from provisioning.views.census import DAMAGED, Census
from provisioning.views.metrics import Readings, metrics_text
from tests.metrics import samples
from tests.simulation.values import EPOCH

ROOT = Path(__file__).parents[2]
ALL = Readings("/spool", "1.0", 1.0, 2.0, 10, 3, 4, 5, 6, Head(7, "a" * 64), {"failed": 2}, {"pending": 3}, Counters())


def worked() -> Counters:
    """Counters of an orchestrator that has done something of everything."""
    made = Counters()
    for event in ("accepted", "rejected", "request", "started", "ended", "taken"):
        record = {"event": event, "door": "drop", "code": "symlink", "verb": "cancel", "state": "failed"}
        made.note_event(cast("dict[str, object]", record))
    made.note_attempt("servers.create", ended(Outcome.FAILED, TaskState.PENDING, seconds=2.0))
    made.note_attempt("servers.create", ended(Outcome.SUCCEEDED, TaskState.SUCCEEDED, seconds=0.1))
    made.note_attempt("servers.create", ended(Outcome.INTERRUPTED, TaskState.PENDING, seconds=99_999.0))
    made.note_attempt("servers.delete", ended(Outcome.FAILED, TaskState.FAILED, seconds=2.0))
    made.note_attempt("servers.delete", ended(Outcome.NOT_STARTED, TaskState.PENDING, seconds=0.0))
    made.queue_seconds.observe(0.25)
    return made


def ended(outcome: Outcome, state: TaskState, *, seconds: float) -> TaskCheckpoint:
    attempt = Attempt(
        number=1,
        started_at=EPOCH,
        boot_id="b",
        worker="w",
        ended_at=EPOCH + timedelta(seconds=seconds),
        outcome=outcome,
    )
    return TaskCheckpoint(format=1, task_id="a", state=state, attempts=(attempt,))


def test_what_was_counted_is_in_the_text() -> None:
    found = samples(metrics_text(ALL._replace(counters=worked())))
    assert found["provisioning_accepted_total", (("door", "drop"),)] == 1
    assert found["provisioning_rejected_total", (("reason", "symlink"),)] == 1
    assert found["provisioning_rejected_total", (("reason", "fifo"),)] == 0
    assert found["provisioning_requests_total", (("verb", "cancel"),)] == 1
    assert found["provisioning_workflows_started_total", ()] == 1
    assert found["provisioning_workflows_ended_total", (("state", "failed"),)] == 1
    assert found["provisioning_attempts_total", (("outcome", "failed"),)] == 2
    assert (found["provisioning_retries_total", ()], found["provisioning_interruptions_total", ()]) == (1, 1)
    assert found["provisioning_workflows", (("state", "failed"),)] == 2
    assert found["provisioning_workflows", (("state", "running"),)] == 0
    assert found["provisioning_tasks", (("state", "pending"),)] == 3
    assert found["provisioning_audit_head_number", (("hash", "a" * 64),)] == 7
    create = ("operation", "servers.create")
    name = "provisioning_attempt_duration_seconds"
    assert found[f"{name}_bucket", (("le", "0.1"), create)] == 1
    assert found[f"{name}_bucket", (("le", "3"), create)] == 2
    assert found[f"{name}_bucket", (("le", "+Inf"), create)] == found[f"{name}_count", (create,)] == 3
    assert found[f"{name}_count", (("operation", "servers.delete"),)] == 1  # what was not started took no time
    assert found["provisioning_queue_wait_seconds_sum", ()] == 0.25


def test_everything_is_there_from_the_beginning() -> None:
    """A rate needs the zero before the first one."""
    found = samples(metrics_text(ALL))
    for name, label, values in (
        ("workflows", "state", WorkflowState),
        ("attempts_total", "outcome", Outcome),
        ("rejected_total", "reason", REASONS),
    ):
        assert {(f"provisioning_{name}", ((label, str(value)),)) for value in values} <= found.keys()


def test_names_follow_the_conventions() -> None:
    """By promtool where there is one; and by its main rules."""
    text = metrics_text(ALL._replace(counters=worked()))
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    assert kinds.keys() == set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    for name, kind in kinds.items():
        assert re.fullmatch(r"provisioning_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert kind != "histogram" or name.endswith("_seconds"), name
    if promtool := shutil.which("promtool"):
        done = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@given(
    st.text(max_size=30) | st.sampled_from(["\udcff", '"', "\\", "\n", "\x1b[2J", "\\n", 'x"} 1\nprovisioning_slots 9'])
)
def test_no_name_is_more_than_a_label(name: str) -> None:
    text = metrics_text(ALL._replace(spool=name))
    assert samples(text) == samples(metrics_text(ALL))
    assert all(line.isprintable() for line in text.splitlines())


@given(st.lists(st.floats(0, 1e6), max_size=40))
def test_a_histogram_counts_each_once_and_where_it_belongs(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
    for at, bound in enumerate(BOUNDS_SECONDS):
        assert sum(histogram.counts[: at + 1]) == sum(value <= bound for value in values)


# The census


def put(spool: Spool, state: WorkflowState, workflow_id: str = "", **counts: int) -> str:
    """A claimed workflow of which there is a checkpoint and nothing more."""
    workflow_id = workflow_id or new_ulid()
    folder = spool.workflows / workflow_id
    files.make_dir(folder)
    checkpoint = {
        "format": 1,
        "workflow_id": workflow_id,
        "state": str(state),
        "operator": "o",
        "submitted_at": EPOCH,
        "started_at": EPOCH,
        "ended_at": EPOCH,
        "boot_id": "b",
        "counts": counts,
    }
    data = msgspec.json.encode(checkpoint)
    files.write_atomic(folder / "workflow.json", data, durable=False, scratch=spool.scratch)
    return workflow_id


def test_a_census_keeps_up(spool: Spool) -> None:
    told: list[str] = []
    census = Census(spool, lambda checkpoint: told.append(checkpoint.workflow_id))
    first = put(spool, WorkflowState.SUCCEEDED, succeeded=2)
    second = put(spool, WorkflowState.RUNNING, pending=1, running=1)
    files.make_dir(spool.workflows / new_ulid())  # its claim was cut off
    assert census.round(boottime() + 10)
    assert +census.workflows == {"succeeded": 1, "running": 1, "queued": 1}
    assert +census.tasks == {"succeeded": 2, "pending": 1, "running": 1}
    assert told == [first]
    put(spool, WorkflowState.FAILED, second, failed=2)
    census.note(second)
    files.remove_tree(spool.workflows / first)
    (spool.workflows / put(spool, WorkflowState.FAILED) / "workflow.json").write_bytes(b"{")
    assert census.round(boottime() + 10)
    assert +census.workflows == {"failed": 1, "queued": 1, DAMAGED: 1}
    assert (+census.tasks, told) == ({"failed": 2}, [first, second])


def test_what_changed_while_it_was_active_is_seen_although_nobody_says_so(spool: Spool) -> None:
    workflow_id = put(spool, WorkflowState.RUNNING)
    census = Census(spool)
    name_active(spool.root, workflow_id)
    assert census.round(boottime() + 10)
    put(spool, WorkflowState.PAUSED, workflow_id)
    unname_active(spool.root, workflow_id)
    assert census.round(boottime() + 10)
    assert +census.workflows == {"paused": 1}


def test_a_census_can_be_made_in_portions_and_reads_nothing_twice(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(20):
        put(spool, WorkflowState.SUCCEEDED, succeeded=1)
    census = Census(spool)
    rounds = 1
    while not census.round(0.0):
        rounds += 1
    assert (rounds, +census.workflows) == (20, {"succeeded": 20})
    monkeypatch.setattr("provisioning.views.census.WorkflowFolder", None)
    assert census.round(boottime() + 10)


# Following the audit log


def test_a_tail_has_each_record_once_over_files_and_crashes(spool: Spool) -> None:
    writer = Audit(spool.root, AuditSettings(bytes=400))
    writer.append("before")
    tail = Tail(Audit(spool.root))
    seen: list[Any] = []

    def read() -> None:
        while records := tail.read(500):
            seen.extend(record["number"] for record in records)

    for number in range(12):
        writer.append("accepted", number=number)
        if number in (0, 1, 7):
            read()
        if number == 4:
            with open(spool.root / "audit" / "audit.jsonl", "ab") as file:
                file.write(b'{"half')
    assert len(writer.parts()) > 3
    read()
    assert seen == list(range(12))
    assert tail.read(500) == []


def test_a_tail_of_a_log_that_begins_or_goes_meanwhile(spool: Spool) -> None:
    tail = Tail(Audit(spool.root))
    assert tail.read(500) == []
    Audit(spool.root).append("accepted")
    assert len(tail.read(500)) == 1
    os.rename(spool.root / "audit" / "audit.jsonl", spool.root / "audit" / "damaged")
    assert tail.read(500) == []
    Audit(spool.root).append("accepted")
    assert len(tail.read(500)) == 1


# The file


class Still:
    """An orchestrator that holds nothing."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.scanned_at = boottime()


@pytest.fixture
def metered(spool: Spool) -> tuple[Spool, Config]:
    return spool, Config.load({"paths.spool": str(spool.root)}, {"HOME": "/"}, euid=os.geteuid())


def meter_of(spool: Spool, config: Config) -> Meter:
    return Meter(spool, config, Oversight(spool, config), cast("Any", Still()))


def at(boot: float) -> Now:
    return Now(now(), boot, boot_id())


def step_to_the_end(meter: Meter, boot: float) -> None:
    for _ in range(100):
        meter.step(at(boot))
        if meter.next_due() > boot:
            return
    raise AssertionError("it never ends")


def test_the_file_appears_and_says_what_others_did(metered: tuple[Spool, Config]) -> None:
    spool, config = metered
    put(spool, WorkflowState.FAILED, failed=1)
    meter = meter_of(spool, config)
    Audit(spool.root).append("rejected", code="fifo")  # by another process
    head = Audit(spool.root).append("accepted", door="cli")
    step_to_the_end(meter, boottime())
    path = spool.root / "metrics.prom"
    found = samples(path.read_text())
    assert found["provisioning_rejected_total", (("reason", "fifo"),)] == 1
    assert found["provisioning_accepted_total", (("door", "cli"),)] == 1
    assert found["provisioning_audit_head_number", (("hash", head.hash),)] == head.n
    assert found["provisioning_workflows", (("state", "failed"),)] == 1
    assert path.stat().st_mode & 0o777 == 0o600
    assert abs(found["provisioning_last_scan_timestamp_seconds", ()] - now().timestamp()) < 5


def test_it_is_written_when_it_is_time_and_not_at_all_when_switched_off(metered: tuple[Spool, Config]) -> None:
    spool, config = metered
    meter, path = meter_of(spool, config), spool.root / "metrics.prom"
    step_to_the_end(meter, 1000.0)
    before = path.stat().st_ino
    meter.step(at(1014.9))
    assert path.stat().st_ino == before
    step_to_the_end(meter, 1016.0)
    assert path.stat().st_ino != before
    path.unlink()
    off = msgspec.structs.replace(config, metrics=msgspec.structs.replace(config.metrics, seconds=0.0))
    meter_of(spool, off).step(at(1e9))
    assert not path.exists()


def test_in_a_folder_of_others_it_can_be_read_and_replaces_a_link(
    metered: tuple[Spool, Config], tmp_path: Path
) -> None:
    spool, config = metered
    folder, victim = tmp_path / "textfile", tmp_path / "victim"
    folder.mkdir(mode=0o777)
    victim.write_text("untouched")
    victim.chmod(0o600)
    path = folder / "provisioning.prom"
    path.symlink_to(victim)
    config = msgspec.structs.replace(config, metrics=msgspec.structs.replace(config.metrics, file=path))
    step_to_the_end(meter_of(spool, config), boottime())
    assert (victim.read_text(), victim.stat().st_mode & 0o777) == ("untouched", 0o600)
    assert (path.is_symlink(), path.stat().st_mode & 0o777) == (False, 0o644)
    assert os.listdir(folder) == ["provisioning.prom"]
    assert samples(path.read_text())


def test_a_file_that_cannot_be_written_ends_nothing(
    metered: tuple[Spool, Config], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool, config = metered
    metrics = msgspec.structs.replace(config.metrics, file=tmp_path / "nowhere" / "x.prom")
    meter = meter_of(spool, msgspec.structs.replace(config, metrics=metrics))
    step_to_the_end(meter, 1000.0)
    step_to_the_end(meter, 2000.0)
    assert len([each for each in caplog.records if "metrics cannot be written" in each.message]) == 1
