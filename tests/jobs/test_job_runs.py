"""Job graphs run on sessions of every kind: sources, operators, functions, sinks, and every way to fail."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import (
    JobError,
    JobGraph,
    OperatorError,
    OperatorType,
    QueryCancelled,
    QueryError,
    Session,
    SessionTable,
    SourceError,
    StreamOperatorNode,
    ValueFailure,
)

T = OperatorType
KINDS = [(1, "thread"), (2, "thread"), (2, "process")]
ROWS = pa.table(
    {
        "id": list(range(2000)),
        "k": [None if i % 13 == 0 else i % 7 for i in range(2000)],
        "v": [i % 97 for i in range(2000)],
    }
)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]} {kind[1]}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    agents, isolation = request.param
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="1GiB") as opened:
        yield opened


@pytest.fixture(scope="module")
def threads() -> Iterator[Session]:
    with sabot_sql.connect(agents=2) as opened:
        yield opened


def op(kind: OperatorType, name: str, parallelism: int = 1, **more: Any) -> StreamOperatorNode:
    return StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **more)


def chain(*nodes: StreamOperatorNode) -> JobGraph:
    job = JobGraph("job")
    for node in nodes:
        job.add_operator(node)
    for before, after in itertools.pairwise(nodes):
        job.connect(before.operator_id, after.operator_id)
    return job


def plain(sql: str, **tables: Any) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(sql).fetchall()


def source(parallelism: int = 2, **more: Any) -> StreamOperatorNode:
    return op(T.SOURCE, "source", parallelism, **({"source": ROWS} | more))


def same(session: Session, job: JobGraph, sql: str, **tables: Any) -> None:
    result = session.run_job(job)
    assert Counter(result.fetchall()) == Counter(plain(sql, **{"input": ROWS, **tables}))


# --- sources


def files(tmp_path: Path) -> Mapping[str, Any]:
    pq.write_table(ROWS.slice(0, 700), tmp_path / "a.parquet", row_group_size=100)
    pq.write_table(ROWS.slice(700), tmp_path / "b.parquet", row_group_size=100)
    (tmp_path / "rows.csv").write_text("id,k\n1,2\n3,\n")
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "k": 2}\n{"id": 3, "k": null}\n')
    return {
        "glob": str(tmp_path / "*.parquet"),
        "path": tmp_path / "a.parquet",
        "list": [str(tmp_path / "a.parquet"), tmp_path / "b.parquet"],
        "csv": str(tmp_path / "rows.csv"),
        "json": str(tmp_path / "rows.jsonl"),
        "sql": f"SELECT id, k FROM '{tmp_path}/a.parquet' WHERE id % 2 = 0",
        "grouped": f"SELECT k, count(*) AS n FROM '{tmp_path}/*.parquet' GROUP BY k",
        "limited": f"SELECT id FROM '{tmp_path}/a.parquet' ORDER BY id DESC LIMIT 5",
        "made": "SELECT range AS i FROM range(1000)",
        "no table": "SELECT 42 AS answer",
    }


EXPECTED_OF = {
    "glob": "FROM '{0}/*.parquet'",
    "path": "FROM '{0}/a.parquet'",
    "list": "FROM '{0}/*.parquet'",
    "csv": "FROM '{0}/rows.csv'",
    "json": "FROM '{0}/rows.jsonl'",
}


@pytest.mark.parametrize("parallelism", [1, 3])
def test_files_and_selects_are_sources(session: Session, tmp_path: Path, parallelism: int) -> None:
    for name, given in files(tmp_path).items():
        job = chain(op(T.SOURCE, "source", parallelism, source=given), op(T.SINK, "out", 2))
        expected = EXPECTED_OF.get(name, str(given)).format(tmp_path)
        assert Counter(session.run_job(job).fetchall()) == Counter(plain(expected)), name


def test_tables_of_the_session_and_of_the_program_are_sources(session: Session) -> None:
    session.execute("CREATE OR REPLACE TABLE kept AS SELECT range AS i FROM range(500)")
    frame = ROWS.to_pandas()
    for given, sql, tables in (
        ("kept", "SELECT range FROM range(500)", {}),
        (ROWS, "FROM input", {}),
        (frame, "FROM frame", {"frame": frame}),
        (ROWS.to_batches(max_chunksize=100)[0], "FROM input LIMIT 100", {}),
        (ROWS.slice(0, 0), "FROM input WHERE false", {}),
        (pa.RecordBatchReader.from_batches(ROWS.schema, ROWS.to_batches()), "FROM input", {}),
        ((batch for batch in ROWS.to_batches(max_chunksize=300)), "FROM input", {}),
    ):
        job = chain(op(T.SOURCE, "source", 3, source=given), op(T.MAP, "all", 3, sql="FROM input"))
        same(session, job, sql, **tables)


def numbered(task: int, tasks: int) -> Iterator[pa.RecordBatch]:
    for begin in range(task * 100, 1000, tasks * 100):
        yield pa.RecordBatch.from_pydict({"i": list(range(begin, begin + 100))})


def test_generators_are_sources(session: Session) -> None:
    job = chain(op(T.SOURCE, "source", 4, source=numbered), op(T.MAP, "all", 4, sql="SELECT i FROM input"))
    assert Counter(session.run_job(job).fetchall()) == Counter((i,) for i in range(1000))
    job = chain(op(T.SOURCE, "source", 4, source=lambda: numbered(0, 1)), op(T.MAP, "all", 4, sql="FROM input"))
    assert Counter(session.run_job(job).fetchall()) == Counter((i,) for i in range(1000))
    assert Counter(session.run_job(job).fetchall()) == Counter((i,) for i in range(1000)), "it is called anew"


# --- operators


def test_operators_say_what_sql_says(session: Session) -> None:
    small = pa.table({"k": [0, 1, 2, 50], "name": ["a", "b", "c", "d"]})
    for node, sql in (
        (op(T.MAP, "o", 2, sql="SELECT id, v * 2 AS w FROM input"), "SELECT id, v * 2 FROM input"),
        (op(T.SELECT, "o", 3, sql="SELECT id FROM input -- a comment"), "SELECT id FROM input"),
        (op(T.FILTER, "o", 2, where="v > 50 OR k IS NULL"), "FROM input WHERE v > 50 OR k IS NULL"),
        (op(T.FLAT_MAP, "o", 2, sql="SELECT id, unnest(range(v % 3)) AS i FROM input"),
         "SELECT id, unnest(range(v % 3)) FROM input"),
        (op(T.GROUP_BY, "o", 3, key_by=["k"], aggregates={"n": "count(*)", "m": "max(v)"}),
         "SELECT k, count(*), max(v) FROM input GROUP BY k"),
        (op(T.AGGREGATE, "o", aggregates={"n": "count(*)"}), "SELECT count(*) FROM input"),
        (op(T.REDUCE, "o", 2, key_by="k", sql="SELECT k, sum(v)::BIGINT AS s FROM input GROUP BY k"),
         "SELECT k, sum(v)::BIGINT FROM input GROUP BY k"),
        (op(T.WINDOW, "o", 2, key_by=["k"], sql="SELECT id, rank() OVER (PARTITION BY k ORDER BY id) AS r FROM input"),
         "SELECT id, rank() OVER (PARTITION BY k ORDER BY id) FROM input"),
        (op(T.MAP, "o", 2, sql="WITH x AS (SELECT * FROM input) SELECT a.id FROM x a JOIN x b USING (id)"),
         "SELECT id FROM input"),
        (op(T.MAP, "o", 2, tables={"small": small}, sql="SELECT id, name FROM input LEFT JOIN small USING (k)"),
         "SELECT id, name FROM input LEFT JOIN small USING (k)"),
        (op(T.MAP, "o", 2, tables={"small": small}, sql="SELECT id FROM input WHERE k IN (SELECT k FROM small)"),
         "SELECT id FROM input WHERE k IN (SELECT k FROM small)"),
    ):  # fmt: skip
        same(session, chain(source(), node, op(T.SINK, "out", 2)), sql, small=small)


def test_distinct(session: Session) -> None:
    few = "SELECT k, v % 2 AS w FROM input"
    job = chain(source(), op(T.MAP, "few", 2, sql=few), op(T.DISTINCT, "o", 3))
    same(session, job, f"SELECT DISTINCT * FROM ({few})")
    job = chain(source(), op(T.MAP, "few", 2, sql=few), op(T.DISTINCT, "o", 3, key_by=["k"]))
    assert Counter(k for k, _ in session.run_job(job).fetchall()) == Counter([None, *range(7)])


def test_union_keeps_every_row(session: Session) -> None:
    job = JobGraph("union")
    for name, parallelism in (("a", 2), ("b", 3), ("c", 2)):
        job.add_operator(op(T.SOURCE, name, parallelism, source=ROWS))
    job.add_operator(op(T.UNION, "all", 2))
    for name in "abc":
        job.connect(name, "all")
    same(session, job, "FROM input UNION ALL FROM input UNION ALL FROM input")


@pytest.mark.parametrize("how", ["inner", "left", "right", "full", "semi", "anti"])
def test_joins_of_hashed_sides(session: Session, how: str) -> None:
    job = JobGraph("join")
    job.add_operator(op(T.SOURCE, "a", 2, sql="SELECT range AS i, range % 9 AS k FROM range(300)"))
    job.add_operator(op(T.SOURCE, "b", 3, sql="SELECT range % 12 + 4 AS k, range AS j FROM range(40)"))
    job.add_operator(op(T.JOIN, "join", 3, key_by=["k"], how=how))
    job.connect("a", "join")
    job.connect("b", "join")
    right = "(SELECT range % 12 + 4 AS k, range AS j FROM range(40))"
    sql = f"FROM (SELECT range AS i, range % 9 AS k FROM range(300)) {how} JOIN {right} USING (k)"
    same(session, job, sql)


EVENTS = """
    SELECT range % 5 AS user_id, range AS id,
           TIMESTAMP '2026-01-01' + to_seconds(range * range * 7 % 86400) AS ts FROM range(400)
