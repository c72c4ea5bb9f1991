"""The layered drawing."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabot_sql.plan_view.layout import Label, Layout, Spacing, lay_out

pytestmark = pytest.mark.fast

SPACING = Spacing(100, curve_width=40, level_width=10, node_gap=20, port_in=24)
LABEL = Label(30, above=14, below=30)


def drawn(nodes: str, *edges: str) -> Layout:
    """``drawn("abc", "ab", "bc")``: three nodes, two edges, each with a label of 30 pixels."""
    return lay_out(dict.fromkeys(nodes, 60.0), [(edge[0], edge[1]) for edge in edges], [LABEL] * len(edges), SPACING)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    count = draw(st.integers(1, 14))
    nodes = [f"n{i}" for i in range(count)]
    pairs = [(nodes[i], nodes[j]) for i in range(count) for j in range(i + 1, count)]
    return draw(st.permutations(nodes)), draw(st.lists(st.sampled_from(pairs), max_size=30) if pairs else st.just([]))


@given(graphs())
def test_nodes_never_overlap_and_edges_go_to_the_right(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    nodes, edges = graph
    layout = lay_out(dict.fromkeys(nodes, 60.0), edges, [LABEL] * len(edges), SPACING)
    columns: dict[float, list[tuple[float, float]]] = {}
    for node in nodes:
        center, half = layout.nodes[node], layout.heights[node] / 2
        columns.setdefault(center.x, []).append((center.y - half, center.y + half))
        assert center.y - half >= -1e-6
        assert center.y + half <= layout.height + 1e-6
        assert center.x + 50 <= layout.width + 1e-6
    for spans in columns.values():
        assert all(upper[1] + SPACING.node_gap <= lower[0] + 1e-6 for upper, lower in pairwise(sorted(spans)))
    for (source, target), route in zip(edges, layout.routes, strict=True):
        assert route.start.x == layout.nodes[source].x + 50
        assert route.bends[-1].end.x == layout.nodes[target].x - 50
        assert abs(route.start.y - layout.nodes[source].y) <= layout.heights[source] / 2
        assert abs(route.bends[-1].end.y - layout.nodes[target].y) <= layout.heights[target] / 2
        xs = [route.start.x, *(x for bend in route.bends for x in (bend.begin_x, bend.end.x))]
        assert xs == sorted(xs)
    assert lay_out(dict.fromkeys(nodes, 60.0), edges, [LABEL] * len(edges), SPACING) == layout


def test_a_chain_is_a_straight_line() -> None:
    layout = drawn("abc", "ab", "bc")
    assert [layout.nodes[node].y for node in "abc"] == [30, 30, 30]
    assert [layout.nodes[node].x for node in "abc"] == [50, 190, 330]
    assert (layout.width, layout.height) == (380, 60)


def test_a_source_stands_beside_its_consumer() -> None:
    layout = drawn("abcd", "ab", "bc", "dc")
    assert layout.nodes["d"].x == layout.nodes["b"].x


def test_edges_do_not_cross_without_need() -> None:
    layout = drawn("abcdxy", "ax", "by", "cx", "dy")
    ends = sorted((route.start.y, route.bends[-1].end.y) for route in layout.routes)
    assert [end for _, end in ends] == sorted(end for _, end in ends)


def test_a_node_grows_with_its_edges() -> None:
    assert drawn("abcdef", "af", "bf", "cf", "df", "ef").heights["f"] == 5 * 24
    assert drawn("abc", "ab", "ac").heights["a"] == LABEL.port + 2 * 30


def test_a_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="cycle"):
        drawn("ab", "ab", "ba")


def test_nothing_is_nothing() -> None:
    assert (drawn("").width, drawn("").height) == (0, 0)
