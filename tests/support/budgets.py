"""Budgets of sessions by what they leave to work with."""

from __future__ import annotations

from typing import Any

from sabot_sql.config import parse_bytes, parse_config


def budget(working: str, *, agents: int = 2, isolation: str = "thread", **_: Any) -> int:
    """The ``memory_limit`` that leaves ``working`` beside what the processes take anyway, or the least that works."""
    config = parse_config(agents=agents, isolation=isolation, memory_limit="1TiB")
    return max(config.least_memory_bytes, config.standing_bytes + parse_bytes("working", working))


def with_budget(working: str, **options: Any) -> dict[str, Any]:
    """``options`` of a session with the ``memory_limit`` that leaves ``working``."""
    return {**options, "memory_limit": budget(working, **options)}
