"""Ctrl-C and time-outs are answered within a second in every phase of a call, and the session stays usable."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import QueryCancelled, QueryTimeout, Session, SessionClosed, result_store
from sabot_sql.agent import process_agent
from sabot_sql.catalog.writes import Writes
from sabot_sql.result import Result

ANSWER_SECONDS = 1.0
LONG_QUERY = "SELECT count(*) FROM range(100000000000) t(i) WHERE i % 7 = 3"
SCHEMA = pa.schema([("a", pa.int64())])


class Phase:
    """A phase of a call: the code in it says that it is there, and stays until it is let go or ends."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.over = threading.Event()

    def enter(self) -> None:
        self.reached.set()
        self.over.wait(30)


@pytest.fixture
def phase() -> Iterator[Phase]:
    phase = Phase()
    yield phase
    phase.over.set()


def stopped_after(reached: threading.Event, stop: Callable[[], None], call: Callable[[], Any], error: Any) -> float:
    """Seconds from the stop, which comes once ``reached`` is set, to the error."""
    stopped: list[float] = []

    def stop_then() -> None:
        if reached.wait(20):
            stopped.append(time.monotonic())
            stop()

    thread = threading.Thread(target=stop_then)
    thread.start()
    with pytest.raises(error):
        call()
    answered = time.monotonic()
    thread.join()
    assert stopped, "the phase was never reached"
    return answered - stopped[0]


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def assert_stops(session: Session, phase: Phase, call: Callable[..., Any]) -> None:
    """By Ctrl-C, which stays a KeyboardInterrupt, and by cancel."""
    phase.reached.clear()
    assert stopped_after(phase.reached, ctrl_c, call, KeyboardInterrupt) < ANSWER_SECONDS + 0.3
    phase.reached.clear()
    assert stopped_after(phase.reached, session.cancel, call, QueryCancelled) < ANSWER_SECONDS + 0.3


def stuck_batches(phase: Phase) -> Iterator[pa.RecordBatch]:
    yield pa.record_batch({"a": [1]})
    phase.enter()


class StuckAtOpen:
    def __init__(self, phase: Phase) -> None:
        self.phase = phase

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        self.phase.enter()
        return pa.table({"a": [1]}).__arrow_c_stream__()


class StuckAtNext(StuckAtOpen):
    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader = pa.RecordBatchReader.from_batches(SCHEMA, stuck_batches(self.phase))
        return reader.__arrow_c_stream__()


@pytest.mark.parametrize("stuck", [StuckAtOpen, StuckAtNext])
def test_a_source_that_blocks(session: Session, phase: Phase, stuck: type[StuckAtOpen]) -> None:
    source = stuck(phase)
    assert_stops(session, phase, lambda: session.query("SELECT count(*) FROM source", scope={"source": source}))
    assert_stops(session, phase, lambda: session.register("source", source))
    with pytest.raises(QueryTimeout):
        session.query("FROM source", scope={"source": source}, timeout=0.2)
    assert session.query("SELECT 42").fetchall() == [(42,)]


def test_close_does_not_wait_for_a_source_that_blocks(phase: Phase) -> None:
    session = sabot_sql.connect()
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            session.query("FROM source", scope={"source": StuckAtOpen(phase)})
        except QueryCancelled as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    assert phase.reached.wait(10)
    began = time.monotonic()
    session.close()
    assert time.monotonic() - began < 5
    asking.join(2)
    assert len(errors) == 1


