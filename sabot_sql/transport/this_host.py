"""Committed outputs of this process, by pointer, and of other processes of this host, from their memory."""

from __future__ import annotations

from collections.abc import Sequence

import sabot_native
from sabot_sql.transport.interface import PartsLost


class HostStream:
    """Partitions that lie on this host; see :class:`~sabot_sql.transport.interface.EdgeStream`."""

    def __init__(self, stream: sabot_native.PartitionStream, positions: tuple[int, ...]) -> None:
        self._stream = stream
        self._positions = positions

    @property
    def rows(self) -> int:
        """How many they have."""
        return self._stream.rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._stream.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        return self._stream.__arrow_c_schema__()

    def raise_lost(self) -> None:
        """See :class:`~sabot_sql.transport.interface.EdgeStream`."""
        try:
            self._stream.raise_error()
        except sabot_native.CorruptSegment as error:
            raise PartsLost(str(error), self._positions) from error

    def cancel(self) -> None:
        """Nothing waits here: the token of the read ends it."""


class ThisHost:
    """Opens what the shuffle manager can reach; see :class:`~sabot_sql.transport.interface.Transport`."""

    def __init__(self, manager: sabot_native.ShuffleManager) -> None:
        self._manager = manager

    def open(
        self,
        manifests: Sequence[sabot_native.Manifest],
        first: int,
        last: int,
        *,
        cancel: sabot_native.CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> HostStream:
        """See :class:`~sabot_sql.transport.interface.Transport`."""
        positions = tuple(range(len(manifests)))
        try:
            stream = self._manager.read(manifests, first, last, cancel=cancel, deadline_ms=deadline_ms)
        except sabot_native.CorruptSegment as error:
            raise PartsLost(str(error), positions) from error
        return HostStream(stream, positions)
