"""Equal branches of a plan as one: ten sub-queries that differ in nothing that is shown are drawn once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sabot_sql.plan_view.model import EdgeView, PlanModel, StageView

_LEAST_COPIES = 3

# The number of what a branch looks like; None where it is no tree, so that something outside would notice its fold.
_Look = int | None


def folded(plan: PlanModel) -> PlanModel:
    """``plan`` with every three or more equal branches into one stage folded to one, which has the sums of all."""
    looks = _looks(plan)
    if not _repeats(plan, looks):
        return plan
    stages: dict[str, StageView] = {}
    edges: list[EdgeView] = []
    todo: list[tuple[str, ...]] = [(stage.stage_id,) for stage in plan.sinks]
    while todo:
        equal = todo.pop()
        if equal[0] in stages:
            continue
        members = [stage for stage in map(plan.stage, equal) if stage is not None]
        stages[equal[0]] = _sum_of_stages(members)
        for group in _groups(plan, looks, equal):
            edges.append(_sum_of_edges(group, target=equal[0]))
            todo.append(tuple(edge.source for edge in group))
    order = {stage.stage_id: place for place, stage in enumerate(plan.stages)}
    results = tuple(edge for edge in plan.edges if plan.stage(edge.target) is None)
    return replace(
        plan,
        stages=tuple(sorted(stages.values(), key=lambda stage: order[stage.stage_id])),
        edges=(*sorted(edges, key=lambda edge: order[edge.source]), *results),
    )


def _repeats(plan: PlanModel, looks: dict[str, _Look]) -> bool:
    groups = (group for stage in plan.stages for group in _groups(plan, looks, (stage.stage_id,)))
    return any(len(group) >= _LEAST_COPIES for group in groups)


def _looks(plan: PlanModel) -> dict[str, _Look]:
    """By stage: how the branch that ends in it looks."""
    looks: dict[str, _Look] = {}
    numbers: dict[object, int] = {}
    for stage in _producers_first(plan):
        inputs = [edge for edge in plan.inputs_of(stage.stage_id) if plan.stage(edge.source)]
        below = [looks.get(edge.source) for edge in inputs]
        if len(plan.outputs_of(stage.stage_id)) != 1 or None in below:
            looks[stage.stage_id] = None
            continue
        read = sorted(zip(map(_edge_look, inputs), map(str, below), strict=True))
        look = (stage.title, stage.type, tuple(read))
        looks[stage.stage_id] = numbers.setdefault(look, len(numbers))
    return looks


def _edge_look(edge: EdgeView) -> tuple[str, tuple[str, ...]]:
    return edge.shown_type, edge.keys


def _producers_first(plan: PlanModel) -> Iterator[StageView]:
    waiting = dict.fromkeys((stage.stage_id for stage in plan.stages), 0)
    for edge in plan.edges:
        if edge.target in waiting and edge.source in waiting:
            waiting[edge.target] += 1
    ready = [stage for stage in plan.stages if not waiting[stage.stage_id]]
    while ready:
        stage = ready.pop()
        yield stage
        for edge in plan.outputs_of(stage.stage_id):
            target = plan.stage(edge.target)
            if target is not None:
                waiting[edge.target] -= 1
                if not waiting[edge.target]:
                    ready.append(target)


def _groups(plan: PlanModel, looks: dict[str, _Look], equal: Sequence[str]) -> list[list[EdgeView]]:
    """The inputs of equal stages, those together that are shown as one."""
    alike: dict[object, list[EdgeView]] = {}
    alone: list[list[EdgeView]] = []
    for stage_id in equal:
        for edge in plan.inputs_of(stage_id):
            if plan.stage(edge.source) is None:
                continue
            look = looks.get(edge.source)
            if look is None:
                alone.append([edge])
            else:
                alike.setdefault((_edge_look(edge), look), []).append(edge)
    for group in alike.values():
        if len(group) >= _LEAST_COPIES * len(equal) or len(equal) > 1:
            alone.append(group)
        else:
            alone += [[edge] for edge in group]
    return alone


def _sum_of_stages(members: Sequence[StageView]) -> StageView:
    first = members[0]
    if len(members) == 1:
        return first
    states = [stage.state for stage in members]
    worst = next((state for state in ("failed", "running", "waiting") if state in states), first.state)
    if worst == "waiting" and "finished" in states:
        worst = "running"
    return replace(
        first,
        parallelism=sum(max(stage.parallelism, 1) for stage in members),
        state=worst,
        rows=_sum([stage.rows for stage in members]),
        tasks=tuple(task for stage in members for task in stage.tasks),
        copies=tuple(stage.stage_id for stage in members),
    )


def _sum_of_edges(group: Sequence[EdgeView], target: str) -> EdgeView:
    # The partitions of the most uneven one are told, for they are what somebody may have to mend.
    first = group[0]
    uneven = max(group, key=lambda edge: max(edge.partition_bytes, default=0))
    return replace(
        uneven,
        edge_id=first.edge_id,
        source=first.source,
        target=target,
        rows=_sum([edge.rows for edge in group]),
        bytes=_sum([edge.bytes for edge in group]),
        rows_estimated=_sum([edge.rows_estimated for edge in group]),
        partial=any(edge.partial for edge in group),
        reason=first.reason,
    )


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
