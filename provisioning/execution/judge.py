"""What is to be said of one drop: its text, its signature, its meaning and who may ask for it, in this order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from provisioning.clock import now
from provisioning.core import manifest
from provisioning.core.authority import Authority
from provisioning.core.catalogue import Catalogue
from provisioning.core.drop import AskedByFile, Facts, Reason, Verdict, is_past
from provisioning.core.locate import Limits, decode, shown
from provisioning.core.tasks import Sources
from provisioning.core.workflow import Workflow
from provisioning.decoding import converted
from provisioning.errors import InvalidManifest, Problem
from provisioning.execution import signing
from provisioning.execution.nulib import sound_settings
from provisioning.resources import schema
from provisioning.storage import reading

MAX_REASONS = 100
SIGNED_KEYS = ("id", "expires_at", "target_host")
"""What a signed manifest must say: or it could be used again, for ever, and anywhere."""
MEANING_FACTOR = 10
"""Holding a text to schema, catalogue and grants may take so many times what reading it may."""


class Rules(msgspec.Struct, frozen=True):
    """What drops are held to."""

    catalogue: Catalogue
    signers: signing.Signers
    host: str
    limits: tuple[int, int]
    """Bytes and values."""
    parse_seconds: float
    parse_bytes: int
    own: str
    """The user who works the spool: may do everything."""
    infra: tuple[str, ...] = ()
    """Folders of infras, whose settings a manifest may refer to."""
    slurm: bool = False
    """Whether there is a cluster that tasks may ask for."""
    authority: Authority | None = None
    without_authority: str = ""
    """Why there is none."""


class Case(msgspec.Struct, frozen=True):
    """One drop that waits for its verdict."""

    key: str
    path: str
    """The file that holds its bytes: our own copy."""
    form: str
    kind: str
    """`manifest`, `request`, or `either`, which its text decides."""
    name: str
    operator: str
    signing: str
    """`off`, `optional` or `required`."""
    signature: str = ""
    """The file that holds its signature."""


@contextlib.contextmanager
def cpu_seconds(seconds: float) -> Iterator[None]:
    """End this process by SIGPROF where the block takes more processor time: nothing in it can hold that up."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def judge(case: Case, rules: Rules) -> Verdict:
    """The verdict. It may end the process instead: by its limits of time and memory."""
    data = reading.read_regular(Path(case.path), rules.limits[0])
    limits = Limits(bytes=rules.limits[0], values=rules.limits[1])
    try:
        with cpu_seconds(rules.parse_seconds):
            _, document, findings = decode(data, form=case.form, file=case.name, limits=limits)
    except InvalidManifest as error:
        return _refused(error.problems)
    chosen = document.get("id")
    name = chosen if isinstance(chosen, str) and len(chosen) <= 128 else None
    if reason := _signature_reason(case, rules, data, document):
        return Verdict((reason,), id=name)
    if case.kind == "request" or (case.kind == "either" and "verb" in document):
        odd = [Problem(each.code, each.message, each.hint) for each in findings]
        return _refused(odd, name) if odd else _request(document, rules, name)
    try:
        with cpu_seconds(MEANING_FACTOR * rules.parse_seconds):
            return _meaning(case, rules, data, limits)
    except InvalidManifest as error:
        return _refused(error.problems, name)


def _refused(problems: Sequence[Problem], name: str | None = None) -> Verdict:
    return Verdict(tuple(map(Reason.of, problems[:MAX_REASONS])), id=name)


def _signature_reason(case: Case, rules: Rules, data: bytes, document: dict[str, Any]) -> Reason | None:
    if case.signing == "off" or (case.signing == "optional" and not case.signature):
        return None
    if not case.signature:
        hint = f"sign it: provisioning manifest sign --key KEY {case.name}"
        return Reason("signature-missing", "this door takes signed manifests only", hint)
    signature = reading.read_regular(Path(case.signature), 1 << 16)
    if reason := signing.check(data, signature, case.operator, rules.signers):
        return reason
    for key in SIGNED_KEYS:
        if not isinstance(document.get(key), str):
            text = f"what is signed must say {' and '.join(SIGNED_KEYS)}: {key} is missing"
            return Reason("missing-key", text, "or it could be used again elsewhere, and for ever", field=key)
    return None


def _out_of_place(target_host: str | None, expires_at: Any, rules: Rules) -> Reason | None:
    if target_host is not None and target_host != rules.host:
        text = f"it is meant for {target_host}, and this is {rules.host}"
        return Reason("wrong-host", text, "drop it there, or sign one for this host", field="target_host")
    if is_past(expires_at, now()):
        return Reason("expired", f"it expired at {expires_at:%FT%TZ}", "make a new one", field="expires_at")
    return None


def _meaning(case: Case, rules: Rules, data: bytes, limits: Limits) -> Verdict:
    infras = [Path(path) for path in rules.infra]
    # Nothing is planned, that is: run, before its claim.
    sources = Sources(lambda name: sound_settings(infras, name), slurm=rules.slurm)
    read = manifest.read(
        data,
        form=case.form,
        file=case.name,
        schema=schema("manifest"),
        catalogue=rules.catalogue,
        limits=limits,
        sources=sources,
    )
    if reason := _out_of_place(read.target_host, read.expires_at, rules):
        return Verdict((reason,), id=read.id)
    if reasons := unauthorised(case.operator, read, rules):
        return Verdict(reasons, id=read.id)
    facts = Facts(read.name, read.infra, len(read.tasks), read.priority, read.not_before, read.expires_at, read.id)
    return Verdict(facts=facts, id=read.id)


def unauthorised(operator: str, workflow: Workflow, rules: Rules) -> tuple[Reason, ...]:
    """Why the operator may not have this done: everything that no grant covers."""
    if operator == rules.own:
        return ()
    if rules.authority is None:
        text, hint = f"nobody is granted anything: {rules.without_authority}", "its administrator has to mend that"
        return (Reason("no-authority", text, hint),)
    planned = manifest.planned(workflow, rules.catalogue)
    refusals = rules.authority.refusals(operator, workflow.infra, planned.tasks, rules.catalogue.operations)
    return tuple(map(Reason.of, refusals[:MAX_REASONS]))


def _request(document: dict[str, Any], rules: Rules, name: str | None) -> Verdict:
    try:
        asked = converted(document, AskedByFile)
    except msgspec.ValidationError as error:
        text = f"it is no request: {shown(str(error))}"  # a key that it has may hold anything
        hint = 'a request is like {"verb": "cancel", "workflow_id": "…"}; tasks and id may be added'
        return Verdict((Reason("bad-value", text, hint),), id=name)
    if asked.schema != 1:
        return Verdict((Reason("bad-value", "schema must be 1", "leave it out", field="schema"),), id=name)
    if reason := _out_of_place(asked.target_host, asked.expires_at, rules):
        return Verdict((reason,), id=name)
    return Verdict(facts=Facts(id=asked.id, asked=asked), id=asked.id)
