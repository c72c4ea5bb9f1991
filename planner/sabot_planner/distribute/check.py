"""The last pass: prove, from the finished plan alone, that rows which must meet do meet.

It derives where rows are anew, from exchanges and scans up, knowing nothing of why an exchange was put where it is and
sharing no rule with the passes that put them there.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sqlglot import exp

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
    merge_equal,
    renamed,
    satisfies,
)
from sabot_planner.distribute.repeat import is_repeatable
from sabot_planner.errors import PlannerError, UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, SortKey, reached
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    GroupBy,
    Join,
    JoinKind,
    LateralCall,
    Limit,
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
from sabot_planner.sql.scalars import EquiKey, equi_keys, key_name


def check(root: Node) -> None:
    """Raise where a stage mixes rows that are spread with an operator that needs them together.

    Raises:
        PlannerError: the plan would give wrong rows. This is a defect of the planner, never of the query.
    """
    found = _Checker().of(root)
    _demand(found.unfinished is None, root, "its second phase")


class OutputPartitioning:
    """Tells where the rows of nodes are, derived once for each node of plans that live as long as it does."""

    def __init__(self) -> None:
        self._checker = _Checker()

    def spreads(self, node: Node) -> bool:
        """Whether the node's rows are spread over several tasks of its stage."""
        return not isinstance(self._checker.of(node).partitioning, _WHOLE)

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
        _demand(found.unfinished is None, reader, "the second phase of what it reads")
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
                _demand(isinstance(inputs[0], _WHOLE), node, "whole sources")
                _demand(is_repeatable(node.input), node, "the same rows in every task")
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
                _demand(_in_own_order(node), node, "ranges of its own order")
                return Arbitrary()
            case HaloWindow():
                copied = isinstance(node.halo, Exchange) and node.halo.edge_type is ShuffleEdgeType.BROADCAST
                _demand(copied, node, "its halo in every task")
                by_range = [[key_name(k) for k in i.expression.args["partition_by"]] for i in node.items]
                _demand(all(keys == [node.range_name] for keys in by_range), node, "windows within a range")
                _demand(_is_parted_in_order(node.rows), node, "rows in ranges")
                return Arbitrary()
            case PartitionId():
                return Replicated()
            case Window():
                keys = tuple(key_name(k) for k in node.partition_by)
                _demand(satisfies(inputs[0], Clustered(keys)), node, "whole partitions in one task")
                return inputs[0]
            case Join():
                return _join(node, inputs[0], inputs[1])
            case SetOp():
                return _set_operation(node, inputs)
            case Sample() | RecursiveCte() | LimitBy():
                _demand(all(isinstance(i, _WHOLE) for i in inputs), node, "all rows in one task")
                return SinglePartition()
            case _:
                raise UnknownNode(node, "where the rows are")

    # --- operators that may come in two phases

    def _first_phase(self, node: Node) -> Node | None:
        """The unfinished phase that ``node`` reads over an exchange."""
        (child,) = node.inputs
        found = self.of(child)
        moved = child.input if isinstance(child, RowNumber) else child
        _demand(found.unfinished is None or isinstance(moved, Exchange), node, "an exchange between two phases")
        return found.unfinished

    def _partial(self, node: PartialAggregate) -> _Found:
        _demand(self._first_phase(node) is None, node, "one first phase only")
        return _Found(Arbitrary(), node)

    def _final(self, node: FinalAggregate) -> _Found:
        first = self._first_phase(node)
        _demand(isinstance(first, PartialAggregate), node, "its first phase")
        assert isinstance(first, PartialAggregate)
        keys = {c.name for c in (*first.keys, *first.groupings)}
        _demand(keys == {key_name(k.expression) for k in node.keys}, node, "the keys of its first phase")
        _demand(set(node.parts) <= {c.name for c in first.aggregates}, node, "the columns of its first phase")
        return self._whole_groups(node)

    def _aggregate(self, node: GroupBy) -> _Found:
        _demand(self._first_phase(node) is None, node, "rows of the query, and no first phase")
        return self._whole_groups(node)

    def _whole_groups(self, node: GroupBy) -> _Found:
        part = self.of(node.input).partitioning
        in_every_set = set(range(len(node.keys))).intersection(*(node.grouping_sets or ()))
        names: dict[str, set[str]] = {}
        for i in in_every_set:
            names.setdefault(key_name(node.keys[i].expression), set()).add(node.keys[i].name)
        _demand(satisfies(part, Clustered(tuple(names))), node, "whole groups in one task")
        return _Found(renamed(part, names))

    def _distinct(self, node: Distinct) -> _Found:
        first = self._first_phase(node)
        part = self.of(node.input).partitioning
        keys = tuple(key_name(e) for e in node.on)
        if first is not None:
            alike = isinstance(first, Distinct) and {key_name(e) for e in first.on} == set(keys)
            _demand(alike, node, "the columns of its first phase")
        if satisfies(part, Clustered(keys)):
            return _Found(part)
        _demand(first is None, node, "equal rows in one task")
        return _Found(part, node)

    def _sort(self, node: Sort) -> _Found:
        first = self._first_phase(node)
        if first is not None:
            alike = isinstance(first, Sort) and _same_order(first.keys, node.keys) and _covers(first, node)
            _demand(alike, node, "the order of its first phase")
        if isinstance(self.of(node.input).partitioning, _WHOLE):
            return _Found(SinglePartition())
        if node.limit is not None:
            _demand(first is None and node.offset == 0, node, "all rows in one task")
            return _Found(Arbitrary(), node)
        child = node.input
        ranged = isinstance(child, Exchange) and child.edge_type is ShuffleEdgeType.RANGE
        _demand(ranged and _same_order(child.sort_keys, node.keys), node, "ranges of its own order")  # type: ignore[attr-defined]
        return _Found(Sorted())

    def _limit(self, node: Limit) -> _Found:
        first = self._first_phase(node)
        if first is not None:
            _demand(isinstance(first, Limit) and _covers(first, node), node, "the rows of its first phase")
        if isinstance(self.of(node.input).partitioning, _WHOLE):
            return _Found(SinglePartition())
        _demand(first is None and node.limit is not None and not node.offset, node, "all rows in one task")
        return _Found(self.of(node.input).partitioning, node)


