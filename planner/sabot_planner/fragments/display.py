"""What people call the columns of a plan: by the source's names, or by those that the user gave."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.fragments.readable import Readable, readable, readable_name
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Computed, Node, SortKey, walk
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
from sabot_planner.sql.dialect import sql_beginning
from sabot_planner.sql.scalars import column_name

_MOST_CHARACTERS = 40
_ENOUGH_CHARACTERS = 2_000
"""So many of a text are enough for those that are shown, whatever is left out of them."""

_INTERNAL = re.compile(r'"system"\.main\.| COLLATE C\b')
_NAME = re.compile(r"\b[c]+[0-9][0-9a-z]*\b")


class DisplayNames:
    """Names for people of every column of a logical plan."""

    def __init__(self, root: Node, output: Sequence[str]) -> None:
        self._names: dict[str, Readable] = {}
        self._renames: dict[str, str] = {}
        for node in walk(root):
            self._learn(node)
        top = root
        while isinstance(top, Sort | Limit):
            top = top.input
        if isinstance(top, Project):
            for item, name in zip(top.items, output, strict=True):
                column: str | None = item.name
                while column is not None and (column == item.name or not self._is_word(column)):
                    self._names[column] = readable_name(name)
                    column = self._renames.get(column)

    def add(self, root: Node) -> None:
        """Learn names of columns that only another plan of the same query has."""
        known = dict(self._names)
        for node in walk(root):
            self._learn(node)
        self._names |= known

    def _learn(self, node: Node) -> None:
        match node:
            case Scan():
                self._names.update(zip(node.names, (Readable(c.name) for c in node.source.columns), strict=True))
            case Project() | Window() | RangeWindow() | HaloWindow():
                self._compute(node.items)
            case Aggregate() | AggregateInPlace() | PartialAggregate() | FinalAggregate():
                self._compute(node.keys + node.aggregates + node.groupings)
            case CteRef():
                self._same(node.names, node.shared.columns)
            case SetOp():
                self._same(node.names, node.branches[0].columns)
            case RecursiveCte():
                self._same(node.names, node.anchor.columns)
            case Values() | LateralCall():
                self._names.update((name, Readable(f"column {i + 1}")) for i, name in enumerate(node.names))
            case (
                Filter()
                | Join()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Distinct()
                | Shared()
                | RecursiveRef()
                | Exchange()
                | Reread()
                | RowNumber()
                | Repeated()
                | PartitionId()
                | EmptyRelation()
                | TaskScan()
                | CutRef()
            ):
                pass  # its columns are shown by the names that they have below, or else by those of the plan
            case _:
                raise UnknownNode(node, "what its columns are called")

    def _compute(self, items: Sequence[Computed]) -> None:
        for item in items:
            inner = column_name(item.expression)
            if inner is not None and inner != item.name:
                self._renames[item.name] = inner
            self._names[item.name] = self._readable(item.expression)

    def _same(self, names: Sequence[str], sources: Sequence[str]) -> None:
        self._names.update((n, self._names.get(s, Readable(n))) for n, s in zip(names, sources, strict=True))

    def _is_word(self, column: str) -> bool:
        known = self._names.get(column)
        return known is not None and known.text.isidentifier()

    def expression(self, expression: exp.Expression) -> str:
        """An expression in the user's names, shortened."""
        return self._readable(expression).text

    def _readable(self, expression: exp.Expression) -> Readable:
        text = readable(expression, lambda name: self._names.get(name, Readable(name)), self._sql, _MOST_CHARACTERS + 1)
        return text.clipped(_MOST_CHARACTERS)

    def _sql(self, expression: exp.Expression) -> str:
        """What is no scalar expression, as the plan has it."""
        text = _INTERNAL.sub("", sql_beginning(expression, _ENOUGH_CHARACTERS))
        return _NAME.sub(lambda m: self._names[m.group()].text if m.group() in self._names else m.group(), text)

    def key(self, key: SortKey) -> str:
        """A sort key in the user's names."""
        return self.expression(key.expression) + (" DESC" if key.descending else "")
