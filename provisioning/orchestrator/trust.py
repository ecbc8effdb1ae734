"""What strangers are held to: grants, signers, operations; read from files that nobody else can change."""

from __future__ import annotations

import hashlib
import os
import pwd
import socket
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from provisioning.config import Config
from provisioning.core import authority
from provisioning.core.authority import Authority
from provisioning.core.catalogue import Catalogue
from provisioning.core.workflow import Plan, Submission
from provisioning.errors import Invalid, Problem, ProvisioningError
from provisioning.execution.judge import Rules
from provisioning.execution.signing import Signers
from provisioning.ownership import refuse_unless_ours
from provisioning.storage import files, reading
from provisioning.storage.checkpoint import encode
from provisioning.storage.naming import naming
from provisioning.storage.spool import Spool

MAX_AUTHORITY_BYTES = 4 << 20
KEPT_RULES = 8
"""So many files of rules are kept, the latest: one that a parser was told to read stays while it may."""
DOORS_OF_OTHERS = ("drop", "receive", "gateway")


def own_name() -> str:
    """The user who works the spool: may do everything in it anyway."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


class Trust:
    """The files that say who may do what, read anew when they change."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._read: tuple[object, Authority | None, str] | None = None
        self.own = own_name()
        self._made: tuple[object, Path] | None = None
        self._kept: deque[Path] = deque()

    def refuse_unsafe(self) -> None:
        """Refused where somebody else could change a file or a program that decides what is run."""
        paths = self._config.paths
        for path, what in (
            (paths.spool, "spool"),
            (paths.authority, "authority file"),
            (paths.signers, "file of allowed signers"),
            (paths.revoked, "file of revoked keys"),
            (paths.credentials, "folder of credentials"),
            (paths.ssh_keygen if self._signing() else None, "ssh-keygen"),
            (Path(command[0]) if (command := self._config.notify.command) else None, "program of [notify]"),
        ):
            if path is not None and os.path.lexists(path):
                refuse_unless_ours(path, what, os.geteuid())

    def _signing(self) -> bool:
        return (self._config.drop.signature, self._config.receive.signature) != ("off", "off")

    def warnings(self, operators: Sequence[str]) -> list[str]:
        """What to say at the start: what the doors take, why they take nothing, and that nobody can be told."""
        said = []
        if self._config.drop.trust_unsealed:
            said.append("drop.trust_unsealed: files that nothing proves whole are taken")
        found, why = self.authority()
        others = [name for name in operators if name != self.own]
        if found is None and others:
            said.append(f"everything that {', '.join(others)} drop is refused: {why}")
        paths = self._config.paths
        if self._signing():
            named = (paths.signers, paths.ssh_keygen, *([paths.revoked] if paths.revoked else []))
            said += [f"no signature can be checked: there is no {path}" for path in named if not path.exists()]
        command = self._config.notify.command
        if command and not (os.path.isfile(command[0]) and os.access(command[0], os.X_OK)):
            said.append(f"nobody is told of anything: {command[0]}, the program of [notify], cannot be run")
        return said

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file that decides something, for the audit log."""
        paths = self._config.paths
        named = {"config": self._config.file, "authority": paths.authority, "signers": paths.signers}
        found = {}
        for name, path in {**named, "revoked": paths.revoked}.items():
            if path is not None and path.is_file():
                found[name] = hashlib.sha256(reading.read_regular(Path(os.path.realpath(path)), 64 << 20)).hexdigest()
        return found

    def authority(self) -> tuple[Authority | None, str]:
        """The grants there are now; or None, and why."""
        path = self._config.paths.authority
        try:
            found = os.stat(path)
            mark: object = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        except OSError:
            return None, f"there is no {path}"
        if self._read is None or self._read[0] != mark:
            self._read = (mark, *self._load(path))
        return self._read[1], self._read[2]

    @staticmethod
    def _load(path: Path) -> tuple[Authority | None, str]:
        try:
            refuse_unless_ours(path, "authority file", os.geteuid())
            text = reading.read_regular(Path(os.path.realpath(path)), MAX_AUTHORITY_BYTES).decode()
            return authority.read(text, str(path)), ""
        except Invalid as error:
            return None, f"{path} is broken: {error.problems[0].message}"
        except (ProvisioningError, OSError, UnicodeDecodeError) as error:
            return None, str(error)

    def refusals(self, submission: Submission, plan: Plan) -> list[Problem]:
        """What speaks against starting what was accepted: who may do what may have changed since."""
        if submission.door not in DOORS_OF_OTHERS or submission.operator == self.own:
            return []
        found, why = self.authority()
        if found is None:
            return [Problem("no-authority", f"nobody is granted anything: {why}", "its administrator has to mend that")]
        return found.refusals(submission.operator, plan.workflow.infra, plan.workflow.tasks, plan.operations)

    @property
    def host(self) -> str:
        """What this host is called where a manifest says which one it is for."""
        return self._config.drop.host or socket.gethostname()

    def rules(self, spool: Spool, catalogue: Catalogue) -> Path:
        """A file of what drops are held to now, made anew when something changed."""
        found, why = self.authority()
        mark = (catalogue.digest, self._read[0] if self._read and found else None, why)
        if self._made is None or self._made[0] != mark:
            paths, drop = self._config.paths, self._config.drop
            revoked = str(paths.revoked) if paths.revoked else None
            rules = Rules(
                catalogue=catalogue,
                signers=Signers(str(paths.ssh_keygen), str(paths.signers), revoked),
                host=self.host,
                limits=(drop.max_bytes, drop.max_values),
                parse_seconds=drop.parse_seconds,
                parse_bytes=drop.parse_bytes,
                own=self.own,
                infra=tuple(map(str, paths.infra)),
                slurm=self._config.slurm.directory is not None,
                authority=found,
                without_authority=why,
            )
            path = spool.scratch.name()
            with naming(path):
                files.write_new(path, encode(rules), durable=False)
            self._made = (mark, path)
            self._kept.append(path)
            if len(self._kept) > KEPT_RULES:  # a parser may still be about to read those before
                files.remove(self._kept.popleft())
        return self._made[1]
