"""Where an installation puts what, and what stands in the files that it writes. Nothing is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioning import resources
from provisioning.errors import UsageError

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}\Z")
PLAIN_PATH = re.compile(r"(/[A-Za-z0-9._+-]+)+\Z")
"""What needs quotes neither in a unit file nor in a crontab."""
MAIL = re.compile(r"[A-Za-z0-9._%+@-]{1,200}\Z")

MAIN_UNIT, GATEWAY_UNIT = "provisioning-orchestrator.service", "provisioning-gateway.service"
UNITS = (MAIN_UNIT, "provisioning-drain.service", "provisioning-drain.path", "provisioning-drain.timer", GATEWAY_UNIT)

LOCAL_SERVERS = """\
# Servers of the local provider are made of namespaces, and mount a /proc of their own.
RestrictNamespaces=user pid mnt uts net ipc cgroup
SystemCallFilter=@mount"""
NO_LOCAL_SERVERS = """\
RestrictNamespaces=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectProc=invisible
SystemCallFilter=~@privileged"""


@dataclass(frozen=True)
class Layout:
    """Where everything goes. With a `root`, everything goes below it, and the running system is left alone."""

    prefix: Path = Path("/opt/provisioning")
    spool: Path = Path("/var/spool/provisioning")
    user: str = "provisioning"
    root: Path | None = None
    operators: tuple[str, ...] = ()
    """Who gets a drop folder."""
    group: str | None = None
    """The group whose members may pass through the spool to their drop folders; None is everybody."""
    cron: str | None = None
    """Whom cron mails; None is without cron."""
    local_servers: bool = False
    """Whether the units leave room for servers of the local provider."""

    def __post_init__(self) -> None:
        for what, path in (("--prefix", self.prefix), ("--spool", self.spool)):
            if not PLAIN_PATH.match(str(path)) or ".." in path.parts:
                text = f"{what} must be an absolute path of letters, digits and ._+- only, not {str(path)!r}"
                raise UsageError(text, hint="it is written into unit files and crontabs")
        for name in (self.user, *self.operators, *([self.group] if self.group else [])):
            if not NAME.match(name):
                raise UsageError(f"{name!r} is no name of a user", hint="use lower-case letters, digits, _ and -")
        if self.cron is not None and not MAIL.match(self.cron):
            raise UsageError(f"{self.cron!r} is nobody whom cron can mail", hint="name a user, or an address")

    def at(self, path: str | Path) -> Path:
        """Where an absolute path is in this installation."""
        return Path(path) if self.root is None else self.root / str(path).lstrip("/")

    @property
    def versions(self) -> Path:
        """A folder for each version that is still wanted."""
        return self.at(self.prefix / "versions")

    @property
    def current(self) -> Path:
        """The link to the version that a start takes."""
        return self.at(self.prefix / "current")

    @property
    def record(self) -> Path:
        """What the installation wrote, for the next one and for its removal."""
        return self.at(self.prefix / "installed.json")

    @property
    def config(self) -> Path:
        return Path("/etc/provisioning/config.toml")

    @property
    def units(self) -> Path:
        return Path("/etc/systemd/system")

    def links(self) -> dict[Path, str]:
        """The links on PATH, and where they lead."""
        names = ("provisioning", "provisioning-orchestrator")
        return {self.at(Path("/usr/local/bin", name)): str(self.prefix / "current" / "bin" / name) for name in names}

    def texts(self, generated: Mapping[str, str]) -> dict[Path, bytes]:
        """The files that are written; `generated` are completions and man page, by paths below /usr/local/share."""
        place = {self.units / name: name for name in UNITS} | {Path("/etc/logrotate.d/provisioning"): "logrotate"}
        if self.cron is not None:
            place[Path("/etc/cron.d/provisioning")] = "crontab"
        found = {self.at(path): self._filled(name) for path, name in place.items()}
        share = Path("/usr/local/share")
        return found | {self.at(share / path): text.encode() for path, text in generated.items()}

    def kept_texts(self) -> dict[Path, bytes]:
        """The files that are a person's, and written only where there are none."""
        return {self.at(self.config.parent / name): self._filled(name) for name in ("config.toml", "authority.toml")}

    def _filled(self, template: str) -> bytes:
        text = (resources.data_dir("install") / template).read_text("utf-8")
        values = {
            "PROGRAM": str(self.prefix / "current" / "bin" / "provisioning"),
            "SPOOL": str(self.spool),
            "USER": self.user,
            "CONFIG": str(self.config),
            "MAILTO": self.cron or "",
            "LOCAL": LOCAL_SERVERS if self.local_servers else NO_LOCAL_SERVERS,
        }
        return re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], text).encode()
