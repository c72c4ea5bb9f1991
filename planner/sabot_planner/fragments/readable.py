"""Expressions as people write them: operators between their operands, no more parentheses than are needed.

Exported SQL calls every operator by its name and writes each cast that DuckDB's binder added: ``"%"(k, CAST(10 AS
BIGINT))`` was ``k % 10``. The text is for labels only, and nothing reads it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlglot import exp

Node: TypeAlias = Any
"""A sqlglot node; its classes are not precise enough to be worth naming at each step."""

_OR, _AND, _NOT, _IS, _COMPARE, _MEMBER, _OTHER, _SUM, _PRODUCT, _POWER, _SIGN, _SUFFIX, _ATOM = range(13)

_BINARY: dict[type[Any], tuple[str, int]] = {
    exp.And: ("AND", _AND),
    exp.Or: ("OR", _OR),
    exp.EQ: ("=", _COMPARE),
    exp.NEQ: ("<>", _COMPARE),
    exp.LT: ("<", _COMPARE),
    exp.LTE: ("<=", _COMPARE),
    exp.GT: (">", _COMPARE),
    exp.GTE: (">=", _COMPARE),
    exp.Is: ("IS", _IS),
    exp.NullSafeEQ: ("IS NOT DISTINCT FROM", _IS),
    exp.NullSafeNEQ: ("IS DISTINCT FROM", _IS),
}
_OPERATORS = {
    "+": ("+", _SUM),
    "-": ("-", _SUM),
    "*": ("*", _PRODUCT),
    "/": ("/", _PRODUCT),
    "//": ("//", _PRODUCT),
    "%": ("%", _PRODUCT),
    "^": ("^", _POWER),
    "**": ("**", _POWER),
    "~~": ("LIKE", _MEMBER),
    "!~~": ("NOT LIKE", _MEMBER),
    "~~*": ("ILIKE", _MEMBER),
    "!~~*": ("NOT ILIKE", _MEMBER),
    "~~~": ("GLOB", _MEMBER),
}
_CALLS = {"count_star": "count", "sum_no_overflow": "sum"}
_INTERVAL = re.compile(r"to_((?:micro|milli)?seconds|minutes|hours|days|weeks|months|years)\Z")
_WORD = re.compile(r"\w+\Z")
# The binder casts to these where operands differ; a user does so now and then.
_ADDED = re.compile(r"(?:U?(?:TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\b|TIMESTAMP)", re.IGNORECASE)
_GENERATED = (
    (re.compile(r'"(\w+)"'), r"\1"),
    (re.compile(r"\bcount_star\(\)"), "count(*)"),
    (re.compile(r"\bto_(\w+)\((?:CAST\(trunc\()?CAST\((\d+) AS \w+\)(?:\) AS \w+\))?\)"), r"INTERVAL \2 \1"),
    (re.compile(r"\bCAST\((\w+) AS (\w+)\)"), r"\1::\2"),
    (re.compile(r" (!?)~~(\*?) (?=')"), lambda found: f" {_OPERATORS[f'{found[1]}~~{found[2]}'][0]} "),
    (re.compile(r"\(-\((\w+)\)\)"), r"-\1"),
)
"""What DuckDB writes into the names that it gives, and what people write."""


@dataclass(frozen=True, slots=True)
class Readable:
    """A text and how tightly its outermost operator holds its operands together."""

    text: str
    binding: int = _ATOM

    def clipped(self, most_characters: int) -> Readable:
        """The beginning of a long text, which nothing needs to hold together."""
        if len(self.text) <= most_characters:
            return self
        return Readable(self.text[: most_characters - 1] + "…")


Part: TypeAlias = "str | _Operand"
Written: TypeAlias = tuple[int, Sequence[Part]]
"""How tightly the outermost operator binds, and the pieces around and between the operands."""


@dataclass(frozen=True, slots=True)
class _Operand:
    node: Node
    least: int = _OR
    """It stands in parentheses where it binds less tightly."""


def readable(
    expression: Node, name_of: Callable[[str], Readable], otherwise: Callable[[Node], str], enough: int
) -> Readable:
    """The text of ``expression``, or its beginning of at least ``enough`` characters.

    ``name_of`` tells what a column of the plan is called, ``otherwise`` the text of what is no scalar expression. A
    deep expression takes no stack.
    """
    written: list[str] = []
    left: list[Part] = [_Operand(expression)]
    outermost: int | None = None
    while left and enough > 0:
        part = left.pop()
        if isinstance(part, str):
            written.append(part)
            enough -= len(part)
            continue
        binding, parts = _write(_shown(part.node), name_of, otherwise)
        outermost = binding if outermost is None else outermost
        if binding < part.least:
            parts = ["(", *parts, ")"]
        left += reversed(parts)
    return Readable("".join(written), _ATOM if outermost is None else outermost)


def readable_name(name: str) -> Readable:
    """A column's name in the result; one that DuckDB made of an expression as people write that.

    DuckDB puts every operator into parentheses and calls some things by their function: ``sum((a * b))``,
    ``(a ~~ 'x%')``, ``count_star()``.
    """
    if "(" not in name:
        return Readable(name)
    text = name
    for pattern, words in _GENERATED:
        text = pattern.sub(words, text)
    text = _without_needless_parentheses(text)
    return Readable(text, _ATOM if text == name else _OR)


def _without_needless_parentheses(text: str) -> str:
    """``text`` without parentheses that hold all of it, or all of a call's only argument."""
    pairs = _pairs(text)
    needless = {(begin, end) for begin, end in pairs.items() if begin == 0 and end == len(text) - 1}
    needless |= {(begin, end) for begin, end in pairs.items() if pairs.get(begin - 1) == end + 1}
    dropped = {place for pair in needless for place in pair}
    return "".join(character for place, character in enumerate(text) if place not in dropped)


