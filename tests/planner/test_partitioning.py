"""What is offered is compared with what is required in one place; a mistake there loses or doubles rows everywhere."""

from __future__ import annotations

import pytest

from sabot_planner.distribute.partitioning import (
    AnyDistribution,
    Arbitrary,
    Clustered,
    Distribution,
    Hashed,
    OneTask,
    Partitioning,
    Ranged,
    Replicated,
    SinglePartition,
    Sorted,
    merge_equal,
    renamed,
    satisfies,
)
from sabot_planner.job.operators import RangeSplit

pytestmark = pytest.mark.fast

EVERY: list[Partitioning] = [SinglePartition(), Replicated(), Arbitrary(), Sorted()]
SPLIT = RangeSplit("a", ("10", "20"))


def hashed(*keys: str | set[str]) -> Hashed:
    return Hashed(tuple(frozenset({key} if isinstance(key, str) else key) for key in keys))


def ranged(*names: str) -> Ranged:
    return Ranged(frozenset(names), SPLIT)


def test_no_parts_have_no_bounds() -> None:
    """[0, 0) came out as everything below the last bound."""
    assert [SPLIT.between(first, first) for first in range(4)] == [None] * 4
    assert SPLIT.between(2, 1) is None
    assert SPLIT.between(3, 4) is None
    assert SPLIT.between(0, 3) == (None, None)
    assert [SPLIT.between(i, i + 1) for i in range(3)] == [(None, "10"), ("10", "20"), ("20", None)]


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 16, 128])
def test_tasks_share_out_the_parts_of_a_split(tasks: int) -> None:
    shares = [SPLIT.share(task, tasks) for task in range(tasks)]
    assert [part for first, last in shares for part in range(first, last)] == [0, 1, 2]


@pytest.mark.parametrize("offered", [*EVERY, hashed("a"), ranged("a")])
def test_a_row_by_row_operator_takes_rows_from_anywhere(offered: Partitioning) -> None:
    assert satisfies(offered, AnyDistribution())


@pytest.mark.parametrize("required", [OneTask(), Clustered(("a",)), Clustered(())])
@pytest.mark.parametrize("offered", [SinglePartition(), Replicated()])
def test_rows_in_one_task_satisfy_everything(offered: Partitioning, required: Distribution) -> None:
    assert satisfies(offered, required)


@pytest.mark.parametrize("offered", [Arbitrary(), Sorted(), hashed("a"), hashed(), ranged("a")])
def test_spread_rows_are_not_in_one_task(offered: Partitioning) -> None:
    assert not satisfies(offered, OneTask())
    assert not satisfies(offered, Clustered(())), "a global aggregate sees one group"


@pytest.mark.parametrize(
    ("offered", "keys", "enough"),
    [
        (hashed("a"), ("a",), True),
        (hashed("a"), ("a", "b"), True),
        (hashed("a", "b"), ("b", "a"), True),
        (hashed("a", "b"), ("a",), False),
        (hashed("a"), ("b",), False),
        (hashed({"a", "x"}), ("x", "b"), True),
        (hashed({"a", "x"}, "b"), ("x",), False),
        (hashed(), ("a",), False),
        (Arbitrary(), ("a",), False),
        (Sorted(), ("a",), False),
        (ranged("a"), ("a",), True),
        (ranged("a", "x"), ("x", "b"), True),
        (ranged("a"), ("b",), False),
    ],
)
def test_a_hash_over_a_subset_of_the_keys_is_enough_and_over_more_is_not(
    offered: Partitioning, keys: tuple[str, ...], enough: bool
) -> None:
    assert satisfies(offered, Clustered(keys)) is enough


def test_columns_that_are_equal_in_every_row_are_one_key() -> None:
    assert merge_equal(hashed("a"), [("a", "x")]) == hashed({"a", "x"})
    assert merge_equal(hashed("a", "b"), [("y", "b")]) == hashed("a", {"b", "y"})
    assert merge_equal(hashed("a"), [("p", "q")]) == hashed("a")
    assert merge_equal(ranged("a"), [("a", "x")]) == ranged("a", "x")


def test_equality_is_followed_over_several_pairs_in_any_order() -> None:
    assert merge_equal(hashed("a"), [("y", "z"), ("x", "y"), ("a", "x")]) == hashed({"a", "x", "y", "z"})


@pytest.mark.parametrize("offered", EVERY)
def test_equal_columns_change_nothing_where_nothing_is_hashed(offered: Partitioning) -> None:
    assert merge_equal(offered, [("a", "x")]) == offered


def test_a_partitioning_is_known_by_the_names_above_a_projection() -> None:
    assert renamed(hashed("a", "b"), {"a": {"p", "q"}, "b": {"r"}, "c": {"s"}}) == hashed({"p", "q"}, "r")
    assert renamed(hashed({"a", "x"}), {"x": {"p"}}) == hashed("p")
    assert renamed(ranged("a"), {"a": {"p"}}) == ranged("p")


def test_a_partitioning_whose_key_is_projected_away_is_lost() -> None:
    assert renamed(hashed("a", "b"), {"a": {"p"}}) == Arbitrary()
    assert renamed(ranged("a"), {}) == Arbitrary()


def test_rows_in_one_task_stay_there_under_any_name() -> None:
    assert renamed(SinglePartition(), {}) == SinglePartition()
    assert renamed(Replicated(), {}) == Replicated()
    assert renamed(Arbitrary(), {"a": {"b"}}) == Arbitrary()
