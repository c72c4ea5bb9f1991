"""Guesses of rows; hints only. What is decided by them is decided again from measurements while the query runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import expm1, log1p

from sqlglot import exp

from sabot_planner.identity import Identities, first_phase, partial_name
from sabot_planner.logical import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    JoinKind,
    Limit,
    Node,
    Project,
    Scan,
    SetKind,
    SetOp,
    Sort,
    Values,
    walk,
)
from sabot_planner.physical import CutRef, Exchange, TaskOrdinal, TaskScan
from sabot_planner.plan import PlanContext
from sabot_planner.scalars import conjuncts, equi_keys

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


class Estimator:
    """Row guesses per node: what an earlier run measured, else DuckDB's own for the same scans, else rules of thumb."""

    def __init__(self, context: PlanContext, root: Node) -> None:
        self._context = context
        self._tasks = context.settings.partitions or context.agents
        # Only joins are decided by estimates; without one DuckDB need not be asked for any.
        self._has_joins = any(isinstance(n, Join) for n in walk(root))
        self._known: dict[int, tuple[Node, Guess]] = {}
        self._wholes: dict[int, tuple[Node, int]] = {}
        self._identities = Identities() if context.recalls() else None

    def rows(self, node: Node) -> int:
        """The guess for ``node``, at least 0."""
        return max(0, round(self.guess(node).rows))

    def whole(self, node: Node) -> int:
        """The rows that ``node`` would have if nothing below it were filtered; 0 where nothing is known of a source.

        ``rows`` by ``whole`` is the share of a side's keys that filters left, and with it of the rows that join them.
        """
        known = self._wholes.get(id(node))
        if known is None:
            known = self._wholes[id(node)] = (node, round(self._whole(node)))
        return known[1]

    def _whole(self, node: Node) -> float:
        match node:
            case TaskScan():
                return self.whole(node.scan)
            case Scan():
                return node.source.rows or 0
            case Values():
                return len(node.rows)
            case Aggregate():
                first = first_phase(node)
                if first is not None:
                    return self.whole(first)
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
            case _:
                return self.whole(node.inputs[0]) if node.inputs else 0

    def same(self, placed: Node, logical: Node) -> None:
        """Let the guess for a logical node also be that for its placed form, whose scans DuckDB is not asked about."""
        self._known.setdefault(id(placed), (placed, self.guess(logical)))

    def guess(self, node: Node) -> Guess:
        """The guess for ``node``, remembered by identity."""
        known = self._known.get(id(node))
        if known is None:
            known = (node, self._recalled(node) or self._guess(node))
            self._known[id(node)] = known
        return known[1]

    def partial_groups(self, node: Aggregate) -> Guess | None:
        """The groups that the first phases of an aggregate have together, where an earlier run tells."""
        tasks = self._tasks
        groups = self._identities.groups(node.keys, node.input) if self._identities is not None else None
        if groups is None:
            return None
        measured = self._context.remembered(partial_name(groups, tasks))
        if measured is not None:
            return Guess(measured, measured, EARLIER_RUN)
        whole, rows = self._distinct(node), self.guess(node.input).rows
        return None if whole is None else Guess(tasks * _drawn(whole, rows / tasks), whole, EARLIER_RUN)

    def _recalled(self, node: Node) -> Guess | None:
        """What was measured of a node whose rows are not those of its input."""
        if self._identities is None or not isinstance(node, Filter | Join | Aggregate | Distinct | Project):
            return None
        identity = self._identities.of(node)
        if identity is None or identity.filtered_by:
            return None
        partial = isinstance(node, Aggregate) and node.partial
        rows = self._context.remembered(partial_name(identity.text, self._tasks) if partial else identity.text)
        if rows is None:
            return None
        return Guess(rows, max(self.guess(i).base for i in _kept_sides(node)), EARLIER_RUN)

    def _distinct(self, node: Aggregate) -> int | None:
        """Distinct keys among the rows of an aggregate, or among those of the table below its filters."""
        assert self._identities is not None
        rows: Node | None = node.input
        while rows is not None:
            groups = self._identities.groups(node.keys, rows)
            found = self._context.remembered(groups) if groups is not None else None
            if found is not None:
                return found
            rows = rows.inputs[0] if isinstance(rows, Filter | Project) else None
        return None

    def _guess(self, node: Node) -> Guess:
        match node:
            case TaskScan():
                return self.guess(node.scan)
            case Scan():
                if node.source.rows is None:
                    return Guess(_UNKNOWN_ROWS, _UNKNOWN_ROWS)
                return Guess(node.source.rows, node.source.rows, SOURCE)
            case TaskOrdinal():
                return Guess(1, 1)
            case Values():
                return Guess(len(node.rows), len(node.rows))
            case Filter():
                inner = self.guess(node.input)
                asked = self._ask(node)
                factor = _SELECTIVITY if any(_selective(t) for t in conjuncts(node.predicate)) else 1.0
                if asked is not None:
                    return Guess(asked, inner.base, DUCKDB)
                return Guess(inner.rows * factor, inner.base)
            case Join():
                return self._join(node)
            case Aggregate():
                inner = self.guess(node.input)
                distinct = self._distinct(node) if self._identities is not None and node.keys else None
                if distinct is not None:
                    return Guess(_drawn(distinct, inner.rows), inner.base, EARLIER_RUN)
                return Guess(1 if not node.keys else max(1.0, inner.rows * _GROUPS), inner.base)
            case Distinct():
                inner = self.guess(node.input)
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
            case _:
                if not node.inputs:
                    return Guess(_UNKNOWN_ROWS, _UNKNOWN_ROWS)
                return self.guess(node.inputs[0])

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
            case _:
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


def _kept_sides(node: Node) -> tuple[Node, ...]:
    """The inputs of a node whose rows come out."""
    if isinstance(node, Join) and node.kind.left_only:
        return (node.left,)
    return (node.right,) if isinstance(node, Join) and node.kind.right_only else node.inputs


def _drawn(distinct: float, rows: float) -> float:
    """Distinct values among ``rows`` drawn from many of which ``distinct`` are different."""
    if distinct <= 1:
        return min(distinct, rows)
    return distinct * -expm1(rows * log1p(-1 / distinct))


def _selective(term: exp.Expression) -> bool:
    return not (type(term) is exp.Not and type(term.args["this"]) is exp.Is)
