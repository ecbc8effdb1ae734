"""Decisions about drops, carried out: each step can be done again, so that a crash between two loses and doubles none.

The decision is durable before anything follows from it. A yes: the drop goes into `incoming/` by one rename, or its
request is made; then it is audited, and the operator told; it is kept until the workflow has ended. A no is kept with
the drop itself, audited and told, and goes to `rejected/` with it, last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.core.authority import Authority
from provisioning.core.drop import Answer, AskedByFile, Facts, Failure, Origin, Reason, Receipt, Verdict, rescue_name
from provisioning.core.states import ENDED_WORKFLOWS, TaskState, WorkflowState
from provisioning.core.workflow import FORMAT, Request
from provisioning.errors import NotFound, ProvisioningError, Refused
from provisioning.orchestrator.requests import objection
from provisioning.orchestrator.rescue import rescue_manifest
from provisioning.orchestrator.trust import Trust
from provisioning.storage import drop, files, ids, receipts
from provisioning.storage.audit import Audit
from provisioning.storage.checkpoint import Damaged, WorkflowFolder, encode
from provisioning.storage.spool import Spool
from provisioning.views.status import Rejected, WorkflowView, rejections

VERBS = ("cancel", "pause", "resume", "retry", "rollback")
ALWAYS_OF_ONES_OWN = ("cancel", "pause")
"""What an operator may ask of their own workflow, whatever the grants say by now."""
MAX_FAILED = 100
RESCUED = (WorkflowState.FAILED, WorkflowState.ROLLED_BACK)
"""How a workflow ends whose operator gets what is left of it as a manifest. Who cancels does not want it to go on."""
RESCUED_TASKS = 5000
"""Of a larger workflow it is written when somebody asks for it: everyone's drops would wait meanwhile."""