def _pairs(text: str) -> dict[int, int]:
    """Where each parenthesis of ``text`` opens and closes, those in quotes left out."""
    found: dict[int, int] = {}
    opened: list[int] = []
    quote = ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            opened.append(place)
        elif character == ")" and opened:
            found[opened.pop()] = place
    return found


def _shown(node: Node) -> Node:
    """``node`` without what people have not written: parentheses, the order of edges, casts of the binder."""
    while _is_added(node):
        node = node.args["this"]
    return node


def _is_added(node: Node) -> bool:
    match node:
        case exp.Paren():
            return True
        case exp.Collate():
            return bool(node.args["expression"].name == "C")
        case exp.Cast():
            added = _ADDED.match(node.args["to"].args["kind"]) is not None
            return type(node) is exp.Cast and (added or _is_literal(node.args["this"]))
        case _:
            return False


def _is_literal(node: Node) -> bool:
    return type(node) in (exp.Literal, exp.Null, exp.Boolean)


def _write(node: Node, name_of: Callable[[str], Readable], otherwise: Callable[[Node], str]) -> Written:
    args = node.args
    kind = type(node)
    if kind in _BINARY:
        word, binding = _BINARY[kind]
        # AND and OR are chains, in whichever way the tree leans.
        right = binding if binding in (_AND, _OR) else binding + 1
        return binding, [_Operand(args["this"], binding), f" {word} ", _Operand(args["expression"], right)]
    match node:
        case exp.Column():
            name = name_of(args["this"].args["this"])
            return name.binding, [name.text]
        case exp.Literal():
            value: str = args["this"]
            return _ATOM, ["'" + value.replace("'", "''") + "'" if args["is_string"] else value]
        case exp.Null() | exp.Boolean():
            return _ATOM, ["NULL" if kind is exp.Null else "true" if args["this"] else "false"]
        case exp.TryCast():
            return _ATOM, ["TRY_CAST(", _Operand(args["this"]), f" AS {args['to'].args['kind']})"]
        case exp.Cast():
            return _SUFFIX, [_Operand(args["this"], _SUFFIX), f"::{args['to'].args['kind']}"]
        case exp.Neg():
            return _SIGN, ["-", _Operand(args["this"], _SUFFIX)]
        case exp.Not():
            inner = _shown(args["this"])
            if type(inner) is exp.Is:
                operands = inner.args
                return _IS, [_Operand(operands["this"], _SUM), " IS NOT ", _Operand(operands["expression"], _SUM)]
            return _NOT, ["NOT ", _Operand(args["this"], _NOT)]
        case exp.In():
            return _MEMBER, [_Operand(args["this"], _OTHER), " IN (", *_listed(args["expressions"]), ")"]
        case exp.Between():
            low, high = _Operand(args["low"], _OTHER), _Operand(args["high"], _OTHER)
            return _MEMBER, [_Operand(args["this"], _OTHER), " BETWEEN ", low, " AND ", high]
        case exp.Case():
            return _ATOM, _case(args)
        case exp.Coalesce():
            return _ATOM, ["coalesce(", *_listed([args["this"], *args["expressions"]]), ")"]
        case exp.Bracket():
            return _SUFFIX, [_Operand(args["this"], _SUFFIX), "[", *_listed(args["expressions"]), "]"]
        case exp.Window():
            return _ATOM, [_Operand(args["this"]), " OVER (…)"]
        case exp.Slice():
            return _ATOM, _slice(args)
        case exp.Anonymous():
            return _call(args)
        case _:
            return _ATOM, [otherwise(node)]


