"""A sub-plan back to one DuckDB SELECT.

Column names are unique in the whole plan, so relations need no aliases and blocks merge where SQL's own order of
clauses allows it: FROM, WHERE, GROUP BY, DISTINCT, ORDER BY, LIMIT, with the select list over all of them. What does
not fit into the block below it starts a new one around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.distribute.grouping_set_levels import in_levels
from sabot_planner.errors import PlannerError
from sabot_planner.job.operators import ShuffleEdgeType
from sabot_planner.logical.expressions import is_narrowing
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.node import Computed, Node, SortKey
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    GroupBy,
    Join,
    JoinKind,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    EmptyRelation,
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    Repeated,
    RowNumber,
)
from sabot_planner.sql.dialect import to_sql
from sabot_planner.sql.expression_tree import nodes
from sabot_planner.sql.scalars import column_name
from sabot_planner.sql.text import builtin

_JOIN_SQL = {
    JoinKind.INNER: "INNER JOIN",
    JoinKind.LEFT: "LEFT JOIN",
    JoinKind.RIGHT: "RIGHT JOIN",
    JoinKind.FULL: "FULL JOIN",
    JoinKind.SEMI: "SEMI JOIN",
    JoinKind.ANTI: "ANTI JOIN",
    JoinKind.CROSS: "CROSS JOIN",
    JoinKind.POSITIONAL: "POSITIONAL JOIN",
    JoinKind.ASOF: "ASOF INNER JOIN",
    JoinKind.ASOF_LEFT: "ASOF LEFT JOIN",
    JoinKind.ASOF_RIGHT: "ASOF RIGHT JOIN",
    JoinKind.ASOF_FULL: "ASOF FULL JOIN",
}


_MIRRORED = {
    JoinKind.INNER: JoinKind.INNER,
    JoinKind.CROSS: JoinKind.CROSS,
    JoinKind.RIGHT: JoinKind.LEFT,
    JoinKind.RIGHT_SEMI: JoinKind.SEMI,
    JoinKind.RIGHT_ANTI: JoinKind.ANTI,
}
"""The same join with its sides exchanged, of those whose left side may be copied."""


@dataclass(slots=True)
class Block:
    """A SELECT under construction; ``select`` None means that FROM's columns come out as they are."""

    from_: str | None
    columns: tuple[str, ...]
    select: list[str] | None = None
    where: list[str] = field(default_factory=list)
    group: str | None = None
    having: str | None = None
    distinct: str | None = None
    order: str | None = None
    limit: str | None = None
    sample: str | None = None

    @property
    def bare(self) -> bool:
        """Nothing but a FROM clause."""
        return not (self.where or self.finished)

    @property
    def finished(self) -> bool:
        """Nothing that runs before the select list fits in any more."""
        return bool(self.select is not None or self.distinct or self.order or self.limit or self.sample)

    def sql(self) -> str:
        """The SELECT."""
        items = self.select if self.select is not None else list(self.columns)
        parts = [f"SELECT {self.distinct + ' ' if self.distinct else ''}{', '.join(items) or '1'}"]
        if self.from_ is not None:
            parts.append(f"FROM {self.from_}")
        if self.where:
            parts.append("WHERE " + " AND ".join(self.where))
        if self.group:
            parts.append(f"GROUP BY {self.group}")
        if self.having:
            parts.append(f"HAVING {self.having}")
        if self.sample:
            parts.append(f"USING SAMPLE {self.sample}")
        if self.order:
            parts.append(f"ORDER BY {self.order}")
        if self.limit:
            parts.append(self.limit)
        return " ".join(parts)

    def relation(self) -> str:
        """The block as an item of a FROM clause."""
        if self.from_ is not None and self.bare:
            return self.from_
        return f"({self.sql()})"


LeafWriter = Callable[[Node], str]
"""Gives the relation name of a leaf of the fragment: a scan, an exchange."""


