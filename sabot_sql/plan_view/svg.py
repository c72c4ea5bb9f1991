"""The plan as a picture: stages left to right, edges typed by colour, dash and text, as wide as the log of bytes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from html import escape

from sabot_sql.plan_view.fold import folded
from sabot_sql.plan_view.font_metrics import clip_pixels, text_pixels, wrap_pixels
from sabot_sql.plan_view.layout import Label, Layout, Point, Route, Spacing, lay_out
from sabot_sql.plan_view.model import RESULT, EdgeView, PlanModel, Skew, StageView
from sabot_sql.plan_view.operators import drawn_as_stages
from sabot_sql.plan_view.units import bytes_text, duration_text, plural
from sabot_sql.plan_view.words import clip, columns_text, edge_name, rows_text, tasks_text

_NODE_WIDTH = 196.0
_INSET = 10.0
_INNER = _NODE_WIDTH - 2 * _INSET
_RESULT_WIDTH = 92.0
_RESULT_HEIGHT = 46.0
_SPACING = Spacing(_NODE_WIDTH, curve_width=44.0, level_width=18.0, node_gap=26.0, port_in=24.0)
_PAD = 8.0
_ARROW = 9.0
_SIZE = 11.0
_BOLD_SIZE = 11.5
_LINE = 14.0
_HEAD = 19.0
_BAR = 12.0
_COPY_SHIFT = 4.0
_MOST_STEP_LINES = 9
_LINES_OF_A_STEP = 2
_KEYS_WIDTH = 170.0
_KEY_LINES = 2
_BADGE_WIDTH = 190.0
_BADGE_LINE = 13.0
_TOOLTIP_CHARACTERS = 300
_NAME_CHARACTERS = 14
# What XML 1.0 cannot hold even escaped.
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class EdgeStyle:
    """How an edge type is drawn; ``name`` is its CSS class."""

    name: str
    color: str
    dash: str = ""
    double: bool = False


EDGE_STYLES = {
    "HASH": EdgeStyle("hash", "#0072B2"),
    "BROADCAST": EdgeStyle("broadcast", "#E69F00", double=True),
    "RANGE": EdgeStyle("range", "#009E73", dash="9 5"),
    "REBALANCE": EdgeStyle("rebalance", "#CC79A7", dash="2 4"),
    "FORWARD": EdgeStyle("forward", "#8a8a8a"),
}
"""Colours that people with any colour vision tell apart (Okabe and Ito), and dashes for a grey print."""

_UNKNOWN = EDGE_STYLES["FORWARD"]


def _css() -> str:
    rules = {
        "text": "fill:currentColor;font-size:11px;fill-opacity:.82",
        "text.b": "font-weight:600;font-size:11.5px;fill-opacity:1",
        "tspan.b": "font-weight:600",
        ".i": "fill-opacity:.65;font-weight:400",
        ".node": "fill:rgba(128,128,128,.1);stroke:currentColor;stroke-opacity:.4",
        ".end": "fill:none;stroke-dasharray:4 3",
        ".failed": "stroke:#D55E00;stroke-opacity:1;stroke-width:2",
        ".faint": "stroke-dasharray:4 3",
        ".paper": "fill:var(--jp-layout-color0,Canvas)",
        ".running": "stroke:#0072B2;stroke-opacity:1;stroke-width:2",
        ".bar": "stroke:currentColor;stroke-width:4;stroke-linecap:round;opacity:.14",
        ".time": "opacity:.6",
        ".badge": "fill:#B34700",
        "text.on": "fill:#fff;font-size:10.5px;font-weight:600;fill-opacity:1",
        ".e": "fill:none",
    }
    for style in EDGE_STYLES.values():
        rules[f".{style.name}"] = f"stroke:{style.color}" + (f";stroke-dasharray:{style.dash}" if style.dash else "")
        rules[f".{style.name}-tip"] = f"fill:{style.color}"
    return "".join(f".sabot-svg {selector}{{{body}}}" for selector, body in rules.items())


CSS = _css()


def svg(plan: PlanModel, *, standalone: bool = True, tooltips: bool = True) -> str:
    """The picture of ``plan``; empty text where it has no stages.

    ``standalone`` makes a file of its own: with its style inside, a background, and colours that follow the viewer's
    theme. Otherwise the page around it gives style and colours. ``tooltips`` carry full labels and reasons.
    """
    if not plan.stages:
        return ""
    whole = drawn_as_stages(plan) if plan.mode == "single" else plan
    plan = folded(whole)
    known = {stage.stage_id for stage in plan.stages}
    edges = [edge for edge in plan.edges if edge.source in known and (edge.target in known or edge.target == RESULT)]
    if not any(edge.target == RESULT for edge in edges):
        edges += [_implied(stage) for stage in plan.sinks]
    boxes = {stage.stage_id: _Box.of(stage) for stage in plan.stages}
    labels = [_EdgeLabel.of(edge) for edge in edges]
    heights = {name: box.height for name, box in boxes.items()} | {RESULT: _RESULT_HEIGHT}
    ends = [(edge.source, edge.target) for edge in edges]
    layout = lay_out(heights, ends, [label.room for label in labels], _SPACING)
    longest = max((stage.elapsed_ms or 0.0 for stage in plan.stages), default=0.0)
    parts = [_edge(*item, tooltips) for item in zip(edges, layout.routes, labels, strict=True)]
    parts += [_stage(stage, plan, boxes[stage.stage_id], layout, longest, tooltips) for stage in plan.stages]
    parts.append(_result(plan, layout))
    body = clean("".join(parts))
    width, height = layout.width - _NODE_WIDTH + _RESULT_WIDTH + 2 * _PAD, layout.height + 2 * _PAD
    # Text stays legible: below three quarters of its size the picture scrolls instead of shrinking.
    look = f"font-family:system-ui,sans-serif;min-width:{0.75 * width:.0f}px;"
    if standalone:
        look = "font-family:system-ui,sans-serif;color-scheme:light dark;background:Canvas;color:CanvasText"
    summary = f"Shuffle plan, {plural(len(whole.stages), 'stage')}, {plural(whole.shuffles, 'shuffle')}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sabot-svg" role="img" aria-label="{summary}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="{-_PAD:.0f} {-_PAD:.0f} {width:.0f} {height:.0f}" '
        f'style="{look}">{f"<style>{CSS}</style>" if standalone else ""}{body}</svg>'
    )


def clean(text: str) -> str:
    """``text`` without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)


