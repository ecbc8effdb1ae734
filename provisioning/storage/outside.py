"""Files that leave the spool: backups, reports, bundles. Whole or not there, never over another by chance."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from provisioning.clock import new_ulid
from provisioning.errors import NotFound, Refused
from provisioning.storage import files
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool


@contextlib.contextmanager
def writing_outside(spool: Spool, path: Path, what: str, *, replace: bool) -> Iterator[BinaryIO]:
    """A file to be filled that appears at `path`, whole and durable, where the block ends well.

    Refused where a file is there, unless it is to be replaced: then one of the two is there at any time. Where the sync
    of its folder fails, the new one is there, and whether durably is not known.
    """
    taken = Refused(f"{path} is there already", hint="name another, or replace it: --force")
    if os.path.lexists(path) and not replace:
        raise taken
    if os.path.lexists(path) and not path.is_file():
        raise Refused(f"{path} is there already and is no file", hint="name another")
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {path.parent} for the {what}", hint="make it, or name another file")
    if spool.root.resolve() in path.resolve().parents:
        raise Refused(f"{path} is in the spool itself", hint="name a file outside of it, best on another disk")
    beside = path.with_name(f".{path.name}.{new_ulid()}")
    try:
        with files.filling(beside) as out:
            yield out
        if not files.publish_file(beside, path, replace=replace):
            raise taken
    finally:
        files.remove(beside)


@contextlib.contextmanager
def reading_outside(path: Path, what: str) -> Iterator[BinaryIO]:
    """What is in the file at `path`, or on stdin for `-`. NotFound where there is none."""
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with naming(path, "read"):
        try:
            stream = open(path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise NotFound(f"there is no {what} {path}", hint=f"name the file of a {what}") from None
    with stream:
        yield stream


def write_outside(spool: Spool, path: Path, data: bytes, *, replace: bool) -> None:
    """Write a report to the file at `path`, as `writing_outside` does."""
    with writing_outside(spool, path, "report", replace=replace) as out:
        out.write(data)
