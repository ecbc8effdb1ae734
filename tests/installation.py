"""A spool of a test's own, the orchestrators that it starts on it as processes, and what it sees of their work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provisioning.config import Config
from provisioning.core.catalogue import Catalogue
from provisioning.core.identifiers import Process
from provisioning.core.locate import Limits
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.core.workflow import OutcomeRecord, TaskCheckpoint, WorkflowCheckpoint
from provisioning.execution.ending import end_holders, signal_group
from provisioning.execution.nulib import Nulib, load_nulib
from provisioning.orchestrator.requests import ask
from provisioning.processes import is_alive, send_signal, starttime
from provisioning.storage.checkpoint import Damaged, WorkflowFolder, load
from provisioning.storage.logs import attempt_is_alive, attempts_of
from provisioning.storage.spool import Spool
from provisioning.storage.submission import submit
from tests.waiting import wait_for

NULIB = Path(__file__).parent / "integration" / "nulib"
"""Operations for tests, over the built-in ones."""

CHECKOUT = (sys.executable, "-m", "provisioning")
"""What starts the program as it is in the checkout."""

ENVIRONMENT = {
    "PROVISIONING_ORCHESTRATOR_SCAN_SECONDS": "1",
    "PROVISIONING_LIMITS_GRACE_SECONDS": "0.3",
    "PROVISIONING_ORCHESTRATOR_IDLE_WORKER_SECONDS": "5",
}


def find_nu() -> str:
    """The nu of PROVISIONING_NU, or the one installed beside this Python."""
    beside = Path(sys.executable).with_name("nu")
    return os.environ.get("PROVISIONING_NU") or (str(beside) if beside.exists() else "nu")


class Installation:
    """A spool and a configuration in a folder of their own."""

    def __init__(self, root: Path, cache_dir: Path, *, program: Sequence[str] = CHECKOUT, **settings: object) -> None:
        self.root = root
        self.program = program
        (root / "config.toml").write_text("")
        (root / "config.toml").chmod(0o600)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "PROVISIONING_CONFIG": str(root / "config.toml"),
            "PROVISIONING_SPOOL": str(root / "spool"),
            "PROVISIONING_NU": find_nu(),
            "PROVISIONING_NULIB": str(NULIB),
            "PROVISIONING_PATHS_CACHE": str(cache_dir),
            **ENVIRONMENT,
        }
        self.settings(**settings)
        self.spool = Spool.create(root / "spool")
        self.marks = root / "marks"
        self._started: list[subprocess.Popen[bytes]] = []

    def settings(self, **settings: object) -> None:
        """Set keys of the configuration: `limits_grace_seconds=1`."""
        self.environment |= {f"PROVISIONING_{name.upper()}": str(value) for name, value in settings.items()}

    @property
    def config(self) -> Config:
        """The configuration that the processes have."""
        return Config.load({}, self.environment, euid=os.geteuid())

    @property
    def catalogue(self) -> Catalogue:
        """The operations there are, those of the tests among them."""
        return self.nulib.catalogue

    @property
    def nulib(self) -> Nulib:
        """The operations and Nushell, as they are now."""
        return load_nulib(self.config)

    # Doing

    def submit(self, tasks: Sequence[Mapping[str, Any]], **head: Any) -> str:
        """Submit a workflow of these tasks; its workflow_id."""
        manifest = json.dumps({"schema": 1, "name": "trial", **head, "tasks": tasks}).encode()
        return submit(
            manifest,
            form="json",
            file="trial.json",
            spool=self.spool,
            catalogue=self.catalogue,
            operator="tester",
            door="cli",
            limits=Limits(),
            sources=self.nulib.sources(lambda: self.spool),
        )

    def ask(self, verb: str, workflow_id: str, *tasks: str) -> None:
        """Cancel, pause, resume or retry."""
        config = self.config
        ask(self.spool, config, lambda: load_nulib(config), verb, workflow_id, operator="tester", tasks=tasks)

    def start(
        self, *arguments: str, before: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a `provisioning` command, below the command `before` if there is one."""
        with open(self.root / f"said.{len(self._started)}", "wb") as said:
            process = subprocess.Popen(
                [*before, *self.program, *arguments],
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                cwd=self.root,
            )
        self._started.append(process)
        return process

    def orchestrator(self, *arguments: str, slots: int = 4) -> subprocess.Popen[bytes]:
        """Start an orchestrator and return when it works the spool."""
        process = self.start("orchestrator", "run", "--slots", str(slots), *arguments)

        def works() -> bool:
            assert process.poll() is None, self.said()
            record = self.spool.orchestrator_record()
            return record is not None and record.process.pid == process.pid

        wait_for(works, what="the orchestrator")
        return process

    @staticmethod
    def settle(process: subprocess.Popen[bytes]) -> None:
        """Return when every thread of the process sleeps: what the kernel has told it of is known to it."""

        def asleep() -> bool:
            threads = Path(f"/proc/{process.pid}/task").iterdir()
            return all((each / "stat").read_text().rpartition(")")[2].split()[0] == "S" for each in threads)

        wait_for(asleep, what="a process that sleeps")

    def drain(self, *, slots: int = 4, max_wait: float = 0) -> int:
        """Work the spool until it is empty; the exit code."""
        arguments = ["--until-empty", "--max-wait", str(max_wait)]
        return self.start("orchestrator", "run", "--slots", str(slots), *arguments).wait(60)

    def run(self, tasks: Sequence[Mapping[str, Any]], *, slots: int = 4, **head: Any) -> str:
        """Submit a workflow and work it to its end; its workflow_id."""
        workflow_id = self.submit(tasks, **head)
        self.drain(slots=slots, max_wait=15)
        return workflow_id

    # Looking

    def said(self) -> str:
        """What the processes printed and logged, for a test that fails."""
        texts = [path.read_text(errors="replace") for path in sorted(self.root.glob("said.*"))]
        with contextlib.suppress(FileNotFoundError):
            texts.append((self.spool.logs / "orchestrator.log").read_text())
        return "\n".join(texts)

    def folder(self, workflow_id: str) -> WorkflowFolder:
        """The workflow's folder."""
        return self.spool.find(workflow_id)

    def workflow(self, workflow_id: str) -> WorkflowCheckpoint:
        """The workflow's checkpoint."""
        checkpoint = self.folder(workflow_id).workflow()
        assert checkpoint is not None, self.said()
        return checkpoint

    def state(self, workflow_id: str) -> str:
        """The workflow's state."""
        checkpoint = self.folder(workflow_id).workflow()
        return str(checkpoint.state if checkpoint else WorkflowState.QUEUED)

    def task(self, workflow_id: str, task_id: str) -> TaskCheckpoint:
        """A task's checkpoint."""
        return self.folder(workflow_id).task(task_id)

    def states(self, workflow_id: str) -> dict[str, str]:
        """The states of all tasks that ever began."""
        return {checkpoint.task_id: str(checkpoint.state) for checkpoint in self.folder(workflow_id).tasks()}

    def outcomes(self, workflow_id: str, task_id: str) -> list[str]:
        """How the task's attempts ended, first to last."""
        return [str(attempt.outcome) for attempt in self.task(workflow_id, task_id).attempts]

    def outcome(self, workflow_id: str, task_id: str, attempt: int = 1) -> OutcomeRecord:
        """The published outcome of one attempt."""
        record = self.folder(workflow_id).outcome(task_id, attempt)
        assert record is not None, self.said()
        return record

    def log(self, workflow_id: str, task_id: str, attempt: int = 1) -> bytes:
        """The log of one attempt."""
        return self.folder(workflow_id).log_path(task_id, attempt).read_bytes()

    def wait_ended(self, workflow_id: str, seconds: float = 30) -> str:
        """Wait for the workflow's end; its state."""
        wait_for(lambda: self.state(workflow_id) in ENDED_WORKFLOWS, seconds, lambda: f"the end of it\n{self.said()}")
        return self.state(workflow_id)

    def wait_state(self, workflow_id: str, state: str, seconds: float = 20) -> None:
        """Wait until the workflow is in that state."""
        wait_for(lambda: self.state(workflow_id) == state, seconds, lambda: f"{state}\n{self.said()}")

    def mark_lines(self) -> list[str]:
        """The lines that selftest.mark has written, in their order."""
        return self.marks.read_text().splitlines() if self.marks.exists() else []

    def mark(self, task_id: str, **more: Any) -> dict[str, Any]:
        """A task that leaves its id in the file of marks."""
        params = {"file": str(self.marks), "line": task_id}
        return {"id": task_id, "operation": "selftest.mark", "params": params, **more}

    def worker_name(self, workflow_id: str, task_id: str) -> str:
        """The scratch folder of the worker that runs, or ran last, the task's attempt."""
        last = self.task(workflow_id, task_id).last
        assert last is not None
        return last.worker

    def worker(self, workflow_id: str, task_id: str) -> Process:
        """The worker that runs, or ran last, the task's attempt."""
        return load(self.spool.tmp / self.worker_name(workflow_id, task_id) / "process", Process)

    def workers(self) -> list[Process]:
        """The workers that live."""
        return [process for process in self._recorded("process") if is_alive(process)]

    def _recorded(self, name: str) -> Iterator[Process]:
        for path in self.spool.tmp.glob(f"*/{name}"):
            with contextlib.suppress(FileNotFoundError, Damaged):
                yield load(path, Process)

    # Ending

    def close(self) -> None:
        """End every process that was started here, and nothing else."""
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        wait_for(self._nobody_left, what="the end of all workers")
        self.spool.close()

    def _nobody_left(self) -> bool:
        workers = self.workers()
        for process in workers:
            send_signal(process, signal.SIGKILL)
        for leader in self._recorded("group"):
            if starttime(leader.pid) == leader.starttime:
                signal_group(leader.pid, signal.SIGKILL)
        left = 0
        for workflow_id in self.spool.claimed_ids():
            for _, _, log in attempts_of(self.spool.workflows / workflow_id / "logs"):
                if attempt_is_alive(log):
                    end_holders(log, 0.2)
                    left += 1
        return not workers and not left