"""
WINDOWS: dict[OperatorType, tuple[dict[str, str], str]] = {
    T.TUMBLING_WINDOW: (
        {"size": "1 hour"},
        "SELECT user_id, time_bucket(INTERVAL '1 hour', ts) AS w, count(*) FROM events GROUP BY ALL",
    ),
    T.SLIDING_WINDOW: (
        {"size": "1 hour", "slide": "20 minutes"},
        """SELECT user_id, s AS w, count(*) FROM events,
           (SELECT TIMESTAMP '2025-12-31 20:00' + to_minutes(20 * range) AS s FROM range(200))
           WHERE ts >= s AND ts < s + INTERVAL '1 hour' GROUP BY ALL""",
    ),
    T.SESSION_WINDOW: (
        {"gap": "10 minutes"},
        """SELECT user_id, min(ts) AS w, count(*) FROM (
               SELECT *, sum(new) OVER (PARTITION BY user_id ORDER BY ts) AS n FROM (
                   SELECT *, coalesce(ts - lag(ts) OVER (PARTITION BY user_id ORDER BY ts) > INTERVAL '10 minutes',
                                      true)::INT AS new
                   FROM events)) GROUP BY user_id, n""",
    ),
}


@pytest.mark.parametrize("kind", list(WINDOWS))
def test_windows_in_time(session: Session, kind: OperatorType) -> None:
    options, sql = WINDOWS[kind]
    node = op(kind, "w", 3, key_by=["user_id"], time_column="ts", aggregates={"n": "count(*)"}, **options)
    project = op(T.MAP, "shown", 3, sql="SELECT user_id, window_start AS w, n FROM input")
    rows = session.run_job(chain(op(T.SOURCE, "source", 2, sql=EVENTS), node, project)).fetchall()
    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE events AS {EVENTS}")
        assert Counter(rows) == Counter(connection.execute(sql).fetchall())


def test_asof_join(session: Session) -> None:
    job = JobGraph("asof")
    a = "SELECT range % 3 AS k, range::DOUBLE AS t FROM range(100)"
    b = "SELECT range % 3 AS k, range * 7.0::DOUBLE AS t, range AS price FROM range(15)"
    job.add_operator(op(T.SOURCE, "a", 2, sql=a))
    job.add_operator(op(T.SOURCE, "b", 2, sql=b))
    job.add_operator(op(T.ASOF_JOIN, "join", 2, key_by=["k"], time_column="t"))
    job.connect("a", "join")
    job.connect("b", "join")
    same(session, job, f"FROM ({a}) ASOF JOIN ({b}) USING (k, t)")


TYPED = """
    SELECT i AS id, i::HUGEINT * 10000000000000000000 AS huge, (i::VARCHAR)::ENUM('0', '1', '2') AS word, i = 1 AS flag,
           INTERVAL (i) MONTH AS span, [i, NULL] AS list, {'a': i, 'b': [INTERVAL (i) DAY]} AS s, MAP {i: 'x'} AS m,
           '6b4f4a6e-6a4f-4a6e-8a4f-4a6e6a4f4a6e'::UUID AS u, DATE '2026-01-01' + i::INT AS d,
           union_value(n := i) AS un, TIMESTAMPTZ '2026-01-01 00:00:00+00' AS tz,
           (i / 3)::DECIMAL(9, 2) AS money, '1 x'::BLOB AS b, NULL AS nothing
    FROM range(3) r(i)
