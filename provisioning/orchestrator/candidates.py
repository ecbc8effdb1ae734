"""The names in the drop folders, in the order in which they are looked at: each operator in turn, small files first."""

from __future__ import annotations

import os
import stat
from typing import Any, NamedTuple

from provisioning.clock import boottime, now
from provisioning.config import Drop
from provisioning.core.drop import PROOFS, RECEIPT, Reason, Sight, is_answer
from provisioning.storage import drop, foreign, receipts
from provisioning.storage.drop import Operator
from provisioning.storage.spool import Spool

LIST_REST = 20
"""So many times what a look at an operator's folder took passes before the next."""


class Candidate(NamedTuple):
    """A name in a drop folder that is to be looked at, with the digest and the signature beside it."""

    operator: Operator
    sight: Sight
    digest: Sight | None
    signature: Sight | None
    over: str = ""
    """The quota that it exceeds."""

    @property
    def sights(self) -> tuple[Sight | None, ...]:
        return self.sight, self.digest, self.signature

    @property
    def changed_at(self) -> float:
        """When one of them last changed: by the time of change, which nobody can set."""
        return max(each.ctime_ns for each in self.sights if each) / 1e9


def candidates(
    spool: Spool, settings: Drop, rests: dict[str, float] | None = None
) -> tuple[list[Candidate], list[str]]:
    """All names in all folders, and what is wrong with folders.

    `rests` has the boottimes before which operators' folders are left out, and gets them anew: who fills their folder
    waits the longer themselves, and nobody else does.
    """
    operators, wrong = drop.operators(spool)
    columns = []
    for operator in operators:
        began = boottime()
        if rests and rests.get(operator.name, 0.0) > began:
            continue
        try:
            descriptor = foreign.open_folder(operator.folder)
        except OSError as error:
            wrong.append(f"{operator.folder}: {error.strerror}")
            continue
        try:
            sights, whole = foreign.list_sights(descriptor, _is_a_drops)
        finally:
            os.close(descriptor)
        columns.append(_of(operator, sights, settings))
        if not whole:
            most = foreign.MOST_NAMES
            wrong.append(f"{operator.folder} has more than {most} names, of which the others are not looked at")
        if rests is not None:
            rests[operator.name] = boottime() + LIST_REST * (boottime() - began)
    longest = max(map(len, columns), default=0)
    return [column[row] for row in range(longest) for column in columns if row < len(column)], wrong


def _is_a_drops(name: bytes) -> bool:
    """Hidden names and receipts are nobody's drop: they are not even looked at, and count against no quota."""
    return not name.startswith(b".") and not name.endswith(RECEIPT.encode())


def _of(operator: Operator, sights: list[Sight], settings: Drop) -> list[Candidate]:
    """What we wrote there is nobody's drop; a proof belongs to its file."""
    sights = [sight for sight in sights if not is_answer(sight, os.geteuid())]
    by_name = {sight.name: sight for sight in sights}
    over = _over_quota(sights, settings)
    found = []
    for sight in sights:
        name = sight.name
        proof_of = next((name.removesuffix(end.encode()) for end in PROOFS if name.endswith(end.encode())), None)
        if proof_of in by_name:
            continue
        digest, signature = (by_name.get(name + end.encode()) for end in PROOFS)
        found.append(Candidate(operator, sight, digest, signature, over.get(name, "")))
    return sorted(found, key=lambda each: (each.sight.size, each.sight.name))


def _over_quota(sights: list[Sight], settings: Drop) -> dict[bytes, str]:
    """The names that an operator has beyond what is allowed, the latest ones."""
    found = {}
    total = 0
    for count, sight in enumerate(sorted(sights, key=lambda each: (each.ctime_ns, each.name)), 1):
        counts = stat.S_ISREG(sight.mode) and sight.size <= settings.max_bytes  # a larger one is refused for that
        total += sight.size if counts else 0
        if settings.files and count > settings.files:
            found[sight.name] = "quota-files"
        elif settings.bytes and total > settings.bytes:
            found[sight.name] = "quota-bytes"
    return found


def standing(spool: Spool, settings: Drop) -> tuple[list[dict[str, Any]], list[str]]:
    """What lies in each folder and, by its receipt, why it waits: a look that changes nothing."""
    found, wrong = candidates(spool, settings)
    now_seconds = now().timestamp()
    names = [operator.name for operator in drop.operators(spool)[0]]
    pages: dict[str, dict[str, Any]] = {
        name: {"operator": name, "files": 0, "bytes": 0, "waiting": []} for name in names
    }
    for each in found:
        if (page := pages.get(each.operator.name)) is None:
            continue  # made this very moment
        page["files"] += 1
        page["bytes"] += each.sight.size
        name = drop.quoted(each.sight.name)
        receipt = receipts.read(each.operator.folder / receipts.name_of(name))
        said = receipt.reason if receipt and receipt.answer != "accepted" else None
        reason = said or Reason("new", "nobody has looked at it yet", "is an orchestrator running?")
        page["waiting"].append(
            {
                "name": name,
                "why": reason.message,
                "code": reason.code,
                "hint": reason.hint,
                "age_seconds": max(0.0, now_seconds - each.changed_at),
            }
        )
    return list(pages.values()), wrong
