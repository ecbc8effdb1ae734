"""The two pictures of a workflow, each with what has to be said beside it: of reports and of the gateway's page."""

from __future__ import annotations

from typing import NamedTuple

from provisioning.core.graph import Graph
from provisioning.core.workflow import Workflow
from provisioning.views.graph_shape import shape_of
from provisioning.views.markup import Html
from provisioning.views.status import Page
from provisioning.views.svg import graph_svg, timeline_svg
from provisioning.views.timeline import Timeline


class Drawn(NamedTuple):
    """An SVG element, and how to read it."""

    svg: Html
    note: str


def drawn_graph(page: Page, workflow: Workflow, graph: Graph, line: Timeline) -> Drawn:
    """Who waits for whom, coloured by the states of the page."""
    states = {task["task_id"]: task["state"] for task in page["tasks"]}
    shape = shape_of(workflow.tasks, graph)
    chain = frozenset(graph.index[link.task_id] for link in line.chain)
    label = f"Who waits for whom in {page['name']}"
    picture = graph_svg(shape, [states.get(task.id, "pending") for task in workflow.tasks], chain, label=label)
    said = "A dashed edge only has to have ended; heavy lines are the chain that took longest."
    return Drawn(picture.svg, f"{shape.collapsed} {said}".strip())


def drawn_timeline(page: Page, line: Timeline) -> Drawn:
    """When the attempts ran; there is at least one."""
    said = "A bar is an attempt, a row what one slot did; framed are those of the chain that took longest."
    return Drawn(timeline_svg(line, label=f"When the attempts of {page['name']} ran").svg, said)
