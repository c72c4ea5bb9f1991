"""What is known of every shuffle edge of one query: how it is written, by whom, and where each part lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import sabot_native
from sabot_planner.job.execution_graph import ExecutionGraph
from sabot_planner.job.operators import Column, ShuffleEdge, ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts
from sabot_sql.coordinator.metrics import Figures, added_up, total
from sabot_sql.protocol.task_spec import OutputReport, WriteKind, WriteScheme


class EdgePhase(StrEnum):
    """How far an edge has come."""

    OPEN = "open"
    """Its producers run for the first time."""
    MEASURED = "measured"
    """All producers have committed, and its rows were measured. An output that is lost is written again."""
    RELEASED = "released"
    """Every reader has committed, and the rows are gone."""


@dataclass(frozen=True, slots=True)
class EdgeShuffle:
    """One edge while its query runs.

    ``bounds`` is None until the ranges of a sampled edge are decided. ``measured`` is set once all producers have
    committed, and outlives the outputs. ``key_names`` are the keys behind the hashes of heavy hitters, as far as known.
    """

    edge_id: str
    scheme: WriteScheme
    producers: int
    columns: tuple[Column, ...] = ()
    outputs: Mapping[int, OutputReport] = field(default_factory=dict)
    bounds: tuple[bytes, ...] | None = None
    measured: EdgeFacts | None = None
    phase: EdgePhase = EdgePhase.OPEN
    key_names: Mapping[int, str] = field(default_factory=dict)

    @property
    def released(self) -> bool:
        """Whether its rows are gone."""
        return self.phase is EdgePhase.RELEASED

    @property
    def partitions(self) -> int:
        """How many partitions a committed output has once it can be read."""
        return len(self.bounds) + 1 if self.bounds else self.scheme.partitions

    @property
    def complete(self) -> bool:
        """Every producer task has committed."""
        return not self.released and len(self.outputs) == self.producers

    def missing(self) -> tuple[int, ...]:
        """Producer tasks without a committed output."""
        return tuple(task for task in range(self.producers) if task not in self.outputs)

    def unsplit(self) -> tuple[int, ...]:
        """Producer tasks whose committed output still is one sampled partition although ranges were decided."""
        if not self.bounds:
            return ()
        return tuple(task for task, out in self.outputs.items() if len(out.partition_rows) != self.partitions)

    def partition_bytes(self) -> tuple[int, ...]:
        """Bytes of each partition over all producers."""
        return added_up((output.partition_bytes for output in self.outputs.values()), self.partitions)

    def partition_rows(self) -> tuple[int, ...]:
        """Rows of each partition over all producers."""
        return added_up((output.partition_rows for output in self.outputs.values()), self.partitions)

    def rows_of(self, producers: Iterable[int], first: int, last: int) -> int:
        """Rows of partitions [``first``, ``last``) of these producers."""
        return sum(sum(self.outputs[producer].partition_rows[first:last]) for producer in producers)

    def facts(self) -> EdgeFacts:
        """What was measured, summed over the producers."""
        heavy: dict[int, tuple[int, int]] = {}
        for output in self.outputs.values():
            for key, rows, error in output.heavy:
                known_rows, known_error = heavy.get(key, (0, 0))
                heavy[key] = (known_rows + rows, known_error + error)
        ranked = sorted(((key, rows, error) for key, (rows, error) in heavy.items()), key=lambda h: (-h[1], h[0]))
        figures = total(map(Figures.of, self.outputs.values()))
        return EdgeFacts(
            rows=figures.rows,
            bytes=figures.bytes,
            partition_rows=self.partition_rows(),
            partition_bytes=self.partition_bytes(),
            heavy=tuple(ranked),
            distinct_keys=self._distinct_keys(),
        )

    def _distinct_keys(self) -> int | None:
        """Distinct keys over all producers; None where rows are not hashed, or some were stopped before their end."""
        sketches = [output.key_sketch for output in self.outputs.values()]
        if self.scheme.kind not in (WriteKind.HASH_COLUMN, WriteKind.HASH_COLUMNS) or None in sketches:
            return None
        return sabot_native.distinct_count(sketch for sketch in sketches if sketch is not None)


@dataclass(slots=True)
class EdgeBook:
    """Keeps the shuffle edges of one query; it decides nothing and does no I/O."""

    query_id: str
    _edges: dict[str, EdgeShuffle] = field(init=False, default_factory=dict)
    _declared: dict[str, ShuffleEdge] = field(init=False, default_factory=dict)
    _written: dict[str, str] = field(init=False, default_factory=dict)
    _agents: list[str] = field(init=False, default_factory=list)

    def initialize(self, execution_graph: ExecutionGraph) -> None:
        """Take note of the edges of ``execution_graph``; may be called again when the plan was revised."""
        self._declared = {edge.edge_id: edge for edge in execution_graph.edges}
        # An edge that a revision took out is still asked for: by the stage that wrote it.
        self._written |= {edge.edge_id: edge.written_id for edge in self._declared.values()}

    def register_shuffles_with_agents(self, agents: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """Agent → the edges that it has to know before its first task; agents that know them already are left out."""
        new = [agent for agent in agents if agent not in self._agents]
        self._agents += new
        return {agent: tuple(self._declared) for agent in new}

    def forget_agents(self) -> None:
        """No agent knows the edges any more."""
        self._agents.clear()

    def registered(self) -> Mapping[str, tuple[str, ...]]:
        """Agent → the edges, for all agents that were told of them."""
        return {agent: tuple(self._declared) for agent in self._agents}

    def open(self, edge_id: str, scheme: WriteScheme, producers: int) -> EdgeShuffle:
        """Start an edge: its producers are about to write it so."""
        self._edges[edge_id] = EdgeShuffle(edge_id, scheme, producers)
        return self._edges[edge_id]

    def edge_type(self, edge_id: str) -> str:
        """The name of the edge's type; FORWARD for the result, which is no edge of the graph."""
        declared = self._declared.get(edge_id)
        return (declared.edge_type if declared else ShuffleEdgeType.FORWARD).name

    def update(self, edge_id: str, **changes: Any) -> EdgeShuffle:
        """Change fields of what is read over the edge of that id."""
        written = self.written(edge_id)
        self._edges[written] = replace(self._edges[written], **changes)
        return self._edges[written]

    def edges(self) -> tuple[EdgeShuffle, ...]:
        """Every edge that was opened."""
        return tuple(self._edges.values())

    def edge(self, edge_id: str) -> EdgeShuffle:
        """What is read over the edge of that id, which was opened: its own output, or the one that it rereads."""
        return self._edges[self.written(edge_id)]

    def find(self, edge_id: str) -> EdgeShuffle | None:
        """As :meth:`edge`, if its producers have started."""
        return self._edges.get(self.written(edge_id))

    def committed(self, edges: Iterable[ShuffleEdge]) -> bool:
        """Whether all producers of all these edges have committed."""
        found = [self.find(edge.edge_id) for edge in edges]
        return all(shuffle is not None and shuffle.complete for shuffle in found)

    def written(self, edge_id: str) -> str:
        """The edge whose committed output a reader of ``edge_id`` reads."""
        return self._written.get(edge_id, edge_id)

    def readers(self, edge_id: str) -> frozenset[str]:
        """The operators that read what was written for an edge."""
        return frozenset(edge.target for edge in self._declared.values() if edge.written_id == edge_id)
