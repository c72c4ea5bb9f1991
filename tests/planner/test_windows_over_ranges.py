"""Windows without PARTITION BY, over ranges: DuckDB's rows, with no operator that sees all of them."""

from __future__ import annotations

from datetime import datetime

import pytest

from sabot_planner import Mode
from sabot_planner.job.plan import Zone
from tests.planner.context import FakeContext, describe, forced
from tests.planner.simulate import Simulation
from tests.support.compare import difference
from tests.support.oracle import fetch

GLOBAL_WINDOWS = {
    "row_number": "SELECT v, row_number() OVER (ORDER BY v DESC) FROM t",
    "ties": "SELECT v, rank() OVER (ORDER BY g, k), dense_rank() OVER (ORDER BY g, k) FROM t",
    "one value": "SELECT v, rank() OVER (ORDER BY v * 0), count(*) OVER (ORDER BY v * 0) FROM t",
    "NULL order": "SELECT v, row_number() OVER (ORDER BY n NULLS FIRST, v), rank() OVER (ORDER BY n NULLS"
    " FIRST, v) FROM t",
    "running sums": "SELECT v, sum(v) OVER (ORDER BY v), sum(n) OVER (ORDER BY v), count(n) OVER (ORDER BY v) FROM t",
    "NULL at first": "SELECT w, sum(CASE WHEN w > 40 THEN w END) OVER (ORDER BY w) FROM u",
    "running extremes": "SELECT v, min(n) OVER (ORDER BY v DESC), max(s) OVER (ORDER BY v DESC) FROM t",
    "NaN": "SELECT v, min(x) OVER (ORDER BY v), max(x) OVER (ORDER BY v) FROM"
    " (SELECT v, CASE WHEN v % 50 = 3 THEN 'nan'::DOUBLE ELSE f END AS x FROM t)",
    "decimals": "SELECT v, sum(v::DECIMAL(9, 2)) OVER (ORDER BY v) FROM t",
    "peers": "SELECT v, sum(v) OVER (ORDER BY g RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
    "rows": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
    "lag": "SELECT v, lag(v) OVER (ORDER BY v), lead(v, 2) OVER (ORDER BY v) FROM t",
    "ntile": "SELECT v, ntile(7) OVER (ORDER BY v), cume_dist() OVER (ORDER BY v), percent_rank() OVER (ORDER"
    " BY v) FROM t",
    "whole": "SELECT v, sum(v) OVER (), count(*) OVER () FROM t",
    "two orders": "SELECT v, row_number() OVER (ORDER BY v), rank() OVER (ORDER BY k) FROM t",
    "whole without order": "SELECT v, avg(f) OVER (), median(v) OVER (), count(DISTINCT g) OVER (), rank()"
    " OVER () FROM t",
    "whole in order": "SELECT v, list(v) OVER (ORDER BY v DESC"
    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING),"
    " first_value(v) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t",
    "source order": "SELECT v, row_number() OVER () FROM t",
    "source order and more": "SELECT row_number() OVER (), sum(v) OVER (), lag(v) OVER (), first_value(v) OVER (),"
    " sum(v) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
    "far lag": "SELECT v, lag(v, 70) OVER (ORDER BY v), lead(v, 95, -1) OVER (ORDER BY v), lag(v, -2)"
    " OVER (ORDER BY v) FROM t",
    "lag past nulls": "SELECT v, lag(n, 2 IGNORE NULLS) OVER (ORDER BY v), lead(n IGNORE NULLS)"
    " OVER (ORDER BY v) FROM t",
    "lag of ties": "SELECT k, lag(k, 3) OVER (ORDER BY k), lead(k, 50) OVER (ORDER BY k) FROM t",
    "rows around": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING),"
    " median(f) OVER (ORDER BY v ROWS BETWEEN 40 PRECEDING AND CURRENT ROW),"
    " list(v) OVER (ORDER BY v ROWS BETWEEN 2 FOLLOWING AND 4 FOLLOWING) FROM t",
    "empty frames": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN 3 FOLLOWING AND 1 FOLLOWING) FROM t",
    "excluded": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN 3 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW),"
    " count(*) OVER (ORDER BY k GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES),"
    " sum(v) OVER (ORDER BY k RANGE UNBOUNDED PRECEDING EXCLUDE GROUP) FROM t",
    "groups": "SELECT k, v, sum(v) OVER (ORDER BY k GROUPS BETWEEN 2 PRECEDING AND 1 FOLLOWING) FROM t",
    "values": "SELECT k, v, sum(v) OVER (ORDER BY k RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING),"
    " count(*) OVER (ORDER BY n DESC NULLS FIRST RANGE BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t",
    "days": "SELECT v, count(*) OVER (ORDER BY d RANGE BETWEEN INTERVAL 1 MONTH PRECEDING AND INTERVAL 3 DAY FOLLOWING)"
    " FROM (SELECT v, DATE '2024-01-31' + CAST(v AS INTEGER) AS d FROM t)",
    "to the end": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING),"
    " min(n) OVER (ORDER BY v DESC RANGE BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING),"
    " last_value(n) OVER (ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t",
    "up to other rows": "SELECT v, sum(v) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),"
    " count(n) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND 60 FOLLOWING),"
    " count(*) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND 90 PRECEDING) FROM t",
    "from other rows": "SELECT v, min(n) OVER (ORDER BY v ROWS BETWEEN 2 FOLLOWING AND UNBOUNDED FOLLOWING),"
    " sum(f) OVER (ORDER BY v DESC ROWS BETWEEN 150 PRECEDING AND UNBOUNDED FOLLOWING),"
    " count(*) FILTER (k = 1) OVER (ORDER BY v ROWS BETWEEN 3 FOLLOWING AND UNBOUNDED FOLLOWING) FROM t",
    "ends": "SELECT v, first_value(v) OVER (ORDER BY v), last_value(v) OVER (ORDER BY v),"
    " first_value(n IGNORE NULLS) OVER (ORDER BY v), last_value(n IGNORE NULLS) OVER (ORDER BY v),"
    " first_value(n IGNORE NULLS) OVER (ORDER BY v ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t",
    "nth of the first": "SELECT v, nth_value(v, 3) OVER (ORDER BY v), nth_value(n, 80) OVER (ORDER BY v),"
    " nth_value(v, 201) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t",
    "nth": "SELECT v, nth_value(v, 2) OVER (ORDER BY v ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING) FROM t",
    "running average": "SELECT v, avg(v) OVER (ORDER BY v), avg(n) FILTER (k > 1) OVER (ORDER BY v),"
    " avg(v::DECIMAL(9, 2)) OVER (ORDER BY k) FROM t",
    "running bits": "SELECT v, bool_and(n > 1) OVER (ORDER BY v), bool_or(n > 5) OVER (ORDER BY v),"
    " bit_xor(v) OVER (ORDER BY v), count(*) FILTER (n > 1) OVER (ORDER BY v) FROM t",
    "more buckets than rows": "SELECT v, ntile(1000) OVER (ORDER BY v), ntile(1) OVER (ORDER BY v) FROM t",
    "peers alone": "SELECT k, sum(v) OVER (ORDER BY k RANGE BETWEEN CURRENT ROW AND CURRENT ROW),"
    " count(*) OVER (ORDER BY k GROUPS BETWEEN CURRENT ROW AND CURRENT ROW) FROM t",
    "fill": "SELECT v, fill(n) OVER (ORDER BY v) FROM (SELECT v, CASE WHEN v % 3 = 0 THEN v * v END AS n FROM t)",
    "qualify": "SELECT v FROM t QUALIFY v - lag(v, 1, 0) OVER (ORDER BY v) > 1",
    "moving over groups": "SELECT k, sum(sum(v)) OVER (ORDER BY k ROWS 1 PRECEDING) FROM t GROUP BY k",
    "moving and no rows": "SELECT v, lag(v) OVER (ORDER BY v), sum(v) OVER (ORDER BY v ROWS 1 PRECEDING)"
    " FROM t WHERE v * v = 7",
    "no rows": "SELECT v, row_number() OVER (ORDER BY v) FROM t WHERE v * v = 7",
    "above a join": "SELECT t.v, u.w, row_number() OVER (ORDER BY t.v, u.w) FROM t JOIN u ON t.k = u.k",
    "above a group by": "SELECT k, rank() OVER (ORDER BY sum(v) DESC) FROM t GROUP BY k",
}

