"""Placing joins: reuse a partitioning, broadcast the smaller side, or hash both by the join keys."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from sabot_planner.distribute.asof import asof_by_ranges
from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Hashed,
    Partitioning,
    Ranged,
    Replicated,
    SinglePartition,
    Together,
    merge_equal,
    without,
)
from sabot_planner.distribute.placed import Placed
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import Join, JoinKind
from sabot_planner.logical.size_text import size
from sabot_planner.physical.nodes import Adaptivity, EdgeEstimate
from sabot_planner.sql.scalars import EquiKey, equi_keys, key_name

RIGHT_MAY_BE_COPIED = frozenset(
    {
        JoinKind.INNER,
        JoinKind.CROSS,
        JoinKind.LEFT,
        JoinKind.SEMI,
        JoinKind.ANTI,
        JoinKind.MARK,
        JoinKind.SINGLE,
        JoinKind.ASOF,
        JoinKind.ASOF_LEFT,
    }
)
"""Kinds in which every row of the left side decides for itself. In the others an unmatched row of the right side comes
out, and would come out once per task that has a copy of it."""

_SURELY_SMALL_BYTES = 1 << 20

LEFT_MAY_BE_COPIED = frozenset(
    {JoinKind.INNER, JoinKind.CROSS, JoinKind.RIGHT, JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI}
)


def place_join(context: PlacementContext, node: Join, parallel: bool) -> Placed:
    """The join placed."""
    if node.kind is JoinKind.POSITIONAL:
        reason = "a positional join needs both sides in order"
        one, two = (context.gather_in_order(side, parallel, reason) for side in (node.left, node.right))
        return replace(one, node=_joined(node, one.node, two.node), partitioning=SinglePartition())
    left, right = context.place(node.left, parallel), context.place(node.right, parallel)
    if _together(left, right):
        both_copied = isinstance(left.partitioning, Replicated) and isinstance(right.partitioning, Replicated)
        return replace(
            left,
            node=_joined(node, left.node, right.node),
            partitioning=Replicated() if both_copied else SinglePartition(),
        )
    if context.settings.keep_order and node in context.in_order and _lies_in_one_task(left):
        # A window over all rows, whose rows keep their order: dealt to several tasks they would lose it.
        return _in_one_task(context, node, left, right, "rows that lie in one task keep their order there")
    keys = _usable_keys(context, node)
    together = _cut_alike(left, right, keys)
    if together is not None:
        joined = replace(left, node=_joined(node, left.node, right.node), partitioning=together)
        return replace(joined, partitioning=_after(node, together, keys))
    by_ranges = asof_by_ranges(context, node, left, right) if parallel and not keys else None
    if by_ranges is not None:
        return context.place(by_ranges, parallel)
    plan = _cheapest(context, node, left, right, keys)
    return (
        plan if plan is not None else _in_one_task(context, node, left, right, f"a {node.kind} join without equal keys")
    )


def _cut_alike(left: Placed, right: Placed, keys: list[EquiKey]) -> Partitioning | None:
    """The partitioning of a join whose sides are cut at the same bounds of a join key: nothing has to move."""
    one, two = left.partitioning, right.partitioning
    if not isinstance(one, Ranged) or not isinstance(two, Ranged) or one.split.bounds != two.split.bounds:
        return None
    for key in keys:
        if key_name(key.left) in one.key and key_name(key.right) in two.key:
            return Ranged(one.key | two.key, one.split)
    return None


def _joined(node: Join, left: Node, right: Node) -> Join:
    return replace(node, left=left, right=right)


def _together(left: Placed, right: Placed) -> bool:
    return all(isinstance(p.partitioning, SinglePartition | Replicated) and not p.local for p in (left, right))


def _lies_in_one_task(placed: Placed) -> bool:
    return placed.local or isinstance(placed.partitioning, SinglePartition | Replicated)


def _in_one_task(context: PlacementContext, node: Join, left: Placed, right: Placed, reason: str) -> Placed:
    one, two = context.gather_rows(left, reason), context.gather_rows(right, reason)
    return replace(one, node=_joined(node, one.node, two.node), partitioning=SinglePartition())


def _usable_keys(context: PlacementContext, node: Join) -> list[EquiKey]:
    """The equalities by which both sides may be hashed apart."""
    left_names, right_names = frozenset(node.left.columns), frozenset(node.right.columns)
    keys, _ = equi_keys(node.condition, left_names, right_names)
    if node.kind is JoinKind.MARK:
        # A plain equality with a NULL on the right makes the marker NULL for every unmatched row, wherever it is:
        # only the null-safe (correlated) keys say whose NULL concerns whom.
        keys = [k for k in keys if k.null_safe]
    left_types = context.types_of([k.left for k in keys], node.left)
    right_types = context.types_of([k.right for k in keys], node.right)
    return [
        key
        for key, lt, rt in zip(keys, left_types, right_types, strict=True)
        if lt == rt and context.hashable([key.left], node.left) and context.hashable([key.right], node.right)
    ]


@dataclass(frozen=True, slots=True)
class _Choice:
    cost_bytes: float
    placed: Placed


def _cheapest(context: PlacementContext, node: Join, left: Placed, right: Placed, keys: list[EquiKey]) -> Placed | None:
    """The way that moves the fewest bytes; where two tie, the one named first."""
    choices: list[_Choice] = []
    if keys:
        choices.append(_hash_both(context, node, left, right, keys))
    limit = context.settings.broadcast_bytes
    for copied, side, kinds in ((right, node.right, RIGHT_MAY_BE_COPIED), (left, node.left, LEFT_MAY_BE_COPIED)):
        if node.kind in kinds and (not keys or context.bytes(side) <= limit or _is_copied(copied)):
            choices.append(_by_copying(context, node, left, right, keys, copy_left=copied is left))
    if not choices:
        return None
    best = min(choices, key=lambda choice: choice.cost_bytes).placed
    return replace(best, partitioning=_after(node, best.partitioning, keys))


def _by_copying(
    context: PlacementContext, node: Join, left: Placed, right: Placed, keys: list[EquiKey], *, copy_left: bool
) -> _Choice:
    """One side in every task, the other where it is, or dealt out where it is in one task only."""
    copied, anchor = (left, right) if copy_left else (right, left)
    side, other = (node.left, node.right) if copy_left else (node.right, node.left)
    repeated = None if _is_copied(copied) else context.repeated(side)
    if repeated is not None:
        copied = Placed(repeated, Replicated())
    cost = 0 if _is_copied(copied) else context.bytes(side) * context.width
    if _lies_in_one_task(anchor):
        cost += context.bytes(other)
        anchor = context.spread(anchor, "to join in parallel")
    pairs = [(k.left, k.right) if copy_left else (k.right, k.left) for k in keys]
    copy = _copy(context, side, copied, pairs, other)
    joined = _joined(node, copy, anchor.node) if copy_left else _joined(node, anchor.node, copy)
    return _Choice(cost, replace(anchor, node=joined))


def _is_copied(placed: Placed) -> bool:
    return isinstance(placed.partitioning, Replicated)


def _copy(
    context: PlacementContext,
    node: Node,
    placed: Placed,
    keys: list[tuple[exp.Expression, exp.Expression]],
    other_side: Node,
) -> Node:
    """The side as every task reads it; ``keys`` are its join keys and those of the other side."""
    if _is_copied(placed):
        return placed.node
    reason = f"about {size(context.bytes(node))}: less to copy to every task than to hash both sides"
    exchange = context.broadcast(node, placed, reason)
    if not keys or exchange.estimate.bytes < _SURELY_SMALL_BYTES:
        return exchange
    # A guess that may be wrong by orders of magnitude: the rows are written so that they can still be hashed.
    own, other = zip(*keys, strict=True)
    return replace(
        exchange,
        keys=own,
        written_as=ShuffleEdgeType.HASH,
        adaptivity=Adaptivity(
            other_keys=other, other=EdgeEstimate(context.estimator.rows(other_side), context.bytes(other_side))
        ),
    )


def _hash_both(
    context: PlacementContext,
    node: Join,
    left: Placed,
    right: Placed,
    keys: list[EquiKey],
) -> _Choice:
    """Both sides hashed by the same keys; a side that is already partitioned by some of them stays where it is."""
    best: _Choice | None = None
    left_bytes, right_bytes = context.bytes(node.left), context.bytes(node.right)
    for chosen, left_stays, right_stays in _key_orders(left.partitioning, right.partitioning, keys):
        cost = (0.0 if left_stays else 2.0 * left_bytes) + (0.0 if right_stays else 2.0 * right_bytes)
        if best is not None and cost >= best.cost_bytes:
            continue
        one = left if left_stays else context.hash(left, [k.left for k in chosen], "rows of equal keys must meet")
        two = right if right_stays else context.hash(right, [k.right for k in chosen], "rows of equal keys must meet")
        part = Hashed(tuple(frozenset({key_name(k.left), key_name(k.right)}) for k in chosen))
        best = _Choice(cost, replace(one, node=_joined(node, one.node, two.node), partitioning=part, local=False))
    assert best is not None
    return best


def _key_orders(left: Partitioning, right: Partitioning, keys: list[EquiKey]) -> list[tuple[list[EquiKey], bool, bool]]:
    """Ways to choose the hash keys: as the left side has them, as the right side has them, or all."""
    ways = []
    from_left = _matching(left, keys, left_side=True)
    if from_left is not None:
        ways.append((from_left, True, _hashed_as(right, from_left)))
    from_right = _matching(right, keys, left_side=False)
    if from_right is not None and from_right != from_left:
        ways.append((from_right, False, True))
    ways.append((keys, False, False))
    return ways


def _matching(part: Partitioning, keys: list[EquiKey], left_side: bool) -> list[EquiKey] | None:
    """The join keys that correspond, in order, to the keys by which a side is hashed already."""
    if not isinstance(part, Hashed):
        return None
    chosen = []
    for names in part.keys:
        found = next((k for k in keys if key_name(k.left if left_side else k.right) in names), None)
        if found is None:
            return None
        chosen.append(found)
    return chosen


def _hashed_as(right: Partitioning, chosen: list[EquiKey]) -> bool:
    return (
        isinstance(right, Hashed)
        and len(right.keys) == len(chosen)
        and all(key_name(k.right) in names for k, names in zip(chosen, right.keys, strict=True))
    )


def _after(node: Join, part: Partitioning, keys: list[EquiKey]) -> Partitioning:
    """What the join's output offers: an inner join makes its keys equal, an outer join pads one side with NULL."""
    pairs = [(key_name(k.left), key_name(k.right)) for k in keys]
    match node.kind:
        case JoinKind.INNER:
            return merge_equal(part, pairs)
        case JoinKind.FULL | JoinKind.ASOF_FULL:
            return Arbitrary() if isinstance(part, Hashed | Ranged | Together) else part
        case JoinKind.LEFT | JoinKind.SINGLE | JoinKind.ASOF_LEFT:
            return without(part, frozenset(node.right.columns) | {right for _, right in pairs})
        case JoinKind.RIGHT | JoinKind.ASOF_RIGHT:
            return without(part, frozenset(node.left.columns) | {left for left, _ in pairs})
        case (
            JoinKind.SEMI
            | JoinKind.ANTI
            | JoinKind.RIGHT_SEMI
            | JoinKind.RIGHT_ANTI
            | JoinKind.MARK
            | JoinKind.CROSS
            | JoinKind.ASOF
            | JoinKind.POSITIONAL
        ):
            return part