def _in_own_order(node: RangeWindow) -> bool:
    """Whether windows over a part of the rows have the order by which the rows were parted, or none at all."""
    orders = {_order_text(i.expression) for i in node.items} - {""}
    base = node.input
    while isinstance(base, RangeWindow):
        base = base.input
    if isinstance(base, Exchange) and base.edge_type is ShuffleEdgeType.RANGE:
        return orders <= {", ".join(_sort_text(k) for k in base.sort_keys)}
    return not orders


def _is_parted_in_order(node: Node) -> bool:
    """Whether a node's rows are in parts of which each comes after another: ranges, or tasks that have a number."""
    match node:
        case Exchange():
            return node.edge_type is ShuffleEdgeType.RANGE
        case Join():
            return isinstance(node.right, PartitionId) or _is_parted_in_order(node.left)
        case CutRef():
            return _is_parted_in_order(node.reference.shared)
        case Project() | CteRef() | Shared():
            return _is_parted_in_order(node.inputs[0])
        case RangeWindow():
            return _is_parted_in_order(node.input)
        case EmptyRelation():
            return True
        case (
            Scan()
            | Values()
            | Filter()
            | LateralCall()
            | Aggregate()
            | AggregateInPlace()
            | PartialAggregate()
            | FinalAggregate()
            | Window()
            | Sort()
            | Limit()
            | LimitBy()
            | Sample()
            | Distinct()
            | SetOp()
            | RecursiveCte()
            | RecursiveRef()
            | Reread()
            | RowNumber()
            | Repeated()
            | HaloWindow()
            | PartitionId()
            | TaskScan()
        ):
            return False
        case _:
            raise UnknownNode(node, "whether its rows are in parts")


def _sort_text(key: SortKey) -> str:
    return f"{key_name(key.expression)} {key.descending} {key.nulls_first}"


def _order_text(window: exp.Expression) -> str:
    """The order of a window as :func:`_sort_text` writes keys; empty for a window over the whole range."""
    order = window.args.get("order")
    keys = order.args["expressions"] if order is not None else ()
    return ", ".join(
        _sort_text(SortKey(k.args["this"], bool(k.args.get("desc")), bool(k.args.get("nulls_first")))) for k in keys
    )


def _moved(node: Exchange) -> Partitioning:
    if node.edge_type is ShuffleEdgeType.BROADCAST:
        return Replicated()
    if node.gather:
        return SinglePartition()
    if node.edge_type is ShuffleEdgeType.HASH:
        _demand(bool(node.keys), node, "keys")
        return Hashed(tuple(frozenset({key_name(k)}) for k in node.keys))
    return Arbitrary()


def _own_names(reference: CteRef) -> dict[str, set[str]]:
    return {column: {name} for column, name in zip(reference.shared.columns, reference.names, strict=True)}


def _covers(first: Sort | Limit, second: Sort | Limit) -> bool:
    return first.limit is None or (second.limit is not None and second.limit + second.offset <= first.limit)


def _same_order(one: tuple[SortKey, ...], two: tuple[SortKey, ...]) -> bool:
    def texts(keys: tuple[SortKey, ...]) -> list[tuple[str, bool, bool]]:
        return [(key_name(k.expression), k.descending, k.nulls_first) for k in keys]

    return texts(one) == texts(two)


