"""Submitting into one's own drop folder: for those to whom the spool does not belong, by the commands of those to whom.

The file is put there whole, beside its digest, under a name that was never used; its receipt is the answer.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from provisioning.cli.context import Context
from provisioning.cli.following import Failed
from provisioning.clock import new_ulid
from provisioning.core.drop import RECEIPT, Receipt
from provisioning.core.refusing import raise_if_rejected
from provisioning.core.states import ENDED_WORKFLOWS, WorkflowState
from provisioning.errors import GaveUp, Interrupted
from provisioning.storage import receipts
from provisioning.storage.doors import put_into_own_folder
from provisioning.views.text import safe

ANSWER_SECONDS = 30.0
"""So long an answer is waited for where nothing else was asked for."""
POLL_SECONDS = 0.05
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class Dropped(NamedTuple):
    """What is to be put into the folder: bytes, what they are, what their file was called, and their signature."""

    data: bytes
    form: str
    name: str
    signature: bytes | None = None


def submit(context: Context, folder: Path, dropped: Dropped, *, wait: bool, max_wait: float | None) -> None:
    """Drop it and answer with its workflow_id; with `wait` or `max_wait`, once it has ended.

    InvalidManifest or Refused say what its receipt says. GaveUp where there is no answer in time: it stays there.
    """
    stem = _NO_NAME.sub("-", os.path.splitext(os.path.basename(dropped.name))[0]).strip("-_")[:60] or "manifest"
    name = f"{stem}-{new_ulid()}.{dropped.form}"
    digest = f"{hashlib.sha256(dropped.data).hexdigest()}  {name}\n".encode()
    put_into_own_folder(folder, name, dropped.data, digest, dropped.signature)
    waits = wait or max_wait is not None
    deadline = time.monotonic() + (ANSWER_SECONDS if max_wait is None else max_wait)
    following = _Following(context, folder / f"{name}{RECEIPT}", folder / name)
    try:
        receipt = following.answer(deadline if max_wait is not None or not wait else float("inf"))
        raise_if_rejected(receipt, dropped.name)
        if not (waits and context.json):
            _accepted(context, receipt.workflow_id)
        if waits:
            following.end(receipt, deadline if max_wait is not None else float("inf"))
    except KeyboardInterrupt:
        raise Interrupted("stopped waiting; what was dropped goes on", hint=f"see: {following.path}") from None


def _accepted(context: Context, workflow_id: str) -> None:
    if context.json:
        context.answer_json({"workflow_id": workflow_id})
    else:
        context.answer(workflow_id)


class _Following:
    """The receipt of what was dropped, as it changes."""

    def __init__(self, context: Context, path: Path, dropped: Path) -> None:
        self._context = context
        self.path = path
        self._dropped = dropped
        self._told: str = ""

    def answer(self, deadline: float) -> Receipt:
        """The receipt, once it is a decision."""
        while True:
            receipt = receipts.read(self.path)
            if receipt is not None and receipt.answer != "waiting":
                return receipt
            if receipt is not None and receipt.reason is not None:
                self._tell(f"it waits: {receipt.reason.message}")
            if time.monotonic() >= deadline:
                raise GaveUp(
                    f"nobody has decided about {self._dropped} yet; it stays there, and may be accepted any time",
                    hint=f"is an orchestrator running? The answer will be {self.path}",
                )
            time.sleep(POLL_SECONDS)

    def end(self, receipt: Receipt, deadline: float) -> None:
        """Wait until the workflow has ended. Failed where it has not succeeded."""
        while receipt.state not in {*ENDED_WORKFLOWS, "removed"}:
            raise_if_rejected(receipt, receipt.name)
            if receipt.state == WorkflowState.PAUSED:
                self._tell("it is paused, or waits for a person")
            if time.monotonic() >= deadline:
                text = f"workflow {receipt.workflow_id} has not ended yet; it stays in the spool"
                raise GaveUp(text, hint=f"its end will be in {self.path}")
            time.sleep(POLL_SECONDS)
            receipt = receipts.read(self.path) or receipt
        if receipt.state != WorkflowState.SUCCEEDED:
            raise _failed(receipt)
        if self._context.json:
            page = {"workflow_id": receipt.workflow_id, "state": receipt.state, "counts": receipt.counts}
            self._context.answer_json(page)

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._context.say(f"note: {safe(text)}")


def _failed(receipt: Receipt) -> Failed:
    details = {"workflow_id": receipt.workflow_id, "state": receipt.state}
    if not receipt.failed:
        return Failed(f"workflow {receipt.workflow_id} is {receipt.state}", details=details)
    first = receipt.failed[0]
    more = f" ({len(receipt.failed)} tasks failed)" if len(receipt.failed) > 1 else ""
    text = f"{first.operation} failed in task {first.task_id}{more}: {safe(first.message)}"
    return Failed(text, hint=safe(first.help), code=first.code, details={**details, "task_id": first.task_id})