class FragmentWriter:
    """Writes one fragment; ``leaf`` names the relations that the fragment reads."""

    def __init__(self, leaf: LeafWriter, leaves: tuple[type[Node], ...]) -> None:
        self._leaf = leaf
        self._leaves = leaves
        self._ctes: dict[str, str] = {}
        self._aliases = 0

    def write(self, node: Node, extra: tuple[Computed, ...] = ()) -> str:
        """The fragment that computes ``node``'s columns and, after them, the ``extra`` ones over them."""
        block = self.block(node)
        if extra:
            items = [*node.columns, *(_item(e) for e in extra)]
            if block.select is not None or block.distinct:
                block = Block(block.relation(), node.columns)
            block = replace(block, select=items, columns=node.columns + tuple(e.name for e in extra))
        sql = block.sql()
        if self._ctes:
            defined = ", ".join(f"{name} AS MATERIALIZED ({body})" for name, body in self._ctes.items())
            sql = f"WITH {defined} {sql}"
        return sql

    def block(self, node: Node) -> Block:
        """The SELECT block of a node."""
        if isinstance(node, self._leaves):
            return Block(self._leaf(node), node.columns)
        match node:
            case Values():
                return self._values(node)
            case RowNumber():
                block = self._open(node.input)
                number = f"{builtin('row_number')} OVER () AS {node.name}"
                return replace(block, columns=node.columns, select=[*node.input.columns, number])
            case HaloWindow():
                return self._halo_window(node)
            case PartitionId():
                (value,) = node.series.columns
                series = self._leaf(node.series)
                return Block(f"(SELECT {builtin('min', value)} AS {node.name} FROM {series})", node.columns)
            case EmptyRelation():
                items = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in node.schema.items()]
                return Block(self.block(node.witness).relation(), node.columns, select=items, where=["false"])
            case Filter():
                block = self._open(node.input)
                block.where.append(_operand(node.predicate))
                return block
            case Project():
                return self._project(node)
            case LateralCall():
                join = "LEFT JOIN" if node.left else "CROSS JOIN"
                on = " ON TRUE" if node.left else ""
                call = f"{to_sql(node.function)} AS {self._alias()}({', '.join(node.names)})"
                return Block(f"({self.block(node.input).relation()} {join} {call}{on})", node.columns)
            case Join():
                return self._join(node)
            case PartialAggregate():
                return self._partial_aggregate(in_levels(node))
            case Aggregate() | AggregateInPlace() | FinalAggregate():
                return self._aggregate(node)
            case Window() | RangeWindow():
                block = self._open(node.input)
                return replace(block, columns=node.columns, select=[*node.input.columns, *map(_item, node.items)])
            case Sort():
                block = self._open(node.input)
                return replace(block, order=order_by(node.keys), limit=_limit(node.limit, node.offset))
            case Limit():
                return self._limit(node)
            case LimitBy():
                return self._limit_by(node)
            case Distinct():
                return self._distinct(node)
            case Sample():
                return replace(self._open(node.input), sample=node.clause)
            case SetOp():
                branches = [f"({self._listed(b)})" for b in node.branches]
                body = f" {node.kind} ".join(branches)
                return Block(f"({body}) AS {self._alias()}({', '.join(node.names)})", node.names)
            case CteRef():
                return self._cte(node)
            case RecursiveCte():
                return self._recursive(node)
            case RecursiveRef():
                prefix = "recurring." if node.recurring else ""
                return Block(f"{prefix}{node.cte_id} AS {self._alias()}({', '.join(node.names)})", node.names)
            case Shared() | Repeated():
                return self.block(node.input)
            case _:
                raise PlannerError(f"no SQL for a {type(node).__name__} node")

    def _halo_window(self, node: HaloWindow) -> Block:
        names = ", ".join(node.rows.columns)
        own, other = (
            f"SELECT {', '.join(side.columns)}, {flag} FROM {self.block(side).relation()}"
            for side, flag in ((node.rows, "true"), (node.halo, "false"))
        )
        both = f"({own} UNION ALL {other}) AS {self._alias()}({names}, own_row)"
        items = ", ".join(map(_item, node.items))
        return Block(f"(SELECT {names}, {items} FROM {both} QUALIFY own_row)", node.columns)

    def _alias(self) -> str:
        self._aliases += 1
        return f"t{self._aliases}"

    def _open(self, node: Node) -> Block:
        """The node's block where clauses can still be added, else a new block around it."""
        block = self.block(node)
        if block.finished or block.group:
            return Block(block.relation(), node.columns)
        return replace(block, columns=node.columns)

    def _listed(self, node: Node) -> str:
        """The node as a SELECT whose columns come in the node's order."""
        block = self.block(node)
        return replace(block, columns=node.columns).sql()

    def _values(self, node: Values) -> Block:
        if not node.names:
            return Block(None, ())
        body = node.text or _values(node.rows)
        return Block(f"({body}) AS {self._alias()}({', '.join(node.names)})", node.names)

    def _project(self, node: Project) -> Block:
        block = self.block(node.input)
        if is_narrowing(node):
            if block.select is None:
                return replace(block, columns=node.columns)
            return Block(block.relation(), node.columns)
        late = block.order or block.limit or block.distinct or block.sample
        if block.select is not None or (
            late and (block.distinct or any(_multiplies(i.expression) for i in node.items))
        ):
            block = Block(block.relation(), node.input.columns)
        return replace(block, columns=node.columns, select=[_item(i) for i in node.items])

    def _join(self, node: Join) -> Block:
        kind, one, two = node.kind, node.left, node.right
        if kind in _MIRRORED and _is_copied(one) and not _is_copied(two):
            # The right side is the one that is kept in memory: that had better be the small one.
            kind, one, two = _MIRRORED[kind], two, one
        left, right = self.block(one).relation(), self.block(two).relation()
        join = _JOIN_SQL.get(kind) or f"JOIN BY (TYPE {kind})"
        on = f" ON ({to_sql(node.condition)})" if node.condition is not None else ""
        from_ = f"({left} {join} {right}{on})"
        if node.marker is None:
            return Block(from_, node.columns)
        return Block(from_, node.columns, select=[*node.left.columns, f"__mark_join_marker AS {node.marker}"])

    def _partial_aggregate(self, node: PartialAggregate) -> Block:
        return replace(self._aggregate(node), having=f"{builtin('count_star')} > 0" if node.silent_when_empty else None)

    def _aggregate(self, node: GroupBy) -> Block:
        block = self._open(node.input)
        items = [_item(i) for i in node.keys + node.aggregates + node.groupings]
        keys = [to_sql(k.expression) for k in node.keys]
        group = ", ".join(keys) or None
        if node.grouping_sets is not None:
            sets = ", ".join(f"({', '.join(keys[i] for i in one)})" for one in node.grouping_sets)
            group = f"GROUPING SETS ({sets})"
        return replace(block, columns=node.columns, select=items, group=group)

    def _limit(self, node: Limit) -> Block:
        block = self.block(node.input)
        if block.limit:
            block = Block(block.relation(), node.columns)
        if node.percent is not None:
            offset = f" OFFSET {node.offset}" if node.offset else ""
            return replace(block, columns=node.columns, limit=f"LIMIT ({to_sql(node.percent)}) %{offset}")
        return replace(block, columns=node.columns, limit=_limit(node.limit, node.offset))

    def _limit_by(self, node: LimitBy) -> Block:
        """The rows are numbered as they come and ordered by that.

        DuckDB joins the value to the rows, and a join whose sides it exchanges gives them in any order.
        """
        rows, values, number = self.block(node.input), self._alias(), self._alias()
        # What is read may be a stream, which can be read only once.
        self._ctes[f"{values}({', '.join(node.values.columns)})"] = self._listed(node.values)
        parts = []
        if node.limit is not None:
            parts.append(f"LIMIT ((SELECT {to_sql(node.limit)} FROM {values})){' %' if node.percent else ''}")
        if node.offset is not None:
            parts.append(f"OFFSET (SELECT {to_sql(node.offset)} FROM {values})")
        numbering = f"{builtin('row_number')} OVER () AS {number}"
        numbered = f"(SELECT *, {numbering} FROM {rows.relation()}) AS {self._alias()}"
        return Block(numbered, node.columns, order=f"{number} ASC", limit=" ".join(parts))

    def _distinct(self, node: Distinct) -> Block:
        block = self._open(node.input)
        plain = {column_name(e) for e in node.on} == set(node.columns) and not node.order
        on = "DISTINCT" if plain else f"DISTINCT ON ({', '.join(map(to_sql, node.on))})"
        return replace(block, distinct=on, order=order_by(node.order) if node.order else None)

    def _cte(self, node: CteRef) -> Block:
        shared = node.shared
        head = f"{shared.cte_id}({', '.join(shared.columns)})"
        if head not in self._ctes:
            self._ctes[head] = self._listed(shared)
        return Block(f"{shared.cte_id} AS {self._alias()}({', '.join(node.names)})", node.names)

    def _recursive(self, node: RecursiveCte) -> Block:
        union = "UNION ALL" if node.union_all else "UNION"
        head = f"{node.cte_id}({', '.join(node.names)})"
        if node.keys:
            head += f" USING KEY ({', '.join(map(_item, node.keys))})"
        body = f"({self._listed(node.anchor)}) {union} ({self._listed(node.step)})"
        return Block(
            f"(WITH RECURSIVE {head} AS ({body}) SELECT {', '.join(node.names)} FROM {node.cte_id})", node.names
        )


