"""Short phrases that all forms of a plan share."""

from __future__ import annotations

from sabot_sql.plan_view.model import EdgeView, PlanModel, StageView
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text, plural, short_count_text
from sabot_sql.printable import printable

_ISOLATION = {"thread": "threads", "process": "processes"}


_DONE = ("finished", "skipped")


def clip(text: str, limit: int) -> str:
    """``text`` on one line and no longer than ``limit`` characters."""
    line = printable(" ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def tasks_text(stage: StageView) -> str:
    """``4 tasks``, or ``2/4 tasks`` while some of them have not finished."""
    planned = max(stage.parallelism, 1)
    done = sum(task.state in _DONE for task in stage.tasks)
    if stage.tasks and stage.state == "running":
        return f"{done}/{plural(planned, 'task')}"
    return plural(planned, "task")


def rows_text(rows: int | None, estimated: int | None, *, short: bool = False) -> str:
    """``~1,500 → 1,234 rows``: estimated, then measured; what is unknown is left out."""
    count = short_count_text if short else count_text
    guess = f"~{count(estimated)}" if estimated is not None else ""
    if rows is None:
        return f"{guess} rows" if guess else ""
    noun = "row" if rows == 1 else "rows"
    return f"{guess} → {count(rows)} {noun}" if guess else f"{count(rows)} {noun}"


def agents_text(plan: PlanModel) -> str:
    """``4 agents (threads)``."""
    isolation = _ISOLATION.get(plan.isolation, plan.isolation)
    return plural(plan.agents, "agent") + (f" ({isolation})" if isolation else "")


def status_text(plan: PlanModel) -> str:
    """One line about the whole: ``4 agents (threads) · 3 stages · 2 shuffles · 1.2 s · 84 MB moved``."""
    parts = [agents_text(plan)]
    if plan.stages and plan.state == "running":
        done = sum(stage.state == "finished" for stage in plan.stages)
        tasks = sum(max(stage.parallelism, 1) for stage in plan.stages)
        tasks_done = sum(task.state in _DONE for stage in plan.stages for task in stage.tasks)
        parts += [f"stage {min(done + 1, len(plan.stages))}/{len(plan.stages)}", f"tasks {tasks_done}/{tasks}"]
    elif plan.stages and plan.mode != "single":
        parts += [plural(len(plan.stages), "stage"), plural(plan.shuffles, "shuffle")]
    if plan.elapsed_ms is not None:
        parts.append(duration_text(plan.elapsed_ms))
    if plan.moved_bytes:
        parts.append(f"{bytes_text(plan.moved_bytes)} moved")
    spilled = sum(stage.spilled_bytes for stage in plan.stages)
    if spilled:
        parts.append(f"{bytes_text(spilled)} spilled")
    if plan.state and plan.state != "finished":
        parts.append(plan.state)
    return " · ".join(parts)


def edge_head(edge: EdgeView) -> str:
    """``HASH (o_orderkey)``."""
    return f"{edge.type} ({', '.join(edge.keys)})" if edge.keys else edge.type


def edge_facts(edge: EdgeView) -> str:
    """``~1,500 → 1,234 rows · 84 MB · 16 partitions``."""
    parts = [rows_text(edge.rows, edge.rows_estimated)]
    if edge.bytes is not None:
        parts.append(bytes_text(edge.bytes))
    if edge.partitions is not None and edge.partitions > 1:
        parts.append(plural(edge.partitions, "partition"))
    return " · ".join(part for part in parts if part)


def edge_name(edge: EdgeView) -> str:
    """``s1 → s4 HASH (o_orderkey)``, clipped."""
    return clip(f"{edge.source} → {edge.target} {edge_head(edge)}", 120)


def decision_text(edge: EdgeView) -> str:
    """Why the edge has its type, and whether that was decided before or during the run; empty where no reason is."""
    when = {"plan": "planned", "run": "decided while running"}.get(edge.decided, "")
    return ": ".join(part for part in (when, edge.reason) if part) if edge.reason else ""


def findings(plan: PlanModel) -> list[str]:
    """At most three things worth a look, the most telling first: skew, spill, a bad estimate, the slowest stage."""
    found: list[tuple[float, str]] = []
    for edge in plan.edges:
        if edge.skew:
            found.append((3e12 + edge.skew.bytes, f"{edge_name(edge)} {edge.skew.text()}"))
        error = edge.misestimate
        # Ten times off matters where many rows came; that fewer came than thought hurts nobody.
        if error is not None and error >= 10 and (edge.rows or 0) >= 10_000:
            facts = rows_text(edge.rows, edge.rows_estimated)
            found.append((1e12 + error, f"{edge_name(edge)} estimate {error:,.0f}× off: {facts}"))
    found += [
        (2e12 + stage.spilled_bytes, f"{stage.stage_id} spilled {bytes_text(stage.spilled_bytes)}")
        for stage in plan.stages
        if stage.spilled_bytes
    ]
    timed = [(stage.elapsed_ms, stage) for stage in plan.stages if stage.elapsed_ms is not None]
    if len(timed) > 1 and plan.elapsed_ms and plan.state == "finished":
        slowest, stage = max(timed, key=lambda item: item[0])
        if slowest >= 100 and slowest > 0.5 * plan.elapsed_ms:
            share = min(1.0, slowest / plan.elapsed_ms)
            text = f"{stage.stage_id} takes {share:.0%} of the time: {clip(stage.title, 60)}"
            found.append((slowest, text))
    return [text for _, text in sorted(found, reverse=True)[:3]]
