"""Python objects as tables: what DuckDB reads under a Python name a session reads too, anything else it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import BindError, QueryError, SabotSQLError, Session, UsageError

ROWS = 1000
TABLE = pa.table({"a": range(ROWS), "s": [f"s{i % 7}" for i in range(ROWS)]})


class Stream:
    """Anything with an Arrow stream."""

    def __init__(self, exported: Any) -> None:
        self._exported = exported

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._exported.__arrow_c_stream__(requested_schema)


class Array:
    """Anything with an Arrow array."""

    def __init__(self, exported: Any) -> None:
        self._exported = exported

    def __arrow_c_array__(self, requested_schema: object = None) -> object:
        return self._exported.__arrow_c_array__(requested_schema)


def dataset(directory: Path) -> Any:
    for part in range(3):
        pq.write_table(TABLE.slice(part * 300, 300), directory / f"{part}.parquet")
    return ds.dataset(directory)


TABLES: dict[str, Callable[[Path], object]] = {
    "pandas frame": lambda _: TABLE.to_pandas(),
    "pandas series": lambda _: pd.Series(range(ROWS)),
    "pandas named series": lambda _: pd.Series(range(ROWS), name="n"),
    "pandas series of text": lambda _: pd.Series([f"s{i % 5}" for i in range(ROWS)]),
    "polars frame": lambda _: pl.DataFrame(TABLE),
    "polars lazy frame": lambda _: pl.DataFrame(TABLE).lazy().filter(pl.col("a") > 10),
    "polars series": lambda _: pl.Series("n", range(ROWS)),
    "table": lambda _: TABLE,
    "batch": lambda _: TABLE.to_batches()[0],
    "reader": lambda _: TABLE.to_reader(),
    "chunked array": lambda _: pa.chunked_array([range(500), range(500)]),
    "array": lambda _: pa.array(range(ROWS)),
    "array of structs": lambda _: pa.array([{"x": i, "y": str(i)} for i in range(ROWS)]),
    "dataset": dataset,
    "union of datasets": lambda directory: ds.dataset([dataset(directory), dataset(directory)]),
    "dataset in memory": lambda _: ds.InMemoryDataset(TABLE),
    "scanner": lambda directory: dataset(directory).scanner(filter=ds.field("a") > 50),
    "scanner of batches": lambda _: ds.Scanner.from_batches(TABLE.to_batches(), schema=TABLE.schema),
    "numpy": lambda _: np.arange(ROWS),
    "numpy of two dimensions": lambda _: np.arange(ROWS).reshape(4, ROWS // 4),
    "numpy of floats": lambda _: np.linspace(0, 1, ROWS),
    "numpy of text": lambda _: np.array([f"s{i % 5}" for i in range(ROWS)]),
    "numpy of objects": lambda _: np.array([None, "a"] * 500, dtype=object),
    "numpy of times": lambda _: np.arange(ROWS).astype("M8[us]"),
    "masked numpy": lambda _: np.ma.masked_less(np.arange(ROWS), 100),  # type: ignore[no-untyped-call]
    "dict of arrays": lambda _: {"x": np.arange(ROWS), "y": np.arange(ROWS) % 3 == 0},
    "list of arrays": lambda _: [np.arange(ROWS), np.arange(ROWS) * 2.5],
    "tuple of arrays": lambda _: (np.arange(ROWS),),
    "stream": lambda _: Stream(TABLE),
    "stream of one column": lambda _: Stream(pa.chunked_array([range(ROWS)])),
    "export of an array": lambda _: Array(pa.array(range(ROWS))),
    "export of a batch": lambda _: Array(TABLE.to_batches()[0]),
    "capsule": lambda _: TABLE.__arrow_c_stream__(),
}
NO_TABLES: dict[str, object] = {
    "list": [1, 2, 3],
    "list of dicts": [{"a": 1}],
    "empty list": [],
    "list of batches": TABLE.to_batches(),
    "dict of lists": {"a": [1, 2]},
    "dict of arrays and lists": {"a": np.arange(2), "b": [1, 2]},
    "dict of unequal arrays": {"a": np.arange(2), "b": np.arange(3)},
    "empty dict": {},
    "numpy of three dimensions": np.zeros((2, 2, 2)),
    "numpy of none": np.array(5),
    "index": pd.Index([1, 2]),
    "int": 5,
    "text": "abc",
    "generator": (i for i in range(3)),
    "class": pd.DataFrame,
    "function": len,
    "connection": duckdb.connect(),
}
UNREADABLE: dict[str, object] = {
    "numpy of records": np.array([(1, 2.0)], dtype=[("x", "i4"), ("y", "f8")]),
    "numpy of other byte order": np.array([1, 2], dtype=">i4"),
    "stream that fails": Stream(None),
    "spent capsule": TABLE.__arrow_c_stream__(),
}
duckdb.from_arrow(UNREADABLE["spent capsule"]).fetchall()

KINDS = [("auto", "thread"), (2, "thread"), (2, "process")]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
        yield opened


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("named", ["scope", "register"])
def test_what_duckdb_reads_is_read_alike(session: Session, tmp_path: Path, kind: str, named: str) -> None:
    ours = TABLES[kind](tmp_path)
    (other := tmp_path / "other").mkdir()
    theirs = TABLES[kind](other)
    expected = duckdb.connect().sql("SELECT * FROM theirs")
    assert theirs is not None
    rows = expected.fetchall()
    if named == "register":
        session.register("registered", ours)
    sql = f"SELECT * FROM {'registered' if named == 'register' else 'x'}"
    for _ in range(2):  # it may be asked again
        result = session.query(sql, scope={"x": ours})
        assert result.columns == expected.columns
        assert result.types == list(map(str, expected.types))
        assert sorted(map(repr, result.fetchall())) == sorted(map(repr, rows))
    if named == "register":
        session.unregister("registered")


@pytest.mark.parametrize("kind", NO_TABLES)
def test_a_name_that_is_no_table_is_named(session: Session, kind: str) -> None:
    x = NO_TABLES[kind]
    with pytest.raises(duckdb.Error):
        duckdb.connect().sql("SELECT * FROM x").fetchall()
    with pytest.raises(BindError, match=f"of type .*{type(x).__name__}") as caught:
        session.query("SELECT * FROM x")
    assert caught.value.code == "TABLE_NOT_FOUND"
    with pytest.raises(UsageError, match=f"of type .*{type(x).__name__}") as misused:
        session.register("registered", x)
    assert misused.value.code == "NOT_A_TABLE"


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_object_that_cannot_be_read_is_named(session: Session, kind: str) -> None:
    x = UNREADABLE[kind]
    with pytest.raises(SabotSQLError, match=r"'x' is of type .* and cannot be read"):
        session.query("SELECT * FROM x", scope={"x": x})
    with pytest.raises(SabotSQLError, match="'x' is of type .* and cannot be read"):
        session.register("x", x)


MADE = ["VIEW v AS SELECT * FROM frame", "TEMP VIEW v AS FROM frame", "MACRO m() AS TABLE SELECT * FROM frame"]


@pytest.mark.parametrize("made", MADE)
def test_views_and_macros_over_python_names_are_read_later(session: Session, made: str) -> None:
    frame = pd.DataFrame({"a": range(ROWS)})
    session.query(f"CREATE OR REPLACE {made}")
    session.query(f"CREATE OR REPLACE VIEW w AS SELECT a FROM {'m()' if 'MACRO' in made else 'v'} WHERE a % 2 = 0")
    try:
        for outer in ("w", 'W AS "x"', "(WITH frame AS (SELECT 1 AS b) SELECT w.* FROM w, frame)"):
            assert session.query(f"SELECT count(*), sum(a) FROM {outer}").fetchall() == [(500, sum(range(0, ROWS, 2)))]
        frame = pd.DataFrame({"a": [2, 4, 5]})  # the name, not the object, is what they hold
        assert session.query("SELECT count(*), sum(a) FROM w").fetchall() == [(2, 6)]
        session.query("CREATE OR REPLACE TABLE copied AS SELECT * FROM w")
        session.query("INSERT INTO copied SELECT * FROM w")
        assert session.query("SELECT count(*), sum(a) FROM copied").fetchall() == [(4, 12)]
        del frame
        with pytest.raises(BindError, match="frame"):
            session.query("SELECT count(*) FROM w")
    finally:
        session.query("DROP VIEW w; DROP TABLE IF EXISTS copied")
        session.query("DROP MACRO TABLE m" if "MACRO" in made else "DROP VIEW v")


def test_scalar_macros_and_prepared_statements_over_python_names(session: Session) -> None:
    frame = np.arange(10)
    session.query("CREATE MACRO total() AS (SELECT sum(column0) FROM frame)")
    session.query("PREPARE p AS SELECT count(*) + ? FROM frame")
    try:
        assert session.query("SELECT total()").fetchall() == [(45,)]
        assert session.query("SELECT total() FROM range(3)").fetchall() == [(45,)] * 3
        assert session.query("EXECUTE p(5)").fetchall() == [(15,)]
        assert len(frame) == 10
    finally:
        session.query("DROP MACRO total; DEALLOCATE p")


def test_a_table_of_the_view_s_own_database_is_not_hidden_by_a_python_name(session: Session) -> None:
    frame = pd.DataFrame({"a": [1]})
    session.query("ATTACH ':memory:' AS other; CREATE TABLE other.frame AS SELECT 7 AS a; USE other")
    session.query("CREATE VIEW other.v AS SELECT * FROM frame")
    session.query("USE memory")
    try:
        assert session.query("SELECT a FROM other.v").fetchall() == [(7,)]
        assert session.query("SELECT a FROM frame").fetchall() == [(1,)]
        assert len(frame) == 1
    finally:
        session.query("DETACH other")


@pytest.mark.parametrize("kind", ["pandas series", "numpy", "dict of arrays", "list of arrays"])
def test_a_registered_object_that_is_changed_in_place_is_seen_as_it_is(session: Session, kind: str) -> None:
    changed: Any = TABLES[kind](Path())
    array = changed["x"] if isinstance(changed, dict) else changed[0] if isinstance(changed, list) else changed
    column = {"pandas series": "value", "dict of arrays": "x"}.get(kind, "column0")
    session.register("changing", changed)
    try:
        assert session.query(f"SELECT sum({column}) FROM changing").fetchall() == [(sum(range(ROWS)),)]
        array[0] = 1_000_000
        assert session.query(f"SELECT sum({column}) FROM changing").fetchall() == [(sum(range(ROWS)) + 1_000_000,)]
    finally:
        session.unregister("changing")


@pytest.mark.parametrize("rows", [0, 1, 65, 3000, 100_003])
@pytest.mark.parametrize("kind", ["arrow", "pandas", "registered", "view"])
def test_the_rows_of_a_table_are_counted_and_not_estimated(session: Session, kind: str, rows: int) -> None:
    """What stands for the table while its query is planned has about as many rows."""
    table = pa.table({"a": list(range(rows)), "b": [i % 3 for i in range(rows)]})
    few = pa.table({"k": [0, 1, 2]})
    counted = f"{kind}_{rows}"
    scope = {"few": few} | (
        {counted: table.to_pandas() if kind == "pandas" else table} if kind in ("arrow", "pandas") else {}
    )
    if kind == "registered":
        session.register(counted, table)
    if kind == "view":
        session.register("below", table)
        session.execute(f"CREATE TEMP VIEW {counted} AS SELECT a, b FROM below")
    queries = {
        f"SELECT k, (SELECT count(*) FROM {counted}) AS n FROM few": [(k, rows) for k in range(3)],
        f"SELECT k, count(*) FROM few JOIN (SELECT count(*) AS n FROM {counted}) ON k <= n GROUP BY k": [
            (k, 1) for k in range(3) if k <= rows
        ],
        f"SELECT k FROM few UNION ALL SELECT count(*) FROM {counted}": [(0,), (1,), (2,), (rows,)],
        f"SELECT k FROM few WHERE EXISTS (FROM {counted})": [(k,) for k in range(3) if rows],
        f"SELECT count(*) FROM (SELECT a FROM {counted} LIMIT {rows + 5} OFFSET 1), few": [(max(rows - 1, 0) * 3,)],
    }
    for query, wanted in queries.items():
        assert sorted(session.query(query, scope=scope).fetchall()) == sorted(wanted), query


@pytest.mark.parametrize("agents", [1, 2])
def test_an_error_in_a_transaction_is_the_statement_s_own(agents: int) -> None:
    """What a frame was bound to cannot be taken away in a transaction that has failed; that is nobody's error."""
    frame = pa.table({"k": [1]})
    with sabot_sql.connect(agents=agents) as session:
        for sql, words in (("SELECT error('mine') FROM frame", "mine"), ("CREATE TABLE no.such AS FROM frame", "no")):
            session.execute("BEGIN")
            with pytest.raises(QueryError, match=words):
                session.execute(sql)
            session.execute("ROLLBACK")
            assert session.query("FROM frame").fetchall() == [(1,)]
            assert session.tables() == ()
    assert frame.num_rows == 1


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize("kind", ["table", "pandas"])
def test_a_column_of_no_type_beside_one_that_parquet_lacks(count: int, kind: str) -> None:
    """Such as an empty frame with times in seconds: its plan is printed, and agents read it."""
    columns = {
        "ts": pa.array([1] * count, pa.timestamp("s")),
        "none": pa.nulls(count),
        "id": pa.array(range(count), "i8"),
    }
    frame = pa.table(columns) if kind == "table" else pa.table(columns).to_pandas()
    assert len(frame) == count
    sql = "SELECT ts, none, id, count(none) OVER (PARTITION BY id) AS n FROM frame WHERE none IS NULL ORDER BY id"
    with sabot_sql.connect(agents=2, partitions=2) as session:
        result = session.query(sql)
        assert result.stats["mode"] == "distributed"
        expected = duckdb.sql(sql)
        assert (result.types, result.fetchall()) == ([str(t) for t in expected.types], expected.fetchall())
