"""Agents that run nothing: they answer an execution's commands with made-up measurements, when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import ClassVar

from sabot_planner.fragments.input_reads import with_counted_reads
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Column, ScanInput
from sabot_planner.job.plan import Mode, QueryPlan
from sabot_sql.catalog.sources import even_spans
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.journal import Journal, QueryOpening
from sabot_sql.coordinator.messages import (
    BeginQuery,
    Command,
    Event,
    Fail,
    Finish,
    NameKey,
    PlanRevised,
    QueryStarted,
    ReleaseEdge,
    ReplaceAgent,
    RevisePlan,
    SplitOutput,
    StartTask,
    StopTask,
    Work,
)
from sabot_sql.errors import AgentError, QueryError, SabotSQLError
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    FailureKind,
    OutputReport,
    ScanRead,
    Span,
    SplitReport,
    TaskFailure,
    TaskId,
    TaskReport,
    WriteKind,
)

Rows = Callable[[str, int], int]
"""(edge, task) → rows that the task writes to the edge."""

COLUMNS = (Column("k", "BIGINT"), Column("v", "VARCHAR"), Column("h", "UBIGINT"))


class Simulation:
    """An execution and what it commanded; nothing happens but what a test asks for, and what the planner answers.

    Whatever was known of the query is checked after every event.
    """

    made: ClassVar[list[Simulation]] = []
    """Those of the test that runs; see ``conftest.py``."""

    def __init__(
        self,
        graph: OperatorGraph,
        agents: int = 2,
        *,
        plan: QueryPlan | None = None,
        controller: DBOSParallelController | None = None,
        rows: Rows = lambda edge, task: 1000,
    ) -> None:
        self._plan = plan or QueryPlan(Mode.DISTRIBUTED, "test", agents, graph)
        names = tuple(f"agent-{i + 1}" for i in range(agents))
        graph = with_counted_reads(graph)
        opening = QueryOpening(
            "q", graph, names, "session", controller or DBOSParallelController(0, 0), adaptive=controller is not None
        )
        self.execution = Execution(opening)
        self.answers: list[list[Command]] = []
        """What each event of the journal was answered with."""
        self.rows = rows
        self.running: dict[str, StartTask] = {}
        self.splits: list[SplitOutput] = []
        self.stopped: list[TaskId] = []
        self.released: list[str] = []
        self.replacing: list[str] = []
        self.started: list[StartTask] = []
        self._rows_in: dict[TaskId, int] = {}
        self.finished = False
        self.error: SabotSQLError | None = None
        self.skew: dict[str, int] = {}
        """Edge → the partition that gets ten times the rows of the others."""
        self.begun: list[str] = []
        self.asked: list[NameKey] = []
        Simulation.made.append(self)
        self.tell(QueryStarted())

    def running_on(self, agent: str) -> StartTask:
        return next(c for c in self.running.values() if c.agent_id == agent)

    def tell(self, event: Event) -> None:
        commands = self.execution.handle(event, float(len(self.started)))
        self.answers.append(commands)
        self.execution.validate()
        self._take(commands)

    def check_replay(self, prefixes: Iterable[int]) -> None:
        """Rebuilt from any prefix of its journal, as text, the execution goes on as this one did."""
        lines = tuple(self.execution.journal.lines())
        whole = Journal.from_lines(lines)
        for count in prefixes:
            again = Execution.replay(Journal.from_lines(lines[: count + 1]))
            again.validate()
            given = [c.id for answer in self.answers[:count] for c in answer if isinstance(c, Work)]
            answered = {getattr(entry.event, "id", None) for entry in whole.entries[:count]}
            pending = [c.id for c in again.pending() if isinstance(c, Work)]
            assert pending == [work_id for work_id in given if work_id not in answered]
            for entry, answer in zip(whole.entries[count:], self.answers[count:], strict=True):
                assert comparable(again.handle(entry.event, entry.at_ms)) == comparable(answer)
            assert again.state == self.execution.state
            assert comparable(again.pending()) == comparable(self.execution.pending())
            assert tuple(again.journal.lines()) == lines

    def finish(self, task: str) -> None:
        self.tell(self.report(self.running.pop(task)))

    def finish_all(self) -> None:
        """Answer everything until nothing is left to do."""
        while self.running or self.splits:
            if self.splits:
                self.split(self.splits[0])
            else:
                self.finish(next(iter(self.running)))

    def fail(
        self,
        task: str,
        kind: FailureKind,
        lost: Iterable[tuple[str, int]] = (),
        error: SabotSQLError | None = None,
    ) -> None:
        command = self.running.pop(task)
        error = error or (AgentError("died") if kind is FailureKind.AGENT_DIED else QueryError("boom"))
        self.tell(TaskFailure(command.id, command.agent_id, kind, error, tuple(lost)))

    def kill(self, agent: str) -> None:
        """What is heard of an agent that dies: a failure for everything it was given."""
        for task in [name for name, c in self.running.items() if c.agent_id == agent]:
            self.fail(task, FailureKind.AGENT_DIED)
        for split in [s for s in self.splits if s.agent_id == agent]:
            self.splits.remove(split)
            self.tell(TaskFailure(split.spec.id, agent, FailureKind.AGENT_DIED, AgentError("died")))

    def split(self, command: SplitOutput) -> None:
        self.splits.remove(command)
        self.tell(self.split_report(command))

    def split_report(self, command: SplitOutput) -> SplitReport:
        spec = command.spec
        parts = len(spec.bounds) + 1
        rows = self.rows(spec.edge_id, spec.id.task)
        output = _output(spec.edge_id, command.agent_id, spec.id.task, spec.id.attempt, rows, parts)
        return SplitReport(spec.id, command.agent_id, output)

    def report(self, command: StartTask) -> TaskReport:
        outputs = tuple(self._write(command, output) for output in command.outputs)
        scans = tuple(
            ScanRead(scan.name, scan.sliced, self.spans(scan, command) if scan.sliced else (Span(),))
            for operator_id in command.stage.operators
            for scan in command.graph.operator(operator_id).scans
        )
        return TaskReport(command.id, command.agent_id, COLUMNS, outputs, self._rows_in[command.id], 1.0, scans)

    @staticmethod
    def spans(scan: ScanInput, command: StartTask) -> tuple[Span, ...]:
        """What a task reads of a source of a thousand rows."""
        if scan.split is None:
            return even_spans(command.id.task, command.parallelism, 1000)
        bounds = scan.split.between(*scan.split.share(command.id.task, command.parallelism))
        return () if bounds is None else (Span(*bounds),)

    def _write(self, command: StartTask, output: EdgeOutput) -> OutputReport:
        rows = self.rows(output.edge_id, command.id.task)
        sample = ()
        if output.scheme.kind is WriteKind.SAMPLED:
            sample = tuple(bytes([i]) for i in range(min(rows, 200)))
        task_id, parts = command.id, output.scheme.partitions
        written = _output(output.edge_id, command.agent_id, task_id.task, task_id.attempt, rows, parts, sample)
        heavy = self.skew.get(output.edge_id)
        if heavy is None:
            return written
        counts = tuple(count * 10 if i == heavy else count for i, count in enumerate(written.partition_rows))
        sizes = tuple(count * 100 for count in counts)
        return replace(written, rows=sum(counts), size_bytes=sum(sizes), partition_rows=counts, partition_bytes=sizes)

    def _revise(self, command: RevisePlan) -> None:
        revised = self._plan.revise(command.facts, command.started)
        changed = revised is not self._plan
        self._plan = revised
        self.tell(PlanRevised(command.number, revised.operator_graph if changed else None))

    def _take(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case BeginQuery(agent_id):
                    self.begun.append(agent_id)
                case RevisePlan():
                    self._revise(command)
                case NameKey():
                    self.asked.append(command)
                case StartTask():
                    name = f"{command.id.stage}_{command.id.task}"
                    assert command.agent_id not in {c.agent_id for c in self.running.values()}, "an agent has one slot"
                    self.running[name] = command
                    # Whatever is lost of the inputs later, an attempt reads them as they are now.
                    self._rows_in[command.id] = sum(
                        self.execution.shuffles.edge(edge_id).rows_of(read.producers, read.first, read.last)
                        for edge_id, read in command.inputs.items()
                    )
                    self.started.append(command)
                case StopTask(task_id):
                    self.stopped.append(task_id)
                case SplitOutput():
                    self.splits.append(command)
                case ReleaseEdge(edge_id):
                    self.released.append(edge_id)
                case ReplaceAgent(agent_id):
                    self.replacing.append(agent_id)
                case Finish():
                    self.finished = True
                case Fail(error):
                    self.error = error


def comparable(commands: Iterable[Command]) -> list[object]:
    """Commands that can be compared: an error is what it says."""
    return [c.error.to_dict() if isinstance(c, Fail) else c for c in commands]


def _output(
    edge_id: str, agent: str, task: int, attempt: int, rows: int, partitions: int, sample: tuple[bytes, ...] = ()
) -> OutputReport:
    share = tuple(rows // partitions + (i < rows % partitions) for i in range(partitions))
    return OutputReport(
        edge_id,
        agent,
        f"{edge_id}/{task}.{attempt}@{agent}".encode(),
        rows,
        rows * 100,
        0,
        share,
        tuple(count * 100 for count in share),
        ((task, rows, 0),),
        sample,
    )
