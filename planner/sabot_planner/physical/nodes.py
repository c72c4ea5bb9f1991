"""Nodes that only a distributed plan has: rows on the move, and sources as tasks read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.job.operators import Decided, RangeSplit, ShuffleEdgeType
from sabot_planner.logical.node import (
    Computed,
    Leaf,
    Node,
    Schema,
    SortKey,
    Unary,
    both,
    derived,
    reached,
    replace_inputs,
    schema_of,
)
from sabot_planner.logical.nodes import CteRef, GroupBy, Scan, Shared
from sabot_planner.sql.duck_type import BIGINT
from sabot_planner.sql.scalars import columns_of


@dataclass(frozen=True, slots=True)
class EdgeEstimate:
    """What is expected of an exchange before it is measured.

    ``whole_rows`` are the rows that it would have if nothing below were filtered, 0 where nothing is known of them.
    ``by`` names whose estimate ``rows`` is.
    """

    rows: int = 0
    bytes: int = 0
    whole_rows: int = 0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Adaptivity:
    """What may still be decided of an exchange, and who decided what it is.

    A BROADCAST that is written as hash buckets can still become HASH: the other side of its join is then hashed by
    ``other_keys``, and ``other`` is what is expected of that side.
    ``weighed``: whether its measured keys filter the other side of its join is decided.
    """

    decided: Decided = Decided.PLAN
    other_keys: tuple[exp.Expression, ...] = ()
    other: EdgeEstimate = EdgeEstimate()
    weighed: bool = False

    @property
    def settled(self) -> Adaptivity:
        """The same once measurements have decided what the exchange is."""
        return replace(self, decided=Decided.RUN, other_keys=())


@dataclass(frozen=True, eq=False)
class Exchange(Node):
    """Moves the input's rows: one stage computes the input, the next one reads this node.

    Its layout: ``keys`` place the rows of HASH, ``sort_keys`` those of RANGE. ``gather``: one task reads everything, in
    producer order. ``written_as`` is how the rows are written where that is not how they are read: a BROADCAST that is
    written as HASH buckets of ``keys`` leaves the choice between the two open until the rows are counted.
    ``reason`` is shown to people. ``edge_id`` names its edge and ``stage_id`` the stage that computes its input, once
    the plan is cut into stages; both stay, whatever becomes of the exchange.
    """

    input: Node
    edge_type: ShuffleEdgeType
    keys: tuple[exp.Expression, ...] = ()
    sort_keys: tuple[SortKey, ...] = ()
    gather: bool = False
    written_as: ShuffleEdgeType | None = None
    estimate: EdgeEstimate = EdgeEstimate()
    adaptivity: Adaptivity = Adaptivity()
    reason: str = ""
    edge_id: str = ""
    stage_id: str = ""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @derived
    def schema(self) -> Schema:
        return self.input.schema

    @property
    def reads(self) -> frozenset[str]:
        return columns_of(*self.keys, *(k.expression for k in self.sort_keys))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return (*self.keys, *(k.expression for k in self.sort_keys), *self.adaptivity.other_keys)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same movement of other rows."""
        (node,) = inputs
        return self._over(input=node)


@dataclass(frozen=True, eq=False)
class Reread(Leaf):
    """Reads a finished exchange once more, all of it in every task: its keys filter what is to be joined.

    It is a leaf of its stage, and no second movement: the rows are read where they were written.
    """

    exchange: Exchange
    reason: str = ""
    edge_id: str = ""

    @derived
    def schema(self) -> Schema:
        return self.exchange.schema

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class PartialAggregate(GroupBy):
    """Groups the rows that each task has: the first of two phases, whose groups need not be whole.

    ``silent_when_empty``: a phase without keys gives no row where its task has none.
    """

    silent_when_empty: bool = False


@dataclass(frozen=True, eq=False)
class FinalAggregate(GroupBy):
    """Puts the groups of all tasks together: the second of two phases.

    ``parts[i]`` is the column of the first phase of which ``aggregates[i]`` is made.
    """

    parts: tuple[str, ...] = ()

    @property
    def first_phase(self) -> PartialAggregate | None:
        """The first phase, below the exchange; None where something else has come between."""
        moved = self.input.input if isinstance(self.input, RowNumber) else self.input
        first = moved.input if isinstance(moved, Exchange) else None
        return first if isinstance(first, PartialAggregate) else None


@dataclass(frozen=True, eq=False)
class AggregateInPlace(GroupBy):
    """Forms whole groups where the join below has brought their rows together.

    ``in_two_phases`` is the same over an exchange, for a join that turns out to be skewed.
    """

    in_two_phases: Node = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class RangeWindow(Unary):
    """Computes window columns over each task's own part of the rows alone; what other parts add comes later."""

    items: tuple[Computed, ...]

    @derived
    def schema(self) -> Schema:
        return both(self.input.schema, schema_of(self.items))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(i.expression for i in self.items)


