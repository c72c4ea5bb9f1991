"""Put a filter by the keys of a finished join side as low as its keys go, through groups and exchanges.

Only rows that leave no trace without a partner go. A filter stands where its own rows are the rows of the query: not
between two phases of an aggregate, and not where a LIMIT has already chosen. No stage that has started gets one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.distribute.join import LEFT_MAY_BE_COPIED, RIGHT_MAY_BE_COPIED
from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Computed, Node, replace_inputs
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
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
from sabot_planner.sql.scalars import EquiKey, column, column_name, conjunction, equi_keys, substitute

LEFT_MAY_BE_FILTERED = frozenset(
    {JoinKind.INNER, JoinKind.RIGHT, JoinKind.SEMI, JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI}
)
"""Kinds in which a left row without a partner leaves no trace, so that the keys of the right side may filter it."""

RIGHT_MAY_BE_FILTERED = frozenset(
    {JoinKind.INNER, JoinKind.LEFT, JoinKind.SEMI, JoinKind.ANTI, JoinKind.RIGHT_SEMI, JoinKind.SINGLE}
)
"""The same for right rows. MARK is in neither: one NULL among the right rows, partner or not, changes every answer."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """One side of a join whose rows can filter the other: ``keys`` have that other side on the left."""

    join: Join
    rows: Exchange
    filtered: Node
    keys: tuple[EquiKey, ...]


def key_sources(join: Join) -> list[KeySource]:
    """The sides of ``join`` that come over an exchange and may filter the other side, the smaller one first."""
    found: list[KeySource] = []
    keys, _ = equi_keys(join.condition, frozenset(join.left.columns), frozenset(join.right.columns))
    if not keys:
        return found
    if join.kind in LEFT_MAY_BE_FILTERED and _is_read_whole_or_by_key(join.right):
        found.append(KeySource(join, join.right, join.left, tuple(keys)))  # type: ignore[arg-type]
    if join.kind in RIGHT_MAY_BE_FILTERED and _is_read_whole_or_by_key(join.left):
        turned = tuple(EquiKey(k.right, k.left, k.null_safe) for k in keys)
        found.append(KeySource(join, join.left, join.right, turned))  # type: ignore[arg-type]
    return sorted(found, key=lambda source: source.rows.estimate.bytes)


def _is_read_whole_or_by_key(node: Node) -> bool:
    return isinstance(node, Exchange) and node.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.BROADCAST)


_Step = Callable[[Node, tuple[EquiKey, ...], Exchange], "Node | None"]


@dataclass(slots=True)
class FilterPlacer:
    """Puts one filter where it belongs.

    ``is_open`` says whether the stage that an exchange reads may still change. ``landed`` are the exchanges whose
    stages got the filter, as they were before. ``new_edge`` names the edge by which a stage reads keys. ``share`` of
    the rows is taken to pass.
    """

    is_open: Callable[[Exchange], bool]
    new_edge: Callable[[], str] = lambda: ""
    share: float = 1.0
    edge_reason: str = ""
    filter_reason: str = ""
    landed: list[Exchange] = field(default_factory=list)

    def place(self, source: KeySource) -> Node | None:
        """The filtered side with the filter in it, None where no stage below it can take it."""
        return self._toward_exchange(source.filtered, source.keys, source.rows)

    def _toward_exchange(self, node: Node, keys: tuple[EquiKey, ...], rows: Exchange) -> Node | None:
        """Go down within a stage that itself needs no filter: the rows are joined there anyway."""
        if isinstance(node, Exchange):
            return self._across(node, keys, rows)
        return self._deeper(node, keys, rows, self._toward_exchange)

    def _across(self, node: Exchange, keys: tuple[EquiKey, ...], rows: Exchange) -> Exchange | None:
        if not self.is_open(node):
            return None
        before = len(self.landed)
        inner = self._within(node.input, keys, rows)
        if inner is None:
            return None
        if len(self.landed) == before:
            self.landed.append(node)
        reason = "; ".join(part for part in (node.reason, self.edge_reason) if part)
        expected = node.estimate
        left = replace(expected, rows=int(expected.rows * self.share), bytes=int(expected.bytes * self.share))
        return replace(node, input=inner, estimate=left, reason=reason)

    def _below_phases(self, node: Node, keys: tuple[EquiKey, ...], rows: Exchange) -> Node | None:
        """Below the exchange between two phases, or of ranges, or nowhere: no rows of the query are there yet."""
        if isinstance(node, RowNumber):
            return self._one(node, 0, keys, rows, self._below_phases)
        return self._across(node, keys, rows) if isinstance(node, Exchange) else None

    def _within(self, node: Node, keys: tuple[EquiKey, ...], rows: Exchange) -> Node | None:
        """``node`` of a stage that is to be filtered: as low in it, or below it, as the keys go."""
        lower: Node | None = self._across(node, keys, rows) if isinstance(node, Exchange) else None
        lower = lower or self._deeper(node, keys, rows, self._within)
        if lower is not None or _may_be_first_phase(node):
            return lower
        terms = ((exp.NullSafeEQ if k.null_safe else exp.EQ)(this=k.left, expression=k.right) for k in keys)
        return Join(JoinKind.SEMI, node, Reread(rows, self.filter_reason, self.new_edge()), conjunction(terms))

    def _deeper(
        self,
        node: Node,
        keys: tuple[EquiKey, ...],
        rows: Exchange,
        step: _Step,
    ) -> Node | None:
        """``node`` over filtered inputs, where its own rows are then those of the filter, no more and no fewer."""
        match node:
            case Project():
                return self._one(node, 0, _renamed(keys, node.items), rows, step)
            case Filter() | LateralCall() | RowNumber():
                return self._one(node, 0, _passed(keys, node.inputs[0]), rows, step)
            case Sort() if node.limit is None and not node.offset:
                ranged = isinstance(node.input, Exchange)
                return self._one(node, 0, keys, rows, self._below_phases if ranged else step)
            case FinalAggregate():
                return self._one(node, 0, _grouped(keys, node.keys), rows, self._below_phases)
            case Aggregate() | AggregateInPlace() | PartialAggregate() if node.grouping_sets is None:
                return self._one(node, 0, _grouped(keys, node.keys), rows, step)
            case Distinct():
                twice = isinstance(node.input, Exchange) and isinstance(node.input.input, Distinct)
                return self._one(node, 0, _among(keys, node.on), rows, self._below_phases if twice else step)
            case Window():
                return self._one(node, 0, _among(keys, node.partition_by), rows, step)
            case Join():
                return self._into_join(node, keys, rows, step)
            case SetOp() if node.kind is SetKind.UNION_ALL:
                return self._into_branches(node, keys, rows, step)
            case (
                Scan()
                | Values()
                | Aggregate()
                | AggregateInPlace()
                | PartialAggregate()
                | RangeWindow()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | SetOp()
                | Shared()
                | CteRef()
                | RecursiveCte()
                | RecursiveRef()
                | Exchange()
                | Reread()
                | Repeated()
                | HaloWindow()
                | PartitionId()
                | EmptyRelation()
                | TaskScan()
                | CutRef()
            ):
                return None
            case _:
                raise UnknownNode(node, "whether a filter passes it")

    def _one(
        self,
        node: Node,
        position: int,
        keys: tuple[EquiKey, ...],
        rows: Exchange,
        step: _Step,
    ) -> Node | None:
        if not keys:
            return None
        new = step(node.inputs[position], keys, rows)
        if new is None:
            return None
        return replace_inputs(node, (*node.inputs[:position], new, *node.inputs[position + 1 :]))

    def _into_join(
        self,
        node: Join,
        keys: tuple[EquiKey, ...],
        rows: Exchange,
        step: _Step,
    ) -> Node | None:
        """Into a side whose rows each decide for themselves.

        Of an inner join that makes the key equal to one of the other side, into that side as well, but only below an
        exchange: within a stage DuckDB filters one side of a join by the other.
        """
        twins = _twins(node)
        changed: Node = node
        for position, allowed in ((0, RIGHT_MAY_BE_COPIED), (1, LEFT_MAY_BE_COPIED)):
            if node.kind not in allowed:
                continue
            inner = node.inputs[position]
            own = _passed(keys, inner)
            if own:
                changed = self._one(changed, position, own, rows, step) or changed
            else:
                own = _passed(tuple(replace(key, left=substitute(key.left, twins)) for key in keys), inner)
                changed = self._one(changed, position, own, rows, self._toward_exchange) or changed
        return changed if changed is not node else None

    def _into_branches(
        self,
        node: SetOp,
        keys: tuple[EquiKey, ...],
        rows: Exchange,
        step: _Step,
    ) -> Node | None:
        changed: Node = node
        for position, branch in enumerate(node.branches):
            own = {name: column(inner) for name, inner in zip(node.names, branch.columns, strict=True)}
            named = tuple(replace(key, left=substitute(key.left, own)) for key in keys)
            changed = self._one(changed, position, _passed(named, branch), rows, step) or changed
        return changed if changed is not node else None


def _twins(node: Join) -> dict[str, exp.Expression]:
    """Columns of either side that an inner join makes equal to one of the other."""
    twins: dict[str, exp.Expression] = {}
    if node.kind is JoinKind.INNER:
        for key in equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))[0]:
            one, two = column_name(key.left), column_name(key.right)
            if one is not None and two is not None:
                twins |= {one: key.right, two: key.left}
    return twins


def _may_be_first_phase(node: Node) -> bool:
    """Whether the node's rows may not be rows of the query yet: nothing but their second phase may read those."""
    return isinstance(node, PartialAggregate | Distinct | Limit) or (isinstance(node, Sort) and node.limit is not None)


