"""Small tables with NULL, repeated and missing keys, and plans over them."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from tests.planner.context import FakeContext, forced

# t: k 0…6, v unique, n with NULL, s text, g 0…2; u: k 0…8, so that some rows of either side find no partner.
TABLES = """
CREATE TABLE t AS
SELECT
    i % 7 AS k, i AS v, (i % 5)::VARCHAR AS s, CASE WHEN i % 9 > 0 THEN i % 4 END AS n, i * 1.5::DOUBLE AS f, i % 3 AS g
FROM range(200) AS r(i);

CREATE TABLE u AS
SELECT i % 9 AS k, i AS w, CASE WHEN i % 6 > 0 THEN i % 11 END AS n, 'x' || i % 4 AS s FROM range(60) AS r(i);

CREATE TABLE small AS SELECT i AS k, 'name ' || i AS name FROM range(5) AS r(i);

CREATE TABLE early AS
SELECT TIMESTAMP '2024-01-01' + to_hours((i * 3)::INT) AS at, i % 4 AS k, i AS v FROM range(80) AS r(i);

CREATE TABLE late AS
SELECT TIMESTAMP '2024-01-01' + to_hours((i * 7)::INT) AS at, i % 6 AS k, i AS v FROM range(40) AS r(i);
"""


@pytest.fixture(scope="package")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute(TABLES)
        yield connection


@pytest.fixture
def context(connection: duckdb.DuckDBPyConnection) -> FakeContext:
    """Three agents; everything that may be hashed is."""
    return FakeContext(connection, settings=forced(3))
