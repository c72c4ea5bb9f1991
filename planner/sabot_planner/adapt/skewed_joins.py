"""Which hashed inputs of a stage may be split: one partition's rows dealt to several tasks.

All of these tasks read every other hashed input's same partition whole, so a row of the stage's result must come from
exactly one row of the split input: on the way up every join lets the rows of that side decide for themselves, and
nothing brings rows of different tasks together.
"""

from __future__ import annotations

from collections.abc import Sequence

from sabot_planner.distribute.join import LEFT_MAY_BE_COPIED, RIGHT_MAY_BE_COPIED
from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
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
)


def splittable_inputs(top: Node) -> frozenset[Node]:
    """The exchanges that may be split in the stage whose root is ``top``."""

    def onward(node: Node) -> Sequence[Node]:
        """The inputs each of whose rows decides for itself what becomes of it."""
        match node:
            case Join():
                left = (node.left,) if node.kind in RIGHT_MAY_BE_COPIED else ()
                return left + ((node.right,) if node.kind in LEFT_MAY_BE_COPIED else ())
            case Filter() | Project() | LateralCall() | Shared() | Sort() | Limit() | PartialAggregate():
                return node.inputs
            case SetOp() if node.kind is SetKind.UNION_ALL:
                # The other branches would be read whole, and come out, once per task.
                hashed = [b for b in node.branches if any(_is_hashed(n) for n in own_nodes(b))]
                return hashed if len(hashed) == 1 else ()
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
                raise UnknownNode(node, "whether its rows decide for themselves")

    return frozenset(node for node in reached([top], onward) if _is_hashed(node) and node is not top)


def _is_hashed(node: Node) -> bool:
    return isinstance(node, Exchange) and node.edge_type is ShuffleEdgeType.HASH
