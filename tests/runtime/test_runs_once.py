"""A statement that writes, or is volatile, runs exactly once in whatever form, and explaining it runs nothing of it."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.call.file_sinks import DirectorySink
from sabot_sql.call.request import Request
from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.effects import VOLATILE_FUNCTIONS, VolatileNames, query_writes, runs_once
from sabot_sql.catalog.writes import Writes
from sabot_sql.errors import InternalError, SabotSQLError, UsageError

SETUP = (
    "CREATE OR REPLACE TABLE t AS SELECT range::INTEGER AS a, range::INTEGER AS b FROM range(5)",
    "CREATE OR REPLACE TABLE u (a BIGINT)",
    "CREATE OR REPLACE SEQUENCE s",
    "CREATE OR REPLACE MACRO next() AS nextval('s')",
    "CREATE OR REPLACE MACRO after_next() AS next() + 1",
    "CREATE OR REPLACE MACRO next_row() AS TABLE SELECT nextval('s') AS v",
    "CREATE OR REPLACE MACRO next_range() AS TABLE FROM range(nextval('s'))",
    "CREATE OR REPLACE VIEW next_view AS SELECT nextval('s') AS v",
    "CREATE OR REPLACE VIEW view_of_view AS FROM next_view",
    "CREATE OR REPLACE TEMP VIEW temp_view AS SELECT next() AS v",
    "PREPARE adding AS INSERT INTO t VALUES (50, 50)",
    "PREPARE next AS SELECT nextval('s') AS v",
)
STATE = (
    "SELECT (SELECT count(*) FROM t), (SELECT sum(a) FROM t), (SELECT count(*) FROM u), (SELECT sum(a) FROM u),"
    " (SELECT last_value FROM duckdb_sequences() WHERE sequence_name = 's')"
)

QUERIES = (
    "WITH x AS (INSERT INTO t VALUES (99, 99)) SELECT 1",
    "WITH x AS (INSERT INTO t VALUES (99, 99) RETURNING a) SELECT a FROM x",
    "WITH x AS (INSERT INTO t SELECT a, b FROM t RETURNING a) SELECT count(*), sum(a) FROM x JOIN t USING (a)",
    "WITH x AS (UPDATE t SET a = a + 1) SELECT 1",
    "WITH x AS (UPDATE t SET a = a + 1 RETURNING a) SELECT sum(a) FROM x",
    "WITH x AS (DELETE FROM t WHERE a > 2) SELECT 1",
    "WITH x AS (DELETE FROM t WHERE a > 2 RETURNING a) SELECT sum(a) FROM x",
    "WITH x AS (INSERT INTO u SELECT nextval('s') FROM t) SELECT 1",
    "WITH y AS (SELECT 1 AS one), x AS (INSERT INTO u SELECT one FROM y) SELECT one FROM y",
    "WITH x AS (INSERT INTO t VALUES (99, 99) RETURNING a), y AS (DELETE FROM t WHERE a = 0) SELECT a FROM x",
    "with x as materialized (insert into u values (1)) from t select sum(a)",
    "SELECT nextval('s')",
    "SELECT system.main.nextval('s') AS v",
    "SELECT 's'.nextval() AS v",
    "SELECT nextval /* spaced */ ('s') AS v FROM t",
    "SELECT a FROM t WHERE nextval('s') > 3",
    "SELECT a FROM t ORDER BY nextval('s')",
    "SELECT a FROM t LIMIT nextval('s')",
    "SELECT (SELECT nextval('s')) AS v, count(*) FROM t GROUP BY ALL",
    "VALUES (nextval('s'))",
    "WITH x AS (SELECT nextval('s') AS v) FROM x",
    "FROM range(nextval('s'))",
    "FROM unnest([nextval('s')])",
    "FROM t, repeat(nextval('s'), 3)",
    "SELECT next()",
    "SELECT after_next() AS v",
    "FROM next_row()",
    "FROM next_range()",
    "FROM next_view",
    "FROM view_of_view",
    "FROM temp_view",
    "FROM query('SELECT nextval(''s'') AS v')",
    "FROM query('FROM range(nextval(''s''))')",
    "FROM query(concat('SELECT next', 'val(''s'') AS v'))",
    "FROM json_execute_serialized_sql(json_serialize_sql('SELECT nextval(''s'') AS v'))",
    "SELECT setval('s', 17)",
    "SELECT setseed(0.25)",
    "DESCRIBE SELECT nextval('s')",
    "SUMMARIZE SELECT nextval('s') AS v",
    "PIVOT (SELECT nextval('s') AS v, a FROM t) ON a USING count(v)",
)
OTHERS = (
    "INSERT INTO t VALUES (1, 1)",
    "INSERT INTO t VALUES (1, 1), (2, 2) RETURNING a",
    "INSERT INTO u SELECT nextval('s') FROM t",
    "INSERT INTO u FROM range(nextval('s'))",
    "UPDATE t SET a = a + 1 RETURNING a",
    "DELETE FROM t WHERE a = 1 RETURNING a",
    "MERGE INTO t USING (SELECT 1 AS a, 7 AS c) n ON t.a = n.a WHEN MATCHED THEN UPDATE SET b = c RETURNING b",
    "TRUNCATE t",
    "EXECUTE adding",
    "EXECUTE next",
    "EXPLAIN INSERT INTO t VALUES (1, 1)",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (1, 1)",
    "EXPLAIN ANALYZE WITH x AS (INSERT INTO t VALUES (99, 99)) SELECT 1",
    "EXPLAIN ANALYZE SELECT nextval('s')",
    "CREATE OR REPLACE TABLE u AS SELECT nextval('s') AS a FROM t",
    "CREATE OR REPLACE TABLE u AS SELECT range AS a FROM range(nextval('s'))",
    "CREATE OR REPLACE TABLE u AS FROM next_range() AS r(a)",
    "CREATE OR REPLACE TABLE u AS PIVOT t ON a USING sum(b) GROUP BY a",
    "COPY (SELECT nextval('s') AS v FROM t) TO '{folder}/v.csv'",
    "COPY (FROM range(nextval('s'))) TO '{folder}/r.csv'",
    "COPY (WITH x AS (INSERT INTO t VALUES (99, 99) RETURNING a) FROM x) TO '{folder}/x.csv'",
    "CALL pragma_version()",
    "CHECKPOINT",
)
KINDS = [(1, "thread"), (2, "thread"), (3, "process")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def opened(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as session:
        yield session


@pytest.fixture
def session(opened: Session) -> Session:
    opened.execute("; ".join(SETUP))
    return opened


def state(session: Session) -> list[Any]:
    return session.query(STATE, agents=1).fetchall()


@functools.cache
def states_of_duckdb(sql: str) -> tuple[list[Any], list[Any], object]:
    """The state before and after DuckDB ran the statement once, and its rows."""
    with duckdb.connect() as plain, tempfile.TemporaryDirectory() as folder:
        plain.execute("; ".join(SETUP))
        before = plain.execute(STATE).fetchall()
        try:
            rows: object = plain.execute(sql.format(folder=folder)).fetchall()
        except duckdb.Error as error:
            rows = type(error)
        return before, plain.execute(STATE).fetchall(), rows


@pytest.mark.parametrize("sql", [*QUERIES, *OTHERS])
def test_it_runs_exactly_once_and_explaining_it_runs_nothing(session: Session, sql: str, tmp_path: Path) -> None:
    before, after, rows = states_of_duckdb(sql)
    explained, sql = sql in QUERIES, sql.format(folder=tmp_path)
    if explained:
        assert session.explain(sql).json()["state"] == "planned"
    else:
        with pytest.raises(UsageError) as caught:
            session.explain(sql)
        assert caught.value.code == "NOT_A_QUERY"
    assert state(session) == before
    if isinstance(rows, type):
        with pytest.raises(SabotSQLError):
            session.query(sql)
    else:
        given = session.query(sql).fetchall()
        if not sql.startswith("EXPLAIN") and given:
            assert sorted(given, key=repr) == sorted(rows, key=repr)  # type: ignore[call-overload]
    assert state(session) == after


@pytest.mark.parametrize("sql", [*QUERIES, *OTHERS])
def test_a_failure_after_the_start_does_not_start_it_again(
    session: Session, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, _ = states_of_duckdb(sql)
    sql = sql.format(folder=tmp_path)

    drained: list[Any] = []

    def fail(_: Request, reader: Any, *__: Any, **___: Any) -> None:
        drained.append(reader.read_all())
        raise InternalError("the rows are lost")

    assert state(session) == before
    with monkeypatch.context() as patched:
        patched.setattr(Request, "drain", fail)
        with contextlib.suppress(SabotSQLError):  # some have no rows that could be lost
            session.query(sql)
    assert len(drained) <= 1
    assert state(session) in (before, after)


@pytest.mark.parametrize("error", [duckdb.InvalidInputException, duckdb.InternalException, duckdb.BinderException])
@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT a, count(*) AS n FROM t GROUP BY a) TO '{folder}/x.csv'",
        "COPY (SELECT a, count(*) AS n FROM t GROUP BY a) TO '{folder}' (FORMAT csv, PARTITION_BY n, APPEND)",
        "CREATE OR REPLACE TABLE u AS SELECT sum(a) AS a FROM t GROUP BY b",
    ],
)
def test_a_write_that_fails_having_begun_is_not_tried_again(
    opened: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[duckdb.Error], sql: str
) -> None:
    if opened.config.agent_count == 1:
        return
    opened.execute("; ".join(SETUP))
    before = state(opened)
    written: list[str] = []
    ran: list[str] = []
    answer, run = Writes._answer, Catalog.run

    def write_and_fail(self: Writes, statement: str) -> None:
        answer(self, statement)
        written.append(statement)
        raise error("Invalid Input Error: after it was written")

    def note(self: Catalog, statement: Any, scopes: Any) -> Any:
        ran.append(statement.text)
        return run(self, statement, scopes)

    with monkeypatch.context() as patched:
        patched.setattr(Writes, "_answer", write_and_fail)
        patched.setattr(Catalog, "run", note)
        with pytest.raises(SabotSQLError, match="after it was written"):
            opened.execute(sql.format(folder=tmp_path))
    assert (len(written), ran) == (1, [])
    assert state(opened) == before


def test_files_that_cannot_appear_are_not_written_again(
    opened: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if opened.config.agent_count == 1:
        return
    opened.execute("; ".join(SETUP))

    def fail(*_: Any) -> None:
        raise InternalError("in the middle of it")

    with monkeypatch.context() as patched:
        patched.setattr(DirectorySink, "finish", fail)
        with pytest.raises(InternalError, match="in the middle of it"):
            opened.execute(f"COPY (SELECT range FROM range(1000)) TO '{tmp_path}/out' (FORMAT csv, PER_THREAD_OUTPUT)")
    assert list(tmp_path.iterdir()) == []


def test_the_names_are_those_of_duckdb() -> None:
    with duckdb.connect() as plain:
        functions = plain.execute("SELECT lower(function_name) FROM duckdb_functions() WHERE stability = 'VOLATILE'")
        volatile = frozenset(name for (name,) in functions.fetchall()) - {"error"}
        macros = plain.execute(
            "SELECT lower(function_name), string_agg(macro_definition, ' ') FROM duckdb_functions()"
            " WHERE macro_definition IS NOT NULL GROUP BY ALL"
        )
        names = VolatileNames.reaching(volatile, dict(macros.fetchall()), {})
    assert names.functions | names.macros == VOLATILE_FUNCTIONS


def test_however_few_rows_are_shown_all_are_written(session: Session) -> None:
    sql = "INSERT INTO u SELECT range FROM range(300_000) RETURNING a"
    assert session.query(sql, max_rows=1).fetchall() == [(0,)]
    sql = "WITH x AS (INSERT INTO u SELECT range FROM range(300_000) RETURNING a) FROM x"
    assert session.query(sql, max_rows=1).shape == (1, 1)
    assert session.query("SELECT count(*) FROM u").fetchall() == [(600_000,)]


@pytest.mark.parametrize("shown", ["sum(a) EXPORT_STATE", "INTERVAL 1 DAY", "max(a)::VARIANT"])
@pytest.mark.parametrize(
    "sql",
    ["SELECT nextval('s') AS v, {} AS shown FROM t", "WITH x AS (INSERT INTO u VALUES (1)) SELECT {} AS shown FROM t"],
)
def test_what_arrow_cannot_hold_is_computed_once(session: Session, sql: str, shown: str) -> None:
    statement = sql.format(shown.replace("INTERVAL 1 DAY", "any_value(INTERVAL 1 DAY)"))
    _, after, _ = states_of_duckdb(statement)
    assert session.query(statement).shape[0] == 1
    assert state(session) == after


def test_what_is_cached_is_forgotten_after_a_query_that_writes(session: Session) -> None:
    assert session.query("SELECT count(*) FROM t").fetchall() == [(5,)]
    session.query("WITH x AS (INSERT INTO t SELECT range, 0 FROM range(100_000)) SELECT 1")
    assert session.query("SELECT count(*), sum(b) FROM t").fetchall() == [(100_005, 10)]


# --- from the tree ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serialize() -> Callable[[str], str]:
    connection = duckdb.connect()
    return lambda text: str(connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0][0])


@pytest.mark.parametrize(
    ("sql", "writes"),
    [
        ("WITH x AS (INSERT INTO t VALUES (1)) SELECT 1", True),
        ("WITH x AS (COPY t TO 'file') SELECT 1", True),
        ("WITH x AS (SELECT 1), y AS (DELETE FROM t) FROM x", True),
        ("SELECT 'INSERT' AS \"update\", copy FROM delete", False),
        ("SELECT replace(a, 'b', 'c') FROM t -- DELETE", False),
        ('WITH RECURSIVE x AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM x WHERE a < 3) SELECT "insert" FROM x', False),
        ("SELECT insert FROM (SELECT 1 UNION SELECT 2) AS u(insert)", False),
    ],
)
def test_the_tree_tells_what_writes(serialize: Callable[[str], str], sql: str, writes: bool) -> None:
    assert query_writes(sql, serialize) is writes


@pytest.mark.parametrize(
    ("sql", "reason", "by_binding"),
    [
        ("SELECT random FROM uuid", None, False),
        ("SELECT 'random()'", None, False),
        ("FROM query('SELECT 1')", None, False),
        ("FROM query($text)", "query() runs a text that is volatile or not known", True),
        ("SELECT RANDOM()", "random() is volatile", False),
        ("SELECT random() FROM range(uuid()::INT)", "uuid() is volatile", True),
        ("SELECT two(1) + one(1)", "the macro one() is volatile", True),
        ("SELECT two(1)", None, False),
        ("FROM v", "the view v is volatile", True),
        ("SELECT v.a FROM t AS v", None, False),
    ],
)
def test_the_tree_tells_what_is_volatile(
    serialize: Callable[[str], str], sql: str, reason: str | None, by_binding: bool
) -> None:
    macros = {"one": "(x + half())", "half": "(random() / 2)", "two": "(x + 'random')"}
    names = VolatileNames.reaching(frozenset({"random", "uuid"}), macros, {"v": "CREATE VIEW v AS SELECT one(1) AS a;"})
    found = runs_once(sql, False, names, serialize)
    assert (found and found.reason, found is not None and found.by_binding) == (reason, by_binding)
