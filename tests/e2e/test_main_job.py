"""The tour of the README, typed by a user: servers, batches, requests, and what the spool holds afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from provisioning import resources
from tests.e2e.conftest import PROGRAM, ROOT, Program
from tests.waiting import wait_for

SCHEMAS = {
    "submission.json": "submission",
    "plan.json": "plan",
    "workflow.json": "workflow",
    "tasks/*.json": "task",
    "outcomes/*.json": "outcome",
}
EXAMPLES = sorted(path for path in (ROOT / "spool" / "examples").iterdir())


def namespaces_are_allowed() -> bool:
    """Whether this kernel lets this user make the namespaces of a local server."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount", "--uts", "--net", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_namespaces = pytest.mark.skipif(not namespaces_are_allowed(), reason="the kernel forbids user namespaces")


def schema_problems(spool: Path) -> Iterator[str]:
    """What the schemas say against the files of claimed workflows."""
    for pattern, name in SCHEMAS.items():
        validator = Draft202012Validator(resources.schema(name))
        for path in spool.glob(f"workflows/*/{pattern}"):
            for error in validator.iter_errors(json.loads(path.read_bytes())):
                yield f"{path}: {error.json_path}: {error.message}"


@needs_namespaces
def test_a_server_from_creation_to_deletion(program: Program) -> None:
    program.run("orchestrator", "start")
    workflow_id = program.says("server", "create", "wuji", "--orchestrated")
    watched = program.run("workflow", "watch", workflow_id)
    assert "succeeded" in watched.stdout + watched.stderr
    page = program.json("workflow", "status", workflow_id)
    assert (page["state"], page["tasks"][0]["result"]["changed"]) == ("succeeded", True)
    assert program.json("server", "show", "wuji")["state"] == "running"
    assert program.says("server", "exec", "wuji", "--", "hostname") == "wuji"
    assert program.json("server", "create", "wuji")["changed"] is False
    assert [server["name"] for server in program.json("server", "list")] == ["wuji"]
    assert program.json("server", "delete", "wuji")["changed"] is True
    assert program.json("server", "delete", "wuji")["changed"] is False
    program.run("server", "show", "wuji", code=1)
    program.run("orchestrator", "stop")
    assert list(schema_problems(program.spool)) == []
    program.run("spool", "check")


@needs_namespaces
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_to_its_end(program: Program, example: Path) -> None:
    program.run("orchestrator", "start")
    undone = example.name == "rollback.toml"
    workflow_id = program.says("batch", "submit", str(example), "--wait", code=1 if undone else 0)
    page = program.json("workflow", "status", workflow_id)
    states = {task["task_id"]: task["state"] for task in page["tasks"]}
    if undone:
        assert (page["state"], states) == ("rolled_back", {"server": "undone", "note": "undone", "step": "failed"})
    else:
        assert set(states.values()) == {"succeeded"}
    assert program.json("server", "list", "--infra", page["infra"]) == []
    program.run("spool", "check")


def test_the_examples_show_what_batches_can_do() -> None:
    names = {path.name for path in EXAMPLES}
    assert names >= {"site.toml", "rolling.toml", "fleet.toml", "rollback.toml", "cluster.toml"}
    fleet = resources.data_dir("examples") / "fleet.toml"
    assert '"h200"' in fleet.read_text()


def test_one_of_the_examples_has_a_dozen_tasks_with_dependencies() -> None:
    site = resources.data_dir("examples") / "site.toml"
    assert site.read_text().count("[[tasks]]") >= 12


def test_a_failed_task_is_done_again_and_the_rest_is_kept(program: Program, tmp_path: Path) -> None:
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    manifest = tmp_path / "m.json"
    tasks = [
        {"id": "one", "operation": "selftest.mark", "params": {"file": str(marks), "line": "one"}},
        {"id": "two", "operation": "commands.run", "depends_on": ["one"], "params": {"argv": ["cat", str(gate)]}},
        {
            "id": "three",
            "operation": "selftest.mark",
            "depends_on": ["two"],
            "params": {"file": str(marks), "line": "three"},
        },
    ]
    manifest.write_text(json.dumps({"schema": 1, "name": "again", "tasks": tasks}))
    workflow_id = program.says("batch", "submit", str(manifest))
    program.run("orchestrator", "run", "--until-empty", code=1)
    states = {task["task_id"]: task["state"] for task in program.json("workflow", "status", workflow_id)["tasks"]}
    assert states == {"one": "succeeded", "two": "failed", "three": "skipped"}
    gate.write_text("")
    program.run("workflow", "retry", workflow_id)
    program.run("orchestrator", "run", "--until-empty")
    page = program.json("workflow", "status", workflow_id)
    assert page["state"] == "succeeded"
    assert marks.read_text().split() == ["one", "three"]
    assert page["requests"][0]["verb"] == "retry"
    program.run("workflow", "retry", workflow_id, "--task", "three")
    program.run("orchestrator", "run", "--until-empty")
    assert marks.read_text().split() == ["one", "three", "three"]


def test_a_foreground_command_that_is_interrupted_cancels_its_work(program: Program) -> None:
    with subprocess.Popen(
        [PROGRAM, "selftest", "sleep", "60"], env=program.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for(lambda: list(program.spool.glob("workflows/*/logs/*.log")), what="the attempt to begin")
        process.send_signal(2)
        assert process.wait(30) == 130
    (row,) = program.json("workflow", "list")
    assert row["state"] == "cancelled"


def test_what_no_manifest_may_be(program: Program, tmp_path: Path) -> None:
    manifest = tmp_path / "bad.toml"
    manifest.write_text(
        'schema = 1\nname = "bad"\n[[tasks]]\nid = "a"\noperation = "selftest.nop"\ndepends_on = ["b"]\n'
        '[[tasks]]\nid = "b"\noperation = "selftest.sleep"\ndepends_on = ["a"]\nparams = { secs = 1 }\n'
    )
    said = program.run("batch", "submit", str(manifest), code=3).stderr
    assert "bad.toml:5" in said
    assert "selftest.noop" in said
    assert "a → b → a" in said
    assert "seconds" in said
    assert "Traceback" not in said
    assert program.json("workflow", "list") == []
