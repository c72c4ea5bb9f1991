"""How each window function goes on from range to range: what is added to it, or which other rows it must see.

    rank, count, sum, min …      the value within the range, and the total of all earlier (or later) ranges
    ntile, cume_dist …           the position, and the number of all rows
    lag, ROWS 2 PRECEDING …      computed over the range and a halo: the nearest rows of other ranges

What a halo brings may be more than a frame needs, never less: the rows within reach of a row are all there and in their
order, and rows beyond them are beyond its frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from sqlglot import exp

from sabot_planner.distribute.windows.draft import RUNNING, TO_THE_END, WHOLE_RANGE, CountReach, ValueReach, WindowDraft
from sabot_planner.logical.expression_types import Named
from sabot_planner.logical.node import Computed
from sabot_planner.logical.window_frames import WINDOW_ONLY, Bound, Frame, constant_integer, frame_of
from sabot_planner.sql.dialect import call, data_type, function_call
from sabot_planner.sql.scalars import column, integer, not_null

HALO_ROWS = 100_000
"""So many rows may be carried over to each range; frames that reach further see all rows in one task."""

_MOST_HEADS = 1000
"""So many first values of each range are put together for ``nth_value``."""

_Join = Callable[[exp.Expression, exp.Expression], exp.Expression]


def _by_call(name: str) -> _Join:
    return lambda a, b: call(name, a, b)


_COMBINED: dict[str, tuple[str, _Join]] = {
    "count": ("sum", _by_call("+")),
    "count_star": ("sum", _by_call("+")),
    "count_if": ("sum", _by_call("+")),
    "countif": ("sum", _by_call("+")),
    "sum": ("sum", _by_call("+")),
    "min": ("min", _by_call("least")),
    "max": ("max", _by_call("greatest")),
    "bool_and": ("bool_and", lambda a, b: exp.And(this=a, expression=b)),
    "bool_or": ("bool_or", lambda a, b: exp.Or(this=a, expression=b)),
    "bit_and": ("bit_and", _by_call("&")),
    "bit_or": ("bit_or", _by_call("|")),
    "bit_xor": ("bit_xor", _by_call("xor")),
}
"""Aggregates of which two values make the value over both: how over many, and of two."""

_COUNTS = frozenset({"count", "count_star"})
"""0 over no row."""

_AVERAGED = frozenset(
    {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "FLOAT", "DOUBLE"}
)
_MEASURED = _AVERAGED | {"UBIGINT", "HUGEINT", "UHUGEINT", "DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS"}
"""Types of which a distance can be taken without a calendar turning their order round, as time zones do."""


@dataclass(frozen=True, slots=True)
class ItemTypes:
    """The kinds of the types of an item's first argument and of the first sort key, empty where there is none."""

    argument: str
    key: str


def add_item(draft: WindowDraft, item: Computed, types: ItemTypes) -> bool:
    """Add a window column to ``draft``; False where nothing of it carries over from range to range."""
    result = _result(draft, item.expression, types)
    if result is None:
        return False
    draft.results.append(Named(item.name, result))
    return True


def _result(draft: WindowDraft, window: exp.Expression, types: ItemTypes) -> exp.Expression | None:
    found = function_call(window)
    if found is None:
        return None
    name, arguments = found
    inner = window.args["this"]
    plain = window.args.get("spec") is None and not any(inner.args.get(k) for k in ("distinct", "order", "filter"))
    if name in _RANKS:
        return _RANKS[name](draft) if plain and not arguments and (draft.order or name == "row_number") else None
    if name == "ntile":
        return _ntile(draft, arguments[0]) if plain else None
    if name in ("lag", "lead"):
        return _lag(draft, window, name) if plain else None
    if name == "fill":
        return _fill(draft, window, types) if plain else None
    frame = frame_of(window)
    if frame is None or (not draft.order and frame.kind != "ROWS"):
        return None
    if frame.peers_only:
        return column(draft.in_range_as(window))
    if frame.bounded:
        return _moving(draft, window, frame, types)
    if frame.shifted is not None:
        return _shifted(draft, window, frame)
    if not frame.running:
        return None
    if name == "nth_value":
        return _nth_value(draft, window, frame)
    if name in ("first_value", "last_value"):
        return _end_of_frame(draft, window, frame, first=name == "first_value")
    return _running(draft, window, frame, types) if name not in WINDOW_ONLY else None


