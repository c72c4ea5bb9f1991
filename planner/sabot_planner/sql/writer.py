"""Writer of DuckDB SQL from the tree that ``dialect`` describes: one function a node class, one way to print each.

Each function gives the node's own pieces of text and its inner nodes between them, so that printing takes time by the
length of the text alone, and a deep tree no stack.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqlglot import exp

from sabot_planner.errors import PlannerError

Node: TypeAlias = Any
"""A sqlglot node; its classes are not precise enough to be worth naming at each step."""

Part: TypeAlias = Any
"""A piece of text, or a node that is still to be printed."""

Parts: TypeAlias = str | Sequence[Part]

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def write_sql(node: Node, enough: int = sys.maxsize) -> str:
    """SQL of ``node`` and everything below it, or its beginning of at least ``enough`` characters."""
    written: list[str] = []
    left: list[Part] = [node]
    while left and enough > 0:
        part = left.pop()
        if type(part) is str:
            written.append(part)
            enough -= len(part)
            continue
        write = _WRITERS.get(type(part))
        if write is None:
            raise PlannerError(f"no way to print a {type(part).__name__}: {part!r}")
        parts = write(part)
        if type(parts) is str:
            written.append(parts)
            enough -= len(parts)
        else:
            left += reversed(parts)
    return "".join(written)


def _list(nodes: Sequence[Node]) -> list[Part]:
    parts: list[Part] = []
    for node in nodes:
        parts += (node, ", ")
    return parts[:-1]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- expressions


def _identifier(node: Node) -> str:
    name: str = node.args["this"]
    return _quoted(name) if node.args.get("quoted") else name


def _column(node: Node) -> str:
    args = node.args
    text = "*" if type(args["this"]) is exp.Star else _identifier(args["this"])
    for part in ("table", "db", "catalog"):
        if args.get(part) is not None:
            text = f"{_identifier(args[part])}.{text}"
    return text


def _literal(node: Node) -> str:
    value: str = node.args["this"]
    return "'" + value.replace("'", "''") + "'" if node.args["is_string"] else value


def _call(node: Node) -> Parts:
    args = node.args
    name: str = args["this"]
    if args.get("quoted") or not _BARE.match(name):
        name = _quoted(name)
    schema = args.get("schema")
    parts: list[Part] = [f"{schema}.{name}(" if schema else f"{name}("]
    if args.get("distinct"):
        parts.append("DISTINCT ")
    parts += _list(args["expressions"])
    if args.get("order") is not None:
        parts += _order(args["order"])
    if args.get("nulls"):
        parts.append(f" {args['nulls']} NULLS")
    parts.append(")")
    if args.get("filter") is not None:
        parts += (" FILTER (WHERE ", args["filter"], ")")
    if args.get("export_state"):
        parts.append(" EXPORT_STATE")
    return parts


def _window(node: Node) -> Parts:
    args = node.args
    clauses: list[list[Part]] = []
    if args.get("partition_by"):
        clauses.append(["PARTITION BY ", *_list(args["partition_by"])])
    if args.get("order") is not None:
        clauses.append(["ORDER BY ", *_list(args["order"].args["expressions"])])
    if args.get("spec") is not None:
        clauses.append(_frame(args["spec"]))
    parts: list[Part] = [args["this"], " OVER ("]
    for clause in clauses:
        parts += (*clause, " ")
    if clauses:
        parts.pop()
    return [*parts, ")"]


def _frame(node: Node) -> list[Part]:
    args = node.args
    bound = _bound(args["start"], args.get("start_side"))
    if args.get("end") is not None:
        bound = ["BETWEEN ", *bound, " AND ", *_bound(args["end"], args.get("end_side"))]
    exclude = f" EXCLUDE {args['exclude']}" if args.get("exclude") else ""
    return [f"{args['kind']} ", *bound, exclude]


def _bound(value: Node, side: str | None) -> list[Part]:
    return [value, f" {side}" if side else ""]


def _cast(node: Node) -> Parts:
    return "CAST(", node.args["this"], f" AS {node.args['to'].args['kind']})"


def _try_cast(node: Node) -> Parts:
    return "TRY_CAST(", node.args["this"], f" AS {node.args['to'].args['kind']})"


def _binary(operator: str) -> Callable[[Node], Parts]:
    between = f" {operator} "

    def write(node: Node) -> Parts:
        return "(", node.args["this"], between, node.args["expression"], ")"

    return write


def _connective(operator: str) -> Callable[[Node], Parts]:
    between = f" {operator} "

    def write(node: Node) -> Parts:
        # However the tree leans, a chain is one flat conjunction to DuckDB.
        kind, parts, left = type(node), ["("], [node]
        while left:
            operand = left.pop()
            if type(operand) is kind:
                left += (operand.args["expression"], operand.args["this"])
            else:
                parts += (operand, between)
        parts[-1] = ")"
        return parts

    return write


def _paren(node: Node) -> Parts:
    # Every operator brings its own parentheses.
    return (node.args["this"],)


def _not(node: Node) -> Parts:
    inner = node.args["this"]
    if type(inner) is exp.Is:
        return "(", inner.args["this"], " IS NOT ", inner.args["expression"], ")"
    return "(NOT ", inner, ")"


def _neg(node: Node) -> Parts:
    # The blank keeps two signs from becoming a comment.
    return "- ", node.args["this"]


def _in(node: Node) -> Parts:
    return ["(", node.args["this"], " IN (", *_list(node.args["expressions"]), "))"]


def _between(node: Node) -> Parts:
    args = node.args
    return "(", args["this"], " BETWEEN ", args["low"], " AND ", args["high"], ")"


def _case(node: Node) -> Parts:
    args = node.args
    parts: list[Part] = ["CASE "]
    if args.get("this") is not None:
        parts += (args["this"], " ")
    for each in args["ifs"]:
        parts += ("WHEN ", each.args["this"], " THEN ", each.args["true"], " ")
    if args.get("default") is not None:
        parts += ("ELSE ", args["default"], " ")
    parts.append("END")
    return parts


def _coalesce(node: Node) -> Parts:
    return ["COALESCE(", *_list([node.args["this"], *node.args["expressions"]]), ")"]


def _lambda(node: Node) -> Parts:
    return ["(lambda ", *_list(node.args["expressions"]), ": ", node.args["this"], ")"]


def _bracket(node: Node) -> Parts:
    return [node.args["this"], "[", *_list(node.args["expressions"]), "]"]


def _slice(node: Node) -> Parts:
    args = node.args
    this, end, step = args.get("this"), args.get("expression"), args.get("step")
    parts: list[Part] = [this if this is not None else "", ": "]
    if end is not None:
        parts.append(end)
    if step is not None:
        parts += ("" if end is not None else "-", ": ", step)
    return parts


def _dot(node: Node) -> Parts:
    this, field = node.args["this"], node.args["expression"]
    if type(this) in (exp.Column, exp.Dot):
        return this, ".", field
    return "(", this, ").", field


def _collate(node: Node) -> Parts:
    return node.args["this"], " COLLATE ", node.args["expression"]


def _named_argument(node: Node) -> Parts:
    return node.args["this"], " := ", node.args["expression"]


def _tuple(node: Node) -> Parts:
    return ["(", *_list(node.args["expressions"]), ")"]


def _alias(node: Node) -> Parts:
    return node.args["this"], " AS ", node.args["alias"]


# --- queries


def _select(node: Node) -> Parts:
    args = node.args
    parts = [*_with(args.get("with_")), "SELECT "]
    distinct = args.get("distinct")
    if distinct is not None:
        on = distinct.args.get("on")
        parts += ("DISTINCT ",) if on is None else ("DISTINCT ON ", on, " ")
    parts += _list(args["expressions"])
    from_ = args.get("from_")
    if from_ is not None:
        parts += (" FROM ", *_joined(from_.args["this"], args.get("joins")))
    for clause, word in (
        ("where", " WHERE "),
        ("group", " GROUP BY "),
        ("having", " HAVING "),
        ("qualify", " QUALIFY "),
    ):
        part = args.get(clause)
        if part is not None:
            parts += (word, *(_group(part) if clause == "group" else (part.args["this"],)))
    if args.get("sample") is not None:
        parts.append(f" USING SAMPLE {args['sample'].args['size']}")
    parts += _modifiers(args)
    return parts


def _with(node: Node) -> list[Part]:
    if node is None:
        return []
    return ["WITH RECURSIVE " if node.args.get("recursive") else "WITH ", *_list(node.args["expressions"]), " "]


def _cte(node: Node) -> Parts:
    args = node.args
    key = args.get("key_expressions")
    key_parts = [" USING KEY (", *_list(key), ")"] if key is not None else []
    materialized = {None: "", True: "MATERIALIZED ", False: "NOT MATERIALIZED "}[args.get("materialized")]
    return [_table_alias(args["alias"]), *key_parts, f" AS {materialized}(", args["this"], ")"]


def _group(node: Node) -> list[Part]:
    parts = _list(node.args.get("expressions") or ())
    for each in node.args.get("grouping_sets") or ():
        parts += (*([", "] if parts else []), "GROUPING SETS (", *_list(each.args["expressions"]), ")")
    return parts


def _modifiers(args: dict[str, Node]) -> list[Part]:
    parts = _order(args["order"]) if args.get("order") is not None else []
    limit = args.get("limit")
    if limit is not None:
        value = limit.args["expression"]
        parts += (" LIMIT (", value, ") %") if limit.args.get("percent") else (" LIMIT ", value)
    if args.get("offset") is not None:
        parts += (" OFFSET ", args["offset"].args["expression"])
    return parts


def _order(node: Node) -> list[Part]:
    return [" ORDER BY ", *_list(node.args["expressions"])]


def _ordered(node: Node) -> Parts:
    args = node.args
    nulls_first = args.get("nulls_first")
    nulls = "" if nulls_first is None else f" NULLS {'FIRST' if nulls_first else 'LAST'}"
    return args["this"], f" {'DESC' if args.get('desc') else 'ASC'}{nulls}"


def _values(node: Node) -> Parts:
    return [*_with(node.args.get("with_")), "VALUES ", *_list(node.args["expressions"]), *_modifiers(node.args)]


def _set_operation(word: str) -> Callable[[Node], Parts]:
    def write(node: Node) -> Parts:
        args = node.args
        operator = word if args.get("distinct") else f"{word} ALL"
        left = [args["this"]] if args.get("chained") else ["(", args["this"], ")"]
        return [*_with(args.get("with_")), *left, f" {operator} (", args["expression"], ")", *_modifiers(args)]

    return write


# --- relations


def _joined(first: Node, joins: Sequence[Node] | None) -> list[Part]:
    parts: list[Part] = ["(" * len(joins or ()), first]
    for join in joins or ():
        parts += (" ", *_join(join), ")")
    return parts


def _join(node: Node) -> list[Part]:
    args = node.args
    if args.get("by_type"):
        words = f"JOIN BY (TYPE {args['by_type']}) "
    else:
        words = " ".join([args[key] for key in ("method", "side", "kind") if args.get(key)] + ["JOIN "])
    on = [" ON ", args["on"]] if args.get("on") is not None else []
    return [words, args["this"], *on]


def _table(node: Node) -> Parts:
    args = node.args
    qualifiers = "".join(f"{_identifier(args[part])}." for part in ("catalog", "db") if args.get(part) is not None)
    return qualifiers, args["this"], _as(args.get("alias"))


def _subquery(node: Node) -> Parts:
    args = node.args
    if args.get("joins"):
        return [*_joined(args["this"], args["joins"]), _as(args.get("alias"))]
    return "(", args["this"], ")", _as(args.get("alias"))


def _as(alias: Node) -> str:
    return f" AS {_table_alias(alias)}" if alias is not None else ""


def _table_alias(node: Node) -> str:
    columns = node.args.get("columns")
    name = _identifier(node.args["this"])
    return f"{name}({', '.join(map(_identifier, columns))})" if columns else name


_WRITERS: dict[type[Any], Callable[[Node], Parts]] = {
    exp.Alias: _alias,
    exp.And: _connective("AND"),
    exp.Anonymous: _call,
    exp.Between: _between,
    exp.BitString: lambda node: f"B'{node.args['this']}'",
    exp.Boolean: lambda node: "TRUE" if node.args["this"] else "FALSE",
    exp.Bracket: _bracket,
    exp.CTE: _cte,
    exp.Case: _case,
    exp.Cast: _cast,
    exp.Coalesce: _coalesce,
    exp.Collate: _collate,
    exp.Column: _column,
    exp.DataType: lambda node: node.args["kind"],
    exp.Dot: _dot,
    exp.EQ: _binary("="),
    exp.Except: _set_operation("EXCEPT"),
    exp.GT: _binary(">"),
    exp.GTE: _binary(">="),
    exp.HexString: lambda node: f"X'{node.args['this']}'",
    exp.Identifier: _identifier,
    exp.In: _in,
    exp.Intersect: _set_operation("INTERSECT"),
    exp.Is: _binary("IS"),
    exp.LT: _binary("<"),
    exp.LTE: _binary("<="),
    exp.Lambda: _lambda,
    exp.Literal: _literal,
    exp.NEQ: _binary("!="),
    exp.Neg: _neg,
    exp.Not: _not,
    exp.Null: lambda node: "NULL",
    exp.NullSafeEQ: _binary("IS NOT DISTINCT FROM"),
    exp.NullSafeNEQ: _binary("IS DISTINCT FROM"),
    exp.Or: _connective("OR"),
    exp.Ordered: _ordered,
    exp.Paren: _paren,
    exp.PropertyEQ: _named_argument,
    exp.Select: _select,
    exp.Slice: _slice,
    exp.Star: lambda node: "*",
    exp.Subquery: _subquery,
    exp.Table: _table,
    exp.TryCast: _try_cast,
    exp.Tuple: _tuple,
    exp.Union: _set_operation("UNION"),
    exp.Values: _values,
    exp.Var: lambda node: node.args["this"],
    exp.Window: _window,
}
