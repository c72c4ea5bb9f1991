"""Where rows are: what an operator requires of its input and what a sub-plan offers.

An operator requires a ``Distribution``; a sub-plan offers a ``Partitioning``; ``satisfies`` is the one place that
compares them (the separation is that of Spark's and DataFusion's planners).

Keys are sets of names: the columns (or texts of key expressions) known to be equal in every row, so that a
partitioning by ``o_orderkey`` is seen to be one by ``l_orderkey`` above their equi-join.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sabot_planner.job.operators import RangeSplit

Key = frozenset[str]
"""Names that are equal in every row; a hash of any of them is a hash of all."""


@dataclass(frozen=True, slots=True)
class SinglePartition:
    """All rows are in one task."""


@dataclass(frozen=True, slots=True)
class Replicated:
    """Every task that asks can have all rows at no cost (literals)."""


@dataclass(frozen=True, slots=True)
class Arbitrary:
    """Rows are spread over several tasks with no rule."""


@dataclass(frozen=True, slots=True)
class Hashed:
    """A row is in the task that its hash over ``keys``, in this order, names.

    ``scattered``: rows whose keys are NULL may be anywhere, so that it co-locates for joins but not for groups.
    """

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Ranged:
    """A row is in the task whose part of ``split`` its value of ``key`` is in; no value is NULL."""

    key: Key
    split: RangeSplit


@dataclass(frozen=True, slots=True)
class Together:
    """Rows that agree on ``keys`` are in one task, and nothing says in which: what another stage has partitioned so."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Sorted:
    """Task i holds sorted rows that come before those of task i + 1."""


Partitioning = SinglePartition | Replicated | Arbitrary | Hashed | Ranged | Together | Sorted


@dataclass(frozen=True, slots=True)
class AnyDistribution:
    """The operator works row by row."""


@dataclass(frozen=True, slots=True)
class OneTask:
    """The operator must see all rows in one task."""


@dataclass(frozen=True, slots=True)
class Clustered:
    """Rows that agree on ``keys`` must be in one task."""

    keys: tuple[str, ...] = field(default=())


Distribution = AnyDistribution | OneTask | Clustered


def satisfies(offered: Partitioning, required: Distribution) -> bool:
    """Whether rows partitioned as ``offered`` need no movement to be distributed as ``required``.

    A hash over a *subset* of the clustering keys is enough: rows equal on all keys are equal on the subset. The other
    way round is the classic wrong answer: rows hashed by (a, b) and grouped by a give a group once per task.
    """
    match required:
        case AnyDistribution():
            return True
        case OneTask():
            return isinstance(offered, SinglePartition | Replicated)
        case Clustered(keys):
            if isinstance(offered, SinglePartition | Replicated):
                return True
            wanted = set(keys)
            if isinstance(offered, Ranged):
                return bool(offered.key & wanted)
            placed = isinstance(offered, Hashed | Together) and bool(offered.keys)
            return placed and all(key & wanted for key in _keys(offered))


def merge_equal(partitioning: Partitioning, pairs: Iterable[tuple[str, str]]) -> Partitioning:
    """``partitioning`` once each pair of names is known to be equal in every row."""
    keys = list(_keys(partitioning))
    changed = bool(keys)
    listed = list(pairs)
    while changed:
        changed = False
        for left, right in listed:
            for i, key in enumerate(keys):
                if (left in key) != (right in key):
                    keys[i] = key | {left, right}
                    changed = True
    return _with_keys(partitioning, keys)


def renamed(partitioning: Partitioning, names: dict[str, set[str]]) -> Partitioning:
    """``partitioning`` seen through a projection; ``names`` maps an input name to the output names that equal it.

    A key that no output column carries makes the partitioning unknowable above, hence ``Arbitrary``.
    """
    keys = []
    for key in _keys(partitioning):
        out: frozenset[str] = frozenset().union(*(names.get(name, set()) for name in key))
        if not out:
            return Arbitrary()
        keys.append(out)
    return _with_keys(partitioning, keys)


def without(partitioning: Partitioning, names: frozenset[str]) -> Partitioning:
    """``partitioning`` where ``names`` no longer are what placed the rows, because a join has padded them with NULL."""
    keys = [key - names for key in _keys(partitioning)]
    return _with_keys(partitioning, keys) if all(keys) else Arbitrary()


def from_afar(partitioning: Partitioning, names: dict[str, set[str]]) -> Partitioning:
    """How rows are read that another stage has partitioned so, task by task, under the ``names`` they have here."""
    if isinstance(partitioning, SinglePartition | Replicated):
        return SinglePartition()
    keys = _keys(partitioning)
    return renamed(Together(keys), names) if keys else Arbitrary()


def _keys(partitioning: Partitioning) -> tuple[Key, ...]:
    if isinstance(partitioning, Ranged):
        return (partitioning.key,)
    return partitioning.keys if isinstance(partitioning, Hashed | Together) else ()


def _with_keys(partitioning: Partitioning, keys: Sequence[Key]) -> Partitioning:
    match partitioning:
        case Ranged():
            return Ranged(keys[0], partitioning.split)
        case Hashed():
            return Hashed(tuple(keys))
        case Together():
            return Together(tuple(keys))
        case SinglePartition() | Replicated() | Sorted() | Arbitrary():
            return partitioning
