"""Plan JSON to picture, table tree, text and Graphviz."""

from __future__ import annotations

import json
import math
import re
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sabot_sql.plan_view import Plan
from tests.plan_view import plans, renew

pytestmark = pytest.mark.fast

DOCUMENTS = {
    "q3": plans.q3,
    "planned": plans.planned,
    "single": plans.single,
    "empty": plans.empty,
    "shared_stage": plans.shared_stage,
    "wide": plans.wide,
}
VOID = {"meta", "br", "hr", "img"}


class Tree(HTMLParser):
    """Checks that tags nest, and keeps them with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def without_picture(html: str) -> str:
    """What an untrusted notebook keeps."""
    return re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("path", renew.snapshots(), ids=lambda path: path.name)
def test_views_look_as_they_did(path: Path) -> None:
    assert path.read_text() == renew.render(path.name), "if the change is meant: python -m tests.plan_view.renew"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_svg_is_well_formed_and_names_every_stage_and_edge_type(name: str) -> None:
    document = DOCUMENTS[name]()
    svg = Plan(document).svg()
    if not document["stages"]:
        assert svg == ""
        return
    root = ET.fromstring(svg)
    words = " ".join(root.itertext())
    for stage in document["stages"]:
        assert stage["id"] in words
    for edge in document["edges"]:
        if (edge["type"], edge["target"]) != ("FORWARD", "result"):
            assert edge["type"] in words
    assert root.attrib["role"] == "img"
    assert f"{len(document['stages'])} stage" in root.attrib["aria-label"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_html_nests_and_loads_nothing(name: str) -> None:
    html = Plan(DOCUMENTS[name]()).html()
    tree = Tree(html)
    assert not {"script", "link", "iframe", "object", "img"} & {tag for tag, _ in tree.tags}
    assert not re.findall(r"(?:src|href)=|url\(|@import", html)
    assert set(re.findall(r"https?://[^\"]*", html)) <= {"http://www.w3.org/2000/svg"}


def test_html_without_its_picture_still_tells_everything() -> None:
    document = plans.q3()
    text = Tree(without_picture(Plan(document).html())).text
    for stage in document["stages"]:
        assert f"{stage['id']} {stage['label']}" in text
        assert " ".join(stage["sql"].split()) in text
    assert "HASH (o_orderkey)" in text
    assert "~150,000 → 147,126" in text
    assert "decided while running: 241 kB measured is below the 16.8 MB up to which a side is replicated" in text
    assert "skew: 4.5× the median in partition 15, hot key 42" in text
    assert "4 agents (threads) · 5 stages · 4 shuffles · 82 MB moved · 48 MB spilled · 1.2 s" in text


def test_the_picture_is_hidden_where_the_style_is_dropped() -> None:
    html = Plan(plans.q3()).html()
    # Its words would otherwise stay there as one long line. A bare attribute does not survive the clean-up.
    assert re.search(r'<div class="pic" hidden="hidden"[^>]*><svg', html)
    assert ".pic[hidden]{display:block!important" in html


def test_one_statement_on_one_agent_is_one_line() -> None:
    html = Plan(plans.single()).html()
    assert Tree(html).text == "one agent · 3 ms one agent: as it was written"
    assert plans.SQL in Tree(Plan(plans.single()).html(opened=True)).text
    assert Plan(plans.empty()).text().splitlines() == ["single · one agent · 1.2 s", "nothing to run"]


def test_html_has_a_meter_and_details_for_every_stage() -> None:
    tags = [tag for tag, _ in Tree(Plan(plans.q3()).html()).tags]
    assert tags.count("meter") == 5
    assert tags.count("details") == 1 + 5


def test_wide_regions_can_be_reached_by_keyboard() -> None:
    scrolling = [a for tag, a in Tree(Plan(plans.q3()).html()).tags if a.get("class") in ("pic", "scroll")]
    assert [attributes["tabindex"] for attributes in scrolling] == ["0"] * 3


@pytest.mark.parametrize("hostile", plans.HOSTILE)
def test_hostile_text_stays_text(hostile: str) -> None:
    plan = Plan(plans.hostile(hostile))
    known = {tag for tag, _ in Tree(Plan(plans.q3()).html()).tags}
    tree = Tree(plan.html())
    assert {tag for tag, _ in tree.tags} <= known
    assert not [name for _, attributes in tree.tags for name in attributes if name.startswith("on")]
    if hostile.isprintable():
        assert hostile in tree.text
    ET.fromstring(plan.svg())
    assert "\x1b" not in plan.text()
    assert "\x00" not in plan.dot()
    skewed = plans.hostile(hostile)
    skewed["edges"][0]["type"] = "HASH"
    assert {tag for tag, _ in Tree(Plan(skewed).html()).tags} <= known
    ET.fromstring(Plan(skewed).svg())


@pytest.mark.parametrize("stages", [1, 2, 12, 40])
def test_html_stays_within_its_budget(stages: int) -> None:
    html = Plan(plans.wide(stages)).html(opened=True)
    assert len(html.encode()) <= 60_000
    assert "<svg" in html
    assert f"s{stages - 1}" in Tree(without_picture(html)).text


def test_a_plan_beyond_every_budget_is_still_shown() -> None:
    html = Plan(plans.wide(400)).html()
    assert len(html.encode()) <= 60_000
    assert "400 stages" in Tree(html).text


def test_forty_stages_are_drawn_fast() -> None:
    plan = Plan(plans.wide(40))
    elapsed = []
    for _ in range(3):
        start = time.process_time()
        plan.html()
        elapsed.append(time.process_time() - start)
    assert min(elapsed) < 0.1


def test_each_edge_type_has_its_own_colour_and_line() -> None:
    svg = Plan(plans.shared_stage()).svg()
    for rule in (
        ".hash{stroke:#0072B2}",
        ".broadcast{stroke:#E69F00}",
        ".range{stroke:#009E73;stroke-dasharray:9 5}",
        ".rebalance{stroke:#CC79A7;stroke-dasharray:2 4}",
    ):
        assert rule in svg
    paths = [e.attrib for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")]
    lines = [attributes["class"] for attributes in paths if attributes["class"].startswith("e ")]
    assert lines.count("e broadcast") == 2 * 2
    assert lines.count("e hash") == 1


def test_edges_are_as_wide_as_the_logarithm_of_their_bytes() -> None:
    def width(size_bytes: int | None) -> float:
        edge = plans.edge("e1", "HASH", "s1", "s2", 1, bytes=size_bytes)
        svg = Plan(plans.plan([plans.stage("s1", "a", "x", 1), plans.stage("s2", "b", "x", 1)], [edge])).svg()
        match = re.search(r'"e hash" stroke-width="([0-9.]+)"', svg)
        assert match
        return float(match.group(1))

    widths = [width(10**power) for power in range(4, 10)]
    assert widths == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert width(None) == width(0) == width(1) == 1.5
    assert width(10**15) == 8.0


@pytest.mark.parametrize(
    ("partition_bytes", "shown"),
    [
        ([10**6] * 7 + [2 * 10**6], False),
        ([10**6] * 7 + [2 * 10**6 + 1], True),
        ([0] * 7 + [10**6], True),
        ([0] * 7 + [1000], False),
        ([10**6], False),
        ([], False),
    ],
)
def test_skew_is_shown_above_twice_the_median(partition_bytes: list[int], shown: bool) -> None:
    edge = plans.edge(
        "e1", "HASH", "s1", "s2", 9, partition_bytes=partition_bytes, heavy=[{"key": "zurich", "rows": 8}]
    )
    plan = Plan(plans.plan([plans.stage("s1", "a", "x", 1), plans.stage("s2", "b", "x", 1)], [edge]))
    for form in (plan.svg(), plan.html(), plan.text()):
        assert ("▲" in form) is shown
    assert ("hot key zurich" in plan.text()) is shown
    assert ("hot key zurich" in plan.html()) is shown


def test_distinct_keys_are_shown_with_the_partitions() -> None:
    stages = [plans.stage("s1", "a", "x", 1), plans.stage("s2", "b", "x", 1)]
    for known, shown in ((1_234, True), (None, False)):
        edge = plans.edge("e1", "HASH", "s1", "s2", 9, partition_bytes=[1, 2, 3], distinct_keys=known)
        assert ("Distinct keys: 1,234" in Plan(plans.plan(stages, [edge])).html()) is shown


def test_a_broadcast_edge_has_no_skew() -> None:
    edge = plans.edge("e1", "BROADCAST", "s1", "s2", 9, partition_bytes=[10, 10, 10**7])
    plan = Plan(plans.plan([plans.stage("s1", "a", "x", 1), plans.stage("s2", "b", "x", 1)], [edge]))
    assert "▲" not in plan.text() + plan.html() + plan.svg()


def test_an_estimate_far_off_is_a_finding() -> None:
    assert "s3 → s4 HASH (l_orderkey) estimate 11× off: ~300,000 → 3,241,776 rows" in Plan(plans.q3()).text()


def test_tasks_are_drawn_over_time_by_agent() -> None:
    pictures = re.findall("<svg.*?</svg>", Plan(plans.q3()).html(), flags=re.DOTALL)
    assert len(pictures) == 2
    root = ET.fromstring(pictures[1])
    words = list(root.itertext())
    assert [word for word in words if word.startswith("agent-")] == [f"agent-{i}" for i in range(4)]
    assert "s4.0 610 ms, attempt 1" in words
    rects = [element.attrib for element in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(rects) == sum(len(stage["tasks"]) for stage in plans.q3()["stages"])
    assert all(float(rect["x"]) >= 92 and float(rect["x"]) + float(rect["width"]) <= 92 + 641 for rect in rects)
    # s1 and s3 start together: two lanes.
    first = [rect for rect in rects if float(rect["x"]) == 92]
    assert len({rect["y"] for rect in first}) == len(first) == 8


def test_a_plan_that_did_not_run_has_no_timeline() -> None:
    assert Plan(plans.planned()).html().count("<svg") == 1


def test_text_fits_its_width() -> None:
    for width in (50, 60, 80, 120):
        assert max(map(len, Plan(plans.q3()).text(width=width).splitlines())) <= width


def test_text_draws_a_stage_with_two_consumers_once() -> None:
    text = Plan(plans.shared_stage()).text()
    assert text.count("│ s1 scan events") == 1
    assert "(s1 scan events: above)" in text


def test_json_is_a_copy() -> None:
    document = plans.q3()
    plan = Plan(document)
    plan.json()["stages"].clear()
    document["stages"].clear()
    assert plan.json() == plans.q3()
    assert json.loads(json.dumps(plan.json())) == plans.q3()


def test_facts_of_a_plan() -> None:
    plan = Plan(plans.q3())
    assert (plan.mode, plan.shuffles, plan.moved_bytes) == ("distributed", 4, (30_142 + 147_126 + 3_241_776 + 40) * 24)
    assert repr(plan) == "<Plan distributed: 5 stages, 4 shuffles, finished>"
    assert str(plan) == plan.text()


def test_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2; this release reads version 1"):
        Plan(plans.q3() | {"version": 2}).text()


def test_missing_measurements_and_unknown_types_are_shown_as_far_as_known() -> None:
    sparse: dict[str, Any] = {
        "version": 1,
        "stages": [{"id": "a"}, {"id": "b"}],
        "edges": [{"id": "e", "type": "TELEPORT", "source": "a", "target": "b"}],
    }
    plan = Plan(sparse)
    assert "TELEPORT" in plan.text()
    assert "TELEPORT" in " ".join(ET.fromstring(plan.svg()).itertext())
    assert "TELEPORT" in Tree(plan.html()).text
    assert '"a" -> "b"' in plan.dot()


def test_a_running_stage_counts_its_finished_tasks() -> None:
    running = plans.tasks("s1", 3, 9, 5.0)
    running[2] |= {"state": "running", "elapsed_ms": None}
    stage = plans.stage("s1", "scan", "source", None, parallelism=3, state="running", tasks=running)
    assert "2/3 tasks" in Plan(plans.plan([stage], [], state="running")).text()


def test_no_skew_without_a_finite_factor_breaks_the_badge() -> None:
    edge = plans.edge("e1", "HASH", "s1", "s2", 9, partition_bytes=[0, 0, 10**6])
    plan = Plan(plans.plan([plans.stage("s1", "a", "x", 1), plans.stage("s2", "b", "x", 1)], [edge]))
    assert "skew: all rows in partition 2" in plan.text()
    assert str(math.inf) not in plan.svg()


def fused() -> dict[str, Any]:
    """The last two stages ran as one task."""
    document = plans.q3()
    document["stages"][3] |= {"runs_in": "s5", "rows": None}
    document["edges"][3] |= {"within_task": True, "rows": None, "bytes": None, "rows_estimated": 40}
    return document


def test_what_was_fused_is_no_shuffle_and_has_one_time() -> None:
    plan = Plan(fused())
    assert plan.shuffles == 3
    assert "3 shuffles" in plan.html()
    for form in (plan.svg(), plan.text(), Tree(without_picture(plan.html())).text, plan.dot()):
        assert "RANGE" not in form
        assert "in one task" in form
    assert "in s5" in plan.svg()
    assert "in s5" in plan.text()
    assert "~40" not in plan.text()
    times = re.findall("<svg.*?</svg>", plan.html(), flags=re.DOTALL)[1]
    assert "s4.0" not in times


def test_the_parts_of_the_time_are_told_and_add_up() -> None:
    times = {"planning_ms": 48.0, "startup_ms": 310.0, "running_ms": 1900.0, "handover_ms": 0.2}
    plan = Plan(plans.q3() | {"times": times, "elapsed_ms": sum(times.values())})
    words = "planning 48 ms + start-up 310 ms + running 1.9 s = 2.3 s"
    assert words in plan.text()
    assert words in Tree(plan.html()).text
    assert "planning" not in Plan(plans.q3()).text()


def test_after_a_stop_every_stage_says_how_it_ended() -> None:
    document = plans.q3() | {"state": "running"}
    document["stages"][3] |= {"state": "running"}
    document["stages"][4] |= {"state": "waiting", "tasks": []}
    for state, words in (("cancelled", "cancelled"), ("timed_out", "timed out"), ("failed", "failed")):
        plan = Plan(document).ended(state)
        texts = list(ET.fromstring(plan.svg()).itertext())
        assert words in texts
        assert "not run" in texts
        assert "running" not in texts
        assert plan.status().endswith(words)
        assert f"· {words}" in plan.text()
        assert "not run" in Tree(plan.html()).text


def test_one_stage_is_not_several() -> None:
    document = plans.plan([plans.stage("s1", "scan", "source", 1)], [])
    assert "1 stage as a table" in Tree(Plan(document).html()).text
    assert (
        "2 stages and their edges as a table"
        in Tree(Plan(plans.plan([plans.stage("a", "a", "x", 1), plans.stage("b", "b", "x", 1)], [])).html()).text
    )


def test_agents_are_sorted_as_people_count() -> None:
    items = plans.tasks("s1", 12, 120, 5.0)
    for place, task in enumerate(reversed(items)):
        task["agent"] = f"agent-{place}"
    document = plans.plan([plans.stage("s1", "scan", "source", 1, tasks=items)], [])
    names = re.findall(r">(agent-\d+)<", Plan(document).html())
    assert names == 2 * [f"agent-{place}" for place in range(12)]


def test_nothing_shown_is_read_as_mathematics() -> None:
    document = plans.q3()
    document["stages"][0]["label"] = "filter $5 · join $10"
    for html in (Plan(document).html(), Plan(plans.single()).html(opened=True), Plan(plans.single()).why_single_html()):
        assert html.startswith('<div class="')
        assert "tex2jax_ignore mathjax_ignore" in html.partition(">")[0]


def test_no_part_of_a_page_of_many_plans_is_a_landmark() -> None:
    tags = Tree(Plan(plans.q3()).html(opened=True)).tags
    assert {attributes.get("role") for _, attributes in tags} == {None, "group", "img"}
    assert all(attributes.get("aria-label") for _, attributes in tags if attributes.get("tabindex"))


def test_the_slowest_stage_is_named_by_what_it_is_for() -> None:
    document = plans.q3()
    steps = [f"scan a_table_with_a_long_name_{place}" for place in range(8)]
    document["stages"][3] |= {"label": " · ".join([*steps, "inner join"]), "tasks": plans.tasks("s4", 4, 40, 610)}
    document["edges"][2] |= {"partition_bytes": [], "rows_estimated": None}
    finding = next(line for line in Plan(document).text(width=300).splitlines() if "of the time" in line)
    assert finding.endswith("inner join")
    assert "… · " in finding