class Gate:
    """Where each attempt of a task waits until the test lets it go on."""

    ATTEMPTS = 3

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends: dict[int, int] = {}
        for attempt in range(1, self.ATTEMPTS + 1):
            os.mkfifo(f"{path}.{attempt}", 0o600)

    @property
    def script(self) -> str:
        """What a task runs, in a shell, to wait here."""
        return f"cat {self.path}.$PROVISIONING_ATTEMPT"

    def _there(self, attempt: int) -> bool:
        with contextlib.suppress(OSError):  # ENXIO: nobody reads
            self._ends[attempt] = os.open(f"{self.path}.{attempt}", os.O_WRONLY | os.O_NONBLOCK)
        return attempt in self._ends

    def reached(self, attempt: int = 1, seconds: float = 20.0) -> None:
        """Wait until that attempt waits at the gate, which stays closed."""
        if attempt not in self._ends:
            wait_for(lambda: self._there(attempt), seconds, f"attempt {attempt} at {self.path.name}")

    def open(self, attempt: int = 1) -> None:
        """Let that attempt go on once it is there."""
        self.reached(attempt)
        os.close(self._ends.pop(attempt))

    def close(self) -> None:
        """Give the descriptors back."""
        while self._ends:
            os.close(self._ends.popitem()[1])
