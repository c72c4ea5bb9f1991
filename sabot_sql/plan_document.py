"""The plan JSON: the one place that says which fields it has, writes it and reads it.

Whoever knows of a plan, be it the session or a coordinator, makes these records; ``sabot_sql.plan_view`` shows them.
The names of the fields are those of the JSON.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Self

PlanJson = dict[str, Any]
"""A plan as it is given away: :class:`PlanDocument` says what is in it."""

VERSION = 1


@dataclass(frozen=True, slots=True)
class PlanOperator:
    """One operator of DuckDB's own plan.

    ``read_by`` is the place in the list of the operator that reads its rows, which stands before it; None for the last
    one of the plan. The list is flat because a tree of a deep statement could not be copied or written as JSON.
    """

    name: str
    detail: str
    rows_estimated: int | None = None
    read_by: int | None = None


@dataclass(frozen=True, slots=True)
class PlanTask:
    """One attempt of one task; times are from the moment at which the query began to run."""

    id: str
    agent: str | None = None
    attempt: int = 0
    state: str = "waiting"
    rows_in: int | None = None
    rows: int | None = None
    bytes: int | None = None
    batches: int | None = None
    spilled_bytes: int | None = None
    wait_ms: float | None = None
    started_ms: float | None = None
    elapsed_ms: float | None = None


@dataclass(frozen=True, slots=True)
class PlanColumn:
    """A column and its DuckDB type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class PlanStage:
    """One stage. ``runs_in`` is the stage that computes it as part of its own tasks, which are then these ``tasks``.

    ``operators`` are what DuckDB would do, where it says so, each before those that it reads; ``progress_percent`` is
    its word on how far it is. ``columns`` are those of its rows, where people named them: in job graphs.
    """

    id: str
    label: str
    type: str
    sql: str
    parallelism: int
    state: str
    reason: str = ""
    rows: int | None = None
    runs_in: str | None = None
    tasks: tuple[PlanTask, ...] = ()
    operators: tuple[PlanOperator, ...] = ()
    progress_percent: float | None = None
    columns: tuple[PlanColumn, ...] = ()


@dataclass(frozen=True, slots=True)
class HeavyKey:
    """A key that holds a large share of the rows of an edge."""

    key: str
    rows: int


@dataclass(frozen=True, slots=True)
class PlanEdge:
    """One edge. ``within_task``: one task computes both of its ends, so that nothing is moved or counted.

    ``partial``: some of the tasks that write to it have not committed, so that the figures are those so far.
    ``partition_agents`` are the agents that read the partitions, as far as they are known.
    """

    id: str
    type: str
    keys: tuple[str, ...]
    source: str
    target: str
    partitions: int | None = None
    rows: int | None = None
    bytes: int | None = None
    batches: int | None = None
    spilled_bytes: int | None = None
    wait_ms: float | None = None
    partial: bool = False
    rows_estimated: int | None = None
    estimated_by: str | None = None
    decided: str = "plan"
    reason: str = ""
    within_task: bool = False
    partition_rows: tuple[int, ...] = ()
    partition_bytes: tuple[int, ...] = ()
    partition_agents: tuple[str | None, ...] = ()
    distinct_keys: int | None = None
    heavy: tuple[HeavyKey, ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """The milliseconds of a query by phase; see :class:`sabot_sql.call.clock.Phase`."""

    planning_ms: float = 0.0
    startup_ms: float = 0.0
    running_ms: float = 0.0
    handover_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class PlanDocument:
    """A whole plan; ``state`` is ``planned``, ``planning``, ``starting``, ``running`` or how it ended."""

    version: int
    query_id: str
    sql: str
    mode: str
    reason: str
    agents: int
    isolation: str
    state: str
    elapsed_ms: float | None = None
    times: PhaseTimes | None = None
    stages: tuple[PlanStage, ...] = ()
    edges: tuple[PlanEdge, ...] = ()

    def to_json(self) -> PlanJson:
        """The plan as JSON values."""
        written: PlanJson = _written(self)
        return written

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The plan of a plan JSON; what is missing in it has the value that says nothing.

        Raises:
            ValueError: it is of another version.
        """
        if document.get("version") != VERSION:
            raise ValueError(f"plan JSON of version {document.get('version')!r}; this release reads version {VERSION}")
        read: Self = _read(cls, document)
        return read


def timed(document: Mapping[str, Any], times_ms: Mapping[str, float]) -> PlanJson:
    """A plan JSON with the time of each phase of its query, and their sum."""
    times = {phase: round(spent, 3) for phase, spent in times_ms.items()}
    return {**document, "times": times, "elapsed_ms": round(sum(times.values()), 3)}


def _written(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _written(getattr(value, f.name)) for f in fields(value)}
    return [_written(item) for item in value] if isinstance(value, tuple) else value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(hint: Any, value: Any) -> Any:
    """``value`` as what a field of that type holds; None gives the value of the type that says nothing."""
    if isinstance(hint, types.UnionType):
        (inner,) = (kind for kind in typing.get_args(hint) if kind is not type(None))
        return None if value is None else _read(inner, value)
    if typing.get_origin(hint) is tuple:
        items: Sequence[Any] = () if value is None else value
        return tuple(_read(typing.get_args(hint)[0], item) for item in items)
    if isinstance(hint, type) and is_dataclass(hint):
        record = value if isinstance(value, Mapping) else {}
        return hint(**{name: _read(kind, record.get(name)) for name, kind in _hints(hint).items()})
    return hint() if value is None else hint(value)
