"""How each aggregate is computed in two phases: partly where the rows are, finally where the groups meet.

Distributive aggregates are re-aggregated plainly. Those with a state of constant size travel as DuckDB's aggregate
state, a plain number or struct on an Arrow edge. The others have no state smaller than their rows, or one that cannot
be combined rightly, so their rows travel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.logical.node import Computed
from sabot_planner.sql.dialect import call, data_type, function_call
from sabot_planner.sql.duck_type import LOST_IN_STATES, STATE, DuckType
from sabot_planner.sql.scalars import cast, column

_REAGGREGATED = {
    "count": "sum",
    "count_star": "sum",
    "count_if": "sum",
    "countif": "sum",
    "min": "min",
    "max": "max",
    "sum": "sum",
    "sum_no_overflow": "sum",
    "bool_and": "bool_and",
    "bool_or": "bool_or",
    "bit_and": "bit_and",
    "bit_or": "bit_or",
    "bit_xor": "bit_xor",
    "product": "product",
}
_IN_ORDER = frozenset({"any_value", "first", "last", "arbitrary"})
"""What they give depends on the order of the rows: parts are put together in the order of the tasks."""

_LISTS = frozenset({"list", "array_agg", "string_agg", "group_concat", "listagg"})
"""They keep the order of their rows, which DuckDB gives them as the source has it."""

_COUNTS = frozenset({"count", "count_star"})
"""0 over no row; count_if is NULL there."""
_STATES = frozenset(
    [
        "avg",
        "mean",
        "favg",
        "fsum",
        "sumkahan",
        "kahan_sum",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "var_samp",
        "var_pop",
        "sem",
        "skewness",
        "kurtosis",
        "kurtosis_pop",
        "covar_samp",
        "covar_pop",
        "corr",
        "regr_avgx",
        "regr_avgy",
        "regr_count",
        "regr_intercept",
        "regr_r2",
        "regr_slope",
        "regr_sxx",
        "regr_sxy",
        "regr_syy",
        "arg_min",
        "arg_max",
        "arg_min_null",
        "arg_max_null",
        "argmin",
        "argmax",
        "min_by",
        "max_by",
        "approx_count_distinct",
    ]
)
_ARITY = {
    "min": 1,
    "max": 1,
    "arg_min": 2,
    "arg_max": 2,
    "arg_min_null": 2,
    "arg_max_null": 2,
    "argmin": 2,
    "argmax": 2,
    "min_by": 2,
    "max_by": 2,
}
"""With one argument more they keep n values, and have no state to export."""


@dataclass(frozen=True, slots=True)
class TwoPhase:
    """``partial`` is a column of the first phase; ``final`` is the result over it, grouped again."""

    partial: Computed
    final: Computed


@dataclass(frozen=True, slots=True)
class PhaseNames:
    """``partial`` names a column of the first phase, ``ordinal`` that which numbers its rows in task order."""

    partial: str
    ordinal: str


def two_phase(aggregate: Computed, argument_types: Sequence[DuckType], names: PhaseNames) -> TwoPhase | None:
    """The two phases of one aggregate call, None where its rows must travel.

    The types are DuckDB's; a state is read back by the exact signature, or DuckDB stops with an internal error.
    """
    node, result_type = aggregate.expression, aggregate.type
    found = function_call(node)
    if found is None or type(node) is exp.Window:
        return None
    name, arguments = found
    if node.args.get("distinct") or node.args.get("order") is not None or node.args.get("nulls"):
        return None
    if len(arguments) > _ARITY.get(name, len(arguments)) or node.args.get("export_state"):
        return None
    part = column(names.partial)
    again = _REAGGREGATED.get(name)
    if again is not None:
        final: exp.Expression = call(again, part)
        if name in _COUNTS:
            # Over no partial row at all a count is 0, but a sum is NULL.
            final = exp.Coalesce(this=final, expressions=[exp.Literal(this="0", is_string=False)])
        return _phases(names.partial, node, aggregate, cast(final, result_type))
    if name in _IN_ORDER and node.args.get("filter") is None:
        first = in_order(call(name, part), names.ordinal)
        return _phases(names.partial, node, aggregate, cast(first, result_type))
    if name not in _STATES or any(not t.kinds.isdisjoint(LOST_IN_STATES) for t in argument_types):
        return None
    state = exp.Anonymous(**{**node.args, "export_state": True})
    types = call("list_value", *(exp.Literal(this=t.text, is_string=True) for t in argument_types))
    constants = call("list_value", *(exp.Null() for _ in argument_types))
    read = call("to_aggregate_state", part, exp.Literal(this=name, is_string=True), types, constants)
    final = call("finalize", call("combine_aggr", read))
    return _phases(names.partial, state, aggregate, final)


def _phases(partial: str, first: exp.Expression, aggregate: Computed, final: exp.Expression) -> TwoPhase:
    kind = STATE if first.args.get("export_state") else aggregate.type
    return TwoPhase(Computed(partial, first, kind), Computed(aggregate.name, final, aggregate.type))


def merged(partial: Computed) -> exp.Expression | None:
    """What makes one partial result of several, in the type they have; None where their order would matter."""
    found = function_call(partial.expression)
    if found is None or found[0] in _IN_ORDER:
        return None
    again = column(partial.name)
    if partial.expression.args.get("export_state"):
        return call("combine_aggr", again)
    if found[0] in _COUNTS:
        return exp.Cast(this=call("sum", again), to=data_type("BIGINT"))
    return call(_REAGGREGATED[found[0]], again)


def depends_on_order(aggregate: Computed) -> bool:
    """Whether the aggregate's value depends on the order of its rows, which it does not fix itself."""
    found = function_call(aggregate.expression)
    return (
        found is not None and found[0] in _IN_ORDER | _LISTS and aggregate.expression.args.get("order") is None
    ) and not aggregate.expression.args.get("distinct")


def in_order(aggregate: exp.Expression, ordinal: str) -> exp.Expression:
    """The aggregate call over its rows in the order of the column ``ordinal``."""
    order = exp.Order(expressions=[exp.Ordered(this=column(ordinal), desc=False, nulls_first=False)])
    return exp.Anonymous(**{**aggregate.args, "order": order})


def is_in_order(aggregate: Computed) -> bool:
    """Whether its parts are put together in the order of the tasks, so that one without rows must be silent."""
    found = function_call(aggregate.expression)
    return found is not None and found[0] in _IN_ORDER


def describe(aggregate: Computed) -> str:
    """The aggregate's name for people, whatever its call is wrapped in."""
    node = aggregate.expression
    while type(node) in (exp.Cast, exp.Coalesce):
        node = node.args["this"]
    found = function_call(node)
    if found is None:
        return "aggregate"
    name, arguments = found
    if name == "finalize":
        return str(arguments[0].args["expressions"][0].args["expressions"][1].args["this"])
    return name
