"""ASOF joins without equal keys over ranges of the compared value, where the right side is too large to be copied.

Both sides become one relation in one order, and every row of the left side takes the last row of the right side before
it; equal values are in the order in which the comparison lets them meet:

    left.t >= right.t      right 9:00 a │ left 9:00 → a │ left 9:05 → a │ right 9:10 b │ left 9:20 → b

That is a window, ``last_value(… IGNORE NULLS)``, which goes on from range to range: where a range has no row of the
right side before a row of the left side, it is the last one of an earlier range, however many are empty.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import Replicated, SinglePartition
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.windows.draft import RUNNING
from sabot_planner.distribute.windows.place_window import worth_ranges
from sabot_planner.logical.node import Computed, Node
from sabot_planner.logical.nodes import Filter, Join, JoinKind, Project, SetKind, SetOp, Window
from sabot_planner.sql.dialect import call
from sabot_planner.sql.duck_type import LOST_WHEN_PACKED, TINYINT, DuckType, struct_of
from sabot_planner.sql.scalars import (
    cast,
    column,
    columns_of,
    conjuncts,
    integer,
    literal,
    not_null,
    null_of,
    strip_parens,
)


@dataclass(frozen=True, slots=True)
class _Nearest:
    """The comparison ``left operator right``; with ``descending`` the nearest row is the next one, not the last."""

    left: exp.Expression
    right: exp.Expression
    descending: bool
    equal: bool


def asof_by_ranges(context: PlacementContext, node: Join, left: Placed, right: Placed) -> Node | None:
    """The join as a window over both sides, None where its sides are better joined another way."""
    if node.kind not in (JoinKind.ASOF, JoinKind.ASOF_LEFT):
        return None
    if any(isinstance(p.partitioning, SinglePartition | Replicated) for p in (left, right)):
        return None
    if not worth_ranges(context, node.left, node.right) or not _too_large(context, node):
        return None
    nearest = _nearest(context, node)
    fragile = any(not kind.kinds.isdisjoint(LOST_WHEN_PACKED) for kind in node.right.schema.values())
    return _as_window(context, node, nearest) if nearest is not None and not fragile else None


def _too_large(context: PlacementContext, node: Join) -> bool:
    """Whether a copy of the right side for every task is more than both sides, moved once."""
    left, right = context.bytes(node.left), context.bytes(node.right)
    settings = context.settings
    if right <= settings.broadcast_bytes:
        return False
    return right > settings.grant_bytes or right * context.width >= left + right


def _nearest(context: PlacementContext, node: Join) -> _Nearest | None:
    terms = conjuncts(node.condition)
    if len(terms) != 1:
        return None
    term = strip_parens(terms[0])
    found = _COMPARISONS.get(type(term))
    if found is None:
        return None
    descending, equal = found
    one, two = term.args["this"], term.args["expression"]
    left, right = frozenset(node.left.columns), frozenset(node.right.columns)
    if columns_of(one) <= right and columns_of(two) <= left:
        one, two, descending = two, one, not descending
    elif not (columns_of(one) <= left and columns_of(two) <= right):
        return None
    if context.types_of([one], node.left) != context.types_of([two], node.right):
        return None
    return _Nearest(one, two, descending, equal)


_COMPARISONS: dict[type[exp.Expression], tuple[bool, bool]] = {
    exp.GTE: (False, True),
    exp.GT: (False, False),
    exp.LTE: (True, True),
    exp.LT: (True, False),
}
"""Comparison → (descending, equal)."""


def _as_window(context: PlacementContext, node: Join, nearest: _Nearest) -> Node:
    fresh = context.names.column
    (key_type,) = context.types_of([nearest.left], node.left)
    row_type = struct_of(list(node.right.schema.items()))
    packed = call(
        "struct_pack", *(exp.PropertyEQ(this=column(n).args["this"], expression=column(n)) for n in node.right.columns)
    )
    # A row comes after those that it may be joined with.
    left_side, right_side = (1, 0) if nearest.equal else (0, 1)
    left = [Computed(fresh(), column(name), kind) for name, kind in node.left.schema.items()]
    left += _placed(context, nearest.left, key_type, left_side, null_of(row_type), row_type)
    right = [Computed(fresh(), null_of(kind), kind) for kind in node.left.schema.values()]
    right += _placed(context, nearest.right, key_type, right_side, packed, row_type)
    # NULL compares with nothing.
    known = Filter(node.right, not_null(nearest.right))
    *own, key, side, row = names = context.names.columns(len(left))
    both = SetOp(SetKind.UNION_ALL, (Project(node.left, tuple(left)), Project(known, tuple(right))), names)
    order = exp.Order(
        expressions=[
            exp.Ordered(this=column(key), desc=nearest.descending, nulls_first=False),
            exp.Ordered(this=column(side), desc=False, nulls_first=False),
        ]
    )
    last = exp.Anonymous(**{**call("last_value", column(row)).args, "nulls": "IGNORE"})
    found = fresh()
    window = Window(both, (), (Computed(found, exp.Window(this=last, order=order, spec=RUNNING), row_type),))
    rows: Node = Filter(window, exp.EQ(this=column(side), expression=integer(left_side, "TINYINT")))
    if node.kind is JoinKind.ASOF:
        rows = Filter(rows, exp.And(this=not_null(column(key)), expression=not_null(column(found))))
    read = zip(node.left.schema.items(), own, strict=True)
    items = [Computed(name, column(inner), kind) for (name, kind), inner in read]
    for name, kind in node.right.schema.items():
        value = call("struct_extract", column(found), literal(name))
        # What no row of the right side precedes, and what compares with none, has NULL beside it.
        case = exp.Case(ifs=[exp.If(this=not_null(column(key)), true=value)], default=exp.Null())
        items.append(Computed(name, cast(case, kind), kind))
    return Project(rows, tuple(items))


def _placed(
    context: PlacementContext,
    key: exp.Expression,
    key_type: DuckType,
    side: int,
    row: exp.Expression,
    row_type: DuckType,
) -> list[Computed]:
    """What puts a row in its place: the compared value, the side it is of, and the row of the right side it brings."""
    key_name, side_name, row_name = context.names.columns(3)
    return [
        Computed(key_name, cast(key, key_type), key_type),
        Computed(side_name, integer(side, "TINYINT"), TINYINT),
        Computed(row_name, row, row_type),
    ]
