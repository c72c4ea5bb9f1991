"""What the windows over ranges of one order need of each range, of all ranges, and of the rows of other ranges.

A draft is filled item by item (``window_items``) and then built (``window_ranges``). Nothing in it is computed twice:
equal expressions share a column.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sabot_planner.logical.expression_types import Named
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import SortKey
from sabot_planner.sql.dialect import call, data_type, to_sql
from sabot_planner.sql.scalars import column


@dataclass(frozen=True, slots=True)
class CountReach:
    """Rows of other ranges up to ``before`` back and ``after`` ahead, counted by ``ordinal``.

    ``ordinal`` numbers the rows of a range (or their groups of peers) from 1, ``count`` is the last number of the
    range, ``total`` the same as a column of the ranges, ``earlier`` how many all earlier ranges have. Rows for which
    ``valid`` is not true are not counted, and not needed.
    """

    ordinal: str
    count: str
    total: str
    earlier: str
    before: int
    after: int
    valid: exp.Expression | None = None


@dataclass(frozen=True, slots=True)
class ValueReach:
    """Rows of other ranges whose sort key is at most ``before`` back and ``after`` ahead; None is no distance.

    ``least`` and ``greatest`` are the range's keys; ``total_least`` and ``total_greatest`` columns of the ranges.
    """

    key: exp.Expression
    descending: bool
    before: exp.Expression | None
    after: exp.Expression | None
    least: str
    greatest: str
    total_least: str
    total_greatest: str


Reach = CountReach | ValueReach


@dataclass(frozen=True, slots=True)
class RangeTotal:
    """An aggregate over the rows of a range; ``again`` puts parts of it together."""

    name: str
    value: exp.Expression
    again: str


@dataclass(slots=True)
class WindowDraft:
    """Columns by stage: ``local`` and ``whole`` of a range alone, ``totals`` one row per range, ``offsets`` over those.

    ``halo`` are windows over a range and the rows that ``reaches`` bring from others. ``results`` are the items.
    ``carried`` are what windows with a halo read of a row beyond what its range computed alone: over local columns and
    those of the row's own range.
    ``here`` is the column that tells the ranges apart, and puts them in order; ``number`` is the number of a range.
    """

    names: PlanNames
    order: tuple[SortKey, ...]
    here: str
    number: str
    local: dict[str, Named] = field(default_factory=dict)
    whole: dict[str, Named] = field(default_factory=dict)
    totals: dict[str, RangeTotal] = field(default_factory=dict)
    offsets: dict[str, Named] = field(default_factory=dict)
    halo: dict[str, Named] = field(default_factory=dict)
    reaches: list[Reach] = field(default_factory=list)
    results: list[Named] = field(default_factory=list)
    carried: dict[str, Named] = field(default_factory=dict)

    @staticmethod
    def of(names: PlanNames, order: tuple[SortKey, ...]) -> WindowDraft:
        """An empty draft for windows of that order."""
        return WindowDraft(names, order, names.column(), names.column())

    # --- within a range

    def ordering(self) -> exp.Expression | None:
        """The ORDER BY of the windows."""
        if not self.order:
            return None
        keys = [exp.Ordered(this=k.expression, desc=k.descending, nulls_first=k.nulls_first) for k in self.order]
        return exp.Order(expressions=keys)

    def in_range(self, function: exp.Expression, spec: exp.Expression | None = None) -> str:
        """A window function over the rows of a range alone, in their order."""
        return self.in_range_as(exp.Window(this=function, order=self.ordering(), spec=spec))

    def in_range_as(self, window: exp.Expression) -> str:
        """A window as it stands, over the rows of a range alone."""
        return self._column(self.local, window)

    def of_range(self, function: exp.Expression) -> str:
        """An aggregate of a range, in each of its rows; it may read what :meth:`in_range` gives."""
        return self._column(self.whole, exp.Window(this=function))

    def ordinal(self) -> str:
        """The row's number within its range."""
        return self.in_range(call("row_number"))

    # --- over ranges

    def total(self, value: exp.Expression, again: str) -> str:
        """An aggregate over the rows of a range, as a column of the ranges."""
        text = to_sql(value)
        if text not in self.totals:
            self.totals[text] = RangeTotal(self.names.column(), value, again)
        return self.totals[text].name

    def rows(self) -> str:
        """How many rows a range has."""
        return self.total(call("count_star"), "sum")

    def earlier(self, function: str, total: str, nulls: str | None = None) -> str:
        """``function`` over that total of all earlier ranges, in their order."""
        return self._over_ranges(
            function, total, rows_between(("UNBOUNDED", "PRECEDING"), (_one(), "PRECEDING")), nulls
        )

    def later(self, function: str, total: str, nulls: str | None = None) -> str:
        """``function`` over that total of all later ranges, in their order."""
        return self._over_ranges(
            function, total, rows_between((_one(), "FOLLOWING"), ("UNBOUNDED", "FOLLOWING")), nulls
        )

    def all_ranges(self, function: str, total: str) -> str:
        """``function`` over that total of all ranges."""
        return self._column(self.offsets, exp.Window(this=call(function, column(total))))

    def in_order_of_ranges(self, function: str, total: str) -> str:
        """``function`` over that total of all ranges, in their order."""
        return self._over_ranges(function, total, WHOLE_RANGE, None)

    def _over_ranges(self, function: str, total: str, spec: exp.Expression, nulls: str | None) -> str:
        inner = call(function, column(total))
        if nulls:
            inner = exp.Anonymous(**{**inner.args, "nulls": nulls})
        order = exp.Order(expressions=[exp.Ordered(this=column(self.here), desc=False, nulls_first=False)])
        return self._column(self.offsets, exp.Window(this=inner, order=order, spec=spec))

    # --- with the rows of other ranges

    def carry(self, value: exp.Expression) -> str:
        """A value of each row, over its local columns and those of its range, for windows with a halo to read."""
        return self._column(self.carried, value)

    def position(self) -> str:
        """The position of a row among all rows, from 1."""
        before = exp.Coalesce(this=column(self.earlier("sum", self.rows())), expressions=[_zero()])
        return self.carry(exp.Cast(this=call("+", before, column(self.ordinal())), to=data_type("BIGINT")))

    def with_halo(self, window: exp.Expression, reach: Reach, *, by_position: bool) -> str:
        """A window over the range and what is within ``reach`` of it, ordered by position or as it stands."""
        if reach not in self.reaches:
            self.reaches.append(reach)
        order = window.args.get("order")
        if by_position:
            order = exp.Order(expressions=[exp.Ordered(this=column(self.position()), desc=False, nulls_first=False)])
        partition_by = [column(self.number)]
        return self._column(self.halo, exp.Window(**{**window.args, "order": order, "partition_by": partition_by}))

    def _column(self, columns: dict[str, Named], expression: exp.Expression) -> str:
        text = to_sql(expression)
        if text not in columns:
            columns[text] = Named(self.names.column(), expression)
        return columns[text].name


def rows_between(
    start: tuple[str | exp.Expression, str | None], end: tuple[str | exp.Expression, str | None]
) -> exp.Expression:
    """The frame ROWS BETWEEN start AND end; each is a value with its side."""
    spec: exp.Expression = exp.WindowSpec(kind="ROWS", start=start[0], start_side=start[1], end=end[0], end_side=end[1])
    return spec


WHOLE_RANGE = rows_between(("UNBOUNDED", "PRECEDING"), ("UNBOUNDED", "FOLLOWING"))
TO_THE_END = rows_between(("CURRENT ROW", None), ("UNBOUNDED", "FOLLOWING"))
RUNNING = rows_between(("UNBOUNDED", "PRECEDING"), ("CURRENT ROW", None))


def _zero() -> exp.Expression:
    zero: exp.Expression = exp.Cast(this=exp.Literal(this="0", is_string=False), to=data_type("BIGINT"))
    return zero


def _one() -> exp.Expression:
    one: exp.Expression = exp.Literal(this="1", is_string=False)
    return one
