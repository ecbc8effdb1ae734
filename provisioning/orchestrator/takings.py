"""Drops that are being taken over: kept, audited, their originals removed. What is refused is gone on with later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from provisioning.core.drop import Origin, Sight
from provisioning.errors import ProvisioningError
from provisioning.storage import drop, foreign
from provisioning.storage.audit import Audit
from provisioning.storage.drop import Take
from provisioning.storage.spool import Spool


def first_takings(spool: Spool) -> list[str]:
    """The drops that are being taken over, oldest first; of those that are of exactly the same file the oldest alone.

    The others are removed, unless somebody decided about them.
    """
    found: dict[tuple[str, Sight], str] = {}
    for take_id in drop.takings(spool):
        with contextlib.suppress(ProvisioningError, FileNotFoundError):  # who takes it up says what is wrong with it
            origin = drop.load_origin(spool, take_id)
            first = found.setdefault((origin.operator, drop.sight_of(origin)), take_id)
            decided = drop.load_answer(spool, take_id) or drop.noted_reasons(spool, take_id)
            if first != take_id and not decided:
                drop.discard(spool, take_id)
    return drop.takings(spool)


class Takings:
    """The holder of the door is the only one who takes drops over, so it knows those that it has not finished."""

    def __init__(self, spool: Spool, audit: Audit) -> None:
        self._spool = spool
        self._audit = audit
        self._unfinished: dict[str, Origin] = {}
        """What was begun and refused, by take_id: until it is finished or found gone, it is not taken again."""
        self._refused: list[str] = []

    def take(self, taken: Take, opened: foreign.Opened | None, remove_proofs: Callable[[], object]) -> None:
        """Take a drop over. An error leaves it for `finish`, if it has come so far."""
        origin = taken.origin
        self._unfinished[origin.take_id] = origin
        try:
            drop.take(self._spool, taken)
        except BaseException:
            self._refused.append(origin.take_id)
            raise
        self.finish(origin, audited=False, opened=opened, remove_proofs=remove_proofs)

    def finish(
        self,
        origin: Origin,
        *,
        audited: bool,
        opened: foreign.Opened | None = None,
        remove_proofs: Callable[[], object] | None = None,
    ) -> None:
        """Audit what was taken over, and remove the original and its proofs: after a crash or an error, what is left.

        `opened` and `remove_proofs` are of whoever has just looked at them.
        """
        self._unfinished[origin.take_id] = origin
        try:
            if not audited:
                self._audit.append(
                    "taken",
                    take_id=origin.take_id,
                    operator=origin.operator,
                    door="drop",
                    name=origin.name,
                    digest=origin.digest,
                    proof=origin.sealed_by,
                )
            drop.remove_original(self._spool, origin, opened)
            if remove_proofs is not None:
                remove_proofs()
            else:
                drop.remove_proofs(self._spool, origin)
        except BaseException:
            self._refused.append(origin.take_id)
            raise
        self.forget(origin.take_id)

    def forget(self, take_id: str) -> None:
        """It is finished, or nothing has come of it."""
        self._unfinished.pop(take_id, None)

    def has(self, operator: str, sight: Sight) -> bool:
        """Whether exactly this file was taken over, and is there only because it could not be removed."""
        if not self._unfinished:
            return False
        return any(each.operator == operator and drop.sight_of(each) == sight for each in self._unfinished.values())

    def refused(self) -> list[str]:
        """What could not be finished since the last call, by take_id."""
        said, self._refused = self._refused, []
        return said
