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
edge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sabot_planner.sql.text import quote

_QUOTED = re.compile(r"\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'")
_WRITTEN = re.compile(r"\b(UNION\(|INTERVAL\b)")
_CAST_BACK = re.compile(r"\b(UNION|TUPLE|ENUM|INTERVAL)\b")
_BARE_TUPLE = re.compile(r"\bTUPLE\b(?!\()")
_ELEMENT = re.compile(r"(.*)\[(\d*)\]\Z", re.DOTALL)
_NESTED = re.compile(r"(STRUCT|MAP|UNION|TUPLE)\((.*)\)\Z", re.DOTALL)


def lost_on_edges(type_text: str) -> str | None:
    """The part of the type whose values cannot be had back from an edge, if there is one."""
    return "VARIANT" if re.search(r"\bVARIANT\b", _without_quoted(type_text)) else unreadable(type_text)


def unreadable(type_text: str) -> str | None:
    """The part of the type that DuckDB names but does not read, if there is one."""
    plain = _without_quoted(type_text)
    if "AGGREGATE_STATE" in plain:
        return "AGGREGATE_STATE"
    return "TUPLE of nothing" if _BARE_TUPLE.search(plain) else None


def is_written(type_text: str) -> bool:
    """Whether a value of the type is written to an edge in another form."""
    return _WRITTEN.search(_without_quoted(type_text)) is not None


def is_restored(type_text: str) -> bool:
    """Whether a value of the type comes from an edge in another form, ENUM by itself aside."""
    return re.search(r"\b(UNION\(|TUPLE\b|INTERVAL\b)", _without_quoted(type_text)) is not None


def has_no_name(type_text: str) -> bool:
    """Whether a tuple of nothing is in the type: DuckDB calls it TUPLE, and reads that nowhere."""
    return _BARE_TUPLE.search(_without_quoted(type_text)) is not None


def written(value: str, type_text: str, depth: int = 0) -> str:
    """SQL of what is written to an edge in place of the SQL ``value`` of the type."""
    if not is_written(type_text):
        return value
    if type_text == "INTERVAL":
        return _unless_null(value, _struct(_INTERVAL_FIELDS, _interval_parts(value)))
    element = _ELEMENT.match(type_text)
    if element:
        values = value if not element.group(2) else f"CAST({value} AS {element.group(1)}[])"
        return _each(values, depth, lambda x: written(x, element.group(1), depth + 1))
    kind, parts = _parts(type_text)
    if kind == "MAP":
        return _each(
            f"map_entries({value})",
            depth,
            lambda x: _struct(
                ["key", "value"],
                [written(f"struct_extract({x}, '{w}')", t, depth + 1) for w, (_, t) in zip(_ENTRY, parts, strict=True)],
            ),
        )
    if kind == "UNION":
        members = [written(f"union_extract({value}, {_text(name)})", inner, depth) for name, inner in parts]
        tag = f"CAST(union_tag({value}) AS VARCHAR)"
        return _unless_null(value, _struct(["tag", *_members(parts)], [tag, *members]))
    names = [name or f"element{i}" for i, (name, _) in enumerate(parts, 1)]
    fields = [written(_field(value, name, i), inner, depth) for i, (name, inner) in enumerate(parts, 1)]
    return _unless_null(value, _struct(names, fields))