# --- joins


def _join(node: Join, left: Partitioning, right: Partitioning) -> Partitioning:
    if isinstance(left, _WHOLE) and isinstance(right, _WHOLE):
        return left if isinstance(left, SinglePartition) else right
    keys, _ = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
    pairs = [(key_name(k.left), key_name(k.right)) for k in keys]
    # What only one task has would be missing in the others.
    alone = isinstance(left, SinglePartition) or isinstance(right, SinglePartition)
    _demand(not alone, node, "the side that is in one task copied to all")
    if isinstance(right, Replicated):
        # Every task of the stage has the right side whole, so its unmatched rows must not come out.
        _demand(node.kind not in _RIGHT_PRESERVED, node, "the right side not copied")
        return merge_equal(left, pairs) if node.kind is JoinKind.INNER else left
    if isinstance(left, Replicated):
        _demand(node.kind not in _LEFT_PRESERVED, node, "the left side not copied")
        return merge_equal(right, pairs) if node.kind is JoinKind.INNER else right
    if node.kind is JoinKind.MARK:
        # A NULL on the right concerns every row of the left, unless the equality is null-safe.
        keys = [k for k in keys if k.null_safe]
    part = _placed_alike(node, left, right, keys)
    return merge_equal(part, pairs) if node.kind is JoinKind.INNER else part


def _placed_alike(node: Join, left: Partitioning, right: Partitioning, keys: list[EquiKey]) -> Partitioning:
    alike = [(key_name(k.left), key_name(k.right)) for k in keys]
    one, two = _keys(left), _keys(right)
    same_kind = (isinstance(left, Hashed) and isinstance(right, Hashed)) or (
        isinstance(left, Ranged) and isinstance(right, Ranged) and left.split.bounds == right.split.bounds
    )
    meet = len(one) == len(two) > 0 and all(
        any(a in names and b in others for a, b in alike) for names, others in zip(one, two, strict=True)
    )
    _demand(same_kind and meet, node, "both sides placed by the same keys")
    kept = [
        (frozenset() if node.kind in _LEFT_PADDED else names) | (frozenset() if node.kind in _RIGHT_PADDED else others)
        for names, others in zip(one, two, strict=True)
    ]
    if not all(kept):
        return Arbitrary()
    return Ranged(kept[0], left.split) if isinstance(left, Ranged) else Hashed(tuple(kept))


def _keys(part: Partitioning) -> tuple[frozenset[str], ...]:
    if isinstance(part, Hashed):
        return part.keys
    return (part.key,) if isinstance(part, Ranged) else ()


# --- set operations


def _set_operation(node: SetOp, parts: list[Partitioning]) -> Partitioning:
    whole = [isinstance(p, _WHOLE) for p in parts]
    if all(whole):
        return SinglePartition() if SinglePartition() in parts else Replicated()
    _demand(not any(whole), node, "all branches spread, or none: one of them would be read by every task")
    if node.kind is SetKind.UNION_ALL:
        return Arbitrary()
    positions = [_positions(branch, part) for branch, part in zip(node.branches, parts, strict=True)]
    _demand(bool(positions[0]) and positions.count(positions[0]) == len(positions), node, "all branches hashed alike")
    return Hashed(tuple(frozenset({node.names[i]}) for i in positions[0]))


def _positions(branch: Node, part: Partitioning) -> list[int]:
    """The columns by which a branch is hashed, by position; empty where one is not among its columns."""
    if not isinstance(part, Hashed):
        return []
    found = [next((i for i, c in enumerate(branch.columns) if c in key), -1) for key in part.keys]
    return [] if -1 in found else found


def _demand(holds: bool, node: Node, wanted: str) -> None:
    if not holds:
        raise PlannerError(f"the plan's {type(node).__name__} needs {wanted}")


_WHOLE = (SinglePartition, Replicated)

_LEFT_PADDED = frozenset({JoinKind.RIGHT, JoinKind.FULL, JoinKind.ASOF_RIGHT, JoinKind.ASOF_FULL})
_RIGHT_PADDED = frozenset({JoinKind.LEFT, JoinKind.FULL, JoinKind.SINGLE, JoinKind.ASOF_LEFT, JoinKind.ASOF_FULL})
_RIGHT_PRESERVED = _LEFT_PADDED | {JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI, JoinKind.POSITIONAL}
_LEFT_PRESERVED = _RIGHT_PADDED | {
    JoinKind.SEMI,
    JoinKind.ANTI,
    JoinKind.MARK,
    JoinKind.ASOF,
    JoinKind.POSITIONAL,
}
