"""`provisioning spool`: make, check, repair, back up and restore the directory tree that holds everything."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioning.cli import doors
from provisioning.cli.context import Context, on_stdout
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import Problem, SpoolUnusable, UsageError

if TYPE_CHECKING:
    from provisioning.storage.backup import Copied


@click.group("spool", cls=Noun, no_args_is_help=True)
def spool() -> None:
    """Make, check, repair, back up and restore a spool: the directory tree that holds all workflows."""


def _root(context: Context, folder: Path | None) -> Path:
    return folder.absolute() if folder else context.config.paths.spool


folder_argument = click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path))


@spool.command(exits=(0, 2, 4, 5, 6))
@folder_argument
@click.option("--operators", metavar="NAME,…", help="Make a drop folder for each, and print how to let them in.")
@click.option("--group", metavar="GROUP", help="The group whose members may reach their drop folders.")
@json_option
@pass_context
def init(context: Context, folder: Path | None, operators: str | None, group: str | None) -> None:
    """Make a spool at DIR, or where the config says; one that is there is completed, and nothing in it changed.

    With --operators, which can be given later too, others may submit: what is printed belongs into sshd_config and
    authorized_keys.
    """
    from provisioning.storage.spool import Spool

    root = _root(context, folder)
    theirs = operators is not None and root.is_dir() and os.geteuid() == 0 and os.stat(root).st_uid != 0
    if not theirs:  # root may open the doors of a spool that another user works
        Spool.create(root, network=context.config.disk.network).close()
    if operators is not None:
        doors.open_doors(context, root, [name for name in operators.split(",") if name], group)
    elif context.json:
        context.answer_json({"spool": str(root)})
    else:
        context.answer(str(root))


@spool.command(exits=(0, 2, 6))
@folder_argument
@click.option("--repair", is_flag=True, help="Repair what can be repaired; nothing is deleted.")
@json_option
@pass_context
def check(context: Context, folder: Path | None, *, repair: bool) -> int:
    """Read everything in the spool, and name what is wrong.

    With --repair, what is in the way is moved into rejected/, and checkpoints are rebuilt from outcomes and logs.
    Workflows that somebody holds are left, and so is what only a person can decide.
    """
    from provisioning.cli.ending import answer_problems, problem_json
    from provisioning.storage.check import check as look

    root = _root(context, folder)
    if not repair:
        problems = look(root)
        answer_problems(context, "ok", problems)
        _say_how_to_repair(context, folder, problems)
        return SpoolUnusable.exit_code if problems else 0
    from provisioning.storage.repair import repair as run
    from provisioning.views.text import safe

    account = run(root)
    problems = look(root)
    if context.json:
        repairs = [{"done": one.done, "code": one.code, "file": one.file, "text": one.text} for one in account]
        found = [problem_json(each) for each in problems]
        context.answer_json({"ok": not problems, "repairs": repairs, "problems": found})
    else:
        for one in account:
            context.say(safe(f"{'repaired' if one.done else 'left'} {one.file} ({one.code}): {one.text}"))
        answer_problems(context, "ok", problems)
    return SpoolUnusable.exit_code if problems else 0


@spool.command(exits=(0, 2, 4, 5, 6))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
@pass_context
def backup(context: Context, file: Path, *, force: bool) -> None:
    """Copy the spool into the tar file FILE, while it is being worked; `-` is stdout.

    It is packed where FILE ends in .gz or .tgz. Scratch folders, locks and the orchestrator's own log stay behind.
    What is damaged is copied as it is, and named.
    """
    from provisioning.storage.backup import back_up, back_up_to

    if str(file) != "-":
        copied = back_up_to(context.spool, file.absolute(), replace=force)
        if context.json:
            page = {"backup": str(file), **_counts(copied), "left_out": list(copied.left_out)}
            context.answer_json({**page, "damaged": list(copied.damaged)})
        else:
            context.say(_told("backed up", copied))
            context.answer(str(file))
        return
    if context.json or sys.stdout.isatty():
        raise UsageError("stdout carries the backup", hint="name a file, or pipe it on without --json")
    with on_stdout():
        copied = back_up(context.spool, sys.stdout.buffer, compress=False)
    context.answered = True
    context.say(_told("backed up", copied))


@spool.command(exits=(0, 2, 4, 5, 6))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@folder_argument
@json_option
@pass_context
def restore(context: Context, file: Path, folder: Path | None) -> None:
    """Make a spool of the backup FILE (`-` is stdin) at DIR, or where the config says; nothing may be there yet.

    What was damaged in the original is damaged in the copy: it is named, and the spool is made all the same.
    The copy knows nothing of what the original did after the backup: stop the original before you work the copy.
    """
    from provisioning.cli.ending import problem_json, problem_text
    from provisioning.storage.check import check as look
    from provisioning.storage.outside import reading_outside
    from provisioning.storage.restore import restore as make

    root = _root(context, folder)
    with reading_outside(file, "backup") as stream:
        copied = make(stream, str(file), root, network=context.config.disk.network)
    problems = look(root)
    if context.json:
        found = [problem_json(problem) for problem in problems]
        context.answer_json({"spool": str(root), **_counts(copied), "problems": found})
    else:
        context.say(_told("restored", copied))
        for problem in problems:
            context.say(problem_text(problem))
        _say_how_to_repair(context, root, problems)
        context.say("stop the original before you work this copy: it does not know what the original did since")
        context.answer(str(root))


def _say_how_to_repair(context: Context, folder: Path | None, problems: list[Problem]) -> None:
    from provisioning.storage.aside import FOR_PERSONS
    from provisioning.views.text import safe

    if not context.json and any(problem.code not in FOR_PERSONS for problem in problems):
        named = f" {shlex.quote(str(folder))}" if folder else ""
        context.say(safe(f"repair what can be repaired: provisioning spool check --repair{named}"))


def _told(deed: str, copied: Copied) -> str:
    from provisioning.views.text import safe

    counted = ", ".join(f"{count} {state}" for state, count in copied.workflows.items()) or "none"
    lines = [f"{deed} workflows: {counted}; {copied.interrupted} running tasks count as interrupted"]
    lines += [f"left out, as it is no file of the format: {safe(name)}" for name in copied.left_out]
    lines += [f"damaged, here and in the copy: {safe(name)}" for name in copied.damaged]
    if copied.damaged:
        lines.append("see: provisioning spool check")
    return "\n".join(lines)


def _counts(copied: Copied) -> dict[str, Any]:
    return {"workflows": copied.workflows, "interrupted": copied.interrupted}


spool.add_command(doors.receive)
spool.add_command(doors.status)