@dataclass(frozen=True, eq=False)
class RowNumber(Unary):
    """Numbers the input's rows as each task reads them, in the column ``name``."""

    name: str

    @derived
    def schema(self) -> Schema:
        return both(self.input.schema, {self.name: BIGINT})

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Repeated(Unary):
    """Computes a small sub-plan in each of several tasks, from whole sources."""

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class HaloWindow(Node):
    """Computes window functions of ``rows`` within ranges that also see the rows of ``halo``; only ``rows`` come out.

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
        return self._over(rows=inputs[0], halo=inputs[1])

    @derived
    def schema(self) -> Schema:
        return both(self.rows.schema, schema_of(self.items))

    @property
    def visible(self) -> Schema:
        return self.rows.schema

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return tuple(i.expression for i in self.items)


@dataclass(frozen=True, eq=False)
class PartitionId(Node):
    """Gives one row in each task: a number that grows from task to task.

    ``series`` is a sliced series of integers; slices are contiguous, so that the least of each will do.
    """

    series: TaskScan
    name: str

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.series,)

    @derived
    def schema(self) -> Schema:
        return {self.name: BIGINT}

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The numbers of another series."""
        (series,) = inputs
        assert isinstance(series, TaskScan)
        return self._over(series=series)


@dataclass(frozen=True, eq=False)
class EmptyRelation(Node):
    """Gives no rows, of the columns ``declared``: what an inner join with an empty side comes to.

    ``witness`` is the empty side; it stays in the plan to show why.
    """

    witness: Node
    declared: Schema

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.witness,)

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same nothing, witnessed by another node."""
        (witness,) = inputs
        return self._over(witness=witness)

    @derived
    def schema(self) -> Schema:
        return self.declared

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class TaskScan(Leaf):
    """Reads a source in a stage: with ``sliced`` each task its own part, else the one task all of it.

    ``split`` says that the parts are ranges of a column.
    """

    scan: Scan
    sliced: bool
    split: RangeSplit | None = None

    @derived
    def schema(self) -> Schema:
        return self.scan.schema

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class CutRef(Leaf):
    """Reads a shared expression that another stage computes; only ``columns_read`` of it travel.

    ``edge_id`` names its edge and ``stage_id`` the other stage, once the plan is cut into stages.
    """

    reference: CteRef
    columns_read: tuple[str, ...]
    edge_id: str = ""
    stage_id: str = ""

    @derived
    def schema(self) -> Schema:
        """The columns that are read, under this reading's names."""
        return {name: self.reference.schema[name] for name in self.columns_read}

    @property
    def visible(self) -> Schema:
        """The columns of the whole expression."""
        return self.reference.schema

    @property
    def reads(self) -> frozenset[str]:
        """The columns that travel."""
        return frozenset(self.columns_read)

    def with_shared(self, shared: Node) -> CutRef:
        """The same reading of a changed expression."""
        if shared is self.reference.shared:
            return self
        assert isinstance(shared, Shared)
        return replace(self, reference=CteRef(shared, self.reference.names))

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()


def own_nodes(top: Node) -> list[Node]:
    """The nodes of the stage whose root is ``top``."""
    return reached([top], lambda node: () if isinstance(node, Exchange) else node.inputs)


def stage_roots(root: Node, root_stage: str = "") -> dict[Node, str]:
    """The root of every stage, each once, and the stage's id; ``root_stage`` is that of ``root``."""
    ids = {root: root_stage}

    def read_by(top: Node) -> list[Node]:
        """The roots of the stages that a stage reads, the last first."""
        read = []
        for node in reversed(own_nodes(top)):
            if isinstance(node, Exchange | CutRef):
                below = node.input if isinstance(node, Exchange) else node.reference.shared.input
                ids[below] = node.stage_id
                read.append(below)
        return read

    return {top: ids[top] for top in reached([root], read_by) if not isinstance(top, CutRef)}


def rewrite_stages(root: Node, edit: Callable[[Node, Node], Node]) -> Node:
    """Rebuild a plan bottom-up, shared expressions of other stages included, each node once.

    ``edit`` is given a node and the same over what its inputs have become.
    """
    done: dict[Node, Node] = {}

    def visit(node: Node) -> Node:
        known = done.get(node)
        if known is None:
            if isinstance(node, CutRef):
                moved: Node = node.with_shared(visit(node.reference.shared))
            else:
                moved = replace_inputs(node, tuple(map(visit, node.inputs)))
            known = done[node] = edit(node, moved)
        return known

    return visit(root)
