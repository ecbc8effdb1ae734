"""What a good manifest means, how its plan is filled, and how a workflow is written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioning.core import manifest
from provisioning.core.workflow import Retry, Task, Workflow
from provisioning.errors import InvalidManifest, NotFound
from tests.data.manifests.sample import CATALOGUE, SCHEMA, accepted, operation

DATA = Path(__file__).parents[1] / "data" / "manifests"

DEFAULT_RETRY = Retry(max_attempts=3, on=("provisioning::upcloud::*", "exit:75", "timeout"))

FULL = Workflow(
    name="nightly-web",
    infra="demo",
    priority=80,
    max_parallel=5,
    on_failure="continue",
    not_before=datetime(2026, 12, 1, 2, tzinfo=UTC),
    expires_at=datetime(2026, 12, 2, 2, tzinfo=UTC),
    id="nightly-2026-12-01",
    tasks=(
        Task(
            id="cleanup",
            operation="selftest.noop",
            timeout_seconds=600.0,
            retry=DEFAULT_RETRY,
            expected_seconds=30.0,
        ),
        Task(
            id="web",
            operation="servers.create",
            params={"name": "web-1", "plan": "2xCPU-4GB"},
            timeout_seconds=5400.0,
            retry=DEFAULT_RETRY,
            expected_seconds=150.0,
        ),
        Task(
            id="lb",
            operation="commands.run",
            params={"argv": ["echo", "costs ${HOME}"]},
            depends_on=("web",),
            after=("cleanup",),
            timeout_seconds=600.0,
            retry=Retry(max_attempts=2, backoff="fixed", initial_delay_seconds=0.5),
            on_interrupt="rerun",
            expected_seconds=30.0,
        ),
    ),
)


@pytest.mark.parametrize("form", ["toml", "json"])
def test_every_key_means_the_same_in_both_forms(form: str) -> None:
    workflow = accepted((DATA / f"full.{form}").read_bytes(), form)
    assert workflow == FULL
    assert type(workflow.max_parallel) is int


@pytest.mark.parametrize("form", ["toml", "json"])
def test_write_gives_a_manifest_that_means_the_same(form: str) -> None:
    assert accepted(manifest.write(FULL, form=form), form) == FULL


def test_parse_needs_no_catalogue() -> None:
    text = b'schema = 1\nname = "x"\n[[tasks]]\nid = "a"\noperation = "no.such"'
    workflow = manifest.parse(text, form="toml", file="m", schema=SCHEMA)
    assert [problem.code for problem in manifest.check(workflow, CATALOGUE)] == ["unknown-operation"]
    located = manifest.check(workflow, CATALOGUE, file="m", locate=manifest.Locator(text.decode(), "toml"))
    assert [(problem.file, problem.line, problem.field) for problem in located] == [("m", 5, "tasks.a.operation")]


def test_values_of_toml_reach_params_as_json() -> None:
    text = """schema = 1
