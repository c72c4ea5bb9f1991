"""Clustering that is found, not declared: tables whose row groups do not overlap in a column are cut at its values.

Two tables that are clustered on their join key and cut at the same bounds join, group and sort by it without moving a
row: orders and lineitem, both written in the order of the order key, are the usual case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import pairwise

from sabot_planner.errors import UnknownNode
from sabot_planner.job.operators import RangeSplit
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Node, walk
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.sql.duck_type import INTEGERS
from sabot_planner.sql.scalars import column_name, equi_keys

_CUTTABLE = INTEGERS | {"DATE", "TIMESTAMP"}
_MOST_UNEVEN = 1.5
"""The largest part may hold so many times its fair share of the rows; beyond, rows are dealt out by number instead."""


@dataclass(slots=True, eq=False)
class _Class:
    """Scan columns that joins make equal; ``joins`` counts those joins."""

    members: set[str]
    joins: int = 0
    groups: int = 0


@dataclass(slots=True)
class ScanColumns:
    """Where plan columns come from: ``scan_of`` for columns of scans, ``renamed`` for those that only pass them on."""

    scan_of: dict[str, Scan] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)

    def origin(self, name: str | None) -> str | None:
        """The scan column that a plan column is, None where it is computed.

        What is shared is read under other names, and may be given its old ones back above: then a name leads to itself.
        """
        passed: set[str] = set()
        while name is not None and name not in self.scan_of:
            passed.add(name)
            inner = self.renamed.get(name)
            name = None if inner in passed else inner
        return name


def choose_splits(root: Node, context: PlanContext, width: int) -> dict[str, tuple[str, RangeSplit]]:
    """For scans worth cutting by value: first column name of the scan → (column, ranges).

    A class of columns is worth it where at least two clustered tables join on it, or where one is grouped by it.
    """
    if width < 2:
        return {}
    columns = scan_columns(root)
    chosen: dict[str, tuple[str, RangeSplit]] = {}
    classes = [c for c in _classes(root, columns) if c.joins or c.groups]
    ranked = []
    for one in classes:
        zones = {name: z for name in one.members if (z := _spans(name, columns, context)) is not None}
        if len(zones) >= 2 or (zones and one.groups):
            rows = sum(zone.rows for all_zones in zones.values() for zone in all_zones)
            ranked.append((rows, sorted(zones), zones))
    for _, names, zones in sorted(ranked, key=lambda r: (-r[0], r[1])):
        free = [n for n in names if columns.scan_of[n].names[0] not in chosen]
        largest = max(free, key=lambda n: sum(z.rows for z in zones[n]), default=None)
        if largest is None:
            continue
        kind = columns.scan_of[largest].schema[largest].kind
        alike = [n for n in free if columns.scan_of[n].schema[n].kind == kind]
        bounds = even_bounds(zones[largest], width)
        if bounds is None:
            continue
        literals = tuple(_literal(bound, kind) for bound in bounds)
        for name in alike:
            scan = columns.scan_of[name]
            shown = scan.source.columns[scan.names.index(name)].name
            chosen.setdefault(scan.names[0], (name, RangeSplit(shown, literals)))
    return chosen


def scan_columns(root: Node) -> ScanColumns:
    """Which columns of a plan are columns of its scans, under whatever name."""
    found = ScanColumns()
    for node in walk(root):
        match node:
            case Scan():
                found.scan_of.update(dict.fromkeys(node.names, node))
            case Project():
                for item in node.items:
                    inner = column_name(item.expression)
                    if inner is not None and inner != item.name:
                        found.renamed[item.name] = inner
            case Aggregate():
                for key in node.keys:
                    inner = column_name(key.expression)
                    if inner is not None and inner != key.name:
                        found.renamed[key.name] = inner
            case CteRef():
                found.renamed.update(zip(node.names, node.shared.columns, strict=True))
            case (
                Values()
                | Filter()
                | LateralCall()
                | Join()
                | Window()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Distinct()
                | SetOp()
                | Shared()
                | RecursiveCte()
                | RecursiveRef()
            ):
                pass
            case _:
                raise UnknownNode(node, "which columns are a scan's")
    return found


def _classes(root: Node, columns: ScanColumns) -> Sequence[_Class]:
    of: dict[str, _Class] = {}

    def class_of(name: str) -> _Class:
        return of.setdefault(name, _Class({name}))

    for node in walk(root):
        match node:
            case Join():
                keys, _ = equi_keys(node.condition, frozenset(node.left.columns), frozenset(node.right.columns))
                for key in keys:
                    one, two = columns.origin(column_name(key.left)), columns.origin(column_name(key.right))
                    if one is None or two is None:
                        continue
                    merged, other = class_of(one), class_of(two)
                    merged.joins += 1
                    if other is not merged:
                        merged.members |= other.members
                        merged.joins += other.joins
                        merged.groups += other.groups
                        of.update(dict.fromkeys(other.members, merged))
            case Aggregate() | Distinct() | Window():
                for name in _grouped(node):
                    origin = columns.origin(name)
                    if origin is not None:
                        class_of(origin).groups += 1
            case (
                Scan()
                | Values()
                | Filter()
                | Project()
                | LateralCall()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | SetOp()
                | Shared()
                | CteRef()
                | RecursiveCte()
                | RecursiveRef()
            ):
                pass
            case _:
                raise UnknownNode(node, "what is grouped or joined")
    return list(dict.fromkeys(of.values()))


def _grouped(node: Aggregate | Distinct | Window) -> list[str | None]:
    match node:
        case Aggregate():
            return [column_name(k.expression) for k in node.keys] if node.grouping_sets is None else []
        case Distinct():
            return [column_name(e) for e in node.on]
        case Window():
            return [column_name(e) for e in node.partition_by]


@dataclass(frozen=True, slots=True)
class Span:
    """A zone on the number line; dates are counted in days, timestamps in microseconds."""

    low: int
    high: int
    rows: int


def _spans(name: str, columns: ScanColumns, context: PlanContext) -> tuple[Span, ...] | None:
    """The zones of a scan column where its table is clustered by it."""
    scan = columns.scan_of[name]
    if scan.schema[name].kind not in _CUTTABLE:
        return None
    zones = context.zones(scan.source.source_id, scan.source.columns[scan.names.index(name)].name)
    if zones is None or len(zones) < 2:
        return None
    spans = tuple(Span(number_of(z.low), number_of(z.high), z.rows) for z in zones)
    # Neighbours may share a value: all its rows still fall on one side of any bound.
    return spans if all(a.high <= b.low for a, b in pairwise(spans)) else None


def number_of(value: int | date) -> int:
    """A value on the number line; dates are counted in days, timestamps in microseconds."""
    if isinstance(value, datetime):
        return (value - datetime(1970, 1, 1)) // timedelta(microseconds=1)
    return (value - date(1970, 1, 1)).days if isinstance(value, date) else value


def _literal(number: int, kind: str) -> str:
    value: int | date = number
    if kind == "DATE":
        value = date(1970, 1, 1) + timedelta(days=number)
    elif kind == "TIMESTAMP":
        value = datetime(1970, 1, 1) + timedelta(microseconds=number)
    return f"CAST('{value}' AS {kind})"


def even_bounds(spans: Sequence[Span], parts: int) -> tuple[int, ...] | None:
    """``parts - 1`` ascending values that cut the rows evenly, None where the zones do not allow it.

    Inside a zone rows are taken to be spread evenly over its values.
    """
    total = sum(span.rows for span in spans)
    bounds: list[int] = []
    before = 0
    remaining = iter(spans)
    span = next(remaining)
    for part in range(1, parts):
        wanted = total * part / parts
        while before + span.rows < wanted:
            before += span.rows
            span = next(remaining)
        bound = span.low + int((span.high - span.low) * (wanted - before) / max(1, span.rows))
        if bound <= (bounds[-1] if bounds else spans[0].low):
            return None
        bounds.append(bound)
    return tuple(bounds) if _largest_part(spans, bounds) * parts <= _MOST_UNEVEN * total else None


def _largest_part(spans: Sequence[Span], bounds: Sequence[int]) -> float:
    """Rows of the largest part, under the same assumption of evenness."""
    totals = [0.0] * (len(bounds) + 1)
    for span in spans:
        first = sum(1 for b in bounds if b <= span.low)
        inner = [(b - span.low) / (span.high - span.low) for b in bounds if span.low < b <= span.high]
        for i, (start, end) in enumerate(pairwise([0.0, *inner, 1.0])):
            totals[first + i] += span.rows * (end - start)
    return max(totals)
