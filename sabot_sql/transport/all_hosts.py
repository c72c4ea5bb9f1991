"""Committed outputs of agents on any host: from memory where that can be mapped, over Arrow Flight elsewhere."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import groupby

import sabot_native
from sabot_native.control import ControlClient
from sabot_native.flight import FlightPeer, JoinedStream, RemoteStream
from sabot_sql.protocol.handshake import HostMark, Place, host_mark
from sabot_sql.transport.credentials import Credentials
from sabot_sql.transport.interface import PartsLost

SILENCE_SECONDS = 5.0
"""A peer that answers nothing for so long is not read from any more; who made what it holds makes it again."""
_LONGEST_MS = 24 * 3600 * 1000
_FETCHES_AHEAD = 4
_OUTPUTS_PER_FETCH = 256
"""A ticket names each of them."""
_FAILURES = (sabot_native.CorruptSegment, sabot_native.InvalidTicket)
"""A ticket is refused by a process that is not the one which committed the outputs: they are gone with that one."""


@dataclass(slots=True)
class _Peer:
    place: Place
    mapped: bool
    client: FlightPeer | None = None


@dataclass(frozen=True, slots=True)
class _Part:
    stream: sabot_native.PartitionStream | RemoteStream
    positions: tuple[int, ...]
    agent_id: str


class JoinedEdge:
    """Partitions of several managers; see :class:`~sabot_sql.transport.interface.EdgeStream`."""

    def __init__(self, schema: sabot_native.PartitionStream, parts: Sequence[_Part], rows: int) -> None:
        self._parts = parts
        self._rows = rows
        self._gone: str | None = None
        self._joined = JoinedStream(schema, [part.stream for part in parts], ahead=_FETCHES_AHEAD)

    @property
    def rows(self) -> int:
        """How many they have."""
        return self._rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._joined.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._joined.__arrow_c_schema__()

    def raise_lost(self) -> None:
        """See :class:`~sabot_sql.transport.interface.EdgeStream`."""
        for part in self._parts:
            try:
                part.stream.raise_error()
            except _FAILURES as error:
                raise PartsLost(f"outputs on agent {part.agent_id}: {error}", self._held_by(part.agent_id)) from error
            except sabot_native.Cancelled as error:
                if self._gone == part.agent_id:
                    raise PartsLost(f"agent {self._gone} is gone", self._held_by(self._gone)) from error
                raise

    def cancel(self) -> None:
        """See :class:`~sabot_sql.transport.interface.EdgeStream`."""
        self._joined.cancel()

    def lose(self, agent_id: str) -> None:
        """End what is fetched from an agent that is gone."""
        for part in self._parts:
            if part.agent_id == agent_id and isinstance(part.stream, RemoteStream):
                self._gone = agent_id
                part.stream.cancel()

    def _held_by(self, agent_id: str) -> tuple[int, ...]:
        """All that an agent has is lost with one part of it."""
        return tuple(at for part in self._parts if part.agent_id == agent_id for at in part.positions)


class AllHosts:
    """Opens outputs of the agents it was told of; see :class:`~sabot_sql.transport.interface.Transport`.

    ``key`` seals the tickets of the session. Thread-safe.
    """

    def __init__(
        self,
        agent_id: str,
        manager: sabot_native.ShuffleManager,
        key: bytes,
        credentials: Credentials,
        mark: HostMark | None = None,
    ) -> None:
        self._agent_id = agent_id
        self._manager = manager
        self._key = key
        self._credentials = credentials
        self._mark = mark or host_mark()
        self._lock = threading.Lock()
        self._peers: dict[str, _Peer] = {}
        self._open: weakref.WeakSet[JoinedEdge] = weakref.WeakSet()

    def learn(self, place: Place) -> None:
        """From here on outputs of the agent can be opened."""
        mapped = place.mark == self._mark and self._map(place)
        with self._lock:
            self._peers[place.agent_id] = _Peer(place, mapped)

    def lose(self, agent_id: str) -> None:
        """An agent is gone: whoever reads from it over the network need not wait for it."""
        with self._lock:
            streams = tuple(self._open)
        for stream in streams:
            stream.lose(agent_id)

    def forget(self, agent_id: str) -> None:
        """Give up what was mapped or dialled of an agent that is gone."""
        self.lose(agent_id)
        with self._lock:
            peer = self._peers.pop(agent_id, None)
        if peer is not None and peer.mapped:
            self._manager.detach_peer(agent_id)

    def reach(self, place: Place, deadline_ms: int) -> None:
        """See whether an agent answers under the name that it goes by.

        Raises:
            NativeError: it does not.
        """
        with closing(ControlClient(place.host, place.port, **self._credentials.of_client())) as client:
            client.health(deadline_ms)

    def open(
        self,
        manifests: Sequence[sabot_native.Manifest],
        first: int,
        last: int,
        *,
        cancel: sabot_native.CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> JoinedEdge:
        """See :class:`~sabot_sql.transport.interface.Transport`."""
        rows = [sum(manifest.partition_rows[first:last]) for manifest in manifests]
        filled = [at for at in range(len(manifests)) if rows[at]]
        parts: list[_Part] = []
        for agent_id, run in groupby(filled, lambda at: manifests[at].agent_id):
            positions = list(run)
            for begin in range(0, len(positions), _OUTPUTS_PER_FETCH):
                some = tuple(positions[begin : begin + _OUTPUTS_PER_FETCH])
                parts.append(
                    self._part(agent_id, [manifests[at] for at in some], some, (first, last), cancel, deadline_ms)
                )
        schema = self._manager.read(manifests[:1], first, first)
        edge = JoinedEdge(schema, parts, sum(rows))
        with self._lock:
            self._open.add(edge)
        return edge

    def _part(
        self,
        agent_id: str,
        manifests: Sequence[sabot_native.Manifest],
        positions: tuple[int, ...],
        partitions: tuple[int, int],
        cancel: sabot_native.CancelToken | None,
        deadline_ms: int | None,
    ) -> _Part:
        with self._lock:
            peer = self._peers.get(agent_id)
            client = peer.client if peer else None
        try:
            if agent_id == self._agent_id or (peer is not None and peer.mapped):
                local = self._manager.read(manifests, *partitions, cancel=cancel, deadline_ms=deadline_ms)
                return _Part(local, positions, agent_id)
            if peer is None:
                raise PartsLost(f"agent {agent_id} is not known here", positions)
            if client is None:
                client = peer.client = self._dial(peer.place)
            ticket = self._manager.ticket(manifests, *partitions, self._key)
            return _Part(client.read(ticket, deadline_ms=deadline_ms or _LONGEST_MS), positions, agent_id)
        except _FAILURES as error:
            raise PartsLost(f"outputs on agent {agent_id}: {error}", positions) from error

    def _dial(self, place: Place) -> FlightPeer:
        options = self._credentials.of_client()
        del options["tls"]
        return FlightPeer(place.host, place.port, silence_ms=int(SILENCE_SECONDS * 1e3), **options)

    def _map(self, place: Place) -> bool:
        """Whether the memory of the agent's process could be mapped: it is another user's, or in another container."""
        with suppress(OSError, sabot_native.NativeError):
            descriptor = os.open(f"/proc/{place.process_id}/fd/{place.arena_descriptor}", os.O_RDWR | os.O_CLOEXEC)
            try:
                self._manager.attach_peer(place.agent_id, descriptor, place.spill_directory)
            finally:
                os.close(descriptor)
            return True
        return False
