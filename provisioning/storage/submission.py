"""Submitting a manifest: the one way in, for every door."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from provisioning.clock import new_ulid, now
from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.core.locate import Limits
from provisioning.core.tasks import Sources
from provisioning.core.workflow import FORMAT, Submission, Task, Workflow
from provisioning.resources import schema
from provisioning.storage.spool import Spool


def submit(  # noqa: PLR0913 - who submits what, where and by which door
    data: bytes,
    *,
    form: str,
    file: str,
    spool: Spool,
    catalogue: Catalogue,
    operator: str,
    door: str,
    limits: Limits,
    sources: Sources,
    not_before: datetime | None = None,
) -> str:
    """Check the manifest and put it into the spool, durably; its workflow_id. Nothing of it starts before `not_before`.

    InvalidManifest carries every problem; then nothing was put anywhere.
    """
    about = {"operator": operator, "door": door}
    submission = checked(data, form, file, catalogue, **about, limits=limits, sources=sources)
    if not_before is not None:
        later = max(not_before, submission.not_before or not_before)
        submission = msgspec.structs.replace(submission, not_before=later)
    return spool.submit(data, form, submission)


def checked(  # noqa: PLR0913 - as above
    data: bytes,
    form: str,
    file: str,
    catalogue: Catalogue,
    *,
    operator: str,
    door: str,
    limits: Limits,
    sources: Sources,
) -> Submission:
    """What is to be known of a manifest that is valid. InvalidManifest carries every problem."""
    workflow = manifest.read(
        data, form=form, file=file, schema=schema("manifest"), catalogue=catalogue, limits=limits, sources=sources
    )
    return Submission(
        format=FORMAT,
        workflow_id=new_ulid(),
        name=workflow.name,
        infra=workflow.infra,
        operator=operator,
        door=door,
        digest=hashlib.sha256(data).hexdigest(),
        submitted_at=now(),
        tasks=len(workflow.tasks),
        priority=workflow.priority,
        not_before=workflow.not_before,
        expires_at=workflow.expires_at,
        id=workflow.id,
    )


def single(operation: Operation, params: Mapping[str, Any], *, infra: str = "default", priority: int = 50) -> bytes:
    """A manifest of one task, named by the operation's verb: what an operation command submits."""
    task = Task(id=operation.verb, operation=operation.name, params=dict(params))
    asked = Workflow(name=operation.name.replace(".", "-"), tasks=(task,), infra=infra, priority=priority)
    return manifest.write(asked, form="json")
