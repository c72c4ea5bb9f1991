"""Short phrases that all forms of a plan share."""

from __future__ import annotations

import re

from sabot_sql.plan_view.model import EdgeView, PlanModel, StageView
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text, plural, short_count_text
from sabot_sql.printable import printable

_ISOLATION = {"thread": "threads", "process": "processes", "remote": "services"}


_FINDING_CHARACTERS = 110
_DONE = ("finished", "skipped")
_STATES = {"starting": "starting agents", "timed_out": "timed out"}


def clip(text: str, limit: int) -> str:
    """``text`` on one line and no longer than ``limit`` characters."""
    line = printable(" ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorts ``agent-10`` after ``agent-2``."""
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part)


def columns_text(stage: StageView, limit: int) -> str:
    """``gives k BIGINT, n BIGINT``; empty where they are not known."""
    named = ", ".join(f"{name} {type_name}" for name, type_name in stage.columns[:limit])
    return clip(f"gives {named}", limit) if named else ""


def tasks_text(stage: StageView) -> str:
    """``4 tasks``, or ``2/4 tasks`` while some of them have not finished."""
    if stage.runs_in:
        return f"in {stage.runs_in}"
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
    """``4 agents (threads)``; one agent is the session's own DuckDB, wherever others would be.

    It is empty while the query is planned, since nobody knows yet how many take part.
    """
    if plan.state == "planning":
        return ""
    if plan.mode == "single":
        return "one agent"
    isolation = _ISOLATION.get(plan.isolation, plan.isolation)
    return plural(plan.agents, "agent") + (f" ({isolation})" if isolation else "")


def status_text(plan: PlanModel) -> str:
    """One line about the whole: ``4 agents (threads) · 3 stages · 2 shuffles · 84 MB moved · 1.2 s``."""
    parts = [agents_text(plan)]
    own = [stage for stage in plan.stages if not stage.runs_in]
    if own and plan.state == "running" and plan.mode != "single":
        done = sum(stage.state == "finished" for stage in own)
        tasks = sum(max(stage.parallelism, 1) for stage in own)
        tasks_done = sum(task.state in _DONE for stage in own for task in stage.tasks)
        parts += [f"stage {min(done + 1, len(own))}/{len(own)}", f"tasks {tasks_done}/{tasks}"]
    elif plan.stages and plan.mode != "single":
        parts += [plural(len(plan.stages), "stage"), plural(plan.shuffles, "shuffle")]
    if plan.moved_bytes:
        parts.append(f"{bytes_text(plan.moved_bytes)} moved")
    spilled = sum(stage.spilled_bytes for stage in plan.stages)
    if spilled:
        parts.append(f"{bytes_text(spilled)} spilled")
    if plan.elapsed_ms is not None:
        parts.append(duration_text(plan.elapsed_ms))
    if plan.state and plan.state != "finished":
        parts.append(_STATES.get(plan.state, plan.state))
    said = [stage.progress_percent for stage in plan.stages if stage.progress_percent is not None]
    if said:
        parts.append(f"DuckDB says {said[0]:.0f} %")
    return " · ".join(filter(None, parts))


def times_text(plan: PlanModel) -> str:
    """``planning 48 ms + start-up 310 ms + running 1.9 s = 2.3 s``; empty where there is nothing to add up."""
    if len(plan.times) < 2 or plan.elapsed_ms is None:
        return ""
    parts = " + ".join(f"{phase} {duration_text(spent)}" for phase, spent in plan.times)
    return f"{parts} = {duration_text(plan.elapsed_ms)}"


def reason_text(plan: PlanModel) -> str:
    """Why it has its mode, where that is not the usual one."""
    return "" if plan.mode == "distributed" and plan.reason.startswith("distributed over") else plan.reason


def edge_head(edge: EdgeView) -> str:
    """``HASH (o_orderkey)``."""
    if edge.within_task:
        return f"{edge.shown_type} in one task"
    return f"{edge.shown_type} ({', '.join(edge.keys)})" if edge.keys else edge.shown_type


def edge_facts(edge: EdgeView) -> str:
    """``~1,500 → 1,234 rows · 84 MB · 16 partitions``; ``1,234 rows so far`` while some are still to come."""
    if edge.within_task:
        return ""
    parts = [rows_text(edge.rows, edge.rows_estimated) + (" so far" if edge.partial else "")]
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


def last_steps(stage: StageView) -> str:
    """What the stage is for: its steps, the first ones left out where they are many."""
    steps = list(stage.steps)
    left_out = False
    while len(steps) > 1 and len(" · ".join(steps)) > _FINDING_CHARACTERS:
        del steps[0]
        left_out = True
    return clip(("… · " if left_out else "") + " · ".join(steps), _FINDING_CHARACTERS)


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
            text = f"{stage.stage_id} takes {share:.0%} of the time: {last_steps(stage)}"
            found.append((slowest, text))
    return [text for _, text in sorted(found, reverse=True)[:3]]
