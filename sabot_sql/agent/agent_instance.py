"""The DuckDB instance of an agent, in a process or in a thread: locked down to what its queries declared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import duckdb

from sabot_planner.sql.text import quote
from sabot_sql.agent.runner import Runner
from sabot_sql.protocol.task_spec import QueryContext
from sabot_sql.transport.interface import Transport

if TYPE_CHECKING:
    import sabot_native


_OPTIMIZERS_OF_JOINS = ("join_order", "build_side_probe_side", "partial_aggregate_pushdown")
"""Off where DuckDB has ordered the joins of the whole query. In a fragment it would order them worse: a slice of a
table looks like a filter to it, which it takes to leave a fifth, and of an edge it knows nothing."""


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """How an agent starts; ``duckdb`` are settings for every instance it opens."""

    agent_id: str
    shuffle_bytes: int
    spill_directory: str
    temp_directory: str
    threads: int
    memory_bytes: int
    duckdb: tuple[tuple[str, str], ...] = field(default=())


class AgentInstance:
    """Opens a DuckDB instance that may read what a query declares and keeps it for the next query.

    A locked configuration cannot be changed, so a query with other settings or more sources gets another instance,
    which takes about 20 ms. Used by one thread. ``transport`` opens what tasks read, in place of the manager.
    """

    def __init__(
        self,
        config: InstanceConfig,
        manager: sabot_native.ShuffleManager,
        transport: Transport | None = None,
    ) -> None:
        self._config = config
        self._manager = manager
        self._transport = transport
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._runner: Runner | None = None
        self._settings: tuple[tuple[str, str], ...] = ()
        self._paths: frozenset[str] = frozenset()
        self._attachments: frozenset[tuple[str, str]] = frozenset()
        self._sink = ""
        self._joins_ordered = True

    @contextmanager
    def runner(self, context: QueryContext) -> Iterator[Runner]:
        """A runner on an instance that fits ``context``."""
        yield self._fitting(context)

    def warm_up(self) -> None:
        """Open an instance before the first query asks for one."""
        self._fitting(QueryContext("", joins_ordered=True))

    def close(self) -> None:
        """Close the instance."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fitting(self, context: QueryContext) -> Runner:
        paths, attachments = frozenset(context.paths), frozenset(context.attachments)
        fits = context.settings == self._settings and paths <= self._paths and attachments <= self._attachments
        # An instance that may write serves the query that declared it and no other.
        fits &= context.sink == self._sink and context.joins_ordered == self._joins_ordered
        if self._runner is None or not fits:
            self.close()
            self._settings = context.settings
            self._paths |= paths
            self._attachments |= attachments
            self._sink = context.sink
            self._joins_ordered = context.joins_ordered
            self._connection = self._open()
            self._runner = Runner(
                self._config.agent_id,
                self._connection,
                self._manager,
                settings_on_cursor=False,
                transport=self._transport,
            )
        return self._runner

    def _open(self) -> duckdb.DuckDBPyConnection:
        config = self._config
        connection = duckdb.connect(
            ":memory:",
            config={
                "async_threads": 1,
                **dict(config.duckdb),
                "threads": config.threads,
                "memory_limit": f"{config.memory_bytes}B",
                "temp_directory": config.temp_directory,
                "arrow_lossless_conversion": "true",
                "python_enable_replacements": "false",
                "errors_as_json": "true",
            },
        )
        for name, path in sorted(self._attachments):
            connection.execute(f"ATTACH {_literal(path)} AS {quote(name)} (READ_ONLY)")
        for name, value in self._settings:
            connection.execute(f"SET GLOBAL {quote(name)} = {_literal(value)}")
        if self._joins_ordered:
            disabled = filter(None, (dict(config.duckdb).get("disabled_optimizers"), *_OPTIMIZERS_OF_JOINS))
            connection.execute(f"SET GLOBAL disabled_optimizers = {_literal(','.join(disabled))}")
        directories = sorted(path for path in self._paths if path.endswith("/"))
        directories += [f"{self._sink}/"] * bool(self._sink)
        files = sorted(path for path in self._paths if not path.endswith("/"))
        connection.execute(f"SET allowed_directories = [{', '.join(map(_literal, directories))}]")
        connection.execute(f"SET allowed_paths = [{', '.join(map(_literal, files))}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
