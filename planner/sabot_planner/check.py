"""The last pass: prove, from the finished plan alone, that rows which must meet do meet.

It derives where rows are anew, from exchanges and scans up, knowing nothing of why an exchange was put where it is.
"""

from __future__ import annotations

from sabot_planner.errors import PlannerError
from sabot_planner.logical import (
    Join,
    JoinKind,
    Node,
    RecursiveCte,
    Sample,
    SetKind,
    SetOp,
    Values,
    Window,
)
from sabot_planner.operators import ShuffleEdgeType
from sabot_planner.physical import CutRef, Exchange, TaskScan


def check(root: Node) -> None:
    """Raise where a stage mixes rows that are spread with an operator that needs them together.

    Raises:
        PlannerError: the plan would give wrong rows. This is a defect of the planner, never of the query.
    """
    _Checker().spread(root)


def spreads(node: Node) -> bool:
    """Whether the node's rows are spread over several tasks of its stage."""
    return _Checker().spread(node)


class _Checker:
    """``spread`` answers whether a node's rows are spread over several tasks of its stage."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def spread(self, node: Node) -> bool:
        known = self._known.get(id(node))
        if known is None:
            known = self._known[id(node)] = self._spread(node)
        return known

    def _spread(self, node: Node) -> bool:
        inputs = [self.spread(i) for i in node.inputs]
        match node:
            case TaskScan():
                return node.sliced
            case Exchange():
                return not node.gather and node.edge_type in (
                    ShuffleEdgeType.HASH,
                    ShuffleEdgeType.RANGE,
                    ShuffleEdgeType.REBALANCE,
                )
            case Values():
                return False
            case CutRef():
                return self.spread(node.reference.shared.input)
            case Sample() | RecursiveCte():
                self._demand(not any(inputs), node, "all rows in one task")
                return False
            case Window() if not node.partition_by:
                self._demand(not any(inputs), node, "all rows in one task")
                return False
            case Join():
                return self._join(node, inputs)
            case SetOp() if node.kind is not SetKind.UNION_ALL:
                self._demand(inputs.count(inputs[0]) == len(inputs), node, "all branches hashed alike, or none")
                return inputs[0]
            case SetOp():
                mixed = any(inputs) and not all(inputs)
                self._demand(not mixed, node, "all branches spread, or none: one of them would be read by every task")
                return inputs[0]
            case _:
                return any(inputs)

    def _join(self, node: Join, inputs: list[bool]) -> bool:
        left, right = inputs
        if not left and not right:
            return False
        if not right:
            # Every task of the stage has the right side whole, so its unmatched rows must not come out.
            self._demand(node.kind not in _RIGHT_PRESERVED, node, "the right side not copied")
        if not left:
            self._demand(node.kind not in _LEFT_PRESERVED, node, "the left side not copied")
        if left and right:
            self._demand(
                self._placed_by_key(node.left) and self._placed_by_key(node.right),
                node,
                "both sides placed by their keys",
            )
        return True

    @staticmethod
    def _placed_by_key(node: Node) -> bool:
        stack = [node]
        while stack:
            inner = stack.pop()
            if isinstance(inner, TaskScan) and inner.split is not None:
                return True
            if isinstance(inner, Exchange):
                if inner.edge_type is ShuffleEdgeType.HASH:
                    return True
                continue
            stack.extend(inner.inputs)
        return False

    @staticmethod
    def _demand(holds: bool, node: Node, wanted: str) -> None:
        if not holds:
            raise PlannerError(f"the plan's {type(node).__name__} needs {wanted}")


_RIGHT_PRESERVED = frozenset(
    {
        JoinKind.RIGHT,
        JoinKind.FULL,
        JoinKind.RIGHT_SEMI,
        JoinKind.RIGHT_ANTI,
        JoinKind.POSITIONAL,
        JoinKind.ASOF_RIGHT,
        JoinKind.ASOF_FULL,
    }
)
_LEFT_PRESERVED = frozenset(
    {
        JoinKind.LEFT,
        JoinKind.FULL,
        JoinKind.SEMI,
        JoinKind.ANTI,
        JoinKind.MARK,
        JoinKind.SINGLE,
        JoinKind.POSITIONAL,
        JoinKind.ASOF,
        JoinKind.ASOF_LEFT,
        JoinKind.ASOF_FULL,
    }
)
