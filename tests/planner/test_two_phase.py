"""Every aggregate of DuckDB either gives its result in two phases over split data, or its rows travel."""

from __future__ import annotations

import re
from collections.abc import Iterator

import duckdb
import pytest

from sabot_planner import QueryPlan
from tests.planner.context import FakeContext, forced
from tests.planner.simulate import Simulation
from tests.support.compare import assert_same
from tests.support.oracle import Oracle, Verdict, fetch

TABLE = """
CREATE TYPE shade AS ENUM ('dark', 'mid', 'light');
CREATE TABLE x AS
SELECT
    i % 4 AS g, i % 3 = 0 AS flag, (i % 100)::TINYINT AS tiny, (i * 7 % 97)::INTEGER AS int, i * 1000003 AS big,
    (i * 17 % 97)::HUGEINT * 10000000000000000000 AS huge, (i * 31 % 97)::UBIGINT AS unsigned, i * 1.25 - 40 AS wide,
    (i * 13 % 101 / 7)::DOUBLE AS double, (i / 2)::FLOAT AS float, (i * 3.17)::DECIMAL(10, 2) AS decimal,
    'text ' || (i * 29 % 97) AS text, ('b' || i)::BLOB AS blob, i::BIT AS bits,
    DATE '2024-01-01' + (i * 37 % 300)::INTEGER AS date, TIMESTAMP '2024-01-01' + to_minutes(i * 41 % 999) AS moment,
    TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_minutes(i * 43 % 999) AS instant,
    TIME '01:00:00' + to_seconds(i * 47 % 999) AS clock, to_seconds(i * 53 % 999) AS span,
    ('00000000-0000-0000-0000-0000000000' || lpad((i * 7 % 99)::VARCHAR, 2, '0'))::UUID AS ident,
    (['dark', 'mid', 'light'])[i % 3 + 1]::shade AS shade, [i % 5, i % 2] AS list, {'a': i % 6} AS struct
FROM (SELECT CASE WHEN r % 11 > 0 THEN r END AS i FROM range(90) AS r(r));
"""
"""Every value stands once but for flag, shade, list and struct, so that nothing hangs on which of equals is taken."""
CARRIED = re.findall(r" AS (\w+)[,\n]", TABLE)[1:-2]
"""Columns whose values come through an aggregate state as they were; ENUM and nested ones do not."""
CARRIED.remove("shade")
OTHERS = ["shade", "list", "struct"]

DISTRIBUTIVE = [
    "count",
    "count_if",
    "min",
    "max",
    "sum",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
    "product",
]
WITH_STATE = [
    *("avg", "mean", "favg", "fsum", "kahan_sum", "sumkahan", "stddev", "stddev_samp", "stddev_pop", "variance"),
    *("var_samp", "var_pop", "sem", "skewness", "kurtosis", "kurtosis_pop", "covar_samp", "covar_pop", "corr"),
    *("regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy"),
    *("regr_syy", "arg_min", "arg_max", "argmin", "argmax", "min_by", "max_by", "approx_count_distinct"),
    *("arg_min_null", "arg_max_null"),
]
OF_EVERY_TYPE = [
    "min",
    "max",
    "sum",
    "avg",
    "count",
    "count_if",
    "bool_and",
    "bit_or",
    "arg_max",
    "approx_count_distinct",
]
"""The others have the same states as one of these, or take few types."""
ALL_VALUES = [
    "median",
    "quantile",
    "quantile_cont",
    "quantile_disc",
    "mad",
    "list",
    "array_agg",
    "string_agg",
    "listagg",
]
WITHOUT_STATE = ["approx_quantile", "approx_top_k", "reservoir_quantile"]

NAMES = [
    row[0]
    for row in duckdb.sql(
        "SELECT DISTINCT lower(function_name) AS n FROM duckdb_functions() WHERE function_type = 'aggregate' ORDER BY n"
    ).fetchall()
]


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    with Oracle([TABLE], threads=1) as oracle:
        yield oracle


NOT_REPEATABLE = {"reservoir_quantile", "mode", "approx_top_k"}


@pytest.fixture(scope="module")
def x() -> Iterator[FakeContext]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(TABLE)
        yield FakeContext(connection, settings=forced(3))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NOT_REPEATABLE])
@pytest.mark.parametrize("columns", [CARRIED, OTHERS], ids=["carried", "others"])
def test_every_aggregate_gives_duckdbs_result_over_split_data(
    x: FakeContext, oracle: Oracle, name: str, columns: list[str]
) -> None:
    in_two = name in DISTRIBUTIVE + WITH_STATE
    columns = columns if name in OF_EVERY_TYPE else columns[::3]
    calls = [call for call in _calls(name, columns) if _binds(x, call)]
    if calls:
        sql = f"SELECT g, {', '.join(calls)} FROM x GROUP BY {'GROUPING SETS ((g), ())' if in_two else 'g'}"
        plan = x.planned(sql)
        if isinstance(plan, QueryPlan):
            # The order of a list, the last row: DuckDB itself may answer otherwise.
            verdict, why = oracle.judge(sql, Simulation(x, plan).run())
            assert verdict is not Verdict.WRONG, why


