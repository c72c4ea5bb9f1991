"""The journal of a query: its text, what it refuses, and what is still to do after a replay.

That every simulated query can be rebuilt from any prefix of its journal is checked after every test by ``conftest.py``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts, Mode, QueryPlan
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.edge_book import EdgePhase
from sabot_sql.coordinator.execution import Execution
from sabot_sql.coordinator.journal import JOURNAL_UNREADABLE, Journal
from sabot_sql.coordinator.key_naming import KeyNaming
from sabot_sql.coordinator.messages import KeyNamed, PlanRevised, ReleaseEdge, RevisePlan, StartTask
from sabot_sql.coordinator.query_state import QueryPhase, QueryState
from sabot_sql.coordinator.stage_run import Finished, Skipped, StagePhase
from sabot_sql.errors import AgentError, InternalError, UsageError
from sabot_sql.protocol.members import AgentJoined, AgentNotReplaced
from sabot_sql.protocol.task_spec import EdgeInput, FailureKind, KeyQuestion, OutputReport, TaskId, TaskReport
from tests.runtime.simulated import Simulation
from tests.runtime.test_coordinator_execution import edge, group_by, op

pytestmark = pytest.mark.fast

HASH, REBALANCE = ShuffleEdgeType.HASH, ShuffleEdgeType.REBALANCE


def eventful() -> Simulation:
    """A query with a failure, a lost agent, its replacement and an answer."""
    run = Simulation(group_by())
    run.finish("source_0")
    run.kill(run.running["source_1"].agent_id)
    run.tell(AgentJoined("agent-3", "agent-2"))
    run.finish_all()
    assert run.finished
    return run


def test_a_journal_is_the_same_after_it_was_text() -> None:
    journal = eventful().execution.journal
    lines = tuple(journal.lines())
    again = Journal.from_lines(lines)
    assert again.opening == journal.opening
    assert tuple(again.lines()) == lines
    assert all("\n" not in line for line in lines)
    reports = [entry.event for entry in again.entries if isinstance(entry.event, TaskReport)]
    assert {output.manifest for report in reports for output in report.outputs} >= {b"e1/0.0@agent-1"}


def test_errors_are_the_same_after_they_were_text() -> None:
    run = Simulation(group_by(), agents=1)
    run.kill("agent-1")
    run.tell(AgentNotReplaced("agent-1", AgentError("no memory", agent="agent-1", hint="less")))
    again = Execution.replay(Journal.from_lines(run.execution.journal.lines()))
    assert again.state.phase is QueryPhase.FAILED
    events = [entry.event for entry in again.journal.entries]
    assert isinstance(events[-1], AgentNotReplaced)
    assert events[-1].error.to_dict() == AgentError("no memory", agent="agent-1", hint="less").to_dict()


def changed(line: str, **changes: object) -> str:
    return json.dumps({**json.loads(line), **changes})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: [], "empty"),
        (lambda lines: lines[1:], "version None"),
        (lambda lines: [changed(lines[0], version=0), *lines[1:]], "version 0; this release reads version 1"),
        (lambda lines: [changed(lines[0], version=2), *lines[1:]], "version 2"),
        (lambda lines: [lines[0], lines[1][:-5]], "a line is"),
        (lambda lines: [lines[0], "[]"], "a line is"),
        (lambda lines: [lines[0], changed(lines[1], kind="StartTask")], "has a 'StartTask'"),
        (lambda lines: [lines[0], changed(lines[2], body={})], "TaskReport of it is not one of this release"),
        (lambda lines: [lines[0], changed(lines[2], blobs=[])], "TaskReport of it is not one of this release"),
        (lambda lines: [lines[0], changed(lines[2], blobs=["%"])], "a line is"),
        (lambda lines: [lines[0], changed(lines[1], at_ms="now")], "the time 'now'"),
        (lambda lines: [lines[0], lines[0]], "has a 'QueryOpening'"),
    ],
)
def test_what_is_no_journal_of_this_release_is_refused_in_words(
    spoil: Callable[[list[str]], list[str]], said: str
) -> None:
    lines = list(eventful().execution.journal.lines())
    with pytest.raises(UsageError, match=said) as caught:
        Journal.from_lines(spoil(lines))
    assert caught.value.code == JOURNAL_UNREADABLE


def test_after_a_replay_the_same_work_is_waited_for() -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.finish("source_1")
    again = Execution.replay(Journal.from_lines(run.execution.journal.lines()))
    pending = [command for command in again.pending() if isinstance(command, StartTask)]
    assert pending == list(run.running.values())
    assert again.busy_agents == ("agent-1", "agent-2")


# --- revisions --------------------------------------------------------------------------------------------------------


class Unasked:
    """A planner that a test asks itself."""

    def revise(self, plan: QueryPlan, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
        raise AssertionError

    def identities(self) -> Mapping[str, str]:
        return {}

    def key_identities(self) -> Mapping[str, str]:
        return {}


class Undecided(Simulation):
    """A simulation whose planner takes its time."""

    def _revise(self, command: RevisePlan) -> None:
        self.revisions.append(command)

    def __init__(self, graph: OperatorGraph) -> None:
        self.revisions: list[RevisePlan] = []
        plan = QueryPlan(Mode.DISTRIBUTED, "test", 2, graph, planner_state=Unasked())
        super().__init__(graph, agents=3, plan=plan, controller=DBOSParallelController(0, 0))


def two_branches() -> OperatorGraph:
    return OperatorGraph(
        (op("a"), op("b"), op("after"), op("sink")),
        (
            edge("e1", "a", "after", HASH, keys=("k",)),
            edge("e2", "b", "sink", REBALANCE),
            edge("e3", "after", "sink", REBALANCE),
        ),
    )


def test_no_stage_is_opened_while_the_planner_may_change_it() -> None:
    run = Undecided(two_branches())
    run.finish("a_0")
    assert [command.number for command in run.revisions] == [1]
    assert set(run.running) == {"b_0"}
    run.finish("b_0")
    assert [(c.number, set(c.facts), c.started) for c in run.revisions] == [
        (1, {"e1"}, {"a", "b"}),
        (2, {"e1", "e2"}, {"a", "b"}),
    ]
    run.tell(PlanRevised(1))
    assert not run.running, "the second answer may still change it"
    wider = run.execution.graph.operator("after")
    operators = tuple(replace(wider, parallelism=3) if o is wider else o for o in run.execution.graph.operators)
    run.tell(PlanRevised(2, replace(run.execution.graph, operators=operators)))
    assert "after_0" in run.running
    assert run.execution.graph.operator("after").parallelism == 3


def test_the_question_to_the_planner_is_asked_again_after_a_replay() -> None:
    run = Undecided(two_branches())
    run.finish("a_0")
    again = Execution.replay(Journal.from_lines(run.execution.journal.lines()))
    assert again.pending()[-1] == run.revisions[0]


# --- keys -------------------------------------------------------------------------------------------------------------


class Skewed(Simulation):
    """Two tasks write ten thousand rows each with one hot key; nobody looks it up but the test."""

    def __init__(self) -> None:
        hot = (1 << 63) + 1

        graph = OperatorGraph(
            (op("source", 2), op("group", 2), op("sink")),
            (edge("e1", "source", "group", HASH, keys=("k",), partitions=4), edge("e2", "group", "sink", REBALANCE)),
        )
        self.hot = hot
        super().__init__(graph, rows=lambda name, _: 10_000 if name == "e1" else 10)

    def report(self, command: StartTask) -> TaskReport:
        made = super().report(command)
        return replace(made, outputs=tuple(map(self._heavy, made.outputs))) if command.id.stage == "source" else made

    def _heavy(self, output: OutputReport) -> OutputReport:
        return replace(output, partition_rows=(0, 0, 10_000, 0), heavy=((self.hot, 10_000, 0),))


def test_an_edge_stays_as_long_as_a_key_is_looked_for_in_it() -> None:
    run = Skewed()
    run.finish("source_0")
    run.finish("source_1")
    assert [command.question.hash for command in run.asked] == [run.hot]
    run.finish("group_0")
    run.finish("group_1")
    assert run.released == []
    run.tell(KeyNamed("e1", run.hot, "k = 42"))
    assert run.released == ["e1"]
    assert run.execution.shuffles.edge("e1").key_names == {run.hot: "k = 42"}
    run.finish_all()
    assert run.finished


def test_a_key_that_is_named_after_the_last_task_is_known() -> None:
    run = Skewed()
    run.finish_all()
    assert run.finished
    assert run.execution.unnamed_keys == 1
    run.tell(KeyNamed("e1", run.hot, "k = 42"))
    assert run.execution.unnamed_keys == 0
    assert run.execution.shuffles.edge("e1").key_names == {run.hot: "k = 42"}


QUESTION = KeyQuestion("q", EdgeInput("e", "e", (), (), (), 0, 1), ("k",), ("k",), 7)


def test_every_question_has_an_answer_also_when_there_is_no_time_left() -> None:
    answers: list[KeyNamed] = []
    both = threading.Event()

    def answer(named: KeyNamed) -> None:
        answers.append(named)
        if len(answers) == 2:
            both.set()

    asked: list[int] = []

    def find(_: KeyQuestion, left_ms: int) -> str:
        asked.append(left_ms)
        naming._left_ms = 0
        return "k = 1"

    naming = KeyNaming(find, answer, 250)
    naming.ask(QUESTION)
    naming.ask(QUESTION)
    assert both.wait(30)
    naming.close()
    assert asked == [250]
    assert answers == [KeyNamed("e", 7, "k = 1"), KeyNamed("e", 7, None)]


def test_what_is_asked_of_a_closed_look_up_is_not_looked_up() -> None:
    entered, leave = threading.Event(), threading.Event()
    answers: list[KeyNamed] = []

    def find(_: KeyQuestion, __: int) -> None:
        entered.set()
        assert leave.wait(30)

    naming = KeyNaming(find, answers.append, 30_000)
    naming.ask(QUESTION)
    naming.ask(QUESTION)
    assert entered.wait(30)
    closing = threading.Thread(target=naming.close)
    closing.start()
    assert naming._closed.wait(30)
    leave.set()
    closing.join(30)
    assert not closing.is_alive()
    assert answers == [KeyNamed("e", 7, None)] * 2


# --- validation -------------------------------------------------------------------------------------------------------


def spoil_run(state: QueryState, /, **changes: object) -> None:
    state.runs["source"] = replace(state.runs["source"], **changes)  # type: ignore[arg-type]


def spoil_task(state: QueryState, task: int, /, **changes: object) -> None:
    tasks = list(state.runs["source"].tasks)
    tasks[task] = replace(tasks[task], **changes)  # type: ignore[arg-type]
    spoil_run(state, tasks=tuple(tasks))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: spoil_run(state, tasks=state.runs["source"].tasks[:1]), "is cut into 2 tasks"),
        (lambda state: spoil_task(state, 0, next_attempt=0), "attempt 0 of source_0 is not below 0"),
        (lambda state: spoil_task(state, 1, state=Finished(0, 0.0, None, {})), "done without an output"),  # type: ignore[arg-type]
        (lambda state: spoil_task(state, 0, state=Skipped(0, {})), "source_0 is skipped"),
        (lambda state: spoil_run(state, phase=StagePhase.MEASURED), "its output e1 is open"),
        (lambda state: spoil_run(state, done=2), "counts 2 tasks done and 0 alone; there are 1 and 0"),
        (lambda state: state.agents.remove("agent-2"), "runs on agent-2, which is lost"),
        (lambda state: state.agents.append("agent-2"), "listed twice"),
        (lambda state: state.replacing.add("agent-2"), "are lost and work"),
        (lambda state: state.unanswered.clear(), "was given to"),
        (lambda state: state.stopped.add(TaskId("q", "source", 0, 0)), "nobody works on them"),
        (lambda state: state.shuffles.update("e1", outputs={}), "done without an output"),
        (lambda state: state.shuffles.update("e1", phase=EdgePhase.MEASURED), "its facts are None"),
        (lambda state: state.shuffles.update("e1", producers=3), "e1 has 3 producers"),
        (lambda state: state.end(QueryPhase.FINISHED), "its sink is not"),
    ],
)
def test_a_state_that_does_not_fit_together_is_found_out(spoil: Callable[[QueryState], object], said: str) -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.execution.validate()
    spoil(run.execution.state)
    with pytest.raises(InternalError, match=said):
        run.execution.validate()
    Simulation.made.remove(run)  # what no event did is in no journal


def test_releases_that_a_lost_input_takes_back_are_commanded_again() -> None:
    run = Simulation(group_by(buckets=2))
    for task in ("source_0", "source_1", "group_0", "group_1"):
        run.finish(task)
    run.fail("sink_0", FailureKind.LOST_INPUT, [("e2", 0)])
    assert run.execution.shuffles.edge("e1").phase is EdgePhase.MEASURED
    run.finish_all()
    releases = [c for answer in run.answers for c in answer if c == ReleaseEdge("e1")]
    assert len(releases) == 2
