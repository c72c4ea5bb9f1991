"""Logical plan nodes: what a query computes, before anything is said about where.

A ``Shared`` node is a common table expression that several ``CteRef`` read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlglot import exp

from sabot_planner.job.plan import SourceInfo
from sabot_planner.logical.node import (
    Computed,
    Leaf,
    Node,
    Schema,
    SortKey,
    Unary,
    both,
    derived,
    renamed,
    schema_of,
)
from sabot_planner.sql.duck_type import BOOLEAN, DuckType, duck_type
from sabot_planner.sql.scalars import columns_of


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


@dataclass(frozen=True, eq=False)
class Scan(Leaf):
    """Reads a table, a set of files or a table function. ``names[i]`` is the plan's name of ``source.columns[i]``.

    ``alias`` is the relation's alias in the exported plan, by which DuckDB's estimates are asked for.
    """

    source: SourceInfo
    names: tuple[str, ...]
    alias: str

    @derived
    def schema(self) -> Schema:
        return {n: duck_type(c.type) for n, c in zip(self.names, self.source.columns, strict=True)}

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Values(Leaf):
    """Gives literal rows; with no names it is the single empty row of a SELECT without FROM.

    Of very many rows of constants ``rows`` has the first only, and ``text`` is a query that gives all of them;
    ``count`` is their number.
    """

    names: tuple[str, ...]
    types: tuple[DuckType, ...]
    rows: tuple[tuple[exp.Expression, ...], ...]
    count: int = 1
    text: str = ""

    @derived
    def schema(self) -> Schema:
        return dict(zip(self.names, self.types, strict=True))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(expression for row in self.rows for expression in row)


@dataclass(frozen=True, eq=False)
class Filter(Unary):
    """Keeps the input's rows for which ``predicate`` is true."""

    predicate: exp.Expression

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.predicate,)


@dataclass(frozen=True, eq=False)
class Project(Unary):
    """Computes columns of each row. An ``unnest`` among them multiplies rows; it stays local to the row."""

    items: tuple[Computed, ...]

    @derived
    def schema(self) -> Schema:
        return schema_of(self.items)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(i.expression for i in self.items)


@dataclass(frozen=True, eq=False)
class LateralCall(Unary):
    """Applies a table function to each row: ``input CROSS JOIN function(columns of input)``."""

    function: exp.Expression
    names: tuple[str, ...]
    types: tuple[DuckType, ...]
    left: bool = False

    @derived
    def schema(self) -> Schema:
        return both(self.input.schema, dict(zip(self.names, self.types, strict=True)))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.function,)


@dataclass(frozen=True, eq=False)
class Join(Node):
    """Joins two inputs; CROSS and POSITIONAL have no ``condition``; ``marker`` is the boolean column of a MARK join."""

    kind: JoinKind
    left: Node
    right: Node
    condition: exp.Expression | None
    marker: str | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.left, self.right)

    @derived
    def schema(self) -> Schema:
        if self.kind.right_only:
            return self.right.schema
        if self.kind.left_only:
            return both(self.left.schema, {self.marker: BOOLEAN}) if self.marker else self.left.schema
        return both(self.left.schema, self.right.schema)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.condition,) if self.condition is not None else ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return self._over(left=inputs[0], right=inputs[1])


@dataclass(frozen=True, eq=False)
class GroupBy(Unary):
    """Base of what groups rows by ``keys`` and computes ``aggregates``, each one aggregate call.

    ``grouping_sets`` lists key ordinals per set (None: one set of all keys); ``groupings`` are GROUPING(…) columns.
    """

    keys: tuple[Computed, ...]
    aggregates: tuple[Computed, ...]
    grouping_sets: tuple[tuple[int, ...], ...] | None = None
    groupings: tuple[Computed, ...] = ()

    @derived
    def schema(self) -> Schema:
        return schema_of(self.keys + self.aggregates + self.groupings)

    @property
    def reads(self) -> frozenset[str]:
        return columns_of(*self.expressions, *(g.expression for g in self.groupings))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(c.expression for c in self.keys + self.aggregates)


@dataclass(frozen=True, eq=False)
class Aggregate(GroupBy):
    """Forms whole groups of the input's rows."""


@dataclass(frozen=True, eq=False)
class Window(Unary):
    """Adds window columns that share one PARTITION BY list."""

    partition_by: tuple[exp.Expression, ...]
    items: tuple[Computed, ...]

    @derived
    def schema(self) -> Schema:
        return both(self.input.schema, schema_of(self.items))

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
    """Keeps the first rows in input order; ``limit`` None means no bound. ``percent`` is a share of all instead."""

    limit: int | None
    offset: int
    percent: exp.Expression | None = None

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (self.percent,) if self.percent is not None else ()


@dataclass(frozen=True, eq=False)
class Sample(Unary):
    """Keeps a random part of the rows; ``clause`` is the text after USING SAMPLE."""

    clause: str

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Distinct(Unary):
    """Keeps one row per distinct value of ``on``; ``order`` says which row wins where other columns are kept."""

    on: tuple[exp.Expression, ...]
    order: tuple[SortKey, ...] = ()

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (*self.on, *(k.expression for k in self.order))


@dataclass(frozen=True, eq=False)
class SetOp(Node):
    """Combines inputs with the same number and types of columns, matched by position."""

    kind: SetKind
    branches: tuple[Node, ...]
    names: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return self.branches

    @derived
    def schema(self) -> Schema:
        return renamed(self.branches[0].schema, self.names)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return self._over(branches=inputs)


@dataclass(frozen=True, eq=False)
class Shared(Unary):
    """Computes a common table expression once; ``cte_id`` is unique in the plan.

    ``apart``: a stage of its own computes it, although one stage alone reads it.
    """

    cte_id: str
    apart: bool = False

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class CteRef(Node):
    """Reads a ``Shared``; ``names[i]`` is this reading's name of the shared node's i-th column."""

    shared: Shared
    names: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.shared,)

    @derived
    def schema(self) -> Schema:
        return renamed(self.shared.schema, self.names)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same reading of another shared expression."""
        (shared,) = inputs
        assert isinstance(shared, Shared)
        return self._over(shared=shared)


@dataclass(frozen=True, eq=False)
class RecursiveCte(Node):
    """Computes a recursive common table expression; inside ``step``, ``RecursiveRef`` reads the rows of the last round.

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

    @derived
    def schema(self) -> Schema:
        return both(renamed(self.anchor.schema, self.names), schema_of(self.keys))

    @property
    def visible(self) -> Schema:
        return renamed(self.anchor.schema, self.names)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(k.expression for k in self.keys)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs."""
        return self._over(anchor=inputs[0], step=inputs[1])


@dataclass(frozen=True, eq=False)
class RecursiveRef(Leaf):
    """Reads the rows of the last round (``recurring``: of all rounds) of the recursive expression ``cte_id``."""

    cte_id: str
    names: tuple[str, ...]
    types: tuple[DuckType, ...]
    recurring: bool = False

    @derived
    def schema(self) -> Schema:
        return dict(zip(self.names, self.types, strict=True))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()
