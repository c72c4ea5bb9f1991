"""Replace a join by an empty relation when a measured input proves it empty.

    Join k = k2                                Nothing
    ├─ HASH e1 (not started)            →      └─ e2, which shows why
    └─ HASH e2 (measured: 0 rows)

Whether the rest of the plan stands that is asked before: the empty relation is the same in every task, where the join's
rows were in some of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from sabot_planner.distribute.check import OutputPartitioning
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
    own_nodes,
)
from sabot_planner.physical.raising import may_raise

_EMPTY_WITHOUT_RIGHT = frozenset(
    {
        JoinKind.INNER,
        JoinKind.CROSS,
        JoinKind.SEMI,
        JoinKind.RIGHT,
        JoinKind.RIGHT_SEMI,
        JoinKind.RIGHT_ANTI,
        JoinKind.ASOF,
    }
)
_EMPTY_WITHOUT_LEFT = frozenset(
    {
        JoinKind.INNER,
        JoinKind.CROSS,
        JoinKind.RIGHT_SEMI,
        JoinKind.LEFT,
        JoinKind.SEMI,
        JoinKind.ANTI,
        JoinKind.ASOF,
        JoinKind.ASOF_LEFT,
    }
)


def empty_side(join: Join, rows: Mapping[Exchange, int]) -> Exchange | None:
    """The measured side without rows that leaves the join none, None where there is no such side.

    DuckDB computes a scalar subquery before it looks at the rows that read it: what may end the query is not left out.
    """
    for side, other, kinds in (
        (join.right, join.left, _EMPTY_WITHOUT_RIGHT),
        (join.left, join.right, _EMPTY_WITHOUT_LEFT),
    ):
        if join.kind in kinds and isinstance(side, Exchange) and rows.get(side) == 0 and not may_raise(other):
            return side
    return None


def witness_of(side: Exchange) -> Exchange:
    """The empty side as what is left of the join keeps it, read whole by every task."""
    reason = f"measured 0 rows (estimated {side.estimate.rows}): the join is empty, and its other side is not computed"
    return replace(
        side,
        edge_type=ShuffleEdgeType.BROADCAST,
        written_as=side.written_as or side.edge_type,
        adaptivity=side.adaptivity.settled,
        reason=reason,
    )


def may_be_nothing(join: Join, stage_roots: Iterable[Node], where: OutputPartitioning) -> bool:
    """Whether every node above stands it that the join's rows are the same in every task of their stage.

    Rows that were spread are then whole, up to the next exchange: alone in one task once an operator above, or another
    stage, has made them its own.
    """
    if not where.spreads(join):
        return True
    readers = _readers(stage_roots)
    alone: dict[Node, bool] = {join: where.is_alone(join)}
    left: list[Node] = [join]
    while left:
        node = left.pop()
        for reader in readers.get(node, ()):
            if reader in alone or isinstance(reader, Exchange) or not where.spreads(reader):
                continue
            others = [i for i in reader.inputs if i is not node and i not in alone and where.spreads(i)]
            match reader:
                case Join():
                    if others:
                        kinds = RIGHT_MAY_BE_COPIED if node is reader.right else LEFT_MAY_BE_COPIED
                        if alone[node] or reader.kind not in kinds:
                            return False
                        continue  # its rows stay where those of its other side are
                    now_alone = any(alone[i] if i in alone else where.is_alone(i) for i in reader.inputs)
                case SetOp():
                    if others:
                        return False
                    now_alone = any(alone[i] if i in alone else where.is_alone(i) for i in reader.inputs)
                case CteRef() | CutRef() | Sort() | Limit() | LimitBy() | Sample() | RecursiveCte():
                    now_alone = True
                case PartialAggregate() | RangeWindow() | HaloWindow() | EmptyRelation():
                    continue  # parts of the rows, wherever they are, or none at all
                case (
                    Filter()
                    | Project()
                    | LateralCall()
                    | Aggregate()
                    | AggregateInPlace()
                    | FinalAggregate()
                    | Window()
                    | Distinct()
                    | Shared()
                    | RowNumber()
                    | Repeated()
                ):
                    now_alone = alone[node]
                case Scan() | Values() | RecursiveRef() | Reread() | PartitionId() | TaskScan():
                    raise AssertionError(f"a {type(reader).__name__} reads no rows of its stage")
                case _:
                    raise UnknownNode(reader, "whether it stands rows that are in every task")
            alone[reader] = now_alone
            left.append(reader)
    return True


def _readers(stage_roots: Iterable[Node]) -> dict[Node, list[Node]]:
    """Who reads each node within its stage, or from another stage in place of a shared expression."""
    readers: dict[Node, list[Node]] = {}
    for top in stage_roots:
        for node in own_nodes(top):
            if isinstance(node, Exchange):
                continue
            for read in (node.reference.shared.input,) if isinstance(node, CutRef) else node.inputs:
                readers.setdefault(read, []).append(node)
    return readers
