"""What the checker derives of order: whether rows are in ranges of it, and whether two orders are the same."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, SortKey
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
from sabot_planner.sql.scalars import key_name


def in_own_order(node: RangeWindow) -> bool:
    """Whether windows over a part of the rows have the order by which the rows were parted, or none at all."""
    orders = {_order_text(i.expression) for i in node.items} - {""}
    base = node.input
    while isinstance(base, RangeWindow):
        base = base.input
    if isinstance(base, Exchange) and base.edge_type is ShuffleEdgeType.RANGE:
        return orders <= {", ".join(_sort_text(k) for k in base.sort_keys)}
    return not orders


def is_parted_in_order(node: Node) -> bool:
    """Whether a node's rows are in parts of which each comes after another: ranges, or tasks that have a number."""
    match node:
        case Exchange():
            return node.edge_type is ShuffleEdgeType.RANGE
        case Join():
            return isinstance(node.right, PartitionId) or is_parted_in_order(node.left)
        case CutRef():
            return is_parted_in_order(node.reference.shared)
        case Project() | CteRef() | Shared():
            return is_parted_in_order(node.inputs[0])
        case RangeWindow():
            return is_parted_in_order(node.input)
        case EmptyRelation():
            return True
        case (
            Scan()
            | Values()
            | Filter()
            | LateralCall()
            | Aggregate()
            | AggregateInPlace()
            | PartialAggregate()
            | FinalAggregate()
            | Window()
            | Sort()
            | Limit()
            | LimitBy()
            | Sample()
            | Distinct()
            | SetOp()
            | RecursiveCte()
            | RecursiveRef()
            | Reread()
            | RowNumber()
            | Repeated()
            | HaloWindow()
            | PartitionId()
            | TaskScan()
        ):
            return False
        case _:
            raise UnknownNode(node, "whether its rows are in parts")


def _sort_text(key: SortKey) -> str:
    return f"{key_name(key.expression)} {key.descending} {key.nulls_first}"


def _order_text(window: exp.Expression) -> str:
    """The order of a window as :func:`_sort_text` writes keys; empty for a window over the whole range."""
    order = window.args.get("order")
    keys = order.args["expressions"] if order is not None else ()
    return ", ".join(
        _sort_text(SortKey(k.args["this"], bool(k.args.get("desc")), bool(k.args.get("nulls_first")))) for k in keys
    )


def same_order(one: tuple[SortKey, ...], two: tuple[SortKey, ...]) -> bool:
    """Whether two orders are the same."""

    def texts(keys: tuple[SortKey, ...]) -> list[tuple[str, bool, bool]]:
        return [(key_name(k.expression), k.descending, k.nulls_first) for k in keys]

    return texts(one) == texts(two)
