"""A layered drawing of a small directed acyclic graph, left to right.

Layers by the longest path to a sink, so that a source stands beside its consumer; long edges get a place in every
layer that they cross; the order inside a layer by barycentres with the fewest crossings kept; heights by isotonic
regression towards the neighbours. Deterministic, and fast enough for some hundred nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 12
_DUMMY_HEIGHT = 10.0
# Closer than this two heights are drawn as one.
_LEVEL = 1.0
_LABEL_GAP = 6.0


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the drawing."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Bend:
    """The edge goes straight until ``begin_x``, then curves to ``end``."""

    begin_x: float
    end: Point


@dataclass(frozen=True, slots=True)
class Route:
    """The way of an edge from the side of its source; the last bend ends at its target."""

    start: Point
    bends: tuple[Bend, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Node centres by id, routes in the order of the edges given, and the size of the whole."""

    nodes: Mapping[str, Point]
    heights: Mapping[str, float]
    routes: tuple[Route, ...]
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Spacing:
    """Sizes in pixels; ``port_in`` is the distance of edges where they enter a node.

    ``curve_width`` is the room beside a layer in which edges change their height, ``level_width`` the room where none
    does.
    """

    node_width: float
    curve_width: float
    level_width: float
    node_gap: float
    port_in: float


@dataclass(frozen=True, slots=True)
class Label:
    """The room that the label of an edge takes beside its source: to the right, above the edge and below it."""

    width: float = 0.0
    above: float = 0.0
    below: float = 0.0

    @property
    def port(self) -> float:
        """The distance to the next edge."""
        return self.above + self.below + _LABEL_GAP


