"""Statements that grow in one direction each, for the curves of ``planning.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTHS = (10, 100, 1_000)


def _columns(width: int) -> str:
    return ", ".join(f"range + {i} AS c{i}" for i in range(width))


TABLES = (
    "CREATE TABLE t AS SELECT range AS a, range % 100 AS b FROM range(200000)",
    "CREATE TABLE u AS SELECT range AS a, range % 100 AS b FROM range(50000)",
    *(f"CREATE TABLE w{n} AS SELECT {_columns(n)} FROM range(1000)" for n in WIDTHS),
)
"""What the statements read."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A family of statements: ``make`` gives that of a size."""

    name: str
    make: Callable[[int], str]
    sizes: Sequence[int]


def _values(size: int) -> str:
    rows = ", ".join(f"({i * 3}, 'v{i}')" for i in range(size))
    return f"SELECT t.a, v.y FROM t JOIN (VALUES {rows}) v(x, y) ON t.a = v.x"


def _nested(opening: Callable[[int], str], inner: str, closing: Callable[[int], str], size: int) -> str:
    return "".join(map(opening, range(size))) + inner + "".join(map(closing, range(size)))


def _case(size: int) -> str:
    nested = _nested(lambda i: f"CASE WHEN a = {i} THEN b + {i} ELSE ", "0", lambda _: " END", size)
    return f"SELECT sum({nested}) FROM t"


def _branches(size: int) -> str:
    return f"SELECT sum(CASE {' '.join(f'WHEN a = {i} THEN b + {i}' for i in range(size))} ELSE 0 END) FROM t"


def _subqueries(size: int) -> str:
    head = "SELECT a + 1 AS a, b FROM ("
    return _nested(lambda _: head, "SELECT a, b FROM t", lambda i: f") WHERE b != {i}", size)


def _groups(size: int) -> str:
    head = "SELECT a, max(b) + 1 AS b FROM ("
    return _nested(lambda _: head, "SELECT a, b FROM t", lambda _: ") GROUP BY a", size)


def _joined(start: str, separator: str, part: str, end: str = "") -> Callable[[int], str]:
    """Statements of so many parts; ``{i}`` and ``{next}`` in a part are its number and the one after it."""

    def make(size: int) -> str:
        parts = (part.replace("{i}", str(i)).replace("{next}", str(i + 1)) for i in range(size))
        return start + separator.join(parts) + end

    return make


_COUNT = "SELECT count(*) FROM t "

SHAPES = (
    Shape("IN list", _joined(f"{_COUNT}WHERE a IN (", ", ", "{i}", ")"), (10, 1_000, 10_000, 100_000)),
    Shape("VALUES", _values, (10, 1_000, 10_000)),
    Shape("CASE depth", _case, (10, 30, 100, 300)),
    Shape("CASE branches", _branches, (10, 100, 1_000)),
    Shape("sum terms", _joined("SELECT sum(a", "", " + a * {next}", ") FROM t"), (10, 100, 400, 700)),
    Shape("AND terms", _joined(f"{_COUNT}WHERE ", " AND ", "a % ({next} + 1) != 1"), (10, 100, 1_000)),
    Shape("OR terms", _joined(f"{_COUNT}WHERE ", " OR ", "(a = {i} AND b > {i})"), (10, 100, 300)),
    Shape("UNION ALL", _joined("", " UNION ALL ", "SELECT a + {i} AS a FROM t WHERE b = {i}"), (10, 100, 1_000)),
    Shape(
        "joins", _joined("SELECT count(*) FROM t t0 ", "", " JOIN t t{next} ON t{next}.a = t{i}.a"), (2, 10, 50, 100)
    ),
    Shape("LEFT joins", _joined(_COUNT, " ", "LEFT JOIN u u{i} ON u{i}.a = t.a"), (2, 10, 50, 100)),
    Shape("columns", lambda size: f"SELECT * FROM w{size} WHERE c0 > 5 ORDER BY c1", WIDTHS),
    Shape("aggregates", _joined("SELECT ", ", ", "sum(a + {i})", " FROM t GROUP BY b"), (10, 100, 1_000)),
    Shape("subqueries", _subqueries, (2, 10, 100, 300)),
    Shape("nested groups", _groups, (2, 10, 100)),
)
