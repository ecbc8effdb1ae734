"""The way from the drop folders into `incoming/`: what is whole is taken over, judged in a parser, and answered.

For each file, in this order: its name, what it is and whose, proof that it is whole, a copy of our own, `taking/`,
the audit log, the removal of the original, then the verdict: text, signature, meaning, authority.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from provisioning.clock import boottime, now
from provisioning.config import Config
from provisioning.core.drop import Answer, Origin, Reason, Verdict
from provisioning.core.scheduler import Now
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.execution.judge import Case
from provisioning.execution.nulib import Nulib
from provisioning.execution.parsers import Parsers
from provisioning.orchestrator.answering import Answering
from provisioning.orchestrator.complaints import AGAIN_SECONDS, FAULTS, concerns_all
from provisioning.orchestrator.doorway import Doorway
from provisioning.orchestrator.oversight import Oversight
from provisioning.orchestrator.takings import first_takings
from provisioning.storage import drop, receipts
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool

_log = logging.getLogger(__name__)

PORTION_SECONDS = 0.05
"""So long intake may hold up one tick."""
FOLLOW_SECONDS = 1.0
"""Between two looks at what became of accepted drops that other processes work."""
FOLLOW_REST = 20
"""So many times what a part of such a look took passes before the next part: thousands take no more than a share."""
OLD_RECEIPTS_SECONDS = 3600.0


class Intake:
    """Takes drops over, for as long as this process has the lock of intake."""

    def __init__(self, spool: Spool, config: Config, load_nulib: Callable[[], Nulib], oversight: Oversight) -> None:
        self._spool = spool
        self._config = config
        self._load_nulib = load_nulib
        self._oversight = oversight
        self._answering = Answering(spool, oversight.audit, oversight.trust, max_bytes=config.drop.max_bytes)
        self._doorway = Doorway(spool, config, oversight.audit)
        self._parsers = Parsers()
        self._lock: Lock | None = None
        self._waiting: dict[str, list[tuple[int, str, Origin]]] = {}
        """Drops that were taken over and wait for a parser, by operator: heaps by size and age."""
        self._judged: dict[str, Origin] = {}
        """Those that are with a parser."""
        self._later: dict[str, float] = {}
        """Those of which something was refused, by take_id, and the boottime at which they are taken up again."""
        self._said: dict[str, frozenset[str]] = {}
        """What the audit log has of drops from before this process."""
        self._answers: dict[str, Answer] = {}
        self._came: list[str] = []
        self._told_of: dict[str, set[str]] = {}
        """Their take_ids, by workflow_id."""
        self._following: deque[str] = deque()
        """Decisions whose workflows are still to be looked at in this round."""
        self._follow_at = 0.0
        self._receipts_at = 0.0
        self._again_at = 0.0
        self._complained: dict[str, float] = {}

    def step(self, this: Now) -> list[str]:
        """Do a portion; the paths of what came into `incoming/`. SpoolUnusable: the disk refuses; it is tried again."""
        if this.boottime < self._again_at:
            return []
        try:
            self._portion(this)
        except SpoolUnusable as error:
            self._complain(str(error), this)
            self._again_at = this.boottime + self._config.orchestrator.scan_seconds
            if concerns_all(error):
                raise
        finally:
            for take_id in self._doorway.takings.refused():
                self._later.setdefault(take_id, boottime() + self._config.orchestrator.scan_seconds)
        came, self._came = self._came, []
        return came

    def _portion(self, this: Now) -> None:
        if not self._has_lock():
            return
        if due := [take_id for take_id, at in self._later.items() if at <= this.boottime]:
            self._later = {take_id: at for take_id, at in self._later.items() if at > this.boottime}
            self._take_up(due)
        self._take_verdicts()
        if self._spool.shortage() is None:
            if self._doorway.is_due(this):
                self._doorway.count_active(self._active())
            for origin in self._doorway.look(this, boottime() + PORTION_SECONDS):
                self._wait_for_parser(origin)
        self._give_cases(this)
        self._follow_up(this)
        self._remove_old_receipts(this)
        for text in self._doorway.complaints():
            self._complain(text, this)

    def heed(self, arrived: list[str]) -> list[str]:
        """Look at the drop folders as soon as may be where something has arrived there; what has arrived elsewhere."""
        elsewhere = [path for path in arrived if not path.startswith(f"{self._spool.drop}/")]
        if len(elsewhere) < len(arrived) or not arrived:
            self._doorway.look_by(0.0)
        return elsewhere

    def busy(self) -> bool:
        """Whether a drop is on its way to an answer."""
        return self._lock is not None and bool(self._judged or self._waiting or self._doorway.has_more())

    def next_due(self) -> float:
        """The boottime at which `step` has something to do."""
        if self._lock is None or self._doorway.has_more():
            return self._again_at or (self._doorway.look_at if self._lock is None else 0.0)
        dues = [self._doorway.look_at, self._parsers.next_due(), 0.0 if self._oversight.just_ended else None]
        if self._answers:
            dues.append(self._follow_at)
        return max(self._again_at, min(at for at in dues if at is not None))

    def waitables(self) -> list[Any]:
        """What to wait on for verdicts."""
        return self._parsers.waitables()

    def close(self) -> None:
        """Let the doors be another's. What was taken over is decided by whoever takes them."""
        self._parsers.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # The lock, and what a process that is gone has left

    def _has_lock(self) -> bool:
        if self._lock is None and self._doorway.look_at <= boottime():
            lock = Lock(self._spool.locks / "intake")
            if not lock.take():
                self._doorway.look_at = boottime() + self._config.orchestrator.scan_seconds
                return False
            self._lock = lock
            self._recover()
        return self._lock is not None

    def _recover(self) -> None:
        """Take up every drop that was taken over and not answered."""
        answers, wrong = drop.load_answers(self._spool)
        takings = first_takings(self._spool)
        self._waiting, self._judged = {}, {}
        self._answers, self._told_of = {}, {}
        for answer in answers.values():
            if answer.answered:
                self._keep(answer, answer)
        for error in wrong:
            _log.error("a drop that was under way is left alone: %s", error)
        self._take_up(sorted({*takings, *answers} - (self._answers.keys() - set(takings))))

    def _take_up(self, take_ids: list[str]) -> None:
        """Go on with drops from what the disk says of them, as a crash or an error has left it."""
        said: dict[str, set[str]] = {}
        for take_id, event in self._oversight.audit.said(set(take_ids)):
            said.setdefault(take_id, set()).add(event)
        for take_id in take_ids:
            self._said[take_id] = frozenset(said.get(take_id, ()))
            try:
                self._take_up_one(take_id, self._said[take_id])
            except FAULTS as fault:
                self._put_off(take_id, fault)

    def _take_up_one(self, take_id: str, said: frozenset[str]) -> None:
        answer = drop.load_answer(self._spool, take_id)
        if not (self._spool.taking / take_id).is_dir():
            self._doorway.takings.forget(take_id)
            if answer is not None:
                self._keep(answer, answer if answer.answered else self._answering.resume(answer, said))
            return
        origin = drop.load_origin(self._spool, take_id)
        self._doorway.takings.finish(origin, audited="taken" in said)
        if reasons := drop.noted_reasons(self._spool, take_id):
            self._answering.reject(origin, reasons, said)
        elif answer is not None and answer.receipt.request:
            self._keep(answer, self._answering.carry_out(answer, said))
        else:
            self._wait_for_parser(origin)

    def _put_off(self, take_id: str, fault: Exception) -> None:
        """Have a drop taken up again after a while: soon where what is wrong is not its own."""
        all_wait = concerns_all(fault)
        self._later[take_id] = boottime() + (self._config.orchestrator.scan_seconds if all_wait else AGAIN_SECONDS)
        self._complain(f"drop taking/{take_id}: {fault}", Now(now(), boottime(), ""))

    def _said_of(self, take_id: str) -> frozenset[str]:
        return self._said.get(take_id, frozenset())

    def _keep(self, before: Answer, after: Answer | None) -> None:
        told = self._told_of.get(before.receipt.workflow_id, set())
        told.discard(before.take_id)
        if not told:
            self._told_of.pop(before.receipt.workflow_id, None)
        if after is None:
            self._answers.pop(before.take_id, None)
            return
        self._answers[before.take_id] = after
        self._told_of.setdefault(after.receipt.workflow_id, set()).add(after.take_id)

    def _active(self) -> dict[str, int]:
        """Workflows and drops under way, by operator."""
        found = Counter(each.operator for each in self._answers.values())
        found.update(each.operator for each in self._judged.values())
        found.update({operator: len(queue) for operator, queue in self._waiting.items()})
        return found

    # Verdicts

    def _wait_for_parser(self, origin: Origin) -> None:
        heappush(self._waiting.setdefault(origin.operator, []), (origin.size, origin.take_id, origin))

    def _give_cases(self, this: Now) -> None:
        """Hand what waits to the parsers: of each operator in turn, what is small first."""
        if not self._waiting:
            return
        rules = self._rules(this)
        for operator in list(self._waiting) if rules else ():
            queue = self._waiting.pop(operator)
            try:
                while queue:
                    origin = queue[0][2]
                    if origin.refused:
                        heappop(queue)
                        self._decide(origin, Verdict((Reason(origin.refused, origin.text, origin.hint),)), this)
                    elif rules is not None and self._ask(origin, rules):
                        self._judged[origin.take_id] = heappop(queue)[2]
                    else:
                        break
            finally:
                if queue:
                    self._waiting[operator] = queue  # behind the others: their turn is next

    def _rules(self, this: Now) -> Path | None:
        try:
            return self._oversight.trust.rules(self._spool, self._load_nulib().catalogue)
        except ProvisioningError as error:
            if concerns_all(error):
                raise
            self._complain(f"drops wait: {error}", this)
            return None

    def _ask(self, origin: Origin, rules: Path) -> bool:
        folder = self._spool.taking / origin.take_id
        signature = folder / "manifest.sig"
        case = Case(
            key=origin.take_id,
            path=str(folder / drop.content_name(origin)),
            form=origin.form,
            kind=origin.kind,
            name=origin.name,
            operator=origin.operator,
            signing=self._config.drop.signature,
            signature=str(signature) if signature.exists() else "",
        )
        try:
            return self._parsers.ask(case, rules, origin.size)
        except OSError as error:
            raise SpoolUnusable(
                f"no parser can be started: {error}", hint="the host has no process to spare"
            ) from error

    def _take_verdicts(self) -> None:
        refused: Exception | None = None
        for take_id, verdict in list(self._parsers.answers()):
            origin = self._judged.pop(take_id, None)
            if origin is None:
                continue
            if refused is not None:  # what the disk refuses to one it refuses to all
                self._put_off(take_id, refused)
                continue
            try:
                self._decide(origin, verdict, Now(now(), boottime(), ""))
            except FAULTS as error:
                refused = error
        if refused is not None:
            raise refused

    def _decide(self, origin: Origin, verdict: Verdict, this: Now) -> None:
        try:
            answer = self._answering.decide(origin, verdict, said=self._said.pop(origin.take_id, frozenset()))
        except FAULTS as error:
            self._put_off(origin.take_id, error)
            if concerns_all(error):
                raise
            return
        reason = verdict.reasons[0] if verdict.reasons else None
        if answer is not None:
            self._keep(answer, answer)
            self._came.append(str(self._spool.incoming / answer.receipt.workflow_id))
        told = f"rejected: {reason.code}: {reason.message}" if reason else "accepted"
        _log.info("drop %s of %s (%s): %s", origin.name, origin.operator, origin.take_id, told)

    # Afterwards

    def _follow_up(self, this: Now) -> None:
        """Tell operators what became of their workflows: at once of those that ended here, in turn of all others."""
        for workflow_id in self._oversight.take_ended():
            for take_id in sorted(self._told_of.pop(workflow_id, ())):
                self._follow_one(self._answers[take_id], this)
        if this.boottime < self._follow_at:
            return
        self._following = self._following or deque(self._answers)
        began = boottime()
        while self._following and boottime() < began + PORTION_SECONDS / 5:
            if waiting := self._answers.get(self._following.popleft()):
                self._follow_one(waiting, this)
        rest = FOLLOW_REST * (boottime() - began) if self._following else FOLLOW_SECONDS
        self._follow_at = this.boottime + rest

    def _follow_one(self, answer: Answer, this: Now) -> None:
        try:
            self._keep(answer, self._answering.follow(answer))
        except FAULTS as error:
            if concerns_all(error):
                raise
            self._complain(f"the receipt of {answer.name} of {answer.operator}: {error}", this)

    def _remove_old_receipts(self, this: Now) -> None:
        if this.boottime < self._receipts_at:
            return
        self._receipts_at = this.boottime + OLD_RECEIPTS_SECONDS
        before_ns = int((this.wall.timestamp() - self._config.drop.receipt_seconds) * 1e9)
        for operator in drop.operators(self._spool)[0]:
            try:
                receipts.remove_old(operator, before_ns)
            except OSError as error:
                self._complain(f"old receipts in {operator.folder}: {error.strerror}", this)

    def _complain(self, text: str, this: Now) -> None:
        """Log it, and the same again only after a while."""
        if self._complained.get(text, 0.0) <= this.boottime:
            self._complained = {said: at for said, at in self._complained.items() if at > this.boottime}
            self._complained[text] = this.boottime + AGAIN_SECONDS
            _log.error("%s", text)
