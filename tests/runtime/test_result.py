from __future__ import annotations

import decimal
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from pandas.testing import assert_frame_equal

import sabot_sql
from sabot_sql import Result, Session
from sabot_sql.errors import SessionClosed, SourceError
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import ResultStore
from sabot_sql.scratch import Scratch
from tests.support.budgets import budget

EVERY_TYPE = """
    CREATE TABLE t AS SELECT
        i AS id,
        (i - 50)::HUGEINT * 100000000000000000000 AS h,
        ('00000000-0000-0000-0000-' || lpad(i::VARCHAR, 12, '0'))::UUID AS u,
        (CASE WHEN i % 2 = 0 THEN 'b' ELSE 'a' END)::ENUM('b', 'a') AS e,
        {'a': i::INTEGER, 'b c': ['x', NULL]} AS st,
        MAP {'k': i} AS m,
        ('{"k": ' || i || '}')::JSON AS j,
        ('10' || (i % 2)::VARCHAR)::BIT AS b,
        '12:00:00+02'::TIMETZ AS tz,
        TIMESTAMPTZ '2020-01-01 00:00:00+00' + i * INTERVAL 1 HOUR AS ts,
        i * INTERVAL 1 DAY AS iv,
        [i::HUGEINT] AS lh,
        i::DECIMAL(18, 3) AS d,
        chr((65 + i % 26)::INTEGER)::BLOB AS bl,
        NULL AS n,
        i::FLOAT / 7 AS f,
        DATE '2020-01-01' + i::INTEGER AS dt,
        [i::INTEGER, 2, 3]::INTEGER[3] AS arr,
        (DATE '2020-01-01' + i::INTEGER)::TIMESTAMP_S AS tss,
        i::UTINYINT AS ut,
        CASE WHEN i % 3 = 0 THEN NULL ELSE 's' || i END AS s
    FROM range(100) r(i)
"""

QUERIES = [
    "SELECT row() AS a, struct_pack() AS b, row(id, 'x') AS c, [row(), NULL] AS d FROM t ORDER BY id",
    "SELECT row(row(), id) AS a, {'a': row()} AS b, union_value(n := row(id)) AS f FROM t ORDER BY id",
    "SELECT * FROM t ORDER BY id",
    "SELECT sum(h) AS h, max(u) AS u, any_value(n) AS n, count(*) AS c FROM t",
    "SELECT s, id AS same, h AS same FROM t ORDER BY id DESC LIMIT 10",
    "SELECT a.e, b.u, a.lh FROM t a JOIN t b ON a.u = b.u WHERE a.id % 5 = 0 ORDER BY b.u",
    "SELECT id, e, h FROM t WHERE id < 0 AND s IS NOT NULL",
    "SELECT id % 7 AS k, avg(d) AS a, sum(d) AS s, max(ts) AS ts FROM t GROUP BY k ORDER BY k",
]


@pytest.fixture(scope="module", params=[(1, "thread"), (2, "thread"), (2, "process")], ids=str)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation) as opened:
        opened.execute(EVERY_TYPE)
        opened.execute("SET TimeZone = 'Asia/Tokyo'")
        yield opened


@pytest.fixture(scope="module")
def plain() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(EVERY_TYPE)
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        yield connection


@pytest.fixture
def numbers() -> Iterator[Result]:
    with sabot_sql.connect() as opened:
        yield opened.query("SELECT i, 's' || i AS s FROM range(1000) r(i)")


@pytest.mark.parametrize("states", ["sum(id)", "avg(id)", "max(s)", "list(id), min(h)", "count(*), avg(d), max(dt)"])
def test_aggregate_states_are_shown(session: Session, plain: duckdb.DuckDBPyConnection, states: str) -> None:
    sql = f"SELECT id % 3 AS k, {states.replace('),', ') EXPORT_STATE,')} EXPORT_STATE FROM t GROUP BY k ORDER BY k"
    result = session.query(sql)
    assert result.types[1:] == ["AGGREGATE_STATE"] * (len(result.types) - 1)
    assert result.fetchall() == plain.execute(sql).fetchall()
    assert session.query("SELECT max(h) FROM t").fetchall() == plain.execute("SELECT max(h) FROM t").fetchall()


