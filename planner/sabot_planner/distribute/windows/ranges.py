"""Windows without PARTITION BY, range by range: what a draft asks for, as stages.

    rows by range    task 0: 3 rows    task 1: 4 rows    task 2: 2 rows
    local            row_number 1 2 3  1 2 3 4           1 2
    carried          + 0               + 3               + 7

Each task computes its range alone; the ranges' totals are put together in one task and handed to all, and every row
adds what its range follows. Rows that are equal in the order are in one range, so ranks and peers are right. Where a
window reads rows of other ranges, each range gives the rows near its ends to one task, which knows from the totals
which range needs which of them, and hands them out:

    rows of range 1, and its halo for lag(x, 2)      c d │ e f g h │
    windows are partitioned by the number of the range, and the rows of the halo are dropped again

Without an order the ranges are the tasks, one after the other, as they read the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.partitioning import Arbitrary, SinglePartition
from sabot_planner.distribute.placed import Placed
from sabot_planner.distribute.windows.draft import CountReach, Reach, ValueReach, WindowDraft
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.expression_types import Named
from sabot_planner.logical.node import Computed, Node, passed
from sabot_planner.logical.nodes import CteRef, Filter, Join, JoinKind, Project, Scan, Shared, Sort, Window
from sabot_planner.logical.ordering import sort_key_call
from sabot_planner.physical.nodes import (
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    TaskScan,
)
from sabot_planner.sql.dialect import call
from sabot_planner.sql.duck_type import BIGINT, BLOB
from sabot_planner.sql.scalars import cast, column, columns_of, integer, null_of, substitute

_MOST_TASKS = 1 << 16
_SERIES = f'"system".main."range"(CAST({_MOST_TASKS} AS BIGINT))'


def over_ranges(context: PlacementContext, node: Window, child: Placed, draft: WindowDraft) -> Placed:
    """The window's items over ranges of ``child``, whose rows are spread."""
    ranges = _Ranges(context, draft, Shared(_local(context, child, draft), context.names.shared()))
    rows = ranges.reading()
    renamed = {old: column(new) for old, new in rows.names.items()}
    if draft.halo:
        result = ranges.with_halo(rows, renamed)
    else:
        result = ranges.with_totals(rows, ranges.handed_out(ranges.totals()))
    items = [Computed(name, renamed[name], kind) for name, kind in node.input.schema.items()]
    types = {item.name: item.type for item in node.items}
    for item in draft.results:
        kind = types[item.name]
        items.append(Computed(item.name, cast(substitute(item.expression, renamed), kind), kind))
    complete: Node = Project(result, tuple(items))
    if not draft.order and node in context.in_order:
        # A stage of its own: beside a table of the session it would run on the session's DuckDB, which may exchange
        # the sides of the join with the totals. The rows would come in the order of a hash table.
        complete = CteRef(Shared(complete, context.names.shared(), apart=True), complete.columns)
    return Placed(complete, Arbitrary())


def _local(context: PlacementContext, child: Placed, draft: WindowDraft) -> Node:
    """What each range computes alone, with the column that tells the ranges apart."""
    base: Node = child.node
    starts: tuple[Computed, ...] = ()
    if draft.order:
        base = context.exchange(child, ShuffleEdgeType.RANGE, sort=Sort(child.node, draft.order), reason="global order")
        start = exp.Window(this=call("min", sort_key_call(draft.order, {})))
        starts = (Computed(draft.here, start, BLOB),)
    items = (*context.computed(draft.local.values(), base), *starts)
    local: Node = RangeWindow(base, items) if items else base
    if draft.whole:
        local = RangeWindow(local, context.computed(draft.whole.values(), local))
    if draft.order:
        return local
    series = Scan(context.catalog.source(_SERIES, ()), context.names.columns(1), "")
    return Join(JoinKind.CROSS, local, PartitionId(TaskScan(series, sliced=True), draft.here), None)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One reading of a shared node; ``names`` maps its columns to those of the reading."""

    node: Node
    names: Mapping[str, str]

    def only(self, wanted: frozenset[str]) -> Node:
        """The reading without the columns that are not among ``wanted``, which are the shared node's."""
        return Project(self.node, passed(self.node, (new for old, new in self.names.items() if old in wanted)))

    def of(self, name: str) -> exp.Expression:
        """The shared node's column ``name``."""
        return column(self.names[name])