# --- ranks


def _after_earlier(draft: WindowDraft, local: str, total: str) -> exp.Expression:
    return _joined([column(draft.earlier("sum", total)), column(local)], _by_call("+"))


def _row_number(draft: WindowDraft) -> exp.Expression:
    return _after_earlier(draft, draft.ordinal(), draft.rows())


def _rank(draft: WindowDraft) -> exp.Expression:
    return _after_earlier(draft, draft.in_range(call("rank")), draft.rows())


def _dense_rank(draft: WindowDraft) -> exp.Expression:
    local = draft.in_range(call("dense_rank"))
    return _after_earlier(draft, local, draft.total(call("max", column(local)), "max"))


def _percent_rank(draft: WindowDraft) -> exp.Expression:
    others = call("-", column(draft.all_ranges("sum", draft.rows())), integer(1))
    share = call("/", _double(call("-", _rank(draft), integer(1))), others)
    return _case(exp.GT(this=others, expression=integer(0)), share, _double(integer(0)))


def _cume_dist(draft: WindowDraft) -> exp.Expression:
    spec = exp.WindowSpec(**{**RUNNING.args, "kind": "RANGE"})
    upto = _after_earlier(draft, draft.in_range(call("count_star"), spec), draft.rows())
    return call("/", _double(upto), column(draft.all_ranges("sum", draft.rows())))


_RANKS: dict[str, Callable[[WindowDraft], exp.Expression]] = {
    "row_number": _row_number,
    "rank": _rank,
    "dense_rank": _dense_rank,
    "percent_rank": _percent_rank,
    "cume_dist": _cume_dist,
}


def _ntile(draft: WindowDraft, buckets: exp.Expression) -> exp.Expression | None:
    """The first ``rows % buckets`` buckets hold one row more than the others."""
    wanted = constant_integer(buckets)
    if wanted is None or wanted < 1:
        return None
    rows = column(draft.all_ranges("sum", draft.rows()))
    count: exp.Expression = call("least", integer(wanted), rows)
    index = call("-", _row_number(draft), integer(1))
    size, large = call("//", rows, count), call("%", rows, count)
    in_large = call("*", large, call("+", size, integer(1)))
    of_large = call("//", index, call("+", size, integer(1)))
    of_small = call("+", large, call("//", call("-", index, in_large), size))
    return call("+", integer(1), _case(exp.LT(this=index, expression=in_large), of_large, of_small))


# --- rows of other ranges


def _lag(draft: WindowDraft, window: exp.Expression, name: str) -> exp.Expression | None:
    arguments = window.args["this"].args["expressions"]
    offset = constant_integer(arguments[1]) if len(arguments) > 1 else 1
    if offset is None or abs(offset) > HALO_ROWS:
        return None
    back = offset if name == "lag" else -offset
    ignoring = window.args["this"].args.get("nulls") == "IGNORE"
    reach = _counted(draft, max(back, 0), max(-back, 0), not_null(arguments[0]) if ignoring else None)
    return column(draft.with_halo(window, reach, by_position=True))


def _fill(draft: WindowDraft, window: exp.Expression, types: ItemTypes) -> exp.Expression | None:
    """Between two values, or beyond the last two: those are within two values that are not NULL, whose keys are not."""
    (key,) = draft.order if len(draft.order) == 1 else (None,)
    # Values and keys that are not finite are passed over, too.
    exact = not {types.key, types.argument} & {"FLOAT", "DOUBLE"}
    if key is None or not exact or types.key not in _MEASURED or types.argument not in _MEASURED:
        return None
    arguments = window.args["this"].args["expressions"]
    if types.key in ("DATE", "TIMESTAMP") or types.argument in ("DATE", "TIMESTAMP"):
        usable = exp.And(this=_finite(arguments[0], types.argument), expression=_finite(key.expression, types.key))
    else:
        usable = exp.And(this=not_null(arguments[0]), expression=not_null(key.expression))
    return column(draft.with_halo(window, _counted(draft, 2, 2, usable), by_position=False))


