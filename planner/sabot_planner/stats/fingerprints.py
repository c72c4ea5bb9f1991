"""What a sub-plan computes, in a name that another query's plan gives to the same rows.

Names of columns, exchanges, phases of aggregates and the order of an inner join's sides make no difference, versions of
sources do. What is measured of a sub-plan is remembered under its name and becomes the estimate of the next plan that
has it. Two readings of one table have the same names: where a join tells them apart by their columns alone, such as
a.k = b.v from a.v = b.k, its estimate may be that of the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Computed, Node
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    GroupBy,
    Join,
    JoinKind,
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
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    CutRef,
    EmptyRelation,
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    Repeated,
    Reread,
    RowNumber,
    TaskScan,
)
from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.scalars import column_name, columns_of, conjuncts, substitute

_NAME = re.compile(r"\bc+[0-9][0-9a-z]*\b")


@dataclass(frozen=True, slots=True)
class Identity:
    """The name of a sub-plan's rows. ``filtered_by`` are the edges whose keys keep rows from it, as filters."""

    text: str
    filtered_by: frozenset[str] = frozenset()


class Identities:
    """Identities of one plan's nodes, remembered."""

    def __init__(self) -> None:
        self._known: dict[Node, Identity | None] = {}
        self._columns: dict[str, str] = {}

    def of(self, node: Node) -> Identity | None:
        """The identity of a logical or placed node's rows; None where they depend on more than it says."""
        if node not in self._known:
            self._known[node] = self._of(node)
        return self._known[node]

    def groups(self, keys: Sequence[exp.Expression], rows: Node) -> str | None:
        """The name of the groups of ``rows`` by ``keys``: as many as there are distinct keys.

        They are those of the rows that ``rows`` were grouped from, where that was by these keys and perhaps others.
        """
        inner = self.of(rows)
        if inner is None or inner.filtered_by:
            return None
        texts = sorted(map(self._text, keys))
        below: tuple[Sequence[exp.Expression], Node] | None = keys, rows
        while below is not None:
            keys, rows = below
            below = same_keys_below(keys, rows)
        return _name("groups", *texts, (self.of(rows) or inner).text)

    def _of(self, node: Node) -> Identity | None:
        match node:
            case Scan():
                return self._scan(node)
            case TaskScan():
                return self.of(node.scan)
            case Exchange() | Shared() | RowNumber() | Repeated():
                return self.of(node.inputs[0])
            case Window() | RangeWindow():
                inner = self.of(node.input)
                self._compute(node.items)
                return inner
            case Sort() if node.limit is None and not node.offset:
                return self.of(node.input)
            case CteRef():
                return self._reference(node)
            case CutRef():
                return self._reference(node.reference)
            case Project():
                return self._project(node)
            case Filter():
                inner = self.of(node.input)
                return self._above(inner, "filter", *sorted(map(self._text, conjuncts(node.predicate))))
            case LateralCall():
                return self._above(self.of(node.input), "lateral", self._text(node.function), str(node.left))
            case FinalAggregate() if node.first_phase is not None:
                return self._final(node, node.first_phase)
            case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate() if node.grouping_sets is None:
                return self._aggregate(node)
            case Distinct():
                return self._distinct(node)
            case Join():
                return self._join(node)
            case SetOp():
                return self._set_operation(node)
            case (
                Values()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Aggregate()
                | AggregateInPlace()
                | PartialAggregate()
                | FinalAggregate()
                | RecursiveCte()
                | RecursiveRef()
                | Reread()
                | HaloWindow()
                | PartitionId()
                | EmptyRelation()
            ):
                return None
            case _:
                raise UnknownNode(node, "the identity")

    def _scan(self, node: Scan) -> Identity | None:
        source = node.source
        if not source.version:
            return None
        text = _name("scan", source.version)
        names = zip(node.names, source.columns, strict=True)
        self._columns.update((name, f"{text}.{column.name}") for name, column in names)
        return Identity(text)

    def _reference(self, node: CteRef) -> Identity | None:
        inner = self.of(node.shared.input)
        if inner is None:
            return None
        for name, source in zip(node.names, node.shared.columns, strict=True):
            self._columns[name] = self._columns.get(source, source)
        return inner

    def _project(self, node: Project) -> Identity | None:
        inner = self.of(node.input)
        self._compute(node.items)
        multiplied = _multiplied(node)
        return self._above(inner, "unnest", *map(self._text, multiplied)) if multiplied else inner

    def _aggregate(self, node: GroupBy) -> Identity | None:
        inner = self.of(node.input)
        self._compute(node.keys)
        if not isinstance(node, PartialAggregate):
            self._compute(node.aggregates)
        keys = sorted(self._text(k.expression) for k in node.keys)
        return self._above(inner, "groups", *keys)

    def _final(self, node: FinalAggregate, first: PartialAggregate) -> Identity | None:
        """The groups are those of the first phase, and so are the aggregates in another form."""
        inner = self.of(node.input)
        self._compute(node.keys)
        calls = {p.name: p.expression for p in first.aggregates}
        for part, final in zip(node.parts, node.aggregates, strict=True):
            self._columns[final.name] = self._text(calls[part]).replace(" EXPORT_STATE", "")
        return inner

    def _distinct(self, node: Distinct) -> Identity | None:
        inner = self.of(node.input)
        moved = node.input
        if isinstance(moved, Exchange) and isinstance(moved.input, Distinct):
            return inner
        return self._above(inner, "groups", *sorted(map(self._text, node.on)))

    def _join(self, node: Join) -> Identity | None:
        left = self.of(node.left)
        if left is not None and isinstance(node.right, Reread):
            return Identity(left.text, left.filtered_by | {node.right.exchange.edge_id})
        right = self.of(node.right)
        if left is None or right is None:
            return None
        terms = sorted(map(self._term, conjuncts(node.condition)))
        sides = [left.text, right.text]
        if node.kind is JoinKind.INNER:
            sides.sort()
        joined = {side.edge_id for side in (node.left, node.right) if isinstance(side, Exchange)}
        return Identity(_name("join", node.kind, *terms, *sides), (left.filtered_by | right.filtered_by) - joined)

    def _set_operation(self, node: SetOp) -> Identity | None:
        found = [self.of(b) for b in node.branches]
        for name, source in zip(node.names, node.branches[0].columns, strict=True):
            self._columns[name] = self._columns.get(source, source)
        if any(f is None for f in found):
            return None
        texts = [f.text for f in found if f is not None]
        filtered = frozenset[str]().union(*(f.filtered_by for f in found if f is not None))
        return Identity(_name("set", node.kind, *texts), filtered)

    def _above(self, inner: Identity | None, *parts: str) -> Identity | None:
        return None if inner is None else Identity(_name(*parts, inner.text), inner.filtered_by)

    def _compute(self, items: Iterable[Computed]) -> None:
        for item in items:
            if column_name(item.expression) != item.name:
                self._columns[item.name] = self._text(item.expression)

    def _text(self, expression: exp.Expression) -> str:
        name = column_name(expression)
        if name is not None:
            return self._columns.get(name, name)
        return _NAME.sub(lambda found: self._columns.get(found.group(), found.group()), to_sql(expression))

    def _term(self, term: exp.Expression) -> str:
        if type(term) is exp.EQ:
            return " = ".join(sorted((self._text(term.args["this"]), self._text(term.args["expression"]))))
        return self._text(term)


