"""Exported SQL to a logical plan.

DuckDB's exported text is one normal form: every relation has an alias with a column list, every column is qualified,
nothing is correlated. So building is a walk over SELECT blocks; each becomes, from the inside out: FROM, WHERE,
GROUP BY, windows, DISTINCT ON, ORDER BY, LIMIT, the select list. ORDER BY stays below the select list because it may
sort by columns that are not selected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.build_select import limit_of, select_block
from sabot_planner.logical.expression_types import Named, computed, types_of, types_of_call
from sabot_planner.logical.limit_by import take_computed_limit
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, both, renamed, schema_of
from sabot_planner.logical.nodes import (
    CteRef,
    Join,
    JoinKind,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Scan,
    SetKind,
    SetOp,
    Shared,
    Values,
)
from sabot_planner.logical.scope import Relation, Scope
from sabot_planner.sql.constant_lists import is_list, put_back, relation_of_rows, set_aside
from sabot_planner.sql.dialect import join_type, parse_exported, parse_rows, to_sql
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.print_guard import parser_error, same_meaning
from sabot_planner.sql.scalars import column, column_name, substitute
from sabot_planner.sql.subscripts import slices_as_calls

_SET_KINDS = {
    (exp.Union, False): SetKind.UNION_ALL,
    (exp.Union, True): SetKind.UNION,
    (exp.Intersect, True): SetKind.INTERSECT,
    (exp.Intersect, False): SetKind.INTERSECT_ALL,
    (exp.Except, True): SetKind.EXCEPT,
    (exp.Except, False): SetKind.EXCEPT_ALL,
}


@dataclass(frozen=True, slots=True)
class BuiltQuery:
    """A logical plan, the user's names of its columns, and what names more of its own."""

    root: Node
    output: tuple[str, ...]
    names: PlanNames


def build(sql: str, context: PlanContext) -> BuiltQuery:
    """The logical plan of one exported query.

    Raises:
        Undistributable: the text has a form that the planner does not know.
    """
    sql, lists = set_aside(sql)
    tree = parse_exported(sql, context.check)
    exported = context.serialized(sql)
    error = parser_error(exported)
    if error is not None:
        raise Undistributable(f"the exported plan is not read by DuckDB itself: {error}")
    if not same_meaning(exported, context.serialized(to_sql(tree))):
        raise Undistributable("the exported plan was not read exactly")
    if lists:
        put_back(nodes(tree), lists)
    slices_as_calls(tree)
    builder = _Builder(tree, context)
    node = builder.query(tree, {})
    return BuiltQuery(node, _output_names(tree, len(node.columns)), builder.names)


def _output_names(tree: exp.Expression, width: int) -> tuple[str, ...]:
    while isinstance(tree, exp.SetOperation):
        tree = tree.args["this"]
    if isinstance(tree, exp.Select):
        names = tuple(_item_name(item) for item in tree.args["expressions"])
        if len(names) == width:
            return names
    return tuple(f"col{i}" for i in range(width))


def _item_name(item: exp.Expression) -> str:
    name: Any
    if type(item) is exp.Alias:
        name = item.args["alias"].args["this"]
    elif type(item) is exp.Column:
        name = item.args["this"].args["this"]
    else:
        name = to_sql(item)
    return str(name)


_Ctes = dict[str, "Shared | RecursiveRef"]


