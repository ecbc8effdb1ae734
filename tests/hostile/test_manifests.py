"""Bad manifests: each problem by example in both forms, with its code, field and line; and all of them at once."""

from __future__ import annotations

from typing import Any

import pytest

from provisioning.core import manifest
from tests.data.manifests.sample import refused, render

TASK = {"id": "a", "operation": "selftest.noop"}
ROOT = {"schema": 1, "name": "x", "tasks": [TASK]}


def with_root(**changes: Any) -> dict[str, Any]:
    return {key: item for key, item in (ROOT | changes).items() if item is not ...}


def with_task(**changes: Any) -> dict[str, Any]:
    return with_root(tasks=[{key: item for key, item in (TASK | changes).items() if item is not ...}])


def with_tasks(**waits: list[str]) -> dict[str, Any]:
    return with_root(tasks=[TASK | {"id": name, "depends_on": others} for name, others in waits.items()])


def creates(**params: Any) -> dict[str, Any]:
    return with_task(operation="servers.create", params={"name": "w"} | params)


def echoes(value: Any) -> dict[str, Any]:
    return with_task(operation="selftest.echo", params={"value": value})


def retries(**policy: Any) -> dict[str, Any]:
    return with_task(retry={"max_attempts": 2} | policy)


DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]


def for_each_of(**changes: Any) -> dict[str, Any]:
    return with_task(**({"operation": "selftest.echo", "for_each": ["x"], "params": {"value": 1}} | changes))


NESTED: list[Any] = [1]
for _ in range(3):
    NESTED = [{"for_each": NESTED}]


def undoes(value: Any) -> dict[str, Any]:
    return with_task(undo={"operation": "selftest.echo", "params": {"value": value}})


