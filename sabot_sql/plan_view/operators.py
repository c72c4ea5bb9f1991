"""The operators of DuckDB's own plan, as a tree of lines and as the stages of a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sabot_sql.plan_view.model import RESULT, EdgeView, OperatorView, PlanModel, StageView
from sabot_sql.plan_view.units import count_text


def operator_lines(operators: Sequence[OperatorView]) -> list[str]:
    """One line each, an operator above those that it reads: ``├─ hash join · a = b   ~1,500 rows``."""
    lines = [line for operator in operators for line in _lines(operator, "", "")]
    width = max((len(words) for words, _ in lines), default=0)
    return [f"{words.ljust(width)}  {rows}".rstrip() for words, rows in lines]


def _lines(operator: OperatorView, branch: str, below: str) -> Iterator[tuple[str, str]]:
    words = " · ".join(filter(None, (operator.name, operator.detail)))
    rows = "" if operator.rows_estimated is None else f"~{count_text(operator.rows_estimated)} rows"
    yield f"{branch}{words}", rows
    for place, child in enumerate(operator.inputs):
        last = place == len(operator.inputs) - 1
        yield from _lines(child, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}")


def drawn_as_stages(plan: PlanModel) -> PlanModel:
    """A plan of one statement with its operators in place of its one stage; as it is where they are not known."""
    stages: list[StageView] = []
    edges: list[EdgeView] = []
    todo = [(operator, RESULT) for stage in plan.stages for operator in stage.operators]
    if not todo:
        return plan
    while todo:
        operator, target = todo.pop()
        name = f"o{len(stages)}"
        label = " · ".join(filter(None, (operator.detail, operator.name)))
        stages.append(StageView(name, label, operator.name, "", 1, "waiting", None))
        rows = operator.rows_estimated
        edges.append(EdgeView(name, "FORWARD", (), name, target, None, None, None, rows, "plan", ""))
        todo += [(child, name) for child in reversed(operator.inputs)]
    return replace(plan, stages=tuple(stages), edges=tuple(edges))
