from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import BindError, ConfigError, QueryCancelled, QueryTimeout, Session, SessionClosed

LONG_QUERY = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"

KINDS = [(1, "thread"), (2, "thread"), (3, "process")]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
        yield opened


@pytest.fixture
def single() -> Iterator[Session]:
    with sabot_sql.connect() as opened:
        yield opened


# ------------------------------------------------------------------------------------------------------- statements


def test_the_last_of_several_statements_shows(session: Session) -> None:
    result = session.query(
        "CREATE TABLE t AS SELECT range AS a FROM range(10); DELETE FROM t WHERE a > 4; SELECT sum(a) FROM t"
    )
    assert result.fetchall() == [(10,)]


def test_what_a_session_made_is_seen_by_every_query(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a, range % 3 AS b FROM range(1000)")
    session.execute("CREATE VIEW v AS SELECT a, b FROM t WHERE a >= 100")
    session.execute("CREATE MACRO twice(x) AS 2 * x")
    session.execute("CREATE TEMP TABLE small AS SELECT 1 AS b, 'one'::ENUM('two', 'one') AS name")
    session.execute("SET VARIABLE least = 200")
    rows = session.query(
        "SELECT name, sum(twice(a)) FROM v JOIN small USING (b) WHERE a >= getvariable('least') GROUP BY name"
    ).fetchall()
    assert rows == [("one", sum(2 * a for a in range(200, 1000) if a % 3 == 1))]


def test_settings_change_answers_on_every_agent(session: Session) -> None:
    session.execute(
        "CREATE TABLE t AS SELECT TIMESTAMPTZ '2024-01-01 00:00:00+00' + i * INTERVAL 1 HOUR AS t FROM range(48) r(i)"
    )
    session.execute("SET TimeZone = 'Asia/Tokyo'")
    session.execute("SET integer_division = true")
    rows = session.query("SELECT t::DATE::VARCHAR AS d, count(*) / 2 AS half FROM t GROUP BY d ORDER BY d").fetchall()
    assert rows == [("2024-01-01", 7), ("2024-01-02", 12), ("2024-01-03", 4)]


def test_a_setting_of_the_session_ends_with_its_reset(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT CASE WHEN i > 2 THEN i END AS a FROM range(6) r(i)")
    for statement, first in (
        ("SET SESSION default_null_order = 'nulls_first'", None),
        ("RESET SESSION default_null_order", 3),
    ):
        session.execute(statement)
        assert session.query("SELECT a FROM t ORDER BY a LIMIT 1").fetchall() == [(first,)]


def test_the_first_rows_of_a_wide_table_are_found(session: Session) -> None:
    # DuckDB would fetch the columns of such rows late, which fails for rows that are chosen by their numbers.
    session.execute("CREATE TABLE t AS SELECT i, 's' || i AS s, {'x': i} AS st, [i] AS l FROM range(3000) r(i)")
    rows = session.query("SELECT s, st, l FROM t ORDER BY i DESC LIMIT 2").fetchall()
    assert rows == [("s2999", {"x": 2999}, [2999]), ("s2998", {"x": 2998}, [2998])]


@pytest.mark.parametrize(
    ("sql", "params", "rows"),
    [
        ("SELECT a FROM t WHERE a > ? AND a < ? ORDER BY a", [1, 4], [(2,), (3,)]),
        ("SELECT a FROM t WHERE a = $2 OR a = $1 ORDER BY a", (0, 4), [(0,), (4,)]),
        (
            "SELECT a, $text AS x FROM t WHERE a = $a",
            {"a": 3, "text": "'; DROP TABLE t; --"},
            [(3, "'; DROP TABLE t; --")],
        ),
        ("INSERT INTO t VALUES ($a); SELECT a FROM t WHERE a > $b", {"a": 77, "b": 50}, [(77,)]),
    ],
)
def test_parameters_are_bound_by_duckdb(session: Session, sql: str, params: Any, rows: list[tuple[Any, ...]]) -> None:
    session.execute("CREATE TABLE t AS SELECT range::INTEGER AS a FROM range(5)")
    assert session.query(sql, params).fetchall() == rows


def test_positional_parameters_of_two_statements_are_refused(single: Session) -> None:
    with pytest.raises(BindError) as error:
        single.query("SELECT ?; SELECT ?", [1])
    assert error.value.code == "PARAMETERS_AMBIGUOUS"


@pytest.mark.parametrize("sql", ["", "  -- nothing\n", "CREATE TABLE t (a INTEGER)", "SET threads = 2"])
def test_what_gives_no_rows_gives_an_empty_result(single: Session, sql: str) -> None:
    result = single.query(sql)
    assert (result.shape, repr(result), result.fetchall(), result.columns) == ((0, 0), "OK", [], [])
    assert result.df().empty
    assert result.pl().is_empty()
    assert result.to_arrow_table().num_rows == 0


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA version",
        "CALL range(3)",
        "EXPLAIN SELECT 1",
        "SHOW TABLES",
        "DESCRIBE t",
        "SUMMARIZE t",
        "FROM t",
        "VALUES (1, 'x')",
        "PIVOT t ON a USING count(*)",
        "INSERT INTO t VALUES (9) RETURNING a",
        "UPDATE t SET a = 1",
        "SELECT * FROM t POSITIONAL JOIN t u",
    ],
)
def test_any_statement_gives_what_duckdb_gives(session: Session, sql: str) -> None:
    setup = "CREATE TABLE t AS SELECT range AS a FROM range(3)"
    session.execute(setup)
    with duckdb.connect() as plain:
        plain.execute(setup)
        expected = plain.execute(sql).fetchall()
        names = [column[0] for column in plain.description]
    result = session.query(sql)
    assert result.columns == names
    if not sql.startswith("EXPLAIN"):
        assert sorted(result.fetchall()) == sorted(expected)


