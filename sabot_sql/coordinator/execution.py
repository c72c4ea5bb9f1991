"""The state machine of one query: events in, commands out. No I/O, no clock of its own, no threads.

It decides what an event means; what changes then is in :mod:`sabot_sql.coordinator.query_state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Placement, ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts
from sabot_sql.coordinator import exchange_rules as rules
from sabot_sql.coordinator.chained_stages import Stage, stages_of
from sabot_sql.coordinator.conservation import check_split, check_stage, check_task
from sabot_sql.coordinator.dispatch import choose, demand
from sabot_sql.coordinator.edge_book import EdgeBook, EdgeShuffle
from sabot_sql.coordinator.fusion import fuse_readers
from sabot_sql.coordinator.journal import Journal, JournalEntry, QueryOpening
from sabot_sql.coordinator.key_questions import key_questions
from sabot_sql.coordinator.limit_termination import unneeded_tasks
from sabot_sql.coordinator.memory_retry import BeginAnew, memory_retry
from sabot_sql.coordinator.messages import (
    BeginQuery,
    Command,
    Event,
    Fail,
    Finish,
    KeyNamed,
    NameKey,
    PlanRevised,
    QueryAbandoned,
    QueryResumed,
    QueryStarted,
    ReleaseEdge,
    ReplaceAgent,
    RevisePlan,
    SplitOutput,
    StartTask,
    StopTask,
    Work,
)
from sabot_sql.coordinator.metrics import MetricsRegistry
from sabot_sql.coordinator.query_state import QueryPhase, QueryState
from sabot_sql.coordinator.recovery import failed_too_often, lost_work, producer_of, shown_error
from sabot_sql.coordinator.stage_run import Running, StagePhase, StageRun, TaskRecord
from sabot_sql.coordinator.validation import faults_of
from sabot_sql.errors import AgentError, InternalError, SabotSQLError
from sabot_sql.protocol.members import AgentJoined, AgentLost, AgentNotReplaced
from sabot_sql.protocol.task_spec import (
    EdgeOutput,
    FailureKind,
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
    The state follows from the opening and the events alone, which the :attr:`journal` keeps.
    """

    def __init__(self, opening: QueryOpening) -> None:
        self.opening = opening
        self._controller = opening.controller
        self._adaptive = opening.adaptive
        self._state = QueryState(opening.query_id, opening.operator_graph, list(opening.agents), opening.session_agent)
        self._entries: list[JournalEntry] = []
        self._stages_changed = True

    @classmethod
    def replay(cls, journal: Journal) -> Execution:
        """The execution as it was after the last event of ``journal``.

        What it had commanded by then was commanded by another one; :meth:`pending` says what is still to be answered.
        """
        execution = cls(journal.opening)
        for entry in journal.entries:
            execution.handle(entry.event, entry.at_ms)
        return execution

    # --- what is known --------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """How the query began, and every event that was handled."""
        return Journal(self.opening, tuple(self._entries))

    @property
    def state(self) -> QueryState:
        """The stages, edges and agents of the query; only events change them."""
        return self._state

    @property
    def query_id(self) -> str:
        """The id of the query."""
        return self._state.query_id

    @property
    def graph(self) -> OperatorGraph:
        """The operator graph as it was revised last."""
        return self._state.graph

    @property
    def runs(self) -> Mapping[str, StageRun]:
        """The stages that were started."""
        return self._state.runs

    @property
    def shuffles(self) -> EdgeBook:
        """The edges."""
        return self._state.shuffles

    @property
    def metrics(self) -> MetricsRegistry:
        """What was shuffled so far."""
        return self._state.metrics

    @property
    def decisions(self) -> Mapping[str, str]:
        """Edge → why it is read as it is, where that was decided while running."""
        return self._state.decisions

    @property
    def in_flight(self) -> int:
        """Attempts and splits that agents still work on, stale ones included."""
        return len(self._state.unanswered)

    @property
    def busy_agents(self) -> tuple[str, ...]:
        """The agents that work on those."""
        return tuple(dict.fromkeys(work.agent_id for work in self._state.unanswered.values()))

    @property
    def unnamed_keys(self) -> int:
        """How many keys of heavy hitters are still looked for."""
        return len(self._state.questions)

    def result(self) -> tuple[StageRun, EdgeShuffle]:
        """The sink and its committed output, once finished."""
        return self.runs[self.graph.sink], self.shuffles.edge(rules.RESULT_EDGE)

    def measurements(self) -> dict[str, EdgeFacts]:
        """Edge → what was measured, for all edges whose producers have committed; the result is none of them."""
        measured = {shuffle.edge_id: shuffle.measured for shuffle in self.shuffles.edges()}
        return {edge: facts for edge, facts in measured.items() if facts is not None and edge != rules.RESULT_EDGE}

    def pending(self) -> list[Command]:
        """The commands that are not answered yet: to be given again by whoever goes on after a :meth:`replay`."""
        state = self._state
        commands: list[Command] = [
            BeginQuery(agent, edges) for agent, edges in self.shuffles.registered().items() if self._may_work(agent)
        ]
        commands += [ReplaceAgent(agent) for agent in sorted(state.replacing)]
        commands += state.unanswered.values()
        commands += [
            StopTask(task_id, state.unanswered[task_id].agent_id) for task_id in sorted(state.stopped, key=str)
        ]
        commands += map(NameKey, state.questions.values())
        if state.phase is QueryPhase.REVISING:
            commands.append(self._revision(state.revisions))
        if state.phase is QueryPhase.FINISHED:
            commands.append(Finish())
        return commands

    def validate(self) -> None:
        """Check that what is known of the query fits together; a test does it after every event.

        Raises:
            InternalError: something does not, in words.
        """
        faults = faults_of(self._state)
        if faults:
            raise InternalError(f"the state of query {self.query_id} does not hold: {'; '.join(faults)}")

    # --- events ---------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now_ms: float) -> list[Command]:
        """Take note of ``event`` and say what to do."""
        self._entries.append(JournalEntry(now_ms, event))
        answered: Work | None = None
        if isinstance(event, TaskReport | SplitReport | TaskFailure):
            answered = self._state.answered(event.id, event.agent_id)
        if isinstance(event, KeyNamed):
            self._state.named(event.edge_id, event.key_hash, event.name)
        if not self._state.phase.runs:
            return []
        asked = set(self._state.questions)
        commands = self._handle(event, answered)
        if self._state.phase.runs:
            commands += self._advance(now_ms)
            commands += self._stop_overtaken()
        # Asked last: agents work already while the answer is looked for.
        revisions = [command for command in commands if isinstance(command, RevisePlan)]
        commands = [command for command in commands if not isinstance(command, RevisePlan)]
        commands += [NameKey(question) for key, question in self._state.questions.items() if key not in asked]
        return commands + revisions

    def _handle(self, event: Event, answered: Work | None) -> list[Command]:
        match event:
            case QueryStarted():
                return self._begin_on([*self._state.agents, self._state.session_agent])
            case QueryResumed(agents):
                self._state.resume(agents)
                self._stages_changed = True
                commands = self._begin_on([*agents, self._state.session_agent])
                revising = self._state.phase is QueryPhase.REVISING
                return [*commands, self._revision(self._state.revisions)] if revising else commands
            case TaskReport():
                return self._committed(event)
            case SplitReport():
                return self._split_done(event, answered)
            case TaskFailure():
                return self._failed(event, answered)
            case PlanRevised(number, graph):
                self._state.revised(number, graph)
                self._stages_changed = True
                return []
            case KeyNamed(edge_id):
                return self._release_read([edge_id])
            case AgentLost(agent_id, readable):
                commands = self._lose_agent(agent_id, AgentError(f"agent {agent_id} is gone", agent=agent_id))
                return commands if readable else commands + self._lose_outputs(agent_id)
            case AgentJoined(agent_id, replaces):
                self._state.join(agent_id, replaces)
                return self._begin_on([agent_id])
            case AgentNotReplaced(agent_id, error):
                self._state.not_replaced(agent_id)
                return [] if self._state.agents or self._state.replacing else [self._fail(error)]
            case QueryAbandoned():
                self._state.end(QueryPhase.ABANDONED)
                return []

    def _begin_on(self, agents: Iterable[str]) -> list[Command]:
        return [BeginQuery(agent, edges) for agent, edges in self._state.begin_on(agents).items()]

    def _stop_overtaken(self) -> list[Command]:
        """Attempts that agents still work on although others have taken their place, or nobody needs them."""
        found = [
            StopTask(task_id, work.agent_id)
            for task_id, work in self._state.unanswered.items()
            if isinstance(work, StartTask)
            and task_id not in self._state.stopped
            and not self._is_current(task_id, work.agent_id)
        ]
        self._state.stop(command.id for command in found)
        return list(found)

    def _is_current(self, task_id: TaskId, agent: str) -> bool:
        tasks = self.runs[task_id.stage].tasks
        return task_id.task < len(tasks) and tasks[task_id.task].is_current(task_id.attempt, agent)

    def _committed(self, report: TaskReport) -> list[Command]:
        stage_id = report.id.stage
        run = self.runs[stage_id]
        if not self._is_current(report.id, report.agent_id):
            return []
        given = run.tasks[report.id.task].state
        assert isinstance(given, Running)
        error = check_task(report, given)
        if error is not None:
            return [self._fail(error)]
        columns = {output.edge_id: rules.stored_columns(output, report) for output in run.outputs}
        self._state.commit(report, given, columns)
        unneeded = unneeded_tasks(self.runs[stage_id]) if self._adaptive else None
        if unneeded is not None:
            self._state.skip(stage_id, unneeded)
        run = self.runs[stage_id]
        if not run.finished:
            return []
        self._stages_changed = True
        inputs = {edge.edge_id: self.shuffles.edge(edge.edge_id) for edge in run.stage.inputs}
        error = check_stage(run, inputs)
        return self._stage_committed(run) if error is None else [self._fail(error)]

    def _stage_committed(self, run: StageRun) -> list[Command]:
        commands = self._release_read(edge.edge_id for edge in run.stage.inputs)
        if run.phase is StagePhase.MEASURED:
            return commands
        self._state.measured(run.stage.stage_id)
        for edge in run.stage.outputs:
            self._state.ask(key_questions(self.query_id, edge, self.shuffles.edge(edge.edge_id)))
        if run.stage.stage_id == self.graph.sink:
            self._state.end(QueryPhase.FINISHED)
            return [*commands, Finish()]
        if self._adaptive:
            commands.append(self._revision(self._state.revise()))
        return commands

    def _revision(self, number: int) -> RevisePlan:
        started = frozenset(operator for run in self.runs.values() for operator in run.stage.operators)
        return RevisePlan(number, self.measurements(), started)

    def _release_read(self, edges: Iterable[str]) -> list[Command]:
        """Release those of ``edges`` that nobody reads any more, nor looks for a key in."""
        committed = {operator for run in self.runs.values() if run.finished for operator in run.stage.operators}
        asked = {self.shuffles.written(edge_id) for edge_id, _ in self._state.questions}
        commands: list[Command] = []
        for edge_id in dict.fromkeys(map(self.shuffles.written, edges)):
            readers = self.shuffles.readers(edge_id)
            released = self.shuffles.edge(edge_id).released
            if readers <= committed and edge_id not in asked and not released:
                self._state.release(edge_id)
                commands.append(ReleaseEdge(edge_id))
        return commands

    def _split_done(self, report: SplitReport, answered: Work | None) -> list[Command]:
        if not isinstance(answered, SplitOutput):
            return []
        sampled = self.shuffles.edge(answered.spec.edge_id).outputs.get(report.id.task, report.output)
        error = check_split(sampled, report.output)
        if error is not None:
            return [self._fail(error)]
        self._state.split(answered, report.output)
        self._stages_changed = True
        return []

    def _failed(self, failure: TaskFailure, answered: Work | None) -> list[Command]:
        stage_id, task = failure.id.stage, failure.id.task
        died = failure.kind is FailureKind.AGENT_DIED
        if isinstance(answered, SplitOutput):
            commands = self._lose_agent(failure.agent_id, failure.error) if died else []
            if died or failure.kind is FailureKind.LOST_INPUT:
                return commands + self._rerun([(answered.spec.edge_id, task)])
            return [self._fail(shown_error(failure))]
        if not self._is_current(failure.id, failure.agent_id):
            return []
        if died:
            return self._lose_agent(failure.agent_id, failure.error)
        run = self.runs[stage_id]
        retry = memory_retry(run, run.tasks[task], failure, self.shuffles, self._controller.grant_bytes)
        if isinstance(retry, BeginAnew):
            self._state.begin_anew(stage_id, retry)
            return []
        if retry is not None:
            self._state.run_alone(stage_id, retry)
            return []
        if failure.kind is not FailureKind.LOST_INPUT:
            return [self._fail(shown_error(failure))]
        record = self._state.wait_again(stage_id, task, failure.agent_id, died=False)
        error = failed_too_often(record, stage_id, failure.agent_id, failure.error)
        return [self._fail(error)] if error else self._rerun(failure.lost)

    def _rerun(self, lost: Iterable[tuple[str, int]]) -> list[Command]:
        found = lost_work(self.runs, self.shuffles, lost)
        if isinstance(found, AgentError):
            return [self._fail(found)]
        self._state.rerun(found)
        return []

    def _lose_agent(self, agent_id: str, reason: SabotSQLError) -> list[Command]:
        if agent_id not in self._state.agents:
            return []
        self._state.lose(agent_id)
        commands: list[Command] = [ReplaceAgent(agent_id)]
        for stage_id, run in tuple(self.runs.items()):
            for task in run.tasks:
                if isinstance(task.state, Running) and task.state.agent == agent_id:
                    record = self._state.wait_again(stage_id, task.index, agent_id, died=True)
                    fatal = failed_too_often(record, stage_id, agent_id, reason)
                    if fatal is not None:
                        return [*commands, self._fail(fatal)]
        return commands

    def _lose_outputs(self, agent_id: str) -> list[Command]:
        """Whatever an agent had committed has to be made again: readers need not each find that out."""
        if not self._state.phase.runs:
            return []
        return self._rerun(
            (shuffle.edge_id, producer)
            for shuffle in self.shuffles.edges()
            if not shuffle.released
            for producer, output in shuffle.outputs.items()
            if output.agent_id == agent_id
        )

    def _fail(self, error: SabotSQLError) -> Fail:
        self._state.end(QueryPhase.FAILED)
        return Fail(error)

    def _may_work(self, agent_id: str) -> bool:
        return agent_id in self._state.agents or agent_id == self._state.session_agent

    # --- progress -------------------------------------------------------------------------------------------------

    def _advance(self, now_ms: float) -> list[Command]:
        commands: list[Command] = []
        if self._stages_changed and self._state.phase is QueryPhase.RUNNING:
            self._stages_changed = False
            commands += self._open_stages()
        for run in tuple(self.runs.values()):
            if not run.finished:
                commands += self._split_late(run)
        if self._state.phase.runs:
            commands += self._dispatch(now_ms)
        if self._state.phase is QueryPhase.RUNNING and not (commands or self.in_flight or self._state.replacing):
            commands.append(self._fail(InternalError("no task can run and none is running")))
        return commands

    def _open_stages(self) -> list[Command]:
        commands: list[Command] = []
        measured = (run for run in self.runs.values() if run.phase is StagePhase.MEASURED)
        done = {operator for run in measured for operator in run.stage.operators}
        started = {operator for run in self.runs.values() for operator in run.stage.operators}
        existing = {node.operator_id for node in self.graph.operators}
        waiting = stages_of(self.graph, started)
        for stage in waiting:
            # A revision may have removed what a stage was to wait for.
            if stage.start_after & existing <= done and self.shuffles.committed(stage.inputs):
                commands += self._open_stage(stage, waiting, done)
        return commands

    def _open_stage(self, stage: Stage, waiting: Sequence[Stage], done: Set[str]) -> list[Command]:
        if self._decide_bounds(stage):
            shuffles = [self.shuffles.edge(edge.edge_id) for edge in stage.inputs]
            return [command for shuffle in shuffles for command in self._split(shuffle)]
        inputs = {edge.edge_id: self.shuffles.edge(edge.edge_id) for edge in stage.inputs}
        controller = self._controller if self._adaptive else None
        reads = rules.share_inputs(stage, inputs, controller, self._forward_reads(stage))
        self._state.decide(reads.split_edges, reads.reason)
        if reads.parallelism == 1 and self._adaptive:
            few_bytes = self._controller.coalesce_bytes
            stage, within = fuse_readers(self.graph, stage, waiting, self.shuffles, done, few_bytes)
            within_ids = [edge.edge_id for edge in within]
            self._state.decide(within_ids, "little is read: one task computes both ends")
            reads = rules.read_whole(stage, self.shuffles, reads.reason) if within else reads
        outputs = rules.stage_outputs(self.graph, stage)
        if stage.stage_id == self.graph.sink:
            scheme = rules.result_scheme(self.graph, to_files=self.opening.to_files)
            outputs = (*outputs, EdgeOutput(rules.RESULT_EDGE, scheme))
        tasks = tuple(TaskRecord(index) for index in range(reads.parallelism))
        run = StageRun(stage, self.graph, reads, outputs, tasks)
        self._state.open_stage(run)
        self._place(run)
        return []

    def _decide_bounds(self, stage: Stage) -> bool:
        """Decide the ranges of the stage's sampled inputs; says whether some outputs are to be split at them."""
        shuffles = {edge.edge_id: self.shuffles.edge(edge.edge_id) for edge in stage.inputs}
        undecided = [
            edge.edge_id
            for edge in stage.inputs
            if rules.is_sampled(edge, shuffles[edge.edge_id]) and shuffles[edge.edge_id].bounds is None
        ]
        if undecided:
            bounds, reason = rules.decide_bounds(stage, shuffles, self._controller)
            self._state.bound(undecided, bounds, reason)
        return any(self.shuffles.edge(edge_id).unsplit() for edge_id in shuffles)

    def _forward_reads(self, stage: Stage) -> list[rules.Reads]:
        edges = [edge.written_id for edge in stage.inputs if edge.edge_type is ShuffleEdgeType.FORWARD]
        return [producer_of(self.runs, edge_id).reads for edge_id in edges]

    def _split_late(self, run: StageRun) -> list[Command]:
        """Split what a task that ran again wrote as a sample."""
        commands: list[Command] = []
        for edge in run.stage.inputs:
            shuffle = self.shuffles.edge(edge.edge_id)
            if not shuffle.released:
                commands += self._split(shuffle)
        return commands

    def _split(self, shuffle: EdgeShuffle) -> list[Command]:
        commands: list[Command] = []
        splits = (work for work in self._state.unanswered.values() if isinstance(work, SplitOutput))
        pending = {work.id.task for work in splits if work.spec.edge_id == shuffle.edge_id}
        for task in shuffle.unsplit():
            output = shuffle.outputs[task]
            if task in pending:
                continue
            if not self._may_work(output.agent_id):
                commands += self._rerun([(shuffle.edge_id, task)])
                continue
            commands.append(self._split_one(shuffle, task, output))
        return commands

    def _split_one(self, shuffle: EdgeShuffle, task: int, output: OutputReport) -> SplitOutput:
        task_id = self._state.next_attempt(producer_of(self.runs, shuffle.edge_id).stage.stage_id, task)
        spec = SplitSpec(task_id, shuffle.edge_id, output.manifest, shuffle.bounds or ())
        command = SplitOutput(spec, output.agent_id)
        self._state.gave(command)
        return command

    def _place(self, run: StageRun) -> None:
        if run.stage.placement is Placement.SESSION or not self._state.agents:
            return
        demands = [demand(run, record.index, self.shuffles) for record in run.tasks]
        assignment = self._controller.assign_tasks_to_agents(demands, self._state.agents)
        self._state.place(run.stage.stage_id, assignment.agents)

    def _dispatch(self, now_ms: float) -> list[Command]:
        open_runs = [run for run in self.runs.values() if not run.finished and self._readable(run)]
        alone = any(run.one_at_a_time for run in open_runs)
        if alone:
            # Memory ran out with several tasks at work: until this stage is finished, one at a time.
            if self.in_flight:
                return []
            open_runs = [run for run in open_runs if run.one_at_a_time]
        choices = choose(open_runs, self._state.agents, self._state.session_agent, set(self.busy_agents))
        return [self._start_task(run, task, agent, now_ms) for run, task, agent in choices[: 1 if alone else None]]

    def _readable(self, run: StageRun) -> bool:
        shuffles = [self.shuffles.edge(edge.edge_id) for edge in run.stage.inputs]
        return all(shuffle.complete and not shuffle.unsplit() for shuffle in shuffles)

    def _start_task(self, run: StageRun, record: TaskRecord, agent: str, now_ms: float) -> StartTask:
        task_id = self._state.next_attempt(run.stage.stage_id, record.index)
        reads = run.reads_of(record.index)
        rows_in = sum(
            self.shuffles.edge(edge_id).rows_of(read.producers, read.first, read.last)
            for edge_id, read in reads.items()
        )
        self._state.start(task_id, agent, now_ms, reads, rows_in)
        inputs = {
            edge.edge_id: rules.edge_input(edge, self.shuffles.edge(edge.edge_id), reads[edge.edge_id])
            for edge in run.stage.inputs
        }
        outputs = tuple(self._current_output(output) for output in run.outputs)
        command = StartTask(task_id, agent, run.stage, run.graph, run.reads.parallelism, inputs, outputs)
        self._state.gave(command)
        return command

    def _current_output(self, output: EdgeOutput) -> EdgeOutput:
        bounds = self.shuffles.edge(output.edge_id).bounds
        if not bounds:
            return output
        scheme = WriteScheme(WriteKind.RANGE_COLUMN, len(bounds) + 1, output.scheme.column, bounds=bounds)
        return EdgeOutput(output.edge_id, scheme, output.columns)
