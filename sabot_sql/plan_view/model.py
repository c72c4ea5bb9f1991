"""The plan JSON read into typed records, and what can be computed from it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sabot_sql.plan_document import PhaseTimes, PlanDocument, PlanEdge, PlanOperator, PlanStage, PlanTask

RESULT = "result"
"""Target of the edge that carries the rows to the session."""

_STOPPED = {"failed": "failed", "cancelled": "cancelled", "timed_out": "timed out"}
_PHASES = {"planning_ms": "planning", "startup_ms": "start-up", "running_ms": "running", "handover_ms": "hand-over"}
_LEAST_PHASE_MS = 0.5

_SKEW_FACTOR = 2.0
_SKEWED_TYPES = frozenset({"HASH", "RANGE", "REBALANCE"})
# Below this the largest partition costs nothing, whatever its share: eight groups over sixteen partitions are no skew.
_SKEW_FLOOR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class TaskView:
    """One attempt of one task."""

    task_id: str
    agent: str
    attempt: int
    state: str
    rows_in: int | None
    rows: int | None
    bytes: int | None
    spilled_bytes: int
    started_ms: float | None
    elapsed_ms: float | None


@dataclass(frozen=True, slots=True)
class OperatorView:
    """An operator of DuckDB's own plan; ``read_by`` is the place of the one that reads it, which stands before it."""

    name: str
    detail: str
    rows_estimated: int | None
    read_by: int | None


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage; times are those of its tasks.

    ``runs_in`` is the stage whose tasks compute it as well: it has none of its own. ``copies`` are the ids of all the
    equal stages that it stands for, its own included, where such are folded.
    """

    stage_id: str
    label: str
    type: str
    sql: str
    parallelism: int
    state: str
    rows: int | None
    tasks: tuple[TaskView, ...] = ()
    runs_in: str = ""
    operators: tuple[OperatorView, ...] = ()
    progress_percent: float | None = None
    columns: tuple[tuple[str, str], ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def elapsed_ms(self) -> float | None:
        """From the first task's start to the last task's end."""
        spans = [(t.started_ms or 0.0, t.elapsed_ms) for t in self.tasks if t.elapsed_ms is not None]
        if not spans:
            return None
        return max(start + elapsed for start, elapsed in spans) - min(start for start, _ in spans)

    @property
    def spilled_bytes(self) -> int:
        """Bytes that its tasks wrote to disk."""
        return sum(task.spilled_bytes for task in self.tasks)

    @property
    def title(self) -> str:
        """The label, or the type where it has none."""
        return self.label or self.type or self.stage_id

    @property
    def steps(self) -> tuple[str, ...]:
        """What it does, one after the other; the last one is what the stage is for."""
        return tuple(step for step in self.title.split(" · ") if step.strip())

    @property
    def name(self) -> str:
        """The id, and how many equal stages it stands for."""
        return f"{self.stage_id} \N{MULTIPLICATION SIGN}{len(self.copies)}" if self.copies else self.stage_id


@dataclass(frozen=True, slots=True)
class Skew:
    """The heaviest partition of an edge: ``factor`` times the median partition."""

    partition: int
    factor: float
    bytes: int
    agent: str | None
    hot_key: str | None

    def text(self) -> str:
        """``skew: 12× the median in partition 3 on agent-1, hot key 42``."""
        factor = "all rows" if self.factor == float("inf") else f"{self.factor:.1f}\N{MULTIPLICATION SIGN} the median"
        key = f", hot key {self.hot_key}" if self.hot_key is not None else ""
        agent = f" on {self.agent}" if self.agent else ""
        return f"skew: {factor} in partition {self.partition}{agent}{key}"


@dataclass(frozen=True, slots=True)
class EdgeView:
    """One shuffle edge, with what was estimated and what was measured."""

    edge_id: str
    type: str
    keys: tuple[str, ...]
    source: str
    target: str
    partitions: int | None
    rows: int | None
    bytes: int | None
    rows_estimated: int | None
    decided: str
    reason: str
    partition_rows: tuple[int, ...] = ()
    partition_bytes: tuple[int, ...] = ()
    heavy: tuple[tuple[str, int], ...] = ()
    partition_agents: tuple[str, ...] = ()
    distinct_keys: int | None = None
    within_task: bool = False
    partial: bool = False

    @property
    def shown_type(self) -> str:
        """The type; FORWARD where one task computes both ends, whatever was planned."""
        return "FORWARD" if self.within_task else self.type

    @property
    def is_shuffle(self) -> bool:
        """Whether rows leave their task: every type but FORWARD."""
        return self.shown_type != "FORWARD"

    @property
    def misestimate(self) -> float | None:
        """How many times the estimate was off, either way, at least 1; None while rows still come."""
        if self.rows is None or self.rows_estimated is None or self.partial:
            return None
        low, high = sorted((max(1, self.rows), max(1, self.rows_estimated)))
        return high / low

    @property
    def skew(self) -> Skew | None:
        """The skew worth showing: the largest partition is over twice the median and not tiny.

        Partitions of a BROADCAST edge all go to every task, so their sizes do not matter.
        """
        sizes = self.partition_bytes
        if self.within_task or self.type not in _SKEWED_TYPES or len(sizes) < 2 or max(sizes) < _SKEW_FLOOR_BYTES:
            return None
        middle = median(sizes)
        if max(sizes) <= _SKEW_FACTOR * middle:
            return None
        hot = max(self.heavy, key=lambda item: item[1], default=None)
        factor = max(sizes) / middle if middle else float("inf")
        partition = sizes.index(max(sizes))
        agent = self.partition_agents[partition] if partition < len(self.partition_agents) else ""
        return Skew(partition, factor, max(sizes), agent or None, hot[0] if hot else None)


@dataclass(frozen=True, slots=True)
class PlanModel:
    """One plan JSON, version 1."""

    query_id: str
    sql: str
    mode: str
    reason: str
    agents: int
    isolation: str
    state: str
    elapsed_ms: float | None
    times: tuple[tuple[str, float], ...] = ()
    """The phases of ``elapsed_ms`` that took any time, in order, with their milliseconds."""
    stages: tuple[StageView, ...] = ()
    edges: tuple[EdgeView, ...] = ()
    _index: Mapping[str, StageView] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {stage.stage_id: stage for stage in self.stages})

    @property
    def stopped(self) -> str:
        """How it ended, if not well: ``failed``, ``cancelled``, ``timed out``."""
        return _STOPPED.get(self.state, "")

    def stage_state(self, stage: StageView) -> str:
        """The state of a stage as people see it: what never ran, and what was at work, when the query stopped."""
        if self.stopped and stage.state in ("running", "waiting"):
            return self.stopped if stage.state == "running" else "not run"
        return stage.state

    def stage(self, stage_id: str) -> StageView | None:
        """The stage of that id; None for the result."""
        return self._index.get(stage_id)

    def inputs_of(self, stage_id: str) -> tuple[EdgeView, ...]:
        """Edges into that stage, or into the result."""
        return tuple(edge for edge in self.edges if edge.target == stage_id)

    def outputs_of(self, stage_id: str) -> tuple[EdgeView, ...]:
        """Edges out of that stage."""
        return tuple(edge for edge in self.edges if edge.source == stage_id)

    @property
    def sinks(self) -> tuple[StageView, ...]:
        """Stages that feed no other stage."""
        feeding = {edge.source for edge in self.edges if edge.target in self._index}
        return tuple(stage for stage in self.stages if stage.stage_id not in feeding)

    @property
    def shuffles(self) -> int:
        """Number of edges that move rows between tasks."""
        return sum(edge.is_shuffle for edge in self.edges)

    @property
    def moved_bytes(self) -> int:
        """Bytes written to those edges."""
        return sum(edge.bytes or 0 for edge in self.edges if edge.is_shuffle)

    @property
    def measured(self) -> bool:
        """Whether it ran at least in part, so that there are measurements beside the estimates."""
        return any(edge.rows is not None for edge in self.edges) or any(stage.tasks for stage in self.stages)


def read_plan(document: Mapping[str, Any]) -> PlanModel:
    """The records of a plan JSON.

    Raises:
        ValueError: it is of another version.
    """
    plan = PlanDocument.from_json(document)
    return PlanModel(
        query_id=plan.query_id,
        sql=plan.sql,
        mode=plan.mode,
        reason=plan.reason,
        agents=plan.agents,
        isolation=plan.isolation,
        state=plan.state,
        elapsed_ms=plan.elapsed_ms,
        times=() if plan.times is None else _times(plan.times),
        stages=tuple(map(_stage, plan.stages)),
        edges=tuple(map(_edge, plan.edges)),
    )


def _times(times: PhaseTimes) -> tuple[tuple[str, float], ...]:
    spent = ((words, getattr(times, phase)) for phase, words in _PHASES.items())
    return tuple((words, milliseconds) for words, milliseconds in spent if milliseconds >= _LEAST_PHASE_MS)


def _operator(place: int, operator: PlanOperator) -> OperatorView:
    read_by = operator.read_by
    return OperatorView(
        name=operator.name,
        detail=operator.detail,
        rows_estimated=operator.rows_estimated,
        read_by=read_by if read_by is not None and read_by < place else None,
    )


def _stage(stage: PlanStage) -> StageView:
    return StageView(
        stage_id=stage.id,
        label=stage.label,
        type=stage.type,
        sql=stage.sql,
        parallelism=stage.parallelism,
        state=stage.state,
        rows=stage.rows,
        # The tasks of the stage that it runs in are shown there, once.
        tasks=() if stage.runs_in else tuple(map(_task, stage.tasks)),
        runs_in=stage.runs_in or "",
        operators=tuple(_operator(place, operator) for place, operator in enumerate(stage.operators)),
        progress_percent=stage.progress_percent,
        columns=tuple((column.name, column.type) for column in stage.columns),
    )


def _task(task: PlanTask) -> TaskView:
    return TaskView(
        task_id=task.id,
        agent=task.agent or "",
        attempt=task.attempt,
        state=task.state,
        rows_in=task.rows_in,
        rows=task.rows,
        bytes=task.bytes,
        spilled_bytes=task.spilled_bytes or 0,
        started_ms=task.started_ms,
        elapsed_ms=task.elapsed_ms,
    )


def _edge(edge: PlanEdge) -> EdgeView:
    return EdgeView(
        edge_id=edge.id,
        type=edge.type.upper(),
        keys=edge.keys,
        source=edge.source,
        target=edge.target,
        partitions=edge.partitions,
        rows=edge.rows,
        bytes=edge.bytes,
        rows_estimated=edge.rows_estimated,
        decided=edge.decided,
        reason=edge.reason,
        partition_rows=edge.partition_rows,
        partition_bytes=edge.partition_bytes,
        heavy=tuple((heavy.key, heavy.rows) for heavy in edge.heavy),
        partition_agents=tuple(agent or "" for agent in edge.partition_agents),
        distinct_keys=edge.distinct_keys,
        within_task=edge.within_task,
        partial=edge.partial,
    )
