"""Stages and edges: what is cut where, what edges carry, and fragments that stand alone."""

from __future__ import annotations

import re
from dataclasses import replace

import duckdb
import pytest

from sabot_planner import OperatorGraph, Placement, PlanSettings, ShuffleEdgeType
from sabot_planner.fragments.fragment_sql import FragmentWriter
from sabot_planner.job.plan import Zone
from sabot_planner.logical.build import build
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import Scan
from sabot_planner.logical.prune import prune
from sabot_planner.logical.rules.apply import apply_rules
from sabot_planner.sql.text import quote, task_sql
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import fetch

pytestmark = pytest.mark.fast

JOINED = "SELECT t.k, u.s, sum(t.v) AS total FROM t JOIN u ON t.k = u.n GROUP BY t.k, u.s ORDER BY total DESC"


def graph_of(context: FakeContext, sql: str) -> OperatorGraph:
    plan = context.plan(sql)
    return plan.operator_graph


@pytest.mark.parametrize(
    "sql",
    [
        JOINED,
        "SELECT k, avg(v), count(*) FROM t GROUP BY k",
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS x FROM t GROUP BY k) SELECT a.k FROM c AS a JOIN c ON a.k = c.x",
        "SELECT v, row_number() OVER (ORDER BY v) FROM t",
    ],
)
def test_a_fragment_names_only_its_inputs(context: FakeContext, sql: str) -> None:
    graph = graph_of(context, sql)
    for node in graph.operators:
        inputs = {e.input_name for e in graph.inputs_of(node.operator_id)} | {s.name for s in node.scans}
        named = set(re.findall(r"\b(e\d+|scan_\d+)\b", node.sql))
        assert named == inputs, node.sql


def test_edges_say_what_they_carry_and_what_places_it(context: FakeContext) -> None:
    graph = graph_of(context, JOINED)
    for edge in graph.edges:
        producer = graph.operator(edge.source).sql
        assert edge.columns
        assert all(column in producer for column in edge.columns)
        if edge.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE):
            assert edge.partition_by is not None
            assert edge.partition_by not in edge.columns, "it places the row and is not stored"
            assert f" AS {edge.partition_by}" in producer
            assert edge.partition_by not in graph.operator(edge.target).sql


def test_an_expression_of_several_stages_is_a_stage_of_its_own(context: FakeContext) -> None:
    sql = (
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS s FROM t GROUP BY k)"
        " SELECT c.k FROM c JOIN u ON c.s = u.w UNION ALL SELECT k FROM (SELECT k FROM c ORDER BY s LIMIT 2)"
    )
    graph = graph_of(context, sql)
    shared = [o for o in graph.operators if len(graph.outputs_of(o.operator_id)) > 1]
    assert len(shared) == 1, graph
    assert sum("scan_" in o.sql and "sum" in o.sql for o in graph.operators) == 1, "the aggregate is computed once"


def test_readers_of_a_shared_expression_read_one_output(context: FakeContext) -> None:
    """Each takes the columns that it needs of those that any of them needs."""
    sql = (
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS s, max(v) AS m, min(n) AS unread FROM t GROUP BY k)"
        " SELECT k FROM (SELECT k FROM c ORDER BY s LIMIT 2)"
        " UNION ALL SELECT k FROM (SELECT k FROM c ORDER BY m LIMIT 2)"
    )
    graph = graph_of(context, sql)
    one, two = (e for e in graph.edges if e.edge_type is ShuffleEdgeType.FORWARD)
    assert one.written_id == two.written_id
    assert one.columns == two.columns
    assert len(one.columns) == 3
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())


def test_an_expression_of_one_stage_stays_inside_its_fragment(context: FakeContext) -> None:
    context.whole = frozenset({"t"})
    sql = (
        "WITH c AS MATERIALIZED (SELECT k, sum(v) AS s FROM t GROUP BY k)"
        " SELECT x.k, u.w FROM (SELECT a.k, b.s FROM c AS a JOIN c AS b ON a.k = b.k) AS x JOIN u ON u.w = x.s"
    )
    graph = graph_of(context, sql)
    inside = [o for o in graph.operators if " AS MATERIALIZED (" in o.sql]
    assert len(inside) == 1
    assert inside[0].sql.startswith("WITH cte")
    assert_same(fetch(context.connection, sql), Simulation(context, context.plan(sql)).run())


def test_operators_come_producers_first_and_the_sink_last(context: FakeContext) -> None:
    graph = graph_of(context, JOINED)
    order = [o.operator_id for o in graph.operators]
    assert all(order.index(e.source) < order.index(e.target) for e in graph.edges)
    assert order[-1] == graph.sink
    assert graph.ordered


def test_buckets_are_more_than_tasks_unless_their_number_is_forced(context: FakeContext) -> None:
    context.settings = PlanSettings(broadcast_bytes=0, gather_rows=0)
    assert {e.partitions for e in graph_of(context, "SELECT k, sum(v) FROM t GROUP BY k").edges} == {12}
    context.settings = forced(5)
    graph = graph_of(context, "SELECT k, sum(v) FROM t GROUP BY k")
    assert {e.partitions for e in graph.edges} == {5}
    assert {o.parallelism for o in graph.operators} == {5}


