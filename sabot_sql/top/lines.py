"""What sessions and services say of themselves, as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sabot_sql.plan_view.fold import folded
from sabot_sql.plan_view.model import EdgeView, PlanModel, StageView, read_plan
from sabot_sql.plan_view.units import bytes_text, count_text, duration_text, plural
from sabot_sql.plan_view.words import clip, edge_facts, edge_head, natural, status_text, tasks_text
from sabot_sql.printable import printable
from sabot_sql.table_view import text_width
from sabot_sql.top.readers import Status

_MARKS = {"finished": "✓", "running": "▶", "failed": "✗"}
_SQL_CHARACTERS = 300
_AGENTS_SHOWN = 6


def lines(sessions: Sequence[Status], services: Sequence[Status], width: int) -> list[str]:
    """All of it, each line no wider than ``width``; a session that runs something before those that rest."""
    found: list[str] = []
    for status in sorted(sessions, key=lambda status: not status.get("queries")):
        found += ["", *_session(status)]
    for status in services:
        found += ["", *_service(status)]
    return [fit(printable(line), width) for line in found[1:]]


def heading(sessions: Sequence[Status], services: Sequence[Status]) -> str:
    """How many there are of everything."""
    running = sum(len(status.get("queries", ())) for status in sessions)
    parts = [plural(len(sessions), "session"), f"{running} running"]
    return " · ".join([*parts, *([plural(len(services), "agent service")] if services else [])])


def fit(line: str, width: int) -> str:
    """The line, cut where it is wider than ``width`` places of a terminal."""
    if text_width(line) <= width:
        return line
    while line and text_width(line) > width - 1:
        line = line[: -max(1, (text_width(line) - width) // 2)]
    return f"{line}…" if width else ""


# ------------------------------------------------------------------------------------------------------------ sessions


def _session(status: Status) -> Iterator[str]:
    program = clip(str(status.get("program", "")), 60)
    head = f"process {status.get('process', '?')} {program}".rstrip()
    if "error" in status:
        yield f"{head} · {clip(str(status['error']), 200)}"
        return
    facts = [f"database {clip(str(status.get('database', '')), 60)}"]
    facts.append(f"process {bytes_text(int(status.get('resident_bytes', 0)))}")
    facts.append(f"limit {bytes_text(int(status.get('memory_bytes', 0)))}")
    yield " · ".join([head, *facts])
    for document in status.get("queries", ()):
        try:
            yield from (f"  {line}" for line in _query(read_plan(document)))
        except (ValueError, TypeError, KeyError) as error:
            yield f"  a plan that cannot be read: {clip(str(error), 120)}"
    for agent in sorted(status.get("agents", ()), key=lambda agent: natural(str(agent.get("agent", "")))):
        yield f"  {_agent(agent)}"


def _query(plan: PlanModel) -> Iterator[str]:
    yield f"{plan.query_id} {clip(plan.sql or plan.reason, _SQL_CHARACTERS)}"
    yield f"  {status_text(plan)}"
    if plan.mode == "single":
        if plan.reason:
            yield f"  {clip(plan.reason, 200)}"
        return
    shown = folded(plan)
    for stage in shown.stages:
        yield f"  {_stage(stage)}"
        for edge in shown.outputs_of(stage.stage_id):
            if not edge.within_task:
                yield f"      {_edge(edge)}"
                if edge.skew is not None:
                    yield f"      ▲ {clip(edge.skew.text(), 160)}"


def _stage(stage: StageView) -> str:
    title = stage.name if stage.title == stage.stage_id else f"{stage.name} {stage.title}"
    parts = [f"{_MARKS.get(stage.state, '·')} {clip(title, 90)}", tasks_text(stage)]
    if stage.rows is not None:
        parts.append(f"{count_text(stage.rows)} rows")
    if stage.spilled_bytes:
        parts.append(f"{bytes_text(stage.spilled_bytes)} spilled")
    if stage.elapsed_ms is not None:
        parts.append(duration_text(stage.elapsed_ms))
    agents = sorted({task.agent for task in stage.tasks if task.state == "running" and task.agent}, key=natural)
    if agents:
        more = f" and {len(agents) - _AGENTS_SHOWN} more" if len(agents) > _AGENTS_SHOWN else ""
        parts.append(f"on {', '.join(agents[:_AGENTS_SHOWN])}{more}")
    return " · ".join(part for part in parts if part)


def _edge(edge: EdgeView) -> str:
    parts = [f"→ {edge.target}: {clip(edge_head(edge), 60)}", edge_facts(edge)]
    return " · ".join(part for part in parts if part)


def _agent(agent: Mapping[str, Any]) -> str:
    parts = [f"{agent.get('agent', '?')}: rows that move {_of(agent, 'pool_bytes', 'budget_bytes')}"]
    parts += _figures(agent)
    if agent.get("resident_bytes"):
        parts.append(f"process {bytes_text(agent['resident_bytes'])}")
    return " · ".join(parts)


# ------------------------------------------------------------------------------------------------------------ services


def _service(status: Status) -> Iterator[str]:
    head = f"agent service {clip(str(status.get('address', '?')), 80)}"
    if "error" in status:
        yield f"{head} · {clip(str(status['error']), 200)}"
        return
    sessions = status.get("sessions", ())
    used = f"{len(sessions)} of {plural(int(status.get('sessions_most', 0)), 'session')}"
    memory = f"memory {bytes_text(int(status.get('memory_bytes', 0)))}"
    threads = plural(int(status.get("threads", 0)), "thread")
    yield " · ".join([head, clip(str(status.get("state", "")), 20), used, memory, threads])
    for session in sessions:
        queries = plural(int(session.get("queries", 0)), "query").replace("querys", "queries")
        yield f"  {_agent(session)} · {queries}"


def _figures(agent: Mapping[str, Any]) -> Iterable[str]:
    if agent.get("outputs"):
        yield plural(int(agent["outputs"]), "output")
    if agent.get("disk_bytes"):
        yield f"{bytes_text(int(agent['disk_bytes']))} on disk"
    if agent.get("spilled_bytes"):
        yield f"{bytes_text(int(agent['spilled_bytes']))} spilled so far"
    if agent.get("wait_ms"):
        yield f"waited {duration_text(float(agent['wait_ms']))} for that"


def _of(status: Mapping[str, Any], used: str, most: str) -> str:
    whole = f" of {bytes_text(int(status[most]))}" if status.get(most) else ""
    return f"{bytes_text(int(status.get(used, 0)))}{whole}"
