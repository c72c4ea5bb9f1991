"""The plan JSON is what its records say: nothing is written that they do not have, and nothing is lost by reading."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sabot_sql
from sabot_sql.plan_document import VERSION, PlanDocument, PlanEdge, PlanStage, PlanTask, timed

SQL = "SELECT k, count(*) AS n FROM (SELECT range % 7 AS k FROM range(50_000)) GROUP BY k ORDER BY n DESC"


def every_plan() -> list[dict[str, Any]]:
    """Plans of every kind: explained and run, on one agent and on two, told while a query ran."""
    told: list[dict[str, Any]] = []
    found = []
    for agents in (1, 2):
        with sabot_sql.connect(agents=agents, memory_limit="1GiB") as session:
            found.append(session.explain(SQL).json())
            result = session.query(SQL, observer=lambda document: told.append(dict(document)))
            assert len(result.fetchall()) == 7
            found.append(result.plan.json())
    return [*found, *told]


def test_a_plan_is_the_same_after_it_was_read() -> None:
    plans = every_plan()
    assert {plan["mode"] for plan in plans} == {"single", "distributed"}
    assert {"planned", "finished"} <= {plan["state"] for plan in plans}
    for plan in plans:
        assert PlanDocument.from_json(json.loads(json.dumps(plan))).to_json() == plan


def test_what_is_missing_says_nothing() -> None:
    plan = PlanDocument.from_json({"version": VERSION, "stages": [{"id": "s", "tasks": [{"id": "t", "agent": None}]}]})
    assert (plan.sql, plan.agents, plan.elapsed_ms, plan.times, plan.edges) == ("", 0, None, None, ())
    assert plan.stages == (PlanStage("s", "", "", "", 0, "", tasks=(PlanTask("t", state=""),)),)


@pytest.mark.parametrize("version", [None, 0, 2, "1"])
def test_another_version_is_refused_in_words(version: object) -> None:
    with pytest.raises(ValueError, match="this release reads version 1"):
        PlanDocument.from_json({"version": version})


def test_the_times_of_the_phases_add_up() -> None:
    plan = PlanDocument(VERSION, "q", "SELECT 1", "single", "", 1, "thread", "finished", edges=(EDGE,)).to_json()
    read = PlanDocument.from_json(timed(plan, {"planning_ms": 1.00049, "running_ms": 2.5}))
    assert read.times is not None
    assert (read.times.planning_ms, read.times.running_ms, read.times.handover_ms) == (1.0, 2.5, 0.0)
    assert read.elapsed_ms == 3.5
    assert read.edges == (EDGE,)


EDGE = PlanEdge("e", "HASH", ("k",), "a", "b", 4, partition_agents=("agent-1", None), partition_rows=(1, 2))
