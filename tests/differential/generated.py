"""Hypothesis strategies: small tables full of awkward values, and random queries over them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

COLUMNS = {
    "k": "INTEGER",
    "g": "SMALLINT",
    "h": "BIGINT",
    "d": "DECIMAL(6, 2)",
    "f": "DOUBLE",
    "s": "VARCHAR",
    "t": "DATE",
}
NUMBERS = ("k", "g", "h", "d", "f")
MAX_ROWS = 30

_VALUES: dict[str, Sequence[Any]] = {
    "k": (None, 1, 1, 1, 1, 1, 2, 3, -5, 2**31 - 1),
    "g": (None, 1, 2, 3, -5, 0),
    "h": (None, 1, 1, 2, 2**40, -5),
    "d": (None, Decimal("1.00"), Decimal("2.50"), Decimal("-0.01"), Decimal("0.00"), Decimal("3.00")),
    "f": (None, math.nan, -0.0, 0.0, 1.0, 1.5, -2.25, 3.0, 0.1),
    "s": (None, "", "a", "A", "b", "a'b", "é", "1"),
    "t": (None, dt.date(2024, 2, 29), dt.date(2024, 3, 1), dt.date(1970, 1, 1)),
}


@st.composite
def tables(draw: st.DrawFn, names: Sequence[str] = ("a", "b")) -> list[str]:
    """Statements that make the tables, each with a unique ``id`` and the columns of ``COLUMNS``."""
    statements = []
    for name in names:
        rows = draw(st.lists(st.tuples(*[st.sampled_from(_VALUES[column]) for column in COLUMNS]), max_size=MAX_ROWS))
        declared = ", ".join(f"{column} {kind}" for column, kind in COLUMNS.items())
        statements.append(f"CREATE OR REPLACE TABLE {name} (id INTEGER, {declared})")
        if rows:
            texts = [f"({', '.join(map(literal, (number, *row)))})" for number, row in enumerate(rows)]
            statements.append(f"INSERT INTO {name} VALUES {', '.join(texts)}")
    return statements


def literal(value: Any) -> str:
    """SQL of a value."""
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"'{value}'::DOUBLE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, dt.date):
        return f"DATE '{value}'"
    return str(value)


# Pairs of columns that compare, of one type and of two.
KEY_PAIRS = [("k", "k"), ("k", "g"), ("h", "k"), ("k", "d"), ("f", "k"), ("f", "f"), ("d", "f"), ("s", "s"), ("t", "t")]
columns = st.sampled_from(list(COLUMNS))
numbers = st.sampled_from(NUMBERS)


@st.composite
def conditions(draw: st.DrawFn, left: str, right: str) -> str:
    """A join condition: one or two keys, or a comparison, perhaps with more beside it."""
    parts = []
    for _ in range(draw(st.integers(1, 2))):
        first, second = draw(st.sampled_from(KEY_PAIRS))
        operator = draw(st.sampled_from(["=", "=", "=", "IS NOT DISTINCT FROM"]))
        parts.append(f"{left}.{first} {operator} {right}.{second}")
    if draw(st.booleans()):
        parts.append(draw(st.sampled_from([f"{left}.id < {right}.id", f"{left}.k > 0", f"{right}.s <> 'a'"])))
    return " AND ".join(parts)


@st.composite
def joins(draw: st.DrawFn) -> str:
    """A query that joins the tables ``a`` and ``b``."""
    kind = draw(st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]))
    condition = draw(conditions("a", "b"))
    shown = "a.id, a.k, a.s" if kind in ("SEMI JOIN", "ANTI JOIN") else "a.id, b.id, a.k, b.f, b.s"
    return f"SELECT {shown} FROM a {kind} b ON {condition}"


@st.composite
def relations(draw: st.DrawFn) -> str:
    """Something to select from that has all of the columns."""
    return draw(
        st.sampled_from(
            [
                "a",
                "(SELECT * FROM a UNION ALL SELECT * REPLACE (id + 100 AS id) FROM b)",
                "(SELECT a.* FROM a JOIN b ON a.k = b.k)",
                "(SELECT b.* FROM a RIGHT JOIN b ON a.s = b.s)",
                "(SELECT a.* REPLACE (coalesce(b.k, a.k) AS k) FROM a LEFT JOIN b USING (id))",
                "(SELECT * FROM a WHERE k IN (SELECT g FROM b))",
                "(SELECT DISTINCT * FROM a)",
            ]
        )
    )


@st.composite
def aggregates(draw: st.DrawFn) -> str:
    """One aggregate call."""
    number, column = draw(numbers), draw(columns)
    text = draw(
        st.sampled_from(
            [
                "count(*)",
                f"count({column})",
                f"count(DISTINCT {column})",
                f"min({column})",
                f"max({column})",
                f"sum({number})",
                f"sum(DISTINCT {number})",
                f"avg({number})",
                "stddev(d)",
                "median(k)",
                "arg_max(id, d)" if column == "d" else f"list({column} ORDER BY id)",
                "string_agg(s, '|' ORDER BY id)",
                "bool_or(k > 1)",
            ]
        )
    )
    return text if draw(st.integers(0, 2)) else f"{text} FILTER (WHERE g > 0)"


@st.composite
def groupings(draw: st.DrawFn) -> str:
    """An aggregation with or without keys."""
    calls = ", ".join(draw(st.lists(aggregates(), min_size=1, max_size=3)))
    source = draw(relations())
    keys = draw(st.lists(columns, max_size=2, unique=True))
    if not keys:
        return f"SELECT {calls} FROM {source} AS r"
    listed = ", ".join(keys)
    form = draw(st.sampled_from([listed, listed, listed, f"ROLLUP ({listed})", f"CUBE ({listed})"]))
    having = draw(st.sampled_from(["", "", " HAVING count(*) > 1"]))
    return f"SELECT {listed}, {calls} FROM {source} AS r GROUP BY {form}{having}"


@st.composite
def windows(draw: st.DrawFn) -> str:
    """A window function, partitioned or over everything."""
    call = draw(
        st.sampled_from(["row_number()", "rank()", "sum(h)", "count(s)", "lag(d)", "first_value(s IGNORE NULLS)"])
    )
    partition = draw(st.sampled_from(["", "PARTITION BY k ", "PARTITION BY f ", "PARTITION BY s, g "]))
    order = draw(st.sampled_from(["id", "d DESC NULLS FIRST, id", "f, id", "s DESC, id"]))
    frame = draw(st.sampled_from(["", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING"]))
    over = f"{call} OVER ({partition}ORDER BY {order}{frame if '(' in call else ''})"
    source = draw(st.sampled_from(["a", "b", "(SELECT * FROM a UNION ALL SELECT * REPLACE (id + 100 AS id) FROM b)"]))
    qualify = draw(st.sampled_from(["", "", f" QUALIFY row_number() OVER ({partition}ORDER BY {order}) = 1"]))
    return f"SELECT id, {over} AS w FROM {source} AS r{qualify}"


@st.composite
def set_operations(draw: st.DrawFn) -> str:
    """UNION, INTERSECT or EXCEPT of columns that may differ in type."""
    first, second = draw(st.sampled_from([*KEY_PAIRS, ("g", "h"), ("s", "s")]))
    operation = draw(st.sampled_from(["UNION", "UNION ALL", "INTERSECT", "INTERSECT ALL", "EXCEPT", "EXCEPT ALL"]))
    return f"SELECT {first} FROM a {operation} SELECT {second} FROM b"


@st.composite
def subqueries(draw: st.DrawFn) -> str:
    """A filter or a value that asks a subquery."""
    first, second = draw(st.sampled_from(KEY_PAIRS))
    aggregate = draw(st.sampled_from(["max(id)", "count(*)", "sum(d)", "min(s)"]))
    return draw(
        st.sampled_from(
            [
                f"SELECT id FROM a WHERE {first} IN (SELECT {second} FROM b)",
                f"SELECT id FROM a WHERE {first} NOT IN (SELECT {second} FROM b)",
                f"SELECT id FROM a WHERE {first} NOT IN (SELECT {second} FROM b WHERE {second} IS NOT NULL)",
                f"SELECT id, {first} IN (SELECT {second} FROM b) AS p FROM a",
                f"SELECT id, {first} NOT IN (SELECT {second} FROM b WHERE b.g = a.g) AS p FROM a",
                f"SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.{second} = a.{first} AND b.id <> a.id)",
                f"SELECT id FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.{second} = a.{first})",
                f"SELECT id, (SELECT {aggregate} FROM b WHERE b.{second} = a.{first}) AS v FROM a",
                f"SELECT id FROM a WHERE id > (SELECT {aggregate if 's' not in aggregate else 'count(s)'} FROM b)",
                "SELECT id FROM a WHERE k > ALL (SELECT g FROM b)",
                "SELECT id, k = ANY (SELECT g FROM b) AS p FROM a",
            ]
        )
    )


@st.composite
def sorts(draw: st.DrawFn) -> str:
    """A sorted selection, perhaps cut."""
    keys = draw(st.lists(columns, min_size=1, max_size=2, unique=True))
    listed = ", ".join(key + draw(st.sampled_from(["", " DESC", " NULLS FIRST", " DESC NULLS LAST"])) for key in keys)
    limit = draw(st.sampled_from(["", "", " LIMIT 3", " LIMIT 5 OFFSET 2", " LIMIT 40%"]))
    return f"SELECT id, {', '.join(keys)} FROM {draw(relations())} AS r ORDER BY {listed}{limit}"


LISTED = "id, k, g, h, d, f, s, t"


@st.composite
def _steps(draw: st.DrawFn, source: str, other: str) -> str:
    """One operation on ``source``, and perhaps on ``other``, that has the columns of both again."""
    key = draw(st.sampled_from(["k", "h", "s", "f", "d", "t", "g"]))
    keys = draw(st.sampled_from([key, key, f"{key}, g"]))
    kind = draw(st.sampled_from(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]))
    first, second = draw(st.sampled_from(KEY_PAIRS))
    mixed = ", ".join(f"{draw(st.sampled_from('xy'))}.{c}" for c in ("g", "h", "d", "f", "s", "t"))
    test = draw(st.sampled_from(["k > 0", "s IS NOT NULL", "f = f", "g <> 1"]))
    half = draw(st.sampled_from(["SEMI", "ANTI"]))
    x, y = f"{source} AS x", f"{other} AS y"
    on = f"x.{first} = y.{second}"
    return draw(
        st.sampled_from(
            [
                f"SELECT * FROM {x} WHERE {test}",
                f"SELECT coalesce(x.id, 0) * 1000 + coalesce(y.id, 0), x.k, {mixed} FROM {x} {kind} {y} ON {on}",
                f"SELECT x.id, coalesce(x.k, y.k), {mixed} FROM {x} {kind} {y} USING (id)",
                f"SELECT x.* FROM {x} {half} JOIN {y} ON {on}",
                f"SELECT min(id), max(k), max(g), sum(h), max(d), min(f), max(s), max(t) FROM {x} GROUP BY {keys}",
                f"SELECT min(id), k, count(*), count(DISTINCT {key}), sum(d), max(f), s, max(t) FROM {x} GROUP BY k, s",
                f"SELECT x.* REPLACE (row_number() OVER (PARTITION BY {keys} ORDER BY id)::SMALLINT AS g) FROM {x}",
                f"SELECT x.* REPLACE (sum(k) OVER (PARTITION BY {keys})::BIGINT AS h) FROM {x}",
                f"SELECT * FROM {x} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY id DESC) = 1",
                f"SELECT DISTINCT ON ({keys}) * FROM {x} ORDER BY {keys}, id",
                f"SELECT * FROM {x} UNION SELECT * FROM {y}",
                f"SELECT * FROM {x} UNION ALL SELECT * REPLACE (id + 50000 AS id) FROM {y}",
                f"SELECT * FROM {x} EXCEPT SELECT * FROM {y}",
                f"SELECT * FROM {x} WHERE {first} IN (SELECT {second} FROM {y})",
                f"SELECT * FROM {x} WHERE {first} NOT IN (SELECT {second} FROM {y} WHERE g > 1)",
                f"SELECT * FROM {x} WHERE NOT EXISTS (SELECT 1 FROM {y} WHERE {on} AND y.id <> x.id)",
                f"SELECT x.* REPLACE ((SELECT count(*) FROM {y} WHERE {on}) AS h) FROM {x}",
                f"SELECT * FROM {x} ORDER BY {key}, id LIMIT 7",
            ]
        )
    )


@st.composite
def nested(draw: st.DrawFn) -> str:
    """A query of several operations on each other, some of them on a part that is used twice."""
    parts: list[str] = []
    names = ["a", "b"]
    for number in range(draw(st.integers(1, 4))):
        source, other = draw(st.sampled_from([*names, names[-1]])), draw(st.sampled_from(names))
        parts.append(f"w{number}({LISTED}) AS ({draw(_steps(source, other))})")
        names.append(f"w{number}")
    last = names[-1]
    final = draw(
        st.sampled_from(
            [
                f"SELECT * FROM {last}",
                f"SELECT id, k, f, s FROM {last} ORDER BY k, s DESC",
                f"SELECT k, count(*), sum(d), min(s) FROM {last} GROUP BY k",
                f"SELECT count(*), sum(h), max(f), count(DISTINCT s) FROM {last}",
                f"SELECT x.id, y.id FROM {last} AS x JOIN {last} AS y ON x.k = y.k",
                f"SELECT g, s, count(*) FROM {last} GROUP BY ROLLUP (g, s)",
            ]
        )
    )
    return f"WITH {', '.join(parts)} {final}"
