from collections.abc import Iterable, Sequence
from os import PathLike
from types import TracebackType
from typing import Protocol, Self, TypeAlias, final, type_check_only

from sabot_native.output import Output

_Blob: TypeAlias = bytes

@type_check_only
class ArrowStreamable(Protocol):
    """Anything that exports an Arrow C stream: a DuckDB relation, a pyarrow table or reader, a PartitionStream."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

@final
class CancelToken:
    """Ends the operations it was given to, from any thread."""

    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """Make every operation that has this token raise Cancelled at its next batch."""
    @property
    def cancelled(self) -> bool:
        """Whether cancel() was called."""

@final
class Heartbeat:
    """Tells whether the process at the other end of a socket runs, whatever holds the GIL here or there.

    A thread asks every ``interval_ms`` and answers what the other end asks; 0 asks nothing. The descriptor is copied.
    """

    def __new__(cls, descriptor: int, interval_ms: int) -> Heartbeat: ...
    @property
    def silent_ms(self) -> int:
        """How long a question has been unanswered; time in which the thread itself did not run is left out."""
    def stop(self) -> None:
        """End the thread."""

@final
class Scheme:
    """How a writer splits rows into partitions."""

    @staticmethod
    def single() -> Scheme:
        """One partition."""
    @staticmethod
    def hash_column(column: str, partitions: int) -> Scheme:
        """By a UBIGINT column that already holds the hash: partition ((h >> 32) * n) >> 32. It is not stored."""
    @staticmethod
    def hash_columns(columns: Sequence[str], partitions: int) -> Scheme:
        """By the native hash of the columns, which agrees with SQL equality within a type."""
    @staticmethod
    def range_column(column: str, bounds: Sequence[bytes]) -> Scheme:
        """By a BLOB sort key in memcmp order: partition = number of bounds <= key. It is not stored."""
    @staticmethod
    def sampled(column: str, sample_rows: int = 1024) -> Scheme:
        """One partition that keeps the BLOB column and samples it uniformly into the manifest, to be split later."""
    @staticmethod
    def round_robin(partitions: int) -> Scheme:
        """The same number of rows to every partition, give or take one."""
    @property
    def partitions(self) -> int:
        """How many there are."""

@final
class Manifest:
    """What a task committed for one output."""

    @property
    def query_id(self) -> str:
        """The query that wrote it."""
    @property
    def edge_id(self) -> str:
        """The edge whose rows these are."""
    @property
    def task(self) -> int:
        """The number of the task that wrote it."""
    @property
    def attempt(self) -> int:
        """Which attempt of the task wrote it, from 0."""
    @property
    def agent_id(self) -> str:
        """Whose manager holds the segments."""
    @property
    def rows(self) -> int:
        """Rows of all partitions."""
    @property
    def bytes(self) -> int:
        """Size of the rows as stored."""
    @property
    def batches(self) -> int:
        """Record batches of all partitions."""
    @property
    def spilled_bytes(self) -> int:
        """Written to disk to make room for it, whoever's rows that were."""
    @property
    def wait_ms(self) -> float:
        """Milliseconds that its writer waited for that room, and for its readers' credit."""
    @property
    def partition_rows(self) -> list[int]:
        """Rows of each partition."""
    @property
    def partition_bytes(self) -> list[int]:
        """Bytes of each partition as stored."""
    @property
    def partition_batches(self) -> list[int]:
        """Record batches of each partition."""
    @property
    def heavy(self) -> list[tuple[int, int, int]]:
        """(hash, count, error bound) of the heavy hitters of a hash scheme, heaviest first."""
    @property
    def key_sketch(self) -> _Blob:
        """The least hashes of a hash scheme's keys, for ``distinct_count``."""
    @property
    def sample(self) -> list[_Blob]:
        """Keys drawn by ``Scheme.sampled``."""
    def to_bytes(self) -> _Blob:
        """For another process of this host."""
    @staticmethod
    def from_bytes(data: _Blob) -> Manifest:
        """Raises CorruptSegment for anything that to_bytes() did not write."""

def check_stream(stream: ArrowStreamable) -> None:
    """Follow every offset, view and index of a stream of this process to see that none leads out of its arrays.

    Buffers of values are taken to be as large as the last offset says, which ``Table.validate()`` finds out in no time.
    Raises StreamError where one does, UnsupportedType for a type that the shuffle does not have.
    """