@pytest.mark.parametrize("name", DISTRIBUTIVE + WITH_STATE)
def test_what_reduces_does_not_travel_as_rows(x: FakeContext, name: str) -> None:
    assert "GROUP BY" in _before_the_hash(x, name)


@pytest.mark.parametrize("name", ALL_VALUES + WITHOUT_STATE)
def test_what_holds_every_value_or_has_no_state_travels_as_rows(x: FakeContext, name: str) -> None:
    assert "GROUP BY" not in _before_the_hash(x, name)


@pytest.mark.parametrize(
    "call",
    [
        "sum(DISTINCT int)",
        "count(DISTINCT int)",
        "avg(DISTINCT int)",
        "avg(DISTINCT double) FILTER (flag)",
        "first(int ORDER BY double)",
        "list(int ORDER BY double)",
        "string_agg(text, ',' ORDER BY int)",
        "max(int, 2)",
        "min(int, 2)",
        "arg_max(int, double, 2)",
        "arg_min(int, double, 2)",
    ],
)
def test_combining_states_of_distinct_or_ordered_arguments_is_wrong_without_an_error(x: FakeContext, call: str) -> None:
    """Two slices that each count a value once count it twice: 21 for 7."""
    for keys in ("g, ", ""):
        sql = f"SELECT {keys}{call} FROM x{' GROUP BY g' if keys else ''}"
        assert_same(fetch(x.connection, sql), Simulation(x, x.plan(sql)).run())


@pytest.mark.parametrize(
    "select",
    [
        "sum(int) FILTER (flag), count(*) FILTER (int > 20), avg(double) FILTER (flag), count(*)",
        "g, min(text) FILTER (NOT flag), arg_max(text, int) FILTER (flag), approx_count_distinct(int) FILTER (flag)",
        "any_value(text), count(*), sum(int), avg(double)",
        "count(int) + count(*), sum(int) / count(*), max(double) - min(double)",
        "sum(DISTINCT int), count(DISTINCT text), sum(int), avg(double)",
        "g, sum(DISTINCT int), count(DISTINCT int), count(DISTINCT text), max(text)",
        "g, count(DISTINCT int) FILTER (flag), median(double), count(*)",
    ],
)
@pytest.mark.parametrize("where", ["", "WHERE int * int = 7"])
def test_several_aggregates_side_by_side_also_over_no_rows(x: FakeContext, select: str, where: str) -> None:
    sql = f"SELECT {select} FROM x {where}{' GROUP BY g' if select.startswith('g,') else ''}"
    assert_same(fetch(x.connection, sql), Simulation(x, x.plan(sql)).run())


