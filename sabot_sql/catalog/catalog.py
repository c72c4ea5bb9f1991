"""The catalog of a session: statements in, rows or a bound query out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import duckdb
import pyarrow as pa

from sabot_planner.job.plan import NotDistributed
from sabot_sql.catalog.catalog_facts import CatalogFacts
from sabot_sql.catalog.connection import (
    UNEXPORTABLE_OPTIMIZERS,
    ColumnTypes,
    Connection,
    Parameters,
    Statement,
    Stream,
    quote_text,
    serialized,
)
from sabot_sql.catalog.conversion import Converter
from sabot_sql.catalog.diagnosis import located
from sabot_sql.catalog.effects import RunsOnce, mentioned, runs_once
from sabot_sql.catalog.folded_lists import too_long_to_print
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.measured import MeasuredRows
from sabot_sql.catalog.memory_tables import MemoryTables
from sabot_sql.catalog.nesting import too_deep_to_print
from sabot_sql.catalog.operator_trees import operator_trees
from sabot_sql.catalog.pivots import list_values
from sabot_sql.catalog.write_statements import CopyTo, parse_write
from sabot_sql.catalog.writes import Writes
from sabot_sql.config import SessionConfig
from sabot_sql.duck.errors import translate
from sabot_sql.duck.interrupts import in_spite_of_interrupts
from sabot_sql.errors import SabotSQLError
from sabot_sql.plan_document import PlanOperator
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.scratch import Scratch

if TYPE_CHECKING:
    from sabot_sql.catalog.query_sources import QuerySources


class Stoppable(Protocol):
    """The query that asks: its questions end when it is stopped."""

    def check(self) -> None:
        """Stop here if the query was stopped.

        Raises:
            QueryCancelled: it was.
        """
        ...

    def asking(self, connection: Connection) -> AbstractContextManager[None]:
        """Hold the connection while it is open; whoever stops the query interrupts what the connection runs."""
        ...


Interruptible = Callable[[Connection], AbstractContextManager[None]]
"""Holds a connection's lock while it is open; whoever cancels the query interrupts the connection."""

# What DuckDB returns, without a row, for a statement that has nothing to say.
_SILENT_COLUMNS = (("Count",), ("Success",))


