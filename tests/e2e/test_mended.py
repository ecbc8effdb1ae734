"""Defects that were mended, each as a user would meet it again on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.conftest import PROGRAM, Program
from tests.waiting import wait_for


def manifest(folder: Path, *tasks: Mapping[str, object], **head: object) -> str:
    """A manifest file of these tasks."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({"schema": 1, "name": "mended", **head, "tasks": tasks}))
    return str(path)


NOOP = {"id": "a", "operation": "selftest.noop"}


def test_pause_and_resume_do_not_open_a_workflow_before_its_time(program: Program, tmp_path: Path) -> None:
    workflow_id = program.says("batch", "submit", manifest(tmp_path, NOOP, not_before="2099-01-01T00:00:00Z"))
    program.run("workflow", "pause", workflow_id)
    program.run("workflow", "resume", workflow_id)
    program.run("orchestrator", "run", "--until-empty")
    assert program.json("workflow", "status", workflow_id)["state"] in ("running", "abandoned")
    program.run("workflow", "cancel", workflow_id)
    assert program.json("workflow", "status", workflow_id)["state"] == "cancelled"


def test_cancelling_an_abandoned_workflow_ends_its_task(program: Program, tmp_path: Path) -> None:
    sleeper = {"id": "a", "operation": "selftest.sleep", "params": {"seconds": 600}}
    workflow_id = program.says("batch", "submit", manifest(tmp_path, sleeper))
    with subprocess.Popen([PROGRAM, "orchestrator", "run"], env=program.environment) as process:
        log = program.spool / "workflows" / workflow_id / "logs" / "a.1.log"
        wait_for(log.exists, what="the attempt to begin")
        process.send_signal(signal.SIGKILL)
    program.run("workflow", "cancel", workflow_id)
    outcome = program.spool / "workflows" / workflow_id / "outcomes" / "a.1.json"
    wait_for(outcome.exists, what="the task to be ended")
    assert json.loads(outcome.read_text())["outcome"] == "cancelled"
    program.run("orchestrator", "run", "--until-empty", code=1)
    assert program.json("workflow", "status", workflow_id)["state"] == "cancelled"


def test_nothing_is_imported_from_the_present_folder(program: Program, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("multiprocessing.py", "selectors.py", "provisioning.py"):
        (trap / name).write_text(f"open({str(tmp_path / 'sprung')!r}, 'a')\n")
    program.run("selftest", "noop", cwd=trap)
    assert not (tmp_path / "sprung").exists()


def test_a_foreground_command_uses_its_own_operations_beside_an_orchestrator(program: Program, tmp_path: Path) -> None:
    program.run("orchestrator", "start")
    own = tmp_path / "own" / "greetings"
    own.mkdir(parents=True)
    (own / "hello.nu").write_text(
        "use ../lib/operation.nu *\n\n# Greet.\n@operation {idempotent: true}\n"
        "export def say-hello [\n  name: string # Whom\n]: nothing -> string {\n  $'hello ($name)'\n}\n"
    )
    program.environment["PROVISIONING_NULIB"] = str(tmp_path / "own")
    assert program.says("greeting", "hello", "Bob") == "hello Bob"


def test_commands_run_has_no_shell(program: Program, tmp_path: Path) -> None:
    program.run("command", "run", "--", "eval", "true", code=1)
    program.run("command", "run", "--", "test", "-v", f"a[$(touch {tmp_path}/sprung)]", code=1)
    program.run("command", "run", "--environment", json.dumps({"BASH_ENV": "/nonexistent"}), "--", "true")
    assert not (tmp_path / "sprung").exists()


def test_an_operation_that_is_broken_for_a_while_keeps_its_workflows(program: Program, tmp_path: Path) -> None:
    own = tmp_path / "own" / "greetings"
    own.mkdir(parents=True)
    sound = (
        "use ../lib/operation.nu *\n\n# Greet.\n@operation {idempotent: true}\n"
        "export def say-hello []: nothing -> string {\n  'hello'\n}\n"
    )
    (own / "hello.nu").write_text(sound)
    program.environment["PROVISIONING_NULIB"] = str(tmp_path / "own")
    workflow_id = program.says("batch", "submit", manifest(tmp_path, {"id": "a", "operation": "greetings.hello"}))
    (own / "hello.nu").write_text(sound.removesuffix("}\n"))
    program.run("orchestrator", "run", "--until-empty", code=1)
    assert program.json("workflow", "status", workflow_id)["state"] == "queued"
    (own / "hello.nu").write_text(sound)
    program.run("orchestrator", "run", "--until-empty")
    assert program.json("workflow", "status", workflow_id)["state"] == "succeeded"


def test_operations_that_others_may_change_are_refused(program: Program, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    os.chmod(own, 0o777)
    program.environment["PROVISIONING_NULIB"] = str(own)
    said = program.run("operation", "list", code=5).stderr
    assert str(own) in said


def test_a_task_may_be_ended_by_any_signal(program: Program) -> None:
    said = program.run("command", "run", "--", "bash", "-c", "kill -40 0", code=1).stderr
    assert "signal 40" in said


def test_wrong_input_is_not_tried_again(program: Program) -> None:
    program.run("server", "stop", "nosuch", code=1)
    (row,) = program.json("workflow", "list")
    (task,) = program.json("workflow", "status", row["workflow_id"])["tasks"]
    assert len(task["attempts"]) == 1
