"""What a process has one of, and the session may change after its agents started: directory, home, time zone, mask."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import Session

KINDS = [(2, "thread"), (2, "process")]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two directories with files of the same names, sizes and times, whose rows differ."""
    root = tmp_path_factory.mktemp("places")
    for place, shift in (("one", 10_000), ("two", 11_000)):
        for part in range(3):
            folder = root / place / "data" / f"k={part}"
            folder.mkdir(parents=True)
            values = range(shift + part * 100, shift + part * 100 + 100)
            table = pa.table({"a": pa.array(values, pa.int64()), "s": [f"s{value % 7}" for value in values]})
            # Without compression the files are of one size.
            pq.write_table(table, folder / "rows.parquet", row_group_size=40, compression="none", use_dictionary=False)
            lines = "".join(f"{value},s{value % 7}\n" for value in values)
            (root / place / "data" / f"{part}.csv").write_text(f"a,s\n{lines}")
            (root / place / "data" / f"{part}.json").write_text("".join(f'{{"a": {v}}}\n' for v in values))
        with duckdb.connect(str(root / place / "d.duckdb")) as made:
            made.execute(f"CREATE TABLE t AS SELECT range + {shift} AS a FROM range(3000)")
    for path in root.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))
    return root / "one", root / "two"


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest, places: tuple[Path, Path]) -> Iterator[Session]:
    """A session whose agents were started in the first place, before anything changed."""
    agents, isolation = request.param
    before = Path.cwd()
    os.chdir(places[0])
    try:
        with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
            opened.query("SELECT sum(range) FROM range(1000)")
            os.chdir(before)
            yield opened
    finally:
        os.chdir(before)


READS = [
    "SELECT sum(a), count(*) FROM 'data/k=1/rows.parquet'",
    "SELECT filename, k, sum(a), min(file_index), max(file_row_number) FROM 'data/*/*.parquet' GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM read_parquet('data') GROUP BY ALL ORDER BY 1",
    "SELECT f, sum(a) FROM read_parquet('./data//*/*.parquet', filename = 'f') GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM './data/k=1/rows.parquet' GROUP BY ALL",
    "SELECT filename, sum(a) FROM '../{here}/data/*/rows.parquet' GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM '../../{up}/{here}/data/k=0/../k=2/rows.parquet' GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM '../{here}/data/k=1/../*/rows.parquet' GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM read_parquet(['data/k=0/rows.parquet', '{d}/data/k=1/rows.parquet']) GROUP BY ALL",
    "SELECT sum(a) FROM read_parquet(['data/k=0/rows.parquet', '{d}/data/k=1/rows.parquet'])",
    "SELECT a, s, filename FROM 'data/*/*.parquet' WHERE filename LIKE 'data/k=1%' AND a % 10 = 0",
    "SELECT filename, sum(a) FROM read_csv('data/*.csv') GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM read_csv('data/0.csv', filename = true) GROUP BY ALL ORDER BY 1",
    "SELECT filename, sum(a) FROM 'data/*.json' GROUP BY ALL ORDER BY 1",
    "SELECT filename, size, md5(content) FROM read_text('data/*.csv') ORDER BY 1",
    "SELECT filename, size, md5(content) FROM read_blob(['data/1.csv', './data/2.csv']) ORDER BY 1",
    "SELECT file FROM glob('data/*.csv') ORDER BY 1",
    "SELECT x.k, count(*), sum(y.a) FROM 'data/*/*.parquet' x JOIN 'data/*.csv' y USING (a) GROUP BY ALL ORDER BY ALL",
]


