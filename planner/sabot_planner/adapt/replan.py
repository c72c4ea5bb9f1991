"""Decide again while the query runs: BROADCAST or HASH by measured bytes, and nothing at all for what is empty.

The plan is changed in place of one join at a time, and only where nothing above relies on where its rows are:

    Join                                   Join
    ├─ HASH  e1 (not started)      →       ├─ (computed in the join's own stage)
    └─ HASH  e2 (measured: 36 kB)          └─ BROADCAST e2 (read whole, as its buckets lie)

and the other way round where a side that was to be copied turns out large. Had a GROUP BY above reused the hash of the
join, the first change would split its groups over tasks; such joins are left as planned. Any measured side may filter
what it is to be joined with (:mod:`sabot_planner.adapt.runtime_filters`): that moves rows to no other place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sabot_planner.adapt.empty_joins import empty_side, may_be_nothing, witness_of
from sabot_planner.adapt.open_joins import may_stay, open_joins
from sabot_planner.adapt.runtime_filters import awaited_filter, smaller_side, with_filter
from sabot_planner.adapt.skewed_aggregates import grouped_twice
from sabot_planner.adapt.skewed_joins import splittable_inputs
from sabot_planner.distribute.check import OutputPartitioning, check
from sabot_planner.distribute.join import LEFT_MAY_BE_COPIED, RIGHT_MAY_BE_COPIED
from sabot_planner.fragments.stage_names import direct_reference
from sabot_planner.fragments.stages import CutContext, OpenEdges, cut
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Decided, ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts, QueryPlan
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import (
    Distinct,
    Join,
    Project,
)
from sabot_planner.logical.size_text import size
from sabot_planner.physical.nodes import (
    Adaptivity,
    EmptyRelation,
    Exchange,
    PartialAggregate,
    own_nodes,
    rewrite_stages,
    stage_roots,
)
from sabot_planner.stats.fingerprints import Identities, partial_name


def initial_graph(root: Node, cut_context: CutContext) -> OperatorGraph:
    """The operator graph before anything is measured; where a join is still open, its smaller side runs first."""
    return cut(
        root, cut_context, _still_open(root, cut_context, frozenset()) if cut_context.settings.adaptive else OpenEdges()
    )


@dataclass(frozen=True, slots=True)
class AdaptivePlan:
    """A distributed plan that can still change; one per revision."""

    root: Node
    cut_context: CutContext
    where: OutputPartitioning = field(default_factory=OutputPartitioning, repr=False, compare=False)
    """Where the rows of this plan are; of one that was changed they are derived anew."""

    def revise(self, plan: QueryPlan, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
        """See :meth:`sabot_planner.job.plan.QueryPlan.revise`."""
        root, where = self.root, self.where
        while True:
            changed = self._one_change(root, facts, started, where)
            if changed is None:
                break
            root, where = changed, OutputPartitioning()
        if root is self.root:
            return plan
        graph = cut(root, self.cut_context, _still_open(root, self.cut_context, started))
        return replace(plan, operator_graph=graph, planner_state=AdaptivePlan(root, self.cut_context))

    def identities(self) -> dict[str, str]:
        """See :meth:`sabot_planner.job.plan.QueryPlan.identities`."""
        known = Identities()
        of_root = known.of(self.root)
        found = {"result": of_root.text} if of_root is not None and not of_root.filtered_by else {}
        for exchange in _exchanges(self.root):
            identity = known.of(exchange.input)
            if identity is not None and not identity.filtered_by:
                text = identity.text
                name = partial_name(text, self.cut_context.width) if _is_first_phase(exchange.input) else text
                found[exchange.edge_id] = name
        return found

    def key_identities(self) -> dict[str, str]:
        """See :meth:`sabot_planner.job.plan.QueryPlan.key_identities`."""
        known = Identities()
        found: dict[str, str] = {}
        for exchange in _exchanges(self.root):
            hashed = ShuffleEdgeType.HASH in (exchange.written_as, exchange.edge_type)
            name = known.groups(exchange.keys, exchange.input) if hashed and exchange.keys else None
            if name is not None:
                found[exchange.edge_id] = name
        return found

    def _one_change(
        self, root: Node, facts: Mapping[str, EdgeFacts], started: frozenset[str], where: OutputPartitioning
    ) -> Node | None:
        """The plan with the first change that may be made, checked; None where there is none.

        Raises:
            PlannerError: the change should not have been made: a defect of the planner.
        """
        may_change = open_joins(root, where)
        for top, stage_id in stage_roots(root, self.cut_context.root_stage).items():
            if stage_id in started:
                continue
            change = next(self._changes(root, top, may_change[top], facts, started, where), None)
            if change is not None:
                changed = _replaced(root, *change)
                check(changed)
                return changed
        return None

    def _changes(
        self,
        root: Node,
        top: Node,
        may_change: Sequence[Join],
        facts: Mapping[str, EdgeFacts],
        started: frozenset[str],
        where: OutputPartitioning,
    ) -> Iterator[tuple[Node, Node]]:
        """What may be put in the place of what in one stage, the best first."""
        joins = [n for n in own_nodes(top) if isinstance(n, Join)]
        rows = {e: facts[name].rows for e in _sides(joins) if (name := e.edge_id) in facts}
        for join in joins:
            side = empty_side(join, rows)
            if side is not None and may_be_nothing(join, stage_roots(root), where):
                yield join, EmptyRelation(witness_of(side), join.schema)
        for join in may_change:
            decided = self._decided(join, facts, started, where)
            if decided is not None:
                yield join, decided
        for join in joins:
            filtered = with_filter(join, self.cut_context, facts, started)
            if filtered is not None:
                yield join, filtered
        twice = grouped_twice(top, self.cut_context, facts)
        if twice is not None:
            yield twice

    def _decided(
        self, join: Join, facts: Mapping[str, EdgeFacts], started: frozenset[str], where: OutputPartitioning
    ) -> Join | None:
        for copied, other, allowed in (
            (join.right, join.left, RIGHT_MAY_BE_COPIED),
            (join.left, join.right, LEFT_MAY_BE_COPIED),
        ):
            measured = facts.get(copied.edge_id) if isinstance(copied, Exchange) else None
            if measured is None or not isinstance(copied, Exchange):
                continue
            new = None
            if copied.edge_type is ShuffleEdgeType.HASH and join.kind in allowed:
                new = self._copy_instead(copied, other, measured, started, where)
            elif copied.edge_type is ShuffleEdgeType.BROADCAST and copied.written_as is ShuffleEdgeType.HASH:
                new = self._hash_instead(copied, other, measured, where)
            if new is not None:
                one, two = new
                return (
                    replace(join, left=two, right=one) if copied is join.right else replace(join, left=one, right=two)
                )
        return None

    def _copy_instead(
        self, copied: Exchange, other: Node, measured: EdgeFacts, started: frozenset[str], where: OutputPartitioning
    ) -> tuple[Node, Node] | None:
        if not isinstance(other, Exchange) or other.stage_id in started:
            return None
        if not may_stay(other, where):
            return None
        limit = min(self.cut_context.settings.broadcast_bytes, 2 * other.estimate.bytes // self.cut_context.width)
        if measured.bytes > limit:
            return None
        reason = (
            f"measured {size(measured.bytes)} (estimated {size(copied.estimate.bytes)}): copied to every task, "
            f"so that about {size(other.estimate.bytes)} of the other side stay where they are"
        )
        return (
            replace(
                copied,
                edge_type=ShuffleEdgeType.BROADCAST,
                written_as=ShuffleEdgeType.HASH,
                adaptivity=copied.adaptivity.settled,
                reason=reason,
            ),
            other.input,
        )

    def _hash_instead(
        self, copied: Exchange, other: Node, measured: EdgeFacts, where: OutputPartitioning
    ) -> tuple[Node, Node] | None:
        if direct_reference(other) is not None:
            # Its stage, which would write the new edge, has run.
            return None
        other_side = copied.adaptivity.other
        too_large = measured.bytes > self.cut_context.settings.broadcast_bytes
        if not too_large or measured.bytes * self.cut_context.width <= 2 * other_side.bytes or not where.spreads(other):
            return None
        reason = (
            f"measured {size(measured.bytes)} (estimated {size(copied.estimate.bytes)}): "
            f"more to copy to every task than to hash about {size(other_side.bytes)} of the other side"
        )
        one = replace(
            copied,
            edge_type=ShuffleEdgeType.HASH,
            written_as=None,
            adaptivity=copied.adaptivity.settled,
            reason=reason,
        )
        two = Exchange(
            other,
            ShuffleEdgeType.HASH,
            copied.adaptivity.other_keys,
            estimate=other_side,
            adaptivity=Adaptivity(Decided.RUN),
            reason=reason,
            edge_id=self.cut_context.names.edge(),
            stage_id=self.cut_context.names.stage(),
        )
        return one, two


def _replaced(root: Node, old: Node, new: Node) -> Node:
    """The plan with ``old`` replaced."""
    return rewrite_stages(root, lambda node, moved: new if node is old else moved)


def _sides(joins: Sequence[Join]) -> list[Exchange]:
    return [side for join in joins for side in join.inputs if isinstance(side, Exchange)]


def _is_first_phase(node: Node) -> bool:
    """Whether a node's groups are those of each task by itself."""
    while isinstance(node, Project):
        node = node.input
    if isinstance(node, PartialAggregate):
        return True
    return isinstance(node, Distinct) and not isinstance(node.input, Exchange)


