"""Whether the SQL of an operator leaves keys as they came, and whether a side of a join may be copied.

Both answers are no wherever the SQL is not plain enough to be sure: rows move once more than they had to, or an option
is refused. The other mistake would be wrong rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sabot_planner.job.operators import OperatorType

if TYPE_CHECKING:
    from sqlglot import exp

    from sabot_sql.jobs.operators import StreamOperatorNode

_PRESERVING = {
    # how → the places of the inputs whose rows come without a match as well
    "inner": (),
    "left": (0,),
    "right": (1,),
    "full": (0, 1),
    "semi": (0,),
    "anti": (0,),
}


def keeps_keys(node: StreamOperatorNode, keys: Sequence[str]) -> bool:
    """Whether the columns ``keys`` leave the operator with the values with which they came."""
    if node.function is not None:
        return node.operator_type is OperatorType.FILTER
    if node.aggregates:
        return set(keys) <= set(node.key_by)
    if not node.sql:
        # USING of a RIGHT or FULL join gives a key that one side has not.
        return node.how in ("inner", "left", "semi", "anti")
    if node.base_type is OperatorType.JOIN:
        return False
    select = _plain_select(node.sql)
    if select is None or not _reads_input_alone(select):
        return False
    projected = {name.lower() for item in select.expressions if (name := _column(item))}
    starred = any(map(_is_star, select.expressions))
    others = {item.alias.lower() for item in select.expressions if item.alias and _column(item) is None}
    return all(key.lower() not in others and (starred or key.lower() in projected) for key in keys)


def join_kind_keeps(node: StreamOperatorNode, names: Sequence[str], place: int) -> bool:
    """Whether the input at ``place`` may be copied to every task without any of its rows coming twice."""
    if not node.sql:
        if node.operator_type is OperatorType.ASOF_JOIN:
            return place == 1
        return node.base_type is not OperatorType.JOIN or place not in _PRESERVING[node.how]
    unnamed = [i for i, name in enumerate(names) if not name]
    own = f"input_{unnamed.index(place) + 1}" if not names[place] and len(unnamed) > 1 else "input"
    return may_be_copied(node.sql, names[place] or own)


def may_be_copied(sql: str, name: str) -> bool:
    """Whether the relation ``name`` may be copied to every task that runs ``sql`` over a part of the other rows."""
    select = _plain_select(sql)
    return select is not None and _read_as_inner_side(select, name.lower())


def _plain_select(sql: str) -> exp.Select | None:
    """The one SELECT that the text is, without WITH, if it is."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except (SqlglotError, RecursionError):
        return None
    return tree if isinstance(tree, exp.Select) and tree.args.get("with_") is None else None


def _reads_input_alone(select: exp.Select) -> bool:
    from sqlglot import exp

    tables = list(select.find_all(exp.Table))
    unnested = select.find(exp.Subquery, exp.SetOperation, exp.Unnest, exp.Lateral, exp.Join)
    return len(tables) == 1 and tables[0].name.lower() == "input" and unnested is None


def _is_star(item: exp.Expression) -> bool:
    from sqlglot import exp

    star = item.this if isinstance(item, exp.Column) else item
    # EXCLUDE, REPLACE and RENAME may take a key away or change it.
    return isinstance(star, exp.Star) and not any(star.args.values())


def _column(item: exp.Expression) -> str | None:
    """The column that an item of a select list is, under its own name; None for anything else."""
    from sqlglot import exp

    inner = item.this if isinstance(item, exp.Alias) else item
    if not isinstance(inner, exp.Column):
        return None
    return inner.name if not isinstance(item, exp.Alias) or item.alias == inner.name else None


def _read_as_inner_side(select: exp.Select, name: str) -> bool:
    """Whether ``select`` gives no row of the relation ``name`` for its own sake, but for one of another relation.

    It may be joined, on the side that needs a match, or be asked in a subquery of a condition or of a select list.
    """
    from sqlglot import exp

    begin = select.args.get("from_")
    if begin is None or not isinstance(begin.this, exp.Table) or begin.this.name.lower() == name:
        return False  # each task would give all of its rows
    # Joins stand beside the first table, or within it where the text begins with FROM.
    joins = [*(select.args.get("joins") or []), *(begin.this.args.get("joins") or [])]
    if any(not isinstance(join.this, exp.Table) and _names(join.this, name) for join in joins):
        return False
    sides = {(join.side or "").upper() for join in select.find_all(exp.Join)}
    joined = any(_names(join.this, name) for join in joins)
    return not joined or not sides & {"RIGHT", "FULL"}


def _names(tree: exp.Expression, name: str) -> bool:
    from sqlglot import exp

    return any(table.name.lower() == name for table in tree.find_all(exp.Table))
