"""Small sub-plans that every task computes for itself, sooner than a stage of its own would hand their rows out."""

from __future__ import annotations

from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import Placement
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, walk
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    JoinKind,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
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
)

_PLAIN_JOINS = frozenset(
    {JoinKind.INNER, JoinKind.CROSS, JoinKind.LEFT, JoinKind.RIGHT, JoinKind.FULL, JoinKind.SEMI, JoinKind.ANTI}
    | {JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI, JoinKind.MARK}
)


def source_rows(node: Node) -> int | None:
    """Rows of all sources below; None where they are not known, or where a part of the sub-plan is shared."""
    total = 0
    for inner in walk(node):
        if isinstance(inner, CteRef | Shared | RecursiveCte):
            return None
        if isinstance(inner, Scan):
            if inner.source.rows is None:
                return None
            total += inner.source.rows
    return total


def is_repeatable(node: Node) -> bool:
    """Whether any task that computes the sub-plan comes to the same rows.

    Nothing in it may depend on the order of rows, as a LIMIT or the sum of floating-point numbers does, or lie in the
    memory of one process.
    """
    for inner in walk(node):
        match inner:
            case Scan():
                if inner.source.placement is Placement.SESSION:
                    return False
            case TaskScan():
                if inner.sliced or inner.scan.source.placement is Placement.SESSION:
                    return False
            case Join():
                if inner.kind not in _PLAIN_JOINS:
                    return False
            case Filter() | Project() | Values():
                pass
            case (
                LateralCall()
                | Aggregate()
                | AggregateInPlace()
                | PartialAggregate()
                | FinalAggregate()
                | RangeWindow()
                | Window()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Distinct()
                | SetOp()
                | Shared()
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
                | CutRef()
            ):
                return False
            case _:
                raise UnknownNode(inner, "whether it can be repeated")
    return True
