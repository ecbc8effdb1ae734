"""`provisioning batch`: submit, validate and plan manifests."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import InvalidManifest, NotFound, Refused, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from provisioning.core.workflow import Workflow

file_argument = click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json"]),
    help="What FILE is, where its name does not end in .toml or .json.",
)

F = TypeVar("F", bound=Callable[..., Any])


def takes_manifest(callback: F) -> F:
    """What all verbs about a manifest take: FILE, --format and --json."""
    return file_argument(format_option(json_option(pass_context(callback))))  # type: ignore[return-value]


class Text(NamedTuple):
    """A manifest's bytes, what they are, and what messages call them."""

    data: bytes
    form: str
    name: str


@click.group("batch", cls=Noun, no_args_is_help=True)
def batch() -> None:
    """Submit, validate and plan manifests: many tasks in one workflow."""


@batch.command(exits=(0, 1, 2, 3, 4, 5, 6, 7, 130))
@file_argument
@format_option
@click.option("--at", metavar="INSTANT", help="Not before: 2026-12-01T02:00:00Z, '2026-12-01 02:00', 02:00, +90m.")
@click.option("--wait", is_flag=True, help="Wait until it has ended; progress on stderr.")
@click.option("--max-wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait, so long at most.")
@click.option("-q", "--quiet", is_flag=True, help="On stderr only what goes wrong: for cron.")
@json_option
@pass_context
def submit(
    context: Context,
    file: str,
    form: str | None,
    at: str | None,
    *,
    wait: bool,
    max_wait: float | None,
    quiet: bool,
) -> None:
    """Submit a manifest and print its workflow_id.

    FILE is TOML or JSON; - reads standard input. Either the whole manifest is accepted, or nothing, and all its
    problems are told at once. Who does not own the spool submits into their drop folder in it, with FILE.sig if there
    is one, and is answered by the receipt.

    \b
    Example:
      id=$(provisioning batch submit site.toml --wait)
    """
    from provisioning.storage.submission import submit as put_in

    text = read_manifest(context, file, form)
    if (folder := context.drop_folder) is not None:
        _drop(context, folder, text, at=at, wait=wait, max_wait=max_wait)
        return
    spool = context.spool  # a spool that cannot be used is said before anything about the manifest
    workflow_id = put_in(
        text.data,
        form=text.form,
        file=text.name,
        spool=spool,
        catalogue=context.catalogue,
        operator=context.operator,
        door="cli",
        limits=context.limits,
        sources=context.sources,
        not_before=_not_before(at) if at else None,
    )
    waits = wait or max_wait is not None
    if not (waits and context.json):  # first of all: whatever comes now, it is accepted
        _accepted(context, workflow_id)
    if not quiet:
        context.note_if_unworked()
    if not waits:
        return
    from provisioning.cli import following

    page = following.follow(context, workflow_id, None if quiet else sys.stderr, max_wait=max_wait)
    following.raise_unless_succeeded(context, page)
    if context.json:
        context.answer_json({"workflow_id": workflow_id, "state": page["state"], "counts": page["counts"]})


def _drop(context: Context, folder: Path, text: Text, *, at: str | None, wait: bool, max_wait: float | None) -> None:
    """Submit it into the own drop folder in another user's spool."""
    from provisioning.cli import dropping

    if at is not None:
        raise UsageError("--at is for the spool's own user", hint="write into the manifest: not_before = …")
    signature = read_manifest(context, f"{text.name}.sig", None).data if os.path.lexists(f"{text.name}.sig") else None
    dropped = dropping.Dropped(text.data, text.form, text.name, signature)
    dropping.submit(context, folder, dropped, wait=wait, max_wait=max_wait)


def _not_before(at: str) -> datetime:
    from provisioning.cli.inspection import instant_of
    from provisioning.clock import now

    return instant_of(at, now())


@batch.command(exits=(0, 2, 3, 4, 5, 6))
@click.argument("workflow_id", metavar="ID")
@click.option("--format", "form", type=click.Choice(["toml", "json"]), default="json", help="What to write.")
@pass_context
def rescue(context: Context, workflow_id: str, form: str) -> None:
    """Write a manifest of what is left of a workflow to standard output.

    What finished tasks returned stands in it where others refer to it: submitted here or on another host, it continues
    the work. Submitted twice, it is one workflow. What the workflow itself does from then on is done twice.

    \b
    Example:
      provisioning batch rescue 01jd > rest.json
    """
    from provisioning.orchestrator.rescue import rescue_manifest
    from provisioning.views.status import ENDED, find

    folder = find(context.spool, workflow_id)
    context.answer(rescue_manifest(folder, form).decode())
    checkpoint = folder.workflow()
    if checkpoint is not None and checkpoint.state not in ENDED:
        text = f"workflow {folder.workflow_id} is {checkpoint.state}: what it does from now on would be done twice"
        context.say(f"note: {text}; to end it: provisioning workflow cancel {folder.workflow_id}")


