"""The fraud-detection job on agents of three hosts: the planted frauds and nothing else, also when one of them dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples.fraud_detection import FraudData, fraud_job, transactions
from tests.jobs.test_fraud import found
from tests.support import hosts
from tests.support.clusters import make

pytestmark = pytest.mark.skipif(hosts.why_not() is not None, reason=f"no hosts: {hosts.why_not()}")


def test_the_planted_frauds_on_three_hosts_and_with_one_of_them_killed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data: FraudData = transactions(folder, 200_000)
    with hosts.hosts(3, mbit=1000) as network:
        cluster = make(tmp_path, network, folder)
        try:
            with cluster.connect() as session:
                result = session.run_job(fraud_job(data))
                assert found(result) == sorted(data.planted)
                assert result.plan.moved_bytes > 0
                killed: list[int] = []

                def kill_one(plan: Any) -> None:
                    tasks = [
                        task["state"] for stage in plan["stages"] if stage["id"] == "enrich" for task in stage["tasks"]
                    ]
                    if not killed and plan["state"] == "running" and "waiting" not in tasks:
                        killed.append(0)
                        cluster.services[0].kill()

                while not killed:  # a run may end between two looks at it
                    assert found(session.run_job(fraud_job(data), observer=kill_one)) == sorted(data.planted)
                assert found(session.run_job(fraud_job(data))) == sorted(data.planted), "two agents go on"
        finally:
            for service in cluster.services:
                service.stop()
