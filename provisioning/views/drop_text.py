"""The doors for people: what lies in the drop folders, and the lines by which a door is opened."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioning.storage.doors import Made
from provisioning.views.table import table
from provisioning.views.text import safe


def spool_text(page: dict[str, Any], *, width: int | None) -> str:
    """The page of `spool status`."""
    rows = [[name, str(count)] for name, count in page["counts"].items()]
    parts = [table(rows)]
    for operator in page["operators"]:
        parts.append(
            f"\n{safe(operator['operator'])}: {operator['files']} files, {operator['bytes']} bytes in the folder"
        )
        waiting = [
            [each["name"], each["why"], f"{each['age_seconds']:.0f}s", each["hint"]] for each in operator["waiting"]
        ]
        if waiting:
            parts.append(table(waiting, ("FILE", "WAITS", "SINCE", "TO DO"), width=width))
    parts += [f"\nleft alone: {safe(text)}" for text in page["left_alone"]]
    return "\n".join(parts)


def doors_text(root: Path, made: Sequence[Made], group: str | None, program: str) -> str:
    """The lines for sshd_config and authorized_keys."""
    lines = [f"# drop folders: {', '.join(str(each.folder) for each in made if each.folder) or 'none'}"]
    if any(each.folder for each in made):
        users = f"Group {group}" if group else f"User {','.join(each.name for each in made if each.folder)}"
        lines += [
            "",
            "# sshd_config: scp and sftp into the own folder, no shell; scp -O and rsync need it without ForceCommand",
            f"Match {users}",
            "    DisableForwarding yes",
            "    PermitTTY no",
            f"    ForceCommand internal-sftp -d {root}/drop/%u -u 0022",
        ]
    lines += ["", "# authorized_keys of the user who works the spool: one line for each operator's key"]
    for each in made:
        command = f"{program} --spool {shlex.quote(str(root))} spool receive --as {each.name}"
        lines.append(f'restrict,command="{command}" ssh-ed25519 AAAA… {each.name}')
    return "\n".join(lines)
