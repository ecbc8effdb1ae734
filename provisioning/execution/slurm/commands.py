"""Slurm by its own commands: every call of sbatch, squeue, scancel and sinfo. Jobs are known by their names alone.

A controller that was killed forgets its last seconds and may give a number twice; a name is the attempt's own.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

from provisioning.errors import ProvisioningError, UsageError
from provisioning.execution.command import ENVIRONMENT, Said, consult
from provisioning.ownership import refuse_unless_ours
from provisioning.sections import Slurm

CALLED = ("sbatch", "squeue", "scancel", "srun", "sinfo")
"""Programs of Slurm: those that are called here, and the one that a job of several nodes calls."""
PATIENCE_SECONDS = 60.0
"""So long one command may take: Slurm's own wait for their controller for about ten seconds, several times."""
SPARE_MINUTES = 2
"""Beyond its own deadline a job may take: the node ends what is late, and says so, before Slurm does."""
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@~-]*\Z")
"""What may stand in the script of a job, quoted besides."""


class Job(NamedTuple):
    """A job as the queue shows it."""

    state: str
    reason: str

    @property
    def runs(self) -> bool:
        """Whether it is past waiting."""
        return self.state != "PENDING"

    @property
    def said(self) -> str:
        """Why it does not run, for people; nothing where it does."""
        if self.state == "RUNNING":
            return ""
        return self.state.lower() + (f": {self.reason}" if self.reason not in ("", "None") else "")


class Unreachable(ProvisioningError):
    """Slurm did not do what it was asked to: nothing follows from that for any attempt."""

    exit_code = 6
    code = "slurm-unreachable"


class Commands:
    """Slurm, for one user."""

    def __init__(self, settings: Slurm) -> None:
        """UsageError where a path cannot stand in a script; Refused where others could change what is called."""
        self._settings = settings
        self._program = settings.program or (sys.executable, "-P", "-m", "provisioning")
        for what, path in (("slurm.directory", str(settings.directory)), ("slurm.program", self._program[0])):
            if not SAFE_PATH.match(path):
                raise UsageError(f"{what} is {path!r}", hint="use letters, digits and . _ / + @ ~ - in it")
        _refuse_unsafe(settings)
        self._environment = {**ENVIRONMENT, **({"SLURM_CONF": str(settings.conf)} if settings.conf else {})}

    def _call(self, name: str, *arguments: str) -> Said:
        try:
            said = consult(
                self._settings.commands / name, arguments, environment=self._environment, seconds=PATIENCE_SECONDS
            )
        except ProvisioningError as error:
            raise Unreachable(error.message, hint=error.hint) from error
        if said.code:
            lines = said.stderr.splitlines() or [f"exit code {said.code}"]
            text = lines[-1].removeprefix(f"{name}: ").removeprefix("error: ")
            raise Unreachable(f"{name}: {text[:300]}", hint=f"see: {self._settings.commands / 'sinfo'}")
        return said

    def submit(
        self, name: str, words: tuple[str, ...], output: Path, *, nodes: int = 0, seconds: float | None = None
    ) -> None:
        """Queue `provisioning WORDS` as a job of that name, to be run once, or once on each of so many nodes.

        `seconds` is how long it runs at the most. Unreachable: it may be queued nevertheless.
        """
        many = [f"--nodes={nodes}", "--ntasks-per-node=1"] if nodes else []
        everywhere = [str(self._settings.commands / "srun"), "--ntasks-per-node=1"] if nodes else []
        # The environment of sbatch is made here from nothing, and what the node adds to it is taken away. With NIL or
        # NONE the node would begin each job with a login of its user, which takes a second and runs that user's files.
        script = shlex.join(["exec", *everywhere, "/usr/bin/env", "-i", "LANG=C.UTF-8", *self._program, *words])
        settings = self._settings
        self._call(
            "sbatch",
            "--parsable",
            "--quiet",
            "--no-requeue",
            "--export=ALL",
            f"--job-name={name}",
            "--dependency=singleton",
            "--chdir=/",
            f"--output={output}",
            "--open-mode=append",
            *([f"--partition={settings.partition}"] if settings.partition else []),
            *([f"--account={settings.account}"] if settings.account else []),
            *([f"--time={math.ceil(seconds / 60) + SPARE_MINUTES}"] if seconds is not None else []),
            *settings.arguments,
            *many,
            f"--wrap={script}",
        )

    def nodes(self) -> int:
        """How many nodes the partition has that jobs go to, whatever state they are in; 0 where it is not known."""
        wanted = set(self._settings.partition.split(",")) - {""}
        found: dict[str, set[str]] = {}
        for line in self._call("sinfo", "--noheader", "--Node", "--format=%P|%N").stdout.splitlines():
            partition, _, node = line.strip().partition("|")
            name = partition.removesuffix("*")  # which marks the default
            if name in wanted or (not wanted and name != partition):
                found.setdefault(name, set()).add(node)
        return max(map(len, found.values()), default=0)

    def jobs(self, prefixes: tuple[str, ...]) -> dict[str, Job]:
        """The jobs that wait or run and whose names begin so, by name: one question for all."""
        said = self._call("squeue", "--me", "--noheader", "--format=%T|%r|%j")
        found: dict[str, Job] = {}
        for line in said.stdout.splitlines():
            state, _, rest = line.strip().partition("|")
            reason, _, name = rest.partition("|")
            if state == "COMPLETING":  # it ends, perhaps for as long as its node is away: only its files tell of it
                continue
            if name.startswith(prefixes) and (name not in found or not found[name].runs):
                found[name] = Job(state, reason)
        return found

    def withdraw(self, name: str) -> None:
        """Take the job out of the queue, where it waits."""
        self._call("scancel", "--quiet", "--state=PENDING", f"--name={name}")

    def terminate(self, name: str) -> None:
        """Tell the attempt, which is the script of the job, to end: it ends what it runs."""
        self._call("scancel", "--quiet", "--batch", "--signal=TERM", "--state=RUNNING", f"--name={name}")


def _refuse_unsafe(settings: Slurm) -> None:
    """Refused where others could change what is called as this user; what only the nodes have is theirs to mind."""
    named = [(settings.commands / name, f"program {name} of Slurm") for name in CALLED]
    named += [(settings.conf, "configuration of Slurm")] if settings.conf else []
    named += [(Path(settings.program[0]), "program of slurm.program")] if settings.program else []
    for path, what in named:
        if os.path.lexists(path):
            refuse_unless_ours(path, what, os.geteuid())
