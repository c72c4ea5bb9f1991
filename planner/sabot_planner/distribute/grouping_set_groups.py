"""Grouping sets whose aggregates need whole groups: a UNION ALL of families, each moved by a key of all its sets.

    CUBE (a, b)      family {(a, b), (a)}    rows by the hash of a, both sets where they are
                     family {(b)}            rows by the hash of b
                     family {()}             one group: what has two phases, and each DISTINCT, by itself

Rows move once for each family, not once for each set, and into all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.distribute.distinct_in_two_levels import distinct_in_two_levels
from sabot_planner.logical.nodes import (
    Aggregate,
    Computed,
    CteRef,
    Join,
    JoinKind,
    Node,
    Project,
    SetKind,
    SetOp,
    Shared,
)
from sabot_planner.sql.dialect import call, function_call, to_sql
from sabot_planner.sql.scalars import column, integer, null_of, substitute

Set = tuple[int, ...]


def in_families(node: Aggregate, types: Mapping[str, str], has_phases: Callable[[Computed], bool]) -> Node | None:
    """An aggregate with grouping sets as one for each family of them; None where that is the same one again.

    ``types`` are those of its columns. ``has_phases``: whether an aggregate can be formed in two phases.
    """
    families = _families(node.grouping_sets or ())
    if len(families) < 2:
        return None
    shared = Shared(node.input, f"sets{node.columns[0]}")
    branches = tuple(
        _Family(node, types, shared, sets, f"y{number}").branch(has_phases) for number, sets in enumerate(families)
    )
    return SetOp(SetKind.UNION_ALL, branches, node.columns)


def _families(sets: Sequence[Set]) -> list[list[Set]]:
    """The sets by a key that they share, the key of most sets first; every empty set by itself."""
    rest = [tuple(sorted(set(one))) for one in sets]
    families = []
    while any(rest):
        counts = [sum(key in one for one in rest) for key in range(1 + max(key for one in rest for key in one))]
        shared = counts.index(max(counts))
        families.append([one for one in rest if shared in one])
        rest = [one for one in rest if shared not in one]
    return families + [[one] for one in rest]


@dataclass(frozen=True, slots=True)
class _Family:
    """Some sets of an aggregate over a reading of its input; ``suffix`` makes names of its own."""

    node: Aggregate
    types: Mapping[str, str]
    shared: Shared
    sets: list[Set]
    suffix: str

    def branch(self, has_phases: Callable[[Computed], bool]) -> Node:
        """The groups of these sets, with the columns of the whole aggregate."""
        ordinals = sorted({ordinal for one in self.sets for ordinal in one})
        groups = self._one_group(has_phases) if not ordinals else self._groups(ordinals)
        return Project(groups, tuple(self._items(ordinals)))

    def _name(self, name: str) -> str:
        return f"{name}{self.suffix}"

    def _reading(self, more: str = "") -> tuple[CteRef, dict[str, exp.Expression]]:
        reading = CteRef(self.shared, tuple(f"{name}{self.suffix}{more}" for name in self.shared.columns))
        return reading, {old: column(new) for old, new in zip(self.shared.columns, reading.names, strict=True)}

    def _renamed(self, items: Iterable[Computed], names: Mapping[str, exp.Expression]) -> tuple[Computed, ...]:
        return tuple(Computed(self._name(i.name), substitute(i.expression, names)) for i in items)

    def _groups(self, ordinals: list[int]) -> Node:
        reading, names = self._reading()
        keys = self._renamed((self.node.keys[ordinal] for ordinal in ordinals), names)
        sets = tuple(tuple(ordinals.index(ordinal) for ordinal in one) for one in self.sets)
        bits = (bit for grouping in self.node.groupings for bit in self._bits(grouping))
        return Aggregate(
            reading,
            keys,
            self._renamed(self.node.aggregates, names),
            sets if len(sets) > 1 else None,
            self._renamed((bit for bit in bits if isinstance(bit, Computed)), names),
        )

    def _one_group(self, has_phases: Callable[[Computed], bool]) -> Node:
        """All rows as one group: aggregates that are formed alike together, and the single rows side by side."""
        alike: dict[str, list[Computed]] = {}
        for aggregate in self.node.aggregates:
            alike.setdefault(_way(aggregate, has_phases), []).append(aggregate)
        rows: list[Node] = []
        for number, aggregates in enumerate(alike.values()):
            reading, names = self._reading(f"z{number}")
            rows.append(distinct_in_two_levels(Aggregate(reading, (), self._renamed(aggregates, names))))
        if not rows:  # a group is one row, whether or not something is formed of it
            reading, _ = self._reading()
            rows.append(Aggregate(reading, (), (Computed(self._name("rows"), call("count_star")),)))
        joined = rows[0]
        for row in rows[1:]:
            joined = Join(JoinKind.CROSS, joined, row, None)
        return joined

    def _items(self, ordinals: list[int]) -> Iterable[Computed]:
        for ordinal, key in enumerate(self.node.keys):
            present = ordinal in ordinals
            value = column(self._name(key.name)) if present else null_of(self.types[key.name])
            yield Computed(f"{self._name(key.name)}u", value)
        for aggregate in self.node.aggregates:
            yield Computed(f"{self._name(aggregate.name)}u", column(self._name(aggregate.name)))
        for grouping in self.node.groupings:
            yield Computed(f"{self._name(grouping.name)}u", self._grouping(grouping))

    def _grouping(self, grouping: Computed) -> exp.Expression:
        """The bits of GROUPING(…) put together: those of one set, and of keys that no set has, are known."""
        value: exp.Expression | None = None
        bits = list(self._bits(grouping))
        for position, bit in enumerate(reversed(bits)):
            one: exp.Expression = integer(bit) if isinstance(bit, int) else column(self._name(bit.name))
            weighed = call("*", one, integer(1 << position)) if position else one
            value = weighed if value is None else call("+", value, weighed)
        assert value is not None
        return value

    def _bits(self, grouping: Computed) -> Iterable[int | Computed]:
        """Of each argument of a GROUPING(…) its bit: 1 where the key is not in the set."""
        found = function_call(grouping.expression)
        assert found is not None
        ordinals = {to_sql(key.expression): ordinal for ordinal, key in enumerate(self.node.keys)}
        for position, argument in enumerate(found[1]):
            ordinal = ordinals[to_sql(argument)]
            within = [ordinal in one for one in self.sets]
            if all(within) or not any(within):
                yield int(not within[0])
            else:
                one = exp.Anonymous(**{**grouping.expression.args, "expressions": [argument]})
                yield Computed(f"{grouping.name}b{position}", one)


def _way(aggregate: Computed, has_phases: Callable[[Computed], bool]) -> str:
    if has_phases(aggregate):
        return "two phases"
    found = function_call(aggregate.expression)
    distinct = found is not None and aggregate.expression.args.get("distinct")
    return f"distinct {', '.join(map(to_sql, found[1]))}" if distinct and found is not None else "all rows"
