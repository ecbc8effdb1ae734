"""Laws of manifests: any bytes, any document, any graph, and there and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.core import manifest
from provisioning.core.tokens import Path, entries
from provisioning.core.workflow import Retry, Task, Workflow
from tests.data.manifests.sample import SCHEMA, accepted, refused, render

FORMS = st.sampled_from(["toml", "json"])
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,10}", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["${", "$${", "$", "{", "ok\n"]
)
SCALARS = TEXTS | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
).filter(lambda value: not isinstance(value, dict) or value.keys() != {"credential"})
MILLISECONDS = st.integers(1, 10**9).map(lambda ms: ms / 1000)


def retries() -> st.SearchStrategy[Retry]:
    return st.builds(
        lambda delays, **rest: Retry(initial_delay_seconds=min(delays), max_delay_seconds=max(delays), **rest),
        st.tuples(MILLISECONDS, MILLISECONDS),
        max_attempts=st.integers(1, 1000),
        backoff=st.sampled_from(["exponential", "fixed"]),
        on=st.lists(st.sampled_from(["exit:75", "timeout", "a::b*", "*"]), unique=True).map(tuple),
    )


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    """Any workflow that a manifest can ask for; its tasks wait for earlier ones."""
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    tasks = tuple(
        Task(
            id=name,
            operation="selftest.echo",
            params={"value": draw(VALUES)},
            depends_on=tuple(draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3)) if i else ()),
            after=tuple(draw(st.lists(st.sampled_from(names[:i]), unique=True, max_size=3)) if i else ()),
            timeout_seconds=draw(st.none() | MILLISECONDS),
            retry=draw(st.none() | retries()),
            on_interrupt=draw(st.sampled_from([None, "rerun", "fail"])),
            expected_seconds=draw(st.none() | MILLISECONDS),
        )
        for i, name in enumerate(names)
    )
    years = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
    return Workflow(
        name=draw(NAMES),
        tasks=tasks,
        infra=draw(NAMES),
        priority=draw(st.integers(0, 100)),
        max_parallel=draw(st.none() | st.integers(1, 100)),
        on_failure=draw(st.sampled_from(["stop", "continue"])),
        not_before=draw(st.none() | years),
        expires_at=draw(st.none() | years.map(lambda at: at.replace(year=at.year + 50, day=1))),
        id=draw(st.none() | NAMES),
    )


@given(workflows(), FORMS)
def test_write_and_read_are_inverse(workflow: Workflow, form: str) -> None:
    assert accepted(manifest.write(workflow, form=form), form) == workflow


@given(st.binary() | st.text().map(str.encode), FORMS)
@example(b"[" * 5000, "json")
@example(b'a = "\\ud800"', "toml")
@example(b'{"a": "\\ud800", "\\ud800": 1}', "json")
@example(b"a=1e999\n[[tasks]]\nid=nan", "toml")
def test_no_bytes_crash_it(data: bytes, form: str) -> None:
    assert all(problem.code in manifest.CODES for problem in refused(data, form))


GOOD = [
    manifest.write(
        Workflow(
            name="x",
            tasks=(
                Task(id="a", operation="servers.create", params={"name": "w"}, retry=Retry(max_attempts=2, on=("*",))),
                Task(id="b", operation="selftest.echo", params={"value": [{"a": "é"}]}, depends_on=("a",)),
            ),
            not_before=datetime(2026, 1, 1, tzinfo=UTC),
        ),
        form=form,
    )
    for form in ("toml", "json")
]


@given(st.sampled_from([0, 1]), st.integers(0, 600), st.integers(0, 20), st.binary(max_size=6))
def test_no_damage_crashes_it(which: int, start: int, cut: int, put: bytes) -> None:
    data = GOOD[which][:start] + put + GOOD[which][start + cut :]
    assert all(problem.code in manifest.CODES for problem in refused(data, ["toml", "json"][which]))


ODD: st.SearchStrategy[Any] = SCALARS | st.none() | st.just([]) | st.just({})


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A good document in which a few values are replaced, dropped or added, anywhere."""
    document: dict[str, Any] = json.loads(GOOD[1])
    for _ in range(draw(st.integers(0, 3))):
        inside: Any = document
        while True:
            keys = sorted(inside) if isinstance(inside, dict) else range(len(inside))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(inside[key], dict | list) or draw(st.booleans()):
                change = draw(st.sampled_from(["replace", "drop", "add"]))
                if change == "drop":
                    del inside[key]
                elif change == "add" and isinstance(inside, dict):
                    known = ["id", "infra", "timeout", "after", "on", "retry", "defaults", "for_each"]
                    inside[draw(st.sampled_from(known) | TEXTS)] = draw(ODD)
                else:
                    odd = st.sampled_from(["a", "b", "ok\n", "10m", 1.0, True, "selftest.noop"])
                    inside[key] = draw(ODD | odd)
                break
            inside = inside[key]
    return document