DOCUMENTS = [
    ("unknown-key", "infr", with_root(infr="demo")),
    ("unknown-key", "tasks.a.dependson", with_task(dependson=[])),
    ("unknown-key", "defaults.timout", with_root(defaults={"timout": "1s"})),
    ("unknown-key", "tasks.a.credential", with_task(credential="token")),
    ("unknown-key", "tasks.a.retry.attempts", retries(attempts=3)),
    ("missing-key", "schema", with_root(schema=...)),
    ("missing-key", "name", with_root(name=...)),
    ("missing-key", "tasks", with_root(tasks=...)),
    ("missing-key", "tasks[0].id", with_task(id=...)),
    ("missing-key", "tasks.a.operation", with_task(operation=...)),
    ("missing-key", "tasks.a.retry.max_attempts", with_task(retry={})),
    ("wrong-type", "name", with_root(name=1)),
    ("wrong-type", "schema", with_root(schema="1")),
    ("wrong-type", "priority", with_root(priority="high")),
    ("wrong-type", "priority", with_root(priority=True)),
    ("wrong-type", "priority", with_root(priority=1.5)),
    ("wrong-type", "defaults", with_root(defaults=[])),
    ("wrong-type", "tasks", with_root(tasks={"a": TASK})),
    ("wrong-type", "tasks[0]", with_root(tasks=["a"])),
    ("wrong-type", "tasks.a.params", with_task(params=["a"])),
    ("wrong-type", "tasks.a.depends_on", with_task(depends_on="b")),
    ("wrong-type", "tasks.a.timeout", with_task(timeout=60)),
    ("wrong-type", "tasks.a.after[0]", with_task(after=[1])),
    ("wrong-type", "not_before", with_root(not_before=1)),
    ("bad-value", "schema", with_root(schema=2)),
    ("bad-value", "name", with_root(name="ok\n")),
    ("bad-value", "name", with_root(name="-rf")),
    ("bad-value", "name", with_root(name="")),
    ("bad-value", "infra", with_root(infra="..")),
    ("bad-value", "infra", with_root(infra="demo\n")),
    ("bad-value", "id", with_root(id="../x")),
    ("bad-value", "id", with_root(id="ok\n")),
    ("bad-value", "priority", with_root(priority=101)),
    ("bad-value", "max_parallel", with_root(max_parallel=0)),
    ("bad-value", "on_failure", with_root(on_failure="ignore")),
    ("bad-value", "not_before", with_root(not_before="tomorrow")),
    ("bad-value", "not_before", with_root(not_before="2026-12-01T02:00:00")),
    ("bad-value", "not_before", with_root(not_before="2026-02-30T02:00:00Z")),
    ("bad-value", "expires_at", with_root(expires_at="0001-01-01T00:00:00+10:00")),
    ("bad-value", "tasks", with_root(tasks=[])),
    ("bad-value", "tasks[0].id", with_task(id="ok\n")),
    ("bad-value", "tasks[0].id", with_task(id="Web")),
    ("bad-value", "tasks[0].id", with_task(id="web.")),
    ("bad-value", "tasks[0].id", with_task(id="a.b.c.d.e.f")),
    ("bad-value", "tasks[0].id", with_task(id="a" * 65)),
    ("bad-value", "tasks.a.operation", with_task(operation="selftest.noop\n")),
    ("bad-value", "tasks.a.operation", with_task(operation="../noop")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="10")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="0s")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="10m\n")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="5s10m")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="")),
    ("bad-value", "tasks.a.timeout", with_task(timeout="٣s")),
    ("bad-value", "tasks.a.on_interrupt", with_task(on_interrupt="retry")),
    ("bad-value", "tasks.a.on_interrupt", with_task(on_interrupt="probe")),
    ("bad-value", "tasks.a.depends_on", with_root(tasks=[TASK | {"depends_on": ["b", "b"]}, TASK | {"id": "b"}])),
    ("bad-value", "tasks.a.retry.max_attempts", retries(max_attempts=0)),
    ("bad-value", "tasks.a.retry.backoff", retries(backoff="linear")),
    ("bad-value", "tasks.a.retry.on[0]", retries(on=["exit75"])),
    ("bad-value", "tasks.a.retry.on", retries(on=[])),
    ("bad-value", "tasks.a.retry.max_delay", retries(initial_delay="10s", max_delay="1s")),
    ("not-finite", "tasks.a.params.value", echoes(float("nan"))),
    ("not-finite", "tasks.a.params.value[1]", echoes([1, float("-inf")])),
    ("too-large-number", "tasks.a.params.value", echoes(2**63)),
    ("bad-value", "tasks.a.on_failure", with_task(on_failure="ignore")),
    ("missing-key", "tasks.a.undo.operation", with_task(undo={})),
    ("unknown-operation", "tasks.a.undo.operation", with_task(undo={"operation": "selftest.nop"})),
    ("bad-params", "tasks.a.undo.params.value", with_task(undo={"operation": "selftest.echo", "params": {}})),
    ("bad-reference", "tasks.a.undo.params", undoes("${task.params.nome}")),
    ("bad-reference", "tasks.a.undo.params", undoes("${task.result.ip}")),
    ("bad-reference", "tasks.a.undo", undoes("${task.state}")),
    ("bad-reference", "tasks.a.undo", undoes("${each.key}")),
    ("missing-key", "tasks.a.when.equals", with_task(when={"task": "b", "path": "result"})),
    ("bad-value", "tasks.a.when.path", with_task(when={"task": "b", "path": "state", "equals": 1})),
    ("bad-reference", "tasks.a.when", with_task(when={"task": "b", "path": "result", "equals": 1})),
    ("wrong-type", "tasks.a.preserve", with_task(preserve="yes")),
    ("bad-value", "tasks.a.group", with_task(group="G")),
    ("wrong-type", "tasks.a.when", with_task(when="x")),
    ("bad-reference", "tasks.a.params", echoes("${tasks.b.result.ip}")),
    ("bad-reference", "tasks.a.params", echoes("${tasks.a.result}")),
    ("bad-reference", "tasks.a.params", echoes("${tasks.a.output}")),
    ("bad-reference", "tasks.a.params.value.b[1]", echoes({"b": ["", "a ${each.value}"]})),
    ("bad-reference", "tasks.a.params.value", echoes("$${a}${b}")),
    ("bad-reference", "tasks.a.params.value", echoes("${workflow.owner}")),
    ("bad-reference", "tasks.a.params.value", echoes("${infra.zone}")),
    ("bad-reference", "tasks.a.params.value", echoes("${tasks.a b.result}")),
    ("bad-reference", "tasks.a.params.value", echoes("${")),
    ("bad-reference", "tasks.a.params.value", echoes("${}")),
    ("bad-reference", "tasks.a.params.value", for_each_of(params={"value": "${each.index}"})),
    ("bad-reference", "tasks.a.params.value", for_each_of(params={"value": "${each.value.x}"})),
    ("bad-reference", "tasks.a.params.value", for_each_of(params={"value": "${each.previous}"})),
    ("bad-reference", "tasks.a.depends_on", for_each_of(depends_on=["${each.value.x}"])),
    ("bad-reference", "tasks.a.for_each", with_task(for_each="${infra.hosts}")),
    ("bad-reference", "tasks.a.for_each", with_task(for_each=["${tasks.b.result}"])),
    ("wrong-type", "tasks.a.for_each", with_task(for_each=2)),
    ("bad-value", "tasks.a.for_each", with_task(for_each="web")),
    ("bad-value", "tasks.a.for_each.Web", with_task(for_each={"Web": 1})),
    ("bad-value", "tasks", with_task(for_each=[])),
    ("wrong-type", "tasks.a.for_each[0].for_each", with_task(for_each=[{"for_each": 1}])),
    ("too-deep", "tasks.a.for_each[0].for_each[0].for_each[0].for_each", with_task(for_each=NESTED)),
    ("too-large", "tasks.a.for_each", with_task(for_each=[{"for_each": [0] * 5001}, {"for_each": [0] * 5000}])),
    ("duplicate-id", "tasks.a.id", with_root(tasks=[TASK, TASK | {"id": "a.1"}])),
    ("bad-value", "tasks.a.params.value", echoes({"credential": "../token"})),
    ("literal-secret", "tasks.a.params.token", creates(token="hidden")),
    (
        "expired-before-start",
        "expires_at",
        with_root(not_before="2026-12-01T02:00:00Z", expires_at="2026-12-01T04:00:00+02:00"),
    ),
    ("duplicate-id", "tasks[1].id", with_root(tasks=[TASK, TASK])),
    ("unknown-dependency", "tasks.a.depends_on", with_tasks(a=["b"])),
    ("unknown-dependency", "tasks.a.after", with_task(after=["b"])),
    ("self-dependency", "tasks.a.depends_on", with_tasks(a=["a"])),
    ("self-dependency", "tasks.a.after", with_task(after=["a"])),
    ("cycle", "tasks.a.depends_on", with_tasks(a=["b"], b=["c"], c=["a"])),
    ("cycle", "tasks.a.after", with_root(tasks=[TASK | {"after": ["b"]}, TASK | {"id": "b", "after": ["a"]}])),
    ("unknown-operation", "tasks.a.operation", with_task(operation="selftest.nop")),
    ("bad-params", "tasks.a.params.names", creates(names="x")),
    ("bad-params", "tasks.a.params.plan", creates(plan=2)),
    ("bad-params", "tasks.a.params.zone", creates(zone="us")),
    ("bad-params", "tasks.a.params.cores", creates(cores=1.5)),
    ("bad-params", "tasks.a.params.name", with_task(operation="servers.create")),
    ("bad-params", "tasks.a.params.argv[1]", with_task(operation="commands.run", params={"argv": ["a", 1]})),
    ("bad-params", "tasks.a.params.undo", creates(undo="x")),
    ("too-deep", None, echoes(DEEP)),
]  # fmt: skip

