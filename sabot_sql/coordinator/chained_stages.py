"""Stages: operators that FORWARD edges chain run as one task each, in one place, as one DuckDB statement."""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Placement, ShuffleEdge, ShuffleEdgeType


@dataclass(frozen=True, slots=True)
class Stage:
    """A chain of operators; the last of ``operators`` is the one whose rows leave, and gives the stage its id."""

    operators: tuple[str, ...]
    parallelism: int
    placement: Placement
    inputs: tuple[ShuffleEdge, ...]
    """Edges that come from outside the chain."""
    outputs: tuple[ShuffleEdge, ...]
    start_after: frozenset[str]
    slices: bool = False
    """Its tasks also read slices of a source, which are worth all the planned tasks."""
    keyed: bool = False
    """An operator of it keeps state by key: its inputs must be partitioned alike."""
    whole: bool = False
    """Its one task must read all rows: an operator of it would be apart from others, had it more tasks."""

    @property
    def stage_id(self) -> str:
        """The id of the chain's last operator."""
        return self.operators[-1]


def stages_of(graph: OperatorGraph, started: Set[str]) -> tuple[Stage, ...]:
    """The stages of all operators that are not in ``started``, producers first."""
    absorbed = {edge.source for edge in graph.edges if _chained(graph, edge, started)}
    tails = [op for op in graph.topological_order() if op not in started and op not in absorbed]
    return tuple(_stage(graph, tail, started) for tail in tails)


def chained_inputs(graph: OperatorGraph, operator_id: str, members: Iterable[str]) -> tuple[ShuffleEdge, ...]:
    """The edges into ``operator_id`` from other members of its chain."""
    inside = set(members)
    return tuple(edge for edge in graph.inputs_of(operator_id) if edge.source in inside)


def _stage(graph: OperatorGraph, tail: str, started: Set[str]) -> Stage:
    members: list[str] = []
    inputs: list[ShuffleEdge] = []

    def visit(operator_id: str) -> None:
        for edge in graph.inputs_of(operator_id):
            if _chained(graph, edge, started):
                visit(edge.source)
            else:
                inputs.append(edge)
        members.append(operator_id)

    visit(tail)
    nodes = [graph.operator(member) for member in members]
    after = {operator for node in nodes for operator in node.start_after} - set(members)
    return Stage(
        tuple(members),
        nodes[-1].parallelism,
        nodes[-1].placement,
        tuple(inputs),
        graph.outputs_of(tail),
        frozenset(after),
        slices=any(scan.sliced for node in nodes for scan in node.scans),
        keyed=any(node.key_by for node in nodes),
    )


def _chained(graph: OperatorGraph, edge: ShuffleEdge, started: Set[str]) -> bool:
    """Whether ``edge`` needs no network: its two operators then run as one statement per task.

    A source that several edges leave, or that its consumer reads twice, would be computed twice; it is materialised.
    """
    if edge.edge_type is not ShuffleEdgeType.FORWARD or edge.written_as is not None or edge.source == graph.sink:
        return False
    if edge.source in started or edge.target in started or len(graph.outputs_of(edge.source)) != 1:
        return False
    source, target = graph.operator(edge.source), graph.operator(edge.target)
    if source.placement is not target.placement or source.apart or source.function:
        return False  # what goes through a Python function has left DuckDB
    return edge.reads is not None and edge.reads <= 1
