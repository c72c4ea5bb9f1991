"""Guesses of rows; hints only. What is decided by them is decided again from measurements while the query runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, walk
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
from sabot_planner.sql.scalars import conjuncts, equi_keys
from sabot_planner.stats.distinct_counts import DistinctCount, DistinctCounts, drawn
from sabot_planner.stats.fingerprints import Identities, partial_name

_UNKNOWN_ROWS = 100_000
_SELECTIVITY = 0.2
"""DuckDB's own default for a filter that statistics do not settle."""
SOURCE, DUCKDB, EARLIER_RUN, RULE_OF_THUMB = "the source", "DuckDB", "an earlier run", "a rule of thumb"
_GROUPS = 0.25
_DISTINCT = 0.5


@dataclass(frozen=True, slots=True)
class Guess:
    """``rows`` of a node and, as ``base``, of the largest source below it: together they tell how filtered it is.

    ``by`` names whose guess it is.
    """

    rows: float
    base: float
    by: str = RULE_OF_THUMB


@dataclass(frozen=True, slots=True)
class PartialGroups:
    """``rows`` of the first phases of an aggregate together: measured, or by the ``distinct_keys`` that there are."""

    rows: float
    distinct_keys: int | None = None


class Estimator:
    """Row guesses per node: what an earlier run measured, else DuckDB's own for the same scans, else rules of thumb."""

    def __init__(self, context: PlanContext, root: Node) -> None:
        self._context = context
        self._tasks = context.settings.partitions or context.agents
        # Only joins are decided by estimates; without one DuckDB need not be asked for any.
        self._has_joins = any(isinstance(n, Join) for n in walk(root))
        self._known: dict[Node, Guess] = {}
        self._wholes: dict[Node, int] = {}
        self._identities = Identities() if context.recalls() else None
        self._counts = DistinctCounts(context, self._identities) if self._identities is not None else None

    def rows(self, node: Node) -> int:
        """The guess for ``node``, at least 0."""
        return max(0, round(self.guess(node).rows))

    def whole(self, node: Node) -> int:
        """The rows that ``node`` would have if nothing below it were filtered; 0 where nothing is known of a source.

        ``rows`` by ``whole`` is the share of a side's keys that filters left, and with it of the rows that join them.
        """
        known = self._wholes.get(node)
        if known is None:
            known = self._wholes[node] = round(self._whole(node))
        return known

    def _whole(self, node: Node) -> float:
        match node:
            case TaskScan():
                return self.whole(node.scan)
            case Scan():
                return node.source.rows or 0
            case Values():
                return node.count
            case FinalAggregate() if node.first_phase is not None:
                return self.whole(node.first_phase)
            case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate():
                return self.whole(node.input) * _GROUPS if node.keys else 1
            case Distinct():
                return self.whole(node.input) * _DISTINCT
            case Join():
                return max(self.whole(i) for i in _kept_sides(node))
            case SetOp():
                return sum(self.whole(b) for b in node.branches)
            case CteRef():
                return self.whole(node.shared.input)
            case CutRef():
                return self.whole(node.reference.shared.input)
            case (
                Filter()
                | Project()
                | LateralCall()
                | Window()
                | RangeWindow()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Shared()
                | RecursiveCte()
                | RecursiveRef()
                | Exchange()
                | Reread()
                | RowNumber()
                | Repeated()
                | HaloWindow()
                | PartitionId()
                | EmptyRelation()
            ):
                return self.whole(node.inputs[0]) if node.inputs else 0
            case _:
                raise UnknownNode(node, "the unfiltered rows")

    def same(self, placed: Node, logical: Node) -> None:
        """Let the guess for a logical node also be that for its placed form, whose scans DuckDB is not asked about."""
        self._known.setdefault(placed, self.guess(logical))

    def guess(self, node: Node) -> Guess:
        """The guess for ``node``, remembered by identity."""
        known = self._known.get(node)
        if known is None:
            known = self._known[node] = self._recalled(node) or self._guess(node)
        return known

    def partial_groups(self, node: GroupBy) -> PartialGroups | None:
        """The groups that the first phases of an aggregate have together, where an earlier run tells."""
        tasks = self._tasks
        if self._identities is None or self._counts is None:
            return None
        keys = [key.expression for key in node.keys]
        groups = self._identities.groups(keys, node.input)
        if groups is None:
            return None
        measured = self._context.remembered(partial_name(groups, tasks))
        if measured is not None:
            return PartialGroups(measured)
        counted, rows = self._counts.of(keys, node.input), self.guess(node.input).rows
        if counted is None:
            return None
        return PartialGroups(tasks * drawn(self._values(counted, rows), rows / tasks), counted.keys)

    def _recalled(self, node: Node) -> Guess | None:
        """What was measured of a node whose rows are not those of its input."""
        if self._identities is None or not isinstance(node, Filter | Join | GroupBy | Distinct | Project):
            return None
        identity = self._identities.of(node)
        if identity is None or identity.filtered_by:
            return None
        partial = isinstance(node, PartialAggregate)
        rows = self._context.remembered(partial_name(identity.text, self._tasks) if partial else identity.text)
        if rows is None:
            return None
        return Guess(rows, max(self.guess(i).base for i in _kept_sides(node)), EARLIER_RUN)

    def _groups_of(self, node: GroupBy) -> float | None:
        partial = self.partial_groups(node) if isinstance(node, PartialAggregate) else None
        return partial.rows if partial is not None else self._groups([k.expression for k in node.keys], node.input)

    def _groups(self, keys: Sequence[exp.Expression], rows: Node) -> float | None:
        """Groups of ``rows`` by ``keys``, where their distinct keys were counted."""
        counted = self._counts.of(keys, rows, through_joins=True) if self._counts is not None else None
        if counted is None:
            return None
        present = self.guess(rows).rows
        return drawn(self._values(counted, present), present)

    def _values(self, counted: DistinctCount, rows: float) -> float:
        """The values that keys counted among more rows may still have: all, but where a filter chose among them."""
        if not counted.narrowed:
            return counted.keys
        most = min(float(counted.keys), rows)
        if counted.among is None:
            return max(1.0, most)
        # It keeps or drops the rows of a key together, so many for each key as there were on average.
        return max(1.0, min(most, counted.keys * rows / max(1.0, self.guess(counted.among).rows)))

    def _guess(self, node: Node) -> Guess:
        match node:
            case TaskScan():
                return self.guess(node.scan)
            case Scan():
                if node.source.rows is None:
                    return Guess(_UNKNOWN_ROWS, _UNKNOWN_ROWS)
                return Guess(node.source.rows, node.source.rows, SOURCE)
            case PartitionId():
                return Guess(1, 1)
            case Values():
                return Guess(node.count, node.count)
            case Filter():
                inner = self.guess(node.input)
                asked = self._ask(node) if _of_scans(node.input) else None
                factor = _SELECTIVITY if any(_selective(t) for t in conjuncts(node.predicate)) else 1.0
                if asked is not None:
                    return Guess(asked, inner.base, DUCKDB)
                return Guess(inner.rows * factor, inner.base)
            case Join():
                return self._join(node)
            case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate():
                inner = self.guess(node.input)
                groups = self._groups_of(node) if node.keys and node.grouping_sets is None else None
                if groups is not None:
                    return Guess(groups, inner.base, EARLIER_RUN)
                return Guess(1 if not node.keys else max(1.0, inner.rows * _GROUPS), inner.base)
            case Distinct():
                inner = self.guess(node.input)
                groups = self._groups(node.on, node.input)
                if groups is not None:
                    return Guess(groups, inner.base, EARLIER_RUN)
                return Guess(inner.rows * _DISTINCT, inner.base)
            case Limit() | Sort() if node.limit is not None:
                inner = self.guess(node.input)
                return Guess(min(inner.rows, node.limit), inner.base)
            case SetOp():
                guesses = [self.guess(b) for b in node.branches]
                if node.kind in (SetKind.UNION_ALL, SetKind.UNION):
                    return Guess(sum(g.rows for g in guesses), sum(g.base for g in guesses))
                return guesses[0]
            case CteRef():
                return self.guess(node.shared.input)
            case Exchange():
                return self.guess(node.input)
            case (
                Project()
                | LateralCall()
                | Window()
                | RangeWindow()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Shared()
                | RecursiveCte()
                | RecursiveRef()
                | Reread()
                | RowNumber()
                | Repeated()
                | HaloWindow()
                | EmptyRelation()
                | CutRef()
            ):
                if not node.inputs:
                    return Guess(_UNKNOWN_ROWS, _UNKNOWN_ROWS)
                return self.guess(node.inputs[0])
            case _:
                raise UnknownNode(node, "the number of rows")

    def _ask(self, node: Node) -> int | None:
        if not self._has_joins:
            return None
        scans = [n for n in walk(node) if isinstance(n, Scan)]
        if not scans or len({s.alias for s in scans}) != len(scans):
            return None
        return self._context.rows_estimated([s.alias for s in scans])

    def _join(self, node: Join) -> Guess:
        left, right = self.guess(node.left), self.guess(node.right)
        base = max(left.base, right.base)
        left_share = min(1.0, left.rows / left.base) if left.base else 1.0
        right_share = min(1.0, right.rows / right.base) if right.base else 1.0
        matches = self._matches(node, left.rows, right.rows)
        if matches is not None:
            # An outer join keeps at least every row of its preserved side.
            kept = {JoinKind.LEFT: left.rows, JoinKind.RIGHT: right.rows}.get(node.kind, 0.0)
            of = {JoinKind.LEFT: left.base, JoinKind.RIGHT: right.base}.get(node.kind, base)
            return Guess(max(matches, kept), of, EARLIER_RUN)
        match node.kind:
            case JoinKind.SEMI | JoinKind.ANTI:
                return Guess(left.rows * max(right_share, 0.1), left.base)
            case JoinKind.MARK | JoinKind.SINGLE | JoinKind.LEFT | JoinKind.ASOF | JoinKind.ASOF_LEFT:
                return Guess(left.rows, left.base)
            case JoinKind.RIGHT_SEMI | JoinKind.RIGHT_ANTI:
                return Guess(right.rows * max(left_share, 0.1), right.base)
            case JoinKind.RIGHT:
                return Guess(right.rows, right.base)
            case JoinKind.FULL:
                return Guess(left.rows + right.rows, base)
            case JoinKind.POSITIONAL:
                return Guess(max(left.rows, right.rows), base)
            case JoinKind.INNER | JoinKind.CROSS | JoinKind.ASOF_RIGHT | JoinKind.ASOF_FULL:
                pass
        asked = self._ask(node)
        if asked is not None:
            return Guess(asked, base, DUCKDB)
        keys, _ = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
        if not keys:
            return Guess(left.rows * right.rows, base)
        # The side with the smaller base is taken for the one that holds each key once.
        if left.base >= right.base:
            return Guess(left.rows * right_share, base)
        return Guess(right.rows * left_share, base)

    def _matches(self, node: Join, left_rows: float, right_rows: float) -> float | None:
        """Pairs that an equality alone joins, where the distinct keys of either side were counted.

        The side with fewer keys is taken to have none that the other one lacks (Selinger et al. 1979).
        """
        if self._counts is None or node.kind not in (JoinKind.INNER, JoinKind.LEFT, JoinKind.RIGHT):
            return None
        keys, rest = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
        if not keys or rest:
            return None
        sides = ((node.left, left_rows, [k.left for k in keys]), (node.right, right_rows, [k.right for k in keys]))
        values = [
            self._values(counted, rows)
            for side, rows, side_keys in sides
            if (counted := self._counts.of(side_keys, side, through_joins=True)) is not None
        ]
        return left_rows * right_rows / max(1.0, *values) if values else None


def _kept_sides(node: Node) -> tuple[Node, ...]:
    """The inputs of a node whose rows come out."""
    if isinstance(node, Join) and node.kind.left_only:
        return (node.left,)
    return (node.right,) if isinstance(node, Join) and node.kind.right_only else node.inputs


def _of_scans(node: Node) -> bool:
    """Whether the rows are those of scans and joins alone: DuckDB is asked by their scans, and knows none but these."""
    if isinstance(node, Filter | Project | TaskScan):
        return all(map(_of_scans, node.inputs))
    return isinstance(node, Scan | Join)


def _selective(term: exp.Expression) -> bool:
    return not (type(term) is exp.Not and type(term.args["this"]) is exp.Is)
