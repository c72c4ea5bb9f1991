"""The plan in Graphviz's language."""

from __future__ import annotations

import re

from sabot_sql.plan_view.model import RESULT, PlanModel
from sabot_sql.plan_view.svg import EDGE_STYLES, edge_width
from sabot_sql.plan_view.units import duration_text
from sabot_sql.plan_view.words import clip, edge_facts, edge_head, tasks_text

_DASHES = {"RANGE": "dashed", "REBALANCE": "dotted"}
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def dot(plan: PlanModel) -> str:
    """A ``digraph`` with the same colours, dashes and words as the picture."""
    lines = [
        "digraph plan {",
        "  rankdir=LR;",
        '  node [shape=box, style=rounded, fontname="sans-serif", fontsize=11];',
        '  edge [fontname="sans-serif", fontsize=10];',
    ]
    for stage in plan.stages:
        facts = tasks_text(stage)
        if stage.elapsed_ms is not None:
            facts += f" · {duration_text(stage.elapsed_ms)}"
        lines.append(f"  {_quote(stage.stage_id)} [label={_quote(clip(stage.title, 80), facts)}];")
    lines.append(f'  {_quote(RESULT)} [label="result", style="rounded,dashed"];')
    edges = [(edge, edge.source, edge.target) for edge in plan.edges]
    for edge, source, target in edges:
        color = EDGE_STYLES.get(edge.shown_type, EDGE_STYLES["FORWARD"]).color
        line = f"{color}:invis:{color}" if edge.shown_type == "BROADCAST" else color
        label = _quote(clip(edge_head(edge), 80), edge_facts(edge))
        style = _DASHES.get(edge.shown_type, "solid")
        attributes = f'label={label}, color="{line}", style={style}, penwidth={edge_width(edge):.1f}'
        lines.append(f"  {_quote(source)} -> {_quote(target)} [{attributes}];")
    if not plan.inputs_of(RESULT):
        lines += [f"  {_quote(stage.stage_id)} -> {_quote(RESULT)};" for stage in plan.sinks]
    return "\n".join([*lines, "}"]) + "\n"


def _quote(*lines: str) -> str:
    """A quoted string of several lines; backslashes are doubled, so that none is read as an escape."""
    clean = (_CONTROL.sub("\ufffd", line).replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return '"' + "\\n".join(clean) + '"'
