"""Parquet sinks of several tasks: a file for each, all of them at once, and nothing that is half-written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from sabot_sql import JobGraph, OperatorType, ParquetFile, ParquetFiles, Session, SessionTable, StreamOperatorNode
from sabot_sql.call import staged_files
from sabot_sql.errors import JobError, QueryCancelled, QueryError, SourceError

T = OperatorType
ROWS = pa.table({"id": range(3000), "k": [i % 7 for i in range(3000)], "s": [f"s{i % 5}" for i in range(3000)]})
SLOW = "SELECT *, (SELECT count(*) FROM range(3_000_000_000) r WHERE r.range = id) AS n FROM input"


def op(kind: OperatorType, name: str, parallelism: int = 1, **more: Any) -> StreamOperatorNode:
    return StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **more)


def chain(*nodes: StreamOperatorNode) -> JobGraph:
    job = JobGraph("files")
    for node in nodes:
        job.add_operator(node)
    for before, after in pairwise(nodes):
        job.connect(before.operator_id, after.operator_id)
    return job


def source(parallelism: int = 3) -> StreamOperatorNode:
    return op(T.SOURCE, "source", parallelism, source=ROWS)


@pytest.fixture(scope="module", params=["thread", "process"])
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with sabot_sql.connect(agents=2, isolation=request.param, memory_limit="1GiB") as opened:
        yield opened


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def parts(count: int) -> list[str]:
    return [f"part-{i:05d}.parquet" for i in range(count)]


def read(folder: Path) -> Counter[tuple[object, ...]]:
    return Counter(duckdb.sql(f"FROM read_parquet('{folder}/*.parquet')").fetchall())


@pytest.mark.parametrize("name", ["out.parquet", "out/"])
@pytest.mark.parametrize("tasks", [2, 3, 7])
def test_each_task_writes_a_file(session: Session, tmp_path: Path, name: str, tasks: int) -> None:
    result = session.run_job(chain(source(), op(T.SINK, "files", tasks, sink=f"{tmp_path}/{name}")))
    folder = tmp_path / name
    assert result.fetchall() == [("files", str(folder), 3000)]
    assert result.stats["sinks"] == {"files": 3000}
    assert names(tmp_path) == [folder.name, *(f"{folder.name}/{part}" for part in parts(tasks))]
    assert read(folder) == Counter(duckdb.sql("FROM ROWS").fetchall())
    counts = [pq.read_metadata(path).num_rows for path in sorted(folder.iterdir())]
    assert max(counts) - min(counts) <= 3000 // 3, "rows were dealt evenly"
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~_mask(tmp_path)}


def _mask(folder: Path) -> int:
    (folder / "probe").touch()
    mode = (folder / "probe").stat().st_mode & 0o777
    (folder / "probe").unlink()
    return 0o666 & ~mode


def test_one_task_writes_a_file_or_a_directory_of_one(session: Session, tmp_path: Path) -> None:
    session.run_job(chain(source(), op(T.SINK, "one", sink=tmp_path / "one.parquet")))
    session.run_job(chain(source(), op(T.SINK, "folder", sink=f"{tmp_path}/folder/")))
    session.run_job(chain(source(), op(T.SINK, "said", 2, sink=ParquetFile(tmp_path / "said.parquet"))))
    session.run_job(chain(source(), op(T.SINK, "too", 1, sink=ParquetFiles(tmp_path / "too"))))
    assert names(tmp_path) == ["folder", "folder/part-00000.parquet", "one.parquet", "said.parquet", "too",
                               "too/part-00000.parquet"]  # fmt: skip
    for path in ("one.parquet", "folder/part-00000.parquet", "said.parquet", "too/part-00000.parquet"):
        assert pq.read_metadata(tmp_path / path).num_rows == 3000


def test_a_sorted_job_is_sorted_file_by_file(session: Session, tmp_path: Path) -> None:
    order = op(T.SORT, "sorted", 3, order_by=["k DESC", "id"])
    session.run_job(chain(source(), order, op(T.SINK, "files", 3, sink=tmp_path / "out.parquet")))
    rows = [
        row for path in sorted((tmp_path / "out.parquet").iterdir()) for row in duckdb.sql(f"FROM '{path}'").fetchall()
    ]
    assert rows == duckdb.sql("FROM ROWS ORDER BY k DESC, id").fetchall()


def test_tasks_without_rows_write_files_that_say_their_columns(session: Session, tmp_path: Path) -> None:
    none = op(T.FILTER, "none", 3, where="id < 0")
    result = session.run_job(chain(source(), none, op(T.SINK, "files", 3, sink=tmp_path / "out.parquet")))
    assert result.fetchall()[0][2] == 0
    assert names(tmp_path / "out.parquet") == parts(3)
    assert duckdb.sql(f"FROM '{tmp_path}/out.parquet/*.parquet'").columns == ["id", "k", "s"]


TYPES = """
    SELECT id, 170141183460469231731687303715884105727::HUGEINT - id AS h, INTERVAL (id) SECOND AS span,
           [id, NULL] AS list, {'a': id, 'b': 'x' || id} AS both, 1.5::DECIMAL(20, 3) * id AS d,
           UUID '11111111-0000-0000-0000-000000000000' AS u, DATE '2026-01-01' + CAST(id AS INTEGER) AS day,
           'x' AS "a ""quoted"" name"
    FROM input
