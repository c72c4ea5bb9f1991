"""Steps that an interrupt must not end: what takes something back, and what finds out how things are."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import duckdb

_T = TypeVar("_T")

_LONGEST_SECONDS = 5.0
"""Interrupts of one cancelled query come every 50 ms, and each of these steps takes less."""


def in_spite_of_interrupts(step: Callable[[], _T]) -> _T:
    """Take ``step``, and again as often as an interrupt ends it, for a few seconds at most.

    Whoever cancels a query interrupts its connection until the query has ended: an interrupt that was meant for what
    ran before hits what takes it back as well.
    """
    ends = time.monotonic() + _LONGEST_SECONDS
    while True:
        try:
            return step()
        except duckdb.InterruptException:
            if time.monotonic() > ends:
                raise


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """End the transaction of ``connection``, if there is one; see :func:`in_spite_of_interrupts`."""

    def step() -> None:
        try:
            connection.execute("ROLLBACK")
        except duckdb.TransactionException as error:
            if "no transaction is active" not in str(error):
                raise

    in_spite_of_interrupts(step)
