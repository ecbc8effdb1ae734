"""Operations as commands: `servers.create` is `provisioning server create`, built from its signature."""

from __future__ import annotations

from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, Verb, json_option
from provisioning.cli.operate import Asked, operate
from provisioning.cli.parameters import OperationParams
from provisioning.core.catalogue import Catalogue, Operation
from provisioning.views.text import safe, safe_block

EXITS = (0, 1, 2, 3, 5, 6, 7, 130)


def domain_group(domain: str, noun: str, catalogue: Catalogue) -> click.Group:
    """The noun of a domain, with a verb for each of its operations."""
    found = sorted(
        (operation for operation in catalogue.operations.values() if operation.domain == domain),
        key=lambda operation: operation.name,
    )
    group = Noun(noun, help=f"Operations of nulib's domain {domain}.", no_args_is_help=True)
    for operation in found:
        if operation.name == "servers.ssh":  # for a person at a terminal, and no task
            from provisioning.cli.login import ssh

            group.add_command(ssh)
        else:
            group.add_command(operation_command(operation))
    return group


def operation_command(operation: Operation) -> click.Command:
    """The command that does one operation."""
    params = OperationParams(operation, leave_out={operation.check} if operation.check else ())
    shared = [option for option in _options_of_all() if not set(option.opts) & params.option_names]
    defaults: dict[str, Any] = {option.name: option.default for option in _options_of_all() if option.name}

    @click.pass_context
    def callback(ctx: click.Context, /, **given: Any) -> None:
        values = params.values(given)
        asked = Asked(**{**defaults, **given})
        operate(ctx.ensure_object(Context), operation, values, asked)

    made = Verb(
        operation.verb,
        callback=callback,
        params=[*params.click_params, *shared],
        help=_help(operation, params),
        short_help=safe(operation.summary),
        exits=EXITS,
        no_args_is_help=False,
    )
    return made if "--json" in params.option_names else json_option(made)


def _options_of_all() -> list[click.Option]:
    return [
        click.Option(
            ["--orchestrated"], is_flag=True, default=False, help="Submit it, print the workflow_id and return."
        ),
        click.Option(["--wait"], is_flag=True, default=False, help="With --orchestrated: wait, and give the result."),
        click.Option(
            ["--max-wait"], type=click.FloatRange(min=0), default=None, metavar="SECONDS", help="Wait, so long at most."
        ),
        click.Option(["--check"], is_flag=True, default=False, help="Say what would be done, and do nothing."),
        click.Option(
            ["--priority"], type=click.IntRange(0, 100), default=50, metavar="0…100", help="Higher first (50)."
        ),
    ]


def _help(operation: Operation, params: OperationParams) -> str:
    """Summary, description and arguments; click lists the options itself."""
    parts = [safe(operation.summary) or f"Do {operation.name}."]
    if operation.description:
        parts.append(safe_block(operation.description))
    if params.described:
        width = max(len(name) for name, _ in params.described)
        lines = [f"  {name.ljust(width)}  {safe(param.description)}".rstrip() for name, param in params.described]
        parts.append("\b\n" + "\n".join(lines))
    if any(param.rest or param.schema.get("type") == "array" for _, param in params.described):
        parts.append("What follows -- is taken as it is, options of other programs included.")
    return "\n\n".join(parts)
