"""Secrets by name: read where they are used, in the worker, and written down nowhere."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from provisioning.core.conformity import CREDENTIAL_NAME
from provisioning.core.redaction import MIN_SECRET_CHARS
from provisioning.core.workflow import TaskError
from provisioning.errors import ProvisioningError
from provisioning.infra import Folder, load
from provisioning.storage import reading

MAX_BYTES = 64 << 10


class Unusable(Exception):
    """A credential that cannot be used; `error` is what the attempt ends with."""

    def __init__(self, case: str, text: str, hint: str) -> None:
        super().__init__(text)
        self.error = TaskError(f"provisioning::credential::{case}", text, hint)


def resolve(params: Mapping[str, Any], named: Mapping[str, str], folder: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The params with the secrets that `named` has for some of them in their places; and the secrets by name.

    Unusable where one is missing, or where somebody else could read or change it.
    """
    secrets = {credential: _read(Path(folder), credential) for credential in sorted(set(named.values()))}
    return {**params, **{name: secrets[credential] for name, credential in named.items()}}, secrets


def readable(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Those of these secrets that can be read here, by name: for who wants to be sure that they are nowhere."""
    found = {}
    for name in sorted(names):
        with contextlib.suppress(Unusable):
            found[name] = _read(folder, name)
    return found


def of_settings(params: Mapping[str, Any], variables: Mapping[str, str], folder: str) -> dict[str, str]:
    """The secrets by name that the settings of an attempt's infra name: what must not be seen of it either.

    Of a secret of several lines, `key = value`, the values count too. What is wrong with settings or secrets the
    operation says that needs them.
    """
    infra = params.get("infra")
    if not isinstance(infra, str):
        return {}
    try:
        places = filter(None, variables.get("PROVISIONING_INFRA", "").split(":"))
        document = load([Folder(Path(place)) for place in places], infra).document
    except ProvisioningError:
        return {}
    sections = [section for section in document.values() if isinstance(section, dict)]
    named = {name for section in sections if isinstance(name := section.get("credential"), str)}
    found = readable(filter(CREDENTIAL_NAME.match, named), Path(folder))
    for name, text in found.items():
        lines = text.splitlines()
        values = [line.partition("=")[2].strip() for line in lines] if len(lines) > 1 else []
        found[name] = "\n".join([text, *filter(None, values)])
    return found


def _read(folder: Path, name: str) -> str:
    path = folder / name
    hint = f"make it a file of its owner alone: (umask 077; cat >{path})"
    try:
        descriptor = reading.open_regular(path)
    except FileNotFoundError:
        text = f"there is no credential {name!r} in {folder}"
        raise Unusable("not-found", text, hint) from None
    except ProvisioningError as error:
        raise Unusable("unreadable", error.message, hint) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        # The group of root may read what is root's: so it looks where systemd grants one user the right by an ACL.
        others = 0o037 if (status.st_uid, status.st_gid) == (0, 0) else 0o077
        if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & others:
            text = (
                f"the credential {name!r} can be read or changed by others: {path} has mode {status.st_mode & 0o7777:o}"
            )
            raise Unusable("unsafe", text, f"chown it to the user who works the spool, and: chmod 400 {path}")
        data = file.read(MAX_BYTES + 1)
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise Unusable("invalid", f"the credential {name!r} is not UTF-8", "encode it, in base64 for example") from None
    if not len(text) >= MIN_SECRET_CHARS or len(data) > MAX_BYTES or "\0" in text:
        said = f"the credential {name!r} must have {MIN_SECRET_CHARS} characters to {MAX_BYTES} bytes, and no NUL"
        raise Unusable("invalid", said, "what is shorter cannot be kept out of the logs")
    return text
