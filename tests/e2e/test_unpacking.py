"""The one file unpacks itself once, where nobody else can write, and is one process whatever its surroundings are."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.built import Built
from tests.waiting import wait_for


def test_it_is_one_process_and_unpacks_once(built: Built) -> None:
    assert built.file.stat().st_size <= 45_000_000
    built.run("spool", "init")
    (folder,) = (built.cache / "unpacked").glob("[!.]*")
    assert (folder.parent.stat().st_mode & 0o777, folder.stat().st_mode & 0o022) == (0o700, 0)
    before = folder.stat().st_ino
    with built.start("orchestrator", "run") as process:
        record = built.folder / "spool" / "orchestrator.json"
        wait_for(record.exists, what="the orchestrator to work")
        assert f'"pid":{process.pid}' in record.read_text().replace(" ", "")
        assert Path(f"/proc/{process.pid}/exe").readlink().is_relative_to(folder)
        assert Path(f"/proc/{process.pid}/comm").read_text() == "provisioning\n"
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert folder.stat().st_ino == before
    assert built.unpacked == [folder.name]


def test_what_it_unpacks_is_what_was_built(built: Built) -> None:
    built.run("--version")
    (folder,) = (built.cache / "unpacked").glob("[!.]*")
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    links = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink()}
    assert found - links - {"SHA256SUMS"} == listed


def test_first_starts_at_once_leave_one_folder(built: Built) -> None:
    processes = [built.start("--version") for _ in range(4)]
    assert [process.communicate()[0] for process in processes] == ["provisioning 0.1.0\n"] * 4
    assert len(built.unpacked) == 1


@pytest.mark.parametrize("call", ["renameat", "syncfs", "symlinkat", "fsync"])
def test_a_killed_first_start_leaves_nothing_that_counts(built: Built, call: str) -> None:
    trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when=1"]
    killed = subprocess.run([*trace, built.file, "--version"], env=built.environment(), check=False)
    assert killed.returncode == -signal.SIGKILL
    assert built.run("--version").stdout == "provisioning 0.1.0\n"
    assert len(built.unpacked) == 1


def test_a_full_disk_leaves_nothing_that_counts(built: Built) -> None:
    said = built.elsewhere(
        """
        mount -t tmpfs -o size=20m,mode=700 none /media
        export PROVISIONING_CACHE=/media/cache
        $FILE --version && exit 1
        mount -o remount,size=300m /media
        $FILE --version
        ls -A /media/cache/unpacked
        """
    )
    assert "make room there" in said
    assert "provisioning 0.1.0\n" in said
    assert ".partial" not in said


def test_others_who_could_write_there_are_refused(built: Built) -> None:
    built.run("--version")
    (folder,) = (built.cache / "unpacked").glob("[!.]*")
    for path in (folder, built.cache / "unpacked", built.cache):
        mode = path.stat().st_mode & 0o7777
        path.chmod(mode | 0o020)
        assert f"others may write {path}" in built.run("--version", code=5).stderr
        path.chmod(mode)
    built.run("--version")


@pytest.mark.root
def test_a_folder_of_somebody_else_is_refused(built: Built) -> None:
    built.cache.mkdir(mode=0o700)
    os.chown(built.cache, 65534, 65534)
    assert "belongs to uid 65534" in built.run("--version", code=5).stderr
    link = built.folder / "link"
    link.symlink_to(built.folder / "cache")
    assert "belongs to uid 65534" in built.run("--version", code=5, env={"PROVISIONING_CACHE": str(link)}).stderr


@pytest.mark.parametrize("where", ["cut", "bit"])
def test_a_damaged_copy_says_so(built: Built, where: str) -> None:
    data = bytearray(built.file.read_bytes())
    copy = built.folder / "copy"
    if where == "cut":
        del data[-1_000_000:]
    else:
        data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    copy.chmod(0o755)
    done = subprocess.run([copy, "--version"], env=built.environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, "copy the file again" in done.stderr) == (6, True)
    assert built.run("--version").stdout == "provisioning 0.1.0\n"


def test_old_versions_go_when_nothing_uses_them(built: Built) -> None:
    built.run("--version")
    (folder,) = (built.cache / "unpacked").glob("[!.]*")
    old, used, recent = (folder.with_name(name) for name in ("0.0.1-old", "0.0.2-used", "0.0.3-recent"))
    for other in (old, used, recent):
        shutil.copytree(folder, other, symlinks=True)
    os.utime(old, (0, 0))
    os.utime(used, (0, 0))
    shutil.rmtree(folder)
    sleeper = subprocess.Popen(
        [used / "bin" / "python", "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with sleeper:
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        built.run("--version")
        assert built.unpacked == sorted([used.name, recent.name, folder.name])
        sleeper.communicate(b"\n")