def _is_copied(side: Node) -> bool:
    while isinstance(side, Project | Filter):
        side = side.input
    return isinstance(side, Repeated) or (isinstance(side, Exchange) and side.edge_type is ShuffleEdgeType.BROADCAST)


def order_by(keys: tuple[SortKey, ...]) -> str:
    """The keys of an ORDER BY, everything said."""
    return ", ".join(
        f"{_operand(k.expression)} {'DESC' if k.descending else 'ASC'} NULLS {'FIRST' if k.nulls_first else 'LAST'}"
        for k in keys
    )


def _values(rows: tuple[tuple[exp.Expression, ...], ...]) -> str:
    return f"VALUES {', '.join(f'({_listed(row)})' for row in rows)}"


def _listed(row: tuple[exp.Expression, ...]) -> str:
    return ", ".join(map(to_sql, row))


def _limit(limit: int | None, offset: int) -> str | None:
    parts = ([f"LIMIT {limit}"] if limit is not None else []) + ([f"OFFSET {offset}"] if offset else [])
    return " ".join(parts) or None


def _item(item: Computed) -> str:
    if column_name(item.expression) == item.name:
        return item.name
    return f"{to_sql(item.expression)} AS {item.name}"


def _operand(expression: exp.Expression) -> str:
    text = to_sql(expression)
    return f"({text})" if isinstance(expression, exp.Binary | exp.Connector | exp.Not | exp.Unary) else text


def _multiplies(expression: exp.Expression) -> bool:
    return any(type(n) is exp.Anonymous and n.args["this"] == "unnest" for n in nodes(expression))