ECHO = b'{"schema": 1, "name": "x", "tasks": [\n{"id": "a", "operation": "selftest.echo",\n"params": {"value": %s}}]}'

TEXTS = [
    ("empty", "toml", b"", None),
    ("empty", "json", b" \n ", None),
    ("empty", "toml", b"# nothing yet\n", None),
    ("too-large", "toml", b"#" * 200_001, None),
    ("too-large", "json", render(with_tasks(**{f"t{i}": [] for i in range(101)}), "json"), None),
    ("too-deep", "toml", b"a = " + b"[" * 100_000, None),
    ("too-deep", "json", b'{"a": ' + b"[" * 100_000, None),
    ("too-deep", "toml", b"x = 1\n" + b"a." * 90_000 + b"b = 1", 2),
    ("too-deep", "toml", b"[" + b"a . " * 40_000 + b"b]", 1),
    ("too-deep", "toml", b"x = {\"a\"" + b".'a'" * 40_000 + b" = 1}", 1),
    ("duplicate-key", "json", b'[{"a": 1,\n"a": 2}, ' + b"[" * 100_000, 2),
    ("too-many-values", "json", b'{"a": [' + b"1," * 40_000 + b"1]}", None),
    ("not-utf8", "toml", b'schema = 1\nname = "\xff"', 2),
    ("not-utf8", "json", b'{\n"name": "\xe4"}', 2),
    ("not-utf8", "toml", b"\xef\xbb\xbfschema = 1", 1),
    ("not-utf8", "json", b"\xef\xbb\xbf{}", 1),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-16"), 1),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-16-be"), 1),
    ("not-utf8", "json", '{"schema": 1}'.encode("utf-32-le"), 1),
    ("not-toml", "toml", b"schema = 1\nname = x", 2),
    ("not-toml", "toml", b'schema = 1\nname = "x', 2),
    ("not-toml", "toml", b'{"schema": 1}', 1),
    ("not-toml", "toml", b"schema = 1\nat = 2026-13-01T00:00:00Z", 2),
    ("not-toml", "toml", b"schema = 1\n\x00", 2),
    ("not-toml", "toml", b"n = " + b"1" * 5000, None),
    ("not-json", "json", b'{\n"schema": 1,\n}', 3),
    ("not-json", "json", b"schema = 1", 1),
    ("not-json", "json", b'{"schema": 1} x', 1),
    ("not-json", "json", b'{"schema": 1', 1),
    ("not-json", "json", b'{"name": "a\nb"}', 1),
    ("not-json", "json", b'{"n": ' + b"1" * 5000 + b"}", None),
    ("wrong-type", "json", b"[]", 1),
    ("wrong-type", "json", b"null", 1),
    ("not-finite", "json", ECHO % b"1e999", 3),
    ("not-finite", "json", ECHO % b"NaN", 3),
    ("half-character", "json", ECHO % b'"\\ud800"', 3),
    ("duplicate-key", "json", b'{"schema": 1,\n"name": "x",\n"name": "y"}', 3),
    ("duplicate-key", "json", b'{"tasks": [{"id": "a",\n"\\u0069d": "b"}]}', 2),
    ("duplicate-key", "toml", b'schema = 1\nname = "x"\nname = "y"', 3),
    ("duplicate-key", "toml", b'[defaults]\ntimeout = "1s"\n[defaults]\n', 3),
]  # fmt: skip