class Answering:
    """Says yes or no to drops, durably, and tells their operators."""

    def __init__(self, spool: Spool, audit: Audit, trust: Trust, *, max_bytes: int) -> None:
        self._spool = spool
        self._max_bytes = max_bytes
        """So large a drop may be."""
        self._audit = audit
        self._trust = trust

    # Deciding

    def decide(self, origin: Origin, verdict: Verdict, *, said: frozenset[str] = frozenset()) -> Answer | None:
        """Decide about a drop that was taken over, and carry it out; what is still owed, if anything is.

        `said` are the events about it that the audit log has already.
        """
        facts = verdict.facts
        if facts is None:
            name = verdict.id if origin.kind == "manifest" and not origin.refused else None
            known = self.accepted_before(origin.operator, origin.digest, name)
            if known is None:
                self.reject(origin, verdict.reasons, said)
                return None
            facts = known
        if facts.asked is not None:
            asked = self.request_answer(origin, facts)
            if isinstance(asked, Answer):
                return self.carry_out(asked, said)
            self.reject(origin, (asked,), said)
            return None
        receipt = self._receipt(origin, "accepted", workflow_id=origin.take_id)
        answer = Answer(FORMAT, origin.take_id, origin.operator, origin.name, receipt, id=facts.id)
        drop.save_answer(self._spool, answer)
        try:
            workflow_id = drop.put_in(self._spool, origin.take_id, facts.submission(origin, "drop", now()))
        except Refused:  # who has the id is nobody else's matter
            text = f"another manifest has the id {facts.id!r}"
            reason = Reason("id-conflict", text, "choose another id, or drop the same bytes", field="id")
            self.reject(origin, (reason,), said)
            return None
        before = (self._spool.taking / origin.take_id).is_dir()
        return self.carry_out(msgspec.structs.replace(_about(answer, workflow_id), before=before), said)

    def accepted_before(self, operator: str, digest: str, chosen: str | None) -> Facts | None:
        """Facts that suffice for a manifest that was accepted before: it gets the same answer, whatever has changed."""
        try:
            kept = ids.known(self._spool.ids, chosen) if chosen else None
        except ProvisioningError:
            return None
        if kept is None or (kept.operator, kept.digest) != (operator, digest):
            return None
        there = self._spool.folder_path(kept.workflow_id) or ids.was_cleaned(self._spool.ids, kept.workflow_id)
        return Facts(id=chosen) if there else None

    def request_answer(self, origin: Origin, facts: Facts) -> Answer | Reason:
        """What is to be made of a request, or why nothing; an id is reserved, nothing else happens."""
        asked = facts.asked
        assert asked is not None
        reason = self._objection(origin.operator, asked)
        if reason is None and not self._is_first(origin, facts):
            reason = Reason("id-conflict", f"another request has the id {facts.id!r}", "choose another id", field="id")
        if reason is not None:
            return reason
        receipt = self._receipt(origin, "accepted", workflow_id=asked.workflow_id, request=asked.verb)
        pending = [request.request_id for _, request in self._spool.requests_of(asked.workflow_id)]
        again = facts.id is not None and self._reserved(facts.id) != origin.take_id
        request_id = None if again else new_ulid(after=max(pending, default=""))
        return Answer(
            FORMAT, origin.take_id, origin.operator, origin.name, receipt, request_id=request_id, tasks=asked.tasks
        )

    def _objection(self, operator: str, asked: AskedByFile) -> Reason | None:
        """Why the operator may not ask that, or why it makes no sense now."""
        if asked.verb not in VERBS:
            return Reason(
                "bad-value", f"there is no request {asked.verb!r}", f"known are {', '.join(VERBS)}", field="verb"
            )
        missing = Reason("unknown-workflow", f"you have no workflow {asked.workflow_id}", "see its receipt")
        path = self._spool.folder_path(asked.workflow_id)
        if path is None:
            return missing
        folder = WorkflowFolder(path)
        if not self.may_know(operator, folder):
            return missing
        found = objection(self._spool, asked.verb, asked.workflow_id, asked.tasks)
        if found is not None:  # before the grants: what a workflow would need of them is not known until its claim
            code = "unknown-workflow" if isinstance(found, NotFound) and not asked.tasks else "request-refused"
            return Reason(code, found.message, found.hint)
        own = folder.submission().operator == operator and operator != self._trust.own
        if own and asked.verb not in ALWAYS_OF_ONES_OWN and not self._could_have_submitted(operator, folder):
            text = f"{operator} may not run this workflow any more"
            return Reason("not-granted", text, "ask for a grant", field="verb")
        return None

    def may_know(self, operator: str, folder: WorkflowFolder) -> bool:
        """Whether the workflow is the operator's own, or one that they could submit by now."""
        known = (self._trust.own, folder.submission().operator)
        return operator in known or self._could_have_submitted(operator, folder)

    def _could_have_submitted(self, operator: str, folder: WorkflowFolder) -> bool:
        plan = folder.plan()
        found: Authority | None = self._trust.authority()[0]
        if plan is None or found is None:
            return False
        return not found.refusals(operator, plan.workflow.infra, plan.workflow.tasks, plan.operations)

    def _is_first(self, origin: Origin, facts: Facts) -> bool:
        """Reserve the id of a request: it is made once, however often it is dropped. False: it stands for another."""
        if facts.id is None:
            return True
        name = _request_reservation(facts.id)
        stands_in = facts.submission(origin, "drop", now())
        try:
            ids.reserve(
                self._spool.ids,
                msgspec.structs.replace(stands_in, id=name),
                is_there=lambda _: True,
                scratch=self._spool.scratch,
            )
        except Refused:
            return False
        return True

    def _reserved(self, chosen: str) -> str:
        kept = ids.known(self._spool.ids, _request_reservation(chosen))
        return kept.workflow_id if kept else ""

    def reject(self, origin: Origin, reasons: tuple[Reason, ...], said: frozenset[str] = frozenset()) -> None:
        """Say no, durably, and why; the drop goes last, so that whoever goes on after a crash finds it."""
        folder = self._spool.taking / origin.take_id
        drop.note_reasons(self._spool, folder, origin, reasons, door="drop")
        if "rejected" not in said:
            self._audit.append(
                "rejected",
                take_id=origin.take_id,
                operator=origin.operator,
                door="drop",
                name=origin.name,
                digest=origin.digest,
                code=reasons[0].code,
                message=reasons[0].message[:300],
            )
        receipts.publish(self._spool, self._receipt(origin, "rejected", reason=reasons[0], reasons=reasons))
        drop.put_aside(self._spool, folder, origin)
        drop.forget_answer(self._spool, origin.take_id)

    def _receipt(self, origin: Origin, answer: str, **more: Any) -> Receipt:
        return Receipt(FORMAT, origin.name, origin.operator, answer, now(), digest=origin.digest, **more)

    # Carrying out

    def carry_out(self, answer: Answer, said: frozenset[str] = frozenset()) -> Answer | None:
        """Do what follows from the decision, all of which may have been done before; what is still owed, if any."""
        drop.save_answer(self._spool, answer)
        receipt = answer.receipt
        facts: dict[str, Any] = {"take_id": answer.take_id, "operator": answer.operator, "door": "drop"}
        facts |= {"name": answer.name, "digest": receipt.digest, "workflow_id": receipt.workflow_id}
        if receipt.request:
            self.ask(answer)
            drop.discard(self._spool, answer.take_id)
            event, facts["verb"], facts["tasks"] = "request", receipt.request, answer.tasks
        else:
            if answer.before:
                drop.discard(self._spool, answer.take_id)
            event = "accepted-before" if answer.before else "accepted"
        if event not in said:
            self._audit.append(event, **facts)
        if not receipt.request:
            answer = msgspec.structs.replace(answer, receipt=self._with_rescue(self.present(receipt)))
        receipts.publish(self._spool, answer.receipt)
        if is_final(answer.receipt):
            drop.forget_answer(self._spool, answer.take_id)
            return None
        answer = msgspec.structs.replace(answer, answered=True)
        drop.save_answer(self._spool, answer)
        return answer

    def ask(self, answer: Answer) -> None:
        """Make the request, unless it was made and perhaps applied already."""
        if answer.request_id is None:
            return
        receipt = answer.receipt
        path = self._spool.folder_path(receipt.workflow_id)
        checkpoint = WorkflowFolder(path).workflow() if path else None
        if path is None or (checkpoint and any(a.request_id == answer.request_id for a in checkpoint.applied)):
            return
        request = Request(
            FORMAT, answer.request_id, receipt.workflow_id, receipt.request, answer.operator, receipt.at, answer.tasks
        )
        name = f"{request.workflow_id}.{request.request_id}.json"
        files.write_atomic(self._spool.requests / name, encode(request), durable=True, scratch=self._spool.scratch)

    def resume(self, answer: Answer, said: frozenset[str]) -> Answer | None:
        """Go on with a decision that a crash cut off; its drop is no longer taken over."""
        receipt = answer.receipt
        if not receipt.request and not self._spool.folder_path(receipt.workflow_id):
            kept = ids.known(self._spool.ids, answer.id) if answer.id else None
            if kept is not None:  # the workflow_id was another's, who died before the workflow was there
                answer = _about(answer, kept.workflow_id)
        return self.carry_out(answer, said)

    # The end

    def follow(self, answer: Answer) -> Answer | None:
        """Tell the operator of a change in the workflow's standing; what is still owed, if anything is."""
        receipt = self.present(answer.receipt)
        if receipt == answer.receipt:
            return answer
        receipt = self._with_rescue(receipt)
        receipts.publish(self._spool, receipt, of_its_own=True)
        if is_final(receipt):
            drop.forget_answer(self._spool, answer.take_id)
            return None
        answer = msgspec.structs.replace(answer, receipt=receipt)
        drop.save_answer(self._spool, answer)
        return answer

    def _with_rescue(self, receipt: Receipt) -> Receipt:
        """The receipt of a workflow that failed, with the name of what is left of it, which is put beside it first.

        None is written where the door would not take it: where it is too large, or cannot go on by itself.
        """
        path = self._spool.folder_path(receipt.workflow_id)
        if receipt.state not in RESCUED or path is None or sum(receipt.counts.values()) > RESCUED_TASKS:
            return receipt
        try:
            left = rescue_manifest(WorkflowFolder(path), "json")
        except (NotFound, Refused, Damaged):
            return receipt
        if len(left) > self._max_bytes:
            return receipt
        receipt = msgspec.structs.replace(receipt, rescue=rescue_name(receipt.name, receipt.workflow_id))
        receipts.publish_rescue(self._spool, receipt, left)
        return receipt

    def present(self, receipt: Receipt) -> Receipt:
        """The receipt as the workflow stands now: on its way, which is no state of its own here, paused, or ended."""
        path = self._spool.folder_path(receipt.workflow_id)
        if path is None:
            aside = rejections(self._spool).get(receipt.workflow_id)
            if aside is None:
                return msgspec.structs.replace(receipt, state="removed")
            reasons = tuple(map(Reason.of, Rejected(receipt.workflow_id, aside).problems))
            return msgspec.structs.replace(
                receipt, answer="rejected", reason=reasons[0], reasons=reasons, state="rejected", ended_at=now()
            )
        folder = WorkflowFolder(path)
        checkpoint = folder.workflow()
        if checkpoint is None or checkpoint.state not in {*ENDED_WORKFLOWS, WorkflowState.PAUSED}:
            return msgspec.structs.replace(receipt, state="")
        page = WorkflowView(folder).glance()
        return msgspec.structs.replace(
            receipt,
            state=str(checkpoint.state),
            ended_at=checkpoint.ended_at,
            counts=page["counts"],
            failed=tuple(_failure(task) for task in page["tasks"] if task["state"] == TaskState.FAILED)[:MAX_FAILED],
        )


def _request_reservation(chosen: str) -> str:
    """The name in `ids/` of a request's id: no manifest can have it."""
    return f"request~{chosen}"


def _about(answer: Answer, workflow_id: str) -> Answer:
    return msgspec.structs.replace(answer, receipt=msgspec.structs.replace(answer.receipt, workflow_id=workflow_id))


def is_final(receipt: Receipt) -> bool:
    """Whether nothing more is to be said after this receipt."""
    return receipt.answer == "rejected" or bool(receipt.request) or receipt.state in {*ENDED_WORKFLOWS, "removed"}


def _failure(task: Mapping[str, Any]) -> Failure:
    error = (task["attempts"][-1].get("error") if task["attempts"] else None) or {}
    return Failure(
        task["task_id"],
        task["operation"],
        error.get("code", ""),
        error.get("msg", "")[:2000],
        error.get("help", "")[:500],
    )