@pytest.mark.parametrize("query", READS)
def test_a_relative_path_is_of_the_directory_where_the_query_was_asked(
    session: Session, places: tuple[Path, Path], query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    for place in (*places, places[0]):
        monkeypatch.chdir(place)
        sql = query.format(d=place, here=place.name, up=place.parent.name)
        result = session.query(sql)
        with duckdb.connect() as plain:
            expected = plain.sql(sql)
            assert result.types == list(map(str, expected.types))
            answers.append(sorted(expected.fetchall()))
        assert sorted(result.fetchall()) == answers[-1], place
        assert "failed" not in result.plan.reason
    assert answers[0] == answers[2]
    assert answers[0] != answers[1] or "glob(" in query


@pytest.mark.parametrize("searched", ["data/k=1", "{d}/data/k=1", "data/k=1,{d}/data/k=2"])
@pytest.mark.parametrize(
    "query", ["SELECT filename, sum(a) FROM '{}' GROUP BY ALL ORDER BY 1", "SELECT sum(a) FROM '{}'"]
)
@pytest.mark.parametrize("name", ["rows.parquet", "*.parquet"])
def test_a_search_path_is_of_that_directory_too(
    session: Session, places: tuple[Path, Path], searched: str, query: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        for place in places:
            monkeypatch.chdir(place)
            setting = f"SET file_search_path = '{searched.format(d=place)}'"
            session.execute(setting)
            with duckdb.connect() as plain:
                plain.execute(setting)
                expected = plain.sql(query.format(name)).fetchall()
            result = session.query(query.format(name))
            assert result.fetchall() == expected
            assert "failed" not in result.plan.reason
    finally:
        session.execute("RESET file_search_path")


@pytest.mark.parametrize("directory", ["year=2020", "odd [1]", "it's *", "ünï 🦆"])
def test_the_directory_has_a_name_that_means_something_to_duckdb(
    session: Session, places: tuple[Path, Path], tmp_path: Path, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / directory
    shutil.copytree(places[0], here)
    monkeypatch.chdir(here)
    for sql in (
        "SELECT * FROM 'data/*/*.parquet' ORDER BY a",
        "SELECT filename, count(*) FROM 'data/**/*.parquet' GROUP BY ALL ORDER BY 1",
        "SELECT filename, sum(a) FROM 'data/*.csv' GROUP BY ALL ORDER BY 1",
    ):
        with duckdb.connect() as plain:
            expected = plain.sql(sql)
            result = session.query(sql)
            assert result.columns == expected.columns
            assert "failed" not in result.plan.reason
            assert result.fetchall() == expected.fetchall()


def test_the_home_directory_is_that_of_the_session_now(
    session: Session, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "SELECT filename, sum(a) FROM '~/data/*/*.parquet' GROUP BY ALL ORDER BY 1"
    answers = []
    for place in places:
        monkeypatch.setenv("HOME", str(place))
        with duckdb.connect() as plain:
            answers.append(plain.sql(sql).fetchall())
        assert session.query(sql).fetchall() == answers[-1]
    assert answers[0] != answers[1]
    try:
        session.execute(f"SET home_directory = '{places[0]}'")  # it is stronger than the environment
        assert session.query(sql).fetchall() == answers[0]
    finally:
        session.execute("RESET home_directory")


def test_a_database_attached_by_a_relative_path_stays_what_it_was(
    session: Session, places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places[0])
    session.execute("ATTACH 'd.duckdb' AS d (READ_ONLY)")
    try:
        monkeypatch.chdir(places[1])
        assert session.query("SELECT sum(a), count(*) FROM d.t").fetchall() == [(sum(range(10_000, 13_000)), 3000)]
    finally:
        session.execute("DETACH d")


def test_a_copy_to_a_relative_path_is_written_where_the_query_was_asked(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        session.query("COPY (SELECT range AS a FROM range(1000)) TO 'rows.parquet'")
        session.query("COPY (SELECT range AS a FROM range(1000)) TO 'parts' (FORMAT parquet, PER_THREAD_OUTPUT true)")
        for name in ("rows.parquet", "parts"):
            assert session.query(f"SELECT count(*), sum(a) FROM read_parquet('{name}')").fetchall() == [(1000, 499500)]
        assert (tmp_path / place / "rows.parquet").is_file()
        assert list((tmp_path / place / "parts").iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077, 0o000])
def test_files_that_agents_write_have_the_mode_that_duckdb_gives_them(
    session: Session, tmp_path: Path, mask: int
) -> None:
    before = os.umask(mask)
    try:
        for name, run in (("ours", session.query), ("duckdb's", duckdb.connect().execute)):
            target = str(tmp_path / name).replace("'", "''")
            run(f"COPY (SELECT range AS a FROM range(1000)) TO '{target}' (FORMAT parquet, PER_THREAD_OUTPUT true)")
    finally:
        os.umask(before)

    def modes(name: str) -> tuple[int, set[int]]:
        return (tmp_path / name).stat().st_mode, {path.stat().st_mode for path in (tmp_path / name).iterdir()}

    assert modes("ours") == modes("duckdb's")


def test_agents_that_start_later_have_the_time_zone_that_the_session_began_with(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    sql = "SELECT to_timestamp(range * 86_400)::VARCHAR, date_trunc('day', to_timestamp(range)) FROM range(1000)"
    request.addfinalizer(time.tzset)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB") as session, duckdb.connect() as plain:
        monkeypatch.setenv("TZ", "Europe/Rome")
        time.tzset()
        assert sorted(session.query(sql).fetchall()) == sorted(plain.sql(sql).fetchall())
        session.execute("SET TimeZone = 'Pacific/Chatham'")
        plain.execute("SET TimeZone = 'Pacific/Chatham'")
        assert sorted(session.query(sql).fetchall()) == sorted(plain.sql(sql).fetchall())


def test_a_relative_spill_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB", spill_directory="spilled") as session:
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert session.query("SELECT count(*) FROM range(1000) WHERE range % 2 = 0").fetchall() == [(500,)]
        assert not list((tmp_path / "elsewhere").iterdir())
    assert not list((tmp_path / "spilled").iterdir())