name = "x"
[[tasks]]
id = "a"
operation = "selftest.echo"
params.value = { at = 2026-01-02T03:04:05Z, day = 2026-01-02, clock = 03:04:05, local = 2026-01-02 03:04:05 }
"""
    assert accepted(text).tasks[0].params["value"] == {
        "at": "2026-01-02T03:04:05Z",
        "day": "2026-01-02",
        "clock": "03:04:05",
        "local": "2026-01-02T03:04:05",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("a$${b}", "a${b}"), ("$$${b}", "$${b}"), ("$$ {", "$$ {"), ("$", "$"), ("{$}", "{$}"), ("$${$${", "${${")],
)
def test_a_dollar_before_a_reference_makes_it_literal(text: str, value: str) -> None:
    document = {
        "schema": 1,
        "name": "x",
        "tasks": [{"id": "a", "operation": "selftest.echo", "params": {"value": text}}],
    }
    assert accepted(json.dumps(document), "json").tasks[0].params == {"value": value}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("5s", 5), ("500ms", 0.5), ("1d1h1m1s1ms", 90061.001), ("0s", 0), ("90s", 90)],
)
def test_durations(text: str, seconds: float) -> None:
    assert manifest.seconds(text) == seconds
    assert manifest.seconds(manifest.duration(seconds)) == seconds


def test_a_long_first_delay_raises_the_unsaid_longest() -> None:
    head = 'schema = 1\nname = "x"\n[[tasks]]\nid = "a"\noperation = "selftest.noop"\n'
    text = head + 'retry = { max_attempts = 2, initial_delay = "10m" }'
    assert accepted(text).tasks[0].retry == Retry(max_attempts=2, initial_delay_seconds=600, max_delay_seconds=600)


def test_the_plan_fills_params_and_policies() -> None:
    workflow = Workflow(
        name="x",
        tasks=(
            Task(id="a", operation="servers.create", params={"name": "w", "cores": 2.0}),
            Task(id="b", operation="commands.run", params={"argv": ["true"]}),
            Task(
                id="c",
                operation="servers.create",
                params={"name": "w"},
                timeout_seconds=1.0,
                retry=Retry(),
                on_interrupt="probe",
            ),
        ),
    )
    a, b, c = manifest.planned(workflow, CATALOGUE).tasks
    assert a.params == {"name": "w", "plan": "1xCPU-1GB", "cores": 2, "zone": "fi", "token": None}
    assert type(a.params["cores"]) is int
    assert (a.timeout_seconds, a.retry, a.on_interrupt) == (600.0, Retry(max_attempts=4), "rerun")
    assert (b.timeout_seconds, b.retry, b.on_interrupt) == (manifest.DEFAULT_TIMEOUT_SECONDS, Retry(), "fail")
    assert (c.timeout_seconds, c.retry, c.on_interrupt) == (1.0, Retry(), "probe")


def test_the_plan_of_an_unknown_operation() -> None:
    with pytest.raises(NotFound):
        manifest.planned(Workflow(name="x", tasks=(Task(id="a", operation="no.such"),)), CATALOGUE)


def test_waves_and_critical_path() -> None:
    waits = {"a": (), "b": ("a",), "c": ("a",), "d": ("b",), "e": ("d", "c"), "f": ()}
    tasks = [Task(id=name, operation="selftest.noop", depends_on=others) for name, others in waits.items()]
    tasks.append(Task(id="g", operation="selftest.noop", after=("f",)))
    workflow = Workflow(name="x", tasks=tuple(tasks))
    assert [sorted(wave) for wave in manifest.waves(workflow)] == [["a", "f"], ["b", "c", "g"], ["d"], ["e"]]
    assert manifest.critical_path(workflow) == ["a", "b", "d", "e"]


def test_ten_thousand_tasks_in_a_line() -> None:
    waits = [(f"t{i}", (f"t{i - 1}",) if i else ()) for i in range(10_000)]
    tasks = tuple(Task(id=name, operation="selftest.noop", depends_on=others) for name, others in waits)
    workflow = accepted(manifest.write(Workflow(name="x", tasks=tasks), form="json"), "json")
    assert workflow.tasks == tasks
    assert manifest.critical_path(workflow) == [name for name, _ in waits]


def test_a_null_cannot_be_written_as_toml() -> None:
    workflow = Workflow(name="x", tasks=(Task(id="a", operation="selftest.echo", params={"value": [None]}),))
    assert accepted(manifest.write(workflow, form="json"), "json") == workflow
    with pytest.raises(InvalidManifest, match="null"):
        manifest.write(workflow, form="toml")


@pytest.mark.parametrize(
    ("params", "field", "says"),
    [
        ({}, "params.name", "missing"),
        ({"name": 1}, "params.name", "must be a text, not 1"),
        ({"name": "w", "plann": "x"}, "params.plann", "unknown key"),
        ({"name": "w", "cores": 1.5}, "params.cores", "whole number"),
        ({"name": "w", "cores": 2**63}, "params.cores", "64 bits"),
        ({"name": "w", "cores": 1e300}, "params.cores", "64 bits"),
        ({"name": "w", "zone": "us"}, "params.zone", "'fi' or 'de'"),
        ({"name": "\udcff"}, "params.name", "surrogate"),
        ({"name": "w", "group": "g"}, "params.group", "unknown key"),
    ],
)
def test_params_of_a_single_operation(params: dict[str, Any], field: str, says: str) -> None:
    (problem,) = manifest.validate_params(CATALOGUE.operations["servers.create"], params)
    assert (problem.code, problem.field) == ("bad-params", field)
    assert says in problem.message
    assert problem.hint


def test_good_params_have_no_problem() -> None:
    assert manifest.validate_params(CATALOGUE.operations["servers.create"], {"name": "${x}", "cores": 2.0}) == []


def test_the_value_of_a_secret_is_never_quoted() -> None:
    (problem,) = manifest.validate_params(CATALOGUE.operations["servers.create"], {"name": "w", "token": 4711})
    assert (problem.code, problem.field) == ("literal-secret", "params.token")
    assert "4711" not in str(problem)


def test_a_secret_is_named_and_stands_for_a_text() -> None:
    create = CATALOGUE.operations["servers.create"]
    assert manifest.validate_params(create, {"name": "w", "token": {"credential": "upcloud-token"}}) == []
    assert manifest.validate_params(create, {"name": {"credential": "upcloud-token"}}) == []
    (problem,) = manifest.validate_params(create, {"name": "w", "cores": {"credential": "upcloud-token"}})
    assert (problem.code, problem.field) == ("bad-params", "params.cores")


def test_names_and_values_cannot_break_out_of_the_generated_code() -> None:
    from provisioning.core.catalogue import Param

    for evil in ["'", '"', "{x}", "}{", '"+1+"', "\\", "\n", '"""']:
        schema = {"enum": [evil, "b"]}
        made = operation("a.b", Param(evil, schema, positional=False, required=True))
        assert manifest.validate_params(made, {evil: evil}) == []
        assert [problem.code for problem in manifest.validate_params(made, {evil: "c"})] == ["bad-params"]
        assert [problem.code for problem in manifest.validate_params(made, {})] == ["bad-params"]


def test_every_field_of_the_schema_is_described() -> None:
    def parts(schema: dict[str, Any], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        yield name, schema
        for key in ("properties", "$defs"):
            for inner, part in schema.get(key, {}).items():
                yield from parts(part, f"{name}.{inner}")
        if "items" in schema:
            yield from parts(schema["items"], f"{name}[]")

    assert [name for name, part in parts(SCHEMA, "") if "description" not in part and "$ref" not in part] == []


def test_the_schema_is_a_schema() -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


def test_a_good_manifest_does_not_wait_for_the_slow_library() -> None:
    program = (
        "import sys; from tests.data.manifests.sample import accepted;"
        "accepted(open(sys.argv[1], 'rb').read());"
        "assert 'fastjsonschema' in sys.modules and 'jsonschema' not in sys.modules"
    )
    root = DATA.parents[2]
    subprocess.run([sys.executable, "-c", program, str(DATA / "full.toml")], check=True, cwd=root)