@pytest.mark.parametrize("form", ["toml", "json"])
@pytest.mark.parametrize(("code", "field", "document"), DOCUMENTS)
def test_a_problem_is_found_alone(code: str, field: str | None, document: dict[str, Any], form: str) -> None:
    (problem,) = refused(render(document, form), form)
    assert (problem.code, problem.file) == (code, "m")
    assert field is None or problem.field == field
    assert problem.message
    assert problem.hint
    assert problem.line or (code == "missing-key" and problem.field in ROOT)


@pytest.mark.parametrize(("code", "form", "text", "line"), TEXTS, ids=lambda value: str(value)[:30])
def test_a_text_that_is_no_manifest(code: str, form: str, text: bytes, line: int | None) -> None:
    limits = manifest.Limits(bytes=200_000, tasks=100, values=40_000)
    (problem,) = refused(text, form, limits)
    assert (problem.code, problem.line) == (code, line)
    assert problem.message
    assert problem.hint
    assert str(problem).isprintable() or "\n    " in str(problem)


def test_every_code_has_an_example() -> None:
    elsewhere = {"bad-plan", "unknown-infra"}  # tests/unit/test_planning.py, tests/unit/test_infra.py
    assert elsewhere | {code for code, *_ in DOCUMENTS} | {code for code, *_ in TEXTS} == set(manifest.CODES)


def test_the_documents_without_their_problem_are_good() -> None:
    for document in (ROOT, creates(), echoes("x"), retries(), with_tasks(a=["b"], b=[])):
        assert refused(render(document, "toml")) == []
        assert refused(render(document, "json"), "json") == []
