"""How many distinct keys rows have, by what earlier runs of the session counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, log1p

from sqlglot import exp

from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.node import Node
from sabot_planner.logical.nodes import Filter, Join
from sabot_planner.sql.scalars import columns_of
from sabot_planner.stats.fingerprints import Identities, same_keys_below


@dataclass(frozen=True, slots=True)
class DistinctCount:
    """``keys`` distinct ones among the rows asked about, or among those of which filters and joins left these.

    ``narrowed``: a filter on the way there reads the keys themselves, so that not only rows but keys may be gone;
    ``among`` are then the rows that the keys were counted among, None where joins stand between.
    """

    keys: int
    narrowed: bool = False
    among: Node | None = None


class DistinctCounts:
    """Distinct counts of earlier runs, asked for by keys and the rows that have them."""

    def __init__(self, context: PlanContext, identities: Identities) -> None:
        self._context = context
        self._identities = identities

    def of(self, keys: Sequence[exp.Expression], rows: Node, *, through_joins: bool = False) -> DistinctCount | None:
        """Distinct ``keys`` among ``rows``, or among the rows below their filters, ``through_joins`` and joins."""
        narrowed = joined = False
        while True:
            name = self._identities.groups(keys, rows)
            found = self._context.remembered(name) if name is not None else None
            if found is not None:
                return DistinctCount(found, narrowed, None if joined else rows)
            below = same_keys_below(keys, rows)
            if below is not None:
                keys, rows = below
            elif isinstance(rows, Filter):
                narrowed = narrowed or bool(columns_of(rows.predicate) & columns_of(*keys))
                rows = rows.input
            elif isinstance(rows, Join) and through_joins:
                side = next((i for i in rows.inputs if columns_of(*keys) <= frozenset(i.columns)), None)
                if side is None:
                    return None
                rows, joined = side, True
            else:
                return None


def drawn(distinct: float, rows: float) -> float:
    """Distinct values among ``rows`` drawn from many of which ``distinct`` are different."""
    if distinct <= 1:
        return min(distinct, rows)
    return distinct * -expm1(rows * log1p(-1 / distinct))
