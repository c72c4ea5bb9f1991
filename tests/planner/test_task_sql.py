"""A fragment's inputs are bound in front of it, whatever the fragment starts with."""

from __future__ import annotations

import duckdb
import pytest

from sabot_planner.sql.text import quote, task_sql

pytestmark = pytest.mark.fast

ONE = ("in", ("a",), "SELECT 1")
TWO = ("in 2", (), 'SELECT a + 1 AS b FROM "in"')


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('SELECT a, b FROM "in", "in 2"', [(1, 2)]),
        ('WITH x(c) AS MATERIALIZED (SELECT a FROM "in") SELECT c, b FROM x, "in 2"', [(1, 2)]),
        (
            'WITH RECURSIVE r(n) AS ((SELECT a FROM "in") UNION ALL (SELECT n + 1 FROM r WHERE n < 3)) SELECT * FROM r',
            [(1,), (2,), (3,)],
        ),
        ('  with x as (select 1 as c) select c, a, b from x, "in", "in 2"', [(1, 1, 2)]),
    ],
)
def test_a_fragment_with_its_inputs_runs(sql: str, expected: list[tuple[int, ...]]) -> None:
    assert sorted(duckdb.sql(task_sql(sql, [ONE, TWO])).fetchall()) == expected


def test_without_inputs_the_text_stays_as_it_is() -> None:
    assert task_sql("SELECT 1", []) == "SELECT 1"


def test_inputs_are_never_materialised() -> None:
    assert task_sql("SELECT 1", [ONE]) == 'WITH "in"("a") AS NOT MATERIALIZED (SELECT 1) SELECT 1'


@pytest.mark.parametrize("name", ['a"b', "a b", "SELECT", "ä", "'", '"'])
def test_any_name_can_be_quoted(name: str) -> None:
    relation = duckdb.sql(task_sql(f"SELECT {quote(name)} FROM {quote(name)}", [(name, (name,), "SELECT 7")]))
    assert relation.columns == [name]
    assert relation.fetchall() == [(7,)]