def _listed(nodes: Sequence[Node]) -> list[Part]:
    parts: list[Part] = []
    for node in nodes:
        parts += (_Operand(node), ", ")
    return parts[:-1]


def _case(args: dict[str, Node]) -> list[Part]:
    parts: list[Part] = ["CASE "]
    if args.get("this") is not None:
        parts += (_Operand(args["this"]), " ")
    for each in args["ifs"]:
        parts += ("WHEN ", _Operand(each.args["this"]), " THEN ", _Operand(each.args["true"]), " ")
    if args.get("default") is not None:
        parts += ("ELSE ", _Operand(args["default"]), " ")
    return [*parts, "END"]


def _slice(args: dict[str, Node]) -> list[Part]:
    parts: list[Part] = []
    for name in ("this", "expression", "step"):
        if name != "step" or args.get(name) is not None:
            parts.append(":")
        if args.get(name) is not None:
            parts.append(_Operand(args[name]))
    return parts[1:]


def _call(args: dict[str, Node]) -> Written:
    name: str = args["this"]
    operands: list[Node] = args["expressions"]
    if not _WORD.match(name):
        return _operation(name, operands)
    interval = _INTERVAL.match(name)
    if interval and len(operands) == 1 and (count := _whole_number(operands[0])) is not None:
        return _ATOM, [f"INTERVAL {count} {interval.group(1).upper()}"]
    match name, operands:
        case "list_value", _:
            return _ATOM, ["[", *_listed(operands), "]"]
        case "create_sort_key", _:
            # Each key has its order beside it, which is only of interest to the shuffle.
            return _ATOM, _listed([key for key in operands[::2] if not _is_literal(_shown(key))])
        case "array_extract" | "list_extract", [of, place]:
            return _SUFFIX, [_Operand(of, _SUFFIX), "[", _Operand(place), "]"]
        case "struct_extract", [of, exp.Literal() as field]:
            return _SUFFIX, [_Operand(of, _SUFFIX), f".{field.args['this']}"]
    parts: list[Part] = [f"{_CALLS.get(name, name)}("]
    if args.get("distinct"):
        parts.append("DISTINCT ")
    parts += ["*"] if name == "count_star" else _listed(operands)
    if args.get("order") is not None:
        parts.append(" ORDER BY …")
    parts.append(")")
    if args.get("filter") is not None:
        parts += (" FILTER (WHERE ", _Operand(args["filter"]), ")")
    return _ATOM, parts


def _operation(name: str, operands: Sequence[Node]) -> Written:
    if len(operands) == 1:
        return _SIGN, [name, _Operand(operands[0], _SUFFIX)]
    word, binding = _OPERATORS.get(name, (name, _OTHER))
    parts: list[Part] = []
    for operand in operands:
        parts += (_Operand(operand, binding + 1 if parts else binding), f" {word} ")
    return binding, parts[:-1]


def _whole_number(node: Node) -> str | None:
    """The literal of an interval, which DuckDB truncates by a call."""
    node = _shown(node)
    while type(node) is exp.Anonymous and node.args["this"] == "trunc":
        node = _shown(node.args["expressions"][0])
    return node.args["this"] if type(node) is exp.Literal else None
