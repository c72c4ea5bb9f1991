"""Ids of stages and edges: fields of the nodes that they belong to, so that they stay while a plan changes."""

from __future__ import annotations

from dataclasses import replace

from sabot_planner.logical.expressions import is_narrowing
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import Project, Shared
from sabot_planner.physical.nodes import CutRef, Exchange, own_nodes, rewrite_stages


def name_stages(root: Node, names: PlanNames) -> tuple[Node, str]:
    """Give every edge and stage of a plan its id, producers first; the plan, and the id of the stage of its root."""
    edges: dict[Node, str] = {}
    stages: dict[Node, str] = {}
    shared_stages: dict[Shared, str] = {}

    def of_shared(shared: Shared) -> str:
        if shared not in shared_stages:
            shared_stages[shared] = of_stage(shared.input)
        return shared_stages[shared]

    def of_stage(top: Node) -> str:
        for node in own_nodes(top):
            if isinstance(node, Exchange):
                reference = direct_reference(node.input)
                direct = reference is not None
                stages[node] = of_shared(reference.reference.shared) if direct else of_stage(node.input)  # type: ignore[union-attr]
                edges[node] = names.edge()
            elif isinstance(node, CutRef):
                of_shared(node.reference.shared)
                edges[node] = names.edge()
        return names.stage()

    def named(old: Node, new: Node) -> Node:
        if isinstance(new, Exchange):
            return replace(new, edge_id=edges[old], stage_id=stages[old])
        if isinstance(old, CutRef) and isinstance(new, CutRef):
            return replace(new, edge_id=edges.get(old, ""), stage_id=shared_stages[old.reference.shared])
        return new

    root_stage = of_stage(root)
    return rewrite_stages(root, named), root_stage


def direct_reference(node: Node) -> CutRef | None:
    """The reading of a cut expression where an exchange moves nothing but its columns."""
    while isinstance(node, Project) and is_narrowing(node):
        node = node.input
    return node if isinstance(node, CutRef) else None
