"""One workflow as a tar file for whoever is to help: all that the spool has of it, and no secrets.

The same files give the same bundle, byte for byte: its members are sorted, and nothing in it says when or by whom it
was made. `SHA256SUMS`, the last member, has a digest of each, as `sha256sum` writes it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from provisioning.core.chain import link
from provisioning.core.identifiers import WORKFLOW_ID
from provisioning.core.redacted import redactor_of, without_literals
from provisioning.core.workflow import FORMAT, Plan, Submission
from provisioning.decoding import decoded
from provisioning.errors import NotFound, Problem, SpoolUnusable
from provisioning.storage import reading
from provisioning.storage.audit import Audit
from provisioning.storage.backup import Backup
from provisioning.storage.checkpoint import Damaged, encode
from provisioning.storage.members import limit_of, record_of
from provisioning.storage.packed import HEADER_BYTES, NOT_WHOLE, Bounded
from provisioning.storage.spool import Spool

SUMS, ABOUT, AUDIT, LOG = "SHA256SUMS", "about.json", "audit.jsonl", "orchestrator.log"
LOG_BYTES = 1 << 20
"""So much of the end of each log is in a bundle."""
MOST_BYTES = 1 << 30
"""A bundle that is unpacked to more is refused by who verifies it."""
_OWN = {SUMS: 1 << 28, ABOUT: 1 << 20, AUDIT: 1 << 28, LOG: 1 << 28}
_SUM = re.compile(r"([0-9a-f]{64})  ([^\0\n]+)\Z")


class Bundled(NamedTuple):
    """What was put into a bundle."""

    members: int
    redacted: tuple[str, ...]
    """Files of which a secret was taken out: they are not what the spool has."""
    left_out: tuple[str, ...]
    """What is no file of the format."""
    digest: str
    """SHA-256 of `SHA256SUMS`: who knows it knows every byte."""


def bundle(  # noqa: PLR0913 - of what, whereto, and what must not be in it
    spool: Spool,
    workflow_id: str,
    out: BinaryIO,
    *,
    compress: bool,
    secrets: Mapping[str, str],
    about: Mapping[str, Any],
) -> Bundled:
    """Write all about a workflow to `out`, while others work it. `about` says what made it, such as versions.

    Without `secrets`, which are by name, and without those that its plan has written out.
    """
    gathered = _Gathered(spool, workflow_id, secrets)
    files = gathered.run(about)
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())).encode()
    packed = gzip.GzipFile(fileobj=out, mode="wb", compresslevel=6, mtime=0, filename="") if compress else None
    with tarfile.open(fileobj=packed or out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, data in [*sorted(files.items()), (SUMS, sums)]:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, gathered.submitted_at
            tar.addfile(info, io.BytesIO(data))
    if packed:
        packed.close()
    return Bundled(len(files), gathered.redacted, gathered.left_out, hashlib.sha256(sums).hexdigest())


class _Gathered(Backup):
    """The files of one workflow, copied in the order that makes a backup consistent, and without secrets."""

    def __init__(self, spool: Spool, workflow_id: str, secrets: Mapping[str, str]) -> None:
        super().__init__(spool, tarfile.open(fileobj=io.BytesIO(), mode="w"))  # noqa: SIM115 - nothing goes into it
        self._workflow_id = workflow_id
        self._plan = _plan_of(spool, workflow_id)
        self._redactor = redactor_of(self._plan, secrets)
        self._files: dict[str, bytes] = {}
        self._redacted: list[str] = []
        self.submitted_at = 0

    @property
    def redacted(self) -> tuple[str, ...]:
        return tuple(sorted(self._redacted))

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(self._left_out)

    def run(self, about: Mapping[str, Any]) -> dict[str, bytes]:  # type: ignore[override]
        """The files by their names. NotFound where there is no such workflow."""
        self._copy_incoming(self._workflow_id)
        if self._workflow_id not in self._copied:
            self._copy_claimed(self._workflow_id)
        if not self._files:
            raise NotFound(f"workflow {self._workflow_id} is not there", hint="see: provisioning workflow list")
        self._put(AUDIT, b"".join(self._audit_lines()))
        self._put(LOG, b"".join(self._log_lines()))
        self._put(
            ABOUT, encode({"format": FORMAT, "workflow_id": self._workflow_id, **about, "redacted": self.redacted})
        )
        return self._files

    def _add_from(self, name: str, file: BinaryIO, size: int) -> None:
        """Take a member, of a log its end."""
        if name.endswith((".log", "events.jsonl")) and size > LOG_BYTES:
            file.seek(size - LOG_BYTES)
            data = f"[{size - LOG_BYTES} bytes left out here]\n".encode() + file.read(LOG_BYTES)
        else:
            data = file.read(size)
        if name.endswith("/submission.json"):
            self.submitted_at = int(decoded(data, Submission).submitted_at.timestamp())
        self._put(name, data)

    def _put(self, name: str, data: bytes) -> None:
        self._files[name] = self._clean(name, data)
        if self._files[name] != data:
            self._redacted.append(name)

    def _clean(self, name: str, data: bytes) -> bytes:
        """The file without secrets: in JSON each text by itself, so that what is left is JSON still."""
        if name.endswith("/plan.json") and self._plan is not None:
            clean = without_literals(self._plan)
            data = data if clean == self._plan else encode(clean)
        if name.endswith(".json"):
            try:
                value = msgspec.json.decode(data)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                value = None
            if value is not None:
                taken_out = self._redactor.value(value)
                return data if taken_out == value else encode(taken_out)
        return self._redactor.feed(data) + self._redactor.finish()

    def _audit_lines(self) -> list[bytes]:
        """The records about this workflow, each as it stands in the audit log, with its own hash."""
        wanted = f'"{self._workflow_id}"'.encode()
        return [line for path in Audit(self._spool.root).parts() for line in _lines_with(path, wanted)]

    def _log_lines(self) -> list[bytes]:
        names = ("orchestrator.log.1", "orchestrator.log")
        wanted = self._workflow_id.encode()
        return [line for name in names for line in _lines_with(self._spool.logs / name, wanted)]


def _plan_of(spool: Spool, workflow_id: str) -> Plan | None:
    try:
        return spool.find(workflow_id).plan()
    except Damaged:
        return None


def _lines_with(path: Path, wanted: bytes) -> list[bytes]:
    try:
        data = reading.read_regular(path, 1 << 30)
    except FileNotFoundError:
        return []
    return [line for line in data.splitlines(keepends=True) if wanted in line and line.endswith(b"\n")]


class Checked(NamedTuple):
    """What a bundle is."""

    workflow_id: str
    members: int
    digest: str
    about: dict[str, Any]
    problems: list[Problem]
    """What is not as it was made, or not as the format has it; none of a bundle that is sound."""


def verify(file: BinaryIO, source: str) -> Checked:
    """Read a bundle, and compare it with what it says of itself. SpoolUnusable where it is none, or was cut off.

    That nobody made it anew with other content is known only from outside: by its digest.
    """
    files = _unpacked(file, source)
    sums = files.pop(SUMS)
    problems = list(_sum_problems(files, sums))
    about, workflow_id = _about(files, problems)
    for name, data in files.items():
        if name in _OWN:
            continue
        if name.split("/")[1:2] != [workflow_id] and not name.startswith(f"requests/{workflow_id}."):
            problems.append(Problem("foreign-file", f"it is not of workflow {workflow_id}", file=name))
        if (kind := record_of(name)) is not None:
            try:
                decoded(data, kind)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                problems.append(Problem("damaged", str(error), file=name))
    problems += _manifest_problems(files, set(about.get("redacted", ())))
    for number, line in enumerate(files.get(AUDIT, b"").splitlines(keepends=True), 1):
        if AUDIT not in about.get("redacted", ()) and link(line) is None:
            problems.append(Problem("broken-chain", f"record {number} is damaged, or was changed", file=AUDIT))
    return Checked(workflow_id, len(files), hashlib.sha256(sums).hexdigest(), about, problems)


def _unpacked(file: BinaryIO, source: str) -> dict[str, bytes]:
    """Every member, none of a kind, name or size that no bundle has."""
    stream, files, left = Bounded(file), dict[str, bytes](), MOST_BYTES
    try:
        with tarfile.open(fileobj=stream.opened(), mode="r|") as tar:
            while True:
                stream.allowance = HEADER_BYTES
                if (info := tar.next()) is None:
                    break
                limit = _OWN.get(info.name, limit_of(info.name))
                left -= info.size
                strange = not info.isreg() or info.issparse() or info.name in files or SUMS in files
                if limit is None or strange or not 0 <= info.size <= limit or left < 0:
                    raise SpoolUnusable(f"{source} is no bundle: it has {info.name[:200]!r}", hint="make another one")
                stream.allowance = info.size + HEADER_BYTES
                content = tar.extractfile(info)
                files[info.name] = content.read() if content else b""
            assert tar.fileobj is not None
            while rest := tar.fileobj.read(1 << 16):
                if rest.strip(b"\0"):
                    raise SpoolUnusable(f"{source} goes on behind its end", hint="fetch or make it again")
    except NOT_WHOLE as error:
        raise SpoolUnusable(f"{source} is no whole bundle: {error}", hint="fetch or make it again") from error
    if SUMS not in files:
        raise SpoolUnusable(f"{source} is cut off: {SUMS} is missing", hint="fetch or make it again")
    return files


def _sum_problems(files: Mapping[str, bytes], sums: bytes) -> list[Problem]:
    lines = map(_SUM.match, sums.decode(errors="replace").splitlines())
    told = {str(line[2]): str(line[1]) for line in lines if line}
    problems = [
        Problem("wrong-digest", "it is not what was bundled", file=name)
        for name, data in files.items()
        if name in told and hashlib.sha256(data).hexdigest() != told[name]
    ]
    problems += [Problem("foreign-file", f"{SUMS} does not know it", file=name) for name in files if name not in told]
    return problems + [Problem("no-file", "it is missing", file=name) for name in told if name not in files]


def _about(files: Mapping[str, bytes], problems: list[Problem]) -> tuple[dict[str, Any], str]:
    try:
        about = msgspec.json.decode(files.get(ABOUT, b""), type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        about = {}
    workflow_id = about.get("workflow_id")
    if not isinstance(workflow_id, str) or not WORKFLOW_ID.match(workflow_id):
        problems.append(Problem("damaged", "it does not say which workflow this is", file=ABOUT))
        workflow_id = ""
    if not isinstance(about.get("redacted", []), list):
        problems.append(Problem("damaged", "it does not say what was taken out", file=ABOUT))
        about["redacted"] = []
    return about, workflow_id


def _manifest_problems(files: Mapping[str, bytes], redacted: set[str]) -> list[Problem]:
    """Whether the manifest is what was submitted, as far as nothing was taken out of it."""
    submissions = [data for name, data in files.items() if name.endswith("/submission.json")]
    manifests = [name for name in files if name.rpartition("/")[2] in ("manifest.toml", "manifest.json")]
    if not submissions or not manifests:
        return [Problem("no-file", "there is no submission, or no manifest", file=SUMS)]
    try:
        digest = decoded(submissions[0], Submission).digest
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []  # told already
    changed = [name for name in manifests if name not in redacted and hashlib.sha256(files[name]).hexdigest() != digest]
    return [Problem("wrong-digest", "it is not the manifest that was submitted", file=name) for name in changed]
