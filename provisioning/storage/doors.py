"""Drop folders as an administrator makes them, and what is wrong with those that are there."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from provisioning.core.drop import OPERATOR
from provisioning.errors import NotFound, Problem, Refused, UsageError
from provisioning.storage import foreign, reading
from provisioning.storage.drop import is_private


class Made(NamedTuple):
    """An operator: with a folder, or, where the host has no such user, known by their key alone."""

    name: str
    folder: Path | None


def add_operators(root: Path, names: Sequence[str], group: str | None) -> list[Made]:
    """Make the folders of these operators, or set right those that are there. UsageError or NotFound: nothing was made.

    Whoever is in `group`, or everybody where there is none, may pass through the spool to their own folder, and see
    nothing of the rest.
    """
    for name in names:
        if not OPERATOR.match(name):
            hint = "an operator is called as a user is: lower-case letters, digits, '_' and '-'"
            raise UsageError(f"{name!r} cannot be an operator", hint=hint)
    try:
        gid = grp.getgrnam(group).gr_gid if group else -1
    except KeyError:
        raise NotFound(f"there is no group {group}", hint=f"make it: groupadd {group}") from None
    owner = os.stat(root).st_uid
    if os.geteuid() not in (0, owner):
        raise Refused(f"the spool belongs to uid {owner}", hint="do it as root, or as that user")
    made = []
    for path in (root, root / "drop"):
        foreign.give(path, owner=owner, group=gid, mode=0o710 if group else 0o711)
    for name in names:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            made.append(Made(name, None))
            continue
        if owner not in (0, user.pw_uid) and os.geteuid() != 0:
            raise Refused(f"only root can make a folder for {name}", hint="do it as root")
        folder = root / "drop" / name
        if owner in (0, user.pw_uid):
            foreign.give(folder, owner=user.pw_uid, group=user.pw_gid, mode=0o700)
        else:  # who works the spool takes files away by the group, which files inherit
            foreign.give(folder, owner=user.pw_uid, group=pwd.getpwuid(owner).pw_gid, mode=0o2770)
        made.append(Made(name, folder))
    return made


def own_folder(root: Path, name: str) -> Path | None:
    """The folder into which this user puts manifests; None where the spool is their own, or root's to judge.

    Refused where it is another user's and they have no folder in it.
    """
    me = os.geteuid()
    try:
        owner = os.stat(root).st_uid
    except OSError:
        return None  # who opens it says what is wrong
    if me in (0, owner):
        return None
    folder = root / "drop" / name
    try:
        found = os.lstat(folder)
    except OSError:
        found = None
    if not OPERATOR.match(name) or found is None or not stat.S_ISDIR(found.st_mode) or found.st_uid != me:
        text = f"the spool at {root} belongs to uid {owner}, and {name} has no drop folder in it"
        raise Refused(text, hint=f"its administrator makes one: provisioning spool init {root} --operators {name}")
    return folder


def put_into_own_folder(folder: Path, name: str, data: bytes, digest: bytes, signature: bytes | None) -> None:
    """Put a file there, whole; what proves it whole comes first. Readable by the group, which is that of the spool."""
    if signature is not None:
        foreign.replace(folder / f"{name}.sig", signature, 0o640)
    foreign.replace(folder / f"{name}.sha256", digest, 0o640)
    foreign.replace(folder / name, data, 0o640)


def check_doors(root: Path) -> list[Problem]:
    """What is wrong with the drop folders: owners, modes, and whoever could change a folder above them."""
    drop = root / "drop"
    if not drop.is_dir():
        return []
    found = _parents(root)
    device, owner = os.lstat(root).st_dev, os.stat(root).st_uid
    for name in reading.list_names(drop):
        path = drop / name
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if not OPERATOR.match(name) or not stat.S_ISDIR(status.st_mode):
            found.append(Problem("foreign-file", "it is no operator's folder", "move it out of the spool", str(path)))
            continue
        try:
            uid = pwd.getpwnam(name).pw_uid
        except KeyError:
            found.append(Problem("no-operator", f"there is no user {name}", "remove the folder", str(path)))
            continue
        if status.st_uid != uid:
            text = f"it belongs to uid {status.st_uid}, not to {name}"
            found.append(Problem("foreign-owner", text, f"chown {name}", str(path)))
        if mode & 0o007 or (mode & 0o070 and not is_private(status.st_gid, name)):
            hint = f"provisioning spool init --operators {name}"
            found.append(Problem("open-to-others", f"others may look into it: its mode is {mode:o}", hint, str(path)))
        if owner not in (0, uid) and (mode & stat.S_ISVTX or not mode & stat.S_IWGRP):
            text = f"who works the spool can remove nothing from it: its mode is {mode:o}"
            hint = f"provisioning spool init --operators {name}"
            found.append(Problem("not-removable", text, hint, str(path)))
        if status.st_dev != device:
            found.append(Problem("elsewhere", "it is on another file system than the spool", "put it there", str(path)))
    return found


def _parents(root: Path) -> list[Problem]:
    """Folders above the spool that somebody else could change."""
    found = []
    owner = os.stat(root).st_uid
    for path in Path(os.path.realpath(root)).parents:
        status = os.lstat(path)
        sticky = status.st_mode & stat.S_ISVTX and status.st_uid == 0
        if status.st_uid not in (0, owner):
            text = f"it is above the spool, and belongs to uid {status.st_uid}"
            found.append(Problem("unsafe-parent", text, "move the spool", str(path)))
        elif status.st_mode & 0o022 and not sticky:
            text = f"it is above the spool, and others may write in it: its mode is {stat.S_IMODE(status.st_mode):o}"
            found.append(Problem("unsafe-parent", text, f"chmod go-w {path}", str(path)))
    return found
