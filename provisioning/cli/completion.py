"""`provisioning completion`: what a shell sources to complete commands."""

from __future__ import annotations

import click

from provisioning.cli.groups import Verb

SHELLS = ["bash", "zsh", "fish"]


@click.command(cls=Verb, exits=(0, 2))
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    Examples:
      eval "$(provisioning completion bash)"
      provisioning completion fish > ~/.config/fish/completions/provisioning.fish
    """
    from click.shell_completion import get_completion_class

    from provisioning.cli.root import root

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root, {}, "provisioning", "_PROVISIONING_COMPLETE").source())
