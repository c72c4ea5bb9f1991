"""A fragment may never write, on threads and on processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql.agent.guard import require_query
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.coordinator.driver import run_job
from sabot_sql.errors import AgentError, QueryError, SabotSQLError

WRITES = [
    "COPY (SELECT 1) TO '{folder}/x.csv'",
    "COPY owned FROM '{folder}/x.csv'",
    "EXPORT DATABASE '{folder}/x'",
    "ATTACH '{folder}/x.duckdb' AS other",
    "INSERT INTO owned VALUES (2)",
    "UPDATE owned SET i = 2",
    "DELETE FROM owned",
    "DROP TABLE owned",
    "CREATE TABLE x AS SELECT 1",
    "SET threads = 1",
    "PRAGMA threads = 1",
    "CALL enable_logging()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "CHECKPOINT",
    "SELECT 1; DELETE FROM owned",
    "",
    "WITH w AS (INSERT INTO owned VALUES (2) RETURNING *) FROM w",
    "WITH w AS (COPY (SELECT 1) TO '{folder}/x.csv') FROM w",
    "WITH w AS MATERIALIZED (/* ( */ delete FROM owned RETURNING *) FROM w",
    "WITH a AS (SELECT E'\\'(' AS x), w AS (UPDATE owned SET i = 2 RETURNING *) FROM a, w",
]


@pytest.fixture(scope="module", params=("thread", "process"))
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPool]:
    folder = tmp_path_factory.mktemp("spill")
    config = parse_config(agents=1, isolation=request.param, memory_limit="256MiB", threads=1, spill_directory=folder)
    connection = Connection(config, str(folder / "duckdb"))
    connection.main.execute("CREATE TABLE owned AS SELECT 1 AS i")
    with start_agents(config, connection.main) as opened:
        yield opened
        assert connection.main.execute("FROM owned").fetchall() == [(1,)]
    connection.close()


@pytest.mark.parametrize("sql", WRITES)
def test_a_fragment_that_writes_is_refused(pool: AgentPool, tmp_path: Path, sql: str) -> None:
    graph = OperatorGraph((Operator("write", OperatorType.MAP, sql.format(folder=tmp_path)),))
    with pytest.raises(QueryError) as caught:
        run_job(graph, pool, query_id="q", deadline_ms=30_000)
    assert caught.value.code == "NOT_A_QUERY"
    assert list(tmp_path.iterdir()) == []


def test_a_fragment_that_writes_is_refused_below_others(pool: AgentPool) -> None:
    graph = OperatorGraph(
        (
            Operator("write", OperatorType.MAP, "DELETE FROM owned RETURNING *"),
            Operator("read", OperatorType.MAP, "SELECT i FROM e"),
        ),
        (ShuffleEdge("e", "write", "read", ShuffleEdgeType.FORWARD),),
    )
    with pytest.raises(SabotSQLError) as caught:
        run_job(graph, pool, query_id="q", deadline_ms=30_000)
    assert isinstance(caught.value, QueryError | AgentError)


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT \'insert\' AS a, "copy" FROM (SELECT 1 AS "copy")',
        "FROM (SELECT '(INSERT' AS a) -- (DELETE",
        "SELECT count(*) FROM (VALUES (1)) AS inserts(updated) WHERE (updated) > 0",
        "WITH w AS (SELECT $$ (COPY $$ AS a) FROM w",
        "SELECT (copy_of) FROM (SELECT 1 AS copy_of)",
    ],
)
def test_a_query_is_none_of_them(sql: str) -> None:
    with duckdb.connect() as connection:
        require_query(connection, sql)
        assert len(connection.execute(sql).fetchall()) == 1
