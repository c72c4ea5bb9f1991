from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import BindError, Session, UsageError, ValueFailure


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


def test_an_aggregate_whose_export_cannot_be_bound_runs_all_the_same(session: Session) -> None:
    session.execute("CREATE TABLE words AS SELECT 'w' || range % 3 AS word FROM range(1000)")
    session.execute("SET default_collation = 'NOACCENT'")  # the separator is collated then, and no constant any more
    result = session.query("SELECT string_agg(DISTINCT word, '|' ORDER BY word) FROM words")
    assert result.fetchall() == [("w0|w1|w2",)]


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


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize(
    ("sql", "params", "excess"),
    [
        ("SELECT sum(a) FROM t WHERE a > $x", {"x": 1, "y": 2}, "y"),
        ("SELECT sum(a) FROM t WHERE a > $1", {"1": 1, "2": 2}, "2"),
        ("INSERT INTO t SELECT $x", {"x": 1, "y": 2}, "y"),
        ("SELECT $x; SELECT $y", {"x": 1, "y": 2, "z": 3}, "z"),
    ],
)
def test_parameters_that_nothing_takes_are_refused_as_duckdb_refuses_them(
    agents: int, sql: str, params: Any, excess: str
) -> None:
    with sabot_sql.connect(agents=agents) as opened:
        opened.execute("CREATE TABLE t AS SELECT range AS a FROM range(50)")
        with pytest.raises(ValueFailure, match=f"identifiers of the excess parameters: {excess}"):
            opened.query(sql, params)
        with pytest.raises(BindError, match="Expected 0, got 1"):
            opened.query("SELECT sum(a) FROM t", {"y": 1})
        assert opened.query("SELECT count(*) FROM t").fetchall() == [(50,)]


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
    with pytest.raises(UsageError, match="single query"):
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


def test_keys_are_shown_as_the_user_wrote_them(tmp_path: Path) -> None:
    file = tmp_path / "orders.parquet"
    pq.write_table(pa.table({"custkey": range(5000), "day": [f"1995-01-{1 + i % 28:02}" for i in range(5000)]}), file)
    asked = {
        f"SELECT custkey % 10, count(*) FROM '{file}' GROUP BY custkey % 10": ["custkey % 10"],
        f"SELECT count(*) FROM '{file}' GROUP BY custkey % 10 + 1, day::DATE": ["custkey % 10 + 1", "day::DATE"],
        f"SELECT day::DATE + INTERVAL 3 DAYS, count(*) FROM '{file}' GROUP BY 1": ["day::DATE + INTERVAL 3 days"],
        f"SELECT count(DISTINCT custkey * 2 - 1) FROM '{file}'": ["custkey * 2 - 1"],
        f"SELECT sum(custkey) OVER (PARTITION BY custkey % 7) FROM '{file}'": ["custkey % 7"],
    }
    with sabot_sql.connect(agents=2) as session:
        for sql, keys in asked.items():
            edges = session.explain(sql).json()["edges"]
            assert [edge["keys"] for edge in edges if edge["type"] == "HASH"] == [keys], sql
