"""Hands a query over to the durable host."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sabot_sql.catalog.catalog import Catalog
from sabot_sql.catalog.connection import Parameters, Statement, quote_text
from sabot_sql.catalog.frames import Scope
from sabot_sql.catalog.session_copy import copy_session
from sabot_sql.config import SessionConfig
from sabot_sql.detached.durable_query import DurableQuery
from sabot_sql.detached.host_client import HostClient
from sabot_sql.detached.messages import QueryState, Submit
from sabot_sql.detached.query_handle import QueryHandle
from sabot_sql.detached.state_directory import StateDirectory


@dataclass(frozen=True, slots=True)
class Submission:
    """A query to hand over, and where it was asked."""

    query_id: str
    sql: str
    params: Parameters
    statement: Statement
    config: SessionConfig
    scopes: Sequence[Scope]
    timeout_seconds: float | None
    priority: int


def submit(submission: Submission, catalog: Catalog) -> QueryHandle:
    """Write down all that the query needs, and ask the host to run it; hold the lock of the catalog's connection.

    Raises:
        SabotSQLError: nothing of it is left then.
    """
    state = StateDirectory.chosen()
    directory = state.query(submission.query_id)
    directory.mkdir(mode=0o700)
    try:
        config = submission.config
        with catalog.checked(submission.statement, submission.scopes):
            pass  # what is wrong with it is said now
        copy = copy_session(
            catalog, submission.statement, submission.scopes, config.database, config.read_only, directory
        )
        query = DurableQuery(
            submission.query_id,
            submission.sql,
            submission.params,
            replace(config, database=copy.database),
            (f"SET file_search_path = {quote_text(str(Path.cwd()))}", *copy.statements),
            int(time.time() * 1e3),
            submission.timeout_seconds,
        )
        query.write(directory)
        client = HostClient(state)
        client.ask(Submit(submission.query_id, submission.priority), QueryState)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return QueryHandle(submission.query_id, client)
