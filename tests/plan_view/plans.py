"""Plan JSON written by hand for the tests of its views."""

from __future__ import annotations

from typing import Any

SQL = "select l_orderkey, sum(l_extendedprice * (1 - l_discount)) as revenue, o_orderdate, o_shippriority from …"


def tasks(stage: str, count: int, rows: int, elapsed_ms: float, started_ms: float = 0.0, **fields: Any) -> list[Any]:
    return [
        {
            "id": f"{stage}.{i}",
            "agent": f"agent-{i % 4}",
            "attempt": 1,
            "state": "finished",
            "rows_in": rows // count * 3,
            "rows": rows // count,
            "bytes": rows // count * 24,
            "spilled_bytes": 0,
            "started_ms": started_ms,
            "elapsed_ms": elapsed_ms * (1 + i / 10),
            **fields,
        }
        for i in range(count)
    ]


def stage(
    stage_id: str, label: str, kind: str, rows: int | None, parallelism: int = 4, **fields: Any
) -> dict[str, Any]:
    return {
        "id": stage_id,
        "label": label,
        "type": kind,
        "sql": f"SELECT c0, c1\nFROM {stage_id}_input\nWHERE c0 < 10 AND c1 = 'x'",
        "parallelism": parallelism,
        "state": "finished",
        "rows": rows,
        "tasks": [],
        **fields,
    }


def edge(edge_id: str, kind: str, source: str, target: str, rows: int | None, **fields: Any) -> dict[str, Any]:
    return {
        "id": edge_id,
        "type": kind,
        "keys": [],
        "source": source,
        "target": target,
        "partitions": 1,
        "rows": rows,
        "bytes": None if rows is None else rows * 24,
        "rows_estimated": None,
        "decided": "plan",
        "reason": "",
        "partition_rows": [],
        "partition_bytes": [],
        "heavy": [],
        **fields,
    }


def plan(stages: list[Any], edges: list[Any], **fields: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "query_id": "q-7f3a",
        "sql": SQL,
        "mode": "distributed",
        "reason": "every operator is distributed",
        "agents": 4,
        "isolation": "thread",
        "state": "finished",
        "elapsed_ms": 1234.0,
        "stages": stages,
        "edges": edges,
        **fields,
    }


def q3() -> dict[str, Any]:
    """A finished run with all edge types that TPC-H Q3 has, one skewed partition and one late decision."""
    return plan(
        [
            stage("s1", "scan customer, filter", "source", 30_142, tasks=tasks("s1", 4, 30_142, 20)),
            stage("s2", "scan orders, join customer", "join", 147_126, tasks=tasks("s2", 4, 147_126, 130, 22)),
            stage("s3", "scan lineitem, filter", "source", 3_241_776, tasks=tasks("s3", 4, 3_241_776, 420, 0)),
            stage(
                "s4",
                "join lineitem with orders, aggregate by l_orderkey, top 10",
                "group_by",
                40,
                tasks=tasks("s4", 4, 40, 610, 440, spilled_bytes=12_000_000),
            ),
            stage("s5", "top 10", "sort", 10, parallelism=1, tasks=tasks("s5", 1, 10, 4, 1200)),
        ],
        [
            edge(
                "e1",
                "BROADCAST",
                "s1",
                "s2",
                30_142,
                rows_estimated=30_000,
                decided="run",
                reason="241 kB measured is below the 16.8 MB up to which a side is replicated",
            ),
            edge(
                "e2",
                "HASH",
                "s2",
                "s4",
                147_126,
                keys=["o_orderkey"],
                partitions=16,
                rows_estimated=150_000,
                reason="the other side is too large to replicate",
            ),
            edge(
                "e3",
                "HASH",
                "s3",
                "s4",
                3_241_776,
                keys=["l_orderkey"],
                partitions=16,
                rows_estimated=300_000,
                reason="both sides are split by the join key; the GROUP BY l_orderkey reuses it",
                partition_bytes=[4_000_000] * 15 + [17_800_000],
                partition_rows=[166_000] * 15 + [741_000],
                heavy=[{"key": "42", "rows": 600_000}, {"key": "7", "rows": 20}],
            ),
            edge(
                "e4", "RANGE", "s4", "s5", 40, keys=["revenue DESC", "o_orderdate"], reason="40 rows need one partition"
            ),
            edge("e5", "FORWARD", "s5", "result", 10),
        ],
    )


