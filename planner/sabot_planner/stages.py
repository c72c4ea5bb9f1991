"""Cut a distributed plan at its exchanges: stages become operators, exchanges become shuffle edges.

A stage keeps everything between two exchanges; its SQL is one SELECT over the relations that its scans and incoming
edges are bound to. A common table expression that several stages read is a stage of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from sabot_planner.dialect import call
from sabot_planner.display import DisplayNames
from sabot_planner.fragment import FragmentWriter, is_narrowing
from sabot_planner.job_graph import JobGraph
from sabot_planner.labels import operator_label, operator_type
from sabot_planner.logical import Computed, CteRef, Node, Project, Shared, SortKey, rewrite, walk
from sabot_planner.operators import Placement, ScanInput, ShuffleEdge, ShuffleEdgeType, StreamOperatorNode
from sabot_planner.physical import Exchange, TaskScan
from sabot_planner.plan import PlanSettings
from sabot_planner.scalars import column, literal, substitute

_SPREADING = (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE, ShuffleEdgeType.REBALANCE)


def cut(root: Node, ordered: bool, width: int, settings: PlanSettings, display: DisplayNames) -> JobGraph:
    """The job graph of a distributed plan; ``ordered`` says that its result has a promised order."""
    cutter = _Cutter(width, settings, display)
    sink = cutter.stage(_with_cut_ctes(root))
    operators = tuple(cutter.operator(stage) for stage in cutter.stages)
    return JobGraph(operators, tuple(draft.edge(cutter) for draft in cutter.edges), sink.operator_id, ordered)


@dataclass(frozen=True, eq=False)
class _CutRef(Node):
    """A reading of a shared expression that another stage computes."""

    reference: CteRef

    @property
    def columns(self) -> tuple[str, ...]:
        return self.reference.names


def _with_cut_ctes(root: Node) -> Node:
    """The plan with every reading of an expression that more than one stage reads marked as a leaf."""
    homes: dict[str, set[int]] = {}
    for top in [root, *(n.input for n in walk(root) if isinstance(n, Exchange))]:
        for node in _own_nodes(top):
            if isinstance(node, CteRef):
                homes.setdefault(node.shared.cte_id, set()).add(id(top))
    cut_ids = {cte_id for cte_id, tops in homes.items() if len(tops) > 1}
    if not cut_ids:
        return root
    return rewrite(root, lambda n: _CutRef(n) if isinstance(n, CteRef) and n.shared.cte_id in cut_ids else n)


def _own_nodes(top: Node) -> list[Node]:
    """The nodes of the stage whose root is ``top``."""
    found: list[Node] = []
    stack = [top]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            found.append(node)
            if not isinstance(node, Exchange):
                stack.extend(node.inputs)
    return found


@dataclass(slots=True, eq=False)
class _Stage:
    """A stage while it is collected; ``extra`` are the columns that place its rows on its outgoing edges."""

    operator_id: str
    root: Node
    leaves: dict[int, str] = field(default_factory=dict)
    scans: list[ScanInput] = field(default_factory=list)
    extra: list[Computed] = field(default_factory=list)
    parallel: bool = False
    placement: Placement = Placement.ANY


@dataclass(slots=True, eq=False)
class _Draft:
    """An edge before its target stage has a name."""

    edge_id: str
    source: _Stage
    target: _Stage
    edge_type: ShuffleEdgeType
    columns: tuple[str, ...]
    partition_by: str | None = None
    exchange: Exchange | None = None

    def edge(self, cutter: _Cutter) -> ShuffleEdge:
        """The finished edge."""
        node = self.exchange
        if node is None:
            return ShuffleEdge(
                self.edge_id,
                self.source.operator_id,
                self.target.operator_id,
                self.edge_type,
                columns=self.columns,
                reason="a shared expression, computed once",
            )
        display = cutter.display
        keys = tuple(map(display.expression, node.keys)) or tuple(map(display.key, node.sort_keys))
        return ShuffleEdge(
            self.edge_id,
            self.source.operator_id,
            self.target.operator_id,
            self.edge_type,
            keys=keys,
            partitions=cutter.partitions(node),
            partition_by=self.partition_by,
            columns=self.columns,
            bounds_partitions=cutter.width if node.edge_type is ShuffleEdgeType.RANGE else 1,
            rows_estimated=node.rows,
            bytes_estimated=node.bytes,
            decided=node.decided,
            reason=node.reason,
        )


class _Cutter:
    def __init__(self, width: int, settings: PlanSettings, display: DisplayNames) -> None:
        self.display = display
        self.width = width
        self.settings = settings
        self.stages: list[_Stage] = []
        self.edges: list[_Draft] = []
        self._shared: dict[int, _Stage] = {}

    def stage(self, root: Node) -> _Stage:
        """The stage whose root is ``root``, after all that it reads."""
        stage = _Stage("", root)
        for node in _own_nodes(root):
            if isinstance(node, TaskScan):
                self._read_scan(node, stage)
            elif isinstance(node, Exchange):
                self._read_exchange(node, stage)
            elif isinstance(node, _CutRef):
                self._read_shared(node, stage)
        stage.operator_id = f"s{len(self.stages)}"
        self.stages.append(stage)
        return stage

    def _read_scan(self, node: TaskScan, stage: _Stage) -> None:
        name = f"scan_{len(stage.scans)}"
        stage.leaves[id(node)] = name
        stage.scans.append(ScanInput(name, node.scan.source.source_id, node.scan.names, node.sliced))
        stage.parallel |= node.sliced
        if node.scan.source.placement is Placement.SESSION:
            stage.placement = Placement.SESSION

    def _read_exchange(self, node: Exchange, stage: _Stage) -> None:
        cut_ref = _direct_reference(node.input)
        back: dict[str, exp.Expression] = {}
        if cut_ref is None:
            source, columns = self.stage(node.input), node.input.columns
        else:
            # The shared stage writes this edge itself; it knows the columns under its own names.
            reference = cut_ref.reference
            source = self._shared_stage(reference.shared)
            own = dict(zip(reference.names, reference.shared.columns, strict=True))
            back = {name: column(own[name]) for name in reference.names}
            columns = tuple(own[name] for name in node.columns)
        draft = _Draft(f"e{len(self.edges) + 1}", source, stage, node.edge_type, columns, exchange=node)
        self.edges.append(draft)
        self._place_rows(draft, node, back)
        stage.parallel |= not node.gather and node.edge_type in _SPREADING
        stage.leaves[id(node)] = (
            draft.edge_id if cut_ref is None else f"{draft.edge_id} AS r_{draft.edge_id}({', '.join(node.columns)})"
        )

    def _place_rows(self, draft: _Draft, node: Exchange, back: dict[str, exp.Expression]) -> None:
        if node.edge_type is ShuffleEdgeType.HASH:
            draft.partition_by = f"h_{draft.edge_id}"
            value: exp.Expression = call("hash", *(substitute(k, back) for k in node.keys))
        elif node.edge_type is ShuffleEdgeType.RANGE:
            draft.partition_by = f"k_{draft.edge_id}"
            value = _sort_key(node.sort_keys, back)
        else:
            return
        draft.source.extra.append(Computed(draft.partition_by, value))

    def _read_shared(self, node: _CutRef, stage: _Stage) -> None:
        source = self._shared_stage(node.reference.shared)
        draft = _Draft(f"e{len(self.edges) + 1}", source, stage, ShuffleEdgeType.FORWARD, node.reference.shared.columns)
        self.edges.append(draft)
        stage.parallel |= source.parallel
        stage.leaves[id(node)] = f"{draft.edge_id} AS r_{draft.edge_id}({', '.join(node.columns)})"

    def _shared_stage(self, shared: Shared) -> _Stage:
        known = self._shared.get(id(shared))
        if known is None:
            known = self._shared[id(shared)] = self.stage(shared.input)
        return known

    def partitions(self, node: Exchange) -> int:
        """How many partitions each producer task writes."""
        if node.edge_type is ShuffleEdgeType.HASH and self.settings.partitions is None:
            return self.width * self.settings.buckets_per_agent
        spread = node.edge_type in (ShuffleEdgeType.HASH, ShuffleEdgeType.REBALANCE) and not node.gather
        return self.width if spread else 1

    def operator(self, stage: _Stage) -> StreamOperatorNode:
        """The finished operator of a stage."""
        writer = FragmentWriter(lambda node: stage.leaves[id(node)], (TaskScan, Exchange, _CutRef))
        return StreamOperatorNode(
            stage.operator_id,
            operator_type(stage.root),
            writer.write(stage.root, tuple(stage.extra)),
            parallelism=self.width if stage.parallel and stage.placement is Placement.ANY else 1,
            scans=tuple(stage.scans),
            placement=stage.placement,
            label=operator_label(stage.root, self.display),
        )


def _direct_reference(node: Node) -> _CutRef | None:
    """The reading of a cut expression where an exchange moves nothing but its columns."""
    while isinstance(node, Project) and is_narrowing(node):
        node = node.input
    return node if isinstance(node, _CutRef) else None


def _sort_key(keys: tuple[SortKey, ...], back: dict[str, exp.Expression]) -> exp.Expression:
    """DuckDB's binary sort key of an ordering: its bytes compare as the rows do.

    A key of at most eight bytes comes back as a BIGINT unless a text stands at its end; the text is always the same.
    """
    arguments: list[exp.Expression] = []
    for key in keys:
        nulls = "FIRST" if key.nulls_first else "LAST"
        modifiers = f"{'DESC' if key.descending else 'ASC'} NULLS {nulls}"
        arguments += [substitute(key.expression, back), literal(modifiers)]
    return call("create_sort_key", *arguments, literal(""), literal("ASC NULLS LAST"))
