"""The trees of operations in `nulib/`: which of them no plan needs, and the lock under which they come and go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from provisioning.core.identifiers import Digest
from provisioning.errors import ProvisioningError, SpoolUnusable
from provisioning.storage import reading
from provisioning.storage.checkpoint import MAX_PLAN_BYTES, load
from provisioning.storage.lock import Lock
from provisioning.storage.spool import Spool

UNUSED_SECONDS = 86400.0
"""A tree younger than this stays: it is likely to be that of the next plan too."""


class TreesLeaving(SpoolUnusable):
    """A clean-up is taking trees out, so nothing can be planned: over soon, unless whoever does it is stopped."""


class _Reference(msgspec.Struct):
    """What of a plan says which tree it needs."""

    format: int
    nulib: Digest


@contextlib.contextmanager
def planning(spool: Spool) -> Iterator[None]:
    """While it lasts no tree goes: one that a plan is about to name stays until the plan is there.

    TreesLeaving where some are being taken out right now.
    """
    lock = Lock(spool.locks / "nulib")
    if not lock.share():
        raise TreesLeaving(
            f"{spool.locks / 'nulib'} is held: a clean-up takes operations out of the spool",
            hint="try again; if that goes on, see who holds it: fuser -v " + str(spool.locks / "nulib"),
        )
    try:
        yield
    finally:
        lock.release()


class Unneeded:
    """The trees that no plan refers to, found out a workflow at each step of `search`."""

    def __init__(self, spool: Spool, now: datetime, *, without: frozenset[str] = frozenset()) -> None:
        self._spool = spool
        self._without = without
        """Workflows that count as gone already."""
        self.problems: list[str] = []
        """What could not be taken out, and why."""
        self._planned: set[str] = set()
        self.digests = {
            name for name in reading.list_names(spool.nulib, folders=True) if _is_old(spool.nulib / name, now)
        }

    def search(self) -> Iterator[None]:
        """Cross out every tree that a plan refers to. A plan that cannot be read may refer to any: then it raises."""
        for workflow_id in self._spool.workflow_ids():
            if not self.digests:
                return
            if workflow_id not in self._without | self._planned:
                self._cross_out(workflow_id)
                yield

    def _cross_out(self, workflow_id: str) -> None:
        while (path := self._spool.folder_path(workflow_id)) is not None:
            try:
                self.digests.discard(load(path / "plan.json", _Reference, MAX_PLAN_BYTES).nulib)
            except FileNotFoundError:
                if self._spool.folder_path(workflow_id) == path:
                    return  # not planned yet
                continue  # claimed, with its plan, while we looked
            self._planned.add(workflow_id)
            return

    def discard(self) -> dict[str, Path]:
        """Take them out of the spool, after a second look at what has no plan: a plan, once there, never changes.

        By digest, where each is to be removed from. None while somebody plans; one that cannot be taken out stays.
        """
        lock = Lock(self._spool.locks / "nulib")
        if not self.digests or not lock.take():
            return {}
        gone: dict[str, Path] = {}
        try:
            for _ in self.search():
                pass
            for digest in sorted(self.digests):
                try:
                    gone[digest] = self._spool.discard(self._spool.nulib / digest)
                except (ProvisioningError, OSError) as error:
                    self.problems.append(f"nulib/{digest}: {error}")
        finally:
            lock.release()
        return gone


def _is_old(tree: Path, now: datetime) -> bool:
    """Whether the tree has been there for long."""
    try:
        return now.timestamp() - os.stat(tree).st_ctime >= UNUSED_SECONDS
    except FileNotFoundError:
        return False
