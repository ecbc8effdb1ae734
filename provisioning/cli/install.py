"""`provisioning install` and `uninstall`: from one file to a host that works, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Verb, json_option, pass_context

if TYPE_CHECKING:
    from provisioning.host.install import Step

PREFIX = "/opt/provisioning"
SPOOL = "/var/spool/provisioning"

prefix_option = click.option(
    "--prefix", type=click.Path(path_type=Path), default=PREFIX, show_default=True, metavar="DIR", help="Install there."
)
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Lay everything down below DIR, for an image or a package; no user, no spool, no systemctl.",
)
check_option = click.option("--check", is_flag=True, help="Say what would be done, and do nothing.")


@click.command(cls=Verb, exits=(0, 2, 4, 5, 6))
@prefix_option
@click.option("--spool-dir", type=click.Path(path_type=Path), default=SPOOL, show_default=True, metavar="DIR",
              help="The spool to make, or to go on with.")  # fmt: skip
@click.option("--user", default="provisioning", show_default=True, help="Whose the spool is; made if it is not there.")
@click.option("--cron", is_flag=False, flag_value="root", metavar="[MAILTO]",
              help="Work the spool from cron, which mails what failed to MAILTO (root).")  # fmt: skip
@click.option("--start", is_flag=True, help="Also start the orchestrator, now and at each boot.")
@click.option("--local-servers", is_flag=True, help="Let the units make servers of the local provider.")
@root_option
@check_option
@json_option
@pass_context
def install(
    context: Context,
    prefix: Path,
    spool_dir: Path,
    user: str,
    cron: str | None,
    start: bool,  # noqa: FBT001
    local_servers: bool,  # noqa: FBT001
    root: Path | None,
    check: bool,  # noqa: FBT001
) -> None:
    """Install this program on this host, or upgrade what is installed; says each thing that it does.

    Lays the program down in a folder of its own beside older versions and leads a link to it; makes a user, a spool
    and a config file; places systemd units, completions, man page and logrotate file. What is there already is left,
    so that a second time does nothing. An orchestrator that systemd runs is restarted for a new version, and adopts
    the running tasks of the old one, whose folder stays until they have ended.

    \b
    Examples:
      sudo ./provisioning-0.1.0-linux-x86_64 install --check
      sudo ./provisioning-0.1.0-linux-x86_64 install --start
      sudo provisioning install --cron ops@example.org
    """
    from provisioning.cli.manual import generated
    from provisioning.host.install import other_versions, steps
    from provisioning.host.layout import Layout

    layout = Layout(
        prefix=prefix,
        spool=spool_dir,
        user=user,
        root=root.absolute() if root else None,
        cron=cron,
        local_servers=local_servers,
    )
    _take(context, steps(layout, generated(), start=start), check=check)
    for name in [] if check else other_versions(layout):
        context.say(f"note: the version {name} stays while processes of it run; the next install removes it")
    if not check and root is None:
        context.say(f"note: work the spool as its user: sudo -u {user} provisioning workflow list")


@click.command(cls=Verb, exits=(0, 2, 4, 5, 6))
@prefix_option
@root_option
@check_option
@json_option
@pass_context
def uninstall(context: Context, prefix: Path, root: Path | None, check: bool) -> None:  # noqa: FBT001
    """Remove what install laid down; says each thing that it does.

    Spool, config, credentials and user stay, and so does what was changed by hand since; it is named.
    """
    from provisioning.host.install import kept_by_hand, read_record, removal
    from provisioning.host.layout import Layout

    layout = Layout(prefix=prefix, root=root.absolute() if root else None)
    before = read_record(layout)
    changed = kept_by_hand(before) if before else []
    _take(context, removal(layout), check=check)
    for name in changed:
        context.say(f"note: {name} was changed by hand, and stays")
    if before and layout.root is None:
        context.say(f"note: the spool {before.spool}, /etc/provisioning and the user {before.user} stay")


def _take(context: Context, steps: Iterator[Step], *, check: bool) -> None:
    """Say each step, and do it unless they are only to be told."""
    told = []
    for step in steps:
        told.append(step.text)
        if not context.json:
            context.answer(("would " if check else "") + step.text)
        if not check:
            step.do()
    if context.json:
        context.answer_json({"steps": told, "done": not check})
    elif not told:
        context.answer("nothing to do: all is in place")
