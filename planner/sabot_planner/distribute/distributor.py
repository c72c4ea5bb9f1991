"""Decide where rows must move: logical plan in, the same plan with ``Exchange`` nodes out.

Each operator states what it requires of its inputs, each placed sub-plan what it offers; where the two differ one
``Exchange`` is inserted. The walk is bottom-up and every decision is taken here, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.distribute.aggregate import place_aggregate
from sabot_planner.distribute.join import place_join
from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Clustered,
    Hashed,
    OneTask,
    Ranged,
    Replicated,
    Single,
    Sorted,
    from_afar,
    renamed,
    satisfies,
)
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.repeat import is_repeatable, source_rows
from sabot_planner.distribute.windows.place import place_window
from sabot_planner.errors import Undistributable
from sabot_planner.job.operators import Placement, RangeSplit, ShuffleEdgeType
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Node,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetKind,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
    order_is_unions,
    replace_inputs,
    walk,
)
from sabot_planner.physical.column_types import ColumnTypes, width_bytes
from sabot_planner.physical.nodes import Exchange, Repeated, TaskScan
from sabot_planner.sql.edge_values import lost_on_edges
from sabot_planner.sql.scalars import column, column_name, key_name, nodes
from sabot_planner.stats.estimates import Estimator

TOP_N_ROWS = 100_000
"""Up to so many rows ORDER BY … LIMIT is cheaper as a top-N per task than as a range shuffle."""


@dataclass(slots=True)
class Distributor:
    """The walk's state: what is known of types and sizes, and the reasons collected on the way.

    ``splits`` maps the first column name of a scan to the column by whose ranges it is cut, and the ranges.
    """

    context: PlanContext
    types: ColumnTypes
    estimator: Estimator
    width: int
    splits: Mapping[str, tuple[str, RangeSplit]]
    gathered: list[str] = field(default_factory=list)
    _placed: dict[tuple[int, bool], tuple[Node, Placed]] = field(default_factory=dict)

    def place(self, node: Node, parallel: bool = True) -> Placed:
        """The node placed; without ``parallel`` in one task, whatever it reads."""
        key = (id(node), parallel)
        known = self._placed.get(key)
        if known is None:
            known = (node, self._place(node, parallel))
            self._placed[key] = known
            self.estimator.same(known[1].node, node)
        return known[1]

    def _place(self, node: Node, parallel: bool) -> Placed:
        match node:
            case Scan():
                return self._scan(node, parallel)
            case Values():
                return Placed(node, Replicated())
            case Filter() | LateralCall():
                child = self.place(node.inputs[0], parallel)
                return replace(child, node=replace_inputs(node, (child.node,)))
            case Project():
                return self._project(node, parallel)
            case Join():
                return place_join(self, node, parallel)
            case Aggregate():
                return place_aggregate(self, node, parallel)
            case Window():
                return place_window(self, node, parallel)
            case Sort():
                return self._sort(node, parallel)
            case Limit():
                return self._limit(node, parallel)
            case LimitBy():
                rows = self.gather_in_order(node.input, parallel, "LIMIT by a value that the query computes")
                value = self.gather(self.place(node.values, parallel), "the value of LIMIT")
                return Placed(replace_inputs(node, (rows.node, value.node)), Single())
            case Distinct():
                return self._distinct(node, parallel)
            case Sample():
                return self._in_one_task(node, parallel, "SAMPLE depends on the order of all rows")
            case SetOp():
                return self._set_operation(node, parallel)
            case CteRef():
                shared = self.place(node.shared, parallel)
                assert isinstance(shared.node, Shared)
                own = {c: {n} for c, n in zip(shared.node.columns, node.names, strict=True)}
                # What another stage computes is read from it, literals too: nothing shared is everywhere at no cost.
                part = from_afar(shared.partitioning, own)
                return Placed(CteRef(shared.node, node.names), part)
            case Shared():
                child = self.settled(self.place(node.input, parallel))
                return replace(child, node=replace_inputs(node, (child.node,)))
            case RecursiveCte():
                return self._recursive(node, parallel)
            case _:
                raise AssertionError(f"{type(node).__name__} cannot be placed")

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
        types = self.types.of(placed.node)
        _refuse_lost(types)
        rows, by = self.estimator.rows(placed.node), self.estimator.guess(placed.node).by
        width = width_bytes(types, placed.node.columns)
        return Exchange(
            placed.node,
            edge_type,
            tuple(keys),
            sort.keys if sort is not None else (),
            gather,
            rows,
            rows * width,
            reason,
            whole_rows=self.estimator.whole(placed.node),
            estimated_by=by,
        )

    def gather(self, placed: Placed, reason: str) -> Placed:
        """All rows in one task, in task order."""
        if isinstance(placed.partitioning, Single | Replicated) and not placed.local:
            return replace(placed, partitioning=Single())
        return Placed(self.exchange(placed, ShuffleEdgeType.REBALANCE, gather=True, reason=reason), Single())

    def gather_rows(self, placed: Placed, reason: str) -> Placed:
        """As :meth:`gather`, for an operator that could not be split: the plan says so."""
        if not isinstance(placed.partitioning, Single | Replicated):
            self.gathered.append(reason)
        return self.gather(placed, reason)

    def gather_in_order(self, node: Node, parallel: bool, reason: str) -> Placed:
        """All rows of ``node`` in one task in DuckDB's own order, for an operator that depends on it.

        The tasks of a UNION ALL each hold a part of every branch: read one after the other they would mix the branches,
        so each branch is gathered by itself.
        """
        if isinstance(node, SetOp) and node.kind is SetKind.UNION_ALL:
            branches = [self.gather_in_order(b, parallel, reason).node for b in node.branches]
            return Placed(replace_inputs(node, tuple(branches)), Single())
        if isinstance(node, Filter | Project) and order_is_unions(node):
            inner = self.gather_in_order(node.inputs[0], parallel, reason)
            return replace(inner, node=replace_inputs(node, (inner.node,)))
        return self.gather_rows(self.place(node, parallel), reason)

    def hash(self, placed: Placed, keys: Sequence[exp.Expression], reason: str) -> Placed:
        """Rows that agree on ``keys`` together."""
        exchange = self.exchange(placed, ShuffleEdgeType.HASH, keys=keys, reason=reason)
        return Placed(exchange, Hashed(tuple(frozenset({key_name(k)}) for k in keys)))

    def broadcast(self, node: Node, placed: Placed, reason: str) -> Exchange:
        """All rows in every task; a small sub-plan is not split first."""
        if not isinstance(placed.partitioning, Single) and self.is_small(node):
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
        return rows is not None and rows <= self.context.settings.gather_rows

    def repeated(self, node: Node) -> Node | None:
        """A small sub-plan as every task computes it for itself; None where that is no gain, or not safe."""
        rows = source_rows(node)
        if rows is None or rows > self.context.settings.repeat_rows or not is_repeatable(node):
            return None
        if self.bytes(node) > self.context.settings.broadcast_bytes:
            return None
        return Repeated(self.place(node, parallel=False).node)

    def bytes(self, node: Node) -> int:
        """Estimated bytes of the node's rows."""
        return self.estimator.rows(node) * width_bytes(self.types.of(node), node.columns)

    def hashable(self, keys: Sequence[exp.Expression], node: Node) -> bool:
        """Whether equal values of the keys always have one hash: collated text compares otherwise than it hashes."""
        return not any(type(n) is exp.Collate for key in keys for n in nodes(key)) and not any(
            t.startswith("VARIANT") for t in self.types.of_expressions(list(keys), node)
        )

    # --- operators

    def _scan(self, node: Scan, parallel: bool) -> Placed:
        source = node.source
        if source.placement is Placement.SESSION:
            return Placed(TaskScan(node, sliced=False), Arbitrary(), local=True)
        sliced = parallel and source.max_slices > 1
        split = self.splits.get(node.names[0]) if sliced else None
        if split is not None:
            name, ranges = split
            return Placed(TaskScan(node, sliced, ranges), Ranged(frozenset({name}), ranges))
        return Placed(TaskScan(node, sliced), Arbitrary() if sliced else Single())

    def _project(self, node: Project, parallel: bool) -> Placed:
        child = self.place(node.input, parallel)
        names: dict[str, set[str]] = {}
        for item in node.items:
            names.setdefault(key_name(item.expression), set()).add(item.name)
        part = renamed(child.partitioning, names)
        return replace(child, node=replace_inputs(node, (child.node,)), partitioning=part)

    def _sort(self, node: Sort, parallel: bool) -> Placed:
        child = self.settled(self.place(node.input, parallel))
        if satisfies(child.partitioning, OneTask()):
            return replace(child, node=replace_inputs(node, (child.node,)), partitioning=Single())
        if node.limit is not None and node.limit + node.offset <= TOP_N_ROWS:
            first = Sort(child.node, node.keys, node.limit + node.offset, 0)
            gathered = self.gather(Placed(first, Arbitrary()), f"top {node.limit + node.offset} of each task")
            return Placed(replace(node, input=gathered.node), Single())
        exchange = self.exchange(child, ShuffleEdgeType.RANGE, sort=node, reason="global order")
        ordered = Placed(Sort(exchange, node.keys), Sorted())
        if node.limit is None and not node.offset:
            return ordered
        return self._limited(ordered, Limit(node.input, node.limit, node.offset))

    def _limit(self, node: Limit, parallel: bool) -> Placed:
        if node.percent is not None:
            gathered = self.gather_in_order(node.input, parallel, "LIMIT by percent needs the number of all rows")
            return Placed(replace(node, input=gathered.node), Single())
        child = node.input
        if isinstance(child, SetOp) and child.kind is SetKind.UNION_ALL and node.limit is not None:
            # Each branch gives its first rows, in one task; together they hold the first rows of all.
            first = tuple(Limit(b, node.limit + node.offset, 0) for b in child.branches)
            return self._limited(self.place(replace_inputs(child, first), parallel), replace(node, input=child))
        if order_is_unions(child):
            return self._limited(self.gather_in_order(child, parallel, "the first rows, in order"), node)
        return self._limited(self.place(node.input, parallel), node)

    def _limited(self, child: Placed, node: Limit) -> Placed:
        if satisfies(child.partitioning, OneTask()) and not child.local:
            return replace(child, node=replace(node, input=child.node), partitioning=Single())
        if node.limit is not None:
            child = replace(child, node=Limit(child.node, node.limit + node.offset, 0))
        gathered = self.gather(child, "the first rows, in order")
        return Placed(replace(node, input=gathered.node), Single())

    def _distinct(self, node: Distinct, parallel: bool) -> Placed:
        child = self.settled(self.place(node.input, parallel))
        names = tuple(key_name(e) for e in node.on)
        if satisfies(child.partitioning, Clustered(names)):
            return replace(child, node=replace_inputs(node, (child.node,)))
        if not self.hashable(node.on, node.input):
            gathered = self.gather_rows(child, "DISTINCT over values whose equality is not that of their hash")
            return Placed(replace_inputs(node, (gathered.node,)), Single())
        plain = not node.order and {column_name(e) for e in node.on} == set(node.columns)
        if plain:
            child = replace(child, node=replace_inputs(node, (child.node,)))
        moved = self.hash(child, node.on, "equal rows must meet")
        return replace(moved, node=replace_inputs(node, (moved.node,)))

    def _set_operation(self, node: SetOp, parallel: bool) -> Placed:
        placed = [self.settled(self.place(b, parallel)) for b in node.branches]
        parts = [p.partitioning for p in placed]
        if all(isinstance(p, Replicated) for p in parts):
            return Placed(replace_inputs(node, tuple(p.node for p in placed)), Replicated())
        if all(isinstance(p, Single | Replicated) for p in parts):
            return Placed(replace_inputs(node, tuple(p.node for p in placed)), Single())
        if node.kind is SetKind.UNION_ALL:
            moved = [
                self.spread(p, "one branch is in one task, the other is not")
                if isinstance(p.partitioning, Single | Replicated)
                else p
                for p in placed
            ]
            return Placed(replace_inputs(node, tuple(p.node for p in moved)), Arbitrary())
        branches: list[Node] = []
        if all(self.hashable([column(c) for c in b.columns], b) for b in node.branches):
            branches = [self.hash(p, [column(c) for c in p.node.columns], "equal rows must meet").node for p in placed]
            keys = tuple(frozenset({name}) for name in node.names)
            return Placed(replace_inputs(node, tuple(branches)), Hashed(keys))
        branches = [self.gather_rows(p, "a set operation over values that cannot be hashed").node for p in placed]
        return Placed(replace_inputs(node, tuple(branches)), Single())

    def _in_one_task(self, node: Node, parallel: bool, reason: str) -> Placed:
        placed = [self.gather_in_order(i, parallel, reason) for i in node.inputs]
        return Placed(replace_inputs(node, tuple(p.node for p in placed)), Single())

    def _recursive(self, node: RecursiveCte, parallel: bool) -> Placed:
        anchor = self.gather_in_order(node.anchor, parallel, "a recursive query runs in one task")
        step = self._around_reference(node.step, node.cte_id, parallel)
        return Placed(replace_inputs(node, (anchor.node, step)), Single())

    def _around_reference(self, node: Node, cte_id: str, parallel: bool) -> Node:
        """The step of a recursive query: what does not depend on the round is distributed and gathered."""
        depends = any(isinstance(n, RecursiveRef) and n.cte_id == cte_id for n in walk(node))
        if not depends:
            return self.gather_rows(self.place(node, parallel), "a recursive query runs in one task").node
        if isinstance(node, RecursiveRef):
            return node
        return replace_inputs(node, tuple(self._around_reference(i, cte_id, parallel) for i in node.inputs))


def _refuse_lost(types: Mapping[str, str]) -> None:
    for text in types.values():
        lost = lost_on_edges(text)
        if lost is not None:
            raise Undistributable(f"a column of type {lost} does not survive between agents")