def test_transactions_see_their_own_changes(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(100)")
    session.execute("BEGIN")
    session.execute("DELETE FROM t WHERE a < 50")
    assert session.query("SELECT count(*) FROM t").fetchall() == [(50,)]
    assert session.in_transaction
    session.execute("ROLLBACK")
    assert session.query("SELECT count(*) FROM t").fetchall() == [(100,)]


def test_a_failed_lookup_does_not_end_a_transaction(single: Session) -> None:
    frame = pa.table({"a": [1]})
    single.execute("BEGIN; CREATE TABLE t AS FROM frame")
    assert single.query("SELECT * FROM t JOIN frame USING (a)").fetchall() == [(1,)]
    single.execute("COMMIT")
    assert frame.num_rows == len(single.query("FROM t"))


# ------------------------------------------------------------------------------------------------- in-process tables

FRAME_AT_MODULE_LEVEL = pa.table({"a": [41]})


def test_frames_of_the_callers_scope_are_tables(session: Session) -> None:
    people = pd.DataFrame({"id": range(100), "name": [f"p{i}" for i in range(100)]})
    sales = pl.DataFrame({"id": [i % 100 for i in range(1000)], "amount": range(1000)})
    rows = session.query(
        "SELECT name, sum(amount) AS s FROM people JOIN sales USING (id) GROUP BY name ORDER BY s DESC LIMIT 2"
    ).fetchall()
    assert rows == [("p99", sum(range(99, 1000, 100))), ("p98", sum(range(98, 1000, 100)))]
    assert session.query("FROM FRAME_AT_MODULE_LEVEL").fetchall() == [(41,)]
    assert len(people) + len(sales) == 1100


def test_a_rebound_name_means_the_new_frame(session: Session) -> None:
    for value in (1, 2):
        frame = pa.table({"a": [value] * 10})
        assert session.query("SELECT DISTINCT a FROM frame").fetchall() == [(value,)]
        assert frame.num_rows == 10


def test_a_frame_changed_in_place_is_seen_changed(session: Session) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3]})
    session.register("t", frame)
    assert session.query("SELECT sum(a) FROM t").fetchall() == [(6,)]
    frame["a"] = ["x", "y", "z"]
    assert session.query("SELECT max(a) FROM t").fetchall() == [("z",)]


def test_tables_come_before_frames_and_registered_names_stay(session: Session) -> None:
    session.execute("CREATE TABLE frame AS SELECT 'table' AS a")
    frame = pa.table({"a": ["frame"]})
    assert session.query("FROM frame").fetchall() == [("table",)]
    session.register("other", frame)
    assert session.query("FROM other").fetchall() == [("frame",)]
    session.unregister("other")
    with pytest.raises(BindError) as error:
        session.query("FROM other", scope={})
    assert error.value.code == "TABLE_NOT_FOUND"


def test_a_reader_and_a_result_are_tables(session: Session) -> None:
    reader = pa.table({"a": range(50)}).to_reader()
    first = session.query("SELECT a FROM reader WHERE a < 10")
    again = session.query("SELECT count(*) FROM reader JOIN first USING (a)")
    assert again.fetchall() == [(len(first),)]
    assert reader is not None


