"""The plan unrolled to a tree, from the result down to the sources."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sabot_sql.plan_view.model import RESULT, EdgeView, PlanModel, StageView


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A stage under its consumer, with the edge between them.

    ``last`` says for every ancestor level whether nothing follows there; ``repeated``: its inputs stand further above,
    where it feeds another consumer.
    """

    stage: StageView
    edge: EdgeView | None
    depth: int
    repeated: bool
    last: tuple[bool, ...]


def tree_rows(plan: PlanModel) -> Iterator[TreeRow]:
    """All stages, consumers before producers; one that feeds several consumers comes once for each."""
    seen: set[str] = set()

    def walk(stage: StageView, edge: EdgeView | None, last: tuple[bool, ...]) -> Iterator[TreeRow]:
        repeated = stage.stage_id in seen
        seen.add(stage.stage_id)
        yield TreeRow(stage, edge, len(last) - 1, repeated, last)
        if repeated:
            return
        inputs = [(item, plan.stage(item.source)) for item in plan.inputs_of(stage.stage_id)]
        known = [(item, source) for item, source in inputs if source is not None]
        for index, (item, source) in enumerate(known):
            yield from walk(source, item, (*last, index == len(known) - 1))

    roots: list[tuple[StageView, EdgeView | None]] = []
    for output in plan.inputs_of(RESULT):
        root = plan.stage(output.source)
        if root is not None:
            roots.append((root, output))
    roots += [(stage, None) for stage in plan.sinks if all(stage is not other for other, _ in roots)]
    for index, (stage, edge) in enumerate(roots):
        yield from walk(stage, edge, (index == len(roots) - 1,))
