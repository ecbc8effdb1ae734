"""The manifest of what is left of a workflow: what a person asks for, and what lies beside the receipt of a failure."""

from __future__ import annotations

import hashlib

import msgspec

from provisioning.core import manifest
from provisioning.core.references import BadReference
from provisioning.core.rescue import rescued
from provisioning.errors import NotFound, Refused
from provisioning.storage.checkpoint import WorkflowFolder


def rescue_manifest(folder: WorkflowFolder, form: str) -> bytes:
    """The manifest (`form`: "toml" or "json") that does what is left of a workflow.

    NotFound: it has no plan yet. Refused: nothing is left, or what is left wants a value that no result has.
    """
    plan = folder.plan()
    if plan is None:
        raise NotFound(f"workflow {folder.workflow_id} has no plan yet", hint="submit its manifest again")
    checkpoints = {each.task_id: each for each in folder.tasks()}
    try:
        left = rescued(plan, checkpoints, lambda task_id: folder.result(checkpoints[task_id]))
    except BadReference as error:
        text = f"what is left of workflow {folder.workflow_id} cannot go on by itself: {error.message}"
        raise Refused(text, hint="mend the manifest, and submit it again") from error
    if left is None:
        raise Refused(f"nothing is left of workflow {folder.workflow_id}: all its tasks have succeeded")
    digest = hashlib.sha256(manifest.write(left, form="json")).hexdigest()[:12]
    # The same rest is the same workflow, however often it is submitted.
    return manifest.write(msgspec.structs.replace(left, id=f"rescue-{folder.workflow_id}-{digest}"), form=form)
