"""What one query reads: the planner's context and the runtime's binder, over the session's DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import duckdb

from sabot_planner import Column, Placement, PlanSettings, RangeSplit, SourceInfo, Zone
from sabot_planner.errors import Undistributable
from sabot_sql.catalog.agent_choice import (
    SourceReaders,
    able_agents,
    in_order_of_load,
    readers_of,
    source_readers,
    why_one_task,
)
from sabot_sql.catalog.connection import Connection
from sabot_sql.catalog.conversion import quote_name
from sabot_sql.catalog.estimates import Estimates
from sabot_sql.catalog.file_places import PlacedCall, placed_call
from sabot_sql.catalog.file_sources import (
    FILE_FUNCTIONS,
    PARQUET_FUNCTIONS,
    FileSource,
    file_name_column,
    file_patterns,
    file_set,
    file_units,
    file_versions,
    max_slices,
)
from sabot_sql.catalog.frames import memory_source
from sabot_sql.catalog.measured import MeasuredRows
from sabot_sql.catalog.memory_tables import ShadowedTable
from sabot_sql.catalog.parquet_footers import local_path
from sabot_sql.catalog.relation_text import FunctionCall, TableName, parse_relation, text_literal
from sabot_sql.catalog.series_sources import SERIES_FUNCTIONS, series_source
from sabot_sql.catalog.session_functions import session_reason
from sabot_sql.catalog.sources import (
    MemoryTableSource,
    SliceBinding,
    Source,
    TableSource,
    WholeSource,
    type_bytes,
)
from sabot_sql.catalog.whole_files import WHOLE_FILE_FUNCTIONS, WholeFilesSource
from sabot_sql.config import Isolation, SessionConfig
from sabot_sql.duck.errors import translate
from sabot_sql.errors import InternalError, QueryError
from sabot_sql.protocol.members import AgentGrant
from sabot_sql.protocol.task_spec import FileVersion

if TYPE_CHECKING:
    from sabot_sql.catalog.catalog import Stoppable
    from sabot_sql.catalog.catalog_facts import CatalogFacts
    from sabot_sql.protocol.task_spec import BatchFunction

# Table functions that give the same rows on any agent, in any process.
_PURE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "repeat", "repeat_row"})

# Slices name rows by number, and DuckDB 2.0 fails with an internal error where it materialises such a scan late.
# What another stage has sorted is read in that order, also where the session lets DuckDB forget orders.
FRAGMENT_SETTINGS = {"late_materialization_max_rows": "0", "preserve_insertion_order": "true"}


class QuerySources:
    """Implements ``PlanContext`` and ``SourceBinder``.

    What DuckDB is asked holds the connection meanwhile, and ends when the query is stopped; ``bind_slice`` and what
    follows it need no connection. A relation that the query reads twice is one source.
    """

    def __init__(
        self,
        connection: Connection,
        facts: CatalogFacts,
        config: SessionConfig,
        shadows: Mapping[str, ShadowedTable],
        estimates: Estimates,
        measured: MeasuredRows,
        stoppable: Stoppable,
        grants: Sequence[AgentGrant] | None = None,
    ) -> None:
        self.agents = config.agent_count
        self.settings: PlanSettings = config.plan_settings()
        self._connection = connection
        self._facts = facts
        self._in_processes = config.isolation is not Isolation.THREAD
        self._shadows = shadows
        self._estimates = estimates
        self._measured = measured
        self._stoppable = stoppable
        self._sources: dict[tuple[str, tuple[str, ...]], Source] = {}
        self._by_id: dict[str, Source] = {}
        self._collated = False
        settings = connection.process_settings() if self._in_processes else connection.session_settings()
        self._settings = {**settings, **FRAGMENT_SETTINGS}
        order = {**config.duckdb, **settings}.get("preserve_insertion_order", "true")
        self.settings = replace(self.settings, keep_order=order.lower() not in ("false", "0"))
        self._attached: dict[str, str] = {}
        self._paths: dict[str, None] = {}
        self._grants = grants
        self._chooses_agents = config.chooses_agents and grants is not None
        self._readers: dict[str, frozenset[str]] = {}
        self._read_by_agents: set[tuple[str, ...]] = set()
        self._versions: dict[tuple[str, ...], tuple[tuple[int, int], ...]] = {}

    # ------------------------------------------------------------------------------------------------- PlanContext

    def source(self, relation_sql: str, virtual_columns: Sequence[str]) -> SourceInfo:
        """Describe a relation as DuckDB exported it."""
        key = relation_sql, tuple(virtual_columns)
        if key not in self._sources:
            with self._asking():
                source = self._make(relation_sql, tuple(virtual_columns), f"s{len(self._sources)}")
            self._sources[key] = source
            self._by_id[source.info.source_id] = source
        info = self._sources[key].info
        # Every agent of this process can use the session's DuckDB.
        return info if self._in_processes else replace(info, placement=Placement.ANY)

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        """Least and greatest values per row group of the Parquet files of a source."""
        source = self._by_id[source_id]
        return source.zones(column) if isinstance(source, FileSource) else None

    def types(self, expressions: Sequence[str], relation_sql: str) -> tuple[str, ...]:
        """DuckDB's types of the expressions, from binding alone."""
        relation = f" FROM {relation_sql}" if relation_sql else ""
        with self._asking():
            rows = self._ask(f"DESCRIBE SELECT {', '.join(expressions)}{relation}")
        return tuple(row[1] for row in rows)

    def aggregates(self) -> frozenset[str]:
        """Names of DuckDB's aggregate functions."""
        with self._asking():
            return self._facts.aggregates()

    def volatile_functions(self) -> frozenset[str]:
        """Names of functions whose value may differ from row to row."""
        with self._asking():
            return self._facts.volatile_functions()

    def is_collated(self) -> bool:
        """Whether a table of the query was declared with COLLATE, or the session has a default collation."""
        return self._collated or bool(self._settings.get("default_collation"))

    def recalls(self) -> bool:
        """Whether an earlier query of the session measured anything."""
        return len(self._measured) > 0

    def remembered(self, identity: str) -> int | None:
        """The rows of a sub-plan when an earlier query of the session ran it."""
        return self._measured.rows(identity)

    def rows_estimated(self, tables: Sequence[str]) -> int | None:
        """DuckDB's estimate of the join over these scans."""
        with self._asking():
            return self._estimates.rows(tables)

    def serialized(self, sql: str) -> str:
        """DuckDB's parse of ``sql`` as JSON (``json_serialize_sql``), an error object where it cannot be parsed."""
        with self._asking():
            return self._facts.serialized(sql)

    def check(self) -> None:
        """Stop planning if the query was stopped."""
        self._stoppable.check()

    def why_one_task(self, read_bytes: Mapping[str, int | None]) -> str | None:
        """See :func:`~sabot_sql.catalog.agent_choice.why_one_task`, for the sources that the planner asked for."""
        return why_one_task(self._source_readers(read_bytes), self._grants or ())

    def able_agents(self) -> tuple[str, ...]:
        """The agents that can run the whole query, the least busy first."""
        sources = self._source_readers(dict.fromkeys(self._by_id))
        return in_order_of_load(able_agents(sources), self._grants or ())

    def may_run_on(self, grant: AgentGrant) -> bool:
        """Whether that agent can read all that agents read of the query."""
        return bool(readers_of(self.paths(), [grant]))

    def _source_readers(self, read_bytes: Mapping[str, int | None]) -> tuple[SourceReaders, ...]:
        everyone = frozenset(grant.agent_id for grant in self._grants or ())
        readers = {
            source_id: self._readers.get(source_id, everyone)
            for source_id in read_bytes
            if self._by_id[source_id].info.placement is not Placement.SESSION
        }
        return source_readers(read_bytes, readers)

    def _asking(self) -> AbstractContextManager[None]:
        return self._stoppable.asking(self._connection)

    # ------------------------------------------------------------------------------------------------ SourceBinder

    def bind_slice(self, source_id: str, index: int, count: int) -> SliceBinding:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        return self._by_id[source_id].slice(index, count)

    def bind_range(self, source_id: str, split: RangeSplit, first: int, last: int) -> SliceBinding:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        source = self._by_id[source_id]
        if not isinstance(source, FileSource):
            raise InternalError(f"source {source_id} has no ranges")
        return source.range(split, first, last)

    def in_session(self, source_id: str) -> bool:
        """See :class:`~sabot_sql.catalog.sources.SourceBinder`."""
        return self._by_id[source_id].info.placement is Placement.SESSION

    def function(self, function_id: str) -> BatchFunction:
        """A query has none."""
        raise InternalError(f"no function {function_id!r}")

    def session_settings(self) -> Mapping[str, str]:
        """Settings that change answers, and one that slices need."""
        return self._settings

    def attachments(self) -> tuple[tuple[str, str], ...]:
        """Database files that fragments read."""
        return tuple(self._attached.items())

    def paths(self) -> tuple[str, ...]:
        """Files and directories that fragments read."""
        return tuple(self._paths)

    def files(self) -> tuple[FileVersion, ...]:
        """The local files among them, as they were when the query was planned."""
        return tuple(
            FileVersion(str(local_path(file)), size_bytes, mtime_ns)
            for files, versions in self._versions.items()
            if files in self._read_by_agents
            for file, (mtime_ns, size_bytes) in zip(files, versions, strict=True)
        )

    def changed_file(self) -> str | None:
        """A local file that is not what it was when the query was planned: tasks may have read one or the other."""
        for files, versions in self._versions.items():
            if file_versions(files) != versions:
                return next((f for f, v in zip(files, versions, strict=True) if file_versions([f]) != (v,)), files[0])
        return None

    # ---------------------------------------------------------------------------------------------------- sources

    def _make(self, relation: str, virtual: tuple[str, ...], source_id: str) -> Source:
        parsed = parse_relation(relation)
        if isinstance(parsed, TableName):
            return self._table(parsed, relation, virtual, source_id)
        reads_files = parsed.name in FILE_FUNCTIONS or parsed.name in WHOLE_FILE_FUNCTIONS
        reason = session_reason(parsed, reads_files)
        if reason is not None:
            raise Undistributable(reason)
        if parsed.name in FILE_FUNCTIONS and parsed.arguments:
            shadowed = self._shadows.get(text_literal(parsed.arguments[0]) or "")
            if shadowed is not None:
                return self._memory(shadowed, source_id)
            return self._files(parsed, relation, virtual, source_id)
        if parsed.name in WHOLE_FILE_FUNCTIONS:
            return self._whole_files(parsed, relation, source_id)
        placement = Placement.ANY if parsed.name in _PURE_FUNCTIONS else Placement.SESSION
        columns = self._columns(relation, virtual)
        if parsed.name in SERIES_FUNCTIONS:
            series = series_source(parsed, relation, columns, source_id, self._connection.main)
            if series is not None:
                return series
        return WholeSource(SourceInfo(source_id, parsed.name, columns, None, None, 1, placement), relation)

    def _memory(self, table: ShadowedTable, source_id: str) -> Source:
        source = table.source
        columns = tuple(Column(name, type_name) for name, type_name in table.columns)
        info = SourceInfo(
            source_id,
            source.name,
            columns,
            source.rows,
            source.size_bytes,
            source.max_slices,
            Placement.SESSION,
            version=_version("memory", source.number),
        )
        return MemoryTableSource(info, source)

    def _files(self, call: FunctionCall, relation: str, virtual: tuple[str, ...], source_id: str) -> Source:
        main = self._connection.main
        try:
            file_column = file_name_column(call, main)
            placed = self._placed(call, relation, shows_names="filename" in virtual or file_column is not None)
            found = file_set(placed, main, self._settings.get("file_search_path", ""))
            versions = file_versions(found.files) if found.files else None
            if found.files and versions is not None:
                self._versions[found.files] = versions
            columns = self._facts.described(
                (placed.relation, virtual, versions), versions is not None, lambda: self._columns(relation, virtual)
            )
        except duckdb.Error as error:
            raise translate(error) from None
        anywhere = placed.anywhere and self._agents_read(found.readable_paths, source_id)
        if anywhere:
            self._paths.update(dict.fromkeys(found.readable_paths))
            self._read_by_agents.add(found.files or ())
        name = _file_name(found.files or found.readable_paths)
        version = "" if versions is None else _version(placed.relation, found.files, versions)
        whole = found.files is None or (len(found.files) == 1 and call.name not in PARQUET_FUNCTIONS)
        units = () if whole else file_units(call, columns, found)
        info = SourceInfo(
            source_id,
            name,
            columns,
            found.rows,
            found.size_bytes,
            1 if whole else max_slices(units),
            Placement.ANY if anywhere else Placement.SESSION,
            version,
        )
        hidden, names = frozenset(virtual), placed.names
        if found.files is None or whole:
            named = file_column or ("filename" if "filename" in hidden else None)
            return WholeSource(info, placed.relation, {named: names.sql(quote_name(named))} if named else {})
        return FileSource(
            info, placed.call, placed.relation, found.files, units, file_column, hidden, found.facts, names
        )

    def _placed(self, call: FunctionCall, relation: str, *, shows_names: bool) -> PlacedCall:
        patterns = file_patterns(call.arguments[0], self._connection.main)
        return placed_call(call, relation, patterns, self._settings, shows_names=shows_names)

    def _agents_read(self, paths: Sequence[str], source_id: str) -> bool:
        """Whether agents read what lies there: all may, or some, where one of them may run the whole query.

        Agents of other hosts have directories that they share.
        """
        if self._grants is None:
            return True
        readers = readers_of(paths, self._grants)
        if len(readers) == len(self._grants) or (readers and self._chooses_agents):
            self._readers[source_id] = readers
            return True
        return False

    def _whole_files(self, call: FunctionCall, relation: str, source_id: str) -> Source:
        try:
            placed = self._placed(call, relation, shows_names=True)
            found = file_set(placed, self._connection.main, self._settings.get("file_search_path", ""))
        except duckdb.Error as error:
            raise translate(error) from None
        anywhere = placed.anywhere and self._agents_read(found.readable_paths, source_id)
        if anywhere:
            self._paths.update(dict.fromkeys(found.readable_paths))
        name, columns = _file_name(found.files or found.readable_paths), self._columns(relation, ())
        placement = Placement.ANY if anywhere else Placement.SESSION
        files = None if found.files is None else len(found.files)
        info = SourceInfo(source_id, name, columns, files, found.size_bytes, files or 1, placement)
        if found.files is None:
            return WholeSource(info, placed.relation, {"filename": placed.names.sql("filename")})
        return WholeFilesSource(info, placed.call, placed.relation, found.files, placed.names)

    def _table(self, table: TableName, relation: str, virtual: tuple[str, ...], source_id: str) -> Source:
        columns = self._columns(relation, virtual)
        name = table.parts[-1]
        database = table.parts[0] if len(table.parts) == 3 else ""
        rows = self._table_rows(table.parts)
        if database == "temp":
            return self._temporary(name, relation, columns, source_id)
        # To close a file that the session has open as well would give up its lock on it: not twice in one process.
        attached = self._facts.read_only_file(database) if self._in_processes else None
        if attached is not None and not self._agents_read([attached], source_id):
            attached = None
        if attached is not None:
            self._attached[database] = attached
        placement = Placement.ANY if attached is not None else Placement.SESSION
        size = None if rows is None else rows * sum(type_bytes(column.type) for column in columns)
        slices = 1 if rows is None else max(2, rows)  # also a short table is cut where that is asked for
        version = _version(relation, rows, self._facts.statements)
        info = SourceInfo(source_id, name, columns, rows, size, slices, placement, version)
        return TableSource(info, relation) if rows is not None else WholeSource(info, relation)

    def _temporary(self, name: str, relation: str, columns: tuple[Column, ...], source_id: str) -> Source:
        # Temporary tables belong to the session's connection alone: agents get a copy of the rows.
        names = ", ".join(quote_name(column.name) for column in columns)
        try:
            table = self._connection.main.sql(f"SELECT {names} FROM {relation}").to_arrow_table()
        except duckdb.Error as error:
            raise translate(error) from None
        source = memory_source(name, table)
        info = SourceInfo(
            source_id, name, columns, source.rows, source.size_bytes, source.max_slices, Placement.SESSION
        )
        return MemoryTableSource(info, source)

    def _table_rows(self, parts: tuple[str, ...]) -> int | None:
        if len(parts) != 3:
            return None
        rows = self._connection.main.execute(
            "SELECT estimated_size, sql FROM system.main.duckdb_tables()"
            " WHERE database_name = ? AND schema_name = ? AND table_name = ? AND NOT internal",
            list(parts),
        ).fetchall()
        # A column's collation shows nowhere but in the text of its table.
        self._collated |= any(" COLLATE " in str(sql).upper() for _, sql in rows)
        return int(rows[0][0]) if rows and rows[0][0] is not None else None

    def _columns(self, relation: str, virtual: tuple[str, ...]) -> tuple[Column, ...]:
        extra = "".join(f", {quote_name(name)}" for name in virtual)
        rows = self._ask(f"DESCRIBE SELECT *{extra} FROM {relation}")
        columns = tuple(Column(row[0], row[1]) for row in rows)
        # DESCRIBE renames a virtual column that a declared one hides; there is nothing to add then.
        return tuple(c for i, c in enumerate(columns) if c.name not in {d.name for d in columns[:i]})

    def _ask(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return self._connection.main.execute(sql).fetchall()
        except duckdb.Error as error:
            found = translate(error)
            if isinstance(found, QueryError):  # the statement itself is right: it was bound before
                raise Undistributable(f"DuckDB cannot bind a part of what it exported: {found.message}") from None
            raise InternalError(f"DuckDB cannot describe what it exported: {found.message}") from None


def _version(*facts: object) -> str:
    return blake2b(repr(facts).encode(), digest_size=12).hexdigest()


def _file_name(files: Sequence[str]) -> str:
    first = files[0].rstrip("/").rpartition("/")[2] if files else "files"
    return first.partition(".")[0] or first if len(files) == 1 else f"{first} and {len(files) - 1} more"
