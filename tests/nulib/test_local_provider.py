"""servers.* with the local provider, for real: processes, files and namespaces are looked at from the host."""

import json
import os
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.nulib.attempts import Attempt, Operations, server_processes, wait_until, why_no_namespaces

pytestmark = pytest.mark.nu


@pytest.fixture
def name(operations: Operations) -> str:
    """A name that no other test uses, so that its processes can be found. Skips where no server can run."""
    forbidden = why_no_namespaces(operations.user)
    if forbidden:
        pytest.skip(forbidden)
    return f"t-{uuid.uuid4().hex[:12]}"


def shim(operations: Operations, program: str, match: str) -> tuple[Path, Path]:
    """Puts a program into PATH that waits when an argument ends with `match`; returns (reached, go on)."""
    folder = operations.folder / "shims"
    folder.mkdir()
    folder.chmod(0o777)
    reached, go_on = folder / "reached", folder / "go-on"
    real = subprocess.check_output(["which", program], text=True).strip()
    (folder / program).write_text(
        f"#!/bin/sh\nfor word; do case $word in *{match}) touch {reached}\n"
        f'while [ ! -e {go_on} ]; do sleep 0.01; done;; esac; done\nexec {real} "$@"\n'
    )
    (folder / program).chmod(0o755)
    operations.env["PATH"] = f"{folder}:{os.environ['PATH']}"
    return reached, go_on


def inits(name: str) -> list[int]:
    """Processes of the server that are the first of a pid namespace."""
    found = []
    for pid in server_processes(name):
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        if len(numbers) > 1 and numbers[-1] == "1":
            found.append(pid)
    return found


def test_life_of_a_server(operations: Operations, name: str) -> None:
    created = operations.run("servers.create", name=name, plan="2xCPU-4GB")
    assert (created["name"], created["state"], created["changed"]) == (name, "running", True)
    again = operations.run("servers.create", name=name, plan="2xCPU-4GB")
    assert again == created | {"changed": False}
    server = {key: value for key, value in created.items() if key != "changed"}
    assert operations.run("servers.show", name=name) == server
    assert operations.run("servers.list") == [server]
    assert operations.run("servers.list", infra="other") == []

    ended = operations.run("servers.exec", name=name, argv=["hostname"])
    assert ended == {"exit_code": 0, "stdout": f"{name}\n", "stderr": "", "truncated": False}
    operations.run("servers.exec", name=name, argv=["sh", "-c", "echo kept >/root/file"])

    stopped = operations.run("servers.stop", name=name)
    assert (stopped["state"], stopped["changed"]) == ("stopped", True)
    assert not server_processes(name)
    assert not operations.run("servers.stop", name=name)["changed"]
    assert operations.error("servers.exec", name=name, argv=["true"])["code"] == "provisioning::servers::not-running"
    assert operations.run("servers.create", name=name)["state"] == "stopped"
    started = operations.run("servers.start", name=name)
    assert (started["state"], started["changed"]) == ("running", True)
    assert not operations.run("servers.start", name=name)["changed"]
    assert operations.run("servers.exec", name=name, argv=["cat", "/root/file"])["stdout"] == "kept\n"

    assert operations.run("servers.delete", name=name) == {"name": name, "infra": "default", "changed": True}
    assert not server_processes(name)
    assert not (operations.servers / "default" / name).exists()
    assert not operations.run("servers.delete", name=name)["changed"]
    assert operations.error("servers.show", name=name)["code"] == "provisioning::servers::not-found"


def test_same_name_in_two_infras(operations: Operations, name: str) -> None:
    for infra in ("one", "two"):
        assert operations.run("servers.create", name=name, infra=infra)["changed"]
    assert len(inits(name)) == 2
    operations.run("servers.delete", name=name, infra="one")
    assert operations.run("servers.exec", name=name, infra="two", argv=["true"])["exit_code"] == 0


