"""Which task reads which partitions, and where ranges begin: arithmetic over what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate


def even_runs(partitions: int, tasks: int) -> tuple[tuple[int, int], ...]:
    """``partitions`` in ``tasks`` contiguous runs [first, last) of nearly equal length, some empty if there are few."""
    return tuple((i * partitions // tasks, (i + 1) * partitions // tasks) for i in range(tasks))


def balanced_runs(weights: Sequence[int], tasks: int) -> tuple[tuple[int, int], ...]:
    """Contiguous runs of partitions, none empty, whose heaviest is as light as contiguous runs allow.

    There are ``min(tasks, len(weights))`` runs.
    """
    tasks = max(1, min(tasks, len(weights)))
    if sum(weights) == 0:
        return even_runs(len(weights), tasks)
    low, high = max(weights), sum(weights)
    while low < high:
        limit = (low + high) // 2
        if _runs_needed(weights, limit) <= tasks:
            high = limit
        else:
            low = limit + 1
    return _cut(weights, tasks, low)


def _runs_needed(weights: Sequence[int], limit: int) -> int:
    runs, filled = 1, 0
    for weight in weights:
        if filled + weight > limit:
            runs, filled = runs + 1, 0
        filled += weight
    return runs


def _cut(weights: Sequence[int], tasks: int, limit: int) -> tuple[tuple[int, int], ...]:
    # Each run takes its fair part of what is left, but never so much that the heaviest run would grow.
    runs: list[tuple[int, int]] = []
    first, left = 0, sum(weights)
    for run in range(tasks):
        remaining_runs = tasks - run
        last_possible = len(weights) - (remaining_runs - 1)
        fair = left / remaining_runs
        last, filled = first + 1, weights[first]
        while last < last_possible and filled + weights[last] <= limit:
            must_take = _runs_needed(weights[last:], limit) > remaining_runs - 1
            if not must_take and filled + weights[last] / 2 > fair:
                break
            filled += weights[last]
            last += 1
        if remaining_runs == 1:
            last = len(weights)
        runs.append((first, last))
        first, left = last, left - filled
    return tuple(runs)


def range_bounds(samples: Sequence[tuple[int, Sequence[bytes]]], ranges: int) -> tuple[bytes, ...]:
    """At most ``ranges - 1`` distinct bounds that cut the rows behind ``samples`` evenly.

    ``samples`` are (rows, sampled keys) of each producer task; a key stands for rows / keys rows of its task. A key
    equal to a bound belongs to the range that the bound opens, so no range is empty for want of keys before it.
    """
    weighted = sorted((key, rows / len(keys)) for rows, keys in samples if keys for key in keys)
    if ranges <= 1 or not weighted:
        return ()
    total = sum(weight for _, weight in weighted)
    bounds: list[bytes] = []
    before = [0.0, *accumulate(weight for _, weight in weighted)]
    position = 0
    for cut in range(1, ranges):
        while position < len(weighted) - 1 and before[position] < total * cut / ranges:
            position += 1
        key = weighted[position][0]
        if key > (bounds[-1] if bounds else weighted[0][0]):
            bounds.append(key)
    return tuple(bounds)
