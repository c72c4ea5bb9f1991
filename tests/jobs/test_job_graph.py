"""What can be known of a job graph without data: its shape, its keys, and what an option means."""

from __future__ import annotations

from typing import Any

import pytest

from sabot_sql import JobError, JobGraph, OperatorType, SessionTable, StreamOperatorNode

T = OperatorType


def op(kind: OperatorType, name: str, parallelism: int = 1, **more: Any) -> StreamOperatorNode:
    return StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **more)


def graph(*nodes: StreamOperatorNode, edges: str = "") -> JobGraph:
    job = JobGraph("job")
    for node in nodes:
        job.add_operator(node)
    for edge in edges.split():
        job.connect(*edge.split(">"))
    return job


def test_ids_are_made_where_none_is_given() -> None:
    first, second = (StreamOperatorNode(operator_type=T.SOURCE) for _ in range(2))
    assert first.operator_id != second.operator_id
    assert first.operator_id.startswith("source-")


def test_topological_sort_puts_readers_after_what_they_read() -> None:
    job = graph(op(T.SINK, "d"), op(T.MAP, "b"), op(T.MAP, "c"), op(T.SOURCE, "a"), edges="a>b a>c b>d")
    order = job.topological_sort()
    assert sorted(order) == list("abcd")
    assert all(order.index(c.source) < order.index(c.target) for c in job.connections)


def refused(job: JobGraph, code: str, *words: str) -> None:
    with pytest.raises(JobError) as caught:
        job.to_execution_graph()
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_cycle_is_named() -> None:
    job = graph(op(T.SOURCE, "s"), op(T.MAP, "a"), op(T.MAP, "b"), edges="a>b b>a")
    with pytest.raises(JobError, match=r"a -> b -> a|b -> a -> b") as caught:
        job.topological_sort()
    assert caught.value.code == "CYCLE"


