"""Which joins of a running plan may still be computed in another way, for all that their stage relies on."""

from __future__ import annotations

from collections.abc import Sequence

from sabot_planner.distribute.check import OutputPartitioning
from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import Placement, ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, reached
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetKind,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    CutRef,
    EmptyRelation,
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    Repeated,
    Reread,
    RowNumber,
    TaskScan,
    own_nodes,
    stage_roots,
)


def open_joins(root: Node, where: OutputPartitioning) -> dict[Node, list[Join]]:
    """For the root of each stage its joins whose rows may be anywhere, as far as all that reads them is concerned."""
    anywhere = {top: placed_anywhere(top, where) for top in stage_roots(root)}
    relied_on: set[Node] = set()
    while True:
        # A shared stage is read where its rows are; what is grouped there by the keys of its join relies on that.
        found = {
            node.reference.shared.input
            for top, free in anywhere.items()
            for node in own_nodes(top)
            if isinstance(node, CutRef) and (top in relied_on or node not in free)
        }
        if found <= relied_on:
            break
        relied_on |= found
    return {
        top: [] if top in relied_on else [node for node in free if isinstance(node, Join)]
        for top, free in anywhere.items()
    }


def placed_anywhere(top: Node, where: OutputPartitioning) -> dict[Node, None]:
    """Nodes of a stage whose rows may be anywhere, as far as the rest of the stage is concerned."""

    def onward(node: Node) -> Sequence[Node]:
        """The inputs whose rows may be anywhere if the node's own may be."""
        match node:
            case Join():
                # Below a join that is hashed by its keys on both sides, the sides' own places matter.
                if not where.spreads(node.left):
                    return (node.right,)
                return () if where.spreads(node.right) else (node.left,)
            case Filter() | Project() | LateralCall() | Shared() | PartialAggregate() | Sort() | Limit():
                return node.inputs
            case SetOp() if node.kind is SetKind.UNION_ALL:
                return node.branches
            case (
                Scan()
                | Values()
                | Aggregate()
                | AggregateInPlace()
                | FinalAggregate()
                | RangeWindow()
                | Window()
                | LimitBy()
                | Sample()
                | Distinct()
                | SetOp()
                | CteRef()
                | RecursiveCte()
                | RecursiveRef()
                | Exchange()
                | Reread()
                | RowNumber()
                | Repeated()
                | HaloWindow()
                | PartitionId()
                | EmptyRelation()
                | TaskScan()
                | CutRef()
            ):
                return ()
            case _:
                raise UnknownNode(node, "whether joins below it are open")

    return dict.fromkeys(reached([top], onward))


def may_stay(other: Exchange, where: OutputPartitioning) -> bool:
    """Whether an exchange may be taken out: its stage is its own, spread, and not bound to the session's process."""
    if other.edge_type is not ShuffleEdgeType.HASH or not where.spreads(other.input):
        return False
    for node in own_nodes(other.input):
        if isinstance(node, TaskScan) and node.scan.source.placement is Placement.SESSION:
            return False
    inner = other.input
    while isinstance(inner, Project):
        inner = inner.input
    return not isinstance(inner, CutRef)
