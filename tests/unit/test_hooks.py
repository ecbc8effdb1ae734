"""The operator's program: what it is told, how often, within which limits, and that nobody waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from provisioning.config import Config
from provisioning.core.notices import NOTICES, notice_of
from provisioning.errors import UsageError
from provisioning.orchestrator.hooks import Hooks
from provisioning.storage import notified
from provisioning.storage.audit import Audit
from provisioning.storage.spool import Spool
from tests.unit.test_report import failed
from tests.unit.test_views import ID
from tests.waiting import wait_for

WAITS = 'while [ ! -e "$0.go" ]; do sleep 0.02; done'


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with contextlib.closing(Spool.create(tmp_path / "spool")) as made:
        yield made


class Told:
    """A program that writes down what it is told, and the hooks that run it."""

    def __init__(self, spool: Spool, folder: Path, script: str = "", **settings: Any) -> None:
        self.spool, self.folder = spool, folder
        self.program = folder / "tell"
        self.program.write_text(f'#!/bin/sh\n{script}\ncat >"$0.$$.part" && mv "$0.$$.part" "$0.$$.json"\n')
        self.program.chmod(0o700)
        settings = {"command": [str(self.program), "x"], **settings}
        self.config = Config.load({f"notify.{name}": value for name, value in settings.items()}, {}, euid=os.geteuid())
        self.hooks = Hooks(spool, self.config)
        self.hooks.look()
        self.audit = Audit(spool.root)

    def notices(self) -> list[dict[str, Any]]:
        """What it was told, in the order of the notices."""
        found = [json.loads(path.read_text()) for path in self.folder.glob("tell.*.json")]
        return sorted(found, key=lambda each: each["notice"])

    def until(self, done: Callable[[], bool], what: str) -> None:
        def look() -> bool:
            self.hooks.look()
            return done()

        wait_for(look, what=what)

    def until_quiet(self) -> None:
        self.until(lambda: not self.hooks.busy(), "all to be told")

    def go(self) -> None:
        (self.folder / "tell.go").touch()


def test_each_notice_is_told_once_and_in_full(spool: Spool, tmp_path: Path) -> None:
    failed(spool)
    told = Told(spool, tmp_path)
    told.audit.append("accepted", workflow_id=ID)
    told.audit.append("started", workflow_id=ID)
    told.audit.append("ended", workflow_id=ID, state="failed", reason="1 of 3 tasks failed")
    told.audit.append("waiting", workflow_id=ID, task_id="b")
    told.until_quiet()
    accepted, ended, waiting = told.notices()
    assert (accepted["event"], accepted["workflow_id"], accepted["operator"]) == ("accepted", ID, "<b>alice</b>")
    assert "failed" not in accepted
    assert (ended["event"], ended["state"], ended["tasks"]) == ("failed", "failed", 3)
    assert waiting["event"] == "waiting-for-person"
    assert waiting["task_id"] == "b"
    told.hooks.close()


def test_a_failure_is_told_with_its_error(spool: Spool, tmp_path: Path) -> None:
    folder = failed(spool)
    folder.append_event({"event": "task", "task_id": "b", "state": "failed"})
    told = Told(spool, tmp_path)
    told.audit.append("ended", workflow_id=ID, state="failed")
    told.until_quiet()
    (notice,) = told.notices()
    assert [(each["task_id"], each["error"]["code"]) for each in notice["failed"]] == [("b", "provisioning::x::y")]
    told.hooks.close()


def test_only_what_is_asked_for_is_told(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path, on=["failed"])
    for state in ("succeeded", "failed", "cancelled"):
        told.audit.append("ended", workflow_id=ID, state=state)
    told.until_quiet()
    assert [each["event"] for each in told.notices()] == ["failed"]
    told.hooks.close()


def test_no_more_run_at_once_than_allowed_and_nobody_waits_for_them(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path, WAITS, at_once=3)
    for _ in range(10):
        told.audit.append("accepted", workflow_id=ID)
    begin = time.monotonic()
    for _ in range(20):
        told.hooks.look()
    assert time.monotonic() - begin < 2.0  # ten of them that each wait would be for ever
    assert len(told.hooks.waitables()) == 3
    told.go()
    told.until_quiet()
    assert [each["notice"] for each in told.notices()] == list(range(1, 11))
    told.hooks.close()


def test_one_that_hangs_is_ended_with_all_that_it_started(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(spool, tmp_path, 'echo "$$" >"$0.pid"; echo stuck >&2; sleep 600 & wait', seconds=0.5)
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert "did not end within 0.5 s: stuck" in caplog.text
    group = int((tmp_path / "tell.pid").read_text())
    wait_for(lambda: not _lives(group), what="the end of its group")
    assert told.notices() == []
    told.hooks.close()


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_fails_or_talks_without_end_harms_nobody(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(spool, tmp_path, "yes no | head -c 3000000 >&2; yes | head -c 3000000; exit 3")
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert "ended with 3: no" in caplog.text
    assert len(caplog.text) < 5000
    assert notified.load_notified(spool.root) == 1  # it is not told again
    told.hooks.close()


def test_after_a_crash_what_was_not_told_whole_is_told_again_with_its_number(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path, WAITS)
    told.audit.append("accepted", workflow_id=ID)
    told.audit.append("ended", workflow_id=ID, state="succeeded")
    told.until(lambda: len(told.hooks.waitables()) == 2, "both to be started")
    told.hooks.close()  # as a crash would leave it
    told.audit.append("ended", workflow_id=ID, state="failed")  # while nobody tells
    told.go()
    again = Told(spool, tmp_path)
    again.until_quiet()
    wait_for(lambda: len(again.notices()) == 5, what="those that went on by themselves too")
    assert [each["notice"] for each in again.notices()] == [1, 1, 2, 2, 3]
    again.hooks.close()


def test_what_was_before_there_was_a_program_is_not_told(spool: Spool, tmp_path: Path) -> None:
    Audit(spool.root).append("accepted", workflow_id=ID)
    told = Told(spool, tmp_path)
    told.until_quiet()
    assert told.notices() == []
    assert notified.load_notified(spool.root) == 1
    told.hooks.close()


def test_one_process_tells_and_the_next_takes_over(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path)
    other = Hooks(spool, told.config)
    other.look()
    told.audit.append("accepted", workflow_id=ID)
    other.look()
    assert not other.busy()
    told.until_quiet()
    told.hooks.close()
    other._try_at = 0.0
    other.look()
    assert not other.busy()
    assert len(told.notices()) == 1
    other.close()


def test_the_audit_log_may_begin_a_new_file(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path)
    small = Audit(spool.root, Config.load({"audit.bytes": 600}, {}, euid=0).audit)
    for _ in range(8):
        small.append("accepted", workflow_id=ID)
        told.hooks.look()
    assert len(small.parts()) > 2
    told.until_quiet()
    assert [each["notice"] for each in told.notices()] == list(range(1, 9))
    told.hooks.close()


def test_a_program_that_others_could_change_is_not_run(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(spool, tmp_path)
    told.program.chmod(0o777)
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert told.notices() == []
    assert "others may write" in caplog.text
    told.hooks.close()


def test_a_program_that_is_gone_stops_nothing(spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told = Told(spool, tmp_path)
    told.program.unlink()
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert "notice 1 cannot be told" in caplog.text
    told.hooks.close()


def test_an_audit_log_that_cannot_be_read_ends_nothing(
    spool: Spool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = spool.root / "audit" / "audit.jsonl"
    log.parent.mkdir(exist_ok=True)
    log.mkdir()
    told = Told(spool, tmp_path)
    assert "nobody can be told of anything now" in caplog.text
    told.hooks.look()
    assert caplog.text.count("nobody can be told") == 1
    log.rmdir()
    told.hooks._try_at = 0.0
    told.hooks.look()
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert len(told.notices()) == 1
    told.hooks.close()


def test_its_end_wakes_the_loop(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path, WAITS)
    told.audit.append("accepted", workflow_id=ID)
    told.until(lambda: bool(told.hooks.waitables()), "its start")
    assert not select.select(told.hooks.waitables(), [], [], 0)[0]
    told.go()
    assert select.select(told.hooks.waitables(), [], [], 20)[0]
    told.hooks.finish(5.0)
    assert not told.hooks.busy()
    told.hooks.close()


def test_without_a_program_nothing_is_done(spool: Spool) -> None:
    hooks = Hooks(spool, Config.load({}, {}, euid=0))
    hooks.look()
    hooks.finish(1.0)
    assert notified.load_notified(spool.root) is None
    hooks.close()


@pytest.mark.parametrize(
    ("key", "value"),
    [("command", []), ("command", ["tell"]), ("command", "/x"), ("on", ["never"]), ("at_once", 0), ("seconds", -1)],
)
def test_settings_that_make_no_sense_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError):
        Config.load({f"notify.{key}": value if not isinstance(value, str) else [value, 1]}, {}, euid=0)


def test_settings_from_the_environment() -> None:
    environ = {"PROVISIONING_NOTIFY_COMMAND": "/usr/bin/tell -v", "PROVISIONING_NOTIFY_ON": "failed waiting-for-person"}
    found = Config.load({}, environ, euid=0).notify
    assert (found.command, found.on) == (("/usr/bin/tell", "-v"), ("failed", "waiting-for-person"))
    assert Config.load({}, {}, euid=0).notify.on == NOTICES


@pytest.mark.parametrize("record", [{}, {"event": "ended", "n": 1, "state": "x"}, {"event": "accepted", "n": "1"}])
def test_a_record_that_is_no_notice(record: dict[str, Any]) -> None:
    assert notice_of(record) is None


def test_a_signal_to_the_orchestrator_is_not_one_to_the_program(spool: Spool, tmp_path: Path) -> None:
    told = Told(spool, tmp_path, f'trap "touch $0.hit" {signal.SIGINT.value}; ps -o pgid= -p $$ >"$0.group"')
    told.audit.append("accepted", workflow_id=ID)
    told.until_quiet()
    assert int((tmp_path / "tell.group").read_text()) != os.getpgid(0)
    told.hooks.close()
