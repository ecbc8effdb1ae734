"""The doors of a spool: `spool receive` and `spool status`, and how they are opened for others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Verb, json_option, pass_context
from provisioning.errors import UsageError


def open_doors(context: Context, root: Path, names: Sequence[str], group: str | None) -> None:
    """Make the drop folders, and answer with the lines that let their operators in."""
    from provisioning.storage.doors import add_operators
    from provisioning.views.drop_text import doors_text

    made = add_operators(root, names, group)
    if context.json:
        folders = {each.name: str(each.folder) if each.folder else None for each in made}
        context.answer_json({"spool": str(root), "operators": folders})
        return
    for each in made:
        if each.folder is None:
            context.say(f"note: this host has no user {each.name}: no drop folder; by key alone, see below")
    context.answer(doors_text(root, made, group, str(Path(sys.argv[0]).absolute())))


@click.command(cls=Verb, exits=(0, 2, 3, 5, 6))
@click.option("--as", "operator", required=True, metavar="OPERATOR", help="Who it is that speaks: whose key it was.")
@pass_context
def receive(context: Context, operator: str) -> None:
    """Take a manifest or a request on stdin, and answer with its receipt on stdout: for a forced command.

    It must be sealed, or carry its signature behind it. Nothing but stdin is looked at: no argument, no variable.

    \b
    Example, in authorized_keys of the user who works the spool:
      restrict,command="provisioning spool receive --as alice" ssh-ed25519 AAAA… alice
    """
    from provisioning.core.drop import OPERATOR
    from provisioning.core.refusing import raise_if_rejected
    from provisioning.orchestrator.oversight import Oversight
    from provisioning.orchestrator.receiving import Receiver

    if not OPERATOR.match(operator):
        raise UsageError(f"{operator!r} cannot be an operator", hint="lower-case letters, digits, '_' and '-'")
    context.json = True  # whatever happens, the other side reads JSON
    gate = context.spool.gate
    oversight = gate if isinstance(gate, Oversight) else Oversight(context.spool, context.config)
    oversight.trust.refuse_unsafe()
    data = sys.stdin.buffer.read(context.config.drop.max_bytes + (1 << 16) + 1)
    receiver = Receiver(context.spool, context.config, oversight, operator)
    with contextlib.closing(receiver):
        receipt = receiver.receive(data, lambda: context.nulib)
    from msgspec import to_builtins

    context.answer_json(to_builtins(receipt))
    raise_if_rejected(receipt, receipt.name)


@click.command(cls=Verb, exits=(0, 2, 5, 6))
@json_option
@pass_context
def status(context: Context) -> None:
    """Show how much of what is in the spool, and what lies in the drop folders and why it waits."""
    from provisioning.views.drop_text import spool_text

    page = spool_page(context)
    if context.json:
        context.answer_json(page)
    else:
        context.answer(spool_text(page, width=context.width))


def spool_page(context: Context) -> dict[str, Any]:
    """What `spool status` answers."""
    from provisioning.orchestrator.candidates import standing
    from provisioning.storage import drop, reading

    spool = context.spool
    operators, left_alone = standing(spool, context.config.drop)
    record = spool.running_orchestrator()
    return {
        "spool": str(spool.root),
        "orchestrator": record.process.pid if record else None,
        "counts": {
            "taken over, not decided": len(drop.takings(spool)),
            "incoming": len(spool.incoming_ids()),
            "workflows": len(spool.claimed_ids()),
            "rejected": len(reading.list_names(spool.rejected)),
            "requests": len([name for name in reading.list_names(spool.requests) if name.endswith(".json")]),
            "receipts owed": len(reading.list_names(spool.receipts)),
        },
        "operators": operators,
        "left_alone": left_alone,
    }
