"""The tasks of a plan over time, in lanes by agent: who waited, who was busy, what ran at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from sabot_sql.plan_view.font_metrics import clip_pixels, text_pixels
from sabot_sql.plan_view.model import PlanModel, TaskView
from sabot_sql.plan_view.units import duration_text
from sabot_sql.plan_view.words import clip, natural

_LABEL_WIDTH = 92.0
_WIDTH = 640.0
_LANE = 17.0
_AGENT_GAP = 7.0
_AXIS = 20.0
_TICKS = 5
_SIZE = 11.0
# None of them is the colour of an edge type, or one that could be taken for it.
_COLORS = ("#7B3FA0", "#8A5A2B", "#8F9A1F", "#34495E", "#B5303C")

CSS = "".join(
    f".sabot-svg .k{index}{{fill:{color};fill-opacity:.42;stroke:{color}}}" for index, color in enumerate(_COLORS)
)


@dataclass(frozen=True, slots=True)
class _Bar:
    stage_id: str
    color: int
    task: TaskView
    start_ms: float
    end_ms: float


def timeline(plan: PlanModel) -> str:
    """The drawing as SVG for a page that has ``CSS``; empty text where fewer than two tasks were timed."""
    agents = _bars_by_agent(plan)
    bars = [bar for items in agents.values() for bar in items]
    if len(bars) < 2:
        return ""
    begin, end = min(bar.start_ms for bar in bars), max(bar.end_ms for bar in bars)
    scale = _WIDTH / max(end - begin, 1e-9)
    parts: list[str] = []
    axis: list[str] = []
    y = 0.0
    for agent, items in agents.items():
        lanes = _lanes(items)
        name = clip_pixels(clip(agent, 40), _LABEL_WIDTH - 6, _SIZE)
        parts.append(f'<text x="0" y="{y + 12:.0f}">{escape(name)}</text>')
        for lane in lanes:
            parts += [_draw(bar, y, begin, scale) for bar in lane]
            y += _LANE
        y += _AGENT_GAP
    for tick in range(_TICKS):
        x = _LABEL_WIDTH + _WIDTH * tick / (_TICKS - 1)
        anchor = "start" if tick == 0 else "end" if tick == _TICKS - 1 else "middle"
        words = duration_text((end - begin) * tick / (_TICKS - 1)) if tick else "0"
        axis.append(f'<path class="bar" style="stroke-width:1" d="M{x:.0f} 0V{y:.0f}"/>')
        axis.append(f'<text x="{x:.0f}" y="{y + 13:.0f}" text-anchor="{anchor}">{words}</text>')
    width, height = _LABEL_WIDTH + _WIDTH + 2, y + _AXIS
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sabot-svg" role="img" aria-label="Tasks by agent over time" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="font-family:system-ui,sans-serif">{"".join([*axis, *parts])}</svg>'
    )


def _bars_by_agent(plan: PlanModel) -> dict[str, list[_Bar]]:
    agents: dict[str, list[_Bar]] = {}
    for index, stage in enumerate(plan.stages):
        for task in stage.tasks:
            if task.started_ms is not None and task.elapsed_ms is not None:
                end_ms = task.started_ms + task.elapsed_ms
                bar = _Bar(stage.stage_id, index % len(_COLORS), task, task.started_ms, end_ms)
                agents.setdefault(task.agent, []).append(bar)
    return {agent: agents[agent] for agent in sorted(agents, key=natural)}


def _lanes(bars: list[_Bar]) -> list[list[_Bar]]:
    """Bars that do not overlap share a lane."""
    lanes: list[list[_Bar]] = []
    for bar in sorted(bars, key=lambda item: item.start_ms):
        free = next((lane for lane in lanes if lane[-1].end_ms <= bar.start_ms), None)
        if free is None:
            lanes.append([bar])
        else:
            free.append(bar)
    return lanes


def _draw(bar: _Bar, y: float, begin_ms: float, scale: float) -> str:
    x = _LABEL_WIDTH + (bar.start_ms - begin_ms) * scale
    width = max(1.0, (bar.end_ms - bar.start_ms) * scale)
    words = f"{bar.task.task_id} {duration_text(bar.end_ms - bar.start_ms)}"
    if bar.task.attempt > 0:
        words += f", attempt {bar.task.attempt}"
    if bar.task.state not in ("finished", ""):
        words += f", {bar.task.state}"
    failed = " failed" if bar.task.state == "failed" else ""
    box = f'x="{x:.1f}" y="{y + 1:.0f}" width="{width:.1f}" height="14" rx="2"'
    parts = ["<g>", f"<title>{escape(clip(words, 120))}</title>", f'<rect class="k{bar.color}{failed}" {box}/>']
    name = clip(bar.stage_id, 12)
    if width > text_pixels(name, _SIZE) + 8:
        parts.append(f'<text x="{x + 4:.0f}" y="{y + 12:.0f}">{escape(name)}</text>')
    return "".join([*parts, "</g>"])
