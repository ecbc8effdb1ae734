"""Which claimed workflows may want a holder: a name in `locks/active/` for each, made before a workflow goes on.

Whoever takes a workflow names it here first, and takes the name away when the workflow is at rest, just before letting
go of it. So of a process that was killed the names are left, and nobody has to look at thousands of workflows that have
ended to find the one that it had. A name that is left of a workflow at rest costs one look. A power cut may take names
away: an orchestrator that starts looks at every workflow.
"""

from __future__ import annotations

from pathlib import Path

from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.storage import files, reading
from provisioning.storage.naming import naming


def _path(root: Path, workflow_id: str) -> Path:
    return root / "locks" / "active" / workflow_id


def name_active(root: Path, workflow_id: str) -> None:
    """Say that the workflow may want a holder from now on. Only the holder of its lock may."""
    path = _path(root, workflow_id)
    with naming(path):
        try:
            files.append(path, b"")
        except FileNotFoundError:
            files.make_dir(path.parent)
            files.append(path, b"")


def unname_active(root: Path, workflow_id: str) -> None:
    """Say that the workflow is at rest, or gone. Only the holder of its lock may."""
    files.remove(_path(root, workflow_id))


def active_ids(root: Path) -> list[str]:
    """The workflows that are named, oldest first."""
    return sorted(filter(WORKFLOW_ID.match, reading.list_names(root / "locks" / "active")))
