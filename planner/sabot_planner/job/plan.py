"""What the planner takes and gives: the context it asks, the measurements it is told, the plan it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Protocol

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Column, Placement


class Mode(StrEnum):
    """How much of a query is distributed."""

    DISTRIBUTED = "distributed"
    PARTLY = "partly"
    """Some stages run in parallel, the rest is gathered to one task."""
    SINGLE = "single"
    """One task computes it all, where that is best."""


@dataclass(frozen=True, slots=True)
class NotDistributed:
    """A query that stays on one agent, which runs the user's own statement; ``reason`` is shown in its plan."""

    reason: str


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What the planner knows of a table, a set of files or a table function.

    ``columns`` are the declared columns in order, then the virtual columns asked for. ``max_slices`` is the number of
    pieces it can be cut into (1: cannot be cut). ``name`` is what people call it.
    ``version`` names the source and its present contents; where it is empty, nothing measured of it is remembered.
    """

    source_id: str
    name: str
    columns: tuple[Column, ...]
    rows: int | None
    bytes: int | None
    max_slices: int
    placement: Placement = Placement.ANY
    version: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """The smallest and largest value of a column in one row group, which has no NULL in it, and the group's rows."""

    low: int | date
    high: int | date
    rows: int


OneTask = Callable[[Mapping[str, int | None]], str | None]
"""Why one task is to compute a query that reads so many bytes of its sources (None: unknown), or None to spread it.

Raises:
    Undistributable: it is not to run on agents at all.
"""


class PlanContext(Protocol):
    """What the planner may ask while it plans. Pure to the planner: same question, same answer."""

    agents: int
    settings: PlanSettings

    def source(self, relation_sql: str, virtual_columns: Sequence[str]) -> SourceInfo:
        """Describe the relation ``relation_sql``, a table name or table function call as DuckDB exported it."""
        ...

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        """The zones of a column in source order; None where they are not known or a value may be NULL."""
        ...

    def types(self, expressions: Sequence[str], relation_sql: str) -> tuple[str, ...]:
        """DuckDB's types of ``expressions`` over ``relation_sql``, without reading a row."""
        ...

    def aggregates(self) -> frozenset[str]:
        """Lower-case names of all of DuckDB's aggregate functions."""
        ...

    def serialized(self, sql: str) -> str:
        """DuckDB's parse of ``sql`` as JSON (``json_serialize_sql``), an error object where it cannot be parsed."""
        ...

    def volatile_functions(self) -> frozenset[str]:
        """Lower-case names of functions whose value may differ from row to row for the same arguments."""
        ...

    def is_collated(self) -> bool:
        """Whether text of the sources described so far, or all text, compares by a collation that its type hides."""
        ...

    def check(self) -> None:
        """Called now and then: what it raises, because nobody wants the plan any more, ends the planning."""
        ...

    def recalls(self) -> bool:
        """Whether anything was measured in earlier runs."""
        ...

    def remembered(self, identity: str) -> int | None:
        """The rows of a sub-plan or the groups in an earlier run, by name (:mod:`sabot_planner.stats.fingerprints`)."""
        ...

    def rows_estimated(self, tables: Sequence[str]) -> int | None:
        """DuckDB's own estimate of the rows of the join over the scans with these aliases, if it made one."""
        ...


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Thresholds of the planner.

    ``broadcast_bytes``: a join side up to this size may be replicated.
    ``coalesce_bytes``: a consumer task is worth its cost from this many input bytes on.
    ``grant_bytes``: the working set of one partition should stay below it.
    ``keep_order``: rows come in the order that DuckDB documents; without it, as for DuckDB, in any.
    ``partitions`` forces the parallelism of every distributed stage; otherwise it is the number of agents.
    ``gather_rows``: a sub-plan over sources of at most so many rows is not worth splitting to be broadcast.
    ``repeat_rows``: each task computes a sub-plan over sources of at most so many rows for itself, where all need it.
    ``partial_share``: a first phase of an aggregate that leaves a larger share of its rows is skipped.
    ``filter_bytes``: from this many bytes on an edge is worth a filter by the keys that it is to be joined with, if
    that lets at most ``filter_share`` of its rows pass; at 0 such a filter may cost whatever it does.
    """

    broadcast_bytes: int = 16 << 20
    coalesce_bytes: int = 4 << 20
    grant_bytes: int = 512 << 20
    buckets_per_agent: int = 4
    gather_rows: int = 10_000
    repeat_rows: int = 20_000
    partial_share: float = 0.75
    filter_bytes: int = 4 << 20
    filter_share: float = 0.7
    keep_order: bool = True
    partitions: int | None = None
    adaptive: bool = True


@dataclass(frozen=True, slots=True)
class EdgeFacts:
    """What was measured of a finished edge, summed over its producer tasks.

    ``partition_rows[i]`` and ``partition_bytes[i]`` belong to partition i. ``heavy`` lists (hash, rows, error bound).
    ``distinct_keys`` is how many the keys of a HASH edge are, exact where few, None where that is not known.
    """

    rows: int
    bytes: int
    partition_rows: tuple[int, ...] = ()
    partition_bytes: tuple[int, ...] = ()
    heavy: tuple[tuple[int, int, int], ...] = ()
    distinct_keys: int | None = None


class Revisable(Protocol):
    """The planner's memory between revisions of one query."""

    def revise(self, plan: QueryPlan, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
        """See :meth:`QueryPlan.revise`."""
        ...

    def identities(self) -> Mapping[str, str]:
        """See :meth:`QueryPlan.identities`."""
        ...

    def key_identities(self) -> Mapping[str, str]:
        """See :meth:`QueryPlan.key_identities`."""
        ...


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """One query, planned for several agents.

    ``output`` are the result's columns under the user's names (which may repeat), in the order of the sink's columns.
    """

    mode: Mode
    reason: str
    agents: int
    operator_graph: OperatorGraph
    output: tuple[Column, ...] = ()
    planner_state: Revisable | None = field(default=None, repr=False, compare=False)

    def revise(self, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
        """The plan after the edges in ``facts`` finished; the same object where nothing changes.

        Operators in ``started`` keep their ids and what they compute, edges in ``facts`` how they are written.
        """
        if self.planner_state is None:
            return self
        try:
            return self.planner_state.revise(self, facts, started)
        except RecursionError:  # a plan so deep is kept as it is: that was right, if not the best
            return self

    def identities(self) -> Mapping[str, str]:
        """Edge, or ``result`` → what its rows are called in every plan that computes the same."""
        return self._named(lambda state: state.identities())

    def key_identities(self) -> Mapping[str, str]:
        """HASH edge → what the groups of its rows by their keys are called: there are as many as distinct keys."""
        return self._named(lambda state: state.key_identities())

    def _named(self, names: Callable[[Revisable], Mapping[str, str]]) -> Mapping[str, str]:
        if self.planner_state is None:
            return {}
        try:
            return names(self.planner_state)
        except RecursionError:  # nothing is remembered of a plan so deep
            return {}
