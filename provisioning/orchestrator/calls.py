"""What callers of the gateway may do: the owner of the spool as by the command line, others as by their door."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from provisioning.config import Config
from provisioning.core.locate import Limits
from provisioning.core.refusing import raise_if_rejected
from provisioning.errors import Refused
from provisioning.execution.nulib import Nulib
from provisioning.orchestrator.answering import Answering
from provisioning.orchestrator.oversight import Oversight
from provisioning.orchestrator.receiving import Receiver
from provisioning.orchestrator.requests import ask
from provisioning.storage.checkpoint import WorkflowFolder, encode
from provisioning.storage.spool import Spool
from provisioning.storage.submission import submit

DOOR = "gateway"


class Calls:
    """Implements `gateway.door.Door`. One call at a time: a spool has one scratch folder a process."""

    def __init__(self, spool: Spool, config: Config, oversight: Oversight, load_nulib: Callable[[], Nulib]) -> None:
        self._spool = spool
        self._config = config
        self._oversight = oversight
        self._load_nulib = load_nulib
        self._answering = Answering(spool, oversight.audit, oversight.trust, max_bytes=config.drop.max_bytes)
        self._receiver: tuple[str, Receiver] | None = None
        self.own = oversight.trust.own

    def admits(self, operator: str) -> bool:
        """Whether it is the owner, or a grant names them."""
        if operator == self.own:
            return True
        found, _ = self._oversight.trust.authority()
        grants = found.grant if found else ()
        return any(fnmatchcase(operator, pattern) for grant in grants for pattern in grant.operators)

    def may_know(self, operator: str, folder: WorkflowFolder) -> bool:
        """As it is for requests by file."""
        return self._answering.may_know(operator, folder)

    def submit(self, operator: str, manifest: bytes, form: str) -> str:
        """The owner's is checked here; what others send is read in a process of its own limits, as drops are."""
        if operator != self.own:
            return self._receive(operator, manifest)
        nulib = self._load_nulib()
        return submit(
            manifest,
            form=form,
            file="body",
            spool=self._spool,
            catalogue=nulib.catalogue,
            operator=operator,
            door=DOOR,
            limits=Limits(bytes=self._config.limits.manifest_bytes),
            sources=nulib.sources(lambda: self._spool),
        )

    def ask(
        self, operator: str, verb: str, workflow_id: str, *, tasks: tuple[str, ...] = (), preserve: tuple[str, ...] = ()
    ) -> None:
        """The owner's is applied here if nobody holds the workflow; others ask by what a request's file would say."""
        if operator == self.own:
            load = self._load_nulib
            ask(self._spool, self._config, load, verb, workflow_id, operator=operator, tasks=tasks, preserve=preserve)
            return
        if preserve:
            refused = Refused("only the owner of the spool may leave out tasks", hint="roll back all, or to a task")
            refused.code = "not-granted"
            raise refused
        self._receive(operator, encode({"verb": verb, "workflow_id": workflow_id, "tasks": tasks}))

    def declined(self, who: str, code: str, call: str, times: int) -> None:
        """Keep it."""
        self._oversight.audit.append("declined", door=DOOR, who=who, code=code, call=call, times=times)

    def _receive(self, operator: str, text: bytes) -> str:
        """What `spool receive` would say of it. HTTP says itself where a body ends."""
        if self._receiver is None or self._receiver[0] != operator:
            self.close()  # one parser process is enough: who else calls waits for a new one
            made = Receiver(self._spool, self._config, self._oversight, operator, door=DOOR)
            self._receiver = operator, made
        receipt = self._receiver[1].receive(text, self._load_nulib, proved=True)
        raise_if_rejected(receipt, "body")
        return receipt.workflow_id

    def close(self) -> None:
        """End the process that reads what operators send."""
        if self._receiver is not None:
            self._receiver[1].close()
            self._receiver = None