def test_an_unknown_operator_is_named_with_those_there_are() -> None:
    job = graph(op(T.SOURCE, "s"))
    with pytest.raises(JobError, match="no operator 'x'; it has s") as caught:
        job.connect("s", "x")
    assert caught.value.code == "UNKNOWN_OPERATOR"


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        (JobGraph("empty"), "EMPTY_JOB", ("no operators",)),
        (graph(op(T.SOURCE, "a"), op(T.SOURCE, "b"), edges="a>b"), "SHAPE", ("SOURCE reads no operator", "a")),
        (graph(op(T.MAP, "m")), "SHAPE", ("MAP reads one input, but it has 0",)),
        (graph(op(T.SOURCE, "a"), op(T.JOIN, "j"), edges="a>j"), "SHAPE", ("joins two inputs, but it has 1",)),
        (graph(op(T.SOURCE, "a"), op(T.UNION, "u"), edges="a>u"), "SHAPE", ("two inputs or more",)),
        (graph(op(T.SOURCE, "a"), op(T.SINK, "s"), op(T.MAP, "m"), edges="a>s s>m"), "SHAPE", ("read a SINK",)),
        (graph(op(T.SOURCE, "a"), op(T.GROUP_BY, "g", 2), edges="a>g"), "KEYS", ("one group", "parallelism=1")),
        (graph(op(T.SOURCE, "a"), op(T.REDUCE, "g", 2), edges="a>g"), "KEYS", ("REDUCE",)),
        (graph(op(T.SOURCE, "a"), op(T.WINDOW, "w", 2), edges="a>w"), "KEYS", ("one window",)),
        (graph(op(T.SOURCE, "a"), op(T.MAP, "m", 2, stateful=True), edges="a>m"), "KEYS", ("state",)),
        (graph(op(T.SOURCE, "a"), op(T.SORT, "s", 2), edges="a>s"), "KEYS", ("order_by",)),
        (
            graph(op(T.SOURCE, "a"), op(T.SOURCE, "b"), op(T.JOIN, "j", 2), edges="a>j b>j"),
            "KEYS",
            ("belong together", "broadcast=True"),
        ),
        (
            graph(op(T.SOURCE, "a"), op(T.SINK, "x", sink=SessionTable("t")), op(T.SINK, "y", sink=SessionTable("t")),
                  edges="a>x a>y"),
            "DUPLICATE_SINK",
            ("'x' and 'y' both write table t",),
        ),
        (
            graph(op(T.SOURCE, "a"), op(T.SINK, "x"), op(T.SINK, "y"), edges="a>x a>y"),
            "DUPLICATE_SINK",
            ("both write the result",),
        ),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_the_reason(job: JobGraph, code: str, words: tuple[str, ...]) -> None:
    refused(job, code, *words)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"parallelism": 0}, "PARALLELISM", "parallelism=0 must be a whole number from 1"),
        ({"parallelism": True}, "PARALLELISM", "parallelism=True"),
        ({"parallelism": 2.0}, "PARALLELISM", "parallelism=2.0"),
        ({"parallelism": 4, "max_parallelism": 3}, "PARALLELISM", "above max_parallelism=3"),
        ({"operator_id": "../x"}, "OPERATOR_ID", "must match"),
        ({"operator_type": "shuffle"}, "OPERATOR_TYPE", "none of SOURCE, MAP"),
        ({"key_by": ["a", "a"]}, "KEYS", "different names"),
        ({"memory_mb": 0}, "RESOURCES", "above 0"),
        ({"cpu_cores": "two"}, "RESOURCES", "above 0"),
        ({"sql": "FROM input", "function": len}, "OPTIONS_EXCLUDE", "sql and function both say"),
        ({"function": 3}, "OPTION_TYPE", "cannot be called"),
        ({"tables": {"t": 1}, "function": len}, "OPTIONS_EXCLUDE", "a function has none"),
        ({"operator_type": T.TUMBLING_WINDOW}, "OPTION_MISSING", "needs time_column"),
        ({"operator_type": T.SLIDING_WINDOW, "time_column": "t", "size": "1 h"}, "OPTION_MISSING", "needs slide"),
        ({"operator_type": T.SESSION_WINDOW, "time_column": "t"}, "OPTION_MISSING", "needs gap"),
        ({"operator_type": T.JOIN, "how": "outer"}, "JOIN_KIND", "none of inner"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(JobError, match=words.replace("(", r"\(")) as caught:
        StreamOperatorNode(**{"operator_type": T.MAP, "operator_id": "m", **options})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (T.SOURCE, {"key_by": ["a"]}),
        (T.SOURCE, {"stateful": True}),
        (T.MAP, {"where": "a > 1"}),
        (T.MAP, {"aggregates": {"n": "count(*)"}}),
        (T.MAP, {"order_by": ["a"]}),
        (T.MAP, {"source": "x.parquet"}),
        (T.MAP, {"sink": "x.parquet"}),
        (T.MAP, {"size": "1 hour"}),
        (T.GROUP_BY, {"function": len}),
        (T.SORT, {"sql": "FROM input ORDER BY a"}),
        (T.UNION, {"sql": "FROM input"}),
        (T.DISTINCT, {"sql": "SELECT DISTINCT * FROM input"}),
        (T.GROUP_BY, {"how": "left"}),
        (T.WINDOW, {"gap": "1 hour"}),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(kind: OperatorType, options: dict[str, Any]) -> None:
    with pytest.raises(JobError, match="means nothing for") as caught:
        op(kind, "o", **options)
    assert caught.value.code == "OPTION_NOT_MEANT"


def test_every_type_has_a_base_type() -> None:
    base = {kind: op(kind, "o", **_needed(kind)).base_type for kind in OperatorType}
    assert set(base.values()) == {
        T.SOURCE,
        T.MAP,
        T.FILTER,
        T.FLAT_MAP,
        T.JOIN,
        T.GROUP_BY,
        T.WINDOW,
        T.SORT,
        T.UNION,
        T.SINK,
    }


def _needed(kind: OperatorType) -> dict[str, Any]:
    needed: dict[OperatorType, dict[str, Any]] = {
        T.TUMBLING_WINDOW: {"time_column": "t", "size": "1 hour"},
        T.SLIDING_WINDOW: {"time_column": "t", "size": "1 hour", "slide": "1 minute"},
        T.SESSION_WINDOW: {"time_column": "t", "gap": "1 hour"},
    }
    return needed.get(kind, {})
