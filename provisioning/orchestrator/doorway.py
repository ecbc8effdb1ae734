"""What lies in the drop folders: what may be taken over, what waits for its proof, what is refused unread."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from provisioning.clock import boottime, now
from provisioning.config import Config
from provisioning.core.drop import (
    DROP_NAME,
    PROOFS,
    REQUEST,
    Origin,
    Reason,
    Receipt,
    Sight,
    objection,
    refusal,
    waiting,
)
from provisioning.core.proof import DIGEST_BYTES, is_listed, is_sealed, unsealed
from provisioning.core.scheduler import Now
from provisioning.core.workflow import FORMAT
from provisioning.errors import ProvisioningError
from provisioning.execution import signing
from provisioning.orchestrator.candidates import LIST_REST, Candidate, candidates
from provisioning.orchestrator.complaints import concerns_all
from provisioning.orchestrator.takings import Takings
from provisioning.storage import drop, foreign, receipts
from provisioning.storage.audit import Audit
from provisioning.storage.drop import Take
from provisioning.storage.spool import Spool

SETTLE_SECONDS = 2.0
"""So long a file must have been as it is before its operator is told that it waits, or that it has a second name."""
MOST_REST_SECONDS = 0.2
"""So long at most passes between two looks where something changes all the time, or has changed in between."""
RELIST_SECONDS = 0.5
"""Before what has arrived meanwhile is seen, while there is still much to do: so nobody waits for another's many."""
SIGNATURE_BYTES = 16 << 10


_LOOKED_AT_AGAIN = frozenset({"active-workflows", "in-use"})
"""Why a file waits although it does not change itself."""


class _Seen(NamedTuple):
    """What was last made of a name, with what beside it."""

    sights: tuple[Sight | None, ...]
    why: str
    told: bool


class _Wait(Exception):
    """It is not to be taken yet."""

    def __init__(self, why: str, refusal: str, *, for_ever: bool = False) -> None:
        self.why = why
        self.refusal = refusal
        """The reason for which it is refused when its time is over."""
        self.for_ever = for_ever
        super().__init__(why)


class _Refuse(Exception):
    """It is never to be taken."""

    def __init__(self, code: str, data: bytes | None = None) -> None:
        self.code = code
        self.data = data
        super().__init__(code)