class _Graph:
    """Nodes and dummies in layers; dummies are named by edge index and layer."""

    def __init__(self, nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> None:
        self.layer = _layers(nodes, edges)
        count = max(self.layer.values(), default=-1) + 1
        self.rows: list[list[str]] = [[] for _ in range(count)]
        for node in nodes:
            self.rows[self.layer[node]].append(node)
        self.above: dict[str, list[str]] = {node: [] for node in nodes}
        self.below: dict[str, list[str]] = {node: [] for node in nodes}
        self.chains: list[list[str]] = []
        for index, (source, target) in enumerate(edges):
            chain = [source]
            for layer in range(self.layer[source] + 1, self.layer[target]):
                dummy = f"\0{index}\0{layer}"
                self.rows[layer].append(dummy)
                self.above[dummy], self.below[dummy] = [], []
                chain.append(dummy)
            chain.append(target)
            for left, right in pairwise(chain):
                self.below[left].append(right)
                self.above[right].append(left)
            self.chains.append(chain)

    def crossings(self) -> int:
        total = 0
        for left, right in pairwise(self.rows):
            place = {node: i for i, node in enumerate(right)}
            ends = [sorted(place[target] for target in self.below[node]) for node in left]
            flat = [end for group in ends for end in group]
            total += sum(a > b for i, a in enumerate(flat) for b in flat[i + 1 :])
        return total

    def order(self) -> None:
        best, best_rows = self.crossings(), [list(row) for row in self.rows]
        for sweep in range(_SWEEPS):
            forward = sweep % 2 == 0
            indexes = range(1, len(self.rows)) if forward else range(len(self.rows) - 2, -1, -1)
            neighbours = self.above if forward else self.below
            for index in indexes:
                fixed = {node: float(i) for i, node in enumerate(self.rows[index - 1 if forward else index + 1])}
                here = {node: float(i) for i, node in enumerate(self.rows[index])}
                self.rows[index].sort(key=lambda node: _barycentre(neighbours[node], fixed, here[node]))
            crossings = self.crossings()
            if crossings < best:
                best, best_rows = crossings, [list(row) for row in self.rows]
        self.rows = best_rows


def _layers(nodes: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Layer of each node from the left; raises ValueError for a cycle."""
    targets: dict[str, list[str]] = {node: [] for node in nodes}
    for source, target in edges:
        targets[source].append(target)
    depth: dict[str, int] = {}
    busy: set[str] = set()

    def visit(node: str) -> int:
        if node in depth:
            return depth[node]
        if node in busy:
            raise ValueError(f"the plan has a cycle through {node!r}")
        busy.add(node)
        depth[node] = 1 + max((visit(target) for target in targets[node]), default=-1)
        return depth[node]

    deepest = max((visit(node) for node in nodes), default=0)
    return {node: deepest - depth[node] for node in nodes}


def _barycentre(neighbours: Sequence[str], places: Mapping[str, float], own: float) -> float:
    return sum(places[node] for node in neighbours) / len(neighbours) if neighbours else own


def _settle(wishes: Sequence[float], heights: Sequence[float], gap: float) -> list[float]:
    """Centres as near to ``wishes`` as order and distances allow (least squares, pool adjacent violators)."""
    offsets = [0.0]
    for upper, lower in pairwise(heights):
        offsets.append(offsets[-1] + (upper + lower) / 2 + gap)
    blocks: list[tuple[float, int]] = []
    for wish, offset in zip(wishes, offsets, strict=True):
        total, count = wish - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            previous = blocks.pop()
            total, count = total + previous[0], count + previous[1]
        blocks.append((total, count))
    settled = [total / count for total, count in blocks for _ in range(count)]
    return [base + offset for base, offset in zip(settled, offsets, strict=True)]


def lay_out(
    nodes: Mapping[str, float], edges: Sequence[tuple[str, str]], labels: Sequence[Label], spacing: Spacing
) -> Layout:
    """Places for ``nodes``, given with their least heights, and routes for ``edges`` (source, target).

    An edge stays level for the width of its label after it leaves its source, and no other label is where its own is.
    """
    graph = _Graph(tuple(nodes), edges)
    graph.order()
    ports: dict[str, float] = {}
    needed = {node: max(height, spacing.port_in * len(graph.above[node])) for node, height in nodes.items()}
    for (source, _), label in zip(edges, labels, strict=True):
        ports[source] = max(ports.get(source, 0.0), label.port)
        between = ports[source] * (len(graph.below[source]) - 1)
        needed[source] = max(needed[source], between + 2 * max(label.above, label.below))
    size = {node: needed.get(node, _DUMMY_HEIGHT) for row in graph.rows for node in row}
    y = _vertical(graph, size, spacing.node_gap)
    room = [0.0] * len(graph.rows)
    curve = [spacing.level_width] * len(graph.rows)
    heights_of = _edge_heights(graph, y, ports, spacing)
    for (source, _), label, levels in zip(edges, labels, heights_of, strict=True):
        first = graph.layer[source]
        room[first] = max(room[first], label.width)
        for step, (before, after) in enumerate(pairwise(levels)):
            if abs(before - after) > _LEVEL:
                curve[first + step] = spacing.curve_width
    lefts = [0.0]
    for width, bend in zip(room, curve, strict=True):
        lefts.append(lefts[-1] + spacing.node_width + width + bend)
    return Layout(
        nodes={node: Point(lefts[graph.layer[node]] + spacing.node_width / 2, y[node]) for node in nodes},
        heights=needed,
        routes=tuple(_routes(graph, lefts, curve, heights_of, spacing.node_width)),
        width=lefts[len(graph.rows) - 1] + spacing.node_width if graph.rows else 0.0,
        height=max((y[node] + size[node] / 2 for node in y), default=0.0),
    )


def _vertical(graph: _Graph, size: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights of the centres, drawn towards their neighbours from both sides in turn; the topmost edge is at 0."""
    y: dict[str, float] = {}
    for row in graph.rows:
        y |= zip(row, _settle([0.0] * len(row), [size[node] for node in row], gap), strict=True)
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        neighbours = graph.above if forward else graph.below
        for row in graph.rows if forward else reversed(graph.rows):
            wishes = [_barycentre(neighbours[node], y, y[node]) for node in row]
            y |= zip(row, _settle(wishes, [size[node] for node in row], gap), strict=True)
    top = min((y[node] - size[node] / 2 for node in y), default=0.0)
    return {node: value - top for node, value in y.items()}


def _edge_heights(
    graph: _Graph, y: Mapping[str, float], ports: Mapping[str, float], spacing: Spacing
) -> list[list[float]]:
    """By edge: its height where it leaves, in every layer that it crosses, and where it enters."""
    leaving = _ports([(chain[0], y[chain[1]]) for chain in graph.chains], y, ports)
    entries = dict.fromkeys((chain[-1] for chain in graph.chains), spacing.port_in)
    entering = _ports([(chain[-1], y[chain[-2]]) for chain in graph.chains], y, entries)
    return [
        [leaving[index], *(y[node] for node in chain[1:-1]), entering[index]]
        for index, chain in enumerate(graph.chains)
    ]


def _routes(
    graph: _Graph, lefts: Sequence[float], curve: Sequence[float], heights: Sequence[Sequence[float]], node_width: float
) -> list[Route]:
    routes = []
    for chain, (start, *levels) in zip(graph.chains, heights, strict=True):
        layer = graph.layer[chain[0]]
        bends = [
            Bend(lefts[layer + step] - curve[layer + step - 1], Point(lefts[layer + step], height))
            for step, height in enumerate(levels, start=1)
        ]
        routes.append(Route(Point(lefts[layer] + node_width, start), tuple(bends)))
    return routes


def _ports(ends: Sequence[tuple[str, float]], y: Mapping[str, float], distances: Mapping[str, float]) -> list[float]:
    """Heights at which edges touch a node, in the order of what is at their other ends."""
    groups: dict[str, list[int]] = {}
    for index, (node, _) in enumerate(ends):
        groups.setdefault(node, []).append(index)
    out = [0.0] * len(ends)
    for node, members in groups.items():
        members.sort(key=lambda index: ends[index][1])
        for rank, index in enumerate(members):
            out[index] = y[node] + (rank - (len(members) - 1) / 2) * distances[node]
    return out
