"""Whatever is given to the interface of jobs, what is wrong with it is said by an error of this package."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import fields
from itertools import pairwise
from random import Random
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_planner.errors import InvalidGraph
from sabot_sql import (
    DBOSParallelController,
    JobGraph,
    OperatorType,
    ParquetFile,
    ParquetFiles,
    Session,
    SessionTable,
    ShuffleCoordinator,
    ShuffleEdgeType,
    ShuffleManager,
    StreamOperatorNode,
    Workload,
)
from sabot_sql.errors import AgentError, JobError, OperatorError, QueryError, ResourceError, SourceError, UsageError
from sabot_sql.jobs import Callback

T = OperatorType
ROWS = pa.table({"k": [1, 2, 3], "v": [1.0, 2.0, 3.0]})
BATCH = ROWS.to_batches()[0]


def op(kind: OperatorType, name: str, parallelism: int = 1, **more: Any) -> StreamOperatorNode:
    return StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **more)


def chain(*nodes: StreamOperatorNode) -> JobGraph:
    job = JobGraph("wrong")
    for node in nodes:
        job.add_operator(node)
    for before, after in pairwise(nodes):
        job.connect(before.operator_id, after.operator_id)
    return job


class Hostile:
    """Neither true nor false, and without a representation."""

    def __bool__(self) -> bool:
        raise ValueError("the truth of this is ambiguous")

    def __repr__(self) -> str:
        raise ValueError("this cannot be shown")


ANYTHING: list[Any] = [
    None, 0, -1, 1, 2, 2**63, 1.5, float("nan"), float("inf"), True, "", "k", "nothing", "a b", '"', "1 hour",
    "SELECT * FROM input", "\x00", "x" * 500, b"k", b"\xff", [], ["k"], ["k", "k"], [1], ("k",), {"k"}, {},
    {"a": "sum(v)"}, {"a": 1}, {1: "sum(v)"}, {"task_0": "a:h:1"}, {"task_0": 3}, {"agent-1": 3}, len, ROWS, BATCH,
    ROWS.schema, ROWS.to_pandas(), Hostile(), int, "left", "x.csv", T.MAP, T, ShuffleEdgeType.HASH,
    ShuffleEdgeType.FORWARD, "HASH", Workload(rows=5), "a:localhost:99999", ["agent-1", "agent-2"], [b"\x01"],
]  # fmt: skip


TYPED = (UsageError, SourceError, ResourceError, AgentError)
"""An error that says what is wrong with what was given; a defect is none of these."""


def typed(call: Callable[..., object], *values: Any, **named: Any) -> None:
    """``call`` succeeds, or fails by a typed error that says what is wrong."""
    with suppress(*TYPED):
        call(*values, **named)


def test_random_operators() -> None:
    dice = Random(7)
    names = [field.name for field in fields(StreamOperatorNode)]
    for _ in range(3000):
        options = {name: dice.choice(ANYTHING) for name in dice.sample(names[1:], dice.randint(0, 4))}
        kind = dice.choice([*T, *ANYTHING]) if dice.random() < 0.2 else dice.choice(list(T))
        typed(StreamOperatorNode, operator_type=kind, **options)


def test_random_calls_by_hand() -> None:
    asyncio.run(_random_calls(Random(11)))


async def _random_calls(dice: Random) -> None:
    job = chain(op(T.SOURCE, "s", 3), op(T.MAP, "m", 3), op(T.GROUP_BY, "g", 2, key_by=["k"]), op(T.SINK, "o"))
    graph = job.to_execution_graph()

    async def awaited(call: Callable[..., Any], *values: Any) -> None:
        with suppress(*TYPED):
            await call(*values)

    options = ["partition_keys", "edge_type", "schema", "shuffle_id", "num_partitions", "bounds"]
    async with ShuffleManager("agent-1") as manager:
        values = [*ANYTHING, graph, job, graph.tasks, {"agent-1": manager}, {"task_0": "agent-1:localhost:1"}, "m"]

        def some() -> Any:
            return dice.choice(values)

        for _ in range(300):
            typed(ShuffleCoordinator, some())
            coordinator = ShuffleCoordinator(graph)
            await awaited(coordinator.initialize, some())
            await awaited(coordinator.register_shuffles_with_agents, some())
            await awaited(coordinator.set_task_locations, some())
            typed(coordinator.location, some())
            typed(coordinator.get_shuffle_metrics)
            named = {name: some() for name in dice.sample(options, dice.randint(0, 4))}
            typed(manager.register_shuffle, some(), **named)
            typed(manager.write_partition, some(), some(), some())
            typed(manager.read_partition, some(), some())
            typed(manager.ticket, some(), some())
            typed(manager.fetch, some(), some())
            typed(ShuffleManager, some(), some(), some())
            typed(DBOSParallelController, max_workers=some())
            typed(Workload, some(), some(), some())
            typed(DBOSParallelController().calculate_optimal_worker_count, some())
            typed(DBOSParallelController().assign_tasks_to_agents, some(), some())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SessionTable("x; DROP TABLE y"), "names no table"),
        (lambda: SessionTable("x (a INT); --"), "names no table"),
        (lambda: SessionTable(3), "names no table"),  # type: ignore[arg-type]
        (lambda: SessionTable("x", append="yes"), "neither True nor False"),  # type: ignore[arg-type]
        (lambda: ParquetFile(3), "no path"),  # type: ignore[arg-type]
        (lambda: ParquetFiles(""), "no path"),  # type: ignore[arg-type]
        (lambda: Callback(3), "cannot be called"),  # type: ignore[arg-type]
        (lambda: op(T.MAP, "m", memory_mb=float("nan")), "above 0"),
        (lambda: op(T.MAP, "m", stateful=1), "neither True nor False"),
        (lambda: op(T.MAP, "m", schema=[("k", "BIGINT")]), "no pyarrow.Schema"),
        (lambda: op(T.MAP, "m", key_by=7), "names of columns"),
    ],
)
def test_what_would_mean_something_else_is_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(JobError, match=words):
        make()


def test_a_single_key_may_be_a_text() -> None:
    async def run() -> int:
        async with ShuffleManager("a") as manager:
            shuffle = manager.register_shuffle("o", "k", schema=ROWS.schema)  # not the keys "k", one letter each
            return manager.write_partition(shuffle, 0, ROWS)

    assert asyncio.run(run()) == 3


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as opened:
        yield opened


@pytest.mark.parametrize("name", ["no_such_schema.t", "select", "system.main.t"])
def test_a_table_that_cannot_be_made_is_refused_before_anything_runs(session: Session, name: str) -> None:
    run: list[int] = []

    def watched() -> Iterator[pa.RecordBatch]:
        run.append(1)
        yield BATCH

    source = op(T.SOURCE, "s", source=watched, schema=ROWS.schema)
    with pytest.raises(QueryError, match=f"operator 'out' cannot write table {name}: "):
        session.run_job(chain(source, op(T.SINK, "out", sink=SessionTable(name))))
    assert not run
    assert not session.in_transaction


def test_two_names_of_one_table_are_refused_before_anything_runs(session: Session) -> None:
    job = chain(op(T.SOURCE, "s", source=ROWS), op(T.SINK, "a", sink=SessionTable("twice")))
    job.add_operator(op(T.SINK, "b", sink=SessionTable("main.TWICE")))
    job.connect("s", "b")
    with pytest.raises(QueryError, match="already exists"):
        session.run_job(job)
    assert "twice" not in session.tables()


def test_rows_that_do_not_fit_a_table_are_refused_before_anything_runs(session: Session) -> None:
    session.execute("CREATE OR REPLACE TABLE narrow (z INTEGER)")
    with pytest.raises(QueryError, match="operator 'out' cannot write table narrow"):
        session.run_job(
            chain(op(T.SOURCE, "s", source=ROWS), op(T.SINK, "out", sink=SessionTable("narrow", append=True)))
        )
    assert session.query("SELECT count(*) FROM narrow").fetchall() == [(0,)]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
@pytest.mark.parametrize("given", [None, ROWS.schema], ids=["found out", "given"])
def test_a_function_that_wants_to_end_the_program_ends_its_job(
    session: Session, error: type[BaseException], given: pa.Schema | None
) -> None:
    def leaves(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise error("now")

    job = chain(op(T.SOURCE, "s", source=ROWS), op(T.MAP, "leaves", function=leaves, schema=given))
    with pytest.raises(JobError if given is None else OperatorError, match=f"operator 'leaves'.*{error.__name__}: now"):
        session.run_job(job)
    assert session.query("SELECT 42").fetchall() == [(42,)]


def _early() -> Iterator[pa.RecordBatch]:
    raise KeyError("early")
    yield BATCH


def _late() -> Iterator[pa.RecordBatch]:
    yield BATCH
    yield BATCH
    raise KeyError("late")


def _changes() -> Iterator[pa.RecordBatch]:
    yield BATCH
    yield pa.record_batch({"z": [1]})


def _exits() -> Iterator[pa.RecordBatch]:
    yield BATCH
    sys.exit(3)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (_early, JobError, "its generator failed: KeyError: 'early'"),
        (_late, SourceError, "its generator failed at batch 2: KeyError: 'late'"),
        (_changes, SourceError, r"its generator failed at batch 1: .*gave columns \(z int64\)"),
        (lambda: iter([3]), JobError, "gave a int; give a pyarrow RecordBatch or Table"),
        (lambda: iter([]), JobError, "gives no batch"),
    ],
)
def test_a_generator_that_is_read_once_says_where_it_failed(
    session: Session, make: Callable[[], Iterator[Any]], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        session.run_job(chain(op(T.SOURCE, "s", source=make()), op(T.SINK, "out")))


def test_a_generator_that_wants_to_end_the_program_ends_its_job(session: Session) -> None:
    with pytest.raises(OperatorError, match="its generator raised SystemExit: 3, at batch 1 of task 0"):
        session.run_job(chain(op(T.SOURCE, "s", source=_exits, schema=ROWS.schema), op(T.SINK, "out")))


def test_controllers_say_what_is_wrong() -> None:
    controller = DBOSParallelController()
    for tasks, agents in (([1, 2], None), ([], []), ("task_0", None), ([], "agent-1"), ([], [3])):
        with pytest.raises(UsageError):
            controller.assign_tasks_to_agents(tasks, agents)  # type: ignore[call-overload]


@pytest.mark.parametrize("tasks", [1, 3])
def test_an_empty_side_of_a_union_needs_no_types(session: Session, tasks: int) -> None:
    none = pa.table({"k": pa.nulls(0), "v": pa.nulls(0)})
    job = JobGraph("union")
    job.add_operator(op(T.SOURCE, "some", 2, source=ROWS))
    job.add_operator(op(T.SOURCE, "none", 2, source=none))
    job.add_operator(op(T.UNION, "all", tasks))
    job.connect("none", "all")
    job.connect("some", "all")
    result = session.run_job(job)
    assert result.types == ["BIGINT", "DOUBLE"]
    assert sorted(result.fetchall()) == [(1, 1.0), (2, 2.0), (3, 3.0)]


class Unhashable:
    def __hash__(self) -> int:
        raise ValueError("no hash")


def test_random_calls_of_a_graph(session: Session) -> None:
    dice = Random(5)
    values = [*ANYTHING, Unhashable(), "s", "o", "edge_1"]
    for _ in range(300):
        job = chain(op(T.SOURCE, "s", source=ROWS), op(T.SINK, "o"))
        one, other = dice.choice(values), dice.choice(values)
        typed(JobGraph, one)
        typed(job.operator, one)
        typed(job.connect, one, other)
        typed(job.connect, "s", "o", name=one, broadcast=other)
        typed(job.add_operator, one)
        typed(job.inputs_of, one)
        typed(job.outputs_of, one)
        typed(job.run, one)
        typed(session.run_job, one)
        if not isinstance(one, str):
            typed(session.explain, one)
        typed(job.validate)
    with pytest.raises(JobError, match=r"no operator 'x'; it has s, o"):
        chain(op(T.SOURCE, "s", source=ROWS), op(T.SINK, "o")).operator("x")


def test_an_execution_graph_names_its_edges() -> None:
    graph = chain(op(T.SOURCE, "s", source=ROWS), op(T.SINK, "o")).to_execution_graph()
    with pytest.raises(InvalidGraph, match="no edge 'edge_9'; it has edge_1"):
        graph.connections("edge_9")
