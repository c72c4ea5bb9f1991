"""Values on an edge whose types Arrow has not: what a producer writes in their place, and how a consumer has them back.

========================= ======================================================== =====================================
type                      on an edge                                               why not as it is
========================= ======================================================== =====================================
``UNION(a A, b B)``       ``STRUCT(tag VARCHAR, member1 A, member2 B)``            a NULL would lose its tag
``TUPLE(A, B)``           as it is, and arrives as a struct with names             structs have names in Arrow
``INTERVAL``              ``STRUCT(months, days, micros)``                         nanoseconds overflow beyond 292 years
``MAP(K, V)`` of these    a list of (key, value)                                   keys cannot be changed in place
``VARIANT``               not at all                                               it would lose the types of its values
``AGGREGATE_STATE``       not at all                                               its name does not say what it is of
========================= ======================================================== =====================================

The same within lists, arrays, structs and maps, and in the rows of a result. Only what needs it is touched: a column
without any of these types is written and read as it is. ENUM, which arrives as text, is cast back by whoever reads an
edge (:func:`sabot_planner.sql.text.edge_column`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

from sabot_planner.sql.duck_type import CAST_BACK, EMPTY_TUPLE, DuckType, has_no_name, is_written
from sabot_planner.sql.text import builtin, quote


def written(value: str, kind: DuckType, depth: int = 0) -> str:
    """SQL of what is written to an edge in place of the SQL ``value`` of the type."""
    if not is_written(kind):
        return value
    if kind.kind == "INTERVAL":
        return _unless_null(value, _struct(_INTERVAL_FIELDS, _interval_parts(value)))
    if kind.kind in ("LIST", "ARRAY"):
        element = kind.element
        values = value if kind.kind == "LIST" else f"CAST({value} AS {element}[])"
        return _each(values, depth, lambda x: written(x, element, depth + 1))
    parts = kind.parts
    if kind.kind == "MAP":
        return _each(
            builtin("map_entries", value),
            depth,
            lambda x: _struct(
                ["key", "value"],
                [
                    written(builtin("struct_extract", x, _text(w)), t, depth + 1)
                    for w, (_, t) in zip(_ENTRY, parts, strict=True)
                ],
            ),
        )
    if kind.kind == "UNION":
        members = [written(builtin("union_extract", value, _text(name)), inner, depth) for name, inner in parts]
        tag = f"CAST({builtin('union_tag', value)} AS VARCHAR)"
        return _unless_null(value, _struct(["tag", *_members(parts)], [tag, *members]))
    names = [name or f"element{i}" for i, (name, _) in enumerate(parts, 1)]
    fields = [written(_field(value, name, i), inner, depth) for i, (name, inner) in enumerate(parts, 1)]
    return _unless_null(value, _struct(names, fields))


def restored(value: str, kind: DuckType, depth: int = 0) -> str:
    """SQL of the value of the type, of the SQL ``value`` that was read from an edge."""
    if kind.kinds.isdisjoint(CAST_BACK):
        return value
    if kind.kind == EMPTY_TUPLE:
        return _unless_null(value, builtin("row"))
    if kind.kind == "INTERVAL":
        makers = zip(("to_months", "to_days", "to_microseconds"), _INTERVAL_FIELDS, strict=True)
        return reduce(_sum, (builtin(make, builtin("struct_extract", value, _text(name))) for make, name in makers))
    if not is_written(kind) and not has_no_name(kind):
        return f"CAST({value} AS {kind})"
    if kind.kind in ("LIST", "ARRAY"):
        element = kind.element
        if kind.kind == "ARRAY" and has_no_name(kind):
            places = range(1, int(kind.parameters[0]) + 1)
            items = [restored(builtin("array_extract", value, str(i)), element, depth) for i in places]
            return _unless_null(value, builtin("array_value", *items))
        values = _each(value, depth, lambda x: restored(x, element, depth + 1))
        return f"CAST({values} AS {kind})" if kind.kind == "ARRAY" else values
    parts = kind.parts
    if kind.kind == "MAP":
        entries = _each(
            value if is_written(kind) else builtin("map_entries", value),
            depth,
            lambda x: _struct(
                ["k", "v"],
                [
                    restored(builtin("struct_extract", x, _text(w)), t, depth + 1)
                    for w, (_, t) in zip(_ENTRY, parts, strict=True)
                ],
            ),
        )
        return builtin("map_from_entries", entries)
    if kind.kind == "UNION":
        choices = []
        for member, (name, inner) in zip(_members(parts), parts, strict=True):
            one = restored(builtin("struct_extract", value, _text(member)), inner, depth)
            made = builtin("union_value", f"{quote(name)} := {one}")
            choices.append(f"WHEN {_text(name)} THEN CAST({made} AS {kind})")
        return f"CASE {builtin('struct_extract', value, _text('tag'))} {' '.join(choices)} END"
    names = [name or f"element{i}" for i, (name, _) in enumerate(parts, 1)]
    fields = [
        restored(builtin("struct_extract", value, _text(name)), inner, depth)
        for name, (_, inner) in zip(names, parts, strict=True)
    ]
    return _unless_null(value, builtin("row", *fields) if kind.kind == "TUPLE" else _struct(names, fields))


_ENTRY = ("key", "value")
_INTERVAL_FIELDS = ("months", "days", "micros")


def _interval_parts(value: str) -> list[str]:
    """The three numbers that an interval is, each part of it with its own sign."""

    def part(name: str) -> str:
        return builtin("datepart", _text(name), value)

    def times(name: str, factor: int) -> str:
        return builtin('"*"', part(name), str(factor))

    return [
        f"CAST({_sum(times('year', 12), part('month'))} AS INTEGER)",
        f"CAST({part('day')} AS INTEGER)",
        _sum(_sum(times("hour", 3_600_000_000), times("minute", 60_000_000)), part("microsecond")),
    ]


def _sum(one: str, other: str) -> str:
    return builtin('"+"', one, other)


def _members(parts: Sequence[tuple[str, DuckType]]) -> list[str]:
    return [f"member{i}" for i in range(1, len(parts) + 1)]


def _field(value: str, name: str, position: int) -> str:
    return builtin("struct_extract", value, _text(name) if name else str(position))


def _each(values: str, depth: int, change: Callable[[str], str]) -> str:
    parameter = f"x{depth}"
    return builtin("list_transform", values, f"lambda {parameter}: {change(parameter)}")


def _struct(names: Sequence[str], values: Sequence[str]) -> str:
    return builtin("struct_pack", *(f"{quote(n)} := {v}" for n, v in zip(names, values, strict=True)))


def _unless_null(value: str, then: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN {then} END"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
