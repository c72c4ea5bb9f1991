"""A GROUP BY that reuses the hash of the join below it is formed in two phases where one partition is far too large.

In place, all rows of a hot key are joined and grouped in one task. In two phases the join's stage may deal them to
several, which each form a part of the group:

    Aggregate                            Aggregate
    └─ Join                       →      └─ HASH by group
       ├─ HASH e1 (half in one partition)   └─ Aggregate, first phase
       └─ HASH e2                              └─ Join, a partition of e1 shared out
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sabot_planner.adapt.skewed_joins import splittable_inputs
from sabot_planner.fragments.stages import CutContext
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node, replace_inputs
from sabot_planner.physical.nodes import AggregateInPlace, Exchange, PartialAggregate, own_nodes

_HEAVY = 1.3
"""A partition is heavy when it holds so many times the fair share of a task, as it is to the coordinator."""


def grouped_twice(
    top: Node, cut_context: CutContext, facts: Mapping[str, EdgeFacts]
) -> tuple[AggregateInPlace, Node] | None:
    """A GROUP BY of the stage ``top`` that should have two phases, and these; None where all are well as they are."""
    for node in own_nodes(top):
        if isinstance(node, AggregateInPlace):
            reason = _heavy_partition(node.input, cut_context, facts)
            if reason is not None:
                return node, _over(node.in_two_phases, node.input, reason, cut_context.names)
    return None


def _heavy_partition(below: Node, cut_context: CutContext, facts: Mapping[str, EdgeFacts]) -> str | None:
    """What is said of a partition of the hashed inputs below that is too large for one task and may be shared out."""
    hashed = [n for n in own_nodes(below) if isinstance(n, Exchange) and n.edge_type is ShuffleEdgeType.HASH]
    measured = {n: facts.get(n.edge_id) for n in hashed}
    sizes = {key: found.partition_bytes for key, found in measured.items() if found is not None}
    if len(sizes) < len(hashed) or len({len(s) for s in sizes.values()}) != 1:
        return None
    weights = [sum(partition) for partition in zip(*sizes.values(), strict=True)]
    fair = sum(weights) / cut_context.width
    heaviest = max(range(len(weights)), key=weights.__getitem__)
    splittable = max((sizes[key][heaviest] for key in splittable_inputs(below) if key in sizes), default=0)
    worth = fair >= max(1, cut_context.settings.coalesce_bytes) and 2 * splittable >= weights[heaviest]
    if not worth or weights[heaviest] <= _HEAVY * fair:
        return None
    return (
        f"measured: partition {heaviest} of the join holds {weights[heaviest] / fair:.1f} times its share, so that its"
        " groups are formed in parts"
    )


def _over(node: Node, rows: Node, reason: str, names: PlanNames) -> Node:
    """The two phases over what the join is by now."""
    if isinstance(node, PartialAggregate):
        return replace(node, input=rows)
    new = replace_inputs(node, tuple(_over(i, rows, reason, names) for i in node.inputs))
    if not isinstance(new, Exchange):
        return new
    return replace(new, adaptivity=new.adaptivity.settled, reason=reason, edge_id=names.edge(), stage_id=names.stage())