def test_server_holds_nothing_of_the_attempt(operations: Operations, name: str) -> None:
    attempt = operations.start("servers.create", name=name)
    assert attempt.answer()["result"]["changed"]
    processes = server_processes(name)
    assert len(processes) >= 2
    for pid in processes:
        links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [link for link in links if "memfd" in link or "log-" in link or ".locks" in link], (pid, links)
        assert os.getsid(pid) != attempt.process.pid
        if pid in inits(name):
            assert set(links) == {"/dev/null"}
    subprocess.run(["flock", "--nonblock", attempt.log, "true"], check=True)


def test_what_a_server_sees(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)

    def inside(script: str) -> str:
        result = operations.run("servers.exec", name=name, argv=["sh", "-c", script], allow_failure=True)
        return str(result["stdout"] + result["stderr"])

    assert inside("id -u; pwd") == "0\n/root\n"
    assert "Read-only" in inside("touch /usr/bin/x")
    assert inside("for d in etc var home root tmp run; do touch /$d/x || echo no; done") == ""
    assert inside("ls /dev | tr '\\n' ' '") == "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero "
    assert inside("echo x >/dev/null; head -c 2 /dev/zero | wc -c") == "2\n"
    assert inside("ls /proc | grep -c '^[0-9]'").strip() < "9"
    assert not inside("ls /run").strip().startswith("host")
    assert set(inside("tail -n +3 /proc/net/dev | cut -d: -f1").split()) == {"lo"}
    # Its root may mount, but not undo what the namespace around it has set up.
    for undo in ("mount -o remount,bind,rw /usr", "mount -o remount,rw /usr", "umount /usr", "umount -l /usr"):
        assert inside(f"{undo} 2>/dev/null && echo done; touch /usr/bin/x").count("Read-only") == 1
        assert "done" not in inside(f"{undo} && echo done")
    assert inside("mount -t tmpfs tmpfs /mnt && touch /mnt/x && echo own") == "own\n"
    assert inside("env | cut -d= -f1 | sort | tr '\\n' ' '") == "HOME LANG OLDPWD PATH PWD SHLVL TERM USER "
    assert "memfd" not in inside("ls -l /proc/$$/fd")
    assert "log-" not in inside("ls -l /proc/$$/fd")


