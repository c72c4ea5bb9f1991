"""What clients and the durable host say to each other: one frame asks, one answers.

The connection begins with a ``hello`` that shows versions and token. All else are the records here, as the codec of
agents writes them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Greeting:
    """The first frame of a client."""

    sabot_sql: str
    token: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Run the query whose directory is there; again is nothing new."""

    query_id: str
    priority: int


@dataclass(frozen=True, slots=True)
class Describe:
    """How a query is; answered once its state is another than ``known``, or after ``wait_ms``."""

    query_id: str
    known: str
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop a query."""

    query_id: str


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove a query that has ended, and what came of it."""

    query_id: str


@dataclass(frozen=True, slots=True)
class ListQueries:
    """Describe the queries that the host knows, the latest first."""

    limit: int


@dataclass(frozen=True, slots=True)
class DescribeHost:
    """What the host says of itself."""


@dataclass(frozen=True, slots=True)
class StopHost:
    """End the host; what it runs goes on with the next one."""


@dataclass(frozen=True, slots=True)
class QueryState:
    """How a query is.

    ``state`` is ``queued``, ``running``, ``finished``, ``failed``, ``cancelled`` or ``timed_out``. Times are
    milliseconds since 1970. ``plan`` is the plan JSON as text, ``admission`` why it got the memory that it has.
    """

    query_id: str
    state: str
    sql: str
    submitted_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    progress_percent: float | None = None
    agents: int | None = None
    rows: int | None = None
    admission: str = ""
    error: str = ""
    plan: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state not in ("queued", "running")


@dataclass(frozen=True, slots=True)
class QueryStates:
    """The answer to :class:`ListQueries`."""

    queries: tuple[QueryState, ...]


@dataclass(frozen=True, slots=True)
class HostState:
    """The answer to :class:`DescribeHost`; ``database`` is the system database without its password."""

    pid: int
    epoch: int
    version: str
    database: str
    started_ms: int
    running: int
    queued: int


@dataclass(frozen=True, slots=True)
class Done:
    """It was done."""


Ask = Submit | Describe | Cancel | Forget | ListQueries | DescribeHost | StopHost
Answer = QueryState | QueryStates | HostState | Done
