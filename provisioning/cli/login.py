"""`provisioning server ssh`: a terminal in a server, in the place of this command."""

from __future__ import annotations

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Verb, pass_context


@click.command("ssh", cls=Verb, exits=(0, 1, 2, 3, 4, 6))
@click.argument("name")
@click.option("--infra", default="default", metavar="TEXT", help="Namespace of server names.")
@pass_context
def ssh(context: Context, name: str, infra: str) -> None:
    """Log in to a server; what it says then is between it and your terminal.

    The exit code is that of the session. To run a single command, and to have it recorded, see: server exec
    """
    from provisioning.core.manifest import validate_params
    from provisioning.errors import InvalidParams, NotFound, WorkflowFailed
    from provisioning.execution.command import become
    from provisioning.execution.nulib import sound_settings
    from provisioning.execution.planning import PlanFailed

    operation = context.catalogue.operation("servers.ssh")
    if problems := validate_params(operation, {"name": name, "infra": infra}, field=""):
        raise InvalidParams(problems)
    sound_settings(context.config.paths.infra, infra)
    plan = context.sources.plan
    assert plan is not None
    try:
        answer = plan(operation, operation.filled({"name": name, "infra": infra}))
    except PlanFailed as error:
        failure = NotFound if error.said.endswith("::not-found") else WorkflowFailed
        raise failure(error.message, hint=error.hint) from None
    context.close()
    become(answer["argv"], context.config)
