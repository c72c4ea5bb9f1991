"""The fraud-detection pipeline finds the planted frauds and nothing else, whatever happens to it."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pytest

import sabot_sql
from examples.fraud_detection import KINDS, FraudData, fraud_job, one_query, transactions
from sabot_sql import JobGraph, OperatorType, Result, Session, StreamOperatorNode
from sabot_sql.config import Isolation, SessionConfig

ROWS = 200_000
ROWS_BEYOND_MEMORY = 500_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> FraudData:
    return transactions(tmp_path_factory.mktemp("fraud"), ROWS)


def found(result: Result) -> list[tuple[str, int, int]]:
    alerts = result.to_arrow_table().select(["kind", "user_id", "id"])
    return sorted(zip(*(column.to_pylist() for column in alerts.columns), strict=True))


def test_frauds_of_every_kind_are_planted_by_the_seed(data: FraudData, tmp_path: Path) -> None:
    assert {kind for kind, _, _ in data.planted} == set(KINDS)
    assert all(sum(kind == fraud[0] for fraud in data.planted) >= 5 for kind in KINDS)
    for name, seed in (("same", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        again = transactions(tmp_path / name, ROWS, seed=seed)
        assert (again.planted == data.planted) is (seed == 1)


def test_one_query_of_plain_duckdb_finds_them(data: FraudData) -> None:
    with duckdb.connect() as plain:
        rows = plain.execute(f"SELECT kind, user_id, id FROM ({one_query(data)}) ORDER BY ALL").fetchall()
    assert rows == sorted(data.planted)


@pytest.mark.parametrize(("agents", "isolation"), [(1, "thread"), (4, "thread"), (4, "process")])
def test_the_planted_frauds_and_nothing_else(data: FraudData, agents: int, isolation: str) -> None:
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="2GiB") as session:
        result = session.run_job(fraud_job(data))
    assert found(result) == sorted(data.planted)
    tasks = {stage["id"]: len(stage["tasks"]) for stage in result.plan.json()["stages"]}
    assert {name: tasks[name] for name in ("source", "enrich", "fraud", "alerts")} == {
        "source": 10,
        "enrich": 10,
        "fraud": 5,
        "alerts": 2,
    }


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_with_too_little_memory_for_the_shuffle(tmp_path: Path, isolation: str) -> None:
    data = transactions(tmp_path, ROWS_BEYOND_MEMORY)
    least = SessionConfig(agents=2, isolation=Isolation(isolation)).least_memory_bytes
    with sabot_sql.connect(agents=2, isolation=isolation, memory_limit=least, threads=1) as session:
        result = session.run_job(fraud_job(data))
        assert spilled_bytes(session) > 0
        assert found(result) == sorted(data.planted)


def spilled_bytes(session: Session) -> int:
    """What the agents have written to disk so far, whenever they did."""
    pool = session._pools._pool
    assert pool is not None
    return sum(agent.metrics()["spilled_bytes"] for agent in pool.agents)


def test_with_an_agent_killed_between_its_operators(data: FraudData) -> None:
    """The killer is an operator of its own: when it gets its first rows, agents have committed others and wait."""
    killed: list[int] = []

    def kill_one(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows and not killed:
            agents = [child for child in psutil.Process().children() if "agent" in " ".join(child.cmdline())]
            killed.append(agents[0].pid)
            os.kill(agents[0].pid, signal.SIGKILL)
        return batch

    plain = fraud_job(data)
    job = JobGraph("fraud_with_a_killer")
    for node in plain.operators:
        job.add_operator(node)
    job.add_operator(
        StreamOperatorNode(operator_type=OperatorType.MAP, operator_id="killer", parallelism=10, function=kill_one)
    )
    for source, target in (("source", "enrich"), ("enrich", "killer"), ("killer", "fraud"), ("fraud", "alerts")):
        job.connect(source, target)
    with sabot_sql.connect(agents=3, isolation="process", memory_limit="2GiB") as session:
        result = session.run_job(job)
        assert found(result) == sorted(data.planted)
        assert len(killed) == 1
        assert found(session.run_job(plain)) == sorted(data.planted), "another agent has taken its place"


def test_without_transactions_there_is_no_alert(data: FraudData, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    none = f"SELECT * FROM '{data.transactions}/*.parquet' LIMIT 0"
    with duckdb.connect() as plain:
        plain.execute(f"COPY ({none}) TO '{tmp_path}/none/a.parquet' (FORMAT parquet)")
    with sabot_sql.connect(agents=2) as session:
        result = session.run_job(fraud_job(replace(data, transactions=tmp_path / "none")))
    assert len(result) == 0
    assert list(result.columns)[:2] == ["user_id", "id"]
