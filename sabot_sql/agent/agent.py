"""What a coordinator knows of an agent, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sabot_sql.protocol.task_spec import Outcome, QueryContext, TaskId, Work

Done = Callable[[Outcome], None]


class Agent(Protocol):
    """Runs what it is given, one at a time and in order, and keeps what its tasks committed until it is released.

    No method waits for a task. ``done`` is called once for each work, by a thread of the agent's; it must not block.
    Methods may be called by any thread. An agent that died answers every work with ``AGENT_DIED``.
    """

    @property
    def agent_id(self) -> str:
        """Unique within a session, over its whole life."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it can take work."""
        ...

    @property
    def readable(self) -> bool:
        """Whether what it committed can be read, be it alive or not."""
        ...

    def begin(self, context: QueryContext) -> None:
        """Announce a query and its edges; work for an unknown query is refused."""
        ...

    def submit(self, work: Work, done: Done) -> None:
        """Run ``work`` when its turn comes."""
        ...

    def cancel(self, query_id: str) -> None:
        """Interrupt the query's work, running or waiting; repeat until all of it has answered."""
        ...

    def stop(self, task_id: TaskId) -> None:
        """Interrupt this attempt and no other; repeat until it has answered."""
        ...

    def give_up(self, query_id: str) -> None:
        """The query's work did not end when it was interrupted: end it by force where that is possible."""
        ...

    def release(self, query_id: str, edge_id: str | None = None) -> None:
        """Free what the query committed to the edge, or all of it: then the agent forgets the query."""
        ...

    def metrics(self, wait_seconds: float = 5.0) -> dict[str, int]:
        """Figures of the agent's shuffle manager, or those that came last where it does not answer in time."""
        ...

    def kill(self) -> None:
        """End it by force where that is possible; its work answers ``AGENT_DIED``."""
        ...

    def end(self) -> None:
        """Interrupt everything and take nothing more; returns at once."""
        ...

    def close(self) -> None:
        """End, if need be by force where that is possible, and free everything; returns within seconds."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        ...
