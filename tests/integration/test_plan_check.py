"""`batch plan --check`: what each task would change, said by its operation, with nothing changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from provisioning.storage.check import check
from tests.installation import Installation

pytestmark = pytest.mark.nu


def plan(site: Installation, tasks: list[dict[str, Any]], *options: str, ok: int = 0) -> str:
    """What `batch plan` prints on stdout."""
    manifest = site.root / "m.json"
    manifest.write_text(json.dumps({"schema": 1, "name": "n" * 100, "infra": "default", "tasks": tasks}))
    process = site.start("batch", "plan", str(manifest), *options)
    assert process.wait(60) == ok, site.said()
    return max(site.root.glob("said.*"), key=lambda path: int(path.suffix[1:])).read_text()


def adjust(task_id: str, path: Path, text: str, **more: Any) -> dict[str, Any]:
    return {"id": task_id, "operation": "trial.adjust", "params": {"path": str(path), "text": text}, **more}


@pytest.fixture
def tasks(site: Installation) -> list[dict[str, Any]]:
    """A change, nothing to do, one that cannot say it yet, one that waits for a result, and one that never can."""
    (site.root / "right").write_text("right")
    (site.root / "wrong").write_text("wrong")
    return [
        site.mark("mark"),
        adjust("right", site.root / "right", "right", depends_on=["mark"]),
        adjust("wrong", site.root / "wrong", "right", depends_on=["mark"]),
        adjust("later", site.root / "none" / "file", "x", retry={"max_attempts": 3, "initial_delay": "1h"}),
        adjust("told", site.root / "right", "${tasks.wrong.result.before}", depends_on=["wrong"]),
    ]


def test_what_each_task_would_change(site: Installation, tasks: list[dict[str, Any]]) -> None:
    said = plan(site, tasks, "--check")
    rows = dict(line.split(None, 1) for line in said.splitlines() if line.startswith(("right ", "wrong ", "later ")))
    assert rows["right"] == "nothing"
    assert rows["wrong"] == "before: wrong"
    assert rows["later"].startswith("not known: provisioning::trial::not-found: there is no folder")
    assert "not known before it runs: ${tasks.wrong.result.before}" in said
    assert "cannot say it: selftest.mark" in said
    assert ((site.root / "wrong").read_text(), site.mark_lines()) == ("wrong", [])
    assert check(site.spool.root) == []


def test_the_same_as_json(site: Installation, tasks: list[dict[str, Any]]) -> None:
    said = plan(site, tasks, "--check", "--json")
    found = {task["task_id"]: task["check"] for task in json.loads(said[said.index("{\n") :])["tasks"]}
    assert found["mark"] is None
    assert found["wrong"] == {"result": {"path": str(site.root / "wrong"), "before": "wrong", "changed": True}}
    assert found["right"]["result"]["changed"] is False
    assert found["later"]["error"]["code"] == "provisioning::trial::not-found"
    assert found["told"] == {"unknown": ["${tasks.wrong.result.before}"]}


def test_nothing_is_asked_unless_it_is_wanted(site: Installation, tasks: list[dict[str, Any]]) -> None:
    assert "4 of 5 tasks can say what they would change now: add --check" in plan(site, tasks)
    assert "check" not in json.loads(plan(site, tasks, "--json"))["tasks"][1]
    assert site.spool.claimed_ids() == []
    assert "add --check" not in plan(site, tasks[:1])
    assert "cannot say it: selftest.mark" in plan(site, tasks[:1], "--check")
    assert site.spool.claimed_ids() == []