class _Builder:
    def __init__(self, tree: exp.Expression, context: PlanContext) -> None:
        self.context = context
        lambdas: set[str] = set()
        self.mentioned: dict[str, set[str]] = {}
        for node in nodes(tree):
            kind = type(node)
            if kind is exp.Lambda:
                lambdas.update(i.args["this"] for i in node.args["expressions"])
            elif kind is exp.Column and node.args.get("table") is not None:
                self.mentioned.setdefault(node.args["table"].args["this"], set()).add(node.args["this"].args["this"])
        self.names = PlanNames.avoiding(lambdas)

    # --- queries

    def query(self, tree: exp.Expression, ctes: _Ctes) -> Node:
        self.context.check()
        with_ = tree.args.get("with_")
        if with_ is not None:
            ctes = dict(ctes)
            for cte in with_.args["expressions"]:
                self._define(cte, ctes, bool(with_.args.get("recursive")))
        if isinstance(tree, exp.Select):
            limited = take_computed_limit(tree, lambda value: self._value(value, ctes))
            relation = self._from(tree, ctes)
            return limited(select_block(tree, relation, self.names, self.context))
        if isinstance(tree, exp.Values):
            return self._modified(tree, self._values(tree))
        if isinstance(tree, exp.SetOperation):
            kind = _SET_KINDS[type(tree), bool(tree.args["distinct"])]
            branches = self._branches(tree, kind, ctes)
            names = self.names.columns(len(branches[0].columns))
            return self._modified(tree, SetOp(kind, tuple(branches), names))
        raise Undistributable(f"the exported plan has a {type(tree).__name__} where a query was expected")

    def _value(self, tree: exp.Expression, ctes: _Ctes) -> Node:
        """``SELECT c1 FROM x``: a column of a common table expression, as LIMIT reads it."""
        (item,), from_ = tree.args["expressions"], tree.args["from_"]
        shared = ctes.get(from_.args["this"].name)
        if not isinstance(shared, Shared) or type(item) is not exp.Column or item.args.get("table") is not None:
            raise Undistributable("LIMIT or OFFSET by a subquery of another form")
        names = self.names.columns(len(shared.columns))
        visible = {f"c{i}": name for i, name in enumerate(names)}
        found = visible[item.args["this"].args["this"]]
        reading = CteRef(shared, names)
        return Project(reading, (Computed(self.names.column(), column(found), reading.schema[found]),))

    def _branches(self, tree: exp.Expression, kind: SetKind, ctes: _Ctes) -> list[Node]:
        left, rights = tree.args["this"], [tree.args["expression"]]
        # a UNION ALL b UNION ALL c leans to the left; one node with three inputs is cheaper and clearer than two.
        while (
            kind is SetKind.UNION_ALL
            and isinstance(left, exp.Union)
            and not left.args["distinct"]
            and not any(left.args.get(k) for k in ("with_", "order", "limit", "offset"))
        ):
            rights.append(left.args["expression"])
            left = left.args["this"]
        return [self.query(branch, ctes) for branch in (left, *reversed(rights))]

    def _modified(self, tree: exp.Expression, node: Node) -> Node:
        """ORDER BY and LIMIT of a query that is not a SELECT: the exporter never gives them columns to sort by."""
        if tree.args.get("order"):
            raise Undistributable("ORDER BY on a bare set operation")
        if tree.args.get("limit") or tree.args.get("offset"):
            limit, offset = limit_of(tree)
            node = Limit(node, limit, offset)
        return node

    def _values(self, tree: exp.Expression) -> Node:
        rows = tuple(tuple(row.args["expressions"]) for row in tree.args["expressions"])
        if len(rows) == 1 and is_list(rows[0]):
            text: str = rows[0][0].args["this"]
            query, first, count = relation_of_rows(text)
            rows = tuple(map(tuple, parse_rows(first)))
            return Values(self.names.columns(len(rows[0])), types_of(rows[0], {}, self.context), rows, count, query)
        return Values(self.names.columns(len(rows[0])), types_of(rows[0], {}, self.context), rows, len(rows))

    # --- common table expressions

    def _define(self, cte: exp.Expression, ctes: _Ctes, recursive: bool) -> None:
        alias = cte.args["alias"]
        name = alias.args["this"].args["this"]
        cte_id = self.names.shared()
        body = cte.args["this"]
        keyed = cte.args.get("key_expressions") is not None
        if keyed and (not isinstance(body, exp.SetOperation) or body.args.get("chained")):
            raise Undistributable("a recursive query USING KEY of another form")
        if keyed or (
            recursive and isinstance(body, exp.SetOperation) and self._mentions(body.args["expression"], name)
        ):
            ctes[name] = Shared(self._recursive(cte, body, name, cte_id, ctes), cte_id)
            return
        ctes[name] = Shared(self.query(body, ctes), cte_id)

    def _recursive(self, cte: exp.Expression, body: exp.Expression, name: str, cte_id: str, ctes: _Ctes) -> Node:
        anchor = self.query(body.args["this"], ctes)
        names = self.names.columns(len(anchor.columns))
        schema = renamed(anchor.schema, names)
        keys = computed(_key_columns(cte, names), schema, self.context)
        types = tuple(both(schema, schema_of(keys)).values())
        inner = dict(ctes)
        inner[name] = RecursiveRef(cte_id, names, types)
        step = self.query(body.args["expression"], inner)
        return RecursiveCte(cte_id, anchor, step, not body.args["distinct"], names, keys)

    @staticmethod
    def _mentions(tree: exp.Expression, name: str) -> bool:
        return any(
            type(node) is exp.Table
            and type(node.args["this"]) is exp.Identifier
            and node.args["this"].args["this"] == name
            for node in nodes(tree)
        )

    # --- relations

    def _from(self, tree: exp.Expression, ctes: _Ctes) -> Relation:
        from_ = tree.args.get("from_")
        if from_ is None:
            return Relation(Values((), (), ((),)), Scope())
        return self._join_tree(from_.args["this"], tree.args.get("joins") or [], ctes)

    def _join_tree(self, first: exp.Expression, joins: list[exp.Join], ctes: _Ctes) -> Relation:
        relation = self._relation(first, ctes)
        for join in joins:
            relation = self._join(relation, join, ctes)
        return relation

    def _join(self, left: Relation, join: exp.Join, ctes: _Ctes) -> Relation:
        kind_text = join_type(join)
        target = join.args["this"]
        if _is_lateral(target):
            return self._lateral(left, target, kind_text, join)
        right = self._relation(target, ctes)
        try:
            kind = JoinKind(kind_text.replace("ASOF_", "ASOF "))
        except ValueError:
            raise Undistributable(f"a join of type {kind_text}") from None
        scope = Scope(dict(left.scope.columns))
        scope.merge(Scope(right.scope.columns))
        condition = join.args.get("on")
        if condition is not None:
            scope.resolve(condition)
        marker = self.names.column() if kind is JoinKind.MARK else None
        if (left.scope.marker or right.scope.marker) is not None:
            raise Undistributable("a mark join inside another join")
        scope.marker = marker
        return Relation(Join(kind, left.node, right.node, condition, marker), scope)

    def _lateral(self, left: Relation, target: exp.Expression, kind: str, join: exp.Expression) -> Relation:
        if kind not in ("CROSS", "LEFT", "INNER") or (kind != "CROSS" and to_sql(join.args["on"]) != "TRUE"):
            raise Undistributable(f"a {kind} join with a table function of its left side")
        function = left.scope.resolve(target.args["this"])
        alias = target.args["alias"]
        visible = [c.args["this"] for c in alias.args["columns"]]
        names = self.names.columns(len(visible))
        scope = Scope(dict(left.scope.columns))
        scope.add(alias.args["this"].args["this"], visible, names)
        types = tuple(types_of_call(function, names, left.node.schema, self.context))
        return Relation(LateralCall(left.node, function, names, types, kind == "LEFT"), scope)

    def _relation(self, tree: exp.Expression, ctes: _Ctes) -> Relation:
        if type(tree) is exp.Table:
            return self._table(tree, ctes)
        if type(tree) is not exp.Subquery:
            raise Undistributable(f"the exported plan has a {type(tree).__name__} in FROM")
        alias = tree.args.get("alias")
        if tree.args.get("joins"):
            return self._join_tree(tree.args["this"], tree.args["joins"], ctes)
        node = self.query(tree.args["this"], ctes)
        scope = Scope()
        if alias is not None:
            visible = [c.args["this"] for c in alias.args["columns"]]
            if visible and len(visible) != len(node.columns):
                raise Undistributable("a column list that does not fit its relation")
            if not visible:
                visible = list(_output_names(tree.args["this"], len(node.columns)))
            scope.add(alias.args["this"].args["this"], visible, node.columns)
        return Relation(node, scope)

    def _table(self, tree: exp.Expression, ctes: _Ctes) -> Relation:
        this, alias = tree.args["this"], tree.args.get("alias")
        if alias is None:
            raise Undistributable("a relation without an alias")
        alias_name = alias.args["this"].args["this"]
        visible = [c.args["this"] for c in alias.args["columns"]]
        scope = Scope()
        if type(this) is exp.Identifier:
            db = tree.args.get("db")
            shared = ctes.get(this.args["this"])
            recurring = db is not None and db.args["this"] == "recurring"
            if shared is not None and (db is None or (recurring and isinstance(shared, RecursiveRef))):
                names = self.names.columns(len(shared.columns))
                scope.add(alias_name, visible or [f"c{i}" for i in range(len(names))], names)
                if isinstance(shared, RecursiveRef):
                    return Relation(RecursiveRef(shared.cte_id, names, shared.types, recurring), scope)
                return Relation(CteRef(shared, names), scope)
        virtual = sorted(self.mentioned.get(alias_name, set()).difference(visible)) if visible else []
        relation_sql = _without_alias(tree)
        source = self.context.source(relation_sql, [v for v in virtual if v in _VIRTUAL])
        if visible and len(source.columns) < len(visible):
            raise Undistributable(f"{source.name} has {len(source.columns)} columns, {len(visible)} were expected")
        names = self.names.columns(len(source.columns))
        shown = visible + [c.name for c in source.columns[len(visible) :]]
        scope.add(alias_name, shown, names)
        return Relation(Scan(source, names, alias_name), scope)


