"""Whether a spool is worked: what speaks against it, in the words of `orchestrator health`."""

from __future__ import annotations

from provisioning.errors import Problem
from provisioning.storage.spool import Spool

NOTES = {
    "draining": "it starts nothing more, and ends when what runs has ended",
    "away": "it does nothing until this spool is back at the path that it works",
}
"""What a state of the orchestrator means."""


def health_problems(spool: Spool) -> list[Problem]:
    """What keeps what is submitted from being started: no orchestrator, one that starts nothing, a full disk."""
    problems = []
    record = spool.running_orchestrator()
    if record is None:
        text, hint = f"no orchestrator works {spool.root}", "start one: provisioning orchestrator start"
        problems.append(Problem("not-running", text, hint))
    elif note := NOTES.get(state := record.state(spool.root)):
        text = f"the orchestrator, pid {record.process.pid}, is {state}: {note}"
        problems.append(Problem(state, text, "see: provisioning orchestrator status"))
    if shortage := spool.shortage():
        problems.append(Problem(shortage.code, shortage.message, shortage.hint))
    return problems
