"""Nouns and verbs as click knows them: aliases, `help` as a verb, global flags behind the verb, exit codes in help."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from provisioning.cli.context import Context
from provisioning.cli.ending import CODES

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

pass_context = click.make_pass_decorator(Context)
F = TypeVar("F", bound=Callable[..., Any])


def _flag(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def take(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        ctx.ensure_object(Context).set_flag(name, value)

    return take


def _debug(ctx: click.Context, _: click.Parameter, value: Any) -> None:
    if value:
        ctx.ensure_object(Context).debug = True


def _json(ctx: click.Context, _: click.Parameter, value: Any) -> None:
    if value:
        ctx.ensure_object(Context).json = True


def global_options(*, hidden: bool) -> list[click.Option]:
    """The flags that every command takes, before the noun or behind the verb."""
    folder = click.Path(file_okay=False, resolve_path=False)
    return [
        click.Option(
            ["--spool"],
            type=folder,
            metavar="DIR",
            help="The spool to use.",
            callback=_flag("paths.spool"),
            expose_value=False,
            hidden=hidden,
        ),
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="The config file to use.",
            callback=_flag("config"),
            expose_value=False,
            hidden=hidden,
            is_eager=True,
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            help="Show tracebacks.",
            callback=_debug,
            expose_value=False,
            hidden=hidden,
            is_eager=True,
        ),
    ]


def json_option(command: F) -> F:
    """`--json`: the answer as JSON."""
    option = click.option(
        "--json",
        is_flag=True,
        help="Answer in JSON.",
        callback=_json,
        expose_value=False,
        is_eager=True,
    )
    return option(command)


class Verb(click.Command):
    """A command that does one thing. `exits` are the exit codes that its help lists."""

    def __init__(self, *args: Any, exits: Iterable[int] = (0, 2), **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)
        self.exits = tuple(exits)
        taken = {name for param in self.params for name in param.opts}
        self.params += [option for option in global_options(hidden=True) if not taken & set(option.opts)]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_epilog(ctx, formatter)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), CODES[code]) for code in self.exits])


class Noun(click.Group):
    """A noun with its verbs; `help` is one of them."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", SETTINGS)
        super().__init__(*args, **kwargs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        return help_verb(self) if found is None and cmd_name == "help" else found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            raise self.unknown(ctx, args[0])
        return super().resolve_command(ctx, args)

    def unknown(self, ctx: click.Context, name: str) -> click.UsageError:
        """What to say of a verb that is none."""
        known = self.list_commands(ctx)
        import difflib  # only for those who mistype

        near = difflib.get_close_matches(name, known, n=3)
        told = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
        return click.UsageError(f"{ctx.command_path} has no {name!r}: {told}", ctx)


def help_verb(group: click.Group) -> click.Command:
    """`help [NAME]…` within a group: the same text as `--help` of what is named."""

    @click.command("help", hidden=True, context_settings={"ignore_unknown_options": True, **SETTINGS})
    @click.argument("names", nargs=-1)
    @click.pass_context
    def show(ctx: click.Context, names: tuple[str, ...]) -> None:
        """Show the help of a noun or a verb."""
        assert ctx.parent is not None
        at: click.Context = ctx.parent
        command: click.Command = group
        for name in names:
            found = command.get_command(at, name) if isinstance(command, click.Group) else None
            if found is None:
                if isinstance(command, Noun):
                    raise command.unknown(at, name)
                raise click.UsageError(f"{at.command_path} has nothing below it", at)
            command = found
            at = click.Context(found, parent=at, info_name=found.name, **found.context_settings)
        click.echo(command.get_help(at))

    return show
