"""The state machine of a query, by the moment at which something happens to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from sabot_planner.errors import InvalidGraph
from sabot_planner.job.operator_graph import OperatorGraph
from sabot_planner.job.operators import Operator, OperatorType, Placement, ShuffleEdge, ShuffleEdgeType
from sabot_planner.job.plan import EdgeFacts, Mode, QueryPlan
from sabot_sql.coordinator.controller import DBOSParallelController
from sabot_sql.coordinator.messages import QueryAbandoned
from sabot_sql.errors import AgentError, InternalError, QueryError
from sabot_sql.protocol.members import AgentJoined, AgentLost, AgentNotReplaced
from sabot_sql.protocol.task_spec import FailureKind, WriteKind
from tests.runtime.simulated import Simulation

pytestmark = pytest.mark.fast


def op(name: str, parallelism: int = 1, sql: str = "", **more: object) -> Operator:
    return Operator(name, OperatorType.MAP, sql or f"SELECT * FROM {name}", parallelism, **more)  # type: ignore[arg-type]


def edge(name: str, source: str, target: str, kind: ShuffleEdgeType, **more: object) -> ShuffleEdge:
    return ShuffleEdge(name, source, target, kind, **more)  # type: ignore[arg-type]


HASH, RANGE = ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE
BROADCAST, REBALANCE, FORWARD = ShuffleEdgeType.BROADCAST, ShuffleEdgeType.REBALANCE, ShuffleEdgeType.FORWARD


def group_by(buckets: int = 8) -> OperatorGraph:
    """source ×2 ──HASH──▶ group ×2 ──▶ sink"""
    return OperatorGraph(
        (op("source", 2), op("group", 2), op("sink")),
        (
            edge("e1", "source", "group", HASH, partition_by="h", partitions=buckets),
            edge("e2", "group", "sink", REBALANCE),
        ),
    )


def sort(ranges: int = 4) -> OperatorGraph:
    return OperatorGraph(
        (op("source", 2), op("sort", ranges)),
        (edge("e1", "source", "sort", RANGE, partition_by="h", bounds_partitions=ranges),),
        ordered=True,
    )


def filtered_join() -> OperatorGraph:
    """small ×2 ──HASH e1──▶ join ×2 ◀──HASH e2── large ×2, and large reads e1 again as e3."""
    return OperatorGraph(
        (op("small", 2), op("large", 2), op("join", 2), op("sink")),
        (
            edge("e1", "small", "join", HASH, partition_by="h", partitions=8),
            edge("e2", "large", "join", HASH, partition_by="h", partitions=8),
            edge("e3", "small", "large", BROADCAST, partitions=8, written_as=HASH, rereads="e1"),
            edge("e4", "join", "sink", REBALANCE),
        ),
    )


# --- the undisturbed run ----------------------------------------------------------------------------------------------


def test_consumers_wait_for_every_producer() -> None:
    run = Simulation(group_by())
    assert set(run.running) == {"source_0", "source_1"}
    run.finish("source_0")
    assert set(run.running) == {"source_1"}
    run.finish("source_1")
    assert set(run.running) == {"group_0", "group_1"}
    run.finish_all()
    assert run.finished
    assert run.error is None


def test_an_edge_is_released_as_soon_as_its_consumers_are_finished() -> None:
    run = Simulation(group_by())
    for task in ("source_0", "source_1", "group_0"):
        run.finish(task)
    assert run.released == []
    run.finish("group_1")
    assert run.released == ["e1"]
    run.finish_all()
    assert run.released == ["e1", "e2"]


def test_every_bucket_is_read_once() -> None:
    run = Simulation(group_by(buckets=8))
    run.finish_all()
    reads = [c.inputs["e1"] for c in run.started if c.id.stage == "group"]
    assert [(r.first, r.last) for r in reads] == [(0, 4), (4, 8)]
    assert all(r.producers == (0, 1) for r in reads)


def test_the_column_that_places_rows_is_not_seen_by_consumers() -> None:
    run = Simulation(group_by())
    run.finish_all()
    read = next(c.inputs["e1"] for c in run.started if c.id.stage == "group")
    assert [column.name for column in read.columns] == ["k", "v"]


def test_more_tasks_than_agents_take_turns() -> None:
    run = Simulation(OperatorGraph((op("source", 5),)), agents=2)
    assert len(run.running) == 2
    run.finish_all()
    assert sorted(c.id.task for c in run.started) == [0, 1, 2, 3, 4]


def test_a_hash_edge_writes_at_least_a_bucket_for_each_consumer() -> None:
    graph = OperatorGraph((op("source"), op("group", 5)), (edge("e1", "source", "group", HASH, keys=("k",)),))
    run = Simulation(graph)
    scheme = run.running["source_0"].outputs[0].scheme
    assert (scheme.kind, scheme.partitions, scheme.keys) == (WriteKind.HASH_COLUMNS, 5, ("k",))


def test_a_hash_edge_without_keys_is_refused() -> None:
    graph = OperatorGraph((op("source"), op("group", 2)), (edge("e1", "source", "group", HASH),))
    with pytest.raises(InvalidGraph, match="neither keys nor"):
        Simulation(graph)


def test_hash_inputs_of_different_bucket_counts_never_meet() -> None:
    graph = OperatorGraph(
        (op("a"), op("b"), op("join", 2)),
        (
            edge("e1", "a", "join", HASH, keys=("k",), partitions=4),
            edge("e2", "b", "join", HASH, keys=("k",), partitions=8),
        ),
    )
    run = Simulation(graph, agents=2)
    run.finish("a_0")
    with pytest.raises(InvalidGraph, match="partitions"):
        run.finish("b_0")


def test_a_broadcast_edge_is_read_whole_by_every_task() -> None:
    graph = OperatorGraph(
        (op("small", 2), op("big", 2), op("join", 2)),
        (edge("e1", "small", "join", BROADCAST), edge("e2", "big", "join", REBALANCE)),
    )
    run = Simulation(graph)
    run.finish_all()
    joins = [c for c in run.started if c.id.stage == "join"]
    assert all(len(c.inputs["e1"].manifests) == 2 and c.inputs["e1"].last == 1 for c in joins)
    assert [(c.inputs["e2"].first, c.inputs["e2"].last) for c in joins] == [(0, 1), (1, 2)]


def test_producers_without_rows_are_not_read_but_one() -> None:
    graph = OperatorGraph((op("a", 3), op("b")), (edge("e1", "a", "b", REBALANCE),))
    run = Simulation(graph, rows=lambda _, task: 10 if task == 1 else 0)
    run.finish_all()
    assert run.started[-1].inputs["e1"].producers == (1,)
    empty = Simulation(graph, rows=lambda *_: 0)
    empty.finish_all()
    assert empty.started[-1].inputs["e1"].producers == (0,)


def test_an_edge_that_is_read_again_is_written_once_and_read_whole() -> None:
    run = Simulation(filtered_join())
    assert [o.edge_id for o in run.running["small_0"].outputs] == ["e1"]
    run.finish("small_0")
    assert set(run.running) == {"small_1"}, "the second reader waits for every producer as well"
    run.finish("small_1")
    assert set(run.running) == {"large_0", "large_1"}
    read = run.running["large_0"].inputs["e3"]
    assert (read.name, read.first, read.last, read.producers) == ("e3", 0, 8, (0, 1))
    assert all(manifest.startswith(b"e1/") for manifest in read.manifests)
    run.finish_all()
    assert run.finished
    assert set(run.execution.measurements()) == {"e1", "e2", "e4"}


def test_an_edge_that_is_read_again_is_released_after_its_last_reader() -> None:
    run = Simulation(filtered_join())
    for task in ("small_0", "small_1", "large_0", "large_1"):
        run.finish(task)
    assert run.released == []
    run.finish("join_0")
    run.finish("join_1")
    assert run.released == ["e1", "e2"]


def test_what_several_edges_share_is_written_once_and_released_after_its_last_reader() -> None:
    graph = OperatorGraph(
        (op("shared", 2), op("left", 2), op("right", 2), op("sink")),
        (
            edge("e1", "shared", "left", FORWARD, rereads="shared_c"),
            edge("e2", "shared", "right", FORWARD, rereads="shared_c"),
            edge("e3", "left", "sink", REBALANCE),
            edge("e4", "right", "sink", REBALANCE),
        ),
    )
    run = Simulation(graph)
    assert [o.edge_id for o in run.running["shared_0"].outputs] == ["shared_c"]
    run.finish("shared_0")
    run.finish("shared_1")
    for stage in ("left", "right"):
        assert run.released == []
        for task in (0, 1):
            read = run.running[f"{stage}_{task}"].inputs["e1" if stage == "left" else "e2"]
            assert (read.producers, [m.split(b"/")[0] for m in read.manifests]) == ((task,), [b"shared_c"])
            run.finish(f"{stage}_{task}")
    assert run.released == ["shared_c"]
    run.finish_all()
    assert (run.finished, run.error) == (True, None)


def test_a_reader_that_a_revision_takes_out_leaves_the_shared_output_to_the_others() -> None:
    shared, left, right, sink = op("shared"), op("left"), op("right"), op("sink")
    e1 = edge("e1", "shared", "left", FORWARD, rereads="shared_c")
    e2 = edge("e2", "shared", "right", FORWARD, rereads="shared_c")
    e3, e4 = edge("e3", "left", "sink", REBALANCE), edge("e4", "right", "sink", REBALANCE)
    less = OperatorGraph((shared, right, sink), (e2, e4))

    class Revised:
        def revise(self, plan: QueryPlan, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
            return replace(plan, operator_graph=less)

        def identities(self) -> Mapping[str, str]:
            return {}

    graph = OperatorGraph((shared, left, right, sink), (e1, e2, e3, e4))
    plan = QueryPlan(Mode.DISTRIBUTED, "test", 2, graph, planner_state=Revised())
    run = Simulation(graph, plan=plan, controller=DBOSParallelController(0, 0))
    run.finish("shared_0")
    assert set(run.running) == {"right_0"}
    run.finish_all()
    assert (run.finished, run.error, run.released[0]) == (True, None, "shared_c")


def test_session_tasks_run_on_the_session_agent_alone() -> None:
    graph = OperatorGraph(
        (op("frame", placement=Placement.SESSION), op("work", 3)),
        (edge("e1", "frame", "work", REBALANCE),),
    )
    run = Simulation(graph)
    run.finish_all()
    agents = {c.id.stage: set() for c in run.started}
    for command in run.started:
        agents[command.id.stage].add(command.agent_id)
    assert agents["frame"] == {"session"}
    assert "session" not in agents["work"]


def test_several_outputs_are_written_by_one_task() -> None:
    graph = OperatorGraph(
        (op("source", 2), op("a", 2), op("b"), op("sink")),
        (
            edge("e1", "source", "a", HASH, partition_by="h", columns=("k",)),
            edge("e2", "source", "b", REBALANCE, columns=("v",)),
            edge("e3", "a", "sink", REBALANCE),
            edge("e4", "b", "sink", REBALANCE),
        ),
    )
    run = Simulation(graph)
    assert [o.edge_id for o in run.running["source_0"].outputs] == ["e1", "e2"]
    run.finish_all()
    assert run.finished
    assert [c.name for c in next(x for x in run.started if x.id.stage == "b").inputs["e2"].columns] == ["v"]


# --- FORWARD ----------------------------------------------------------------------------------------------------------


def test_forward_edges_are_chained_into_one_task() -> None:
    graph = OperatorGraph(
        (op("source", 3), op("enrich", 3, "SELECT * FROM e1"), op("sink")),
        (edge("e1", "source", "enrich", FORWARD), edge("e2", "enrich", "sink", REBALANCE)),
    )
    run = Simulation(graph)
    run.finish_all()
    assert [c.id.stage for c in run.started] == ["enrich"] * 3 + ["sink"]
    assert run.started[0].stage.operators == ("source", "enrich")


@pytest.mark.parametrize("sql", ["SELECT * FROM e1 a JOIN e1 b USING (k)", 'SELECT 1 FROM e1, "e1"'])
def test_a_forward_input_that_is_read_twice_is_written_once(sql: str) -> None:
    graph = OperatorGraph((op("source", 2), op("pair", 2, sql)), (edge("e1", "source", "pair", FORWARD),))
    run = Simulation(graph)
    run.finish_all()
    assert [c.id.stage for c in run.started] == ["source", "source", "pair", "pair"]
    assert [c.inputs["e1"].producers for c in run.started[2:]] == [(0,), (1,)]


def test_a_forward_edge_from_the_session_is_not_chained() -> None:
    graph = OperatorGraph(
        (op("frame", placement=Placement.SESSION), op("work", sql="FROM e1")),
        (edge("e1", "frame", "work", FORWARD),),
    )
    run = Simulation(graph)
    run.finish_all()
    assert [(c.id.stage, c.agent_id) for c in run.started] == [("frame", "session"), ("work", "agent-1")]


def test_hash_input_beside_a_forward_input_keeps_to_the_buckets_of_its_producer() -> None:
    graph = OperatorGraph(
        (op("a", 2), op("b"), op("group", 2), op("join", 2, "FROM f1 JOIN f1 USING (k)"), op("other")),
        (
            edge("e1", "a", "group", HASH, partition_by="h", partitions=8),
            edge("f1", "group", "join", FORWARD),
            edge("e2", "b", "join", HASH, partition_by="h", partitions=8),
            edge("f2", "group", "other", REBALANCE),
        ),
        sink="join",
    )
    run = Simulation(graph, rows=lambda name, _: 10 if name == "e1" else 1000)
    run.finish_all()
    read = {(c.id.stage, c.id.task): c.inputs for c in run.started}
    for task in (0, 1):
        group, join = read["group", task]["e1"], read["join", task]["e2"]
        assert (group.first, group.last) == (join.first, join.last)


def two_shared_groupings() -> OperatorGraph:
    """Two stages hashed by the same key, each read by two consumers, joined task by task."""
    return OperatorGraph(
        (
            op("a", 2),
            op("b", 2),
            op("one", 2, key_by=("k",)),
            op("two", 2, key_by=("k",)),
            op("join", 2, "FROM f1 JOIN f2 USING (k)", key_by=("k",)),
            op("left"),
            op("right"),
        ),
        (
            edge("e1", "a", "one", HASH, partition_by="h", partitions=8),
            edge("e2", "b", "two", HASH, partition_by="h", partitions=8),
            edge("f1", "one", "join", FORWARD),
            edge("f2", "two", "join", FORWARD),
            edge("g1", "one", "left", REBALANCE),
            edge("g2", "two", "right", REBALANCE),
        ),
        sink="join",
    )


def test_stages_that_meet_over_forward_edges_share_their_buckets_alike() -> None:
    # Balanced by bytes, 100 rows in the first bucket would move the cut of one stage and not of the other.
    skewed = Simulation(two_shared_groupings(), controller=DBOSParallelController(coalesce_bytes=0, grant_bytes=0))
    skewed.skew = {"e1": 0}
    skewed.finish_all()
    assert skewed.finished
    reads = {(c.id.stage, c.id.task): c.inputs for c in skewed.started}
    for task in (0, 1):
        one, two = reads["one", task]["e1"], reads["two", task]["e2"]
        assert (one.first, one.last) == (two.first, two.last)


def test_little_input_does_not_shrink_one_of_two_stages_that_meet_over_forward_edges() -> None:
    run = Simulation(
        two_shared_groupings(),
        controller=DBOSParallelController(coalesce_bytes=1 << 20),
        rows=lambda name, _: 10 if name == "e1" else 100_000,
    )
    run.finish_all()
    assert run.finished
    tasks = {stage: sum(c.id.stage == stage for c in run.started) for stage in ("one", "two", "join")}
    assert tasks == {"one": 2, "two": 2, "join": 2}


# --- RANGE ------------------------------------------------------------------------------------------------------------


def test_ranges_are_cut_from_the_samples_of_all_producers() -> None:
    run = Simulation(sort(ranges=4), rows=lambda *_: 10_000)
    assert run.running["source_0"].outputs[0].scheme.kind is WriteKind.SAMPLED
    run.finish("source_0")
    run.finish("source_1")
    assert {s.agent_id for s in run.splits} == {"agent-1", "agent-2"}
    assert all(len(s.spec.bounds) == 3 for s in run.splits)
    assert not run.running
    run.finish_all()
    tasks = [c for c in run.started if c.id.stage == "sort"]
    assert [(c.inputs["e1"].first, c.inputs["e1"].last) for c in tasks] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert all(c.inputs["e1"].producers == (0, 1) for c in tasks)


def test_few_rows_are_one_range_and_are_not_moved_again() -> None:
    run = Simulation(sort(), rows=lambda *_: 10)
    run.finish("source_0")
    run.finish("source_1")
    assert run.splits == []
    assert set(run.running) == {"sort_0"}
    assert [c.name for c in run.running["sort_0"].inputs["e1"].columns] == ["k", "v"]
    assert "few" in run.execution.decisions["e1"]


def test_one_planned_range_is_written_without_its_key() -> None:
    run = Simulation(sort(ranges=1))
    scheme = run.running["source_0"].outputs[0].scheme
    assert (scheme.kind, scheme.column) == (WriteKind.ONE_PARTITION, "h")


def test_an_agent_lost_before_its_split_makes_the_producer_write_ranges_at_once() -> None:
    run = Simulation(sort(), rows=lambda *_: 10_000)
    run.finish("source_0")
    run.finish("source_1")
    lost = run.splits[0]
    run.kill(lost.agent_id)
    run.split(run.splits[0])
    again = run.running[f"source_{lost.spec.id.task}"]
    assert again.outputs[0].scheme.kind is WriteKind.RANGE_COLUMN
    assert again.outputs[0].scheme.bounds == lost.spec.bounds
    run.finish_all()
    assert run.finished


# --- measurements -----------------------------------------------------------------------------------------------------


class Revisions:
    """A planner that turns e1 into BROADCAST once it was measured."""

    def __init__(self, graph: OperatorGraph) -> None:
        self.graph = graph
        self.asked: list[tuple[Mapping[str, EdgeFacts], frozenset[str]]] = []

    def revise(self, plan: QueryPlan, facts: Mapping[str, EdgeFacts], started: frozenset[str]) -> QueryPlan:
        self.asked.append((dict(facts), started))
        edges = tuple(
            replace(e, edge_type=BROADCAST, written_as=HASH) if e.edge_id == "e1" and "e1" in facts else e
            for e in self.graph.edges
        )
        return replace(plan, operator_graph=replace(self.graph, edges=edges))


def test_the_plan_is_revised_after_each_finished_stage() -> None:
    graph = OperatorGraph(
        (op("small", 2), op("big", 2, start_after=("small",)), op("join", 2)),
        (
            edge("e1", "small", "join", HASH, keys=("k",), partitions=4),
            edge("e2", "big", "join", REBALANCE),
        ),
    )
    planner = Revisions(graph)
    plan = QueryPlan(Mode.DISTRIBUTED, "", 2, graph, (), planner)
    run = Simulation(graph, plan=plan, controller=DBOSParallelController(0, 0))
    assert set(run.running) == {"small_0", "small_1"}, "big waits for what small will measure"
    run.finish_all()
    assert [(set(facts), started) for facts, started in planner.asked] == [
        ({"e1"}, {"small"}),
        ({"e1", "e2"}, {"small", "big"}),
    ]
    facts = planner.asked[0][0]["e1"]
    assert (facts.rows, facts.bytes, facts.partition_rows) == (2000, 200_000, (500, 500, 500, 500))
    assert set(facts.heavy) == {(0, 1000, 0), (1, 1000, 0)}
    join = next(c for c in run.started if c.id.stage == "join")
    assert (join.inputs["e1"].first, join.inputs["e1"].last) == (0, 4), "a broadcast of hash buckets reads them all"


def test_little_input_is_worth_fewer_tasks() -> None:
    run = Simulation(group_by(), controller=DBOSParallelController(coalesce_bytes=1 << 20), rows=lambda *_: 10)
    run.finish_all()
    groups = [c for c in run.started if c.id.stage == "group"]
    assert [(c.inputs["e1"].first, c.inputs["e1"].last) for c in groups] == [(0, 8)]


def test_much_input_gets_tasks_until_each_fits_its_grant() -> None:
    controller = DBOSParallelController(coalesce_bytes=1, grant_bytes=50_000)
    run = Simulation(group_by(buckets=8), controller=controller, rows=lambda *_: 1000)
    run.finish_all()
    groups = {c.id.task: c.inputs["e1"] for c in run.started if c.id.stage == "group"}
    assert len(groups) == 4
    assert [(groups[i].first, groups[i].last) for i in range(4)] == [(0, 2), (2, 4), (4, 6), (6, 8)]


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_user_error_ends_the_query_and_is_not_retried() -> None:
    run = Simulation(group_by())
    run.fail("source_0", FailureKind.USER)
    assert isinstance(run.error, QueryError)
    assert run.error.message == "boom"
    assert [c.id.attempt for c in run.started] == [0, 0]


def test_an_error_inside_an_agent_names_its_place() -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.fail("source_1", FailureKind.INTERNAL)
    assert isinstance(run.error, AgentError)
    assert (run.error.stage, run.error.task, run.error.attempt) == ("source", 1, 0)
    assert run.error.remote_message == "boom"


def test_an_agent_dies_while_its_task_runs() -> None:
    run = Simulation(group_by())
    victim = run.running["source_1"].agent_id
    run.kill(victim)
    assert run.replacing == [victim]
    run.finish("source_0")
    again = run.running["source_1"]
    assert again.agent_id != victim
    assert again.id.attempt == 1
    run.finish_all()
    assert run.finished


def test_an_agent_dies_after_it_committed() -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.finish("source_1")
    run.kill(run.running["group_0"].agent_id)
    run.finish_all()
    assert run.finished
    assert sum(c.id.stage == "source" for c in run.started) == 2, "what it committed is read from its memory"


def test_the_last_agent_dies_and_another_comes() -> None:
    run = Simulation(group_by(), agents=1)
    run.kill("agent-1")
    assert run.running == {}
    assert run.error is None
    run.tell(AgentJoined("agent-2", "agent-1"))
    run.finish_all()
    assert run.finished


def test_the_last_agent_dies_and_none_comes() -> None:
    run = Simulation(group_by(), agents=1)
    run.kill("agent-1")
    run.tell(AgentNotReplaced("agent-1", AgentError("no memory")))
    assert isinstance(run.error, AgentError)


def test_a_task_that_two_agents_died_of_is_not_given_to_a_third() -> None:
    run = Simulation(OperatorGraph((op("source"),)), agents=3)
    run.kill(run.running["source_0"].agent_id)
    run.kill(run.running["source_0"].agent_id)
    assert isinstance(run.error, AgentError)
    assert "2 agents died" in run.error.message
    assert run.running == {}


@pytest.mark.parametrize(("readable", "attempts"), [(True, 1), (False, 2)])
def test_what_an_agent_had_committed_is_made_again_at_once_where_it_cannot_be_read(
    readable: bool, attempts: int
) -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.finish("source_1")
    victim = next(command.agent_id for command in run.started if command.id.task == 1)
    run.tell(AgentLost(victim, readable))
    run.finish_all()
    assert run.finished
    assert run.replacing == [victim]
    assert sum(command.id.stage == "source" and command.id.task == 1 for command in run.started) == attempts


def test_an_input_is_lost_while_it_is_read() -> None:
    run = Simulation(group_by())
    run.finish("source_0")
    run.finish("source_1")
    run.fail("group_0", FailureKind.LOST_INPUT, [("e1", 1)])
    assert "source_1" in run.running, "only the producer of the lost part runs again"
    assert run.running["source_1"].id.attempt == 1
    run.finish("group_1")
    run.finish("source_1")
    assert run.running["group_0"].inputs["e1"].manifests[1].startswith(b"e1/1.1@")
    run.finish_all()
    assert run.finished


def test_a_lost_input_whose_own_inputs_are_released_runs_all_of_them_again() -> None:
    run = Simulation(group_by(buckets=2))
    for task in ("source_0", "source_1", "group_0", "group_1"):
        run.finish(task)
    assert run.released == ["e1"]
    run.fail("sink_0", FailureKind.LOST_INPUT, [("e2", 0)])
    assert set(run.running) == {"source_0", "source_1"}
    run.finish_all()
    assert run.finished
    assert sum(c.id.stage == "group" for c in run.started) == 3


def test_an_output_read_task_by_task_is_written_whole_again_after_its_release() -> None:
    """The reader of task 1 reads nothing of task 0, and waits until the edge is whole all the same."""
    graph = OperatorGraph(
        (op("source", 2), op("pair", 2, "FROM f1 a JOIN f1 b USING (k)"), op("sink")),
        (edge("f1", "source", "pair", FORWARD), edge("e2", "pair", "sink", REBALANCE)),
    )
    run = Simulation(graph)
    for task in ("source_0", "source_1", "pair_0", "pair_1"):
        run.finish(task)
    assert run.released == ["f1"]
    run.fail("sink_0", FailureKind.LOST_INPUT, [("e2", 1)])
    run.finish_all()
    assert (run.finished, run.error) == (True, None)


def test_rows_dealt_round_that_a_second_edge_reads_are_dealt_again_for_its_readers_too() -> None:
    graph = OperatorGraph(
        (op("source", 2), op("left", 2), op("right", 2), op("sink")),
        (
            edge("e1", "source", "left", REBALANCE, partitions=2),
            edge("e2", "source", "right", REBALANCE, partitions=2, rereads="e1"),
            edge("e3", "left", "sink", REBALANCE),
            edge("e4", "right", "sink", REBALANCE),
        ),
    )
    run = Simulation(graph, agents=4)
    run.finish("source_0")
    run.finish("source_1")
    run.finish("right_0")
    run.fail("left_0", FailureKind.LOST_INPUT, [("e1", 0)])
    overtaken = run.running.pop("right_1")
    assert overtaken.id in run.stopped
    run.tell(run.report(overtaken))
    run.finish_all()
    assert (run.finished, run.error) == (True, None)
    last = {c.id.task: c.inputs["e2"].manifests[0] for c in run.started if c.id.stage == "right"}
    assert {m.split(b"@")[0] for m in last.values()} == {b"e1/0.1"}, "no two readers of different attempts"


def test_rows_that_are_read_again_and_lost_are_written_again() -> None:
    run = Simulation(filtered_join())
    run.finish("small_0")
    run.finish("small_1")
    run.fail("large_0", FailureKind.LOST_INPUT, [("e3", 1)])
    run.finish("large_1")
    assert {"small_1"} <= set(run.running)
    run.finish_all()
    assert run.finished
    assert [c.id.task for c in run.started if c.id.stage == "small"] == [0, 1, 1]


def test_a_filtered_output_that_is_lost_gets_its_filter_again() -> None:
    run = Simulation(filtered_join())
    for task in ("small_0", "small_1", "large_0", "large_1", "join_0", "join_1"):
        run.finish(task)
    run.fail("sink_0", FailureKind.LOST_INPUT, [("e4", 0)])
    run.finish_all()
    assert run.finished
    assert sum(c.id.stage == "small" for c in run.started) == 4, "all that the filter and the join read"
    assert run.released.count("e1") == 2


def test_an_output_lost_four_times_ends_the_query() -> None:
    run = Simulation(OperatorGraph((op("source"), op("sink")), (edge("e1", "source", "sink", REBALANCE),)))
    for _ in range(3):
        run.finish("source_0")
        run.fail("sink_0", FailureKind.LOST_INPUT, [("e1", 0)])
        assert run.error is None
    run.finish("source_0")
    run.fail("sink_0", FailureKind.LOST_INPUT, [("e1", 0)])
    assert isinstance(run.error, AgentError)
    assert [c.id.attempt for c in run.started if c.id.stage == "source"] == [0, 1, 2, 3]


def test_a_late_answer_of_an_old_attempt_is_ignored() -> None:
    run = Simulation(group_by())
    old = run.running["source_1"]
    run.kill(old.agent_id)
    run.finish("source_0")
    before = set(run.running)
    run.tell(run.report(old))
    assert set(run.running) == before
    run.finish_all()
    read = next(c.inputs["e1"] for c in run.started if c.id.stage == "group")
    assert read.manifests[1].startswith(b"e1/1.1@")


def test_an_answer_that_comes_twice_counts_once() -> None:
    run = Simulation(group_by())
    command = run.running.pop("source_0")
    run.tell(run.report(command))
    run.tell(run.report(command))
    assert set(run.running) == {"source_1"}
    run.finish_all()
    assert run.finished


def test_rows_dealt_round_are_dealt_again_for_all_their_readers() -> None:
    graph = OperatorGraph((op("source", 2), op("work", 4)), (edge("e1", "source", "work", REBALANCE),))
    run = Simulation(graph)
    run.finish("source_0")
    run.finish("source_1")
    run.finish("work_0")
    run.finish("work_1")
    run.fail("work_2", FailureKind.LOST_INPUT, [("e1", 0)])
    run.finish_all()
    assert run.finished
    last = {c.id.task: c.inputs["e1"].manifests[0] for c in run.started if c.id.stage == "work"}
    assert {m.split(b"@")[0] for m in last.values()} == {b"e1/0.1"}, "no two readers of different attempts"


def test_nothing_is_commanded_after_the_query_was_abandoned() -> None:
    run = Simulation(group_by())
    run.tell(QueryAbandoned())
    assert run.execution.in_flight == 2
    run.finish("source_0")
    run.finish("source_1")
    assert run.execution.in_flight == 0
    assert run.running == {}


def test_a_plan_that_can_never_run_fails_instead_of_waiting() -> None:
    graph = OperatorGraph((op("a", start_after=("b",)), op("b")), (edge("e1", "a", "b", REBALANCE),))
    run = Simulation(graph)
    assert isinstance(run.error, InternalError)
