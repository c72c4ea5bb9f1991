"""Operators and shuffle edges: the parts of an operator graph."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from sabot_planner.errors import InvalidGraph

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class OperatorType(StrEnum):
    """What an operator mostly does; it names the operator to people and decides nothing."""

    SOURCE = "source"
    MAP = "map"
    SELECT = "select"
    FILTER = "filter"
    FLAT_MAP = "flat_map"
    JOIN = "join"
    HASH_JOIN = "hash_join"
    ASOF_JOIN = "asof_join"
    INTERVAL_JOIN = "interval_join"
    GROUP_BY = "group_by"
    AGGREGATE = "aggregate"
    REDUCE = "reduce"
    DISTINCT = "distinct"
    WINDOW = "window"
    TUMBLING_WINDOW = "tumbling_window"
    SLIDING_WINDOW = "sliding_window"
    SESSION_WINDOW = "session_window"
    SORT = "sort"
    SET = "set"
    UNION = "union"
    SINK = "sink"


class ShuffleEdgeType(StrEnum):
    """How the rows of one operator reach the tasks of the next."""

    FORWARD = "forward"
    HASH = "hash"
    BROADCAST = "broadcast"
    RANGE = "range"
    REBALANCE = "rebalance"


class Placement(StrEnum):
    """Where the tasks of an operator may run."""

    ANY = "any"
    SESSION = "session"
    """Only in the session's own process: its sources live in that memory."""


class Decided(StrEnum):
    """When the type of an edge was decided."""

    PLAN = "plan"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class Column:
    """A column on an edge or of a source; ``type`` is the DuckDB type as SQL text."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class RangeSplit:
    """A source cut by the values of ``column``, whose row groups do not overlap in it.

    Part i holds the rows with bounds[i - 1] <= column < bounds[i]; ``bounds`` are SQL literals in ascending order. Two
    sources with the same bounds are cut alike.
    """

    column: str
    bounds: tuple[str, ...]

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return len(self.bounds) + 1

    def share(self, index: int, count: int) -> tuple[int, int]:
        """The parts [first, last) of task ``index`` of ``count``: none for some where there are fewer parts."""
        return index * self.parts // count, (index + 1) * self.parts // count

    def between(self, first: int, last: int) -> tuple[str | None, str | None] | None:
        """The lower and upper bound of parts [first, last), each None where that side is open.

        None in place of both where those are no parts at all: no pair of bounds says so.
        """
        if not 0 <= first < last <= self.parts:
            return None
        low = self.bounds[first - 1] if first > 0 else None
        high = self.bounds[last - 1] if last < self.parts else None
        return low, high


@dataclass(frozen=True, slots=True)
class ScanInput:
    """A source that a fragment reads under the relation name ``name``.

    The fragment's tasks read slices of it: task i of n reads the i-th of n contiguous slices, in source order.
    Where ``sliced`` is false every task reads the whole source. With ``split`` the slices are parts of it, contiguous
    runs of them where there are fewer tasks than parts.
    """

    name: str
    source_id: str
    columns: tuple[str, ...]
    sliced: bool = True
    split: RangeSplit | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of an operator graph: one DuckDB SELECT, run by ``parallelism`` tasks.

    ``sql`` reads each incoming edge under the relation name ``ShuffleEdge.input_name`` and each scan under
    ``ScanInput.name``. It never starts with a WITH clause of its own unless it was written by hand.
    ``start_after`` names operators whose measurements may still change this one; it is not started before them.
    ``exports_states``: its SQL makes aggregate states, which are values of their own only within one statement.
    ``first_rows``: of the rows of all tasks, read in task order, no more than so many are needed.
    ``function``: the id of a Python function of the session that the batches of ``sql`` go through.
    ``apart``: its statement is never part of another operator's; its rows are stored even on a FORWARD edge.
    """

    operator_id: str
    operator_type: OperatorType
    sql: str
    parallelism: int = 1
    scans: tuple[ScanInput, ...] = ()
    key_by: tuple[str, ...] = ()
    stateful: bool = False
    placement: Placement = Placement.ANY
    start_after: tuple[str, ...] = ()
    first_rows: int | None = None
    label: str = ""
    exports_states: bool = False
    function: str = ""
    apart: bool = False

    def __post_init__(self) -> None:
        _check_id("operator", self.operator_id)
        if self.parallelism < 1:
            raise InvalidGraph(f"operator {self.operator_id!r}: parallelism is {self.parallelism}, at least 1 needed")


@dataclass(frozen=True, slots=True)
class ShuffleEdge:
    """Rows moving from operator ``source`` to operator ``target``.

    ``partitions`` is the number of partitions that each producer task writes: for HASH the number of hash buckets (at
    least the consumer's parallelism; a consumer task reads a contiguous run of them), for the others 1 unless said.
    ``partition_by`` names the column of the producer's output that places a row and is not stored: a UBIGINT hash
    for HASH, a BLOB sort key for RANGE. A HASH edge without it is hashed natively over the columns ``keys``.
    ``keys`` are shown to people; ``key_sql`` are, for a hash that a fragment computed, the values hashed, in SQL over
    the edge's own columns.
    ``written_as`` is how the producer writes where that differs from ``edge_type``: an edge whose producer wrote hash
    buckets may turn into BROADCAST once it is measured, and its consumers then read every bucket.
    ``splittable``: the rows of one hash partition may be dealt to several tasks that each read all of the other hashed
    inputs' same partition.
    ``estimated_by`` names whose estimate ``rows_estimated`` is.
    ``rereads`` names the committed output of the source that this edge reads where it has none of its own: that of
    another edge, or one that several edges share. Such an output is written once, with the columns of each of them.
    ``reads`` is how often the target's SQL names the edge: what is read once can be computed in its place. None where
    nobody has said so.
    ``bounds_partitions`` of a RANGE edge is how many ranges to make when its rows are many; bounds come from a sample.
    """

    edge_id: str
    source: str
    target: str
    edge_type: ShuffleEdgeType
    keys: tuple[str, ...] = ()
    partitions: int = 1
    partition_by: str | None = None
    columns: tuple[str, ...] = ()
    written_as: ShuffleEdgeType | None = None
    splittable: bool = False
    bounds_partitions: int = 1
    rows_estimated: int | None = None
    bytes_estimated: int | None = None
    decided: Decided = Decided.PLAN
    reason: str = ""
    key_sql: tuple[str, ...] = ()
    rereads: str | None = None
    estimated_by: str = ""
    reads: int | None = None

    def __post_init__(self) -> None:
        _check_id("edge", self.edge_id)
        if self.partitions < 1:
            raise InvalidGraph(f"edge {self.edge_id!r}: partitions is {self.partitions}, at least 1 needed")

    @property
    def input_name(self) -> str:
        """The relation name under which the consumer's SQL reads this edge."""
        return self.edge_id

    @property
    def written_id(self) -> str:
        """The id of the committed output that this edge reads."""
        return self.rereads or self.edge_id

    @property
    def write_type(self) -> ShuffleEdgeType:
        """How the producer partitions its output."""
        return self.written_as or self.edge_type


def _check_id(what: str, value: str) -> None:
    # Ids become file names, tickets and relation names; one strict alphabet everywhere keeps them harmless.
    if not _ID.match(value):
        raise InvalidGraph(f"{what} id {value!r} must match [A-Za-z0-9_-]{{1,64}}")
