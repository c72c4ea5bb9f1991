"""Placing windows: whole partitions by HASH; without PARTITION BY by ranges, what went before being carried on.

    rows by range    task 0: 3 rows    task 1: 4 rows    task 2: 2 rows
    local            row_number 1 2 3  1 2 3 4           1 2
    carried          + 0               + 3               + 7

Each task computes its range alone, the ranges' totals are summed up in one task and handed to all, and every row adds
what its range follows. Rows that are equal in the order are in one range, so ranks and peers are right. Functions for
which nothing carries over like that see all rows in one task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from sabot_planner.dialect import call, data_type, function_call, to_sql
from sabot_planner.logical import (
    Aggregate,
    Computed,
    CteRef,
    Join,
    JoinKind,
    Node,
    Project,
    Shared,
    Sort,
    SortKey,
    Window,
    replace_inputs,
)
from sabot_planner.operators import ShuffleEdgeType
from sabot_planner.ordering import sort_key_call
from sabot_planner.partitioning import Arbitrary, Clustered, Single, satisfies
from sabot_planner.placed import Placed
from sabot_planner.scalars import column, key_name, substitute

if TYPE_CHECKING:
    from sabot_planner.distribute import Distributor

PARALLEL_ROWS = 200_000
"""From so many rows on sorting them in parallel is worth the stages that carry totals from range to range."""


def place_window(walk: Distributor, node: Window, parallel: bool) -> Placed:
    """The window placed."""
    keys = node.partition_by
    if keys and walk.hashable(keys, node.input):
        child = walk.settled(walk.place(node.input, parallel))
        if not satisfies(child.partitioning, Clustered(tuple(key_name(k) for k in keys))):
            child = walk.hash(child, keys, "window partitions must be whole")
        return replace(child, node=replace_inputs(node, (child.node,)))
    carried = _carried(node) if not keys else None
    if carried is not None and parallel and _is_large(walk, node):
        child = walk.settled(walk.place(node.input, parallel))
        if not isinstance(child.partitioning, Single):
            return _over_ranges(walk, node, child, carried)
    child = walk.gather_in_order(node.input, parallel, "a window without PARTITION BY needs all rows in order")
    return replace(child, node=replace_inputs(node, (child.node,)))


def _is_large(walk: Distributor, node: Window) -> bool:
    forced = walk.context.settings.partitions is not None
    return forced or walk.estimator.rows(node.input) >= PARALLEL_ROWS


@dataclass(frozen=True, slots=True)
class _Carry:
    """How one window column goes on from range to range.

    ``total`` is an aggregate of the range's rows, ``combine`` sums up totals, ``join`` puts the total of all ranges
    before and the local value together.
    """

    item: Computed
    total: exp.Expression
    combine: str
    join: Callable[[exp.Expression, exp.Expression], exp.Expression]


@dataclass(frozen=True, slots=True)
class _Carried:
    order: tuple[SortKey, ...]
    carries: tuple[_Carry, ...]


def _carried(node: Window) -> _Carried | None:
    """How all columns of the window carry over, None where one does not or they differ in their order."""
    orders = [_order(item) for item in node.items]
    carries = [_carry(item) for item in node.items]
    if not orders[0] or None in carries:
        return None
    if any(_order_texts(order) != _order_texts(orders[0]) for order in orders):
        return None
    order = orders[0]
    return _Carried(order, tuple(c for c in carries if c is not None))


def _order(item: Computed) -> tuple[SortKey, ...]:
    order = item.expression.args.get("order")
    return tuple(
        SortKey(o.args["this"], bool(o.args.get("desc")), bool(o.args.get("nulls_first")))
        for o in (order.args["expressions"] if order is not None else ())
    )


def _order_texts(order: tuple[SortKey, ...]) -> list[tuple[str, bool, bool]]:
    return [(to_sql(k.expression), k.descending, k.nulls_first) for k in order]


def _carry(item: Computed) -> _Carry | None:
    window = item.expression
    found = function_call(window)
    inner = window.args["this"]
    if found is None or any(inner.args.get(k) for k in ("distinct", "order", "filter", "nulls")):
        return None
    name, arguments = found
    spec = window.args.get("spec")
    if name in ("row_number", "rank") and spec is None and not arguments:
        return _Carry(item, call("count_star"), "sum", _plus)
    if name == "dense_rank" and spec is None and not arguments:
        return _Carry(item, call("max", column(item.name)), "sum", _plus)
    if not _is_running(spec) or len(arguments) > 1:
        return None
    if name in ("count", "count_star"):
        return _Carry(item, call(name, *arguments), "sum", _plus)
    if name == "sum":
        return _Carry(item, call("sum", *arguments), "sum", _plus)
    if name in ("min", "max"):
        pick = "least" if name == "min" else "greatest"
        return _Carry(item, call(name, *arguments), name, lambda a, b: exp.Anonymous(this=pick, expressions=[a, b]))
    return None


def _is_running(spec: exp.Expression | None) -> bool:
    """From the first row to the current one, or its peers."""
    if spec is None:
        return True
    args: dict[str, Any] = spec.args
    return (
        args["kind"] in ("ROWS", "RANGE")
        and args.get("start") == "UNBOUNDED"
        and args.get("start_side") == "PRECEDING"
        and args.get("end") == "CURRENT ROW"
        and not args.get("exclude")
    )


def _plus(before: exp.Expression, local: exp.Expression) -> exp.Expression:
    # Nothing before, or nothing here, is not zero: the sum over no value is NULL.
    both = call("+", before, local)
    return exp.Coalesce(this=both, expressions=[local, before])


def _over_ranges(walk: Distributor, node: Window, child: Placed, carried: _Carried) -> Placed:
    types = walk.types.of(node)
    first = node.items[0].name
    ranged = walk.exchange(child, ShuffleEdgeType.RANGE, sort=Sort(child.node, carried.order), reason="global order")
    here = f"{first}k"
    local = Window(ranged, (), (*node.items, Computed(here, _start_of_range(carried.order))), by_range=True)
    walk.types.learn({here: "BLOB"})
    shared = Shared(local, f"w{first}")

    rows, here_of_rows = _reading(walk, shared, "r", here)
    offsets, totals = _offsets(walk, shared, carried, here)
    start, before = offsets
    broadcast = walk.exchange(Placed(totals, Single()), ShuffleEdgeType.BROADCAST, reason="what goes before each range")
    condition = exp.EQ(this=column(here_of_rows), expression=column(start))
    joined = Join(JoinKind.INNER, rows, broadcast, condition)
    items = [Computed(name, column(f"{name}r")) for name in node.input.columns]
    for carry, offset in zip(carried.carries, before, strict=True):
        value = carry.join(column(offset), column(f"{carry.item.name}r"))
        items.append(Computed(carry.item.name, exp.Cast(this=value, to=data_type(types[carry.item.name]))))
    return Placed(Project(joined, tuple(items)), Arbitrary())


def _start_of_range(order: tuple[SortKey, ...]) -> exp.Expression:
    return exp.Window(this=call("min", sort_key_call(order, {})))


def _reading(walk: Distributor, shared: Shared, suffix: str, here: str) -> tuple[Node, str]:
    names = {name: f"{name}{suffix}" for name in shared.columns}
    known = walk.types.of(shared)
    walk.types.learn({new: known[old] for old, new in names.items()})
    return CteRef(shared, tuple(names.values())), names[here]


def _offsets(walk: Distributor, shared: Shared, carried: _Carried, here: str) -> tuple[tuple[str, list[str]], Node]:
    """One row per range: its first sort key, and for each window column the total of all ranges before it."""

    rows, start = _reading(walk, shared, "t", here)
    renamed = {name: column(f"{name}t") for name in shared.columns}
    partial = tuple(Computed(f"{c.item.name}p", substitute(c.total, renamed)) for c in carried.carries)
    types = walk.types.of_expressions([p.expression for p in partial], rows)
    walk.types.learn({p.name: t for p, t in zip(partial, types, strict=True)})
    totals = Aggregate(rows, (Computed(f"{here}g", column(start)),), partial, partial=True)
    walk.types.learn({f"{here}g": "BLOB"})
    gathered = walk.gather(Placed(totals, Arbitrary()), "the totals of each range")
    finals = tuple(
        Computed(f"{c.item.name}f", exp.Cast(this=call(c.combine, column(p.name)), to=data_type(t)))
        for c, p, t in zip(carried.carries, partial, types, strict=True)
    )
    whole = Aggregate(gathered.node, (Computed(f"{here}g", column(f"{here}g")),), finals)
    order = exp.Order(expressions=[exp.Ordered(this=column(f"{here}g"), desc=False, nulls_first=False)])
    frame = {
        "kind": "ROWS",
        "start": "UNBOUNDED",
        "start_side": "PRECEDING",
        "end": exp.Literal(this="1", is_string=False),
    }
    spec = exp.WindowSpec(**frame, end_side="PRECEDING")
    before = tuple(
        Computed(f"{c.item.name}b", exp.Window(this=call(c.combine, column(f.name)), order=order, spec=spec))
        for c, f in zip(carried.carries, finals, strict=True)
    )
    return (f"{here}g", [b.name for b in before]), Window(whole, (), before)