@given(documents())
@example({"schema": True, "name": "x", "tasks": [{"id": "a", "operation": "b.c"}]})
@example({"schema": 1.0, "name": "x", "tasks": [{"id": "a", "operation": "b.c", "after": [True, 1]}]})
@example({"schema": 1, "name": "ok\n", "tasks": [{"id": "a", "operation": "b.c"}]})
def test_both_libraries_have_one_verdict(document: dict[str, Any]) -> None:
    import fastjsonschema
    from jsonschema import Draft202012Validator

    encoded = json.dumps(SCHEMA).encode()
    try:
        manifest.compiled(encoded)(document)
        fast = True
    except fastjsonschema.JsonSchemaValueException:
        fast = False
    assert fast == Draft202012Validator(SCHEMA).is_valid(document)
    assert fast == (not manifest.schema_findings(SCHEMA, document))
    problems = refused(json.dumps(document), "json")
    assert fast or problems
    assert all(problem.code in manifest.CODES for problem in problems)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"t{i}" for i in range(draw(st.integers(1, 8)))]
    return {name: draw(st.lists(st.sampled_from(names), unique=True, max_size=3)) for name in names}


def reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    """The tasks that `start` waits for, directly or not."""
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph[name]
    return seen


@given(graphs(), st.sampled_from(["depends_on", "after"]))
def test_a_ring_is_reported_exactly_where_there_is_one(graph: dict[str, list[str]], key: str) -> None:
    tasks = [{"id": name, "operation": "selftest.noop", key: others} for name, others in graph.items()]
    problems = refused(render({"schema": 1, "name": "x", "tasks": tasks}, "json"), "json")
    selves = {name for name, others in graph.items() if name in others}
    assert {problem.field.split(".")[1] for problem in problems if problem.code == "self-dependency"} == selves
    plain = {name: [other for other in others if other != name] for name, others in graph.items()}
    knotted = {name for name in plain if name in reachable(plain, name)}
    rings = [p.message.partition(": ")[2].split(" → ") for p in problems if p.code == "cycle"]
    assert bool(rings) == bool(knotted)
    for ring in rings:
        assert all(after in plain[before] for before, after in pairwise(ring))
        assert ring[0] == ring[-1]
    if not problems:
        workflow = Workflow("x", tuple(Task(name, "selftest.noop", depends_on=tuple(o)) for name, o in plain.items()))
        depth = {name: i for i, wave in enumerate(manifest.waves(workflow)) for name in wave}
        assert depth == {name: max((depth[other] + 1 for other in others), default=0) for name, others in plain.items()}
        path = manifest.critical_path(workflow)
        assert [depth[name] for name in path] == list(range(max(depth.values()) + 1))
        assert all(before in plain[after] for before, after in pairwise(path))


def paths(value: Any, path: Path = ()) -> set[Path]:
    """Every key and item of a document."""
    pairs: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {(*path, key) for key, _ in pairs}.union(*(paths(item, (*path, key)) for key, item in pairs), set())


@given(st.dictionaries(TEXTS, VALUES, max_size=5), FORMS)
def test_every_part_of_a_document_has_a_line(document: dict[str, Any], form: str) -> None:
    text = render(document, form).decode()
    found = dict(entries(text, form))
    assert set(found) >= paths(document)
    assert all(1 <= line <= text.count("\n") + 1 for line in found.values())


@given(MILLISECONDS)
def test_durations_keep_their_milliseconds(seconds: float) -> None:
    assert manifest.seconds(manifest.duration(seconds)) == pytest.approx(seconds, abs=1e-9)
