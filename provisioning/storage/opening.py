"""What a folder must be before it is worked as a spool: its format, its owner, its folders and their modes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from provisioning.core.workflow import FORMAT
from provisioning.errors import Refused, SpoolUnusable
from provisioning.storage import files, reading
from provisioning.storage.naming import WrongKind, naming

FOLDERS = ("incoming", "requests", "workflows", "rejected", "ids", "nulib", "locks", "tmp", "logs")
DOORS = ("drop", "taking", "receipts", "audit")
"""Folders that a spool of an earlier version may lack: an orchestrator makes them."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_format(root: Path) -> None:
    """Whether it is a spool of this format and of this user."""
    hint = f"make one: provisioning spool init {root}"
    try:
        text = reading.read_regular(root / "format", 64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise SpoolUnusable(f"there is no spool at {root}", hint=hint) from None
    except WrongKind as error:
        if isinstance(error.__cause__, NotADirectoryError):
            raise SpoolUnusable(f"there is no spool at {root}", hint=hint) from None
        raise
    if text != str(FORMAT):
        raise SpoolUnusable(
            f"the spool at {root} has format {text!r}, this version works format {FORMAT}",
            hint="use the version that made it, or a newer one",
        )
    if (owner := os.stat(root).st_uid) != os.geteuid():
        raise SpoolUnusable(
            f"the spool at {root} belongs to uid {owner}, this process is uid {os.geteuid()}",
            hint="work it as its owner, or name another: --spool DIR",
        )


def check_folders(root: Path) -> list[Path]:
    """The root and its folders that others than their owner may write in. SpoolUnusable where one is missing.

    And where one is a link, whose target may be anything: the root alone may be reached through one.
    """
    modes: dict[Path, int] = {}
    for path in (root, *(root / name for name in (*FOLDERS, *DOORS))):
        try:
            modes[path] = os.stat(path, follow_symlinks=path == root).st_mode
        except OSError:
            if path.name not in DOORS:
                modes[path] = 0
    if links := [path.name for path, mode in modes.items() if stat.S_ISLNK(mode)]:
        raise SpoolUnusable(
            f"of the spool at {root}, {', '.join(links)} must be a folder and is a link",
            hint=f"put the folder in its place, or remove the link, then: provisioning spool init {root}",
        )
    if missing := [path.name for path, mode in modes.items() if not stat.S_ISDIR(mode)]:
        raise SpoolUnusable(
            f"the spool at {root} lacks {', '.join(missing)}", hint=f"complete it: provisioning spool init {root}"
        )
    return [path for path, mode in modes.items() if mode & _OTHERS_WRITE]


def refuse_open_to_others(paths: list[Path]) -> None:
    """Whoever may write in the spool may have anything run as its owner."""
    if paths:
        named = " ".join(map(str, paths))
        raise Refused(f"others than their owner may write in {named}", hint=f"chmod go-w {named}")


def make_durably(folder: Path) -> None:
    """Make the folder and its parents where they are missing, and their names durable."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    files.make_dir(folder)
    with naming(folder):
        for path in missing:
            files.sync_dir(path.parent)


def begin(root: Path) -> None:
    """Make an empty folder, or the one of a checkout, a spool; refused where there is something else."""
    if os.path.lexists(root) and not root.is_dir():
        raise Refused(f"{root} is there and is no folder", hint="name an empty folder, or one that is not there yet")
    make_durably(root)
    foreign = [name for name in reading.list_names(root) if name not in {"README.md", "examples"}]
    if foreign and not os.path.lexists(root / "format"):  # else another process began it at the same time
        raise Refused(
            f"{root} is not empty and no spool: it has {', '.join(sorted(foreign)[:3])}",
            hint="name an empty folder, or one that is not there yet",
        )
    files.close_to_others(Path(os.path.realpath(root)))
    files.write_atomic(root / "format", f"{FORMAT}\n".encode(), durable=files.DURABLE["format"])
