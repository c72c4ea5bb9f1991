"""The last pass: prove, from the finished plan alone, that rows which must meet do meet.

It derives where rows are anew, from exchanges and scans up, knowing nothing of why an exchange was put where it is and
sharing no rule with the passes that put them there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sabot_planner.distribute.check_demand import WHOLE, demand
from sabot_planner.distribute.check_order import in_own_order, is_parted_in_order, same_order
from sabot_planner.distribute.check_pairs import check_join, check_set_operation
from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Clustered,
    Hashed,
    Partitioning,
    Ranged,
    Replicated,
    SinglePartition,
    Sorted,
    from_afar,
    renamed,
    satisfies,
)
from sabot_planner.distribute.repeat import is_repeatable
from sabot_planner.errors import PlannerError, UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, reached
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    GroupBy,
    Join,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    CutRef,
    EmptyRelation,
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    Repeated,
    Reread,
    RowNumber,
    TaskScan,
)
from sabot_planner.sql.scalars import key_name


def check(root: Node) -> None:
    """Raise where a stage mixes rows that are spread with an operator that needs them together.

    Raises:
        PlannerError: the plan would give wrong rows. This is a defect of the planner, never of the query.
    """
    found = _Checker().of(root)
    demand(found.unfinished is None, root, "its second phase")


class OutputPartitioning:
    """Tells where the rows of nodes are, derived once for each node of plans that live as long as it does."""

    def __init__(self) -> None:
        self._checker = _Checker()

    def spreads(self, node: Node) -> bool:
        """Whether the node's rows are spread over several tasks of its stage."""
        return not isinstance(self._checker.of(node).partitioning, WHOLE)

    def is_alone(self, node: Node) -> bool:
        """Whether the node's rows are in the only task of its stage, and not in every task."""
        return isinstance(self._checker.of(node).partitioning, SinglePartition)


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a node's rows are: ``Replicated`` in every task of the stage, ``SinglePartition`` in its only task.

    ``unfinished`` is the node of a first phase whose second phase has not come yet.
    """

    partitioning: Partitioning
    unfinished: Node | None = None


class _Checker:
    def __init__(self) -> None:
        self._known: dict[Node, _Found] = {}

    def of(self, node: Node) -> _Found:
        known = self._known.get(node)
        if known is None:
            self._prepare(node)
            known = self._known[node] = self._derive(node)
        return known

    def _prepare(self, node: Node) -> None:
        """Derive what is below ``node``, the lowest first, so that a deep plan needs no deep stack."""
        found = reached(self._unknown(node), self._unknown)
        for inner in reversed(found):
            # What nobody asks about need not hold; who asks is told again.
            with suppress(PlannerError):
                self._known[inner] = self._derive(inner)

    def _unknown(self, node: Node) -> list[Node]:
        return [inner for inner in node.inputs if inner not in self._known]

    def _finished(self, node: Node, reader: Node) -> Partitioning:
        found = self.of(node)
        demand(found.unfinished is None, reader, "the second phase of what it reads")
        return found.partitioning

    def _derive(self, node: Node) -> _Found:
        match node:
            case RowNumber():
                return self.of(node.input)
            case Exchange():
                found = self.of(node.input)
                return _Found(_moved(node), found.unfinished)
            case PartialAggregate():
                return self._partial(node)
            case FinalAggregate():
                return self._final(node)
            case Aggregate() | AggregateInPlace():
                return self._aggregate(node)
            case Distinct():
                return self._distinct(node)
            case Sort():
                return self._sort(node)
            case Limit():
                return self._limit(node)
            case _:
                return _Found(self._whole(node))

    def _whole(self, node: Node) -> Partitioning:
        """Nodes that have no phases."""
        inputs = [self._finished(i, node) for i in node.inputs]
        match node:
            case TaskScan():
                if node.split is not None and node.sliced:
                    named = {c.name: n for c, n in zip(node.scan.source.columns, node.scan.names, strict=True)}
                    return Ranged(frozenset({named[node.split.column]}), node.split)
                return Arbitrary() if node.sliced else SinglePartition()
            case Repeated():
                demand(isinstance(inputs[0], WHOLE), node, "whole sources")
                demand(is_repeatable(node.input), node, "the same rows in every task")
                return Replicated()
            case CutRef():
                reference = node.reference
                return from_afar(self._finished(reference.shared.input, node), _own_names(reference))
            case CteRef():
                return from_afar(inputs[0], _own_names(node))
            case Values() | EmptyRelation() | RecursiveRef() | Reread():
                return Replicated()
            case Filter() | LateralCall() | Shared():
                return inputs[0]
            case Project():
                names: dict[str, set[str]] = {}
                for item in node.items:
                    names.setdefault(key_name(item.expression), set()).add(item.name)
                return renamed(inputs[0], names)
            case RangeWindow():
                demand(in_own_order(node), node, "ranges of its own order")
                return inputs[0] if isinstance(inputs[0], WHOLE) else Arbitrary()
            case HaloWindow():
                copied = isinstance(node.halo, Exchange) and node.halo.edge_type is ShuffleEdgeType.BROADCAST
                demand(copied, node, "its halo in every task")
                by_range = [[key_name(k) for k in i.expression.args["partition_by"]] for i in node.items]
                demand(all(keys == [node.range_name] for keys in by_range), node, "windows within a range")
                demand(is_parted_in_order(node.rows), node, "rows in ranges")
                return Arbitrary()
            case PartitionId():
                return Replicated()
            case Window():
                keys = tuple(key_name(k) for k in node.partition_by)
                demand(satisfies(inputs[0], Clustered(keys)), node, "whole partitions in one task")
                return inputs[0]
            case Join():
                if isinstance(node.right, PartitionId):
                    demand(
                        not isinstance(inputs[0], WHOLE), node, "rows that lie in one task each, to tell tasks apart"
                    )
                return check_join(node, inputs[0], inputs[1])
            case SetOp():
                return check_set_operation(node, inputs)
            case Sample() | RecursiveCte() | LimitBy():
                demand(all(isinstance(i, WHOLE) for i in inputs), node, "all rows in one task")
                return SinglePartition()
            case _:
                raise UnknownNode(node, "where the rows are")

    # --- operators that may come in two phases

    def _first_phase(self, node: Node) -> Node | None:
        """The unfinished phase that ``node`` reads over an exchange."""
        (child,) = node.inputs
        found = self.of(child)
        moved = child.input if isinstance(child, RowNumber) else child
        demand(found.unfinished is None or isinstance(moved, Exchange), node, "an exchange between two phases")
        return found.unfinished

    def _partial(self, node: PartialAggregate) -> _Found:
        demand(self._first_phase(node) is None, node, "one first phase only")
        return _Found(Arbitrary(), node)

    def _final(self, node: FinalAggregate) -> _Found:
        first = self._first_phase(node)
        demand(isinstance(first, PartialAggregate), node, "its first phase")
        assert isinstance(first, PartialAggregate)
        keys = {c.name for c in (*first.keys, *first.groupings)}
        demand(keys == {key_name(k.expression) for k in node.keys}, node, "the keys of its first phase")
        demand(set(node.parts) <= {c.name for c in first.aggregates}, node, "the columns of its first phase")
        return self._whole_groups(node)

    def _aggregate(self, node: GroupBy) -> _Found:
        demand(self._first_phase(node) is None, node, "rows of the query, and no first phase")
        return self._whole_groups(node)

    def _whole_groups(self, node: GroupBy) -> _Found:
        part = self.of(node.input).partitioning
        in_every_set = set(range(len(node.keys))).intersection(*(node.grouping_sets or ()))
        names: dict[str, set[str]] = {}
        for i in in_every_set:
            names.setdefault(key_name(node.keys[i].expression), set()).add(node.keys[i].name)
        demand(satisfies(part, Clustered(tuple(names))), node, "whole groups in one task")
        return _Found(renamed(part, names))

    def _distinct(self, node: Distinct) -> _Found:
        first = self._first_phase(node)
        part = self.of(node.input).partitioning
        keys = tuple(key_name(e) for e in node.on)
        if first is not None:
            alike = isinstance(first, Distinct) and {key_name(e) for e in first.on} == set(keys)
            demand(alike, node, "the columns of its first phase")
        if satisfies(part, Clustered(keys)):
            return _Found(part)
        demand(first is None, node, "equal rows in one task")
        return _Found(part, node)

    def _sort(self, node: Sort) -> _Found:
        first = self._first_phase(node)
        if first is not None:
            alike = isinstance(first, Sort) and same_order(first.keys, node.keys) and _covers(first, node)
            demand(alike, node, "the order of its first phase")
        if isinstance(self.of(node.input).partitioning, WHOLE):
            return _Found(SinglePartition())
        if node.limit is not None:
            demand(first is None and node.offset == 0, node, "all rows in one task")
            return _Found(Arbitrary(), node)
        child = node.input
        ranged = isinstance(child, Exchange) and child.edge_type is ShuffleEdgeType.RANGE
        demand(ranged and same_order(child.sort_keys, node.keys), node, "ranges of its own order")  # type: ignore[attr-defined]
        return _Found(Sorted())

    def _limit(self, node: Limit) -> _Found:
        first = self._first_phase(node)
        if first is not None:
            demand(isinstance(first, Limit) and _covers(first, node), node, "the rows of its first phase")
        if isinstance(self.of(node.input).partitioning, WHOLE):
            return _Found(SinglePartition())
        demand(first is None and node.limit is not None and not node.offset, node, "all rows in one task")
        return _Found(self.of(node.input).partitioning, node)


def _moved(node: Exchange) -> Partitioning:
    if node.edge_type is ShuffleEdgeType.BROADCAST:
        return Replicated()
    if node.gather:
        return SinglePartition()
    if node.edge_type is ShuffleEdgeType.HASH:
        demand(bool(node.keys), node, "keys")
        return Hashed(tuple(frozenset({key_name(k)}) for k in node.keys))
    return Arbitrary()


def _own_names(reference: CteRef) -> dict[str, set[str]]:
    return {column: {name} for column, name in zip(reference.shared.columns, reference.names, strict=True)}


def _covers(first: Sort | Limit, second: Sort | Limit) -> bool:
    return first.limit is None or (second.limit is not None and second.limit + second.offset <= first.limit)
