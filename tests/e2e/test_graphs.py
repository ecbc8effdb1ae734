"""Graphs as people have them, from a file through the command line to the end: each task once and in order."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import graphs
from tests.installation import Installation

pytestmark = pytest.mark.nu

LAYERS = 4
WIDTH = 6


@pytest.fixture
def site(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A spool and a configuration; every process started on it ends with the test."""
    made = Installation(tmp_path, tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


def layered() -> dict[str, Any]:
    """Every task needs all of the layer before it; the ids are not a manifest's."""
    ids = [[f"Layer{layer}::Task {number}" for number in range(WIDTH)] for layer in range(LAYERS)]
    tasks = [
        {"id": name, "needs": ids[layer - 1] if layer else []} for layer, names in enumerate(ids) for name in names
    ]
    return {"name": "Layered (small)", "tasks": tasks[::-1]}


def fan() -> dict[str, Any]:
    """One task, many that need it, one that needs them all, and one that stands alone."""
    middle = [f"aws_subnet.private[{number}]" for number in range(8)]
    tasks = [{"id": "aws_vpc.this", "needs": []}, *({"id": name, "needs": ["aws_vpc.this"]} for name in middle)]
    return {"name": "fan", "tasks": [*tasks, {"id": "Output", "needs": middle}, {"id": "alone", "needs": []}]}


def converted(graph: dict[str, Any], folder: Path) -> Path:
    """The manifest that the converter's command line makes of the graph."""
    file, manifest = folder / "graph.json", folder / "manifest.json"
    file.write_text(json.dumps(graph))
    with open(manifest, "wb") as out:
        subprocess.run([sys.executable, graphs.__file__, str(file)], stdout=out, check=True)
    return manifest


@pytest.mark.parametrize("graph", [layered(), fan()], ids=lambda graph: graph["name"].split()[0].lower())
def test_every_task_runs_once_after_what_it_needs(site: Installation, graph: dict[str, Any], tmp_path: Path) -> None:
    submitted = site.start("batch", "submit", str(converted(graph, tmp_path)))
    assert submitted.wait(30) == 0, site.said()
    (workflow_id,) = site.spool.incoming_ids()
    assert site.drain(slots=10) == 0, site.said()
    ids = graphs.sane_ids([task["id"] for task in graph["tasks"]])
    ends = {name: site.outcome(workflow_id, task_id) for name, task_id in ids.items()}
    for task in graph["tasks"]:
        assert site.outcomes(workflow_id, ids[task["id"]]) == ["succeeded"]
        assert all(ends[other].ended_at <= ends[task["id"]].started_at for other in task["needs"])
    assert len(list((site.folder(workflow_id).path / "outcomes").iterdir())) == len(graph["tasks"])


def test_a_ring_is_refused_by_name(site: Installation, tmp_path: Path) -> None:
    ring = {
        "name": "ring",
        "tasks": [
            {"id": "Server", "needs": ["Volume"]},
            {"id": "Network", "needs": []},
            {"id": "Volume", "needs": ["Attachment", "Network"]},
            {"id": "Attachment", "needs": ["Server"]},
        ],
    }
    submitted = site.start("batch", "submit", str(converted(ring, tmp_path)))
    assert submitted.wait(30) == 3
    said = site.said()
    assert "server → volume → attachment → server" in said
    assert "network" not in said
    assert site.spool.workflow_ids() == []


def test_ids_stay_apart() -> None:
    names = ["A B", "a-b", "a.b", "[]", "()", "x" * 80, "x" * 80 + "y", "_", "7"]
    made = graphs.sane_ids(names)
    assert len({*made.values()}) == len(names)
    assert all(len(name) <= 64 and name[0].isalnum() for name in made.values())
