"""Which workflow an `id` of a manifest stands for, also after that workflow was cleaned up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import msgspec

from provisioning.core.identifiers import Digest, Ulid
from provisioning.core.workflow import FORMAT, Submission
from provisioning.errors import Refused
from provisioning.storage import files
from provisioning.storage.checkpoint import encode, load

_CHOSEN = re.compile(r"(request~)?[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class Reservation(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who has the id, for which workflow of what content."""

    format: int
    workflow_id: Ulid
    operator: str
    digest: Digest


def reserve(folder: Path, submission: Submission, *, is_there: Callable[[str], bool], scratch: files.Scratch) -> str:
    """The workflow_id that the submission's id has, which is its own where it is the first; under the lock of ids.

    `is_there` says whether a workflow is in the spool. Refused where the id stands for other content, or is
    another's.
    """
    path = folder / f"{submission.id}.json"
    mine = Reservation(FORMAT, submission.workflow_id, submission.operator, submission.digest)
    if files.write_once(path, encode(mine), scratch=scratch):
        return submission.workflow_id
    taken = load(path, Reservation)
    if (taken.operator, taken.digest) == (mine.operator, mine.digest):
        return taken.workflow_id
    if is_there(taken.workflow_id) or was_cleaned(folder, taken.workflow_id):
        has = f"the id {submission.id!r} is workflow {taken.workflow_id} of {taken.operator}"
        if taken.operator != mine.operator:
            raise Refused(f"{has}, not of {mine.operator}", hint="choose another id")
        raise Refused(f"{has}, with other content", hint="choose another id, or submit the same bytes")
    files.write_atomic(path, encode(mine), durable=True, scratch=scratch)  # never put in, or rejected: free again
    return submission.workflow_id


def known(folder: Path, chosen: str) -> Reservation | None:
    """Who has the id, if anybody has. What is no id is nobody's."""
    if not _CHOSEN.match(chosen):
        return None
    try:
        return load(folder / f"{chosen}.json", Reservation)
    except FileNotFoundError:
        return None


def was_cleaned(folder: Path, workflow_id: str) -> bool:
    """Whether the workflow has been in the spool and was cleaned up."""
    return (folder / f"{workflow_id}.cleaned").exists()


def keep_taken(folder: Path, workflow_id: str, scratch: files.Scratch) -> None:
    """Let the id of a workflow stay taken after it is gone."""
    if not was_cleaned(folder, workflow_id):
        files.write_once(folder / f"{workflow_id}.cleaned", b"", scratch=scratch)
