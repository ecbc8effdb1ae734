"""Bad signatures, made with real keys: forged, expired, revoked, for another purpose, another host, by another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.hostile.bad_files import Bad, beside

NAMESPACE = "provisioning-manifest"
KEYS = ("good", "other", "stranger", "expired", "future", "narrow", "revoked")


def key_pairs(folder: Path, operator: str) -> dict[str, Path]:
    """A key of each kind, and the files of OpenSSH that say what they are: `allowed_signers` and `revoked_keys`."""
    keys = {}
    for name in KEYS:
        keys[name] = folder / f"key-{name}"
        subprocess.run(
            ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(keys[name])], check=True
        )
    public = {name: " ".join(path.with_suffix(".pub").read_text().split()[:2]) for name, path in keys.items()}
    options = {
        "good": f"{operator}",
        "other": "somebody-else",
        "expired": f'{operator} valid-before="20200101"',
        "future": f'{operator} valid-after="20990101"',
        "narrow": f'{operator} namespaces="file,git"',
        "revoked": f"{operator}",
    }
    allowed = "".join(f"{option} {public[name]}\n" for name, option in options.items())
    for name, text in (("allowed_signers", allowed), ("revoked_keys", f"{public['revoked']}\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return keys


def signature(key: Path, data: bytes, namespace: str = NAMESPACE) -> bytes:
    """What ssh-keygen makes of the bytes."""
    command = ["/usr/bin/ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key)]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def manifest(number: int, **keys: Any) -> bytes:
    """A manifest that may be signed; None takes a key away."""
    whole = {"schema": 1, "name": "s", "id": f"signed-{number}", "expires_at": "2099-01-01T00:00:00Z"}
    whole |= {"target_host": "here", "tasks": [{"id": "a", "operation": "selftest.noop"}], **keys}
    return json.dumps({key: value for key, value in whole.items() if value is not None}).encode()


def signed_files(keys: dict[str, Path]) -> Iterator[Bad]:
    """Files with a signature beside each, which is not what it should be, or is of what should not be signed."""
    good = keys["good"]
    armour = signature(good, manifest(0))
    cases = [
        ("signature-forged", manifest(1), armour),
        ("signature-forged", manifest(0) + b" ", armour),
        ("signature-unreadable", manifest(2), b"no signature at all\n"),
        ("signature-unreadable", manifest(3), b""),
        ("signature-unreadable", manifest(4), armour[:120]),
        ("signature-unreadable", manifest(5), armour.replace(b"U1NIU0lH", b"AAAAAAAA")),
        ("signature-unreadable", manifest(6), b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"),
        ("signature-namespace", manifest(7), signature(good, manifest(7), "file")),
        ("signature-namespace", manifest(8), signature(keys["narrow"], manifest(8))),
        ("signature-expired", manifest(9), signature(keys["expired"], manifest(9))),
        ("signature-expired", manifest(10), signature(keys["future"], manifest(10))),
        ("signature-revoked", manifest(11), signature(keys["revoked"], manifest(11))),
        ("unknown-signer", manifest(12), signature(keys["stranger"], manifest(12))),
        ("unknown-signer", manifest(13), signature(keys["other"], manifest(13))),
    ]
    signed: list[tuple[str, dict[str, Any]]] = [
        ("wrong-host", {"target_host": "there"}),
        ("expired", {"expires_at": "2020-01-01T00:00:00Z"}),
        ("missing-key", {"id": None}),
        ("missing-key", {"expires_at": None}),
        ("missing-key", {"target_host": None}),
        ("bad-value", {"id": "../x"}),
    ]
    for number, (code, changes) in enumerate(signed, 20):
        data = manifest(number, **changes)
        cases.append((code, data, signature(good, data)))
    for number, (code, data, text) in enumerate(cases):
        yield Bad(f"signed-{number:02}.json".encode(), code, beside(data, ".sig", text))
