"""`provisioning install` and `uninstall`: from one file to a host that works, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
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
@click.option("--user", help="Whose the spool is, made if it is not there (provisioning, or as installed before).")
@click.option("--operators", metavar="NAME,…", help="Make a drop folder for each, and print how to let them in.")
@click.option("--group", metavar="GROUP", help="The group whose members may reach their drop folders.")
@click.option("--cron", is_flag=False, flag_value="root", metavar="[MAILTO]",
              help="Work the spool from cron, which mails what failed to MAILTO (root).")  # fmt: skip
@click.option("--no-cron", is_flag=True, help="Work it from cron no longer.")
@click.option("--start", is_flag=True, help="Also start the orchestrator, now and at each boot.")
@click.option("--local-servers/--no-local-servers", default=None, help="Let the units make local servers, or not.")
@root_option
@check_option
@json_option
@pass_context
def install(
    context: Context,
    prefix: Path,
    user: str | None,
    operators: str | None,
    group: str | None,
    cron: str | None,
    start: bool,  # noqa: FBT001
    no_cron: bool,  # noqa: FBT001
    local_servers: bool | None,  # noqa: FBT001
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
      sudo ./provisioning-0.1.0-linux-x86_64 install --start --operators alice,bob
      sudo provisioning install --cron ops@example.org
    """
    from provisioning.cli.manual import generated
    from provisioning.host.install import other_versions, read_record, steps
    from provisioning.host.layout import Layout

    place = Layout(prefix=prefix, root=root.absolute() if root else None)
    before = read_record(place)
    if local_servers is None:
        local_servers = before is not None and before.local_servers
    layout = replace(
        place,
        spool=_spool(context, root),
        user=user or (before.user if before else place.user),
        operators=tuple(name for name in (operators or "").split(",") if name),
        group=group,
        cron=None if no_cron else cron or (before.cron if before else None),
        local_servers=local_servers,
    )
    _take(context, partial(steps, layout, generated(), start=start), check=check)
    for name in [] if check else other_versions(layout):
        context.say(f"note: the version {name} stays while processes of it run; the next install removes it")
    if not check and root is None:
        context.say(f"note: work the spool as its user: sudo -u {layout.user} provisioning workflow list")


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
    _take(context, partial(removal, layout), check=check)
    for name in changed:
        context.say(f"note: {name} was changed by hand, and stays")
    if before and layout.root is None:
        context.say(f"note: the spool {before.spool}, /etc/provisioning and the user {before.user} stay")


def _spool(context: Context, root: Path | None) -> Path:
    """The spool that a flag names, or this host's; that of an image is named by a flag, or where it is by default."""
    if root is None:
        return context.config.paths.spool
    return Path(context.flags.get("paths.spool") or SPOOL)


def _take(context: Context, plan: Callable[[], Iterator[Step]], *, check: bool) -> None:
    """Say each step, and do it unless they are only to be told."""
    list(plan())  # what is refused, is refused before anything is done
    told = []
    for step in plan():
        told.append(step.text)
        if not context.json:
            context.answer(("would " if check else "") + step.text)
        if not check and (answer := step.do()) and not context.json:
            context.answer("\n".join(f"    {line}".rstrip() for line in answer.splitlines()))
    if context.json:
        context.answer_json({"steps": told, "done": not check})
    elif not told:
        context.answer("nothing to do: all is in place")