def test_a_bucket_of_the_largest_edge_fits_the_memory_grant(connection: duckdb.DuckDBPyConnection) -> None:
    """And all HASH edges have as many buckets, as what is joined bucket by bucket must."""
    large = FakeContext(connection, agents=3, factor=1_000_000)
    large.settings = PlanSettings(broadcast_bytes=0, gather_rows=0, repeat_rows=0, grant_bytes=128 << 20)
    edges = [e for e in graph_of(large, "SELECT t.k, u.w FROM t JOIN u USING (k)").edges if e.edge_type == "hash"]
    (buckets,) = {e.partitions for e in edges}
    assert buckets == -(-2 * max(e.bytes_estimated for e in edges) // (128 << 20))
    assert 12 < buckets <= 256
    large.settings = replace(large.settings, grant_bytes=1)
    edges = [e for e in graph_of(large, "SELECT t.k, u.w FROM t JOIN u USING (k)").edges if e.edge_type == "hash"]
    assert {e.partitions for e in edges} == {256}, "an estimate may be wrong by orders of magnitude"


def test_a_stage_of_the_sessions_memory_is_one_task_there(context: FakeContext) -> None:
    context.placements = {"t": Placement.SESSION}
    graph = graph_of(context, JOINED)
    local = [o for o in graph.operators if o.placement is Placement.SESSION]
    assert [(o.parallelism, len(o.scans)) for o in local] == [(1, 1)]
    assert local[0].scans[0].sliced is False


def test_planning_twice_gives_one_plan(context: FakeContext) -> None:
    assert describe(context.plan(JOINED)) == describe(context.plan(JOINED))
    assert context.plan(JOINED).operator_graph == context.plan(JOINED).operator_graph


# --- fragments as SQL

CONSTRUCTS = [
    "SELECT v FROM (SELECT v FROM t ORDER BY v DESC LIMIT 9) ORDER BY v LIMIT 3",
    "SELECT DISTINCT k, g FROM t WHERE v > 3 LIMIT 4",
    "SELECT k, s FROM (SELECT DISTINCT ON (k) k, s, v FROM t ORDER BY k, v DESC) WHERE k > 2",
    "SELECT sum(x) FROM (SELECT sum(v) AS x FROM t GROUP BY k HAVING sum(v) > 100)",
    "SELECT k + 1, sum(v) FILTER (g = 1), count(DISTINCT s) FROM t GROUP BY k + 1",
    "SELECT k, r FROM (SELECT k, rank() OVER (PARTITION BY g ORDER BY v) AS r FROM t WHERE k > 1) WHERE r < 4",
    "SELECT k, v, sum(sum(v)) OVER (PARTITION BY k) FROM t GROUP BY k, v ORDER BY 3, 2",
    "SELECT count(*) FROM (SELECT * FROM t LIMIT 17 OFFSET 3)",
    "SELECT a.v, b.w, c.name FROM t AS a LEFT JOIN (u AS b JOIN small AS c ON b.k = c.k) ON a.k = b.w",
    "SELECT v FROM t WHERE k IN (SELECT k FROM u) AND (n IS NULL OR n NOT IN (SELECT n FROM u WHERE n > 2))",
    "SELECT unnest([k, g]) AS x, v FROM t WHERE v < 5 ORDER BY v, x",
    "SELECT k FROM t UNION (SELECT w FROM u EXCEPT SELECT k FROM small) ORDER BY 1 LIMIT 8",
    "SELECT k, g, sum(v), GROUPING(k, g) FROM t GROUP BY CUBE (k, g)",
    "WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM r WHERE i < 9) SELECT k FROM r JOIN t ON v = i",
    "SELECT e.v, l.v FROM early AS e ASOF LEFT JOIN late AS l ON e.k = l.k AND e.at >= l.at",
    "SELECT t.v, (SELECT name FROM small WHERE small.k = t.k) FROM t",
    "SELECT {'a': k}.a, [v][1], (v::VARCHAR)[1:2], CASE WHEN k > 3 THEN 'x' END, v BETWEEN 3 AND 9, s LIKE '1%' FROM t",
    "SELECT t.*, q.x FROM t, LATERAL (SELECT max(w) AS x FROM u WHERE u.k = t.k) AS q",
    "SELECT v FROM t WHERE NOT (k = 1 OR (g = 2 AND NOT n = 3)) AND v IS DISTINCT FROM n",
    "SELECT k, list(v ORDER BY v DESC)[1:3], string_agg(s, '-' ORDER BY v) FROM t GROUP BY k",
]


@pytest.mark.parametrize("sql", CONSTRUCTS)
@pytest.mark.parametrize("rewritten", [False, True], ids=["built", "rewritten"])
def test_a_plan_written_back_gives_the_rows_of_the_query(context: FakeContext, sql: str, rewritten: bool) -> None:
    query = build(context.export(sql), context)
    text = written(context, prune(apply_rules(query.root, query.names)) if rewritten else query.root)
    expected, actual = fetch(context.connection, sql), fetch(context.connection, text)
    assert query.output == tuple(expected.columns)
    assert actual.types == expected.types
    assert sorted(map(repr, actual.rows)) == sorted(map(repr, expected.rows)), text
    if "ORDER BY" in sql.rpartition(")")[2]:
        assert actual.rows == expected.rows


def written(context: FakeContext, root: Node) -> str:
    scans: list[Scan] = []

    def leaf(node: Node) -> str:
        assert isinstance(node, Scan)
        scans.append(node)
        return f"scan_{len(scans) - 1}"

    text = FragmentWriter(leaf, (Scan,)).write(root)
    bindings = []
    for i, scan in enumerate(scans):
        relation, columns = context.relations[scan.source.source_id]
        bindings.append((f"scan_{i}", scan.names, f"SELECT {', '.join(map(quote, columns))} FROM {relation}"))
    return task_sql(text, bindings)


# --- tables that are clustered


def clustered(context: FakeContext) -> FakeContext:
    """t and u look as if they were written in the order of v and w, in row groups of 50 and of 20 rows."""
    context.clustered = {
        ("t", "v"): tuple(Zone(i * 50, i * 50 + 49, 50) for i in range(4)),
        ("u", "w"): tuple(Zone(i * 20, i * 20 + 19, 20) for i in range(3)),
    }
    return context


CLUSTERED = {
    "group": "SELECT v, count(*), sum(f) FROM t GROUP BY v",
    "group by more": "SELECT v, k, count(*) FROM t GROUP BY v, k",
    "distinct": "SELECT DISTINCT v, s FROM t",
    "window": "SELECT v, sum(f) OVER (PARTITION BY v) FROM t",
    "join": "SELECT t.s, u.s FROM t JOIN u ON t.v = u.w",
    "left join": "SELECT t.s, u.s FROM t LEFT JOIN u ON t.v = u.w",
    "right join": "SELECT t.s, u.s FROM t RIGHT JOIN u ON t.v = u.w",
    "full join": "SELECT t.s, u.s FROM t FULL JOIN u ON t.v = u.w",
    "semi join": "SELECT t.s FROM t SEMI JOIN u ON t.v = u.w",
    "anti join": "SELECT t.s FROM t ANTI JOIN u ON t.v = u.w",
    "join and group": "SELECT t.v, count(*) FROM t JOIN u ON t.v = u.w GROUP BY t.v",
    "padded and group": "SELECT u.w, count(*) FROM t LEFT JOIN u ON t.v = u.w GROUP BY u.w",
    "full and group": "SELECT t.v, count(*) FROM t FULL JOIN u ON t.v = u.w GROUP BY t.v",
    "rollup": "SELECT v, k, count(*) FROM t GROUP BY ROLLUP (v, k)",
    "another key": "SELECT t.s, u.s FROM t JOIN u ON t.v = u.k",
}


@pytest.mark.parametrize("name", CLUSTERED)
def test_tables_cut_by_value_give_the_same_rows(context: FakeContext, name: str) -> None:
    plan = clustered(context).plan(CLUSTERED[name])
    assert_same(fetch(context.connection, CLUSTERED[name]), Simulation(context, plan).run())


@pytest.mark.parametrize("name", ["group", "group by more", "distinct", "window"])
def test_a_clustered_table_is_grouped_without_moving_a_row(context: FakeContext, name: str) -> None:
    graph = graph_of(clustered(context), CLUSTERED[name])
    assert not graph.edges
    (scan,) = graph.operators[0].scans
    assert scan.split is not None
    assert (scan.split.column, scan.split.parts) == ("v", 3)


def test_tables_clustered_alike_join_without_moving_a_row(context: FakeContext) -> None:
    context.clustered = {
        ("t", "v"): tuple(Zone(i * 50, i * 50 + 49, 50) for i in range(4)),
        ("u", "w"): tuple(Zone(i * 20, i * 20 + 19, 20) for i in range(10)),
    }
    graph = graph_of(context, "SELECT t.v, u.s FROM t JOIN u ON t.v = u.w")
    assert not graph.edges
    assert len({s.split for o in graph.operators for s in o.scans if s.split is not None and s.split.bounds}) == 2
    assert len({s.split.bounds for o in graph.operators for s in o.scans if s.split is not None}) == 1


@pytest.mark.parametrize(
    "zones",
    [
        (Zone(0, 60, 60), Zone(50, 199, 140)),
        (Zone(0, 199, 200),),
        (Zone(100, 199, 100), Zone(0, 99, 100)),
        (Zone(0, 0, 190), Zone(1, 199, 10)),
    ],
    ids=["overlap", "one", "out of order", "one value"],
)
def test_zones_that_cannot_be_cut_evenly_are_not_cut(context: FakeContext, zones: tuple[Zone, ...]) -> None:
    context.clustered = {("t", "v"): zones}
    graph = graph_of(context, CLUSTERED["group"])
    assert [e.edge_type for e in graph.edges] == [ShuffleEdgeType.HASH]