@pytest.mark.parametrize(
    "sets",
    ["ROLLUP (g, flag)", "CUBE (g, flag, shade)", "GROUPING SETS ((g), (flag), ())", "GROUPING SETS ((g, flag), (g))",
     "CUBE (g, flag, g)", "GROUPING SETS ((g), (g))", "g, ROLLUP (flag)"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["", "WHERE int * int = 7"])
def test_grouping_sets_keep_their_id_between_the_phases(x: FakeContext, sets: str, where: str) -> None:
    """NULL as a value and NULL as 'all' are different groups; a set that stands twice comes out twice."""
    for extra in ("", ", median(double)"):
        sql = (
            f"SELECT g, flag, GROUPING(g, flag), sum(int), avg(double), count(*){extra} FROM x {where} GROUP BY {sets}"
        )
        if "flag" not in sets:
            sql = sql.replace("g, flag, GROUPING(g, flag)", "g, GROUPING(g)")
        assert_same(fetch(x.connection, sql), Simulation(x, x.plan(sql)).run())


@pytest.mark.parametrize(("sets", "in_levels"), [("ROLLUP (g, flag)", True), ("GROUPING SETS ((g), (flag))", False)])
def test_grouping_sets_are_formed_over_the_groups_of_all_keys(x: FakeContext, sets: str, in_levels: bool) -> None:
    """A row enters one hash table, not one per set, where a set has all keys; states of groups are small."""
    plan = x.plan(f"SELECT g, flag, avg(int), count(*) FROM x GROUP BY {sets}")
    first = plan.operator_graph.operator(plan.operator_graph.edges[0].source).sql
    assert ("combine_aggr(" in first) == in_levels, first


WHOLE_GROUPS = [
    "count(DISTINCT int)",
    "sum(int), count(DISTINCT int), count(DISTINCT text), avg(double)",
    "median(double), count(*)",
    "count(DISTINCT int) FILTER (flag), list(int ORDER BY double), sum(big)",
]


@pytest.mark.parametrize("aggregates", WHOLE_GROUPS)
@pytest.mark.parametrize(
    "sets",
    ["ROLLUP (g, flag)", "CUBE (g, flag, shade)", "GROUPING SETS ((g), (flag), (shade, g))", "g, CUBE (flag, shade)",
     "GROUPING SETS ((g, flag), (shade), (), ())", "GROUPING SETS ((g), (g), (flag))", "ROLLUP (g), ROLLUP (flag)"],
)  # fmt: skip
@pytest.mark.parametrize("where", ["", "WHERE int * int = 7"])
def test_grouping_sets_of_whole_groups_move_by_the_keys_that_they_share(
    x: FakeContext, aggregates: str, sets: str, where: str
) -> None:
    """No rows at all still give the empty set's group, once for each time that it stands there."""
    keys = [key for key in ("g", "flag", "shade") if key in sets]
    listed = ", ".join(keys)
    sql = f"SELECT {listed}, GROUPING({listed}), GROUPING({keys[-1]}), {aggregates} FROM x {where} GROUP BY {sets}"
    plan = x.plan(sql)
    one_task = "()" in sets or sets.startswith(("ROLLUP", "CUBE"))
    assert plan.mode == ("partly" if one_task and ("median" in sql or "FILTER" in sql) else "distributed"), plan.reason
    simulation = Simulation(x, plan)
    assert_same(fetch(x.connection, sql), simulation.run())


def test_a_key_of_all_sets_places_their_rows(x: FakeContext) -> None:
    plan = x.plan("SELECT g, flag, count(DISTINCT int) FROM x GROUP BY g, ROLLUP (flag)")
    (edge,) = plan.operator_graph.edges
    assert (edge.edge_type, edge.keys) == ("hash", ("g",))


def test_sets_without_a_common_key_move_once_for_each_family(x: FakeContext) -> None:
    plan = x.plan("SELECT g, flag, median(int) FROM x GROUP BY GROUPING SETS ((g), (g, flag), (flag))")
    assert sorted((e.edge_type, e.keys) for e in plan.operator_graph.edges) == [("hash", ("flag",)), ("hash", ("g",))]


def test_what_needs_the_statistics_of_a_table_stays_there(x: FakeContext) -> None:
    assert "bitstring_agg" in x.undistributed("SELECT g, bitstring_agg(int) FROM x GROUP BY g")
    assert x.plan("SELECT g, bitstring_agg(int, 0, 99) FROM x GROUP BY g").mode == "distributed"


def test_a_partial_phase_is_one_hash_of_states(x: FakeContext) -> None:
    plan = x.plan("SELECT g, avg(int), sum(big), count(*) FROM x GROUP BY g")
    (edge,) = plan.operator_graph.edges
    assert (edge.edge_type, edge.keys) == ("hash", ("g",))
    first = plan.operator_graph.operator(edge.source).sql
    last = plan.operator_graph.operator(edge.target).sql
    assert "EXPORT_STATE" in first
    assert '"system".main.combine_aggr("system".main.to_aggregate_state(' in last
    assert "EXPORT_STATE" not in first.split("avg")[0], "sums and counts need no state"


def test_the_hash_of_a_partial_phase_costs_a_group_not_a_row(x: FakeContext) -> None:
    sql = "SELECT g, avg(int), sum(big), count(*) FROM x GROUP BY g"
    simulation = Simulation(x, x.plan(sql))
    simulation.run()
    (facts,) = simulation.facts.values()
    assert facts.rows <= 3 * 5


# --- calls of an aggregate that DuckDB accepts


def _calls(name: str, columns: list[str]) -> list[str]:
    if name in ("count_star", "grouping_id"):
        return [f"{name}()"]
    if name.startswith(("quantile", "approx_quantile", "reservoir", "approx_top_k")):
        return [f"{name}({column}, {0.5 if 'quantile' in name else 2})" for column in columns]
    unary = [f"{name}({column})" for column in columns]
    binary = [f"{name}({column}, int)" for column in columns if column != "int"]
    if name.startswith("arg") or name.endswith("_by"):
        binary += [f"{name}(int, {column})" for column in columns if column not in ("int", "flag", *OTHERS)]
    return unary + binary


def _binds(x: FakeContext, call: str) -> bool:
    try:
        x.connection.execute(f"SELECT {call} FROM x")
    except duckdb.Error:
        return False
    return True


def _before_the_hash(x: FakeContext, name: str) -> str:
    """The fragment whose rows are hashed by their group."""
    calls = [*_calls(name, ["double", "int", "flag", "bits", "text"]), f"{name}(int, 0, 99)", f"{name}(text, ',')"]
    plan = x.plan(f"SELECT g, {next(call for call in calls if _binds(x, call))} FROM x GROUP BY g")
    edge = next(e for e in plan.operator_graph.edges if e.edge_type == "hash")
    return plan.operator_graph.operator(edge.source).sql


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("row(int, g)", "partial groups of equal keys must meet"),
        ("row(int, to_hours(3000000 + int))", "arg_min needs its whole group"),
        ("row(int, ['a'])", "arg_min needs its whole group"),
        ("{'i': int}", "arg_min needs its whole group"),
    ],
)
def test_what_is_fragile_inside_of_a_state_is_fragile_inside_of_a_tuple(
    x: FakeContext, value: str, reason: str
) -> None:
    sql = f"SELECT g, arg_min({value}, int) FROM x GROUP BY g"
    plan = x.plan(sql)
    assert [edge.reason for edge in plan.operator_graph.edges] == [reason]
    assert_same(fetch(x.connection, sql), Simulation(x, plan).run())
