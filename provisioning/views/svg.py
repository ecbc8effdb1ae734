"""Pictures of a workflow: its graph, and its attempts over time. Colours are classes, so that the page decides them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from provisioning.views.graph_shape import Shape, states_of
from provisioning.views.groups import told
from provisioning.views.layout import layout
from provisioning.views.markup import Html, tag
from provisioning.views.table import cut
from provisioning.views.text import duration
from provisioning.views.timeline import Bar, Timeline

MARKS = {
    "succeeded": "✓",
    "failed": "✗",
    "running": "▶",
    "pending": "○",
    "skipped": "»",
    "cancelled": "⊘",
    "undone": "↺",
    "interrupted": "⚡",
    "timed_out": "⏱",
}
"""A sign for each state and outcome, as colours alone do not tell everybody."""
WORST = ("failed", "running", "cancelled", "pending", "skipped", "undone", "succeeded")
"""Which state a node of several tasks has: the first of these."""

SVG = "http://www.w3.org/2000/svg"
"""The name of the language, which a picture by itself has to say; nobody asks that address."""
_WIDTH, _HEIGHT = 176, 44
_GAP_ALONG, _GAP_ACROSS, _GAP_DOWN = 56, 14, 32
_WIDE = 1160
_MARGIN = 8


class Picture(NamedTuple):
    """An SVG element and how wide it wants to be, in pixels."""

    svg: Html
    width: int


def graph_svg(shape: Shape, states: Sequence[str], chain: frozenset[int], *, label: str) -> Picture:
    """The graph, from left to right or from top to bottom, whichever is less wide. `chain` took longest, by number."""
    edges = [(edge.source, edge.target) for edge in shape.edges]
    placed = layout(shape.layers, edges)
    layers = max(shape.layers, default=0)
    right = layers * (_WIDTH + _GAP_ALONG) + _WIDTH
    down = placed.width * (_WIDTH + _GAP_ACROSS) + _WIDTH
    sideways = right <= max(_WIDE, down)
    place = _sideways if sideways else _downwards
    spots = [place(shape.layers[k], placed.across[k]) for k in range(len(shape.nodes))]
    width = (right if sideways else down) + 2 * _MARGIN
    across = placed.width * (_HEIGHT + _GAP_ACROSS) if sideways else layers * (_HEIGHT + _GAP_DOWN)
    height = across + _HEIGHT + 2 * _MARGIN
    drawn = []
    for edge in shape.edges:
        first = shape.layers[edge.source]
        between = [place(first + i, at) for i, at in enumerate(placed.bends.get((edge.source, edge.target), ()), 1)]
        points = [spots[edge.source], *between, spots[edge.target]]
        hot = {*shape.nodes[edge.source].tasks} & chain and {*shape.nodes[edge.target].tasks} & chain
        classes = " ".join(["edge", *(["after"] if not edge.must_succeed else []), *(["chain"] if hot else [])])
        drawn.append(tag("path", d=_curve(points, sideways=sideways), class_=classes))
    for k, node in enumerate(shape.nodes):
        counts = states_of(node, states)
        state = next((each for each in WORST if each in counts), "pending")
        about = f"{node.name} ({node.detail}): {told(counts) if len(node.tasks) > 1 else state}"
        classes = f"node {state}" + (" chain" if {*node.tasks} & chain else "")
        drawn.append(_node(spots[k], node.name, _detail(node.detail, counts, len(node.tasks)), (state, about, classes)))
    svg = tag(
        "svg",
        tag("title", label, id="graph-label"),
        tag("desc", _described(shape, states), id="graph-about"),
        drawn,
        xmlns=SVG,
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        role="img",
        aria_labelledby="graph-label graph-about",
        class_="graph",
    )
    return Picture(svg, round(width))


def _sideways(layer: int, across: float) -> tuple[float, float]:
    return _MARGIN + layer * (_WIDTH + _GAP_ALONG), _MARGIN + across * (_HEIGHT + _GAP_ACROSS)


def _downwards(layer: int, across: float) -> tuple[float, float]:
    return _MARGIN + across * (_WIDTH + _GAP_ACROSS), _MARGIN + layer * (_HEIGHT + _GAP_DOWN)


def _curve(points: Sequence[tuple[float, float]], *, sideways: bool) -> str:
    """A line from the first box through the places between to the last one, bent nowhere."""
    (x, y), (to_x, to_y) = points[0], points[-1]
    if sideways:
        middle = [(at[0] + _WIDTH / 2, at[1] + _HEIGHT / 2) for at in points[1:-1]]
        track = [(x + _WIDTH, y + _HEIGHT / 2), *middle, (to_x, to_y + _HEIGHT / 2)]
    else:
        middle = [(at[0] + _WIDTH / 2, at[1] + _HEIGHT / 2) for at in points[1:-1]]
        track = [(x + _WIDTH / 2, y + _HEIGHT), *middle, (to_x + _WIDTH / 2, to_y)]
    said = f"M{track[0][0]:.0f} {track[0][1]:.0f}"
    for (ax, ay), (bx, by) in itertools.pairwise(track):
        if sideways:
            half = max(24.0, abs(bx - ax) / 2)
            said += f"C{ax + half:.0f} {ay:.0f} {bx - half:.0f} {by:.0f} {bx:.0f} {by:.0f}"
        else:
            half = max(20.0, abs(by - ay) / 2)
            said += f"C{ax:.0f} {ay + half:.0f} {bx:.0f} {by - half:.0f} {bx:.0f} {by:.0f}"
    return said


def _node(at: tuple[float, float], name: str, detail: str, look: tuple[str, str, str]) -> Html:
    state, about, classes = look
    x, y = at
    return tag(
        "g",
        tag("title", about),
        tag("rect", x=f"{x:.0f}", y=f"{y:.0f}", width=_WIDTH, height=_HEIGHT, rx=7, class_="box"),
        tag("path", d=f"M{x + 7:.0f} {y:.0f}h-1a6 6 0 0 0 -6 6v{_HEIGHT - 12}a6 6 0 0 0 6 6h1z", class_="bar"),
        tag("text", cut(name, 22), x=f"{x + 14:.0f}", y=f"{y + 18:.0f}", class_="name"),
        tag("text", cut(detail, 25), x=f"{x + 14:.0f}", y=f"{y + 35:.0f}", class_="detail"),
        tag("text", MARKS[state], x=f"{x + _WIDTH - 17:.0f}", y=f"{y + 18:.0f}", class_="mark"),
        class_=classes,
    )


def _detail(detail: str, counts: Mapping[str, int], tasks: int) -> str:
    if tasks == 1:
        return detail
    return " ".join(f"{MARKS[state]}{count}" for state, count in counts.items()) + f" {detail}"


def _described(shape: Shape, states: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    text = f"{len(shape.nodes)} nodes, {len(shape.edges)} edges; tasks: {told(counts)}. {shape.collapsed}"
    return f"{text} The table of tasks says of each what it waits for."


# Attempts over time

_LEFT, _ROW, _BAR = 64, 24, 18
_SPAN = 1080
_NARROWEST = 1.5
"""Pixels: what is narrower is drawn together with its neighbours of the same outcome."""


def timeline_svg(line: Timeline, *, label: str) -> Picture:
    """A row for each slot, a bar for each attempt; the chain that took longest is framed."""
    seconds = line.seconds or 1.0
    chain = {link.task_id for link in line.chain}
    height = len(line.rows) * _ROW + 34
    scale: Callable[[float], float] = lambda at: _LEFT + at / seconds * _SPAN  # noqa: E731 - used in one place
    drawn = []
    for at in ticks(seconds):
        x = f"{scale(at):.1f}"
        drawn.append(tag("line", x1=x, x2=x, y1=4, y2=height - 24, class_="tick"))
        drawn.append(tag("text", f"{at:g}s" if at < 10 else duration(at), x=x, y=height - 8, class_="axis"))
    for number, row in enumerate(line.rows):
        y = number * _ROW + 4
        drawn.append(tag("text", f"slot {number + 1}", x=_LEFT - 8, y=y + 13, class_="slot"))
        runs = merged(row, seconds / _SPAN * _NARROWEST, chain)
        drawn += [_bar(run, scale(run[0].begin), scale(max(bar.end for bar in run)), y, chain) for run in runs]
    attempts = sum(map(len, line.rows))
    svg = tag(
        "svg",
        tag("title", label, id="time-label"),
        tag("desc", f"{attempts} attempts in {len(line.rows)} slots within {duration(seconds)}.", id="time-about"),
        drawn,
        xmlns=SVG,
        viewBox=f"0 0 {_LEFT + _SPAN + 24} {height}",
        width=_LEFT + _SPAN + 24,
        height=height,
        role="img",
        aria_labelledby="time-label time-about",
        class_="time",
    )
    return Picture(svg, _LEFT + _SPAN + 24)


def merged(row: Sequence[Bar], narrow: float, chain: set[str]) -> list[list[Bar]]:
    """The bars of a row, those that are too narrow to be seen together with their neighbours of the same outcome."""
    runs: list[list[Bar]] = []
    for bar in row:
        last = runs[-1] if runs else None
        thin = bar.end - bar.begin < narrow and bar.task_id not in chain
        before = last[-1] if last else None
        thin_too = before is not None and before.end - before.begin < narrow and before.task_id not in chain
        near = before is not None and bar.begin - before.end < narrow and bar.outcome == before.outcome
        if last and thin and thin_too and near:
            last.append(bar)
        else:
            runs.append([bar])
    return runs


def _bar(run: Sequence[Bar], x: float, to_x: float, y: int, chain: set[str]) -> Html:
    first = run[0]
    width = max(_NARROWEST, to_x - x)
    took = duration(max(bar.end for bar in run) - first.begin)
    number = f", attempt {first.attempt}" if first.attempt > 1 else ""
    about = f"{first.task_id}{number}: {first.outcome}, {took}, from {duration(first.begin)} on"
    if len(run) > 1:
        about = f"{len(run)} attempts, {first.task_id} to {run[-1].task_id}: {first.outcome}, {took} together"
    name = f"{MARKS.get(first.outcome, '')} {first.task_id}" if len(run) == 1 else f"{len(run)}"
    fits = int((width - 8) / 6.6)
    shown = (
        cut(name, fits) if fits >= 3 else MARKS.get(first.outcome, "") if first.outcome != "succeeded" and fits else ""
    )
    return tag(
        "g",
        tag("title", about),
        tag("rect", x=f"{x:.1f}", y=y, width=f"{width:.1f}", height=_BAR, rx=min(3.0, width / 2), class_="box"),
        tag("text", shown, x=f"{x + 4:.1f}", y=y + 13) if shown else None,
        class_=f"attempt {first.outcome}" + (" chain" if first.task_id in chain else ""),
    )


def ticks(seconds: float, most: int = 8) -> list[float]:
    """Round instants on an axis from 0 on, as many as it may have at most, and no more than go into the time."""
    steps = [unit * factor for unit in (0.001, 0.01, 0.1, 1) for factor in (1, 2, 5)]
    steps += [10, 15, 30, *(60 * n for n in (1, 2, 5, 10, 15, 30)), *(3600 * n for n in (1, 2, 3, 6, 12))]
    step = next((each for each in steps if seconds / each < most), 0.0)
    if not step:
        step = 86400.0
        while seconds / step >= most:
            step *= 2
    return [i * step for i in range(int(seconds / step) + 1)]
