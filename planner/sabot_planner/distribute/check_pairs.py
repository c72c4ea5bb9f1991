"""What the checker demands of operators that bring together rows of several inputs: joins and set operations."""

from __future__ import annotations

from sabot_planner.distribute.check_demand import WHOLE, demand
from sabot_planner.distribute.partitioning import (
    Arbitrary,
    Hashed,
    Partitioning,
    Ranged,
    Replicated,
    SinglePartition,
    merge_equal,
)
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import (
    Join,
    JoinKind,
    SetKind,
    SetOp,
)
from sabot_planner.sql.scalars import EquiKey, equi_keys, key_name


def check_join(node: Join, left: Partitioning, right: Partitioning) -> Partitioning:
    """Tell where a join's rows are; refuse it where rows that match, or have no match, are in the wrong task."""
    if isinstance(left, WHOLE) and isinstance(right, WHOLE):
        return left if isinstance(left, SinglePartition) else right
    keys, _ = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
    pairs = [(key_name(k.left), key_name(k.right)) for k in keys]
    # What only one task has would be missing in the others.
    alone = isinstance(left, SinglePartition) or isinstance(right, SinglePartition)
    demand(not alone, node, "the side that is in one task copied to all")
    if isinstance(right, Replicated):
        # Every task of the stage has the right side whole, so its unmatched rows must not come out.
        demand(node.kind not in _RIGHT_PRESERVED, node, "the right side not copied")
        return merge_equal(left, pairs) if node.kind is JoinKind.INNER else left
    if isinstance(left, Replicated):
        demand(node.kind not in _LEFT_PRESERVED, node, "the left side not copied")
        return merge_equal(right, pairs) if node.kind is JoinKind.INNER else right
    if node.kind is JoinKind.MARK:
        # A NULL on the right concerns every row of the left, unless the equality is null-safe.
        keys = [k for k in keys if k.null_safe]
    part = _placed_alike(node, left, right, keys)
    return merge_equal(part, pairs) if node.kind is JoinKind.INNER else part


def _placed_alike(node: Join, left: Partitioning, right: Partitioning, keys: list[EquiKey]) -> Partitioning:
    alike = [(key_name(k.left), key_name(k.right)) for k in keys]
    one, two = _keys(left), _keys(right)
    same_kind = (isinstance(left, Hashed) and isinstance(right, Hashed)) or (
        isinstance(left, Ranged) and isinstance(right, Ranged) and left.split.bounds == right.split.bounds
    )
    meet = len(one) == len(two) > 0 and all(
        any(a in names and b in others for a, b in alike) for names, others in zip(one, two, strict=True)
    )
    demand(same_kind and meet, node, "both sides placed by the same keys")
    kept = [
        (frozenset() if node.kind in _LEFT_PADDED else names) | (frozenset() if node.kind in _RIGHT_PADDED else others)
        for names, others in zip(one, two, strict=True)
    ]
    if not all(kept):
        return Arbitrary()
    return Ranged(kept[0], left.split) if isinstance(left, Ranged) else Hashed(tuple(kept))


def _keys(part: Partitioning) -> tuple[frozenset[str], ...]:
    if isinstance(part, Hashed):
        return part.keys
    return (part.key,) if isinstance(part, Ranged) else ()


# --- set operations


def check_set_operation(node: SetOp, parts: list[Partitioning]) -> Partitioning:
    """Tell where the rows of a set operation are; refuse it where equal rows of its branches do not meet."""
    whole = [isinstance(p, WHOLE) for p in parts]
    if all(whole):
        return SinglePartition() if SinglePartition() in parts else Replicated()
    demand(not any(whole), node, "all branches spread, or none: one of them would be read by every task")
    if node.kind is SetKind.UNION_ALL:
        return Arbitrary()
    positions = [_positions(branch, part) for branch, part in zip(node.branches, parts, strict=True)]
    demand(bool(positions[0]) and positions.count(positions[0]) == len(positions), node, "all branches hashed alike")
    return Hashed(tuple(frozenset({node.names[i]}) for i in positions[0]))


def _positions(branch: Node, part: Partitioning) -> list[int]:
    """The columns by which a branch is hashed, by position; empty where one is not among its columns."""
    if not isinstance(part, Hashed):
        return []
    found = [next((i for i, c in enumerate(branch.columns) if c in key), -1) for key in part.keys]
    return [] if -1 in found else found


_LEFT_PADDED = frozenset({JoinKind.RIGHT, JoinKind.FULL, JoinKind.ASOF_RIGHT, JoinKind.ASOF_FULL})
_RIGHT_PADDED = frozenset({JoinKind.LEFT, JoinKind.FULL, JoinKind.SINGLE, JoinKind.ASOF_LEFT, JoinKind.ASOF_FULL})
_RIGHT_PRESERVED = _LEFT_PADDED | {JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI, JoinKind.POSITIONAL}
_LEFT_PRESERVED = _RIGHT_PADDED | {
    JoinKind.SEMI,
    JoinKind.ANTI,
    JoinKind.MARK,
    JoinKind.ASOF,
    JoinKind.POSITIONAL,
}