class Doorway:
    """Looks at the drop folders in portions, and takes over what is whole."""

    def __init__(self, spool: Spool, config: Config, audit: Audit) -> None:
        self._spool = spool
        self._config = config
        self._settings = config.drop
        self._audit = audit
        self.takings = Takings(spool, audit)
        self.look_at = 0.0
        """The boottime of the next look at all of it."""
        self._rest_until = 0.0
        self._rests: dict[str, float] = {}
        """The boottimes before which the folders of operators are not looked at again."""
        self._listed_at = 0.0
        self._items: list[Candidate] = []
        self._seen: dict[tuple[str, bytes], _Seen] = {}
        self._active: dict[str, int] = {}
        self._complaints: list[str] = []

    def has_more(self) -> bool:
        """Whether the last look found more than there was time for."""
        return bool(self._items)

    def complaints(self) -> list[str]:
        """What is wrong with the folders, since the last call."""
        said, self._complaints = self._complaints, []
        return said

    def count_active(self, active: dict[str, int]) -> None:
        """Take note of how much each operator has under way."""
        self._active = active

    def look_by(self, at: float) -> None:
        """Look at all of it at that boottime, or as soon after it as the last look allows."""
        self.look_at = min(self.look_at, max(at, self._rest_until))

    def is_due(self, this: Now) -> bool:
        """Whether a look will find anything to do."""
        return bool(self._items) or self._is_to_list(this)

    def _is_to_list(self, this: Now) -> bool:
        settled = not self._items or this.boottime >= self._listed_at + RELIST_SECONDS
        return settled and this.boottime >= self.look_at

    def look(self, this: Now, until: float) -> Iterator[Origin]:
        """What was taken over, until that boottime."""
        if self._is_to_list(this):
            self._listed_at = began = boottime()
            self._list()
            self._rest_until = boottime() + min(MOST_REST_SECONDS, LIST_REST * (boottime() - began))
            self.look_at = max(self._rest_until, this.boottime + self._config.orchestrator.scan_seconds)
        while self._items and boottime() < until:
            item = self._items.pop()
            try:
                origin = self._examine(item)
            except (foreign.Changed, FileNotFoundError):
                self.look_by(this.boottime + MOST_REST_SECONDS)
                continue
            except (ProvisioningError, OSError) as error:
                if isinstance(error, ProvisioningError) and concerns_all(error):
                    self._items.append(item)
                    raise
                self._complaints.append(f"{item.operator.folder}/{drop.quoted(item.sight.name)}: {error}")
                continue
            if origin is not None:
                yield origin

    def _list(self) -> None:
        began = boottime()
        resting = {name for name, until in self._rests.items() if until > began}
        found, wrong = candidates(self._spool, self._settings, self._rests)
        self._complaints += wrong
        there = {(item.operator.name, item.sight.name) for item in found}
        self._seen = {key: seen for key, seen in self._seen.items() if key in there or key[0] in resting}
        self._items = [item for item in self._items if item.operator.name in resting] + found[::-1]

    # One name

    def _examine(self, item: Candidate) -> Origin | None:
        key = (item.operator.name, item.sight.name)
        seen = self._seen.get(key)
        age = now().timestamp() - item.changed_at
        late = age >= self._settings.grace_seconds
        known = seen is not None and seen.sights == item.sights and seen.told and seen.why not in _LOOKED_AT_AGAIN
        if (seen and known and (not late or seen.why == "directory")) or self.takings.has(
            item.operator.name, item.sight
        ):
            return None
        descriptor = foreign.open_folder(item.operator.folder)
        opened: foreign.Opened | None = None
        try:
            if foreign.look(descriptor, item.sight.name) != item.sight:
                raise foreign.Changed
            try:
                self._refuse_unread(item)
                opened = self._open(descriptor, item, late=late)
                data, proof, signature = self._read(descriptor, item, opened, late=late)
            except _Refuse as refusal:
                return self._refuse(descriptor, item, refusal.code, refusal.data, opened)
            except _Wait as wait:
                if late and not wait.for_ever:
                    kept = opened.read(self._settings.max_bytes) if opened else None
                    return self._refuse(descriptor, item, wait.refusal, kept, opened)
                self._wait(item, wait.why, age)
                return None
            return self._take(descriptor, item, opened, data, proof, signature)
        finally:
            if opened is not None:
                opened.close()
            os.close(descriptor)

    def _refuse_unread(self, item: Candidate) -> None:
        """By name, kind, owner, mode, size and quota."""
        name = item.sight.name.decode("utf-8", "surrogateescape")
        age = now().timestamp() - item.changed_at
        if any(name.endswith(end) for end in PROOFS) and DROP_NAME.match(name.rpartition(".")[0]):
            raise _Wait("unmatched", "no-file")
        code = objection(item.sight, item.operator.uid, item.operator.private, self._settings.max_bytes)
        if not DROP_NAME.match(name):
            if code == "directory" or name.endswith((".toml", ".json")):
                raise _Refuse("directory" if code == "directory" else "bad-name")
            raise _Wait("unproved", "bad-name")
        if code is not None:
            raise _Refuse(code)
        if item.sight.links > 1:
            if age < SETTLE_SECONDS:  # a server may link and unlink to rename
                raise _Wait("linked", "hard-link")
            raise _Refuse("hard-link")
        if item.over:
            raise _Refuse(item.over)

    def _open(self, descriptor: int, item: Candidate, *, late: bool) -> foreign.Opened:
        try:
            opened = foreign.Opened(descriptor, item.sight)
        except PermissionError:
            raise _Wait("unreadable", "unreadable") from None
        if not opened.is_alone():
            opened.close()
            if late:
                raise _Refuse("incomplete")
            raise _Wait("in-use", "incomplete")
        return opened

    def _read(
        self, descriptor: int, item: Candidate, opened: foreign.Opened, *, late: bool
    ) -> tuple[bytes, str, bytes | None]:
        """The bytes, what proves them whole, and the signature."""
        data = opened.read(self._settings.max_bytes)
        name = item.sight.name.decode()
        sealed = is_sealed(data)
        if name.endswith(".json"):
            data = unsealed(data)
        signature: bytes | None = None
        if self._settings.signature != "off" and item.signature is not None:
            signature = self._companion(descriptor, item, item.signature, SIGNATURE_BYTES)
            whole = signing.is_of(data, signature, self._config.paths.ssh_keygen)
            if not whole and not late:
                raise _Wait("unmatched", "signature-forged")
            self._refuse_over_active(item)
            return data, "signature", signature  # where it is late, the verdict says what is wrong with it
        if self._settings.signature == "required":
            raise _Wait("unsigned", "signature-missing")
        if sealed is False:
            raise _Wait("unmatched", "digest-mismatch")
        proof = "seal" if sealed else ""
        if not proof and item.digest is not None:
            listing = self._companion(descriptor, item, item.digest, DIGEST_BYTES)
            if not (is_listed(data, name, listing) or is_listed(opened.read(self._settings.max_bytes), name, listing)):
                raise _Wait("unmatched", "digest-mismatch")
            proof = "sha256"
        if not proof and not self._settings.trust_unsealed:
            raise _Wait("unproved", "incomplete")
        self._refuse_over_active(item)
        return data, proof, signature

    def _refuse_over_active(self, item: Candidate) -> None:
        limit = self._settings.active_workflows
        if limit and self._active.get(item.operator.name, 0) >= limit:
            raise _Wait("active-workflows", "", for_ever=True)
        self._active[item.operator.name] = self._active.get(item.operator.name, 0) + 1

    def _companion(self, descriptor: int, item: Candidate, sight: Sight, limit: int) -> bytes:
        """What a digest or signature beside the file says; nothing where it is no such thing."""
        if objection(sight, item.operator.uid, item.operator.private, limit) is not None or sight.links > 1:
            return b""
        try:
            opened = foreign.Opened(descriptor, sight)
        except PermissionError:
            return b""
        try:
            return opened.read(limit)
        finally:
            opened.close()

    # Taking over

    def _take(  # noqa: PLR0913 - what is taken, from where, and what belongs to it
        self,
        descriptor: int,
        item: Candidate,
        opened: foreign.Opened,
        data: bytes,
        proof: str,
        signature: bytes | None,
    ) -> Origin:
        name = item.sight.name.decode()
        kind = "request" if name.endswith(REQUEST) else "manifest"
        origin = drop.origin_of(item.operator.name, item.sight, kind=kind, form=name.rpartition(".")[2])
        digest = hashlib.sha256(data).hexdigest()
        origin = msgspec.structs.replace(origin, digest=digest, sealed_by=proof)
        return self._take_over(descriptor, item, Take(origin, data, signature), opened)

    def _refuse(
        self, descriptor: int, item: Candidate, code: str, data: bytes | None, opened: foreign.Opened | None
    ) -> Origin | None:
        """Take over what is refused, as far as it can be; a folder stays where it is."""
        if code == "directory":
            self._tell(item, "rejected", refusal(code, item.sight.size, self._settings.max_bytes))
            self._seen[item.operator.name, item.sight.name] = _Seen(item.sights, code, told=True)
            return None
        reason = refusal(code, item.sight.size, self._settings.max_bytes)
        form = "json" if item.sight.name.endswith(b".json") else "toml"
        origin = drop.origin_of(item.operator.name, item.sight, kind="manifest", form=form)
        origin = msgspec.structs.replace(
            origin,
            refused=code,
            text=reason.message,
            hint=reason.hint,
            digest=hashlib.sha256(data).hexdigest() if data is not None else "",
        )
        return self._take_over(descriptor, item, Take(origin, data), opened)

    def _take_over(self, descriptor: int, item: Candidate, taken: Take, opened: foreign.Opened | None) -> Origin:
        self._seen.pop((item.operator.name, item.sight.name), None)

        def remove_proofs() -> None:
            for companion in (item.digest, item.signature):
                if companion is not None and stat.S_ISREG(companion.mode):
                    foreign.remove(descriptor, companion)

        self.takings.take(taken, opened, remove_proofs)
        return taken.origin

    # Answers without a verdict

    def _wait(self, item: Candidate, why: str, age: float) -> None:
        told = age >= SETTLE_SECONDS
        if told:
            self._tell(item, "waiting", waiting(drop.quoted(item.sight.name), why))
        else:
            self.look_by(boottime() + SETTLE_SECONDS)
        self._seen[item.operator.name, item.sight.name] = _Seen(item.sights, why, told)

    def _tell(self, item: Candidate, answer: str, reason: Reason) -> None:
        """Write the receipt, unless it is there already: a look that finds nothing new says nothing new."""
        name = drop.quoted(item.sight.name)
        there = receipts.read(item.operator.folder / receipts.name_of(name))
        if there is None or (there.answer, there.reason) != (answer, reason):
            receipt = Receipt(FORMAT, name, item.operator.name, answer, now(), reason=reason, reasons=(reason,))
            receipts.publish(self._spool, receipt)
            if answer == "rejected":
                self._audit.append("rejected", operator=item.operator.name, door="drop", name=name, code=reason.code)
