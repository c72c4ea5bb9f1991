from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pytest

from sabot_sql import dbapi


@pytest.fixture(params=[1, 2], ids=lambda agents: f"{agents} agents")
def connection(request: pytest.FixtureRequest) -> Iterator[dbapi.Connection]:
    with dbapi.connect(agents=request.param) as opened:
        opened.cursor().execute("CREATE TABLE t AS SELECT range AS a, 's' || range AS s FROM range(10)")
        yield opened


def test_the_module_says_what_it_is() -> None:
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 2, "qmark")
    assert issubclass(dbapi.ProgrammingError, dbapi.Error)
    assert issubclass(dbapi.DataError, dbapi.DatabaseError)


def test_a_cursor_fetches(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    assert (cursor.description, cursor.rowcount) == (None, -1)
    cursor.execute("SELECT a, s FROM t WHERE a >= ? ORDER BY a", [6])
    assert [column[:2] for column in cursor.description or ()] == [("a", "BIGINT"), ("s", "VARCHAR")]
    assert cursor.rowcount == 4
    assert cursor.fetchone() == (6, "s6")
    assert cursor.fetchmany() == [(7, "s7")]
    assert list(cursor) == [(8, "s8"), (9, "s9")]
    assert cursor.fetchone() is None
    cursor.close()
    with pytest.raises(dbapi.InterfaceError):
        cursor.fetchall()


def test_many_parameter_sets_run_one_after_another(connection: dbapi.Connection) -> None:
    cursor = connection.cursor().executemany("INSERT INTO t VALUES (?, ?)", [(100, "x"), (101, "y")])
    assert cursor.execute("SELECT s FROM t WHERE a >= 100 ORDER BY a").fetchall() == [("x",), ("y",)]


def test_transactions_end_as_asked(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    connection.commit()
    for end, rows in ((connection.rollback, 10), (connection.commit, 0)):
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM t")
        end()
        assert cursor.execute("SELECT count(*) FROM t").fetchall() == [(rows,)]


def test_types_compare_to_their_kind(connection: dbapi.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT 1 AS n, 1.5::DECIMAL(4, 1) AS d, 'x' AS s, DATE '2024-01-01' AS t, 'x'::BLOB AS b, 1::UBIGINT AS u"
    )
    kinds = [dbapi.NUMBER, dbapi.NUMBER, dbapi.STRING, dbapi.DATETIME, dbapi.BINARY, dbapi.NUMBER]
    found = [column[1] for column in cursor.description or ()]
    assert [kind == name for kind, name in zip(kinds, found, strict=True)] == [True] * 6
    assert dbapi.STRING != "UUID[]" or dbapi.NUMBER != "UNION(a INTEGER)"
    assert hash(dbapi.STRING) != hash(dbapi.NUMBER)


def test_rows_come_as_arrow(connection: dbapi.Connection) -> None:
    cursor = connection.cursor().execute("SELECT a FROM t ORDER BY a")
    assert cursor.fetch_arrow_table().column(0).to_pylist() == list(range(10))
    assert isinstance(cursor.fetch_record_batch(3), pa.RecordBatchReader)


@pytest.mark.filterwarnings("ignore:pandas only supports SQLAlchemy")
def test_pandas_reads_through_it(connection: dbapi.Connection) -> None:
    frame = pd.read_sql("SELECT a, s FROM t WHERE a < ? ORDER BY a", connection, params=[3])
    assert frame.to_dict("list") == {"a": [0, 1, 2], "s": ["s0", "s1", "s2"]}


def test_ticks_become_local_times() -> None:
    ticks = dt.datetime(2024, 5, 6, 7, 8, 9).timestamp()
    assert dbapi.TimeFromTicks(ticks) == dt.time(7, 8, 9)
    assert dbapi.DateFromTicks(ticks) == dt.date(2024, 5, 6)
