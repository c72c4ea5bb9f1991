"""The operators of DuckDB's own plan, as a tree of lines and as the stages of a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sabot_sql.plan_view.model import RESULT, EdgeView, OperatorView, PlanModel, StageView
from sabot_sql.plan_view.units import count_text


def operator_lines(operators: Sequence[OperatorView]) -> list[str]:
    """One line each, an operator above those that it reads: ``├─ hash join · a = b   ~1,500 rows``."""
    inputs = _inputs(operators)
    lines: list[tuple[str, str]] = []
    # How the line itself is led in, and how all below it are.
    todo = [(place, "", "") for place in reversed(inputs[None])]
    while todo:
        place, branch, below = todo.pop()
        operator = operators[place]
        words = " · ".join(filter(None, (operator.name, operator.detail)))
        rows = "" if operator.rows_estimated is None else f"~{count_text(operator.rows_estimated)} rows"
        lines.append((f"{branch}{words}", rows))
        read = [(child, f"{below}├─ ", f"{below}│  ") for child in inputs[place]]
        if read:
            read[-1] = (inputs[place][-1], f"{below}└─ ", f"{below}   ")
        todo += reversed(read)
    width = max((len(words) for words, _ in lines), default=0)
    return [f"{words.ljust(width)}  {rows}".rstrip() for words, rows in lines]


def _inputs(operators: Sequence[OperatorView]) -> Mapping[int | None, list[int]]:
    """Place of an operator → places of those that it reads; those that none reads under None."""
    inputs: defaultdict[int | None, list[int]] = defaultdict(list)
    for place, operator in enumerate(operators):
        inputs[operator.read_by].append(place)
    return inputs


def drawn_as_stages(plan: PlanModel) -> PlanModel:
    """A plan of one statement with its operators in place of its one stage; as it is where they are not known."""
    stages: list[StageView] = []
    edges: list[EdgeView] = []
    for stage in plan.stages:
        first = len(stages)
        for operator in stage.operators:
            name = f"o{len(stages)}"
            target = RESULT if operator.read_by is None else f"o{first + operator.read_by}"
            label = " · ".join(filter(None, (operator.detail, operator.name)))
            stages.append(StageView(name, label, operator.name, "", 1, "waiting", None))
            rows = operator.rows_estimated
            edges.append(EdgeView(name, "FORWARD", (), name, target, None, None, None, rows, "plan", ""))
    return replace(plan, stages=tuple(stages), edges=tuple(edges)) if stages else plan
