"""Turns a graph of tasks into a manifest of operations that do nothing: `python graphs.py FILE > manifest.json`.

The graph is `{"name", "tasks": [{"id", "needs": [ids]}]}`, with ids that a manifest may not have.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

LONGEST_ID = 64


def sane_ids(ids: list[str]) -> dict[str, str]:
    """For each id the one that the manifest has: lower case, allowed characters, and still no two alike."""
    made: dict[str, str] = {}
    taken: set[str] = set()
    for name in ids:
        base = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:LONGEST_ID] or "task"
        candidate, number = base, 1
        while candidate in taken:
            number += 1
            ending = f"-{number}"
            candidate = base[: LONGEST_ID - len(ending)] + ending
        taken.add(candidate)
        made[name] = candidate
    return made


def manifest_of(graph: dict[str, Any]) -> dict[str, Any]:
    """The manifest, its tasks in the order of the graph."""
    ids = sane_ids([task["id"] for task in graph["tasks"]])
    name = sane_ids([graph.get("name", "graph")]).popitem()[1]
    tasks = []
    for task in graph["tasks"]:
        made: dict[str, Any] = {"id": ids[task["id"]], "operation": "selftest.noop"}
        if needs := [ids[other] for other in dict.fromkeys(task["needs"])]:
            made["depends_on"] = needs
        tasks.append(made)
    return {"schema": 1, "name": name, "tasks": tasks}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(manifest_of(json.loads(Path(sys.argv[1]).read_text("utf-8")))) + "\n")