def planned() -> dict[str, Any]:
    """Before it runs: estimates, no measurements."""
    document = q3()
    document |= {"state": "planned", "elapsed_ms": None}
    for item in document["stages"]:
        item |= {"rows": None, "tasks": [], "state": "waiting"}
    for item in document["edges"]:
        item |= {
            "rows": None,
            "bytes": None,
            "partition_rows": [],
            "partition_bytes": [],
            "heavy": [],
            "decided": "plan",
        }
    return document


def single() -> dict[str, Any]:
    item = stage("statement", "the statement as written", "source", 7, parallelism=1, sql=SQL)
    item["tasks"] = tasks("statement", 1, 7, 3.2, agent="session")
    return plan([item], [], mode="single", reason="one agent: as it was written", agents=1, elapsed_ms=3.2)


def empty() -> dict[str, Any]:
    return plan([], [], mode="single", reason="nothing to run", agents=1)


def shared_stage() -> dict[str, Any]:
    """One stage feeds two others, one of them over a longer way; every edge type."""
    return plan(
        [
            stage("s1", "scan events", "source", 900_000),
            stage("s2", "count by user", "group_by", 50_000),
            stage("s3", "rebalanced", "map", 900_000),
            stage("s4", "join", "join", 900_000),
            stage("s5", "scan regions", "source", 25),
            stage("s6", "sort", "sort", 900_000),
        ],
        [
            edge("e1", "HASH", "s1", "s2", 900_000, keys=["user_id"], partitions=16),
            edge("e2", "REBALANCE", "s1", "s3", 900_000),
            edge("e3", "BROADCAST", "s2", "s4", 50_000),
            edge("e4", "FORWARD", "s3", "s4", 900_000),
            edge("e5", "BROADCAST", "s5", "s4", 25),
            edge("e6", "RANGE", "s4", "s6", 900_000, keys=["amount"], partitions=4),
            edge("e7", "RANGE", "s6", "result", 900_000),
        ],
    )


def wide(stages: int = 40) -> dict[str, Any]:
    """A plan of ``stages`` stages with long SQL, many tasks and partitions: the size budget is held for it."""
    types = ("HASH", "BROADCAST", "RANGE", "REBALANCE", "FORWARD")
    sql = "SELECT " + ",\n  ".join(f"sum(l_extendedprice * (1 - l_discount)) AS c{i}" for i in range(60))
    return plan(
        [
            stage(
                f"s{i}",
                f"scan table_{i}, join table_{i + 1}, partial aggregate by l_orderkey, o_orderdate",
                "join",
                10**i % 999_983,
                parallelism=8,
                sql=sql,
                tasks=tasks(f"s{i}", 8, 100_000 + i, 10.0 * (i + 1), 40.0 * i),
            )
            for i in range(stages)
        ],
        [
            edge(
                f"e{i}",
                types[i % 5],
                f"s{i}",
                f"s{min(stages - 1, i + 1 + i % 4 * (i % 3))}",
                10 ** (i % 9),
                keys=[f"key_{i}", "another_key"],
                partitions=32,
                rows_estimated=10 ** (i % 7),
                reason="both sides are split by the join key; the GROUP BY l_orderkey reuses it " * 3,
                partition_bytes=[(j + i) % 7 * 100_000 for j in range(32)],
                partition_rows=[(j + i) % 7 * 1_000 for j in range(32)],
                heavy=[{"key": f"k{j}", "rows": 1000 - j} for j in range(8)],
            )
            for i in range(stages - 1)
        ],
    )


HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)",
    '" onmouseover="alert(1)',
    "' onfocus='alert(1)",
    "]]> <!-- --> &amp; </svg></title></style></details></table>",
    "\x00\x1b[31m\ud800\uffff",
)


def hostile(text: str) -> dict[str, Any]:
    """``text`` in every field that holds text."""
    item = stage("s1", text, text, 5, sql=text, state=text, tasks=tasks("s1", 2, 4, 3.0, agent=text, state=text))
    last = stage("s2", text, text, 5)
    heavy = [{"key": text, "rows": 9}]
    return plan(
        [item, last],
        [
            edge(
                text,
                text,
                "s1",
                "s2",
                5,
                keys=[text],
                decided=text,
                reason=text,
                partition_bytes=[10, 10, 10**7],
                heavy=heavy,
            )
        ],
        sql=text,
        mode=text,
        reason=text,
        isolation=text,
        state=text,
        query_id=text,
    )
