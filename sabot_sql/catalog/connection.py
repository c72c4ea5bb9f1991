"""The session's own DuckDB: one instance, one connection that holds the session's state, cursors for agents."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import duckdb
import pyarrow as pa

from sabot_sql.catalog.effects import query_writes, script_writes
from sabot_sql.catalog.held_rows import HeldRows, must_be_held
from sabot_sql.config import SessionConfig
from sabot_sql.duck.errors import StatementText, translate
from sabot_sql.duck.interrupts import in_spite_of_interrupts
from sabot_sql.duck.streams import StartedStatement, batch_rows
from sabot_sql.errors import BindError, ConfigError, QueryError, SessionClosed, ValueFailure
from sabot_sql.forks import forked, is_own
from sabot_sql.stoppable import within

ColumnTypes = tuple[tuple[str, str], ...]
"""Names with DuckDB types."""

Stream: TypeAlias = pa.RecordBatchReader | HeldRows
"""The rows of a statement as they leave DuckDB; what cannot leave it stays there."""

_INTERRUPT_SECONDS = 0.05
_STATE = "AGGREGATE_STATE"
_PERFECT_TABLES = "perfect_ht_threshold"
_IN_USE = "different configuration|Unique file handle conflict|Could not set lock"
# Kinds of statements, and words of CREATE, after which the views and macros are as before.
_NAMES = re.compile(r"\b(?:VIEW|MACRO|FUNCTION)\b", re.IGNORECASE)
_NAMES_NOTHING = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE_INTO", "COPY", "SET", "VARIABLE_SET", "PREPARE"}
)
_PIVOT = re.compile(r"\bPIVOT\b", re.IGNORECASE)

Parameters = Sequence[Any] | Mapping[str, Any] | None

# Export needs plans that SQL can say; none of these changes a result.
UNEXPORTABLE_OPTIMIZERS = (
    "late_materialization",
    "compressed_materialization",
    "grouping_sets",
    "window_self_join",
    "partial_aggregate_pushdown",
)

# Settings that may change an answer. Whatever of them the user changed travels with every fragment.
ANSWER_SETTINGS = (
    "TimeZone",
    "Calendar",
    "default_collation",
    "default_null_order",
    "default_order",
    "integer_division",
    "error_on_division_by_zero",
    "ieee_floating_point_ops",
    "scalar_subquery_error_on_multiple_rows",
    "preserve_insertion_order",
    "order_by_non_integer_literal",
    "disable_timestamptz_casts",
    "legacy_disable_null_type",
    "regex_match_operator_semantics",
    "binary_as_string",
    "enable_geoparquet_conversion",
    "json_geometry_format",
    "file_search_path",
    "home_directory",
)

# DuckDB's own limit of a statement's time, in milliseconds; where agents run it, somebody else must keep it.
_TIME_LIMIT = "max_execution_time"

# Settings whose defaults an instance takes from the environment of its process when it is made.
_ENVIRONMENT_SETTINGS = ("TimeZone", "Calendar")


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the user's text, with the parameters that belong to it.

    ``reads`` is whether it is a query that changes nothing: its common table expressions do not write either.
    """

    text: str
    place: StatementText
    kind: str
    reads: bool
    parameters: Parameters
    handle: duckdb.Statement

    @property
    def is_query(self) -> bool:
        """Whether it only reads: a SELECT in any of DuckDB's spellings."""
        return self.reads and self.kind == "SELECT"

    @property
    def is_open_pivot(self) -> bool:
        """Whether it is a query with a PIVOT whose values are not listed, which is several statements to DuckDB."""
        return self.reads and self.kind == "MULTI"

    @property
    def can_be_explained(self) -> bool:
        """Whether it is a query to its reader, who may not see that it writes as well."""
        return self.is_open_pivot or self.kind == "SELECT"

    @property
    def may_name_functions(self) -> bool:
        """Whether it may make, take away or bring into sight a view or a macro."""
        if self.kind == "CREATE":
            return _NAMES.search(self.text) is not None
        return self.kind not in _NAMES_NOTHING

    @property
    def values(self) -> Any:
        """The parameters as DuckDB takes them."""
        given = self.parameters
        return given if given is None else dict(given) if isinstance(given, Mapping) else list(given)

    @property
    def has_rows(self) -> bool:
        """Whether running it gives rows to show."""
        return self.handle.expected_result_type != [duckdb.ExpectedResultType.NOTHING]


