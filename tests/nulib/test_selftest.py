"""selftest.* and commands.run, as an attempt runs them."""

import os
import shutil

import pytest

from tests.nulib.attempts import Operations, wait_until

pytestmark = [pytest.mark.nu, pytest.mark.parametrize("operations", ["self"], indirect=True)]

HOSTILE = [
    "",
    "~",
    "*",
    "-x",
    "--help",
    "$(id)",
    "`id`",
    "a b",
    'a"b',
    "a'b",
    "a\nb",
    "true",
    "null",
    ")",
    "=",
    "A=b",
    "ä☃",
    "\\",
    "|",
    ";id",
]


def test_noop(operations: Operations) -> None:
    assert operations.run("selftest.noop") is None


@pytest.mark.parametrize("value", [None, True, -1, 1.5, "$(id)", [1, [2]], {"a": {"b": [None]}}])
def test_echo_returns_what_it_got(operations: Operations, value: object) -> None:
    assert operations.run("selftest.echo", value=value) == value


def test_sleep(operations: Operations) -> None:
    assert operations.run("selftest.sleep", seconds=0.05) == {"seconds": 0.05}
    assert operations.error("selftest.sleep", seconds=-1)["code"] == "provisioning::selftest::invalid-seconds"


def test_fail(operations: Operations) -> None:
    assert operations.error("selftest.fail")["code"] == "provisioning::selftest::failed"
    error = operations.error("selftest.fail", code="provisioning::upcloud::busy", message="try later")
    assert (error["code"], error["msg"]) == ("provisioning::upcloud::busy", "try later")
    attempt = operations.start("selftest.fail", exit=75)
    assert attempt.process.wait(20) == 75


def test_marks_of_many_tasks_are_whole_lines(operations: Operations) -> None:
    file = operations.folder / "marks"
    lines = [f"{number:02} {'x' * 3000}" for number in range(16)]
    attempts = [operations.start("selftest.mark", file=str(file), line=line) for line in lines]
    assert [attempt.answer() for attempt in attempts] == [{"result": None}] * len(lines)
    assert sorted(file.read_text().splitlines()) == lines


def test_mark_keeps_what_another_wrote_into_a_new_file(operations: Operations) -> None:
    file, shims = operations.folder / "marks", operations.folder / "shims"
    shims.mkdir()
    # The other task makes the file after this one has seen that it is not there.
    (shims / "tee").write_text(f'#!/bin/sh\necho other >{file}\nexec {shutil.which("tee")} "$@"\n')
    (shims / "tee").chmod(0o755)
    operations.env["PATH"] = f"{shims}:{operations.env['PATH']}"
    operations.run("selftest.mark", file=str(file), line="own")
    assert file.read_text() == "other\nown\n"


@pytest.mark.parametrize(
    ("file", "line", "case"), [("marks", "a", "invalid-file"), ("/tmp/marks", "a\nb", "invalid-line")]
)
def test_mark_refuses(operations: Operations, file: str, line: str, case: str) -> None:
    assert operations.error("selftest.mark", file=file, line=line)["code"] == f"provisioning::selftest::{case}"


def test_mark_says_why_it_cannot(operations: Operations) -> None:
    error = operations.error("selftest.mark", file=str(operations.folder / "none" / "marks"), line="a")
    assert error["code"] == "provisioning::selftest::cannot-append"


def test_run_passes_arguments_as_they_are(operations: Operations) -> None:
    result = operations.run("commands.run", argv=["printf", "%s\\0", *HOSTILE])
    assert result["stdout"].split("\0")[:-1] == HOSTILE


def test_run_in_a_folder_with_variables(operations: Operations) -> None:
    attempt = operations.start(
        "commands.run",
        argv=["sh", "-c", 'pwd; echo "$A" >&2; exit 3'],
        cwd="/usr",
        environment={"A": "$b"},
        allow_failure=True,
    )
    assert attempt.answer()["result"] == {"exit_code": 3, "stdout": "/usr\n", "stderr": "$b\n", "truncated": False}
    assert set(attempt.log.read_text().splitlines()) == {"/usr", "$b"}


def test_run_keeps_the_end_of_much_output(operations: Operations) -> None:
    attempt = operations.start("commands.run", argv=["sh", "-c", "yes | head -c 3000000; echo end; seq 99999 >&2"])
    result = attempt.answer()["result"]
    assert result["truncated"]
    assert len(result["stdout"]) == len(result["stderr"]) == 65536
    assert result["stdout"].endswith("y\nend\n")
    assert attempt.log.stat().st_size > 3_500_000


def test_run_takes_bytes_that_are_no_text(operations: Operations) -> None:
    assert operations.run("commands.run", argv=["printf", r"a\377b"])["stdout"] == "a\ufffdb"


def test_run_hides_request_and_result_and_passes_the_log(operations: Operations) -> None:
    listing = operations.run("commands.run", argv=["ls", "/proc/self/fd"])["stdout"].split()
    assert {"5", "9", "200"} <= set(listing)
    links = operations.run("commands.run", argv=["sh", "-c", "ls -l /proc/$$/fd"])["stdout"]
    assert "memfd" not in links


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"argv": []}, "invalid-argv"),
        ({"argv": ["true", "a\0b"]}, "invalid-argument"),
        ({"argv": ["false"]}, "failed"),
        ({"argv": ["/no/such/program"]}, "failed"),
        ({"argv": ["true"], "cwd": "usr"}, "invalid-cwd"),
        ({"argv": ["true"], "cwd": "/no/such"}, "invalid-cwd"),
        ({"argv": ["true"], "environment": {"a b": "c"}}, "invalid-environment"),
        ({"argv": ["true"], "environment": {"A": 1}}, "invalid-environment"),
    ],
)
def test_run_refuses(operations: Operations, given: dict[str, object], code: str) -> None:
    assert operations.error("commands.run", **given)["code"] == f"provisioning::commands::{code}"


def test_a_killed_run_leaves_no_files(operations: Operations) -> None:
    before = set(os.listdir("/tmp"))
    marker = operations.folder / "started"
    attempt = operations.start("commands.run", argv=["sh", "-c", f"touch {marker}; exec sleep 60"])
    wait_until(marker.exists, "the command")
    attempt.kill()
    assert not {name for name in set(os.listdir("/tmp")) - before if name.startswith("tmp.")}
