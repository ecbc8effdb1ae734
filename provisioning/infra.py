"""The settings of an infra: `<folder>/<name>/settings.toml`, in the first folder that has it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provisioning.core.catalogue import nearest_hint
from provisioning.core.identifiers import INFRA_NAME
from provisioning.core.locate import Limits, settle
from provisioning.errors import NotFound, UsageError
from provisioning.ownership import refuse_unless_ours

MAX_BYTES = 1 << 20
NAMELESS = "default"
"""The infra of whoever names none: it needs no settings."""


class Settings(NamedTuple):
    """What is set for an infra."""

    document: dict[str, Any]
    file: Path | None = None
    text: str = ""


class Folder(NamedTuple):
    """Where infras are looked for."""

    path: Path
    shipped: bool = False
    """It came with the program, and is trusted as that is."""


def names(folders: Sequence[Folder]) -> dict[str, Path]:
    """Every infra that has settings, and their file; the first folder that has a name counts."""
    found: dict[str, Path] = {}
    for folder in folders:
        try:
            entries = sorted(entry.name for entry in os.scandir(folder.path))
        except OSError:
            continue
        for name in entries:
            path = folder.path / name / "settings.toml"
            if INFRA_NAME.match(name) and path.is_file():
                found.setdefault(name, path)
    return dict(sorted(found.items()))


def load(folders: Sequence[Folder], name: str) -> Settings:
    """What is set for the infra of that name, instants as text; nothing for the one called `default` if it has none.

    NotFound offers the nearest names; UsageError where its file is not TOML; Refused where others than root and this
    user could have written it.
    """
    for folder in folders if INFRA_NAME.match(name) else ():
        path = folder.path / name / "settings.toml"
        try:
            if not folder.shipped and path.exists():
                refuse_unless_ours(path, "settings of the infra", os.geteuid())
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", hint="check its mode") from None
        if len(data) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES} bytes", hint="is it the right file?")
        return _parsed(data, path)
    if name == NAMELESS:
        return Settings({})
    hint = nearest_hint(name, names(folders)) or "see: provisioning infra list"
    place = folders[0].path / "NAME" / "settings.toml" if folders else "a settings.toml"
    raise NotFound(f"there is no infra {name[:64]!r}", hint=f"{hint}; a new one begins with {place}")


def _parsed(data: bytes, path: Path) -> Settings:
    try:
        text = data.decode()
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {str(error)[:200]}", hint="correct it there") from None
    if odd := settle(found, limits=Limits()):
        place = ".".join(map(str, odd[0].path))
        raise UsageError(f"{path}: {place}: {odd[0].message}", hint="correct it there")
    return Settings(found, path, text)
