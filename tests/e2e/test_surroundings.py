"""The one file on strange hosts: an empty root, no home, hostile variables, a full /tmp, signals to the group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.built import ROOT, Built
from tests.waiting import wait_for

STATIC = ROOT / "provisioning" / "gateway" / "static"

pytestmark = pytest.mark.root
"""Other roots, and other users, are root's to make."""

WORK = "spool init >/dev/null && $FILE selftest echo works && $FILE orchestrator start && "
WORK += "$FILE selftest echo queued --orchestrated --wait; $FILE orchestrator stop"


def in_root(root: Path, file: Path, command: str) -> str:
    """What a command says with `root` as its root folder, the file in it, and what the README asks of a host."""
    script = f"""
        set -eu
        mkdir -p {root}/proc {root}/dev {root}/usr/bin {root}/var/cache {root}/var/spool
        mount -t proc proc {root}/proc
        mount -t tmpfs -o mode=755 none {root}/dev
        mknod -m 666 {root}/dev/null c 1 3
        ln -s /proc/self/fd {root}/dev/fd
        cp {file} {root}/usr/bin/provisioning
        export FILE="env -i /usr/sbin/chroot {root} /usr/bin/provisioning"
        {command}
    """
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "bash", "-c", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_empty_root_is_enough(built: Built, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert in_root(root, built.file, f"$FILE {WORK}").split() == ["works", "queued"]
    assert {path.name for path in (root / "usr" / "bin").iterdir()} == {"provisioning"}
    assert not (root / "lib").exists()


@pytest.mark.long
def test_an_older_debian_is_enough(built: Built, tmp_path: Path) -> None:
    root = tmp_path / "bullseye"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bullseye", root], capture_output=True, timeout=600, check=False
    )
    if made.returncode:
        pytest.skip("no Debian 11 can be bootstrapped here")
    assert list(root.glob("lib/x86_64-linux-gnu/libc-2.31.so"))
    assert in_root(root, built.file, f"$FILE {WORK}").split() == ["works", "queued"]


def test_tmp_need_not_allow_execution_nor_have_room(built: Built) -> None:
    said = built.elsewhere(
        """
        mount -t tmpfs -o size=4k,noexec none /tmp
        head -c 100000 /dev/zero >/tmp/full 2>/dev/null || true
        export PROVISIONING_CACHE=/mnt/cache PROVISIONING_SPOOL=/mnt/spool
        $FILE spool init && $FILE selftest echo works
        """
    )
    assert "works\n" in said


AS_NOBODY = "setpriv --reuid=65534 --regid=65534 --clear-groups env -i PROVISIONING_SPOOL=/mnt/own/spool"


def test_a_user_without_a_home_to_write_to(built: Built) -> None:
    said = built.elsewhere(
        f"""
        mkdir -m 700 /mnt/own /mnt/run
        mkdir -m 555 /mnt/home
        chown 65534:65534 /mnt/own /mnt/run
        echo == none; {AS_NOBODY} $FILE --version 2>&1 && exit 1
        echo == unwritable; {AS_NOBODY} HOME=/mnt/home $FILE --version 2>&1 && exit 1
        echo == run; {AS_NOBODY} HOME=/mnt/home XDG_RUNTIME_DIR=/mnt/run $FILE selftest --help
        echo == named; {AS_NOBODY} HOME=/mnt/home PROVISIONING_CACHE=/mnt/own/cache $FILE spool init
        {AS_NOBODY} PROVISIONING_CACHE=/mnt/own/cache $FILE selftest echo works
        ls /mnt/home /mnt/run/provisioning/unpacked
        """
    )
    parts = said.split("== ")
    assert "PROVISIONING_CACHE=/path" in parts[1]
    assert "PROVISIONING_CACHE=/path" in parts[2]
    assert "Usage: provisioning selftest" in parts[3]
    assert "works\n" in parts[4]
    assert "0.1.0-" in parts[4]


