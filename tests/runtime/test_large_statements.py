"""Statements that are long or deep: planned in a time that goes by their length, never stuck, and never too deep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import duckdb
import pytest

import sabot_sql
from benchmarks.planning_shapes import SHAPES, TABLES, Shape
from sabot_sql import QueryCancelled, QueryTimeout, Session
from sabot_sql.catalog.nesting import MOST_CASES, MOST_SUBQUERIES, too_deep_to_print
from sabot_sql.catalog.query_sources import QuerySources

ANSWER_SECONDS = 1.0
LARGEST = {shape.name: max(size for size in shape.sizes if size <= 1_000) for shape in SHAPES} | {
    # Planned at all sizes; run, DuckDB itself takes long.
    "joins": 50,
    "LEFT joins": 50,
    "UNION ALL": 300,
}


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with sabot_sql.connect(agents=2) as session:
        for statement in TABLES:
            session.execute(statement)
        yield session


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        for statement in TABLES:
            connection.execute(statement)
        yield connection


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_answer_is_that_of_duckdb(session: Session, plain: duckdb.DuckDBPyConnection, shape: Shape) -> None:
    sql = shape.make(LARGEST[shape.name])
    result = session.query(sql)
    assert sorted(result.fetchall()) == sorted(plain.execute(sql).fetchall())
    result.plan.text()
    result.plan.html()
    session.explain(sql).text()


def test_nesting_is_counted_in_what_is_said_and_not_in_what_is_quoted() -> None:
    def cases(depth: int, pad: str = "") -> str:
        return f"SELECT {'CASE WHEN a THEN b ELSE ' * depth}0{' END' * depth} FROM t {pad or ' ' * 1000}"

    def queries(depth: int) -> str:
        return f"{'SELECT a FROM (' * depth}SELECT 1 AS a{')' * depth} {' ' * 1000}"

    assert too_deep_to_print(cases(MOST_CASES)) is None
    assert "CASE is nested 41 deep" in str(too_deep_to_print(cases(MOST_CASES + 1)))
    assert too_deep_to_print(queries(MOST_SUBQUERIES)) is None
    assert "subquery is nested 151 deep" in str(too_deep_to_print(queries(MOST_SUBQUERIES + 1)))
    for text in (
        "'" + "CASE " * 100 + "'",
        '"' + "CASE " * 100 + '"',
        "--" + "CASE " * 100,
        "/*" + "CASE " * 100 + "*/",
    ):
        assert too_deep_to_print(cases(1, text + "\n" + " " * 1000)) is None
    flat = "SELECT " + ", ".join(["CASE WHEN a THEN 1 END"] * 200)
    assert too_deep_to_print(flat) is None
    assert too_deep_to_print(f"SELECT {'(' * 300}1{')' * 300}{' ' * 1000}") is None


@pytest.fixture
def planning(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while a query of ``t`` is being planned, which goes on until it is stopped."""
    reached = threading.Event()

    def plan(sources: QuerySources) -> bool:
        reached.set()
        while True:
            sources.check()
            time.sleep(0.001)

    monkeypatch.setattr(QuerySources, "is_collated", plan)
    return reached


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


@pytest.mark.parametrize("call", ["query", "explain"])
def test_planning_is_cancelled_and_keeps_nobody_waiting(session: Session, planning: threading.Event, call: str) -> None:
    thread, failures = in_thread(lambda: getattr(session, call)("SELECT b, count(*) FROM t GROUP BY b"))
    assert planning.wait(20)
    began = time.monotonic()
    assert session.query("SELECT 42").fetchall() == [(42,)]
    assert time.monotonic() - began < ANSWER_SECONDS
    assert thread.is_alive()
    began = time.monotonic()
    session.cancel()
    thread.join(20)
    assert time.monotonic() - began < ANSWER_SECONDS
    assert [type(f) for f in failures] == [QueryCancelled]
    assert session.query("SELECT 42").fetchall() == [(42,)]


def test_planning_ends_at_its_deadline(session: Session, planning: threading.Event) -> None:
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        session.query("SELECT b, count(*) FROM t GROUP BY b", timeout=0.3)
    assert planning.is_set()
    assert time.monotonic() - began < 0.3 + ANSWER_SECONDS


def test_what_duckdb_is_asked_while_planning_is_interrupted(session: Session) -> None:
    ors = " OR ".join(f"(a = {i} AND b > {i})" for i in range(1000))  # DuckDB alone binds it for seconds
    began = time.monotonic()
    with pytest.raises(QueryTimeout):
        session.query(f"SELECT count(*) FROM t WHERE {ors}", timeout=0.2)
    assert time.monotonic() - began < 0.2 + ANSWER_SECONDS + 0.3
    for (
        thread
    ) in threading.enumerate():  # DuckDB ends at its next look at the flag; the interpreter must not end before
        if thread.name.startswith("sabot-q-"):
            thread.join(60)
            assert not thread.is_alive()


def test_the_reader_is_stopped_within_a_long_expression() -> None:
    from sabot_planner.sql.dialect import parse_exported

    class Stopped(Exception):
        pass

    def check() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        parse_exported(f"SELECT {'f(' * 5000}1{')' * 5000} AS x", check)


@pytest.mark.parametrize(
    ("sql", "mode"),
    [
        ("SELECT sum(x) FROM (SELECT unnest(range(1000000)) AS x)", "single"),
        ("SELECT count(*) FROM (SELECT unnest(generate_series(1, 1000 * 1000)) AS x)", "single"),
        ("SELECT list_sum(range(30000)) + count(*) FROM range(5)", "single"),
        ("SELECT max(x) FROM (SELECT unnest(range($1)) AS x)", "single"),
        ("SELECT count(*) FROM (SELECT unnest(range(i)) FROM range(100) r(i))", "distributed"),
        ("SELECT sum(range) FROM range(1000000)", "distributed"),
        ("SELECT count(*) FROM (SELECT unnest(range(10)) AS x), range(7)", "distributed"),
    ],
)
def test_lists_that_are_known_while_planning_are_not_written_out(
    sql: str, mode: str, session: Session, plain: duckdb.DuckDBPyConnection
) -> None:
    values = [50_000] if "$1" in sql else None
    result = session.query(sql, values)
    assert result.fetchall() == plain.execute(sql, values).fetchall()
    assert result.plan.mode == mode, result.plan.json()["reason"]
    if mode == "single":
        assert "part of the plan" in result.plan.json()["reason"]
