"""Grouping sets whose aggregates need whole groups: a UNION ALL of groups of sets, each moved by a key of all its sets.

    CUBE (a, b)      sets {(a, b), (a)}    rows by the hash of a, both sets where they are
                     sets {(b)}            rows by the hash of b
                     sets {()}             one group: what has two phases, and each DISTINCT, by itself

Rows move once for each group of sets, not once for each set, and into all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.distinct_in_two_levels import distinct_in_two_levels
from sabot_planner.logical.node import Computed, Node
from sabot_planner.logical.nodes import Aggregate, CteRef, Join, JoinKind, Project, SetKind, SetOp, Shared
from sabot_planner.sql.dialect import call, function_call, to_sql
from sabot_planner.sql.duck_type import BIGINT
from sabot_planner.sql.scalars import column, integer, null_of, substitute

Set = tuple[int, ...]


def in_set_groups(context: PlacementContext, node: Aggregate, has_phases: Callable[[Computed], bool]) -> Node | None:
    """An aggregate with grouping sets as one for each group of them; None where that is the same one again.

    ``has_phases``: whether an aggregate can be formed in two phases.
    """
    groups = _set_groups(node.grouping_sets or ())
    if len(groups) < 2:
        return None
    shared = Shared(node.input, context.names.shared())
    branches = tuple(_SetGroup(context, node, shared, sets).branch(has_phases) for sets in groups)
    return SetOp(SetKind.UNION_ALL, branches, node.columns)


def _set_groups(sets: Sequence[Set]) -> list[list[Set]]:
    """The sets by a key that they share, the key of most sets first; every empty set by itself."""
    rest = [tuple(sorted(set(one))) for one in sets]
    groups = []
    while any(rest):
        counts = [sum(key in one for one in rest) for key in range(1 + max(key for one in rest for key in one))]
        shared = counts.index(max(counts))
        groups.append([one for one in rest if shared in one])
        rest = [one for one in rest if shared not in one]
    return groups + [[one] for one in rest]


@dataclass(frozen=True, slots=True)
class _SetGroup:
    """Some sets of an aggregate over a reading of its input."""

    context: PlacementContext
    node: Aggregate
    shared: Shared
    sets: list[Set]

    def branch(self, has_phases: Callable[[Computed], bool]) -> Node:
        """The groups of these sets, with the columns of the whole aggregate."""
        ordinals = sorted({ordinal for one in self.sets for ordinal in one})
        return self._groups(ordinals) if ordinals else self._one_group(has_phases)

    def _reading(self) -> tuple[CteRef, dict[str, exp.Expression]]:
        reading = CteRef(self.shared, self.context.names.columns(len(self.shared.columns)))
        return reading, {old: column(new) for old, new in zip(self.shared.columns, reading.names, strict=True)}

    def _over(self, items: Iterable[Computed], names: Mapping[str, exp.Expression]) -> dict[str, Computed]:
        """The columns over a reading under new names, by the names that they had."""
        fresh = self.context.names.column
        return {i.name: Computed(fresh(), substitute(i.expression, names), i.type) for i in items}

    def _groups(self, ordinals: list[int]) -> Node:
        reading, names = self._reading()
        keys = self._over((self.node.keys[ordinal] for ordinal in ordinals), names)
        aggregates = self._over(self.node.aggregates, names)
        sets = tuple(tuple(ordinals.index(ordinal) for ordinal in one) for one in self.sets)
        bits = [[self._bit(g, argument, names) for argument in _arguments(g)] for g in self.node.groupings]
        computed = tuple(bit for of_one in bits for bit in of_one if isinstance(bit, Computed))
        groups = Aggregate(
            reading, tuple(keys.values()), tuple(aggregates.values()), sets if len(sets) > 1 else None, computed
        )
        return self._shown(groups, keys, aggregates, bits)

    def _one_group(self, has_phases: Callable[[Computed], bool]) -> Node:
        """All rows as one group: aggregates that are formed alike together, and the single rows side by side."""
        alike: dict[str, list[Computed]] = {}
        for aggregate in self.node.aggregates:
            alike.setdefault(_way(aggregate, has_phases), []).append(aggregate)
        rows: list[Node] = []
        formed: dict[str, Computed] = {}
        for aggregates in alike.values():
            reading, names = self._reading()
            own = self._over(aggregates, names)
            formed |= own
            rows.append(distinct_in_two_levels(self.context, Aggregate(reading, (), tuple(own.values()))))
        if not rows:  # a group is one row, whether or not something is formed of it
            reading, _ = self._reading()
            count = Computed(self.context.names.column(), call("count_star"), BIGINT)
            rows.append(Aggregate(reading, (), (count,)))
        joined = rows[0]
        for row in rows[1:]:
            joined = Join(JoinKind.CROSS, joined, row, None)
        bits: list[list[int | Computed]] = [[1] * len(_arguments(g)) for g in self.node.groupings]
        return self._shown(joined, {}, formed, bits)

    def _shown(
        self,
        groups: Node,
        keys: Mapping[str, Computed],
        aggregates: Mapping[str, Computed],
        bits: Sequence[Sequence[int | Computed]],
    ) -> Node:
        """The columns of the whole aggregate, in its order; keys that no set has are NULL."""
        fresh = self.context.names.column
        shown = self.node.keys + self.node.aggregates + self.node.groupings
        values = (
            *(column(keys[k.name].name) if k.name in keys else null_of(k.type) for k in self.node.keys),
            *(column(aggregates[a.name].name) for a in self.node.aggregates),
            *map(_put_together, bits),
        )
        items = (Computed(fresh(), value, one.type) for value, one in zip(values, shown, strict=True))
        return Project(groups, tuple(items))

    def _bit(self, grouping: Computed, argument: exp.Expression, names: Mapping[str, exp.Expression]) -> int | Computed:
        """The bit of one argument of a GROUPING(…): 1 where the key is not in the set."""
        ordinals = {to_sql(key.expression): ordinal for ordinal, key in enumerate(self.node.keys)}
        ordinal = ordinals[to_sql(argument)]
        within = [ordinal in one for one in self.sets]
        if all(within) or not any(within):
            return int(not within[0])
        one = exp.Anonymous(**{**grouping.expression.args, "expressions": [argument]})
        return Computed(self.context.names.column(), substitute(one, names), BIGINT)


def _arguments(grouping: Computed) -> list[exp.Expression]:
    found = function_call(grouping.expression)
    assert found is not None
    return found[1]


def _put_together(bits: Sequence[int | Computed]) -> exp.Expression:
    """The value of a GROUPING(…) of its bits: those of one set, and of keys that no set has, are known."""
    value: exp.Expression | None = None
    for position, bit in enumerate(reversed(bits)):
        one: exp.Expression = integer(bit) if isinstance(bit, int) else column(bit.name)
        weighed = call("*", one, integer(1 << position)) if position else one
        value = weighed if value is None else call("+", value, weighed)
    assert value is not None
    return value


def _way(aggregate: Computed, has_phases: Callable[[Computed], bool]) -> str:
    if has_phases(aggregate):
        return "two phases"
    found = function_call(aggregate.expression)
    distinct = found is not None and aggregate.expression.args.get("distinct")
    return f"distinct {', '.join(map(to_sql, found[1]))}" if distinct and found is not None else "all rows"
