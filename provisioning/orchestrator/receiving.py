"""A manifest or request that comes as one text, from an operator whom sshd or the gateway knows: all or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.config import Config
from provisioning.core.drop import Facts, Origin, Reason, Receipt, Verdict, refusal
from provisioning.core.proof import is_sealed, unsealed
from provisioning.core.workflow import FORMAT, Submission
from provisioning.errors import Refused
from provisioning.execution import signing
from provisioning.execution.judge import Case
from provisioning.execution.nulib import Nulib
from provisioning.execution.parsers import Parsers
from provisioning.orchestrator.answering import Answering
from provisioning.orchestrator.oversight import Oversight
from provisioning.storage import drop, files
from provisioning.storage.checkpoint import encode
from provisioning.storage.spool import Spool

NAME = "stdin"


class _Received(NamedTuple):
    """What came, and the folder that holds it until it is put in or aside."""

    take_id: str
    folder: Path
    data: bytes
    form: str
    signature: bytes | None

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Receiver:
    """Answers text after text; nothing of one stays unless it is accepted, or put aside with the reasons."""

    def __init__(
        self, spool: Spool, config: Config, oversight: Oversight, operator: str, *, door: str = "receive"
    ) -> None:
        self._door = door
        self._spool = spool
        self._config = config
        self._oversight = oversight
        self._operator = operator
        self._answering = Answering(spool, oversight.audit, oversight.trust, max_bytes=config.drop.max_bytes)
        self._parsers = Parsers(1)

    def receive(self, whole: bytes, load_nulib: Callable[[], Nulib], *, proved: bool = False) -> Receipt:
        """The receipt. `proved`: how it came says that this is all of it, whether it is sealed or not."""
        received, incomplete = self._prepare(whole, proved=proved)
        if incomplete is not None:
            return self._reject(received, (incomplete,))
        verdict = self._judge(received, load_nulib)
        if verdict.facts is None:
            before = self._answering.accepted_before(self._operator, received.digest, verdict.id)
            return self._reject(received, verdict.reasons) if before is None else self._accept(received, before)
        if verdict.facts.asked is not None:
            return self._ask(received, verdict.facts)
        return self._accept(received, verdict.facts)

    def _prepare(self, whole: bytes, *, proved: bool) -> tuple[_Received, Reason | None]:
        """Keep what came in a folder that nobody sees; and why it is not known to be whole."""
        limit = self._config.drop.max_bytes
        too_large = len(whole) > limit
        data, signature = signing.split(b"" if too_large else whole)
        form = "json" if data.lstrip()[:1] == b"{" else "toml"
        sealed = is_sealed(data)
        data = unsealed(data) if form == "json" else data
        signature = signature if self._config.receive.signature != "off" else None
        folder = self._spool.scratch.name()
        files.make_dir(folder)
        files.write_new(folder / f"manifest.{form}", data, durable=True)
        if signature is not None:
            files.write_new(folder / "manifest.sig", signature, durable=True)
        received = _Received(new_ulid(), folder, data, form, signature)
        if too_large:
            return received, refusal("too-large", len(whole), limit)
        if sealed is False and signature is None:
            return received, refusal("digest-mismatch", len(whole), limit)
        if not (sealed or signature or proved or self._config.drop.trust_unsealed):
            text = "a connection that breaks looks like an end: nothing proves that this is all of it"
            return received, Reason("incomplete", text, "provisioning manifest seal --stdout FILE | ssh …")
        return received, None

    def _judge(self, received: _Received, load_nulib: Callable[[], Nulib]) -> Verdict:
        case = Case(
            key=received.take_id,
            path=str(received.folder / f"manifest.{received.form}"),
            form=received.form,
            kind="either",
            name=NAME,
            operator=self._operator,
            signing=self._config.receive.signature,
            signature=str(received.folder / "manifest.sig") if received.signature is not None else "",
        )
        try:
            rules = self._oversight.trust.rules(self._spool, load_nulib().catalogue)
            self._parsers.ask(case, rules, len(received.data))
            while True:
                self._parsers.wait()
                for _, verdict in self._parsers.answers():
                    return verdict
        except BaseException:
            self._parsers.close()  # what it was asked is nobody's any more
            raise

    def close(self) -> None:
        """End the parser process."""
        self._parsers.close()

    def _accept(self, received: _Received, facts: Facts) -> Receipt:
        submission = facts.submission(self._origin(received, "manifest"), self._door, now())

        def prepare(decided: Submission) -> Path:
            files.write_new(received.folder / "submission.json", encode(decided), durable=True)
            files.sync_dir(received.folder)
            return received.folder

        try:
            workflow_id = self._spool.admit(submission, prepare)
        except Refused:
            text = f"another manifest has the id {facts.id!r}"
            return self._reject(received, (Reason("id-conflict", text, "choose another id", field="id"),))
        return self._answering.present(self._receipt(received, "accepted", workflow_id=workflow_id))

    def _ask(self, received: _Received, facts: Facts) -> Receipt:
        assert facts.asked is not None
        answer = self._answering.request_answer(self._origin(received, "request"), facts)
        if isinstance(answer, Reason):
            return self._reject(received, (answer,))
        self._oversight.audit.append(
            "request",
            take_id=received.take_id,
            operator=self._operator,
            door=self._door,
            workflow_id=answer.receipt.workflow_id,
            verb=answer.receipt.request,
            tasks=answer.tasks,
        )
        self._answering.ask(answer)
        return answer.receipt

    def _reject(self, received: _Received, reasons: tuple[Reason, ...]) -> Receipt:
        """Put it aside with the reasons, and keep that it was."""
        origin = self._origin(received, "manifest")
        drop.note_reasons(self._spool, received.folder, origin, reasons, door=self._door)
        drop.put_aside(self._spool, received.folder, origin)
        self._oversight.audit.append(
            "rejected",
            take_id=received.take_id,
            operator=self._operator,
            door=self._door,
            digest=received.digest,
            code=reasons[0].code,
            message=reasons[0].message[:300],
        )
        return self._receipt(received, "rejected", reason=reasons[0], reasons=reasons)

    def _origin(self, received: _Received, kind: str) -> Origin:
        """Where it comes from: no file, so nothing of one is known."""
        size = len(received.data)
        origin = Origin(FORMAT, received.take_id, self._operator, NAME, kind, 0, 0, 0, 0, 0, 0, size, 0, 0)
        return msgspec.structs.replace(origin, digest=received.digest, form=received.form)

    def _receipt(self, received: _Received, answer: str, **more: object) -> Receipt:
        head = Receipt(FORMAT, NAME, self._operator, answer, now(), digest=received.digest)
        return msgspec.structs.replace(head, **more)
