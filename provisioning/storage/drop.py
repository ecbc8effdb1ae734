"""The drop door on the disk: operators' folders, what is being taken over from them, and the answers that are owed.

`taking/<take_id>/` is a drop that was taken over and is not decided yet, or whose decision is not carried out.
`receipts/<take_id>.json` is a decision, durable before anything follows from it, kept until its last receipt is out.
Only the holder of `locks/intake` writes here.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import itertools
import os
import pwd
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.core.drop import OPERATOR, PROOFS, Answer, Origin, Reason, Sight
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.proof import unsealed
from provisioning.core.workflow import FORMAT, Submission
from provisioning.decoding import decoded
from provisioning.errors import ProvisioningError
from provisioning.storage import files, foreign, reading
from provisioning.storage.checkpoint import MAX_RECORD_BYTES, encode, load, owned
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool

_SAFE = "".join(map(chr, range(0x21, 0x7F))).replace("%", "").replace("/", "")


class Operator(NamedTuple):
    """Somebody who has a drop folder: its owner."""

    name: str
    folder: Path
    uid: int
    private: frozenset[int] = frozenset()
    """Groups in which nobody else is but they, and who works the spool."""


class Take(NamedTuple):
    """A drop that was read and proved: what is kept of it."""

    origin: Origin
    data: bytes | None
    signature: bytes | None = None


def quoted(name: bytes) -> str:
    """A name of any bytes as text that holds nothing but printable ASCII."""
    return quote_from_bytes(name, safe=_SAFE)


def is_private(gid: int, name: str) -> bool:
    """Whether nobody but this user, and who works the spool, is in the group."""
    if gid == os.getegid() and gid != 0:
        return True
    try:
        members = {*grp.getgrgid(gid).gr_mem, *(user.pw_name for user in pwd.getpwall() if user.pw_gid == gid)}
    except KeyError:
        return True
    return members <= {name}


def operators(spool: Spool) -> tuple[list[Operator], list[str]]:
    """Who has a drop folder, and what is wrong with folders that are nobody's."""
    found, wrong = [], []
    for name in reading.list_names(spool.drop):
        path = spool.drop / name
        if not OPERATOR.match(name) or path.is_symlink() or not path.is_dir():
            wrong.append(f"{path} is no operator's folder: it is left alone")
            continue
        status = os.lstat(path)
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            wrong.append(f"{path} is left alone: there is no user {name}")
            continue
        if status.st_uid != user.pw_uid:
            wrong.append(f"{path} is left alone: it belongs to uid {status.st_uid}, not to {name}")
        elif status.st_dev != os.lstat(spool.root).st_dev:
            wrong.append(f"{path} is left alone: it is not on the file system of the spool")
        elif not foreign.is_writable(path):
            wrong.append(f"{path} is left alone: nothing can be removed from it; see: provisioning spool check")
        elif status.st_mode & 0o002:
            wrong.append(f"{path} is left alone: anybody may write into it")
        else:
            groups = {gid for gid in (user.pw_gid, status.st_gid) if is_private(gid, name)}
            found.append(Operator(name, path, status.st_uid, frozenset(groups)))
    return sorted(found), wrong


def folders(spool: Spool) -> list[Path]:
    """The folders in the drop folder, whose ever they are: what changes in them is worth a look."""
    return [spool.drop / name for name in reading.list_names(spool.drop, folders=True)]


def origin_of(operator: str, sight: Sight, *, kind: str, form: str = "") -> Origin:
    """Where a drop comes from."""
    return Origin(
        format=FORMAT,
        take_id=new_ulid(),
        operator=operator,
        name=quoted(sight.name),
        kind=kind,
        device=sight.device,
        inode=sight.inode,
        mode=sight.mode,
        owner=sight.owner,
        group=sight.group,
        links=sight.links,
        size=sight.size,
        mtime_ns=sight.mtime_ns,
        ctime_ns=sight.ctime_ns,
        form=form,
    )


def sight_of(origin: Origin) -> Sight:
    """What was looked at when the drop was taken."""
    return Sight(unquote_to_bytes(origin.name), *(getattr(origin, field) for field in Sight._fields[1:]))


def take(spool: Spool, taken: Take) -> Path:
    """Make the folder of a drop that is taken over, durably."""
    prepared, target = spool.scratch.name(), spool.taking / taken.origin.take_id
    files.make_dir(prepared)
    try:
        with naming(prepared):
            files.write_new(prepared / "origin.json", encode(taken.origin), durable=True)
            if taken.data is not None:
                files.write_new(prepared / content_name(taken.origin), taken.data, durable=True)
            if taken.signature is not None:
                files.write_new(prepared / "manifest.sig", taken.signature, durable=True)
            files.sync_dir(prepared)
        foreign.hand_over(prepared, target)
    except BaseException:
        with contextlib.suppress(OSError, ProvisioningError):  # it may have its name already, and then that counts
            files.remove_tree(prepared)
        raise
    return target


def content_name(origin: Origin) -> str:
    """What the bytes of a drop are called in its folder."""
    return "request.json" if origin.kind == "request" else f"manifest.{origin.form}"


