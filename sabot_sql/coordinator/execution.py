"""The state machine of one query: outcomes in, commands out. No I/O, no clock of its own, no threads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set

from sabot_planner.job.operators import Placement, ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts, QueryPlan
from sabot_sql.coordinator import exchange_rules as rules
from sabot_sql.coordinator.chained_stages import Stage, stages_of
from sabot_sql.coordinator.conservation import check_split, check_stage, check_task
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.dispatch import choose, demand
from sabot_sql.coordinator.enough import skip_rest
from sabot_sql.coordinator.fusion import fuse_readers
from sabot_sql.coordinator.key_questions import key_questions
from sabot_sql.coordinator.messages import (
    Command,
    Event,
    Fail,
    Finish,
    NameKey,
    ReleaseEdge,
    ReplaceAgent,
    SplitOutput,
    StartTask,
    StopTask,
)
from sabot_sql.coordinator.recovery import producer_of, rerun, retry, shown_error
from sabot_sql.coordinator.relief import relieve
from sabot_sql.coordinator.shuffle_coordinator import EdgeShuffle, ShuffleCoordinator
from sabot_sql.coordinator.stage_run import Finished, Running, StageRun, TaskRecord, Waiting
from sabot_sql.errors import AgentError, InternalError, SabotSQLError
from sabot_sql.protocol.members import AgentJoined, AgentLost, AgentNotReplaced
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    FailureKind,
    KeyQuestion,
    OutputReport,
    SplitReport,
    SplitSpec,
    TaskFailure,
    TaskId,
    TaskReport,
    WriteKind,
    WriteScheme,
)


class Execution:
    """One query from its first task to its last.

    Every answer of an agent is an event; :meth:`handle` returns what to do next. An answer to an attempt that is not
    the current one is ignored. Outputs once committed are kept until every task that reads them has committed.
    """

    def __init__(
        self,
        query_id: str,
        plan: QueryPlan,
        agents: Sequence[str],
        session_agent: str,
        controller: DBOSParallelController,
        *,
        adaptive: bool = True,
        to_files: bool = False,
    ) -> None:
        if plan.job_graph is None:
            raise InternalError("a plan without a job graph has nothing to run on agents")
        self.query_id = query_id
        self.plan = plan
        self.graph = plan.job_graph
        self.shuffles = ShuffleCoordinator(query_id)
        self.shuffles.initialize(self.graph.to_execution_graph())
        self.runs: dict[str, StageRun] = {}
        self.decisions: dict[str, str] = {}
        """Edge → why it is read as it is, where that was decided while running."""
        self.state = "running"
        self._controller = controller
        self._adaptive = adaptive
        self._to_files = to_files
        self._agents = list(agents)
        self._session_agent = session_agent
        self._busy: dict[str, set[TaskId]] = {}
        self._splits: dict[TaskId, str] = {}
        self._stopped: set[TaskId] = set()
        self._replacing: set[str] = set()
        self._questions: list[KeyQuestion] = []
        self._stages_changed = True

    @property
    def agents(self) -> tuple[str, ...]:
        """The agents that can be given tasks; the session's own is not among them."""
        return tuple(self._agents)

    @property
    def in_flight(self) -> int:
        """Attempts and splits that agents still work on, stale ones included."""
        return sum(len(ids) for ids in self._busy.values())

    @property
    def busy_agents(self) -> tuple[str, ...]:
        """The agents that work on those."""
        return tuple(agent_id for agent_id, ids in self._busy.items() if ids)

    def result(self) -> tuple[StageRun, EdgeShuffle]:
        """The sink and its committed output, once finished."""
        return self.runs[self.graph.sink], self.shuffles.edge(rules.RESULT_EDGE)

    def measurements(self) -> dict[str, EdgeFacts]:
        """Edge → what was measured, for all edges whose producers have committed; the result is none of them."""
        edges = {output.edge_id for run in self.runs.values() for output in run.outputs} - {rules.RESULT_EDGE}
        found = {edge_id: self.shuffles.edge(edge_id).measured for edge_id in edges}
        return {edge_id: facts for edge_id, facts in found.items() if facts is not None}

    def abandon(self) -> None:
        """Command nothing any more; answers are still counted off."""
        if self.state == "running":
            self.state = "abandoned"

    def start(self, now_ms: float) -> list[Command]:
        """The first commands."""
        return self._advance(now_ms)

    def handle(self, event: Event, now_ms: float) -> list[Command]:
        """Take note of ``event`` and say what to do."""
        commands: list[Command] = []
        if isinstance(event, TaskReport | SplitReport | TaskFailure):
            self._busy.get(event.agent_id, set()).discard(event.id)
        if self.state != "running":
            return commands
        match event:
            case TaskReport():
                commands += self._committed(event)
            case SplitReport():
                commands += self._split_done(event)
            case TaskFailure():
                commands += self._failed(event)
            case AgentLost(agent_id):
                reason = AgentError(f"agent {agent_id} is gone", agent=agent_id)
                commands += self._lose_agent(agent_id, reason)
            case AgentJoined(agent_id, replaces):
                self._replacing.discard(replaces)
                self._agents.append(agent_id)
            case AgentNotReplaced(agent_id, error):
                self._replacing.discard(agent_id)
                if not self._agents and not self._replacing:
                    commands.append(self._fail(error))
        if self.state == "running":
            commands += self._advance(now_ms)
        commands += self._stop_overtaken()
        # Asked last: agents work already while the answer is looked for.
        commands += [NameKey(question) for question in self._questions]
        self._questions.clear()
        return commands

    def _stop_overtaken(self) -> list[Command]:
        """Attempts that agents still work on although others have taken their place, or nobody needs them."""
        if self.state != "running":
            return []  # whatever runs is stopped then
        found = [
            (task_id, agent)
            for agent, ids in self._busy.items()
            for task_id in ids - self._stopped - self._splits.keys()
            if not self._is_current(task_id, agent)
        ]
        self._stopped |= {task_id for task_id, _ in found}
        return [StopTask(task_id, agent) for task_id, agent in found]

    def _is_current(self, task_id: TaskId, agent: str) -> bool:
        run = self.runs.get(task_id.stage)
        tasks = [] if run is None else run.tasks
        return task_id.task < len(tasks) and tasks[task_id.task].is_current(task_id.attempt, agent)

    # --- events ---------------------------------------------------------------------------------------------------

    def _committed(self, report: TaskReport) -> list[Command]:
        run = self.runs[report.id.stage]
        record = run.tasks[report.id.task]
        if not record.is_current(report.id.attempt, report.agent_id) or not isinstance(record.state, Running):
            return []
        error = check_task(report, record.state)
        if error is not None:
            return [self._fail(error)]
        record.state = Finished(report.id.attempt, record.state.started_ms, report, record.state.reads)
        wanted = {output.edge_id: output for output in run.outputs}
        for output in report.outputs:
            shuffle = self.shuffles.edge(output.edge_id)
            shuffle.columns = rules.stored_columns(wanted[output.edge_id], report)
            # A task that runs again for one lost output leaves its other outputs as they were read before.
            if not shuffle.released:
                shuffle.outputs.setdefault(report.id.task, output)
        if self._adaptive:
            skip_rest(run, self.shuffles, self.query_id)
        if not run.finished:
            return []
        self._stages_changed = True
        inputs = {edge.edge_id: self.shuffles.edge(edge.edge_id) for edge in run.stage.inputs}
        error = check_stage(run, inputs)
        return self._stage_committed(run) if error is None else [self._fail(error)]

    def _stage_committed(self, run: StageRun) -> list[Command]:
        commands: list[Command] = []
        committed = {operator for other in self.runs.values() if other.finished for operator in other.stage.operators}
        for edge in run.stage.inputs:
            shuffle = self.shuffles.edge(edge.edge_id)
            if not shuffle.released and self.shuffles.readers(shuffle.edge_id) <= committed:
                shuffle.released = True
                commands.append(ReleaseEdge(shuffle.edge_id))
        if run.announced:
            return commands
        run.announced = True
        for output in run.outputs:
            shuffle = self.shuffles.edge(output.edge_id)
            shuffle.measured = shuffle.facts()
        for edge in run.stage.outputs:
            self._questions += key_questions(self.query_id, edge, self.shuffles.edge(edge.edge_id))
        if run.stage.stage_id == self.graph.sink:
            self.state = "finished"
            return [*commands, Finish()]
        self._revise()
        return commands

    def _revise(self) -> None:
        if not self._adaptive:
            return
        started = frozenset(operator for run in self.runs.values() for operator in run.stage.operators)
        revised = self.plan.revise(self.measurements(), started)
        if revised is not self.plan and revised.job_graph is not None:
            self.plan, self.graph = revised, revised.job_graph
            self.shuffles.initialize(self.graph.to_execution_graph())

    def _split_done(self, report: SplitReport) -> list[Command]:
        edge_id = self._splits.pop(report.id, None)
        if edge_id is None:
            return []
        shuffle = self.shuffles.edge(edge_id)
        error = check_split(shuffle.outputs.get(report.id.task, report.output), report.output)
        if error is not None:
            return [self._fail(error)]
        shuffle.outputs[report.id.task] = report.output
        shuffle.measured = shuffle.facts()
        self._stages_changed = True
        return []

    def _failed(self, failure: TaskFailure) -> list[Command]:
        died = failure.kind is FailureKind.AGENT_DIED
        edge_id = self._splits.pop(failure.id, None)
        if edge_id is not None:
            commands = self._lose_agent(failure.agent_id, failure.error) if died else []
            if died or failure.kind is FailureKind.LOST_INPUT:
                return commands + self._rerun([(edge_id, failure.id.task)])
            return [self._fail(shown_error(failure))]
        record = self.runs[failure.id.stage].tasks[failure.id.task]
        if not record.is_current(failure.id.attempt, failure.agent_id):
            return []
        if died:
            return self._lose_agent(failure.agent_id, failure.error)
        if relieve(self.runs[failure.id.stage], record, failure, self.shuffles, self._controller.grant_bytes):
            return []
        if failure.kind is not FailureKind.LOST_INPUT:
            return [self._fail(shown_error(failure))]
        error = retry(record, failure.id.stage, failure.agent_id, failure.error)
        return [self._fail(error)] if error else self._rerun(failure.lost)

    def _rerun(self, lost: Iterable[tuple[str, int]]) -> list[Command]:
        for edge_id, producer in lost:
            error = rerun(self.runs, self.shuffles, edge_id, producer)
            if error is not None:
                return [self._fail(error)]
        return []

    def _lose_agent(self, agent_id: str, reason: SabotSQLError) -> list[Command]:
        if agent_id not in self._agents:
            return []
        self._agents.remove(agent_id)
        self._replacing.add(agent_id)
        commands: list[Command] = [ReplaceAgent(agent_id)]
        for run in self.runs.values():
            for record in run.tasks:
                if isinstance(record.state, Running) and record.state.agent == agent_id:
                    record.deaths += 1
                    fatal = retry(record, run.stage.stage_id, agent_id, reason)
                    if fatal is not None:
                        return [*commands, self._fail(fatal)]
        return commands

    def _fail(self, error: SabotSQLError) -> Fail:
        self.state = "failed"
        return Fail(error)

    # --- progress -------------------------------------------------------------------------------------------------

    def _advance(self, now_ms: float) -> list[Command]:
        commands: list[Command] = []
        if self._stages_changed:
            self._stages_changed = False
            commands += self._open_stages()
        for run in self.runs.values():
            if not run.finished:
                commands += self._split_late(run)
        if self.state == "running":
            commands += self._dispatch(now_ms)
        if self.state == "running" and not (commands or self.in_flight or self._replacing):
            commands.append(self._fail(InternalError("no task can run and none is running")))
        return commands

    def _open_stages(self) -> list[Command]:
        commands: list[Command] = []
        done = {operator for run in self.runs.values() if run.announced for operator in run.stage.operators}
        started = {operator for run in self.runs.values() for operator in run.stage.operators}
        existing = {node.operator_id for node in self.graph.operators}
        waiting = stages_of(self.graph, started)
        for stage in waiting:
            # A revision may have removed what a stage was to wait for.
            if stage.start_after & existing <= done and self.shuffles.committed(stage.inputs):
                commands += self._open_stage(stage, waiting, done)
        return commands

    def _open_stage(self, stage: Stage, waiting: Sequence[Stage], done: Set[str]) -> list[Command]:
        shuffles = {edge.edge_id: self.shuffles.edge(edge.edge_id) for edge in stage.inputs}
        undecided = [
            edge.edge_id
            for edge in stage.inputs
            if rules.is_sampled(edge, shuffles[edge.edge_id]) and shuffles[edge.edge_id].bounds is None
        ]
        if undecided:
            bounds, reason = rules.decide_bounds(stage, shuffles, self._controller)
            for edge_id in undecided:
                shuffles[edge_id].bounds = bounds
                self.decisions[edge_id] = reason
        if any(shuffle.unsplit() for shuffle in shuffles.values()):
            return [command for shuffle in shuffles.values() for command in self._split(shuffle)]
        controller = self._controller if self._adaptive else None
        reads = rules.share_inputs(stage, shuffles, controller, self._forward_reads(stage))
        self.decisions.update(dict.fromkeys(reads.split_edges, reads.reason))
        if reads.parallelism == 1 and self._adaptive:
            few_bytes = self._controller.coalesce_bytes
            stage, within = fuse_readers(self.graph, stage, waiting, self.shuffles, done, few_bytes)
            self.decisions.update({edge.edge_id: "little is read: one task computes both ends" for edge in within})
            reads = rules.read_whole(stage, self.shuffles, reads.reason) if within else reads
        own_last = sorted(stage.outputs, key=lambda edge: edge.rereads is None)
        written = {edge.written_id: edge for edge in own_last}
        outputs = [
            EdgeOutput(written_id, rules.write_scheme(self.graph, edge), edge.columns)
            for written_id, edge in written.items()
        ]
        if stage.stage_id == self.graph.sink:
            outputs.append(EdgeOutput(rules.RESULT_EDGE, rules.result_scheme(self.graph, to_files=self._to_files)))
        for output in outputs:
            self.shuffles.open(output.edge_id, output.scheme, reads.parallelism)
        run = StageRun(stage, self.graph, reads, tuple(outputs), [TaskRecord(i) for i in range(reads.parallelism)])
        self.runs[stage.stage_id] = run
        self._place(run)
        return []

    def _forward_reads(self, stage: Stage) -> list[rules.Reads]:
        edges = [edge.written_id for edge in stage.inputs if edge.edge_type is ShuffleEdgeType.FORWARD]
        return [producer_of(self.runs, edge_id).reads for edge_id in edges]

    def _split_late(self, run: StageRun) -> list[Command]:
        """Split what a task that ran again wrote as a sample."""
        shuffles = (self.shuffles.edge(edge.edge_id) for edge in run.stage.inputs)
        return [command for shuffle in shuffles if not shuffle.released for command in self._split(shuffle)]

    def _split(self, shuffle: EdgeShuffle) -> list[Command]:
        commands: list[Command] = []
        pending = {task_id.task for task_id, edge_id in self._splits.items() if edge_id == shuffle.edge_id}
        run = producer_of(self.runs, shuffle.edge_id)
        for task in shuffle.unsplit():
            output = shuffle.outputs[task]
            if task in pending:
                continue
            if output.agent_id not in self._agents and output.agent_id != self._session_agent:
                commands += self._rerun([(shuffle.edge_id, task)])
                continue
            commands.append(self._split_one(run, shuffle, task, output))
        return commands

    def _split_one(self, run: StageRun, shuffle: EdgeShuffle, task: int, output: OutputReport) -> SplitOutput:
        record = run.tasks[task]
        task_id = TaskId(self.query_id, run.stage.stage_id, task, record.next_attempt)
        record.next_attempt += 1
        self._splits[task_id] = shuffle.edge_id
        self._busy.setdefault(output.agent_id, set()).add(task_id)
        spec = SplitSpec(task_id, shuffle.edge_id, output.manifest, shuffle.bounds or ())
        return SplitOutput(spec, output.agent_id)

    def _place(self, run: StageRun) -> None:
        if run.stage.placement is Placement.SESSION or not self._agents:
            return
        demands = [demand(run, record.index, self.shuffles) for record in run.tasks]
        assignment = self._controller.assign_tasks_to_agents(demands, self._agents)
        for record in run.tasks:
            record.state = Waiting(assignment.agents[record.index])
        self.shuffles.set_task_locations(
            {f"{run.stage.stage_id}_{task}": agent for task, agent in assignment.agents.items()}
        )

    def _dispatch(self, now_ms: float) -> list[Command]:
        open_runs = [run for run in self.runs.values() if not run.finished and self._readable(run)]
        if any(run.relieved for run in open_runs):
            # Memory ran out with several tasks at work: until this stage is finished, one at a time.
            if self.in_flight:
                return []
            open_runs = [run for run in open_runs if run.relieved]
        choices = choose(open_runs, self._agents, self._session_agent, lambda agent: bool(self._busy.get(agent)))
        choices = choices[:1] if any(run.relieved for run in open_runs) else choices
        return [self._start_task(run, task, agent, now_ms) for run, task, agent in choices]

    def _readable(self, run: StageRun) -> bool:
        shuffles = [self.shuffles.edge(edge.edge_id) for edge in run.stage.inputs]
        return all(shuffle.complete and not shuffle.unsplit() for shuffle in shuffles)

    def _start_task(self, run: StageRun, record: TaskRecord, agent: str, now_ms: float) -> StartTask:
        task_id = TaskId(self.query_id, run.stage.stage_id, record.index, record.next_attempt)
        record.next_attempt += 1
        reads = {edge_id: reads[record.index] for edge_id, reads in run.reads.by_edge.items()}
        rows_in = sum(
            self.shuffles.edge(edge_id).rows_of(read.producers, read.first, read.last)
            for edge_id, read in reads.items()
        )
        record.state = Running(task_id.attempt, agent, now_ms, reads, rows_in)
        self._busy.setdefault(agent, set()).add(task_id)
        self.shuffles.set_task_locations({f"{task_id.stage}_{task_id.task}": agent})
        inputs = {
            edge.edge_id: rules.edge_input(edge, self.shuffles.edge(edge.edge_id), reads[edge.edge_id])
            for edge in run.stage.inputs
        }
        outputs = tuple(self._current_output(output) for output in run.outputs)
        return StartTask(task_id, agent, run.stage, run.graph, run.reads.parallelism, inputs, outputs)

    def _current_output(self, output: EdgeOutput) -> EdgeOutput:
        bounds = self.shuffles.edge(output.edge_id).bounds
        if not bounds:
            return output
        scheme = WriteScheme(WriteKind.RANGE_COLUMN, len(bounds) + 1, output.scheme.column, bounds=bounds)
        return EdgeOutput(output.edge_id, scheme, output.columns)
