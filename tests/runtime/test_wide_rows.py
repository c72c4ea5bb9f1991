"""Rows of any width leave DuckDB and segments in batches that are bounded by bytes; one row may have more."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import Result
from sabot_sql.agent import runner
from sabot_sql.agent.pool import start_agents
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.duck.streams import StartedStatement, batch_rows
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    Fragment,
    Outcome,
    QueryContext,
    TaskId,
    TaskReport,
    TaskSpec,
    WriteKind,
    WriteScheme,
)
from tests.support.budgets import with_budget

BATCH_BYTES = 16 << 20
KINDS = [(1, "thread"), (2, "thread"), (2, "process")]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> str:
    """4,000 rows of 30 kB."""
    file = tmp_path_factory.mktemp("wide") / "t.parquet"
    rows = "SELECT range AS i, repeat(chr(97 + (range % 26)::INTEGER), 30_000) || range AS s FROM range(4_000)"
    duckdb.sql(f"COPY ({rows}) TO '{file}' (ROW_GROUP_SIZE 2048)")
    return str(file)


def assert_bounded(result: Result) -> None:
    for reader in (result.to_arrow_reader(), pa.RecordBatchReader.from_stream(result)):
        batches = list(reader)
        assert sum(batch.num_rows for batch in batches) == len(result)
        assert all(batch.num_rows == 1 or batch.nbytes <= BATCH_BYTES for batch in batches)
        assert len(batches) > 1


@pytest.mark.parametrize(
    ("row_bytes", "rows"), [(None, 2048), (8, 16_384), (30_000, 139), (50_000_000, 1), (0, 16_384)]
)
def test_as_many_rows_are_exported_at_a_time_as_their_width_allows(row_bytes: float | None, rows: int) -> None:
    assert batch_rows(row_bytes) == rows


@pytest.mark.parametrize("working", ["600MiB", "4GiB"], ids=["on disk", "in memory"])
@pytest.mark.parametrize(("agents", "isolation"), KINDS)
def test_batches_of_results_are_bounded(agents: int, isolation: str, working: str, wide: str) -> None:
    with sabot_sql.connect(**with_budget(working, agents=agents, isolation=isolation)) as session:
        result = session.query(f"FROM '{wide}' ORDER BY i")
        assert result.stats["on_disk"] is (working == "600MiB")
        assert_bounded(result)
        assert pa.table(result).equals(duckdb.sql(f"FROM '{wide}' ORDER BY i").to_arrow_table())
        assert max(batch.num_rows for batch in result.to_arrow_reader(7)) == 7


@pytest.mark.parametrize(("agents", "isolation"), KINDS[:2])
def test_batches_of_values_that_arrow_holds_otherwise_are_bounded(agents: int, isolation: str, wide: str) -> None:
    """They go through DuckDB once more, as they are read."""
    sql = f"SELECT i::HUGEINT AS h, s FROM '{wide}' ORDER BY i"
    with sabot_sql.connect(**with_budget("1GiB", agents=agents, isolation=isolation)) as session:
        result = session.query(sql)
        assert_bounded(result)
        assert pa.table(result).schema == duckdb.sql(sql).to_arrow_table().schema
        assert result.to_arrow_reader().read_all()["h"].to_pylist() == list(range(4_000))


def test_agents_export_fewer_rows_once_they_know_how_wide_they_are(wide: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exported: list[int] = []

    class Watched(StartedStatement):
        def __init__(self, connection: Any, sql: str, values: Any, rows: int) -> None:
            exported.append(rows)
            super().__init__(connection, sql, values, rows)

    monkeypatch.setattr(runner, "StartedStatement", Watched)
    options = with_budget("1GiB", agents=2, isolation="thread")
    with sabot_sql.connect(**options, partitions=6, broadcast_limit=0, adaptive=False) as session:
        sql = f"SELECT count(*), sum(length(a.s)) FROM '{wide}' a JOIN '{wide}' b ON a.s = b.s"
        assert session.query(sql).fetchall() == duckdb.sql(sql.replace("JOIN", "SEMI JOIN")).fetchall()
        text = session.query(f"SELECT s, count(*) AS n FROM '{wide}' GROUP BY s HAVING count(*) = 1")
        assert len(text) == 4_000
    assert exported[0] == 2048
    assert 139 in exported


@pytest.mark.parametrize(("agents", "isolation"), KINDS)
def test_rows_of_fifty_megabytes(agents: int, isolation: str, tmp_path: Path) -> None:
    rows = "SELECT range AS i, repeat(chr(97 + range::INTEGER), 50_000_000) AS s FROM range(5)"
    duckdb.sql(f"COPY ({rows}) TO '{tmp_path}/t.parquet' (ROW_GROUP_SIZE 2048)")
    options = with_budget("2GiB", agents=agents, isolation=isolation)
    with sabot_sql.connect(**options, partitions=2, broadcast_limit=0) as session:
        for sql in (
            f"FROM '{tmp_path}/t.parquet'",
            f"FROM '{tmp_path}/t.parquet' ORDER BY s DESC",
            f"SELECT a.i, b.s FROM '{tmp_path}/t.parquet' a JOIN '{tmp_path}/t.parquet' b USING (s)",
        ):
            result = session.query(sql)
            assert_bounded(result)
            found = [
                (row["i"], len(row["s"]), row["s"][:1], set(row["s"][-3:]))
                for batch in result.to_arrow_reader()
                for row in batch.to_pylist()
            ]
            expected = [(i, 50_000_000, chr(97 + i), {chr(97 + i)}) for i in range(5)]
            assert found == expected[::-1] if "ORDER" in sql else sorted(found) == expected


MORE_THAN_AN_ARRAY_HOLDS = "SELECT range AS i, repeat(chr(48 + range::INTEGER), 50_000_000) AS s FROM range(44)"
"""Plain DuckDB fails where it makes Arrow of 2 GiB of text at once: such rows leave one by one."""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_more_text_in_a_vector_than_an_arrow_array_can_hold() -> None:
    with sabot_sql.connect(**with_budget("9GiB", agents=1)) as session:
        result = session.query(MORE_THAN_AN_ARRAY_HOLDS)
        lengths = {}
        for batch in result.to_arrow_reader():
            (i,) = batch.column(0).to_pylist()
            lengths[i] = len(batch.column(1)[0].as_buffer())
        assert lengths == dict.fromkeys(range(44), 50_000_000)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_task_with_more_text_in_a_vector_than_an_arrow_array_can_hold(tmp_path: Path) -> None:
    config = parse_config(agents=1, memory_limit="9GiB", spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    with start_agents(config, connection.plain_cursor()) as pool:
        (agent,) = pool.agents
        agent.begin(QueryContext("q", edges=("e",)))
        output = EdgeOutput("e", WriteScheme(WriteKind.ONE_PARTITION))
        agent.submit(TaskSpec(TaskId("q", "s", 0, 0), Fragment(MORE_THAN_AN_ARRAY_HOLDS), (output,)), outcomes.put)
        outcome = outcomes.get(timeout=300)
        assert isinstance(outcome, TaskReport), outcome
        assert (outcome.outputs[0].rows, outcome.outputs[0].size_bytes > 2_200_000_000) == (44, True)
    connection.close()
