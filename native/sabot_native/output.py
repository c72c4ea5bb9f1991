"""What a task writes: one output per shuffle edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sabot_native._native import Scheme


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a task attempt: to which edge it belongs and how its rows are split.

    ``columns`` chooses and orders the stored columns, ``None`` stores all; a key column that the scheme drops is
    never stored.
    """

    query_id: str
    edge_id: str
    task: int
    attempt: int
    scheme: Scheme
    columns: tuple[str, ...] | None = None
