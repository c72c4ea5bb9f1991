"""The plan as a tree of boxes for terminals."""

from __future__ import annotations

import textwrap

from sabot_sql.plan_view.fold import folded
from sabot_sql.plan_view.model import PlanModel, StageView
from sabot_sql.plan_view.operators import operator_lines
from sabot_sql.plan_view.plain_text import printable
from sabot_sql.plan_view.tree import TreeRow, tree_rows
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text
from sabot_sql.plan_view.words import (
    clip,
    columns_text,
    decision_text,
    edge_facts,
    edge_head,
    findings,
    reason_text,
    status_text,
    tasks_text,
    times_text,
)

_MIN_INNER = 28
_BAR = 12
_TITLE_CHARACTERS = 400
# The line of an edge in the tree tells its type a second time, as in the picture.
_LINES = {"HASH": "━━", "BROADCAST": "══", "RANGE": "╌╌", "REBALANCE": "┈┈", "FORWARD": "──"}


def text(whole: PlanModel, *, width: int = 100) -> str:
    """The plan, result first, each stage a box below the edge that its rows leave by; lines of at most ``width``."""
    plan = folded(whole)
    lines = [f"{plan.mode} · {status_text(whole)}", times_text(plan), reason_text(plan)]
    lines += [f"▲ {finding}" for finding in findings(plan)]
    lines = [clip(line, width) for line in lines if line]
    if plan.mode == "single":
        lines += [line for stage in plan.stages for line in ["", *operator_lines(stage.operators)] if stage.operators]
    elif plan.stages:
        lines += ["", "result"]
        longest = max((stage.elapsed_ms or 0.0 for stage in plan.stages), default=0.0)
        for row in tree_rows(plan):
            lines += _draw(row, plan, longest, width)
    return "\n".join(printable(line).rstrip() for line in lines)


def _draw(row: TreeRow, plan: PlanModel, longest_ms: float, width: int) -> list[str]:
    # Deep plans must stay readable in a terminal of fixed width: past some depth the indent stops growing.
    indents = "".join("   " if last else "│  " for last in row.last[:-1])[-(width // 2) :]
    branch = "└" if row.last[-1] else "├"
    below = indents + ("   " if row.last[-1] else "│  ")
    room = width - len(below)
    lines = []
    if row.edge is None:
        lines.append(f"{indents}{branch}──")
    else:
        edge = row.edge
        facts = edge_facts(edge)
        head = clip(edge_head(edge), max(20, room - 2))
        beside = f" · {facts}" if facts and len(head) + len(facts) + 4 <= room else ""
        lines.append(f"{indents}{branch}{_LINES.get(edge.shown_type, '──')} {head}{beside}")
        lines += [f"{below}{line}" for line in textwrap.wrap(facts, max(20, room)) if not beside]
        why = decision_text(edge)
        lines += [f"{below}{line}" for line in textwrap.wrap(clip(why, 300), max(20, room))]
        if edge.skew:
            lines.append(f"{below}▲ {clip(edge.skew.text(), room - 2)}")
    return lines + [f"{below}{line}" for line in _box(row.stage, plan, row.repeated, longest_ms, room)]


def _box(stage: StageView, plan: PlanModel, repeated: bool, longest_ms: float, room: int) -> list[str]:
    title = f"{stage.name} {stage.title}"
    if repeated:
        return [f"({clip(title, room - 10)}: above)"]
    facts = tasks_text(stage)
    if stage.rows is not None:
        facts += f" · {count_text(stage.rows)} rows"
    if stage.spilled_bytes:
        facts += f" · {bytes_text(stage.spilled_bytes)} spilled"
    if stage.elapsed_ms is not None:
        filled = round(_BAR * stage.elapsed_ms / longest_ms) if longest_ms else 0
        facts += f" · {duration_text(stage.elapsed_ms)} {'█' * filled}{'░' * (_BAR - filled)}"
    state = plan.stage_state(stage)
    if state not in ("finished", "waiting", ""):
        facts += f" · {state}"
    columns = columns_text(stage, _TITLE_CHARACTERS)
    inner = max(_MIN_INNER, min(room - 4, max(len(title), len(facts), len(columns))))
    titles = textwrap.wrap(clip(title, _TITLE_CHARACTERS), inner, subsequent_indent="  ") or [""]
    titles += textwrap.wrap(columns, inner, subsequent_indent="  ")
    rows = [line.ljust(inner) for line in (*titles, clip(facts, inner))]
    rule = "─" * (inner + 2)
    return [f"┌{rule}┐", *(f"│ {line} │" for line in rows), f"└{rule}┘"]
