"""The plan as a picture: stages left to right, edges typed by colour, dash and text, as wide as the log of bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from sabot_sql.plan_view.layout import Layout, Point, Route, Spacing, lay_out
from sabot_sql.plan_view.model import RESULT, EdgeView, PlanModel, Skew, StageView
from sabot_sql.plan_view.units import bytes_text, duration_text
from sabot_sql.plan_view.words import clip, edge_name, rows_text, tasks_text

_NODE_WIDTH = 168.0
_NODE_HEIGHT = 66.0
_RESULT_WIDTH = 92.0
_SPACING = Spacing(
    _NODE_WIDTH, _NODE_HEIGHT, curve_width=44.0, level_width=18.0, node_gap=26.0, port_in=24.0, port_out=58.0
)
_PAD = 8.0
_ARROW = 9.0
_INSET = 10
_TITLE_WIDTH = _NODE_WIDTH - 2 * _INSET
_TITLE_LINES = 2
_KEY_CHARACTERS = 20
_SUB_CHARACTER_WIDTH = 6.1
_TOOLTIP_CHARACTERS = 300
_NARROW = frozenset(" .,:;|!'·ijlftr()[]\N{NO-BREAK SPACE}")
_WIDE = frozenset("mwMW@%…")
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
        "text": "fill:currentColor;font-size:11px;opacity:.82",
        "text.b": "font-weight:600;font-size:11.5px;opacity:1",
        "tspan.b": "font-weight:600",
        ".i": "opacity:.65;font-weight:400",
        ".node": "fill:rgba(128,128,128,.1);stroke:currentColor;stroke-opacity:.4",
        ".end": "fill:none;stroke-dasharray:4 3",
        ".failed": "stroke:#D55E00;stroke-opacity:1;stroke-width:2",
        ".cancelled": "stroke-dasharray:4 3",
        ".running": "stroke:#0072B2;stroke-opacity:1;stroke-width:2",
        ".bar": "stroke:currentColor;stroke-width:4;stroke-linecap:round;opacity:.14",
        ".time": "opacity:.6",
        ".badge": "fill:#B34700",
        "text.on": "fill:#fff;font-size:10.5px;font-weight:600;opacity:1",
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
    nodes = [stage.stage_id for stage in plan.stages]
    known = set(nodes)
    edges = [edge for edge in plan.edges if edge.source in known and (edge.target in known or edge.target == RESULT)]
    if not any(edge.target == RESULT for edge in edges):
        edges += [_implied(stage) for stage in plan.sinks]
    labels = [_label_lines(edge) for edge in edges]
    widths = [_label_width(edge, lines) for edge, lines in zip(edges, labels, strict=True)]
    layout = lay_out([*nodes, RESULT], [(edge.source, edge.target) for edge in edges], widths, _SPACING)
    longest = max((stage.elapsed_ms or 0.0 for stage in plan.stages), default=0.0)
    parts = [_edge(*item, tooltips) for item in zip(edges, layout.routes, labels, strict=True)]
    parts += [_stage(stage, layout, longest, tooltips) for stage in plan.stages]
    parts.append(_result(plan, layout))
    body = clean("".join(parts))
    width, height = layout.width - _NODE_WIDTH + _RESULT_WIDTH + 2 * _PAD, layout.height + 2 * _PAD
    # Text stays legible: below three quarters of its size the picture scrolls instead of shrinking.
    look = f"font-family:system-ui,sans-serif;min-width:{0.75 * width:.0f}px;"
    if standalone:
        look = "font-family:system-ui,sans-serif;color-scheme:light dark;background:Canvas;color:CanvasText"
    summary = f"Shuffle plan, {len(plan.stages)} stages, {plan.shuffles} shuffles"
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


def _stage(stage: StageView, layout: Layout, longest_ms: float, tooltips: bool) -> str:
    center, height = layout.nodes[stage.stage_id], layout.heights[stage.stage_id]
    state = stage.state if stage.state in ("failed", "running", "cancelled") else ""
    first, *rest = _title_lines(f"{stage.stage_id} {clip(stage.title, 120)}")
    title = f"{stage.stage_id}: {clip(stage.title, _TOOLTIP_CHARACTERS)}"
    if stage.spilled_bytes:
        title += f"\n{bytes_text(stage.spilled_bytes)} spilled"
    parts = [
        f'<g transform="translate({center.x - _NODE_WIDTH / 2:.0f} {center.y - height / 2:.0f})">',
        _titled(title, tooltips),
        f'<rect class="node {state}" width="{_NODE_WIDTH:.0f}" height="{height:.0f}" rx="6"/>'.replace(' "', '"'),
    ]
    top = (height - _NODE_HEIGHT) / 2 + 18
    identifier = escape(stage.stage_id)
    parts.append(
        f'<text x="{_INSET}" y="{top:.0f}" class="b"><tspan class="i">{identifier}</tspan>'
        f"{escape(first.removeprefix(stage.stage_id))}</text>"
    )
    parts += [_text(_INSET, top + 14 * i, line, "b") for i, line in enumerate(rest, start=1)]
    facts = tasks_text(stage)
    if stage.rows is not None:
        facts += f" · {rows_text(stage.rows, None, short=True)}"
    parts.append(_text(_INSET, height - 16, facts))
    elapsed = stage.elapsed_ms
    right = state or (duration_text(elapsed) if elapsed is not None else "")
    if right:
        parts.append(_text(_NODE_WIDTH - _INSET, height - 16, right, "", "end"))
    if elapsed is not None and longest_ms > 0:
        track = _NODE_WIDTH - 2 * _INSET - 4
        start = f'd="M{_INSET + 2} {height - 7:.0f}h'
        filled = max(1.0, track * elapsed / longest_ms)
        parts.append(f'<path class="bar" {start}{track:.0f}"/><path class="bar time" {start}{filled:.0f}"/>')
    return "".join([*parts, "</g>"])


def _title_lines(title: str) -> list[str]:
    """``title`` in as many lines as a node has room for; a separator stays at the end of its line."""
    lines = [""]
    for word in title.replace(" · ", "\N{NO-BREAK SPACE}· ").split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if not lines[-1] or _pixels(longer) <= _TITLE_WIDTH:
            lines[-1] = longer
        elif len(lines) < _TITLE_LINES:
            lines.append(word)
        else:
            lines[-1] = longer + "…"
            break
    return [_clip_pixels(line, _TITLE_WIDTH) for line in lines]


def _pixels(text: str) -> float:
    """About how wide bold text is: no font is at hand where the picture is made."""
    return sum(3.9 if c in _NARROW else 9.8 if c in _WIDE else 7.9 if c.isupper() else 6.9 for c in text)


def _clip_pixels(text: str, width: float) -> str:
    while _pixels(text) > width:
        text = text.rstrip("…")[:-1].rstrip() + "…"
    return text


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


def _edge(edge: EdgeView, route: Route, label: list[str], tooltips: bool) -> str:
    style = EDGE_STYLES.get(edge.type, _UNKNOWN)
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
    return "".join([*parts, _edge_label(edge, label, route.start, width), "</g>"])


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


def _label_lines(edge: EdgeView) -> list[str]:
    """Type and keys above the line, rows and bytes below it; nothing where the result says it all."""
    if edge.target == RESULT and not edge.is_shuffle:
        return []
    keys = clip(", ".join(edge.keys), max(4, _KEY_CHARACTERS - len(edge.type)))
    lines = [f"{edge.type} {keys}".strip(), rows_text(edge.rows, edge.rows_estimated, short=True)]
    if edge.bytes is not None:
        lines.append(bytes_text(edge.bytes) + (f" · {edge.partitions} parts" if (edge.partitions or 0) > 1 else ""))
    return [line for line in lines if line]


def _label_width(edge: EdgeView, lines: Sequence[str]) -> float:
    widest = max((len(line) for line in lines), default=0) * _SUB_CHARACTER_WIDTH + 10
    if not lines or not edge.skew:
        return widest
    return max(widest, _badge_begin(lines) + _badge_width(_badge_words(edge.skew)) + 10)


def _badge_begin(lines: Sequence[str]) -> float:
    """Beside the first line: above it the label of another edge may end."""
    return len(lines[0]) * _SUB_CHARACTER_WIDTH + 14


def _badge_words(skew: Skew) -> str:
    return f"▲ skew {skew.factor:.1f}×" if math.isfinite(skew.factor) else "▲ skew"


def _badge_width(words: str) -> float:
    return 17 + 6.3 * len(words)


def _edge_label(edge: EdgeView, lines: list[str], start: Point, width: float) -> str:
    if not lines:
        return ""
    x, above, below = start.x + 7, start.y - width / 2 - 4, start.y + width / 2 + 12
    kind, keys = escape(edge.type), escape(lines[0].removeprefix(edge.type))
    parts = [f'<text x="{x:.0f}" y="{above:.0f}"><tspan class="b">{kind}</tspan>{keys}</text>']
    parts += [_text(x, below + 13 * i, line) for i, line in enumerate(lines[1:])]
    if edge.skew:
        words, left = _badge_words(edge.skew), x + _badge_begin(lines)
        box = f'x="{left:.0f}" y="{above - 11:.0f}" width="{_badge_width(words):.0f}" height="15" rx="7"'
        parts += [f'<rect class="badge" {box}/>', _text(left + 6, above, words, "on")]
    return "".join(parts)
