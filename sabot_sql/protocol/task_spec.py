"""What a coordinator asks of an agent and what the agent answers.

Everything carries query, stage, task and attempt, so that an answer that comes late can be told from the current one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sabot_planner.job.operators import Column
from sabot_sql.errors import SabotSQLError


class WriteKind(StrEnum):
    """How a task's output rows are placed in partitions."""

    ONE_PARTITION = "one_partition"
    HASH_COLUMN = "hash_column"
    HASH_COLUMNS = "hash_columns"
    RANGE_COLUMN = "range_column"
    SAMPLED = "sampled"
    ROUND_ROBIN = "round_robin"


class FailureKind(StrEnum):
    """Why a task did not commit; it decides whether another attempt makes sense."""

    USER = "user"
    """The statement, its values or its sources are wrong: the same everywhere."""
    RESOURCE = "resource"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    LOST_INPUT = "lost_input"
    """A committed input cannot be read any more; its producers must run again."""
    AGENT_DIED = "agent_died"
    STALE = "stale"
    """The agent knows a newer attempt, or no longer knows the query."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class TaskId:
    """One attempt of one task."""

    query_id: str
    stage: str
    task: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.query_id}/{self.stage}_{self.task}.{self.attempt}"


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring rows of a source, from the place ``low`` up to the place ``high``; None is the source's own end.

    A place has one name, whichever slice begins or ends there: a row, a file or a value. Slices that share out a source
    are therefore a chain of spans from None to None.
    """

    low: str | None = None
    high: str | None = None


@dataclass(frozen=True, slots=True)
class ScanBinding:
    """A slice of a source under the relation name ``name``.

    ``spans`` are the rows that ``sql`` reads; a task that does not read a ``sliced`` source reads all of it.
    ``registrations`` are objects of this process; a task that has some can only run here. ``in_session``: only the
    session's own DuckDB can run ``sql``.
    """

    name: str
    columns: tuple[str, ...]
    sql: str
    spans: tuple[Span, ...] = (Span(),)
    sliced: bool = True
    registrations: Mapping[str, object] = field(default_factory=dict, compare=False)
    in_session: bool = False


@dataclass(frozen=True, slots=True)
class EdgeInput:
    """Partitions [``first``, ``last``) of the committed outputs ``manifests``, under the relation name ``name``.

    ``producers`` are the tasks that committed them, in the same order. ``columns`` are what the fragment sees, with the
    types that the producer's DuckDB gave them.
    """

    edge_id: str
    name: str
    columns: tuple[Column, ...]
    producers: tuple[int, ...]
    manifests: tuple[bytes, ...]
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class KeyQuestion:
    """Which key has this ``hash`` among the rows of ``edge``?

    ``names`` are the keys as people know them, ``key_sql`` what DuckDB hashed; where that is empty, the partitioner
    hashed the columns ``names``.
    """

    query_id: str
    edge: EdgeInput
    names: tuple[str, ...]
    key_sql: tuple[str, ...]
    hash: int


class BatchStream(Protocol):
    """The rows of a task after a Python function; ``error`` is what ended them early, by its own type."""

    error: BaseException | None

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows, once."""
        ...


class BatchFunction(Protocol):
    """A Python function of this process over the batches of one task, in order."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What it gives."""
        ...

    def over(self, rows: object, task: int) -> BatchStream:
        """What it makes of ``rows``, an Arrow stream, in task ``task``."""
        ...


@dataclass(frozen=True, slots=True)
class Fragment:
    """One SELECT with its inputs; ``chained`` are fragments that it reads by name, run within the same statement.

    ``functions`` is empty, or has the Python function of this process that its rows go through, by its id; a task that
    has one can only run here.
    """

    sql: str
    scans: tuple[ScanBinding, ...] = ()
    edges: tuple[EdgeInput, ...] = ()
    chained: tuple[tuple[str, Fragment], ...] = ()
    functions: Mapping[str, BatchFunction] = field(default_factory=dict, compare=False)

    @property
    def in_session(self) -> bool:
        """Whether it reads something that the session's own DuckDB alone can read."""
        return any(scan.in_session for scan in self.all_scans())

    def all_scans(self) -> tuple[ScanBinding, ...]:
        """The scans of this fragment and of those chained to it."""
        return self.scans + tuple(scan for _, inner in self.chained for scan in inner.all_scans())

    def all_edges(self) -> tuple[EdgeInput, ...]:
        """The edge inputs of this fragment and of those chained to it."""
        return self.edges + tuple(edge for _, inner in self.chained for edge in inner.all_edges())


