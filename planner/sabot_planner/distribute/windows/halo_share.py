"""How much of all rows a halo by distance holds, where the least and greatest sort key are known."""

from __future__ import annotations

from sqlglot import exp

from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.windows.draft import ValueReach
from sabot_planner.logical.node import Node
from sabot_planner.logical.window_frames import constant_integer
from sabot_planner.sql.dialect import function_call
from sabot_planner.sql.scalars import column_name
from sabot_planner.stats.clustering import number_of, scan_columns

_DAY = 86_400 * 10**6
_MICROSECONDS = {"to_months": 30 * _DAY, "to_days": _DAY, "to_microseconds": 1}


def halo_share(context: PlacementContext, node: Node, reach: ValueReach) -> float:
    """The share of the rows of ``node`` that a range reads of others, its values taken to be spread evenly.

    0 where nothing is known: a computed key, a source without statistics.
    """
    columns = scan_columns(node)
    origin = columns.origin(column_name(reach.key))
    if origin is None:
        return 0.0
    scan = columns.scan_of[origin]
    zones = context.catalog.zones(scan.source.source_id, scan.source.columns[scan.names.index(origin)].name)
    if not zones:
        return 0.0
    spread = max(number_of(z.high) for z in zones) - min(number_of(z.low) for z in zones)
    unit = _DAY if scan.schema[origin].kind == "DATE" else 1
    distances = [_length(d) for d in (reach.before, reach.after) if d is not None]
    return sum(distances) / max(1, spread * unit)


def _length(distance: exp.Expression) -> float:
    """A number as it stands, an interval in microseconds; 0 of anything else."""
    while type(distance) in (exp.Cast, exp.Paren):
        distance = distance.args["this"]
    number = constant_integer(distance)
    if number is not None:
        return abs(number)
    found = function_call(distance)
    if found is None:
        return 0.0
    name, arguments = found
    if name in ("add", "+"):
        return sum(map(_length, arguments))
    return _MICROSECONDS.get(name, 0) * (_length(arguments[0]) if arguments else 0.0)
