"""`provisioning workflow report` and `bundle`: all about one workflow in a file, to be read or to be looked into."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioning.cli.context import Context, on_stdout
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.cli.workflow import SEEN, id_argument, workflow
from provisioning.errors import SpoolUnusable, UsageError

if TYPE_CHECKING:
    from provisioning.storage.checkpoint import WorkflowFolder

FORMS = {".html": "html", ".htm": "html", ".json": "json", ".md": "markdown", ".markdown": "markdown"}


@workflow.command(exits=(*SEEN, 5))
@id_argument
@click.option("--format", "form", type=click.Choice(["html", "json", "markdown"]), help="html, or as FILE is called.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="stdout otherwise.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
@pass_context
def report(context: Context, workflow_id: str, form: str | None, output: Path | None, *, force: bool) -> None:
    """Write down all about a workflow: graph, timeline, tasks, failures with the ends of their logs, and the manifest.

    The HTML is one file that needs no network and no script, and can be printed. Secrets that have names are not in
    it, nor params called password, secret, token, api_key, private_key and the like. Others cannot be known: a password
    in an argv, or in what a task printed, is in it.

    \b
    Example:
      provisioning workflow report 01jd -o nightly.html
    """
    from provisioning.clock import now
    from provisioning.storage.outside import write_outside
    from provisioning.views.report import report_json, report_of
    from provisioning.views.report_html import report_html
    from provisioning.views.report_markdown import report_markdown
    from provisioning.views.status import find
    from provisioning.views.text import pretty_json

    if context.json and form not in (None, "json"):
        raise UsageError(f"--json and --format {form} do not go together", hint="leave one of them out")
    form = "json" if context.json else form or _form_of(output)
    if output is None and sys.stdout.isatty() and form == "html":
        raise UsageError("stdout would carry the HTML", hint="name a file with -o, or pipe it on")
    folder = find(context.spool, workflow_id)
    made = report_of(folder, now(), secrets_of(context, folder))
    if form == "json":
        text = pretty_json(report_json(made)) + "\n"
    else:
        text = report_html(made) if form == "html" else report_markdown(made)
    if output is None:
        context.answered = True
        with on_stdout():
            sys.stdout.write(text)
            sys.stdout.flush()
        return
    write_outside(context.spool, output.absolute(), text.encode("utf-8", "backslashreplace"), replace=force)
    context.answer(str(output))


def _form_of(output: Path | None) -> str:
    """The form that a file's ending names; HTML where it has none."""
    ending = output.suffix.lower() if output else ""
    if ending and ending not in FORMS:
        hint = f"call it {', '.join(FORMS)}, or say which: --format html"
        raise UsageError(f"no report has the ending {ending!r}", hint=hint)
    return FORMS.get(ending, "html")


def secrets_of(context: Context, folder: WorkflowFolder) -> dict[str, str]:
    """The secrets that a workflow's tasks use, as far as this user may read them: they are looked for and taken out."""
    from provisioning.core.redacted import credentials_of
    from provisioning.execution.credentials import readable

    return readable(credentials_of(folder.plan()), context.config.paths.credentials)


@workflow.command(exits=(*SEEN, 5))
@id_argument
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="provisioning-ID.tgz otherwise.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@json_option
@pass_context
def bundle(context: Context, workflow_id: str, output: Path | None, *, force: bool) -> None:
    """Pack all that the spool has of a workflow into a tar file, for whoever is to help.

    Secrets that have names are taken out, and params called password, secret, token, api_key, private_key and the like.
    Others cannot be known: a password in an argv, or in what a task printed, is in it.

    In it: manifest, plan, checkpoints, outcomes, events, the ends of logs, its records of the audit log, versions, and
    a digest of each. The same state gives the same file. Check one with: provisioning bundle verify FILE

    \b
    Example:
      provisioning workflow bundle 01jd -o for-support.tgz
    """
    from provisioning.storage.bundle import bundle as make
    from provisioning.storage.outside import writing_outside
    from provisioning.views.status import find
    from provisioning.views.text import safe

    folder = find(context.spool, workflow_id)
    path = (output or Path(f"provisioning-{folder.workflow_id}.tgz")).absolute()
    with writing_outside(context.spool, path, "bundle", replace=force) as out:
        made = make(
            context.spool,
            folder.workflow_id,
            out,
            compress=path.suffix in (".gz", ".tgz"),
            secrets=secrets_of(context, folder),
            about=_versions(context),
        )
    for name in made.left_out:
        context.say(f"left out, as it is no file of the format: {safe(name)}")
    for name in made.redacted:
        context.say(f"a secret was taken out of {safe(name)}")
    if context.json:
        context.answer_json({"bundle": str(path), **made._asdict()})
    else:
        context.say(f"{made.members} files; digest {made.digest}")
        context.answer(str(path))


def _versions(context: Context) -> dict[str, Any]:
    """What is at work here: for who wants to see the same elsewhere."""
    import platform

    from provisioning import __version__
    from provisioning.core.workflow import FORMAT
    from provisioning.errors import ProvisioningError

    try:
        nushell = ".".join(map(str, context.nulib.nu.version))
    except ProvisioningError as error:
        nushell = error.message
    kernel = f"{platform.system()} {platform.release()} {platform.machine()}"
    versions = {"provisioning": __version__, "python": platform.python_version(), "nushell": nushell, "kernel": kernel}
    return {"versions": {**versions, "spool": FORMAT}}


@click.group("bundle", cls=Noun, no_args_is_help=True)
def bundles() -> None:
    """Look into what `workflow bundle` has made."""


@bundles.command(exits=(0, 2, 4, 6))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@pass_context
def verify(context: Context, file: Path) -> int:
    """Read a bundle (`-` is stdin) and compare each file with its digest and with the format.

    That nobody made another one is known by its digest alone: ask who made it.
    """
    from provisioning.cli.ending import answer_problems, problem_json
    from provisioning.storage.bundle import verify as look
    from provisioning.storage.outside import reading_outside

    with reading_outside(file, "bundle") as stream:
        checked = look(stream, str(file))
    if context.json:
        found = [problem_json(each) for each in checked.problems]
        context.answer_json({"ok": not found, **checked._asdict(), "problems": found})
    else:
        told = f"ok: workflow {checked.workflow_id}, {checked.members} files, digest {checked.digest}"
        answer_problems(context, told, checked.problems)
    return SpoolUnusable.exit_code if checked.problems else 0
