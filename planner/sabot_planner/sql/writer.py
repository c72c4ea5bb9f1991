"""Writer of DuckDB SQL from the tree that ``dialect`` describes: one function a node class, one way to print each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from sqlglot import exp

from sabot_planner.errors import PlannerError

Node: TypeAlias = Any
"""A sqlglot node; its classes are not precise enough to be worth naming at each step."""

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def write_sql(node: Node) -> str:
    """SQL of ``node`` and everything below it."""
    write = _WRITERS.get(type(node))
    if write is None:
        raise PlannerError(f"no way to print a {type(node).__name__}: {node!r}")
    return write(node)


def _list(nodes: Sequence[Node]) -> str:
    return ", ".join([write_sql(node) for node in nodes])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# --- expressions


def _identifier(node: Node) -> str:
    name: str = node.args["this"]
    return _quoted(name) if node.args.get("quoted") else name


def _column(node: Node) -> str:
    args = node.args
    text = write_sql(args["this"])
    table = args.get("table")
    if table is None:
        return text
    text = f"{_identifier(table)}.{text}"
    for part in ("db", "catalog"):
        if args.get(part) is not None:
            text = f"{_identifier(args[part])}.{text}"
    return text


def _literal(node: Node) -> str:
    value: str = node.args["this"]
    return "'" + value.replace("'", "''") + "'" if node.args["is_string"] else value


def _call(node: Node) -> str:
    args = node.args
    name: str = args["this"]
    if args.get("quoted") or not _BARE.match(name):
        name = _quoted(name)
    schema = args.get("schema")
    parts = [f"{schema}.{name}(" if schema else f"{name}("]
    if args.get("distinct"):
        parts.append("DISTINCT ")
    parts.append(_list(args["expressions"]))
    if args.get("order") is not None:
        parts.append(_order(args["order"]))
    if args.get("nulls"):
        parts.append(f" {args['nulls']} NULLS")
    parts.append(")")
    if args.get("filter") is not None:
        parts.append(f" FILTER (WHERE {write_sql(args['filter'])})")
    if args.get("export_state"):
        parts.append(" EXPORT_STATE")
    return "".join(parts)


def _window(node: Node) -> str:
    args = node.args
    parts = []
    if args.get("partition_by"):
        parts.append(f"PARTITION BY {_list(args['partition_by'])}")
    if args.get("order") is not None:
        parts.append(_order(args["order"])[1:])
    if args.get("spec") is not None:
        parts.append(_frame(args["spec"]))
    return f"{write_sql(args['this'])} OVER ({' '.join(parts)})"


def _frame(node: Node) -> str:
    args = node.args
    text = _bound(args["start"], args.get("start_side"))
    if args.get("end") is not None:
        text = f"BETWEEN {text} AND {_bound(args['end'], args.get('end_side'))}"
    exclude = f" EXCLUDE {args['exclude']}" if args.get("exclude") else ""
    return f"{args['kind']} {text}{exclude}"


def _bound(value: Node, side: str | None) -> str:
    text = value if isinstance(value, str) else write_sql(value)
    return f"{text} {side}" if side else text


def _cast(node: Node) -> str:
    return f"CAST({write_sql(node.args['this'])} AS {node.args['to'].args['kind']})"


def _try_cast(node: Node) -> str:
    return f"TRY_CAST({write_sql(node.args['this'])} AS {node.args['to'].args['kind']})"


def _binary(operator: str) -> Callable[[Node], str]:
    def write(node: Node) -> str:
        return f"({write_sql(node.args['this'])} {operator} {write_sql(node.args['expression'])})"

    return write


def _connective(operator: str) -> Callable[[Node], str]:
    separator = f" {operator} "

    def write(node: Node) -> str:
        # A left-deep chain is one flat conjunction to DuckDB.
        kind, operands = type(node), []
        while type(node) is kind:
            operands.append(write_sql(node.args["expression"]))
            node = node.args["this"]
        operands.append(write_sql(node))
        return f"({separator.join(reversed(operands))})"

    return write


def _paren(node: Node) -> str:
    # Every operator brings its own parentheses.
    return write_sql(node.args["this"])


def _not(node: Node) -> str:
    inner = node.args["this"]
    if type(inner) is exp.Is:
        return f"({write_sql(inner.args['this'])} IS NOT {write_sql(inner.args['expression'])})"
    return f"(NOT {write_sql(inner)})"


def _neg(node: Node) -> str:
    # The blank keeps two signs from becoming a comment.
    return f"- {write_sql(node.args['this'])}"


def _in(node: Node) -> str:
    return f"({write_sql(node.args['this'])} IN ({_list(node.args['expressions'])}))"


def _between(node: Node) -> str:
    args = node.args
    return f"({write_sql(args['this'])} BETWEEN {write_sql(args['low'])} AND {write_sql(args['high'])})"


def _case(node: Node) -> str:
    args = node.args
    parts = ["CASE"]
    if args.get("this") is not None:
        parts.append(write_sql(args["this"]))
    parts += [f"WHEN {write_sql(each.args['this'])} THEN {write_sql(each.args['true'])}" for each in args["ifs"]]
    if args.get("default") is not None:
        parts.append(f"ELSE {write_sql(args['default'])}")
    parts.append("END")
    return " ".join(parts)


def _coalesce(node: Node) -> str:
    return f"COALESCE({_list([node.args['this'], *node.args['expressions']])})"


def _lambda(node: Node) -> str:
    return f"(lambda {_list(node.args['expressions'])}: {write_sql(node.args['this'])})"


def _bracket(node: Node) -> str:
    return f"{write_sql(node.args['this'])}[{_list(node.args['expressions'])}]"


def _slice(node: Node) -> str:
    args = node.args
    this, end, step = args.get("this"), args.get("expression"), args.get("step")
    text = f"{write_sql(this) if this is not None else ''}: {write_sql(end) if end is not None else ''}"
    if step is None:
        return text
    return f"{text if end is not None else text + '-'}: {write_sql(step)}"


def _dot(node: Node) -> str:
    this, text = node.args["this"], write_sql(node.args["this"])
    return f"{text if type(this) in (exp.Column, exp.Dot) else f'({text})'}.{write_sql(node.args['expression'])}"


def _collate(node: Node) -> str:
    return f"{write_sql(node.args['this'])} COLLATE {write_sql(node.args['expression'])}"


def _named_argument(node: Node) -> str:
    return f"{write_sql(node.args['this'])} := {write_sql(node.args['expression'])}"


def _tuple(node: Node) -> str:
    return f"({_list(node.args['expressions'])})"


def _alias(node: Node) -> str:
    alias = node.args["alias"]
    name = alias if isinstance(alias, str) else write_sql(alias)
    return f"{write_sql(node.args['this'])} AS {name}"


# --- queries


def _select(node: Node) -> str:
    args = node.args
    parts = [_with(args.get("with_")), "SELECT "]
    distinct = args.get("distinct")
    if distinct is not None:
        on = distinct.args.get("on")
        parts.append("DISTINCT " if on is None else f"DISTINCT ON {_tuple(on)} ")
    parts.append(_list(args["expressions"]))
    from_ = args.get("from_")
    if from_ is not None:
        parts.append(" FROM " + _joined(from_.args["this"], args.get("joins")))
    for clause, word in (("where", "WHERE"), ("group", "GROUP BY"), ("having", "HAVING"), ("qualify", "QUALIFY")):
        part = args.get(clause)
        if part is not None:
            parts.append(f" {word} {_group(part) if clause == 'group' else write_sql(part.args['this'])}")
    if args.get("sample") is not None:
        parts.append(f" USING SAMPLE {args['sample'].args['size']}")
    parts.append(_modifiers(args))
    return "".join(parts)


def _with(node: Node) -> str:
    if node is None:
        return ""
    recursive = "RECURSIVE " if node.args.get("recursive") else ""
    return f"WITH {recursive}{_list(node.args['expressions'])} "


def _cte(node: Node) -> str:
    args = node.args
    key = args.get("key_expressions")
    key_text = f" USING KEY ({_list(key)})" if key is not None else ""
    materialized = {None: "", True: "MATERIALIZED ", False: "NOT MATERIALIZED "}[args.get("materialized")]
    return f"{_table_alias(args['alias'])}{key_text} AS {materialized}({write_sql(args['this'])})"


def _group(node: Node) -> str:
    sets = node.args.get("grouping_sets")
    keys = [write_sql(key) for key in node.args.get("expressions") or ()]
    return ", ".join([*keys, *(f"GROUPING SETS ({_list(each.args['expressions'])})" for each in sets or ())])


def _modifiers(args: dict[str, Node]) -> str:
    text = _order(args["order"]) if args.get("order") is not None else ""
    limit = args.get("limit")
    if limit is not None:
        value = write_sql(limit.args["expression"])
        text += f" LIMIT ({value}) %" if limit.args.get("percent") else f" LIMIT {value}"
    if args.get("offset") is not None:
        text += f" OFFSET {write_sql(args['offset'].args['expression'])}"
    return text


def _order(node: Node) -> str:
    return f" ORDER BY {_list(node.args['expressions'])}"


def _ordered(node: Node) -> str:
    args = node.args
    text = f"{write_sql(args['this'])} {'DESC' if args.get('desc') else 'ASC'}"
    nulls_first = args.get("nulls_first")
    return text if nulls_first is None else f"{text} NULLS {'FIRST' if nulls_first else 'LAST'}"


def _values(node: Node) -> str:
    return f"{_with(node.args.get('with_'))}VALUES {_list(node.args['expressions'])}{_modifiers(node.args)}"


def _set_operation(word: str) -> Callable[[Node], str]:
    def write(node: Node) -> str:
        args = node.args
        operator = word if args.get("distinct") else f"{word} ALL"
        left, right = write_sql(args["this"]), write_sql(args["expression"])
        if not args.get("chained"):
            left = f"({left})"
        return f"{_with(args.get('with_'))}{left} {operator} ({right}){_modifiers(args)}"

    return write


# --- relations


def _joined(first: Node, joins: Sequence[Node] | None) -> str:
    text = write_sql(first)
    for join in joins or ():
        text = f"({text} {_join(join)})"
    return text


def _join(node: Node) -> str:
    args = node.args
    if args.get("by_type"):
        words = f"JOIN BY (TYPE {args['by_type']})"
    else:
        words = " ".join([args[key] for key in ("method", "side", "kind") if args.get(key)] + ["JOIN"])
    on = f" ON {write_sql(args['on'])}" if args.get("on") is not None else ""
    return f"{words} {write_sql(args['this'])}{on}"


def _table(node: Node) -> str:
    args = node.args
    text = write_sql(args["this"])
    for part in ("db", "catalog"):
        if args.get(part) is not None:
            text = f"{_identifier(args[part])}.{text}"
    return text + _as(args.get("alias"))


def _subquery(node: Node) -> str:
    args = node.args
    if args.get("joins"):
        return _joined(args["this"], args["joins"]) + _as(args.get("alias"))
    return f"({write_sql(args['this'])}){_as(args.get('alias'))}"


def _as(alias: Node) -> str:
    return f" AS {_table_alias(alias)}" if alias is not None else ""


def _table_alias(node: Node) -> str:
    columns = node.args.get("columns")
    name = _identifier(node.args["this"])
    return f"{name}({_list(columns)})" if columns else name


_WRITERS: dict[type[Any], Callable[[Node], str]] = {
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
    exp.Is: lambda node: f"({write_sql(node.args['this'])} IS {write_sql(node.args['expression'])})",
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
    exp.Window: _window,
}