def _key_columns(cte: exp.Expression, names: tuple[str, ...]) -> tuple[Named, ...]:
    """The list of USING KEY over the plan's names of the expression's columns; empty without one."""
    own = {c.args["this"]: column(n) for c, n in zip(cte.args["alias"].args["columns"], names, strict=True)}
    found = []
    for item in cte.args.get("key_expressions") or ():
        expression = item.args["this"] if type(item) is exp.Alias else item
        name = item.args["alias"].args["this"] if type(item) is exp.Alias else column_name(item)
        if name not in own:
            raise Undistributable("a recursive query USING KEY of another form")
        found.append(Named(own[name].name, substitute(expression, own)))
    if found and {f.name for f in found} != set(names):
        raise Undistributable("a recursive query USING KEY of another form")
    return tuple(found)


_VIRTUAL = frozenset({"rowid", "filename", "file_row_number", "file_index"})


def _is_lateral(tree: exp.Expression) -> bool:
    """A table function that reads columns of what stands to its left."""
    return (
        type(tree) is exp.Table
        and type(tree.args["this"]) is exp.Anonymous
        and any(type(n) is exp.Column and n.args.get("table") is not None for n in nodes(tree.args["this"]))
    )


def _without_alias(tree: exp.Expression) -> str:
    return to_sql(exp.Table(**{k: v for k, v in tree.args.items() if k != "alias"}))
