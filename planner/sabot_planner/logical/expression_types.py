"""Types of expressions: read off casts and columns where they stand, asked of DuckDB where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlglot import exp

from sabot_planner.errors import Undistributable, UnknownColumn
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.node import Computed, Schema
from sabot_planner.sql.dialect import to_sql, type_text
from sabot_planner.sql.duck_type import BOOLEAN, VARCHAR, DuckType, duck_type, unreadable
from sabot_planner.sql.known_types import known_type
from sabot_planner.sql.scalars import columns_of

_BOOLEAN = (
    exp.EQ,
    exp.NEQ,
    exp.LT,
    exp.LTE,
    exp.GT,
    exp.GTE,
    exp.And,
    exp.Or,
    exp.Not,
    exp.Is,
    exp.In,
    exp.Between,
    exp.NullSafeEQ,
    exp.NullSafeNEQ,
    exp.Boolean,
)


@dataclass(frozen=True, slots=True)
class Named:
    """A column to be and the expression that gives it; what it is over tells its type."""

    name: str
    expression: exp.Expression


def computed(items: Iterable[Named], schema: Schema, context: PlanContext) -> tuple[Computed, ...]:
    """The columns ``items`` over rows of ``schema``, with their types; DuckDB is asked once at most.

    Raises:
        Undistributable: an expression reads a column of a type that only DuckDB knows.
    """
    listed = tuple(items)
    types = types_of([i.expression for i in listed], schema, context)
    return tuple(Computed(i.name, i.expression, kind) for i, kind in zip(listed, types, strict=True))


def types_of(expressions: Sequence[exp.Expression], schema: Schema, context: PlanContext) -> tuple[DuckType, ...]:
    """Types of expressions over rows of ``schema``; DuckDB is asked once at most.

    Raises:
        Undistributable: an expression reads a column of a type that only DuckDB knows.
    """
    known = [_read_off(e, schema) for e in expressions]
    asked = [e for e, t in zip(expressions, known, strict=True) if t is None]
    answers = iter(_asked(asked, schema, context) if asked else ())
    return tuple(t if t is not None else next(answers) for t in known)


def types_of_call(
    function: exp.Expression, names: Sequence[str], schema: Schema, context: PlanContext
) -> list[DuckType]:
    """Types of the columns ``names`` of a table function that is called for each row of ``schema``."""
    columns = ", ".join(f"CAST(NULL AS {schema[name]}) AS {name}" for name in sorted(columns_of(function)))
    out = ", ".join(names)
    relation = f"(SELECT {columns or '1'}) CROSS JOIN {to_sql(function)} AS lateral_({out})"
    return list(map(duck_type, context.types(list(names), relation)))


def _asked(expressions: Sequence[exp.Expression], schema: Schema, context: PlanContext) -> Iterable[DuckType]:
    context.check()
    names = sorted(columns_of(*expressions))
    if not schema.keys() >= set(names):
        raise UnknownColumn("expression", sorted(set(names) - schema.keys()), schema)
    for name in names:
        lost = unreadable(schema[name])
        if lost is not None:
            raise Undistributable(f"only DuckDB knows what a column of type {lost} is of")
    columns = ", ".join(f"CAST(NULL AS {schema[name]}) AS {name}" for name in names)
    return map(duck_type, context.types([to_sql(e) for e in expressions], f"(SELECT {columns or '1'})"))


def _read_off(expression: exp.Expression, schema: Schema) -> DuckType | None:
    """The type of an expression as far as it can be told from its parts, whatever their depth."""
    inner = _typed_by(expression)
    if not inner:
        return _type_of(expression, (), schema)
    parts = [expression]
    counts: list[int] = []
    for part in parts:  # which grows meanwhile
        inner = _typed_by(part)
        counts.append(len(inner))
        parts += inner
    # Parts stand in the order of their levels, so that the last ones known are those of the last part not yet typed.
    found: list[DuckType | None] = [None] * len(parts)
    end = len(parts)
    for place in range(len(parts) - 1, -1, -1):
        begin = end - counts[place]
        found[place] = _type_of(parts[place], found[begin:end], schema)
        end = begin
    return found[0]


def _type_of(expression: exp.Expression, inner: Sequence[DuckType | None], schema: Schema) -> DuckType | None:
    """The type of an expression of which those it is told by, :func:`_typed_by`, have the types ``inner``."""
    kind = type(expression)
    if kind is exp.Column:
        return schema.get(expression.args["this"].args["this"])
    if kind is exp.Cast or kind is exp.TryCast:
        return duck_type(type_text(expression))
    if kind in _BOOLEAN:
        return BOOLEAN
    if kind is exp.Collate:
        return VARCHAR
    if kind is exp.Window:
        return inner[0]
    if kind is exp.Anonymous and not expression.args.get("export_state"):
        known = [i for i in inner if i is not None]
        return known_type(expression.args["this"], known) if len(known) == len(inner) else None
    if kind is exp.Case:
        return inner[0] if len(set(inner)) == 1 else None
    return None


def _typed_by(expression: exp.Expression) -> list[exp.Expression]:
    """The inner expressions whose types tell that of the outer one."""
    args = expression.args
    kind = type(expression)
    if kind is exp.Window:
        return [args["this"]]
    if kind is exp.Anonymous:
        return list(args["expressions"])
    if kind is exp.Case:
        return [*(i.args["true"] for i in args["ifs"]), *([args["default"]] if args.get("default") is not None else [])]
    return []