def _moving(draft: WindowDraft, window: exp.Expression, frame: Frame, types: ItemTypes) -> exp.Expression | None:
    """A frame with two bounds: any function can be computed where all of its frame is."""
    if frame.kind == "RANGE":
        reach = _measured(draft, frame, types)
        return column(draft.with_halo(window, reach, by_position=False)) if reach is not None else None
    before, after = max(-frame.start.rows, 0), max(frame.end.rows, 0)
    if before + after > HALO_ROWS:
        return None
    if frame.kind == "GROUPS":
        return column(draft.with_halo(window, _grouped(draft, before, after), by_position=False))
    if frame.exclude not in ("", "CURRENT ROW"):
        return None  # Peers are those of the order, and positions have none.
    return column(draft.with_halo(window, _counted(draft, before, after, None), by_position=True))


def _counted(draft: WindowDraft, before: int, after: int, valid: exp.Expression | None) -> CountReach:
    if valid is None:
        ordinal, rows = draft.ordinal(), draft.rows()
        count = draft.of_range(call("max", column(ordinal)))
        return CountReach(ordinal, count, rows, draft.earlier("sum", rows), before, after)
    counting = exp.Anonymous(**{**call("count_star").args, "filter": valid})
    ordinal = draft.in_range(counting, RUNNING)
    rows = draft.total(call("max", column(ordinal)), "max")
    count = draft.of_range(call("max", column(ordinal)))
    return CountReach(ordinal, count, rows, draft.earlier("sum", rows), before, after, valid)


def _grouped(draft: WindowDraft, before: int, after: int) -> CountReach:
    ordinal = draft.in_range(call("dense_rank"))
    groups = draft.total(call("max", column(ordinal)), "max")
    count = draft.of_range(call("max", column(ordinal)))
    return CountReach(ordinal, count, groups, draft.earlier("sum", groups), before, after)


def _measured(draft: WindowDraft, frame: Frame, types: ItemTypes) -> ValueReach | None:
    if len(draft.order) != 1 or not (types.key in _MEASURED or types.key == "DECIMAL"):
        return None
    key = draft.order[0]
    least, greatest = (draft.of_range(call(name, key.expression)) for name in ("min", "max"))
    return ValueReach(
        key.expression,
        key.descending,
        _distance(frame.start, -1),
        _distance(frame.end, 1),
        least,
        greatest,
        draft.total(call("min", key.expression), "min"),
        draft.total(call("max", key.expression), "max"),
    )


def _distance(bound: Bound, side: int) -> exp.Expression | None:
    return bound.distance if bound.rows == side else None


# --- frames that begin or end with all rows


def _running(draft: WindowDraft, window: exp.Expression, frame: Frame, types: ItemTypes) -> exp.Expression | None:
    inner = window.args["this"]
    found = function_call(window)
    if found is None or any(inner.args.get(k) for k in ("distinct", "order", "nulls")):
        return None
    name, arguments = found
    if name in ("avg", "mean") and (types.argument in _AVERAGED or types.argument == "DECIMAL"):
        of_sum, of_count = (
            exp.Window(**{**window.args, "this": exp.Anonymous(**{**inner.args, "this": n})}) for n in ("sum", "count")
        )
        rows = _combined(draft, of_count, frame)
        share = call("/", _double(_combined(draft, of_sum, frame)), rows)
        return _case(exp.GT(this=rows, expression=integer(0)), share, exp.Null())
    if name not in _COMBINED or len(arguments) > 1:
        return None
    return _combined(draft, window, frame)


def _shifted(draft: WindowDraft, window: exp.Expression, frame: Frame) -> exp.Expression | None:
    """From an end of all rows to so many rows from the current one: what the row there has of a frame up to itself.

    sum(x) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING)    is the running sum of two rows before
    """
    inner, rows = window.args["this"], frame.shifted
    found = function_call(window)
    unusual = frame.exclude or any(inner.args.get(k) for k in ("distinct", "order", "nulls"))
    if found is None or unusual or found[0] not in _COMBINED or rows is None or abs(rows) > HALO_ROWS:
        return None
    name = found[0]
    spec = RUNNING if frame.start.unbounded else TO_THE_END
    up_to_row = exp.Window(**{**window.args, "spec": spec})
    carried = draft.carry(_combined(draft, up_to_row, replace(frame, start=_up_to(frame.start), end=_up_to(frame.end))))
    # Beyond one end there is nothing, beyond the other everything.
    outwards = rows < 0 if frame.start.unbounded else rows > 0
    nothing = integer(0) if name in _COUNTS else exp.Null()
    beyond = (
        nothing if outwards else column(draft.all_ranges(_COMBINED[name][0], draft.total(inner, _COMBINED[name][0])))
    )
    move = call("lag" if rows < 0 else "lead", column(carried), integer(abs(rows)), beyond)
    reach = _counted(draft, max(-rows, 0), max(rows, 0), None)
    return column(draft.with_halo(exp.Window(this=move), reach, by_position=True))


