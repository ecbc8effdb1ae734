"""What follows for an attempt on a cluster from what is known of it: the order of truth, as one table."""

from __future__ import annotations

from enum import StrEnum


class Standing(StrEnum):
    """What an attempt is taken for."""

    ENDED = "ended"
    LIVE = "live"
    """It waits in the queue, or runs."""
    SILENT = "silent"
    """It was begun, and the cluster has it no more: lost, unless it gives signs of life."""
    ABSENT = "absent"
    """Nobody has begun it, and the cluster does not have it: it is queued again, and the claim arbitrates."""
    UNKNOWN = "unknown"
    """The cluster does not say: nothing follows."""


def verdict(*, outcome: bool, live: bool | None, claimed: bool) -> Standing:
    """The verdict, from whether there is an outcome, whether the cluster has it (None: it does not say), and a claim.

    The cluster must have been asked before the files were read: what ends in between has its outcome then.
    """
    if outcome:
        return Standing.ENDED
    if live is None:
        return Standing.UNKNOWN
    if live:
        return Standing.LIVE
    return Standing.SILENT if claimed else Standing.ABSENT