@pytest.mark.parametrize("value", [1, "x", [1, 2], pd.DataFrame, None])
def test_what_is_no_table_is_refused(single: Session, value: object) -> None:
    with pytest.raises(BindError) as error:
        single.register("t", value)
    assert error.value.code == "NOT_A_TABLE"


def test_names_are_looked_up_in_the_scope_that_is_given(single: Session) -> None:
    hidden = pa.table({"a": [1]})
    with pytest.raises(BindError):
        single.query("FROM hidden", scope={})
    assert single.query("FROM given", scope={"given": hidden}).fetchall() == [(1,)]


# --------------------------------------------------------------------------------------------------- other databases


def test_a_database_file_is_read_by_every_agent(tmp_path: Path) -> None:
    file = tmp_path / "d.duckdb"
    with sabot_sql.connect(file) as writer:
        writer.execute("CREATE TABLE t AS SELECT range AS a, range % 5 AS b FROM range(10000)")
    for agents, isolation in KINDS:
        with sabot_sql.connect(file, read_only=True, agents=agents, isolation=isolation) as session:  # type: ignore[arg-type]
            result = session.query("SELECT b, count(*) FROM t GROUP BY b ORDER BY b")
            assert result.fetchall() == [(b, 2000) for b in range(5)]
            assert result.plan.mode == ("single" if agents == 1 else "distributed")
        with sabot_sql.connect(agents=agents, isolation=isolation) as session:  # type: ignore[arg-type]
            session.execute(f"ATTACH '{file}' AS other (READ_ONLY)")
            assert session.query("SELECT count(*) FROM other.t WHERE a % 2 = 0").fetchall() == [(5000,)]


# ---------------------------------------------------------------------------------------------------------- the plan


def test_auto_leaves_the_statement_to_duckdb(single: Session) -> None:
    result = single.query("SELECT 1 AS a")
    plan = result.plan.json()
    assert (plan["version"], plan["mode"], plan["agents"], plan["edges"]) == (1, "single", 1, [])
    assert plan["reason"]
    assert plan["query_id"] == result.query_id
    assert plan["sql"] == result.sql == "SELECT 1 AS a"


def test_a_query_may_ask_for_agents_of_its_own(single: Session) -> None:
    single.execute("CREATE TABLE t AS SELECT range AS a FROM range(10000)")
    for agents, isolation in ((2, None), (3, "process"), (2, "thread"), ("auto", None)):
        result = single.query("SELECT a % 10 AS k, count(*) FROM t GROUP BY k", agents=agents, isolation=isolation)  # type: ignore[arg-type]
        assert len(result) == 10
        plan = result.plan.json()
        assert plan["agents"] == (1 if agents == "auto" else agents)
        assert (plan["mode"] == "single") == (agents == "auto")


def test_explain_runs_nothing(session: Session, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10000), "b": [i % 3 for i in range(10000)]}), tmp_path / "t.parquet")
    plan = session.explain(f"SELECT b, sum(a) FROM '{tmp_path}/t.parquet' GROUP BY b")
    assert plan.json()["state"] == "planned"
    assert (plan.mode == "single") == (session.agents == 1)
    assert plan.text()
    with pytest.raises(BindError, match="single query"):
        session.explain("CREATE TABLE t AS SELECT 1")
    with pytest.raises(BindError, match="nowhere"):
        session.explain("SELECT nowhere FROM range(3)")


def test_progress_is_observed_as_plans(tmp_path: Path) -> None:
    seen: list[str] = []
    with sabot_sql.connect(agents=2) as session:
        session.execute("CREATE TABLE t AS SELECT range AS a FROM range(10000)")
        session.query(
            "SELECT a % 10 AS k, count(*) FROM t GROUP BY k", observer=lambda plan: seen.append(plan["state"])
        )
    assert seen[-1] == "finished"


