"""Queries as workflows of DBOS: the journal of a query is what its steps return, and recovery reads it again.

Only what DBOS documents is used. A query is enqueued on a queue that is polled often, so that a host that comes back
goes on at once. Everything is recorded as JSON: a pickle is never read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import sqlalchemy
from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions, SetWorkflowID, WorkflowStatus

from sabot_sql.coordinator.journal import JOURNAL_VERSION

QUEUE = "sabot-sql"
WORKFLOW = "sabot_sql.query"
APPLICATION_VERSION = f"journal-{JOURNAL_VERSION}"
"""Ours, not DBOS's digest of sources: an upgrade of either strands no query whose journal can still be read."""

_POLL_SECONDS = 0.05
"""DBOS polls once a second by default: a query would wait as long, also after its host has come back."""
_MOST_AT_ONCE = 32
"""So many queries are admitted or wait for memory; more stay on the queue."""
_MOST_RECOVERIES = 25
"""A query with which the host dies again and again is given up."""
_PROBE_SECONDS = 3
_BUSY_MS = 30_000
"""So long a locked SQLite database is waited for."""

DATABASE_ERRORS = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.TimeoutError)
"""What is raised while the system database does not answer; DBOS itself waits for it where a step is recorded."""

OPEN_STATES = ("ENQUEUED", "PENDING", "DELAYED")


class Runner(Protocol):
    """What brings a query further: the host."""

    def admit(self, query_id: str) -> dict[str, Any]:
        """Wait until the query may run; what it was granted, ``{"memory_bytes": …, "reason": …}``, is recorded."""
        ...

    def advance(self, query_id: str, grant: Mapping[str, Any], recorded: Sequence[str]) -> dict[str, Any]:
        """Wait for what is to be recorded next, as ``{"lines": […], "outcome": None}``; the last one has an outcome.

        ``grant`` and ``recorded`` are what was recorded before, also by an earlier host.
        """
        ...


class Workflows:
    """DBOS, launched; there is one in a process. ``runner`` runs the queries."""

    def __init__(self, database: Path | str, executor: str, runner: Runner) -> None:
        """Open ``database``, a SQLite file or the URL of a PostgreSQL."""
        logging.getLogger("dbos").setLevel(logging.WARNING)
        config = DBOSConfig(
            name="sabot-sql",
            executor_id=executor,
            application_version=APPLICATION_VERSION,
            serializer=DBOSPortableJSONSerializer(),
            log_level="WARNING",
            notification_listener_polling_interval_sec=0.1,
        )
        self._probe: sqlalchemy.Engine | None = None
        if isinstance(database, Path):
            config["system_database_engine"] = _sqlite(database)
            config["system_database_url"] = f"sqlite:///{database}"
        else:
            config["system_database_url"] = database
            self._probe = _probe(database)
        self._dbos = DBOS(config=config)
        self._run = DBOS.workflow(name=WORKFLOW, max_recovery_attempts=_MOST_RECOVERIES)(_workflow(runner))
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=_MOST_AT_ONCE,
            polling_interval_sec=_POLL_SECONDS,
            on_conflict="always_update",
        )

    def check(self) -> None:
        """See that the system database answers. DBOS would wait for it, however long that takes.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: one of ``DATABASE_ERRORS``: it does not.
        """
        if self._probe is not None:
            with self._probe.connect() as connection:
                connection.execute(sqlalchemy.text("SELECT 1"))

    def enqueue(self, query_id: str, first_line: str, submitted_ms: int, priority: int) -> None:
        """Run a query; again is nothing new. What is listed of it is kept with it."""
        with SetWorkflowID(query_id), SetEnqueueOptions(priority=priority + 1):  # DBOS counts from 1
            DBOS.enqueue_workflow(QUEUE, self._run, query_id, first_line, submitted_ms)

    def find(self, query_id: str) -> WorkflowStatus | None:
        """What DBOS knows of a query."""
        return next(iter(DBOS.list_workflows(workflow_ids=[query_id], name=WORKFLOW)), None)

    def list(self, limit: int | None = None, *, open_only: bool = False) -> list[WorkflowStatus]:
        """The queries, the latest first."""
        states = list(OPEN_STATES) if open_only else None
        return DBOS.list_workflows(name=WORKFLOW, status=states, limit=limit, sort_desc=True)

    def cancel(self, query_id: str) -> None:
        """Take a query from the queue, or end its workflow at its next step."""
        DBOS.cancel_workflow(query_id)

    def delete(self, query_ids: Sequence[str]) -> None:
        """Forget queries that have ended."""
        if query_ids:
            DBOS.delete_workflows(list(query_ids))

    def close(self) -> None:
        """End DBOS; what runs is found again by the next one."""
        DBOS.destroy(workflow_completion_timeout_sec=0)


def _workflow(runner: Runner) -> Callable[[str, str, int], dict[str, Any]]:
    def run(query_id: str, first_line: str, submitted_ms: int) -> dict[str, Any]:
        del first_line, submitted_ms  # for whoever lists the workflows
        # With other memory the query would be planned otherwise, and what was recorded could not be used.
        grant = DBOS.run_step({"name": "admit"}, runner.admit, query_id)
        lines: list[str] = []
        while True:
            piece = DBOS.run_step({"name": "progress"}, runner.advance, query_id, grant, tuple(lines))
            lines += piece["lines"]
            outcome: dict[str, Any] | None = piece["outcome"]
            if outcome is not None:
                return outcome

    return run


def _probe(url: str) -> sqlalchemy.Engine:
    parsed = sqlalchemy.make_url(url)
    driver = parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
    return sqlalchemy.create_engine(
        driver,
        pool_size=1,
        pool_timeout=_PROBE_SECONDS,
        pool_pre_ping=True,
        connect_args={"connect_timeout": _PROBE_SECONDS},
    )


def _sqlite(file: Path) -> sqlalchemy.Engine:
    """An engine that writes ahead: a step is recorded without a wait for the disk, and readers never block it.

    What SQLite has acknowledged outlives the process. After a loss of power a query may go on from further back.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")

    @sqlalchemy.event.listens_for(engine, "connect")
    def opened(connection: Any, _: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in (f"busy_timeout={_BUSY_MS}", "foreign_keys=ON", "journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def shown_database(database: Path | str) -> str:
    """A database as it may be shown: without user and password."""
    if isinstance(database, Path):
        return str(database)
    parts = urlsplit(database)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