def _exchanges(root: Node) -> list[Exchange]:
    return [n for top in stage_roots(root) for n in own_nodes(top) if isinstance(n, Exchange)]


def _still_open(root: Node, cut_context: CutContext, started: frozenset[str]) -> OpenEdges:
    """What waits for a measurement: the larger side of an open join of two hashed sides, and what a filter may reach.

    Whether a heavy partition may be shared out is known already.
    """
    waits: dict[Exchange, tuple[Exchange, ...]] = {}
    splittable: set[Node] = set()
    where = OutputPartitioning()
    for top, still_open in open_joins(root, where).items():
        if any(isinstance(n, Join) for n in own_nodes(top)):
            splittable |= splittable_inputs(top)
        for join in (n for n in own_nodes(top) if isinstance(n, Join)):
            for late, first in awaited_filter(join, cut_context, started):
                waits[late] = (*waits.get(late, ()), first)
            left, right = join.left, join.right
            if join not in still_open or not isinstance(left, Exchange) or not isinstance(right, Exchange):
                continue
            if left.edge_type is not ShuffleEdgeType.HASH or right.edge_type is not ShuffleEdgeType.HASH:
                continue
            if Decided.RUN in (left.adaptivity.decided, right.adaptivity.decided):
                continue
            small = smaller_side(join)
            assert small is not None
            large = right if small is left else left
            may_copy = LEFT_MAY_BE_COPIED if small is left else RIGHT_MAY_BE_COPIED
            if join.kind in may_copy and may_stay(large, where):
                waits[large] = (*waits.get(large, ()), small)
    return OpenEdges(waits, frozenset(splittable))
