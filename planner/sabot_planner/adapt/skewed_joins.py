"""Which hashed inputs of a stage may be split: one partition's rows dealt to several tasks.

All of these tasks read every other hashed input's same partition whole, so a row of the stage's result must come from
exactly one row of the split input: on the way up every join lets the rows of that side decide for themselves, and
nothing brings rows of different tasks together.
"""

from __future__ import annotations

from sabot_planner.distribute.join import LEFT_MAY_BE_COPIED, RIGHT_MAY_BE_COPIED
from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node
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
    Exchange,
    FinalAggregate,
    HaloWindow,
    Nothing,
    Numbered,
    PartialAggregate,
    RangeWindow,
    Repeated,
    Reread,
    TaskOrdinal,
    TaskScan,
    own_nodes,
)


def splittable_inputs(top: Node) -> frozenset[Node]:
    """The exchanges that may be split in the stage whose root is ``top``."""
    found: set[Node] = set()
    stack = [top]
    while stack:
        node = stack.pop()
        match node:
            case Exchange() if node.edge_type is ShuffleEdgeType.HASH and node is not top:
                found.add(node)
            case Join():
                if node.kind in RIGHT_MAY_BE_COPIED:
                    stack.append(node.left)
                if node.kind in LEFT_MAY_BE_COPIED:
                    stack.append(node.right)
            case Filter() | Project() | LateralCall() | Shared() | Sort() | Limit():
                stack.append(node.inputs[0])
            case PartialAggregate():
                stack.append(node.input)
            case SetOp() if node.kind is SetKind.UNION_ALL:
                # The other branches would be read whole, and come out, once per task.
                hashed = [b for b in node.branches if any(_is_hashed(n) for n in own_nodes(b))]
                stack.extend(hashed if len(hashed) == 1 else [])
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
                | Numbered()
                | Repeated()
                | HaloWindow()
                | TaskOrdinal()
                | Nothing()
                | TaskScan()
                | CutRef()
            ):
                pass
            case _:
                raise UnknownNode(node, "whether its rows decide for themselves")
    return frozenset(found)


def _is_hashed(node: Node) -> bool:
    return isinstance(node, Exchange) and node.edge_type is ShuffleEdgeType.HASH
