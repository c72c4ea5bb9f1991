"""A heavy hash partition is dealt to several tasks: every row of the split side is read once, whatever the sizes."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot_planner.job.operators import ShuffleEdge, ShuffleEdgeType
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.skew import split_heavy
from sabot_sql.protocol.task_spec import OutputReport, WriteKind, WriteScheme

HASH = ShuffleEdgeType.HASH
SIZES = st.lists(st.lists(st.integers(0, 50), min_size=8, max_size=8), min_size=1, max_size=6)


def shuffle(edge_id: str, sizes: list[list[int]]) -> EdgeShuffle:
    """An edge whose task i wrote ``sizes[i][p]`` rows of 10 bytes to partition p."""
    outputs = {}
    for task, rows in enumerate(sizes):
        in_bytes = tuple(10 * count for count in rows)
        outputs[task] = OutputReport(edge_id, "agent-1", b"", sum(rows), sum(in_bytes), 0, tuple(rows), in_bytes)
    scheme = WriteScheme(WriteKind.HASH_COLUMN, len(sizes[0]), "h")
    return EdgeShuffle(edge_id, scheme, len(sizes), outputs=outputs)


def edge(edge_id: str, *, splittable: bool) -> ShuffleEdge:
    return ShuffleEdge(edge_id, f"source_{edge_id}", "join", HASH, ("k",), 8, "h", splittable=splittable)


@settings(max_examples=300, deadline=None)
@given(probe=SIZES, build=SIZES, hot=st.integers(0, 7), times=st.integers(1, 200), tasks=st.integers(2, 6))
def test_rows_of_the_split_side_are_read_once(
    probe: list[list[int]], build: list[list[int]], hot: int, times: int, tasks: int
) -> None:
    for rows in probe:
        rows[hot] *= times
    shuffles = {"probe": shuffle("probe", probe), "build": shuffle("build", build)}
    weights = [sum(p) for p in zip(*(s.partition_bytes() for s in shuffles.values()), strict=True)]
    edges = [edge("probe", splittable=True), edge("build", splittable=False)]
    shares = split_heavy(edges, shuffles, weights, tasks)
    if shares is None:
        return
    assert "times its share" in shares.reason
    read = {name: Counter[tuple[int, int]]() for name in shuffles}
    for share in shares.tasks:
        for name, one in shuffles.items():
            producers = share.producers if share.split == name else tuple(one.outputs)
            read[name].update((p, partition) for p in producers for partition in range(share.first, share.last))
    for producer, output in shuffles["probe"].outputs.items():
        for partition, rows in enumerate(output.partition_rows):
            if rows:
                assert read["probe"][producer, partition] == 1
    split = {share.first for share in shares.tasks if share.split}
    for partition in range(8):
        times_read = sum(share.first <= partition < share.last for share in shares.tasks)
        assert times_read >= 2 if partition in split else times_read == 1


def test_half_of_all_rows_are_as_heavy_as_a_fair_share_of_four_tasks() -> None:
    rows = [[100, 100, 100, 100, 100, 100, 100, 800]] * 4
    shares = split_heavy([edge("probe", splittable=True)], {"probe": shuffle("probe", rows)}, [4000] * 7 + [32000], 4)
    assert shares is not None
    heavy = [share for share in shares.tasks if share.split]
    assert [(s.first, s.last, len(s.producers)) for s in heavy] == [(7, 8, 2), (7, 8, 2)]
    assert [(s.first, s.last) for s in shares.tasks if not s.split] == [(0, 4), (4, 7)]


@pytest.mark.parametrize("splittable", [True, False])
def test_nothing_is_split_that_must_not_be_or_need_not_be(splittable: bool) -> None:
    even = shuffle("probe", [[100] * 8] * 4)
    hot = shuffle("probe", [[100] * 7 + [5000]] * 4)
    given_edge = edge("probe", splittable=splittable)
    assert split_heavy([given_edge], {"probe": even}, list(even.partition_bytes()), 4) is None
    assert (split_heavy([given_edge], {"probe": hot}, list(hot.partition_bytes()), 4) is not None) is splittable
