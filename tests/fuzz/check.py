"""Run a case on sabot_sql and on plain DuckDB, and say what is wrong about it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import psutil

import sabot_sql
from sabot_sql.config import parse_bytes
from sabot_sql.errors import AgentError, InternalError, QueryCancelled, QueryError, QueryTimeout, ResourceError
from tests.fuzz.case import Case, Options, Step
from tests.fuzz.tables import Stored, store
from tests.support.budgets import budget
from tests.support.compare import Rows, difference
from tests.support.durable_hosts import hosts_of, state_directory
from tests.support.engine import planner_settings, small_slices
from tests.support.oracle import Oracle, Verdict

HUNG_SECONDS = 30.0
"""A statement that takes so much longer than on plain DuckDB hangs."""
ORACLE_SECONDS = 2.0
"""A query that plain DuckDB does not answer in so long is left out."""
SETTLE_SECONDS = 5.0
ENOUGH_BYTES = 64 << 20
"""An agent with so much memory does not run out of it on such tables; with less, DuckDB's own readers may."""
MOST_ROWS = 100_000
MOST_ROWS_MADE = 3_000_000
"""A statement that makes so many rows on its way is at work, however soon DuckDB saw that none of them is needed."""
FELL_BACK = ("it failed on several agents", "it could not be planned")
PROCESS_MAIN = "sabot_sql.agent.process_main"


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong with a case: ``kind`` is one word, ``step`` the number of the statement."""

    kind: str
    step: int
    detail: str

    def to_dict(self) -> dict[str, Any]:
        """JSON of it."""
        return asdict(self)


class _Wrong(Exception):
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


class _LeftOut(Exception):
    """Plain DuckDB takes too long, or gives too much."""


def run_case(case: Case, counts: Counter[str], progress: Callable[[int], None] = lambda number: None) -> Failure | None:
    """What is wrong with ``case``, or None; ``counts`` is told how its statements ended.

    ``progress`` is called with the number of each statement before it runs.
    """
    before = _Held.now()
    with TemporaryDirectory(prefix="fuzz-") as directory:
        root = Path(directory)
        for name in ("data", "session", "plain", "spill"):
            (root / name).mkdir()
        stored = store(case.tables, root / "data")
        number = -1
        try:
            with (
                state_directory(root / "state") if case.options.durable else nullcontext(),
                _plain(case, stored) as oracle,
                _session(case.options, root / "spill") as session,
            ):
                for name, value in stored.objects.items():
                    session.register(name, value)
                for statement in (*stored.session, *case.prepare):
                    session.execute(statement)
                for number, step in enumerate(case.steps):
                    progress(number)
                    _Run(session, oracle, case.options, root, counts).check(step)
            number = len(case.steps)
            progress(number)
            _check_nothing_left(before, root / "spill")
        except _Stop:
            pass
        except _Wrong as wrong:
            return Failure(wrong.kind, number, wrong.detail)
        except (duckdb.Error, sabot_sql.SabotSQLError) as error:
            return Failure("unusable", number, f"{type(error).__name__}: {error}")
    return None


@contextmanager
def _plain(case: Case, stored: Stored) -> Iterator[Oracle]:
    with Oracle(memory_limit="2GB", most_rows=MOST_ROWS) as oracle:
        for statement in (*stored.plain, *case.prepare):
            oracle.execute(statement)
        yield oracle


@contextmanager
def _session(options: Options, spill: Path) -> Iterator[sabot_sql.Session]:
    with (
        planner_settings(**options.planner),
        small_slices(options.slice_rows),
        sabot_sql.connect(
            agents=options.agents,
            isolation=options.isolation,  # type: ignore[arg-type]
            memory_limit=budget(options.memory_limit, agents=options.agents, isolation=options.isolation),
            partitions=options.partitions,
            adaptive=options.adaptive,
            broadcast_limit=options.broadcast_limit,
            spill_directory=spill,
        ) as session,
    ):
        yield session


@dataclass(frozen=True, slots=True)
class _Run:
    session: sabot_sql.Session
    oracle: Oracle
    options: Options
    root: Path
    counts: Counter[str]

    def check(self, step: Step) -> None:
        """Run one step on both, and raise where they differ."""
        values = {name: self._value(text) for name, text in step.parameters.items()}
        self.oracle.bind(values)
        began = time.monotonic()
        try:
            expected = self._expected(step)
        except _LeftOut as reason:
            self.counts[f"left out: {reason}"] += 1
            if step.writes:
                raise _Stop from None
            return
        allowed_seconds = time.monotonic() - began + HUNG_SECONDS
        with ThreadPoolExecutor(1) as threads:
            beside = step.disturbance is not None and step.disturbance.kind == "beside"
            second = threads.submit(self._actual, step, values, allowed_seconds) if beside else None
            actual = self._actual(step, values, allowed_seconds)
        self.counts["statements"] += 1
        self._compare(step, expected, actual)
        if second is not None:
            self._compare(step, expected, second.result())
        self.oracle.bind(None)
        for read in step.reads if isinstance(expected, Rows) else ():
            self._read(read, allowed_seconds, step.ordered)

    def _value(self, text: str) -> Any:
        with duckdb.connect() as connection:
            (value,) = connection.execute(f"SELECT {text}").fetchone() or (None,)
        return value

    def _expected(self, step: Step) -> Rows | duckdb.Error:
        sql = step.sql.replace("@", str(self.root / "plain"))
        timer = threading.Timer(ORACLE_SECONDS, self.oracle.interrupt)
        timer.start()
        try:
            rows = self.oracle.execute(sql) if step.writes else self.oracle.expect(sql).answer
        except duckdb.InterruptException:
            raise _LeftOut("too slow on plain DuckDB") from None
        except duckdb.OutOfMemoryException:
            raise _LeftOut("too large for plain DuckDB") from None
        except duckdb.Error as error:
            return error
        finally:
            timer.cancel()
            timer.join()
            self.oracle.settle()
        return rows

    def _actual(self, step: Step, values: Mapping[str, Any], seconds: float) -> Rows | Exception | None:
        """What the session answered; None where it was stopped as it was asked to."""
        sql = step.sql.replace("@", str(self.root / "session"))
        kind = step.disturbance.kind if step.disturbance else ""
        after = step.disturbance.after_ms / 1e3 if step.disturbance else 0.0
        durable = self.options.durable and not step.writes
        kill = partial(_kill_hosts, self.root / "state") if durable else _kill_an_agent
        disturb = (
            {"kill": kill, "cancel": self.session.cancel}.get(kind) if not (durable and kind == "cancel") else None
        )
        timer = threading.Timer(after, disturb) if disturb else None
        limit = max(after, 1e-3) if kind == "timeout" else seconds
        seen: list[Mapping[str, Any]] = []
        if step.writes and zlib.crc32(sql.encode()) % 3 == 0:
            with suppress(sabot_sql.SabotSQLError):  # what only a query has; either way nothing may be written
                self.session.explain(sql)
        began = time.monotonic()
        if timer:
            timer.start()
        try:
            if durable:
                handle = self.session.submit(sql, values or None, timeout=limit, scope={})
                result = handle.result(limit + HUNG_SECONDS, observer=seen.append)
            else:
                result = self.session.query(sql, values or None, timeout=limit, scope={}, observer=seen.append)
            if len(result) > 2 * MOST_ROWS:
                raise _Wrong("wrong", f"{len(result)} rows")
            rows = Rows(tuple(result.columns), tuple(map(str, result.types)), tuple(map(tuple, result.fetchall())))
        except (QueryCancelled, QueryTimeout) as error:
            took = time.monotonic() - began
            if kind not in ("cancel", "timeout") and _rows_made(seen) > MOST_ROWS_MADE:
                self.counts["slow: many rows between stages"] += 1
                return None
            if kind not in ("cancel", "timeout"):
                raise _Wrong("hung", f"no answer after {took:.1f} s: {error}") from None
            if took > after + 3.0:
                raise _Wrong("stopped late", f"it was to stop after {after:.3f} s and did after {took:.1f}") from None
            self.counts["stopped"] += 1
            return None
        except sabot_sql.SabotSQLError as error:
            return error
        except _Wrong:
            raise
        except Exception as error:  # noqa: BLE001 (an error of no known class is what is looked for)
            raise _Wrong("foreign error", f"{type(error).__name__}: {error}\n{traceback.format_exc()[-800:]}") from None
        finally:
            if timer:
                timer.cancel()
                timer.join()
        plan = result.plan.json()
        self.counts[str(plan["mode"])] += 1
        self._compare_schema(step, result)
        if plan["mode"] != "distributed":
            self.counts[f"{plan['mode']}: {plan['reason'][:90]}"] += 1
        if plan["reason"].startswith(FELL_BACK) and kind != "kill" and not self._may_fail(step):
            raise _Wrong("fell back", plan["reason"])
        return rows

    def _compare(self, step: Step, expected: Rows | duckdb.Error, actual: Rows | Exception | None) -> None:
        if actual is None:
            return
        if isinstance(actual, ResourceError):
            self.counts["out of memory"] += 1
            shares = self.options.agents + (self.options.isolation == "process")
            if parse_bytes("memory_limit", self.options.memory_limit) // shares > ENOUGH_BYTES:
                raise _Wrong("out of memory", str(actual))
            if step.writes:
                raise _Stop  # the tables differ from here on
            return
        if isinstance(expected, duckdb.Error):
            self._compare_errors(step, expected, actual)
            return
        if isinstance(actual, Exception):
            if isinstance(actual, QueryError) and self._may_fail(step):
                self.counts["error where plain DuckDB may give one"] += 1
                if step.writes:
                    raise _Stop  # the tables differ from here on
                return
            raise _Wrong("failed", f"{type(actual).__name__}: {actual}")
        if step.writes:
            found = difference(expected, actual)
            if found is not None:
                raise _Wrong("wrong", f"returned: {found}")
            return
        if step.ordered:
            found_order = difference(expected, actual, [1] * len(expected.rows))
            if found_order is not None:
                raise _Wrong("wrong", f"in the order of its tables: {found_order}")
        verdict, found = self.oracle.judge(step.sql, actual)
        self.counts[str(verdict)] += 1
        if verdict is Verdict.WRONG:
            raise _Wrong("wrong", found)

    def _compare_schema(self, step: Step, result: sabot_sql.Result) -> None:
        if step.writes or step.parameters or step.disturbance or zlib.crc32(step.sql.encode()) % 5:
            return
        wanted, given = self.oracle.arrow_schema(step.sql), result.to_arrow_table().schema
        if wanted != given:
            raise _Wrong("schema", f"{given}\nfor\n{wanted}")
        self.counts["schemas"] += 1

    def _compare_errors(self, step: Step, expected: duckdb.Error, actual: Rows | Exception) -> None:
        self.counts["errors"] += 1
        if isinstance(actual, InternalError | AgentError):
            raise _Wrong("error", f"{type(actual).__name__}: {actual}\nfor {type(expected).__name__}: {expected}")
        if isinstance(actual, Rows) and not self._may_answer(step):
            raise _Wrong("answered", f"{len(actual.rows)} rows for {type(expected).__name__}: {expected}")

    def _may_fail(self, step: Step) -> bool:
        """Whether plain DuckDB fails as well, with its rows or its optimizer otherwise."""
        return any(isinstance(each, duckdb.Error) for each in self.oracle.variants(step.sql))

    def _may_answer(self, step: Step) -> bool:
        """Whether plain DuckDB answers, with its rows or its optimizer otherwise."""
        return any(isinstance(each, Rows) for each in self.oracle.variants(step.sql))

    def _read(self, read: str, seconds: float, ordered: bool) -> None:
        try:
            wanted = self.oracle.execute(read.replace("@", str(self.root / "plain")))
        except duckdb.OutOfMemoryException:
            self.counts["left out: too many rows were written"] += 1
            return
        result = self.session.query(read.replace("@", str(self.root / "session")), timeout=seconds, scope={})
        rows = Rows(tuple(result.columns), tuple(map(str, result.types)), tuple(map(tuple, result.fetchall())))
        found = difference(wanted, rows, [1] * len(wanted.rows) if ordered else None)
        if found is not None:
            raise _Wrong("wrong", f"{read}: {found}")


class _Stop(Exception):
    """The case cannot go on, for no fault of anybody."""


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _rows_made(seen: Sequence[Mapping[str, Any]]) -> int:
    """How many rows the tasks of a query had made when it was last seen."""
    stages = seen[-1]["stages"] if seen else ()
    return sum(task["rows"] or 0 for stage in stages for task in stage["tasks"])


def _kill_hosts(directory: Path) -> None:
    for process in hosts_of(directory):
        with suppress(psutil.Error):
            process.kill()


def _kill_an_agent() -> None:
    agents = []
    for child in _children():
        try:
            if PROCESS_MAIN in child.cmdline():
                agents.append(child.pid)
        except psutil.Error:
            continue
    if agents:
        os.kill(min(agents), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Held:
    """What this process holds of the machine."""

    children: frozenset[int]
    descriptors: Mapping[str, str]
    threads: int

    @classmethod
    def now(cls) -> _Held:
        """What it holds now."""
        descriptors = {}
        for link in Path("/proc/self/fd").iterdir():
            try:
                descriptors[link.name] = str(link.readlink())
            except OSError:
                continue  # the directory's own
        return cls(frozenset(child.pid for child in _children()), descriptors, threading.active_count())

    def more_than(self, before: _Held) -> str:
        """What came to what was held before, or nothing."""
        parts = []
        if self.children - before.children:
            parts.append(f"processes {sorted(self.children - before.children)}")
        if len(self.descriptors) > len(before.descriptors):
            new = [f"{fd}: {to}" for fd, to in self.descriptors.items() if before.descriptors.get(fd) != to]
            parts.append(f"descriptors {new}")
        if self.threads > before.threads:
            parts.append(f"threads {[thread.name for thread in threading.enumerate()]}")
        return "; ".join(parts)


def _check_nothing_left(before: _Held, spill: Path) -> None:
    """Wait until a closed session holds nothing any more; what is left then is a leak."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        gc.collect()
        left = _Held.now().more_than(before)
        files = [str(path.relative_to(spill)) for path in spill.rglob("*")]
        if files:
            left += f" files {files[:10]}"
        if not left:
            return
        if time.monotonic() > deadline:
            raise _Wrong("leaked", left)
        time.sleep(0.02)


def describe(failure: Failure, steps: Sequence[Step]) -> str:
    """A failure in a few lines."""
    sql = steps[failure.step].sql if 0 <= failure.step < len(steps) else "(around its statements)"
    return f"{failure.kind} at statement {failure.step}\n{sql}\n{failure.detail}"
