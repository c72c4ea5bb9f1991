"""What all plan nodes have in common: inputs, a schema derived from them, expressions, and one way to walk over them.

Every column of a plan has a name that is unique in the whole plan, so that expressions need no qualifiers, joins need
no renaming and a node can move without touching the expressions above it. Nodes are immutable and may be shared: what
is known of a node is kept by the node itself, in a dict whose keys are nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, overload

from sqlglot import exp

from sabot_planner.errors import UnknownColumn, UnknownNode
from sabot_planner.sql.duck_type import DuckType
from sabot_planner.sql.scalars import column, columns_of

Schema = Mapping[str, DuckType]
"""The names and types of columns, in order."""

_T = TypeVar("_T")


class derived(Generic[_T]):  # noqa: N801  (it is used as a decorator)
    """A property that is computed once and kept by its object, without the lock of ``functools.cached_property``."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> derived[_T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> _T: ...

    def __get__(self, instance: object, owner: type) -> derived[_T] | _T:
        """The value, which stands in place of the property from then on."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


@dataclass(frozen=True, slots=True)
class Computed:
    """A column, the expression that gives it, over the columns of the node's input, and its type."""

    name: str
    expression: exp.Expression
    type: DuckType


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of an ordering; ``expression`` includes its COLLATE."""

    expression: exp.Expression
    descending: bool
    nulls_first: bool


@dataclass(frozen=True, eq=False)
class Node:
    """Base of all plan nodes; compared by identity, rebuilt with :func:`replace_inputs`.

    Raises:
        UnknownColumn: an expression of the node reads a column that none of its inputs has.
    """

    def __post_init__(self) -> None:
        read, inputs = self.reads, self.inputs
        if read and not (len(inputs) == 1 and read <= inputs[0].schema.keys()):
            seen = self.visible
            if not read <= seen.keys():
                raise UnknownColumn(type(self).__name__, sorted(read - seen.keys()), seen)
        self.schema  # noqa: B018  (now, as what is below has its own already: a deep plan needs no deep stack)

    @property
    def inputs(self) -> tuple[Node, ...]:
        """The nodes whose rows this one reads."""
        raise UnknownNode(self, "the inputs")

    @derived
    def schema(self) -> Schema:
        """Names and types of the columns that come out, in order."""
        raise UnknownNode(self, "the columns")

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        """The expressions that the node itself computes, in no order."""
        raise UnknownNode(self, "the expressions")

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over other inputs, as many as it has."""
        raise UnknownNode(self, "how to change the inputs")

    def _over(self, **inputs: object) -> Self:
        """A copy over other inputs, as ``dataclasses.replace`` makes one, without its cost: plans are rebuilt often."""
        copy = object.__new__(type(self))
        own = copy.__dict__
        own.update(self.__dict__)
        for name in _DERIVED:
            own.pop(name, None)
        own.update(inputs)
        copy.__post_init__()
        return copy

    @derived
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that come out, in order."""
        return tuple(self.schema)

    @derived
    def all_nodes(self) -> tuple[Node, ...]:
        """This node and all below it, each once, inputs before the nodes that read them."""
        return _inputs_first(self)

    @property
    def reads(self) -> frozenset[str]:
        """The columns that the node's expressions read."""
        return columns_of(*self.expressions)

    @property
    def visible(self) -> Schema:
        """The columns that the node's expressions may read."""
        return both(*(node.schema for node in self.inputs))


@dataclass(frozen=True, eq=False)
class Leaf(Node):
    """Base of nodes that read no other node of their stage."""

    @property
    def inputs(self) -> tuple[Node, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """Itself: there are none."""
        return self


@dataclass(frozen=True, eq=False)
class Unary(Node):
    """Base of nodes with one input whose columns pass through unless said otherwise."""

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @derived
    def schema(self) -> Schema:
        return self.input.schema

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """This node over another input."""
        (node,) = inputs
        return self._over(input=node)


_DERIVED = tuple(name for name, value in vars(Node).items() if isinstance(value, derived))
"""What a node keeps for itself, and another one derives anew."""

# --- schemas


def both(*schemas: Schema) -> Schema:
    """The columns of all of the schemas, one schema after the other."""
    found: dict[str, DuckType] = {}
    for schema in schemas:
        found.update(schema)
    return found


def schema_of(items: Iterable[Computed]) -> Schema:
    """The columns that ``items`` are."""
    return {item.name: item.type for item in items}


def renamed(schema: Schema, names: tuple[str, ...]) -> Schema:
    """The columns of ``schema`` under other names, by position."""
    return dict(zip(names, schema.values(), strict=True))


def width_bytes(schema: Schema) -> int:
    """A guess of the bytes of one row of these columns."""
    return max(1, sum(kind.width_bytes for kind in schema.values()))


def passed(node: Node, names: Iterable[str] | None = None) -> tuple[Computed, ...]:
    """The node's columns as they are, all or those called ``names``."""
    schema = node.schema
    return tuple(Computed(name, column(name), schema[name]) for name in (schema if names is None else names))


# --- walking


def replace_inputs(node: Node, inputs: tuple[Node, ...]) -> Node:
    """``node`` over other inputs; the same object where nothing changed."""
    if all(a is b for a, b in zip(node.inputs, inputs, strict=True)):
        return node
    return node.with_inputs(inputs)


def rewrite(node: Node, rule: Callable[[Node], Node]) -> Node:
    """Apply ``rule`` bottom-up, once per node; a ``Shared`` node is rewritten once however often it is read."""
    done: dict[Node, Node] = {}
    for current in walk(node):
        done[current] = rule(replace_inputs(current, tuple(done[i] for i in current.inputs)))
    return done[node]


def walk(node: Node) -> tuple[Node, ...]:
    """Every node once, inputs before the nodes that read them; remembered with ``node``."""
    return node.all_nodes


def reached(tops: Iterable[Node], onward: Callable[[Node], Iterable[Node]]) -> list[Node]:
    """Every node once that is reached from ``tops``, a node before those that ``onward`` gives of it."""
    found: dict[Node, None] = {}
    left = list(tops)
    while left:
        node = left.pop()
        if node not in found:
            found[node] = None
            left.extend(onward(node))
    return list(found)


def _inputs_first(node: Node) -> tuple[Node, ...]:
    order: list[Node] = []
    seen: set[Node] = set()
    left: list[tuple[Node, bool]] = [(node, False)]
    while left:
        current, read = left.pop()
        if read:
            order.append(current)
        elif current not in seen:
            seen.add(current)
            left.append((current, True))
            left += [(child, False) for child in reversed(current.inputs)]
    return tuple(order)
