"""Subscripts as the calls that DuckDB makes of them.

DuckDB looks up the functions behind ``x[1:2]``, ``x['a']`` and ``x.a`` by their bare names, so that a macro of such a
name takes their place. No spelling of a subscript can be qualified; the call of the function can.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlglot import exp

from sabot_planner.errors import Undistributable
from sabot_planner.sql.dialect import call
from sabot_planner.sql.duck_type import DuckType
from sabot_planner.sql.expression_tree import map_nodes, nodes
from sabot_planner.sql.scalars import column_name, literal


def slices_as_calls(tree: exp.Expression) -> None:
    """Make, in place, every slice ``x[a:b:c]`` below ``tree`` a call."""
    for node in reversed(nodes(tree)):  # what is inside comes first
        for name, value in list(node.args.items()):
            if _is_slice(value):
                node.set(name, _slice_call(value))
            elif type(value) is list:
                value[:] = [_slice_call(item) if _is_slice(item) else item for item in value]


def fields_as_calls(expression: exp.Expression, types: Mapping[str, DuckType]) -> exp.Expression:
    """``expression`` with calls for fields of columns, as in ``x['a']['b']`` and ``x.a.b``.

    ``types`` are those of the columns by name: the function follows from the type.

    Raises:
        Undistributable: something else than a field of a column has a subscript.
    """
    return map_nodes(expression, lambda node: _field_call(node, types))


def _is_slice(node: object) -> bool:
    return type(node) is exp.Bracket and type(node.args["expressions"][0]) is exp.Slice


def _slice_call(node: exp.Expression) -> exp.Expression:
    between = node.args["expressions"][0].args
    # An empty list is how DuckDB's parser says that an end is open; NULL would be another thing.
    ends = [end if end is not None else call("list_value") for end in (between.get("this"), between.get("expression"))]
    step = [between["step"]] if between.get("step") is not None else []
    return call("array_slice", node.args["this"], *ends, *step)


def _field_call(node: exp.Expression, types: Mapping[str, DuckType]) -> exp.Expression | None:
    path: list[str] = []
    inner = node
    while type(inner) in (exp.Bracket, exp.Dot):
        path.append(_field_name(inner))
        inner = inner.args["this"]
    if not path:
        return None
    kind = types.get(column_name(inner) or "")
    for name in reversed(path):
        if kind is not None and kind.kind == "VARIANT":
            inner = call("variant_extract", inner, literal(name))
            continue
        fields = kind.parts if kind is not None and kind.kind == "STRUCT" else ()
        field_type = {field.lower(): inner_kind for field, inner_kind in fields}.get(name.lower())
        if field_type is None:
            raise Undistributable(f"a subscript of a value of type {kind or 'unknown'}")
        inner, kind = call("struct_extract", inner, literal(name)), field_type
    return inner


def _field_name(node: exp.Expression) -> str:
    if type(node) is exp.Dot:
        name: str = node.args["expression"].args["this"]
        return name
    index = node.args["expressions"][0]
    if type(index) is not exp.Literal or not index.args["is_string"]:
        raise Undistributable("a subscript that is not the name of a field")
    field: str = index.args["this"]
    return field
