"""The keys of a finished join side filter the other side before it moves.

    Join k = k2                                Join k = k2
    ├─ HASH e1 ◀ Filter ◀ scan t      →        ├─ HASH e1 ◀ Filter ◀ SEMI JOIN ◀ scan t
    │                                          │                     └─ e2, read again
    └─ HASH e2 (measured: 4,000 rows)          └─ HASH e2

A semi-join with the rows that are there already is exact for every type, as it compares as the join itself does; from
its keys DuckDB takes the range, a list where they are few, and a bloom filter to the scan, and skips row groups by
them. It is put as low as its keys go, through groups and further exchanges, but into no stage that has started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sabot_planner.adapt.filter_placement import FilterPlacer, KeySource, key_sources
from sabot_planner.fragments.stage_names import direct_reference
from sabot_planner.fragments.stages import CutContext
from sabot_planner.job.plan import EdgeFacts
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import (
    Join,
)
from sabot_planner.logical.size_text import size
from sabot_planner.physical.nodes import (
    Exchange,
)
from sabot_planner.physical.raising import may_raise

_KEY_BYTES = 16
"""About what a key takes in the hash table that each task makes of them."""


def smaller_side(join: Join) -> Exchange | None:
    """The side of a join of two exchanges that is measured first, by estimates."""
    left, right = join.left, join.right
    if not isinstance(left, Exchange) or not isinstance(right, Exchange):
        return None
    return left if left.estimate.bytes < right.estimate.bytes else right


def awaited_filter(join: Join, cut_context: CutContext, started: frozenset[str]) -> list[tuple[Exchange, Exchange]]:
    """(exchange, side) for each exchange whose stage should wait until ``side`` of ``join`` is measured.

    Only the smaller side of a join is ever waited for, so that no two stages wait for each other.
    """
    small = smaller_side(join)
    for source in key_sources(join):
        if source.rows.adaptivity.weighed or small not in (None, source.rows):
            continue
        trial = FilterPlacer(_open_stages(started))
        if not _places(trial, source):
            continue
        if _pays(cut_context, source.rows.estimate.rows, source.rows, trial.landed):
            return [(late, source.rows) for late in trial.landed]
    return []


def with_filter(
    join: Join, cut_context: CutContext, facts: Mapping[str, EdgeFacts], started: frozenset[str]
) -> Join | None:
    """The join with one measured side as a filter of the other, or with the reason why it is none.

    None where nothing is to be decided.
    """
    for source in key_sources(join):
        edge_id = source.rows.edge_id
        measured = facts.get(edge_id)
        if measured is None or source.rows.adaptivity.weighed:
            continue
        trial = FilterPlacer(_open_stages(started))
        if not _places(trial, source):
            continue
        expected = source.rows.estimate
        said = f"{measured.rows:,} rows measured (estimated {expected.rows:,}) of about {expected.whole_rows:,}"
        share, moved = _share(measured.rows, source.rows), size(sum(e.estimate.bytes for e in trial.landed))
        if _pays(cut_context, measured.rows, source.rows, trial.landed):
            reason = f"{said}: their keys keep about {1 - share:.0%} of {moved} from moving"
            placer = FilterPlacer(
                _open_stages(started), cut_context.names.edge, share, f"filtered by {edge_id}", reason
            )
            new = placer.place(source)
            return None if new is None else _weighed(source, new, source.rows.reason)
        if _pays(cut_context, expected.rows, source.rows, trial.landed):
            refused = f"{said}: no filter, it would let about {share:.0%} of {moved} pass"
            return _weighed(source, source.filtered, "; ".join(filter(None, (source.rows.reason, refused))))
    return None


def _places(trial: FilterPlacer, source: KeySource) -> bool:
    """Whether there is a place for the filter, and no row that it keeps back may end the query with an error."""
    return trial.place(source) is not None and not may_raise(source.filtered)


def _weighed(source: KeySource, filtered: Node, reason: str) -> Join:
    rows = replace(source.rows, adaptivity=replace(source.rows.adaptivity, weighed=True), reason=reason)
    if source.rows is source.join.left:
        return replace(source.join, left=rows, right=filtered)
    return replace(source.join, left=filtered, right=rows)


def _open_stages(started: frozenset[str]) -> Callable[[Exchange], bool]:
    """Exchanges whose stage is their own and may still change; a shared expression has other readers."""
    return lambda e: direct_reference(e.input) is None and e.stage_id not in started


def _share(rows: int, side: Exchange) -> float:
    """The share of the other side's rows that find a partner, as far as filters decide it."""
    return min(1.0, rows / side.estimate.whole_rows) if side.estimate.whole_rows else 1.0


def _pays(cut_context: CutContext, rows: int, side: Exchange, landed: Sequence[Exchange]) -> bool:
    share, moved_bytes = _share(rows, side), sum(exchange.estimate.bytes for exchange in landed)
    keys_bytes = rows * _KEY_BYTES
    if share > cut_context.settings.filter_share or moved_bytes < cut_context.settings.filter_bytes:
        return False
    if keys_bytes > cut_context.settings.grant_bytes // 4:
        return False  # each task would hold them beside its own rows
    return cut_context.settings.filter_bytes == 0 or (1 - share) * moved_bytes > keys_bytes * cut_context.width
