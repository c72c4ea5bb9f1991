"""A hash partition far above its fair share is shared out among several tasks.

Where a join may copy one side, the tasks of a heavy partition each read a part of the other side's rows, by the tasks
that produced them, and all of the copied side's:

    partition 3 of probe: producers 0 1 2 3   →   task 3a reads 0 1, task 3b reads 2 3
    partition 3 of build: producers 0 1 2 3   →   both read 0 1 2 3

No key has to be known for that, a hot key's rows were produced everywhere. Grouped or preserved rows of the copied side
would come out once per task, so the planner says which edge may be split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from sabot_planner.job.operators import ShuffleEdge
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.partitions import balanced_runs

_HEAVY = 1.3
"""A partition is heavy when it holds so many times the fair share of a task."""
_FULL = 1.2
"""A part of it may hold so many times that share: a task less is worth more than the last evenness."""


@dataclass(frozen=True, slots=True)
class HashShare:
    """What one task reads of the hashed inputs of its stage: partitions [first, last).

    ``producers`` are those whose rows of the edge ``split`` it reads; of every other edge it reads all.
    """

    first: int
    last: int
    split: str | None = None
    producers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of all tasks, and which partitions were shared out, in words."""

    tasks: tuple[HashShare, ...]
    reason: str


def split_heavy(
    hashed: Sequence[ShuffleEdge], shuffles: Mapping[str, EdgeShuffle], weights: Sequence[int], tasks: int
) -> Shares | None:
    """Shares in which heavy partitions are split, None where nothing is heavy or nothing may be split."""
    candidates = [edge for edge in hashed if edge.splittable]
    total = sum(weights)
    if not candidates or tasks < 2 or not total:
        return None
    fair = total / tasks
    shares: list[HashShare] = []
    said: list[str] = []
    heavy: set[int] = set()
    for partition, weight in enumerate(weights):
        if weight <= _HEAVY * fair:
            continue
        edge = max(candidates, key=lambda e: shuffles[e.edge_id].partition_bytes()[partition])
        parts = _deal(shuffles[edge.edge_id], partition, min(tasks, ceil(weight / (_FULL * fair))))
        if len(parts) < 2:
            continue
        heavy.add(partition)
        shares += [HashShare(partition, partition + 1, edge.edge_id, producers) for producers in parts]
        said.append(f"partition {partition} holds {weight / fair:.1f} times its share: {len(parts)} tasks read it")
    if not heavy:
        return None
    shares += _light(weights, heavy, max(1, tasks - round(sum(weights[p] for p in heavy) / fair)))
    return Shares(tuple(shares), "; ".join(said))


def _deal(shuffle: EdgeShuffle, partition: int, parts: int) -> list[tuple[int, ...]]:
    """The producers with rows in ``partition``, dealt to at most ``parts`` tasks of nearly equal bytes."""
    sizes = {task: output.partition_bytes[partition] for task, output in shuffle.outputs.items()}
    having = sorted((task for task, size in sizes.items() if size), key=lambda task: -sizes[task])
    dealt: list[list[int]] = [[] for _ in range(min(parts, len(having)))]
    for task in having:
        min(dealt, key=lambda part: sum(sizes[t] for t in part)).append(task)
    return [tuple(sorted(part)) for part in dealt]


def _light(weights: Sequence[int], heavy: set[int], tasks: int) -> list[HashShare]:
    """Shares of the partitions between the heavy ones, about ``tasks`` of them."""
    total = sum(weight for partition, weight in enumerate(weights) if partition not in heavy)
    shares: list[HashShare] = []
    first = 0
    for end in [*sorted(heavy), len(weights)]:
        run = weights[first:end]
        if run:
            count = max(1, round(tasks * sum(run) / total)) if total else 1
            shares += [HashShare(first + a, first + b) for a, b in balanced_runs(run, count)]
        first = end + 1
    return shares
