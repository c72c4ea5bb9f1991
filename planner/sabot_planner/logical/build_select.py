"""One SELECT block of exported SQL to logical plan nodes."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.expression_types import Named, computed
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, SortKey
from sabot_planner.logical.nodes import Aggregate, Distinct, Filter, Limit, Project, Sample, Sort, Window
from sabot_planner.logical.replacements import Replacements
from sabot_planner.logical.scope import Relation, Scope
from sabot_planner.sql.dialect import function_call, to_sql
from sabot_planner.sql.duck_type import BIGINT
from sabot_planner.sql.expression_tree import map_nodes, nodes
from sabot_planner.sql.scalars import column
from sabot_planner.sql.subscripts import fields_as_calls


def select_block(tree: exp.Expression, relation: Relation, names: PlanNames, context: PlanContext) -> Node:
    """The plan of a SELECT whose FROM clause is ``relation``."""
    node, scope = relation.node, relation.scope
    if tree.args.get("having") or tree.args.get("qualify"):
        raise Undistributable("HAVING or QUALIFY in an exported block")
    where = tree.args.get("where")
    if where is not None:
        node = Filter(node, fields_as_calls(scope.resolve(where.args["this"]), node.schema))
    items = [fields_as_calls(_resolved_item(item, scope), relation.node.schema) for item in tree.args["expressions"]]
    keys = sort_keys(tree.args.get("order"), scope)
    distinct = tree.args.get("distinct")
    on = _distinct_on(distinct, scope)

    node, edits = _aggregated(tree, node, scope, items, keys, names, context)
    items = [edits.apply(item) for item in items]
    keys = tuple(SortKey(edits.apply(k.expression), k.descending, k.nulls_first) for k in keys)
    on = tuple(edits.apply(e) for e in on) if on is not None else None
    node, items = _windowed(node, items, names, context)

    sample = tree.args.get("sample")
    if sample is not None:
        node = Sample(node, sample.args["size"])
    if on:
        node = Distinct(node, on, keys)
    if distinct is not None and not on:
        node = _project(node, items, names, context)
        node = Distinct(node, tuple(column(name) for name in node.columns))
        if keys:
            raise Undistributable("ORDER BY on a DISTINCT block")
        return _limited(tree, node)
    limit_tree = tree.args.get("limit")
    percent = _percent(limit_tree)
    if keys:
        limit, offset = limit_of(tree) if percent is None else (None, 0)
        node = Sort(node, keys, limit, offset)
        if percent is not None:
            node = Limit(node, None, offset_of(tree), percent)
    elif percent is not None:
        node = Limit(node, None, offset_of(tree), percent)
    else:
        node = _limited(tree, node)
    return _project(node, items, names, context)


def _limited(tree: exp.Expression, node: Node) -> Node:
    if tree.args.get("limit") is None and tree.args.get("offset") is None:
        return node
    limit, offset = limit_of(tree)
    return Limit(node, limit, offset)


def limit_of(tree: exp.Expression) -> tuple[int | None, int]:
    """The literal LIMIT (None: unbounded) and OFFSET of a query."""
    limit = tree.args.get("limit")
    return (integer(limit.args["expression"]) if limit is not None else None, offset_of(tree))


def _percent(limit: exp.Expression | None) -> exp.Expression | None:
    if limit is None or not limit.args.get("percent"):
        return None
    value: exp.Expression = limit.args["expression"]
    inner = value
    while type(inner) in (exp.Cast, exp.Paren):
        inner = inner.args["this"]
    if type(inner) is not exp.Literal:
        raise Undistributable(f"LIMIT by an expression: {to_sql(value)}")
    return value


def offset_of(tree: exp.Expression) -> int:
    """The literal OFFSET of a query, 0 without one."""
    offset = tree.args.get("offset")
    return integer(offset.args["expression"]) if offset is not None else 0


def integer(expression: exp.Expression) -> int:
    """The value of an integer literal, with or without a cast around it."""
    while type(expression) in (exp.Cast, exp.Paren):
        expression = expression.args["this"]
    if type(expression) is exp.Literal and not expression.args["is_string"]:
        try:
            return int(expression.args["this"])
        except ValueError:
            pass
    raise Undistributable(f"LIMIT or OFFSET by an expression: {to_sql(expression)}")


def _resolved_item(item: exp.Expression, scope: Scope) -> exp.Expression:
    return scope.resolve(item.args["this"] if type(item) is exp.Alias else item)


def sort_keys(order: exp.Expression | None, scope: Scope) -> tuple[SortKey, ...]:
    """The keys of an ORDER BY, their columns resolved."""
    if order is None:
        return ()
    keys = []
    for ordered in order.args["expressions"]:
        nulls_first = ordered.args.get("nulls_first")
        if nulls_first is None:
            raise Undistributable("an ordering that does not say where NULL goes")
        expression = scope.resolve(ordered.args["this"])
        keys.append(SortKey(expression, bool(ordered.args.get("desc")), bool(nulls_first)))
    return tuple(keys)


def _distinct_on(distinct: exp.Expression | None, scope: Scope) -> tuple[exp.Expression, ...] | None:
    if distinct is None or distinct.args.get("on") is None:
        return None
    return tuple(scope.resolve(e) for e in distinct.args["on"].args["expressions"])


# --- aggregates


def _aggregated(
    tree: exp.Expression,
    node: Node,
    scope: Scope,
    items: list[exp.Expression],
    keys: tuple[SortKey, ...],
    names: PlanNames,
    context: PlanContext,
) -> tuple[Node, Replacements]:
    """An ``Aggregate`` below the select list where the block has one, and what stands for each of its expressions."""
    group = tree.args.get("group")
    calls: dict[str, exp.Expression] = {}
    groupings: dict[str, exp.Expression] = {}
    known = context.aggregates()
    for expression in [*items, *(k.expression for k in keys)]:
        _collect(expression, known, calls, groupings)
    if group is None and not calls:
        return node, Replacements()
    group_keys, sets = _group_keys(group, scope)
    edits = Replacements()
    key_items, call_items = _named(group_keys, names, edits), _named(calls, names, edits)
    formed = computed([*key_items, *call_items], node.schema, context)
    bits = tuple(Computed(g.name, g.expression, BIGINT) for g in _named(groupings, names, edits))
    return Aggregate(node, formed[: len(key_items)], formed[len(key_items) :], sets, bits), edits


def _named(expressions: dict[str, exp.Expression], names: PlanNames, edits: Replacements) -> list[Named]:
    found = []
    for text, expression in expressions.items():
        name = names.column()
        found.append(Named(name, expression))
        edits.add(text, expression, column(name))
    return found


def _collect(
    expression: exp.Expression,
    known: frozenset[str],
    calls: dict[str, exp.Expression],
    groupings: dict[str, exp.Expression],
) -> None:
    stack = [expression]
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is exp.Window:
            # sum(sum(x)) OVER (…): the inner call is the block's, the outer one the window's.
            call = node.args["this"]
            stack.extend(call.args["expressions"])
            stack.extend(v for v in (call.args.get("order"), call.args.get("filter")) if v is not None)
            stack.extend(node.args.get("partition_by") or [])
            stack.extend(v for v in (node.args.get("order"), node.args.get("spec")) if v is not None)
            continue
        found = function_call(node)
        if found is not None:
            if found[0] == "grouping" or found[0] == "grouping_id":
                groupings.setdefault(to_sql(node), node)
                continue
            if found[0] in known:
                calls.setdefault(to_sql(node), node)
                continue
        for value in node.args.values():
            if isinstance(value, exp.Expression):
                stack.append(value)
            elif type(value) is list:
                stack.extend(v for v in value if isinstance(v, exp.Expression))


def _group_keys(
    group: exp.Expression | None, scope: Scope
) -> tuple[dict[str, exp.Expression], tuple[tuple[int, ...], ...] | None]:
    """The distinct key expressions by text, and the grouping sets as ordinals of them."""
    keys: dict[str, exp.Expression] = {}
    if group is None:
        return keys, None
    if not group.args.get("grouping_sets"):
        for expression in group.args["expressions"]:
            keys.setdefault(to_sql(scope.resolve(expression)), expression)
        return keys, None
    sets = []
    positions: dict[str, int] = {}
    for row in group.args["grouping_sets"][0].args["expressions"]:
        ordinals = []
        for expression in row.args["expressions"]:
            text = to_sql(scope.resolve(expression))
            keys.setdefault(text, expression)
            ordinals.append(positions.setdefault(text, len(positions)))
        sets.append(tuple(ordinals))
    return keys, tuple(sets)


# --- windows


def _windowed(
    node: Node, items: list[exp.Expression], names: PlanNames, context: PlanContext
) -> tuple[Node, list[exp.Expression]]:
    """``Window`` nodes below the select list: one per PARTITION BY list or, without one, per order.

    Sorts by window columns are never exported.
    """
    found: dict[str, exp.Expression] = {}
    for item in items:
        for inner in nodes(item):
            if type(inner) is exp.Window:
                found.setdefault(to_sql(inner), inner)
    if not found:
        return node, items
    edits: dict[str, exp.Expression] = {}
    groups: dict[tuple[str, ...], list[Named]] = {}
    partition_of: dict[tuple[str, ...], tuple[exp.Expression, ...]] = {}
    for text, window in found.items():
        partition_by = tuple(window.args.get("partition_by") or ())
        key = tuple(to_sql(e) for e in partition_by) or _order_key(window)
        named = Named(names.column(), window)
        groups.setdefault(key, []).append(named)
        partition_of[key] = partition_by
        edits[text] = column(named.name)
    for key, windows in groups.items():
        node = Window(node, partition_of[key], computed(windows, node.schema, context))

    def edit(inner: exp.Expression) -> exp.Expression | None:
        return edits[to_sql(inner)] if type(inner) is exp.Window else None

    return node, [map_nodes(item, edit) for item in items]


def _order_key(window: exp.Expression) -> tuple[str, ...]:
    """Windows without PARTITION BY stay apart by their order: each can then be computed over ranges of its own."""
    order = window.args.get("order")
    if order is None:
        return ()
    return tuple(
        f"{to_sql(o.args['this'])} {bool(o.args.get('desc'))} {o.args.get('nulls_first')}"
        for o in order.args["expressions"]
    )


def _project(node: Node, items: list[exp.Expression], names: PlanNames, context: PlanContext) -> Node:
    return Project(node, computed((Named(names.column(), item) for item in items), node.schema, context))
