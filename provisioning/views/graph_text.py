"""The graph of a workflow: as text, in an order in which it can be done, and in the language of Graphviz."""

from __future__ import annotations

from typing import Any

from provisioning.core.workflow import Workflow
from provisioning.views.table import table

_COLOURS = {
    "succeeded": "palegreen",
    "failed": "salmon",
    "running": "lightblue",
    "undone": "khaki",
    "skipped": "lightgrey",
    "cancelled": "lightgrey",
}


def graph_page(workflow: Workflow, states: dict[str, str]) -> dict[str, Any]:
    """Nodes and edges; the state of each task where it has one."""
    nodes = [{"task_id": task.id, "operation": task.operation, "state": states.get(task.id)} for task in workflow.tasks]
    edges = [
        {"from": name, "to": task.id, "kind": kind}
        for task in workflow.tasks
        for kind, names in (("depends_on", task.depends_on), ("after", task.after))
        for name in names
    ]
    return {"name": workflow.name, "nodes": nodes, "edges": edges}


def graph_text(workflow: Workflow, states: dict[str, str], *, width: int | None = None) -> str:
    """A line for each task, behind those that it waits for; `~` is before what must only have ended."""
    from provisioning.core.graph import Graph

    graph = Graph(workflow.tasks)
    rows = []
    for i in graph.order:
        if i >= graph.size:
            continue
        task = workflow.tasks[i]
        waits = ", ".join([*task.depends_on, *(f"~{name}" for name in task.after)])
        rows.append([task.id, task.operation, states.get(task.id, ""), waits])
    return table(rows, ["task", "operation", "state", "waits for"], width=width)


def graph_dot(workflow: Workflow, states: dict[str, str]) -> str:
    """The graph for Graphviz: an edge that is dashed only has to have ended, a group is a diamond."""
    page = graph_page(workflow, states)
    known = {node["task_id"] for node in page["nodes"]}
    lines = [
        f"digraph {_quoted(page['name'])} {{",
        "  rankdir=LR;",
        "  node [shape=box, style=filled, fillcolor=white];",
    ]
    for node in page["nodes"]:
        label = _quoted(f"{node['task_id']}\n{node['operation']}")
        colour = _COLOURS.get(node["state"] or "", "white")
        lines.append(f"  {_quoted(node['task_id'])} [label={label}, fillcolor={colour}];")
    groups = dict.fromkeys(edge["from"] for edge in page["edges"] if edge["from"] not in known)
    for group in groups:
        lines.append(f"  {_quoted(group)} [shape=diamond];")
        members = (name for name in known if name.startswith(f"{group}."))
        lines += [f"  {_quoted(name)} -> {_quoted(group)};" for name in sorted(members)]
    for edge in page["edges"]:
        style = " [style=dashed]" if edge["kind"] == "after" else ""
        lines.append(f"  {_quoted(edge['from'])} -> {_quoted(edge['to'])}{style};")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