"""


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside another sink"])
def test_types_are_those_of_a_copy(session: Session, tmp_path: Path, beside: bool) -> None:
    job = chain(source(), op(T.MAP, "typed", 2, sql=TYPES), op(T.SINK, "files", 2, sink=tmp_path / "out.parquet"))
    if beside:
        job.add_operator(op(T.SINK, "other", sink=SessionTable(f"other_{session.isolation}")))
        job.connect("typed", "other")
    session.run_job(job)
    duckdb.sql(f"COPY ({TYPES.replace('FROM input', 'FROM ROWS')}) TO '{tmp_path}/expected.parquet'")
    for sql in ("SELECT column_name, column_type FROM (DESCRIBE FROM '{}')", "FROM '{}' ORDER BY id"):
        expected = duckdb.sql(sql.format(f"{tmp_path}/expected.parquet")).fetchall()
        assert duckdb.sql(sql.format(f"{tmp_path}/out.parquet/*.parquet")).fetchall() == expected


def test_several_sinks_write_their_own_files(session: Session, tmp_path: Path) -> None:
    job = JobGraph("several")
    job.add_operator(source())
    for name, tasks, where in (("even", 3, "id % 2 = 0"), ("odd", 2, "id % 2 = 1"), ("none", 2, "id < 0")):
        job.add_operator(op(T.FILTER, f"{name}_rows", tasks, where=where))
        job.add_operator(op(T.SINK, name, tasks, sink=tmp_path / f"{name}.parquet"))
        job.connect("source", f"{name}_rows")
        job.connect(f"{name}_rows", name)
    result = session.run_job(job)
    assert [(sink, rows) for sink, _, rows in result.fetchall()] == [("even", 1500), ("odd", 1500), ("none", 0)]
    for name, tasks, where in (("even", 3, "id % 2 = 0"), ("odd", 2, "id % 2 = 1"), ("none", 2, "id < 0")):
        assert names(tmp_path / f"{name}.parquet") == parts(tasks)
        assert read(tmp_path / f"{name}.parquet") == Counter(duckdb.sql(f"FROM ROWS WHERE {where}").fetchall())
        wrote = result.stats["operators"][name]
        counts = [pq.read_metadata(tmp_path / f"{name}.parquet" / part).num_rows for part in parts(tasks)]
        assert counts == [wrote[f"{name}_{task}"]["rows"] for task in range(tasks)], "each has the rows of its task"


# --- what is there already


def test_a_second_run_takes_the_place_of_the_first(session: Session, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    for tasks, where in ((5, "true"), (2, "id < 100"), (1, "id < 10"), (3, "id < 1000")):
        node = op(T.SINK, "files", tasks, sink=target, sql=f"FROM input WHERE {where}")
        session.run_job(chain(source(), node))
        expected = duckdb.sql(f"FROM ROWS WHERE {where}").fetchall()
        if tasks == 1:
            assert names(tmp_path) == ["out.parquet"]
            assert Counter(duckdb.sql(f"FROM '{target}'").fetchall()) == Counter(expected)
        else:
            assert names(target) == parts(tasks)
            assert read(target) == Counter(expected)
        assert len(list(tmp_path.iterdir())) == 1


def test_without_an_exchange_of_names_as_well(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(staged_files, "_exchanged", lambda *_: False)
    old, new = tmp_path / "old", tmp_path / "new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "part-00000.parquet").write_text(folder.name)
    staged_files.reveal(new, old)
    assert names(tmp_path) == ["old", "old/part-00000.parquet"]
    assert (old / "part-00000.parquet").read_text() == "new"


@pytest.mark.parametrize("tasks", [1, 2])
def test_a_directory_of_others_is_left_alone(session: Session, tmp_path: Path, tasks: int) -> None:
    (tmp_path / "out.parquet").mkdir()
    (tmp_path / "out.parquet" / "mine").write_text("before")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.parquet").symlink_to(tmp_path / "elsewhere")
    before = names(tmp_path)
    for name in ("out.parquet", "link.parquet"):
        with pytest.raises(SourceError, match="files of others"):
            session.run_job(chain(source(), op(T.SINK, "files", tasks, sink=tmp_path / name)))
    assert names(tmp_path) == before


def test_what_somebody_puts_there_meanwhile_is_left_alone(session: Session, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"

    def meanwhile(batch: pa.RecordBatch) -> pa.RecordBatch:
        target.mkdir(exist_ok=True)
        (target / "mine").write_text("kept")
        return batch

    somebody = op(T.MAP, "somebody", 1, function=meanwhile, schema=ROWS.schema)
    with pytest.raises(SourceError, match="not empty"):
        session.run_job(chain(source(1), somebody, op(T.SINK, "files", 2, sink=target)))
    assert names(tmp_path) == ["out.parquet", "out.parquet/mine"]


# --- failures


def test_a_failure_leaves_what_was_there(session: Session, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    session.run_job(chain(source(), op(T.SINK, "files", 2, sink=target)))
    late = op(
        T.SINK,
        "files",
        3,
        sink=target,
        sql="SELECT CASE WHEN id > 2990 THEN error('late') ELSE id END AS id FROM input",
    )
    with pytest.raises(QueryError, match="late"):
        session.run_job(chain(source(), late))
    assert names(tmp_path) == ["out.parquet", *(f"out.parquet/{part}" for part in parts(2))]
    assert read(target).total() == 3000


def test_a_cancelled_job_leaves_nothing(session: Session, tmp_path: Path) -> None:
    def stop(plan: Mapping[str, Any]) -> None:
        if any(task["state"] == "running" for stage in plan["stages"] for task in stage["tasks"]):
            session.cancel()

    with pytest.raises(QueryCancelled):
        session.run_job(chain(source(), op(T.SINK, "files", 2, sink=tmp_path / "out.parquet", sql=SLOW)), observer=stop)
    assert names(tmp_path) == []
    session.run_job(chain(source(), op(T.SINK, "files", 2, sink=tmp_path / "out.parquet")))
    assert read(tmp_path / "out.parquet").total() == 3000


def test_a_task_that_runs_again_counts_once(tmp_path: Path) -> None:
    slow = "SELECT id, (SELECT count(*) FROM range(200_000_000) r WHERE r.range = id % 2) AS n FROM input"
    killed: list[int] = []

    def kill(plan: Mapping[str, Any]) -> None:
        states = [t["state"] for stage in plan["stages"] if stage["id"] == "files" for t in stage["tasks"]]
        if "running" in states and not killed:
            agents = [
                child for child in psutil.Process().children(recursive=True) if "agent" in " ".join(child.cmdline())
            ]
            killed.append(agents[0].pid)
            os.kill(agents[0].pid, signal.SIGKILL)

    with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB") as session:
        job = chain(source(), op(T.SINK, "files", 4, sink=tmp_path / "out.parquet", sql=slow))
        result = session.run_job(job, observer=kill)
    assert killed
    assert result.fetchall()[0][2] == 3000
    assert names(tmp_path / "out.parquet") == parts(4)
    ids = duckdb.sql(f"SELECT count(*), count(DISTINCT id), min(n) FROM '{tmp_path}/out.parquet/*.parquet'").fetchall()
    assert ids == [(3000, 3000, 1)]


KILLED = """
import os, signal, sys
import sabot_sql
from tests.jobs.test_parquet_sinks import SLOW, T, chain, op, source

