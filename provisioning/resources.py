"""Where the files that ship with the program are: the same answer in a checkout, a wheel and the binary."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from provisioning.errors import NotFound


@cache
def data_dir(name: str) -> Path:
    """The folder `name` (nulib, schemas, examples, install) that came with the program."""
    package = Path(__file__).resolve().parent
    inside = {"examples": Path("spool/examples"), "install": Path("packaging/install")}.get(name, Path(name))
    for candidate in (package / "data" / name, package.parent / inside):
        if candidate.is_dir():
            return candidate
    raise NotFound(f"the installation lacks its {name!r} folder", hint="install provisioning again")


@cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema `schemas/<name>.schema.json`."""
    loaded: dict[str, Any] = json.loads((data_dir("schemas") / f"{name}.schema.json").read_bytes())
    return loaded
