"""What is decided while a query runs never changes its rows: every decision is forced, however little it gains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.differential import generated
from tests.differential.test_properties import compare
from tests.support.engine import answer, planner_settings, session
from tests.support.oracle import Oracle, Verdict
from tests.support.tpch.data import queries, tpch, views

EVERY_FILTER = {"filter_bytes": 0, "filter_share": 1.0}
QUERIES = queries()
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "threads": {"agents": 2, "partitions": 3, "broadcast_limit": 0},
    "processes": {"agents": 2, "isolation": "process", "broadcast_limit": 0},
}
FILTERED = ("q03", "q05", "q08", "q10", "q20", "q21")
"""Queries with a join whose smaller side has lost most of its keys before the other one moves."""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle(views(tpch(0.01))) as made:
        yield made


@pytest.fixture(scope="module")
def sessions() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        setup = views(tpch(0.01))
        yield {name: stack.enter_context(session(setup, **options)) for name, options in CONFIGURATIONS.items()}


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("name", QUERIES)
def test_filters_by_the_keys_of_finished_sides(
    name: str, configuration: str, oracle: Oracle, sessions: dict[str, Any]
) -> None:
    with planner_settings(**EVERY_FILTER):
        given_answer = answer(sessions[configuration], QUERIES[name])
    assert not given_answer.fell_back, given_answer.reason
    verdict, found = oracle.judge(QUERIES[name], given_answer.rows)
    assert verdict is Verdict.EQUAL, found
    said = [edge["reason"] for edge in given_answer.plan["edges"] if "their keys keep about" in edge["reason"]]
    assert said or name not in FILTERED


@pytest.mark.parametrize("kind", ["joins", "subqueries", "nested queries"])
def test_random_queries_with_every_filter(kind: str, sessions: dict[str, Any]) -> None:
    strategies = {
        "joins": generated.joins(),
        "subqueries": generated.subqueries(),
        "nested queries": generated.nested(),
    }

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(setup=generated.tables(), sql=strategies[kind], name=st.sampled_from(sorted(CONFIGURATIONS)))
    def check(setup: list[str], sql: str, name: str) -> None:
        for statement in setup:
            sessions[name].execute(statement)
        with Oracle(setup) as oracle, planner_settings(**EVERY_FILTER):
            compare(sql, oracle, sessions[name])

    check()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_join_stays_hashed_where_readers_of_a_shared_expression_group_by_its_keys(configuration: str) -> None:
    """What is shared is read in place: to copy a side that turned out empty would spread the groups of its readers."""
    sql = """
        WITH one AS (FROM (SELECT i AS a, i % 3 AS b FROM range(1) AS numbers(i)) WHERE b = 1)
        SELECT l.b, l.a, entropy(r.b) AS e, max(r.a) AS m, median(try_cast(l.b AS INTEGER)) AS n
        FROM (FROM one WHERE b IS NULL) AS l RIGHT JOIN one AS r ON l.a = r.b GROUP BY ALL
    """
    with session((), **CONFIGURATIONS[configuration]) as opened:
        found = answer(opened, sql)
    assert (found.mode, found.rows.rows) == ("distributed", ())
