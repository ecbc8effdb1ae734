"""`provisioning operation`: what can be done here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import Invalid

if TYPE_CHECKING:
    from provisioning.core.catalogue import Operation


@click.group("operation", cls=Noun, no_args_is_help=True)
def operation() -> None:
    """List, show and check the operations of nulib."""


@operation.command("list", exits=(0, 2, 6))
@json_option
@pass_context
def list_(context: Context) -> None:
    """List all operations; those whose file has errors are told on stderr."""
    from provisioning.views.table import table
    from provisioning.views.text import safe_block

    catalogue = context.catalogue
    found = [catalogue.operations[name] for name in sorted(catalogue.operations)]
    if context.json:
        context.answer_json([_page(each) for each in found])
    else:
        context.answer(table([[each.name, each.summary] for each in found], width=context.width))
    for problem in catalogue.broken:
        context.say(safe_block(f"left out: {problem}"))


def _page(found: Operation) -> dict[str, Any]:
    import msgspec

    page: dict[str, Any] = msgspec.to_builtins(found)
    return {**page, "params_schema": found.params_schema(), "result_schema": found.result_schema}


@operation.command(exits=(0, 2, 4, 6))
@click.argument("name")
@json_option
@pass_context
def show(context: Context, name: str) -> None:
    """Show an operation's params, result and policies.

    \b
    Example:
      provisioning operation show servers.create
    """
    from provisioning.views.operation_text import operation_text

    found = context.catalogue.operation(name)
    if context.json:
        context.answer_json(_page(found))
    else:
        context.answer(operation_text(found, width=context.width))


@operation.command(exits=(0, 2, 3, 6))
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@json_option
@pass_context
def check(context: Context, folder: Path | None) -> None:
    """Check the operations of nulib, or of one more folder DIR laid over it.

    Finds syntax errors, commands that do not exist, params without a description, results without a type.
    """
    from provisioning.cli.ending import problem_json
    from provisioning.errors import NotFound
    from provisioning.execution.lint import lint
    from provisioning.execution.nushell import find_nu
    from provisioning.resources import data_dir

    if folder is not None and not folder.is_dir():
        raise NotFound(f"there is no folder {folder}", hint="give a folder that has <domain>/<verb>.nu")
    config = context.config
    nu = find_nu(config.paths.nu, search=config.search, cache_dir=config.paths.cache)
    own = [folder.absolute()] if folder else []
    problems = lint(nu, [*own, *config.paths.nulib, data_dir("nulib")])
    if context.json:
        context.answer_json({"ok": not problems, "problems": [problem_json(problem) for problem in problems]})
    if problems:
        raise Invalid(problems)
    if not context.json:
        context.answer("ok")
