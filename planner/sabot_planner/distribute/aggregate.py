"""Placing GROUP BY: in place, in two phases, or by moving the rows to their group."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.grouping_set_groups import in_set_groups
from sabot_planner.distribute.partitioning import Clustered, Hashed, Partitioning, renamed, satisfies
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.row_order import order_is_unions
from sabot_planner.distribute.two_phase import (
    PhaseNames,
    TwoPhase,
    depends_on_order,
    describe,
    in_order,
    is_in_order,
    two_phase,
)
from sabot_planner.errors import Undistributable
from sabot_planner.logical.node import Computed, Node, passed, width_bytes
from sabot_planner.logical.nodes import Aggregate, Join, Project
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    Exchange,
    FinalAggregate,
    PartialAggregate,
    RowNumber,
    own_nodes,
)
from sabot_planner.sql.dialect import call, function_call
from sabot_planner.sql.duck_type import BIGINT
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
        return replace(child, node=_in_place(context, node, child), partitioning=part)
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
    set_groups = _set_groups(context, node) if hashable and not ordered else None
    if set_groups is not None:
        return context.place(set_groups, parallel)
    gathered = context.gather_rows(child, f"{_whole_group(context, node)} cannot be combined from parts")
    return replace(gathered, node=_in_source_order(context, node, gathered.node))


def _set_groups(context: PlacementContext, node: Aggregate) -> Node | None:
    """Grouping sets that have no key in common as several aggregates, where that is worth more than one task."""
    if node.grouping_sets is None or context.is_small(node.input):
        return None
    return in_set_groups(context, node, lambda one: _phases(context, replace(node, aggregates=(one,))) is not None)


def _in_source_order(context: PlacementContext, node: Aggregate, moved: Node) -> Aggregate:
    """The aggregate over rows that have moved: lists and the like take them in the order of the source.

    A task reads its edge in the order of the producers, but DuckDB's threads do not aggregate it in that order.
    """
    if not isinstance(moved, Exchange) or not any(map(depends_on_order, node.aggregates)):
        return replace(node, input=moved)
    return _numbered(context, node, moved)


def _numbered(context: PlacementContext, node: Aggregate, moved: Node) -> Aggregate:
    ordinal = context.names.column()
    aggregates = tuple(
        Computed(a.name, in_order(a.expression, ordinal), a.type) if depends_on_order(a) else a for a in node.aggregates
    )
    return replace(node, input=RowNumber(moved, ordinal), aggregates=aggregates)


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


@dataclass(frozen=True, slots=True)
class _Phases:
    """The two phases of every aggregate; ``ordinal`` numbers the rows of the first phases in task order."""

    each: tuple[TwoPhase, ...]
    ordinal: str


def _phases(context: PlacementContext, node: Aggregate) -> _Phases | None:
    """The two phases of every aggregate, None where one of them has none."""
    ordinal = context.names.column()
    each = []
    for aggregate in node.aggregates:
        one = _two_phase(context, node, aggregate, ordinal)
        if one is None:
            return None
        each.append(one)
    return _Phases(tuple(each), ordinal)


def _two_phase(context: PlacementContext, node: Aggregate, aggregate: Computed, ordinal: str) -> TwoPhase | None:
    found = function_call(aggregate.expression)
    types = context.types_of(found[1], node.input) if found is not None else ()
    return two_phase(aggregate, types, PhaseNames(context.names.column(), ordinal))


def _whole_group(context: PlacementContext, node: Aggregate) -> str:
    for aggregate in node.aggregates:
        if _two_phase(context, node, aggregate, "") is None:
            return describe(aggregate)
    return "GROUP BY"


def _unreduced(context: PlacementContext, node: Aggregate, phases: _Phases) -> str | None:
    """Why the rows of all travel although the aggregate has two phases: the first one would leave nearly as many."""
    if not node.keys or node.grouping_sets is not None:
        return None
    found = context.estimator.partial_groups(node)
    rows = context.estimator.rows(node.input)
    if found is None or found.rows <= context.settings.partial_share * rows:
        return None
    groups = {**node.schema, **{p.final.name: p.partial.type for p in phases.each}}
    if context.bytes(node.input) > _MOST_WIDENED * found.rows * width_bytes(groups):
        return None
    keys = "" if found.distinct_keys is None else f" with {found.distinct_keys:,} distinct keys"
    return f"about {found.rows:,.0f} partial groups of {rows:,} rows{keys} by {EARLIER_RUN}: the rows move as they are"


def _in_place(context: PlacementContext, node: Aggregate, child: Placed) -> Node:
    """The aggregate where its rows are; over the hash of a join also its two phases, in case the join is skewed."""
    plain = replace(node, input=child.node)
    joins = any(isinstance(n, Join) for n in own_nodes(child.node))
    if not isinstance(child.partitioning, Hashed) or not joins or not context.settings.adaptive:
        return plain
    if node.grouping_sets is not None or any(map(depends_on_order, node.aggregates)):
        return plain
    if not context.hashable([k.expression for k in node.keys], node.input):
        return plain
    phases = _phases(context, node)
    try:
        twice = _in_two_phases(context, node, child, phases).node if phases is not None else None
    except Undistributable:
        return plain  # in place its columns need not travel
    if twice is None:
        return plain
    return AggregateInPlace(child.node, node.keys, node.aggregates, in_two_phases=twice)


def _in_two_phases(context: PlacementContext, node: Aggregate, child: Placed, phases: _Phases) -> Placed:
    groupings = node.groupings
    if node.grouping_sets is not None:
        # Sets that leave the same keys NULL are told apart by their id, which is a key of the second phase.
        set_id = call("grouping", *(k.expression for k in node.keys)) if node.keys else None
        if set_id is not None:
            set_id.args.pop("schema")
            groupings = (*groupings, Computed(context.names.column(), set_id, BIGINT))
    ordered = any(map(is_in_order, node.aggregates))
    partials = tuple(phase.partial for phase in phases.each)
    first = PartialAggregate(
        child.node, node.keys, partials, node.grouping_sets, groupings, silent_when_empty=ordered and not node.keys
    )
    placed = replace(child, node=first)
    final_keys = tuple(Computed(k.name, column(k.name), k.type) for k in (*node.keys, *groupings))
    if node.keys:
        moved = context.hash(placed, [k.expression for k in final_keys], "partial groups of equal keys must meet")
    else:
        moved = context.gather(placed, "one partial result of each task")
    parts: Node = RowNumber(moved.node, phases.ordinal) if ordered else moved.node
    finals = tuple(phase.final for phase in phases.each)
    final = FinalAggregate(parts, final_keys, finals, parts=tuple(p.name for p in partials))
    if groupings == node.groupings and not groupings:
        return replace(moved, node=final)
    return replace(moved, node=Project(final, passed(final, node.columns)))
