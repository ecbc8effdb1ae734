"""The `provisioning` command: finds nouns, those of the program at once and those of nulib in the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import provisioning
from provisioning.cli.context import Context
from provisioning.cli.ending import BROKEN_PIPE, drop_stdout
from provisioning.cli.groups import SETTINGS, Noun, global_options, help_verb
from provisioning.errors import ProvisioningError


def _batch() -> click.Command:
    from provisioning.cli.batch import batch

    return batch


def _workflow() -> click.Command:
    from provisioning.cli.workflow import workflow

    return workflow


def _orchestrator() -> click.Command:
    from provisioning.cli.orchestrator import orchestrator

    return orchestrator


def _operation() -> click.Command:
    from provisioning.cli.operation import operation

    return operation


def _spool() -> click.Command:
    from provisioning.cli.spool import spool

    return spool


def _completion() -> click.Command:
    from provisioning.cli.completion import completion

    return completion


def _crash() -> click.Command:
    from provisioning.cli.selftest import crash

    return crash


NOUNS: dict[str, Callable[[], click.Command]] = {
    "batch": _batch,
    "workflow": _workflow,
    "orchestrator": _orchestrator,
    "operation": _operation,
    "spool": _spool,
    "completion": _completion,
}
OF_THE_PROGRAM = {"selftest": {"crash": _crash}}
"""Verbs that stand beside those of a domain of nulib."""
ALIASES = {
    "s": "server",
    "t": "taskserv",
    "cl": "cluster",
    "i": "infra",
    "bat": "batch",
    "wf": "workflow",
    "orch": "orchestrator",
    "op": "operation",
}


def singular(domain: str) -> str:
    """The noun of a domain of nulib: `servers` is `server`, `selftest` is itself."""
    return domain[:-1] if domain.endswith("s") and not domain.endswith("ss") else domain


class Root(Noun):
    """All nouns. One of the program is found without reading the catalogue."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; where its reader has gone there is nobody to tell."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            drop_stdout()
            raise click.exceptions.Exit(BROKEN_PIPE) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self._domains(ctx), *NOUNS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "help":
            return help_verb(self)
        name = ALIASES.get(cmd_name, cmd_name)
        if name in NOUNS:
            return NOUNS[name]()
        domain = next((domain for noun, domain in self._domains(ctx).items() if name in (noun, domain)), None)
        if domain is None:
            return None
        from provisioning.cli.operations import domain_group

        group = domain_group(domain, singular(domain), ctx.ensure_object(Context).catalogue)
        for verb, load in OF_THE_PROGRAM.get(domain, {}).items():
            group.add_command(load(), verb)
        return group

    def _domains(self, ctx: click.Context) -> dict[str, str]:
        """Noun to domain, for all domains of the catalogue."""
        domains = {operation.domain for operation in ctx.ensure_object(Context).catalogue.operations.values()}
        return {singular(domain): domain for domain in sorted(domains)}

    def unknown(self, ctx: click.Context, name: str) -> click.UsageError:
        broken = sorted({problem.field for problem in ctx.ensure_object(Context).catalogue.broken if problem.field})
        damaged = [field for field in broken if name in (field.split(".")[0], singular(field.split(".")[0]))]
        if damaged:
            told = f"{damaged[0]} has errors; see: provisioning operation check"
        else:
            import difflib  # only for those who mistype

            known = self.list_commands(ctx)
            aliases = [alias for alias, noun in ALIASES.items() if noun in known]
            near = difflib.get_close_matches(name, [*known, *aliases], n=3)
            told = f"did you mean {' or '.join(near)}?" if near else "see: provisioning --help"
        return click.UsageError(f"there is no noun {name!r}: {told}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """All nouns with their verbs: the whole program on one screen."""
        shown = {noun: alias for alias, noun in ALIASES.items()}

        def row(noun: str, verbs: list[str]) -> tuple[str, str]:
            return (f"{noun} ({shown[noun]})" if noun in shown else noun), " ".join(verbs)

        try:
            catalogue = ctx.ensure_object(Context).catalogue
            by_domain: dict[str, list[str]] = {}
            for operation in sorted(catalogue.operations.values(), key=lambda each: each.name):
                by_domain.setdefault(operation.domain, []).append(operation.verb)
            for domain, more in OF_THE_PROGRAM.items():
                by_domain.setdefault(domain, []).extend(more)
            operations = [row(singular(domain), verbs) for domain, verbs in by_domain.items()]
        except ProvisioningError as error:
            operations = [("not available", error.message)]
        workflows = []
        for noun in NOUNS:
            command = self.get_command(ctx, noun)
            assert command is not None
            verbs = list(command.commands) if isinstance(command, click.Group) else [command.get_short_help_str(60)]
            workflows.append(row(noun, verbs))
        with formatter.section("Operations"):
            formatter.write_dl(operations)
        with formatter.section("Workflows"):
            formatter.write_dl(workflows)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's own shape
    if value and not ctx.resilient_parsing:
        click.echo(f"provisioning {provisioning.__version__}")
        ctx.exit()


def _made() -> Root:
    options: list[click.Parameter] = [
        *global_options(hidden=False),
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
        ),
    ]
    return Root(
        "provisioning",
        params=options,
        help="Runs infrastructure operations written in Nushell as durable workflows.",
        epilog="provisioning help NOUN [VERB] tells more. --json answers in JSON, errors included, wherever there is "
        "something to show.",
        no_args_is_help=True,
        subcommand_metavar="NOUN VERB [ARGS]…",
        context_settings=SETTINGS,
    )


root = _made()
