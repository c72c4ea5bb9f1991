"""Random queries over small awkward tables give on agents what they give on plain DuckDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sabot_sql
from tests.differential import generated
from tests.support.engine import agents_answer, sessions
from tests.support.oracle import Oracle, Verdict

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "hashed": {"agents": 2, "partitions": 3, "adaptive": False, "broadcast_limit": 0},
    "late": {"agents": 3, "partitions": 4, "adaptive": True},
}
KINDS = {
    "joins": generated.joins(),
    "groupings": generated.groupings(),
    "windows": generated.windows(),
    "set operations": generated.set_operations(),
    "subqueries": generated.subqueries(),
    "sorts": generated.sorts(),
    "nested queries": generated.nested(),
}


@pytest.fixture(scope="module")
def opened() -> Iterator[dict[str, Any]]:
    with sessions(CONFIGURATIONS) as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_random_queries(kind: str, opened: dict[str, Any]) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(setup=generated.tables(), sql=KINDS[kind], name=st.sampled_from(sorted(CONFIGURATIONS)))
    def check(setup: list[str], sql: str, name: str) -> None:
        for statement in setup:
            opened[name].execute(statement)
        with Oracle(setup) as oracle:
            compare(sql, oracle, opened[name])

    check()


def compare(sql: str, oracle: Oracle, agents: Any) -> None:
    """Assert that ``sql`` gives on ``agents`` what it gives on ``oracle``: an answer, or an error of the user's."""
    try:
        oracle.expect(sql)
    except duckdb.Error:
        with pytest.raises(sabot_sql.errors.QueryError):
            agents.query(sql).fetchall()
        return
    found = agents_answer(agents, sql)
    verdict, detail = oracle.judge(sql, found.rows)
    assert verdict is not Verdict.WRONG, f"{sql}\n{found.mode}: {found.reason}\n{detail}"
