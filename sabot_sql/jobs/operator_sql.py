"""The SELECT of an operator, where its options say what it does in place of SQL."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sabot_planner.job.operators import Column, OperatorType
from sabot_planner.sql.text import quote, task_sql
from sabot_sql.errors import JobError
from sabot_sql.jobs.operators import StreamOperatorNode

_ORDER = re.compile(
    r"\s*(?P<column>\"(?:[^\"]|\"\")+\"|[A-Za-z_][A-Za-z0-9_]*)"
    r"(?:\s+(?P<direction>ASC|DESC))?(?:\s+NULLS\s+(?P<nulls>FIRST|LAST))?\s*\Z",
    re.IGNORECASE,
)

UNWINDOWED = "rows_without_windows"

Input = tuple[str, Sequence[Column]]
"""The name under which an operator reads an input, and its columns."""


def operator_sql(node: StreamOperatorNode, inputs: Sequence[Input]) -> str:
    """One SELECT over the relations ``inputs``.

    Raises:
        JobError: nothing says what the operator does.
    """
    if is_windowed(node):
        return _windowed(node, inputs[0][1])
    if node.sql:
        return _stripped(node.sql)
    names = [name for name, _ in inputs]
    match node.operator_type:
        case OperatorType.FILTER if node.where:
            return f"SELECT * FROM {names[0]} WHERE {node.where}\n"
        case _ if node.aggregates:
            return _grouped(node, names[0], node.key_by)
        case OperatorType.DISTINCT:
            keys = ", ".join(map(quote, node.key_by))
            return f"SELECT DISTINCT {f'ON ({keys}) ' if keys else ''}* FROM {names[0]}"
        case OperatorType.SORT:
            items = ", ".join(_order_sql(item, node) for item in node.sort_order)
            return f"SELECT * FROM {names[0]} ORDER BY {items}"
        case OperatorType.UNION | OperatorType.SET:
            _require_alike(node, inputs)
            return " UNION ALL ".join(f"SELECT * FROM {name}" for name in names)
        case OperatorType.JOIN | OperatorType.HASH_JOIN:
            return _joined(node, inputs, _JOINS[node.how], node.key_by)
        case OperatorType.ASOF_JOIN if node.time_column:
            return _joined(node, inputs, "ASOF JOIN", (*node.key_by, node.time_column))
        case OperatorType.SINK | OperatorType.SOURCE:
            return f"SELECT * FROM {names[0]}"
        case _ if node.function is not None:
            return f"SELECT * FROM {names[0]}"
    options = {OperatorType.FILTER: "where, sql or function", OperatorType.GROUP_BY: "aggregates or sql"}
    wanted = options.get(node.base_type, "sql")
    raise JobError(
        f"operator {node.operator_id!r}: nothing says what {node.operator_type.name} does; give {wanted}",
        code="NOTHING_TO_DO",
        operator=node.operator_id,
    )


def sort_key(node: StreamOperatorNode) -> str:
    """SQL of a BLOB whose byte order is the order of a SORT."""
    parts = []
    for item in node.sort_order:
        column, direction, nulls = _order(item, node)
        parts.append(f"{quote(column)}, '{direction} NULLS {nulls}'")
    # A key of at most eight bytes would come back as a BIGINT unless a text, always the same, stood at its end.
    return f"system.main.create_sort_key({', '.join(parts)}, '', 'ASC NULLS LAST')"


def sort_columns(node: StreamOperatorNode) -> tuple[str, ...]:
    """The columns that a SORT sorts by."""
    return tuple(_order(item, node)[0] for item in node.sort_order)


_JOINS = {
    "inner": "JOIN",
    "left": "LEFT JOIN",
    "right": "RIGHT JOIN",
    "full": "FULL JOIN",
    "semi": "SEMI JOIN",
    "anti": "ANTI JOIN",
}


def _joined(node: StreamOperatorNode, inputs: Sequence[Input], join: str, columns: Sequence[str]) -> str:
    if not columns:
        raise JobError(
            f"operator {node.operator_id!r}: {node.operator_type.name} needs key_by, or sql that joins",
            code="KEYS",
            operator=node.operator_id,
        )
    (left, left_columns), (right, right_columns) = inputs
    twice = sorted({c.name for c in left_columns} & {c.name for c in right_columns} - set(columns))
    if twice and node.how not in ("semi", "anti"):
        raise JobError(
            f"operator {node.operator_id!r}: both inputs have {', '.join(map(repr, twice))}",
            code="COLUMN_TWICE",
            hint="rename it in an operator before, or write the join as sql",
            operator=node.operator_id,
        )
    return f"SELECT * FROM {left} {join} {right} USING ({', '.join(map(quote, columns))})"


def _grouped(node: StreamOperatorNode, name: str, keys: Sequence[str]) -> str:
    items = [*map(quote, keys), *(f"{sql} AS {quote(column)}" for column, sql in node.aggregates.items())]
    group = f" GROUP BY {', '.join(map(quote, keys))}" if keys else ""
    return f"SELECT {', '.join(items)} FROM {name}{group}"


def is_windowed(node: StreamOperatorNode) -> bool:
    """Whether rows are put into windows first: then they are bound as :data:`UNWINDOWED`."""
    return node.base_type is OperatorType.WINDOW and node.operator_type is not OperatorType.WINDOW


def _windowed(node: StreamOperatorNode, columns: Sequence[Column]) -> str:
    """SQL over ``input``, which has the columns ``window_start`` and ``window_end`` beside those that came."""
    name, time = UNWINDOWED, quote(node.time_column)
    bounds = ("window_start", "window_end")
    if any(column.name in bounds for column in columns):
        reason = "its input has a column window_start or window_end already"
        raise JobError(f"operator {node.operator_id!r}: {reason}", code="COLUMN_TWICE", operator=node.operator_id)
    partition = f"PARTITION BY {', '.join(map(quote, node.key_by))} " if node.key_by else ""
    match node.operator_type:
        case OperatorType.TUMBLING_WINDOW:
            start = f"system.main.time_bucket({_interval(node.size)}, {time})"
            rows = f"SELECT *, {start} AS window_start, {start} + {_interval(node.size)} AS window_end FROM {name}"
        case OperatorType.SLIDING_WINDOW:
            size, slide = _interval(node.size), _interval(node.slide)
            count = f"CAST(ceil(epoch({size}) / epoch({slide})) AS BIGINT)"
            first = f"system.main.time_bucket({slide}, {time})"
            starts = f"SELECT *, unnest(range({count})) AS window_number FROM {name}"
            rows = (
                f"SELECT * EXCLUDE (window_number), {first} - window_number * {slide} AS window_start, "
                f"window_start + {size} AS window_end FROM ({starts}) WHERE window_end > {time}"
            )
        case _:
            ordered = f"OVER ({partition}ORDER BY {time})"
            begins = f"SELECT *, coalesce({time} - lag({time}) {ordered} > {_interval(node.gap)}, true) AS begins"
            numbered = f"SELECT *, count(*) FILTER (begins) {ordered} AS window_number FROM ({begins} FROM {name})"
            whole = f"OVER (PARTITION BY {', '.join([*map(quote, node.key_by), 'window_number'])})"
            rows = (
                f"SELECT * EXCLUDE (begins, window_number), min({time}) {whole} AS window_start, "
                f"max({time}) {whole} + {_interval(node.gap)} AS window_end FROM ({numbered})"
            )
    if node.sql:
        return task_sql(_stripped(node.sql), [("input", (), rows)])
    if node.aggregates:
        return task_sql(_grouped(node, "input", (*node.key_by, *bounds)), [("input", (), rows)])
    return rows


def _interval(text: str) -> str:
    return f"CAST('{text.replace(chr(39), chr(39) * 2)}' AS INTERVAL)"


def _order(item: str, node: StreamOperatorNode) -> tuple[str, str, str]:
    found = _ORDER.match(item)
    if found is None:
        raise JobError(
            f"operator {node.operator_id!r}: {item!r} is no column with ASC or DESC and NULLS FIRST or LAST",
            code="SORT_ORDER",
            hint="compute what it is to be sorted by as a column in an operator before",
            operator=node.operator_id,
        )
    column = found["column"]
    column = column[1:-1].replace('""', '"') if column.startswith('"') else column
    return column, (found["direction"] or "ASC").upper(), (found["nulls"] or "LAST").upper()


def _order_sql(item: str, node: StreamOperatorNode) -> str:
    column, direction, nulls = _order(item, node)
    return f"{quote(column)} {direction} NULLS {nulls}"


def _require_alike(node: StreamOperatorNode, inputs: Sequence[Input]) -> None:
    (first_name, first), *others = inputs
    for name, columns in others:
        if len(columns) != len(first) or not all(map(_fit, first, columns)):
            shown = [", ".join(f"{c.name} {c.type}" for c in side) for side in (first, columns)]
            raise JobError(
                f"operator {node.operator_id!r}: {first_name} has the columns ({shown[0]}), {name} has ({shown[1]})",
                code="COLUMNS_DIFFER",
                hint="a UNION takes rows of the same columns in the same order",
                operator=node.operator_id,
            )


def _fit(one: Column, other: Column) -> bool:
    """Whether two columns can be one: a column of no type has NULLs alone, and fits any."""
    return one.name == other.name and (one.type == other.type or '"NULL"' in (one.type, other.type))


def _stripped(sql: str) -> str:
    # A comment at its end would hide what is written after it.
    return sql.strip().rstrip(";").rstrip() + "\n"