def test_a_file_that_never_opens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can stop DuckDB while it opens a pipe: the caller is answered all the same, and close() returns."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    session = sabot_sql.connect()
    began = threading.Event()
    began.set()
    sql = f"SELECT * FROM read_csv('{pipe}')"
    assert (
        stopped_after(began, lambda: (time.sleep(0.3), ctrl_c())[1], lambda: session.query(sql), KeyboardInterrupt) < 2
    )
    at = time.monotonic()
    with pytest.raises(QueryTimeout):
        session.query("SELECT 1", timeout=0.2)
    assert time.monotonic() - at < ANSWER_SECONDS + 0.3
    at = time.monotonic()
    session.close()
    assert time.monotonic() - at < 5
    with pytest.raises(SessionClosed):
        session.query("SELECT 1")
    with pipe.open("w"):  # lets the thread that is left end
        pass


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_the_hand_over_of_a_result(isolation: Any, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = result_store._copied

    def slowly(batch: pa.RecordBatch) -> pa.RecordBatch:
        phase.reached.set()
        time.sleep(0.05)
        return copied(batch)

    monkeypatch.setattr(result_store, "_copied", slowly)
    with sabot_sql.connect(agents=2, isolation=isolation, memory_limit="1GiB") as session:
        sql = "SELECT i, i::VARCHAR AS s FROM range(3_000_000) t(i) WHERE i % 3 <> 1"
        assert_stops(session, phase, lambda: session.query(sql))
        with pytest.raises(QueryTimeout):
            session.query(sql, timeout=1)
        monkeypatch.undo()
        assert len(session.query(sql)) == 2_000_000


def test_waiting_for_agents_that_others_use(phase: Phase) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        held: list[BaseException] = []

        def hold() -> None:
            try:
                session.query(LONG_QUERY, observer=lambda _: phase.reached.set())
            except QueryCancelled as error:
                held.append(error)

        holding = threading.Thread(target=hold)
        holding.start()
        assert phase.reached.wait(10)
        other = lambda: session.query("SELECT count(*) FROM range(100)", agents=3, timeout=0.3)  # noqa: E731
        began = time.monotonic()
        with pytest.raises(QueryTimeout):
            other()
        assert time.monotonic() - began < 0.3 + ANSWER_SECONDS
        later = threading.Timer(0.2, phase.over.set)
        later.start()
        waiting = lambda: session.query("SELECT count(*) FROM range(100)", agents=3)  # noqa: E731
        assert stopped_after(phase.over, ctrl_c, waiting, KeyboardInterrupt) < ANSWER_SECONDS + 0.3
        session.cancel()
        holding.join(10)
        assert len(held) == 1
        assert session.query("SELECT count(*) FROM range(100)", agents=3).fetchall() == [(100,)]


def test_agents_that_start(tmp_path: Path, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    slow = tmp_path / "python"
    slow.write_text(f"#!/bin/sh\necho $$ >> {started}\nexec sleep 60\n")
    slow.chmod(0o700)

    def watch() -> None:
        while not phase.over.wait(0.01):
            if started.exists() and len(started.read_text().split()) >= 2:
                started.unlink()
                phase.reached.set()

    watching = threading.Thread(target=watch)
    watching.start()
    with sabot_sql.connect(agents=2, isolation="process", memory_limit="1GiB") as session:
        monkeypatch.setattr(process_agent, "sys", SimpleNamespace(executable=str(slow), path=sys.path))
        assert_stops(session, phase, lambda: session.query("SELECT count(*) FROM range(100)"))
        monkeypatch.undo()
        assert session.query("SELECT count(*) FROM range(100)").fetchall() == [(100,)]
    phase.over.set()
    watching.join()


@pytest.mark.parametrize("form", ["CREATE OR REPLACE TABLE big AS", "COPY"])
def test_rows_that_are_written(form: str, tmp_path: Path, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Writes.run

    def announced(*arguments: Any) -> Any:
        phase.reached.set()
        return run(*arguments)

    monkeypatch.setattr(Writes, "run", announced)
    query = "SELECT i, i::VARCHAR AS s FROM range(5_000_000) t(i) WHERE i % 3 <> 1"
    target = tmp_path / "big.csv"
    sql = f"COPY ({query}) TO '{target}'" if form == "COPY" else f"{form} {query}"
    with sabot_sql.connect(agents=2, memory_limit="2GiB") as session:
        assert_stops(session, phase, lambda: session.query(sql))
        assert not target.exists()
        assert session.query("SELECT 42").fetchall() == [(42,)]


def test_an_observer_that_blocks(phase: Phase) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        observer = lambda _: phase.enter()  # noqa: E731
        call = lambda: session.query("SELECT count(*) FROM range(1000)", observer=observer)  # noqa: E731
        assert_stops(session, phase, call)
        assert session.query("SELECT count(*) FROM range(1000)").fetchall() == [(1000,)]


@pytest.mark.parametrize("form", ["fetchall", "df", "pl", "to_parquet", "to_csv"])
def test_rows_that_are_fetched(form: str, tmp_path: Path, single: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    result = single.query("SELECT i, i::VARCHAR AS s, i * 0.5 AS d FROM range(4_000_000) t(i)")
    fetch = getattr(result, form)
    arguments = (tmp_path / "rows",) if form.startswith("to_") else ()
    began = threading.Event()
    converted = Result._converted

    def announced(self: Result, convert: Callable[[Any], Any], *part: Any) -> Any:
        def disturbed(relation: Any) -> Any:
            began.set()
            # Stopped while it converts: what it would have given is asked for until the interrupt is there.
            while not interrupted.is_set():
                given = convert(relation)
            return given

        return converted(self, disturbed, *part)

    interrupted = threading.Event()
    monkeypatch.setattr(Result, "_converted", announced)
    took = stopped_after(began, ctrl_c, lambda: fetch(*arguments), KeyboardInterrupt)
    interrupted.set()
    monkeypatch.undo()
    assert took < ANSWER_SECONDS + 0.3
    assert single.query("SELECT 42").fetchall() == [(42,)]


def test_the_second_ctrl_c_is_no_other_error(phase: Phase) -> None:
    with sabot_sql.connect() as session:

        def twice() -> None:
            ctrl_c()
            time.sleep(0.2)
            ctrl_c()

        call = lambda: session.query("FROM source", scope={"source": StuckAtOpen(phase)})  # noqa: E731
        try:
            assert stopped_after(phase.reached, twice, call, KeyboardInterrupt) < ANSWER_SECONDS
            time.sleep(0.3)
        except KeyboardInterrupt:
            pass  # the first one was answered before the second came
        assert session.query("SELECT 42").fetchall() == [(42,)]
