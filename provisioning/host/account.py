"""The user that an installation's orchestrator runs as."""

from __future__ import annotations

import pwd
import shutil

from provisioning.errors import NotFound, Refused
from provisioning.execution.command import run

HOME = "/var/lib/provisioning"
SEARCH = "/usr/sbin:/sbin:/usr/bin:/bin"


def find(name: str) -> pwd.struct_passwd | None:
    """The user of this name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def owner(name: str) -> tuple[int, int]:
    """Its uid and gid. NotFound where there is no such user."""
    user = find(name)
    if user is None:
        raise NotFound(f"there is no user {name}", hint="make it, then give the same command again")
    return user.pw_uid, user.pw_gid


def command_for(name: str) -> list[str]:
    """The command that makes a system user without a shell. Refused where the host has none."""
    if program := shutil.which("useradd", path=SEARCH):
        return [program, "--system", "--user-group", "--home-dir", HOME, "--no-create-home",
                "--shell", "/usr/sbin/nologin", name]  # fmt: skip
    if program := shutil.which("adduser", path=SEARCH):  # busybox
        return [program, "-S", "-D", "-H", "-h", HOME, "-s", "/sbin/nologin", name]
    raise Refused(
        f"there is no user {name}, and no useradd to make one", hint=f"make it, or name another: --user {name}"
    )


def make(name: str) -> None:
    """Make the user."""
    run(command_for(name))