def remove_original(spool: Spool, origin: Origin, opened: foreign.Opened | None = None) -> None:
    """Remove what was taken from the operator's folder, unless its name stands for something newer by now."""
    folder, sight, has_its_bytes = spool.drop / origin.operator, sight_of(origin), partial(_has_bytes_of, origin)
    into = spool.taking / origin.take_id / "original"
    if os.path.lexists(into):  # whoever moved it there died before it was compared
        with naming(into, "remove"):
            path = os.path.join(os.fsencode(folder), sight.name)
            foreign.settle_away(path, sight, into, has_its_bytes, wanted=False)
            files.sync_dir(folder)
    elif folder.is_dir() and not folder.is_symlink():
        foreign.take_away(folder, sight, into, has_its_bytes, opened)


def _has_bytes_of(origin: Origin, data: bytes) -> bool:
    """Whether that is what was taken; of JSON the seal was taken off."""
    return origin.digest in {hashlib.sha256(each).hexdigest() for each in (data, unsealed(data))}


def remove_proofs(spool: Spool, origin: Origin) -> None:
    """Remove the digest and the signature that were beside the file when it was taken."""
    folder = spool.drop / origin.operator
    taken_ns = os.stat(spool.taking / origin.take_id / "origin.json").st_mtime_ns
    if folder.is_symlink() or not folder.is_dir():
        return
    descriptor = foreign.open_folder(folder)
    try:
        for end in PROOFS:
            sight = foreign.look(descriptor, unquote_to_bytes(origin.name) + end.encode())
            if sight is not None and stat.S_ISREG(sight.mode) and sight.ctime_ns <= taken_ns:
                foreign.remove(descriptor, sight)
    finally:
        os.close(descriptor)


def takings(spool: Spool) -> list[str]:
    """The drops that are being taken over, oldest first."""
    return sorted(filter(WORKFLOW_ID.match, reading.list_names(spool.taking, folders=True)))


def load_origin(spool: Spool, take_id: str) -> Origin:
    """The origin of a drop that is being taken over."""
    return load(spool.taking / take_id / "origin.json", Origin)


# Decisions


def save_answer(spool: Spool, answer: Answer) -> None:
    """Keep a decision, durably; that it was told may be forgotten, for then it is told again."""
    path = spool.receipts / f"{answer.take_id}.json"
    files.write_atomic(path, encode(answer), durable=not answer.answered, whole=True, scratch=spool.scratch)


def load_answers(spool: Spool) -> tuple[dict[str, Answer], list[ProvisioningError]]:
    """The decisions whose last receipt is not out, by take_id; and what could not be read."""
    found: dict[str, Answer] = {}
    wrong: list[ProvisioningError] = []
    for name in sorted(reading.list_names(spool.receipts)):
        try:
            answer = load(spool.receipts / name, Answer)
            found[answer.take_id] = answer
        except FileNotFoundError:
            continue
        except ProvisioningError as error:
            wrong.append(error)
    return found, wrong


def load_answer(spool: Spool, take_id: str) -> Answer | None:
    """What was decided about this drop, if it was and more is to be said of it."""
    with contextlib.suppress(FileNotFoundError):
        return load(spool.receipts / f"{take_id}.json", Answer)
    return None


def forget_answer(spool: Spool, take_id: str) -> None:
    """Nothing more is to be said of this drop."""
    files.remove(spool.receipts / f"{take_id}.json")


def put_in(spool: Spool, take_id: str, submission: Submission) -> str:
    """Make the drop an accepted submission by renaming its folder; its workflow_id. Refused: its id means another."""

    def prepare(decided: Submission) -> Path:
        folder = spool.taking / take_id
        path = folder / "submission.json"
        files.write_atomic(path, encode(decided), durable=files.DURABLE["submission"], scratch=spool.scratch)
        return folder

    return spool.admit(submission, prepare)


def note_reasons(spool: Spool, folder: Path, origin: Origin, reasons: Sequence[Reason], *, door: str) -> None:
    """Keep in the folder of a drop why it is rejected: that is the decision, and it is durable."""
    reason = {
        "format": FORMAT,
        "code": reasons[0].code,
        "operator": origin.operator,
        "name": origin.name,
        "door": door,
        "problems": [{**_as_dict(each), "file": origin.name} for each in reasons],
    }
    path = folder / "reason.json"
    files.write_atomic(path, encode(reason), durable=files.DURABLE["rejected"], scratch=spool.scratch)


def noted_reasons(spool: Spool, take_id: str) -> tuple[Reason, ...]:
    """Why a drop was rejected, where that was decided."""
    try:
        data = reading.read_regular(spool.taking / take_id / "reason.json", MAX_RECORD_BYTES)
    except FileNotFoundError:
        return ()
    with owned(spool.taking / take_id):
        listed = decoded(data, _Noted).problems
    return tuple(listed)


class _Noted(msgspec.Struct):
    problems: list[Reason]


def put_aside(spool: Spool, folder: Path, origin: Origin) -> None:
    """Move the folder of what was rejected, with its reasons, to `rejected/<time>-<digest>/`."""
    stamp = f"{now():%Y%m%dT%H%M%SZ}-{(origin.digest or origin.take_id[-12:])[:12]}"
    names = itertools.chain([stamp], (f"{stamp}-{number}" for number in itertools.count(2)))
    free = next(name for name in names if not os.path.lexists(spool.rejected / name))
    foreign.hand_over(folder, spool.rejected / free)


def _as_dict(reason: Reason) -> dict[str, object]:
    return {name: getattr(reason, name) for name in ("code", "message", "hint", "line", "column", "field")}


def discard(spool: Spool, take_id: str) -> None:
    """Remove a drop that is nothing new."""
    if (spool.taking / take_id).is_dir():
        files.remove_tree(spool.discard(spool.taking / take_id))
