"""The command line as users have it: processes, a real Nushell, a real spool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provisioning.errors import InvalidManifest, Problem
from provisioning.storage import files, growing
from tests.installation import Installation
from tests.waiting import wait_for

pytestmark = pytest.mark.nu

TEN = "".join(
    f'[[tasks]]\nid = "t{i}"\noperation = "selftest.noop"\n' + (f'depends_on = ["t{i - 1}"]\n' if i else "")
    for i in range(10)
)


def provisioning(
    site: Installation, *words: str, code: int = 0, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, which must have that exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "provisioning", *words],
        env=site.environment,
        input=stdin,
        capture_output=True,
        cwd=site.root,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
    assert b"Traceback" not in done.stderr
    return done


def manifest(site: Installation, text: str = TEN, name: str = "ten.toml") -> str:
    path = site.root / name
    path.write_text(f'schema = 1\nname = "{name}"\n{text}')
    return str(path)


def test_an_operation_in_the_foreground(site: Installation) -> None:
    done = provisioning(site, "selftest", "echo", '{"name": "wuji", "up": true}')
    assert done.stdout == b"name  wuji\nup    true\n"
    assert b"echo succeeded" in done.stderr
    done = provisioning(site, "selftest", "echo", "[1, 2]", "--json")
    assert json.loads(done.stdout) == [1, 2]
    done = provisioning(site, "selftest", "noop")
    assert done.stdout == b""


def test_what_a_command_printed_is_printed_plainly(site: Installation) -> None:
    done = provisioning(site, "command", "run", "--", "printf", "a\\tb\\n")
    assert done.stdout == b"a\tb\n"
    done = provisioning(site, "command", "run", "--json", "--", "sh", "-c", "echo x; echo y >&2")
    assert json.loads(done.stdout)["stderr"] == "y\n"


def test_a_failed_operation_says_why_with_the_end_of_its_log(site: Installation) -> None:
    done = provisioning(site, "command", "run", "--", "sh", "-c", "echo before the end; exit 3", code=1)
    err = done.stderr.decode()
    assert done.stdout == b""
    assert "  before the end" in err
    assert "error: commands.run failed: provisioning::commands::failed" in err
    assert "hint: the log has what it printed" in err
    done = provisioning(site, "selftest", "fail", "--code", "provisioning::selftest::x", "--json", code=1)
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["task_id"], error["attempt"]) == ("provisioning::selftest::x", "fail", 1)


@pytest.mark.parametrize("value", ["${x}", "$(id)", "`id`", "'; ^id; '", '"', "--help", "\\x1b]0;x\\x07", "true\n"])
def test_a_param_is_never_code(site: Installation, value: str) -> None:
    done = provisioning(site, "selftest", "echo", "--json", "--", json.dumps(value))
    assert json.loads(done.stdout) == value


def test_orchestrated_prints_the_workflow_id_alone(site: Installation) -> None:
    done = provisioning(site, "selftest", "noop", "--orchestrated")
    workflow_id = done.stdout.decode().strip()
    assert len(workflow_id) == 26
    assert b"no orchestrator works" in done.stderr
    assert json.loads(provisioning(site, "wf", "status", workflow_id[:20], "--json").stdout)["state"] == "queued"
    provisioning(site, "orchestrator", "run", "--until-empty")
    page = json.loads(provisioning(site, "wf", "status", workflow_id, "--json").stdout)
    assert (page["state"], page["door"]) == ("succeeded", "cli")


def test_orchestrated_and_waited_for_gives_the_result(site: Installation) -> None:
    site.orchestrator()
    done = provisioning(site, "selftest", "echo", "hello", "--orchestrated", "--wait")
    assert done.stdout == b"hello\n"
    assert b"no orchestrator" not in done.stderr
    provisioning(site, "selftest", "fail", "--orchestrated", "--wait", code=1)


def test_a_batch_is_submitted_waited_for_and_shown(site: Installation) -> None:
    site.orchestrator()
    done = provisioning(site, "batch", "submit", manifest(site), "--wait")
    workflow_id = done.stdout.decode().strip()
    assert "t9 succeeded" in done.stderr.decode()
    assert "10/10" in provisioning(site, "workflow", "list").stdout.decode()
    assert provisioning(site, "wf", "watch", workflow_id).stdout.decode().splitlines()[-1].endswith("succeeded")
    done = provisioning(site, "wf", "watch", workflow_id, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()][-1]["state"] == "succeeded"


def test_a_manifest_on_standard_input(site: Installation) -> None:
    text = ('schema = 1\nname = "piped"\n' + TEN).encode()
    assert (
        provisioning(site, "batch", "validate", "-", "--format", "toml", stdin=text).stdout == b"ok: piped, 10 tasks\n"
    )
    plan = json.loads(provisioning(site, "batch", "plan", "-", "--format", "toml", "--json", stdin=text).stdout)
    assert len(plan["waves"]) == 10
    assert plan["critical_path"] == [f"t{i}" for i in range(10)]


def test_a_bad_manifest_leaves_nothing_behind(site: Installation) -> None:
    bad = manifest(site, '[[tasks]]\nid = "a"\noperation = "selftest.nop"\nxyz = 1\n[[tasks]]\nid = "a"\n', "bad.toml")
    done = provisioning(site, "batch", "submit", bad, code=3)
    err = done.stderr.decode()
    assert f"{bad}:5" in err
    assert "selftest.noop" in err
    assert err.count("error: ") >= 3
    assert site.spool.workflow_ids() == []
    assert list(site.spool.tmp.iterdir()) == []


def test_retry_pause_resume_and_cancel(site: Installation) -> None:
    text = '[[tasks]]\nid = "a"\noperation = "selftest.fail"\n[[tasks]]\nid = "b"\noperation = "selftest.noop"\n'
    workflow_id = provisioning(site, "batch", "submit", manifest(site, text)).stdout.decode().strip()
    provisioning(site, "wf", "pause", workflow_id)
    assert site.state(workflow_id) == "paused"
    provisioning(site, "wf", "pause", workflow_id, code=5)
    provisioning(site, "wf", "resume", workflow_id)
    provisioning(site, "orchestrator", "run", "--until-empty", code=1)
    assert site.state(workflow_id) == "failed"
    told = provisioning(site, "wf", "explain", workflow_id).stdout.decode()
    assert f"provisioning workflow retry {workflow_id}" in told
    provisioning(site, "wf", "retry", workflow_id, "--task", "c", code=4)
    answer = json.loads(provisioning(site, "wf", "retry", workflow_id, "--json").stdout)
    assert (answer["state"], answer["queued"]) == ("abandoned", False)
    provisioning(site, "wf", "cancel", workflow_id)
    page = json.loads(provisioning(site, "wf", "status", workflow_id, "--json").stdout)
    assert page["state"] == "cancelled"
    assert [request["verb"] for request in page["requests"]] == ["pause", "resume", "retry", "cancel"]
    provisioning(site, "wf", "cancel", workflow_id, code=5)
    assert provisioning(site, "wf", "cleanup", "--older-than", "1h").stdout == b""
    would_go = provisioning(site, "wf", "cleanup", "--older-than", "0s", "--dry-run").stdout.decode()
    assert would_go.split()[:3] == [workflow_id, page["name"], "cancelled"]
    assert len(would_go.split()) >= 4, "and when it ended"
    assert provisioning(site, "wf", "cleanup", "--older-than", "0s").stdout.decode().strip() == workflow_id
    provisioning(site, "wf", "status", workflow_id, code=4)


def test_logs_of_one_task_and_of_all(site: Installation) -> None:
    params = 'params = {{ argv = ["printf", "{0} 1\\n{0} 2"] }}'
    task = '[[tasks]]\nid = "{0}"\noperation = "commands.run"\n' + params + "\n"
    text = task.format("a") + task.format("b")
    workflow_id = provisioning(site, "batch", "submit", manifest(site, text)).stdout.decode().strip()
    provisioning(site, "orchestrator", "run", "--until-empty")
    assert provisioning(site, "wf", "logs", workflow_id, "a").stdout == b"a 1\na 2"
    assert provisioning(site, "wf", "logs", workflow_id, "--task", "a").stdout == b"a 1\na 2"
    provisioning(site, "wf", "logs", workflow_id, "b", "--task", "a", code=2)
    assert b"task a is succeeded" in provisioning(site, "wf", "explain", workflow_id, "--task", "a").stdout
    both = provisioning(site, "wf", "logs", workflow_id, "-f").stdout.decode()
    assert sorted(both.splitlines()) == ["a | a 1", "a | a 2", "b | b 1", "b | b 2"]
    lines = provisioning(site, "wf", "logs", workflow_id, "b", "--json").stdout.splitlines()
    assert json.loads(lines[0]) == {"task_id": "b", "attempt": 1, "line": "b 1"}
    provisioning(site, "wf", "logs", workflow_id, "a", "--attempt", "2", code=4)
    provisioning(site, "wf", "logs", workflow_id, "c", code=4)


def test_giving_up_leaves_the_workflow_in_the_spool(site: Installation) -> None:
    done = provisioning(site, "batch", "submit", manifest(site), "--wait", "--max-wait", "0.1", code=7)
    workflow_id = done.stdout.decode().strip()
    provisioning(site, "wf", "watch", workflow_id, "--max-wait", "0.1", code=7)
    assert site.state(workflow_id) == "queued"
    provisioning(site, "selftest", "sleep", "60", "--max-wait", "0.5", code=7)
    provisioning(site, "selftest", "noop", "--orchestrated", "--max-wait", "0.1", code=7)


def test_ctrl_c_cancels_a_foreground_command(site: Installation) -> None:
    process = site.start("selftest", "sleep", "60")
    wait_for(lambda: any(site.state(each) == "running" for each in site.spool.workflow_ids()), what="the task")
    (workflow_id,) = site.spool.workflow_ids()
    wait_for(lambda: site.states(workflow_id) == {"sleep": "running"}, what="its start")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert site.state(workflow_id) == "cancelled"
    assert "was cancelled" in site.said()


def test_ctrl_c_only_ends_the_waiting_for_what_others_work(site: Installation) -> None:
    site.orchestrator()
    workflow_id = site.submit([{"id": "a", "operation": "selftest.sleep", "params": {"seconds": 60}}])
    process = site.start("workflow", "watch", workflow_id)
    wait_for(lambda: "a running" in site.said(), what="the watch")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert site.state(workflow_id) == "running"
    provisioning(site, "wf", "cancel", workflow_id)
    assert site.wait_ended(workflow_id) == "cancelled"


def test_start_status_health_and_stop(site: Installation) -> None:
    provisioning(site, "orchestrator", "health", code=6)
    provisioning(site, "orchestrator", "stop", code=6)
    pid = json.loads(provisioning(site, "orchestrator", "start", "--slots", "3", "--json").stdout)["pid"]
    try:
        status = json.loads(provisioning(site, "orchestrator", "status", "--json").stdout)
        assert (status["running"], status["pid"], status["slots"]) == (True, pid, 3)
        assert provisioning(site, "orchestrator", "health").stdout == b"healthy\n"
        assert str(pid).encode() in provisioning(site, "orchestrator", "start", code=6).stderr
        assert b"slots" in provisioning(site, "orchestrator", "logs").stdout
    finally:
        provisioning(site, "orchestrator", "stop")
    assert json.loads(provisioning(site, "orchestrator", "status", "--json").stdout)["running"] is False


def test_the_orchestrator_s_log_is_followed_when_it_is_rotated(site: Installation) -> None:
    path = site.spool.logs / "orchestrator.log"
    files.append(path, b"first, and long\n")
    process = site.start("orchestrator", "logs", "-f")
    said = site.root / "said.0"
    wait_for(lambda: "first" in said.read_text(), what="the log")
    files.append(path, b"second\n")
    growing.rotate(path, 1)
    files.append(path, b"third\n")
    wait_for(lambda: said.read_text() == "first, and long\nsecond\nthird\n", what="all of the log")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_a_reader_that_goes_away_is_no_error(site: Installation) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "provisioning", "operation", "list"],
        env=site.environment,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr) == (141, b"")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["workflow", "list", "--json"],
        ["operation", "list"],  # more than a buffer takes
        ["operation", "list", "--json"],
        ["manifest", "seal", "--stdout", "large.json"],
        ["spool", "backup", "-"],
    ],
    ids=" ".join,
)
def test_an_answer_that_cannot_be_written_is_an_error(site: Installation, arguments: list[str]) -> None:
    (site.root / "large.json").write_text(f'"{"x" * 100_000}"')
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "provisioning", *arguments],
            cwd=site.root,
            env=site.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert process.returncode == 6
    assert process.stderr == b"error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("stream", [">&-", "2>&-", "<&-"])
def test_a_stream_that_is_closed_is_no_defect(site: Installation, stream: str) -> None:
    command = f"{sys.executable} -m provisioning operation list {stream}"
    done = subprocess.run(["sh", "-c", command], env=site.environment, capture_output=True, check=False)
    assert done.returncode == (6 if stream == ">&-" else 0)
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == (2 if stream == ">&-" else 0)


def test_what_was_rejected_is_told_by_every_verb(site: Installation) -> None:
    workflow_id = provisioning(site, "selftest", "noop", "--orchestrated").stdout.decode().strip()
    error = InvalidManifest([Problem("unknown-operation", "it is gone")])
    path = site.spool.reject(site.spool.find(workflow_id), error)
    for verb in ("status", "explain", "watch", "logs", "cancel", "retry"):
        done = provisioning(site, "wf", verb, workflow_id[:24], code=3)
        assert str(path).encode() in done.stderr
        assert b"it is gone" in done.stderr
        told = json.loads(provisioning(site, "wf", verb, workflow_id, "--json", code=3).stdout)["error"]
        assert (told["code"], told["folder"], len(told["problems"])) == ("rejected", str(path), 1)
    (row,) = json.loads(provisioning(site, "wf", "list", "--state", "rejected", "--json").stdout)
    assert row["workflow_id"] == workflow_id
    assert json.loads(provisioning(site, "orchestrator", "status", "--json").stdout)["workflows"] == {"rejected": 1}


def test_nushell_that_is_missing_too_old_or_no_program(site: Installation, tmp_path: Path) -> None:
    site.settings(nu="/nonexistent/nu")
    assert b"not at /nonexistent/nu" in provisioning(site, "server", "list", code=6).stderr
    old = tmp_path / "nu"
    old.write_text("#!/bin/sh\necho 0.100.0\n")
    site.settings(nu=str(old))
    assert b"not an executable" in provisioning(site, "operation", "list", code=6).stderr
    old.chmod(0o755)
    assert b"too old" in provisioning(site, "operation", "list", code=6).stderr
    provisioning(site, "workflow", "list")


def test_a_broken_file_takes_out_only_its_operation(site: Installation, tmp_path: Path) -> None:
    (tmp_path / "more" / "extras").mkdir(parents=True)
    (tmp_path / "more" / "extras" / "bad.nu").write_text("@operation {}\nexport def bad [ {")
    site.settings(nulib=str(tmp_path / "more"))
    done = provisioning(site, "operation", "list")
    assert b"servers.create" in done.stdout
    assert b"bad.nu" in done.stderr
    assert b"has errors" in provisioning(site, "extra", "bad", code=2).stderr
    assert b"bad.nu" in provisioning(site, "operation", "check", code=3).stderr
    assert provisioning(site, "selftest", "echo", "still here").stdout == b"still here\n"


def test_the_shell_completes_nouns_verbs_and_ids(site: Installation) -> None:
    workflow_id = site.submit([{"id": "a", "operation": "selftest.noop"}])

    def completions(line: str) -> list[str]:
        words = line.split(" ")
        site.environment |= {
            "_PROVISIONING_COMPLETE": "bash_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
        }
        done = provisioning(site)
        return [entry.partition(",")[2] for entry in done.stdout.decode().splitlines()]

    assert "workflow" in completions("provisioning wo")
    assert "server" in completions("provisioning se")
    assert "create" in completions("provisioning server cr")
    assert completions(f"provisioning wf status {workflow_id[:3]}") == [workflow_id]
