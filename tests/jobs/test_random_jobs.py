"""Random job graphs give what one nested SELECT of plain DuckDB gives, whatever the numbers of tasks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import sabot_sql
from sabot_sql import JobGraph, OperatorType, Session, StreamOperatorNode

T = OperatorType
SMALL = pa.table({"k": [0, 1, 2, None, 7], "w": [10, 11, 12, 13, 14]})

STEPS: tuple[tuple[OperatorType, dict[str, Any], str], ...] = (
    (T.MAP, {"sql": "SELECT k, j, v + 1 AS v FROM input"}, "SELECT k, j, v + 1 AS v FROM {0}"),
    (T.MAP, {"sql": "SELECT v % 5 AS k, k AS j, v FROM input"}, "SELECT v % 5 AS k, k AS j, v FROM {0}"),
    (T.MAP, {"sql": "SELECT * REPLACE (j AS k) FROM input"}, "SELECT * REPLACE (j AS k) FROM {0}"),
    (T.MAP, {"sql": "SELECT i.k, i.j, i.v FROM input i WHERE v >= 0"}, "SELECT k, j, v FROM {0} WHERE v >= 0"),
    (T.MAP, {"sql": "FROM input", "key_by": ["k"]}, "FROM {0}"),
    (T.MAP, {"sql": "FROM input", "key_by": ["j", "k"]}, "FROM {0}"),
    (T.FILTER, {"where": "v % 3 > 0 OR k IS NULL"}, "FROM {0} WHERE v % 3 > 0 OR k IS NULL"),
    (T.FILTER, {"function": lambda batch: pc.greater(batch["v"], 10)}, "FROM {0} WHERE v > 10"),
    (T.FILTER, {"where": "v > 2", "key_by": ["k"]}, "FROM {0} WHERE v > 2"),
    (
        T.FLAT_MAP,
        {"sql": "SELECT k, j, v + i AS v FROM input, range(v % 3) r(i)"},
        "SELECT k, j, v + i AS v FROM {0}, range(v % 3) r(i)",
    ),
    (
        T.GROUP_BY,
        {"key_by": ["k"], "sql": "SELECT k, min(j) AS j, sum(v)::BIGINT AS v FROM input GROUP BY k"},
        "SELECT k, min(j) AS j, sum(v)::BIGINT AS v FROM {0} GROUP BY k",
    ),
    (
        T.GROUP_BY,
        {"key_by": ["k", "j"], "aggregates": {"v": "max(v)"}},
        "SELECT k, j, max(v) AS v FROM {0} GROUP BY k, j",
    ),
    (
        T.GROUP_BY,
        {"key_by": ["j"], "sql": "SELECT max(k) AS k, j, count(*) AS v FROM input GROUP BY j"},
        "SELECT max(k) AS k, j, count(*) AS v FROM {0} GROUP BY j",
    ),
    (T.DISTINCT, {}, "SELECT DISTINCT * FROM {0}"),
    (
        T.WINDOW,
        {"key_by": ["k"], "sql": "SELECT k, j, row_number() OVER (PARTITION BY k ORDER BY v, j) AS v FROM input"},
        "SELECT k, j, row_number() OVER (PARTITION BY k ORDER BY v, j) AS v FROM {0}",
    ),
    (T.SORT, {"order_by": ["v DESC", "k"]}, "FROM {0}"),
    (
        T.MAP,
        {"sql": "SELECT i.k, i.j, t.w AS v FROM input i LEFT JOIN t ON t.k = i.k", "tables": {"t": SMALL}},
        "SELECT i.k, i.j, t.w AS v FROM {0} i LEFT JOIN small t ON t.k = i.k",
    ),
)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with sabot_sql.connect(agents=2) as opened:
        yield opened


def rows(dice: random.Random, count: int) -> pa.Table:
    keys = [dice.choice([None, 0, 0, 0, 1, 2, 3, 9]) for _ in range(count)]
    return pa.table(
        {
            "k": pa.array(keys, pa.int64()),
            "j": pa.array([dice.choice([None, 0, 1, 2]) for _ in range(count)], pa.int64()),
            "v": pa.array([dice.randrange(30) for _ in range(count)], pa.int64()),
        }
    )


class Drawn:
    """A job and the SELECT that says the same."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.job = JobGraph("drawn")
        self.tables: dict[str, pa.Table] = {"small": SMALL}
        self.shown: list[str] = []

    def add(self, kind: OperatorType, *inputs: str, **options: Any) -> str:
        parallelism = self.dice.randint(1, 4)
        if options.get("key_by") and self.dice.random() < 0.2:
            options["max_parallelism"] = parallelism + self.dice.randint(0, 3)
        name = f"op_{len(self.job.operators)}"
        self.job.add_operator(
            StreamOperatorNode(operator_type=kind, operator_id=name, parallelism=parallelism, **options)
        )
        for source in inputs:
            self.job.connect(source, name)
        shown = {key: value for key, value in options.items() if key not in ("tables", "source")}
        self.shown.append(f"{name} <- {', '.join(inputs)}: {kind.name} x {parallelism} {shown}")
        return name

    def branch(self) -> tuple[str, str]:
        """An operator, and the SELECT of its rows."""
        table = rows(self.dice, self.dice.choice([0, 1, 5, 300, 3000]))
        name = f"t{len(self.tables)}"
        self.tables[name] = table
        last, sql = self.add(T.SOURCE, source=table), f"SELECT * FROM {name}"
        for _ in range(self.dice.randint(0, 4)):
            kind, options, text = self.dice.choice(STEPS)
            last, sql = self.add(kind, last, **options), text.format(f"({sql})")
        return last, sql

    def whole(self) -> str:
        """The SELECT of everything; the job ends with its operator."""
        last, sql = self.branch()
        ending = self.dice.random()
        if ending < 0.3:
            other, other_sql = self.branch()
            self.add(T.UNION, last, other)
            return f"FROM ({sql}) UNION ALL FROM ({other_sql})"
        if ending < 0.6:
            other, other_sql = self.branch()
            few = self.add(T.GROUP_BY, other, key_by=["k"], aggregates={"n": "count(*)"})
            how = self.dice.choice(["inner", "left", "right", "full", "semi", "anti"])
            self.add(T.JOIN, last, few, key_by=["k"], how=how)
            return f"FROM ({sql}) {how} JOIN (SELECT k, count(*) AS n FROM ({other_sql}) GROUP BY k) USING (k)"
        return sql


@pytest.mark.parametrize("seed", range(60))
def test_a_random_job_gives_what_duckdb_gives(session: Session, seed: int) -> None:
    drawn = Drawn(random.Random(seed))
    sql = drawn.whole()
    with duckdb.connect() as plain:
        for name, table in drawn.tables.items():
            plain.register(name, table)
        expected = Counter(plain.execute(sql).fetchall())
    actual = Counter(session.run_job(drawn.job).fetchall())
    edges = [f"{e.source} -> {e.target}: {e.edge_type.name}: {e.reason}" for e in drawn.job.to_execution_graph().edges]
    assert actual == expected, "\n".join([*drawn.shown, *edges])
