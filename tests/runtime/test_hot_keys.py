"""Heavy hitters are shown by their keys, and looking for a key never costs a query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sabot_sql
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, ShuffleEdge, ShuffleEdgeType
from sabot_sql import Session
from sabot_sql.agent.key_finder import KeyFinder, shown_key
from sabot_sql.agent.pool import AgentPool, start_agents
from sabot_sql.catalog.connection import Connection
from sabot_sql.config import parse_config
from sabot_sql.coordinator.driver import run_job
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.key_questions import key_questions
from sabot_sql.protocol.task_spec import EdgeInput, KeyQuestion, OutputReport, WriteKind, WriteScheme

HASH = ShuffleEdgeType.HASH


@pytest.fixture(scope="module", params=("thread", "process"))
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    file = tmp_path_factory.mktemp("data") / "skewed.parquet"
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB") as opened:
        opened.execute(
            f"""COPY (SELECT CASE WHEN range % 10 < 6 THEN 42 ELSE range END AS k,
                CASE WHEN range % 10 < 6 THEN 'it''s' ELSE 'b' || range END AS s,
                CASE WHEN range % 10 >= 6 THEN range END AS n,
                CASE WHEN range % 10 < 6 THEN 'hot' ELSE 'cold' END::ENUM('cold', 'hot') AS e,
                DATE '2024-01-01' + CASE WHEN range % 10 < 6 THEN 0 ELSE range::INT % 999 END AS d, range AS v
                FROM range(300_000)) TO '{file}'"""
        )
        opened.execute(f"CREATE VIEW t AS SELECT * FROM '{file}'")
        yield opened


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("k", "k = 42"),
        ("s", "s = 'it''s'"),
        ("n", "n IS NULL"),
        ("k, s", "(k, s) = (42, 'it''s')"),
        ("d", "d = '2024-01-01'"),
        ("s, e", "(s, e) = ('it''s', 'hot')"),
        ("repeat(s, 20)", "repeat(s, 20) = 'it''sit''sit''sit''sit''sit''sit''sit''sit''sit''…'"),
    ],
)
def test_a_hot_key_of_a_query_has_its_name(session: Session, keys: str, shown: str) -> None:
    plan = session.query(f"SELECT {keys}, median(v) FROM t GROUP BY ALL").plan.json()
    assert plan["mode"] == "distributed"
    assert shown in [heavy["key"] for edge in plan["edges"] for heavy in edge["heavy"]]


def test_an_even_edge_asks_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[KeyQuestion] = []
    monkeypatch.setattr(KeyFinder, "find", lambda _, question, __: asked.append(question))
    plan = session.query("SELECT v, median(k) FROM t GROUP BY v").plan.json()
    assert plan["mode"] == "distributed"
    assert asked == []


def test_a_key_that_cannot_be_told_costs_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot_sql.agent.key_finder.edge_sql", lambda _: "SELECT nothing FROM nowhere")
    result = session.query("SELECT k, median(v) FROM t GROUP BY k")
    assert len(result.fetchall()) == 120_001
    (heavy,) = [h for edge in result.plan.json()["edges"] for h in edge["heavy"]]
    assert heavy["key"].startswith("hash ")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the look-up would give up, as it should, and the hash would be shown.
    monkeypatch.setattr("sabot_sql.coordinator.driver._NAMING_MS", 30_000)


@pytest.fixture(params=("thread", "process"))
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AgentPool]:
    config = parse_config(agents=2, isolation=request.param, memory_limit="512MiB", threads=1, spill_directory=tmp_path)
    connection = Connection(config, str(tmp_path / "duckdb"))
    with start_agents(config, connection.main) as opened:
        yield opened
    connection.close()


@pytest.mark.parametrize("by_sql", [False, True])
def test_a_job_graph_names_its_keys_alike(pool: AgentPool, by_sql: bool) -> None:
    columns = "CASE WHEN range % 2 = 0 THEN 'even' ELSE 'odd ' || range END AS a, range % 2 AS b"
    more: dict[str, Any] = {"partition_by": "h", "key_sql": ("a", "b")} if by_sql else {}
    source = (
        f"SELECT *, hash(a, b) AS h FROM (SELECT {columns} FROM range(20_000))"
        if by_sql
        else (f"SELECT {columns} FROM range(20_000)")
    )
    graph = OperatorGraph(
        (
            Operator("source", OperatorType.SOURCE, source),
            Operator("groups", OperatorType.GROUP_BY, "SELECT a, b, count(*) AS n FROM e GROUP BY a, b", 2),
        ),
        (ShuffleEdge("e", "source", "groups", HASH, keys=("a", "b"), partitions=8, **more),),
    )
    finished = run_job(graph, pool, query_id="named", deadline_ms=30_000)
    (edge,) = [e for e in finished.plan["edges"] if e["id"] == "e"]
    assert [heavy["key"] for heavy in edge["heavy"]] == ["(a, b) = ('even', 0)"]
    finished.release()


def test_no_question_without_a_partition_that_is_far_larger() -> None:
    edge = ShuffleEdge("e", "a", "b", HASH, keys=("k",), partitions=4, partition_by="h", key_sql=("k",))
    hot = 3 << 62  # partition 3 of 4
    assert [q.hash for q in key_questions("q", edge, _measured((900, 900, 900, 9000), hot, 8000))] == [hot]
    assert key_questions("q", edge, _measured((4000, 5000, 6000, 9000), hot, 8000)) == ()
    assert key_questions("q", edge, _measured((900, 900, 900, 90_000), hot, 8000)) == ()


def test_no_question_about_a_few_rows() -> None:
    edge = ShuffleEdge("e", "a", "b", HASH, keys=("k",), partitions=4, partition_by="h", key_sql=("k",))
    assert key_questions("q", edge, _measured((0, 0, 0, 4000), 3 << 62, 4000)) == ()


def _measured(partition_rows: tuple[int, ...], key_hash: int, rows: int) -> EdgeShuffle:
    output = OutputReport(
        "e",
        "agent-1",
        b"",
        sum(partition_rows),
        1,
        partition_rows=partition_rows,
        partition_bytes=partition_rows,
        heavy=((key_hash, rows, 0),),
    )
    scheme = WriteScheme(WriteKind.HASH_COLUMN, len(partition_rows), "h")
    shuffle = EdgeShuffle("e", scheme, 1, outputs={0: output})
    return replace(shuffle, measured=shuffle.facts())


def test_a_question_about_no_rows_has_no_answer(pool: AgentPool) -> None:
    question = KeyQuestion("q", EdgeInput("e", "e", (), (), (), 0, 1), ("k",), ("k",), 1)
    assert pool.key_finder.find(question, 1) is None


def test_values_are_clipped_and_keep_to_one_line() -> None:
    assert shown_key(("k",), [("a\n b", "VARCHAR")]) == "k = 'a b'"
    assert shown_key(("k",), [("9" * 50, "HUGEINT")]) == f"k = {'9' * 39}…"
    assert shown_key(("a", "b"), [(None, "INTEGER"), ("1.5", "DECIMAL(2,1)")]) == "(a, b) = (NULL, 1.5)"
