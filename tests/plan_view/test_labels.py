"""Words of the picture stay in their boxes and apart from each other, by the widest of the usual fonts."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sabot_sql.plan_view import Plan
from sabot_sql.plan_view.font_metrics import clip_pixels, text_pixels, wrap_pixels
from sabot_sql.plan_view.svg import EDGE_STYLES
from tests.plan_view import plans
from tests.plan_view.test_fold import branches

SVG = "{http://www.w3.org/2000/svg}"


def long_names() -> dict[str, Any]:
    """What the pictures of real queries broke on."""
    label = "scan lineitem by l_orderkey · scan orders by o_orderkey · inner join"
    stages = [
        plans.stage("s0", label, "join", 150_000, 10_000, tasks=plans.tasks("s0", 4, 150_000, 104)),
        plans.stage("s1", "scan a_table_with_a_rather_long_name_that_no_box_holds · filter", "source", 6_000_000),
        plans.stage(
            "s2", " · ".join(["scan nation", *["inner join"] * 3, "filter", "window", "top 5 by price"]), "x", 1
        ),
        plans.stage("s3", "群組 · größte Überschrift · GROUP BY MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM", "group_by", 1),
    ]
    keys = ["customer_identifier_of_the_order", "n_name", "r_name", "date_trunc('month', l_shipdate)"]
    skewed = {"partition_bytes": [10**6] * 15 + [10**8], "partition_agents": ["agent-2"] * 16, "partitions": 16}
    heavy = [{"key": "a key that is a whole sentence, and then some", "rows": 10**6}]
    edges = [
        plans.edge("e0", "HASH", "s0", "s2", 150_000, keys=keys, rows_estimated=9_999_999, heavy=heavy, **skewed),
        plans.edge("e1", "BROADCAST", "s1", "s2", 6_000_000, keys=keys, rows_estimated=6_000_001, partitions=128),
        plans.edge("e2", "REBALANCE", "s1", "s3", 6_000_000, rows_estimated=1),
        plans.edge("e3", "HASH", "s2", "s3", 1, keys=["k"], **skewed),
        plans.edge("e4", "RANGE", "s3", "result", 1, keys=["x DESC"], heavy=heavy, **skewed),
    ]
    return plans.plan(stages, edges)


Rect = tuple[float, float, float, float]


def drawn(svg: str) -> tuple[list[tuple[str, Rect, bool]], list[Rect]]:
    """Texts, with the place that they take at most and whether they stand in a node; and the nodes."""
    texts: list[tuple[str, Rect, bool]] = []
    nodes: list[Rect] = []

    def place(item: ET.Element, left: float, top: float) -> Rect:
        number = {name: float(item.attrib.get(name, 0)) for name in ("x", "y", "width", "height")}
        x, y = left + number["x"], top + number["y"]
        return x, y, x + number["width"], y + number["height"]

    def walk(item: ET.Element, left: float, top: float, inside: bool) -> None:
        move = re.match(r"translate\(([-\d.]+) ([-\d.]+)\)", item.attrib.get("transform", ""))
        if move and item.tag == f"{SVG}g":
            left, top, inside = left + float(move.group(1)), top + float(move.group(2)), True
        if item.tag == f"{SVG}rect" and "node" in item.attrib["class"] and "rx" in item.attrib and inside:
            nodes.append(place(item, left, top))
        if item.tag == f"{SVG}text":
            words = "".join(item.itertext())
            strong = item.attrib.get("class") in ("b", "on") or item.find(f"{SVG}tspan") is not None
            width = text_pixels(words, 11.5 if item.attrib.get("class") == "b" else 11.0, bold=strong)
            x, y, _, _ = place(item, left, top)
            begin = {"end": x - width, "middle": x - width / 2}.get(item.attrib.get("text-anchor", ""), x)
            texts.append((words, (begin, y - 9, begin + width, y + 2), inside))
        for child in item:
            walk(child, left, top, inside)

    walk(ET.fromstring(svg), 0.0, 0.0, False)
    return texts, nodes


def apart(one: Rect, other: Rect) -> bool:
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


@pytest.mark.parametrize(
    "document",
    [long_names(), plans.q3(), plans.shared_stage(), plans.wide(40), branches(10), branches(2)],
    ids=["long names", "q3", "shared stage", "wide", "folded", "two branches"],
)
def test_no_words_leave_their_box_or_cross_others(document: dict[str, Any]) -> None:
    texts, nodes = drawn(Plan(document).svg())
    assert len(texts) > 5
    for words, rect, inside in texts:
        if inside:
            homes = [n for n in nodes if n[0] <= rect[0] and rect[2] <= n[2] and n[1] <= rect[1] and rect[3] <= n[3]]
            assert homes, (words, rect)
        else:
            assert all(apart(rect, node) for node in nodes), (words, rect)
    for place, (words, rect, _) in enumerate(texts):
        for others, other, _ in texts[place + 1 :]:
            assert apart(rect, other), (words, others)


def test_the_step_that_a_stage_is_for_is_there_in_whole_and_bold() -> None:
    svg = Plan(long_names()).svg()
    assert re.search(r'class="b">inner join</text>', svg)
    assert re.search(r'class="b">top 5 by price</text>', svg)
    assert "scan lineitem by" in svg


def test_the_badge_names_partition_agent_and_hot_key() -> None:
    texts = [words for words, _, _ in drawn(Plan(long_names()).svg())[0]]
    assert "▲ skew 100.0×" in texts
    assert "partition 15 on agent-2" in texts
    assert any(words.startswith("hot key a key that") for words in texts)
    assert "in partition 15 on agent-2, hot key a key" in Plan(long_names()).text(width=200)


def test_lines_break_between_words_and_then_between_the_parts_of_one() -> None:
    assert wrap_pixels("scan lineitem by l_orderkey", 100, 11, 3) == ["scan lineitem by", "l_orderkey"]
    lines = wrap_pixels("customer_identifier_of_the_order", 100, 11, 5)
    assert "".join(lines) == "customer_identifier_of_the_order"
    assert all(line.endswith("_") for line in lines[:-1])
    assert wrap_pixels("one two three four", 50, 11, 2)[-1].endswith("…")
    assert wrap_pixels("", 50, 11, 2) == []
    assert clip_pixels("whole", 100, 11) == "whole"
    for text in ("W" * 50, "群" * 50, "e\u0301" * 50, "i" * 500):
        assert text_pixels(clip_pixels(text, 100, 11), 11) <= 100


def test_bold_and_foreign_letters_are_wide_enough() -> None:
    assert text_pixels("n", 1000, bold=True) > text_pixels("n", 1000) > 600
    assert text_pixels("ü", 1000) == text_pixels("u", 1000)
    assert text_pixels("群", 1000) >= 1000


def test_the_colours_of_stages_are_none_of_edges() -> None:
    times = re.findall("<svg.*?</svg>", Plan(plans.q3()).html(), flags=re.DOTALL)[1]
    html = Plan(plans.q3()).html()
    stages = re.findall(r"\.k\d\{fill:(#[0-9A-Fa-f]{6})", html)
    assert len(stages) == len(set(stages)) >= 5
    assert 'class="k0"' in times

    def rgb(color: str) -> tuple[int, ...]:
        return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))

    for stage in stages:
        for style in EDGE_STYLES.values():
            assert sum(abs(a - b) for a, b in zip(rgb(stage), rgb(style.color), strict=True)) > 80, (stage, style)