@pytest.mark.parametrize("sql", QUERIES)
def test_every_form_is_what_duckdb_gives(session: Session, plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    result, expected = session.query(sql), plain.sql(sql)
    assert result.columns == expected.columns
    assert result.types == [str(type_name) for type_name in expected.types]
    assert result.fetchall() == expected.fetchall()
    table = expected.to_arrow_table()
    assert result.to_arrow_table().schema.equals(table.schema, check_metadata=True)
    assert result.to_arrow_table().equals(table)
    assert pa.schema(result) == table.schema
    assert pa.table(result).num_rows == len(result)


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # what DuckDB calls for times with a zone
@pytest.mark.parametrize("sql", QUERIES)
def test_pandas_frames_are_what_duckdb_gives(session: Session, plain: duckdb.DuckDBPyConnection, sql: str) -> None:
    sql = sql.replace("SELECT *", "SELECT * EXCLUDE (tz)")  # pandas has no such type
    assert_frame_equal(session.query(sql).df(), plain.sql(sql).df())


def test_polars_frames_are_what_duckdb_gives(session: Session, plain: duckdb.DuckDBPyConnection) -> None:
    sql = "SELECT id, d, s, dt, ts FROM t ORDER BY id"
    assert session.query(sql).pl().equals(plain.sql(sql).pl())


def test_it_can_be_read_again_and_again(numbers: Result) -> None:
    first = pa.table(numbers)
    assert pa.table(numbers).equals(first)
    assert list(numbers) == list(numbers)
    counted = duckdb.sql("SELECT count(*), sum(i) FROM numbers")
    assert counted is not None
    assert counted.fetchall() == [(1000, 499500)]
    assert pd.DataFrame(numbers.df()).shape == (1000, 2)


def test_fetching_moves_on(numbers: Result) -> None:
    assert numbers.fetchone() == (0, "s0")
    assert numbers.fetchmany(2) == [(1, "s1"), (2, "s2")]
    assert len(numbers.fetchall()) == 997
    assert numbers.fetchone() is None
    assert (numbers.fetchmany(5), numbers.fetchall()) == ([], [])
    assert (len(numbers), numbers.shape, bool(numbers)) == (1000, (1000, 2), True)


@pytest.mark.parametrize("batch_size", [1, 300, 1_000_000])
def test_readers_give_batches_of_the_wanted_size(numbers: Result, batch_size: int) -> None:
    batches = list(numbers.to_arrow_reader(batch_size))
    assert max(batch.num_rows for batch in batches) <= batch_size
    assert sum(batch.num_rows for batch in batches) == 1000


def test_files_hold_all_rows_and_types(session: Session, plain: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    result = session.query("SELECT id, u, d, ts, st, s FROM t ORDER BY id")
    result.to_parquet(tmp_path / "r.parquet")
    result.to_csv(tmp_path / "r.csv")
    written = plain.sql(f"FROM '{tmp_path}/r.parquet'")
    assert [str(type_name) for type_name in written.types] == result.types
    assert written.fetchall() == result.fetchall()
    assert (tmp_path / "r.csv").read_text().splitlines()[0] == "id,u,d,ts,st,s"
    with pytest.raises(SourceError):
        result.to_parquet(tmp_path / "nowhere" / "r.parquet")


def test_a_large_result_lives_in_a_file_of_its_session(tmp_path: Path) -> None:
    with sabot_sql.connect(memory_limit=budget("64MiB", agents=1), spill_directory=tmp_path) as session:
        result = session.query("SELECT i, repeat('x', 100) AS s FROM range(200000) r(i)")
        assert result.stats["on_disk"]
        assert list(tmp_path.glob("*/result-*.arrow"))
        assert (len(result), pa.table(result)["i"].to_pylist()) == (200000, list(range(200000)))
        assert result.fetchmany(2) == [(0, "x" * 100), (1, "x" * 100)]
        small = session.query("SELECT 1 AS a")
        assert not small.stats["on_disk"]
    with pytest.raises(SessionClosed):
        result.to_arrow_table()
    assert small.fetchall() == [(1,)]


def test_the_file_of_a_forgotten_result_goes(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    reader = pa.table({"a": range(1000), "a ": range(1000)}).to_reader(max_chunksize=100)
    store = ResultStore.drain(reader, ResultRoom(scratch), 2000)
    (file,) = tmp_path.glob("*/result-*.arrow")
    assert (store.rows, store.on_disk) == (1000, True)
    assert sum(batch.num_rows for batch in store.part(150, 700)) == 700
    del store
    assert not file.exists()
    scratch.close()


def test_borrowed_rows_are_copied(tmp_path: Path) -> None:
    table = pa.table({"a": range(100), "d": pa.array(["x", "y"] * 50).dictionary_encode()})
    for borrowed in (True, False):
        store = ResultStore.drain(table.to_reader(), ResultRoom(Scratch(str(tmp_path))), 1 << 20, borrowed=borrowed)
        (batch,) = store.reader()
        shared = batch.column(0).buffers()[1].address == table.column(0).chunk(0).buffers()[1].address
        assert shared is not borrowed
        assert batch.to_pydict() == {"c0": list(range(100)), "c1": ["x", "y"] * 50}


def test_rows_past_the_limit_are_left_out(tmp_path: Path) -> None:
    reader = pa.table({"a": range(1000)}).to_reader(max_chunksize=100)
    store = ResultStore.drain(reader, ResultRoom(Scratch(str(tmp_path))), 1 << 20, max_rows=250)
    assert (store.rows, store.truncated_at) == (250, 250)
    assert [batch.num_rows for batch in store.reader()] == [100, 100, 50]


def test_text_shows_both_ends_and_the_size(numbers: Result, capsys: pytest.CaptureFixture[str]) -> None:
    numbers.show(4)
    shown = capsys.readouterr().out
    for part in ("s0", "s1", "s998", "s999", "4 of 1,000 rows × 2 columns"):
        assert part in shown
    assert "s500" not in shown
    assert repr(numbers).count("\n") > 20


def test_html_is_inert_and_capped() -> None:
    hostile = "<img src=x onerror=alert(1)></td></table><script>alert(2)</script>"
    with sabot_sql.connect() as session:
        result = session.query(
            'SELECT $x AS "<script>c</script>", NULL AS n, repeat($y, 100000) AS long', {"x": hostile, "y": "z"}
        )
    html = result._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert len(html) < 100_000
    assert "NULL" in html


def test_diagnostics_say_what_happened(session: Session) -> None:
    result = session.query("SELECT e, count(*) FROM t GROUP BY e")
    plan = result.plan.json()
    assert plan["state"] == "finished"
    assert plan["query_id"] == result.query_id
    assert json.loads(json.dumps(plan)) == plan
    assert result.stats["rows"] == 2
    assert result.stats["mode"] == plan["mode"]
    assert result.stats["elapsed_ms"] > 0
    assert result.sql.startswith("SELECT e")
    assert len(result.fetchall()) == 2


def test_python_values_keep_their_precision() -> None:
    with sabot_sql.connect() as session:
        row = session.query(
            "SELECT 12345678901234567890.12345::DECIMAL(38, 5) AS d, 170141183460469231731687303715884105727 AS h"
        ).fetchone()
    assert row == (decimal.Decimal("12345678901234567890.12345"), 170141183460469231731687303715884105727)


def test_a_closed_result_lets_its_rows_go(tmp_path: Path) -> None:
    with sabot_sql.connect(memory_limit="256MiB", spill_directory=tmp_path) as session:
        with session.query("SELECT range AS a, repeat('x', 100) AS b FROM range(600000)") as result:
            assert result.stats["on_disk"]
            assert not result.closed
            assert result.fetchone() == (0, "x" * 100)
            table = result.arrow()
        assert result.closed
        assert not list(tmp_path.rglob("*.arrow"))
        assert table.num_rows == 600_000, "what was taken from it stays"
        assert repr(result) == "<closed Result: 600,000 rows × 2 columns>"
        assert "closed Result" in result._repr_html_()
        assert (len(result), result.shape, result.columns) == (600_000, (600_000, 2), ["a", "b"])
        assert result.plan.json()["state"] == "finished"
        result.close()
        for use in (result.fetchall, result.df, result.arrow, result.show, result.fetchone, lambda: list(result)):
            with pytest.raises(SessionClosed, match="the result was closed"):
                use()


@pytest.mark.parametrize("sql", QUERIES)
def test_the_schema_is_that_of_every_arrow_form(session: Session, sql: str) -> None:
    result = session.query(sql)
    assert result.schema == result.arrow().schema == result.to_arrow_reader().schema
    assert pa.schema(result) == result.schema
    assert result.schema.names == result.columns


def test_the_description_is_that_of_pep_249(session: Session) -> None:
    result = session.query('SELECT id, s AS "a b" FROM t WHERE false')
    assert result.description == [
        ("id", "BIGINT", None, None, None, None, None),
        ("a b", "VARCHAR", None, None, None, None, None),
    ]


FRAMES = """
    SELECT i AS id, 's' || i AS "a b", (i / 3)::DECIMAL(10, 2) AS "sum(x)", DATE '2020-01-01' + i::INTEGER AS day,
        CASE WHEN i % 2 = 0 THEN i END AS even, i::DOUBLE AS f FROM range(100) r(i) ORDER BY i
"""


def test_frames_are_made_of_a_result(session: Session) -> None:
    result = session.query(FRAMES)
    frame = pd.DataFrame(result)
    assert list(frame.columns) == result.columns
    assert_frame_equal(frame[["id", "a b", "f"]], result.to_pandas()[["id", "a b", "f"]], check_dtype=False)
    assert list(frame.itertuples(index=False, name=None))[1][:3] == (1, "s1", decimal.Decimal("0.33"))
    assert_frame_equal(pd.DataFrame.from_arrow(result), pd.DataFrame.from_arrow(result.arrow()))
    assert_frame_equal(result.to_pandas(), result.df())
    assert pa.table(result) == result.arrow() == result.to_arrow_table()
    assert pl.DataFrame(result).equals(result.to_polars())
    assert pl.from_arrow(result.arrow()).equals(result.pl())
    # polars makes a series of structs of any Arrow stream that is not pyarrow's.
    assert pl.from_arrow(result).struct.unnest().equals(result.pl())


def test_other_libraries_read_a_result(session: Session) -> None:
    ibis, narwhals = pytest.importorskip("ibis"), pytest.importorskip("narwhals")
    result = session.query(FRAMES)
    table = ibis.memtable(result)
    assert table.filter(table.id < 3).count().to_pyarrow().as_py() == 3
    assert narwhals.from_arrow(result, backend="polars").to_native().equals(result.pl())
    assert narwhals.from_arrow(result, backend="pyarrow").to_native() == result.arrow()
    assert duckdb.sql("SELECT sum(id) FROM result").fetchall() == [(4950,)]


def test_rows_of_an_iteration_are_tuples(session: Session) -> None:
    result = session.query("SELECT id, id AS id, s FROM t ORDER BY id LIMIT 3")
    rows = list(result)
    assert rows == [(0, 0, None), (1, 1, "s1"), (2, 2, "s2")] == result.fetchall()
    assert repr(rows[1]) == "(1, 1, 's1')"
    assert list(pd.DataFrame(result).columns) == ["id", "id", "s"]
    assert [type(row) for row in pickle.loads(pickle.dumps(rows))] == [tuple] * 3
