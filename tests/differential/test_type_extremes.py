"""Values at the ends of their types come out as DuckDB gives them, over every edge and in every export."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest

from sabot_sql import Session
from sabot_sql.errors import SessionClosed
from tests.support.engine import session
from tests.support.sampling import pairs_covered
from tests.support.type_extremes import EXTREMES, NESTED, table_of

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "auto": {"agents": "auto"},
    "threads": {"agents": 2, "partitions": 3, "broadcast_limit": 0},
    "processes": {"agents": 2, "isolation": "process", "broadcast_limit": 0},
}
QUERIES = {
    "order": "SELECT id, x FROM extremes ORDER BY id",
    "group": "SELECT x, count(*) AS n, min(id) AS i FROM extremes GROUP BY x ORDER BY i",
    "shuffle": "SELECT k, list(x ORDER BY id) AS xs FROM extremes GROUP BY k ORDER BY k",
    "join": "SELECT a.id, b.x FROM extremes AS a JOIN extremes AS b USING (id) ORDER BY a.id",
    "largest": "SELECT max(x), min(x), arg_max(x, id), any_value(x ORDER BY id) FROM extremes",
}
EXPORTS: dict[str, Callable[[Any], Any]] = {
    "fetchall": lambda rows: rows.fetchall(),
    "arrow": lambda rows: _content(rows.to_arrow_table()),
    "stream": lambda rows: _content(pa.table(rows)),
    "df": lambda rows: (dict(rows.df().dtypes), rows.df().to_dict("list")),
    "pl": lambda rows: (rows.pl().schema, str(rows.pl())),
}


def _content(table: pa.Table) -> tuple[str, str]:
    table = table.combine_chunks()
    try:
        return repr(table.schema), repr(table.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):
        return repr(table.schema), str(table)  # infinities and years BC, which Python cannot say


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Session]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(**options)) for name, options in CONFIGURATIONS.items()}


def outcome(run: Callable[[], Any]) -> Any:
    """What is shown, or that there was an error: not every form can say every value."""
    try:
        return repr(run())
    except BaseException as error:  # polars panics, which is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return "error"


def answer_of(run: Callable[[str], Any], sql: str) -> Any:
    """The rows that ``run`` gives for a statement."""
    return outcome(lambda: run(sql).fetchall())


@pytest.mark.parametrize(("type_name", "nested", "configuration"), pairs_covered(EXTREMES, NESTED, CONFIGURATIONS))
def test_extremes_come_out_as_duckdb_gives_them(
    configuration: str,
    type_name: str,
    nested: str,
    plain: duckdb.DuckDBPyConnection,
    sessions: dict[str, Session],
) -> None:
    opened = sessions[configuration]
    plain.execute(table_of(type_name, nested))
    opened.execute(table_of(type_name, nested))
    for name, sql in QUERIES.items():
        for asked in (sql, f"SELECT CAST(COLUMNS(*) AS VARCHAR) FROM ({sql})"):
            assert answer_of(opened.query, asked) == answer_of(plain.sql, asked), name
    rows = opened.query(QUERIES["order"])
    for name, export in EXPORTS.items():
        wanted = outcome(partial(export, plain.sql(QUERIES["order"])))
        assert outcome(partial(export, rows)) == wanted, name


@pytest.mark.parametrize(
    "aggregate", ["avg(x)", "sum(x)", "arg_max(x, id)", "max(x)", "max(x, 2)", "list(x ORDER BY id)"]
)
@pytest.mark.parametrize("configuration", ["threads", "processes"])
def test_aggregates_of_long_intervals(
    configuration: str, aggregate: str, plain: duckdb.DuckDBPyConnection, sessions: dict[str, Session]
) -> None:
    setup = (
        "CREATE OR REPLACE TABLE spans AS SELECT i AS id, i % 3 AS k, to_hours(3000000 + i) AS x FROM range(30) AS r(i)"
    )
    plain.execute(setup)
    sessions[configuration].execute(setup)
    sql = f"SELECT k, CAST({aggregate} AS VARCHAR) AS a FROM spans GROUP BY k ORDER BY k"
    assert answer_of(sessions[configuration].query, sql) == answer_of(plain.sql, sql)


# --- schemas


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_export_has_the_schema_that_duckdb_gives_it(
    configuration: str, plain: duckdb.DuckDBPyConnection, sessions: dict[str, Session], tmp_path: Path
) -> None:
    setup = "CREATE OR REPLACE TABLE every AS FROM test_all_types() UNION ALL FROM test_all_types()"
    opened = sessions[configuration]
    plain.execute(setup)
    opened.execute(setup)
    columns = [name for name, *_ in plain.execute("DESCRIBE every").fetchall()]
    wrong = []
    for listed in [*(f'"{name}"' for name in columns), "*"]:
        sql = f"SELECT {listed} FROM every"
        theirs, ours, path = plain.sql(sql), opened.query(sql), tmp_path / "rows.parquet"
        for name, schema in SCHEMAS.items():
            wanted, found = outcome(partial(schema, theirs, path)), outcome(partial(schema, ours, path))
            if found != wanted:
                wrong.append(f"{sql}: {name}: {found} for {wanted}")
    assert not wrong, "\n".join(wrong)


def _parquet(rows: Any, path: Path) -> object:
    rows.to_parquet(str(path))
    return duckdb.sql(f"DESCRIBE FROM read_parquet('{path}')").fetchall()


SCHEMAS: dict[str, Callable[[Any, Path], Any]] = {
    "to_arrow_table": lambda rows, _: rows.to_arrow_table().schema.to_string(show_field_metadata=True),
    "to_arrow_reader": lambda rows, _: rows.to_arrow_reader().schema.to_string(show_field_metadata=True),
    "stream": lambda rows, _: pa.RecordBatchReader.from_stream(rows).schema.to_string(show_field_metadata=True),
    "table": lambda rows, _: pa.table(rows).schema.to_string(show_field_metadata=True),
    "frame": lambda rows, _: pl.DataFrame(rows).schema,
    "pl": lambda rows, _: rows.pl().schema,
    "df": lambda rows, _: dict(rows.df().dtypes),
    "parquet": _parquet,
}


def test_booleans_are_arrows_own(sessions: dict[str, Session]) -> None:
    sql = "SELECT true AS b, [true] AS bs, {'f': [false]} AS s, MAP {'k': true} AS m"
    for opened in sessions.values():
        table = pa.table(opened.query(sql))
        inner = pa.field("l", pa.bool_())
        assert table.schema.types[:3] == [pa.bool_(), pa.list_(inner), pa.struct([("f", pa.list_(inner))])]
        assert table.schema.types[3].item_type == pa.bool_()
        assert table.to_pylist() == [{"b": True, "bs": [True], "s": {"f": [False]}, "m": [("k", True)]}]


# --- what stays in the session


def test_a_variant_goes_with_its_session() -> None:
    with session() as opened:
        opened.execute("CREATE TABLE v AS SELECT i::VARIANT AS v FROM range(7) AS r(i)")
        rows = opened.query("FROM v", max_rows=5)
        opened.execute("DROP TABLE v")
        assert rows.fetchmany(3) + rows.fetchall() == [(i,) for i in range(5)]
        assert list(rows) == [(i,) for i in range(5)]
        assert rows.shape == (5, 1)
        assert rows.stats["truncated_at"] == 5
        assert "VARIANT" in rows.to_text().upper()
    with pytest.raises(SessionClosed):
        list(rows)


def test_an_interval_outlives_its_session() -> None:
    with session() as opened:
        rows = opened.query("SELECT to_hours(3000000 + i) AS x FROM range(3) AS r(i)")
    assert rows.fetchall() == duckdb.sql("SELECT to_hours(3000000 + i) AS x FROM range(3) AS r(i)").fetchall()


@pytest.mark.parametrize("value", ["to_days(1)", "1::VARIANT", "avg(i) EXPORT_STATE"])
def test_a_statement_whose_rows_arrow_cannot_hold_runs_once(value: str) -> None:
    with session(["CREATE SEQUENCE s"]) as opened:
        opened.query(f"SELECT nextval('s') AS n, {value} AS x FROM range(1) AS r(i) GROUP BY ALL")
        assert opened.query("SELECT nextval('s')").fetchall() == [(2,)]