def test_exec_reads_its_input(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    text = "a\nb\0c " + "ä" * 100_000
    result = operations.run("servers.exec", name=name, argv=["sh", "-c", "wc -c; head -c 3"], input=text)
    assert result["stdout"] == f"{len(text.encode())}\n"
    assert operations.run("servers.exec", name=name, argv=["cat"])["stdout"] == ""


def test_restart_keeps_the_files(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    (init,) = inits(name)
    operations.run("servers.exec", name=name, argv=["sh", "-c", "echo kept >/root/file"])
    restarted = operations.run("servers.restart", name=name)
    assert (restarted["state"], restarted["changed"]) == ("running", True)
    assert inits(name) != [init]
    assert operations.run("servers.exec", name=name, argv=["cat", "/root/file"])["stdout"] == "kept\n"
    assert operations.run("servers.wait", name=name, max="1sec")["state"] == "running"
    operations.run("servers.stop", name=name)
    error = operations.error("servers.wait", name=name, max="10ms", interval="1ms")
    assert (error["code"], error["retry_after"]) == ("provisioning::servers::not-ready", 5)


def test_plans_zones_and_price(operations: Operations) -> None:
    plans = operations.run("servers.plans")
    assert {"name": "2xCPU-4GB", "cpus": 2, "memory_gb": 4, "storage_gb": 0} in plans
    assert operations.run("servers.zones") == [{"id": "host", "description": "this host"}]
    assert operations.run("servers.price")["hourly"] is None
    error = operations.error("servers.create", name="web-1", zone="fi-hel1")
    assert error["code"] == "provisioning::servers::invalid-zone"


def test_exec_of_a_failing_command(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    argv = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    attempt = operations.start("servers.exec", name=name, argv=argv)
    error = attempt.answer()["error"]
    assert error["code"] == "provisioning::servers::exec-failed"
    assert "7" in error["msg"]
    assert set(attempt.log.read_text().splitlines()) == {"out", "err"}
    allowed = operations.run("servers.exec", name=name, argv=argv, allow_failure=True)
    assert allowed == {"exit_code": 7, "stdout": "out\n", "stderr": "err\n", "truncated": False}
    assert operations.run("servers.exec", name=name, argv=["no-such"], allow_failure=True)["exit_code"] == 127
    hostile = ["", "~", "*", "-x", "--help", "$(id)", "a b", "a\nb", "A=b", ")", "ä"]
    assert (
        operations.run("servers.exec", name=name, argv=["printf", "%s\\0", *hostile])["stdout"].split("\0")[:-1]
        == hostile
    )


@pytest.mark.parametrize(
    ("program", "match"),
    [("mkdir", "/root"), ("cp", "services"), ("sync", "keeper.new"), ("sync", "init.new"), ("sync", "server.json.new")],
)
def test_killed_create_is_finished_by_the_next(operations: Operations, name: str, program: str, match: str) -> None:
    reached, go_on = shim(operations, program, match)
    attempt = operations.start("servers.create", name=name)
    wait_until(reached.exists, f"{program} {match}")
    attempt.kill()
    assert not (operations.servers / "default" / name / "server.json").exists()
    assert operations.error("servers.show", name=name)["code"] == "provisioning::servers::not-found"
    second = operations.start("servers.create", name=name)
    go_on.touch()
    assert second.answer().get("result", {}).get("changed"), second.log.read_text()
    wait_until(lambda: len(inits(name)) == 1, "exactly one server")
    assert len(operations.run("servers.list")) == 1
    assert operations.run("servers.exec", name=name, argv=["hostname"])["stdout"] == f"{name}\n"
    operations.run("servers.delete", name=name)
    assert not server_processes(name)


def test_delete_after_a_killed_create(operations: Operations, name: str) -> None:
    reached, go_on = shim(operations, "sync", "server.json.new")
    attempt = operations.start("servers.create", name=name)
    wait_until(reached.exists, "the last step")
    attempt.kill()
    go_on.touch()
    assert inits(name)
    assert operations.run("servers.delete", name=name)["changed"]
    assert not server_processes(name)
    assert not (operations.servers / "default" / name).exists()


def test_concurrent_creates_make_one(operations: Operations, name: str) -> None:
    attempts: list[Attempt] = [operations.start("servers.create", name=name) for _ in range(5)]
    results = [attempt.answer()["result"] for attempt in attempts]
    assert sorted(result["changed"] for result in results) == [False] * 4 + [True]
    assert len({result["created_at"] for result in results}) == 1
    assert len(inits(name)) == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_record_that_comes_between_two_looks(operations: Operations, name: str) -> None:
    """A create puts the record there just after it was not found, and before it is asked whether it is there."""
    operations.run("servers.create", name=name)
    record = operations.servers / "default" / name / "server.json"
    absent = "inject=open,openat:error=ENOENT:when=2"  # the first one asks whether it is a folder
    operations.before = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", str(record), "-e", absent]
    assert operations.run("servers.show", name=name)["state"] == "running"


def test_a_killed_keeper_takes_its_server_along(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    processes = server_processes(name)
    (init,) = inits(name)
    os.kill(int((operations.servers / "default" / name / "keeper").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}/ns/pid").exists() for pid in processes), "the end of all")
    assert operations.run("servers.show", name=name)["state"] == "stopped"
    assert operations.run("servers.start", name=name)["changed"]
    assert inits(name) != [init]


def test_stop_ends_a_process_that_ignores_term(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    script = "trap '' TERM; while :; do sleep 1; done"
    operations.run("servers.exec", name=name, argv=["sh", "-c", f'setsid sh -c "{script}" >/dev/null 2>&1 &'])
    operations.run("servers.stop", name=name)
    assert not server_processes(name)


def test_after_a_reboot_a_server_is_stopped(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    operations.run("servers.stop", name=name)
    for record in ("keeper", "init"):  # what a reboot leaves: numbers that now are others' processes
        (operations.servers / "default" / name / record).write_text(
            f"{os.getpid()} 1 00000000-0000-0000-0000-000000000000\n"
        )
    assert operations.run("servers.show", name=name)["state"] == "stopped"
    assert operations.run("servers.start", name=name)["changed"]


def test_delete_of_a_folder_without_rights(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    operations.run("servers.exec", name=name, argv=["sh", "-c", "mkdir -p /srv/a/b; chmod 0 /srv/a/b /srv/a"])
    assert operations.run("servers.delete", name=name)["changed"]
    assert not (operations.servers / "default" / name).exists()


@pytest.mark.parametrize("bad", ["", "..", "a/b", "A", "a\n", "$(id)", "-a", "a" * 65])
def test_names_are_checked(operations: Operations, bad: str) -> None:
    for operation in ("create", "delete", "show", "start", "stop"):
        assert operations.error(f"servers.{operation}", name=bad)["code"] == "provisioning::servers::invalid-server"
    assert operations.error("servers.exec", name=bad, argv=["true"])["code"] == "provisioning::servers::invalid-server"
    assert operations.error("servers.list", infra=bad)["code"] == "provisioning::servers::invalid-infra"
    assert not operations.servers.exists()


@pytest.mark.parametrize(
    ("given", "case"), [({"plan": "big"}, "servers::invalid-plan"), ({"provider": "none"}, "servers::invalid-provider")]
)
def test_create_refuses(operations: Operations, given: dict[str, str], case: str) -> None:
    assert operations.error("servers.create", name="web-1", **given)["code"] == f"provisioning::{case}"


def test_missing_unshare_is_named(operations: Operations) -> None:
    folder = operations.folder / "few"
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name != "unshare":
            (folder / program.name).symlink_to(program)
    operations.env["PATH"] = str(folder)
    error = operations.error("servers.create", name="web-1")
    assert error["code"] == "provisioning::local::program-missing"
    assert error["msg"].endswith("unshare")


def test_forbidden_user_namespaces_name_the_sysctl(operations: Operations, name: str) -> None:
    # In a user namespace of its own the limit can be set without touching the host.
    attempt_nu = operations.folder / "limited-nu"
    attempt_nu.write_text(
        "#!/bin/sh\nPATH=/usr/bin:/bin\nexport PATH\nexec unshare --user --map-root-user sh -c "
        f'\'echo 0 >/proc/sys/user/max_user_namespaces && exec "$0" "$@"\' {operations.nu} "$@"\n'
    )
    attempt_nu.chmod(0o755)
    operations.nu = str(attempt_nu)
    error = operations.error("servers.create", name=name)
    assert error["code"] == "provisioning::local::user-namespaces-forbidden"
    for sysctl in (
        "kernel.unprivileged_userns_clone",
        "kernel.apparmor_restrict_unprivileged_userns",
        "user.max_user_namespaces",
    ):
        assert sysctl in error["help"]
    assert not (operations.servers / "default" / name).exists()


def test_damaged_record_is_an_error_and_can_be_deleted(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    (operations.servers / "default" / name / "server.json").write_text('{"name"')
    assert operations.error("servers.show", name=name)["code"] == "provisioning::local::damaged-record"
    assert operations.run("servers.delete", name=name)["changed"]
    assert not server_processes(name)


def test_record_is_readable(operations: Operations, name: str) -> None:
    operations.run("servers.create", name=name)
    record = json.loads((operations.servers / "default" / name / "server.json").read_text())
    assert sorted(record) == ["created_at", "infra", "labels", "name", "plan", "provider"]
