"""Each rule by which edges are found, with the wrong answer that the other choice would give."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import JobError, JobGraph, OperatorType, ShuffleEdge, ShuffleEdgeType, StreamOperatorNode
from sabot_sql.jobs import shuffle_detection
from sabot_sql.jobs.source_sizes import size_bytes

T = OperatorType
FORWARD, HASH, RANGE = ShuffleEdgeType.FORWARD, ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE
BROADCAST, REBALANCE = ShuffleEdgeType.BROADCAST, ShuffleEdgeType.REBALANCE
ROWS = pa.table({"k": [i % 7 for i in range(5000)], "j": [i % 3 for i in range(5000)], "v": list(range(5000))})
NAMES = pa.table({"k": [0, 1, 2, 99], "name": ["a", "b", "c", "nobody"]})


def op(kind: OperatorType, name: str, parallelism: int = 1, **more: Any) -> StreamOperatorNode:
    return StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **more)


def chain(*nodes: StreamOperatorNode) -> JobGraph:
    job = JobGraph("job")
    for node in nodes:
        job.add_operator(node)
    for before, after in itertools.pairwise(nodes):
        job.connect(before.operator_id, after.operator_id)
    return job


def edges(job: JobGraph) -> list[ShuffleEdge]:
    found = list(job.to_execution_graph().edges)
    assert all(edge.reason for edge in found), "every edge says why"
    return found


def kinds(job: JobGraph) -> list[ShuffleEdgeType]:
    return [edge.edge_type for edge in edges(job)]


def answer(job: JobGraph) -> Counter[tuple[Any, ...]]:
    with sabot_sql.connect(agents=2) as session:
        return Counter(session.run_job(job).fetchall())


def source(parallelism: int = 3) -> StreamOperatorNode:
    return op(T.SOURCE, "source", parallelism, source=ROWS)


def per_key(name: str = "counts", parallelism: int = 3, **more: Any) -> StreamOperatorNode:
    return op(T.GROUP_BY, name, parallelism, key_by=["k"], aggregates={"n": "count(*)"}, **more)


def test_without_keys_equal_tasks_are_chained() -> None:
    job = chain(source(3), op(T.MAP, "twice", 3, sql="SELECT 2 * v AS v FROM input"))
    graph = job.to_execution_graph()
    assert kinds(job) == [FORWARD]
    assert len(graph.connections("edge_1")) == 3
    assert [task.runs_in for task in graph.tasks if task.operator_id == "source"] == ["twice_0", "twice_1", "twice_2"]
    with sabot_sql.connect(agents=2) as session:
        plan = session.run_job(job).plan.json()
    (stage,) = [stage for stage in plan["stages"] if stage["id"] == "source"]
    assert stage["runs_in"] == "twice", "one task computes both: nothing moves"


def test_what_two_operators_read_is_not_chained() -> None:
    job = chain(source(2), op(T.MAP, "a", 2, sql="FROM input"))
    job.add_operator(op(T.MAP, "b", 2, sql="FROM input"))
    job.connect("source", "b")
    tasks = job.to_execution_graph().tasks
    assert {task.runs_in for task in tasks if task.operator_id == "source"} == {"source_0", "source_1"}


def test_without_keys_other_numbers_of_tasks_are_rebalanced() -> None:
    """FORWARD from 3 to 2 would leave the third task's rows unread."""
    job = chain(source(3), op(T.MAP, "all", 2, sql="SELECT v FROM input"))
    assert kinds(job) == [REBALANCE]
    assert len(job.to_execution_graph().connections("edge_1")) == 6
    assert sum(answer(job).values()) == 5000


