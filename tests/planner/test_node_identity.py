"""What is known of a node is kept by the node: no pass keeps its own maps of object identities, nor hashes anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sabot_planner
from sabot_planner.logical.node import Node, reached, walk
from sabot_planner.logical.nodes import CteRef, Join, JoinKind, Shared
from tests.planner.test_every_node import NODES, scan

pytestmark = pytest.mark.fast

ROOT = Path(sabot_planner.__file__).parent
TRAVERSAL = "sql/expression_tree.py"
"""The nodes of sqlglot are equal to others that are spelled alike: this walk tells them apart while it runs."""


def calls(path: Path, names: frozenset[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield f"{path.relative_to(ROOT)}:{node.lineno}"


def test_object_identity_is_used_by_one_walk_only() -> None:
    found = [place for path in sorted(ROOT.rglob("*.py")) for place in calls(path, frozenset({"id", "hash"}))]
    assert found, "the walk over expressions has moved"
    assert {place.partition(":")[0] for place in found} == {TRAVERSAL}


@pytest.mark.parametrize("node", NODES, ids=lambda node: type(node).__name__)
def test_a_walk_gives_inputs_before_their_readers_and_each_node_once(node: Node) -> None:
    order = walk(node)
    places = {inner: place for place, inner in enumerate(order)}
    assert len(places) == len(order)
    assert order[-1] is node
    assert all(places[read] < places[inner] for inner in order for read in inner.inputs)


def test_a_walk_is_remembered_with_its_node_and_meets_what_is_shared_once() -> None:
    shared = Shared(scan(), "u")
    both = Join(JoinKind.CROSS, CteRef(shared, ("c2",)), CteRef(shared, ("c3",)), None)
    assert walk(both) is walk(both)
    assert [n for n in walk(both) if isinstance(n, Shared)] == [shared]
    assert [n for n in reached([both], lambda node: node.inputs) if isinstance(n, Shared)] == [shared]
