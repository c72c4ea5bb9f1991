"""Make a failing case small: whatever can go while it still fails the same way, goes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, Protocol

import sqlglot
from sqlglot import exp

from tests.fuzz.case import Case, Options, Step
from tests.fuzz.check import Failure
from tests.fuzz.tables import Table

_BY_CHANCE = ("stuck", "hung", "stopped late", "leaked")
"""Such failures do not come every time: a smaller case is tried more than once."""
_SMALLEST = Options(broadcast_limit=0)


class Runs(Protocol):
    """What runs a case, as :class:`tests.fuzz.worker.Worker` does."""

    def run(self, request: dict[str, Any]) -> Any:
        """How it went."""
        ...


def shrunk(case: Case, failure: Failure, worker: Runs, seconds: float) -> tuple[Case, Failure]:
    """The smallest case found in ``seconds`` that fails like ``case``, and how it fails."""
    deadline = time.monotonic() + seconds
    disturbed = any(step.disturbance for step in case.steps)
    tries = 3 if failure.kind in _BY_CHANCE or disturbed else 1

    def fails(smaller: Case) -> Failure | None:
        for _ in range(tries):
            found: Failure | None = worker.run({"case": smaller.to_dict()}).failure
            if found is not None and _alike(found, failure):
                return found
        return None

    best = (case, failure)
    changed = True
    while changed and time.monotonic() < deadline:
        changed = False
        for smaller_ones in (_fewer_steps, _plainer_options, _shorter_statements, _smaller_tables):
            again = True
            while again and time.monotonic() < deadline:
                again = False
                for smaller in smaller_ones(*best):
                    if time.monotonic() > deadline:
                        break
                    found = fails(smaller)
                    if found is not None:
                        best = (smaller, found)
                        changed = again = True
                        break
    return best


def _alike(one: Failure, two: Failure) -> bool:
    def cause(failure: Failure) -> str:
        line = re.sub(r"[\d.]+", "N", (failure.detail.splitlines() or [""])[0])
        return re.sub(r"'[^']*'|\"[^\"]*\"|\ba\d+\b", "…", line)

    if one.kind != two.kind:
        return False
    if one.kind == "wrong":
        return one.detail.startswith("types:") == two.detail.startswith("types:")
    return one.kind in ("answered", "crashed", "stuck", "leaked", "hung", "stopped late") or cause(one) == cause(two)


def _fewer_steps(case: Case, failure: Failure) -> Iterator[Case]:
    at = failure.step
    if 0 <= at < len(case.steps) and len(case.steps) > 1:
        yield replace(case, steps=(case.steps[at],))
        yield replace(case, steps=case.steps[: at + 1])
    for number in range(len(case.steps)):
        if len(case.steps) > 1:
            yield replace(case, steps=case.steps[:number] + case.steps[number + 1 :])
    for number, step in enumerate(case.steps):
        if step.disturbance:
            yield _with_step(case, number, replace(step, disturbance=None))
    for number in range(len(case.prepare)):
        yield replace(case, prepare=case.prepare[:number] + case.prepare[number + 1 :])


def _plainer_options(case: Case, failure: Failure) -> Iterator[Case]:
    for option in fields(Options):
        plain = getattr(_SMALLEST, option.name)
        if getattr(case.options, option.name) != plain:
            yield replace(case, options=replace(case.options, **{option.name: plain}))
    for name in case.options.planner:
        kept = {key: value for key, value in case.options.planner.items() if key != name}
        yield replace(case, options=replace(case.options, planner=kept))


def _smaller_tables(case: Case, failure: Failure) -> Iterator[Case]:
    text = " ".join([*case.prepare, *(step.sql for step in case.steps)])
    for number, table in enumerate(case.tables):
        if not re.search(rf"\b{table.name}\b", text):
            yield replace(case, tables=case.tables[:number] + case.tables[number + 1 :])
    for number, table in enumerate(case.tables):
        for smaller in _smaller(table):
            yield replace(case, tables=(*case.tables[:number], smaller, *case.tables[number + 1 :]))


def _smaller(table: Table) -> Iterator[Table]:
    if table.storage != "table":
        yield replace(table, storage="table")
    many = isinstance(table.rows, int)
    rows: tuple[int, ...] = tuple(range(table.rows)) if isinstance(table.rows, int) else table.rows
    parts = 2
    while rows and parts <= min(len(rows), 16) * 2:
        size = max(1, len(rows) // parts)
        for first in range(0, len(rows), size):
            kept = rows[:first] + rows[first + size :]
            yield replace(table, rows=first if many and first + size >= len(rows) else kept)
        if size == 1:
            break
        parts *= 2
    if len(rows) == 1:
        yield replace(table, rows=())
    for number in range(len(table.columns)):
        if len(table.columns) > 1:
            yield replace(table, columns=table.columns[:number] + table.columns[number + 1 :])


def _shorter_statements(case: Case, failure: Failure) -> Iterator[Case]:
    for number, step in enumerate(case.steps):
        for read in step.reads:
            yield _with_step(case, number, replace(step, reads=tuple(r for r in step.reads if r != read)))
        for sql in shorter(step.sql):
            yield _with_step(case, number, replace(step, sql=sql))


def _with_step(case: Case, number: int, step: Step) -> Case:
    return replace(case, steps=(*case.steps[:number], step, *case.steps[number + 1 :]))


def shorter(sql: str) -> list[str]:
    """Statements that are ``sql`` without some part of it, the shortest first; they need not be valid."""
    try:
        tree = sqlglot.parse_one(sql.replace("'@/", "'__at__/"), dialect="duckdb")
    except sqlglot.errors.SqlglotError:
        return []
    found = set()
    for position, node in enumerate(tree.walk()):
        for change in _changes(node):
            copy = tree.copy()
            target = next(each for number, each in enumerate(copy.walk()) if number == position)
            text = _changed(copy, target, change)
            if text and len(text) < len(sql):
                found.add(text.replace("'__at__/", "'@/"))
    return sorted(found, key=len)


def _changed(tree: Any, target: Any, change: Callable[[Any], Any]) -> str | None:
    made = change(target)
    if made is not None:
        if target is tree:
            tree = made
        else:
            target.replace(made)
    try:
        return str(tree.sql(dialect="duckdb"))
    except (sqlglot.errors.SqlglotError, AttributeError, KeyError, TypeError, ValueError):
        return None


_OPTIONAL = (
    "where",
    "having",
    "qualify",
    "order",
    "limit",
    "offset",
    "distinct",
    "with_",
    "with",
    "group",
    "spec",
    "on",
)
_LISTS = ("expressions", "joins", "partition_by", "ifs", "grouping_sets", "laterals", "rollup", "cube")


def _changes(node: Any) -> Iterator[Callable[[Any], Any]]:
    """Ways to make a node smaller: each changes the node it is given, or returns what stands in its place."""
    for name in _OPTIONAL:
        if node.args.get(name) and not isinstance(node, exp.Join):
            yield lambda target, name=name: target.set(name, None)
    for name in _LISTS:
        items = node.args.get(name)
        if isinstance(items, list) and (len(items) > 1 or (items and name in ("joins", "partition_by", "laterals"))):
            for number in range(len(items)):
                yield lambda target, name=name, number=number: target.args[name].pop(number) and None
    if isinstance(node, exp.Subquery):
        inner = node.this
        for source in inner.find_all(exp.Subquery, exp.Table) if isinstance(inner, exp.Query) else ():
            if source is not node:
                yield lambda target, made=source: _named_like(target, made)
    if isinstance(node, exp.SetOperation):
        yield lambda target: target.this.copy()
        yield lambda target: target.expression.copy()
    if isinstance(node, exp.Select) and node.parent is None:
        for source in node.find_all(exp.Select, exp.SetOperation):
            if source is not node:
                yield lambda target, made=source: made.copy()
    if isinstance(node, exp.Connector | exp.Binary) and not isinstance(node, exp.SetOperation):
        yield lambda target: target.this.copy()
        yield lambda target: target.expression.copy()
    if isinstance(node, exp.Func | exp.Cast | exp.Unary | exp.Filter | exp.Window | exp.Case | exp.Paren):
        for child in node.iter_expressions():
            if isinstance(child, exp.Expression) and not isinstance(child, exp.DataType | exp.Order | exp.WindowSpec):
                yield lambda target, made=child: made.copy()
    if isinstance(node, exp.Select) and isinstance(node.args.get("from_") or node.args.get("from"), exp.From):
        for join in node.args.get("joins") or ():
            yield (
                lambda target, made=join.this: (
                    target.set("joins", None)
                    or ((target.args.get("from_") or target.args["from"]).set("this", made.copy()))
                )
            )


def _named_like(target: Any, made: Any) -> Any:
    copy = made.copy()
    copy.set("alias", target.args["alias"].copy() if target.args.get("alias") else None)
    return copy
