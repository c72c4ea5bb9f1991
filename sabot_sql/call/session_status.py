"""What a session says of itself to ``sabot-sql top``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabot_sql.call.pools import Pools
from sabot_sql.call.query_plans import QueryPlans
from sabot_sql.config import SessionConfig
from sabot_sql.process_memory import resident_bytes

VERSION = 1


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """Knows where to look; the session itself may be forgotten meanwhile."""

    session_id: str
    config: SessionConfig
    plans: QueryPlans
    pools: Pools

    def to_json(self) -> dict[str, Any]:
        """The session, the plans of what it runs, and the memory of its agents, as they are now."""
        return {
            "version": VERSION,
            "process": os.getpid(),
            "program": Path(sys.argv[0]).name if sys.argv else "",
            "session": self.session_id,
            "database": str(self.config.database),
            "isolation": self.config.isolation.value,
            "memory_bytes": self.config.memory_bytes,
            "resident_bytes": resident_bytes(),
            "queries": self.plans.running(),
            "agents": self.pools.memory(),
        }
