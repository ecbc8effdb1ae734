"""`provisioning serve`: the HTTP door."""

from __future__ import annotations

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Verb, pass_context
from provisioning.errors import UsageError


@click.command(cls=Verb, exits=(0, 2, 5, 6))
@click.option(
    "--listen", "places", multiple=True, metavar="PLACE",
    help="localhost:9090, unix:/PATH, or ADDRESS:PORT with TLS and tokens; repeatable.",
)  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="The same as --listen localhost:N.")
@pass_context
def serve(context: Context, places: tuple[str, ...], port: int | None) -> None:
    """Answer HTTP on this host: submit operations and manifests, look at workflows, ask things of them.

    In a browser it is a page: http://localhost:9090

    The kernel says who calls: the owner of the spool may everything, operators what their grants say, others nothing.
    It is a client of the spool: whether it runs or not makes no difference to workflows.

    \b
    Example:
      provisioning serve &
      curl -H 'Content-Type: application/json' -d '{"infra": "wuji"}' localhost:9090/workflows/servers/create
    """
    try:
        from provisioning.gateway.listening import open_all
        from provisioning.gateway.server import serve as answer
        from provisioning.gateway.site import Site
        from provisioning.gateway.tokens import read_tokens
    except ModuleNotFoundError as error:
        text = f"this installation has no HTTP door: there is no {error.name}"
        raise UsageError(text, hint="install it: pip install 'provisioning[web]'") from None
    import contextlib
    import os

    from provisioning.clock import boottime
    from provisioning.execution.nulib import load_nulib
    from provisioning.orchestrator.calls import Calls
    from provisioning.orchestrator.installed import Installed
    from provisioning.orchestrator.notify import Notifier
    from provisioning.orchestrator.oversight import Oversight

    if given := (*places, *([f"localhost:{port}"] if port is not None else [])):
        context.set_flag("gateway.listen", list(given))
    config, spool = context.config, context.spool
    gate = spool.gate
    oversight = gate if isinstance(gate, Oversight) else Oversight(spool, config)
    oversight.trust.refuse_unsafe()
    installed = Installed(lambda: load_nulib(config), boottime)
    installed.nulib()  # without Nushell nothing can be submitted: say so at once
    tokens = read_tokens(config.paths.tokens)
    opened = open_all(config.gateway, has_tokens=bool(tokens))
    os.chdir("/")  # the folder it was started in may go away
    with contextlib.closing(Calls(spool, config, oversight, installed.nulib)) as calls:
        site = Site(spool, config, calls, lambda: installed.nulib().catalogue, context.say)

        def ready() -> None:
            context.say("\n".join(f"listens on {each.name}" for each in opened))
            Notifier(config.supervisor).ready(f"listens on {', '.join(each.name for each in opened)}")

        answer(site, opened, ready)
