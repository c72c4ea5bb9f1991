"""Cut a distributed plan at its exchanges: stages become operators, exchanges become shuffle edges.

A stage keeps everything between two exchanges; its SQL is one SELECT over the relations that its scans and incoming
edges are bound to. A common table expression that several stages read is a stage of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from sabot_planner.fragments.display import DisplayNames
from sabot_planner.fragments.first_rows import searching_tasks
from sabot_planner.fragments.fragment_sql import FragmentWriter
from sabot_planner.fragments.labels import operator_label, operator_type
from sabot_planner.fragments.stage_names import direct_reference
from sabot_planner.job.operator_graph import OperatorGraph, ResultParts
from sabot_planner.job.operators import Decided, Operator, Placement, ScanInput, ShuffleEdge, ShuffleEdgeType
from sabot_planner.job.plan import PlanSettings
from sabot_planner.logical.expressions import is_narrowing
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Node, rewrite, walk
from sabot_planner.logical.nodes import CteRef, GroupBy, Limit, Project, Shared
from sabot_planner.logical.ordering import sort_key_call
from sabot_planner.physical.nodes import CutRef, Exchange, Reread, TaskScan, own_nodes
from sabot_planner.sql.dialect import call, to_sql
from sabot_planner.sql.duck_type import BLOB, UBIGINT, is_restored, is_written
from sabot_planner.sql.edge_values import restored, written
from sabot_planner.sql.scalars import column, substitute

_MOST_BUCKETS = 256
"""Estimates may be wrong by orders of magnitude, and every bucket is an open batch in every task that writes."""

_SPREADING = (ShuffleEdgeType.HASH, ShuffleEdgeType.RANGE, ShuffleEdgeType.REBALANCE)


@dataclass(frozen=True, slots=True)
class CutContext:
    """What ``cut`` needs besides the plan itself. ``buckets`` is the number of partitions of every HASH edge."""

    ordered: bool
    width: int
    buckets: int
    settings: PlanSettings
    display: DisplayNames
    names: PlanNames
    root_stage: str
    result_parts: ResultParts | None = None


@dataclass(frozen=True, slots=True)
class OpenEdges:
    """What may still be decided of exchanges while the query runs.

    ``waits`` maps an exchange to others that must be measured before the first one's stage starts; ``splittable``
    are those of which a heavy partition may be shared out.
    """

    waits: Mapping[Exchange, tuple[Exchange, ...]] = field(default_factory=dict)
    splittable: frozenset[Node] = frozenset()


def bucket_count(root: Node, width: int, settings: PlanSettings) -> int:
    """The hash buckets of a plan's edges: one number, since what is joined bucket by bucket must have as many.

    So many that a bucket of the largest edge, by its estimate, is about half a memory grant: a bucket is the least that
    a task can be given when memory is short.
    """
    if settings.partitions is not None:
        return width
    hashed = (
        n.estimate.bytes for n in walk(root) if isinstance(n, Exchange) and _written_as(n) is ShuffleEdgeType.HASH
    )
    needed = -(-2 * max(hashed, default=0) // settings.grant_bytes) if settings.grant_bytes else 0
    fewest = width * settings.buckets_per_agent
    return max(fewest, min(needed, _MOST_BUCKETS))


def cut(root: Node, cut_context: CutContext, still_open: OpenEdges) -> OperatorGraph:
    """The operator graph of a distributed plan whose shared expressions are marked by :func:`mark_shared`."""
    cutter = _Cutter(cut_context, still_open)
    sink = cutter.stage(root, cut_context.root_stage)
    edges = [draft.edge(cutter) for draft in cutter.edges]  # first: a second reading may bring a stage back
    operators = tuple(cutter.operator(stage) for stage in cutter.stages)
    read = tuple(replace(edge, reads=cutter.reads[edge.edge_id]) for edge in edges)
    return OperatorGraph(operators, read, sink.operator_id, cut_context.ordered, cut_context.result_parts)


def mark_shared(root: Node) -> Node:
    """The plan with every reading of an expression that has a stage of its own marked as a leaf.

    It has one where more than one stage reads it, and where it is to be computed apart from what reads it.
    """
    homes: dict[str, set[Node]] = {}
    cut_ids: set[str] = set()
    for top in [root, *(n.input for n in walk(root) if isinstance(n, Exchange))]:
        for node in own_nodes(top):
            if isinstance(node, CteRef):
                homes.setdefault(node.shared.cte_id, set()).add(top)
                if node.shared.apart:
                    cut_ids.add(node.shared.cte_id)
    cut_ids |= {cte_id for cte_id, tops in homes.items() if len(tops) > 1}
    if not cut_ids:
        return root

    def mark(node: Node) -> Node:
        if isinstance(node, CteRef) and node.shared.cte_id in cut_ids:
            return CutRef(node, node.names)
        if isinstance(node, Project) and isinstance(node.input, CutRef) and is_narrowing(node):
            return replace(node.input, columns_read=node.columns)
        return node

    return rewrite(root, mark)


@dataclass(slots=True, eq=False)
class _Stage:
    """A stage while it is collected; ``extra`` are the columns that place its rows on its outgoing edges."""

    operator_id: str
    root: Node
    leaves: dict[Node, str] = field(default_factory=dict)
    read: dict[Node, str] = field(default_factory=dict)
    """The edges that leaves read."""
    scans: list[ScanInput] = field(default_factory=list)
    extra: list[Computed] = field(default_factory=list)
    parallel: bool = False
    placement: Placement = Placement.ANY
    apart: bool = False
    after: list[Exchange] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _RereadDraft:
    """A second reading of an edge, before the stage that wrote it has a name."""

    edge_id: str
    node: Reread
    target: _Stage

    def edge(self, cutter: _Cutter) -> ShuffleEdge:
        """The finished edge: as the first one was written, read whole."""
        first = cutter.draft_of(self.node.exchange, self.target).edge(cutter)
        return replace(
            first,
            edge_id=self.edge_id,
            target=self.target.operator_id,
            edge_type=ShuffleEdgeType.BROADCAST,
            written_as=first.write_type,
            rereads=first.edge_id,
            splittable=False,
            decided=Decided.RUN,
            reason=self.node.reason,
        )


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
    hashed: tuple[exp.Expression, ...] = ()
    rereads: str | None = None

    def edge(self, cutter: _Cutter) -> ShuffleEdge:
        """The finished edge."""
        node = self.exchange
        if node is None:
            return ShuffleEdge(
                self.edge_id,
                self.source.operator_id,
                self.target.operator_id,
                self.edge_type,
                columns=cutter.shared_columns(self.source),
                reason="a shared expression, computed once",
                rereads=self.rereads,
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
            written_as=node.written_as,
            splittable=node in cutter.splittable,
            bounds_partitions=cutter.width if node.edge_type is ShuffleEdgeType.RANGE else 1,
            rows_estimated=node.estimate.rows,
            bytes_estimated=node.estimate.bytes,
            decided=node.adaptivity.decided,
            reason=node.reason,
            key_sql=tuple(map(to_sql, self.hashed)),
            estimated_by=node.estimate.by,
        )


class _Cutter:
    def __init__(self, cut_context: CutContext, still_open: OpenEdges) -> None:
        self.display = cut_context.display
        self.width = cut_context.width
        self.buckets = cut_context.buckets
        self.settings = cut_context.settings
        self._waits = still_open.waits
        self.splittable = still_open.splittable
        self.stages: list[_Stage] = []
        self.edges: list[_Draft | _RereadDraft] = []
        self._shared: dict[Shared, _Stage] = {}
        self._kept: dict[str, _Draft] = {}
        self.reads: Counter[str] = Counter()
        """Edge → how often its target names it."""

    def stage(self, root: Node, stage_id: str) -> _Stage:
        """The stage whose root is ``root``, after all that it reads."""
        stage = _Stage(stage_id, root)
        for node in own_nodes(root):
            if isinstance(node, TaskScan):
                self._read_scan(node, stage)
            elif isinstance(node, Exchange):
                self._read_exchange(node, stage)
            elif isinstance(node, CutRef):
                self._read_shared(node, stage)
            elif isinstance(node, Reread):
                self._read_again(node, stage)
        self.stages.append(stage)
        return stage

    def _read_scan(self, node: TaskScan, stage: _Stage) -> None:
        name = f"scan_{len(stage.scans)}"
        stage.leaves[node] = name
        stage.scans.append(ScanInput(name, node.scan.source.source_id, node.scan.names, node.sliced, node.split))
        stage.parallel |= node.sliced
        if node.scan.source.placement is Placement.SESSION:
            stage.placement = Placement.SESSION

    def _read_exchange(self, node: Exchange, stage: _Stage) -> None:
        draft = self._draft(node, stage)
        self.edges.append(draft)
        stage.parallel |= not node.gather and node.edge_type in _SPREADING
        renamed = direct_reference(node.input) is not None
        stage.read[node] = draft.edge_id
        stage.leaves[node] = self._edge_relation(draft.edge_id, node, renamed)

    def _draft(self, node: Exchange, target: _Stage) -> _Draft:
        cut_ref = direct_reference(node.input)
        back: dict[str, exp.Expression] = {}
        if cut_ref is None:
            source, columns = self.stage(node.input, node.stage_id), node.input.columns
            source.after.extend(self._waits.get(node, ()))
        else:
            # The shared stage writes this edge itself; it knows the columns under its own names.
            reference = cut_ref.reference
            source = self._shared_stage(cut_ref)
            own = dict(zip(reference.names, reference.shared.columns, strict=True))
            back = {name: column(own[name]) for name in reference.names}
            columns = tuple(own[name] for name in node.columns)
        draft = _Draft(node.edge_id, source, target, node.edge_type, columns, exchange=node)
        self._place_rows(draft, node, back)
        return draft

    def _place_rows(self, draft: _Draft, node: Exchange, back: dict[str, exp.Expression]) -> None:
        if _written_as(node) is ShuffleEdgeType.HASH:
            draft.partition_by = f"h_{draft.edge_id}"
            draft.hashed = tuple(substitute(k, back) for k in node.keys)
            value = Computed(draft.partition_by, call("hash", *draft.hashed), UBIGINT)
        elif node.edge_type is ShuffleEdgeType.RANGE:
            draft.partition_by = f"k_{draft.edge_id}"
            value = Computed(draft.partition_by, sort_key_call(node.sort_keys, back), BLOB)
        else:
            return
        draft.source.extra.append(value)

    def _read_shared(self, node: CutRef, stage: _Stage) -> None:
        reference = node.reference
        source = self._shared_stage(node)
        edge_id = node.edge_id
        own = dict(zip(reference.names, reference.shared.columns, strict=True))
        columns = tuple(own[name] for name in node.columns)
        # All readings read one output, named for what is shared: readers come and go when a plan is revised.
        output = f"shared_{reference.shared.cte_id}"
        draft = _Draft(edge_id, source, stage, ShuffleEdgeType.FORWARD, columns, rereads=output)
        self.edges.append(draft)
        stage.parallel |= source.parallel
        items = ", ".join(f"{own[name]} AS {name}" for name in node.columns)
        stage.read[node] = edge_id
        stage.leaves[node] = self._restored(f"(SELECT {items} FROM {edge_id})", node)

    def shared_columns(self, source: _Stage) -> tuple[str, ...]:
        """The columns that any reading of a shared expression needs, under its own names."""
        readings = [d for d in self.edges if isinstance(d, _Draft) and d.source is source and d.exchange is None]
        read = {name for draft in readings for name in draft.columns}
        return tuple(name for name in source.root.columns if name in read)

    def _edge_relation(self, edge_id: str, node: Node, renamed: bool) -> str:
        """What a fragment reads an exchange as: its columns under the names of ``node``, every value as it was."""
        relation = f"{edge_id} AS r_{edge_id}({', '.join(node.columns)})" if renamed else edge_id
        return self._restored(relation, node)

    def _restored(self, relation: str, node: Node) -> str:
        """The relation of an edge with every value as it was before it travelled."""
        if not any(map(is_restored, node.schema.values())):
            return relation
        items = [f"{restored(name, t)} AS {name}" if is_restored(t) else name for name, t in node.schema.items()]
        return f"(SELECT {', '.join(items)} FROM {relation})"

    def _written(self, stage: _Stage, sql: str) -> str:
        """The fragment of a stage with every value as it travels."""
        schema = stage.root.schema
        if not any(map(is_written, schema.values())):
            return sql
        items = [f"{written(name, t)} AS {name}" if is_written(t) else name for name, t in schema.items()]
        return f"SELECT {', '.join([*items, *(e.name for e in stage.extra)])} FROM ({sql})"

    def _read_again(self, node: Reread, stage: _Stage) -> None:
        draft = _RereadDraft(node.edge_id, node, stage)
        self.edges.append(draft)
        stage.read[node] = draft.edge_id
        # The columns of an edge that a shared stage writes have that stage's names.
        stage.leaves[node] = self._edge_relation(draft.edge_id, node, renamed=True)

    def draft_of(self, exchange: Exchange, reader: _Stage) -> _Draft:
        """The edge of an exchange, or of what it became; for ``reader`` alone where nothing else reads it any more."""
        edge_id = exchange.edge_id
        found = (d for d in self.edges if isinstance(d, _Draft) and d.edge_id == edge_id)
        draft = next(found, None) or self._kept.get(edge_id)
        if draft is None:
            draft = self._kept[edge_id] = self._draft(exchange, reader)
        return draft

    def _shared_stage(self, reading: CutRef) -> _Stage:
        shared = reading.reference.shared
        known = self._shared.get(shared)
        if known is None:
            known = self._shared[shared] = self.stage(shared.input, reading.stage_id)
            known.apart = shared.apart
        return known

    def partitions(self, node: Exchange) -> int:
        """How many partitions each producer task writes."""
        if _written_as(node) is ShuffleEdgeType.HASH:
            return self.buckets
        return self.width if _written_as(node) is ShuffleEdgeType.REBALANCE and not node.gather else 1

    def operator(self, stage: _Stage) -> Operator:
        """The finished operator of a stage."""

        def leaf(node: Node) -> str:
            if node in stage.read:
                self.reads[stage.read[node]] += 1
            return stage.leaves[node]

        writer = FragmentWriter(leaf, (TaskScan, Exchange, CutRef, Reread))
        sql = writer.write(stage.root, tuple(stage.extra))
        drafts = [*(d for d in self.edges if isinstance(d, _Draft)), *self._kept.values()]
        sql = self._written(stage, sql)
        gathered = all(d.exchange is not None and d.exchange.gather for d in drafts if d.source is stage)
        limit = stage.root if isinstance(stage.root, Limit) and gathered else None
        parallelism = self.width if stage.parallel and stage.placement is Placement.ANY else 1
        if limit is not None and parallelism > 1 and self.settings.adaptive and self.settings.partitions is None:
            parallelism = searching_tasks(limit, parallelism)
        return Operator(
            stage.operator_id,
            operator_type(stage.root),
            sql,
            parallelism=parallelism,
            scans=tuple(stage.scans),
            placement=stage.placement,
            start_after=tuple(dict.fromkeys(self.draft_of(e, stage).source.operator_id for e in stage.after)),
            first_rows=limit.limit if limit is not None else None,
            label=operator_label(stage.root, self.display),
            exports_states=any(map(_exports_states, own_nodes(stage.root))),
            apart=stage.apart,
        )


def _exports_states(node: Node) -> bool:
    return isinstance(node, GroupBy) and any(a.expression.args.get("export_state") for a in node.aggregates)


def _written_as(node: Exchange) -> ShuffleEdgeType:
    return node.written_as or node.edge_type
