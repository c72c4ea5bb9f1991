"""A LIMIT or OFFSET that the query computes cuts rows in their order, at every run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.engine import agents_answer, session
from tests.support.oracle import Oracle
from tests.support.statements import as_parquet, own_tables

RUNS = 150
"""DuckDB exchanged the sides of the join with the value, and so the order of the rows, in one run of twenty."""


def test_an_offset_by_a_subquery_skips_the_first_rows(tmp_path: Path) -> None:
    sql = "SELECT id FROM sales ORDER BY id LIMIT 200 OFFSET ((SELECT max(pay) FROM staff) // 100)"
    with session(as_parquet(own_tables(), tmp_path), agents=2, partitions=3, broadcast_limit=0) as agents:
        all_rows = agents.query("SELECT id FROM sales ORDER BY id").fetchall()
        ((pay,),) = agents.query("SELECT max(pay) FROM staff").fetchall()
        expected = tuple(all_rows[int(pay) // 100 :][:200])
        assert len(expected) == 200
        found = Counter(tuple(agents.query(sql).fetchall()) for _ in range(RUNS))
    assert found == Counter({expected: RUNS})


@pytest.mark.parametrize("ending", ["LIMIT (SELECT 5)", "OFFSET (SELECT 290)", "LIMIT (SELECT 2) %"])
def test_the_cut_keeps_the_order_of_a_query_under_a_default_of_descending(ending: str) -> None:
    setup = ["CREATE TABLE t AS SELECT i % 17 AS a, i AS b FROM range(300) AS r(i)", "SET default_order = 'DESC'"]
    sql = f"SELECT a, b FROM t ORDER BY a, b {ending}"
    with Oracle(setup) as oracle, session(setup, agents=2, partitions=3, broadcast_limit=0) as agents:
        found = agents_answer(agents, sql)
        assert found.mode != "single", found.reason
        assert found.rows == oracle.expect(sql).answer


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("ending", ["OFFSET 7", "LIMIT 9000 OFFSET 50", "LIMIT (SELECT 9000)"])
def test_the_cut_keeps_the_order_of_a_query_where_insertion_order_is_not_kept(ending: str, isolation: str) -> None:
    setup = ["CREATE TABLE t AS SELECT i * 7 % 5003 AS a, i AS b FROM range(10000) AS r(i)"]
    unordered = "SET preserve_insertion_order = false"
    sql = f"SELECT a, b FROM t ORDER BY a, b {ending}"
    with Oracle(setup) as oracle, session([*setup, unordered], agents=2, isolation=isolation, partitions=5) as agents:
        for _ in range(5):
            found = agents_answer(agents, sql)
            assert found.mode != "single", found.reason
            assert found.rows == oracle.expect(sql).answer
