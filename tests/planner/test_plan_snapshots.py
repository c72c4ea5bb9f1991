"""The plans of all TPC-H and TPC-DS queries, by recorded answers of DuckDB: a change shows as lines of a diff.

``python -m tests.planner.record`` writes both anew where a change is meant.
"""

from __future__ import annotations

import pytest

from sabot_planner import QueryPlan, plan_query
from tests.planner.plan_text import plan_text, snapshot
from tests.planner.recordings import SUITES, NotRecorded, Recording

pytestmark = pytest.mark.fast

RECORDINGS = {suite: Recording.load(suite) for suite in SUITES}
QUERIES = [(suite, name) for suite, recording in RECORDINGS.items() for name in recording.queries]


def planned(suite: str, name: str) -> str:
    recording = RECORDINGS[suite]
    plan = plan_query(recording.queries[name].exported, recording.context(name))
    assert isinstance(plan, QueryPlan), plan.reason
    return plan_text(plan)


def test_all_queries_are_recorded() -> None:
    assert [len(RECORDINGS[suite].queries) for suite in SUITES] == [22, 99]


@pytest.mark.parametrize(("suite", "name"), QUERIES)
def test_a_plan_is_as_it_was(suite: str, name: str) -> None:
    assert planned(suite, name) == snapshot(suite, name).read_text()


def test_a_plan_does_not_depend_on_what_was_planned_before() -> None:
    """Names, order and numbers come from the query alone: two plans of it are equal, also across processes."""
    assert planned("tpcds", "q64") == planned("tpcds", "q64")


def test_an_unknown_question_says_how_to_record_it() -> None:
    context = RECORDINGS["tpch"].context("q01")
    with pytest.raises(NotRecorded, match=r"tests\.planner\.record"):
        context.types(["1 + 1"], "nowhere")
