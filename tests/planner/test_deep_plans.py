"""Plans of very many operators: chains are planned whatever their length, and what nests too deeply is single."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import duckdb
import pytest

from benchmarks.planning_shapes import SHAPES, TABLES
from sabot_planner import NotDistributed, QueryPlan, plan_query
from tests.planner.context import FakeContext

SHAPE = {shape.name: shape.make for shape in SHAPES}


@pytest.fixture(scope="module")
def context() -> Iterator[FakeContext]:
    with duckdb.connect() as connection:
        for statement in TABLES:
            connection.execute(statement)
        yield FakeContext(connection, agents=2)


def planned(context: FakeContext, sql: str) -> QueryPlan:
    return context.plan(sql)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("joins", 100),
        ("LEFT joins", 100),
        ("UNION ALL", 1000),
        ("AND terms", 1000),
        ("sum terms", 700),
        ("VALUES", 5000),
    ],
)
def test_a_long_chain_is_distributed(context: FakeContext, shape: str, size: int) -> None:
    assert planned(context, SHAPE[shape](size)).operator_graph.operators


def left_joins(size: int) -> str:
    joins = "".join(f" LEFT JOIN memory.main.u AS r{i}(x, y) ON (r0.x = r{i}.x))" for i in range(1, size + 1))
    return f"SELECT r0.x AS a FROM {'(' * size}memory.main.t AS r0(x, y){joins}"


def subqueries(size: int) -> str:
    return f"{'SELECT r.x AS a FROM (' * size}SELECT r.x AS a FROM memory.main.t AS r(x, y){') AS r(x)' * size}"


@pytest.mark.parametrize("nested", [left_joins, subqueries])
def test_what_nests_too_deeply_is_single_and_says_so(context: FakeContext, nested: Callable[[int], str]) -> None:
    assert isinstance(plan_query(nested(20), context), QueryPlan)
    depths = {size: plan_query(nested(size), context) for size in (150, 250, 300, 350, 400, 600)}
    reasons = [plan.reason for plan in depths.values() if isinstance(plan, NotDistributed)]
    assert reasons
    assert [reason for reason in reasons if "nest" not in reason and "not read exactly" not in reason] == []
    assert isinstance(depths[600], NotDistributed)


def test_a_recursion_limit_is_a_reason_and_no_error(context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr("sabot_planner.planner.check", too_deep)
    assert context.undistributed("SELECT b, count(*) FROM t GROUP BY b") == "the query nests operators too deeply"


def test_a_plan_too_deep_to_be_revised_stays_as_it_is(context: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: object) -> None:
        raise RecursionError

    plan = planned(context, "SELECT b, count(*) FROM t GROUP BY b")
    for name in ("revise", "identities", "key_identities"):
        monkeypatch.setattr(f"sabot_planner.adapt.replan.AdaptivePlan.{name}", too_deep)
    assert plan.revise({}, frozenset()) is plan
    assert plan.identities() == {} == plan.key_identities()


def test_what_duckdb_itself_cannot_read_again_is_single_in_its_words(context: FakeContext) -> None:
    reason = context.undistributed(SHAPE["OR terms"](1000))
    assert "Max expression depth limit of 1000 exceeded" in reason
