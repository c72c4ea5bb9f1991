"""The plan JSON of a plan with what is known of its run so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Decided, ShuffleEdge, ShuffleEdgeType
from sabot_planner.job.plan import QueryPlan
from sabot_sql.coordinator.edge_book import EdgeShuffle
from sabot_sql.coordinator.exchange_rules import RESULT_EDGE
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.metrics import Figures, MetricsRegistry
from sabot_sql.coordinator.stage_run import Finished, Running, Skipped, StageRun, TaskRecord
from sabot_sql.plan_document import VERSION, HeavyKey, PlanDocument, PlanEdge, PlanJson, PlanStage, PlanTask

PlanSnapshot = PlanJson

_HEAVY_SHOWN = 5


def planned_snapshot(
    plan: QueryPlan, *, query_id: str = "", sql: str = "", isolation: str = "", state: str = "planned"
) -> PlanSnapshot:
    """A plan that has not run."""
    graph = plan.operator_graph
    return _document(
        plan,
        query_id,
        sql,
        isolation,
        state,
        None,
        [_stage(graph, operator, None) for operator in graph.topological_order()],
        [*(_edge(edge) for edge in graph.edges), _result_edge(graph, None)],
    )


def running_snapshot(
    plan: QueryPlan, execution: Execution, *, sql: str, isolation: str, state: str, now_ms: float
) -> PlanSnapshot:
    """A plan while it runs, or after it ended."""
    graph = execution.graph
    run_of = {operator: run for run in execution.runs.values() for operator in run.stage.operators}
    edges = [
        _edge(
            edge,
            execution.shuffles.find(edge.edge_id),
            execution.decisions.get(edge.edge_id),
            run_of.get(edge.source),
            run_of.get(edge.target),
            execution.metrics.edge(execution.shuffles.written(edge.edge_id)),
        )
        for edge in graph.edges
    ]
    return _document(
        plan,
        execution.query_id,
        sql,
        isolation,
        state,
        now_ms,
        [_stage(graph, operator, run_of.get(operator), execution.metrics) for operator in graph.topological_order()],
        [*edges, _result_edge(graph, execution.metrics.edge(RESULT_EDGE), partial=_unmeasured(execution))],
    )


def _document(
    plan: QueryPlan,
    query_id: str,
    sql: str,
    isolation: str,
    state: str,
    elapsed_ms: float | None,
    stages: Sequence[PlanStage],
    edges: Sequence[PlanEdge],
) -> PlanSnapshot:
    return PlanDocument(
        VERSION,
        query_id,
        sql,
        plan.mode.value,
        plan.reason,
        plan.agents,
        isolation,
        state,
        _rounded(elapsed_ms),
        stages=tuple(stages),
        edges=tuple(edges),
    ).to_json()


def _rounded(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 3)


def _stage(
    graph: OperatorGraph, operator_id: str, run: StageRun | None, metrics: MetricsRegistry | None = None
) -> PlanStage:
    node = graph.operator(operator_id)
    # Only the last operator of a chain writes rows that were counted.
    counted = run is not None and run.stage.stage_id == operator_id
    tasks = tuple(_task(run, task, metrics, counted=counted) for task in run.tasks) if run and metrics else ()
    known = [task.rows for task in tasks if task.rows is not None]
    return PlanStage(
        operator_id,
        label=node.label,
        type=node.operator_type.value,
        sql=node.sql,
        parallelism=run.reads.parallelism if run else node.parallelism,
        state=run.state if run else "waiting",
        reason=run.reads.reason if run else "",
        rows=sum(known) if known else None,
        runs_in=run.stage.stage_id if run and not counted else None,
        tasks=tasks,
    )


def _task(run: StageRun, task: TaskRecord, metrics: MetricsRegistry, *, counted: bool) -> PlanTask:
    figures = metrics.task(run.stage.stage_id, task.index)
    task_id = f"{run.stage.stage_id}_{task.index}"
    match task.state:
        case Running(attempt, agent, started_ms):
            return PlanTask(task_id, agent, attempt, "running", started_ms=_rounded(started_ms))
        case Finished(_, started_ms) if figures is not None:
            return PlanTask(
                task_id,
                state="finished",
                agent=figures.agent,
                attempt=figures.attempt,
                rows_in=figures.rows_in,
                rows=figures.rows if counted else None,
                bytes=figures.bytes if counted else None,
                batches=figures.batches if counted else None,
                spilled_bytes=figures.spilled_bytes,
                wait_ms=figures.wait_ms,
                started_ms=_rounded(started_ms),
                elapsed_ms=figures.elapsed_ms,
            )
        case _:
            state = "skipped" if isinstance(task.state, Skipped) else "waiting"
            return PlanTask(task_id, state=state, attempt=max(0, task.next_attempt - 1))


def _edge(
    edge: ShuffleEdge,
    shuffle: EdgeShuffle | None = None,
    decision: str | None = None,
    producer: StageRun | None = None,
    consumer: StageRun | None = None,
    figures: Figures | None = None,
) -> PlanEdge:
    shown = PlanEdge(
        edge.edge_id,
        edge.edge_type.name,
        edge.keys,
        edge.source,
        edge.target,
        partitions=shuffle.partitions if shuffle else edge.partitions,
        rows_estimated=edge.rows_estimated,
        estimated_by=edge.estimated_by,
        decided=(Decided.RUN if decision else edge.decided).value,
        reason="; ".join(part for part in (edge.reason, decision) if part),
        within_task=producer is not None and producer is consumer,
    )
    if shuffle is None or figures is None or shown.within_task:
        return shown
    facts = shuffle.measured
    return replace(
        shown,
        rows=figures.rows,
        bytes=figures.bytes,
        batches=figures.batches,
        spilled_bytes=figures.spilled_bytes,
        wait_ms=_rounded(figures.wait_ms),
        partial=facts is None,
        partition_rows=figures.partition_rows,
        partition_bytes=figures.partition_bytes,
        partition_agents=_readers(edge, len(figures.partition_bytes), consumer),
        distinct_keys=facts.distinct_keys if facts else None,
        heavy=tuple(
            HeavyKey(shuffle.key_names.get(key, f"hash {key:016x}"), rows)
            for key, rows, _ in (facts.heavy[:_HEAVY_SHOWN] if facts else ())
        ),
    )


def _readers(edge: ShuffleEdge, partitions: int, consumer: StageRun | None) -> tuple[str | None, ...]:
    """The agent that reads each partition, the first one of several that share it."""
    if consumer is None or edge.edge_type is ShuffleEdgeType.BROADCAST:
        return ()
    agents: list[str | None] = [None] * partitions
    for record, read in zip(consumer.tasks, consumer.reads.by_edge.get(edge.edge_id, ()), strict=False):
        agent = _agent(record)
        for partition in range(read.first, min(read.last, partitions)):
            agents[partition] = agents[partition] or agent
    return tuple(agents) if any(agents) else ()


def _agent(task: TaskRecord) -> str | None:
    match task.state:
        case Running(_, agent, _):
            return agent
        case Finished(_, _, report):
            return report.agent_id
        case _:
            return None


def _result_reason(graph: OperatorGraph) -> str:
    if graph.result_parts is not None:
        return "read in the order of the branches"
    return "read in task order" if graph.ordered else "read as it comes"


def _unmeasured(execution: Execution) -> bool:
    """Whether only some of the result was committed."""
    shuffle = execution.shuffles.find(RESULT_EDGE)
    return shuffle is not None and shuffle.measured is None and bool(shuffle.outputs)


def _result_edge(graph: OperatorGraph, figures: Figures | None, *, partial: bool = False) -> PlanEdge:
    return PlanEdge(
        RESULT_EDGE,
        ShuffleEdgeType.FORWARD.name,
        (),
        graph.sink,
        "result",
        partitions=1,
        rows=figures.rows if figures else None,
        bytes=figures.bytes if figures else None,
        batches=figures.batches if figures else None,
        spilled_bytes=figures.spilled_bytes if figures else None,
        wait_ms=_rounded(figures.wait_ms) if figures else None,
        partial=partial,
        decided=Decided.PLAN.value,
        reason=_result_reason(graph),
    )
