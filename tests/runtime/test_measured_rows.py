"""What a session measured is kept with it, by the version of what was read, and is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from sabot_sql.catalog.measured import MeasuredRows


def write(file: Path, rows: int, factor: int) -> None:
    duckdb.sql(f"COPY (SELECT i % {factor} AS k, i AS v FROM range({rows}) r(i)) TO '{file}'")


def estimates(result: Any) -> set[str]:
    return {edge["estimated_by"] for edge in result.plan.json()["edges"] if "estimated_by" in edge}


def test_the_longest_unused_are_forgotten() -> None:
    measured = MeasuredRows(most_entries=3)
    measured.learn({"a": 1, "b": 2, "c": 3})
    assert measured.rows("a") == 1
    measured.learn({"d": 4, "c": 5})
    assert [measured.rows(name) for name in "abcd"] == [1, None, 5, 4]
    assert len(measured) == 3


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_query_that_runs_again_is_estimated_by_its_first_run(tmp_path: Path, isolation: Any) -> None:
    write(tmp_path / "t.parquet", 50_000, 40_000)
    sql = f"SELECT k, sum(v) FROM '{tmp_path}/t.parquet' GROUP BY k"
    with sabot_sql.connect(agents=2, isolation=isolation) as session:
        first, second = session.query(sql), session.query(sql)
        assert estimates(first) == {"a rule of thumb"}
        assert estimates(second) == {"the source"}, "rows that move as they are are counted in the file"
        said = " ".join(edge["reason"] for edge in second.plan.json()["edges"])
        assert "50,000 rows by an earlier run: the rows move as they are" in said
        assert sorted(first.fetchall()) == sorted(second.fetchall())
        write(tmp_path / "t.parquet", 60_000, 10)
        third = session.query(sql)
        assert estimates(third) == {"a rule of thumb"}, "another version of the file"
        assert len(third.fetchall()) == 10
    with sabot_sql.connect(agents=2, isolation=isolation) as session:
        assert estimates(session.query(sql)) == {"a rule of thumb"}, "nothing outlives its session"


def test_a_table_that_was_written_to_is_another(tmp_path: Path) -> None:
    sql = "SELECT k, sum(v) AS s FROM t WHERE v % 3 = 1 GROUP BY k"
    with sabot_sql.connect(agents=2) as session:
        session.execute("CREATE TABLE t AS SELECT i % 90 AS k, i AS v FROM range(10000) r(i)")
        session.query(sql)
        assert "an earlier run" in estimates(session.query(sql))
        session.execute("UPDATE t SET k = 1 WHERE v > 10")
        assert "an earlier run" not in estimates(session.query(sql))


def test_without_adaptivity_nothing_is_learned(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", 1_000, 900)
    sql = f"SELECT k, sum(v) FROM '{tmp_path}/t.parquet' GROUP BY k"
    with sabot_sql.connect(agents=2, adaptive=False) as session:
        session.query(sql)
        assert estimates(session.query(sql)) == {"a rule of thumb"}


def test_files_that_tasks_write_are_no_rows(tmp_path: Path) -> None:
    """A task that writes a file commits the number of its rows, one row, in their place."""
    write(tmp_path / "t.parquet", 9_000, 900)
    rows = f"SELECT k, v FROM '{tmp_path}/t.parquet' WHERE v % 3 = 1"
    with sabot_sql.connect(agents=2) as session:
        session.execute(f"COPY ({rows}) TO '{tmp_path}/out' (FORMAT parquet, PER_THREAD_OUTPUT)")
        ordered = session.query(f"{rows} ORDER BY v")
        assert "an earlier run" not in estimates(ordered)
        session.query(rows)
        ordered = session.query(f"{rows} ORDER BY v")
        assert [e["rows_estimated"] for e in ordered.plan.json()["edges"] if e["type"] == "RANGE"] == [3_000]
