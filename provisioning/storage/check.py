"""Holds a spool to its format: every invariant that a look at the files can show. It changes nothing.

It runs beside whoever works the spool. What it finds wrong is looked at again: others write in the meantime, and
only what stays wrong is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from provisioning.core.drop import Answer, Origin
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.errors import Problem, ProvisioningError
from provisioning.storage import reading
from provisioning.storage.audit import Audit
from provisioning.storage.check_workflow import (
    check_claimed,
    check_submission,
    damaged,
    foreign,
    leftovers,
    open_folder,
    problem,
    read,
)
from provisioning.storage.checkpoint import WorkflowFolder, load
from provisioning.storage.doors import check_doors
from provisioning.storage.durations import load_durations
from provisioning.storage.ids import Reservation
from provisioning.storage.notified import Notified, notified_path
from provisioning.storage.opening import check_folders, check_format
from provisioning.storage.request import load_request
from provisioning.storage.shared import Share, share_path
from provisioning.storage.spool import DOORS, FOLDERS, OrchestratorRecord, Spool

CODES = {
    "unusable": "the spool cannot be opened at all",
    "foreign-owner": "a file or folder belongs to another user",
    "open-to-others": "a folder can be written by others",
    "foreign-file": "a name that the format does not know",
    "leftover": "a file that its writer did not complete",
    "damaged": "a file that is missing, or cannot be read as what it must be",
    "cut-off": "a power cut took the record that a task was started: whoever works the spool next finds out",
    "newer": "a file of a later version of the format",
    "unreadable": "a file that the system did not let this process read",
    "foreign-record": "a file that says that it is of another workflow",
    "wrong-digest": "a manifest that is not what was submitted",
    "no-plan": "a workflow has a checkpoint, or tasks that were started, but no plan",
    "no-checkpoint": "a workflow has tasks that were started but no checkpoint",
    "no-operations": "a plan refers to operations that the spool does not keep",
    "unknown-task": "a checkpoint, outcome or log of a task that the plan does not have",
    "unknown-attempt": "an outcome or log of an attempt that the task's checkpoint does not know",
    "no-outcome": "a task has ended but the outcome that says so is missing",
    "contradiction": "a plan, checkpoint or outcome that does not go with itself or with the others",
    "too-early": "a task was started and one that it depends on never was",
    "unfinished": "a workflow has ended but a task of it is still running",
    "wrong-end": "a workflow has ended otherwise than its tasks",
    "no-reservation": "an `id` of a workflow that `ids/` does not keep for it",
    "no-workflow": "a request for a workflow that is not there",
    "no-operator": "a drop folder of a user whom the host does not have",
    "not-removable": "a drop folder from which who works the spool can remove nothing",
    "unsafe-parent": "a folder above the spool that somebody else could change",
    "elsewhere": "a drop folder on another file system than the spool",
    "broken-chain": "a record of the audit log that was changed, or that is missing",
}
"""What `check` may report, and what it means."""

LOOKS = 3
"""What is wrong is looked at so often before it is reported."""
_KNOWN = {*FOLDERS, *DOORS, "format", "README.md", "examples", "orchestrator.json", "metrics.prom", "notified.json"}
_KNOWN |= {"durations", "slurm.json"}
_INCOMING = {
    "origin.json",
    "manifest.sig",
    "submission.json",
    "manifest.toml",
    "manifest.json",
    "plan.json",
    "lock",
    "reason.json",
}


def check(root: Path) -> list[Problem]:
    """Everything in the spool that its format does not allow, by code."""
    try:
        check_format(root)
        check_folders(root)
    except ProvisioningError as error:
        return [Problem("unusable", error.message, error.hint, str(root))]
    spool = Spool(root)  # not by `open`, which refuses the modes that are reported here
    found = _lasting(partial(_places, spool))
    for workflow_id in spool.incoming_ids():
        found += _lasting(partial(_incoming, spool, WorkflowFolder(spool.incoming / workflow_id)))
    for workflow_id in spool.claimed_ids():
        found += _lasting(partial(check_claimed, spool, WorkflowFolder(spool.workflows / workflow_id)))
    found += _lasting(partial(_requests, spool))
    found += _lasting(partial(_doors, spool))
    return found + _lasting(partial(_ids, spool))  # last: whoever is in the spool has had its id before


def _lasting(look: Callable[[], list[Problem]]) -> list[Problem]:
    """What `look` finds each time; nothing is looked at again where nothing was wrong."""
    found = look()
    for _ in range(LOOKS - 1):
        if found:
            again = look()
            found = [each for each in found if each in again]
    return found


def _places(spool: Spool) -> list[Problem]:
    """Owners and modes of the folders, and names that nothing of the format explains."""
    folders = [spool.root, *(spool.root / name for name in (*FOLDERS, *DOORS))]
    found = [each for path in folders for each in open_folder(path)]
    found += [each for path in folders if path != spool.tmp for each in leftovers(path)]
    found += [foreign(spool.root / name) for name in reading.list_names(spool.root) if name not in _KNOWN]
    found += [foreign(spool.tmp / name) for name in reading.list_names(spool.tmp) if not WORKFLOW_ID.match(name)]
    for parent in (spool.incoming, spool.workflows):
        known = set(reading.list_names(parent, folders=True))
        for name in reading.list_names(parent):
            if not WORKFLOW_ID.match(name):
                found.append(foreign(parent / name))
            elif name not in known and os.path.lexists(parent / name):
                found.append(damaged(parent / name, "it is not a folder"))
    view = spool.root / "orchestrator.json"
    if os.path.lexists(view):
        read(found, view, view, partial(load, view, OrchestratorRecord))
    if os.path.lexists(view := notified_path(spool.root)):
        read(found, view, view, partial(load, view, Notified))
    if os.path.lexists(view := share_path(spool.root)):
        read(found, view, view, partial(load, view, Share))
    for path in (spool.root / "durations" / name for name in reading.list_names(spool.root / "durations")):
        read(found, path.parent, path, partial(load_durations, path))
    both = set(spool.incoming_ids()) & set(spool.claimed_ids())
    found += [problem("contradiction", spool.incoming / name, "it is claimed as well") for name in sorted(both)]
    return found


def _incoming(spool: Spool, folder: WorkflowFolder) -> list[Problem]:
    found: list[Problem] = [*open_folder(folder.path), *leftovers(folder.path)]
    found += [foreign(folder.path / name) for name in reading.list_names(folder.path) if name not in _INCOMING]
    check_submission(found, folder)
    plan = read(found, folder.path, folder.path / "plan.json", folder.plan)
    if plan is not None and plan.workflow_id != folder.workflow_id:
        path = folder.path / "plan.json"
        found.append(problem("foreign-record", path, f"it is of workflow {plan.workflow_id}"))
    return found if os.path.lexists(folder.path) else []


def _requests(spool: Spool) -> list[Problem]:
    found: list[Problem] = []
    for path in (spool.requests / name for name in reading.list_names(spool.requests)):
        request = read(found, path, path, partial(load_request, path))
        if request and spool.folder_path(request.workflow_id) is None and path.exists():
            hint = "an orchestrator removes it"
            found.append(problem("no-workflow", path, f"there is no workflow {request.workflow_id}", hint))
    return found


def _doors(spool: Spool) -> list[Problem]:
    """The drop folders, what is being taken over from them, the answers that are owed, and the audit log."""
    found = check_doors(spool.root)
    for name in reading.list_names(spool.taking):
        path = spool.taking / name
        if not WORKFLOW_ID.match(name):
            found.append(foreign(path))
            continue
        origin = read(found, path, path / "origin.json", partial(load, path / "origin.json", Origin))
        if origin is not None and origin.take_id != name:
            found.append(problem("foreign-record", path / "origin.json", f"it is of {origin.take_id}"))
    for name in reading.list_names(spool.receipts):
        path = spool.receipts / name
        answer = read(found, path, path, partial(load, path, Answer))
        if answer is not None and f"{answer.take_id}.json" != name:
            found.append(problem("foreign-record", path, f"it is of {answer.take_id}"))
    audit = Audit(spool.root)
    broken = audit.verify()[0]
    for each in broken[: -1 if audit.is_unfinished() else None]:
        text = f"line {each.line}: {each.text}"
        found.append(problem("broken-chain", spool.root / "audit" / each.file, text, "see: provisioning audit verify"))
    return found


def _ids(spool: Spool) -> list[Problem]:
    """Reservations that cannot be read, and workflows whose `id` is not reserved for them."""
    found: list[Problem] = []
    reserved: dict[str, str] = {}
    for path in (spool.ids / name for name in reading.list_names(spool.ids)):
        if path.name.endswith(".json"):
            reservation = read(found, path, path, partial(load, path, Reservation))
            reserved[path.name.removesuffix(".json")] = reservation.workflow_id if reservation else ""
        elif not path.name.endswith(".cleaned"):
            found.append(foreign(path))
    for workflow_id in spool.workflow_ids():
        folder = spool.folder_path(workflow_id)
        unread: list[Problem] = []  # reported with its workflow
        submission = read(unread, spool.root, spool.root, WorkflowFolder(folder).submission) if folder else None
        if submission is None or not submission.id:
            continue
        path = spool.ids / f"{submission.id}.json"
        if submission.id not in reserved:
            found.append(problem("no-reservation", path, f"it is missing, and workflow {workflow_id} has this id"))
        elif reserved[submission.id] not in ("", workflow_id):  # the former cannot be read, which is reported
            found.append(problem("no-reservation", path, f"it is kept for another workflow than {workflow_id}"))
    return found