@dataclass(frozen=True, slots=True)
class Rows:
    """The running result of a statement; ``stream`` is None where it has none.

    ``to_its_end``: what running it does is done only once all of its rows have come, wanted or not.
    """

    columns: ColumnTypes
    stream: Stream | None
    to_its_end: bool = False


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query that DuckDB bound, optimised and printed, and what it reads."""

    exported_sql: str
    sources: QuerySources


_UNDONE = frozenset({"COPY", "CREATE", "DELETE", "INSERT", "MERGE_INTO", "SELECT", "UPDATE"})
"""Kinds of statements that are all or nothing, outside of a transaction; a SELECT may write in WITH."""

_WITHOUT_DEFAULTS = frozenset({"CREATE", "DELETE"})
"""Those that give no column its default, which may be the next number of a sequence."""

_SEVERAL_FILES = frozenset({"FILE_SIZE_BYTES", "PARTITION_BY", "PER_THREAD_OUTPUT", "ROW_GROUPS_PER_FILE"})
"""Options of COPY that write a directory."""


class Catalog:
    """Everything that is asked of the session's own DuckDB."""

    def __init__(self, config: SessionConfig, scratch: Scratch) -> None:
        self.connection = Connection(config, str(scratch.path / "duckdb"))
        self._tables = MemoryTables(self.connection, scratch)
        self._facts = CatalogFacts(self.connection)
        self._threads = config.instance_threads
        self.measured = MeasuredRows()
        """For each agent of another host the directories whose files it may read."""
        self.writes = Writes(self.connection, self._tables, self._changed, self._runs_once)

    def split(self, sql: str, parameters: Parameters) -> list[Statement]:
        """See :meth:`Connection.split`."""
        return self.connection.split(sql, parameters)

    def register(self, name: str, value: object) -> None:
        """See :meth:`MemoryTables.register`."""
        with self.connection.lock:
            self._tables.register(name, value)

    def unregister(self, name: str) -> None:
        """See :meth:`MemoryTables.unregister`."""
        with self.connection.lock:
            self._tables.unregister(name)

    def objects_named(self, statement: Statement, scopes: Sequence[Scope], words: Container[str]) -> list[str]:
        """See :meth:`MemoryTables.named`; hold the lock."""
        return self._tables.named(statement, scopes, words)

    def converter(self) -> Converter:
        """A converter under the settings that hold now."""
        return Converter(self.connection)

    @contextmanager
    def run(
        self, statement: Statement, scopes: Sequence[Scope], *, sparing: bool = False, batch_rows: int | None = None
    ) -> Iterator[Rows]:
        """Run a statement as it is on the session's DuckDB; its rows must be read while this is open.

        ``sparing`` is for a statement that memory has run out on: it is then run in the way that takes the least.
        ``batch_rows`` is for one whose rows are known to be wide.

        Raises:
            SabotSQLError: what DuckDB says, also while the rows are read.
        """
        with (
            self.connection.lock,
            self.connection.sparing_memory() if sparing else nullcontext(),
            self._tables.objects(statement, scopes),
        ):
            try:
                rows = self._start(statement, batch_rows)
            except SabotSQLError as error:
                raise located(error, statement, self.connection) from None
            try:
                yield rows
                if rows.to_its_end and isinstance(rows.stream, pa.RecordBatchReader):
                    for _ in rows.stream:
                        pass
            except (duckdb.Error, pa.ArrowException, OSError, RuntimeError) as error:
                _close(rows)
                raise located(translate(error, statement.place), statement, self.connection) from None
            finally:
                _close(rows)

    def _start(self, statement: Statement, batch_rows: int | None) -> Rows:
        once = self._runs_once(statement) if statement.reads else None
        if (statement.reads and once is None) or self.connection.executes_a_query(statement):
            return Rows(*self.connection.stream(statement, batch_rows))
        if once is not None and not once.by_binding and self.connection.leaves_as_arrow(statement):
            return Rows(*self.connection.stream(statement, batch_rows), to_its_end=True)
        result = self.connection.once(statement)
        if not statement.is_query:
            self._changed(statement)
        return self._rows(statement, result)

    def _rows(self, statement: Statement, result: Any) -> Rows:
        if not statement.has_rows:
            return Rows((), None)
        columns, stream = self.connection.held(result)
        if isinstance(stream, pa.RecordBatchReader) and tuple(name for name, _ in columns) in _SILENT_COLUMNS:
            table = stream.read_all()
            return Rows(columns, table.to_reader()) if table.num_rows else Rows((), None)
        return Rows(columns, stream)

    def may_run_again(self, statement: Statement) -> bool:
        """Whether a statement that failed may be tried once more: it left nothing behind, and ended no transaction."""
        return not self.connection.in_transaction and self._runs_once(statement) is None

    def was_undone(self, statement: Statement) -> bool:
        """Whether a statement that writes, and failed, left nothing behind, so that it may be tried once more.

        DuckDB takes back what one statement changed in tables, and begins a file anew. A sequence goes on, whatever
        becomes of the statement; several files may be there in part.
        """
        if self.connection.in_transaction or statement.kind not in _UNDONE:
            return False
        volatile = self._facts.volatile_names()
        if volatile.in_text(statement.text):
            return False
        if statement.kind == "SELECT" and mentioned(["copy"], statement.text):
            return False
        if statement.kind == "COPY":
            form = parse_write(statement.text)
            return isinstance(form, CopyTo) and not form.chosen().keys() & _SEVERAL_FILES
        defaults = self.connection.main.execute(
            "SELECT table_name, column_default FROM system.main.duckdb_columns()"
            " WHERE column_default IS NOT NULL AND NOT internal"
        ).fetchall()
        counting = [table for table, default in defaults if volatile.in_text(default)]
        return statement.kind in _WITHOUT_DEFAULTS or not mentioned(counting, statement.text)

    def may_repeat(self, statement: Statement) -> bool:
        """Whether a query may be run again, whatever it has given already."""
        with self.connection.lock:
            return statement.reads and self.may_run_again(statement)

    def _runs_once(self, statement: Statement) -> RunsOnce | None:
        """Why the statement may be run once only, and perhaps not even bound before; None where it may be."""
        return runs_once(statement.text, not statement.reads, self._facts.volatile_names(), self._facts.serialized)

    def _changed(self, statement: Statement) -> None:
        self.connection.after(statement)
        self._tables.forget()
        self._facts.forget(statement)

    def explain_failure(self, error: SabotSQLError, statement: Statement) -> SabotSQLError:
        """``error`` of an agent, with what can still be found out about an unreadable file."""
        with self.connection.lock:
            return located(error, statement, self.connection)

    def bind(
        self,
        statement: Statement,
        scopes: Sequence[Scope],
        config: SessionConfig,
        stoppable: Stoppable,
        grants: Sequence[AgentGrant] | None = None,
    ) -> BoundQuery | NotDistributed:
        """Bind a query for distribution; gives the reason instead where it runs once, or DuckDB cannot print its plan.

        ``grants`` are those of agents that do not read all that the session does.

        The connection is held while DuckDB is asked and no longer: also each question of the planner holds it for
        itself, so that other statements run between them.

        Raises:
            SabotSQLError: the query is wrong.
        """
        too_deep = too_deep_to_print(statement.text)
        if too_deep is not None:
            return NotDistributed(too_deep)
        # The planner, and sqlglot with it, is loaded by the first query that is distributed.
        from sabot_sql.catalog.estimates import Estimates
        from sabot_sql.catalog.query_sources import QuerySources

        with stoppable.asking(self.connection):
            facts = self._facts
            once = self._runs_once(statement)
            if once is not None:
                return NotDistributed(once.reason)
            if self.connection.is_locked:
                return NotDistributed(
                    "lock_configuration is on, and a plan for agents needs a setting to be changed for a moment"
                )
            too_long = self._too_long(statement)
            if too_long is not None:
                return NotDistributed(too_long)
            with self._tables.shadows(statement, scopes) as shadows, self._exportable_plans(bool(shadows)):
                try:
                    exported = self._explain("EXPLAIN (SQL)", statement)
                except (duckdb.Error, RuntimeError) as error:
                    stoppable.check()
                    return NotDistributed(self._reason(error, statement))
            estimates = Estimates(
                exported, lambda: facts.estimated(exported, lambda: self._estimated_plan(statement, scopes))
            )
            sources = QuerySources(self.connection, facts, config, shadows, estimates, self.measured, stoppable, grants)
        return BoundQuery(exported, sources)

    @contextmanager
    def listed(
        self, statement: Statement, scopes: Sequence[Scope], interruptible: Interruptible
    ) -> Iterator[Statement]:
        """The query that a PIVOT is whose values are not listed, and any other statement as it is.

        It can be bound while this is open. Looking for the values reads the source: that is ``interruptible``.
        """
        if not statement.is_open_pivot:
            yield statement
            return
        made: list[str] = []
        try:
            with interruptible(self.connection), self._tables.objects(statement, scopes):
                once = self._runs_once(statement)
                query = list_values(statement, self.connection, made) if once is None else None
            yield query or statement
        finally:
            with self.connection.lock:
                drop = "; ".join(f"DROP TYPE IF EXISTS temp.{name}" for name in made)
                in_spite_of_interrupts(lambda: self.connection.main.execute(drop))

    @contextmanager
    def checked(self, statement: Statement, scopes: Sequence[Scope]) -> Iterator[None]:
        """Bind a query as it is, without running anything of it.

        Raises:
            SabotSQLError: the query is wrong.
        """
        with self.connection.lock, self._tables.objects(statement, scopes):
            once = self._runs_once(statement)
            if once is None or not once.by_binding:
                self.connection.check(statement)
            yield

    def operators(self, statement: Statement) -> list[PlanOperator]:
        """What DuckDB would do for a query that is bound while this is called; see :meth:`checked`.

        Nothing where binding it runs a part of it.
        """
        once = self._runs_once(statement)
        if once is not None and once.by_binding:
            return []
        try:
            return operator_trees(self._explain("EXPLAIN (FORMAT json)", statement))
        except (duckdb.Error, RuntimeError):
            return []  # a query that DuckDB can run but not explain

    def agents_connection(self) -> duckdb.DuckDBPyConnection:
        """A connection of their own for agents in this process, so that none of them waits for a statement."""
        return self.connection.plain_cursor()

    def share_memory(self, config: SessionConfig) -> None:
        """Leave agents with a DuckDB of their own their share of the memory and of the cores."""
        if "memory_limit" not in config.duckdb:
            self.connection.plain_cursor().execute(f"SET GLOBAL memory_limit = '{config.duckdb_memory_bytes}B'")
        if "threads" not in config.duckdb and config.instance_threads != self._threads:
            self.connection.plain_cursor().execute(f"SET GLOBAL threads = {config.instance_threads}")
            self._threads = config.instance_threads

    @contextmanager
    def having_all_memory(self, config: SessionConfig) -> Iterator[None]:
        """While it is open, the session's DuckDB has what agents and their shuffle would have, who are all idle."""
        if "memory_limit" in config.duckdb or self.connection.is_locked:
            yield
            return
        cursor = self.connection.plain_cursor()
        cursor.execute(f"SET GLOBAL memory_limit = '{config.duckdb_alone_bytes}B'")
        try:
            yield
        finally:
            with suppress(duckdb.Error):  # what is in memory now may not fit less; then it stays until it does
                cursor.execute(f"SET GLOBAL memory_limit = '{config.duckdb_memory_bytes}B'")

    def close(self) -> None:
        """Close the session's DuckDB."""
        self.connection.close()

    def _estimated_plan(self, statement: Statement, scopes: Sequence[Scope]) -> str | None:
        with self._tables.shadows(statement, scopes) as shadows, self._exportable_plans(bool(shadows)):
            try:
                return self._explain("EXPLAIN (FORMAT json)", statement)
            except (duckdb.Error, RuntimeError):
                return None

    def _too_long(self, statement: Statement) -> str | None:
        """Why the plan of a statement would be too long as SQL."""
        cursor = self.connection.plain_cursor()

        def counts_more(query: str, most: int) -> bool:
            rows = cursor.execute(
                f"SELECT 1 FROM ({query}) LIMIT {most + 1}", statement.values if "$" in query else None
            )
            return len(rows.fetchall()) > most

        try:
            return too_long_to_print(statement.text, lambda sql: serialized(cursor, sql), counts_more)
        except duckdb.Error:
            return None  # it is wrong, and DuckDB says so where it is bound
        finally:
            cursor.close()

    def _explain(self, prefix: str, statement: Statement) -> str:
        text = f"{prefix} {statement.text}"
        rows = self.connection.main.execute(text, statement.parameters).fetchall()
        return str(rows[0][1])

    def _reason(self, error: BaseException, statement: Statement) -> str:
        """Why DuckDB cannot print the plan, if the query itself is right."""
        translated: SabotSQLError = translate(error)
        self.connection.check(statement)  # raises what is wrong with the query, at its place in the user's text
        return f"DuckDB cannot export its plan: {translated.message}"

    @contextmanager
    def _exportable_plans(self, shadowed: bool) -> Iterator[None]:
        """Plans that SQL can say; the setting belongs to the whole instance and is put back.

        With ``shadowed`` tables no statistics are used: a shadow claims about as many rows as its table has.
        """
        main = self.connection.main
        before = self.connection.disabled_optimizers()
        names = [name for name in before.split(",") if name.strip()]
        never = (*UNEXPORTABLE_OPTIMIZERS, *("statistics_propagation",) * shadowed)
        wanted = ",".join(dict.fromkeys([*names, *never]))
        try:
            main.execute(f"SET GLOBAL disabled_optimizers = {quote_text(wanted)}")
            yield
        finally:
            put_back = f"SET GLOBAL disabled_optimizers = {quote_text(before)}"
            in_spite_of_interrupts(lambda: main.execute(put_back))


def _close(rows: Rows) -> None:
    # An open result would keep the connection from running anything else.
    if isinstance(rows.stream, pa.RecordBatchReader):
        rows.stream.close()
