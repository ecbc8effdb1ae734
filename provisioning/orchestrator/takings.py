"""Drops that are being taken over: kept, audited, their originals removed. What is refused is gone on with later."""

from __future__ import annotations

from provisioning.core.drop import Origin, Sight
from provisioning.storage import drop, foreign
from provisioning.storage.audit import Audit
from provisioning.storage.drop import Take
from provisioning.storage.spool import Spool


class Takings:
    """The holder of the door is the only one who takes drops over, so it knows those that it has not finished."""

    def __init__(self, spool: Spool, audit: Audit) -> None:
        self._spool = spool
        self._audit = audit
        self._unfinished: dict[str, Origin] = {}
        """What was begun and refused, by take_id: until it is finished or found gone, it is not taken again."""
        self._refused: list[str] = []

    def take(self, taken: Take, opened: foreign.Opened | None) -> None:
        """Take a drop over. An error leaves it for `finish`, if it has come so far."""
        origin = taken.origin
        self._unfinished[origin.take_id] = origin
        try:
            drop.take(self._spool, taken)
        except BaseException:
            self._refused.append(origin.take_id)
            raise
        self.finish(origin, audited=False, opened=opened)

    def finish(self, origin: Origin, *, audited: bool, opened: foreign.Opened | None = None) -> None:
        """Audit what was taken over, and remove the original; both may have been done before a crash or an error."""
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
            if opened is None:
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
