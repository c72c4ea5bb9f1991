"""``Session.plan``: the plan of a query that runs, and of those that ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

import sabot_sql
from sabot_sql import QueryCancelled, QueryTimeout, Session, UsageError, ValueFailure

ENDLESS = (
    "SELECT a.range % 3 AS k, count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7 GROUP BY k"
)


@pytest.fixture(params=[(1, "thread"), (2, "thread"), (2, "process")], ids=str)
def asked(request: pytest.FixtureRequest) -> Session:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation) as session:
        yield session


def test_a_query_that_ended_keeps_its_plan(asked: Session) -> None:
    result = asked.query("SELECT range % 3 AS k, count(*) FROM range(10000) GROUP BY k")
    assert asked.plan(result.query_id).json() == result.plan.json()


def test_a_query_that_runs_shows_how_far_it_is_without_an_observer(asked: Session) -> None:
    ended: list[BaseException] = []

    def work() -> None:
        try:
            asked.query(ENDLESS)
        except QueryCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    turn = threading.Event()
    try:
        for _ in range(1200):
            known = [asked.plan(query_id).json() for query_id in asked.running() if query_id.startswith("q-")]
            if known and known[0]["state"] == "running":
                break
            turn.wait(0.05)
        (plan,) = known
        assert plan["state"] == "running"
        assert plan["sql"] == ENDLESS
        assert plan["agents"] == asked.agents
        assert plan["elapsed_ms"] == pytest.approx(sum(plan["times"].values()), abs=0.01)
    finally:
        asked.cancel()
        thread.join(20)
    assert len(ended) == 1
    assert asked.plan(plan["query_id"]).json()["state"] == "cancelled"


@pytest.mark.parametrize(
    ("sql", "timeout", "error", "state"),
    [
        (ENDLESS, 1.0, QueryTimeout, "timed_out"),
        (
            "SELECT sum(CASE WHEN range < 9999 THEN range ELSE error('no') END) FROM range(10000)",
            None,
            ValueFailure,
            "failed",
        ),
    ],
    ids=["timed out", "failed"],
)
def test_a_query_that_failed_keeps_the_plan_that_it_had(
    asked: Session, sql: str, timeout: float | None, error: type[BaseException], state: str
) -> None:
    seen: list[Mapping[str, Any]] = []
    with pytest.raises(error):
        asked.query(sql, timeout=timeout, observer=seen.append)
    (query_id,) = {plan["query_id"] for plan in seen} or {None}
    if query_id is None:  # it failed before anybody could be told
        (query_id,) = asked._plans._ended
    plan = asked.plan(query_id)
    assert plan.json()["state"] == state
    assert state.replace("_", " ") in plan.status()


def test_an_unknown_query_is_told(asked: Session) -> None:
    with pytest.raises(UsageError, match="no query 'q-0' runs") as caught:
        asked.plan("q-0")
    assert caught.value.code == "QUERY_NOT_FOUND"


def test_the_oldest_plans_go() -> None:
    with sabot_sql.connect() as session:
        ids = [session.query("SELECT 1").query_id for _ in range(40)]
        assert session.plan(ids[-32]).json()["query_id"] == ids[-32]
        with pytest.raises(UsageError):
            session.plan(ids[-33])
