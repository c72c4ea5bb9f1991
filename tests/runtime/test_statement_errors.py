"""What a user's mistake, or a bad source, looks like: one typed error, and a session that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import (
    BindError,
    QueryError,
    ResourceError,
    SabotSQLError,
    Session,
    SourceError,
    SQLSyntaxError,
    ValueFailure,
)
from sabot_sql.duck.errors import StatementText, translate
from tests.support.budgets import budget


@pytest.fixture(scope="module", params=[(1, "thread"), (2, "thread"), (2, "process")], ids=str)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation) as opened:
        opened.execute("CREATE TABLE orders AS SELECT range AS o_orderkey, 'o' || range AS o_comment FROM range(10000)")
        yield opened
        assert opened.query("SELECT count(*) FROM orders").fetchall() == [(10000,)]


STATEMENT_ERRORS: list[tuple[str, type[SabotSQLError], str, tuple[int, int] | None, tuple[str, ...]]] = [
    ("SELECT\n  o_orderkeyy FROM orders", BindError, "COLUMN_NOT_FOUND", (2, 3), ("o_orderkey",)),
    ("SELECT x.nothing\nFROM orders x", BindError, "COLUMN_NOT_FOUND", (1, 8), ()),
    ("SELECT * FROM order_", BindError, "TABLE_NOT_FOUND", (1, 15), ("orders",)),
    ("SELECT * FROM nowhere.orders", BindError, "CATALOG_ERROR", (1, 15), ()),
    ("SELECT florr(1.5) FROM orders", BindError, "FUNCTION_NOT_FOUND", (1, 8), ("floor",)),
    ("SELECT 1::INTEGR FROM orders", BindError, "TYPE_NOT_FOUND", (1, 11), ()),
    ("SELECT o_orderkey + o_comment FROM orders", BindError, "NO_MATCHING_FUNCTION", (1, 19), ()),
    ("SELECT 1;\nSELECT 'é', o_ FROM orders", BindError, "COLUMN_NOT_FOUND", (2, 13), ()),
    ("SELECT sum(o_orderkey), o_comment FROM orders", BindError, "BIND_ERROR", (1, 25), ()),
    ("SELECT $a FROM orders", BindError, "PARAMETER_MISSING", None, ()),
    ("SELEC 1", SQLSyntaxError, "SYNTAX_ERROR", (1, 1), ()),
    ("SELECT 1;\n\nSELECT (2", SQLSyntaxError, "SYNTAX_ERROR", None, ()),
    ("SET nothing = 1", BindError, "SETTING_NOT_FOUND", None, ()),
    ("CREATE TABLE orders (a INTEGER)", BindError, "ALREADY_EXISTS", None, ()),
    ("SELECT sum(CAST(o_comment AS INTEGER)) FROM orders", ValueFailure, "CONVERSION_FAILED", None, ()),
    ("SELECT max(o_orderkey::TINYINT) FROM orders", ValueFailure, "CONVERSION_FAILED", None, ()),
    ("SELECT sum(o_orderkey * 9223372036854775807) FROM orders", ValueFailure, "OUT_OF_RANGE", None, ()),
    ("SELECT o_orderkey, (SELECT o_comment FROM orders) FROM orders", ValueFailure, "INVALID_INPUT", None, ()),
    ("SELECT error('mine') FROM orders", ValueFailure, "INVALID_INPUT", None, ()),
]


@pytest.mark.parametrize(("sql", "error_type", "code", "place", "candidates"), STATEMENT_ERRORS)
def test_a_mistake_gives_one_typed_error(
    session: Session,
    sql: str,
    error_type: type[SabotSQLError],
    code: str,
    place: tuple[int, int] | None,
    candidates: tuple[str, ...],
) -> None:
    with pytest.raises(error_type) as caught:
        session.query(sql)
    error = caught.value
    assert error.code == code
    if place is not None:
        assert (error.line, error.column) == place
        assert "^" in str(error)
    for candidate in candidates:
        assert candidate in error.candidates
    for noise in ("exception_type", "Stack Trace", "EXPLAIN", "__sabot", "r0."):
        assert noise not in str(error)
    assert session.query("SELECT 1").fetchall() == [(1,)]


def test_places_are_those_of_the_users_text(session: Session) -> None:
    sql = "-- a comment\nSELECT o_orderkey,\n\to_orderkeyy\nFROM orders"
    with pytest.raises(BindError) as caught:
        session.query(sql)
    lines = str(caught.value).splitlines()
    assert lines[1] == "  3 |  o_orderkeyy"
    assert lines[2] == "    |  ^^^^^^^^^^^   Line 3, Col: 2"


# ---------------------------------------------------------------------------------------------------------- sources


def write_corrupt(file: Path) -> None:
    """Three row groups, of which the pages of column b in the second are zeroed."""
    table = pa.table({"a": range(3000), "b": [f"text {i}" for i in range(3000)]})
    pq.write_table(table, file, row_group_size=1000, use_dictionary=False, compression="zstd")
    chunk = pq.read_metadata(file).row_group(1).column(1)
    data = bytearray(file.read_bytes())
    begin = chunk.data_page_offset
    data[begin : begin + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(data)


def test_an_unreadable_row_group_is_named(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    write_corrupt(file)
    with pytest.raises(SourceError) as caught:
        session.query(f"SELECT max(b), count(*) FROM '{file}' GROUP BY a % 10")
    error = caught.value
    assert (error.code, error.file, error.row_group, error.column_name) == ("FILE_CORRUPT", str(file), 1, "b")
    assert session.query(f"SELECT sum(a) FROM '{file}'").fetchall() == [(sum(range(3000)),)]


@pytest.mark.parametrize(
    "content", [b"", b"no parquet at all, but long enough to look", b"PAR1" + bytes(100) + b"PAR1"]
)
def test_what_is_no_parquet_file_is_named(session: Session, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t.parquet"
    file.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        session.query(f"SELECT count(*) FROM '{file}'")
    assert caught.value.code in ("FILE_CORRUPT", "UNREADABLE_DATA")
    assert session.query("SELECT 1").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "relation",
    ["'{d}/none.parquet'", "'{d}/none*.csv'", "read_json('{d}/none.json')", "read_parquet(['{d}/none.parquet'])"],
)
def test_a_missing_file_is_named(session: Session, tmp_path: Path, relation: str) -> None:
    with pytest.raises(SourceError) as caught:
        session.query(f"SELECT count(*) FROM {relation.format(d=tmp_path)}")
    assert caught.value.code == "FILE_NOT_FOUND"
    assert str(tmp_path / "none") in str(caught.value.file)


def test_a_missing_file_has_a_place_and_likely_names(session: Session, tmp_path: Path) -> None:
    (tmp_path / "sf0.1").mkdir()
    for name in ("lineitem", "supplier", "orders", "Über uns"):
        pq.write_table(pa.table({"a": [1]}), tmp_path / "sf0.1" / f"{name}.parquet")
    good = f"{tmp_path}/sf0.1/lineitem.parquet"
    for wrong, likely in {
        f"{tmp_path}/sf0.1/lineitm.parquet": [good],
        f"{tmp_path}/sf0.1/lineitem.paruqet": [good],
        f"{tmp_path}/sf0.1/LineItem.parquet": [good],
        f"{tmp_path}/sf01/lineitem.parquet": [good],
        f"{tmp_path}/sf01/*.parquet": [f"{tmp_path}/sf0.1/*.parquet"],
        f"{tmp_path}/sf01/*.csv": [],
        f"{tmp_path}/sf0.1/*.csv": [],
        f"{tmp_path}/sf0.1/Uber uns.parquet": [f"{tmp_path}/sf0.1/Über uns.parquet"],
        f"{tmp_path}/elsewhere/x.parquet": [],
    }.items():
        function = "read_csv" if wrong.endswith(".csv") else "read_parquet"
        with pytest.raises(SourceError) as caught:
            session.query(f"SELECT 'é',\n  count(*) FROM {function}('{wrong}')")
        assert caught.value.code == "FILE_NOT_FOUND"
        assert list(caught.value.candidates) == likely, wrong
        assert (caught.value.line, caught.value.column) == (2, 18 + len(function)), wrong
    with pytest.raises(SourceError) as caught:
        session.query(f"FROM '{wrong}' UNION ALL FROM '{wrong}'")
    assert caught.value.location is None, "which of them is not said"


@pytest.mark.parametrize(
    ("sql", "candidates"),
    [
        ("SELECT CAST(1 AS INTEGR)", ("INTEGER", "UINTEGER", "INTERVAL")),
        ("SELECT CAST(1 AS varchr)", ("VARCHAR",)),
        ("SELECT CAST(1 AS whatever)", ()),
        ("PRAGMA foo", ()),
        ("PRAGMA table_inf('orders')", ("table_info",)),
    ],
)
def test_what_is_proposed_is_alike(session: Session, sql: str, candidates: tuple[str, ...]) -> None:
    with pytest.raises(BindError) as caught:
        session.query(sql)
    assert caught.value.candidates == candidates


def test_files_are_listed_anew_for_every_query(session: Session, tmp_path: Path) -> None:
    for number in range(4):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"{number}.parquet")
    sql = f"SELECT sum(a) FROM '{tmp_path}/*.parquet'"
    assert session.query(sql).fetchall() == [(6,)]
    (tmp_path / "2.parquet").unlink()
    assert session.query(sql).fetchall() == [(4,)]


@pytest.mark.parametrize(
    ("second", "code", "column"),
    [
        ({"a": ["x", "y"], "b": [1, 2]}, "COLUMN_TYPE_DIFFERS", "a"),
        ({"a": [1, 2]}, "COLUMN_MISSING_IN_FILE", "b"),
    ],
)
def test_files_that_differ_in_a_column_are_told(
    session: Session, tmp_path: Path, second: dict[str, Any], code: str, column: str
) -> None:
    pq.write_table(pa.table({"a": range(1000), "b": range(1000)}), tmp_path / "1.parquet")
    pq.write_table(pa.table(second), tmp_path / "2.parquet")
    with pytest.raises(SourceError) as caught:
        session.query(f"SELECT sum(a), sum(b) FROM '{tmp_path}/*.parquet'")
    error = caught.value
    assert (error.code, error.column_name) == (code, column)
    assert error.file == str(tmp_path / "2.parquet")


def test_a_bad_value_in_a_csv_file_names_file_and_column(session: Session, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("a,b\n" + "1,2\n" * 30000 + "oops,3\n")
    with pytest.raises(SourceError) as caught:
        session.query(f"SELECT sum(a) FROM '{file}'")
    error = caught.value
    assert (error.code, error.file, error.column_name) == ("CSV_VALUE", str(file), "a")
    assert "30002" in error.message


def test_memory_that_runs_out_is_a_resource_error() -> None:
    with sabot_sql.connect(memory_limit=budget("64MiB", agents=1), config={"temp_directory": ""}) as session:
        with pytest.raises(ResourceError) as caught:
            session.query("SELECT i, count(*), list(i) FROM range(20000000) r(i) GROUP BY i")
        assert caught.value.code == "OUT_OF_MEMORY"
        assert session.query("SELECT 1").fetchall() == [(1,)]


def test_a_database_that_cannot_be_opened_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        sabot_sql.connect(tmp_path / "nowhere" / "d.duckdb")
    assert caught.value.code == "FILE_NOT_FOUND"


def test_a_wrong_setting_is_a_config_error() -> None:
    with pytest.raises(sabot_sql.ConfigError, match="no_such_setting"):
        sabot_sql.connect(config={"no_such_setting": 1})


# ------------------------------------------------------------------------------------------------------ translation


def test_errors_without_json_are_understood_too() -> None:
    for text, error_type in (
        ("Conversion Error: Could not convert string 'x' to INT32", ValueFailure),
        ("Not implemented Error: no", QueryError),
        ("Query interrupted", sabot_sql.QueryCancelled),
        ("INTERNAL Error: boom", sabot_sql.InternalError),
        ("IO Error: No space left on device", ResourceError),
        ('Binder Error: {"exception_type":"Binder","exception', QueryError),
    ):
        assert type(translate(RuntimeError(text))) in (error_type, BindError)


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = SourceError("gone")
    assert translate(error, StatementText("SELECT 1")) is error


def test_places_inside_what_we_put_before_a_statement_are_dropped() -> None:
    message = '{"exception_type":"Binder","exception_message":"no","position":"3"}'
    assert translate(RuntimeError(message), StatementText("SELECT 1", prefix_bytes=8)).location is None
    assert translate(RuntimeError(message), StatementText("SELECT 1")).column == 4