def distinct_count(sketches: Iterable[_Blob]) -> int:
    """Distinct keys of all rows that sketches of one hash saw: exact below 256, then with a standard error of 6.3 %.

    Of more than 16,384 rows in one output, a key that comes late and seldom where there are few may go unseen.
    Raises CorruptSegment for anything that is no sketch.
    """

@final
class PartitionStream:
    """Committed partitions as an Arrow stream, read anew by every consumer and without copying where possible."""

    @property
    def rows(self) -> int:
        """Rows that the partitions hold."""
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def __arrow_c_schema__(self) -> object: ...
    def raise_error(self) -> None:
        """Raise the error that ended a stream, if one did: consumers report it as an error of their own."""

@final
class LiveStream:
    """Batches of outputs that are still being written; each is delivered to one reader only."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def raise_error(self) -> None:
        """Raise the error that ended the stream, if one did."""

@final
class ShuffleManager:
    """An agent's shuffle memory: writes and commits outputs, reads committed outputs of any agent of this host.

    ``budget_bytes`` bound its pool; what does not fit goes to files in ``spill_directory``, ``spill_quota_bytes`` at
    most. Memory is taken by segments of ``segment_bytes``. It may be used by several threads.
    """

    def __new__(
        cls,
        agent_id: str,
        *,
        budget_bytes: int,
        spill_directory: str | PathLike[str],
        spill_quota_bytes: int = ...,
        segment_bytes: int = ...,
    ) -> Self: ...
    def register_shuffle(self, query_id: str) -> None:
        """From here until the query is released its edges may be written here; again is nothing new.

        What was written after its query's release would be freed by nobody.
        """
    def write_partition(
        self,
        stream: ArrowStreamable,
        outputs: Sequence[Output],
        *,
        cancel: CancelToken | None = None,
        deadline_ms: int | None = None,
        live: bool = False,
    ) -> list[Manifest]:
        """Write what one task, a partition of its operator, gives: drain the stream, then commit all outputs or none.

        The GIL is not held. Raises NativeError for a query that is not registered.

        With ``live``, follow() delivers their batches meanwhile, and read() finds only what nobody took.
        """
    def follow(
        self,
        query_id: str,
        edge_id: str,
        tasks: Sequence[tuple[int, int]],
        first: int,
        last: int,
        *,
        cancel: CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> LiveStream:
        """Partitions [first, last) of the outputs of (task, attempt), as they are written; waits for them to begin."""
    def read(
        self,
        manifests: Sequence[Manifest],
        first: int,
        last: int,
        *,
        cancel: CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> PartitionStream:
        """Partitions [first, last) of the manifests, manifest by manifest, in the order written."""
    def split(self, manifest: Manifest, bounds: Sequence[bytes], attempt: int) -> Manifest:
        """Partition a ``sampled`` output by bounds; the new output takes its place, without the key column."""
    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free the outputs of one edge, which may be written again, or of a query, which is then forgotten.

        Writes to them end. Arrays already read stay valid.
        """
    def metrics(self) -> dict[str, int]:
        """Counters and gauges: pool_bytes, peak_pool_bytes, spilled_bytes, rows, bytes, batches, wait_ms, ..."""
    def arena_fd(self) -> int:
        """The memfd of the pool, owned by the manager; a peer process passes a duplicate to attach_peer()."""
    def attach_peer(self, agent_id: str, arena_fd: int, spill_directory: str | PathLike[str]) -> None:
        """Make the committed outputs of another process of this host readable here. The descriptor is duplicated."""
    def detach_peer(self, agent_id: str) -> None:
        """Give up the mapping of a peer, which frees a dead peer's memory once nothing read from it is held."""
    def trim(self) -> None:
        """Give the pool's memory that holds nothing back to the system; it is taken again when it is needed."""
    def ticket(self, manifests: Sequence[Manifest], first: int, last: int, key: _Blob) -> _Blob:
        """A ticket for partitions [first, last) of outputs of one edge, sealed with the session's key."""
    def live_ticket(
        self, query_id: str, edge_id: str, tasks: Sequence[tuple[int, int]], first: int, last: int, key: _Blob
    ) -> _Blob:
        """A ticket for following outputs of (task, attempt) over a transport while they are written here."""
    def read_ticket(self, ticket: _Blob, key: _Blob) -> PartitionStream:
        """What a ticket names; raises InvalidTicket unless ticket() made it with this key."""
    def ticket_source(self, key: _Blob) -> object:
        """A capsule through which a transport opens tickets sealed with ``key``."""
    def close(self) -> None:
        """Free everything; arrays that consumers hold stay valid."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...
