"""`provisioning workflow report`: all about one workflow in a file to carry away."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from provisioning.cli.context import Context, on_stdout
from provisioning.cli.groups import pass_context
from provisioning.cli.workflow import SEEN, id_argument, workflow
from provisioning.errors import UsageError

FORMS = {".html": "html", ".htm": "html", ".json": "json", ".md": "markdown", ".markdown": "markdown"}


@workflow.command(exits=(*SEEN, 5))
@id_argument
@click.option("--format", "form", type=click.Choice(["html", "json", "markdown"]), help="html, or as FILE is called.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="stdout otherwise.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@pass_context
def report(context: Context, workflow_id: str, form: str | None, output: Path | None, *, force: bool) -> None:
    """Write down all about a workflow: graph, timeline, tasks, failures with the ends of their logs, and the manifest.

    The HTML is one file that needs no network and no script, and can be printed. Secrets are not in it.

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

    form = form or (FORMS.get(output.suffix.lower(), "html") if output else "html")
    if output is None and sys.stdout.isatty() and form == "html":
        raise UsageError("stdout would carry the HTML", hint="name a file with -o, or pipe it on")
    made = report_of(find(context.spool, workflow_id), now())
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
