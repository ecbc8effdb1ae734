"""What a repair does with what is in the way: it is moved into `rejected/` with the reason, and all of it is told."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from provisioning.clock import now
from provisioning.core.workflow import FORMAT
from provisioning.errors import Problem, ProvisioningError, SpoolUnusable
from provisioning.storage import files
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.spool import Spool

LEFT = {
    "unusable": "complete it: provisioning spool init",
    "foreign-owner": "give it to the owner of the spool: chown",
    "newer": "left to the version that wrote it",
    "unreadable": "see what the system says of it",
    "no-operations": "put it back from a backup; without it the workflow stands still",
    "no-outcome": "it cannot be made again: the task counts as ended, its result is lost",
    "too-early": "nobody knows any more what happened: look at both",
    "wrong-end": "its tasks say what happened; nothing is worked any more",
    "no-operator": "make the user, or remove the folder: provisioning spool init --operators",
    "unsafe-parent": "move the spool, or make the folders above it its owner's and root's alone",
    "elsewhere": "put the folder on the file system of the spool",
    "broken-chain": "nobody can make it whole again: compare it with the heads in the system's log",
    "no-reservation": "two workflows have this id: look at both",
}
"""What can be done where a repair can do nothing."""
FOR_PERSONS = LEFT.keys() - {"no-reservation"}
"""Codes of which a repair never mends anything."""


class Repaired(msgspec.Struct, frozen=True):
    """One thing that a repair did, or had to leave."""

    done: bool
    code: str
    """Of the problem, as `check.CODES` has it."""
    file: str
    text: str


class Aside:
    """The account of one repair, and the way into `rejected/`."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._stamp = now().strftime("%Y%m%dT%H%M%SZ")
        self.account: list[Repaired] = []

    def leave(self, problem: Problem, text: str = "") -> None:
        """Say that nothing was done about it, and why."""
        self.account.append(
            Repaired(False, problem.code, problem.file, text or LEFT.get(problem.code, problem.message))
        )

    def do(self, problem: Problem, deed: Callable[[Problem], str | None], text: str = "") -> None:
        """Do it and say so, or say why not."""
        try:
            said = deed(problem)
        except ProvisioningError as error:
            self.leave(problem, error.message)
        else:
            self.account.append(Repaired(True, problem.code, problem.file, said or text))

    def put_aside(self, problem: Problem) -> str:
        """Move the file or folder into a folder of its own in `rejected/`; where it is then."""
        path = Path(problem.file)
        if not os.path.lexists(path):
            raise SpoolUnusable("it is no longer there")
        where = path.relative_to(self._spool.root)
        folder = self._new_folder("-".join(where.parts)[-150:])
        self._write_reason(folder, problem)
        target = folder / ("was-reason.json" if path.name == "reason.json" else path.name)
        files.move(path, target)
        return f"moved to {target.relative_to(self._spool.root)}"

    def _new_folder(self, what: str) -> Path:
        folder = self._free_name(what)
        files.make_dir(folder)
        files.sync_dir(folder.parent)
        return folder

    def _free_name(self, what: str) -> Path:
        suffixes = itertools.chain([""], (f"-{count}" for count in itertools.count(2)))
        paths = (self._spool.rejected / f"{self._stamp}-{what}{suffix}" for suffix in suffixes)
        return next(path for path in paths if not os.path.lexists(path))

    def _write_reason(self, folder: Path, problem: Problem) -> None:
        where = Path(problem.file).relative_to(self._spool.root).as_posix()
        reason = {"format": FORMAT, "code": "repaired", "from": _shown(where), "problems": [_plain(problem)]}
        files.write_atomic(folder / "reason.json", encode(reason), durable=files.DURABLE["rejected"])

    def put_workflow_aside(self, folder: WorkflowFolder, problem: Problem) -> str:
        """Move the whole workflow into `rejected/`."""
        if os.path.lexists(folder.path / "reason.json"):
            self.put_aside(Problem("foreign-file", "another takes its place", "", str(folder.path / "reason.json")))
        self._write_reason(folder.path, problem)
        target = self._free_name(folder.workflow_id)
        files.move(folder.path, target)
        return f"it cannot be rebuilt: the whole workflow was moved to {target.relative_to(self._spool.root)}"


def _plain(problem: Problem) -> Problem:
    return Problem(problem.code, _shown(problem.message), _shown(problem.hint), _shown(problem.file))


def _shown(text: str) -> str:
    """The text without what is no character: names of files may be any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()
