"""What has to hold of the state of a query between any two events."""

from __future__ import annotations

from collections.abc import Iterator

from sabot_sql.coordinator.edge_book import EdgePhase
from sabot_sql.coordinator.messages import StartTask
from sabot_sql.coordinator.query_state import QueryPhase, QueryState
from sabot_sql.coordinator.stage_run import Finished, MemoryShare, Running, Skipped, StagePhase, StageRun


def faults_of(state: QueryState) -> tuple[str, ...]:
    """What does not fit together, in words."""
    stages = (fault for run in state.runs.values() for fault in (*_tasks(state, run), *_outputs(state, run)))
    return (*stages, *_edges(state), *_agents(state))


def _tasks(state: QueryState, run: StageRun) -> Iterator[str]:
    name = run.stage.stage_id
    if [task.index for task in run.tasks] != list(range(run.reads.parallelism)):
        yield f"{name} is cut into {run.reads.parallelism} tasks and has {[task.index for task in run.tasks]}"
    counted = (sum(task.done for task in run.tasks), sum(task.memory is MemoryShare.ALONE for task in run.tasks))
    if counted != (run.done, run.alone):
        yield f"{name} counts {run.done} tasks done and {run.alone} alone; there are {counted[0]} and {counted[1]}"
    for task in run.tasks:
        if isinstance(task.state, Running | Finished | Skipped):
            if not task.state.attempt < task.next_attempt:
                yield f"attempt {task.state.attempt} of {name}_{task.index} is not below {task.next_attempt}"
            if state.phase.runs and task.state.reads != run.reads_of(task.index):
                yield f"{name}_{task.index} was given other parts than those that the stage is cut into"
        if state.phase.runs and isinstance(task.state, Running):
            given = [
                work.agent_id
                for work in state.unanswered.values()
                if isinstance(work, StartTask)
                and (work.id.stage, work.id.task, work.id.attempt) == (name, task.index, task.state.attempt)
            ]
            if given != [task.state.agent]:
                yield f"{name}_{task.index} runs on {task.state.agent} and was given to {given}"
            if task.state.agent not in (*state.agents, state.session_agent):
                yield f"{name}_{task.index} runs on {task.state.agent}, which is lost"
    first_skipped = next((task.index for task in run.tasks if isinstance(task.state, Skipped)), None)
    if first_skipped == 0:
        yield f"{name}_0 is skipped, and no task before it can have enough rows"


def _outputs(state: QueryState, run: StageRun) -> Iterator[str]:
    name = run.stage.stage_id
    for output in run.outputs:
        shuffle = state.shuffles.edge(output.edge_id)
        if shuffle.producers != len(run.tasks):
            yield f"{output.edge_id} has {shuffle.producers} producers, {name} has {len(run.tasks)} tasks"
        strange = sorted(set(shuffle.outputs) - {task.index for task in run.tasks})
        if strange:
            yield f"{output.edge_id} has outputs of {strange}, which are no tasks of {name}"
        lacking = [task.index for task in run.tasks if task.done and task.index not in shuffle.outputs]
        if lacking and not shuffle.released:
            yield f"{lacking} of {name} are done without an output in {output.edge_id}"
        if (run.phase is StagePhase.OPEN) != (shuffle.phase is EdgePhase.OPEN):
            yield f"{name} is {run.phase}, its output {output.edge_id} is {shuffle.phase}"
    if run.phase is StagePhase.OPEN and run.finished and state.phase.runs:
        yield f"every task of {name} is done, and nothing was measured"


def _edges(state: QueryState) -> Iterator[str]:
    asked = {state.shuffles.written(edge_id) for edge_id, _ in state.questions}
    for shuffle in state.shuffles.edges():
        if (shuffle.measured is None) != (shuffle.phase is EdgePhase.OPEN):
            yield f"{shuffle.edge_id} is {shuffle.phase}, and its facts are {shuffle.measured}"
        if not shuffle.released:
            continue
        if shuffle.edge_id in asked:
            yield f"{shuffle.edge_id} is released while a key is looked for in it"
        for run in state.runs.values():
            reads = {state.shuffles.written(edge_id) for edge_id in run.reads.by_edge}
            if state.phase.runs and shuffle.edge_id in reads and not run.finished:
                yield f"{shuffle.edge_id} is released, and {run.stage.stage_id} still reads it"


def _agents(state: QueryState) -> Iterator[str]:
    if len(set(state.agents)) != len(state.agents):
        yield f"an agent is listed twice among {state.agents}"
    both = sorted(state.replacing & set(state.agents))
    if both:
        yield f"{both} are lost and work"
    lost = sorted(str(task_id) for task_id in state.stopped - state.unanswered.keys())
    if lost:
        yield f"{lost} are stopped, and nobody works on them"
    if state.phase is QueryPhase.RUNNING and state.runs and not (state.unanswered or state.replacing):
        yield "nothing is waited for, and the query has not ended"
    sinks = [run for run in state.runs.values() if run.stage.stage_id == state.graph.sink]
    if state.phase is QueryPhase.FINISHED and not (sinks and sinks[0].finished):
        yield "the query is finished, and its sink is not"
