"""Placing GROUP BY: in place, in two phases, or by moving the rows to their group."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.grouping_set_groups import in_families
from sabot_planner.distribute.partitioning import Clustered, Hashed, Partitioning, renamed, satisfies
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.row_order import order_is_unions
from sabot_planner.distribute.two_phase import (
    TwoPhase,
    depends_on_order,
    describe,
    in_order,
    is_in_order,
    two_phase,
)
from sabot_planner.errors import Undistributable
from sabot_planner.logical.nodes import Aggregate, Computed, Join, Node, Project
from sabot_planner.physical.column_types import STATE, width_bytes
from sabot_planner.physical.nodes import Exchange, Numbered, own_nodes
from sabot_planner.sql.dialect import call, function_call
from sabot_planner.sql.scalars import column, key_name
from sabot_planner.stats.estimates import EARLIER_RUN

_MOST_WIDENED = 2
"""Rows that are not reduced may take so many times the bytes of the groups: forming groups for nothing costs more."""


def place_aggregate(context: PlacementContext, node: Aggregate, parallel: bool) -> Placed:
    """The aggregate placed."""
    ordered = [a for a in node.aggregates if depends_on_order(a)]
    if ordered and not node.keys and order_is_unions(node.input):
        # Each task holds a part of every branch: put together in task order, the parts would mix the branches.
        reason = f"{describe(ordered[0])} over a UNION ALL needs its rows in order"
        whole = context.gather_in_order(node.input, parallel, reason)
        return replace(whole, node=_numbered(context, node, whole.node))
    child = context.settled(context.place(node.input, parallel))
    key_names = tuple(key_name(k.expression) for k in node.keys)
    in_every_set = _keys_in_every_set(node)
    if satisfies(child.partitioning, Clustered(tuple(key_names[i] for i in in_every_set))):
        part = _through_groups(child.partitioning, node)
        placed = replace(node, input=child.node, otherwise=_if_skewed(context, node, child))
        return replace(child, node=placed, partitioning=part)
    keys = [k.expression for k in node.keys]
    hashable = context.hashable(keys, node.input)
    phases = _phases(context, node) if hashable and not _duplicate_sets(node) else None
    unreduced = _unreduced(context, node, phases) if phases is not None else None
    if phases is not None and unreduced is None:
        return _in_two_phases(context, node, child, phases)
    if hashable and in_every_set:
        reason = unreduced or f"{_whole_group(context, node)} needs its whole group"
        moved = context.hash(child, [keys[ordinal] for ordinal in in_every_set], reason)
        part = _through_groups(moved.partitioning, node)
        return replace(moved, node=_in_source_order(context, node, moved.node), partitioning=part)
    families = _families(context, node) if hashable and not ordered else None
    if families is not None:
        return context.place(families, parallel)
    gathered = context.gather_rows(child, f"{_whole_group(context, node)} cannot be combined from parts")
    return replace(gathered, node=_in_source_order(context, node, gathered.node))


def _families(context: PlacementContext, node: Aggregate) -> Node | None:
    """Grouping sets that have no key in common as several aggregates, where that is worth more than one task."""
    if node.grouping_sets is None or context.is_small(node.input):
        return None
    found = in_families(
        node, context.types.of(node), lambda one: _phases(context, replace(node, aggregates=(one,))) is not None
    )
    if found is not None:
        context.types.of(found)
    return found


def _in_source_order(context: PlacementContext, node: Aggregate, moved: Node) -> Aggregate:
    """The aggregate over rows that have moved: lists and the like take them in the order of the source.

    A task reads its edge in the order of the producers, but DuckDB's threads do not aggregate it in that order.
    """
    if not isinstance(moved, Exchange) or not any(map(depends_on_order, node.aggregates)):
        return replace(node, input=moved)
    return _numbered(context, node, moved)


def _numbered(context: PlacementContext, node: Aggregate, moved: Node) -> Aggregate:
    ordinal = _ordinal(context, node)
    aggregates = tuple(
        Computed(a.name, in_order(a.expression, ordinal)) if depends_on_order(a) else a for a in node.aggregates
    )
    return replace(node, input=Numbered(moved, ordinal), aggregates=aggregates)


def _ordinal(context: PlacementContext, node: Aggregate) -> str:
    name = f"{node.aggregates[0].name}o"
    context.types.learn({name: "BIGINT"})
    return name


def _through_groups(part: Partitioning, node: Aggregate) -> Partitioning:
    """The partitioning of the groups: only keys of every grouping set keep their value in every row."""
    names: dict[str, set[str]] = {}
    for ordinal in _keys_in_every_set(node):
        key = node.keys[ordinal]
        names.setdefault(key_name(key.expression), set()).add(key.name)
    return renamed(part, names)


def _keys_in_every_set(node: Aggregate) -> tuple[int, ...]:
    ordinals = set(range(len(node.keys)))
    for one in node.grouping_sets or ():
        ordinals &= set(one)
    return tuple(sorted(ordinals))


def _duplicate_sets(node: Aggregate) -> bool:
    sets = [tuple(sorted(set(s))) for s in node.grouping_sets or ()]
    return len(set(sets)) != len(sets)


def _phases(context: PlacementContext, node: Aggregate) -> list[TwoPhase] | None:
    """The two phases of every aggregate, None where one of them has none."""
    types = context.types.of(node)
    phases = []
    for aggregate in node.aggregates:
        found = function_call(aggregate.expression)
        arguments = found[1] if found is not None else []
        argument_types = context.types.of_expressions(arguments, node.input) if arguments else ()
        one = two_phase(aggregate, argument_types, types[aggregate.name], _ordinal(context, node))
        if one is None:
            return None
        phases.append(one)
    return phases


def _whole_group(context: PlacementContext, node: Aggregate) -> str:
    types = context.types.of(node)
    for aggregate in node.aggregates:
        found = function_call(aggregate.expression)
        arguments = found[1] if found is not None else []
        argument_types = context.types.of_expressions(arguments, node.input) if arguments else ()
        if two_phase(aggregate, argument_types, types[aggregate.name], "") is None:
            return describe(aggregate)
    return "GROUP BY"


def _unreduced(context: PlacementContext, node: Aggregate, phases: list[TwoPhase]) -> str | None:
    """Why the rows of all travel although the aggregate has two phases: the first one would leave nearly as many."""
    if not node.keys or node.grouping_sets is not None:
        return None
    found = context.estimator.partial_groups(node)
    rows = context.estimator.rows(node.input)
    if found is None or found.rows <= context.settings.partial_share * rows:
        return None
    types = context.types.of(node)
    widths = types | {
        p.final.name: STATE for p in phases if any(c.expression.args.get("export_state") for c in p.partial)
    }
    if context.bytes(node.input) > _MOST_WIDENED * found.rows * width_bytes(widths, node.columns):
        return None
    keys = "" if found.distinct_keys is None else f" with {found.distinct_keys:,} distinct keys"
    return f"about {found.rows:,.0f} partial groups of {rows:,} rows{keys} by {EARLIER_RUN}: the rows move as they are"


def _if_skewed(context: PlacementContext, node: Aggregate, child: Placed) -> Node | None:
    """The two phases of an aggregate that reuses the hash of a join, in case that the join is skewed."""
    joins = any(isinstance(n, Join) for n in own_nodes(child.node))
    if not isinstance(child.partitioning, Hashed) or not joins or not context.settings.adaptive:
        return None
    if node.grouping_sets is not None or any(map(depends_on_order, node.aggregates)):
        return None
    if not context.hashable([k.expression for k in node.keys], node.input):
        return None
    phases = _phases(context, node)
    try:
        return _in_two_phases(context, node, child, phases).node if phases is not None else None
    except Undistributable:
        return None  # in place its columns need not travel


def _in_two_phases(context: PlacementContext, node: Aggregate, child: Placed, phases: list[TwoPhase]) -> Placed:
    partial_columns = tuple(p for phase in phases for p in phase.partial)
    groupings = node.groupings
    if node.grouping_sets is not None:
        # Sets that leave the same keys NULL are told apart by their id, which is a key of the second phase.
        set_id = call("grouping", *(k.expression for k in node.keys)) if node.keys else None
        if set_id is not None:
            set_id.args.pop("schema")
            groupings = (*groupings, Computed(f"{node.keys[0].name}g", set_id))
    speaks = any(map(is_in_order, node.aggregates)) and not node.keys
    partial = replace(
        node, input=child.node, aggregates=partial_columns, groupings=groupings, partial=True, having_rows=speaks
    )
    types = context.types.of(node)
    context.types.learn(
        {
            p.name: STATE if p.expression.args.get("export_state") else types[phase.final.name]
            for phase in phases
            for p in phase.partial
        }
    )
    context.types.learn({g.name: "BIGINT" for g in groupings})
    placed = replace(child, node=partial)
    final_keys = tuple(Computed(k.name, column(k.name)) for k in (*node.keys, *groupings))
    if node.keys:
        moved = context.hash(placed, [k.expression for k in final_keys], "partial groups of equal keys must meet")
    else:
        moved = context.gather(placed, "one partial result of each task")
    finals = tuple(phase.final for phase in phases)
    parts: Node = moved.node
    if any(map(is_in_order, node.aggregates)):
        parts = Numbered(parts, _ordinal(context, node))
    final = Aggregate(parts, final_keys, finals)
    if groupings == node.groupings and not groupings:
        return replace(moved, node=final)
    wanted = tuple(Computed(name, column(name)) for name in node.columns)
    return replace(moved, node=Project(final, wanted))
