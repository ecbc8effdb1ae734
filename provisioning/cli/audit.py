"""`provisioning audit`: show the audit log, and verify that nothing in it was changed or taken out."""

from __future__ import annotations

from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import SpoolUnusable, UsageError

_OWN = ("n", "at", "event", "operator", "prev", "hash")


@click.group("audit", cls=Noun, no_args_is_help=True)
def audit() -> None:
    """Show and verify the audit log: who asked for what by which door, and what became of it."""


@audit.command(exits=(0, 2, 5, 6))
@click.option(
    "--head", metavar="N:HASH", help="A head known from elsewhere, such as the system's log: it must be there."
)
@json_option
@pass_context
def verify(context: Context, head: str | None) -> int:
    """Follow the chain from its first record to its head, and name each place where it does not hold.

    That the end was cut off is seen only from outside: with --head, or by the heads in the system's log.
    """
    from provisioning.storage.audit import Audit

    log = Audit(context.spool.root, context.config.audit)
    breaks, last, first = log.verify()
    texts = [f"{each.file}:{each.line}: {each.text}" for each in breaks]
    if head is not None:
        number, _, digest = head.partition(":")
        if not number.isdigit() or len(digest) != 64:
            raise UsageError(f"{head!r} is no head", hint="write it as in the system's log, N:HASH")
        if not any(record.get("n") == int(number) and record.get("hash") == digest for record in log.records()):
            texts.append(f"record {number} with hash {digest[:12]}… is not there: the log was cut off or replaced")
    if context.json:
        page = {"ok": not texts, "first": first, "head": {"n": last.n, "hash": last.hash}, "breaks": texts}
        context.answer_json(page)
    else:
        context.answer("\n".join(texts) or f"ok: records {first} to {last.n}, head {last.n}:{last.hash}")
    return SpoolUnusable.exit_code if texts else 0


@audit.command(exits=(0, 2, 5, 6))
@click.option("--last", type=click.IntRange(min=1), default=100, show_default=True, help="So many of the newest.")
@click.option("--operator", help="Of this operator only.")
@click.option("--workflow", "workflow_id", help="About this workflow only.")
@json_option
@pass_context
def show(context: Context, last: int, operator: str | None, workflow_id: str | None) -> None:
    """Show the newest records, oldest first."""
    from provisioning.storage.audit import Audit
    from provisioning.views.table import table
    from provisioning.views.text import compact

    wanted = operator is not None or workflow_id is not None
    records = list(Audit(context.spool.root, context.config.audit).records(newest=None if wanted else last))
    chosen = [each for each in records if _fits(each, operator, workflow_id)][-last:]
    if context.json:
        context.answer_json(chosen)
        return
    rows = [
        [
            str(each.get("n", "")),
            str(each.get("at", ""))[:19],
            str(each.get("event", "")),
            str(each.get("operator", "")),
            " ".join(f"{name}={compact(fact)}" for name, fact in each.items() if name not in _OWN),
        ]
        for each in chosen
    ]
    context.answer(table(rows, ("N", "AT", "EVENT", "OPERATOR", "FACTS")) if rows else "")


def _fits(record: dict[str, Any], operator: str | None, workflow_id: str | None) -> bool:
    by = operator is None or record.get("operator") == operator
    return by and (workflow_id is None or str(record.get("workflow_id", "")).startswith(workflow_id))