GATHERED = {
    "no state": "SELECT v, stddev(v) OVER (ORDER BY v) FROM t",
    "distinct": "SELECT v, count(DISTINCT k) OVER (ORDER BY v) FROM t",
    "an end in groups": "SELECT v, sum(v) OVER (ORDER BY k GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) FROM t",
    "reach by row": "SELECT v, lag(v, k) OVER (ORDER BY v) FROM t",
    "too far": "SELECT v, lag(v, 1000000) OVER (ORDER BY v) FROM t",
    "peers beside rows": "SELECT k, count(*)"
    " OVER (ORDER BY k ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE GROUP) FROM t",
    "nth from the row on": "SELECT v, nth_value(v, 3) OVER (ORDER BY v"
    " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) FROM t",
    "order inside": "SELECT v, lag(v ORDER BY v) OVER (ORDER BY k) FROM t",
    "time zone": "SELECT v, count(*) OVER (ORDER BY d RANGE INTERVAL 1 DAY PRECEDING)"
    " FROM (SELECT v, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_hours(CAST(v AS INTEGER)) AS d FROM t)",
    "a union": "SELECT k, row_number() OVER () FROM (SELECT k FROM t UNION ALL SELECT k FROM u)",
}
LISTED = {"whole in order", "whole without order"}
"""What keeps all values, a list or a median, is made in one place and handed to all rows."""


