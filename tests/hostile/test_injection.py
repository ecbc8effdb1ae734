"""Hostile text in every string param of every operation: it arrives unchanged, and nothing of it is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from provisioning.core.catalogue import Operation
from provisioning.errors import InvalidManifest
from tests.installation import Installation

pytestmark = pytest.mark.nu

LONG = 64 << 10
WITNESS = "WITNESS"
"""In a hostile text, the path of a file that appears when something of the text is run."""

HOSTILE = [
    "",
    " ",
    "-x",
    "--help",
    "--",
    "=",
    "a=b",
    "true",
    "null",
    "1e999",
    "0x10",
    "1xCPU-1GB",
    "2026-01-01",
    "10min",
    "1..5",
    "~",
    "*",
    "..",
    "../../etc/passwd",
    ")",
    "]",
    "}",
    "(",
    "{|x| $x}",
    "|",
    "#",
    "#]",
    "'",
    '"',
    "`",
    "r#'x'#",
    "\\",
    '\\"',
    "$env.PATH",
    "$nu.pid",
    "$in",
    f"(^touch {WITNESS})",
    f"$(touch {WITNESS})",
    f"`touch {WITNESS}`",
    f"'; touch {WITNESS}; '",
    f'"; touch {WITNESS}; "',
    f"\n^touch {WITNESS}\n",
    f"; ^touch {WITNESS}",
    f"| ^touch {WITNESS}",
    f"&& touch {WITNESS}",
    f'$"(^touch {WITNESS})"',
    f"' + (^touch {WITNESS}) + '",
    f"}} catch {{ ^touch {WITNESS} }}",
    f"() {{ :; }}; touch {WITNESS}",
    f"-c touch {WITNESS}",
    f"save --force {WITNESS}",
    "a\0b",
    "a\r\nb",
    "a\tb",
    "\x1b[31mred\x1b[0m\x1b]0;title\x07",
    "\x7f\x08",
    "é e\u0301",
    "\u202egnp.exe",
    "\u2028\u2029\ufeff",
    "😀👩‍👩‍👧",
    "\ud7ff\ue000\uffff\U0010ffff",
    "x" * LONG,
    "\"'`$(" * (LONG // 4),
]
TO_NOTHING = ["${PATH}", "a ${tasks.x.result} b", "${workflow.(^touch WITNESS)}", "${each", "${}"]
"""References to what is not there: they are refused, and texts once their `${` is doubled."""


class Place(NamedTuple):
    """Where an operation takes a text: a param, and what makes a value for it of a text."""

    param: str
    kind: str


def texts(witness: Path) -> list[str]:
    """The hostile texts, with the path of the witness."""
    return [text.replace(WITNESS, str(witness)) for text in HOSTILE]


def places(operation: Operation) -> Iterator[Place]:
    """The params that take a free text, or a list, record or anything with one in it; a duration is none."""
    for param in operation.params:
        kind = param.schema.get("type", "any")
        if kind in ("string", "any", "object") and not {"enum", "pattern"} & {*param.schema}:
            yield Place(param.name, "object" if kind == "object" else "string")
        elif kind == "array" and param.schema.get("items", {}).get("type", "any") in ("string", "any"):
            yield Place(param.name, "array")


def value(kind: str, text: str) -> Any:
    """A value for a param of that kind with the text in it."""
    if kind == "array":
        return ["true", text]
    return {"A": text, text: "b"} if kind == "object" else text


def innocent(operation: Operation, folder: Path) -> dict[str, Any]:
    """Values for the other params that must be given."""
    known: dict[str, Any] = {"file": str(folder / "none" / "marks"), "argv": ["true"], "script": "true"}
    soon = {"max": "0sec", "within": "0sec", "out": str(folder / "servers" / "generated")}
    made: dict[str, Any] = {param.name: soon[param.name] for param in operation.params if param.name in soon}
    if operation.name == "taskservs.generate":
        known["name"] = "os"
    for param in operation.params:
        if param.required:
            kind = param.schema.get("type")
            plain = {"array": ["true"], "integer": 1, "number": 0, "object": {}, "boolean": True}.get(str(kind), "x")
            made[param.name] = known.get(param.name, param.schema.get("enum", [plain])[0])
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all texts; a server of a test would be made in its folder."""
    root = tmp_path_factory.mktemp("injection")
    made = Installation(
        root,
        tmp_path_factory.mktemp("cache"),
        environment_provisioning_servers=root / "servers",
    )
    yield made
    made.close()


