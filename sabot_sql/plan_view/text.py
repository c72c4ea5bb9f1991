"""The plan as a tree of boxes for terminals."""

from __future__ import annotations

import textwrap
import unicodedata

from sabot_sql.plan_view.model import PlanModel, StageView
from sabot_sql.plan_view.tree import TreeRow, tree_rows
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text
from sabot_sql.plan_view.words import clip, decision_text, edge_facts, edge_head, findings, status_text, tasks_text

_MIN_INNER = 28
_BAR = 12
# The line of an edge in the tree tells its type a second time, as in the picture.
_LINES = {"HASH": "━━", "BROADCAST": "══", "RANGE": "╌╌", "REBALANCE": "┈┈", "FORWARD": "──"}


def text(plan: PlanModel, *, width: int = 100) -> str:
    """The plan, result first, each stage a box below the edge that its rows leave by; lines of at most ``width``."""
    lines = [f"{plan.mode} · {status_text(plan)}"]
    if plan.reason:
        lines.append(plan.reason)
    lines += [f"▲ {finding}" for finding in findings(plan)]
    lines = [clip(line, width) for line in lines]
    # One statement on one agent is no tree.
    if plan.stages and plan.mode != "single":
        lines += ["", "result"]
        longest = max((stage.elapsed_ms or 0.0 for stage in plan.stages), default=0.0)
        for row in tree_rows(plan):
            lines += _draw(row, longest, width)
    return "\n".join(_printable(line).rstrip() for line in lines)


def _draw(row: TreeRow, longest_ms: float, width: int) -> list[str]:
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
        lines.append(f"{indents}{branch}{_LINES.get(edge.type, '──')} {head}{beside}")
        lines += [f"{below}{line}" for line in textwrap.wrap(facts, max(20, room)) if not beside]
        why = decision_text(edge)
        lines += [f"{below}{line}" for line in textwrap.wrap(clip(why, 300), max(20, room))]
        if edge.skew:
            lines.append(f"{below}▲ {clip(edge.skew.text(), room - 2)}")
    return lines + [f"{below}{line}" for line in _box(row.stage, row.repeated, longest_ms, room)]


def _box(stage: StageView, repeated: bool, longest_ms: float, room: int) -> list[str]:
    title = f"{stage.stage_id} {stage.title}"
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
    if stage.state in ("failed", "running", "cancelled"):
        facts += f" · {stage.state}"
    inner = max(_MIN_INNER, min(room - 4, max(len(title), len(facts))))
    rows = [clip(title, inner).ljust(inner), clip(facts, inner).ljust(inner)]
    rule = "─" * (inner + 2)
    return [f"┌{rule}┐", *(f"│ {line} │" for line in rows), f"└{rule}┘"]


def _printable(line: str) -> str:
    """Escape sequences in a name must not reach the terminal."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else f"\\x{ord(c):02x}" for c in line)
