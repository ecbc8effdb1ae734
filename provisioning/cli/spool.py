"""`provisioning spool`: make and check the directory tree that holds everything."""

from __future__ import annotations

from pathlib import Path

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import SpoolUnusable


@click.group("spool", cls=Noun, no_args_is_help=True)
def spool() -> None:
    """Make and check a spool: the directory tree that holds all workflows."""


def _root(context: Context, folder: Path | None) -> Path:
    return folder.absolute() if folder else context.config.paths.spool


folder_argument = click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))


@spool.command(exits=(0, 2, 6))
@folder_argument
@json_option
@pass_context
def init(context: Context, folder: Path | None) -> None:
    """Make a spool at DIR, or where the config says; one that is there is completed, and nothing in it changed."""
    from provisioning.storage.spool import Spool

    made = Spool.create(_root(context, folder), network=context.config.disk.network)
    made.close()
    if context.json:
        context.answer_json({"spool": str(made.root)})
    else:
        context.answer(str(made.root))


@spool.command(exits=(0, 2, 6))
@folder_argument
@json_option
@pass_context
def check(context: Context, folder: Path | None) -> int:
    """Read everything in the spool, and name what is wrong; changes nothing."""
    from provisioning.cli.ending import answer_problems
    from provisioning.storage.check import check as look

    problems = look(_root(context, folder))
    answer_problems(context, "ok", problems)
    return SpoolUnusable.exit_code if problems else 0
