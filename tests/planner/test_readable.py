"""Expressions in labels stand there as people write them."""

from __future__ import annotations

import pytest

from sabot_planner.fragments.readable import Readable, readable, readable_name
from sabot_planner.sql.dialect import parse_exported, to_sql

pytestmark = pytest.mark.fast


def shown(text: str, enough: int = 10_000, **names: Readable) -> str:
    """The exported expression ``text`` as a label has it."""
    expression = parse_exported(f"SELECT {text} AS x").expressions[0].this
    return readable(expression, lambda name: names.get(name, Readable(name)), to_sql, enough).text


@pytest.mark.parametrize(
    ("exported", "written"),
    [
        ('"%"(o_custkey, CAST(10 AS BIGINT))', "o_custkey % 10"),
        ('"+"("%"(a, 10), 1)', "a % 10 + 1"),
        ('"%"("+"(a, 1), 10)', "(a + 1) % 10"),
        ('"-"(a, "-"(b, c))', "a - (b - c)"),
        ('"-"("-"(a, b), c)', "a - b - c"),
        ('"||"(a, CAST(b AS VARCHAR))', "a || b::VARCHAR"),
        ("\"~~\"(a, 'x%')", "a LIKE 'x%'"),
        ("\"!~~\"(a, 'it''s')", "a NOT LIKE 'it''s'"),
        ("\"->>\"(a, '$.b')", "a ->> '$.b'"),
        ('"-"(a)', "-a"),
        ('"-"("+"(a, b))', "-(a + b)"),
        ("(NOT (a > 10))", "NOT a > 10"),
        ("((NOT a) AND (b OR c))", "NOT a AND (b OR c)"),
        ("((a AND b) OR c)", "a AND b OR c"),
        ("(a IS NULL)", "a IS NULL"),
        ("(a IS NOT NULL)", "a IS NOT NULL"),
        ("((a = b) = c)", "a = b = c"),
        ("(a = (b = c))", "a = (b = c)"),
        ("(a IN (1, 2, 3))", "a IN (1, 2, 3)"),
        ("(a BETWEEN 1 AND 2)", "a BETWEEN 1 AND 2"),
        ("(a IS DISTINCT FROM b)", "a IS DISTINCT FROM b"),
        ("CASE WHEN (a = 0) THEN 'none' ELSE b END", "CASE WHEN a = 0 THEN 'none' ELSE b END"),
        ("COALESCE(a, CAST(0 AS DOUBLE))", "coalesce(a, 0)"),
        ("CAST(a AS DECIMAL(18,2))", "a"),
        ("CAST(a AS DATE)", "a::DATE"),
        ('CAST("+"(a, 1) AS VARCHAR)', "(a + 1)::VARCHAR"),
        ("CAST('1995-01-01' AS DATE)", "'1995-01-01'"),
        ("TRY_CAST(a AS DATE)", "TRY_CAST(a AS DATE)"),
        ('"year"(a)', "year(a)"),
        ('"system".main.count_star()', "count(*)"),
        ("count(DISTINCT a)", "count(DISTINCT a)"),
        ("sum_no_overflow(a) FILTER (WHERE (b > 1))", "sum(a) FILTER (WHERE b > 1)"),
        ('"+"(a, to_days(CAST(trunc(CAST(3 AS DOUBLE)) AS INTEGER)))', "a + INTERVAL 3 DAYS"),
        ("to_days(a)", "to_days(a)"),
        ("list_value(a, b)[1]", "[a, b][1]"),
        ("array_extract(a, CAST(1 AS BIGINT))", "a[1]"),
        ("a[CAST(1 AS BIGINT): CAST(3 AS BIGINT)]", "a[1:3]"),
        ("struct_extract(a, 'b')", "a.b"),
        ("create_sort_key(a, 'ASC NULLS LAST', b, 'DESC NULLS LAST')", "a, b"),
        ("a COLLATE C", "a"),
        ("a COLLATE NOCASE", "a COLLATE NOCASE"),
        ("rank() OVER (PARTITION BY a ORDER BY b ASC NULLS LAST)", "rank() OVER (…)"),
    ],
)
def test_an_expression_is_shown_as_people_write_it(exported: str, written: str) -> None:
    assert shown(exported) == written


def test_columns_have_the_names_that_people_gave_them() -> None:
    names = {"c1": Readable("o_orderkey"), "c2": Readable("a + b", 7)}
    assert shown('"%"(c1, 2)', **names) == "o_orderkey % 2"
    assert shown('"%"(c2, 2)', **names) == "(a + b) % 2"
    assert shown('"+"(c2, 2)', **names) == "a + b + 2"


@pytest.mark.parametrize(
    "text",
    [
        '"+"(' * 5_000 + "1" + ", 2)" * 5_000,
        '"+"(1, ' * 5_000 + "2" + ")" * 5_000,
        "CAST(" * 5_000 + "a" + " AS BIGINT)" * 5_000,
        "(NOT " * 5_000 + "a" + ")" * 5_000,
        "(" + " AND ".join(["a"] * 5_000) + ")",
        "(a IN (" + ", ".join(map(str, range(50_000))) + "))",
    ],
    ids=["left", "right", "casts", "negations", "AND", "IN"],
)
def test_only_the_beginning_of_a_large_expression_is_written(text: str) -> None:
    assert 0 < len(shown(text, enough=40)) <= 60


@pytest.mark.parametrize(
    ("generated", "written"),
    [
        ("(o_custkey % 10)", "o_custkey % 10"),
        ("((a % 10) + 1)", "(a % 10) + 1"),
        ("sum((a * b))", "sum(a * b)"),
        ("count_star()", "count(*)"),
        ('"year"("day")', "year(day)"),
        ('CAST("day" AS DATE)', "day::DATE"),
        ("(a ~~ '%x%')", "a LIKE '%x%'"),
        ("(a !~~* 'x')", "a NOT ILIKE 'x'"),
        ("(-(a))", "-a"),
        ("(a + to_days(CAST(trunc(CAST(3 AS DOUBLE)) AS INTEGER)))", "a + INTERVAL 3 days"),
        ("(a + b) * (c + d)", "(a + b) * (c + d)"),
        ("f('((', (a))", "f('((', (a))"),
        ("total (net)", "total (net)"),
        ("orders", "orders"),
        ("it's )(", "it's )("),
    ],
)
def test_a_name_that_duckdb_made_is_shown_as_people_write_it(generated: str, written: str) -> None:
    assert readable_name(generated).text == written