def _up_to(bound: Bound) -> Bound:
    return bound if bound.unbounded else Bound()


def _combined(draft: WindowDraft, window: exp.Expression, frame: Frame) -> exp.Expression:
    """The total of all earlier ranges, the value within the range, the total of all later ranges: what applies."""
    name = window.args["this"].args["this"].lower()
    again, join = _COMBINED[name]
    total = draft.total(window.args["this"], again)
    parts = [column(draft.in_range_as(window))]
    if frame.start.unbounded:
        parts.insert(0, column(draft.earlier(again, total)))
    if frame.end.unbounded:
        parts.append(column(draft.later(again, total)))
    return _joined(parts, join)


def _end_of_frame(draft: WindowDraft, window: exp.Expression, frame: Frame, *, first: bool) -> exp.Expression | None:
    inner = window.args["this"]
    if frame.exclude or any(inner.args.get(k) for k in ("distinct", "order", "filter")):
        return None
    local = column(draft.in_range_as(window))
    ignoring = inner.args.get("nulls") == "IGNORE"
    nulls = "IGNORE" if ignoring else None
    name = inner.args["this"]
    of_range = draft.in_range(inner, WHOLE_RANGE)
    total = draft.total(call("first", column(of_range)), "first")
    before = column(draft.earlier(name, total, nulls)) if frame.start.unbounded else None
    after = column(draft.later(name, total, nulls)) if frame.end.unbounded else None
    if ignoring:
        parts = [p for p in ((before, local, after) if first else (after, local, before)) if p is not None]
        return exp.Coalesce(this=parts[0], expressions=parts[1:]) if len(parts) > 1 else parts[0]
    outer = before if first else after
    if outer is None:
        return local
    rows = draft.rows()
    beyond = draft.earlier("sum", rows) if first else draft.later("sum", rows)
    return _case(exp.GT(this=column(beyond), expression=integer(0)), outer, local)


def _nth_value(draft: WindowDraft, window: exp.Expression, frame: Frame) -> exp.Expression | None:
    """Of a frame that begins with the first row: that row's value, once the frame has so many rows."""
    inner = window.args["this"]
    value, nth = inner.args["expressions"]
    wanted = constant_integer(nth)
    unusual = frame.exclude or any(inner.args.get(k) for k in ("distinct", "order", "filter", "nulls"))
    if unusual or not frame.start.unbounded or wanted is None or not 1 <= wanted <= _MOST_HEADS:
        return None
    ordinal = column(draft.ordinal())
    by_ordinal = exp.Order(expressions=[exp.Ordered(this=ordinal, desc=False, nulls_first=False)])
    among = exp.LTE(this=ordinal, expression=integer(wanted))
    heads = exp.Anonymous(**{**call("list", value).args, "order": by_ordinal, "filter": among})
    lists = draft.in_order_of_ranges("list", draft.total(heads, "first"))
    rows = _combined(draft, exp.Window(**{**window.args, "this": call("count_star")}), frame)
    found = call("list_extract", call("flatten", column(lists)), integer(wanted))
    return _case(exp.GTE(this=rows, expression=integer(wanted)), found, exp.Null())


# --- expressions


def _joined(parts: Sequence[exp.Expression], join: _Join) -> exp.Expression:
    """Parts put together; one that is NULL, of no rows or no values, leaves the other."""
    return reduce(lambda a, b: exp.Coalesce(this=join(a, b), expressions=[a, b]), parts)


def _double(value: exp.Expression) -> exp.Expression:
    cast: exp.Expression = exp.Cast(this=value, to=data_type("DOUBLE"))
    return cast


def _case(condition: exp.Expression, then: exp.Expression, otherwise: exp.Expression) -> exp.Expression:
    case: exp.Expression = exp.Case(ifs=[exp.If(this=condition, true=then)], default=otherwise)
    return case


def _finite(expression: exp.Expression, type_name: str) -> exp.Expression:
    return call("isfinite", expression) if type_name in ("DATE", "TIMESTAMP") else not_null(expression)
