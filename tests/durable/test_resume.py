"""A query goes on from any prefix of its journal: the same rows, and nothing that was committed runs again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql.call.running import RunningQuery
from sabot_sql.coordinator.journal import Journal, JournalEntry, QueryOpening, entry_line, opening_line
from sabot_sql.coordinator.keeper import same_query
from sabot_sql.session import query_kept

ROWS = 20_000

QUERIES = {
    "group": "SELECT k, count(*), sum(v), count(DISTINCT v) FROM '{t}' GROUP BY k",
    "join": "SELECT a.k, count(*), max(b.w) FROM '{t}' a JOIN '{u}' b ON a.v = b.v GROUP BY a.k",
    "order": "SELECT k, v, s FROM '{t}' ORDER BY s DESC, v, k",
    "window": "SELECT k, v, row_number() OVER (PARTITION BY k ORDER BY v, s) FROM '{t}'",
    "running sum": "SELECT v, sum(k) OVER (ORDER BY v, s, k) FROM '{t}' ORDER BY v, s, k",
    "limit": "SELECT k, v, s FROM '{t}' ORDER BY v, s, k LIMIT 17",
    "union": "SELECT k FROM '{t}' WHERE v < 50 UNION ALL SELECT w FROM '{u}' WHERE v < 50",
}


_NOT_IN_PARQUET = ("UNION(", "BIGNUM", "GEOMETRY", "VARIANT", "BIT", "TUPLE(")


class Kept:
    """Keeps the journal as its lines; ``earlier`` are those of a coordinator that is gone."""

    def __init__(self, directory: Path, earlier: Sequence[str] = ()) -> None:
        self.kept_segments = str(directory)
        self.lines = list(earlier)
        self.went_on = False

    def earlier(self, opening: QueryOpening) -> Journal | None:
        if not self.lines:
            return None
        journal = Journal.from_lines(self.lines)
        self.went_on = same_query(journal.opening, opening)
        return journal if self.went_on else None

    def begin(self, opening: QueryOpening) -> None:
        self.lines = [opening_line(opening)]

    def note(self, entry: JournalEntry) -> None:
        self.lines.append(entry_line(entry))


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two Parquet files of several row groups, with NULLs and a key that has half of the rows."""
    directory = tmp_path_factory.mktemp("tables")
    with duckdb.connect() as connection:
        t = connection.sql(
            f"SELECT CASE WHEN i % 2 = 0 THEN 7 WHEN i % 11 = 0 THEN NULL ELSE i % 13 END AS k, hash(i) % 1000 AS v, "
            f"'s' || (hash(i + 1) % 100) AS s FROM range({ROWS}) r(i)"
        ).to_arrow_table()
        u = connection.sql("SELECT i % 1000 AS v, i AS w FROM range(3000) r(i)").to_arrow_table()
    names = {"t": str(directory / "t.parquet"), "u": str(directory / "u.parquet")}
    pq.write_table(t, names["t"], row_group_size=2500)
    pq.write_table(u, names["u"], row_group_size=500)
    return names


def answer(sql: str, keeper: Kept, **options: object) -> list[tuple[object, ...]]:
    with sabot_sql.connect(agents=2, partitions=3, memory_limit="1GiB", **options) as session:  # type: ignore[arg-type]
        result = query_kept(session, sql, None, keeper, RunningQuery("q-kept", None))
        assert result.plan.mode == "distributed", result.plan.json()["reason"]
        return result.fetchall()


def tasks(lines: Sequence[str]) -> list[tuple[str, int]]:
    reports = [json.loads(line) for line in lines if '"kind":"TaskReport"' in line]
    return [(report["body"]["id"]["stage"], report["body"]["id"]["task"]) for report in reports]


def counted(rows: list[tuple[object, ...]]) -> list[str]:
    return sorted(map(repr, rows))


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_goes_on_from_any_prefix_of_its_journal(name: str, tables: dict[str, str], tmp_path: Path) -> None:
    sql = QUERIES[name].format(**tables)
    with duckdb.connect() as connection:
        expected = connection.execute(sql).fetchall()
    ordered = "ORDER BY" in sql.rpartition(")")[2]
    first = Kept(tmp_path / "kept")
    assert counted(answer(sql, first)) == counted(expected)
    committed = [place for place, line in enumerate(first.lines) if '"kind":"TaskReport"' in line]
    prefixes = sorted({1, *(place + 1 for place in committed), len(first.lines)})
    for length in prefixes:
        again = Kept(tmp_path / "kept", first.lines[:length])
        rows = answer(sql, again)
        assert again.went_on
        assert (rows if ordered else counted(rows)) == (expected if ordered else counted(expected)), length
        assert len(tasks(again.lines)) == len(set(tasks(again.lines))), f"after {length} lines a task ran again"
        assert tasks(again.lines)[: len(tasks(first.lines[:length]))] == tasks(first.lines[:length])


