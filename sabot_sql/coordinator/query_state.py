"""What is known of one query while it runs: the only file that changes it.

:mod:`sabot_sql.coordinator.execution` decides, in the words of the rules beside it; each method here is one step that
a decision takes. The records of tasks, stages and edges are frozen, so that nobody else can change them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_sql.coordinator.edge_book import EdgeBook, EdgePhase
from sabot_sql.coordinator.exchange_rules import Read
from sabot_sql.coordinator.limit_termination import Unneeded
from sabot_sql.coordinator.memory_retry import BeginAnew, RunAlone
from sabot_sql.coordinator.messages import SplitOutput, Work
from sabot_sql.coordinator.metrics import Figures, MetricsRegistry
from sabot_sql.coordinator.recovery import Reruns
from sabot_sql.coordinator.stage_run import (
    Finished,
    MemoryShare,
    Running,
    Skipped,
    StagePhase,
    StageRun,
    TaskRecord,
    Waiting,
)
from sabot_sql.protocol.task_spec import EdgeOutput, KeyQuestion, OutputReport, TaskId, TaskReport


class QueryPhase(StrEnum):
    """How far a query has come."""

    RUNNING = "running"
    REVISING = "revising"
    """As running, but no stage is opened: the planner may change it yet."""
    FINISHED = "finished"
    FAILED = "failed"
    ABANDONED = "abandoned"

    @property
    def runs(self) -> bool:
        """Whether the query still wants its rows."""
        return self in (QueryPhase.RUNNING, QueryPhase.REVISING)


@dataclass(slots=True)
class QueryState:
    """The stages, edges and agents of one query."""

    query_id: str
    graph: OperatorGraph
    agents: list[str]
    """The agents that can be given tasks; the session's own is not among them."""
    session_agent: str
    phase: QueryPhase = QueryPhase.RUNNING
    runs: dict[str, StageRun] = field(default_factory=dict)
    shuffles: EdgeBook = field(init=False)
    metrics: MetricsRegistry = field(default_factory=MetricsRegistry)
    decisions: dict[str, str] = field(default_factory=dict)
    """Edge → why it is read as it is, where that was decided while running."""
    replacing: set[str] = field(default_factory=set)
    """Lost agents in whose place others are started."""
    unanswered: dict[TaskId, Work] = field(default_factory=dict)
    """Attempts and splits that agents still work on, stale ones included, in the order in which they were given."""
    stopped: set[TaskId] = field(default_factory=set)
    """Those of them that were overtaken and are interrupted."""
    revisions: int = 0
    """How often the planner was asked to revise the plan."""
    questions: dict[tuple[str, int], KeyQuestion] = field(default_factory=dict)
    """(Edge, hash) → what was asked about its key and is not answered."""

    def __post_init__(self) -> None:
        self.shuffles = EdgeBook(self.query_id)
        self.shuffles.initialize(self.graph.to_execution_graph())

    # --- the query and its agents ---------------------------------------------------------------------------------

    def end(self, phase: QueryPhase) -> None:
        """The query has come to an end."""
        self.phase = phase

    def begin_on(self, agents: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
        """Agent → the edges that it is told of; agents that were told before are left out."""
        return self.shuffles.register_shuffles_with_agents(agents)

    def join(self, agent_id: str, replaces: str) -> None:
        """An agent can take tasks in the place of a lost one."""
        self.replacing.discard(replaces)
        if agent_id not in self.agents:
            self.agents.append(agent_id)

    def lose(self, agent_id: str) -> None:
        """An agent can take no tasks any more; another is started in its place."""
        self.agents.remove(agent_id)
        self.replacing.add(agent_id)

    def not_replaced(self, agent_id: str) -> None:
        """Nobody comes in the place of a lost agent."""
        self.replacing.discard(agent_id)

    def resume(self, agents: Sequence[str]) -> None:
        """Other agents take the places of all; what was committed is theirs, and what ran waits, through no fault."""
        self.agents = list(agents)
        self.replacing.clear()
        self.unanswered.clear()
        self.stopped.clear()
        self.questions.clear()
        self.shuffles.forget_agents()
        for shuffle in self.shuffles.edges():
            homes = {task: agents[task % len(agents)] for task in shuffle.outputs}
            outputs = {task: replace(output, agent_id=homes[task]) for task, output in shuffle.outputs.items()}
            self.shuffles.update(shuffle.edge_id, outputs=outputs)
        for stage_id, run in tuple(self.runs.items()):
            for task in run.tasks:
                if not task.done:
                    self._set_task(stage_id, task.index, state=Waiting(), avoid=frozenset())

    def gave(self, work: Work) -> None:
        """An agent was given work."""
        self.unanswered[work.id] = work

    def answered(self, work_id: TaskId, agent_id: str) -> Work | None:
        """The work that an agent has answered; None where nothing is waited for any more."""
        work = self.unanswered.get(work_id)
        if work is None or work.agent_id != agent_id:
            return None
        self.stopped.discard(work_id)
        return self.unanswered.pop(work_id)

    def stop(self, overtaken: Iterable[TaskId]) -> None:
        """These attempts are interrupted."""
        self.stopped.update(overtaken)

    # --- the plan -------------------------------------------------------------------------------------------------

    def revise(self) -> int:
        """The planner is asked to revise the plan; gives the number of the question."""
        self.phase = QueryPhase.REVISING
        self.revisions += 1
        return self.revisions

    def revised(self, number: int, graph: OperatorGraph | None) -> None:
        """The planner has answered. A later question may still be open."""
        if graph is not None:
            self.graph = graph
            self.shuffles.initialize(graph.to_execution_graph())
        if number == self.revisions and self.phase is QueryPhase.REVISING:
            self.phase = QueryPhase.RUNNING

    def decide(self, edges: Iterable[str], reason: str) -> None:
        """How these edges are read was decided while running."""
        self.decisions.update(dict.fromkeys(edges, reason))

    # --- stages ---------------------------------------------------------------------------------------------------

    def open_stage(self, run: StageRun) -> None:
        """A stage starts: its tasks wait, its outputs are about to be written."""
        self.runs[run.stage.stage_id] = run
        for output in run.outputs:
            self._open_edge(output, run.reads.parallelism)

    def place(self, stage_id: str, agents: Mapping[int, str]) -> None:
        """The waiting tasks of a stage are meant for these agents."""
        for task, agent in agents.items():
            self._set_task(stage_id, task, state=Waiting(agent))

    def measured(self, stage_id: str) -> None:
        """All tasks of a stage have committed for the first time."""
        for output in self.runs[stage_id].outputs:
            shuffle = self.shuffles.edge(output.edge_id)
            self.shuffles.update(output.edge_id, phase=EdgePhase.MEASURED, measured=shuffle.facts())
        self._set_run(stage_id, phase=StagePhase.MEASURED)

    def begin_anew(self, stage_id: str, decision: BeginAnew) -> None:
        """All tasks of a stage begin anew, cut otherwise. Attempts that still run are overtaken."""
        attempts = max(task.next_attempt for task in self.runs[stage_id].tasks)
        count = decision.reads.parallelism
        tasks = tuple(TaskRecord(index, next_attempt=attempts) for index in range(count))
        self._set_run(stage_id, reads=decision.reads, tasks=tasks, done=0, alone=0)
        self.metrics.began_anew(stage_id)
        for output in self.runs[stage_id].outputs:
            self._open_edge(output, count)

    # --- tasks ----------------------------------------------------------------------------------------------------

    def next_attempt(self, stage_id: str, task: int) -> TaskId:
        """A number for an attempt, or for a split of what an attempt wrote."""
        record = self.runs[stage_id].tasks[task]
        self._set_task(stage_id, task, next_attempt=record.next_attempt + 1)
        return TaskId(self.query_id, stage_id, task, record.next_attempt)

    def start(self, task_id: TaskId, agent: str, now_ms: float, reads: Mapping[str, Read], rows_in: int) -> None:
        """An attempt was given to an agent."""
        self._set_task(task_id.stage, task_id.task, state=Running(task_id.attempt, agent, now_ms, reads, rows_in))

    def commit(self, report: TaskReport, given: Running, columns: Mapping[str, tuple[Any, ...]]) -> None:
        """An attempt has committed its outputs, which have these ``columns``."""
        task_id = report.id
        finished = Finished(task_id.attempt, given.started_ms, report, given.reads)
        self._set_task(task_id.stage, task_id.task, state=finished)
        self.metrics.ran(task_id.stage, report)
        for output in report.outputs:
            self.shuffles.update(output.edge_id, columns=columns[output.edge_id])
            self._add_output(output, task_id.task)

    def skip(self, stage_id: str, unneeded: Unneeded) -> None:
        """Tasks are not needed any more; one that runs is overtaken."""
        for task in unneeded.tasks:
            attempt = self.next_attempt(stage_id, task).attempt
            self._set_task(stage_id, task, state=Skipped(attempt, self.runs[stage_id].reads_of(task)))
            for output in unneeded.outputs:
                self._add_output(output, task)
        self._set_run(stage_id, reads=replace(self.runs[stage_id].reads, reason=unneeded.reason))

    def wait_again(self, stage_id: str, task: int, avoid: str, *, died: bool) -> TaskRecord:
        """An attempt failed, and the task waits for another one on another agent, if there is one."""
        record = self.runs[stage_id].tasks[task]
        return self._set_task(
            stage_id,
            task,
            state=Waiting(),
            failures=record.failures + 1,
            deaths=record.deaths + died,
            avoid=record.avoid | {avoid},
        )

    def run_alone(self, stage_id: str, decision: RunAlone) -> None:
        """A task that ran out of memory waits to run alone, and so do the new tasks that take a part of its inputs."""
        run = self.runs[stage_id]
        record = run.tasks[decision.task]
        alone = MemoryShare.ALONE
        new = tuple(TaskRecord(index, memory=alone) for index in range(len(run.tasks), decision.reads.parallelism))
        self._set_task(stage_id, decision.task, state=Waiting(), failures=record.failures + 1, memory=alone)
        run = self.runs[stage_id]
        self._set_run(stage_id, reads=decision.reads, tasks=(*run.tasks, *new), alone=run.alone + len(new))
        for output in run.outputs:
            self.shuffles.update(output.edge_id, producers=self.shuffles.edge(output.edge_id).producers + len(new))

    def rerun(self, reruns: Reruns) -> None:
        """Lost outputs count no more, and the tasks that have to run again wait."""
        for edge_id in reruns.edges:
            self.shuffles.update(edge_id, phase=EdgePhase.MEASURED, outputs={})
        for edge_id, producer in reruns.outputs:
            outputs = self.shuffles.edge(edge_id).outputs
            self.shuffles.update(edge_id, outputs={task: out for task, out in outputs.items() if task != producer})
        for stage_id, task in reruns.interrupted:
            self._set_task(stage_id, task, state=Waiting())
        for stage_id, task in reruns.tasks:
            failures = self.runs[stage_id].tasks[task].failures + 1
            self._set_task(stage_id, task, state=Waiting(), failures=failures)

    # --- edges ----------------------------------------------------------------------------------------------------

    def bound(self, edges: Iterable[str], bounds: tuple[bytes, ...], reason: str) -> None:
        """The ranges of sampled edges were decided."""
        edges = tuple(edges)
        for edge_id in edges:
            self.shuffles.update(edge_id, bounds=bounds)
        self.decide(edges, reason)

    def split(self, work: SplitOutput, output: OutputReport) -> None:
        """A sampled output was split at the bounds of its edge."""
        edge_id = work.spec.edge_id
        outputs = {**self.shuffles.edge(edge_id).outputs, work.id.task: output}
        shuffle = self.shuffles.update(edge_id, outputs=outputs)
        self.shuffles.update(edge_id, measured=shuffle.facts())
        self.metrics.split(edge_id, work.id.task, Figures.of(output))

    def release(self, edge_id: str) -> None:
        """Nobody reads an edge any more."""
        self.shuffles.update(edge_id, phase=EdgePhase.RELEASED)

    def ask(self, questions: Sequence[KeyQuestion]) -> None:
        """The keys of heavy hitters are looked up."""
        self.questions.update({(question.edge.edge_id, question.hash): question for question in questions})

    def named(self, edge_id: str, key_hash: int, name: str | None) -> None:
        """A question was answered; None where the key was not found."""
        self.questions.pop((edge_id, key_hash), None)
        if name is not None:
            names = self.shuffles.edge(edge_id).key_names
            self.shuffles.update(edge_id, key_names={**names, key_hash: name})

    # --- records --------------------------------------------------------------------------------------------------

    def _set_run(self, stage_id: str, **changes: Any) -> None:
        self.runs[stage_id] = replace(self.runs[stage_id], **changes)

    def _set_task(self, stage_id: str, task: int, **changes: Any) -> TaskRecord:
        run = self.runs[stage_id]
        before, after = run.tasks[task], replace(run.tasks[task], **changes)
        self._set_run(
            stage_id,
            tasks=(*run.tasks[:task], after, *run.tasks[task + 1 :]),
            done=run.done + after.done - before.done,
            alone=run.alone + (after.memory is MemoryShare.ALONE) - (before.memory is MemoryShare.ALONE),
        )
        return after

    def _add_output(self, output: OutputReport, task: int) -> None:
        """A task that runs again for one lost output leaves its other outputs as they were read before."""
        shuffle = self.shuffles.edge(output.edge_id)
        if not shuffle.released and task not in shuffle.outputs:
            self.shuffles.update(output.edge_id, outputs={**shuffle.outputs, task: output})
            self.metrics.wrote(output.edge_id, task, Figures.of(output))

    def _open_edge(self, output: EdgeOutput, producers: int) -> None:
        self.shuffles.open(output.edge_id, output.scheme, producers)
        self.metrics.open(output.edge_id, self.shuffles.edge_type(output.edge_id), output.scheme.partitions)
