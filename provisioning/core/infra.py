"""The settings of an infra as values: what is wrong with them, and which params of an operation they set.

A param's value is the operation's default, unless the infra says one, unless the task (a manifest, or the flags of a
command) says one. The infra says it by a key of the param's name at its top (`provider`, `zone`), by `defaults.<param>`
for all operations, or by `defaults."<operation>".<param>` for one; the later of these counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from provisioning.core.catalogue import Catalogue, Operation, nearest_hint
from provisioning.core.conformity import param_findings, schema_findings
from provisioning.core.locate import Finding, Locator, problems
from provisioning.core.references import escaped
from provisioning.errors import Problem

AT_THE_TOP = ("provider", "zone")
"""Settings that are params of the same name without being in `defaults`."""


class Layer(NamedTuple):
    """A value that the settings give a param, and the key that says it."""

    value: Any
    key: str


def layers(settings: Mapping[str, Any], operation: Operation) -> dict[str, Layer]:
    """What the settings give the operation's params."""
    defaults = settings.get("defaults")
    defaults = defaults if isinstance(defaults, dict) else {}
    own = defaults.get(operation.name)
    found: dict[str, Layer] = {}
    for param in operation.params:
        if param.name == "infra":
            continue
        if param.name in AT_THE_TOP and param.name in settings:
            found[param.name] = Layer(settings[param.name], param.name)
        if param.name in defaults:
            found[param.name] = Layer(defaults[param.name], f"defaults.{param.name}")
        if isinstance(own, dict) and param.name in own:
            found[param.name] = Layer(own[param.name], f'defaults."{operation.name}".{param.name}')
    return found


class Infras:
    """The settings of all infras that are asked for, each read once."""

    def __init__(self, read: Callable[[str], Mapping[str, Any]]) -> None:
        self._read = read
        self._known: dict[str, Mapping[str, Any]] = {}

    def settings(self, name: str) -> Mapping[str, Any]:
        """The settings of the infra of that name. A ProvisioningError says why there are none."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def layered(self, params: dict[str, Any], operation: Operation, infra: str, *, templates: bool) -> dict[str, Any]:
        """The params of a task, and those that its infra gives it besides; in `templates` these are escaped."""
        name = params.get("infra", infra)
        takes = any(param.name == "infra" for param in operation.params)
        if not takes or not isinstance(name, str) or "${" in name:
            return params
        found = layers(self.settings(name), operation)
        return {key: escaped(layer.value) if templates else layer.value for key, layer in found.items()} | params


def explained(settings: Mapping[str, Any], operation: Operation, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The value of every param and where it comes from: the operation, the infra's key, or the task."""
    layer = layers(settings, operation)
    rows = []
    for param in operation.params:
        if param.name in given:
            value, source = given[param.name], "given"
        elif param.name in layer:
            value, source = layer[param.name].value, f"infra: {layer[param.name].key}"
        else:
            value, source = param.default, "required" if param.required else "operation"
        rows.append({"param": param.name, "value": "***" if param.name in operation.secret else value, "from": source})
    return rows


def settings_problems(
    settings: dict[str, Any], *, schema: dict[str, Any], catalogue: Catalogue | None, file: str, text: str | None = None
) -> list[Problem]:
    """All that is wrong with settings: against the schema and, where there is a catalogue, against the operations."""
    findings = schema_findings(schema, settings)
    for key in settings:
        if key not in schema["properties"] and (hint := nearest_hint(key, schema["properties"])):
            findings.append(Finding("unknown-key", f"a key called {key!r} is one of your own", hint, (key,)))
    if not findings and catalogue is not None:
        findings += _default_findings(settings, catalogue)
    return problems(findings, file=file, locator=Locator(text, "toml") if text is not None else None)


def _default_findings(settings: Mapping[str, Any], catalogue: Catalogue) -> Iterator[Finding]:
    params = {param.name for operation in catalogue.operations.values() for param in operation.params}
    defaults = settings.get("defaults", {})
    for key, value in defaults.items():
        path = ("defaults", key)
        if "." in key and key not in catalogue.operations:
            yield Finding("unknown-operation", f"no operation is called {key!r}", catalogue.nearest_hint(key), path)
        elif "." not in key and key not in params:
            hint = nearest_hint(key, params) or "see: provisioning operation show NAME"
            yield Finding("unknown-key", f"no operation has a param {key!r}", hint, path)
        elif "." in key:
            yield from _values(catalogue.operations[key], value, path)
    for operation in catalogue.operations.values():
        if operation.domain != "servers":  # what all have in common is told once
            continue
        common = {name: layer for name, layer in layers(settings, operation).items() if '"' not in layer.key}
        for name, layer in common.items():
            yield from _values(operation, {name: layer.value}, tuple(layer.key.split("."))[:-1])


def _values(operation: Operation, values: dict[str, Any], path: tuple[str, ...]) -> Iterator[Finding]:
    """What the operation's signature says against these values; that others are missing says nothing."""
    yield from (each for each in param_findings(operation, values, path) if "is missing" not in each.message)