@dataclass(frozen=True, slots=True)
class _Ranges:
    context: PlacementContext
    draft: WindowDraft
    shared: Shared

    def reading(self) -> _Reading:
        """The rows with what their ranges computed alone."""
        return self._reading(self.shared)

    def _reading(self, shared: Shared) -> _Reading:
        names = dict(zip(shared.columns, self.context.names.columns(len(shared.columns)), strict=True))
        return _Reading(CteRef(shared, tuple(names.values())), names)

    def totals(self) -> Node:
        """One row per range, in one task: its number, its totals, and what lies before and behind it."""
        draft, context = self.draft, self.context
        rows = self.reading()
        renamed = {old: column(new) for old, new in rows.names.items()}
        read = columns_of(*(t.value for t in draft.totals.values())) | {draft.here}
        below = rows.only(read)
        values = (Named(context.names.column(), substitute(t.value, renamed)) for t in draft.totals.values())
        partial = context.computed(values, below)
        of_range = Computed(context.names.column(), rows.of(draft.here), below.schema[rows.names[draft.here]])
        parts = PartialAggregate(below, (of_range,), partial)
        gathered = context.gather(Placed(parts, Arbitrary()), "the totals of each range")
        finals = tuple(
            Computed(t.name, cast(call(t.again, column(p.name)), p.type), p.type)
            for t, p in zip(draft.totals.values(), partial, strict=True)
        )
        here = Computed(draft.here, column(of_range.name), of_range.type)
        whole = FinalAggregate(gathered.node, (here,), finals, parts=tuple(p.name for p in partial))
        order = exp.Order(expressions=[exp.Ordered(this=column(draft.here), desc=False, nulls_first=False)])
        number = Computed(draft.number, exp.Window(this=call("row_number"), order=order), BIGINT)
        return Window(whole, (), (number, *context.computed(draft.offsets.values(), whole)))

    def handed_out(self, totals: Node) -> Exchange:
        """The totals in every task."""
        reason = "what goes before each range"
        return self.context.exchange(Placed(totals, SinglePartition()), ShuffleEdgeType.BROADCAST, reason=reason)

    def with_totals(self, rows: _Reading, totals: Node) -> Node:
        """Each row with what belongs to its range."""
        own = exp.EQ(this=rows.of(self.draft.here), expression=column(self.draft.here))
        return Join(JoinKind.INNER, rows.node, totals, own)

    def with_halo(self, rows: _Reading, renamed: Mapping[str, exp.Expression]) -> Node:
        """Each row with what belongs to its range, and the windows that read rows of other ranges."""
        draft = self.draft
        totals = Shared(self.totals(), self.context.names.shared())
        same_names = CteRef(totals, totals.columns)
        joined = self.with_totals(rows, self.handed_out(same_names))
        carried = (Named(c.name, substitute(c.expression, renamed)) for c in draft.carried.values())
        own = Project(joined, (*passed(joined), *self.context.computed(carried, joined)))
        named = (Named(w.name, substitute(w.expression, renamed)) for w in draft.halo.values())
        windows = self.context.computed(named, own)
        read = columns_of(*(w.expression for w in windows))
        halo = self._halo(totals, rows, own, read)
        reason = "the rows of other ranges that windows of a range read"
        copied = self.context.exchange(Placed(halo, SinglePartition()), ShuffleEdgeType.BROADCAST, reason=reason)
        return HaloWindow(own, copied, draft.number, windows)

    def _halo(self, totals: Shared, rows: _Reading, own: Project, read: frozenset[str]) -> Node:
        """The columns of ``own`` for rows of other ranges, once for each range that reads them, in one task."""
        draft, context = self.draft, self.context
        near = self.reading()
        wanted = frozenset(old for old, new in rows.names.items() if new in read) | {draft.here}
        wanted |= columns_of(*(c.expression for c in draft.carried.values())) & near.names.keys()
        wanted = wanted.union(*map(_read_by, draft.reaches))
        at_ends = Filter(near.only(wanted), _any(_at_ends(r, near) for r in draft.reaches))
        gathered = context.gather(Placed(at_ends, Arbitrary()), "the rows at the ends of each range")
        source, target = self._reading(totals), self._reading(totals)
        of_source = exp.EQ(this=near.of(draft.here), expression=source.of(draft.here))
        placed = Join(JoinKind.INNER, gathered.node, source.node, of_source)
        within = _any(_within(r, near, source, target, draft.here) for r in draft.reaches)
        pairs = Join(JoinKind.INNER, placed, target.node, within)
        given: dict[str, exp.Expression] = {rows.names[old]: near.of(old) for old in wanted & near.names.keys()}
        given |= {name: target.of(name) for name in totals.columns}
        of_row = {old: column(new) for old, new in (*source.names.items(), *near.names.items())}
        given |= {c.name: substitute(c.expression, of_row) for c in draft.carried.values()}
        fresh = context.names.column
        items = (Computed(fresh(), given[n] if n in read else null_of(kind), kind) for n, kind in own.schema.items())
        return Project(pairs, tuple(items))


