"""Every setting of DuckDB, set on a session with agents, does what it does in DuckDB, or is refused in our errors.

A setting that may change an answer travels to the agents; the others do not have to. The list is DuckDB's own, so that
a setting of a later version is tried as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from sabot_sql.errors import QueryTimeout, SabotSQLError
from tests.support.compare import Rows, difference
from tests.support.engine import session

TEXTS = {
    "Calendar": "japanese",
    "TimeZone": "Europe/Berlin",
    "access_mode": "read_write",
    "arrow_output_version": "1.4",
    "checkpoint_threshold": "1MB",
    "allocator_bulk_deallocation_flush_threshold": "1MB",
    "allocator_flush_threshold": "1MB",
    "block_allocator_memory": "1MB",
    "default_collation": "nocase",
    "default_null_order": "nulls_first",
    "default_order": "DESC",
    "dialect_compatibility_mode": "POSTGRES",
    "disabled_compression_methods": "rle",
    "disabled_optimizers": "join_order",
    "enable_profiling": "no_output",
    "explain_output": "ALL",
    "force_compression": "rle",
    "json_geometry_format": "wkb",
    "logging_level": "DEBUG",
    "max_memory": "700MB",
    "memory_limit": "700MB",
    "max_streaming_buffer_size": "1MB",
    "max_temp_directory_size": "1GB",
    "null_order": "nulls_first",
    "operator_memory_limit": "100MB",
    "pin_threads": "off",
    "preserve_identifier_case": "lower",
    "profiling_coverage": "ALL",
    "schema": "main",
    "search_path": "main",
    "storage_block_prefetch": "NEVER",
    "storage_compatibility_version": "v1.2.0",
    "streaming_buffer_size": "1MB",
    "validate_external_file_cache": "NO_VALIDATION",
    "wal_autocheckpoint": "1MB",
    "write_buffer_row_group_memory_limit": "100MB",
}
NUMBERS = {"max_execution_time": "600000", "threads": "1", "worker_threads": "1", "default_block_size": "16384"}
DIRECTORIES = ("directory", "path", "repository", "output")
READING = (
    "SELECT g, s, sum(i), avg(d), min(s), count(*) FILTER (b) FROM '{file}' WHERE i > 10 GROUP BY g, s",
    "SELECT a.g, sum(b.i), max(a.h), min(a.ts) FROM t AS a JOIN t AS b ON a.i = b.i + 1 GROUP BY a.g",
    "SELECT i, s, ts, iv, l FROM t ORDER BY s DESC, i LIMIT 20",
    "SELECT i // 7, g / 2, list(i ORDER BY i) FROM t WHERE s <> 'X3' GROUP BY ALL",
)
"""Also results of types that are converted once more when they are fetched."""

COLUMNS = """
    range AS i, range % 7 AS g, 'x' || (range % 13) AS s, range % 5 = 0 AS b, range / 3 AS d, range::HUGEINT AS h,
    timestamptz '2024-03-01 00:00:00+00' + to_hours(range) AS ts, to_days(range::INTEGER) AS iv, [range] AS l
