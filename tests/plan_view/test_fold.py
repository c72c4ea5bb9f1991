"""Equal branches of a plan are drawn as one."""

from __future__ import annotations

from typing import Any

from sabot_sql.plan_view import Plan
from sabot_sql.plan_view.fold import folded
from sabot_sql.plan_view.model import read_plan
from tests.plan_view import plans


def branches(count: int, *, odd_label: str = "scan sales") -> dict[str, Any]:
    """``count`` branches of five stages into one."""
    stages: list[Any] = []
    edges: list[Any] = []
    for branch in range(count):
        names = [f"s{branch * 5 + place}" for place in range(5)]
        labels = [odd_label if branch == 1 else "scan sales", "scan stores", "join", "group by k", "limit"]
        for name, label in zip(names, labels, strict=True):
            stages.append(plans.stage(name, label, "map", 10, tasks=plans.tasks(name, 2, 10, 5.0)))
        a, b, join, group, last = names
        edges += [
            plans.edge(f"{a}a", "HASH", a, join, 100, keys=["k"], rows_estimated=90),
            plans.edge(f"{a}b", "BROADCAST", b, join, 10),
            plans.edge(f"{a}c", "HASH", join, group, 50, keys=["k"]),
            plans.edge(f"{a}d", "RANGE", group, last, 5, keys=["n"]),
            plans.edge(f"{a}e", "REBALANCE", last, "top", 5),
        ]
    stages.append(plans.stage("top", "union all", "set", 5 * count, tasks=plans.tasks("top", 1, 5 * count, 2.0)))
    return plans.plan(stages, [*edges, plans.edge("r", "FORWARD", "top", "result", 5 * count)])


def test_fifty_one_stages_of_ten_equal_branches_are_six() -> None:
    plan = folded(read_plan(branches(10)))
    assert [(stage.name, stage.parallelism) for stage in plan.stages] == [
        *((f"s{place} ×10", 40) for place in range(5)),
        ("top", 4),
    ]
    first = next(edge for edge in plan.edges if edge.source == "s0")
    assert (first.rows, first.bytes, first.rows_estimated) == (1_000, 24_000, 900)
    assert sum(len(stage.tasks) for stage in plan.stages) == sum(len(s["tasks"]) for s in branches(10)["stages"])


def test_every_view_folds_and_still_counts_all_stages() -> None:
    plan = Plan(branches(10))
    assert plan.svg().count("×10</text>") == 5
    assert "51 stages" in plan.svg()
    assert plan.text().count("│ s") == 5
    assert "51 stages · 50 shuffles" in plan.text()
    assert "s3 ×10" in plan.html()
    assert len(plan.svg()) < 12_000


def test_what_differs_is_drawn_apart() -> None:
    names = [stage.name for stage in folded(read_plan(branches(10, odd_label="scan other"))).stages]
    assert [name for name in names if "×" not in name] == [f"s{i}" for i in range(5, 10)] + ["top"]
    assert [name for name in names if "×" in name] == [f"s{i} ×9" for i in range(5)]


def test_two_equal_branches_and_shared_stages_stay_as_they_are() -> None:
    for document in (branches(2), plans.shared_stage(), plans.q3()):
        plan = read_plan(document)
        assert folded(plan) == plan


def test_a_stage_that_others_read_as_well_is_not_folded_away() -> None:
    document = branches(10)
    document["edges"].append(plans.edge("x", "BROADCAST", "s3", "s9", 1))
    known = {stage.stage_id for stage in folded(read_plan(document)).stages}
    assert {"s0", "s1", "s2", "s3", "s4"} <= known


def test_a_fold_is_as_far_as_its_slowest_branch() -> None:
    document = branches(3)
    document["stages"][5]["state"] = "running"
    assert next(stage.state for stage in folded(read_plan(document)).stages if stage.stage_id == "s0") == "running"
    document["stages"][0]["state"] = "failed"
    assert next(stage.state for stage in folded(read_plan(document)).stages if stage.stage_id == "s0") == "failed"