# --- what is near


def _read_by(reach: Reach) -> frozenset[str]:
    if isinstance(reach, CountReach):
        return columns_of(reach.valid) | {reach.ordinal, reach.count}
    return columns_of(reach.key) | {reach.least, reach.greatest}


def _at_ends(reach: Reach, rows: _Reading) -> exp.Expression:
    """Whether a row may be read by another range, as far as its own range can tell."""
    if isinstance(reach, CountReach):
        ordinal = rows.of(reach.ordinal)
        behind = exp.LT(this=call("-", rows.of(reach.count), ordinal), expression=integer(reach.before))
        ahead = exp.LTE(this=ordinal, expression=integer(reach.after))
        return _valid(reach, rows, exp.Or(this=behind, expression=ahead))
    return _any(
        _in_distance(reach, rows, distance, ahead=ahead, least=rows.of(reach.least), greatest=rows.of(reach.greatest))
        for distance, ahead in _turned(reach)
    )


def _turned(reach: ValueReach) -> list[tuple[exp.Expression, bool]]:
    """The distances, with whether rows ahead are meant."""
    return [(d, ahead) for d, ahead in ((reach.before, False), (reach.after, True)) if d is not None]


def _within(reach: Reach, rows: _Reading, source: _Reading, target: _Reading, here: str) -> exp.Expression:
    """Whether the target range reads a row of the source range."""
    if isinstance(reach, ValueReach):
        least, greatest = target.of(reach.total_least), target.of(reach.total_greatest)
        terms = []
        for distance, ahead in _turned(reach):
            order = (exp.GT if ahead else exp.LT)(this=source.of(here), expression=target.of(here))
            near = _in_distance(reach, rows, distance, ahead=ahead, least=least, greatest=greatest, of_target=True)
            terms.append(exp.And(this=order, expression=near))
        return _any(terms)
    ordinal = call("+", _or_zero(source.of(reach.earlier)), rows.of(reach.ordinal))
    first = _or_zero(target.of(reach.earlier))
    last = call("+", first, target.of(reach.total))
    behind = exp.And(
        this=exp.LTE(this=ordinal, expression=first),
        expression=exp.GT(this=ordinal, expression=call("-", first, integer(reach.before))),
    )
    ahead_of = exp.And(
        this=exp.GT(this=ordinal, expression=last),
        expression=exp.LTE(this=ordinal, expression=call("+", last, integer(reach.after))),
    )
    return _valid(reach, rows, exp.Or(this=behind, expression=ahead_of))


def _in_distance(
    reach: ValueReach,
    rows: _Reading,
    distance: exp.Expression,
    *,
    ahead: bool,
    least: exp.Expression,
    greatest: exp.Expression,
    of_target: bool = False,
) -> exp.Expression:
    """Whether a row's key is within ``distance`` of the nearest key of a later range (``ahead``: of an earlier one).

    Until the other range is known, the last (first) key of the row's own range stands for it: none is nearer.
    """
    key = substitute(reach.key, {old: column(new) for old, new in rows.names.items()})
    upwards = ahead != reach.descending
    if upwards:
        # The other range has the smaller keys; the greatest of them, or the own least one, is the nearest.
        nearest = greatest if of_target else least
        return exp.LTE(this=key, expression=call("+", nearest, distance))
    nearest = least if of_target else greatest
    return exp.GTE(this=key, expression=call("-", nearest, distance))


def _valid(reach: CountReach, rows: _Reading, condition: exp.Expression) -> exp.Expression:
    if reach.valid is None:
        return condition
    valid = substitute(reach.valid, {old: column(new) for old, new in rows.names.items()})
    both: exp.Expression = exp.And(this=valid, expression=condition)
    return both


def _any(terms: object) -> exp.Expression:
    listed: list[exp.Expression] = list(terms)  # type: ignore[call-overload]
    if not listed:
        return exp.Boolean(this=False)
    return reduce(lambda a, b: exp.Or(this=a, expression=b), listed)


def _or_zero(value: exp.Expression) -> exp.Expression:
    either: exp.Expression = exp.Coalesce(this=value, expressions=[_zero()])
    return either


def _zero() -> exp.Expression:
    return integer(0)
