"""Repairs what a check has found, as far as that can be done without a guess. It deletes nothing.

What is in the way is moved into `rejected/`, each with the reason. A workflow is repaired under its lock only. What is
rebuilt says no more than what is known: an attempt without an outcome counts as one whose worker died, and where not
even attempts are known, a person decides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.workflow import FORMAT, Submission
from provisioning.errors import Problem, ProvisioningError, SpoolUnusable
from provisioning.storage import files
from provisioning.storage.active import name_active
from provisioning.storage.aside import LEFT, Aside, Repaired
from provisioning.storage.check import check
from provisioning.storage.check_workflow import check_claimed
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.ids import Reservation
from provisioning.storage.lock import Lock
from provisioning.storage.repair_workflow import WorkflowRepair
from provisioning.storage.spool import Spool

PASSES = 5
"""What is repaired may show what was hidden behind it: so often the spool is looked at again."""


def repair(root: Path) -> list[Repaired]:
    """Repair the spool; all that was done, and all that was left."""
    done: list[Repaired] = []
    left: list[Repaired] = []
    for _ in range(PASSES):
        problems = check(root)
        if any(problem.code == "unusable" for problem in problems):
            return [Repaired(False, each.code, each.file, f"{each.message}: {each.hint}") for each in problems]
        spool = Spool(root)
        try:
            account = _Repair(spool).run(problems)
        finally:
            spool.close()
        done += (each for each in account if each.done)
        left = [each for each in account if not each.done]
        if len(left) == len(account):
            break
    return done + left


class _Repair:
    """One pass over what a check has found."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._aside = Aside(spool)

    def run(self, problems: list[Problem]) -> list[Repaired]:
        """Repair all."""
        workflows: dict[Path, list[Problem]] = {}
        for problem in problems:
            folder = self._workflow_of(Path(problem.file))
            if problem.code == "open-to-others":
                self._aside.do(problem, self._close, "closed to others")
            elif folder is not None:
                workflows.setdefault(folder, []).append(problem)
            else:
                self._repair_place(problem)
        for folder, found in workflows.items():
            self._under_lock(folder, found)
        return self._aside.account

    def _workflow_of(self, path: Path) -> Path | None:
        parts = path.relative_to(self._spool.root).parts
        if len(parts) < 2 or parts[0] not in ("incoming", "workflows") or not WORKFLOW_ID.match(parts[1]):
            return None
        folder = self._spool.root / parts[0] / parts[1]
        return folder if folder.is_dir() and not folder.is_symlink() else None

    # What belongs to no workflow

    def _repair_place(self, problem: Problem) -> None:
        parent = Path(problem.file).parent
        if parent == self._spool.ids and problem.code in ("damaged", "no-reservation"):
            self._aside.do(problem, self._reserve_again)
        elif problem.code in ("foreign-file", "leftover", "damaged", "no-workflow"):
            self._aside.do(problem, self._aside.put_aside)
        else:
            self._aside.leave(problem)

    def _reserve_again(self, problem: Problem) -> str:
        """Keep an `id` for the one workflow that has it."""
        path = Path(problem.file)
        owners = [each for each in self._submissions() if each[1].id == path.name.removesuffix(".json")]
        if len(owners) != 1 or (problem.code == "no-reservation" and os.path.lexists(path)):
            raise SpoolUnusable(
                "nobody can tell which workflow it stands for: the id is refused until it is moved away"
                if not owners
                else LEFT["no-reservation"]
            )
        lock = Lock(self._spool.locks / "ids")
        if not lock.take():
            raise SpoolUnusable("somebody submits right now: repair again")
        try:
            moved = f"{self._aside.put_aside(problem)}, and " if os.path.lexists(path) else ""
            workflow_id, submission = owners[0]
            mine = Reservation(FORMAT, workflow_id, submission.operator, submission.digest)
            files.write_once(path, encode(mine), scratch=self._spool.scratch)
        finally:
            lock.release()
        return f"{moved}kept for workflow {workflow_id} again"

    def _submissions(self) -> Iterator[tuple[str, Submission]]:
        for workflow_id in self._spool.workflow_ids():
            path = self._spool.folder_path(workflow_id)
            try:
                if path is not None:
                    yield workflow_id, WorkflowFolder(path).submission()
            except (ProvisioningError, FileNotFoundError):
                continue

    def _close(self, problem: Problem) -> None:
        path, root = Path(problem.file), Path(os.path.realpath(self._spool.root))
        real = Path(os.path.realpath(path.parent)) / path.name if path != self._spool.root else root
        if not real.is_relative_to(root):
            raise SpoolUnusable(f"it is outside the spool: {real}")
        files.close_to_others(real)

    # One workflow

    def _under_lock(self, path: Path, found: list[Problem]) -> None:
        if any(problem.code in ("newer", "unreadable") for problem in found):
            for problem in found:
                self._aside.leave(problem, "" if problem.code in LEFT else "left with what cannot be read in it")
            return
        for problem in [each for each in found if Path(each.file) == path / "lock"]:
            self._aside.do(problem, self._aside.put_aside)  # what is no file was never locked
        lock = Lock(path / "lock")
        try:
            taken = lock.take()
        except ProvisioningError as error:
            self._aside.leave(found[0], error.message)
            return
        if not taken:
            self._aside.leave(found[0], f"{path.name} is held: stop its holder first")
            return
        try:
            if path.parent == self._spool.workflows:
                found = check_claimed(self._spool, WorkflowFolder(path))  # as it is now that nobody changes it
                name_active(self._spool.root, path.name)  # what is rebuilt may want a holder
            WorkflowRepair(self._aside, WorkflowFolder(path, self._spool.scratch)).run(found)
        finally:
            lock.release()