def test_a_query_goes_on_between_processes_as_well(tables: dict[str, str], tmp_path: Path) -> None:
    sql = QUERIES["window"].format(**tables)
    first = Kept(tmp_path / "kept")
    expected = counted(answer(sql, first, isolation="process"))
    again = Kept(tmp_path / "kept", first.lines[: len(first.lines) // 2])
    assert counted(answer(sql, again, isolation="process")) == expected
    assert len(tasks(again.lines)) == len(set(tasks(again.lines)))


def test_a_query_may_be_taken_up_again_and_again(tables: dict[str, str], tmp_path: Path) -> None:
    """The death of a coordinator counts against no task: more of them than an agent may cause, and still an answer."""
    sql = QUERIES["join"].format(**tables)
    first = Kept(tmp_path / "kept")
    expected = counted(answer(sql, first))
    lines = first.lines[:1]
    for _ in range(6):
        again = Kept(tmp_path / "kept", lines)
        assert counted(answer(sql, again)) == expected
        resumed = next(place for place, line in enumerate(again.lines) if '"kind":"QueryResumed"' in line)
        lines = again.lines[: max(resumed + 1, len(lines) + 1)]
    assert sum('"kind":"QueryResumed"' in line for line in lines) >= 5


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_outputs_that_were_damaged_are_made_again(damage: str, tables: dict[str, str], tmp_path: Path) -> None:
    sql = QUERIES["group"].format(**tables)
    first = Kept(tmp_path / "kept")
    expected = counted(answer(sql, first))
    files = sorted((tmp_path / "kept").rglob("*.segments"))
    assert files
    for file in files:
        if damage == "gone":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-20])
    last = max(place for place, line in enumerate(first.lines) if '"kind":"TaskReport"' in line)
    again = Kept(tmp_path / "kept", first.lines[:last])
    assert counted(answer(sql, again)) == expected


def test_another_query_begins_from_its_start(tables: dict[str, str], tmp_path: Path) -> None:
    first = Kept(tmp_path / "kept")
    answer(QUERIES["group"].format(**tables), first)
    other = Kept(tmp_path / "kept", first.lines)
    sql = QUERIES["order"].format(**tables)
    with duckdb.connect() as connection:
        assert answer(sql, other) == connection.execute(sql).fetchall()
    assert not other.went_on


def test_every_type_is_the_same_after_it_was_kept(tmp_path: Path) -> None:
    """Rows of all types cross an edge, are kept, and are read by agents that did not write them."""
    file = tmp_path / "types.parquet"
    with duckdb.connect() as connection:
        columns = [
            name
            for name, kind in connection.execute(
                "SELECT column_name, column_type FROM (DESCRIBE FROM test_all_types())"
            ).fetchall()
            if not kind.startswith(_NOT_IN_PARQUET) and kind != "STRUCT"
        ]
        connection.execute(f"COPY (SELECT {', '.join(map(quoted, columns))} FROM test_all_types()) TO '{file}'")
        found = [name for (name,) in connection.execute(f"SELECT column_name FROM (DESCRIBE FROM '{file}')").fetchall()]
        sql = f'SELECT {", ".join(map(quoted, found))} FROM \'{file}\' ORDER BY "bool", "int"'
        table = connection.sql(sql).to_arrow_table()
    first = Kept(tmp_path / "kept")
    rows = repr(answer(sql, first))
    last = max(place for place, line in enumerate(first.lines) if '"kind":"TaskReport"' in line)
    again = Kept(tmp_path / "kept", first.lines[: last + 1])
    assert repr(answer(sql, again)) == rows
    assert isinstance(table, pa.Table)
    with duckdb.connect() as connection:
        assert repr(connection.execute(sql).fetchall()) == rows


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
