"""The one place that gives names out: of columns, shared expressions, stages and edges of one query's plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count


@dataclass(slots=True)
class PlanNames:
    """Names of one plan, each given once; nothing can be read from a name.

    ``prefix`` begins the names of columns. It avoids every lambda parameter of the query, which would capture them.
    """

    prefix: str = "c"
    _columns: count[int] = field(default_factory=lambda: count(1))
    _shared: count[int] = field(default_factory=lambda: count(1))
    _stages: count[int] = field(default_factory=count)
    _edges: count[int] = field(default_factory=count)

    @staticmethod
    def avoiding(parameters: Iterable[str]) -> PlanNames:
        """Names that none of a query's lambda ``parameters`` is like."""
        taken = [name.lower() for name in parameters]
        prefix = "c"
        while any(name.startswith(prefix) and name[len(prefix) :].isdigit() for name in taken):
            prefix += "c"
        return PlanNames(prefix)

    def column(self) -> str:
        """A column's name."""
        return f"{self.prefix}{next(self._columns)}"

    def columns(self, number: int) -> tuple[str, ...]:
        """The names of that many columns."""
        return tuple(self.column() for _ in range(number))

    def shared(self) -> str:
        """The id of a shared or recursive expression."""
        return f"cte{next(self._shared)}"

    def stage(self) -> str:
        """The id of a stage, which is that of its operator."""
        return f"s{next(self._stages)}"

    def edge(self) -> str:
        """The id of an edge."""
        return f"e{next(self._edges)}"
