"""The judge itself: it passes what DuckDB might answer, and fails everything else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.compare import Row, Rows, assert_same, difference
from tests.support.oracle import Oracle, Verdict
from tests.support.tpch.data import queries, tpch, views

NAN = math.nan


def rows(*values: Row, types: tuple[str, ...] = ("INTEGER", "VARCHAR")) -> Rows:
    return Rows(tuple(f"c{i}" for i in range(len(types))), types, values)


def doubles(*values: Any) -> Rows:
    return rows(*[(value,) for value in values], types=("DOUBLE",))


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (rows((1, "a"), (1, "b"), (1, "a")), rows((1, "b"), (1, "a"), (1, "a"))),
        (doubles(NAN, 0.0, None), doubles(None, -0.0, NAN)),
        (doubles(0.1 + 0.2, 1e300), doubles(1e300, 0.3)),
        (rows(([0.1 + 0.2, None], {"x": NAN})), rows(([0.3, None], {"x": NAN}))),
        (rows(({"a": 1, "b": 2}, "x")), rows(({"b": 2, "a": 1}, "x"))),
        (doubles(*[i + 1e-12 for i in range(100)]), doubles(*[float(i) for i in reversed(range(100))])),
    ],
)
def test_equal_results(expected: Rows, actual: Rows) -> None:
    assert_same(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual", "message"),
    [
        (rows((1, "a"), (1, "a"), (1, "b")), rows((1, "a"), (1, "b"), (1, "b")), "missing, 1 rows:\n  (1, 'a')"),
        (rows((1, "a")), rows(), "0 rows for 1"),
        (rows((1, None)), rows((1, "")), "missing"),
        (rows((None, "a")), rows((0, "a")), "missing"),
        (rows((1, "a")), rows((1.0, "a")), "missing"),
        (rows((True, "a")), rows((1, "a")), "missing"),
        (doubles(1.0), doubles(1.0 + 1e-8), "missing"),
        (doubles(None), doubles(NAN), "missing"),
        (doubles(math.inf), doubles(-math.inf), "missing"),
        (rows(([1, 2], "a")), rows(([2, 1], "a")), "missing"),
        (rows((1,), types=("INTEGER",)), rows((1,), types=("BIGINT",)), "types: c0: BIGINT for INTEGER"),
        (rows((1, "a")), Rows(("c0", "x"), ("INTEGER", "VARCHAR"), ((1, "a"),)), "columns"),
    ],
)
def test_different_results(expected: Rows, actual: Rows, message: str) -> None:
    found = difference(expected, actual)
    assert found is not None
    assert message in found


def test_order_is_compared_between_ties_only() -> None:
    expected = rows((1, "a"), (1, "b"), (2, "c"))
    swapped_in_tie, swapped_across = rows((1, "b"), (1, "a"), (2, "c")), rows((2, "c"), (1, "a"), (1, "b"))
    assert difference(expected, swapped_in_tie, [2, 1]) is None
    assert "wrong order" in (difference(expected, swapped_across, [2, 1]) or "")
    assert difference(expected, swapped_across) is None
    assert difference(expected, swapped_in_tie, [1, 1, 1]) is not None


SETUP = [
    "CREATE TABLE t AS SELECT range AS i, range % 3 AS k, 's' || range % 5 AS s, range * 0.1::DOUBLE f FROM range(40)",
    "CREATE TABLE e (i INTEGER)",
]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle(SETUP) as judge:
        yield judge


def answer(oracle: Oracle, sql: str, change: Any = None) -> Rows:
    expected = oracle.expect(sql).answer
    changed = list(expected.rows) if change is None else change(list(expected.rows))
    return Rows(expected.columns, expected.types, tuple(changed))


STATEMENTS = [
    "SELECT * FROM t",
    "SELECT k, count(*), sum(f) FROM t GROUP BY k ORDER BY k",
    "SELECT i, k FROM t ORDER BY k DESC LIMIT 7",
    "SELECT s FROM t ORDER BY f + 1 LIMIT 3",
    "SELECT list(i), first(s) FROM t GROUP BY k",
    "SELECT * FROM e ORDER BY i",
]


@pytest.mark.parametrize("sql", STATEMENTS)
def test_duckdb_agrees_with_itself(oracle: Oracle, sql: str) -> None:
    assert oracle.judge(sql, answer(oracle, sql)) == (Verdict.EQUAL, "")


@pytest.mark.parametrize(
    ("sql", "change"),
    [
        ("SELECT * FROM t", lambda r: r[1:]),
        ("SELECT * FROM t", lambda r: [*r[1:], r[1]]),
        ("SELECT k, count(*) FROM t GROUP BY k ORDER BY k", lambda r: r[::-1]),
        ("SELECT i FROM t ORDER BY s, i", lambda r: [r[1], r[0], *r[2:]]),
        ("SELECT s FROM t ORDER BY i", lambda r: r[::-1]),
        ("SELECT i, k FROM t ORDER BY k DESC LIMIT 7", lambda r: r[:6]),
        ("SELECT i, k FROM t ORDER BY k DESC LIMIT 7", lambda r: [*r[:6], (0, 0)]),
        ("SELECT i, k FROM t ORDER BY k DESC LIMIT 7", lambda r: [*r[:6], (99, 2)]),
        ("SELECT k, list(i) FROM t GROUP BY k", lambda r: [(k, [*i, 1]) for k, i in r]),
        ("SELECT k, first(s) FROM t GROUP BY k", lambda r: [(k + 1, s) for k, s in r]),
        ("SELECT sum(f) FROM t", lambda r: [(r[0][0] + 1e-6,)]),
        ("SELECT max(i) FROM e", lambda r: []),
    ],
)
def test_a_seeded_error_is_found(oracle: Oracle, sql: str, change: Any) -> None:
    verdict, found = oracle.judge(sql, answer(oracle, sql, change))
    assert verdict is Verdict.WRONG
    assert found


@pytest.mark.parametrize(
    ("sql", "change"),
    [
        ("SELECT i, k FROM t ORDER BY k DESC LIMIT 7", lambda r: [*r[:6], (38, 2)]),
        ("SELECT i FROM t LIMIT 3", lambda r: [(30,), (31,), (32,)]),
        ("SELECT k, list(i) FROM t GROUP BY k", lambda r: [(k, i[::-1]) for k, i in r]),
        ("SELECT k, first(s) FROM t GROUP BY k", lambda r: [(k, "s4") for k, _ in r]),
        ("SELECT i, row_number() OVER () FROM t", lambda r: [(i, 41 - n) for i, n in r]),
        ("SELECT sum(f) FROM t", lambda r: [(r[0][0] + 1e-12,)]),
        (
            "SELECT i, row_number() OVER (PARTITION BY k ORDER BY i), lag(i) OVER (PARTITION BY k ORDER BY s) FROM t",
            lambda r: [(i, n, 0) for i, n, _ in r],
        ),
        ("SELECT i, k FROM t ORDER BY k", lambda r: [r[1], r[0], *r[2:]]),
    ],
)
def test_what_duckdb_leaves_open_is_not_an_error(oracle: Oracle, sql: str, change: Any) -> None:
    verdict, _ = oracle.judge(sql, answer(oracle, sql, change))
    assert verdict is not Verdict.WRONG


def test_a_limit_among_nans_leaves_a_choice() -> None:
    with Oracle(
        ["CREATE TABLE n AS SELECT range AS i, CASE WHEN range < 4 THEN 'nan' ELSE '1' END::DOUBLE AS f FROM range(6)"]
    ) as judge:
        sql = "SELECT i, f FROM n ORDER BY f LIMIT 3"
        expected = judge.expect(sql).answer
        others = [i for i in range(4) if i != expected.rows[2][0]]
        chosen = Rows(expected.columns, expected.types, (*expected.rows[:2], (others[0], NAN)))
        assert judge.judge(sql, chosen)[0] is Verdict.ADMISSIBLE
        wrong = Rows(expected.columns, expected.types, ((others[0], NAN), *expected.rows[:2]))
        assert judge.judge(sql, wrong)[0] is Verdict.WRONG


def test_tpch_is_generated_once_and_every_query_runs() -> None:
    directory = tpch(0.001)
    assert tpch(0.001) == directory
    with Oracle(views(directory)) as judge:
        for name, sql in queries().items():
            verdict, _ = judge.judge(sql, judge.expect(sql).answer)
            assert verdict is Verdict.EQUAL, name
    assert len(queries()) == 22