def _accepted(context: Context, workflow_id: str) -> None:
    if context.json:
        context.answer_json({"workflow_id": workflow_id})
    else:
        context.answer(workflow_id)


@batch.command(exits=(0, 2, 3, 4, 5, 6))
@takes_manifest
def validate(context: Context, file: str, form: str | None) -> None:
    """Say whether a manifest would be accepted, and everything that is wrong with it.

    \b
    Example:
      provisioning batch validate site.toml
    """
    from provisioning.cli.ending import problem_json

    try:
        workflow = read_workflow(context, file, form)
    except InvalidManifest as error:
        if context.json:
            problems = [problem_json(problem) for problem in error.problems]
            context.answer_json({"valid": False, "problems": problems})
        raise
    if context.json:
        context.answer_json({"valid": True, "name": workflow.name, "tasks": len(workflow.tasks), "problems": []})
    else:
        from provisioning.views.text import safe

        plural = "task" if len(workflow.tasks) == 1 else "tasks"
        context.answer(f"ok: {safe(workflow.name)}, {len(workflow.tasks)} {plural}")


@batch.command(exits=(0, 2, 3, 4, 5, 6, 130))
@takes_manifest
@click.option("--check", is_flag=True, help="Ask each operation that can say it what it would change now.")
def plan(context: Context, file: str, form: str | None, *, check: bool) -> None:
    """Show the waves and the critical path of a manifest, and submit nothing.

    With --check, operations that can say what they would change are asked, which contacts what they work on: by a
    workflow named NAME-check, which is worked here and changes nothing. One that cannot say it yet, as its server is
    not there for instance, is no error.

    \b
    Examples:
      provisioning batch plan site.toml
      provisioning batch plan site.toml --check
    """
    from provisioning.core.manifest import planned
    from provisioning.views.plan_text import plan_page, plan_text

    workflow = read_workflow(context, file, form)
    page = plan_page(planned(workflow, context.catalogue), context.catalogue)
    if check:
        from provisioning.cli.checking import checks

        told = checks(context, workflow)
        for task in page["tasks"]:
            task["check"] = told.get(task["task_id"])
    if context.json:
        context.answer_json(page)
    else:
        context.answer(plan_text(page, width=context.width))


def read_workflow(context: Context, file: str, form: str | None) -> Workflow:
    """The workflow that the file asks for, checked as for a submission."""
    return workflow_of(context, read_manifest(context, file, form))


def workflow_of(context: Context, text: Text) -> Workflow:
    """The workflow that a manifest's text asks for, checked as for a submission."""
    from provisioning.core import manifest
    from provisioning.resources import schema

    return manifest.read(
        text.data,
        form=text.form,
        file=text.name,
        schema=schema("manifest"),
        catalogue=context.catalogue,
        limits=context.limits,
        sources=context.sources,
    )


def read_manifest(context: Context, file: str, form: str | None) -> Text:
    """The bytes of FILE; one more than allowed at most, which the limits then refuse."""
    limit = context.limits.bytes + 1
    if file == "-":
        if form is None:
            raise UsageError("standard input has no name that says what it is", hint="add --format toml or json")
        return Text(sys.stdin.buffer.read(limit), form, "<stdin>")
    try:
        with open(file, "rb") as opened:
            if stat.S_ISDIR(os.fstat(opened.fileno()).st_mode):
                raise IsADirectoryError
            data = opened.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"there is no file {file}", hint="give the path of a manifest, or - for standard input"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a directory", hint="give the path of one manifest") from None
    except PermissionError:
        raise Refused(f"cannot read {file}: permission denied", hint="check its owner and mode") from None
    except OSError as error:
        raise Refused(f"cannot read {file}: {error.strerror}", hint="give the path of a manifest") from None
    ending = os.path.splitext(file)[1].lower()
    return Text(data, form or {".json": "json"}.get(ending, "toml"), file)
