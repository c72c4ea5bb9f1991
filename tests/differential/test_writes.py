"""CREATE TABLE AS and COPY write on agents the rows, types and order that they write on plain DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sabot_sql.errors import QueryError
from tests.support.compare import Rows, difference
from tests.support.engine import answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.statements import own_statements, own_tables

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "threads": {"agents": 2, "partitions": 3, "broadcast_limit": 0},
    "processes": {"agents": 2, "isolation": "process"},
}
STATEMENTS = dict(list(own_statements())[::4])


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle(own_tables()) as judge:
        yield judge


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(own_tables(), **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("form", ["CREATE OR REPLACE TEMP TABLE made AS {sql}", "COPY ({sql}) TO '{path}'"])
def test_write(
    form: str, name: str, configuration: str, tmp_path: Path, oracle: Oracle, sessions: dict[str, Any]
) -> None:
    sql, agents = STATEMENTS[name], sessions[configuration]
    source = "made" if "TABLE" in form else f"'{tmp_path}/made.parquet'"
    write = form.format(sql=sql, path=tmp_path / "made.parquet")
    wanted = duckdb_writes(oracle, write, f"FROM {source}")
    if wanted is None:
        with pytest.raises(QueryError):
            agents.execute(write)
        return
    agents.execute(write)
    written = answer(agents, f"FROM {source}").rows
    found = difference(wanted, written, oracle.expect(sql).tie_groups)
    if found is not None:
        original = oracle.expect(sql).answer
        assert written.types == wanted.types
        verdict, found = oracle.judge(sql, Rows(original.columns, original.types, written.rows))
        assert verdict is not Verdict.WRONG, f"{write}\n{found}"


def duckdb_writes(oracle: Oracle, write: str, read: str) -> Rows | None:
    """What plain DuckDB reads back after ``write``, or None where it cannot write that."""
    try:
        oracle.execute(write)
    except duckdb.Error:
        return None
    return oracle.expect(read).answer
