"""A Slurm of two nodes on this host, for tests: as root, without systemd, with ports, paths and keys of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import wait_for

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun", "slurmctld", "slurmd", "munged")
NODES = ("n1", "n2")
CPUS = 4

_CONFIG = """\
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munged.sock
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
StateSaveLocation={root}/ctld
SlurmdSpoolDir={root}/d-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=0
KillWait=5
MessageTimeout=10
SlurmdTimeout=120
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=trial Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why there can be no cluster here; nothing where there can."""
    if os.geteuid() != 0:
        return "a cluster of its own needs root"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"Slurm is not installed: {', '.join(missing)}" if missing else ""


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and that no other cluster of the same tests looks at: a daemon binds them only later."""
    own = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 20 * count
    for base in range(21_000, 32_000, 20 * count):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (ports := list(range(base + own, base + own + count))):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return ports
    raise AssertionError("no ports are free")


class Cluster:
    """munged, slurmctld and two slurmd, each known by its pid file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conf = root / "slurm.conf"
        self.environment = {"PATH": os.environ["PATH"], "SLURM_CONF": str(self.conf), "LC_ALL": "C"}
        for name in ("ctld", *(f"d-{node}" for node in NODES)):
            (root / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        self.conf.write_text(_CONFIG.format(root=root, host=host, ports=_free_ports(3), cpus=CPUS))

    def start(self) -> None:
        """Start everything, and return when both nodes are idle."""
        self.start_munged()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(self.is_up, 60, lambda: f"the cluster\n{self.said()}")

    def mend(self) -> None:
        """Start what does not run, and return when both nodes take jobs."""
        if self.pid("munged") is None:
            self.start_munged()
        if self.pid("slurmctld") is None:
            self.start_controller()
        for node in NODES:
            if self.pid(f"slurmd-{node}") is None:
                self.start_node(node)
        for state in ("DOWN", "RESUME") if not self.is_up() else ():
            self.ask("scontrol", "update", "NodeName=n[1-2]", f"State={state}", "Reason=trial")
        wait_for(self.is_up, 60, lambda: f"the cluster\n{self.said()}")

    def is_up(self) -> bool:
        """Whether the controller answers and all nodes can take jobs."""
        states = self.ask("sinfo", "--noheader", "--Node", "--format=%T").split()
        return len(states) == len(NODES) and all(state in ("idle", "mixed", "allocated") for state in states)

    def ask(self, *words: str) -> str:
        """What a command of Slurm says; nothing where it fails."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=30, check=False)
            return done.stdout if done.returncode == 0 else ""
        return ""

    def do(self, *words: str) -> str:
        """The same, and it must succeed."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.said()}"
        return done.stdout

    def start_munged(self, name: str = "munged") -> None:
        """Start a munged with a key of that name, which is made where there is none."""
        if not (key := self.root / f"{name}.key").exists():
            key.touch(0o600)
            key.write_bytes(secrets.token_bytes(1024))
        kinds = {"key-file": "key", "socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        self.do("munged", "--force", *(f"--{kind}={self.root / name}.{end}" for kind, end in kinds.items()))

    def client_conf(self, path: Path, *, munged: str = "munged") -> Path:
        """Write a configuration of clients that wait less long, and have what they say signed by that munged."""
        text = self.conf.read_text().replace(f"{self.root}/munged.sock", f"{self.root}/{munged}.sock")
        path.write_text(text.replace("MessageTimeout=10", "MessageTimeout=2"))
        return path

    def saved_state(self) -> Path:
        """A copy of what the controller has saved by now."""
        copy = self.root / "before"

        def copied() -> bool:
            shutil.rmtree(copy, ignore_errors=True)
            with contextlib.suppress(shutil.Error):  # it is saving just now
                return bool(shutil.copytree(self.root / "ctld", copy, ignore=shutil.ignore_patterns("*.new")))
            return False

        wait_for(copied)
        return copy

    def start_controller(self, *options: str) -> None:
        """Start slurmctld."""
        self.do("slurmctld", *options)

    def start_node(self, node: str) -> None:
        """Start the slurmd of that node."""
        self.do("slurmd", "-N", node)

    def pid(self, name: str) -> int | None:
        """The pid of a daemon that lives: `slurmctld`, `slurmd-n1`, `munged`."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            pid = int((self.root / f"{name}.pid").read_text())
            with contextlib.suppress(FileNotFoundError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if words[0].rpartition(b"/")[2].decode() == name.partition("-")[0]:
                    return pid
        return None

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon of this cluster, and return when it is gone."""
        pid = self.pid(name)
        assert pid is not None, f"{name} does not run\n{self.said()}"
        os.kill(pid, number)
        wait_for(lambda: self.pid(name) is None, 30, f"the end of {name}")

    def kill_job(self, number: str) -> None:
        """Kill the slurmstepd of a job and all that it runs, as a node that goes down does."""
        (step,) = [
            pid for pid in self.steps() if f"[{number}.batch]".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        family = [step]
        for pid in family:  # it grows
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += map(int, (task / "children").read_text().split())
        for number_of_signal in (signal.SIGSTOP, signal.SIGKILL):  # stopped first, so that none sees another end
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number_of_signal)
        for path in self.root.glob(f"d-*/*_{number}.*"):
            path.unlink()  # a node that starts anew has none of it

    def steps(self) -> Iterator[int]:
        """The pids of the slurmstepd of this cluster, whose parents may be gone."""
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
                environment = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
                if words.startswith(b"slurmstepd") and f"SLURM_CONF={self.conf}".encode() in environment:
                    yield int(entry)

    def said(self) -> str:
        """The ends of the logs."""
        logs = sorted(self.root.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)

    def close(self) -> None:
        """End every job and every daemon."""
        self.ask("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.ask("squeue", "--noheader"), 15)
        for name in (*(f"slurmd-{node}" for node in NODES), "slurmctld", "munged-other", "munged"):
            if self.pid(name) is not None:
                self.end(name, signal.SIGKILL if name.startswith("slurmd") else signal.SIGTERM)
        for pid in list(self.steps()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
