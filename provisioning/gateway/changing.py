"""What callers may change: submit what one operation or a manifest says, and ask something of a workflow."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from provisioning.core.catalogue import Catalogue, Operation, singular
from provisioning.core.identifiers import CHOSEN_ID, INFRA_NAME, TaskId
from provisioning.decoding import decoded
from provisioning.errors import Invalid, InvalidManifest, NotFound, Problem
from provisioning.gateway.answers import Declined
from provisioning.gateway.callers import Caller
from provisioning.gateway.site import Call
from provisioning.storage.submission import single
from provisioning.views.status import Page

TOML = "application/toml"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One operation, as the platform posts it."""

    infra: Annotated[str, msgspec.Meta(pattern=rf"^(?:{INFRA_NAME.pattern})?\Z")] = ""
    params: dict[str, Any] = {}


class AskedOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a request of a workflow may say."""

    tasks: tuple[TaskId, ...] = ()
    preserve: tuple[TaskId, ...] = ()


def _body(call: Call, kind: type[Any]) -> Any:
    """The body as `kind`; nothing is the empty object."""
    try:
        return decoded(call.body or b"{}", kind)
    except msgspec.ValidationError as error:
        raise Invalid([Problem("bad-value", str(error), "see /openapi.json", "body")]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Declined(400, "bad-json", f"the body is not JSON: {str(error)[:200]}", hint="see /openapi.json") from None


def submit_operation(call: Call) -> Page:
    """Submit a workflow of one task."""
    operation = named(call.site.catalogue(), call.path["domain"], call.path["verb"])
    asked: Asked = _body(call, Asked)
    infra, params = _placed(operation, asked)
    return _submitted(call, single(operation, params, infra=infra), "json")


def named(catalogue: Catalogue, domain: str, verb: str) -> Operation:
    """The operation of a domain, which may be written in the singular."""
    for each in catalogue.operations.values():
        if each.verb == verb and domain in (each.domain, singular(each.domain)):
            return each
    raise NotFound(f"no operation is called {domain}.{verb}", hint="see /operations")


def _placed(operation: Operation, asked: Asked) -> tuple[str, dict[str, Any]]:
    """The infra and the params that are meant.

    Without a `name`, where the operation takes one, what is called infra is the name, and the default infra is meant.
    """
    taken = {param.name for param in operation.params}
    infra, params = asked.infra, dict(asked.params)
    if "name" in taken and "name" not in params and infra:
        infra, params["name"] = "", infra
    said = params.get("infra")
    if isinstance(said, str) and said and infra and said != infra:
        text = f"it says infra {infra[:64]!r} and params.infra {said[:64]!r}"
        raise Invalid([Problem("bad-value", text, "say one of them", "body", field="infra")])
    if infra and "infra" in taken:
        params["infra"] = infra
    return infra or (said if isinstance(said, str) and said else "default"), params


def submit_batch(call: Call) -> Page:
    """Submit a manifest, JSON or TOML."""
    if not call.body:
        raise Declined(400, "no-body", "there is no manifest in the body", hint="see schemas/manifest.schema.json")
    return _submitted(call, call.body, "toml" if call.media == TOML else "json")


def _submitted(call: Call, manifest: bytes, form: str) -> Page:
    with_key = _with_id(manifest, form, _id_of(call.caller, call.key)) if call.key is not None else manifest
    try:
        return {"workflow_id": call.site.door.submit(call.caller.operator, with_key, form)}
    except InvalidManifest as error:
        if form == "toml" and with_key is not manifest:  # its lines are one further down
            raise InvalidManifest(replace(p, line=p.line and p.line - 1) for p in error.problems) from None
        raise


def _id_of(caller: Caller, key: str) -> str:
    """The id that a key stands for: the owner's is that id itself, as by the command line.

    Keys are each operator's own: whether somebody else has taken one cannot be asked, nor can it be taken from them.
    """
    chosen = key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key
    if not CHOSEN_ID.match(chosen):
        hint = "at most 128 letters, digits, '.', '_' and '-'; the first a letter or digit"
        raise Declined(400, "bad-key", "the Idempotency-Key cannot be the id of a workflow", hint=hint)
    return chosen if caller.own else f"key-{hashlib.sha256(f'{caller.operator}/{chosen}'.encode()).hexdigest()}"


def _with_id(manifest: bytes, form: str, chosen: str) -> bytes:
    """The manifest with this `id`: submitted again with the same bytes, it is the same workflow."""
    if form == "toml":
        return f'id = "{chosen}"\n'.encode() + manifest
    head, brace, rest = manifest.partition(b"{")
    if not brace or head.strip():
        return manifest  # no object: what is wrong with it is said soon
    comma = b"" if rest.lstrip()[:1] == b"}" else b", "
    return head + brace + f'"id": {json.dumps(chosen)}'.encode() + comma + rest


def ask(call: Call, verb: str) -> Page:
    """Ask it of the workflow: whoever holds it applies it, the owner's at once if nobody does."""
    if call.key is not None:
        text = "an Idempotency-Key is the id of a workflow that is submitted"
        raise Declined(400, "bad-key", text, hint="leave it out: asking the same again is refused or does nothing new")
    asked: AskedOf = _body(call, AskedOf)
    if asked.tasks and verb not in ("retry", "rollback"):
        text = f"{verb} is of a whole workflow"
        raise Invalid([Problem("bad-value", text, "leave out tasks", "body", field="tasks")])
    if asked.preserve and verb != "rollback":
        text = "only a rollback leaves out tasks"
        raise Invalid([Problem("bad-value", text, "leave out preserve", "body", field="preserve")])
    workflow_id = call.folder().workflow_id
    call.site.door.ask(call.caller.operator, verb, workflow_id, tasks=asked.tasks, preserve=asked.preserve)
    return {"workflow_id": workflow_id, "asked": verb, "queued": bool(call.site.spool.requests_of(workflow_id))}