"""
with duckdb.connect() as _connection:
    SETTINGS: list[tuple[str, str, str]] = _connection.execute(
        "SELECT name, value, input_type FROM duckdb_settings() ORDER BY name"
    ).fetchall()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "t.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT {COLUMNS} FROM range(900)) TO '{path}' (ROW_GROUP_SIZE 300)")
    return path


def changed(name: str, value: str | None, kind: str, directory: Path) -> str:
    """SQL of another value of the setting, which does no harm."""
    if name in TEXTS:
        return f"'{TEXTS[name]}'"
    if name in NUMBERS:
        return NUMBERS[name]
    if kind == "BOOLEAN":
        return "false" if value == "true" else "true"
    if kind in ("BIGINT", "UBIGINT"):
        return str(int(value) + 1) if value not in (None, "None") else "5"
    if kind == "DOUBLE":
        return "0.5"
    if kind == "VARCHAR[]":
        return f"['{directory}/']"
    if kind.startswith("MAP"):
        return "MAP {'a': 'b'}"
    return f"'{directory}/x'" if any(word in name for word in DIRECTORIES) else "'x'"


def outcomes(connection: Any, statements: list[str]) -> Iterator[Rows | Exception]:
    """What each statement gives, on DuckDB or on a session."""
    for sql in statements:
        try:
            result = connection.execute(sql)
            columns = [(str(name), str(kind)) for name, kind, *_ in result.description or []]
            rows = tuple(map(tuple, result.fetchall()))
        except (duckdb.Error, SabotSQLError) as error:
            yield error
        else:
            yield Rows(tuple(name for name, _ in columns), tuple(kind for _, kind in columns), rows)


class Kept:
    """A session that serves until a setting cannot be taken back; then another one does."""

    def __init__(self, isolation: str, file: Path) -> None:
        self._options = {"agents": 2, "threads": 2, "isolation": isolation}
        self._file = file
        self._stack = ExitStack()
        self.session = self._opened()

    def _opened(self) -> sabot_sql.Session:
        return self._stack.enter_context(session([f"CREATE TABLE t AS FROM '{self._file}'"], **self._options))

    def reset(self, name: str) -> None:
        """Take the setting back, or begin anew."""
        try:
            self.session.execute(f"RESET {name}")
            clean = name not in ("allowed_directories", "allowed_paths", "lock_configuration")
        except SabotSQLError:
            clean = False
        if not clean:
            self._stack.close()
            self.session = self._opened()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module", params=["thread", "process"])
def kept(request: pytest.FixtureRequest, file: Path) -> Iterator[Kept]:
    found = Kept(request.param, file)
    yield found
    found.close()


@pytest.mark.parametrize(("name", "value", "kind"), SETTINGS, ids=[name for name, *_ in SETTINGS])
def test_a_setting_does_what_it_does_in_duckdb(
    name: str, value: str, kind: str, kept: Kept, file: Path, tmp_path: Path
) -> None:
    set_to = f"SET {name} = {changed(name, value, kind, tmp_path)}"
    statements = [set_to, *(sql.format(file=file) for sql in READING)]
    with duckdb.connect() as plain:
        plain.execute(f"CREATE TABLE t AS FROM '{file}'")
        expected = list(outcomes(plain, statements))
    actual = list(outcomes(kept.session, statements))
    kept.reset(name)
    for sql, wanted, given in zip(statements, expected, actual, strict=True):
        if isinstance(wanted, Exception):
            assert isinstance(given, SabotSQLError), f"{sql}: {given}"
            assert "exception_type" not in str(given), "DuckDB's JSON shows through"
        else:
            assert isinstance(given, Rows), f"{sql}: {given!r}"
            if sql != set_to:
                found = difference(wanted, given)
                assert found is None, f"{set_to}; {sql}: {found}"


LONG = "range(200_000_000) AS a(i) JOIN range(200_000_000) AS b(j) ON i = j % 999983 + 1"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_a_query_of_agents_ends_with_max_execution_time(isolation: str) -> None:
    with session(agents=2, isolation=isolation) as opened:
        opened.execute("SET max_execution_time = 300")
        with pytest.raises(QueryTimeout):
            opened.query(f"SELECT count(*) FROM {LONG}")
        with pytest.raises(QueryTimeout):
            opened.execute(f"CREATE TABLE made AS SELECT count(*) FROM {LONG}")
        opened.execute("RESET max_execution_time")
        assert opened.query("SELECT sum(i) FROM range(10) AS a(i)").fetchall() == [(45,)]


def test_a_query_of_one_agent_ends_with_max_execution_time() -> None:
    with sabot_sql.connect(agents=1) as opened:
        opened.execute("SET max_execution_time = 300")
        with pytest.raises(QueryTimeout, match="maximum execution time"):
            opened.query(f"SELECT count(*) FROM {LONG}")


def test_a_locked_configuration_lets_values_be_converted() -> None:
    with sabot_sql.connect(agents=2) as opened:
        opened.execute("SET lock_configuration = true")
        assert opened.query("SELECT 170141183460469231731687303715884105727 AS h").fetchall() == [(2**127 - 1,)]
        assert opened.query("SELECT INTERVAL 1 DAY AS i, {'a': 1} AS s").df().shape == (1, 2)
        assert opened.query("SELECT to_hours(3000000) AS i").fetchall()
