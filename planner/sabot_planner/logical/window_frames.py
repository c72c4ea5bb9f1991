"""Frames of windows, read off their specification."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.sql.scalars import columns_of

WINDOW_ONLY = frozenset(
    {"row_number", "rank", "dense_rank", "rank_dense", "percent_rank", "cume_dist", "ntile"}
    | {"lag", "lead", "first_value", "last_value", "nth_value", "fill"}
)
"""Functions that only windows have; every other one is an aggregate."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One end of a frame: ``rows`` before (negative) or behind the current row, or groups of peers, or a distance.

    ``unbounded``: the end of all rows. ``distance`` is what RANGE adds to (``rows`` 1) or takes from (``rows`` -1) the
    sort key; it is None for the current row.
    """

    rows: int = 0
    unbounded: bool = False
    distance: exp.Expression | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """``kind`` is ROWS, RANGE or GROUPS; ``exclude`` what EXCLUDE names, empty for nothing."""

    kind: str
    start: Bound
    end: Bound
    exclude: str
    ordered: bool

    @property
    def whole(self) -> bool:
        """All rows, whichever is the current one."""
        alike = not self.ordered and self.kind != "ROWS"
        at_start = self.start.unbounded or (alike and _is_current(self.start))
        at_end = self.end.unbounded or (alike and _is_current(self.end))
        return at_start and at_end and not self.exclude

    @property
    def bounded(self) -> bool:
        """Neither end is an end of all rows."""
        return not (self.start.unbounded or self.end.unbounded)

    @property
    def peers_only(self) -> bool:
        """The current row, or it and its peers."""
        return self.bounded and _is_current(self.start) and _is_current(self.end)

    @property
    def running(self) -> bool:
        """From an end of all rows to the current row, or over all rows."""
        ends = (self.start, self.end)
        return not self.bounded and all(b.unbounded or _is_current(b) for b in ends)

    @property
    def shifted(self) -> int | None:
        """How many rows from the current one (negative: before it) a frame in rows ends that begins with all rows.

        Or begins, where it ends with all rows. None of any other frame.
        """
        ends = [b for b in (self.start, self.end) if not b.unbounded]
        return ends[0].rows if self.kind == "ROWS" and len(ends) == 1 and ends[0].rows else None


def frame_of(window: exp.Expression) -> Frame | None:
    """The frame of a window; None where a bound is not constant or stands where it cannot."""
    ordered = window.args.get("order") is not None
    spec = window.args.get("spec")
    if spec is None:
        return Frame("RANGE", Bound(unbounded=True), Bound(), "", ordered)
    args = spec.args
    kind = args["kind"]
    start = _bound(args["start"], args.get("start_side"), kind, "PRECEDING")
    end = _bound(args.get("end") or "CURRENT ROW", args.get("end_side"), kind, "FOLLOWING")
    if start is None or end is None:
        return None
    exclude = args.get("exclude") or ""
    return Frame(kind, start, end, "" if exclude == "NO OTHERS" else exclude, ordered)


def constant_integer(expression: exp.Expression) -> int | None:
    """The value of an integer literal, with or without casts and a sign; None of anything else."""
    sign = 1
    while type(expression) in (exp.Cast, exp.Paren, exp.Neg):
        sign = -sign if type(expression) is exp.Neg else sign
        expression = expression.args["this"]
    if type(expression) is not exp.Literal or expression.args["is_string"]:
        return None
    try:
        return sign * int(expression.args["this"])
    except ValueError:
        return None


def _bound(value: str | exp.Expression, side: str | None, kind: str, outwards: str) -> Bound | None:
    if value == "CURRENT ROW":
        return Bound()
    if value == "UNBOUNDED":
        return Bound(unbounded=True) if side == outwards else None
    assert isinstance(value, exp.Expression)
    sign = -1 if side == "PRECEDING" else 1
    if kind == "RANGE":
        return Bound(sign, distance=value) if not columns_of(value) else None
    rows = constant_integer(value)
    return Bound(sign * rows) if rows is not None and rows >= 0 else None


def _is_current(bound: Bound) -> bool:
    return not bound.unbounded and bound.rows == 0 and bound.distance is None
