"""Types of plan columns: read off casts and sources where they stand, asked of DuckDB where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from sabot_planner.errors import Undistributable, UnknownNode
from sabot_planner.job.plan import PlanContext
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.nodes import (
    Aggregate,
    Computed,
    CteRef,
    Distinct,
    Filter,
    Join,
    LateralCall,
    Limit,
    Node,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.physical.nodes import (
    CutRef,
    Exchange,
    HaloWindow,
    Nothing,
    Numbered,
    Repeated,
    Reread,
    TaskOrdinal,
    TaskScan,
)
from sabot_planner.sql.dialect import to_sql, type_text
from sabot_planner.sql.edge_values import unreadable
from sabot_planner.sql.known_types import known_type
from sabot_planner.sql.scalars import column, columns_of, substitute

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
STATE = "PARTIAL STATE"
"""The type of an aggregate state that the plan makes and reads itself; DuckDB's own name says no signature and is read
nowhere."""

_WIDTHS = {
    "BOOLEAN": 1,
    "TINYINT": 1,
    "UTINYINT": 1,
    "SMALLINT": 2,
    "USMALLINT": 2,
    "INTEGER": 4,
    "UINTEGER": 4,
    "DATE": 4,
    "FLOAT": 4,
    "HUGEINT": 16,
    "UHUGEINT": 16,
    "UUID": 16,
    "INTERVAL": 16,
    "VARCHAR": 24,
    "BLOB": 24,
    STATE: 32,
}


class ColumnTypes:
    """DuckDB types of the columns of a plan's nodes; one question per node at most, remembered."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context
        self._types: dict[str, str] = {}
        self._visited: dict[int, Node] = {}

    def of(self, node: Node) -> dict[str, str]:
        """Types of all columns of ``node`` by name."""
        self._visit(node)
        return {name: self._types[name] for name in node.columns}

    def learn(self, types: Mapping[str, str]) -> None:
        """Take the types of new columns from who made them: DuckDB cannot be asked about aggregate states."""
        self._types.update(types)

    def of_expressions(self, expressions: Sequence[exp.Expression], node: Node) -> tuple[str, ...]:
        """Types of expressions over the columns of ``node``."""
        self._visit(node)
        known = [self._read_off(e) for e in expressions]
        asked = [e for e, t in zip(expressions, known, strict=True) if t is None]
        if asked:
            answers = iter(self._ask(asked))
            known = [t if t is not None else next(answers) for t in known]
        return tuple(t for t in known if t is not None)

    def _ask(self, expressions: Sequence[exp.Expression]) -> tuple[str, ...]:
        names = sorted(columns_of(*expressions) & self._types.keys())
        for name in names:
            lost = unreadable(self._types[name])
            if lost is not None:
                raise Undistributable(f"only DuckDB knows what a column of type {lost} is of")
        columns = ", ".join(f"CAST(NULL AS {self._types[name]}) AS {name}" for name in names)
        return self._context.types([to_sql(e) for e in expressions], f"(SELECT {columns or '1'})")

    def _read_off(self, expression: exp.Expression) -> str | None:
        """The type of an expression as far as it can be told from its parts, whatever their depth."""
        parts = [expression]
        for part in parts:  # which grows meanwhile
            parts += _typed_by(part)
        found: dict[int, str | None] = {}
        for part in reversed(parts):
            found[id(part)] = self._type_of(part, [found[id(inner)] for inner in _typed_by(part)])
        return found[id(expression)]

    def _type_of(self, expression: exp.Expression, inner: Sequence[str | None]) -> str | None:
        """The type of an expression of which those it is told by, :func:`_typed_by`, have the types ``inner``."""
        kind = type(expression)
        if kind is exp.Column:
            return self._types.get(expression.args["this"].args["this"])
        if kind is exp.Cast or kind is exp.TryCast:
            return type_text(expression)
        if kind in _BOOLEAN:
            return "BOOLEAN"
        if kind is exp.Collate:
            return "VARCHAR"
        if kind is exp.Window:
            return inner[0]
        if kind is exp.Anonymous and not expression.args.get("export_state"):
            known = [i for i in inner if i is not None]
            return known_type(expression.args["this"], known) if len(known) == len(inner) else None
        if kind is exp.Case:
            return inner[0] if len(set(inner)) == 1 else None
        return None

    def _visit(self, node: Node) -> None:
        """Learn the types of the columns of ``node`` and of all below it, the lowest first."""
        found: list[Node] = []
        left = [node]
        while left:
            current = left.pop()
            if id(current) not in self._visited:
                found.append(current)
                # What a recursive expression reads is typed with it, in its own order.
                left += () if isinstance(current, RecursiveCte) else current.inputs
        for current in reversed(found):
            self._learn(current)

    def _learn(self, node: Node) -> None:
        if id(node) in self._visited:
            return
        self._context.check()
        self._visited[id(node)] = node
        for child in node.inputs:
            self._learn(child)
            if isinstance(node, RecursiveCte):
                self._type_rounds(node)
                self._name_references(node.step, node)
        match node:
            case Scan():
                self._types.update(zip(node.names, (c.type for c in node.source.columns), strict=True))
            case Values():
                if node.names:
                    self._add(node.names, node.rows[0])
            case Project():
                self._add_computed(node.items)
            case Aggregate():
                self._add_computed(node.keys + node.aggregates)
                self._types.update((g.name, "BIGINT") for g in node.groupings)
            case Window() | HaloWindow():
                self._add_computed(node.items)
            case TaskScan():
                self._visit(node.scan)
            case Reread():
                self._visit(node.exchange)
            case CutRef():
                self._visit(node.reference)
            case Nothing():
                self._types.update(zip(node.names, node.types, strict=True))
            case Numbered():
                self._types[node.name] = "BIGINT"
            case TaskOrdinal():
                self._types[node.name] = "BIGINT"
            case LateralCall():
                self._add_lateral(node)
            case SetOp():
                self._rename(node.names, node.branches[0].columns)
            case CteRef():
                self._rename(node.names, node.shared.columns)
            case Join():
                if node.marker is not None:
                    self._types[node.marker] = "BOOLEAN"
            case (
                Filter()
                | Sort()
                | Limit()
                | LimitBy()
                | Sample()
                | Distinct()
                | Shared()
                | RecursiveCte()
                | RecursiveRef()
                | Exchange()
                | Repeated()
            ):
                pass
            case _:
                raise UnknownNode(node, "the types")

    def _type_rounds(self, node: RecursiveCte) -> None:
        """The step reads columns typed like the anchor's, or like the aggregates that USING KEY makes of them."""
        self._rename(node.names, node.anchor.columns)
        anchors = {n: column(c) for n, c in zip(node.names, node.anchor.columns, strict=True)}
        values = [substitute(k.expression, anchors) for k in node.keys]
        types = self.of_expressions(values, node.anchor) if values else ()
        self._types.update(zip((k.name for k in node.keys), types, strict=True))

    def _name_references(self, step: Node, cte: RecursiveCte) -> None:
        stack = [step]
        while stack:
            node = stack.pop()
            if isinstance(node, RecursiveRef) and node.cte_id == cte.cte_id:
                self._rename(node.names, cte.names)
            stack.extend(node.inputs)

    def _rename(self, names: Sequence[str], sources: Sequence[str]) -> None:
        self._types.update(zip(names, [self._types[s] for s in sources], strict=True))

    def _add_computed(self, items: Sequence[Computed]) -> None:
        self._add([i.name for i in items], [i.expression for i in items])

    def _add(self, names: Sequence[str], expressions: Sequence[exp.Expression]) -> None:
        unknown = []
        for name, expression in zip(names, expressions, strict=True):
            if name in self._types:
                continue
            known = self._read_off(expression)
            if known is None:
                unknown.append((name, expression))
            else:
                self._types[name] = known
        if unknown:
            self._types.update(zip((n for n, _ in unknown), self._ask([e for _, e in unknown]), strict=True))

    def _add_lateral(self, node: LateralCall) -> None:
        names = sorted(columns_of(node.function))
        columns = ", ".join(f"CAST(NULL AS {self._types[name]}) AS {name}" for name in names)
        out = ", ".join(node.names)
        relation = f"(SELECT {columns or '1'}) CROSS JOIN {to_sql(node.function)} AS lateral_({out})"
        self._types.update(zip(node.names, self._context.types(list(node.names), relation), strict=True))


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


def width_bytes(types: Mapping[str, str], names: Sequence[str]) -> int:
    """A guess of the bytes of one row of the columns ``names``: their fixed widths, 24 for text, 48 for nested."""
    total = 0
    for name in names:
        text = types.get(name, "BIGINT")
        known = _WIDTHS.get(text)
        if known is None:
            if text.startswith("DECIMAL"):
                known = 16
            elif text.endswith("]") or text.startswith(("STRUCT", "MAP", "UNION")):
                known = 48
            else:
                known = 8
        total += known
    return max(total, 1)
