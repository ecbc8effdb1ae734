"""What is dropped, as values: names, proofs of completeness, why something is refused, and what a receipt says."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection
from datetime import datetime
from typing import Annotated, NamedTuple

import msgspec

from provisioning.core.identifiers import WORKFLOW_ID, ChosenId, TaskId, Ulid
from provisioning.core.manifest import CODES as MANIFEST_CODES
from provisioning.core.workflow import FORMAT, Instant, Submission
from provisioning.errors import Problem

OPERATOR = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
"""Who may have a drop folder; also a principal of an allowed_signers file, where `*`, `?`, `!` and `,` mean more."""
DROP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.(toml|json)\Z")
"""What a dropped manifest or request may be called."""
PROOFS = (".sha256", ".sig")
RECEIPT, REQUEST = ".receipt.json", ".request.json"
RESCUE = ".rescue.json"
"""How the name of a manifest ends that lies beside the receipt of a workflow that failed, and does what is left."""
HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,252}\Z")

REASONS = {
    "bad-name": "letters, digits, '.', '_' and '-' make a name, which starts with a letter or digit, has at most 133 "
    "characters and ends in .toml or .json",
    "symlink": "a symbolic link, wherever it leads",
    "hard-link": "the file has another name, by which it could be changed",
    "fifo": "a named pipe",
    "socket": "a socket",
    "device": "a device",
    "directory": "a folder",
    "wrong-owner": "the file does not belong to the operator whose folder it is in",
    "writable-by-others": "group or others may write into the file",
    "unreadable": "the orchestrator may not read the file",
    "quota-files": "the operator has more files in the folder than allowed",
    "quota-bytes": "the operator's files in the folder have more bytes than allowed",
    "no-file": "a digest or signature without the file that it is of",
    "incomplete": "nothing proves that the file is whole",
    "digest-mismatch": "what should prove the file whole is of other bytes",
    "too-slow": "reading it takes more processor time than allowed",
    "too-much-memory": "reading it takes more memory than allowed",
    "parser-failed": "the parser ended without an answer",
    "signature-missing": "the door asks for a signature and there is none",
    "signature-unreadable": "it is no SSH signature",
    "signature-forged": "the signature is of other bytes",
    "signature-namespace": "the signature, or the key, is for another purpose than manifests",
    "signature-expired": "the key was not valid at this time",
    "signature-revoked": "the key is revoked",
    "unknown-signer": "the key is not one of the operator's",
    "no-signers": "the door asks for signatures, and the orchestrator cannot check any",
    "wrong-host": "it is meant for another host",
    "expired": "expires_at has passed",
    "no-authority": "there is no authority.toml that can be used: nobody is granted anything",
    "not-granted": "no grant of authority.toml covers it",
    "id-conflict": "another manifest has this id",
    "unknown-workflow": "there is no such workflow that this operator may ask something of",
    "request-refused": "the workflow's state does not allow what is asked",
    "no-operations": "its operations have gone since it was accepted",
    **MANIFEST_CODES,
}
"""Every reason for which a drop is refused, and what it means. Closed: scripts rely on it."""

WAITING = {
    "unproved": "nothing proves yet that the file is whole",
    "unmatched": "the digest or signature that is there is of other bytes",
    "linked": "the file has another name",
    "unsigned": "the signature is not there yet",
    "unreadable": "the orchestrator may not read the file",
    "in-use": "a program has it open for writing",
    "active-workflows": "the operator has as many workflows under way as allowed",
}
"""Why a file may be waiting."""


class Sight(NamedTuple):
    """What the file system says of a name."""

    name: bytes
    device: int
    inode: int
    mode: int
    owner: int
    group: int
    links: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: Sight) -> bool:
        """Whether both are of one file with the same content, whatever became of its names in between."""
        return self._replace(name=b"", links=0, ctime_ns=0) == other._replace(name=b"", links=0, ctime_ns=0)


def objection(sight: Sight, owner: int, private: Collection[int], max_bytes: int) -> str | None:
    """Why what stands in a drop folder is never read, by its kind, owner, mode and size.

    `private` are groups in which nobody else is but the owner, and who works the spool.
    """
    kind = stat.S_IFMT(sight.mode)
    kinds = {
        stat.S_IFLNK: "symlink",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
        stat.S_IFDIR: "directory",
    }
    if kind != stat.S_IFREG:
        return kinds.get(kind, "device")
    if sight.owner != owner:
        return "wrong-owner"
    if sight.mode & stat.S_IWOTH or (sight.mode & stat.S_IWGRP and sight.group not in private):
        return "writable-by-others"
    return "too-large" if sight.size > max_bytes else None


def rescue_name(name: str, workflow_id: str) -> str:
    """What the manifest of what is left of a workflow is called, beside the receipt of the file of that name."""
    return f"{name[:80]}.{workflow_id}{RESCUE}"


def is_answer(sight: Sight, own: int) -> bool:
    """Whether it is what we, who have the uid `own`, say to the operator: a receipt, or what is left of a workflow."""
    name = sight.name.decode("utf-8", "replace")
    rescue = name.endswith(RESCUE) and WORKFLOW_ID.match(name.removesuffix(RESCUE).rpartition(".")[2])
    return name.endswith(RECEIPT) or bool(rescue and sight.owner == own)


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a drop was taken from: the file that is to be removed, if it still is exactly this one."""

    format: int
    take_id: Ulid
    operator: str
    name: str
    """Percent-encoded: a name may be any bytes."""
    kind: str
    """`manifest` or `request`."""
    device: int
    inode: int
    mode: int
    owner: int
    group: int
    links: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: str = ""
    """SHA-256 of the bytes that were taken; empty where none were."""
    form: str = ""
    sealed_by: str = ""
    """What proved it whole: `seal`, `sha256`, `signature`, or nothing where bare files are trusted."""
    refused: str = ""
    """The reason, where it was refused before it was read."""
    text: str = ""
    hint: str = ""


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task that did not succeed."""

    task_id: TaskId
    operation: str
    code: str
    message: str = ""
    help: str = ""


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with a drop: a stable code, what, what to do, and where."""

    code: str
    message: str
    hint: str = ""
    line: int | None = None
    column: int | None = None
    field: str = ""

    @classmethod
    def of(cls, problem: Problem) -> Reason:
        """The same as a problem says, without the name of the file."""
        message, hint = problem.message[:2000], problem.hint[:2000]
        return cls(problem.code, message, hint, problem.line, problem.column, problem.field[:500])


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a drop: `NAME.receipt.json`."""

    format: int
    name: str
    """The file that it answers."""
    operator: str
    answer: str
    """`waiting`, `accepted` or `rejected`."""
    at: Instant
    digest: str = ""
    """SHA-256 of the bytes that were taken."""
    workflow_id: str = ""
    request: str = ""
    """What was asked of that workflow, where the drop was a request."""
    reason: Reason | None = None
    """Why it waits or was rejected; the first of `reasons`."""
    reasons: tuple[Reason, ...] = ()
    state: str = ""
    """State of the workflow where it is paused or has ended; `rejected` or `removed` where it is gone."""
    ended_at: Instant | None = None
    counts: dict[str, int] = {}
    """Tasks by state."""
    failed: tuple[Failure, ...] = ()
    """Tasks that failed, with their last error; at most a hundred."""
    rescue: str = ""
    """The file beside it that does what is left of a failed workflow."""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`receipts/<take_id>.json`: what was decided about a drop, kept until its last receipt is written."""

    format: int
    take_id: Ulid
    operator: str
    name: str
    """Percent-encoded, as in its origin."""
    receipt: Receipt
    id: ChosenId | None = None
    """The manifest's own."""
    request_id: Ulid | None = None
    """The request that is to be made of the workflow, where the drop asks for one."""
    tasks: tuple[TaskId, ...] = ()
    before: bool = False
    """The same manifest was accepted before: nothing new comes of this one."""
    answered: bool = False
    """Audited, and said to the operator."""


class AskedByFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`NAME.request.json`: what an operator asks of a workflow that exists."""

    verb: Annotated[str, msgspec.Meta(max_length=32)]
    workflow_id: Ulid
    tasks: tuple[TaskId, ...] = ()
    id: ChosenId | None = None
    expires_at: Instant | None = None
    target_host: str | None = None
    schema: int = 1


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be known of a drop that is in order."""

    name: str = ""
    infra: str = "default"
    tasks: int = 0
    priority: int = 50
    not_before: Instant | None = None
    expires_at: Instant | None = None
    id: ChosenId | None = None
    asked: AskedByFile | None = None

    def submission(self, origin: Origin, door: str, at: datetime) -> Submission:
        """What the manifest becomes where it is accepted at this instant: it keeps the id under which it was taken."""
        return Submission(
            format=FORMAT,
            workflow_id=origin.take_id,
            name=self.name,
            infra=self.infra,
            operator=origin.operator,
            door=door,
            digest=origin.digest,
            submitted_at=at,
            tasks=self.tasks,
            priority=self.priority,
            not_before=self.not_before,
            expires_at=self.expires_at,
            id=self.id,
            origin=origin.name,
        )


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the parser says of one drop: facts, or reasons against it."""

    reasons: tuple[Reason, ...] = ()
    facts: Facts | None = None
    id: str | None = None
    """The id that a refused manifest says, if it could be read so far."""


_HINTS = {
    "writable-by-others": "chmod go-w",
    "wrong-owner": "drop it as yourself",
    "incomplete": "drop it again with its digest; or seal it: provisioning manifest seal FILE",
    "digest-mismatch": "drop it again, with the digest of what it is now",
    "directory": "remove it: only files are taken",
    "unreadable": "give it a mode by which the orchestrator may read it, such as: chmod a+r",
}


def refusal(code: str, size: int, max_bytes: int) -> Reason:
    """What is said of a file that is refused unread."""
    if code == "too-large":
        text = f"it has {size} bytes, and {max_bytes} are allowed"
        return Reason(code, text, "split it, or submit it on the host itself")
    return Reason(code, REASONS[code], _HINTS.get(code, "see the README, drop door"))


def waiting(name: str, why: str) -> Reason:
    """Why a file waits, and the one line to type."""
    lines = {
        "unproved": f"sha256sum {name} >{name}.sha256, and drop that too; or: provisioning manifest seal {name}",
        "unmatched": f"drop {name} and its digest or signature again, if they are not still under way",
        "unsigned": f"provisioning manifest sign --key KEY {name}, and drop {name}.sig",
        "unreadable": f"chmod a+r {name}",
        "linked": "remove its other name",
        "in-use": "close it",
        "active-workflows": "wait until some of your workflows have ended",
    }
    return Reason(why, WAITING[why], lines[why])


def is_past(at: datetime | None, now: datetime) -> bool:
    """Whether an instant that may be missing has come."""
    return at is not None and at <= now
