"""A session of a cluster decides for each query whether one agent answers it, all do, or its own DuckDB does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_planner.errors import Undistributable
from sabot_sql import Session
from sabot_sql.catalog.agent_choice import SourceReaders, in_order_of_load, why_one_task
from sabot_sql.protocol.members import AgentGrant
from tests.support.compare import Rows, assert_same
from tests.support.services import Service, token_file

MB = 1_000_000
ONE = AgentGrant("agent-1", ("/data",), 1, 4000 * MB)
TWO = AgentGrant("agent-2", ("/data",), 1, 4000 * MB)
BOTH = frozenset({"agent-1", "agent-2"})


def there(size_bytes: int | None, readers: frozenset[str] = BOTH) -> SourceReaders:
    return SourceReaders(size_bytes, readers)


def here(size_bytes: int | None) -> SourceReaders:
    return SourceReaders(size_bytes, frozenset())


@pytest.mark.parametrize(
    ("sources", "grants", "why"),
    [
        ([there(MB)], [ONE, TWO], "one agent: it reads about 1.0 MB, and 67 MB are not worth a second agent"),
        ([there(68 * MB)], [ONE, TWO], None),
        ([there(68 * MB)], [AgentGrant("agent-1", ("/data",), 2, 4000 * MB)] * 2, "one agent: it reads about 68 MB"),
        ([there(30 * MB)], [AgentGrant("agent-1", ("/data",), 1, 100 * MB)] * 2, None),
        ([there(None)], [ONE, TWO], None),
        ([there(None)], [ONE], "one agent: the cluster has no other"),
        ([there(MB), here(MB // 2)], [ONE, TWO], "one agent: it reads about 1.5 MB"),
        ([there(500 * MB), here(MB)], [ONE, TWO], None),
        ([there(900 * MB, frozenset({"agent-2"}))], [ONE, TWO], "one agent: only agent-2 can read the files"),
        ([there(MB, frozenset({"agent-2"})), there(MB)], [ONE, TWO], "one agent: only agent-2 can read the files"),
    ],
)
def test_bytes_readers_and_grants_decide(sources: Any, grants: Any, why: str | None) -> None:
    found = why_one_task(sources, grants)
    assert found == why or (found is not None and why is not None and found.startswith(why))


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ([here(900 * MB)], "all that it reads is in the session's process"),
        ([], "all that it reads is in the session's process"),
        ([here(2 * MB), there(MB)], "2.0 MB that only the session reads would be sent, for 1.0 MB that agents read"),
        ([here(None), there(MB)], "what only the session reads would be sent, for 1.0 MB that agents read"),
        ([there(MB, frozenset({"agent-1"})), there(MB, frozenset({"agent-2"}))], "no agent can read all files"),
    ],
)
def test_the_session_answers_what_is_nearest_to_it(sources: Any, reason: str) -> None:
    with pytest.raises(Undistributable, match=reason):
        why_one_task(sources, [ONE, TWO])


def test_the_least_busy_agent_is_the_first() -> None:
    busy = AgentGrant("agent-1", ("/data",), 8, 4000 * MB, load=1)
    wide = AgentGrant("agent-3", ("/data",), 4, 4000 * MB)
    assert in_order_of_load(BOTH | {"agent-3"}, [busy, TWO, wide]) == ("agent-3", "agent-2", "agent-1")
    assert in_order_of_load({"agent-1"}, [busy, TWO, wide]) == ("agent-1",)


# --- on services -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choosing")
    for name in ("all", "second"):
        (folder / name).mkdir()
    for part in range(3):
        rows = range(part * 5000, (part + 1) * 5000)
        table = pa.table({"i": rows, "k": [i % 17 for i in rows], "t": [f"t{i % 5}" if i % 7 else None for i in rows]})
        pq.write_table(table, folder / "all" / f"part-{part}.parquet")
    pq.write_table(pa.table({"k": range(20), "v": [k * 3 for k in range(20)]}), folder / "second" / "names.parquet")
    return folder


@pytest.fixture(scope="module")
def services(folder: Path) -> Iterator[list[Service]]:
    options = ["--token-file", str(token_file(folder)), "--memory", "1GiB", "--threads", "1", "--data"]
    roots = ([str(folder / "all")], [str(folder / "all"), "--data", str(folder / "second")])
    made = [Service(folder / f"agent-{number}", options=[*options, *of_agent]) for number, of_agent in enumerate(roots)]
    for service in made:
        service.wait_ready()
    yield made
    for service in made:
        service.stop()


def connect(folder: Path, services: list[Service], **options: Any) -> Session:
    url = "grpc://" + ",".join(f"127.0.0.1:{service.port}" for service in services)
    return sabot_sql.connect(url, token_file=folder / "token", **options)


@pytest.fixture(scope="module")
def session(folder: Path, services: list[Service]) -> Iterator[Session]:
    with connect(folder, services) as session:
        yield session


def rows_of(result: sabot_sql.Result) -> Rows:
    return Rows(tuple(result.columns), tuple(result.types), tuple(result.fetchall()))


def agents_of(result: sabot_sql.Result) -> set[str]:
    return {task["agent"] for stage in result.plan.json()["stages"] for task in stage["tasks"]}


STATEMENTS = [
    "SELECT k, count(*), sum(i), max(t) FROM '{all}' GROUP BY k",
    "SELECT i, t FROM '{all}' ORDER BY t NULLS FIRST, i DESC LIMIT 7",
    "SELECT i FROM '{all}' LIMIT 9",
    "SELECT i, row_number() OVER (ORDER BY i), lag(i) OVER (PARTITION BY k ORDER BY i) FROM '{all}'",
    "SELECT i FROM '{all}' WHERE i < 5 UNION ALL SELECT i FROM '{all}' WHERE i > 14990",
    "WITH s AS (SELECT k, sum(i) AS v FROM '{all}' GROUP BY k) SELECT a.k, b.v FROM s a JOIN s b ON a.k = b.k + 1",
    "SELECT t, count(*) FROM '{all}' WHERE i < 0 GROUP BY t",
    "SELECT DISTINCT t FROM '{all}'",
    "SELECT avg(i), list(k ORDER BY i)[3] FROM '{all}'",
    "SELECT k, w, count(*) FROM '{all}' JOIN frame USING (k) GROUP BY ALL",
    "SELECT k FROM '{all}' WHERE i < 3 UNION ALL SELECT k FROM frame",
    "SELECT * FROM frame WHERE k NOT IN (SELECT k FROM '{all}' WHERE k IS NOT NULL)",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_one_agent_gives_the_rows_of_duckdb(session: Session, folder: Path, statement: str) -> None:
    frame = pa.table({"k": [1, 2, 30, None], "w": ["a", "b", "c", None]})
    sql = statement.format(all=folder / "all" / "*.parquet")
    result = session.query(sql, scope={"frame": frame})
    assert result.plan.mode == "single", result.plan.reason
    assert result.plan.reason.startswith("one agent: it reads about")
    assert {agent for agent in agents_of(result) if agent != "session"} <= {"agent-1", "agent-2"}
    if "frame" not in sql:
        assert len(result.plan.json()["stages"]) == 1
        assert "session" not in agents_of(result)
    with sabot_sql.connect() as alone:
        ordered = "ORDER BY t" in sql or "UNION ALL" in sql or "LIMIT" in sql
        expected = rows_of(alone.query(sql, scope={"frame": frame}))
        assert_same(expected, rows_of(result), [1] * len(expected.rows) if ordered else None)


def test_much_is_read_by_all_agents(session: Session) -> None:
    sql = "SELECT i % 3 AS k, count(*) FROM range(20000000) t(i) GROUP BY k ORDER BY k"
    assert session.explain(sql).mode == "distributed"
    assert session.explain(sql.replace("20000000", "2000")).mode == "single"


def test_what_is_in_the_session_is_answered_there(session: Session) -> None:
    frame = pa.table({"a": range(1000)})
    result = session.query("SELECT sum(a) FROM frame", scope={"frame": frame})
    assert result.fetchall() == [(499_500,)]
    assert agents_of(result) == {"session"}
    assert "all that it reads is in the session's process" in result.plan.reason


def test_a_file_that_one_agent_has_is_read_there(session: Session, folder: Path) -> None:
    sql = f"SELECT count(*), sum(v) FROM '{folder}/all/*.parquet' JOIN '{folder}/second/names.parquet' USING (k)"
    result = session.query(sql)
    assert result.plan.reason == "one agent: only agent-2 can read the files"
    assert agents_of(result) == {"agent-2"}
    with sabot_sql.connect() as alone:
        assert result.fetchall() == alone.query(sql).fetchall()


def test_a_number_of_agents_overrules_the_choice(session: Session, folder: Path) -> None:
    sql = f"SELECT k, count(*) FROM '{folder}/all/*.parquet' GROUP BY k"
    assert session.agents == "auto"
    assert session.query(sql, agents=2).plan.mode == "distributed"
    assert session.query(sql, agents="auto").plan.mode == "single"
    own = session.query(sql, agents=1)
    assert agents_of(own) == {"session"}


def test_a_cluster_of_one_agent_answers(folder: Path, services: list[Service]) -> None:
    sql = f"SELECT k, count(*) FROM '{folder}/all/*.parquet' GROUP BY k ORDER BY k"
    with connect(folder, services[1:]) as session, sabot_sql.connect() as alone:
        result = session.query(sql)
        assert result.plan.reason == "one agent: the cluster has no other"
        assert agents_of(result) == {"agent-1"}
        assert result.fetchall() == alone.query(sql).fetchall()


def test_many_at_once_are_all_right(session: Session, folder: Path) -> None:
    found: list[Any] = [None] * 8

    def ask(number: int) -> None:
        sql = f"SELECT count(*), sum(i) FROM '{folder}/all/*.parquet' WHERE i % 8 = {number}"
        found[number] = session.query(sql).fetchall()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert found == [[(1875, sum(range(number, 15_000, 8)))] for number in range(8)]


def test_what_is_written_from_one_agent_is_what_duckdb_writes(session: Session, folder: Path) -> None:
    session.query(f"CREATE OR REPLACE TABLE copied AS SELECT k, count(*) AS n FROM '{folder}/all/*.parquet' GROUP BY k")
    assert session.query("SELECT count(*), sum(n) FROM copied").fetchall() == [(17, 15_000)]


def test_memory_that_is_too_little_on_one_agent_is_had_on_all(session: Session, folder: Path) -> None:
    from sabot_sql.call import distributed
    from sabot_sql.errors import OUT_OF_MEMORY, ResourceError

    run, failed = distributed.run_query, []

    def run_query(plan: Any, *given: Any, **options: Any) -> Any:
        if plan.mode == "single":
            failed.append(plan.reason)
            raise ResourceError("out of memory", code=OUT_OF_MEMORY)
        return run(plan, *given, **options)

    sql = f"SELECT k, count(*) FROM '{folder}/all/*.parquet' GROUP BY k"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "run_query", run_query)
        assert session.query(sql).plan.mode == "distributed"
    assert len(failed) == 1


def test_an_agent_that_is_gone_is_not_waited_for(folder: Path, services: list[Service]) -> None:
    sql = f"SELECT k, count(*) FROM '{folder}/all/*.parquet' GROUP BY k ORDER BY k"
    options = ["--token-file", str(folder / "token"), "--memory", "512MiB", "--data", str(folder / "all")]
    third = Service(folder / "agent-third", options=options)
    third.wait_ready()
    try:
        with connect(folder, [third, services[0]]) as session:
            before = session.query(sql)
            third.kill()
            after = session.query(sql)
            assert after.fetchall() == before.fetchall()
            assert "agent-1" not in agents_of(after)
    finally:
        third.stop()
