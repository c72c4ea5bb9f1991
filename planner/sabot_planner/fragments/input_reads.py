"""How often the fragments of a graph that was built by hand read their inputs."""

from __future__ import annotations

import re
from dataclasses import replace

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import ShuffleEdge


def with_counted_reads(graph: OperatorGraph) -> OperatorGraph:
    """``graph`` with :attr:`ShuffleEdge.reads` of every edge, by the words of its target's SQL where nobody said.

    A name inside a text or a comment counts as well: what looks as if it were read twice is computed once.
    """
    return replace(graph, edges=tuple(_counted(graph, edge) for edge in graph.edges))


def _counted(graph: OperatorGraph, edge: ShuffleEdge) -> ShuffleEdge:
    if edge.reads is not None:
        return edge
    named = re.findall(rf"\b{re.escape(edge.input_name)}\b", graph.operator(edge.target).sql, re.IGNORECASE)
    return replace(edge, reads=len(named))