@pytest.fixture
def server(site: Installation) -> Iterator[Path]:
    """The folder of the one server that may be made, by its innocent name; it is deleted."""
    folder = site.root / "servers" / "default" / "x"
    yield folder
    if folder.exists():
        workflow_id = site.run([{"id": "t", "operation": "servers.delete", "params": {"name": folder.name}}])
        assert site.state(workflow_id) == "succeeded"


def tree(folder: Path) -> set[Path]:
    """What is in the folder, the spool's own files left out."""
    return {path for path in folder.rglob("*") if "spool" not in path.relative_to(folder).parts}


def test_echo_returns_every_text_unchanged(site: Installation) -> None:
    witness = site.root / "witness"
    sent = texts(witness)
    values = [*sent, sent, {text: text for text in sent}]
    before = tree(site.root)
    workflow_id = site.run(
        [
            {"id": f"t{number}", "operation": "selftest.echo", "params": {"value": text}}
            for number, text in enumerate(values)
        ],
        on_failure="continue",
        slots=8,
    )
    received = [site.outcome(workflow_id, f"t{number}") for number in range(len(values))]
    wrong = [
        (text, record) for text, record in zip(values, received, strict=True) if record.error or record.result != text
    ]
    assert wrong == []
    assert {path for path in tree(site.root) - before if not path.name.startswith("said")} == set()
    assert [number for number, _ in enumerate(values) if site.log(workflow_id, f"t{number}")] == []


