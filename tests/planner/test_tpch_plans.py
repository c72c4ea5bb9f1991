"""The edges that a specialist would draw for TPC-H, at the statistics of large tables."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from sabot_planner import Mode, QueryPlan, ShuffleEdge, ShuffleEdgeType
from sabot_planner.distribute.order_and_limit import TOP_N_ROWS
from tests.planner.context import FakeContext, describe
from tests.support.tpch.data import queries, tpch, views

pytestmark = pytest.mark.fast

QUERIES = queries()
LARGE = 10_000
"""Rows of scale factor 100 from data of 0.01."""


@pytest.fixture(scope="module")
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        for view in views(tpch(0.01)):
            connection.execute(view)
        yield connection


@pytest.fixture(scope="module")
def plans(tables: duckdb.DuckDBPyConnection) -> dict[str, QueryPlan]:
    return {name: planned(tables, name, 4) for name in QUERIES}


def planned(tables: duckdb.DuckDBPyConnection, name: str, agents: int, factor: int = LARGE) -> QueryPlan:
    context = FakeContext(tables, agents=agents, factor=factor, fixed=frozenset({"nation", "region"}))
    return context.plan(QUERIES[name])


def edges(plan: QueryPlan, kind: ShuffleEdgeType | None = None) -> list[ShuffleEdge]:
    return [e for e in plan.operator_graph.edges if kind is None or e.edge_type is kind]


def hashed(plan: QueryPlan) -> list[tuple[str, ...]]:
    return sorted(e.keys for e in edges(plan, ShuffleEdgeType.HASH))


@pytest.mark.parametrize("agents", [2, 3, 4])
@pytest.mark.parametrize("name", QUERIES)
def test_no_query_runs_in_one_task(tables: duckdb.DuckDBPyConnection, name: str, agents: int) -> None:
    plan = planned(tables, name, agents, factor=100)
    assert plan.mode is Mode.DISTRIBUTED, describe(plan)
    assert any(o.parallelism == agents for o in plan.operator_graph.operators), describe(plan)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", QUERIES)
def test_what_is_ordered_is_ordered_in_parallel(plans: dict[str, QueryPlan], name: str) -> None:
    """Every ORDER BY without a small LIMIT is a RANGE into the last stage."""
    plan, sql = plans[name], QUERIES[name].lower()
    graph = plan.operator_graph
    assert graph is not None
    last = [e.edge_type for e in edges(plan) if e.target == graph.sink]
    limit = int(sql.rpartition("limit")[2]) if "limit" in sql.rpartition("order by")[2] else None
    if "order by" not in sql:
        assert not graph.ordered, describe(plan)
    elif limit is None:
        assert last == [ShuffleEdgeType.RANGE], describe(plan)
        assert graph.ordered
        assert graph.operator(graph.sink).parallelism == 4
    else:
        assert limit < TOP_N_ROWS
        assert last == [ShuffleEdgeType.REBALANCE], describe(plan)
        assert graph.operator(graph.sink).parallelism == 1


@pytest.mark.parametrize("name", QUERIES)
def test_sides_of_a_join_have_as_many_partitions(plans: dict[str, QueryPlan], name: str) -> None:
    assert len({e.partitions for e in edges(plans[name], ShuffleEdgeType.HASH)}) <= 1, describe(plans[name])


@pytest.mark.parametrize("name", QUERIES)
def test_nation_and_region_are_never_hashed(plans: dict[str, QueryPlan], name: str) -> None:
    graph = plans[name].operator_graph
    assert graph is not None
    small = {
        o.operator_id
        for o in graph.operators
        if o.label.startswith(("scan nation", "scan region")) and "scan" not in o.label[5:]
    }
    assert {e.edge_type for e in graph.edges if e.source in small} <= {ShuffleEdgeType.BROADCAST}, describe(plans[name])


def test_q1_is_one_hash_of_partial_states_then_a_range(plans: dict[str, QueryPlan]) -> None:
    plan = plans["q01"]
    assert [(e.edge_type, e.keys) for e in edges(plan)] == [
        (ShuffleEdgeType.HASH, ("l_returnflag", "l_linestatus")),
        (ShuffleEdgeType.RANGE, ("l_returnflag", "l_linestatus")),
    ], describe(plan)
    graph = plan.operator_graph
    assert graph is not None
    assert "EXPORT_STATE" in graph.operator(edges(plan)[0].source).sql
    assert "combine_aggr" in graph.operator(edges(plan)[0].target).sql


def test_q3_reuses_the_order_key_for_its_groups(plans: dict[str, QueryPlan]) -> None:
    plan = plans["q03"]
    keys = hashed(plan)
    assert keys.count(("o_orderkey",)) == 1, describe(plan)
    assert keys.count(("l_orderkey",)) == 1, describe(plan)
    assert {k for k in keys if k not in (("o_orderkey",), ("l_orderkey",))} <= {("c_custkey",), ("o_custkey",)}
    assert_joined_and_grouped_in_one_stage(plan, "l_orderkey")


def test_q18_reuses_the_order_key_for_its_groups(plans: dict[str, QueryPlan]) -> None:
    plan = plans["q18"]
    assert {k for k in hashed(plan) if "orderkey" not in k[0]} <= {("c_custkey",), ("o_custkey",)}, describe(plan)
    assert all(len(k) == 1 for k in hashed(plan)), "nothing is hashed by the five group keys"
    assert_joined_and_grouped_in_one_stage(plan, "l_orderkey")


def assert_joined_and_grouped_in_one_stage(plan: QueryPlan, key: str) -> None:
    graph = plan.operator_graph
    assert graph is not None
    joined = [e.target for e in edges(plan, ShuffleEdgeType.HASH) if e.keys == (key,)]
    assert any("inner join" in graph.operator(o).label and "group by" in graph.operator(o).label for o in joined)


def test_q5_reads_nation_and_region_in_every_task(plans: dict[str, QueryPlan]) -> None:
    plan = plans["q05"]
    graph = plan.operator_graph
    assert graph is not None
    reads = [(o.label, o.parallelism, [scan.sliced for scan in o.scans]) for o in graph.operators]
    (small,) = [(tasks, sliced) for label, tasks, sliced in reads if "scan nation" in label and "scan region" in label]
    assert small[0] == plan.agents, describe(plan)
    assert small[1].count(False) == 2, describe(plan)
    assert all("nation" not in key and "region" not in key for keys in hashed(plan) for key in keys), describe(plan)


def test_q6_sums_up_one_row_of_each_task(plans: dict[str, QueryPlan]) -> None:
    (edge,) = edges(plans["q06"])
    assert (edge.edge_type, edge.rows_estimated) == (ShuffleEdgeType.REBALANCE, 1)


def test_q13_keeps_the_customers_together_for_both_of_its_levels(plans: dict[str, QueryPlan]) -> None:
    assert hashed(plans["q13"]) == [("c_count",), ("c_custkey",), ("o_custkey",)], describe(plans["q13"])


def test_q21_hashes_the_three_lineitems_once_each(plans: dict[str, QueryPlan]) -> None:
    keys = hashed(plans["q21"])
    assert keys.count(("l_orderkey",)) == 3, describe(plans["q21"])
    assert keys.count(("o_orderkey",)) == 1, describe(plans["q21"])


@pytest.mark.parametrize("name", QUERIES)
def test_every_edge_says_why_and_shows_the_users_names(plans: dict[str, QueryPlan], name: str) -> None:
    for edge in edges(plans[name]):
        assert edge.reason, describe(plans[name])
        assert not any(part.startswith("c") and part[1:].isdigit() for key in edge.keys for part in key.split())
