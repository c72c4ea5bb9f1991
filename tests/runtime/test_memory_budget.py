"""The budget of a session holds for all its processes together, with what they take before they do anything."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import sabot_sql
from benchmarks.memory import ProcessMemory, tree_memory
from benchmarks.memory_budget import BAR, STATEMENTS, peaks_of
from sabot_sql.config import parse_bytes, parse_config
from sabot_sql.errors import ConfigError
from sabot_sql.result_room import ResultRoom
from sabot_sql.result_store import ResultStore
from sabot_sql.scratch import Scratch
from tests.support.budgets import budget, with_budget
from tests.support.tpch.data import queries, tpch

KINDS = [(1, "thread"), (2, "thread"), (4, "thread"), (2, "process"), (4, "process")]


# ---------------------------------------------------------------------------------------- what stands, and the least


IDLE = """
import sys
import sabot_sql
agents, isolation = int(sys.argv[1]), sys.argv[2]
session = sabot_sql.connect(agents=agents, isolation=isolation, memory_limit="4GiB")
session.execute("CREATE TABLE t AS SELECT range % 3 AS k FROM range(5)")
result = session.query("SELECT k, count(*) FROM t GROUP BY k")
assert (len(result), result.stats["mode"]) == (3, "single" if agents == 1 else "distributed")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(("agents", "isolation"), KINDS)
def test_processes_take_about_what_the_budget_counts_for_them(agents: int, isolation: str) -> None:
    """Pages that processes of other programs map as well count in part, so that it can be less, but never more."""
    arguments = [sys.executable, "-c", IDLE, str(agents), isolation]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        taken = sum(found.pss_bytes for found in tree_memory(process.pid))
        process.communicate("")
    counted = parse_config(agents=agents, isolation=isolation, memory_limit="4GiB").standing_bytes
    assert 0.5 * counted < taken < 1.1 * counted


@pytest.mark.parametrize(("agents", "isolation"), KINDS)
def test_the_least_budget_works_and_less_is_refused(agents: int, isolation: str) -> None:
    least = budget("0", agents=agents, isolation=isolation)
    with pytest.raises(ConfigError) as caught:
        sabot_sql.connect(agents=agents, isolation=isolation, memory_limit=least - 1)
    assert f"the least for {f'{agents} {isolation} agents' if agents > 1 else 'one agent'} is {least >> 20}MiB" in str(
        caught.value
    )
    with sabot_sql.connect(agents=agents, isolation=isolation, memory_limit=least) as session:
        session.execute("CREATE TABLE t AS SELECT range AS i, range % 7 AS k FROM range(200_000)")
        sql = "SELECT k, count(*), sum(a.i) FROM t a JOIN t b USING (i, k) GROUP BY k ORDER BY k"
        result = session.query(sql)
        assert [row[1] for row in result.fetchall()] == [28_572] * 3 + [28_571] * 4
        assert len(session.query("SELECT * FROM t ORDER BY k, i DESC")) == 200_000


def test_a_query_that_wants_more_agents_than_the_budget_has_room_for_says_what_they_need() -> None:
    with sabot_sql.connect(memory_limit=budget("0", agents=1)) as session:
        with pytest.raises(ConfigError, match=r"the least for 2 process agents is \d+MiB"):
            session.query("SELECT 42", agents=2, isolation="process")
        assert session.query("SELECT 42").fetchall() == [(42,)]


# --------------------------------------------------------------------------------------------------------- the peak


WORKS = {
    **{name: sql for name, sql in queries().items() if name in ("q01", "q09", "q18", "q21")},
    **{name: sql for name, sql in STATEMENTS.items() if name != "wide rows"},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("scale", "memory_limit", "isolation"),
    [(0.1, "400MiB", "process"), (0.1, "320MiB", "thread"), (1, "1GiB", "process")],
)
def test_the_peak_of_all_processes_stays_within_the_limit(scale: float, memory_limit: str, isolation: str) -> None:
    session = {"agents": 2, "isolation": isolation, "memory_limit": memory_limit}
    failed: dict[str, str] = {}
    peaks = peaks_of(session, tpch(scale), WORKS, lambda name, _peak, _seconds, told: failed.update({name: told}))
    assert {name: told for name, told in failed.items() if told} == {}
    limit_bytes = parse_bytes("memory_limit", memory_limit)
    shares = {name: round(peak.pss_bytes / limit_bytes, 2) for name, peak in peaks.items()}
    assert max(shares.values()) <= BAR, shares
    assert max(shares.values()) > 0.5, "then this has not come near the limit, and shows nothing"


def own_memory() -> ProcessMemory:
    """Of this process alone, whatever other tests left running beside it."""
    return next(found for found in tree_memory(os.getpid()) if found.pid == os.getpid())


