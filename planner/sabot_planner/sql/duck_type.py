"""DuckDB's types, parsed once: what a type is, what is inside of it, and which values survive which way.

========================= ============= =========== ======== ===========================================================
kind                      on an edge    in a state  packed   why
========================= ============= =========== ======== ===========================================================
``ENUM``                  cast back     no          no       Arrow has it as text
``UNION``                 rewritten     no          no       Arrow's own loses the tag of a NULL
``TUPLE``                 cast back     yes         no       Arrow gives its fields names
``INTERVAL``              rewritten     no          yes      Arrow's own counts nanoseconds, and overflows at 292 years
``TUPLE of nothing``      lost          no          no       DuckDB calls it TUPLE, and reads that nowhere
``VARIANT``               lost          no          no       it would lose the types of its values
``AGGREGATE_STATE``       lost          no          no       its name does not say what it is of
``STRUCT MAP LIST ARRAY`` as it is      no          yes      a state over them comes back with another signature
any other                 as it is      yes         yes
========================= ============= =========== ======== ===========================================================

*Packed* is what may travel as a field of a struct that the planner makes. A nested type is as fragile as what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.sql.tokens import END, tokens_of

EMPTY_TUPLE = "TUPLE of nothing"
_NESTED = frozenset({"STRUCT", "MAP", "LIST", "ARRAY", "UNION", "TUPLE"})
_ALIASES = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "TIMETZ": "TIME WITH TIME ZONE"}
"""Types that DuckDB spells in one way where it exports a plan and in another where it describes a column."""

WRITTEN_OTHERWISE = frozenset({"UNION", "INTERVAL"})
RESTORED = WRITTEN_OTHERWISE | {"TUPLE", EMPTY_TUPLE}
CAST_BACK = RESTORED | {"ENUM"}
UNREADABLE = frozenset({"AGGREGATE_STATE", EMPTY_TUPLE})
"""What DuckDB names but does not read."""
LOST_ON_EDGES = UNREADABLE | {"VARIANT"}
LOST_IN_STATES = (CAST_BACK | LOST_ON_EDGES | _NESTED) - {"TUPLE"}
LOST_WHEN_PACKED = LOST_ON_EDGES | {"ENUM", "UNION", "TUPLE"}

INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"})

_STATE_KIND = "PARTIAL STATE"
_WIDTHS_BYTES = {
    "BOOLEAN": 1,
    "TINYINT": 1,
    "UTINYINT": 1,
    "SMALLINT": 2,
    "USMALLINT": 2,
    "INTEGER": 4,
    "UINTEGER": 4,
    "DATE": 4,
    "FLOAT": 4,
    "DECIMAL": 16,
    "HUGEINT": 16,
    "UHUGEINT": 16,
    "UUID": 16,
    "INTERVAL": 16,
    "VARCHAR": 24,
    "BLOB": 24,
    _STATE_KIND: 32,
    **dict.fromkeys(("STRUCT", "MAP", "LIST", "ARRAY", "UNION"), 48),
}


@dataclass(frozen=True, slots=True)
class DuckType:
    """A DuckDB type; ``text`` is its SQL, which makes no difference to what it is equal to.

    ``kind`` is its name without parameters; lists are ``LIST``, arrays ``ARRAY``. ``parts`` are the types inside, with
    their names where they have names. ``parameters`` are the other parameters as they are written: width and scale,
    the length of an array, the values of an ENUM. ``kinds`` are its kind and those of everything inside.
    """

    text: str = field(compare=False)
    kind: str
    parts: tuple[tuple[str, DuckType], ...] = ()
    parameters: tuple[str, ...] = ()
    kinds: frozenset[str] = field(init=False, compare=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", frozenset({self.kind}).union(*(part.kinds for _, part in self.parts)))

    def __str__(self) -> str:
        return self.text

    @property
    def element(self) -> DuckType:
        """The type of the elements of a list or an array."""
        return self.parts[0][1]

    @property
    def width_bytes(self) -> int:
        """A guess of the bytes of one value: its fixed width, 24 for text, 48 for nested values."""
        return _WIDTHS_BYTES.get(self.kind, 8)


@lru_cache(maxsize=4096)
def duck_type(text: str) -> DuckType:
    """The type that is written as ``text``; one that cannot be taken apart is known by its first word."""
    tokens = tokens_of(text)
    try:
        found, position = read_type([*tokens, END, END], 0)
    except (Undistributable, IndexError):
        return DuckType(text, tokens[0] if tokens else text)
    return found if position == len(tokens) else DuckType(text, tokens[0])


BIGINT, BLOB, BOOLEAN, DOUBLE, HUGEINT, TINYINT, UBIGINT, VARCHAR = (
    DuckType(name, name) for name in ("BIGINT", "BLOB", "BOOLEAN", "DOUBLE", "HUGEINT", "TINYINT", "UBIGINT", "VARCHAR")
)
STATE = DuckType(_STATE_KIND, _STATE_KIND)
"""The type of an aggregate state that the plan makes and reads itself; DuckDB's own name says no signature and is read
nowhere."""


def data_type(text: str) -> exp.DataType:
    """The node of the DuckDB type that is written as ``text``."""
    return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=text)


def struct_of(fields: Sequence[tuple[str, DuckType]]) -> DuckType:
    """The type of a struct with these fields, whose names need no quotes."""
    return duck_type(f"STRUCT({', '.join(f'{name} {kind.text}' for name, kind in fields)})")


# --- what survives


def lost_on_edges(kind: DuckType) -> str | None:
    """The part of the type whose values cannot be had back from an edge, if there is one."""
    return "VARIANT" if "VARIANT" in kind.kinds else unreadable(kind)


def unreadable(kind: DuckType) -> str | None:
    """The part of the type that DuckDB names but does not read, if there is one."""
    return next(iter(sorted(kind.kinds & UNREADABLE)), None)


def is_written(kind: DuckType) -> bool:
    """Whether a value of the type is written to an edge in another form."""
    return not kind.kinds.isdisjoint(WRITTEN_OTHERWISE)


def is_restored(kind: DuckType) -> bool:
    """Whether a value of the type comes from an edge in another form, ENUM by itself aside."""
    return not kind.kinds.isdisjoint(RESTORED)


def has_no_name(kind: DuckType) -> bool:
    """Whether a tuple of nothing is in the type: DuckDB calls it TUPLE, and reads that nowhere."""
    return EMPTY_TUPLE in kind.kinds


# --- reading


def read_type(tokens: Sequence[str], position: int) -> tuple[DuckType, int]:
    """The type that starts at ``position``, and the position after it.

    Spacing is DuckDB's own: ``DECIMAL(18,3)``, ``STRUCT(a INTEGER, b VARCHAR[])``, ``ENUM('x', 'y')``.

    Raises:
        Undistributable: no type stands there.
    """
    word = tokens[position]
    if not (word[:1].isalpha() or word[:1] in ('"', "_")):
        raise Undistributable(f"the exported plan has a form that is not read: a type at {word!r}")
    position += 1
    while tokens[position] == ".":
        word = f"{word}.{tokens[position + 1]}"
        position += 2
    if tokens[position] == "WITH" and word in ("TIMESTAMP", "TIME"):
        word, position = f"{word} WITH TIME ZONE", position + 3
    if tokens[position] == "(":
        found, position = _parametrised(word, tokens, position + 1)
    else:
        found = _plain(word)
    while tokens[position] == "[":
        length = "" if tokens[position + 1] == "]" else tokens[position + 1]
        position += 3 if length else 2
        text = f"{found.text}[{length}]"
        found = DuckType(text, "ARRAY" if length else "LIST", (("", found),), (length,) if length else ())
    return found, position


@lru_cache(maxsize=1024)
def _plain(word: str) -> DuckType:
    return DuckType(word, EMPTY_TUPLE if word == "TUPLE" else _ALIASES.get(word, word))


def _parametrised(kind: str, tokens: Sequence[str], position: int) -> tuple[DuckType, int]:
    named = kind in ("STRUCT", "UNION")
    texts: list[str] = []
    parts: list[tuple[str, DuckType]] = []
    parameters: list[str] = []
    while tokens[position] != ")":
        name = ""
        if named:
            name, position = tokens[position], position + 1
        token = tokens[position]
        if token[:1] == "'" or token.isdigit():
            parameters.append(token)
            texts.append(token)
            position += 1
        else:
            part, position = read_type(tokens, position)
            parts.append((_unquoted(name), part))
            texts.append(f"{name} {part.text}" if name else part.text)
        if tokens[position] == ",":
            position += 1
        elif tokens[position] != ")":
            raise Undistributable(f"the exported plan has a form that is not read: a type at {tokens[position]!r}")
    text = f"{kind}({(',' if kind == 'DECIMAL' else ', ').join(texts)})"
    return DuckType(text, kind, tuple(parts), tuple(parameters)), position + 1


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name
