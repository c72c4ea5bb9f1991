"""An interrupt that comes late leaves nothing behind: what was begun is taken back all the same.

Whoever cancels a query interrupts it every 50 ms until it has ended, so that an interrupt may hit any statement that
the session sends to DuckDB, also those that put things back. DuckDB may have done what was interrupted, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest

import sabot_sql
from sabot_sql import Session
from sabot_sql.catalog.connection import Connection
from sabot_sql.duck import interrupts
from sabot_sql.duck.interrupts import in_spite_of_interrupts, roll_back
from sabot_sql.errors import QueryCancelled, SabotSQLError


class Interrupting:
    """A connection that interrupts what it is told to, before or after DuckDB has done it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
        self._connection = connection
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: Any, *arguments: Any) -> Any:
        return self._plan.disturb(str(sql), lambda: self._connection.execute(sql, *arguments))

    def register(self, name: str, value: object) -> Any:
        return self._plan.disturb(f"register {name}", lambda: self._connection.register(name, value))

    def unregister(self, name: str) -> Any:
        return self._plan.disturb(f"unregister {name}", lambda: self._connection.unregister(name))


class Plan:
    """Which statements are interrupted: those that contain ``text``, ``times`` in a row after ``spared`` others."""

    def __init__(self) -> None:
        self.text, self.times, self.spared, self.after, self.hits = "", 0, 0, False, 0

    def interrupt(self, text: str, times: int = 1, *, after: bool = False, spared: int = 0) -> None:
        self.text, self.times, self.after, self.spared, self.hits = text, times, after, spared, 0

    def disturb(self, text: str, do: Callable[[], Any]) -> Any:
        if not self.times or self.text not in text:
            return do()
        if self.spared:
            self.spared -= 1
            return do()
        self.times -= 1
        self.hits += 1
        if self.after:
            do()
        raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    made = Plan()
    main = Connection.main.fget
    assert main is not None
    monkeypatch.setattr(Connection, "main", property(lambda self: Interrupting(main(self), made)))
    return made


@pytest.fixture(params=[1, 2], ids=["one agent", "two agents"])
def opened(request: pytest.FixtureRequest, plan: Plan) -> Iterator[Session]:
    with sabot_sql.connect(agents=request.param, memory_limit="1GiB") as session:
        yield session


LATE = [False, True]


@pytest.mark.parametrize("after", LATE, ids=["not done", "done"])
def test_a_write_that_fails_is_rolled_back_though_the_rollback_is_interrupted(plan: Plan, after: bool) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query("CREATE TABLE kept AS SELECT 1 AS a")
        plan.interrupt("COMMIT", 1)
        with pytest.raises(SabotSQLError):
            plan_rollback(session, plan, after)
        assert session.query("SELECT a FROM kept").fetchall() == [(1,)]
        with pytest.raises(SabotSQLError):
            session.query("SELECT * FROM made")
        session.query("CREATE TABLE made AS SELECT range AS i FROM range(10)")
        assert session.query("SELECT count(*) FROM made").fetchall() == [(10,)]


def plan_rollback(session: Session, plan: Plan, after: bool) -> None:
    """Fail the COMMIT, then interrupt the ROLLBACK three times."""
    disturb = plan.disturb

    def both(text: str, do: Callable[[], Any]) -> Any:
        if text == "COMMIT":
            plan.interrupt("ROLLBACK", 3, after=after)
            raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")
        return disturb(text, do)

    plan.disturb = both  # type: ignore[method-assign]
    try:
        session.query("CREATE TABLE made AS SELECT range AS i FROM range(100_000)")
    finally:
        plan.disturb = disturb  # type: ignore[method-assign]
        assert plan.hits >= 2


@pytest.mark.parametrize("after", LATE, ids=["not done", "done"])
@pytest.mark.parametrize("what", ["unregister frame", 'DROP VIEW IF EXISTS temp."frame"'])
def test_a_name_of_the_callers_is_dropped_though_that_is_interrupted(
    opened: Session, plan: Plan, what: str, after: bool
) -> None:
    """Else the next query would read the object that the name stood for before."""
    plan.interrupt(what, 2, after=after)
    frame = pa.table({"a": [1, 2]})
    assert opened.query("SELECT sum(a) FROM frame").fetchall() == [(3,)]
    assert plan.hits == 2
    frame = pa.table({"a": [10, 20]})
    assert opened.query("SELECT sum(a) FROM frame").fetchall() == [(30,)]
    del frame


@pytest.mark.parametrize("after", LATE, ids=["not done", "done"])
@pytest.mark.parametrize("table", [0, 1])
def test_a_registered_table_is_itself_again_when_a_plan_over_it_is_interrupted(
    plan: Plan, table: int, after: bool
) -> None:
    """Else its name would stand for the shadow that plans are made with, which has rows of NULL."""
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.register("one", pa.table({"a": range(1000)}))
        session.register("two", pa.table({"b": range(500)}))
        plan.interrupt("CREATE OR REPLACE TEMP VIEW", 1, after=after, spared=table)
        with pytest.raises(QueryCancelled):
            session.query("SELECT count(*) FROM one JOIN two ON a = b")
        assert plan.hits == 1
        assert session.query("SELECT sum(a), count(a) FROM one", agents=1).fetchall() == [(499_500, 1000)]
        assert session.query("SELECT sum(b), count(b) FROM two", agents=1).fetchall() == [(124_750, 500)]
        assert session.query("SELECT count(*) FROM one JOIN two ON a = b").fetchall() == [(500,)]


@pytest.mark.parametrize("after", LATE, ids=["not done", "done"])
def test_the_optimizers_are_switched_on_again_though_that_is_interrupted(plan: Plan, after: bool) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query("CREATE TABLE t AS SELECT range AS i FROM range(1000)")
        plan.interrupt("SET GLOBAL disabled_optimizers = ''", 2, after=after)
        assert session.query("SELECT count(*) FROM t").fetchall() == [(1000,)]
        assert plan.hits == 2
        found = session.query("SELECT current_setting('disabled_optimizers')", agents=1).fetchall()
        assert found == [("",)]


def test_a_step_that_is_interrupted_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_LONGEST_SECONDS", 0.0)
    tried = []

    def step() -> None:
        tried.append(1)
        raise duckdb.InterruptException("INTERRUPT Error: Interrupted!")

    with pytest.raises(duckdb.InterruptException):
        in_spite_of_interrupts(step)
    assert tried


def test_a_rollback_outside_a_transaction_is_none_and_other_errors_are_told() -> None:
    with duckdb.connect() as connection:
        roll_back(connection)
        connection.execute("BEGIN")
        connection.execute("CREATE TABLE gone (i INTEGER)")
        roll_back(connection)
        assert connection.execute("SELECT count(*) FROM duckdb_tables()").fetchall() == [(0,)]
    with pytest.raises(duckdb.ConnectionException):
        roll_back(connection)
