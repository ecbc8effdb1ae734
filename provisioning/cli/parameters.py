"""An operation's params as click options and arguments, and the words that were typed as JSON values."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

import click

from provisioning.core.catalogue import Operation, Param
from provisioning.execution.signature import NUSHELL_TYPE


class Number(click.ParamType[int | float]):
    """A finite number; a whole one stays whole."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        try:
            number = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        try:
            return int(value)
        except ValueError:
            return number


class _Null:
    """A null that was typed: click takes None for a word that was not."""


_NULL = _Null()


class Json(click.ParamType[Any]):
    """JSON text; where `or_text`, what is no JSON is a text."""

    name = "json"

    def __init__(self, *, or_text: bool) -> None:
        self.or_text = or_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            found = json.loads(value, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            if self.or_text:
                return value
            self.fail(f"{str(value)[:60]!r} is not JSON: {str(error)[:100]}", param, ctx)
        return _NULL if found is None else found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")


def value_type(schema: dict[str, Any]) -> click.ParamType[Any]:
    """The click type of one value."""
    choices = schema.get("enum")
    if choices and all(isinstance(choice, str) for choice in choices):
        return click.Choice(choices)
    match schema.get("type"):
        case "string":
            return click.STRING
        case "integer":
            return click.INT
        case "number":
            return Number()
        case "boolean":
            return click.BOOL
        case "object" | "array" | "null":
            return Json(or_text=False)
        case _:
            return Json(or_text=True)


def _metavar(schema: dict[str, Any]) -> str | None:
    if "enum" in schema:
        return None
    kind = schema.get("type")
    words = {"string": "text", "integer": "int", "boolean": "bool", "object": "json", "array": "json"}
    return str(schema.get(NUSHELL_TYPE) or words.get(kind or "", kind or "value")).upper()


class OperationParams:
    """The click parameters of an operation, and its params from what click made of the words."""

    def __init__(self, operation: Operation, *, leave_out: Collection[str] = ()) -> None:
        self.click_params: list[click.Parameter] = []
        self._names: dict[str, str] = {}
        self._secret = frozenset(operation.secret)
        many = [param for param in operation.params if param.positional and _is_list(param)]
        for number, param in enumerate(operation.params):
            if param.name in leave_out:
                continue
            key = f"param_{number}"
            self._names[key] = param.name
            rest = bool(many) and param is many[-1]
            self.click_params.append(_argument(param, key, rest=rest) if param.positional else _option(param, key))
        self.described = [(_shown(param), param) for param in operation.params if param.positional]

    @property
    def option_names(self) -> set[str]:
        """The flags that the operation itself has."""
        return {name for param in self.click_params for name in param.opts if name.startswith("-")}

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        """The params that were given; what was not takes its default when the plan is made. Ours leave `given`."""
        values = {}
        for key, name in self._names.items():
            value = given.pop(key)
            if value is None or value == ():
                continue
            values[name] = [_meant(each) for each in value] if isinstance(value, tuple) else _meant(value)
            if name in self._secret and isinstance(value, str):
                values[name] = {"credential": value}  # a command line is no place for the secret itself
        return values


def _meant(value: Any) -> Any:
    return None if value is _NULL else value


def _is_list(param: Param) -> bool:
    return param.rest or param.schema.get("type") == "array"


def _items(param: Param) -> dict[str, Any]:
    items = param.schema.get("items")
    return items if isinstance(items, dict) else {}


def _shown(param: Param) -> str:
    return param.name.replace("_", "-").upper()


def _argument(param: Param, key: str, *, rest: bool) -> click.Argument:
    if rest:
        return click.Argument(
            [key], nargs=-1, required=param.required, type=value_type(_items(param)), metavar=f"{_shown(param)}…"
        )
    name = _shown(param) if param.required else f"[{_shown(param)}]"
    return click.Argument([key], required=param.required, type=value_type(param.schema), metavar=name)


def _option(param: Param, key: str) -> click.Option:
    name = param.name.replace("_", "-")
    words = dict.fromkeys([f"--{name}", f"--{param.name}"])
    help_text = param.description
    if param.schema.get("type") == "boolean":
        on = param.default is True
        flags = "/".join([f"--{name}", f"--no-{name}"]) if on else " ".join(words)
        return click.Option([key, *(flags.split(" "))], is_flag=True, default=None, help=help_text)
    many = param.schema.get("type") == "array"
    if param.default not in (None, [], {}, ""):
        told = param.default if isinstance(param.default, str) else json.dumps(param.default)
        help_text = f"{help_text}  [default: {told}]"
    schema = _items(param) if many else param.schema
    return click.Option(
        [key, *words],
        type=value_type(schema),
        multiple=many,
        required=param.required,
        metavar=_metavar(schema),
        help=help_text + ("  (may be given several times)" if many else ""),
    )
