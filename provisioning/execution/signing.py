"""Signatures of manifests: OpenSSH's, made and checked by `ssh-keygen -Y` in the namespace of manifests."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from provisioning.core.drop import Reason
from provisioning.errors import NotFound, Refused, SpoolUnusable
from provisioning.execution.command import ENVIRONMENT, consult
from provisioning.storage import files

NAMESPACE = "provisioning-manifest"
BEGIN = b"-----BEGIN SSH SIGNATURE-----"
_HINT = "sign it again: provisioning manifest sign --key KEY FILE"


class Signers(msgspec.Struct, frozen=True):
    """Whose signatures count: OpenSSH's files, and the program that reads them."""

    ssh_keygen: str
    allowed: str
    revoked: str | None = None


def check(data: bytes, signature: bytes, operator: str, signers: Signers) -> Reason | None:
    """Why the signature is not the operator's under these bytes; None where it is.

    Only the exit code of a full verification says that it is. What ssh-keygen writes chooses among the reasons.
    """
    if not signature.strip().startswith(BEGIN):
        return Reason("signature-unreadable", "what is there is no SSH signature", _HINT)
    if not os.path.exists(signers.allowed):
        return Reason("no-signers", f"the orchestrator has no {signers.allowed}", "its administrator has to make one")
    try:
        said = _verify(data, signature, operator, signers, revoked=signers.revoked)
        if said == "":
            return None
        if signers.revoked and _verify(data, signature, operator, signers, revoked=None) == "":
            return Reason("signature-revoked", "the key is revoked", "sign with another key")
    except SpoolUnusable as error:
        return Reason("no-signers", error.message, error.hint)
    for words, code, text in _MEANINGS:
        if any(word in said for word in words):
            return Reason(code, text, _HINT)
    return Reason(
        "unknown-signer", f"the key is not one of {operator}'s", "sign with a key of the allowed_signers file"
    )


_MEANINGS = [
    (
        ("parse signature", "armor", "incomplete message", "invalid format"),
        "signature-unreadable",
        "it is no SSH signature",
    ),
    (("incorrect signature",), "signature-forged", "the signature is of other bytes"),
    (
        ("namespace does not match", "not permitted for use in signature namespace"),
        "signature-namespace",
        f"the signature or its key is not for the namespace {NAMESPACE}",
    ),
    (("has expired", "not yet valid"), "signature-expired", "the key is not valid at this time"),
]


def is_of(data: bytes, signature: bytes, ssh_keygen: Path) -> bool:
    """Whether the signature is of these bytes, whoever made it: it proves them whole, and says nothing of trust."""
    descriptor = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        files.write_all(descriptor, signature)
        arguments = ["-Y", "check-novalidate", "-n", NAMESPACE, "-s", f"/proc/self/fd/{descriptor}"]
        said = consult(ssh_keygen, arguments, stdin=data, pass_fds=[descriptor])
    finally:
        os.close(descriptor)
    return said.code == 0


def _verify(data: bytes, signature: bytes, operator: str, signers: Signers, *, revoked: str | None) -> str:
    """Nothing where the signature is good, otherwise what ssh-keygen says; it always says something."""
    descriptor = os.memfd_create("signature", os.MFD_CLOEXEC)
    try:
        files.write_all(descriptor, signature)
        arguments = ["-Y", "verify", "-n", NAMESPACE, "-I", operator, "-f", signers.allowed]
        arguments += ["-s", f"/proc/self/fd/{descriptor}", *(["-r", revoked] if revoked else [])]
        said = consult(Path(signers.ssh_keygen), arguments, stdin=data, pass_fds=[descriptor])
    finally:
        os.close(descriptor)
    return "" if said.code == 0 else f"{said.stderr}\n{said.stdout}\n"


def sign(data: bytes, key: Path, ssh_keygen: Path, *, agent: str = "") -> bytes:
    """The signature of the bytes by a private key, or by the agent's that belongs to a public one."""
    if not key.exists():
        raise NotFound(f"there is no key {key}", hint="make one: ssh-keygen -t ed25519")
    environment = {**ENVIRONMENT, **({"SSH_AUTH_SOCK": agent} if agent else {})}
    arguments = ["-q", "-Y", "sign", "-n", NAMESPACE, "-f", str(key)]
    said = consult(ssh_keygen, arguments, stdin=data, environment=environment, seconds=60.0)
    if said.code != 0 or not said.stdout.startswith(BEGIN.decode()):
        raise Refused(f"ssh-keygen did not sign: {said.stderr[:300]}", hint="has the key a passphrase? use an agent")
    return said.stdout.encode() + b"\n"


def split(data: bytes) -> tuple[bytes, bytes | None]:
    """The bytes before a signature that is appended to them, and the signature."""
    at = data.rfind(b"\n" + BEGIN)
    return (data[: at + 1], data[at + 1 :]) if at >= 0 else (data, None)
