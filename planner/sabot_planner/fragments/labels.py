"""What people call a stage: its kind and one line of what it does."""

from __future__ import annotations

from sabot_planner.distribute.two_phase import describe
from sabot_planner.errors import UnknownNode
from sabot_planner.fragments.display import DisplayNames
from sabot_planner.job.operators import OperatorType
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

_MOST_WORDS = 10
_MOST_KEYS = 3


def operator_type(root: Node) -> OperatorType:
    """The kind of a stage: that of its topmost operator that does more than compute columns."""
    node = root
    while True:
        match node:
            case Sort() | Limit():
                return OperatorType.SORT
            case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate() | Distinct():
                return OperatorType.GROUP_BY
            case Window() | RangeWindow() | HaloWindow():
                return OperatorType.WINDOW
            case Join():
                return OperatorType.JOIN
            case SetOp():
                return OperatorType.SET
            case TaskScan():
                return OperatorType.SOURCE
            case (
                Scan()
                | Values()
                | Filter()
                | Project()
                | LateralCall()
                | LimitBy()
                | Sample()
                | Shared()
                | CteRef()
                | RecursiveCte()
                | RecursiveRef()
                | Exchange()
                | Reread()
                | RowNumber()
                | Repeated()
                | PartitionId()
                | EmptyRelation()
                | CutRef()
            ):
                if isinstance(node, Exchange) or not node.inputs:
                    return OperatorType.MAP
                node = node.inputs[0]
            case _:
                raise UnknownNode(node, "the kind of stage")


def operator_label(root: Node, display: DisplayNames) -> str:
    """The stage's operators from the sources on, for people: ``scan orders · filter · semi join``."""
    words: list[str] = []

    def visit(node: Node) -> None:
        if isinstance(node, Exchange | PartitionId):
            return
        if isinstance(node, TaskScan):
            by = f" by {node.split.column}" if node.split is not None else ""
            words.append(f"scan {node.scan.source.name}{by}")
            return
        for child in node.inputs:
            visit(child)
        word = _word(node, display)
        if word and (not words or words[-1] != word):
            words.append(word)

    visit(root)
    if len(words) > _MOST_WORDS:
        words = [*words[: _MOST_WORDS - 2], "…", words[-1]]
    return " · ".join(words) or "read"


def _word(node: Node, display: DisplayNames) -> str:
    match node:
        case Filter():
            return "filter"
        case Join():
            return f"{node.kind.lower().replace('_', ' ')} join"
        case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate():
            names = dict.fromkeys(describe(a).replace("count_star", "count") for a in node.aggregates)
            partial = "partial " if any(a.expression.args.get("export_state") for a in node.aggregates) else ""
            keys = ", ".join(display.expression(k.expression) for k in node.keys[:_MOST_KEYS])
            keys += ", …" if len(node.keys) > _MOST_KEYS else ""
            return f"{partial}group by {keys}" if node.keys else f"{partial}{', '.join(list(names)[:3]) or 'aggregate'}"
        case Distinct():
            return "distinct"
        case Window() | RangeWindow() | HaloWindow():
            return "window"
        case Sort():
            first = display.key(node.keys[0]).lower() + (", …" if len(node.keys) > 1 else "")
            return f"top {node.limit} by {first}" if node.limit is not None else f"order by {first}"
        case Limit() | LimitBy():
            return "limit"
        case SetOp():
            return node.kind.lower()
        case Sample():
            return "sample"
        case RecursiveCte():
            return "recursive"
        case (
            Scan()
            | Values()
            | Project()
            | LateralCall()
            | Shared()
            | CteRef()
            | RecursiveRef()
            | Exchange()
            | Reread()
            | RowNumber()
            | Repeated()
            | PartitionId()
            | EmptyRelation()
            | TaskScan()
            | CutRef()
        ):
            return ""
        case _:
            raise UnknownNode(node, "the word")