def test_max_rows_cuts_and_says_so(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(1000)")
    result = session.query("SELECT a FROM t ORDER BY a", max_rows=7)
    assert [row[0] for row in result] == list(range(7))
    assert "TRUNCATED at 7" in repr(result)
    assert session.query("SELECT a FROM t", max_rows=1000).stats["truncated_at"] is None


# ------------------------------------------------------------------------------------------------------------- ends


def test_a_deadline_stops_a_query_and_leaves_the_session_usable(session: Session) -> None:
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        session.query(LONG_QUERY, timeout=0.3)
    assert time.monotonic() - began < 5
    assert session.query("SELECT 1").fetchall() == [(1,)]


def test_a_cancelled_query_stops_soon(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(200000)")
    sql = "SELECT count(*) FROM t x JOIN t y ON x.a % 11 = y.a % 7 AND x.a * y.a % 13 = 5"
    threading.Timer(0.5, session.cancel).start()
    began = time.monotonic()
    with pytest.raises(QueryCancelled):
        session.query(sql)
    assert time.monotonic() - began < 5
    assert session.running() == ()
    assert session.query("SELECT count(*) FROM t").fetchall() == [(200000,)]


def test_ctrl_c_stops_the_query_and_not_the_session(single: Session) -> None:
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        single.query(LONG_QUERY)
    assert time.monotonic() - began < 3
    assert single.query("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_limit_that_is_no_time_is_refused(single: Session, timeout: float) -> None:
    with pytest.raises(ConfigError):
        single.query("SELECT 1", timeout=timeout)


def test_a_closed_session_says_so_and_its_results_live_on() -> None:
    session = sabot_sql.connect()
    result = session.query("SELECT 1::HUGEINT AS a")
    session.close()
    session.close()
    assert session.closed
    for use in (
        lambda: session.query("SELECT 1"),
        lambda: session.explain("SELECT 1"),
        lambda: session.register("t", result),
    ):
        with pytest.raises(SessionClosed):
            use()
    assert result.fetchall() == [(1,)]
    assert "closed" in repr(session)


def test_queries_of_several_threads_do_not_mix(session: Session) -> None:
    session.execute("CREATE TABLE t AS SELECT range AS a FROM range(1000)")
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = session.query("SELECT count(*) FROM t WHERE a % 8 = $n", {"n": number}).fetchall()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: [(125,)] for number in range(8)}


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with sabot_sql.connect(agents=2, isolation="process", spill_directory=tmp_path) as session:
        session.register("t", pa.table({"a": range(1000)}))
        assert session.query("SELECT count(*) FROM t").fetchall() == [(1000,)]
        for entry in tmp_path.iterdir():
            assert entry.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_a_forgotten_session_ends_its_agents(tmp_path: Path) -> None:
    session = sabot_sql.connect(agents=2, spill_directory=tmp_path)
    session.register("t", pa.table({"a": range(1000)}))
    session.query("SELECT count(*) FROM t")
    del session
    give_up = time.monotonic() + 5
    while list(tmp_path.iterdir()) and time.monotonic() < give_up:
        gc.collect()
        time.sleep(0.02)
    assert list(tmp_path.iterdir()) == []


def test_directories_of_dead_sessions_are_swept(tmp_path: Path) -> None:
    stale = tmp_path / "sabot-999999999-1-abc"
    stale.mkdir()
    (stale / "segment").write_text("x")
    other = tmp_path / "somebody-else"
    other.mkdir()
    with sabot_sql.connect(agents=2, spill_directory=tmp_path) as session:
        session.register("t", pa.table({"a": [1]}))
        session.query("FROM t")
    assert list(tmp_path.iterdir()) == [other]


# ------------------------------------------------------------------------------------------------------------ import


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_import_loads_nothing_heavy() -> None:
    heavy = (
        "duckdb",
        "pyarrow",
        "numpy",
        "pandas",
        "polars",
        "sqlglot",
        "IPython",
        "dbos",
        "sabot_planner",
        "sabot_native",
    )
    out = python(f"import sys, sabot_sql; print([name for name in {heavy!r} if name in sys.modules])")
    assert out.strip() == "[]"


def test_a_query_on_one_agent_loads_no_planner() -> None:
    heavy = ("pandas", "polars", "sqlglot", "IPython", "dbos", "sabot_native")
    code = f"sabot_sql.query('SELECT 1').fetchall(); print([name for name in {heavy!r} if name in sys.modules])"
    assert python(f"import sys, sabot_sql; {code}").strip() == "[]"


@pytest.mark.bench
def test_the_first_row_comes_soon() -> None:
    code = "began = time.monotonic(); import sabot_sql; sabot_sql.query('SELECT 42').fetchall()"
    code = f"import time; {code}; print(time.monotonic() - began)"
    assert min(float(python(code)) for _ in range(3)) <= 0.6


def test_the_default_session_is_shared_and_finds_frames() -> None:
    frame = pa.table({"a": [1, 2]})
    sabot_sql.query("CREATE OR REPLACE TABLE kept AS FROM frame")
    assert sabot_sql.query("SELECT sum(a) FROM kept").fetchall() == [(3,)]
    sabot_sql.query("DROP TABLE kept")
    assert frame.num_rows == 2