@pytest.mark.parametrize("ranges", [1, 3, 7])
@pytest.mark.parametrize("name", GLOBAL_WINDOWS)
def test_windows_over_ranges(context: FakeContext, name: str, ranges: int) -> None:
    context.settings = forced(ranges)
    plan = context.plan(GLOBAL_WINDOWS[name])
    assert plan.mode is (Mode.PARTLY if name in LISTED else Mode.DISTRIBUTED), describe(plan)
    assert not any("needs all rows in order" in edge.reason for edge in plan.operator_graph.edges)
    compare(context, GLOBAL_WINDOWS[name])


@pytest.mark.parametrize("name", GATHERED)
def test_what_does_not_carry_over_sees_all_rows(context: FakeContext, name: str) -> None:
    plan = context.plan(GATHERED[name])
    assert plan.mode is Mode.PARTLY, describe(plan)
    assert plan.reason == "a window without PARTITION BY needs all rows in order"
    compare(context, GATHERED[name])


def test_few_rows_are_not_worth_ranges(context: FakeContext) -> None:
    context.settings = forced(None)
    sql = "SELECT v, lag(v) OVER (ORDER BY v) FROM t"
    assert context.plan(sql).mode is Mode.PARTLY
    large = FakeContext(context.connection, settings=forced(None), factor=10_000)
    assert large.plan(sql).mode is Mode.DISTRIBUTED


def test_lag_and_row_number_agree_on_the_order_of_ties(context: FakeContext) -> None:
    """Rows that are equal in the order may come in any, but in the same for all columns and across ranges."""
    context.settings = forced(3)
    sql = "SELECT v, row_number() OVER (ORDER BY k), lag(v) OVER (ORDER BY k), lead(v, 2) OVER (ORDER BY k) FROM t"
    rows = Simulation(context, context.plan(sql)).run().rows
    by_number = {number: v for v, number, _, _ in rows}
    assert sorted(by_number) == list(range(1, 201))
    for _, number, before, after in rows:
        assert before == by_number.get(number - 1)
        assert after == by_number.get(number + 2)


def test_rows_keep_the_order_of_the_window(context: FakeContext) -> None:
    sql = "SELECT v, lag(v) OVER (ORDER BY v DESC), sum(v) OVER (ORDER BY v DESC) FROM t"
    assert [row[0] for row in Simulation(context, context.plan(sql)).run().rows] == list(range(199, -1, -1))


def test_rows_are_numbered_in_the_order_of_the_source(context: FakeContext) -> None:
    sql = "SELECT row_number() OVER () AS n, v FROM t WHERE v % 3 <> 1"
    assert Simulation(context, context.plan(sql)).run().rows == fetch(context.connection, sql).rows


def compare(context: FakeContext, sql: str) -> None:
    """Demand DuckDB's rows."""
    plan = context.plan(sql)
    found = difference(fetch(context.connection, sql), Simulation(context, plan).run())
    assert found is None, f"{found}\n{describe(plan)}"


def test_a_halo_of_most_days_is_none(context: FakeContext) -> None:
    first, last = datetime(2024, 1, 1), datetime(2024, 1, 10)
    clustered = FakeContext(
        context.connection, settings=forced(3), clustered={("early", "at"): (Zone(first, last, 80),)}
    )
    for interval, mode in (("1 HOUR", Mode.DISTRIBUTED), ("1 DAY", Mode.DISTRIBUTED), ("1 MONTH", Mode.PARTLY)):
        sql = f"SELECT v, count(*) OVER (ORDER BY early.at RANGE INTERVAL {interval} PRECEDING) FROM early"
        assert clustered.plan(sql).mode is mode
        compare(clustered, sql)


@pytest.mark.parametrize(
    ("frame", "mode"),
    [
        ("20 PRECEDING AND CURRENT ROW", Mode.DISTRIBUTED),
        ("90 PRECEDING AND CURRENT ROW", Mode.PARTLY),
        ("5 PRECEDING AND 40 FOLLOWING", Mode.PARTLY),
        ("90 PRECEDING AND UNBOUNDED FOLLOWING", Mode.PARTLY),
    ],
)
def test_a_halo_of_most_rows_is_none(context: FakeContext, frame: str, mode: Mode) -> None:
    """Where statistics tell how far a distance reaches: 200 values over three ranges."""
    zones = tuple(Zone(low, low + 49, 50) for low in range(0, 200, 50))
    clustered = FakeContext(context.connection, settings=forced(3), clustered={("t", "v"): zones})
    sql = f"SELECT x, sum(x) OVER (ORDER BY x RANGE BETWEEN {frame}) FROM (SELECT v AS x FROM t WHERE k > 1)"
    assert clustered.plan(sql).mode is mode
    compare(clustered, sql)
