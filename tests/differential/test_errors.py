"""Where DuckDB refuses a query or fails on its values, agents do, and the error is the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import duckdb
import pytest

from sabot_sql.errors import QueryError
from tests.support.engine import TIMEOUT_SECONDS, answer, session
from tests.support.oracle import Oracle
from tests.support.statements import own_tables

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "threads": {"agents": 2, "partitions": 3, "broadcast_limit": 0},
    "processes": {"agents": 2, "isolation": "process"},
}
STATEMENTS = [
    # values
    "SELECT sum(region::INTEGER) FROM sales",
    "SELECT region::DATE, count(*) FROM sales GROUP BY 1",
    "SELECT id::TINYINT, count(*) FROM sales GROUP BY 1",
    "SELECT region::shade FROM sales ORDER BY id",
    "SELECT tiny * 100::TINYINT FROM typed",
    "SELECT product, sum(9223372036854775807 - id + product) FROM sales GROUP BY product",
    "SELECT CASE WHEN id = 398 THEN error('late') ELSE id END FROM sales ORDER BY id",
    "SELECT s.id FROM sales AS s JOIN products AS p ON s.region::INTEGER = p.product",
    "SELECT 1 // (id - 5) FROM sales",
    "SELECT ntile(id - 5) OVER (PARTITION BY region ORDER BY id) FROM sales",
    "SELECT max(id, -1) FROM sales",
    "SELECT date_trunc(region, sold) FROM sales",
    "SELECT regexp_matches(region, '(') FROM sales",
    # more than one row
    "SELECT id, (SELECT name FROM products AS p WHERE p.product = s.product) FROM sales AS s",
    "SELECT (SELECT id FROM sales) + 1 FROM sales",
    "SELECT id FROM sales WHERE amount > (SELECT amount FROM sales)",
    # the statement
    "SELECT nocolumn FROM sales",
    "SELECT * FROM notable",
    "SELECT sum(region) FROM sales",
    "SELECT id FROM sales GROUP BY region",
    "SELECT FROM sales WHERE",
    "SELECT id FROM sales LIMIT -1",
]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle(own_tables()) as judge:
        yield judge


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(own_tables(), **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("sql", STATEMENTS)
def test_error(sql: str, configuration: str, oracle: Oracle, sessions: dict[str, Any]) -> None:
    with pytest.raises(duckdb.Error):
        oracle.expect(sql)
    with pytest.raises(QueryError):
        sessions[configuration].query(sql, timeout=TIMEOUT_SECONDS)
    assert answer(sessions[configuration], "SELECT count(*) FROM sales").rows.rows == ((400,),)
