"""The operator graph: operators joined by shuffle edges, before they are expanded to tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from sabot_planner.errors import InvalidGraph
from sabot_planner.job.execution_graph import ExecutionGraph, expanded
from sabot_planner.job.operators import Operator, ShuffleEdge, ShuffleEdgeType


@dataclass(frozen=True, slots=True)
class ResultParts:
    """The rows of the result are parted by the hash in ``column``, and read part by part, in each in task order."""

    column: str
    count: int


def partition_hashes(count: int) -> list[int]:
    """For each of ``count`` partitions a hash that falls into it, which is ``((hash >> 32) * count) >> 32``."""
    return [-(-(i << 32) // count) << 32 for i in range(count)]


@dataclass(frozen=True, slots=True)
class OperatorGraph:
    """A directed acyclic graph of operators and shuffle edges; ``sink`` is the operator whose rows are the result.

    ``ordered`` says that the sink's tasks, read in task order, give the rows in the promised order; with
    ``result_parts`` it is the parts of the result that come in order.

    Raises:
        InvalidGraph: a duplicate id, an edge to an unknown operator, a cycle, or a FORWARD edge between operators
            of different parallelism.
    """

    operators: tuple[Operator, ...]
    edges: tuple[ShuffleEdge, ...] = ()
    sink: str = ""
    ordered: bool = False
    result_parts: ResultParts | None = None
    _by_id: Mapping[str, Operator] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        by_id = {node.operator_id: node for node in self.operators}
        object.__setattr__(self, "_by_id", by_id)
        if len(by_id) != len(self.operators):
            raise InvalidGraph(f"duplicate operator id among {[n.operator_id for n in self.operators]}")
        if len({edge.edge_id for edge in self.edges}) != len(self.edges):
            raise InvalidGraph(f"duplicate edge id among {[e.edge_id for e in self.edges]}")
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in by_id:
                    raise InvalidGraph(f"edge {edge.edge_id!r} names operator {end!r}; there are {sorted(by_id)}")
            if edge.edge_type is ShuffleEdgeType.FORWARD:
                left, right = by_id[edge.source].parallelism, by_id[edge.target].parallelism
                if left != right:
                    raise InvalidGraph(
                        f"FORWARD edge {edge.edge_id!r} joins parallelism {left} to {right}; it needs equal ones"
                    )
        if not self.sink:
            sinks = [n.operator_id for n in self.operators if not self.outputs_of(n.operator_id)]
            if len(sinks) != 1:
                raise InvalidGraph(f"name the sink: operators without outgoing edges are {sinks}")
            object.__setattr__(self, "sink", sinks[0])
        self.topological_order()

    def operator(self, operator_id: str) -> Operator:
        """The operator of that id."""
        try:
            return self._by_id[operator_id]
        except KeyError:
            raise InvalidGraph(f"no operator {operator_id!r}; there are {sorted(self._by_id)}") from None

    def inputs_of(self, operator_id: str) -> tuple[ShuffleEdge, ...]:
        """Incoming edges, in declaration order."""
        return tuple(edge for edge in self.edges if edge.target == operator_id)

    def outputs_of(self, operator_id: str) -> tuple[ShuffleEdge, ...]:
        """Outgoing edges, in declaration order."""
        return tuple(edge for edge in self.edges if edge.source == operator_id)

    def topological_order(self) -> tuple[str, ...]:
        """Operator ids, producers before consumers."""
        sorter: TopologicalSorter[str] = TopologicalSorter({n.operator_id: () for n in self.operators})
        for edge in self.edges:
            sorter.add(edge.target, edge.source)
        try:
            return tuple(sorter.static_order())
        except CycleError as error:
            raise InvalidGraph(f"the operator graph has a cycle: {' -> '.join(error.args[1])}") from None

    def to_execution_graph(self) -> ExecutionGraph:
        """All tasks of this graph, producers before consumers."""
        return expanded(map(self.operator, self.topological_order()), self.edges)
