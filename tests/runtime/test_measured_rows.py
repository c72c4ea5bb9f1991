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
    return {edge["estimated_by"] for edge in result.plan.json()["edges"] if edge["estimated_by"]}


def test_the_longest_unused_are_forgotten() -> None:
    measured = MeasuredRows(most_entries=3)
    measured.learn({"a": 1, "b": 2, "c": 3})
    assert measured.rows("a") == 1
    measured.learn({"d": 4, "c": 5})
    assert [measured.rows(name) for name in "abcd"] == [1, None, 5, 4]
    assert len(measured) == 3


def test_what_a_sketch_estimated_does_not_replace_what_was_measured() -> None:
    measured = MeasuredRows(most_entries=2)
    measured.learn({"a": 1_000}, {"a": 990, "b": 7})
    measured.learn({}, {"a": 980, "b": 7})
    assert [measured.rows(name) for name in "ab"] == [1_000, 7]
    measured.learn({"b": 8}, {"c": 9})
    assert [measured.rows(name) for name in "abc"] == [None, 8, 9]


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


# --- distinct keys --------------------------------------------------------------------------------------------------


def keys_counted(result: Any) -> dict[str, int | None]:
    """By the keys of each HASH edge."""
    return {", ".join(e["keys"]): e["distinct_keys"] for e in result.plan.json()["edges"] if e["type"] == "HASH"}


def unphased(result: Any) -> list[str]:
    return [e["reason"] for e in result.plan.json()["edges"] if e["reason"].endswith("the rows move as they are")]


def assert_answered(result: Any, sql: str) -> None:
    assert sorted(result.fetchall(), key=repr) == sorted(duckdb.sql(sql).fetchall(), key=repr)


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("partitions", [2, 3])
def test_the_keys_of_a_join_decide_how_the_next_query_groups(tmp_path: Path, isolation: Any, partitions: int) -> None:
    """The first query only joins by k; the second knows how many k there are, until the file is written anew."""
    write(tmp_path / "t.parquet", 30_000, 29_000)
    write(tmp_path / "u.parquet", 30_000, 400)
    t, u = f"'{tmp_path}/t.parquet'", f"'{tmp_path}/u.parquet'"
    join = f"SELECT t.v, u.v AS w FROM {t} t JOIN {u} u ON t.k = u.v AND t.v <> u.k"
    groups = f"SELECT k, sum(v) FROM {t} GROUP BY k"
    with sabot_sql.connect(agents=2, isolation=isolation, partitions=partitions, broadcast_limit=1) as session:
        joined = session.query(join)
        known = keys_counted(joined)["k"]
        assert known is not None
        assert abs(known - 29_000) < 6 * 0.045 * 29_000
        assert_answered(joined, join)
        grouped = session.query(groups)
        (said,) = unphased(grouped)
        assert "distinct keys by an earlier run" in said
        assert_answered(grouped, groups)
        write(tmp_path / "t.parquet", 30_000, 11)
        grouped = session.query(groups)
        assert not unphased(grouped), "another version of the file"
        assert keys_counted(grouped) == {"k": 11}
        assert_answered(grouped, groups)
    with sabot_sql.connect(agents=2, isolation=isolation) as session:
        assert not unphased(session.query(groups)), "nothing outlives its session"


def test_few_keys_are_counted_exactly_over_all_tasks(tmp_path: Path) -> None:
    duckdb.sql(
        "COPY (SELECT CASE WHEN i % 5 > 0 THEN i % 37 END AS k, i % 3 AS g, i AS v FROM range(20000) r(i)) "
        f"TO '{tmp_path}/t.parquet' (ROW_GROUP_SIZE 2048)"
    )
    with sabot_sql.connect(agents=3, partitions=3) as session:
        for sql, expected in (
            ("SELECT k, median(v) FROM {} GROUP BY k", {"k": 38}),
            ("SELECT k, sum(v) FROM {} GROUP BY k", {"k": 38}),
            ("SELECT k, g, median(v) FROM {} GROUP BY k, g", {"k, g": 114}),
            ("SELECT DISTINCT g FROM {} WHERE k IS NULL", {"g": 3}),
            ("SELECT k, median(v) FROM {} WHERE md5(v::VARCHAR) = '' GROUP BY k", {"k": 0}),
        ):
            text = sql.format(f"'{tmp_path}/t.parquet'")
            result = session.query(text)
            assert keys_counted(result) == expected
            assert_answered(result, text)


def test_a_join_is_estimated_by_the_keys_of_an_earlier_query(tmp_path: Path) -> None:
    """Of keys that are text DuckDB has no more than the rows of their tables to go by."""

    def write_text(name: str, rows: int, keys: int) -> str:
        text = f"SELECT 'key ' || i % {keys} AS k, i AS v FROM range({rows}) r(i)"
        duckdb.sql(f"COPY ({text}) TO '{tmp_path}/{name}.parquet'")
        return f"'{tmp_path}/{name}.parquet'"

    t, u = write_text("t", 20_000, 100), write_text("u", 3_000, 150)
    sql = f"SELECT t.v, u.v AS w FROM {t} t JOIN {u} u ON t.k = u.k ORDER BY 1, 2"
    with sabot_sql.connect(agents=2, partitions=2) as session:

        def estimate_of_join() -> tuple[int, str]:
            joined = session.query(sql)
            assert joined.fetchall() == duckdb.sql(sql).fetchall()
            (ordered,) = (e for e in joined.plan.json()["edges"] if e["type"] == "RANGE")
            return ordered["rows_estimated"], ordered["estimated_by"]

        session.query(f"SELECT k, median(v) FROM {u} GROUP BY k")
        assert estimate_of_join() == (400_000, "an earlier run")
        write_text("t", 20_000, 10)
        assert estimate_of_join() == (400_000, "an earlier run"), "the keys of the other file still count"
        write_text("u", 3_000, 20)
        estimated, by = estimate_of_join()
        assert by == "DuckDB"
        assert estimated < 100_000 < len(duckdb.sql(sql).fetchall())
