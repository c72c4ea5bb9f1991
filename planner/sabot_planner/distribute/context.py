"""What the functions that place operators share: what is known of types and sizes, and how rows are moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Hashed,
    Replicated,
    SinglePartition,
)
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.repeat import is_repeatable, source_rows
from sabot_planner.distribute.row_order import (
    branches_of,
    joins_one_row,
    numbered_branches,
    order_is_unions,
    ordered_by,
    to_keep_in_order,
)
from sabot_planner.errors import Undistributable
from sabot_planner.job.operator_graph import ResultParts, partition_hashes
from sabot_planner.job.operators import RangeSplit, ShuffleEdgeType
from sabot_planner.job.plan import PlanContext, PlanSettings
from sabot_planner.logical.expression_types import Named, computed, types_of
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, Schema, replace_inputs, width_bytes
from sabot_planner.logical.nodes import CteRef, Join, SetKind, SetOp, Sort
from sabot_planner.physical.nodes import EdgeEstimate, Exchange, Repeated
from sabot_planner.sql.duck_type import DuckType, lost_on_edges
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.scalars import key_name
from sabot_planner.stats.estimates import Estimator

_MOST_BRANCHES = 256
"""Every part of the result is an open batch in every task that writes."""

PlaceNode = Callable[["PlacementContext", Node, bool], Placed]


@dataclass(slots=True)
class PlacementContext:
    """The state of one walk over a logical plan, given to every function that places an operator.

    ``splits`` maps the first column name of a scan to the column by whose ranges it is cut, and the ranges.
    ``place_node`` places one node of any kind; it calls back here for the inputs.
    ``in_order`` are the nodes whose rows are computed in DuckDB's own order, with care; see :func:`to_keep_in_order`.
    ``result_parts`` says how the rows of the result are parted, where their tasks alone do not give the order.
    ``gathered`` collects why rows went to one task although their operator might have been split.
    """

    catalog: PlanContext
    names: PlanNames
    estimator: Estimator
    width: int
    splits: Mapping[str, tuple[str, RangeSplit]]
    place_node: PlaceNode
    in_order: frozenset[Node] = frozenset()
    result_parts: ResultParts | None = None
    gathered: list[str] = field(default_factory=list)
    _placed: dict[tuple[Node, bool], Placed] = field(default_factory=dict)

    @property
    def settings(self) -> PlanSettings:
        """The planner's thresholds."""
        return self.catalog.settings

    def place(self, node: Node, parallel: bool = True) -> Placed:
        """The node placed; without ``parallel`` in one task, whatever it reads."""
        key = (node, parallel)
        known = self._placed.get(key)
        if known is None:
            self.catalog.check()
            known = self._placed[key] = self.place_node(self, node, parallel)
            self.estimator.same(known.node, node)
        return known

    # --- types

    def types_of(self, expressions: Sequence[exp.Expression], node: Node) -> tuple[DuckType, ...]:
        """Types of expressions over the columns of ``node``."""
        return types_of(expressions, node.schema, self.catalog)

    def computed(self, items: Iterable[Named], node: Node) -> tuple[Computed, ...]:
        """The columns ``items`` over those of ``node``, with their types."""
        return computed(items, node.schema, self.catalog)

    # --- moving rows

    def exchange(
        self,
        placed: Placed,
        edge_type: ShuffleEdgeType,
        *,
        keys: Sequence[exp.Expression] = (),
        sort: Sort | None = None,
        gather: bool = False,
        reason: str = "",
    ) -> Exchange:
        """An exchange above ``placed`` with its estimates.

        Raises:
            Undistributable: a column's type would not survive the way.
        """
        _refuse_lost(placed.node.schema)
        rows = self.estimator.rows(placed.node)
        return Exchange(
            placed.node,
            edge_type,
            tuple(keys),
            sort.keys if sort is not None else (),
            gather,
            estimate=EdgeEstimate(
                rows,
                rows * width_bytes(placed.node.schema),
                self.estimator.whole(placed.node),
                self.estimator.guess(placed.node).by,
            ),
            reason=reason,
        )

    def gather(self, placed: Placed, reason: str) -> Placed:
        """All rows in one task, in task order."""
        if isinstance(placed.partitioning, SinglePartition | Replicated) and not placed.local:
            return replace(placed, partitioning=SinglePartition())
        return Placed(self.exchange(placed, ShuffleEdgeType.REBALANCE, gather=True, reason=reason), SinglePartition())

    def gather_rows(self, placed: Placed, reason: str) -> Placed:
        """As :meth:`gather`, for an operator that could not be split: the plan says so."""
        if not isinstance(placed.partitioning, SinglePartition | Replicated):
            self.gathered.append(reason)
        return self.gather(placed, reason)

    def place_result(self, root: Node) -> Placed:
        """The whole plan placed, its rows in the order that DuckDB documents, where that is wanted."""
        self.in_order = to_keep_in_order(root)
        if not (self.settings.keep_order and order_is_unions(root)):
            return self.place(root)
        numbered = self._numbered_result(root)
        if numbered is not None:
            return numbered
        noted = len(self.gathered)
        placed = self.gather_in_order(root, True, "the rows of UNION ALL come in the order of its branches")
        del self.gathered[noted:]  # every branch is as parallel as it was; only their rows are put one after the other
        return placed

    def place_in_one_task(self, root: Node) -> Placed:
        """The whole plan placed in one task, but for what only the session's process can read."""
        self.in_order = to_keep_in_order(root)
        return self.gather(self.place(root, False), "one task has the result")

    def _numbered_result(self, root: Node) -> Placed | None:
        """A UNION ALL in one stage, its rows numbered by branch; None where a branch would lose its own order there."""
        branches = branches_of(root)
        if branches is None or len(branches) > _MOST_BRANCHES:
            return None
        for branch in branches:
            placed = self.place(branch)
            if placed.local or isinstance(placed.partitioning, SinglePartition | Replicated):
                return None
        name = self.names.column()
        numbered = numbered_branches(root, name, iter(partition_hashes(len(branches))), self.names)
        self.result_parts = ResultParts(name, len(branches))
        return self.place(numbered)

    def gather_in_order(self, node: Node, parallel: bool, reason: str) -> Placed:
        """All rows of ``node`` in one task in DuckDB's own order, for an operator that depends on it.

        The tasks of a UNION ALL each hold a part of every branch: read one after the other they would mix the branches,
        so each branch is gathered by itself.
        """
        if isinstance(node, SetOp) and node.kind is SetKind.UNION_ALL:
            branches = [self.gather_in_order(b, parallel, reason).node for b in node.branches]
            return Placed(replace_inputs(node, tuple(branches)), SinglePartition())
        if isinstance(node, Join) and joins_one_row(node) and order_is_unions(node):
            rows = self.gather_in_order(node.left, parallel, reason)
            one = self.gather(self.place(node.right, parallel), "the one row that is joined to all")
            return Placed(replace_inputs(node, (rows.node, one.node)), SinglePartition())
        if order_is_unions(node) and not isinstance(node, CteRef):
            (below,) = ordered_by(node)
            inner = self.gather_in_order(below, parallel, reason)
            return replace(inner, node=replace_inputs(node, (inner.node,)))
        # A shared expression was put in order where it is computed.
        return self.gather_rows(self.place(node, parallel), reason)

    def hash(self, placed: Placed, keys: Sequence[exp.Expression], reason: str) -> Placed:
        """Rows that agree on ``keys`` together."""
        exchange = self.exchange(placed, ShuffleEdgeType.HASH, keys=keys, reason=reason)
        return Placed(exchange, Hashed(tuple(frozenset({key_name(k)}) for k in keys)))

    def broadcast(self, node: Node, placed: Placed, reason: str) -> Exchange:
        """All rows in every task; a small sub-plan is not split first."""
        if not isinstance(placed.partitioning, SinglePartition) and self.is_small(node):
            placed = self.place(node, parallel=False)
        return self.exchange(placed, ShuffleEdgeType.BROADCAST, reason=reason)

    def spread(self, placed: Placed, reason: str) -> Placed:
        """Rows dealt evenly to all tasks."""
        return Placed(self.exchange(placed, ShuffleEdgeType.REBALANCE, reason=reason), Arbitrary())

    def settled(self, placed: Placed) -> Placed:
        """Rows of the session's own memory handed out to the agents; anything else as it is."""
        if not placed.local:
            return placed
        return self.spread(placed, "the source is in the session's memory")

    def is_small(self, node: Node) -> bool:
        """Whether all sources below are so small that splitting them costs more than it gives."""
        rows = source_rows(node)
        return rows is not None and rows <= self.settings.gather_rows

    def repeated(self, node: Node) -> Node | None:
        """A small sub-plan as every task computes it for itself; None where that is no gain, or not safe."""
        rows = source_rows(node)
        if rows is None or rows > self.settings.repeat_rows or not is_repeatable(node):
            return None
        if self.bytes(node) > self.settings.broadcast_bytes:
            return None
        return Repeated(self.place(node, parallel=False).node)

    def bytes(self, node: Node) -> int:
        """Estimated bytes of the node's rows."""
        return self.estimator.rows(node) * width_bytes(node.schema)

    def hashable(self, keys: Sequence[exp.Expression], node: Node) -> bool:
        """Whether equal values of the keys always have one hash: collated text compares otherwise than it hashes."""
        return not any(type(n) is exp.Collate for key in keys for n in nodes(key)) and not any(
            kind.kind == "VARIANT" for kind in self.types_of(keys, node)
        )


def _refuse_lost(schema: Schema) -> None:
    for kind in schema.values():
        lost = lost_on_edges(kind)
        if lost is not None:
            raise Undistributable(f"a column of type {lost} does not survive between agents")
