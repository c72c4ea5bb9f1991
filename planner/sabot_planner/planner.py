"""The planner's one entry: exported SQL in, a query plan out."""

from __future__ import annotations

from sabot_planner.adapt.replan import AdaptivePlan, initial_graph
from sabot_planner.distribute.check import check
from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.place import place_node
from sabot_planner.errors import Undistributable
from sabot_planner.fragments.display import DisplayNames
from sabot_planner.fragments.stage_names import name_stages
from sabot_planner.fragments.stages import CutContext, bucket_count, mark_shared
from sabot_planner.job.operators import Column
from sabot_planner.job.plan import Mode, NotDistributed, OneTask, PlanContext, QueryPlan
from sabot_planner.logical.build import build
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, walk, width_bytes
from sabot_planner.logical.nodes import Limit, Project, Scan, Sort
from sabot_planner.logical.prune import prune
from sabot_planner.logical.rules.apply import apply_rules
from sabot_planner.logical.unsupported import (
    refuse_collated,
    refuse_lost,
    refuse_states,
    refuse_volatile,
    refuse_what_only_tables_have,
)
from sabot_planner.physical.nodes import Exchange
from sabot_planner.stats.clustering import choose_splits
from sabot_planner.stats.estimates import Estimator


def plan_query(exported_sql: str, context: PlanContext, one_task: OneTask | None = None) -> QueryPlan | NotDistributed:
    """Plan one query for ``context.agents`` agents, or say why it stays on one; nothing is refused.

    ``one_task`` decides whether it is to be spread; without it, it is wherever it can be.

    Raises:
        Exception: what ``context`` raised, which ends the planning.
    """
    try:
        return _planned(exported_sql, context, one_task)
    except RecursionError:
        # Expressions and chains may be of any depth; what nests operators in operators is walked on Python's stack.
        return NotDistributed("the query nests operators too deeply")


def _planned(exported_sql: str, context: PlanContext, one_task: OneTask | None) -> QueryPlan | NotDistributed:
    try:
        query = build(exported_sql, context)
        logical = query.root
        refuse_volatile(logical, context)
        if not any(isinstance(node, Scan) for node in walk(logical)):
            raise Undistributable("the query reads no table")
        types = logical.schema.values()
        output = tuple(Column(name, kind.text) for name, kind in zip(query.output, types, strict=True))
        refuse_states(types)
        refuse_lost(types)
        display = DisplayNames(logical, query.output)
        logical = prune(apply_rules(logical, query.names))
        refuse_what_only_tables_have(logical)
        refuse_collated(logical, context)
        alone = one_task(_read_bytes(logical)) if one_task is not None else None
        width = 1 if alone is not None else context.settings.partitions or context.agents
        splits = choose_splits(logical, context, width)
        placing = PlacementContext(context, query.names, Estimator(context, logical), width, splits, place_node)
        placed = placing.place_result(logical) if alone is None else placing.place_in_one_task(logical)
    except Undistributable as error:
        return NotDistributed(str(error))
    context.check()
    check(placed.node)
    display.add(placed.node)
    root, root_stage = name_stages(mark_shared(placed.node), query.names)
    buckets = bucket_count(root, width, context.settings)
    cut_context = CutContext(
        _ordered(logical), width, buckets, context.settings, display, query.names, root_stage, placing.result_parts
    )
    context.check()
    graph = initial_graph(root, cut_context)
    if not any(o.parallelism > 1 for o in graph.operators) and width > 1:
        return NotDistributed(_why_single(placed.node))
    state = AdaptivePlan(root, cut_context) if context.settings.adaptive else None
    if alone is not None:
        return QueryPlan(Mode.SINGLE, alone, 1, graph, output, state)
    mode = Mode.PARTLY if placing.gathered else Mode.DISTRIBUTED
    reason = "; ".join(dict.fromkeys(placing.gathered)) or f"distributed over {context.agents} agents"
    return QueryPlan(mode, reason, context.agents, graph, output, state)


def _read_bytes(root: Node) -> dict[str, int | None]:
    """Source → the bytes of its columns that are read, by its rows where they are known."""
    read: dict[str, int | None] = {}
    for scan in dict.fromkeys(node for node in walk(root) if isinstance(node, Scan)):
        source = scan.source
        size_bytes = source.bytes if source.rows is None else source.rows * width_bytes(scan.schema)
        before = read.get(source.source_id, 0)
        read[source.source_id] = None if size_bytes is None or before is None else before + size_bytes
    return read


def _ordered(root: Node) -> bool:
    """Whether the query promises an order: a sort above everything but projections and limits."""
    node = root
    while True:
        if isinstance(node, Sort):
            return True
        if not isinstance(node, Project | Limit | LimitBy):
            return False
        node = node.inputs[0]


def _why_single(root: Node) -> str:
    if any(isinstance(n, Exchange) for n in walk(root)):
        return "no part of the query can be split"
    return "no source of the query can be split"
