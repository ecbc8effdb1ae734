"""`provisioning completion` and `manual`: what a shell sources to complete commands, and the man page."""

from __future__ import annotations

import click

from provisioning.cli.groups import Verb

SHELLS = ["bash", "zsh", "fish", "nushell"]


@click.command(cls=Verb, exits=(0, 2))
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    Examples:
      eval "$(provisioning completion bash)"
      provisioning completion fish > ~/.config/fish/completions/provisioning.fish
      provisioning completion nushell | save -f ($nu.user-autoload-dirs.0 | path join provisioning.nu)
    """
    from provisioning.cli.manual import completion_script

    click.echo(completion_script(shell))


@click.command(cls=Verb, exits=(0, 2))
def manual() -> None:
    """Print the man page.

    \b
    Example:
      provisioning manual | man -l -
    """
    from provisioning.cli.manual import man_page

    click.echo(man_page(), nl=False)
