"""The planner's one entry: exported SQL in, a query plan out."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.adapt import AdaptivePlan, initial_graph
from sabot_planner.build import build
from sabot_planner.check import check
from sabot_planner.clustering import choose_splits
from sabot_planner.column_types import STATE, ColumnTypes
from sabot_planner.dialect import function_call
from sabot_planner.display import DisplayNames
from sabot_planner.distribute import Distributor, refuse_fragile
from sabot_planner.errors import Undistributable
from sabot_planner.estimate import Estimator
from sabot_planner.logical import (
    Aggregate,
    Computed,
    Distinct,
    Filter,
    Join,
    JoinKind,
    LateralCall,
    Node,
    Project,
    Scan,
    Sort,
    Values,
    Window,
    walk,
)
from sabot_planner.operators import Column
from sabot_planner.physical import Exchange
from sabot_planner.plan import Mode, PlanContext, QueryPlan
from sabot_planner.prune import prune
from sabot_planner.rules import apply_rules
from sabot_planner.scalars import nodes
from sabot_planner.stages import Cut, StageNames, mark_shared


def plan_query(exported_sql: str, context: PlanContext) -> QueryPlan:
    """Plan one query for ``context.agents`` agents.

    What cannot be distributed gives a plan of mode SINGLE whose ``reason`` says why; nothing is refused.
    """
    try:
        logical, names = build(exported_sql, context)
        _refuse_volatile(logical, context)
    except Undistributable as error:
        return QueryPlan(Mode.SINGLE, str(error), 1, None)
    if not any(isinstance(node, Scan) for node in walk(logical)):
        return QueryPlan(Mode.SINGLE, "the query reads no table", 1, None)
    types = ColumnTypes(context)
    output = tuple(Column(n, t) for n, t in zip(names, types.of(logical).values(), strict=True))
    display = DisplayNames(logical, names)
    logical = prune(apply_rules(logical))
    types.of(logical)  # the rules made columns of their own
    width = context.settings.partitions or context.agents
    splits = choose_splits(logical, context, types, width)
    walker = Distributor(context, types, Estimator(context, logical), width, splits)
    try:
        refuse_fragile({c.name: c.type for c in output})
        _refuse_states(logical, types)
        _refuse_what_only_tables_have(logical)
        _refuse_collated(logical, context)
        placed = walker.place(logical)
    except Undistributable as error:
        return QueryPlan(Mode.SINGLE, str(error), 1, None, output)
    check(placed.node)
    root = mark_shared(placed.node)
    how = Cut(_ordered(logical), width, context.settings, display, StageNames())
    graph = initial_graph(root, how)
    if not any(o.parallelism > 1 for o in graph.operators) and width > 1:
        return QueryPlan(Mode.SINGLE, _why_single(placed.node), 1, None, output)
    mode = Mode.PARTLY if walker.gathered else Mode.DISTRIBUTED
    reason = "; ".join(dict.fromkeys(walker.gathered)) or f"distributed over {context.agents} agents"
    state = AdaptivePlan(root, how, types) if context.settings.adaptive else None
    return QueryPlan(mode, reason, context.agents, graph, output, state)


def _ordered(root: Node) -> bool:
    """Whether the query promises an order: a sort above everything but projections and limits."""
    node = root
    while True:
        if isinstance(node, Sort):
            return True
        if not isinstance(node, Project) and type(node).__name__ != "Limit":
            return False
        node = node.inputs[0]


def _why_single(root: Node) -> str:
    if any(isinstance(n, Exchange) for n in walk(root)):
        return "no part of the query can be split"
    return "no source of the query can be split"


def _refuse_volatile(root: Node, context: PlanContext) -> None:
    """A volatile function gives other rows when it runs elsewhere or more often: such a query stays whole."""
    volatile = context.volatile_functions()
    for node in walk(root):
        for expression in _expressions(node):
            for inner in nodes(expression):
                found = function_call(inner)
                if found is not None and found[0] in volatile:
                    raise Undistributable(f"{found[0]}() is volatile")


def _refuse_what_only_tables_have(root: Node) -> None:
    """Operators that do not work over an edge in DuckDB 2.0.

    ``bitstring_agg`` of one argument needs its column's statistics. ASOF RIGHT and FULL joins do not end in an instance
    of one thread where a row of the right side has no partner, which in a part of the rows is the rule.
    """
    for node in walk(root):
        if isinstance(node, Join) and node.kind in (JoinKind.ASOF_RIGHT, JoinKind.ASOF_FULL):
            raise Undistributable(f"an {node.kind} join runs in the session's own DuckDB")
        for aggregate in node.aggregates if isinstance(node, Aggregate) else ():
            found = function_call(aggregate.expression)
            if found is not None and found[0] == "bitstring_agg" and len(found[1]) == 1:
                raise Undistributable("bitstring_agg without bounds needs the statistics of a table")


def _refuse_states(root: Node, types: ColumnTypes) -> None:
    """Aggregate states that the user asked for: their signature is known to nobody but DuckDB's binder."""
    if any(STATE in text for node in walk(root) for text in types.of(node).values()):
        raise Undistributable("an aggregate state does not survive between agents")


def _refuse_collated(root: Node, context: PlanContext) -> None:
    """Text with a collation keeps it in a scan and loses it on an edge: groups and joins would disagree.

    COLLATE C, which DuckDB writes on every text it sorts by, is how plain text compares.
    """
    for node in walk(root):
        for expression in _expressions(node):
            for inner in nodes(expression):
                if type(inner) is exp.Collate and str(inner.args["expression"].args["this"]).upper() != "C":
                    raise Undistributable("collated text loses its collation between agents")
    if context.is_collated():
        raise Undistributable("collated text loses its collation between agents")


def _expressions(node: Node) -> list[exp.Expression]:
    match node:
        case Filter():
            return [node.predicate]
        case Values():
            return [expression for row in node.rows for expression in row]
        case Distinct():
            return list(node.on) + [k.expression for k in node.order]
        case Project():
            return [i.expression for i in node.items]
        case LateralCall():
            return [node.function]
        case Join():
            return [node.condition] if node.condition is not None else []
        case Sort():
            return [k.expression for k in node.keys]
        case _:
            computed: list[Computed] = []
            for name in ("keys", "aggregates"):
                computed += [c for c in getattr(node, name, ()) if isinstance(c, Computed)]
            if isinstance(node, Window):
                computed += node.items
            return [c.expression for c in computed]
