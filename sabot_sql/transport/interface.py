"""What whoever reads an edge knows of transports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import sabot_native


class PartsLost(Exception):
    """Committed outputs cannot be read any more; ``lost`` are their positions among the manifests of the read."""

    def __init__(self, message: str, lost: tuple[int, ...]) -> None:
        super().__init__(message)
        self.lost = lost


class EdgeStream(Protocol):
    """Partitions of committed outputs as one Arrow stream, read anew by every consumer."""

    @property
    def rows(self) -> int:
        """How many they have."""
        ...

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

    def __arrow_c_schema__(self) -> object: ...

    def raise_lost(self) -> None:
        """Tell why a stream ended with an error, where that was this one's: consumers make an error of their own of it.

        Raises:
            PartsLost: outputs are gone or damaged, or nobody answers for them.
        """
        ...

    def cancel(self) -> None:
        """End what is under way, from any thread."""
        ...


class Transport(Protocol):
    """Opens committed outputs."""

    def open(
        self,
        manifests: Sequence[sabot_native.Manifest],
        first: int,
        last: int,
        *,
        cancel: sabot_native.CancelToken | None = None,
        deadline_ms: int | None = None,
    ) -> EdgeStream:
        """Partitions [``first``, ``last``) of the manifests, manifest by manifest, in the order written.

        Raises:
            PartsLost: they cannot be reached from here.
        """
        ...
