"""A secret is nowhere: not in one byte that the program writes, however an operation spills it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from provisioning.errors import InvalidManifest
from tests.installation import Installation

pytestmark = pytest.mark.nu

SECRET = "zq7-Hidden-Value-0815-of-forty-characters"
WAYS = ["say", "piecemeal", "encoded", "look", "return", "fail"]


@pytest.fixture
def credentials(site: Installation) -> Path:
    folder = site.root / "credentials"
    folder.mkdir(mode=0o700)
    (folder / "token").write_text(f"{SECRET}\n")
    (folder / "token").chmod(0o400)
    site.settings(paths_credentials=folder)
    return folder


def forms() -> list[bytes]:
    """The secret as it might show: as it is, and within base64 at any offset."""
    coded = [base64.b64encode(b"x" * n + SECRET.encode())[4:40] for n in range(3)]
    return [SECRET.encode(), *coded, SECRET.encode().hex().encode()]


def task(how: str) -> dict[str, object]:
    params = {"token": {"credential": "token"}, "how": how}
    return {"id": how, "operation": "trial.secret", "params": params}


def test_a_secret_is_in_no_file(site: Installation, credentials: Path) -> None:
    workflow_id = site.run([task(how) for how in WAYS], on_failure="continue")
    states = site.states(workflow_id)
    assert {how: states[how] for how in WAYS} == {how: "failed" if how == "fail" else "succeeded" for how in WAYS}
    assert b"[secret token]" in site.log(workflow_id, "say")
    assert b"[secret token]" in site.log(workflow_id, "piecemeal")
    assert site.log(workflow_id, "encoded").count(b"[secret token]") >= 4
    assert b"PROVISIONING_TASK" in site.log(workflow_id, "look")
    assert b"[secret" not in site.log(workflow_id, "look"), "an argument or the environment has it"
    assert site.outcome(workflow_id, "return").result == {"text": "it is [secret token]"}
    error = site.outcome(workflow_id, "fail").error
    assert error is not None
    assert (error.msg, error.help) == ("it was [secret token]", "not [secret token]")
    looked_at = 0
    for folder, _, names in os.walk(site.root):
        for path in (Path(folder, name) for name in names):
            if path.is_file() and not path.is_symlink() and credentials not in path.parents:
                data = path.read_bytes()
                looked_at += 1
                assert [form for form in forms() if form in data] == [], path
    assert looked_at > 30


def test_a_secret_that_cannot_be_had(site: Installation, credentials: Path) -> None:
    (credentials / "open").write_text(SECRET)
    (credentials / "open").chmod(0o644)
    (credentials / "short").write_text("abc")
    (credentials / "short").chmod(0o400)
    (credentials / "link").symlink_to(credentials / "token")
    wanted = {"none": "not-found", "open": "unsafe", "short": "invalid", "link": "unreadable"}
    tasks = [{"id": name, "operation": "trial.secret", "params": {"token": {"credential": name}}} for name in wanted]
    workflow_id = site.run(tasks, on_failure="continue")
    for name, case in wanted.items():
        error = site.outcome(workflow_id, name).error
        assert error is not None
        assert error.code == f"provisioning::credential::{case}"


def test_a_secret_is_not_written_out(site: Installation) -> None:
    with pytest.raises(InvalidManifest) as caught:
        site.submit([{"id": "a", "operation": "trial.secret", "params": {"token": SECRET}}])
    (problem,) = caught.value.problems
    assert (problem.code, problem.field) == ("literal-secret", "tasks.a.params.token")
    assert SECRET not in str(problem)


def test_the_command_line_takes_the_name(site: Installation, credentials: Path) -> None:
    process = site.start("trial", "secret", "token", "--how", "return")
    assert process.wait(60) == 0, site.said()
    assert "it is [secret token]" in site.said()


def test_no_process_leaves_a_core(site: Installation) -> None:
    workflow_id = site.run([{"id": "a", "operation": "trial.shell", "params": {"script": "ulimit -c; ulimit -Hc"}}])
    assert site.log(workflow_id, "a").split() == [b"0", b"0"]
