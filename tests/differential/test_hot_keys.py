"""One key that holds half the rows: its partition is shared out among tasks, and the rows are DuckDB's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import answer, planner_settings, session
from tests.support.oracle import Oracle, Verdict

ROWS = 60_000
QUERIES = {
    "inner": "SELECT p.v, b.w FROM probe p JOIN build b ON p.k = b.k",
    "left": "SELECT p.v, b.w FROM probe p LEFT JOIN build b ON p.k = b.k",
    "semi": "SELECT v FROM probe WHERE k IN (SELECT k FROM build WHERE w % 3 > 0)",
    "anti": "SELECT v FROM probe p WHERE NOT EXISTS (FROM build b WHERE p.k = b.k AND w % 3 > 0)",
    "three": "SELECT p.v, b.w, c.w FROM probe p JOIN build b ON p.k = b.k LEFT JOIN build c ON c.k = p.k",
    "by the join key": "SELECT p.k, count(*), sum(b.w), avg(p.v) FROM probe p JOIN build b ON p.k = b.k GROUP BY p.k",
    "two phases": "SELECT p.v % 7 AS g, count(*), sum(b.w), avg(p.v) FROM probe p JOIN build b ON p.k = b.k GROUP BY g",
}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "threads": {"agents": 4, "threads": 1, "broadcast_limit": 0},
    "processes": {"agents": 3, "threads": 1, "isolation": "process", "broadcast_limit": 0},
}


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("hot")
    with Oracle() as oracle:
        key = "CASE WHEN i % 2 = 0 THEN 7 WHEN i % 101 = 0 THEN NULL ELSE (hash(i) % 3000)::BIGINT END"
        oracle.execute(f"COPY (SELECT {key} AS k, i AS v FROM range({ROWS}) r(i)) TO '{folder}/probe.parquet'")
        oracle.execute(f"COPY (SELECT i AS k, i * 7 AS w FROM range(2000) r(i)) TO '{folder}/build.parquet'")
    return [f"CREATE VIEW {name} AS FROM '{Path(folder) / name}.parquet'" for name in ("probe", "build")]


@pytest.fixture(scope="module")
def oracle(setup: list[str]) -> Iterator[Oracle]:
    with Oracle(setup) as made:
        yield made


@pytest.fixture(scope="module")
def sessions(setup: list[str]) -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(setup, **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_a_hot_key_is_shared_out(name: str, configuration: str, oracle: Oracle, sessions: dict[str, Any]) -> None:
    # So few rows would be worth one task only.
    with planner_settings(coalesce_bytes=0, gather_rows=0):
        given = answer(sessions[configuration], QUERIES[name])
    verdict, found = oracle.judge(QUERIES[name], given.rows)
    assert verdict is Verdict.EQUAL, found
    stage = max(given.plan["stages"], key=lambda s: sum(t["rows_in"] or 0 for t in s["tasks"]))
    assert "times its share" in stage["reason"], stage["reason"]
    rows = [task["rows_in"] for task in stage["tasks"]]
    agents = CONFIGURATIONS[configuration]["agents"]
    assert max(rows) <= 1.3 * (ROWS + 2000) / agents