@pytest.mark.parametrize("text", TO_NOTHING)
def test_references_to_nothing_are_refused_and_taken_doubled(site: Installation, text: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        site.submit([{"id": "t", "operation": "selftest.echo", "params": {"value": text}}])
    assert {problem.code for problem in refused.value.problems} == {"bad-reference"}
    doubled = text.replace("${", "$${")
    workflow_id = site.run([{"id": "t", "operation": "selftest.echo", "params": {"value": doubled}}])
    assert site.outcome(workflow_id, "t").result == text


def test_a_command_gets_its_arguments_unchanged(site: Installation) -> None:
    sent = [text for text in texts(site.root / "witness") if "\0" not in text and len(text) < LONG]
    params = {"argv": ["printf", "%s\\0", *sent]}
    workflow_id = site.run([{"id": "t", "operation": "commands.run", "params": params}])
    assert site.outcome(workflow_id, "t").result["stdout"].split("\0")[:-1] == sent
    assert not (site.root / "witness").exists()


def test_a_mark_is_the_line_and_nothing_else(site: Installation) -> None:
    sent = [text for text in texts(site.root / "witness") if not {"\n", "\r"} & {*text} and len(text) <= 1000]
    marks = [
        {"id": f"t{number}", "operation": "selftest.mark", "params": {"file": str(site.marks), "line": text}}
        for number, text in enumerate(sent)
    ]
    workflow_id = site.run(marks, on_failure="continue", slots=8)
    assert site.state(workflow_id) == "succeeded"
    assert sorted(site.marks.read_bytes().decode().removesuffix("\n").split("\n")) == sorted(sent)
    assert not (site.root / "witness").exists()


OPERATIONS = [
    "checks.command",
    "checks.file",
    "checks.http",
    "checks.tcp",
    "clusters.show",
    "commands.run",
    "selftest.fail",
    "selftest.mark",
    "servers.create",
    "servers.delete",
    "servers.exec",
    "servers.price",
    "servers.restart",
    "servers.show",
    "servers.ssh",
    "servers.start",
    "servers.stop",
    "servers.wait",
    "taskservs.check",
    "taskservs.check-updates",
    "taskservs.create",
    "taskservs.delete",
    "taskservs.generate",
    "taskservs.list",
]
ONLY_INFRA = ["clusters.list", "servers.list", "servers.plans", "servers.zones"]
"""What takes no other text than the name of an infra, which is looked at before anything is accepted."""
PLANNING = ["clusters.create", "clusters.delete"]
SOME = [text for text in HOSTILE if WITNESS in text] + ["--help", "../../etc", "a\0b", "\x1b[31m", "-x", "", ")"]
"""For operations that take a text as a name, path or message: what could run, and a few that break other things."""


def test_every_operation_that_takes_a_text_is_tried(site: Installation) -> None:
    tried = {*OPERATIONS, *ONLY_INFRA, *PLANNING, "selftest.echo"}
    built_in = [one for one in site.catalogue.operations.values() if one.domain != "trial"]
    assert {one.name for one in built_in if any(places(one))} == tried


@pytest.mark.parametrize("name", [*ONLY_INFRA, "servers.create", *PLANNING])
def test_no_text_is_the_name_of_an_infra(site: Installation, name: str) -> None:
    rest = innocent(site.catalogue.operation(name), site.root)
    for text in SOME:
        with pytest.raises(InvalidManifest):
            site.submit([{"id": "t", "operation": name, "params": {**rest, "infra": text}}])
    assert not (site.root / "witness").exists()


def test_no_text_is_a_duration(site: Installation) -> None:
    timed = [
        (one, param.name)
        for one in site.catalogue.operations.values()
        for param in one.params
        if one.domain != "trial" and "pattern" in param.schema
    ]
    assert ("servers.wait", "max") in [(one.name, param) for one, param in timed]
    for operation, param in timed:
        for text in SOME:
            task = {"id": "t", "operation": operation.name, "params": {**innocent(operation, site.root), param: text}}
            with pytest.raises(InvalidManifest, match=rf"params\.{param}: cannot be"):
                site.submit([task])


@pytest.mark.parametrize("name", PLANNING)
def test_no_text_is_the_name_of_a_cluster(site: Installation, name: str) -> None:
    for text in SOME:
        with pytest.raises(InvalidManifest):
            site.submit([{"id": "t", "operation": name, "params": {"name": text}}])
    assert not (site.root / "witness").exists()


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_operation_runs_a_text(site: Installation, server: Path, name: str) -> None:
    """Refused or done, in every param: no file appears but the spool's own, and errors come from nulib, not nu."""
    witness = site.root / "witness"
    operation = site.catalogue.operation(name)
    rest = innocent(operation, site.root)
    before = tree(site.root)
    tasks: list[dict[str, Any]] = []
    for place in places(operation):
        if place.param == "infra":
            continue
        for text in SOME:
            params = {**rest, place.param: value(place.kind, text.replace(WITNESS, str(witness)))}
            if place.kind == "array" and name == "commands.run":
                params["allow-failure"] = True
            tasks.append({"id": f"t{len(tasks)}", "operation": name, "params": params, "timeout": "20s"})
    assert tasks, "it takes no text"
    workflow_id = site.submit(tasks, on_failure="continue")
    site.drain(slots=8)
    assert not witness.exists()
    made = {path for path in tree(site.root) - before if not path.name.startswith("said")}
    assert {path for path in made if path.relative_to(site.root).parts[0] != "servers"} == set()
    servers = {path.parent for path in made if path.name in ("keeper", "server.json")}
    assert servers == ({server} if name == "servers.create" else set()), "no text is the name of a server"
    codes = set()
    for task in tasks:
        record = site.outcome(workflow_id, task["id"])
        if record.error is not None:
            codes.add(record.error.code)
    assert {code for code in codes if not code.startswith("provisioning::")} == set()
