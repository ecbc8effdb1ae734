"""The settings of an infra: `<folder>/<name>/settings.toml`, in the first folder that has it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provisioning.core.locate import Limits, settle
from provisioning.errors import UsageError
from provisioning.ownership import refuse_unless_ours

MAX_BYTES = 1 << 20


def settings(folders: Sequence[Path], name: str) -> dict[str, Any]:
    """What is set for the infra of that name, instants as text; nothing where no folder has it.

    UsageError where its file is not TOML; Refused where others than root and this user could have written it.
    """
    for folder in folders:
        path = folder / name / "settings.toml"
        refuse_unless_ours(path, "settings of the infra", os.geteuid())
        try:
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}", hint="check its mode") from None
        if len(data) > MAX_BYTES:
            raise UsageError(f"{path} has more than {MAX_BYTES} bytes", hint="is it the right file?")
        return _parsed(data, path)
    return {}


def _parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        found = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {str(error)[:200]}", hint="correct it there") from None
    if odd := settle(found, limits=Limits()):
        place = ".".join(map(str, odd[0].path))
        raise UsageError(f"{path}: {place}: {odd[0].message}", hint="correct it there")
    return found
