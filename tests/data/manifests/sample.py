"""What tests of manifests share: the schema, a small catalogue, and reading that answers with problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tomli_w

from provisioning.core import manifest
from provisioning.core.catalogue import Catalogue, Operation, Param
from provisioning.core.workflow import Workflow
from provisioning.errors import InvalidManifest, Problem
from provisioning.resources import schema

SCHEMA = schema("manifest")


def operation(name: str, *params: Param, **rest: Any) -> Operation:
    return Operation(name, name.partition(".")[2], "", "", params, None, **rest)


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}

CATALOGUE = Catalogue(
    digest="sample",
    operations={
        each.name: each
        for each in [
            operation(
                "servers.create",
                Param("name", TEXT, positional=True, required=True, description="Server name"),
                Param("plan", TEXT, positional=False, required=False, default="1xCPU-1GB"),
                Param("cores", WHOLE, positional=False, required=False, default=1),
                Param("zone", {"enum": ["fi", "de"]}, positional=False, required=False, default="fi"),
                Param("token", TEXT, positional=False, required=False),
                idempotent=True,
                timeout_seconds=600.0,
                retries=3,
                probe="servers.show",
                secret=("token",),
            ),
            operation("commands.run", Param("argv", {"type": "array", "items": TEXT}, positional=True, required=True)),
            operation("selftest.echo", Param("value", {}, positional=True, required=True), idempotent=True),
            operation("selftest.noop", idempotent=True),
        ]
    },
)


def render(document: Mapping[str, Any], form: str) -> bytes:
    """A document as a manifest in TOML or JSON."""
    return tomli_w.dumps(document).encode() if form == "toml" else json.dumps(document, indent=1).encode()


def accepted(data: bytes | str, form: str = "toml") -> Workflow:
    """The workflow of a good manifest."""
    text = data.encode() if isinstance(data, str) else data
    return manifest.read(text, form=form, file="m", schema=SCHEMA, catalogue=CATALOGUE)


def refused(data: bytes | str, form: str = "toml", limits: manifest.Limits | None = None) -> list[Problem]:
    """The problems of a manifest, and none if it is good."""
    text = data.encode() if isinstance(data, str) else data
    try:
        manifest.read(text, form=form, file="m", schema=SCHEMA, catalogue=CATALOGUE, limits=limits or manifest.Limits())
    except InvalidManifest as invalid:
        return list(invalid.problems)
    return []
