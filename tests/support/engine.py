"""Run queries on sabot_sql through its public interface, in the form that :mod:`tests.support.compare` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sabot_sql
import sabot_sql.catalog.file_sources
import sabot_sql.catalog.frames
import sabot_sql.catalog.sources
from sabot_sql.config import SessionConfig
from tests.support.budgets import with_budget
from tests.support.compare import Rows, difference
from tests.support.oracle import Oracle

TIMEOUT_SECONDS = 60.0
"""A query that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A result with how it was reached; ``plan`` is the plan JSON."""

    rows: Rows
    plan: dict[str, Any]

    @property
    def mode(self) -> str:
        """distributed, partly or single."""
        return str(self.plan["mode"])

    @property
    def reason(self) -> str:
        return str(self.plan["reason"])

    @property
    def fell_back(self) -> bool:
        """Whether agents failed where one succeeded: right for a user, and a defect to a test."""
        return self.reason.startswith(("it failed on several agents", "it could not be planned"))


@contextmanager
def small_slices(rows: int = 3) -> Iterator[None]:
    """While it is open, so few rows are worth a slice that tables of a few rows are split among agents."""
    modules = [sabot_sql.catalog.sources, sabot_sql.catalog.file_sources, sabot_sql.catalog.frames]
    found = [(module, module.SLICE_ROWS) for module in modules if hasattr(module, "SLICE_ROWS")]
    for module, _ in found:
        module.SLICE_ROWS = rows  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module, value in found:
            module.SLICE_ROWS = value  # type: ignore[attr-defined]


@contextmanager
def planner_settings(**changes: Any) -> Iterator[None]:
    """While it is open, sessions plan with these settings of the planner, for which they have no options."""
    made = SessionConfig.plan_settings
    SessionConfig.plan_settings = lambda self: replace(made(self), **changes)  # type: ignore[method-assign]
    try:
        yield
    finally:
        SessionConfig.plan_settings = made  # type: ignore[method-assign]


@contextmanager
def session(setup: Sequence[str] = (), **options: Any) -> Iterator[sabot_sql.Session]:
    """A session with ``options`` of ``connect`` on which the statements of ``setup`` have run; its slices are small.

    The option ``working`` stands for the ``memory_limit`` that leaves so much to work with.
    """
    if "working" in options:
        options = with_budget(options.pop("working"), **options)
    with small_slices(), sabot_sql.connect(**options) as opened:
        for statement in setup:
            opened.execute(statement)
        yield opened


def run(sql: str, *, setup: Sequence[str] = (), **options: Any) -> Answer:
    """One query on a session of its own; ``options`` are those of ``connect``."""
    with session(setup, **options) as opened:
        return answer(opened, sql)


@contextmanager
def sessions(configurations: Mapping[str, Mapping[str, Any]], setup: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """A session for each configuration, by its name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(session(setup, **options)) for name, options in configurations.items()}


def agents_answer(opened: sabot_sql.Session, sql: str) -> Answer:
    """One query on an open session, whose agents must not have failed where one succeeded."""
    found = answer(opened, sql)
    assert not found.fell_back, f"{sql}\n{found.reason}"
    return found


def assert_same_as_duckdb(opened: sabot_sql.Session, setup: Sequence[str], sql: str) -> None:
    """Run ``setup`` on the session and on plain DuckDB, and demand the same rows of a query that is determined."""
    for statement in setup:
        opened.execute(statement)
    with Oracle(setup) as oracle:
        expected = oracle.expect(sql).answer
    found = agents_answer(opened, sql)
    wrong = difference(expected, found.rows)
    assert wrong is None, f"{setup}\n{sql}\n{found.mode}: {found.reason}\n{wrong}"


def answer(opened: sabot_sql.Session, sql: str) -> Answer:
    """One query on an open session."""
    result = opened.query(sql, timeout=TIMEOUT_SECONDS)
    rows = Rows(tuple(result.columns), tuple(map(str, result.types)), tuple(map(tuple, result.fetchall())))
    return Answer(rows, result.plan.json())