class Connection:
    """The connection on which the user's statements run.

    Temporary tables, variables, ``USE``, local settings and transactions belong to one DuckDB connection, so all
    statements run on this one, under ``lock``. ``instance_settings`` are the settings it was opened with.
    """

    def __init__(self, config: SessionConfig, temp_directory: str) -> None:
        self.lock = threading.RLock()
        self._owner = os.getpid()
        self._opened_file = config.database != ":memory:"
        self.instance_settings = {
            "python_enable_replacements": "false",  # names are looked up in the caller's scope, not in ours
            "errors_as_json": "true",
            "arrow_lossless_conversion": "true",
            "temp_directory": temp_directory,
            "memory_limit": f"{config.duckdb_alone_bytes}B",
            "threads": str(config.instance_threads),
            **config.duckdb,
        }
        try:
            self._main: duckdb.DuckDBPyConnection | None = _opened(config, self.instance_settings)
        except (duckdb.Error, RuntimeError, TypeError, ValueError) as error:
            raise _open_error(error, config) from None
        self.is_locked = "lock_configuration" in config.duckdb and self._lock_configuration()
        """Whether no setting can be changed any more, not by the user and not for the planner."""
        if not self.is_locked:
            _hide_progress_bar(self._main)
        self.max_execution_ms = 0
        """DuckDB's limit of a statement's time, as the user set it; 0 is none."""
        self._defaults = self._answer_settings()
        self._settings: dict[str, str] = {}
        self._loses_nothing = True
        self._disabled_optimizers: str | None = None
        self.in_transaction = False

    @property
    def main(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection; hold ``lock`` while using it.

        Raises:
            SessionClosed: it was closed.
        """
        if self._main is None:
            raise SessionClosed("the session is closed", hint="make a new one with sabot_sql.connect()")
        if not is_own(self._owner):
            raise forked(self._owner)
        return self._main

    @property
    def has_catalog(self) -> bool:
        """Whether the database was opened with what an earlier session made."""
        return self._opened_file

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, or this is a fork of the process that opened it."""
        return self._main is None or not is_own(self._owner)

    def split(self, sql: str, parameters: Parameters) -> list[Statement]:
        """The statements of ``sql`` as DuckDB's parser sees them.

        Raises:
            SQLSyntaxError: it cannot be parsed.
            BindError: positional parameters and more than one statement that takes parameters.
            ValueFailure: a named parameter that none of several statements takes.
        """
        # A connection of its own, so that reading a text does not wait for what runs.
        parser = self.plain_cursor()
        try:
            handles = parser.extract_statements(sql)
            reads = [_reads(handle, parser) for handle in handles]
        except duckdb.Error as error:
            raise translate(error, StatementText(sql)) from None
        finally:
            parser.close()
        takers = sum(bool(handle.named_parameters) for handle in handles)
        if takers > 1 and parameters and not isinstance(parameters, Mapping):
            raise BindError(
                "positional parameters with more than one statement that takes parameters",
                code="PARAMETERS_AMBIGUOUS",
                hint="name them ($name) and give a dict",
            )
        if takers > 1 and isinstance(parameters, Mapping):
            _refuse_excess(parameters, handles)
        statements, start = [], 0
        for handle, reading in zip(handles, reads, strict=True):
            found = sql.find(handle.query, start)
            start = found if found >= 0 else start
            # A lone statement is handed on as the user wrote it.
            text = sql if len(handles) == 1 else handle.query
            place = StatementText(sql, 0 if len(handles) == 1 else len(sql[:start].encode()))
            chosen = _choose(parameters, handle.named_parameters, takers)
            statements.append(Statement(text, place, _kind(handle), reading, chosen, handle))
            start += len(handle.query)
        return statements

    def check(self, statement: Statement) -> None:
        """Bind a query, which runs nothing of it unless it is volatile by binding.

        Raises:
            SabotSQLError: what DuckDB says about it.
        """
        try:
            self.main.execute(f"EXPLAIN {statement.text}", statement.parameters)
        except (duckdb.Error, RuntimeError) as error:
            raise translate(error, replace(statement.place, prefix_bytes=len("EXPLAIN "))) from None

    def stream(self, statement: Statement, rows: int | None = None) -> tuple[ColumnTypes, Stream]:
        """Start a query; gives its columns and the batches as they come, or the rows where Arrow cannot hold them.

        A batch has ``rows`` rows at most, where that is given. The query's types are known once it has started: where
        its rows must be held it is started anew.

        Raises:
            SabotSQLError: what DuckDB says about it.
        """
        try:
            self._lose_nothing(True)
            started = StartedStatement(self.main, statement.text, statement.values, rows or batch_rows())
            if not must_be_held([type_name for _, type_name in started.columns]):
                return started.columns, pa.RecordBatchReader.from_stream(started)
            del started
            return self.held(self._run(statement))
        except (duckdb.Error, RuntimeError) as error:
            raise translate(error, statement.place) from None

    def once(self, statement: Statement) -> Any:
        """Run a statement of any kind to its end, once; gives DuckDB's result, whose rows can be held.

        It is not bound before: that could run a part of it.

        Raises:
            SabotSQLError: what DuckDB says about it.
        """
        try:
            return self._run(statement)
        except (duckdb.Error, RuntimeError) as error:
            raise translate(error, statement.place) from None

    def executes_a_query(self, statement: Statement) -> bool:
        """Whether it is the EXECUTE of a prepared statement that changes nothing; PREPARE has bound that one."""
        if statement.kind != "EXECUTE":
            return False
        try:
            return not self.main._bind(statement.handle, with_writes=True, values=statement.values)[-1]
        except duckdb.Error:
            return False  # DuckDB says why when it runs

    def leaves_as_arrow(self, statement: Statement) -> bool:
        """Whether Arrow can hold the rows of a query; this binds it, which must not run a part of it."""
        try:
            types = self.main._bind(statement.handle, with_writes=True, values=statement.values)[1]
        except (duckdb.Error, RuntimeError):
            return False  # DuckDB says why when it runs
        return not must_be_held([str(type_name) for type_name in types])

    @contextmanager
    def sparing_memory(self) -> Iterator[None]:
        """While it is open, no aggregate has a table of all its possible groups for each thread; hold the lock.

        Such tables hold every text and list twice while they are put together, and DuckDB 2.0 may end the process where
        memory runs out then: another thread goes on with a state that was made larger in name only.
        """
        if self.is_locked:
            yield
            return
        ((before,),) = self.main.execute(f"SELECT current_setting('{_PERFECT_TABLES}')").fetchall()
        self.main.execute(f"SET SESSION {_PERFECT_TABLES} = 0")
        try:
            yield
        finally:
            self.main.execute(f"SET SESSION {_PERFECT_TABLES} = {before}")

    def _run(self, statement: Statement) -> Any:
        return self.main._submit(statement.text, statement.values, "rows", batch_rows())

    def held(self, result: Any) -> tuple[ColumnTypes, Stream]:
        """The rows of a statement that has run in the form in which they can leave DuckDB.

        An aggregate state that is one HUGEINT or UUID ends the process where DuckDB makes lossless Arrow of it. What a
        state is made of, its type does not say: the Arrow type of the other conversion does.
        """
        rows = HeldRows(self.main, result)
        if rows.has_no_arrow_form:
            return rows.columns, rows
        states = [i for i, (_, type_name) in enumerate(rows.columns) if _STATE in type_name]
        self._lose_nothing(not states)
        reader = self._read(rows)
        if states and all(pa.types.is_nested(reader.schema.field(i).type) for i in states):
            reader.close()
            self._lose_nothing(True)
            reader = self._read(rows)
        return rows.columns, reader

    def _read(self, rows: HeldRows) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_stream(StartedStatement(self.main, rows.written, None, batch_rows()))

    def _lose_nothing(self, wanted: bool) -> None:
        """Set how results are converted, for as long as nothing else is set; nothing may be open on the connection."""
        if wanted is not self._loses_nothing:
            self.main.execute(f"SET SESSION arrow_lossless_conversion = {wanted}")
            self._loses_nothing = wanted

    def after(self, statement: Statement) -> None:
        """Note what a statement other than a query may have changed; hold the lock."""
        self._disabled_optimizers = None
        current = in_spite_of_interrupts(self._answer_settings)
        self._settings = {name: value for name, value in current.items() if value != self._defaults.get(name)}
        if statement.kind == "SET":
            self.is_locked = in_spite_of_interrupts(self._lock_configuration)
        if statement.kind == "TRANSACTION":
            self.in_transaction = statement.text.split(None, 1)[0].upper().startswith(("BEGIN", "START"))

    def _lock_configuration(self) -> bool:
        ((locked,),) = self.main.execute("SELECT system.main.current_setting('lock_configuration')").fetchall()
        return bool(locked)

    def disabled_optimizers(self) -> str:
        """The optimizers that the user switched off, as DuckDB lists them; asked anew once a statement has run."""
        known = self._disabled_optimizers
        if known is None:
            ((found,),) = self.main.execute("SELECT system.main.current_setting('disabled_optimizers')").fetchall()
            known = self._disabled_optimizers = str(found)
        return known

    def progress_percent(self) -> float | None:
        """How far DuckDB says that the running statement is; None where it does not say. Needs no lock."""
        if self._main is None:
            return None
        percent = float(self._main.query_progress())
        return percent if 0 < percent <= 100 else None

    def interrupt(self) -> None:
        """Stop what is running on the connection; callable from any thread, without the lock."""
        main = self._main
        if main is not None and is_own(self._owner):
            with contextlib.suppress(duckdb.Error):  # it was closed meanwhile
                main.interrupt()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same instance, with this one's settings."""
        cursor = self.plain_cursor()
        for name, value in self.session_settings().items():
            cursor.execute(f"SET SESSION {name} = {quote_text(value)}")
        return cursor

    def plain_cursor(self) -> duckdb.DuckDBPyConnection:
        """Another connection to the same instance, with the instance's settings only; needs no lock."""
        return self.main.cursor()

    def session_settings(self) -> Mapping[str, str]:
        """The settings that change answers and differ from DuckDB's defaults, by name; needs no lock."""
        return self._settings

    def process_settings(self) -> Mapping[str, str]:
        """The same for an instance in another process, whose environment may give other defaults; needs no lock."""
        defaults = {name: self._defaults[name] for name in _ENVIRONMENT_SETTINGS if name in self._defaults}
        return {**defaults, **self._settings}

    def close(self, seconds: float = 1.0) -> None:
        """Interrupt what runs and close the instance, once that has ended; it is waited for ``seconds``.

        What runs longer keeps the instance open until it ends, and nothing else can be run.
        """
        main, self._main = self._main, None
        if main is not None and not within(seconds, lambda: self._close(main), "close"):
            logging.getLogger(__name__).warning("a statement does not stop: its database is closed once it has ended")

    def _close(self, main: duckdb.DuckDBPyConnection) -> None:
        while not self.lock.acquire(timeout=_INTERRUPT_SECONDS):
            main.interrupt()  # it is lost where it comes before DuckDB executes
        try:
            main.close()
        finally:
            self.lock.release()

    def _answer_settings(self) -> dict[str, str]:
        names = ", ".join(quote_text(name) for name in (*ANSWER_SETTINGS, _TIME_LIMIT))
        rows = self.main.execute(
            f"SELECT name, value FROM system.main.duckdb_settings() WHERE name IN ({names})"
        ).fetchall()
        found = {name: value for name, value in rows if value is not None}
        self.max_execution_ms = int(found.pop(_TIME_LIMIT, 0))
        return found


def quote_text(text: str) -> str:
    """``text`` as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def serialized(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """DuckDB's parse of ``sql`` as JSON."""
    rows = connection.execute("SELECT system.main.json_serialize_sql(?)", [sql]).fetchall()
    return str(rows[0][0])


def _reads(handle: duckdb.Statement, parser: duckdb.DuckDBPyConnection) -> bool:
    kind, text = _kind(handle), handle.query
    if kind == "MULTI":
        return _PIVOT.search(text) is not None and not script_writes(text)
    return kind == "SELECT" and not query_writes(text, lambda sql: serialized(parser, sql))


def _choose(parameters: Parameters, wanted: set[str], takers: int) -> Parameters:
    if not parameters or (takers > 0 and not wanted):
        return None
    if not isinstance(parameters, Mapping):
        return list(parameters)
    if takers > 1:
        given = {name.lower(): value for name, value in parameters.items()}
        return {name: given[name.lower()] for name in wanted if name.lower() in given} or None
    return dict(parameters)  # of those that are too many DuckDB says so


def _refuse_excess(parameters: Mapping[str, Any], handles: Sequence[duckdb.Statement]) -> None:
    """Refuse names that no statement takes, as DuckDB refuses them of one statement."""
    wanted = {name.lower() for handle in handles for name in handle.named_parameters}
    excess = [name for name in parameters if name.lower() not in wanted]
    if excess:
        raise ValueFailure(
            f"Parameter argument/count mismatch, identifiers of the excess parameters: {', '.join(excess)}",
            code="INVALID_INPUT",
        )


def _kind(handle: duckdb.Statement) -> str:
    try:
        return str(handle.type.name)
    except ValueError:
        # CONNECT is one; DuckDB makes a database file before it finds that it cannot connect to it.
        raise QueryError(
            "DuckDB's Python client does not know this kind of statement", code="NOT_IMPLEMENTED"
        ) from None


def _opened(config: SessionConfig, settings: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
    """The database of a session.

    A database that is only read is attached to an instance of the session's own. DuckDB gives a file to one instance of
    a process, and shares that where all settings are alike, which they never are; but any instance may attach it.
    """
    if not config.read_only or config.database.startswith(":memory:"):
        return duckdb.connect(config.database, read_only=config.read_only, config=dict(settings))
    connection = duckdb.connect(":memory:", config=dict(settings))
    known = "SELECT database_name FROM system.main.duckdb_databases() WHERE NOT internal"
    try:
        before = connection.execute(known).fetchall()
        connection.execute(f"ATTACH {quote_text(config.database)} (READ_ONLY)")
        ((name,),) = (row for row in connection.execute(known).fetchall() if row not in before)
        connection.execute('USE "' + name.replace('"', '""') + '"')
    except duckdb.BinderException:
        connection.close()  # it is called like one that is there: memory, temp
        return duckdb.connect(config.database, read_only=True, config=dict(settings))
    except BaseException:
        connection.close()
        raise
    return connection


def _open_error(error: Exception, config: SessionConfig) -> Exception:
    translated = translate(error)
    if re.search(_IN_USE, translated.message):
        return ConfigError(
            f"{config.database} is in use: {translated.message}",
            code="DATABASE_IN_USE",
            hint="close it there, or open it with read_only=True in every place",
        )
    if translated.code == "SETTING_NOT_FOUND" or "options were not recognized" in translated.message:
        return ConfigError(translated.message, candidates=translated.candidates)
    return translated


def _hide_progress_bar(connection: duckdb.DuckDBPyConnection) -> None:
    # Under IPython DuckDB draws a bar of its own: a widget that stays, is saved and cannot be read in the dark.
    try:
        connection.execute("SET SESSION enable_progress_bar_print = false")
    except duckdb.InvalidInputException as error:
        # In a kernel without ipywidgets DuckDB refuses the setting, and has no bar to hide.
        if "ipywidgets" not in str(error):
            raise
