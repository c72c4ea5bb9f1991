"""Nodes that only a distributed plan has: rows on the move, and sources as tasks read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlglot import exp

from sabot_planner.job.operators import Decided, RangeSplit, ShuffleEdgeType
from sabot_planner.logical.nodes import Computed, CteRef, Leaf, Node, Scan, Shared, SortKey, Unary


@dataclass(frozen=True, eq=False)
class Exchange(Node):
    """The input's rows, moved: the input is computed by one stage, this node is read by the next.

    ``keys`` place the rows of HASH, ``sort_keys`` those of RANGE. ``gather``: one task reads everything, in producer
    order. ``rows`` and ``bytes`` are estimates.
    ``written_as`` and ``other_keys`` leave the choice between BROADCAST and HASH open until the rows are counted: a
    BROADCAST that is written as HASH buckets of ``keys`` can still become HASH, the other side of its join being hashed
    by ``other_keys``; ``other_rows`` and ``other_bytes`` are that side's estimates.
    ``whole_rows`` is an estimate of the rows that it would have if nothing below were filtered, 0 where there is none.
    ``estimated_by`` names whose estimate ``rows`` is.
    ``weighed``: whether its measured keys filter the other side of its join is decided.
    """

    input: Node
    edge_type: ShuffleEdgeType
    keys: tuple[exp.Expression, ...] = ()
    sort_keys: tuple[SortKey, ...] = ()
    gather: bool = False
    rows: int = 0
    bytes: int = 0
    reason: str = ""
    decided: Decided = Decided.PLAN
    written_as: ShuffleEdgeType | None = None
    other_keys: tuple[exp.Expression, ...] = ()
    other_rows: int = 0
    other_bytes: int = 0
    whole_rows: int = 0
    weighed: bool = False
    estimated_by: str = ""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.input.columns

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (*self.keys, *(k.expression for k in self.sort_keys), *self.other_keys)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same movement of other rows."""
        (node,) = inputs
        return replace(self, input=node)


@dataclass(frozen=True, eq=False)
class Reread(Leaf):
    """The rows of a finished exchange once more, all of them in every task: their keys filter what is to be joined.

    It is a leaf of its stage, and no second movement: the rows are read where they were written.
    """

    exchange: Exchange
    reason: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        return self.exchange.columns

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Numbered(Unary):
    """The input's rows with their ordinal, as each task reads them, in the column ``name``."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.input.columns, self.name)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Repeated(Unary):
    """A small sub-plan that each of several tasks computes for itself, from whole sources."""

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class HaloWindow(Node):
    """Window functions of ``rows`` within ranges that also see the rows of ``halo``; only ``rows`` come out.

    Both have the same columns, by position. The column ``range_name`` of ``rows`` says for which range a row is, one of
    its own or one of another range that it may read; every item is partitioned by it.
    """

    rows: Node
    halo: Node
    range_name: str
    items: tuple[Computed, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.rows, self.halo)

    def with_inputs(self, inputs: tuple[Node, ...]) -> HaloWindow:
        """The same windows over other rows."""
        return replace(self, rows=inputs[0], halo=inputs[1])

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.rows.columns, *(item.name for item in self.items))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(i.expression for i in self.items)


@dataclass(frozen=True, eq=False)
class TaskOrdinal(Node):
    """One row in each task: a number that grows from task to task.

    ``series`` is a sliced series of integers; slices are contiguous, so that the least of each will do.
    """

    series: TaskScan
    name: str

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.series,)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.name,)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The numbers of another series."""
        (series,) = inputs
        assert isinstance(series, TaskScan)
        return replace(self, series=series)


@dataclass(frozen=True, eq=False)
class Nothing(Node):
    """No rows, of columns with these DuckDB types: what an inner join with an empty side comes to.

    ``witness`` is the empty side; it stays in the plan to show why.
    """

    witness: Node
    names: tuple[str, ...]
    types: tuple[str, ...]

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.witness,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same nothing, witnessed by another node."""
        (witness,) = inputs
        return replace(self, witness=witness)

    @property
    def columns(self) -> tuple[str, ...]:
        return self.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class TaskScan(Leaf):
    """A scan in a stage: with ``sliced`` each task reads its own part of the source, else the one task reads it all.

    ``split`` says that the parts are ranges of a column.
    """

    scan: Scan
    sliced: bool
    split: RangeSplit | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return self.scan.names

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class CutRef(Leaf):
    """A reading of a shared expression that another stage computes; only ``columns_read`` of it travel."""

    reference: CteRef
    columns_read: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, under this reading's names."""
        return self.columns_read

    def with_shared(self, shared: Node) -> CutRef:
        """The same reading of a changed expression."""
        if shared is self.reference.shared:
            return self
        assert isinstance(shared, Shared)
        return CutRef(CteRef(shared, self.reference.names), self.columns_read)

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


def own_nodes(top: Node) -> list[Node]:
    """The nodes of the stage whose root is ``top``."""
    found: list[Node] = []
    stack = [top]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            found.append(node)
            if not isinstance(node, Exchange):
                stack.extend(node.inputs)
    return found
