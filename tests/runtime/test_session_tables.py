from __future__ import annotations

from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import BindError, Session, UsageError

KINDS = [(1, "thread"), (2, "thread"), (3, "process")]

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
    with pytest.raises(UsageError) as error:
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


def test_tables_are_listed_by_the_names_that_from_takes(session: Session) -> None:
    assert session.tables() == ()
    session.execute("""
        CREATE TABLE plain AS SELECT 1 AS a; CREATE VIEW seen AS FROM plain; CREATE TEMP TABLE gone AS FROM plain;
        CREATE SCHEMA other; CREATE TABLE other.far AS FROM plain; ATTACH ':memory:' AS elsewhere;
        CREATE TABLE elsewhere.main.away AS FROM plain; CREATE TABLE "odd name" AS FROM plain;
        CREATE TABLE "select" AS FROM plain; CREATE TABLE "a""b" AS FROM plain; CREATE TABLE "Large" AS FROM plain
    """)
    session.register("kept", pa.table({"a": [1]}))
    names = session.tables()
    assert sorted(names) == sorted(
        [
            *("plain", "seen", "gone", "other.far", "elsewhere.main.away", '"odd name"', '"select"', '"a""b"', "Large"),
            "kept",
        ]
    )
    for name in names:
        assert session.query(f"FROM {name}").fetchall() == [(1,)]
    session.execute("USE other")
    assert {"far", "main.plain"} <= set(session.tables())
