"""Who could change a file that this program trusts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from provisioning.errors import Refused


def refuse_unless_ours(path: Path, what: str, euid: int) -> None:
    """Refuse a path that someone else than root and us could change, at any of its folders and links.

    Root's sticky folders, such as /tmp, pass. Refused names the component; OSError where there is none.
    """
    real = Path(os.path.realpath(path))
    for component in dict.fromkeys([*reversed(path.parents), path, *reversed(real.parents), real]):
        found = os.lstat(component)
        if found.st_uid not in (0, euid):
            text = f"the {what} {path} is not safe: {component} belongs to uid {found.st_uid}"
            raise Refused(text, hint=f"it must belong to root or to uid {euid}")
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX and found.st_uid == 0
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(found.st_mode) and not sticky:
            raise Refused(
                f"the {what} {path} is not safe: others may write {component}", hint=f"chmod go-w {component}"
            )
