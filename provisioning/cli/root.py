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
    import provisioning.cli.inspection
    import provisioning.cli.report  # noqa: F401 - both add verbs
    from provisioning.cli.workflow import workflow

    return workflow


def _orchestrator() -> click.Command:
    from provisioning.cli.orchestrator import orchestrator

    return orchestrator


def _operation() -> click.Command:
    from provisioning.cli.operation import operation

    return operation


def _infra() -> click.Command:
    from provisioning.cli.infra import infra

    return infra


def _spool() -> click.Command:
    from provisioning.cli.spool import spool

    return spool


def _bundle() -> click.Command:
    from provisioning.cli.report import bundles

    return bundles


def _manifest() -> click.Command:
    from provisioning.cli.manifest import manifest

    return manifest


def _authority() -> click.Command:
    from provisioning.cli.authority import authority

    return authority


def _audit() -> click.Command:
    from provisioning.cli.audit import audit

    return audit


def _completion() -> click.Command:
    from provisioning.cli.completion import completion

    return completion


def _manual() -> click.Command:
    from provisioning.cli.completion import manual

    return manual


def _serve() -> click.Command:
    from provisioning.cli.serve import serve

    return serve


def _install() -> click.Command:
    from provisioning.cli.install import install

    return install


def _uninstall() -> click.Command:
    from provisioning.cli.install import uninstall

    return uninstall


def _host() -> click.Command:
    from provisioning.cli.selftest import host

    return host


def _crash() -> click.Command:
    from provisioning.cli.selftest import crash

    return crash


def _attempt() -> click.Command:
    from provisioning.cli.attempt import attempt

    return attempt


NOUNS: dict[str, Callable[[], click.Command]] = {
    "batch": _batch,
    "manifest": _manifest,
    "workflow": _workflow,
    "orchestrator": _orchestrator,
    "infra": _infra,
    "operation": _operation,
    "spool": _spool,
    "bundle": _bundle,
    "authority": _authority,
    "audit": _audit,
    "serve": _serve,
    "install": _install,
    "uninstall": _uninstall,
    "completion": _completion,
    "manual": _manual,
}
OF_NODES = {"attempt": _attempt}
"""What nobody types: a cluster starts it."""
OF_THE_PROGRAM = {"selftest": {"host": _host, "crash": _crash}}
"""Verbs that stand beside those of a domain of nulib; the first is what the noun does alone."""
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


def _with_verbs(group: click.Group, verbs: dict[str, Callable[[], click.Command]]) -> click.Group:
    """The group with the program's own verbs, the first of which it does where none is given."""
    for verb, load in verbs.items():
        group.add_command(load(), verb)
    if verbs:
        first = next(iter(verbs))
        group.invoke_without_command, group.no_args_is_help = True, False

        @click.pass_context
        def alone(ctx: click.Context) -> Any:
            if ctx.invoked_subcommand is None:
                return ctx.invoke(group.commands[first])
            return None

        group.callback = alone
    return group


def _packed(rows: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """The rows, those of few verbs behind one another in a line: a screen has 24."""
    room = width - max(len(noun) for noun, _ in rows) - 4
    packed = rows[:1]
    for noun, verbs in rows[1:]:
        first, before = packed[-1]
        if len(joined := f"{before}; {noun} {verbs}") <= room:
            packed[-1] = (first, joined)
        else:
            packed.append((noun, verbs))
    return packed


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
        if name in OF_NODES:
            return OF_NODES[name]()
        own = OF_THE_PROGRAM.get(name, {})
        try:
            catalogue = ctx.ensure_object(Context).catalogue
            domain = next((domain for noun, domain in self._domains(ctx).items() if name in (noun, domain)), None)
        except ProvisioningError:
            if not own:
                raise
            return _with_verbs(Noun(name, help="Operations that try this installation are not available."), own)
        if domain is None:
            return None
        from provisioning.cli.operations import domain_group
        from provisioning.core.catalogue import singular

        return _with_verbs(domain_group(domain, singular(domain), catalogue), own)

    def _domains(self, ctx: click.Context) -> dict[str, str]:
        """Noun to domain, for all domains of the catalogue."""
        from provisioning.core.catalogue import singular

        domains = {operation.domain for operation in ctx.ensure_object(Context).catalogue.operations.values()}
        return {singular(domain): domain for domain in sorted(domains)}

    def unknown(self, ctx: click.Context, name: str) -> click.UsageError:
        from provisioning.core.catalogue import singular

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
            from provisioning.core.catalogue import singular

            operations = [row(singular(domain), verbs) for domain, verbs in by_domain.items()]
        except ProvisioningError as error:
            operations = [("not available", error.message)]
        workflows, alone = [], []
        for noun in NOUNS:
            command = self.get_command(ctx, noun)
            if isinstance(command, click.Group):
                workflows.append(row(noun, list(command.commands)))
            else:
                alone.append(noun)
        options = ["/".join(option.opts) for option in self.get_params(ctx) if isinstance(option, click.Option)]
        how = "help NOUN [VERB]; --json: JSON, errors included."
        rest = [("this host", " ".join(alone)), ("options", " ".join(options)), ("more", how)]
        with formatter.section("Operations"):
            formatter.write_dl(operations, col_max=20)
        with formatter.section("Workflows"):
            formatter.write_dl([*_packed(workflows, formatter.width), *rest], col_max=20)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands, with the options in a line of theirs: all is on one screen."""
        self.format_commands(ctx, formatter)


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
        no_args_is_help=True,
        subcommand_metavar="NOUN VERB [ARGS]…",
        context_settings=SETTINGS,
    )


root = _made()
