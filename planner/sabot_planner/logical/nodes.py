"""Logical plan nodes: what a query computes, before anything is said about where.

Every column of a plan has a name that is unique in the whole plan (``c1``, ``c2``, …), so that expressions need no
qualifiers, joins need no renaming and a node can move without touching the expressions above it. Nodes are immutable
and may be shared: a ``Shared`` node is a common table expression that several ``CteRef`` read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from sqlglot import exp

from sabot_planner.errors import UnknownNode
from sabot_planner.job.plan import SourceInfo


class JoinKind(StrEnum):
    """Kinds of join, by DuckDB's names; the left input is the probe side, the right one is built."""

    INNER = "INNER"
    LEFT = "LEFT"
    RIGHT = "RIGHT"
    FULL = "FULL"
    SEMI = "SEMI"
    ANTI = "ANTI"
    RIGHT_SEMI = "RIGHT_SEMI"
    RIGHT_ANTI = "RIGHT_ANTI"
    MARK = "MARK"
    SINGLE = "SINGLE"
    CROSS = "CROSS"
    ASOF = "ASOF"
    ASOF_LEFT = "ASOF LEFT"
    ASOF_RIGHT = "ASOF RIGHT"
    ASOF_FULL = "ASOF FULL"
    POSITIONAL = "POSITIONAL"

    @property
    def left_only(self) -> bool:
        """Only the left input's columns come out (MARK adds its marker)."""
        return self in (JoinKind.SEMI, JoinKind.ANTI, JoinKind.MARK)

    @property
    def right_only(self) -> bool:
        """Only the right input's columns come out."""
        return self in (JoinKind.RIGHT_SEMI, JoinKind.RIGHT_ANTI)


class SetKind(StrEnum):
    """Set operations; the plan's UNION is always UNION ALL (DuckDB exports a DISTINCT above it)."""

    UNION_ALL = "UNION ALL"
    UNION = "UNION"
    INTERSECT = "INTERSECT"
    INTERSECT_ALL = "INTERSECT ALL"
    EXCEPT = "EXCEPT"
    EXCEPT_ALL = "EXCEPT ALL"


@dataclass(frozen=True, slots=True)
class Computed:
    """A column and the expression that gives it, over the columns of the node's input."""

    name: str
    expression: exp.Expression


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an ordering; ``expression`` includes its COLLATE."""

    expression: exp.Expression
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all logical plan nodes; compared by identity, rebuilt with :func:`replace_inputs`."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose rows this one reads."""
        raise UnknownNode(self, "the inputs")

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that come out, in order."""
        raise UnknownNode(self, "the columns")

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        """The expressions that the node itself computes, in no order."""
        raise UnknownNode(self, "the expressions")

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs, as many as it has."""
        raise UnknownNode(self, "how to change the inputs")


@dataclass(frozen=True, eq=False)
class Leaf(Node):
    """Base of nodes that read no other node of their stage."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """Itself: there are none."""
        return self


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """Base of nodes with one input whose columns pass through unless said otherwise."""

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.input.columns

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over another input."""
        (node,) = inputs
        return replace(self, input=node)


@dataclass(frozen=True, eq=False)
class Scan(Leaf):
    """A table, a set of files or a table function. ``names[i]`` is the plan's name of ``source.columns[i]``.

    ``alias`` is the relation's alias in the exported plan, by which DuckDB's estimates are asked for.
    """

    source: SourceInfo
    names: tuple[str, ...]
    alias: str

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Values(Leaf):
    """Literal rows; with no names it is the single empty row of a SELECT without FROM.

    Of very many rows of constants ``rows`` has the first only, and ``text`` is a query that gives all of them;
    ``count`` is their number.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[exp.Expression, ...], ...]
    count: int = 1
    text: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(expression for row in self.rows for expression in row)


@dataclass(frozen=True, eq=False)
class Filter(Unary):
    """The input's rows for which ``predicate`` is true."""

    predicate: exp.Expression

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.predicate,)


@dataclass(frozen=True, eq=False)
class Project(Unary):
    """Computed columns. An ``unnest`` among them multiplies rows; it stays local to the row."""

    items: tuple[Computed, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(i.expression for i in self.items)


@dataclass(frozen=True, eq=False)
class LateralCall(Unary):
    """``input CROSS JOIN function(columns of input)``: a table function applied to each row."""

    function: exp.Expression
    names: tuple[str, ...]
    left: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return self.input.columns + self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.function,)


@dataclass(frozen=True, eq=False)
class Join(Node):
    """A join; ``condition`` is None for CROSS and POSITIONAL; ``marker`` names the boolean column of a MARK join."""

    kind: JoinKind
    left: Node
    right: Node
    condition: exp.Expression | None
    marker: str | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        if self.kind.right_only:
            return self.right.columns
        if self.kind.left_only:
            return self.left.columns + ((self.marker,) if self.marker else ())
        return self.left.columns + self.right.columns

    @property
    def columns(self) -> tuple[str, ...]:
        return self._columns

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.condition,) if self.condition is not None else ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return replace(self, left=inputs[0], right=inputs[1])


