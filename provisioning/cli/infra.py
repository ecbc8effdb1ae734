"""`provisioning infra`: what is set for each infra, and where every param gets its value."""

from __future__ import annotations

from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context


@click.group("infra", cls=Noun, no_args_is_help=True)
def infra() -> None:
    """List, show and validate the settings of infras."""


@infra.command("list", exits=(0, 2))
@json_option
@pass_context
def list_(context: Context) -> None:
    """List all infras that have settings, and where these are."""
    from provisioning.errors import ProvisioningError
    from provisioning.execution.nulib import infra_folders
    from provisioning.infra import load, names
    from provisioning.views.table import table

    folders = infra_folders(context.config.paths.infra)
    rows: list[dict[str, Any]] = []
    for name, file in names(folders).items():
        try:
            document = load(folders, name).document
            described = {key: str(document.get(key, "")) for key in ("provider", "description")}
        except ProvisioningError as error:
            described = {"provider": "", "description": error.message}
        rows.append({"name": name, **described, "file": str(file)})
    if context.json:
        context.answer_json(rows)
    else:
        context.answer(table([list(row.values()) for row in rows], width=context.width))


@infra.command(exits=(0, 2, 3, 4, 6))
@click.argument("name")
@click.option("--explain", metavar="OPERATION", help="Show each param of OPERATION, its value and where that is said.")
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", help="With --explain: as if a task said it.")
@json_option
@pass_context
def show(context: Context, name: str, explain: str | None, given: tuple[str, ...]) -> None:
    """Show the settings of an infra.

    With --explain, what an operation is called with in it: what a task or a flag says counts before the infra's
    settings, and these before the operation's own default.

    \b
    Example:
      provisioning infra show example --explain servers.create --param plan=2xCPU-4GB
    """
    from provisioning.execution.nulib import infra_folders
    from provisioning.infra import load
    from provisioning.views.table import shown_value, table

    settings = load(infra_folders(context.config.paths.infra), name)
    if explain is None:
        if context.json:
            context.answer_json({"name": name, "file": str(settings.file or ""), "settings": settings.document})
        else:
            context.answer(shown_value(settings.document, width=context.width))
        return
    from provisioning.core.infra import explained

    operation = context.catalogue.operation(explain)
    rows = explained(settings.document, operation, {"infra": name, **_said(given)})
    if context.json:
        context.answer_json(rows)
    else:
        context.answer(table([[row["param"], _short(row["value"]), row["from"]] for row in rows], width=context.width))


def _said(given: tuple[str, ...]) -> dict[str, Any]:
    from provisioning.errors import UsageError

    said = {}
    for word in given:
        key, separator, value = word.partition("=")
        if not separator:
            raise UsageError(f"--param {word} has no value", hint="write --param NAME=VALUE")
        said[key] = value
    return said


def _short(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@infra.command(exits=(0, 2, 3, 4, 6))
@click.argument("name")
@json_option
@pass_context
def validate(context: Context, name: str) -> None:
    """Say whether the settings of an infra can be used, and everything that is wrong with them."""
    from provisioning.cli.ending import problem_json
    from provisioning.core.infra import settings_problems
    from provisioning.errors import Invalid
    from provisioning.execution.nulib import infra_folders
    from provisioning.infra import load
    from provisioning.resources import schema

    found = load(infra_folders(context.config.paths.infra), name)
    problems = settings_problems(
        found.document,
        schema=schema("infra"),
        catalogue=context.catalogue,
        file=str(found.file or ""),
        text=found.text if found.file else None,
    )
    if context.json:
        context.answer_json({"valid": not problems, "problems": [problem_json(problem) for problem in problems]})
    if problems:
        raise Invalid(problems)
    if not context.json:
        context.answer("ok")
