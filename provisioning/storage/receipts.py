"""What an operator is answered in their folder: receipts, and the manifest of what is left of a failed workflow."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

from provisioning.core.drop import RECEIPT, RESCUE, Receipt, is_answer
from provisioning.errors import ProvisioningError
from provisioning.storage import foreign
from provisioning.storage.checkpoint import encode, load
from provisioning.storage.drop import Operator
from provisioning.storage.spool import Spool

MAX_BYTES = 1 << 20
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\Z")


def name_of(name: str) -> str:
    """What the receipt of a file is called; a name that is no name to us is told by its digest."""
    if _PLAIN.match(name):
        return f"{name}{RECEIPT}"
    return f"bad-name-{hashlib.sha256(name.encode()).hexdigest()[:12]}{RECEIPT}"


def publish(spool: Spool, receipt: Receipt, *, of_its_own: bool = False) -> None:
    """Put the receipt beside the file that it answers. With `of_its_own` it replaces none of another workflow's."""
    folder = _folder_of(spool, receipt)
    if folder is None:
        return
    name = name_of(receipt.name)
    if of_its_own:
        there = read(folder / name)
        if there is not None and there.workflow_id not in ("", receipt.workflow_id):
            name = name_of(f"{receipt.name[:100]}.{receipt.workflow_id}")
    foreign.publish(folder, name, encode(receipt), spool.scratch)


def publish_rescue(spool: Spool, receipt: Receipt, data: bytes) -> None:
    """Put the manifest of what is left beside the receipt that will name it."""
    if folder := _folder_of(spool, receipt):
        foreign.publish(folder, receipt.rescue, data, spool.scratch)


def _folder_of(spool: Spool, receipt: Receipt) -> Path | None:
    folder = spool.drop / receipt.operator
    return None if folder.is_symlink() or not folder.is_dir() else folder


def read(path: Path) -> Receipt | None:
    """The receipt that is there, if it is one: its folder's owner may have put anything there."""
    with contextlib.suppress(FileNotFoundError, ProvisioningError, OSError):
        return load(path, Receipt, MAX_BYTES)
    return None


def remove_old(operator: Operator, before_ns: int) -> int:
    """Remove what we wrote there and nobody has taken away since; how many."""
    removed = 0
    descriptor = foreign.open_folder(operator.folder)
    try:
        names = (RECEIPT.encode(), RESCUE.encode())
        for sight in foreign.list_sights(descriptor, lambda name: name.endswith(names))[0]:
            ours = sight.owner == os.geteuid() and is_answer(sight, os.geteuid())
            if ours and sight.ctime_ns < before_ns and stat.S_ISREG(sight.mode):
                foreign.remove(descriptor, sight)
                removed += 1
    finally:
        os.close(descriptor)
    return removed