def test_equal_parallelism_is_no_reason_to_keep_keyed_rows_where_they_are() -> None:
    """FORWARD would count each key once for each of the three tasks: 21 rows for 7."""
    job = chain(source(3), per_key(parallelism=3))
    assert kinds(job) == [HASH]
    assert len(job.to_execution_graph().connections("edge_1")) == 9
    assert answer(job) == Counter((k, 5000 // 7 + (k < 5000 % 7)) for k in range(7))


def test_rows_that_lie_by_the_key_already_do_not_move_again() -> None:
    more = op(T.GROUP_BY, "again", 3, key_by=["k"], sql="SELECT k, max(n) AS n FROM input GROUP BY k")
    job = chain(source(), per_key(), more)
    assert kinds(job) == [HASH, FORWARD]
    assert answer(job) == Counter((k, 5000 // 7 + (k < 5000 % 7)) for k in range(7))


def test_by_a_part_of_the_keys_is_enough() -> None:
    both = op(T.GROUP_BY, "both", 3, key_by=["k", "j"], aggregates={"n": "count(*)"})
    job = chain(source(), op(T.MAP, "by_k", 3, key_by=["k"], sql="FROM input"), both)
    assert kinds(job) == [HASH, FORWARD]
    assert answer(job) == Counter(
        (k, j, sum(i % 7 == k and i % 3 == j for i in range(5000))) for k in range(7) for j in range(3)
    )


def test_by_more_than_the_keys_is_not() -> None:
    """Rows of one k lie in several tasks, by their j: FORWARD would give a k several times."""
    both = op(T.GROUP_BY, "both", 3, key_by=["k", "j"], aggregates={"n": "count(*)"})
    fewer = op(T.GROUP_BY, "fewer", 3, key_by=["k"], aggregates={"n": "sum(n)::BIGINT"})
    job = chain(source(), both, fewer)
    assert kinds(job) == [HASH, HASH]
    assert answer(job) == Counter((k, 5000 // 7 + (k < 5000 % 7)) for k in range(7))


def test_in_another_number_of_parts_is_not() -> None:
    """Part i of 2 is not part i of 3."""
    more = op(T.GROUP_BY, "again", 2, key_by=["k"], aggregates={"n": "count(*)"})
    job = chain(source(), per_key(), more)
    assert kinds(job) == [HASH, HASH]
    assert answer(job) == Counter((k, 1) for k in range(7))


@pytest.mark.parametrize(
    "changed",
    [
        "SELECT k % 2 AS k, n FROM input",
        "SELECT * REPLACE (k % 2 AS k) FROM input",
        "SELECT * EXCLUDE (k), k % 2 AS k FROM input",
        "SELECT n AS k, k AS n FROM input",
        "WITH x AS (SELECT k % 2 AS k, n FROM input) SELECT * FROM x",
        "SELECT k, n FROM (SELECT k % 2 AS k, n FROM input)",
        "SELECT k % 2 AS K, n FROM input",
    ],
)
def test_a_key_that_was_computed_anew_is_another_key(changed: str) -> None:
    """The name is the same and the rows lie by what it was before: FORWARD would give 0 and 1 once for each task."""
    counted = op(T.GROUP_BY, "sums", 3, key_by=["k"], sql="SELECT k, count(*) AS c FROM input GROUP BY k")
    job = chain(source(), per_key(), op(T.MAP, "changed", 3, sql=changed), counted)
    if "AS K" in changed:
        with pytest.raises(JobError, match="key 'k' is no column"), sabot_sql.connect(agents=2) as session:
            session.run_job(job)
        return
    assert kinds(job) == [HASH, FORWARD, HASH]
    assert len(answer(job)) == len(list(answer(job).elements()))


@pytest.mark.parametrize(
    "kept", ["FROM input", "SELECT k, n + 1 AS n FROM input", "SELECT i.* FROM input i WHERE n > 0"]
)
def test_a_key_that_passes_through_stays_the_same_key(kept: str) -> None:
    counted = op(T.GROUP_BY, "sums", 3, key_by=["k"], aggregates={"c": "count(*)"})
    job = chain(source(), per_key(), op(T.MAP, "kept", 3, sql=kept), counted)
    assert kinds(job) == [HASH, FORWARD, FORWARD]
    assert answer(job) == Counter((k, 1) for k in range(7))


def test_more_parts_than_tasks_are_no_tasks_yet() -> None:
    """With max_parallelism the rows lie in 8 parts, shared by 3 tasks: 3 other tasks need not share them alike."""
    job = chain(source(), per_key(max_parallelism=8), per_key("again"))
    assert kinds(job) == [HASH, HASH]
    assert edges(job)[0].partitions == 8
    assert answer(job) == Counter((k, 1) for k in range(7))


def test_one_task_needs_no_keys() -> None:
    job = chain(source(3), per_key(parallelism=1))
    assert kinds(job) == [REBALANCE]
    assert len(answer(job)) == 7


def test_a_sort_is_by_ranges() -> None:
    """HASH or REBALANCE would sort each task's rows and mix them."""
    rows = pa.table({"v": [(i * 7919) % 100_003 for i in range(50_000)]})
    job = chain(
        op(T.SOURCE, "source", 2, source=rows), op(T.SORT, "sorted", 3, order_by=["v DESC"]), op(T.SINK, "out", 3)
    )
    assert kinds(job) == [RANGE, FORWARD]
    with sabot_sql.connect(agents=2) as session:
        result = session.run_job(job)
        assert [v for (v,) in result.fetchall()] == sorted(rows["v"].to_pylist(), reverse=True)
        (stage,) = [s for s in result.plan.json()["stages"] if s["id"] == "sorted"]
    assert len(stage["tasks"]) == 3


def joined(how: str = "inner", *, big: int = 3, declared: bool = False, names: Any = NAMES, sql: str = "") -> JobGraph:
    job = JobGraph("join")
    job.add_operator(source(big))
    job.add_operator(op(T.SOURCE, "names", 1, source=names))
    more: dict[str, Any] = {"sql": sql} if sql else {"how": how}
    job.add_operator(op(T.JOIN, "join", 3, key_by=["k"], **more))
    job.connect("source", "join", name="rows_of")
    job.connect("names", "join", name="names", broadcast=declared)
    return job


def expected_join(how: str) -> Counter[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect() as plain:
        plain.register("rows_of", ROWS)
        plain.register("names", NAMES)
        return Counter(plain.execute(f"SELECT * FROM rows_of {how} JOIN names USING (k)").fetchall())


@pytest.mark.parametrize("how", ["inner", "left", "semi", "anti"])
def test_a_small_side_is_copied(how: str) -> None:
    job = joined(how)
    assert kinds(job) == [FORWARD, BROADCAST]
    assert "measured" in edges(job)[1].reason
    assert answer(job) == expected_join(how)


@pytest.mark.parametrize("form", ["arrow", "pandas", "polars", "parquet", "glob", "files", "csv"])
def test_a_side_is_measured_in_memory_and_in_files(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(NAMES, tmp_path / "names.parquet")
    NAMES.to_pandas().to_csv(tmp_path / "names.csv", index=False)
    names = {
        "arrow": NAMES,
        "pandas": NAMES.to_pandas(),
        "polars": pl.DataFrame(NAMES),
        "parquet": tmp_path / "names.parquet",
        "glob": f"{tmp_path}/*.parquet",
        "files": [tmp_path / "names.parquet"],
        "csv": str(tmp_path / "names.csv"),
    }[form]
    job = joined("left", names=names)
    assert kinds(job) == [FORWARD, BROADCAST]
    assert answer(job) == expected_join("left")
    monkeypatch.setattr(shuffle_detection, "SMALL_BYTES", 1)
    assert kinds(job) == [HASH, HASH], "it is not small any more"
    assert answer(job) == expected_join("left")


@pytest.mark.parametrize("given", ["no/such.parquet", "a_table", "SELECT 1 AS k", [], 3, object(), "no/such*.csv"])
def test_what_cannot_be_measured_is_not_small(given: object) -> None:
    assert size_bytes(given) is None


@pytest.mark.parametrize("how", ["right", "full"])
def test_a_small_side_whose_unmatched_rows_count_is_not(how: str) -> None:
    """Copied, 'nobody' would come once for each of three tasks."""
    job = joined(how)
    assert kinds(job)[1] is not BROADCAST
    assert answer(job) == expected_join(how)
    assert sum(n for row, n in answer(job).items() if "nobody" in row) == 1


def test_sides_that_were_not_measured_are_hashed() -> None:
    """FORWARD would join the rows of a key to those of the same task only."""
    job = JobGraph("join")
    job.add_operator(op(T.SOURCE, "left", 3, sql="SELECT range AS i, range % 5 AS k FROM range(1000)"))
    job.add_operator(op(T.SOURCE, "right", 3, sql="SELECT range % 5 AS k, range AS j FROM range(20)"))
    job.add_operator(op(T.HASH_JOIN, "join", 3, key_by=["k"]))
    job.connect("left", "join")
    job.connect("right", "join")
    assert kinds(job) == [HASH, HASH]
    assert answer(job) == Counter((i, i % 5, j) for i in range(1000) for j in range(20) if j % 5 == i % 5)


def test_a_side_declared_small_is_copied() -> None:
    sql = "SELECT rows_of.k, rows_of.v, name FROM rows_of JOIN names ON names.k = rows_of.k"
    job = joined(sql=sql, declared=True)
    assert kinds(job) == [FORWARD, BROADCAST]
    assert "declared" in edges(job)[1].reason
    assert sum(answer(job).values()) == sum(i % 7 < 3 for i in range(5000))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM rows_of RIGHT JOIN names USING (k)",
        "SELECT * FROM rows_of FULL JOIN names USING (k)",
        "SELECT * FROM names LEFT JOIN rows_of USING (k)",
        "SELECT k FROM names",
        "SELECT k FROM rows_of UNION ALL SELECT k FROM names",
        "SELECT * FROM rows_of JOIN (SELECT * FROM names) x USING (k)",
    ],
)
def test_a_declaration_that_would_double_rows_is_refused(sql: str) -> None:
    with pytest.raises(JobError, match="once for each of 3 tasks") as caught:
        joined(sql=sql, declared=True).to_execution_graph()
    assert caught.value.code == "BROADCAST"


def test_sides_whose_keys_have_other_types_are_refused() -> None:
    """hash(1::INTEGER) is not hash(1::BIGINT): rows that are equal in SQL would never meet."""
    job = JobGraph("join")
    job.add_operator(op(T.SOURCE, "a", 1, sql="SELECT range AS k FROM range(10)"))
    job.add_operator(op(T.SOURCE, "b", 1, sql="SELECT range::INTEGER AS k FROM range(10)"))
    job.add_operator(op(T.JOIN, "join", 2, key_by=["k"]))
    job.connect("a", "join")
    job.connect("b", "join")
    with (
        sabot_sql.connect(agents=2) as session,
        pytest.raises(JobError, match="BIGINT on one side and INTEGER") as caught,
    ):
        session.run_job(job)
    assert caught.value.code == "KEY_TYPES_DIFFER"


def test_the_fraud_pipeline_has_27_tasks_and_its_connections() -> None:
    job = chain(
        op(T.SOURCE, "source", 10),
        op(T.MAP, "enrich", 10),
        op(T.GROUP_BY, "fraud", 5, stateful=True, key_by=["user_id"]),
        op(T.SINK, "alerts", 2),
    )
    graph = job.to_execution_graph()
    assert len(graph.tasks) == 27
    assert kinds(job) == [FORWARD, HASH, REBALANCE]
    assert [len(graph.connections(edge.edge_id)) for edge in graph.edges] == [10, 50, 10]
    assert {(edge.source, edge.target, edge.keys) for edge in graph.edges} == {
        ("source", "enrich", ()),
        ("enrich", "fraud", ("user_id",)),
        ("fraud", "alerts", ()),
    }
