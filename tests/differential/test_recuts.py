"""Tasks that run out of memory again and again, and stages that are cut anew for it, give DuckDB's rows."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sabot_sql.agent.runner import Attempt, Runner
from sabot_sql.errors import ResourceError
from sabot_sql.protocol.task_spec import QueryContext, TaskReport, TaskSpec
from tests.support.engine import agents_answer, session
from tests.support.oracle import Oracle, Verdict
from tests.support.tpch.data import queries, tpch, views

SEEDS = range(6)
CLUSTERED = {
    "groups of a clustered key": "SELECT k, count(*), sum(v) FROM a GROUP BY k",
    "join on clustered keys": "SELECT count(*), sum(a.v * b.v), min(a.s) FROM a JOIN b USING (k)",
    "join and group": "SELECT a.s, count(*), sum(b.v) FROM a JOIN b USING (k) WHERE b.v % 3 > 0 GROUP BY a.s",
    "left join": "SELECT a.s, count(b.v), count(*) FROM a LEFT JOIN b ON a.k = b.k AND b.v % 7 = 0 GROUP BY a.s",
    "hot key": "SELECT a.h, count(*), sum(c.v) FROM a JOIN c ON a.h = c.h WHERE c.v < 20 GROUP BY a.h",
    "sorted": "SELECT k, v, s FROM a WHERE v % 11 = 0 ORDER BY v DESC, k",
    "first rows": "SELECT k, v FROM a WHERE v % 1000 = 7 LIMIT 5",
    "distinct": "SELECT h, count(DISTINCT k % 100) FROM a GROUP BY h",
    "union": "SELECT count(*), sum(v) FROM (SELECT v FROM a UNION ALL SELECT v FROM b UNION ALL FROM range(1000))",
    "not in": "SELECT count(*) FROM a WHERE k NOT IN (SELECT k FROM b WHERE v % 2 = 0)",
    "window": "SELECT k, sum(v) OVER (PARTITION BY h ORDER BY k, v), v FROM b",
}


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two clustered tables of many row groups, one of them in two files, and one of CSV files."""
    folder = tmp_path_factory.mktemp("recuts")
    rows = "SELECT range // 3 AS k, range * 7 % 1009 AS v, 's' || range % 13 AS s, range % 97 // 90 AS h"
    for name, count in (("a", 30_000), ("b", 20_000)):
        duckdb.sql(f"COPY ({rows} FROM range({count})) TO '{folder}/{name}0.parquet' (ROW_GROUP_SIZE 2048)")
        duckdb.sql(f"COPY ({rows} FROM range({count}, {count + 9})) TO '{folder}/{name}1.parquet'")
        duckdb.sql(f"COPY ({rows} FROM range({count})) TO '{folder}/{name}.csv'")
    return [
        f"CREATE VIEW a AS FROM '{folder}/a*.parquet'",
        f"CREATE VIEW b AS FROM '{folder}/b*.parquet'",
        f"CREATE VIEW c AS FROM read_csv(['{folder}/a.csv', '{folder}/b.csv'])",
    ]


@pytest.fixture(scope="module")
def oracle(setup: list[str]) -> Iterator[Oracle]:
    with Oracle(setup) as judge:
        yield judge


@pytest.fixture(scope="module")
def opened(setup: list[str]) -> Iterator[Any]:
    with session(setup, agents=3) as made:
        yield made


def out_of_memory(patch: pytest.MonkeyPatch, seed: int) -> None:
    """One to three attempts run out of memory before they read a row, or after they have committed all of them."""
    chance, run, failed = random.Random(seed), Runner.run, list[str]()

    def failing(self: Runner, spec: TaskSpec, context: QueryContext, attempt: Attempt) -> TaskReport:
        if len(failed) <= seed % 3 and chance.random() < 0.4:
            failed.append(str(spec.id))
            if chance.random() < 0.3:
                run(self, spec, context, attempt)
            raise duckdb.OutOfMemoryException("Out of Memory Error: made up by a test")
        return run(self, spec, context, attempt)

    patch.setattr(Runner, "run", failing)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", CLUSTERED)
def test_rows_of_re_cut_stages(
    name: str, seed: int, oracle: Oracle, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = CLUSTERED[name]
    out_of_memory(monkeypatch, seed)
    assert_same(opened, sql, oracle)


@pytest.mark.parametrize("name", queries())
def test_tpch_with_tasks_that_run_out_of_memory(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sql, setup = queries()[name], views(tpch(0.01))
    out_of_memory(monkeypatch, int(name[1:]))
    with Oracle(setup) as oracle, session(setup, agents=2) as opened:
        assert_same(opened, sql, oracle)


def assert_same(opened: Any, sql: str, oracle: Oracle) -> None:
    """DuckDB's rows, or the error of a query for which there was never enough memory."""
    with contextlib.suppress(ResourceError):
        given = agents_answer(opened, sql)
        verdict, found = oracle.judge(sql, given.rows)
        assert verdict is Verdict.EQUAL, found