def _name(kind: str, *parts: str) -> str:
    return f"{kind}:{blake2b(chr(0).join(parts).encode(), digest_size=12).hexdigest()}"


def is_unnesting(node: Project) -> bool:
    """Whether a projection makes several rows of one."""
    return bool(_multiplied(node))


def _multiplied(node: Project) -> list[exp.Expression]:
    return [i.expression for i in node.items if any(_is_unnest(n) for n in nodes(i.expression))]


def same_keys_below(keys: Sequence[exp.Expression], rows: Node) -> tuple[list[exp.Expression], Node] | None:
    """The keys and the input of ``rows``, in its terms, where it has the same distinct ones; None where it may not."""
    match rows:
        case Project() if not is_unnesting(rows):
            items = {item.name: item.expression for item in rows.items}
            return [substitute(key, items) for key in keys], rows.input
        case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate() if (
            rows.grouping_sets is None and columns_of(*keys) <= {k.name for k in rows.keys}
        ):
            groups = {key.name: key.expression for key in rows.keys}
            return [substitute(key, groups) for key in keys], rows.input
        case Distinct() if columns_of(*keys) <= {column_name(e) for e in rows.on}:
            return list(keys), rows.input
        case Exchange() | RowNumber() | Repeated():
            return list(keys), rows.inputs[0]
        case (
            Scan()
            | Values()
            | Filter()
            | Project()
            | LateralCall()
            | Join()
            | Aggregate()
            | AggregateInPlace()
            | PartialAggregate()
            | FinalAggregate()
            | RangeWindow()
            | Window()
            | Sort()
            | Limit()
            | LimitBy()
            | Sample()
            | Distinct()
            | SetOp()
            | Shared()
            | CteRef()
            | RecursiveCte()
            | RecursiveRef()
            | Reread()
            | HaloWindow()
            | PartitionId()
            | EmptyRelation()
            | TaskScan()
            | CutRef()
        ):
            return None
        case _:
            raise UnknownNode(rows, "the keys below")


def _is_unnest(node: exp.Expression) -> bool:
    return type(node) is exp.Anonymous and node.args["this"] == "unnest"


def partial_name(groups: str, tasks: int) -> str:
    """The name of the groups that ``tasks`` first phases have together, most of them in several."""
    return f"{groups} in {tasks}"
