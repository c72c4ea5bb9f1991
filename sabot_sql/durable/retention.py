"""How much of what has ended is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sabot_sql.config import parse_bytes
from sabot_sql.detached.doctor import size_bytes
from sabot_sql.detached.kept_result import Outcome
from sabot_sql.detached.state_directory import StateDirectory
from sabot_sql.errors import ConfigError, SabotSQLError

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Quotas:
    """Queries that have ended are kept for ``days``, while they are fewer than ``queries`` and take fewer ``bytes``."""

    days: float = 7.0
    queries: int = 10_000
    bytes: int = 20 << 30

    @classmethod
    def of_environment(cls) -> Quotas:
        """Those of ``SABOT_STATE_DAYS``, ``SABOT_STATE_QUERIES`` and ``SABOT_STATE_BYTES``, and the defaults.

        Raises:
            ConfigError: one of them is no number.
        """
        default, given = cls(), os.environ
        try:
            return cls(
                float(given.get("SABOT_STATE_DAYS", default.days)),
                int(given.get("SABOT_STATE_QUERIES", default.queries)),
                parse_bytes("SABOT_STATE_BYTES", given.get("SABOT_STATE_BYTES", default.bytes)),
            )
        except ValueError as error:
            raise ConfigError(f"SABOT_STATE_DAYS and SABOT_STATE_QUERIES are to be numbers: {error}") from None


def expired(state: StateDirectory, quotas: Quotas, now_ms: int) -> list[str]:
    """The queries that have ended and are not kept any longer, the oldest first."""
    ended: list[tuple[int, str, int]] = []
    for directory in state.queries.iterdir():
        try:
            outcome = Outcome.read(directory)
        except SabotSQLError:
            continue
        if outcome is not None:
            ended.append((outcome.ended_ms, directory.name, size_bytes(directory)))
    ended.sort(reverse=True)
    gone: list[str] = []
    total_bytes = 0
    for place, (ended_ms, query_id, query_bytes) in enumerate(ended):
        total_bytes += query_bytes
        if now_ms - ended_ms > quotas.days * _DAY_MS or place >= quotas.queries or total_bytes > quotas.bytes:
            gone.append(query_id)
    return gone[::-1]
