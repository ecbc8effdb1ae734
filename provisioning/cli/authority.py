"""`provisioning authority`: who may do what."""

from __future__ import annotations

import json
import os
from typing import Any

import click

from provisioning.cli.context import Context
from provisioning.cli.groups import Noun, json_option, pass_context
from provisioning.errors import Refused, UsageError


@click.group("authority", cls=Noun, no_args_is_help=True)
def authority() -> None:
    """Say who may do what by the grants of authority.toml."""


@authority.command(exits=(0, 2, 5, 6))
@click.argument("operator")
@click.argument("operation")
@click.option("--infra", default="default", show_default=True, help="Where it would be done.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="With this param; JSON, or a text.")
@json_option
@pass_context
def explain(context: Context, operator: str, operation: str, infra: str, params: tuple[str, ...]) -> None:
    """Say whether OPERATOR may run OPERATION, and by which grants, or why not. Refused is exit code 5.

    \b
    Example:
      provisioning authority explain alice servers.create --infra demo --param plan=1xCPU-1GB
    """
    from provisioning.orchestrator.trust import Trust

    trust = Trust(context.config)
    trust.refuse_unsafe()
    known = context.catalogue.operation(operation)
    given = known.filled(_params(params)) if params else {}
    found, why = trust.authority()
    if operator == trust.own:
        _answer(context, operator, [], f"{operator} works the spool, and may do everything")
        return
    if found is None:
        raise Refused(f"nobody is granted anything: {why}", hint="write the grants, or correct them")
    near = [(number, grant) for number, grant in enumerate(found.grant, 1) if grant.covers(operator, operation, infra)]
    granting: list[dict[str, Any]] = [
        {"grant": number, "params": grant.params} for number, grant in near if not params or not grant.unmet(given)
    ]
    if not granting:
        refused = Refused(found.refusal(operator, operation, infra, given), hint=_hint(near))
        refused.code = "not-granted"
        raise refused
    lines = [f"{operator} may run {operation} in infra {infra}"]
    for each in granting:
        pins = ", ".join(f"{name} = {json.dumps(pin)}" for name, pin in each["params"].items())
        lines.append(f"  by grant {each['grant']}" + (f", with {pins}" if pins else ""))
    _answer(context, operator, granting, "\n".join(lines))


@authority.command(exits=(0, 2))
@click.argument("operator")
@json_option
@pass_context
def token(context: Context, operator: str) -> None:
    """Make a token by which OPERATOR may call the gateway from elsewhere. It is shown once, and kept nowhere.

    The line that goes into tokens.toml beside the config, which is its owner's alone (mode 600), has only its hash.

    \b
    Example:
      provisioning authority token alice > alice.token
    """
    from provisioning.core.drop import OPERATOR

    if not OPERATOR.match(operator):
        raise UsageError(f"{operator!r} cannot be an operator", hint="lower-case letters, digits, '_' and '-'")
    from provisioning.core.bearer import hash_of, token_of

    made = token_of(os.urandom(32))
    lines = f'[[token]]\noperator = "{operator}"\nsha256 = "{hash_of(made)}"'
    if context.json:
        context.answer_json({"token": made, "operator": operator, "sha256": hash_of(made)})
    else:
        context.answer(made)
    context.say(f"add to {context.config.paths.tokens}:\n{lines}")


def _hint(near: list[Any]) -> str:
    if not near:
        return "no grant names this operator, operation and infra together"
    pins = [f"grant {number} wants {json.dumps(grant.params)}" for number, grant in near]
    return "; ".join(pins)


def _params(words: tuple[str, ...]) -> dict[str, Any]:
    found = {}
    for word in words:
        name, is_pair, value = word.partition("=")
        if not is_pair:
            raise UsageError(f"{word!r} is no NAME=VALUE", hint="write --param plan=1xCPU-1GB")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _answer(context: Context, operator: str, granting: list[dict[str, Any]], text: str) -> None:
    from provisioning.views.text import safe_block

    if context.json:
        context.answer_json({"granted": True, "operator": operator, "grants": granting})
    else:
        context.answer(safe_block(text))
