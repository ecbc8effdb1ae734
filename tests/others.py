"""Acting as another user, who may have no way to where the checkout or its interpreter lies."""

from __future__ import annotations

import os
import pickle
import shlex
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[1]


def as_other(uid: int, gid: int, needed: Iterable[Path] = ()) -> list[str]:
    """What a command is to begin with, started by root: it then runs as that user, without further groups.

    A folder that is closed to others, such as /root, is replaced in a view of the command's own, by one that has
    nothing in it but what is needed.
    """
    programs = [Path(each) for each in (sys.prefix, sys.base_prefix, sys.executable)]
    paths = {each.resolve() for each in (*programs, ROOT, *needed)}
    lines = ["set -e"]
    for closed in sorted({top for each in paths if (top := _closed(each)) is not None}):
        inside = sorted(each for each in paths if closed in each.parents)
        kept = [each for each in inside if not any(other in each.parents for other in inside)]
        lines.append("keep=$(mktemp -d) && mount -t tmpfs tmpfs $keep")
        for number, each in enumerate(kept):
            what = "mkdir" if each.is_dir() else "touch"
            lines.append(f"{what} $keep/{number}; mount --rbind {shlex.quote(str(each))} $keep/{number}")
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(closed))}")
        for number, each in enumerate(kept):
            path = shlex.quote(str(each))
            make = f"mkdir -p {path}" if each.is_dir() else f"mkdir -p {shlex.quote(str(each.parent))}; touch {path}"
            lines.append(f"{make}; mount --rbind $keep/{number} {path}")
        lines.append("umount -l $keep; rmdir $keep")
    lines.append(f'exec setpriv --reuid {uid} --regid {gid} --clear-groups "$@"')
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(lines), "sh"]


def as_user(uid: int, gid: int, act: Callable[[], T]) -> T:
    """What the call gives in a process of that user, forked from this one; an error in it fails the test.

    What it has to import must have been imported before: the files may be closed to that user.
    """

    def become() -> T:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        return act()

    return in_child(become)


def in_child(act: Callable[[], T]) -> T:
    """What the call gives in a process forked from this one, whose children are no children of it."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writing, pickle.dumps(act()))
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    assert said, "it ended with an error"
    found: T = pickle.loads(said)
    return found


def _closed(path: Path) -> Path | None:
    """The topmost folder on the way to it that others may not pass through."""
    return next((each for each in reversed(path.parents) if not os.stat(each).st_mode & stat.S_IXOTH), None)
