"""Every kind of node goes through every pass over nodes, and a kind that a pass does not know is refused by it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlglot import exp

import sabot_planner
from sabot_planner import Column, RangeSplit, ShuffleEdgeType, SourceInfo, Zone
from sabot_planner.adapt.empty_joins import may_be_nothing
from sabot_planner.adapt.filter_placement import FilterPlacer
from sabot_planner.adapt.open_joins import placed_anywhere
from sabot_planner.adapt.skewed_joins import splittable_inputs
from sabot_planner.distribute.check import OutputPartitioning
from sabot_planner.distribute.check_order import is_parted_in_order
from sabot_planner.distribute.context import PlacementContext
from sabot_planner.distribute.place import place_node
from sabot_planner.distribute.repeat import is_repeatable
from sabot_planner.errors import PlannerError, Undistributable, UnknownColumn, UnknownNode
from sabot_planner.fragments.display import DisplayNames
from sabot_planner.fragments.fragment_sql import FragmentWriter
from sabot_planner.fragments.labels import operator_label, operator_type
from sabot_planner.logical import limit_by, nodes
from sabot_planner.logical.limit_by import LimitBy
from sabot_planner.logical.names import PlanNames
from sabot_planner.logical.node import Computed, Leaf, Node, Schema, SortKey, Unary, derived, replace_inputs, rewrite
from sabot_planner.logical.nodes import (
    Aggregate,
    CteRef,
    Distinct,
    Filter,
    GroupBy,
    Join,
    JoinKind,
    LateralCall,
    Limit,
    Project,
    RecursiveCte,
    RecursiveRef,
    Sample,
    Scan,
    SetKind,
    SetOp,
    Shared,
    Sort,
    Values,
    Window,
)
from sabot_planner.logical.prune import prune
from sabot_planner.logical.rules.apply import apply_rules
from sabot_planner.physical import nodes as physical
from sabot_planner.physical.nodes import (
    AggregateInPlace,
    CutRef,
    EmptyRelation,
    Exchange,
    FinalAggregate,
    HaloWindow,
    PartialAggregate,
    PartitionId,
    RangeWindow,
    Repeated,
    Reread,
    RowNumber,
    TaskScan,
    own_nodes,
)
from sabot_planner.physical.raising import may_raise
from sabot_planner.sql.dialect import call, data_type
from sabot_planner.sql.duck_type import BIGINT
from sabot_planner.sql.scalars import EquiKey, column, literal
from sabot_planner.stats.clustering import choose_splits, scan_columns
from sabot_planner.stats.estimates import Estimator
from sabot_planner.stats.fingerprints import Identities, same_keys_below
from tests.planner.context import FakeContext

ROOT = Path(sabot_planner.__file__).parent
SOURCE = SourceInfo("t", "t", (Column("k", "BIGINT"),), 10, 100, 4)


def scan(name: str = "c1") -> Scan:
    return Scan(SOURCE, (name,), name)


def number(value: int) -> exp.Expression:
    return exp.Cast(this=exp.Literal(this=str(value), is_string=False), to=data_type("BIGINT"))


def is_positive(name: str) -> exp.Expression:
    return exp.GT(this=column(name), expression=number(0))


def exchange(node: Node, edge_type: ShuffleEdgeType = ShuffleEdgeType.HASH) -> Exchange:
    return Exchange(node, edge_type, keys=(column(node.columns[0]),))


SHARED = Shared(scan("s1"), "u")
REFERENCE = CteRef(SHARED, ("c1",))
SERIES = TaskScan(scan("o1"), sliced=True)
OVER = call("row_number")
KEYS = (Computed("c2", column("c1"), BIGINT),)
COUNT = (Computed("c3", call("count", column("c1")), BIGINT),)
PARTIAL = PartialAggregate(scan(), KEYS, COUNT)
FINAL = FinalAggregate(
    exchange(PARTIAL),
    (Computed("c2", column("c2"), BIGINT),),
    (Computed("c4", call("sum", column("c3")), BIGINT),),
    parts=("c3",),
)
BY_KEY = exp.Window(this=OVER, partition_by=[column("c1")])
NODES: tuple[Node, ...] = (
    scan(),
    Values(("c1",), (BIGINT,), ((number(1),),)),
    Filter(scan(), is_positive("c1")),
    Project(scan(), (Computed("c2", column("c1"), BIGINT),)),
    LateralCall(scan(), call("unnest", call("list_value", column("c1"))), ("c2",), (BIGINT,)),
    Join(JoinKind.INNER, scan(), scan("c2"), exp.EQ(this=column("c1"), expression=column("c2"))),
    Aggregate(scan(), KEYS, COUNT),
    Window(scan(), (column("c1"),), (Computed("c2", BY_KEY, BIGINT),)),
    Sort(scan(), (SortKey(column("c1"), False, False),)),
    Limit(scan(), 3, 1),
    LimitBy(scan(), Values(("c2",), (BIGINT,), ((number(1),),)), column("c2"), None, False),
    Sample(scan(), "10 ROWS"),
    Distinct(scan(), (column("c1"),)),
    SetOp(SetKind.UNION_ALL, (scan(), scan("c2")), ("c3",)),
    SetOp(SetKind.EXCEPT, (scan(), scan("c2")), ("c3",)),
    SHARED,
    REFERENCE,
    RecursiveCte("r", scan(), RecursiveRef("r", ("c2",), (BIGINT,)), True, ("c3",)),
    RecursiveRef("r", ("c1",), (BIGINT,)),
    exchange(scan()),
    Reread(exchange(scan())),
    RowNumber(scan(), "c2"),
    Repeated(scan()),
    HaloWindow(
        scan(),
        exchange(scan("c2"), ShuffleEdgeType.BROADCAST),
        "c1",
        (Computed("c3", BY_KEY, BIGINT),),
    ),
    PARTIAL,
    FINAL,
    AggregateInPlace(scan(), KEYS, COUNT, in_two_phases=FINAL),
    RangeWindow(scan(), (Computed("c2", exp.Window(this=OVER), BIGINT),)),
    PartitionId(SERIES, "c1"),
    EmptyRelation(scan("c2"), {"c1": BIGINT}),
    TaskScan(scan(), sliced=True),
    TaskScan(scan(), True, RangeSplit("k", ("5",))),
    CutRef(REFERENCE, ("c1",)),
)
LOGICAL = tuple(n for n in NODES if type(n).__module__ != physical.__name__)
BASES = {Node, Leaf, Unary, GroupBy}


@dataclass(frozen=True, eq=False)
class Unheard(Node):
    """A kind that no pass was written for."""

    input: Node

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input,)

    @derived
    def schema(self) -> Schema:
        return self.input.schema

    @property
    def expressions(self) -> tuple[exp.Expression, ...]:
        return ()

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        return replace(self, input=inputs[0])


def classes() -> Iterator[type[Node]]:
    for module in (nodes, limit_by, physical):
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Node) and found not in BASES:
                yield found


def test_every_kind_of_node_is_tried() -> None:
    assert {type(node) for node in NODES} == set(classes())


def ident(node: Node) -> str:
    return f"{type(node).__name__} {getattr(node, 'kind', '')}".strip()


# --- what nodes say of themselves


@pytest.mark.parametrize("node", NODES, ids=ident)
def test_a_node_is_the_same_over_other_inputs(node: Node) -> None:
    others = tuple(replace(i) for i in node.inputs)
    moved = replace_inputs(node, others)
    assert (moved is node) is (not others)
    assert moved.inputs == others
    assert moved.schema == node.schema
    assert moved.columns == tuple(node.schema)
    assert len(moved.expressions) == len(node.expressions)


RAISES = call("error", literal("no"))


@pytest.mark.parametrize("node", NODES, ids=ident)
def test_what_must_fail_is_seen_below_every_node(node: Node) -> None:
    assert not may_raise(node)
    if isinstance(node, PartitionId | Reread):
        return  # a series of numbers, and rows that were computed already
    failing = Project(scan("s1"), (Computed("s1", RAISES, BIGINT),))
    if isinstance(node, CutRef):
        assert may_raise(node.with_shared(Shared(failing, "u")))
    elif isinstance(node, CteRef):
        assert may_raise(replace_inputs(node, (Shared(failing, "u"),)))
    for position in range(0 if isinstance(node, CteRef) else len(node.inputs)):
        named = Project(failing, tuple(Computed(c, column("s1"), BIGINT) for c in node.inputs[position].columns))
        assert may_raise(replace_inputs(node, (*node.inputs[:position], named, *node.inputs[position + 1 :])))


def test_what_must_fail_is_seen_in_windows_over_ranges() -> None:
    (window,) = (n for n in NODES if isinstance(n, HaloWindow))
    item = Computed("c3", exp.Window(this=call("lag", RAISES), partition_by=[column("c1")]), BIGINT)
    assert may_raise(replace(window, items=(item,)))


# --- passes


def labels(node: Node) -> None:
    operator_type(node)
    operator_label(node, DisplayNames(scan(), ("k",)))


def write(node: Node) -> None:
    writer = FragmentWriter(lambda leaf: f"r_{leaf.columns[0]}", (TaskScan, Exchange, CutRef, Reread, Scan))
    if isinstance(node, Join) and node.kind is JoinKind.MARK:
        return
    writer.write(node)


def filtered(node: Node) -> None:
    key = EquiKey(column(node.columns[0]), column("x"), False)
    placer = FilterPlacer(lambda _: False)
    placer._deeper(node, (key,), exchange(scan("x")), lambda *_: None)


def in_tasks(node: Node) -> Node:
    """The node over scans as tasks read them."""
    if isinstance(node, CutRef):
        return node.with_shared(in_tasks(node.reference.shared))
    return rewrite(node, lambda inner: TaskScan(inner, sliced=True) if isinstance(inner, Scan) else inner)


def whereabouts(node: Node) -> None:
    try:
        OutputPartitioning().spreads(in_tasks(node))
    except UnknownNode:
        raise
    except PlannerError:
        pass  # it needs its rows in another place, and says so


class Everywhere(OutputPartitioning):
    """Says of all rows that they are spread, and of none that they are alone."""

    def spreads(self, node: Node) -> bool:
        return True

    def is_alone(self, node: Node) -> bool:
        return False


def stands_nothing(node: Node) -> None:
    """Ask whether the node stands it that one of its inputs turns out to be empty."""
    for position, read in enumerate(node.inputs):
        if isinstance(node, Exchange | CteRef | PartitionId):
            continue  # it ends a stage, is read in place of what is shared, or reads a series of numbers
        one, *_ = read.columns
        join = Join(JoinKind.SEMI, read, scan("z1"), exp.EQ(this=column(one), expression=column("z1")))
        reader = replace_inputs(node, (*node.inputs[:position], join, *node.inputs[position + 1 :]))
        may_be_nothing(join, [reader], Everywhere())


PASSES: dict[str, Callable[[FakeContext, Node], object]] = {
    "schema": lambda _, node: node.schema,
    "stage": lambda _, node: own_nodes(node),
    "rows": lambda context, node: Estimator(context, scan("z1")).rows(node),
    "unfiltered rows": lambda context, node: Estimator(context, scan("z1")).whole(node),
    "identity": lambda _, node: Identities().of(node),
    "keys below": lambda _, node: same_keys_below([column(node.columns[0])], node),
    "places": lambda _, node: whereabouts(node),
    "parts": lambda _, node: is_parted_in_order(node),
    "repeated": lambda _, node: is_repeatable(node),
    "split": lambda _, node: splittable_inputs(node),
    "open joins": lambda _, node: placed_anywhere(in_tasks(node), OutputPartitioning()),
    "filter": lambda _, node: filtered(node),
    "labels": lambda _, node: labels(node),
    "names for people": lambda _, node: DisplayNames(node, ("k",) * len(node.columns)),
    "an empty input": lambda _, node: stands_nothing(node),
}
LOGICAL_PASSES: dict[str, Callable[[FakeContext, Node], object]] = {
    "prune": lambda _, node: prune(node),
    "rules": lambda _, node: apply_rules(node, PlanNames("r")),
    "scan columns": lambda _, node: scan_columns(node),
    "splits": lambda context, node: splits(context, node),
    "place": lambda context, node: placed(context, node),
}


class Unclustered(FakeContext):
    """Knows no zones of any source."""

    def zones(self, source_id: str, column: str) -> tuple[Zone, ...] | None:
        return None


def splits(context: FakeContext, node: Node) -> object:
    return choose_splits(node, Unclustered(context.connection), 3)


def placed(context: FakeContext, node: Node) -> object:
    return PlacementContext(context, PlanNames("p"), Estimator(context, node), 3, {}, place_node).place_result(node)


@pytest.mark.parametrize("node", NODES, ids=ident)
@pytest.mark.parametrize("name", PASSES)
def test_every_node_goes_through_every_pass(context: FakeContext, name: str, node: Node) -> None:
    PASSES[name](context, node)


@pytest.mark.parametrize("node", LOGICAL, ids=ident)
@pytest.mark.parametrize("name", LOGICAL_PASSES)
def test_every_logical_node_goes_through_every_pass_of_logical_plans(
    context: FakeContext, name: str, node: Node
) -> None:
    if isinstance(node, RecursiveRef) and name in ("splits", "place"):
        return  # it stands within a recursive expression
    LOGICAL_PASSES[name](context, node)


@pytest.mark.parametrize("node", [n for n in NODES if not isinstance(n, Scan | TaskScan)], ids=ident)
def test_every_node_is_written_as_sql(node: Node) -> None:
    write(node)


@pytest.mark.parametrize("name", sorted({*PASSES, *LOGICAL_PASSES} - {"rules", "schema", "stage"}))
def test_a_pass_refuses_a_node_that_it_does_not_know(context: FakeContext, name: str) -> None:
    with pytest.raises(UnknownNode, match="Unheard"):
        (PASSES | LOGICAL_PASSES)[name](context, Unheard(scan()))


def test_no_sql_is_made_up_for_an_unknown_node() -> None:
    with pytest.raises(PlannerError, match="Unheard"):
        write(Unheard(scan()))


def test_a_node_must_say_what_it_is() -> None:
    bare = object.__new__(Node)
    for ask in (Node, lambda: bare.inputs, lambda: bare.schema, lambda: bare.expressions, lambda: bare.with_inputs(())):
        with pytest.raises(UnknownNode):
            ask()
    assert not issubclass(UnknownNode, Undistributable)


# --- what nodes refuse


@pytest.mark.parametrize("node", [n for n in NODES if n.reads], ids=ident)
def test_a_node_refuses_inputs_that_lack_what_it_reads(node: Node) -> None:
    if isinstance(node, RecursiveCte | CutRef):
        return  # they give the columns that they read their names
    stranger = scan("z9")
    with pytest.raises(UnknownColumn, match=f"{type(node).__name__} reads c.*; the columns there are: .*z9"):
        node.with_inputs(tuple(stranger for _ in node.inputs))


def test_a_reading_of_a_shared_expression_refuses_columns_that_it_lacks() -> None:
    with pytest.raises(UnknownColumn, match="CutRef reads c7; the columns there are: c1"):
        CutRef(REFERENCE, ("c7",))


def test_the_parameter_of_a_lambda_is_no_column() -> None:
    doubled = exp.Lambda(this=call("*", column("x"), column("c1")), expressions=[exp.Identifier(this="x")])
    listed = call("list_transform", call("list_value", column("c1")), doubled)
    assert Filter(scan(), exp.Is(this=listed, expression=exp.Null())).reads == {"c1"}


# --- whether these are all passes

MATCHING = {
    "adapt/empty_joins.may_be_nothing": "an empty input",
    "adapt/filter_placement._deeper": "filter",
    "adapt/open_joins.placed_anywhere": "open joins",
    "adapt/skewed_joins.splittable_inputs": "split",
    "distribute/check._derive": "places",
    "distribute/check._whole": "places",
    "distribute/check_order.is_parted_in_order": "parts",
    "distribute/place.place_node": "place",
    "distribute/repeat.is_repeatable": "repeated",
    "fragments/display._learn": "names for people",
    "fragments/fragment_sql.block": "SQL",
    "fragments/labels._word": "labels",
    "fragments/labels.operator_type": "labels",
    "logical/prune._asked": "prune",
    "logical/prune._pruned": "prune",
    "logical/rules/inline_ctes._fresh_copy": "rules",
    "stats/clustering._classes": "splits",
    "stats/clustering._grouped": "splits",
    "stats/clustering.scan_columns": "scan columns",
    "stats/estimates._guess": "rows",
    "stats/estimates._whole": "unfiltered rows",
    "stats/fingerprints._of": "identity",
    "stats/fingerprints.same_keys_below": "keys below",
}
"""The functions that match nodes, and the pass here that goes through each. SQL has a test of its own."""


def matches() -> Iterator[tuple[str, ast.Match]]:
    """Every ``match`` over nodes in the planner, with the function that holds it."""
    kinds = {kind.__name__ for kind in classes()} | {base.__name__ for base in BASES}
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        functions += [
            f for c in tree.body if isinstance(c, ast.ClassDef) for f in c.body if isinstance(f, ast.FunctionDef)
        ]
        for function in functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Match):
                    patterns = [p for case in node.cases for p in ast.walk(case.pattern)]
                    named = {
                        p.cls.id for p in patterns if isinstance(p, ast.MatchClass) and isinstance(p.cls, ast.Name)
                    }
                    if named & kinds:
                        yield f"{path.relative_to(ROOT).with_suffix('')}.{function.name}", node


def test_every_function_that_matches_nodes_is_a_pass_here() -> None:
    assert {place for place, _ in matches()} == MATCHING.keys()
    assert set(MATCHING.values()) <= {*PASSES, *LOGICAL_PASSES, "SQL"}


def test_no_match_over_nodes_has_a_silent_default() -> None:
    handed_on = {"distribute/check._derive", "stats/clustering._grouped"}
    """To another match, and of three kinds that its argument may have."""
    for place, match in matches():
        last = match.cases[-1]
        assert place in handed_on or isinstance(last.body[0], ast.Raise), place
        assert place == "stats/clustering._grouped" or isinstance(last.pattern, ast.MatchAs), place