@dataclass(frozen=True, slots=True)
class WriteScheme:
    """How to place rows: ``column`` holds a hash or a sort key and is not stored, ``keys`` are hashed natively."""

    kind: WriteKind
    partitions: int = 1
    column: str | None = None
    keys: tuple[str, ...] = ()
    bounds: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class EdgeOutput:
    """Where a task's rows go. ``columns`` are stored, all but the scheme's own column when empty."""

    edge_id: str
    scheme: WriteScheme
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileSink:
    """Files in ``directory`` in place of rows, one per task; what a task commits then is the number of its rows.

    ``options`` are those of COPY, as DuckDB reads them. ``items`` is the select list, over the columns ``c0``, ``c1``
    and so on of the rows as they would leave the task.
    """

    directory: str
    extension: str
    options: str
    items: tuple[str, ...]

    def path(self, task: int, attempt: int) -> str:
        """Where an attempt writes: another attempt of the same task may still be writing its own file."""
        return f"{self.directory}/part-{task:05d}.{attempt}.{self.extension}"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One attempt of a task: run ``fragment`` and commit its rows to every output, or to none."""

    id: TaskId
    fragment: Fragment
    outputs: tuple[EdgeOutput, ...]
    deadline_ms: int | None = None
    sink: FileSink | None = None


@dataclass(frozen=True, slots=True)
class SplitSpec:
    """Split the committed sampled output of one task at ``bounds``; only the agent that holds it can."""

    id: TaskId
    edge_id: str
    manifest: bytes
    bounds: tuple[bytes, ...]


Work = TaskSpec | SplitSpec


@dataclass(frozen=True, slots=True)
class OutputReport:
    """One committed output; ``manifest`` is what another agent needs to read it.

    ``key_sketch`` counts the distinct keys of a hashed output; None where rows that count were never written.
    ``spilled_bytes`` were written to disk to make room for it, which its writer waited for, ``wait_ms`` in all.
    """

    edge_id: str
    agent_id: str
    manifest: bytes
    rows: int
    size_bytes: int
    spilled_bytes: int = 0
    partition_rows: tuple[int, ...] = ()
    partition_bytes: tuple[int, ...] = ()
    heavy: tuple[tuple[int, int, int], ...] = ()
    sample: tuple[bytes, ...] = field(default=(), repr=False)
    key_sketch: bytes | None = field(default=None, repr=False)
    partition_batches: tuple[int, ...] = ()
    wait_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class ScanRead:
    """The rows of a source that an attempt read; see :class:`ScanBinding`."""

    name: str
    sliced: bool
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TaskReport:
    """A committed attempt; ``columns`` are those of the fragment, helper columns included.

    ``scans`` are what it read of each source, ``rows_in`` are the rows of all edge inputs together.
    """

    id: TaskId
    agent_id: str
    columns: tuple[Column, ...]
    outputs: tuple[OutputReport, ...]
    rows_in: int
    elapsed_ms: float
    scans: tuple[ScanRead, ...] = ()


@dataclass(frozen=True, slots=True)
class SplitReport:
    """The split output that takes the place of the sampled one."""

    id: TaskId
    agent_id: str
    output: OutputReport


@dataclass(frozen=True, slots=True)
class TaskFailure:
    """An attempt that committed nothing. ``lost`` names (edge, producer task) of inputs that could not be read."""

    id: TaskId
    agent_id: str
    kind: FailureKind
    error: SabotSQLError
    lost: tuple[tuple[str, int], ...] = ()


Outcome = TaskReport | SplitReport | TaskFailure


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A file as it was when the query was planned."""

    path: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class QueryContext:
    """What an agent is told of a query before its first task.

    ``settings`` change answers and hold for every fragment. ``paths`` are the files and directories that fragments may
    read; ``attachments`` are (name, database file) pairs to attach read-only. ``sink`` is the one directory that the
    query may write to, if any. ``joins_ordered``: fragments join in the order that DuckDB chose for the whole query.
    ``files`` are local files among the paths, as the session sees them: an agent of another host must see the same.
    ``kept_segments`` is the directory where outputs are kept beyond the life of their agents, if that is wanted.
    """

    query_id: str
    edges: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()
    paths: tuple[str, ...] = ()
    attachments: tuple[tuple[str, str], ...] = ()
    sink: str = ""
    joins_ordered: bool = False
    files: tuple[FileVersion, ...] = ()
    kept_segments: str = ""