def test_a_pool_that_was_closed_gives_its_memory_back() -> None:
    """Also while something still refers to it, as an exception's traceback may."""
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.execute("CREATE TABLE t AS SELECT range AS i, repeat('x', 100) || range AS s FROM range(400_000)")
        gc.disable()
        try:
            shared = []
            for agents in (2, 3, 2, 3):
                session.query("SELECT count(*) FROM (SELECT s, count(*) FROM t GROUP BY s)", agents=agents)
                found = own_memory()
                shared.append(found.shared_bytes)
        finally:
            gc.enable()
    assert shared[0] > 10 << 20
    assert shared[-1] < 1.5 * shared[0]


# ---------------------------------------------------------------------------------------------------------- results


def test_all_results_of_a_session_share_their_memory() -> None:
    with sabot_sql.connect(**with_budget("200MiB", agents=1)) as session:
        # 8 MB each, of 30 for all.
        results = [session.query("SELECT range AS i FROM range(1_000_000)") for _ in range(6)]
        assert [result.stats["on_disk"] for result in results] == [False] * 3 + [True] * 3
        assert not session.query("SELECT 42").stats["on_disk"], "it is not worth a file"
        assert all(pa.table(result)["i"][-1].as_py() == 999_999 for result in results)
        del results
        assert not session.query("SELECT range AS i FROM range(1_000_000)").stats["on_disk"]


def test_results_that_are_made_at_once_share_their_memory(tmp_path: Path) -> None:
    room = ResultRoom(Scratch(str(tmp_path)))
    table = pa.table({"a": pa.chunked_array([range(10_000)] * 10)})  # 800 kB
    inner: list[ResultStore] = []

    def begin_another() -> None:
        if not inner:
            inner.append(ResultStore.drain(table.to_reader(), room, 1_000_000))

    store = ResultStore.drain(table.to_reader(), room, 1_000_000, check=begin_another)
    assert (inner[0].on_disk, store.on_disk) == (False, True)


def test_a_result_on_disk_is_read_without_having_it_in_memory(tmp_path: Path) -> None:
    rows = pa.table({"a": pa.array([os.urandom(1000)] * 1000)})
    reader = pa.RecordBatchReader.from_batches(rows.schema, (rows.to_batches()[0] for _ in range(200)))
    store = ResultStore.drain(reader, ResultRoom(Scratch(str(tmp_path))), 1000)
    assert store.on_disk
    before = own_memory()
    read = 0
    for batch in store.reader():
        assert batch.column(0)[999].as_py() == rows["a"][0].as_py()
        read += sum(len(value) for value in batch.column(0).to_pylist())
    after = own_memory()
    assert read == 200_000_000
    assert after.file_bytes - before.file_bytes < 20_000_000
    kept = store.reader().read_all()
    assert kept["c0"].chunk(3).equals(rows["a"].chunk(0)), "what is kept can be read later"


def test_a_volatile_query_is_not_made_in_memory_before_it_is_read() -> None:
    """It runs once, and yet its rows stream."""
    with sabot_sql.connect(**with_budget("64MiB", agents=1)) as session:
        session.execute("CREATE SEQUENCE s")
        before = own_memory()
        result = session.query("SELECT random() AS r, repeat('x', 1000) AS s, nextval('s') AS n FROM range(300_000)")
        after = own_memory()
        assert (len(result), result.stats["on_disk"]) == (300_000, True)
        assert after.private_bytes - before.private_bytes < 150 << 20
        assert session.query("SELECT nextval('s')").fetchall() == [(300_001,)]


def test_what_a_volatile_query_does_is_done_for_rows_that_nobody_wants_too() -> None:
    with sabot_sql.connect() as session:
        session.execute("CREATE SEQUENCE s")
        result = session.query("SELECT nextval('s') AS n FROM range(500_000)", max_rows=3)
        assert result.fetchall() == [(1,), (2,), (3,)]
        assert session.query("SELECT nextval('s')").fetchall() == [(500_001,)]


def test_intervals_of_a_volatile_query_keep_their_values() -> None:
    """Their rows stay in DuckDB: it may not be started twice to find that out."""
    with sabot_sql.connect() as session:
        session.execute("CREATE SEQUENCE s")
        result = session.query("SELECT to_hours(3_000_000) AS h, nextval('s') AS n FROM range(3)")
        assert [row[1] for row in result.fetchall()] == [1, 2, 3]
        assert result.fetchall() == []
        assert str(session.query("SELECT to_hours(3_000_000)").fetchone()) == "(datetime.timedelta(days=125000),)"
        assert session.query("SELECT nextval('s')").fetchall() == [(4,)]