"""


def test_every_type_passes_all_edges(session: Session) -> None:
    job = chain(
        op(T.SOURCE, "source", 2, sql=TYPED),
        op(T.MAP, "keyed", 2, key_by=["id"], sql="FROM input"),
        op(T.SORT, "sorted", 2, order_by=["word DESC"]),
    )
    result = session.run_job(job)
    with duckdb.connect() as connection:
        expected = connection.sql(f"{TYPED} ORDER BY word DESC")
        assert result.fetchall() == expected.fetchall()
        assert list(result.types) == [str(kind) for kind in expected.types]


# --- Python functions


def test_functions_see_batches_of_their_partition_in_order(session: Session) -> None:
    def running(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.append_column("twice", pc.multiply(batch["id"], 2))

    job = chain(source(1), op(T.MAP, "twice", 1, function=running), op(T.SINK, "out"))
    assert session.run_job(job).fetchall() == plain("SELECT *, id * 2 FROM input", input=ROWS)


def test_functions_filter_and_flatten(session: Session) -> None:
    def pairs(batch: pa.RecordBatch) -> pa.Table:
        ids = pc.filter(batch["id"], pc.equal(pc.bit_wise_and(batch["id"], 1), 0))
        return pa.table({"id": pa.concat_arrays([ids, ids])})

    keep = op(T.FILTER, "keep", 2, function=lambda batch: pc.greater(batch["v"], 50))
    same(session, chain(source(), keep), "FROM input WHERE v > 50")
    flat = op(T.FLAT_MAP, "pairs", 2, function=pairs)
    job = chain(source(), keep, flat, op(T.SORT, "s", 2, order_by=["id"]))
    same(session, job, "SELECT id FROM input, range(2) WHERE v > 50 AND id % 2 = 0")


def test_a_function_sees_booleans_and_gives_them(session: Session) -> None:
    def negated(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.set_column(1, "big", pc.invert(batch["big"]))

    job = chain(
        source(), op(T.MAP, "big", 2, sql="SELECT id, v > 50 AS big FROM input"), op(T.MAP, "not", 2, function=negated)
    )
    result = session.run_job(job)
    assert list(result.types) == ["BIGINT", "BOOLEAN"]
    assert Counter(result.fetchall()) == Counter(plain("SELECT id, NOT v > 50 FROM input", input=ROWS))


def fails(batch: pa.RecordBatch) -> pa.RecordBatch:
    if batch.num_rows and batch["id"][0].as_py() >= 0:
        raise ValueError("not today")
    return batch


def test_what_a_function_raises_comes_with_operator_task_batch_and_key(session: Session) -> None:
    job = chain(source(), op(T.MAP, "bad", 2, key_by=["k"], function=fails))
    with pytest.raises(
        OperatorError, match=r"'bad': its function raised ValueError: not today, in batch 0 of task \d"
    ) as caught:
        session.run_job(job)
    error = caught.value
    assert (error.code, error.operator, error.batch) == ("OPERATOR_FAILED", "bad", 0)
    assert error.task in (0, 1)
    assert error.key is not None
    assert error.key.startswith("k = ")
    assert len(session.run_job(chain(source(), op(T.SINK, "out")))) == 2000, "the agents go on"


@pytest.mark.parametrize(
    ("kind", "function", "words", "code"),
    [
        (T.MAP, lambda b: b.slice(0, min(1, b.num_rows)), "gave 1 rows for", "OPERATOR_FAILED"),
        (T.MAP, lambda b: b.rename_columns(["a", "b", "c"]) if b.num_rows else b, "gave columns", "SCHEMA_CHANGED"),
        (T.FILTER, lambda b: pa.array([True]), "give a boolean for each", "OPERATOR_FAILED"),
        (T.FLAT_MAP, lambda b: b if not b.num_rows else [1], "gave a list", "OPERATOR_FAILED"),
    ],
)
def test_what_a_function_may_not_give(
    threads: Session, kind: OperatorType, function: Any, words: str, code: str
) -> None:
    with pytest.raises(OperatorError, match=words) as caught:
        threads.run_job(chain(source(), op(kind, "bad", 2, function=function)))
    assert caught.value.code == code


def test_a_generator_that_changes_its_columns_is_stopped(threads: Session) -> None:
    def changing() -> Iterator[pa.RecordBatch]:
        yield pa.RecordBatch.from_pydict({"i": [1]})
        yield pa.RecordBatch.from_pydict({"i": ["one"]})

    with pytest.raises(
        OperatorError, match=r"gave columns \(i string\) where there were to be \(i int64\), at batch 1"
    ):
        threads.run_job(chain(op(T.SOURCE, "source", source=changing), op(T.SINK, "out")))


def test_a_function_that_cannot_take_an_empty_batch_needs_a_schema(threads: Session) -> None:
    def first(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_pydict({"first": [batch["id"][0].as_py()]})

    with pytest.raises(JobError, match="failed on a batch without rows") as caught:
        threads.run_job(chain(source(), op(T.FLAT_MAP, "first", function=first)))
    assert caught.value.code == "SCHEMA_UNKNOWN"
    told = op(T.FLAT_MAP, "first", function=first, schema=pa.schema([("first", pa.int64())]))
    assert len(threads.run_job(chain(source(1), told))) >= 1


# --- sinks


def test_sinks_write_files_tables_and_functions_at_once(session: Session, tmp_path: Path) -> None:
    seen: list[pa.RecordBatch] = []
    job = JobGraph("sinks")
    job.add_operator(source())
    job.add_operator(op(T.FILTER, "small", 2, where="v < 10"))
    job.add_operator(op(T.SINK, "file", sink=tmp_path / "small.parquet"))
    job.add_operator(op(T.SINK, "table", 2, sink=SessionTable("small_rows")))
    job.add_operator(op(T.SINK, "told", sink=seen.append, sql="SELECT id, [v] AS vs FROM input"))
    for edge in ("source>small", "small>file", "small>table", "source>told"):
        job.connect(*edge.split(">"))
    session.execute("DROP TABLE IF EXISTS small_rows")
    result = session.run_job(job)
    small = Counter(plain("FROM input WHERE v < 10", input=ROWS))
    assert [(sink, rows) for sink, _, rows in result.fetchall()] == [
        ("file", small.total()),
        ("table", small.total()),
        ("told", 2000),
    ]
    assert Counter(plain(f"FROM '{tmp_path}/small.parquet'")) == small
    assert Counter(session.query("FROM small_rows").fetchall()) == small
    assert session.query("SELECT column_type FROM (DESCRIBE small_rows)").fetchall() == [("BIGINT",)] * 3
    assert Counter(pa.Table.from_batches(seen)["id"].to_pylist()) == Counter(range(2000))
    assert result.plan.json()["stages"], "what was written has a plan"
    with pytest.raises(JobError, match="'small_rows' is there already"):
        session.run_job(job)


def test_one_sink_may_be_the_result_beside_others(session: Session, tmp_path: Path) -> None:
    job = JobGraph("sinks")
    job.add_operator(source())
    job.add_operator(op(T.SINK, "file", sink=tmp_path / "all.parquet"))
    job.add_operator(op(T.SINK, "rows", sql="SELECT id, INTERVAL (v) DAY AS span FROM input"))
    job.connect("source", "file")
    job.connect("source", "rows")
    result = session.run_job(job)
    assert Counter(result.fetchall()) == Counter(plain("SELECT id, INTERVAL (v) DAY FROM input", input=ROWS))
    assert result.stats["sinks"] == {"file": 2000}


def test_a_job_that_fails_writes_nothing(threads: Session, tmp_path: Path) -> None:
    seen: list[Any] = []
    job = JobGraph("sinks")
    job.add_operator(source())
    job.add_operator(op(T.SINK, "file", sink=tmp_path / "all.parquet"))
    job.add_operator(op(T.SINK, "table", sink=SessionTable("never")))
    job.add_operator(op(T.SINK, "told", sink=seen.append))
    job.add_operator(op(T.MAP, "bad", 2, function=fails))
    job.add_operator(op(T.SINK, "last", sink=SessionTable("never_either")))
    for edge in ("source>file", "source>table", "source>told", "source>bad", "bad>last"):
        job.connect(*edge.split(">"))
    with pytest.raises(OperatorError, match="not today"):
        threads.run_job(job)
    assert list(tmp_path.iterdir()) == []
    assert not seen
    with pytest.raises(QueryError):
        threads.query("FROM never")


# --- what is known before anything runs


@pytest.mark.parametrize(
    ("nodes", "error", "words"),
    [
        ([op(T.GROUP_BY, "g", 2, key_by=["u"], aggregates={"n": "count(*)"})], JobError, "'u' is no column of"),
        ([op(T.SORT, "s", 2, order_by=["nothing DESC"])], JobError, "key 'nothing' is no column"),
        ([op(T.SORT, "s", 2, order_by=["v + 1"])], JobError, "no column with ASC or DESC"),
        ([op(T.MAP, "m", 2, sql="SELECT nothing FROM input")], QueryError, "operator 'm'.*nothing"),
        ([op(T.MAP, "m", 2, sql="SELECT 1 FROM another")], QueryError, "another"),
        ([op(T.MAP, "m", 2, sql="DROP TABLE x")], QueryError, "one SELECT is wanted, not DROP"),
        ([op(T.MAP, "m", 2, sql="FROM input; FROM input")], QueryError, "one SELECT is wanted, not SELECT and SELECT"),
        ([op(T.MAP, "m", 2, sql="SELECT id, id FROM input")], JobError, "gives column 'id' twice"),
        ([op(T.MAP, "m", 2, sql="SELECT id, v AS ID FROM input")], JobError, "gives column 'id' twice"),
        ([op(T.MAP, "m", 2)], JobError, "nothing says what MAP does"),
        ([op(T.GROUP_BY, "g", 2, key_by=["k"])], JobError, "give aggregates or sql"),
        ([op(T.MAP, "m", 2, sql="FROM input", memory_mb=1 << 20)], JobError, "memory_mb=1048576, and an agent"),
        ([op(T.MAP, "m", 2, sql="FROM input", cpu_cores=99)], JobError, "cpu_cores=99"),
        ([op(T.MAP, "m", 2, tables={"t": 3}, sql="FROM input JOIN t USING (k)")], JobError, "source is a int"),
        ([op(T.MAP, "m", 2, tables={"t": ROWS}, sql="FROM input RIGHT JOIN t USING (k)")], JobError, "for each of 2"),
        ([op(T.SINK, "s", sink="rows.csv")], JobError, "does not end in .parquet"),
        ([op(T.SINK, "s", sink="/no/such/place/x.parquet")], SourceError, "no directory"),
        ([op(T.SINK, "s", sink=SessionTable("missing", append=True))], JobError, "no table 'missing'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_runs(
    threads: Session, nodes: list[StreamOperatorNode], error: type[Exception], words: str
) -> None:
    called: list[int] = []

    def watched() -> Iterator[pa.RecordBatch]:
        called.append(1)
        yield from ROWS.to_batches()

    job = chain(op(T.SOURCE, "source", source=watched, schema=ROWS.schema), *nodes)
    with pytest.raises(error, match=words):
        threads.run_job(job)
    assert not called


def test_text_keys_under_a_collation_are_refused() -> None:
    """'a' and 'A' are one group and lie in two parts: they would be counted apart."""
    words = pa.table({"w": ["a", "A", "b"]})
    group = op(T.GROUP_BY, "g", 2, key_by=["w"], aggregates={"n": "count(*)"})
    with sabot_sql.connect(agents=2) as session:
        session.execute("SET default_collation = 'NOCASE'")
        with pytest.raises(JobError, match="default_collation = 'NOCASE'"):
            session.run_job(chain(op(T.SOURCE, "source", 2, source=words), group))


def test_explain_runs_nothing_and_shows_schemas(threads: Session) -> None:
    called: list[int] = []
    job = chain(
        source(), op(T.MAP, "m", 2, sql="SELECT id, v::DOUBLE AS w FROM input"), op(T.SINK, "told", sink=called.append)
    )
    plan = threads.explain(job)
    (stage,) = [stage for stage in plan.json()["stages"] if stage["id"] == "m"]
    assert stage["columns"] == [{"name": "id", "type": "BIGINT"}, {"name": "w", "type": "DOUBLE"}]
    assert "no keys, and 2 tasks at both ends" in plan.text()
    for form in (plan.text(), plan.svg(), plan.html()):
        assert "gives id BIGINT, w DOUBLE" in form
    assert not called


def test_a_job_can_be_cancelled_and_observed(threads: Session) -> None:
    seen: list[Mapping[str, Any]] = []

    def observer(plan: Mapping[str, Any]) -> None:
        seen.append(plan)
        if plan["state"] == "running":
            threads.cancel()

    pairs = "range(10_000_000) a, range(10_000_000) b"
    forever = f"SELECT count(*) AS n FROM {pairs} WHERE a.range + b.range + (SELECT min(id) FROM input) = -1"
    with pytest.raises(QueryCancelled):
        threads.run_job(chain(source(1), op(T.MAP, "m", sql=forever)), observer=observer)
    assert {plan["state"] for plan in seen} >= {"running", "cancelled"}


def test_the_figures_of_a_result_and_of_its_plan_are_the_same(session: Session) -> None:
    group = op(T.GROUP_BY, "g", 3, key_by=["k"], aggregates={"n": "count(*)"})
    result = session.run_job(chain(source(2), group, op(T.SINK, "out", 1)))
    stats, plan = result.stats, result.plan.json()
    assert stats["edges"]["edge_1"]["edge_type"] == "HASH"
    assert stats["edges"]["edge_1"]["rows"] == sum(stats["edges"]["edge_1"]["partition_rows"]) == 2000
    assert len(stats["edges"]["edge_1"]["partition_rows"]) == 3
    assert {task: wrote["rows"] for task, wrote in stats["edges"]["edge_1"]["tasks"].items()} == {"0": 1000, "1": 1000}
    assert stats["edges"]["edge_2"]["rows"] == 8
    tasks = stats["operators"]["g"]
    assert sum(task["rows_in"] for task in tasks.values()) == 2000
    assert sum(task["rows"] for task in tasks.values()) == 8
    names = ("rows", "bytes", "batches", "spilled_bytes", "wait_ms")
    for edge in plan["edges"]:
        figures = stats["edges"][edge["id"]]
        assert {name: edge[name] for name in names} == {name: figures[name] for name in names}
        assert not edge["partial"]
    for stage in plan["stages"]:
        for task in stage["tasks"] if stage["runs_in"] is None else ():
            figures = stats["operators"][stage["id"]][task["id"]]
            wanted = ("agent", "attempt", "rows_in", "elapsed_ms", *names)
            assert {name: task[name] for name in wanted} == {name: figures[name] for name in wanted}
    moved = [figures for edge_id, figures in stats["edges"].items() if edge_id != "result"]
    for name in ("rows", "bytes", "batches"):
        assert stats[f"{name}_shuffled"] == sum(figures[name] for figures in moved)


def test_run_is_run_job(threads: Session) -> None:
    assert len(chain(source(), op(T.SINK, "out")).run(threads)) == 2000


def test_what_sql_fails_on_comes_with_operator_and_task(session: Session) -> None:
    node = op(T.MAP, "cast", 2, sql="SELECT (CASE WHEN id = 77 THEN 'x' ELSE '1' END)::INTEGER AS n FROM input")
    with pytest.raises(
        ValueFailure, match=r"operators? .*'cast': Could not convert string 'x'.*, in task \d"
    ) as caught:
        session.run_job(chain(source(), node))
    assert caught.value.code == "CONVERSION_FAILED"
