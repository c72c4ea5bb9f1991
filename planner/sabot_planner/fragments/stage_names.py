"""Ids of stages and edges that stay the same while their plan changes."""

from __future__ import annotations

from sabot_planner.logical.nodes import Node


class StageNames:
    """Ids of stages and edges, by the plan node that each stands for; kept over all revisions of a plan."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, int], tuple[Node, str]] = {}
        self._given: dict[str, int] = {}

    def of(self, kind: str, node: Node) -> str:
        """The id of the stage (``s``) whose root, or the edge (``e``) whose exchange or reading, is ``node``."""
        known = self._names.get((kind, id(node)))
        if known is None:
            number = self._given.get(kind, 0)
            self._given[kind] = number + 1
            known = self._names[kind, id(node)] = (node, f"{kind}{number}")
        return known[1]

    def carry(self, old: Node, new: Node) -> None:
        """Let ``new`` stand where ``old`` stood."""
        for kind in ("s", "e"):
            self.renew(kind, old, new)

    def renew(self, kind: str, old: Node, new: Node) -> None:
        """Let ``new`` be the stage or the edge, whichever ``kind`` says, that ``old`` was."""
        known = self._names.get((kind, id(old)))
        if known is not None:
            self._names[kind, id(new)] = (new, known[1])
