"""Ids of stages and edges that stay the same while their plan changes."""

from __future__ import annotations

from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node


class StageNames:
    """Ids of stages and edges, by the plan node that each stands for; kept over all revisions of a plan."""

    def __init__(self, names: PlanNames) -> None:
        self._plan_names = names
        self._names: dict[tuple[str, Node], str] = {}

    def of(self, kind: str, node: Node) -> str:
        """The id of the stage (``s``) whose root, or the edge (``e``) whose exchange or reading, is ``node``."""
        known = self._names.get((kind, node))
        if known is None:
            known = self._names[kind, node] = self._plan_names.stage() if kind == "s" else self._plan_names.edge()
        return known

    def carry(self, old: Node, new: Node) -> None:
        """Let ``new`` stand where ``old`` stood."""
        for kind in ("s", "e"):
            self.renew(kind, old, new)

    def renew(self, kind: str, old: Node, new: Node) -> None:
        """Let ``new`` be the stage or the edge, whichever ``kind`` says, that ``old`` was."""
        known = self._names.get((kind, old))
        if known is not None:
            self._names[kind, new] = known
