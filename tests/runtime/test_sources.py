"""Every kind of source gives plain DuckDB's rows on threads and on processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import Session


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("it's data")
    for part in range(4):
        folder = root / "hive" / f"year=20{part:02d}" / f"kind={'ab'[part % 2]}"
        folder.mkdir(parents=True)
        table = pa.table({"a": range(part * 500, part * 500 + 500), "s": [f"s{i % 7}" for i in range(500)]})
        pq.write_table(table, folder / "part 0.parquet", row_group_size=200)
        (root / f"{part}.csv").write_text("a,s\n" + "".join(f"{part * 100 + i},s{i % 5}\n" for i in range(100)))
        (root / f"{part}.json").write_text("".join(f'{{"a": {i}, "s": "s{part}"}}\n' for i in range(100)))
    # Widths that only the whole list of files agrees on.
    (root / "later.csv").write_text("a,s\n1,2\n")
    pq.write_table(pa.table({"a": pa.array(range(10), pa.int32()), "extra": range(10)}), root / "u1.parquet")
    pq.write_table(pa.table({"a": pa.array(range(10, 20), pa.int64()), "s": ["x"] * 10}), root / "u2.parquet")
    with duckdb.connect(str(root / "d.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS a, 's' || range % 3 AS s FROM range(3000)")
    return root


@pytest.fixture(scope="module", params=[(2, "thread"), (3, "process")], ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest, files: Path) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation) as opened:
        opened.execute(f"ATTACH {quoted(files / 'd.duckdb')} AS d (READ_ONLY)")
        yield opened


@pytest.fixture(scope="module")
def plain(files: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {quoted(files / 'd.duckdb')} AS d (READ_ONLY)")
        yield connection


def quoted(path: Path | str) -> str:
    return "'" + str(path).replace("'", "''") + "'"


GROUPED = "SELECT s, count(*) AS n, sum(a) AS a FROM {} GROUP BY s ORDER BY s"

HIVE = "'{d}/hive/*/*/*.parquet'"
ALL = "GROUP BY ALL ORDER BY ALL"

FILE_QUERIES = [
    GROUPED.format(HIVE),
    GROUPED.format("'{d}/hive/**/*.parquet'"),
    GROUPED.format("read_parquet('{d}/hive')"),
    GROUPED.format("'{d}/hive/year=2001/kind=b/part 0.parquet'"),
    GROUPED.format("read_parquet(['{d}/hive/year=2001/kind=b/part 0.parquet', '{d}/hive/year=2003/*/*.parquet'])"),
    GROUPED.format("'{d}/[0-9].csv'"),
    GROUPED.format("read_csv(['{d}/later.csv', '{d}/0.csv', '{d}/1.csv'])"),
    GROUPED.format("'{d}/*.json'"),
    GROUPED.format("'{d}/2.json'"),
    GROUPED.format("d.t"),
    f"SELECT year, kind, count(*) AS n, min(a) FROM {HIVE} WHERE year > 2000 {ALL}",
    f"SELECT year, s, count(*) FROM read_parquet({HIVE}, hive_types = {{{{'year': 'VARCHAR'}}}}) {ALL}",
    f"SELECT filename, file_index, count(*), max(file_row_number) FROM {HIVE} {ALL}",
    f"SELECT parse_filename(f), count(*) FROM read_parquet({HIVE}, filename = 'f') {ALL}",
    f"SELECT extra, s, count(*) FROM read_parquet('{{d}}/u*.parquet', union_by_name = true) {ALL}",
    f"SELECT a, s FROM {HIVE} WHERE a % 97 = 0",
    f"SELECT a, s FROM {HIVE} LIMIT 5",
    f"SELECT x.s, count(*) FROM {HIVE} x JOIN '{{d}}/*.json' y USING (a) {ALL}",
    f"SELECT x.s, count(*) FROM d.t x JOIN '{{d}}/0.csv' y USING (a) {ALL}",
    f"SELECT count(*) FROM range(1000) r(a) JOIN {HIVE} USING (a)",
]


@pytest.mark.parametrize("query", FILE_QUERIES)
def test_files_and_databases(session: Session, plain: duckdb.DuckDBPyConnection, files: Path, query: str) -> None:
    sql = query.format(d=str(files).replace("'", "''"))
    result = session.query(sql)
    expected = plain.sql(sql)
    assert result.types == [str(type_name) for type_name in expected.types]
    assert result.fetchall() == expected.fetchall()
    alone = "/2.json" in query  # one file without an index is one slice
    assert (result.plan.mode == "single") == alone, result.plan.reason


@pytest.mark.parametrize("values", ["DATE '0044-03-15 (BC)'", "DATE '290000-01-01'", "TIMESTAMP 'infinity'"])
def test_days_that_python_cannot_say(session: Session, tmp_path: Path, values: str) -> None:
    file = tmp_path / "t.parquet"
    duckdb.sql(f"COPY (SELECT {values} AS day, i FROM range(10000) AS r(i)) TO '{file}' (ROW_GROUP_SIZE 2048)")
    grouped = f"SELECT day::VARCHAR, count(*) FROM '{file}' GROUP BY day"
    joined = f"SELECT count(*) FROM '{file}' AS a JOIN '{file}' AS b USING (day, i)"
    for query in (grouped, joined):
        assert session.query(query).fetchall() == duckdb.sql(query).fetchall()


def test_relative_paths(session: Session, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    with sabot_sql.connect(agents=session.config.agents, isolation=session.isolation) as here:  # type: ignore[arg-type]
        rows = here.query("SELECT count(*), any_value(filename)[:5] FROM 'hive/*/*/*.parquet'").fetchall()
    assert rows == [(2000, "hive/")]


@pytest.mark.parametrize(
    "pattern", ["~/hive/*/*/*.parquet", "~/hive", "file://{d}/hive/*/*/*.parquet", "{d}/link/*/*/*.parquet"]
)
def test_other_names_of_the_same_files(
    session: Session, files: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(files))
    link = files / "link"
    if not link.exists():
        link.symlink_to(files / "hive")
    name = quoted(pattern.format(d=files))
    with sabot_sql.connect(agents=session.config.agents, isolation=session.isolation) as here:  # type: ignore[arg-type]
        result = here.query(f"SELECT count(*), sum(a) FROM read_parquet({name})")
        assert result.fetchall() == [(2000, sum(range(2000)))]
        assert result.plan.mode == "distributed"


def test_files_on_the_search_path(session: Session, files: Path) -> None:
    with sabot_sql.connect(agents=session.config.agents, isolation=session.isolation) as here:  # type: ignore[arg-type]
        here.execute(f"SET file_search_path = {quoted(files)}")
        assert here.query("SELECT count(*) FROM 'hive/*/*/*.parquet'").fetchall() == [(2000,)]


def test_in_process_tables_join_files(session: Session, files: Path) -> None:
    names = pd.DataFrame({"s": [f"s{i}" for i in range(7)], "name": [f"name {i}" for i in range(7)]})
    weights = pl.DataFrame({"a": range(2000), "w": [1.5] * 2000})
    limits = pa.table({"kind": ["a", "b"], "least": [100, 200]})
    wanted = ds.dataset(files / "hive", format="parquet", partitioning=None)
    sql = f"""
        SELECT name, sum(w) AS w, count(*) AS n
        FROM {quoted(files / "hive/*/*/*.parquet")} f
        JOIN names USING (s) JOIN weights USING (a) JOIN limits USING (kind)
        WHERE f.a >= least AND f.a IN (SELECT a FROM wanted WHERE a % 2 = 0)
        GROUP BY name ORDER BY name
    """
    with duckdb.connect() as plain:
        expected = plain.sql(sql).fetchall()
    result = session.query(sql)
    assert result.fetchall() == expected
    assert len(names) + len(weights) + len(limits) == 2009
    assert wanted.count_rows() == 2000


def test_what_the_session_made_joins_files(session: Session, files: Path) -> None:
    session.execute("CREATE OR REPLACE TABLE mine AS SELECT range AS a, range % 10 AS k FROM range(2000)")
    session.execute("CREATE OR REPLACE TEMP TABLE few AS SELECT range AS k FROM range(0, 10, 3)")
    session.execute(f"CREATE OR REPLACE VIEW seen AS FROM {quoted(files / 'hive/*/*/*.parquet')}")
    rows = session.query(
        "SELECT k, count(*) FROM seen JOIN mine USING (a) JOIN few USING (k) GROUP BY k ORDER BY k"
    ).fetchall()
    assert rows == [(k, 200) for k in (0, 3, 6, 9)]


def test_a_column_of_nothing_but_none_beside_what_parquet_lacks(session: Session) -> None:
    frame = pd.DataFrame({"k": range(40), "u": pd.Series([None] * 40, dtype=object), "d": pd.to_timedelta(range(40))})
    query = "SELECT DISTINCT ON (g) k % 7 AS g, u, d FROM frame ORDER BY g, u NULLS FIRST, k"
    result = session.query(query, scope={"frame": frame})
    assert not result.plan.reason.startswith("it failed"), result.plan.reason
    assert result.types == ["BIGINT", '"NULL"', "INTERVAL"]
    assert result.fetchall() == duckdb.sql(query).fetchall()