def test_a_cache_that_forbids_execution_is_named(built: Built) -> None:
    said = built.elsewhere(
        """
        mount -t tmpfs -o noexec,mode=700 none /media
        PROVISIONING_CACHE=/media/cache $FILE --version && exit 1 || test $? = 6
        """
    )
    assert "/media/cache" in said
    assert "noexec" in said


def test_hostile_variables_load_nothing(built: Built) -> None:
    hostile = built.folder / "hostile"
    hostile.mkdir()
    for name in ("sitecustomize.py", "usercustomize.py", "click.py", "provisioning.py", "encodings.py"):
        (hostile / name).write_text("raise SystemExit(99)")
    for name in ("libc.so.6", "libm.so.6", "libz.so.1"):
        (hostile / name).write_bytes(b"no library")
    environment = built.environment(
        LD_LIBRARY_PATH=str(hostile),
        LD_PRELOAD=str(hostile / "libc.so.6"),
        LD_AUDIT=str(hostile / "libm.so.6"),
        GCONV_PATH=str(hostile),
        LOCPATH=str(hostile),
        PYTHONPATH=str(hostile),
        PYTHONHOME=str(hostile),
        PYTHONSTARTUP=str(hostile / "click.py"),
        PYTHONUSERBASE=str(hostile),
        PYTHONOPTIMIZE="2",
        _PYI_ARCHIVE_FILE=str(hostile / "click.py"),
        LC_ALL="xx_XX.KOI8-R",
    )
    assert built.run("spool", "init", env=environment, cwd=hostile).stderr == ""
    assert built.run("selftest", "echo", "grüße", env=environment, cwd=hostile).stdout == "grüße\n"
    done = built.run("commands", "run", "--json", "--", "env", env=environment, cwd=hostile)
    variables = {line.partition("=")[0] for line in json.loads(done.stdout)["stdout"].splitlines()}
    assert not {name for name in variables if name.startswith(("LD_", "PYTHON", "_PYI", "GCONV", "LOCPATH"))}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_drains(built: Built, number: signal.Signals) -> None:
    built.run("spool", "init")
    workflow_id = built.run("selftest", "sleep", "1", "--orchestrated").stdout.strip()
    with built.start("orchestrator", "run") as process:
        log = built.folder / "spool" / "workflows" / workflow_id / "logs" / "sleep.1.log"
        wait_for(log.exists, what="the task to begin")
        os.killpg(process.pid, number)
        assert process.wait(60) == 0
    page = json.loads(built.run("workflow", "status", workflow_id, "--json").stdout)
    assert (page["state"], len(page["tasks"][0]["attempts"])) == ("succeeded", 1)


def test_a_killed_orchestrator_s_tasks_are_adopted(built: Built) -> None:
    built.run("spool", "init")
    workflow_id = built.run("selftest", "sleep", "2", "--orchestrated").stdout.strip()
    with built.start("orchestrator", "run") as process:
        log = built.folder / "spool" / "workflows" / workflow_id / "logs" / "sleep.1.log"
        wait_for(log.exists, what="the task to begin")
        process.kill()
    built.run("orchestrator", "run", "--until-empty")
    page = json.loads(built.run("workflow", "status", workflow_id, "--json").stdout)
    assert (page["state"], len(page["tasks"][0]["attempts"])) == ("succeeded", 1)


def test_it_brings_the_page(built: Built) -> None:
    """All of the page's files are in it, and it serves them without anything else."""
    built.run("spool", "init")
    place = built.folder / "gateway.sock"
    with built.start("serve", "--listen", f"unix:{place}") as process:
        try:
            wait_for(place.exists, 60, "the gateway")
            for path in ("", *(f"page/{each.name}" for each in STATIC.iterdir() if each.suffix != ".html")):
                call = ["curl", "-sSf", "-q", "--unix-socket", str(place), f"http://here/{path}"]
                done = subprocess.run(call, capture_output=True, timeout=30, check=True)
                assert done.stdout == (STATIC / (Path(path).name or "index.html")).read_bytes()
        finally:
            process.terminate()
        assert process.wait(20) == 0
