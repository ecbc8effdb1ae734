"""The man page and the completions, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
from click.shell_completion import get_completion_class

from provisioning import __version__
from provisioning.cli.ending import CODES
from provisioning.cli.root import NOUNS, root
from provisioning.cli.shells import VARIABLE

SHELLS = {
    "bash": "bash-completion/completions/provisioning",
    "zsh": "zsh/site-functions/_provisioning",
    "fish": "fish/vendor_completions.d/provisioning.fish",
    "nushell": "nushell/vendor/autoload/provisioning.nu",
}
"""Each shell, and where below /usr/local/share it looks for completions."""


def completion_script(shell: str) -> str:
    """What the shell sources."""
    found = get_completion_class(shell)
    assert found is not None
    return found(root, {}, "provisioning", VARIABLE).source()


def generated() -> dict[str, str]:
    """Completions and man page, by their paths below /usr/local/share."""
    return {path: completion_script(shell) for shell, path in SHELLS.items()} | {
        "man/man1/provisioning.1": man_page(),
    }


def man_page() -> str:
    """provisioning(1) in roff: every noun and verb of the program, options, exit codes, files and variables."""
    lines = [
        f'.TH PROVISIONING 1 "" "provisioning {__version__}" "User Commands"',
        ".SH NAME",
        r"provisioning \- durable workflows of infrastructure operations",
        ".SH SYNOPSIS",
        ".B provisioning",
        r"[\fIOPTION\fR]... \fINOUN\fR \fIVERB\fR [\fIARG\fR]...",
        ".SH DESCRIPTION",
        _roff(root.help or ""),
        ".PP",
        _roff("Each operation is a verb as well, such as: provisioning server create NAME. See: provisioning operation "
              "list. help works both ways: provisioning help NOUN, provisioning NOUN help."),
        ".SH OPTIONS",
        *_options(root, click.Context(root, info_name="provisioning")),
        ".SH COMMANDS",
    ]  # fmt: skip
    for noun, load in NOUNS.items():
        lines += _command(load(), noun)
    lines += [".SH EXIT STATUS"]
    for code, meaning in CODES.items():
        lines += [".TP", rf".B {code}", _roff(meaning)]
    lines += [".SH ENVIRONMENT"]
    for name, meaning in VARIABLES.items():
        lines += [".TP", rf".B {name}", _roff(meaning)]
    lines += [".SH FILES"]
    for name, meaning in FILES.items():
        lines += [".TP", rf".I {name}", _roff(meaning)]
    return "\n".join(lines) + "\n"


VARIABLES = {
    "PROVISIONING_SPOOL": "The spool to use; --spool wins.",
    "PROVISIONING_CONFIG": "The config file to read; --config wins.",
    "PROVISIONING_NU": "The Nushell to use.",
    "PROVISIONING_NULIB": "Folders of operations, with : between them, laid over the built-in ones.",
    "PROVISIONING_CACHE": "Where the one-file program unpacks itself, and where catalogues are kept.",
    "PROVISIONING_<SECTION>_<KEY>": "Any key of the config file.",
    "NO_COLOR": "No colours.",
}
FILES = {
    "/etc/provisioning/config.toml": "Settings, for root; for others $XDG_CONFIG_HOME/provisioning/config.toml.",
    "/var/spool/provisioning": "The spool, for root; for others $XDG_STATE_HOME/provisioning/spool.",
    "/var/cache/provisioning": "What is made anew where it is missing; for others $XDG_CACHE_HOME/provisioning.",
    "/usr/local/lib/provisioning": "Operations of this host.",
}


def _command(command: click.Command, path: str) -> Iterator[str]:
    """A noun's verbs, or one verb: how it is typed, what it does, what it takes."""
    ctx = click.Context(command, info_name=path)
    if isinstance(command, click.Group):
        yield f".SS {path}"
        yield _roff(command.help or "")
        for name in command.list_commands(ctx):
            verb = command.get_command(ctx, name)
            if verb is not None and not verb.hidden:
                yield from _command(verb, f"{path} {name}")
        return
    yield ".TP"
    yield rf"\fB{path}\fR " + _roff(" ".join(command.collect_usage_pieces(ctx)))
    yield from _paragraphs(command.help or "")
    yield ".RS"
    yield from _options(command, ctx)
    yield ".RE"


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None:
            yield ".TP"
            yield rf"\fB{_roff(record[0])}\fR"
            yield _roff(record[1])


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of help text; one that begins with \\b is kept as it is typed."""
    for index, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if index:
            yield ".IP"
        if paragraph.startswith("\b"):
            yield from (".nf", *(_roff(line) for line in paragraph.splitlines()[1:]), ".fi")
        else:
            yield _roff(" ".join(paragraph.split()))


def _roff(text: str) -> str:
    """Text in which nothing is a request of roff."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", escaped)