def _implied(stage: StageView) -> EdgeView:
    """The edge to the result, for a plan that leaves it out."""
    return EdgeView("", "FORWARD", (), stage.stage_id, RESULT, None, stage.rows, None, None, "", "")


def _text(x: float, y: float, words: str, css: str = "", anchor: str = "") -> str:
    attributes = f' class="{css}"' if css else ""
    if anchor:
        attributes += f' text-anchor="{anchor}"'
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{escape(words)}</text>'


def _titled(words: str, tooltips: bool) -> str:
    return f"<title>{escape(words)}</title>" if tooltips else ""


@dataclass(frozen=True, slots=True)
class _Box:
    """The words of a stage in lines that fit, the step that it is for in bold."""

    steps: tuple[tuple[str, bool], ...]
    facts: tuple[str, ...]
    timed: bool

    @classmethod
    def of(cls, stage: StageView) -> _Box:
        facts = [tasks_text(stage)] if not stage.runs_in else []
        if stage.rows is not None:
            facts.append(rows_text(stage.rows, None, short=True))
        one_line = " · ".join(facts)
        wrapped = (one_line,) if text_pixels(one_line, _SIZE) <= _INNER else tuple(facts)
        return cls(_step_lines(stage), tuple(line for line in wrapped if line), stage.elapsed_ms is not None)

    @property
    def height(self) -> float:
        """What it needs at least."""
        return _HEAD + _LINE * (len(self.steps) + len(self.facts)) + (_BAR if self.timed else 6.0)


