"""Jobs on agent services: what Python computes stays in the session's process, everything else goes to the agents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import sabot_sql
from examples.fraud_detection import FraudData, fraud_job, transactions
from sabot_sql import JobGraph, OperatorType, StreamOperatorNode
from tests.support.services import Service, token_file

ROWS = 100_000


@pytest.fixture
def data(tmp_path: Path) -> FraudData:
    (tmp_path / "data").mkdir()
    return transactions(tmp_path / "data", ROWS)


@pytest.fixture
def url(tmp_path: Path, data: FraudData) -> Iterator[str]:
    options = ["--token-file", str(token_file(tmp_path)), "--memory", "512MiB", "--threads", "1", "--sessions", "1"]
    options += ["--data", str(data.users.parent)]
    made = [Service(tmp_path / f"agent-{number}", options=options) for number in range(2)]
    for service in made:
        service.wait_ready()
    yield "grpc://" + ",".join(f"127.0.0.1:{service.port}" for service in made)
    for service in made:
        service.stop()


def test_the_fraud_pipeline_runs_on_services_with_a_python_function_in_it(
    url: str, tmp_path: Path, data: FraudData
) -> None:
    seen: set[int] = set()

    def watch(batch: pa.RecordBatch) -> pa.RecordBatch:
        seen.add(os.getpid())
        return batch

    plain = fraud_job(data)
    job = JobGraph("fraud")
    for node in plain.operators:
        job.add_operator(node)
    job.add_operator(
        StreamOperatorNode(operator_type=OperatorType.MAP, operator_id="watch", parallelism=5, function=watch)
    )
    for source, target in (("source", "enrich"), ("enrich", "fraud"), ("fraud", "watch"), ("watch", "alerts")):
        job.connect(source, target)
    with sabot_sql.connect(url, token_file=tmp_path / "token") as session:
        for each in (plain, job):
            result = session.run_job(each)
            alerts = result.to_arrow_table().select(["kind", "user_id", "id"])
            found = sorted(zip(*(column.to_pylist() for column in alerts.columns), strict=True))
            assert found == sorted(data.planted)
        stages = {stage["id"]: {task["agent"] for task in stage["tasks"]} for stage in result.plan.json()["stages"]}
    assert seen == {os.getpid()}
    assert stages["watch"] == {"session"}
    assert "session" not in stages["fraud"]
    assert len(stages["enrich"]) == 2
