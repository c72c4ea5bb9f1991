"""COPY and CREATE TABLE AS: the query is distributed, and what is written is what DuckDB would have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.catalog.write_statements import CopyTo, CreateTableAs, parse_write
from sabot_sql.catalog.writes import Writes
from sabot_sql.errors import BindError, QueryError, ResourceError, SabotSQLError

QUERY = 'SELECT k, max(v) AS "m x", min(s) AS s, count(*) AS s FROM t GROUP BY k ORDER BY k'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "t.parquet"
    duckdb.sql(
        f"COPY (SELECT range % 5000 AS k, range AS v, 's' || range % 7 AS s FROM range(60_000)) TO '{file}'"
        " (ROW_GROUP_SIZE 10_000)"
    )
    return file


@pytest.fixture(scope="module", params=("thread", "process"))
def opened(request: pytest.FixtureRequest, data: Path) -> Iterator[Session]:
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB") as session:
        session.execute(f"CREATE VIEW t AS FROM '{data}'")
        yield session


@pytest.fixture
def session(opened: Session) -> Iterator[Session]:
    yield opened
    for name, temporary in opened.query("SELECT table_name, temporary FROM duckdb_tables()").fetchall():
        opened.execute(f"DROP TABLE {'temp.' * temporary}{name}")


@pytest.fixture
def plain(data: Path) -> Iterator[Session]:
    with sabot_sql.connect(agents=1) as session:
        session.execute(f"CREATE VIEW t AS FROM '{data}'")
        yield session


def outcome(session: Session, sql: str, **params: Any) -> object:
    """What a statement gives, or its error."""
    try:
        result = session.query(sql, params or None)
    except SabotSQLError as error:
        return type(error), error.message, error.line, error.column
    return tuple(result.columns), tuple(map(str, result.types)), result.fetchall()


def mode(session: Session, sql: str) -> str:
    return str(session.query(sql).plan.json()["mode"])


# --- CREATE TABLE AS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        "CREATE TABLE x AS",
        "CREATE OR REPLACE TABLE x AS",
        "CREATE TEMP TABLE x AS",
        "create table if not exists main.x as",
        "CREATE TABLE x(a, b, c, d) AS",
    ],
)
def test_a_table_has_the_names_types_and_rows_that_duckdb_gives_it(session: Session, plain: Session, head: str) -> None:
    statement = f"{head} {QUERY}"
    result = session.query(statement)
    assert result.plan.json()["mode"] == "distributed"
    assert result.fetchall() == [(5000,)]
    plain.execute(statement)
    for check in ("DESCRIBE x", "FROM x"):
        assert outcome(session, check) == outcome(plain, check)


def test_types_that_arrow_does_not_know_arrive(session: Session, plain: Session) -> None:
    columns = (
        "NULL AS n, (CASE WHEN k % 2 = 0 THEN 'b' ELSE 'a' END)::ENUM('b', 'a') AS e, k::HUGEINT AS h,"
        " k::UHUGEINT AS u, {'e': 'a'::ENUM('b', 'a')} AS st, '{}'::JSON AS j, k::DECIMAL(20, 3) AS d,"
        " '101'::BIT AS bits, uuid"
    )
    source = "(SELECT *, '6b4f4a6e-6a4f-4a6e-8a4f-4a6e6a4f4a6e'::UUID AS uuid FROM t)"
    statement = f"CREATE TABLE x AS SELECT {columns}, sum(v) AS s FROM {source} GROUP BY ALL ORDER BY ALL"
    assert mode(session, statement) == "distributed"
    plain.execute(statement)
    for check in ("DESCRIBE x", "FROM x ORDER BY ALL"):
        assert outcome(session, check) == outcome(plain, check)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("k::UTINYINT::VARIANT", "variant_typeof(x)"),
        ("row()", "typeof(x)"),
    ],
)
def test_what_a_result_would_lose_is_written_by_duckdb_itself(
    session: Session, plain: Session, value: str, what: str
) -> None:
    statement = f"CREATE TABLE y AS SELECT {value} AS x FROM t WHERE k < 200"
    answer = session.query(statement).plan.json()
    assert answer["mode"] == "single"
    assert "does not survive between agents" in answer["reason"]
    plain.execute(statement)
    check = f"SELECT {what}, count(*) FROM y GROUP BY ALL ORDER BY ALL"
    assert outcome(session, check) == outcome(plain, check)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("union_value(n := CASE WHEN k % 3 > 0 THEN k END)::UNION(n BIGINT, s VARCHAR)", "union_tag(x)"),
        ("to_hours(3000000 + k)", "x::VARCHAR"),
        ("[{'a': to_hours(3000000 + k)}]", "x::VARCHAR"),
    ],
)
@pytest.mark.parametrize(
    ("statement", "place"),
    [
        ("CREATE OR REPLACE TABLE y AS {query}", "y"),
        ("COPY ({query}) TO '{path}/one.csv'", "'{path}/one.csv'"),
        ("COPY ({query}) TO '{path}/many' (FORMAT csv, PER_THREAD_OUTPUT)", "'{path}/many/*.csv'"),
    ],
)
def test_values_that_arrow_cannot_hold_are_written_by_agents(
    session: Session, plain: Session, tmp_path: Path, statement: str, place: str, value: str, what: str
) -> None:
    query = f"SELECT k, {value} AS x FROM t WHERE k < 200"
    found = []
    for writer, path in ((session, tmp_path / "ours"), (plain, tmp_path / "theirs")):
        path.mkdir()
        text = statement.format(query=query, path=path)
        assert mode(writer, text) == ("distributed" if writer is session else "single")
        shown = what if place == "y" else "x"
        found.append(
            outcome(writer, f"SELECT {shown}, count(*) FROM {place.format(path=path)} GROUP BY ALL ORDER BY ALL")
        )
    assert found[0] == found[1]


def test_a_table_may_be_replaced_by_what_it_gives(session: Session) -> None:
    session.execute("CREATE TABLE x AS SELECT k, sum(v) AS v FROM t GROUP BY k")
    session.execute("CREATE OR REPLACE TABLE x AS SELECT k % 2 AS k, sum(v) AS v FROM x GROUP BY ALL ORDER BY k")
    assert session.query("SELECT sum(v) FROM x").fetchall() == [(sum(range(60_000)),)]


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE TABLE taken AS {QUERY}",
        f"CREATE TABLE no_schema.x AS {QUERY}",
        "CREATE TABLE x AS SELECT nothing FROM t",
        "CREATE TABLE x AS\n  SELECT max(v)::TINYINT FROM t",
        f"CREATE TABLE x(a, a) AS {QUERY}",
    ],
)
def test_an_error_is_duckdbs_and_leaves_no_table(session: Session, plain: Session, statement: str) -> None:
    for each in (session, plain):
        each.execute("CREATE TABLE taken AS SELECT 1 AS one")
    found = outcome(session, statement)
    assert found == outcome(plain, statement)
    assert isinstance(found[0], type)  # type: ignore[index]
    assert session.query("SELECT table_name FROM duckdb_tables()").fetchall() == [("taken",)]
    assert session.query("FROM taken").fetchall() == [(1,)]


def test_a_table_that_exists_stays_as_it_is(session: Session) -> None:
    session.execute("CREATE TABLE x AS SELECT 1 AS one")
    session.execute(f"CREATE TABLE IF NOT EXISTS x AS {QUERY}")
    assert session.query("FROM x").fetchall() == [(1,)]


def test_a_write_that_fails_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Writes, sql: str) -> None:
        assert sql.startswith("INSERT")
        raise duckdb.OutOfMemoryException("Out of Memory Error: no memory")

    session.execute("CREATE TABLE x AS SELECT 1 AS one")
    with monkeypatch.context() as patched:
        patched.setattr(Writes, "_answer", fail)
        with pytest.raises(ResourceError):
            session.execute(f"CREATE OR REPLACE TABLE x AS {QUERY}")
    assert session.query("FROM x").fetchall() == [(1,)]
    session.execute("BEGIN")
    session.execute("ROLLBACK")


def test_inside_a_transaction_duckdb_runs_the_statement(session: Session) -> None:
    session.execute("BEGIN")
    assert mode(session, f"CREATE TABLE x AS {QUERY}") == "single"
    session.execute("ROLLBACK")
    with pytest.raises(BindError):
        session.query("FROM x")


# --- COPY -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.csv", ""),
        ("x.csv.gz", "(HEADER false, DELIMITER ';')"),
        ("x.parquet", "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096, KV_METADATA {a: 'b, c'})"),
        ("x.json", "WITH (ARRAY true)"),
        ("no_suffix", "(FORMAT csv)"),
    ],
)
def test_one_file_is_written_as_duckdb_writes_it(
    session: Session, plain: Session, tmp_path: Path, name: str, options: str
) -> None:
    for each, folder in ((session, tmp_path / "ours"), (plain, tmp_path / "theirs")):
        folder.mkdir()
        result = each.query(f"COPY ({QUERY}) TO '{folder / name}' {options}")
        assert result.fetchall() == [(5000,)]
        assert [path.name for path in folder.iterdir()] == [name]
    ours, theirs = tmp_path / "ours" / name, tmp_path / "theirs" / name
    if name.endswith(".parquet"):
        assert plain.query(f"FROM '{ours}'").fetchall() == plain.query(f"FROM '{theirs}'").fetchall()
        schema = "SELECT name, type, converted_type, logical_type FROM parquet_schema('{}')"
        assert outcome(plain, schema.format(ours)) == outcome(plain, schema.format(theirs))
        assert outcome(plain, f"FROM parquet_kv_metadata('{ours}') SELECT key, value") == (
            outcome(plain, f"FROM parquet_kv_metadata('{theirs}') SELECT key, value")
        )
    else:
        assert ours.read_bytes() == theirs.read_bytes()


def test_partitions_are_written_as_duckdb_writes_them(session: Session, plain: Session, tmp_path: Path) -> None:
    found = []
    for each, folder in ((session, tmp_path / "ours"), (plain, tmp_path / "theirs")):
        each.execute(
            f"COPY (SELECT k % 3 AS p, max(v) AS m FROM t GROUP BY k) TO '{folder}' (FORMAT csv, PARTITION_BY p)"
        )
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))
        found.append((files, plain.query(f"FROM '{folder}/*/*.csv' ORDER BY ALL").fetchall()))
    assert found[0] == found[1]


def test_a_table_and_a_parameter(session: Session, tmp_path: Path) -> None:
    result = session.query(f"COPY t TO '{tmp_path}/t.parquet'")
    assert (result.plan.json()["mode"], result.fetchall()) == ("distributed", [(60_000,)])
    named = session.query(f"COPY (SELECT k FROM t WHERE v < $most) TO '{tmp_path}/p.csv'", {"most": 5})
    assert (named.plan.json()["mode"], named.fetchall()) == ("distributed", [(5,)])


def test_a_frame_of_the_caller_is_read(session: Session, tmp_path: Path) -> None:
    frame = pa.table({"k": list(range(10))})
    assert frame.num_rows == 10
    result = session.query(f"COPY (SELECT k, max(v) FROM t JOIN frame USING (k) GROUP BY k) TO '{tmp_path}/f.csv'")
    assert (result.plan.json()["mode"], result.fetchall()) == ("distributed", [(10,)])


@pytest.mark.parametrize(
    "statement",
    [
        "COPY (SELECT max(v)::TINYINT FROM t) TO '{folder}/x.csv'",
        f"COPY ({QUERY}) TO '{{folder}}/none/x.csv'",
        f"COPY ({QUERY}) TO '{{folder}}/x.csv' (NO_SUCH_OPTION 1)",
        "COPY (SELECT nothing FROM t) TO '{folder}/x.csv'",
        f"COPY ({QUERY}) TO '{{folder}}'",
    ],
)
def test_a_copy_that_fails_leaves_nothing(session: Session, plain: Session, tmp_path: Path, statement: str) -> None:
    statement = statement.format(folder=tmp_path)
    found = outcome(session, statement)
    assert found == outcome(plain, statement)
    assert issubclass(found[0], SabotSQLError)  # type: ignore[index]
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_fails_leaves_the_file_that_was_there(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("before")
    with pytest.raises(QueryError):
        session.execute(f"COPY (SELECT max(v)::TINYINT FROM t) TO '{file}'")
    assert file.read_text() == "before"
    session.execute(f"COPY (SELECT max(v) AS m FROM t) TO '{file}'")
    assert file.read_text() == "m\n59999\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


# --- the text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "COPY (SELECT 'ü;)' AS \"x (y\" /*c)*/ FROM t) TO 'a''b.csv' (FORMAT csv, DELIMITER ';,'); -- x",
            CopyTo("SELECT 'ü;)' AS \"x (y\" /*c)*/ FROM t", "a'b.csv", "(FORMAT csv, DELIMITER ';,')"),
        ),
        ("copy s.\"t x\" to 'x'", CopyTo('FROM s."t x"', "x", "")),
        ("COPY (SELECT $$)$$) TO 'x'", CopyTo("SELECT $$)$$", "x", "")),
        ("CREATE TABLE t AS (SELECT 1) /* c */ ;", CreateTableAs("(SELECT 1)", "CREATE TABLE t AS", "t")),
        ("create temp table t as from x", CreateTableAs("from x", "CREATE TEMP TABLE t AS", "temp.t")),
        ('CREATE TABLE a."b".c(x, y) AS FROM x', CreateTableAs("FROM x", 'CREATE TABLE a."b".c(x, y) AS', 'a."b".c')),
        ("COPY t FROM 'x'", None),
        ("COPY (FROM t) TO $1", None),
        ("COPY (FROM t) TO 'x' WITH HEADER", None),
        ("COPY t(a) TO 'x'", None),
        ("CREATE TABLE t AS FROM x WITH NO DATA", None),
        ("CREATE TABLE t (a INT)", None),
        ("CREATE VIEW t AS FROM x", None),
        ("CREATE TEMP TABLE temp.t AS FROM x", None),
        ("SELECT 1", None),
        ("", None),
    ],
)
def test_the_parts_of_a_statement(text: str, parts: object) -> None:
    assert parse_write(text) == parts


def test_options_are_cut_at_their_own_commas() -> None:
    form = parse_write(
        "COPY (FROM t) TO 'x' (FORMAT csv, HEADER, PARTITION_BY (a, b), KV_METADATA {a: 'x,y', b: [1, 2]})"
    )
    assert isinstance(form, CopyTo)
    assert form.option_list() == ["FORMAT csv", "HEADER", "PARTITION_BY (a, b)", "KV_METADATA {a: 'x,y', b: [1, 2]}"]