def _step_lines(stage: StageView) -> tuple[tuple[str, bool], ...]:
    """The steps in order; where they are too many, the last ones stay, for they say what the stage is for."""
    wrapped = []
    for place, step in enumerate(stage.steps, start=1):
        last = place == len(stage.steps)
        words = clip(step, _TOOLTIP_CHARACTERS)
        lines = wrap_pixels(words, _INNER, _BOLD_SIZE, _LINES_OF_A_STEP, bold=last)
        wrapped.append([(line, last) for line in lines])
    left_out = False
    while sum(map(len, wrapped)) + left_out > _MOST_STEP_LINES and len(wrapped) > 2:
        del wrapped[len(wrapped) // 2]
        left_out = True
    if left_out:
        wrapped.insert((len(wrapped) + 1) // 2, [("…", False)])
    return tuple(line for step in wrapped for line in step)


def _beside_name(stage: StageView, state: str) -> str:
    """How it stands: a state that is worth a word, the stage that it runs in, or its time."""
    if state not in ("finished", "waiting", ""):
        return clip(state, _NAME_CHARACTERS)
    if stage.runs_in:
        return f"in {clip(stage.runs_in, _NAME_CHARACTERS)}"
    return duration_text(stage.elapsed_ms) if stage.elapsed_ms is not None else ""


def _stage(stage: StageView, plan: PlanModel, box: _Box, layout: Layout, longest_ms: float, tooltips: bool) -> str:
    center, height = layout.nodes[stage.stage_id], layout.heights[stage.stage_id]
    state = plan.stage_state(stage)
    css = {"failed": " failed", "timed out": " failed", "running": " running"}.get(state, "")
    css = " faint" if state in ("cancelled", "not run") else css
    title = f"{stage.name}: {clip(stage.title, _TOOLTIP_CHARACTERS)}"
    if stage.columns:
        title += f"\n{columns_text(stage, _TOOLTIP_CHARACTERS)}"
    if stage.spilled_bytes:
        title += f"\n{bytes_text(stage.spilled_bytes)} spilled"
    size = f'width="{_NODE_WIDTH:.0f}" height="{height:.0f}" rx="6"'
    parts = [
        f'<g transform="translate({center.x - _NODE_WIDTH / 2:.0f} {center.y - height / 2:.0f})">',
        _titled(title, tooltips),
    ]
    if stage.copies:
        parts.append(f'<rect class="node" x="{_COPY_SHIFT:.0f}" y="{_COPY_SHIFT:.0f}" {size}/>')
        parts.append(f'<rect class="paper" {size}/>')
    parts.append(f'<rect class="node{css}" {size}/>')
    parts.append(_text(_INSET, _HEAD - 4, clip(stage.name, _NAME_CHARACTERS), "i"))
    elapsed = stage.elapsed_ms
    right = _beside_name(stage, state)
    if right:
        parts.append(_text(_NODE_WIDTH - _INSET, _HEAD - 4, right, "", "end"))
    y = _HEAD + (height - box.height) / 2
    for line, strong in box.steps:
        y += _LINE
        parts.append(_text(_INSET, y - 4, line, "b" if strong else ""))
    for line in box.facts:
        y += _LINE
        parts.append(_text(_INSET, y - 3, line))
    if elapsed is not None and longest_ms > 0:
        track = _NODE_WIDTH - 2 * _INSET - 4
        start = f'd="M{_INSET + 2:.0f} {height - 7:.0f}h'
        filled = max(1.0, track * elapsed / longest_ms)
        parts.append(f'<path class="bar" {start}{track:.0f}"/><path class="bar time" {start}{filled:.0f}"/>')
    return "".join([*parts, "</g>"])


def _result(plan: PlanModel, layout: Layout) -> str:
    center = layout.nodes[RESULT]
    left, middle = center.x - _NODE_WIDTH / 2, center.x - _NODE_WIDTH / 2 + _RESULT_WIDTH / 2
    rows = [edge.rows for edge in plan.inputs_of(RESULT)] or [stage.rows for stage in plan.sinks]
    known = [count for count in rows if count is not None]
    box = f'x="{left:.0f}" y="{center.y - 23:.0f}" width="{_RESULT_WIDTH:.0f}" height="46" rx="23"'
    parts = [f'<rect class="node end" {box}/>', _text(middle, center.y - (3 if known else -4), "result", "b", "middle")]
    if known:
        parts.append(_text(middle, center.y + 12, rows_text(sum(known), None, short=True), "", "middle"))
    return "".join(parts)


def _edge(edge: EdgeView, route: Route, label: _EdgeLabel, tooltips: bool) -> str:
    style = EDGE_STYLES.get(edge.shown_type, _UNKNOWN)
    width = edge_width(edge)
    tip = route.bends[-1].end
    path = _path(route)
    words = [edge_name(edge), clip(edge.reason, _TOOLTIP_CHARACTERS), edge.skew.text() if edge.skew else ""]
    parts = ["<g>", _titled("\n".join(filter(None, words)), tooltips)]
    if style.double:
        line = max(1.0, width / 2)
        shift = line / 2 + 1.2
        parts += [
            f'<path class="e {style.name}" stroke-width="{line:.1f}" transform="translate(0 {dy:.1f})" d="{path}"/>'
            for dy in (-shift, shift)
        ]
        width += 2.4
    else:
        parts.append(f'<path class="e {style.name}" stroke-width="{width:.1f}" d="{path}"/>')
    half = 4 + width / 2
    parts.append(
        f'<path class="{style.name}-tip" d="M{tip.x:.0f} {tip.y:.0f}l{-_ARROW:.0f} {-half:.1f}v{2 * half:.1f}z"/>'
    )
    return "".join([*parts, label.draw(route.start, width), "</g>"])


def edge_width(edge: EdgeView) -> float:
    """Pixels: one for a kilobyte, one more for each factor of ten; an unmeasured or FORWARD edge is thin."""
    if not edge.bytes or not edge.is_shuffle:
        return 1.5
    return min(8.0, max(1.5, math.log10(edge.bytes) - 2))


def _path(route: Route) -> str:
    y = route.start.y
    out = [f"M{route.start.x:.0f} {y:.0f}"]
    for bend in route.bends:
        # The line ends inside its arrow head, whatever its width.
        x = bend.end.x - (_ARROW - 1 if bend is route.bends[-1] else 0)
        middle = (bend.begin_x + x) / 2
        curve = f"C{middle:.0f} {y:.0f} {middle:.0f} {bend.end.y:.0f} {x:.0f} {bend.end.y:.0f}"
        out.append(f"H{x:.0f}" if abs(y - bend.end.y) < 1 else f"H{bend.begin_x:.0f}{curve}")
        y = bend.end.y
    return "".join(out)


@dataclass(frozen=True, slots=True)
class _EdgeLabel:
    """Type and keys above the line, rows, bytes and skew below it; nothing where the result says it all."""

    kind: str = ""
    above: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    badge: tuple[str, ...] = ()

    @classmethod
    def of(cls, edge: EdgeView) -> _EdgeLabel:
        if edge.target == RESULT and not edge.is_shuffle:
            return cls()
        kind = clip(edge.shown_type, 20)
        if edge.within_task:
            return cls(kind, (kind,), ("in one task",))
        # The type is bold: what the keys then have is less than a line of regular text.
        words = clip(f"{kind} {', '.join(edge.keys)}", _TOOLTIP_CHARACTERS)
        keys = wrap_pixels(words, _KEYS_WIDTH, _SIZE, _KEY_LINES, bold=True)
        below = [rows_text(edge.rows, edge.rows_estimated, short=True)]
        if edge.bytes is not None:
            parts = f" · {edge.partitions} parts" if (edge.partitions or 0) > 1 else ""
            below.append(bytes_text(edge.bytes) + parts)
        badge = _badge_lines(edge.skew) if edge.skew else ()
        return cls(kind, tuple(keys), tuple(line for line in below if line), badge)

    @property
    def room(self) -> Label:
        """What it needs, the gap to the line included."""
        if not self.kind:
            return Label()
        widths = [text_pixels(line, _SIZE, bold=True) for line in self.above]
        widths += [text_pixels(line, _SIZE) for line in self.below]
        widths += [text_pixels(line, _SIZE, bold=True) + 14 for line in self.badge]
        below = 12 + 13 * len(self.below) + (_BADGE_LINE * len(self.badge) + 6 if self.badge else 0.0)
        return Label(max(widths) + 12, 8 + 13 * len(self.above), below)

    def draw(self, start: Point, line_width: float) -> str:
        """It stands beside the source, left-aligned."""
        if not self.kind:
            return ""
        x, up, down = start.x + 7, start.y - line_width / 2 - 4, start.y + line_width / 2 + 12
        first, *rest = self.above
        top = up - 13 * len(rest)
        keys = escape(first.removeprefix(self.kind))
        parts = [f'<text x="{x:.0f}" y="{top:.0f}"><tspan class="b">{escape(self.kind)}</tspan>{keys}</text>']
        parts += [_text(x, top + 13 * i, line) for i, line in enumerate(rest, start=1)]
        parts += [_text(x, down + 13 * i, line) for i, line in enumerate(self.below)]
        if self.badge:
            y = down + 13 * len(self.below) - 8
            width = max(text_pixels(line, _SIZE, bold=True) for line in self.badge) + 12
            height = _BADGE_LINE * len(self.badge) + 4
            box = f'x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6"'
            parts.append(f'<rect class="badge" {box}/>')
            parts += [_text(x + 6, y + _BADGE_LINE * (i + 1) - 2, line, "on") for i, line in enumerate(self.badge)]
        return "".join(parts)


def _badge_lines(skew: Skew) -> tuple[str, ...]:
    """``▲ skew 4.5×``, ``partition 15 on agent-2``, ``hot key 42``."""
    factor = f" {skew.factor:.1f}×" if math.isfinite(skew.factor) else ""
    lines = [f"▲ skew{factor}", f"partition {skew.partition}{f' on {skew.agent}' if skew.agent else ''}"]
    if skew.hot_key is not None:
        lines.append(f"hot key {skew.hot_key}")
    return tuple(clip_pixels(clip(line, _TOOLTIP_CHARACTERS), _BADGE_WIDTH, _SIZE, bold=True) for line in lines)
