"""Guesses of rows; hints only. What is decided by them is decided again from measurements while the query runs."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.logical import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    JoinKind,
    Limit,
    Node,
    Scan,
    SetKind,
    SetOp,
    Sort,
    Values,
    walk,
)
from sabot_planner.physical import CutRef, Exchange, Numbered, TaskOrdinal, TaskScan
from sabot_planner.plan import PlanContext
from sabot_planner.scalars import conjuncts, equi_keys

_UNKNOWN_ROWS = 100_000
_SELECTIVITY = 0.2
"""DuckDB's own default for a filter that statistics do not settle."""
_GROUPS = 0.25
_DISTINCT = 0.5


@dataclass(frozen=True, slots=True)
class Guess:
    """``rows`` of a node and, as ``base``, of the largest source below it: together they tell how filtered it is."""

    rows: float
    base: float


class Estimator:
    """Row guesses per node: DuckDB's own where it made one for the same scans, else rules of thumb."""

    def __init__(self, context: PlanContext, root: Node) -> None:
        self._context = context
        # Only joins are decided by estimates; without one DuckDB need not be asked for any.
        self._has_joins = any(isinstance(n, Join) for n in walk(root))
        self._known: dict[int, tuple[Node, Guess]] = {}
        self._wholes: dict[int, tuple[Node, int]] = {}

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
                first = _first_phase(node)
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
            known = (node, self._guess(node))
            self._known[id(node)] = known
        return known[1]

    def _guess(self, node: Node) -> Guess:
        match node:
            case TaskScan():
                return self.guess(node.scan)
            case Scan():
                rows = node.source.rows if node.source.rows is not None else _UNKNOWN_ROWS
                return Guess(rows, rows)
            case TaskOrdinal():
                return Guess(1, 1)
            case Values():
                return Guess(len(node.rows), len(node.rows))
            case Filter():
                inner = self.guess(node.input)
                asked = self._ask(node)
                factor = _SELECTIVITY if any(_selective(t) for t in conjuncts(node.predicate)) else 1.0
                return Guess(asked if asked is not None else inner.rows * factor, inner.base)
            case Join():
                return self._join(node)
            case Aggregate():
                inner = self.guess(node.input)
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
            return Guess(asked, base)
        keys, _ = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
        if not keys:
            return Guess(left.rows * right.rows, base)
        # The side with the smaller base is taken for the one that holds each key once.
        if left.base >= right.base:
            return Guess(left.rows * right_share, base)
        return Guess(right.rows * left_share, base)


def _kept_sides(node: Join) -> tuple[Node, ...]:
    """The inputs of a join whose rows come out."""
    if node.kind.left_only:
        return (node.left,)
    return (node.right,) if node.kind.right_only else node.inputs


def _first_phase(node: Aggregate) -> Aggregate | None:
    moved = node.input.input if isinstance(node.input, Numbered) else node.input
    first = moved.input if isinstance(moved, Exchange) else None
    return first if isinstance(first, Aggregate) and first.partial else None


def _selective(term: exp.Expression) -> bool:
    return not (type(term) is exp.Not and type(term.args["this"]) is exp.Is)