@dataclass(frozen=True, eq=False)
class Aggregate(Unary):
    """Groups by ``keys`` and computes ``aggregates``, each one aggregate call.

    ``grouping_sets`` lists key ordinals per set (None: one set of all keys); ``groupings`` are GROUPING(…) columns.
    ``partial``: the first of two phases, whose groups need not be whole. ``having_rows`` keeps a partial phase without
    keys silent where its input is empty. ``otherwise`` are the two phases of one that was placed where its rows are.
    """

    keys: tuple[Computed, ...]
    aggregates: tuple[Computed, ...]
    grouping_sets: tuple[tuple[int, ...], ...] | None = None
    groupings: tuple[Computed, ...] = ()
    partial: bool = False
    having_rows: bool = False
    otherwise: Node | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.keys + self.aggregates + self.groupings)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(c.expression for c in self.keys + self.aggregates)


@dataclass(frozen=True, eq=False)
class Window(Unary):
    """Adds window columns that share one PARTITION BY list.

    ``by_range``: without PARTITION BY, each task computes its own part alone; what other parts add comes later.
    """

    partition_by: tuple[exp.Expression, ...]
    items: tuple[Computed, ...]
    by_range: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return self.input.columns + tuple(item.name for item in self.items)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (*self.partition_by, *(i.expression for i in self.items))


@dataclass(frozen=True, eq=False)
class Sort(Unary):
    """Orders the rows, and with ``limit`` keeps the first of them (top-N)."""

    keys: tuple[SortKey, ...]
    limit: int | None = None
    offset: int = 0

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(k.expression for k in self.keys)


@dataclass(frozen=True, eq=False)
class Limit(Unary):
    """The first rows in input order; ``limit`` None means no bound. ``percent`` is a share of all rows instead."""

    limit: int | None
    offset: int
    percent: exp.Expression | None = None

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.percent,) if self.percent is not None else ()


@dataclass(frozen=True, eq=False)
class Sample(Unary):
    """A random part of the rows; ``clause`` is the text after USING SAMPLE."""

    clause: str

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Distinct(Unary):
    """One row per distinct value of ``on``; ``order`` says which row wins where other columns are kept."""

    on: tuple[exp.Expression, ...]
    order: tuple[SortKey, ...] = ()

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (*self.on, *(k.expression for k in self.order))


@dataclass(frozen=True, eq=False)
class SetOp(Node):
    """A set operation over inputs with the same number and types of columns, matched by position."""

    kind: SetKind
    branches: tuple[Node, ...]
    names: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.branches

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return replace(self, branches=inputs)


@dataclass(frozen=True, eq=False)
class Shared(Unary):
    """A common table expression that is computed once; ``cte_id`` is unique in the plan."""

    cte_id: str

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class CteRef(Node):
    """One reading of a ``Shared``; ``names[i]`` is this reading's name of the shared node's i-th column."""

    shared: Shared
    names: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.shared,)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same reading of another shared expression."""
        (shared,) = inputs
        assert isinstance(shared, Shared)
        return replace(self, shared=shared)


@dataclass(frozen=True, eq=False)
class RecursiveCte(Node):
    """A recursive common table expression; inside ``step``, ``RecursiveRef`` reads the rows of the last round.

    With ``keys``, which is USING KEY, a row replaces the one of its key: a plain column is a part of the key, an
    aggregate over the columns gives a column of its name from the rows of one key. They stand for all columns.
    """

    cte_id: str
    anchor: Node
    step: Node
    union_all: bool
    names: tuple[str, ...]
    keys: tuple[Computed, ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.anchor, self.step)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(k.expression for k in self.keys)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return replace(self, anchor=inputs[0], step=inputs[1])


@dataclass(frozen=True, eq=False)
class RecursiveRef(Leaf):
    """The rows of the last round (``recurring``: of all rounds) of the recursive expression ``cte_id``."""

    cte_id: str
    names: tuple[str, ...]
    recurring: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


def replace_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    """``node`` over other inputs; the same object where nothing changed."""
    if all(a is b for a, b in zip(node.inputs, inputs, strict=True)):
        return node
    return node.with_inputs(inputs)


def rewrite(node: Node, rule: Callable[[Node], Node]) -> Node:
    """Apply ``rule`` bottom-up, once per node; a ``Shared`` node is rewritten once however often it is read."""
    done: dict[int, Node] = {}
    for current in walk(node):
        done[id(current)] = rule(replace_inputs(current, tuple(done[id(i)] for i in current.inputs)))
    return done[id(node)]


def walk(node: Node) -> list[Node]:
    """Every node once, inputs before the nodes that read them."""
    order: list[Node] = []
    seen: set[int] = set()
    left: list[tuple[Node, bool]] = [(node, False)]
    while left:
        current, read = left.pop()
        if read:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            left.append((current, True))
            left += [(child, False) for child in reversed(current.inputs)]
    return order
