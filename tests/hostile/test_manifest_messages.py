"""What is said of a manifest with many problems: all of it, each where it is, and harmless for a terminal."""

from __future__ import annotations

import json

from tests.data.manifests.sample import refused, render
from tests.hostile.test_manifests import TASK, with_root, with_tasks

EVERYTHING = """schema = 1
nam = "x"
priority = 200

[[tasks]]
id = "web"
operation = "servers.creat"
timeout = "soon"

[[tasks]]
id = "lb"
operation = "servers.create"
depends_on = ["web", "data"]
params = { plan = 3 }

[[tasks]]
id = "web"
group = "G"
operation = "selftest.echo"
params.value = [
    "fine",
    "${x}",
]

[[tasks]]
id = "x1"
operation = "selftest.noop"
after = ["x2"]

[[tasks]]
id = "x2"
operation = "selftest.noop"
after = ["x1"]
"""


def test_all_problems_come_at_once() -> None:
    expected = [
        ("missing-key", None, "name"),
        ("unknown-key", 2, "nam"),
        ("bad-value", 3, "priority"),
        ("unknown-operation", 7, "tasks.web.operation"),
        ("bad-value", 8, "tasks.web.timeout"),
        ("unknown-dependency", 13, "tasks.lb.depends_on"),
        ("bad-params", 14, "tasks.lb.params.name"),
        ("bad-params", 14, "tasks.lb.params.plan"),
        ("duplicate-id", 17, "tasks[2].id"),
        ("bad-value", 18, "tasks[2].group"),
        ("bad-reference", 22, "tasks[2].params.value[1]"),
        ("cycle", 28, "tasks.x1.after"),
    ]
    assert sorted((p.code, p.line or 0, p.field) for p in refused(EVERYTHING)) == sorted(
        (code, line or 0, field) for code, line, field in expected
    )


def test_the_ring_is_printed() -> None:
    (problem,) = refused(render(with_tasks(z=["a"], a=["b"], b=["c"], c=["a"]), "json"), "json")
    assert problem.message == "these tasks wait for each other: a → b → c → a"


def test_every_knot_is_named() -> None:
    problems = refused(render(with_tasks(a=["b"], b=["a"], c=["a", "d"], d=["c"], e=["c"]), "json"), "json")
    assert [problem.message.partition(": ")[2] for problem in problems] == ["a → b → a", "c → d → c"]


def test_a_long_ring_is_shortened() -> None:
    (problem,) = refused(render(with_tasks(**{f"t{i}": [f"t{(i + 1) % 5000}"] for i in range(5000)}), "json"), "json")
    assert "(4981 more)" in problem.message
    assert len(problem.message) < 300


def test_near_names_are_offered() -> None:
    hints = [problem.hint for problem in refused(EVERYTHING)]
    assert "did you mean name?" in hints
    assert "did you mean servers.create?" in hints


def test_misspellings_by_the_thousand_are_refused_in_time() -> None:
    tasks = [TASK | {"id": f"task{i}", "operation": f"selftest.nop{i}", "after": [f"tusk{i}"]} for i in range(3000)]
    problems = refused(json.dumps(with_root(tasks=tasks)), "json")
    assert len(problems) == 6000
    assert all(problem.hint for problem in problems)


def test_nothing_in_a_message_drives_a_terminal() -> None:
    evil = "\x1b[2J\r\n\x9b0m"
    document = {
        "schema": 1,
        "name": evil,
        evil: 1,
        "tasks": [
            TASK | {"id": evil, "operation": evil, "depends_on": [evil]},
            TASK | {"id": "b", "operation": "servers.create", "params": {"name": "w", "zone": evil, evil: {evil: 1}}},
        ],
    }
    problems = refused(json.dumps(document), "json")
    assert len(problems) == 7
    for problem in problems:
        assert problem.message.isprintable()
        assert problem.field.isprintable()
        assert problem.hint.isprintable()
