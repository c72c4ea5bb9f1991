"""Long lists of constants are set aside as text and come back in their places, whatever else the query says."""

from __future__ import annotations

import duckdb
import pytest

from sabot_planner.sql.constant_lists import put_back, relation_of_rows, set_aside
from sabot_planner.sql.dialect import parse_exported, parse_rows, to_sql
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.print_guard import same_meaning

NUMBERS = ", ".join(f"CAST({i} AS BIGINT)" for i in range(200))
ROWS = ",\n        ".join(f"(CAST({i} AS INTEGER), CAST('v''{i}, ($1' AS VARCHAR), NULL, - {i}.5)" for i in range(200))


def serialized(sql: str) -> str:
    # Read to its end: this connection is everybody's.
    ((answer,),) = duckdb.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    return str(answer)


def printed(sql: str) -> tuple[str, int]:
    """``sql`` read and printed with its lists set aside and put back, and how many of them there were."""
    short, lists = set_aside(sql)
    tree = parse_exported(short)
    assert same_meaning(serialized(short), serialized(to_sql(tree)))
    put_back(nodes(tree), lists)
    return to_sql(tree), len(lists)


@pytest.mark.parametrize(
    ("sql", "lists"),
    [
        (f"SELECT a FROM (VALUES {ROWS}) AS r(a, b, c, d)", 1),
        (f"SELECT a FROM t AS r(a) WHERE (r.a IN ({NUMBERS})) AND (NOT (r.a IN ({NUMBERS})))", 2),
        (f'SELECT CAST("system".main.list_value({NUMBERS}) AS BIGINT[]) AS a', 1),
        (f"SELECT a FROM (VALUES {ROWS}) AS r(a, b, c, d) ORDER BY a ASC NULLS LAST LIMIT 3", 1),
        (f"(VALUES {ROWS}) UNION ALL (VALUES {ROWS})", 2),
        # What is no list of constants alone is read term by term.
        (f"SELECT a FROM (VALUES {ROWS}, (f(1), 'x', NULL, 2)) AS r(a, b, c, d)", 0),
        (f"SELECT (a IN ({NUMBERS}, b)) AS x FROM t AS r(a, b)", 0),
        (f"SELECT f({NUMBERS}) AS x", 0),
        # Nor is what a string or a name says.
        (f"SELECT 'IN ({NUMBERS})' AS a, \"VALUES {ROWS}\" AS b, 'it''s VALUES {NUMBERS}' AS c", 0),
        (f"SELECT 'IN ({NUMBERS})' AS a, (a IN ({NUMBERS})) AS b FROM t AS r(a)", 1),
    ],
)
def test_a_long_list_comes_back_as_it_was(sql: str, lists: int) -> None:
    out, found = printed(sql)
    assert found == lists
    assert same_meaning(serialized(sql), serialized(out))


def test_a_name_that_ends_like_a_word_of_a_list_is_none() -> None:
    _, lists = set_aside(f"SELECT join({NUMBERS}) AS a, my_list_value({NUMBERS}) AS b, domain ({NUMBERS}) AS c")
    assert lists == []


def relation(values: str) -> tuple[str, str, int]:
    _, (rows,) = set_aside(f"SELECT a FROM (VALUES {values}) AS r(a) {' ' * 1000}")
    return relation_of_rows(rows)


def test_the_rows_of_a_list_are_counted_and_the_first_is_read() -> None:
    query, first, count = relation(ROWS)
    assert count == 200
    assert query.startswith("VALUES (CAST(0 AS INTEGER)")
    assert [to_sql(e) for e in parse_rows(first)[0]] == [
        "CAST(0 AS INTEGER)",
        "CAST('v''0, ($1' AS VARCHAR)",
        "NULL",
        "- 0.5",
    ]


SPLIT = {
    "VARCHAR": ["''", "'a'", "'it''s, (1)'", "'two  words'", "'\n'", "'NULL'", "'ü'", "'\\x41'"],
    "DATE": ["'2020-01-31'", "'0044-03-15 (BC)'", "'infinity'", "'9999-12-31'"],
    "BIGINT": ["0", "- 9223372036854775808", "9223372036854775807"],
    "UTINYINT": ["0", "255"],
    "HUGEINT": ["170141183460469231731687303715884105727", "- 170141183460469231731687303715884105728"],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "DECIMAL(38, 37)": ["- 1.0000000000000000000000000000000000001", "0.5"],
    "DECIMAL(4,1)": ["123.4", "- 0.1"],
}


@pytest.mark.parametrize("type_name", SPLIT)
def test_a_column_of_texts_numbers_or_dates_is_one_text(type_name: str) -> None:
    constants = (SPLIT[type_name] * 1000)[:1000]
    values = ",\n   ".join(f"(CAST({c} AS {type_name}), CAST({i} AS INTEGER))" for i, c in enumerate(constants))
    query, _, count = relation(values)
    assert query.startswith("SELECT CAST(unnest(")
    assert count == 1000
    one, two = duckdb.sql(query), duckdb.sql(f"VALUES {values}")
    assert one.types == two.types
    assert one.fetchall() == two.fetchall()


@pytest.mark.parametrize(
    "constants",
    [
        ["CAST(NULL AS BIGINT)", "CAST(1 AS BIGINT)"],
        ["CAST(1.5 AS DOUBLE)"],
        ["NULL"],
        ["CAST('a\x1fb' AS VARCHAR)", "CAST('c' AS VARCHAR)"],
        ["CAST(1 AS VARCHAR)"],
        ["CAST(X'41' AS BLOB)"],
        ["CAST('1' AS BIGINT)"],
        ["CAST(TRUE AS BOOLEAN)"],
        ["CAST(1 AS BIGINT)", "CAST(1 AS INTEGER)"],
        ["CAST(1e3 AS DECIMAL(5,0))"],
        ["7"],
    ],
)
def test_any_other_column_is_written_out(constants: list[str]) -> None:
    values = ", ".join(f"({c})" for c in (constants * 1000)[:1000])
    query, _, count = relation(values)
    assert (query, count) == (f"VALUES {values}", 1000)


def test_a_short_query_is_not_looked_through() -> None:
    assert set_aside("SELECT a FROM (VALUES (1), (2)) AS r(a)") == ("SELECT a FROM (VALUES (1), (2)) AS r(a)", [])