def die(plan):
    if any(task["state"] == "running" for stage in plan["stages"] for task in stage["tasks"]):
        os.kill(os.getpid(), signal.SIGKILL)

with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB") as session:
    session.run_job(chain(source(), op(T.SINK, "files", 2, sink=sys.argv[1], sql=SLOW)), observer=die)
"""


def test_what_a_killed_session_has_begun_is_hidden_and_goes_with_the_next(
    session: Session, tmp_path: Path, repository: Path
) -> None:
    target = tmp_path / "out.parquet"
    run = subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=repository, check=False, timeout=100)
    assert run.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".out.parquet.")
    session.run_job(chain(source(), op(T.SINK, "files", 2, sink=target)))
    assert names(tmp_path) == ["out.parquet", *(f"out.parquet/{part}" for part in parts(2))]


def test_hidden_names_of_the_living_and_of_other_hosts_stay(tmp_path: Path) -> None:
    own = staged_files.staged(tmp_path / "a")
    foreign = [own, tmp_path / ".a.00000000-1-1-ab.tmp", tmp_path / ".ab.tmp", tmp_path / f"{own.name}.more"]
    dead = tmp_path / own.name.replace(f"-{os.getpid()}-", "-4194999-")
    for path in (*foreign, dead):
        path.touch()
    staged_files.staged(tmp_path / "a")
    assert not dead.exists()
    assert all(path.exists() for path in foreign)


# --- what is refused before anything runs


@pytest.mark.parametrize(
    ("sink", "tasks", "error", "words"),
    [
        ("rows", 2, JobError, 'for a directory give "rows/"'),
        ("rows.csv", 2, JobError, "does not end in .parquet"),
        (b"rows.parquet", 2, JobError, "sink is a bytes"),
        ("/no/such/place/rows/", 1, SourceError, "no directory /no/such/place"),
        ("/no/such/place/rows.parquet", 2, SourceError, "no directory /no/such/place"),
        (3, 2, JobError, "sink is a int"),
    ],
)
def test_what_cannot_be_written_is_refused(
    session: Session, sink: object, tasks: int, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        session.run_job(chain(source(), op(T.SINK, "files", tasks, sink=sink)))


def test_two_sinks_of_one_place_are_refused(tmp_path: Path) -> None:
    job = chain(source(), op(T.SINK, "a", 2, sink=f"{tmp_path}/x.parquet"))
    job.add_operator(op(T.SINK, "b", sink=ParquetFiles(tmp_path / "x.parquet")))
    job.connect("source", "b")
    with pytest.raises(JobError, match="both write"):
        job.validate()
