"""Slices of a source, put together, are the source: same rows, same order, same types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sabot_planner import NotDistributed, Placement, RangeSplit, SourceInfo
from sabot_sql.call.running import RunningQuery
from sabot_sql.catalog.catalog import BoundQuery, Catalog
from sabot_sql.catalog.sources import SliceBinding
from sabot_sql.config import parse_config
from sabot_sql.coordinator.conservation import spans_fault
from sabot_sql.scratch import Scratch

COUNTS = [1, 2, 3, 7, 19]


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    scratch = Scratch(str(tmp_path / "scratch"))
    yield scratch
    scratch.close()


@pytest.fixture
def catalog(scratch: Scratch) -> Iterator[Catalog]:
    catalog = Catalog(parse_config(agents=2), scratch)
    yield catalog
    catalog.close()


def execute(catalog: Catalog, sql: str) -> list[tuple[Any, ...]]:
    return catalog.connection.main.execute(sql).fetchall()


def bind(catalog: Catalog, sql: str, isolation: str = "thread", **scope: object) -> tuple[BoundQuery, SourceInfo]:
    (statement,) = catalog.split(sql, None)
    config = parse_config(agents=2, isolation=isolation)
    bound = catalog.bind(statement, [scope], config, RunningQuery("test", None))
    assert isinstance(bound, BoundQuery), bound
    match = re.search(r"FROM ((?:(?!FROM).)*?) AS r0\(", bound.exported_sql, re.DOTALL)
    assert match, bound.exported_sql
    virtual = re.findall(r"r0\.(filename|file_row_number|file_index|rowid)\b", bound.exported_sql)
    info = bound.sources.source(match.group(1), list(dict.fromkeys(virtual)))
    return bound, info


def read(catalog: Catalog, binding: SliceBinding) -> tuple[list[tuple[Any, ...]], list[str], list[str]]:
    cursor = catalog.connection.cursor()
    for name, value in binding.registrations.items():
        cursor.register(name, value)
    relation = cursor.sql(binding.sql)
    return relation.fetchall(), relation.columns, [str(t) for t in relation.types]


def check_slices(catalog: Catalog, bound: BoundQuery, info: SourceInfo) -> None:
    whole, _, _ = read(catalog, bound.sources.bind_slice(info.source_id, 0, 1))
    for count in COUNTS:
        rows: list[tuple[Any, ...]] = []
        slices = [bound.sources.bind_slice(info.source_id, index, count) for index in range(count)]
        assert spans_fault(binding.spans for binding in slices) is None
        for binding in slices:
            part, names, types = read(catalog, binding)
            assert bool(binding.spans) or not part
            assert names == [column.name for column in info.columns]
            assert types == [column.type for column in info.columns]
            rows += part
        assert rows == whole, f"{count} slices"


def write_parts(directory: Path, parts: int = 3, rows: int = 2500, group_rows: int = 1000) -> None:
    for part in range(parts):
        folder = directory / f"k={part:02d}"
        folder.mkdir(parents=True)
        table = pa.table({"a": range(part * rows, (part + 1) * rows), "s": [f"s{i}" for i in range(rows)]})
        pq.write_table(table, folder / "part.parquet", row_group_size=group_rows)


PARQUET_QUERIES = {
    "glob": "FROM '{d}/*/*.parquet'",
    "one file": "FROM '{d}/k=01/part.parquet'",
    "list": "FROM read_parquet(['{d}/k=02/part.parquet', '{d}/k=00/part.parquet'])",
    "list of globs": "FROM read_parquet(['{d}/k=02/*.parquet', '{d}/k=00/*.parquet'])",
    "directory": "FROM read_parquet('{d}')",
    "hive as text": "FROM read_parquet('{d}/*/*.parquet', hive_types = {{'k': 'VARCHAR'}})",
    "no hive": "FROM read_parquet('{d}/*/*.parquet', hive_partitioning = false)",
    "union by name": "FROM read_parquet('{d}/*/*.parquet', union_by_name = true)",
    "file name": "FROM read_parquet('{d}/*/*.parquet', filename = true)",
    "named file name": "FROM read_parquet('{d}/*/*.parquet', filename = 'from''file')",
    "row number": "FROM read_parquet('{d}/*/*.parquet', file_row_number = true)",
    "virtual columns": "SELECT a, filename, file_row_number, file_index FROM '{d}/*/*.parquet'",
    "virtual columns of a list": "SELECT file_index, a FROM read_parquet(['{d}/k=02/part.parquet', '{d}/k=00/*'])",
    "nothing": "SELECT count(*) FROM '{d}/*/*.parquet'",
}


@pytest.mark.parametrize("query", PARQUET_QUERIES.values(), ids=PARQUET_QUERIES.keys())
def test_parquet_slices_make_the_whole(catalog: Catalog, tmp_path: Path, query: str) -> None:
    write_parts(tmp_path / "d'ir")
    bound, info = bind(catalog, query.format(d=str(tmp_path / "d'ir").replace("'", "''")))
    check_slices(catalog, bound, info)
    assert info.max_slices > 1
    assert info.rows in (2500, 5000, 7500)
    assert info.placement is Placement.ANY
    assert bound.sources.paths()


def test_slices_of_parquet_follow_row_groups_while_there_are_enough(catalog: Catalog, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(3000)}), tmp_path / "t.parquet", row_group_size=1000)
    bound, info = bind(catalog, f"FROM '{tmp_path}/t.parquet'")
    assert info.rows == 3000
    for slices, expected in ((2, [1000, 2000]), (3, [1000] * 3), (5, [600, 600, 600, 600, 600])):
        counts = [len(read(catalog, bound.sources.bind_slice(info.source_id, i, slices))[0]) for i in range(slices)]
        assert counts == expected


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5, 6, 40])
def test_ranges_of_values_make_the_whole(catalog: Catalog, tmp_path: Path, tasks: int) -> None:
    """Also where there are more tasks than ranges: those that are too many read nothing."""
    write_parts(tmp_path)
    bound, info = bind(catalog, f"FROM '{tmp_path}/*/*.parquet'")
    split = RangeSplit("a", ("700", "1000", "4000", "7000"))
    slices = [bound.sources.bind_range(info.source_id, split, *split.share(task, tasks)) for task in range(tasks)]
    assert spans_fault(binding.spans for binding in slices) is None
    parts = [read(catalog, binding)[0] for binding in slices]
    assert [len(part) > 0 for part in parts].count(True) == min(tasks, 5)
    assert [row for part in parts for row in part] == read(catalog, bound.sources.bind_slice(info.source_id, 0, 1))[0]


def test_row_groups_and_files_without_rows_are_shared_out(catalog: Catalog, tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.int64())])
    for number, groups in enumerate([[0], [3, 0, 4], [], [0, 5, 0], [0, 0]]):
        with pq.ParquetWriter(tmp_path / f"t{number}.parquet", schema) as writer:
            for rows in groups:
                writer.write_table(pa.table({"a": range(rows)}, schema), row_group_size=max(1, rows))
    bound, info = bind(catalog, f"FROM '{tmp_path}/*.parquet'")
    assert info.rows == 12
    check_slices(catalog, bound, info)


def test_a_file_without_rows_is_a_source(catalog: Catalog, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    bound, info = bind(catalog, f"FROM '{tmp_path}/t.parquet'")
    assert info.rows == 0
    check_slices(catalog, bound, info)


def test_files_read_twice_are_not_counted_twice(catalog: Catalog, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": range(10)}), tmp_path / "t.parquet")
    bound, info = bind(catalog, f"FROM read_parquet(['{tmp_path}/t.parquet', '{tmp_path}/t.parquet'])")
    assert info.max_slices == 1
    check_slices(catalog, bound, info)


def test_a_column_named_like_a_virtual_one_is_kept(catalog: Catalog, tmp_path: Path) -> None:
    pq.write_table(pa.table({"file_row_number": [5, 6, 7], "filename": ["x", "y", "z"]}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"file_row_number": [8], "filename": ["w"]}), tmp_path / "2.parquet")
    bound, info = bind(catalog, f"FROM '{tmp_path}/*.parquet'")
    check_slices(catalog, bound, info)
    assert read(catalog, bound.sources.bind_slice(info.source_id, 1, 2))[0] == [(8, "w")]


def test_hundreds_of_files_are_cut_between_files(catalog: Catalog, tmp_path: Path) -> None:
    for number in range(100):
        pq.write_table(pa.table({"a": [number, -number]}), tmp_path / f"{number:03d}.parquet")
    bound, info = bind(catalog, f"SELECT a, file_index FROM '{tmp_path}/*.parquet'")
    assert (info.rows, info.max_slices) == (200, 100)
    check_slices(catalog, bound, info)


TEXT_QUERIES = [
    "FROM '{d}/*.csv'",
    "FROM read_csv('{d}/*.csv', types = {{'a': 'VARCHAR'}})",
    "FROM read_csv('{d}/*.csv', filename = true)",
    "FROM read_csv(['{d}/2.csv', '{d}/0.csv'], header = true, columns = {{'x': 'BIGINT', 'y': 'VARCHAR'}})",
    "SELECT a, file_index FROM '{d}/*.csv'",
    "FROM '{d}/*.json'",
    "FROM read_json('{d}/*.json', columns = {{'a': 'BIGINT', 'b': 'VARCHAR'}})",
    "SELECT b, filename FROM read_json('{d}/*.json')",
    "FROM '{d}/1.csv'",
]


@pytest.mark.parametrize("query", TEXT_QUERIES)
def test_csv_and_json_are_cut_between_files(catalog: Catalog, tmp_path: Path, query: str) -> None:
    # Alone, the second file would be read as text and the third without a header.
    for number, value in enumerate(["7", "08", "9"]):
        lines = [f"{value},{text}" for text in ("x", "3", "z")]
        (tmp_path / f"{number}.csv").write_text("\n".join(["a,b", *lines, ""]))
        (tmp_path / f"{number}.json").write_text(f'{{"a": {number}, "b": "x"}}\n{{"a": {number}, "b": null}}\n')
    bound, info = bind(catalog, query.format(d=tmp_path))
    check_slices(catalog, bound, info)
    assert info.max_slices == (1 if "/1.csv" in query else 2 if "/2.csv" in query else 3)


def test_tables_are_cut_at_row_groups(catalog: Catalog) -> None:
    execute(catalog, "CREATE TABLE t AS SELECT i AS a, i % 7 AS b FROM range(400000) r(i)")
    execute(catalog, "DELETE FROM t WHERE a BETWEEN 1000 AND 200000")
    bound, info = bind(catalog, "SELECT a, rowid FROM t")
    assert info.name == "t"
    assert info.max_slices > 1
    check_slices(catalog, bound, info)


@pytest.mark.parametrize(
    "relation", ["s.t", "other.main.t", '"we""ird".t', "v", "m(4)", "generate_series(1, 5)", "temp.main.tt"]
)
def test_what_the_session_made_is_a_source(catalog: Catalog, relation: str) -> None:
    execute(
        catalog,
        """CREATE SCHEMA s; CREATE TABLE s.t AS SELECT 1 AS a; ATTACH ':memory:' AS other;
        CREATE TABLE other.main.t AS SELECT 2 AS a; CREATE SCHEMA "we""ird"; CREATE TABLE "we""ird".t(a INTEGER);
        CREATE VIEW v AS SELECT a FROM s.t; CREATE MACRO m(n) AS TABLE SELECT a FROM s.t WHERE a < n;
        CREATE TEMP TABLE tt AS SELECT 'x'::ENUM('y', 'x') AS a, 1::HUGEINT AS b""",
    )
    bound, info = bind(catalog, f"FROM {relation}")
    check_slices(catalog, bound, info)


_MAPS = pa.array([[(1, "a")], [], None], pa.map_(pa.int8(), pa.string()))

MEMORY_TABLES = {
    "pandas": pd.DataFrame({"a": range(1000), "s": [f"s{i}" if i % 3 else None for i in range(1000)]}),
    "categories": pd.DataFrame({"a": pd.Categorical(["x", "y", None] * 5, categories=["y", "x"])}),
    "nothing but None": pd.DataFrame({"a": pd.Series([None] * 5, dtype=object)}),
    "polars": pl.DataFrame({"a": range(1000), "t": [[i] for i in range(1000)]}),
    "lazy": pl.DataFrame({"a": [1, 2, 3]}).lazy(),
    "arrow": pa.table({"a": range(1000), "d": pa.array([f"v{i % 3}" for i in range(1000)]).dictionary_encode()}),
    "batch": pa.record_batch({"a": [1, 2, 3]}),
    "nested": pa.table({"a": [{"x": [1, 2]}, None, {"x": []}], "m": _MAPS}),
    "no rows": pa.table({"a": pa.array([], pa.int32())}),
    "null type": pa.table({"a": pa.nulls(3)}),
    "same names": pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]),
    "duckdb": duckdb.sql("SELECT 5 AS a"),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMORY_TABLES)
def test_in_process_tables_are_bound_by_a_shadow_and_sliced(catalog: Catalog, name: str) -> None:
    bound, info = bind(catalog, "FROM frame", frame=MEMORY_TABLES[name])
    assert info.name == "frame"
    check_slices(catalog, bound, info)
    rows = read(catalog, bound.sources.bind_slice(info.source_id, 0, 1))[0]
    assert info.rows == len(rows)


def test_arrow_slices_share_the_memory_of_the_table(catalog: Catalog) -> None:
    table = pa.table({"a": range(1000)})
    bound, info = bind(catalog, "FROM t", t=table)
    (part,) = bound.sources.bind_slice(info.source_id, 1, 2).registrations.values()
    assert isinstance(part, pa.Table)
    begin = table.column(0).chunk(0).buffers()[1].address
    assert part.column(0).chunk(0).buffers()[1].address == begin
    assert part.num_rows == 500


def test_a_dataset_is_cut_by_its_files(catalog: Catalog, tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"a": [number]}), tmp_path / f"{number}.parquet")
    bound, info = bind(catalog, "FROM d", d=ds.dataset(tmp_path))
    assert info.max_slices >= 3
    check_slices(catalog, bound, info)


def test_a_reader_is_read_once_and_stays_a_table(catalog: Catalog) -> None:
    reader = pa.table({"a": [1, 2]}).to_reader()
    for _ in range(2):
        bound, info = bind(catalog, "FROM r", r=reader)
        assert read(catalog, bound.sources.bind_slice(info.source_id, 0, 1))[0] == [(1,), (2,)]


def test_tables_that_look_alike_are_told_apart(catalog: Catalog) -> None:
    (statement,) = catalog.split("SELECT * FROM x, y WHERE x.a > y.a", None)
    scope = {"x": pa.table({"a": [1]}), "y": pa.table({"a": [2]})}
    bound = catalog.bind(statement, [scope], parse_config(agents=2), RunningQuery("test", None))
    assert isinstance(bound, BoundQuery)
    paths = re.findall(r"parquet_scan\(CAST\('[^']*'", bound.exported_sql)
    assert len(set(paths)) == 2
    infos = [bound.sources.source(f"{path} AS VARCHAR))", []) for path in paths]
    assert {info.name for info in infos} == {"x", "y"}


def test_nothing_is_folded_away_by_a_shadow(catalog: Catalog) -> None:
    catalog.register("t", pa.table({"a": [1, 2], "b": ["x", None]}))
    (statement,) = catalog.split("SELECT count(*), count(b), min(a) FROM t WHERE a = 1 AND b IS NOT NULL", None)
    bound = catalog.bind(statement, [], parse_config(agents=2), RunningQuery("test", None))
    assert isinstance(bound, BoundQuery)
    for expected in ("count_star()", "min(", "IS NOT NULL", "parquet_scan"):
        assert expected in bound.exported_sql


def test_names_mean_objects_again_after_they_were_shadows(catalog: Catalog) -> None:
    catalog.register("t", pa.table({"a": [1, 2]}))
    for _ in range(2):
        bind(catalog, "FROM t")
        (statement,) = catalog.split("FROM t", None)
        with catalog.run(statement, []) as rows:
            assert isinstance(rows.stream, pa.RecordBatchReader)
            assert rows.stream.read_all().column(0).to_pylist() == [1, 2]


def test_process_agents_get_session_sources_through_the_session(catalog: Catalog) -> None:
    execute(catalog, "CREATE TABLE t AS SELECT 1 AS a")
    catalog.register("m", pa.table({"a": [1]}))
    for relation in ("t", "m"):
        _, info = bind(catalog, f"FROM {relation}", isolation="process")
        assert info.placement is Placement.SESSION, relation
        _, info = bind(catalog, f"FROM {relation}")
        assert info.placement is Placement.ANY, relation


def test_a_read_only_database_can_be_attached_by_every_agent(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "d.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS a FROM range(300000)")
    execute(catalog, f"ATTACH '{file}' AS d (READ_ONLY)")
    bound, info = bind(catalog, "FROM d.t", isolation="process")
    assert info.placement is Placement.ANY
    assert info.max_slices >= 3
    assert bound.sources.attachments() == (("d", str(file)),)
    check_slices(catalog, bound, info)


def test_settings_that_change_answers_travel(catalog: Catalog) -> None:
    assert dict(catalog.connection.session_settings()) == {}
    for sql in ("SET TimeZone = 'Asia/Tokyo'", "SET SESSION default_null_order = 'nulls_first'", "SET threads = 1"):
        (statement,) = catalog.split(sql, None)
        with catalog.run(statement, []):
            pass
    bound, _ = bind(catalog, "FROM range(3)")
    travelling = dict(bound.sources.session_settings())
    assert travelling.items() >= {"TimeZone": "Asia/Tokyo", "default_null_order": "NULLS_FIRST"}.items()
    assert "threads" not in travelling
    cursor = catalog.connection.cursor()
    assert cursor.execute("SELECT current_setting('TimeZone')").fetchone() == ("Asia/Tokyo",)


def test_the_optimizer_is_as_it_was_after_binding(catalog: Catalog) -> None:
    execute(catalog, "SET disabled_optimizers = 'join_order'")
    bind(catalog, "FROM range(3)")
    assert execute(catalog, "SELECT current_setting('disabled_optimizers')") == [("join_order",)]


def test_a_changed_file_is_described_anew(catalog: Catalog, tmp_path: Path) -> None:
    file = tmp_path / "t.parquet"
    for values in ([1], ["x", "y"]):
        pq.write_table(pa.table({"a": values}), file)
        _, info = bind(catalog, f"FROM '{file}'")
        assert (info.rows, info.columns[0].type) == (len(values), "BIGINT" if values == [1] else "VARCHAR")


def test_estimates_are_found_by_the_scans_they_join(catalog: Catalog) -> None:
    execute(catalog, "CREATE TABLE a AS SELECT range AS x FROM range(1000)")
    execute(catalog, "CREATE TABLE b AS SELECT range AS x FROM range(50)")
    (statement,) = catalog.split("SELECT a.x, count(*) FROM a JOIN b USING (x) WHERE a.x > 3 GROUP BY 1", None)
    bound = catalog.bind(statement, [], parse_config(agents=2), RunningQuery("test", None))
    assert isinstance(bound, BoundQuery)
    first, second = re.findall(r"AS (r\d+)\(\s*column0", bound.exported_sql)
    estimates = bound.sources.rows_estimated
    joined = estimates([first, second])
    assert joined is not None
    assert 0 < joined <= 1000
    assert estimates([first]) is not None
    assert estimates(["r999"]) is None


def test_functions_are_classified_by_duckdb(catalog: Catalog) -> None:
    bound, _ = bind(catalog, "FROM range(3)")
    assert {"sum", "sem", "arg_max"} <= bound.sources.aggregates()
    assert {"random", "uuid", "nextval"} <= bound.sources.volatile_functions()
    assert bound.sources.types(["a + 1", "'x'"], "(SELECT 1::TINYINT AS a)") == ("TINYINT", "VARCHAR")


def test_a_plan_that_cannot_be_printed_gives_a_reason(catalog: Catalog) -> None:
    (statement,) = catalog.split("EXPLAIN SELECT 1", None)
    bound = catalog.bind(statement, [], parse_config(agents=2), RunningQuery("test", None))
    assert isinstance(bound, NotDistributed)
    assert bound.reason