def _plain(keys: tuple[EquiKey, ...]) -> tuple[EquiKey, ...]:
    """Keys that are nothing but columns: only those may go where they were not computed before, as a cast may fail."""
    return tuple(key for key in keys if column_name(key.left) is not None)


def _passed(keys: tuple[EquiKey, ...], inner: Node) -> tuple[EquiKey, ...]:
    own = set(inner.columns)
    return tuple(key for key in _plain(keys) if column_name(key.left) in own)


def _renamed(keys: tuple[EquiKey, ...], items: Sequence[Computed]) -> tuple[EquiKey, ...]:
    """Plain keys below a projection, as far as it only renames them."""
    of: Mapping[str, exp.Expression] = {i.name: i.expression for i in items if column_name(i.expression) is not None}
    return tuple(
        replace(key, left=of[name]) for key in keys if (name := column_name(key.left)) is not None and name in of
    )


def _grouped(keys: tuple[EquiKey, ...], groups: Sequence[Computed]) -> tuple[EquiKey, ...]:
    """Keys below a GROUP BY: whole groups go where a key is one of its own."""
    of = {g.name: g.expression for g in groups}
    return tuple(
        replace(key, left=of[name]) for key in keys if (name := column_name(key.left)) is not None and name in of
    )


def _among(keys: tuple[EquiKey, ...], wanted: Sequence[exp.Expression]) -> tuple[EquiKey, ...]:
    names = {column_name(e) for e in wanted}
    return tuple(key for key in _plain(keys) if column_name(key.left) in names)