def restored(value: str, type_text: str, depth: int = 0) -> str:
    """SQL of the value of the type, of the SQL ``value`` that was read from an edge."""
    plain = _without_quoted(type_text)
    if _CAST_BACK.search(plain) is None:
        return value
    if type_text == "TUPLE":
        return _unless_null(value, "row()")
    if type_text == "INTERVAL":
        makers = zip(("to_months", "to_days", "to_microseconds"), _INTERVAL_FIELDS, strict=True)
        return " + ".join(f"{make}(struct_extract({value}, '{name}'))" for make, name in makers)
    if not is_written(type_text) and not has_no_name(type_text):
        return f"CAST({value} AS {type_text})"
    element = _ELEMENT.match(type_text)
    if element:
        if element.group(2) and has_no_name(type_text):
            places = range(1, int(element.group(2)) + 1)
            items = [restored(f"array_extract({value}, {i})", element.group(1), depth) for i in places]
            return _unless_null(value, f"array_value({', '.join(items)})")
        values = _each(value, depth, lambda x: restored(x, element.group(1), depth + 1))
        return f"CAST({values} AS {type_text})" if element.group(2) else values
    kind, parts = _parts(type_text)
    if kind == "MAP":
        entries = _each(
            value if is_written(type_text) else f"map_entries({value})",
            depth,
            lambda x: _struct(
                ["k", "v"],
                [
                    restored(f"struct_extract({x}, '{w}')", t, depth + 1)
                    for w, (_, t) in zip(_ENTRY, parts, strict=True)
                ],
            ),
        )
        return f"map_from_entries({entries})"
    if kind == "UNION":
        choices = [
            f"WHEN {_text(name)} THEN CAST(union_value({quote(name)} := "
            f"{restored(f'struct_extract({value}, {_text(member)})', inner, depth)}) AS {type_text})"
            for member, (name, inner) in zip(_members(parts), parts, strict=True)
        ]
        return f"CASE struct_extract({value}, 'tag') {' '.join(choices)} END"
    names = [name or f"element{i}" for i, (name, _) in enumerate(parts, 1)]
    fields = [
        restored(f"struct_extract({value}, {_text(name)})", inner, depth)
        for name, (_, inner) in zip(names, parts, strict=True)
    ]
    return _unless_null(value, f"row({', '.join(fields)})" if kind == "TUPLE" else _struct(names, fields))


_ENTRY = ("key", "value")
_INTERVAL_FIELDS = ("months", "days", "micros")


def _interval_parts(value: str) -> list[str]:
    """The three numbers that an interval is, each part of it with its own sign."""

    def part(name: str) -> str:
        return f"datepart('{name}', {value})"

    return [
        f"CAST({part('year')} * 12 + {part('month')} AS INTEGER)",
        f"CAST({part('day')} AS INTEGER)",
        f"{part('hour')} * 3600000000 + {part('minute')} * 60000000 + {part('microsecond')}",
    ]


def _members(parts: Sequence[tuple[str, str]]) -> list[str]:
    return [f"member{i}" for i in range(1, len(parts) + 1)]


def _field(value: str, name: str, position: int) -> str:
    return f"struct_extract({value}, {_text(name) if name else position})"


def _each(values: str, depth: int, change: Callable[[str], str]) -> str:
    parameter = f"x{depth}"
    return f"list_transform({values}, lambda {parameter}: {change(parameter)})"


def _struct(names: Sequence[str], values: Sequence[str]) -> str:
    return f"struct_pack({', '.join(f'{quote(n)} := {v}' for n, v in zip(names, values, strict=True))})"


def _unless_null(value: str, then: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN {then} END"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- reading types


def _without_quoted(type_text: str) -> str:
    return _QUOTED.sub("_", type_text)


def _parts(type_text: str) -> tuple[str, list[tuple[str, str]]]:
    """The kind of a nested type and its parts, named where they have names."""
    found = _NESTED.match(type_text)
    if found is None:
        raise ValueError(f"not a nested type: {type_text}")
    kind, inner = found.groups()
    parts = _split(inner)
    return kind, [_named(part) if kind in ("STRUCT", "UNION") else ("", part) for part in parts]


def _split(text: str) -> list[str]:
    """``text`` at the commas that are in no quotes and no parentheses."""
    parts, begin, level = [], 0, 0
    for token in re.finditer(rf"{_QUOTED.pattern}|[(),]", text):
        sign = token.group()
        level += (sign == "(") - (sign == ")")
        if sign == "," and level == 0:
            parts.append(text[begin : token.start()].strip())
            begin = token.end()
    return [*parts, text[begin:].strip()]


def _named(part: str) -> tuple[str, str]:
    if part.startswith('"'):
        quoted = _QUOTED.match(part)
        assert quoted is not None
        return quoted.group()[1:-1].replace('""', '"'), part[quoted.end() :].strip()
    name, _, type_text = part.partition(" ")
    return name, type_text.strip()
