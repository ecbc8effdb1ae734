"""Ending what is left, seen from a process of its own that plays the worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import os, subprocess, sys
from provisioning.execution import ending
from provisioning.execution.family import adopt_orphans, reap

adopt_orphans()
log = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
"""


HIDING = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=1 proc /proc && exec "$@"', "sh"]
"""What comes behind it has a /proc of its own, in which a user sees no other user's processes."""


def played(tmp_path: Path, program: str, *before: str) -> str:
    """What the program says, run as a worker that has opened a log."""
    words = [*before, sys.executable, "-c", WORKER + program, str(tmp_path / "log")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_belongs_to_another_user_is_left_and_not_waited_for(tmp_path: Path) -> None:
    program = """
remnants = ending.Remnants(log)
child = subprocess.Popen(["sleep", "300"])
def refuse(process, number):
    raise PermissionError
ending.send_signal, kept = refuse, ending.send_signal
print(remnants.end(2**22 + 1, 1000, cut_short=False), child.poll())
child.kill()
"""
    assert played(tmp_path, program) == "() None\n"


def test_processes_that_may_not_be_seen_are_another_user_s(tmp_path: Path) -> None:
    if subprocess.run([*HIDING, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no /proc can be mounted here")
    program = """
from provisioning.execution.family import descendants
from provisioning.processes import group_members, look_at
until_i_end = {"args": ["cat"], "stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
hidden = subprocess.Popen(**until_i_end)
assert look_at(hidden.pid)
os.setgid(65534)
os.setuid(65534)
remnants = ending.Remnants(log)
mine = subprocess.Popen(**until_i_end, process_group=0)
while not look_at(mine.pid):
    pass  # until its exec is over it counts as its starter's user's
print(look_at(hidden.pid), [sight.process.pid for sight in descendants()] == [mine.pid])
print([sight.process.pid for sight in group_members(mine.pid)] == [mine.pid])
print(remnants.end(mine.pid, 1000, cut_short=False) == (mine.pid,))
"""
    assert played(tmp_path, program, *HIDING) == "None True\nTrue\nTrue\n"


def test_the_process_itself_is_not_buried_with_its_orphans(tmp_path: Path) -> None:
    """Whoever waits for it must find its exit code, however many orphans ended before it."""
    program = """
orphan = os.posix_spawnp("true", ["true"], {})
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
process = os.posix_spawnp("sh", ["sh", "-c", "exit 7"], os.environ)
os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
assert reap(spare=process)
print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), reap(), os.path.exists(f"/proc/{orphan}"))
"""
    assert played(tmp_path, program) == "7 False False\n"
