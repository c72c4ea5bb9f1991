"""Where a query runs that may run on one agent of a cluster, on all of them, or in the session: by bytes and grants."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sabot_planner.errors import Undistributable
from sabot_planner.logical.size_text import size
from sabot_sql.protocol.members import AgentGrant

WORTH_BYTES = 64 << 20
"""What one thread reads sooner than several agents agree on who reads what."""


@dataclass(frozen=True, slots=True)
class SourceReaders:
    """A source of the query: how much of it is read, None where that is not known, and which agents can read it.

    Without ``readers`` only the session's process can.
    """

    read_bytes: int | None
    readers: frozenset[str]


def why_one_task(sources: Sequence[SourceReaders], grants: Sequence[AgentGrant]) -> str | None:
    """Why one agent answers the query best; None where all do.

    Raises:
        Undistributable: the session does.
    """
    by_agents = [source for source in sources if source.readers]
    here = [source for source in sources if not source.readers]
    bytes_here = _sum(here)
    if not by_agents:
        raise Undistributable("all that it reads is in the session's process, which need not send it")
    able = able_agents(sources)
    if not able:
        raise Undistributable("no agent can read all files of the query: the session can")
    bytes_there = _sum(by_agents)
    if here and bytes_there is not None and (bytes_here is None or bytes_here >= bytes_there):
        sent = "what" if bytes_here is None else f"{size(bytes_here)} that"
        raise Undistributable(f"{sent} only the session reads would be sent, for {size(bytes_there)} that agents read")
    if len(able) == 1 and len(grants) > 1:
        (agent,) = able
        return f"one agent: only {agent} can read the files"
    if any(grant.agent_id not in able for grant in grants):
        return f"one agent: {len(able)} of {len(grants)} can read the files"
    if len(grants) == 1:
        return "one agent: the cluster has no other"
    if bytes_there is None:
        return None
    chosen = [grant for grant in grants if grant.agent_id in able]
    threads, memory_bytes = min(grant.threads for grant in chosen), min(grant.memory_bytes for grant in chosen)
    read_bytes = bytes_there + (bytes_here or 0)
    few_bytes = min(WORTH_BYTES * threads, memory_bytes // 4)
    if read_bytes > few_bytes:
        return None
    return f"one agent: it reads about {size(read_bytes)}, and {size(few_bytes)} are not worth a second agent"


def able_agents(sources: Sequence[SourceReaders]) -> frozenset[str]:
    """The agents that can read all sources that are not the session's own."""
    found = [source.readers for source in sources if source.readers]
    return frozenset.intersection(*found) if found else frozenset()


def in_order_of_load(able: Collection[str], grants: Sequence[AgentGrant]) -> tuple[str, ...]:
    """Those agents, the least busy first; of equally busy ones those with more threads and memory."""
    ranked = sorted(grants, key=lambda grant: (grant.load, -grant.threads, -grant.memory_bytes))
    return tuple(grant.agent_id for grant in ranked if grant.agent_id in able)


def readers_of(paths: Sequence[str], grants: Sequence[AgentGrant]) -> frozenset[str]:
    """The agents that may read all of what lies at ``paths``."""
    return frozenset(grant.agent_id for grant in grants if all(_allows(grant.data_roots, path) for path in paths))


def source_readers(
    read_bytes: Mapping[str, int | None], readers: Mapping[str, frozenset[str]]
) -> tuple[SourceReaders, ...]:
    """Each source that is read, with its readers; ``readers`` has none for those of the session."""
    return tuple(SourceReaders(count, readers.get(source, frozenset())) for source, count in read_bytes.items())


def _allows(roots: Sequence[str], path: str) -> bool:
    return "://" in path or any(path.startswith(root.rstrip("/") + "/") for root in roots)


def _sum(sources: Sequence[SourceReaders]) -> int | None:
    counts = [source.read_bytes for source in sources]
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
