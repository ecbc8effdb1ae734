"""`provisioning attempt`: what a cluster starts on a node."""

from __future__ import annotations

from pathlib import Path

import click

from provisioning.cli.groups import Verb


@click.command("attempt", cls=Verb, hidden=True, exits=(0, 1, 2, 4, 5, 6, 75))
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--probe", is_flag=True, help="Do not run anything: say what this node sees in DIR.")
def attempt(folder: Path, probe: bool) -> int:  # noqa: FBT001
    """Make the attempt whose order is in DIR, on a node of a cluster. Slurm calls it, nobody else need.

    DIR is in the shared directory that slurm.directory names. Whoever makes its claim runs the operation as a local
    worker does, and leaves log and outcome there; everyone else exits with 75. TERM ends the operation.
    """
    from provisioning.execution.remote import TAKEN, answer_probe, run_attempt

    if probe:
        answer_probe(folder)
        return 0
    code = run_attempt(folder.absolute())
    if code == TAKEN:
        click.echo(f"the attempt in {folder} is another's: nothing was done", err=True)
    return code
