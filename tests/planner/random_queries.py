"""Random queries over the tables of this folder: joins, groups, windows, sets and limits, nested.

Every answer is determined but for the order of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from random import Random

_TABLES = [("t", "kvng"), ("t", "kg"), ("u", "kwn"), ("small", "k"), ("early", "kv")]
_JOINS = ["JOIN"] * 4 + ["LEFT JOIN"] * 2 + ["RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]
_SETS = ["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"]
_WHERE = [
    "{0} IN (SELECT k FROM small)",
    "{0} NOT IN (SELECT n FROM u WHERE n IS NOT NULL)",
    "{0} NOT IN (SELECT n FROM u)",
    "{0} > (SELECT min(k) FROM u)",
    "EXISTS (SELECT 1 FROM u WHERE u.k = {0})",
    "{0} IN (SELECT n FROM u WHERE w > 30) OR {0} IS NULL",
]
_AGGREGATES = [
    *("count(*)", "count({0})", "sum({0})::BIGINT", "min({0})", "max({0})", "avg({0})::BIGINT", "median({0})::BIGINT"),
    *("count(DISTINCT {0})", "sum(DISTINCT {0})::BIGINT", "sum({0}) FILTER ({1} > 2)::BIGINT"),
]
_WINDOWS = [
    "(sum({0}) OVER ({keys}))::BIGINT",
    "count(*) OVER ({keys} ORDER BY {0})",
    "rank() OVER ({keys} ORDER BY {0} DESC)",
    "(sum({0}) OVER ({keys} ORDER BY {all}))::BIGINT",
    "dense_rank() OVER ({keys} ORDER BY {all})",
    "min({0}) OVER ({keys} ORDER BY {1})",
]


@dataclass(frozen=True, slots=True)
class Relation:
    """A parenthesised query and its columns, all BIGINT."""

    sql: str
    columns: list[str]


@dataclass(slots=True)
class Queries:
    """A source of queries: the same ones for the same seed."""

    random: Random
    _names: count[int] = field(default_factory=lambda: count(1))

    def query(self) -> str:
        """One query, in a quarter of the cases over a shared expression that is read two or three times."""
        inner = self._relation(self.random.choice([2, 3, 3, 4]))
        if self.random.random() < 0.75:
            return f"SELECT * FROM {inner.sql} AS q"
        one, two = self.random.choices(inner.columns, k=2)
        join = self.random.choice(["JOIN", "LEFT JOIN", "FULL JOIN"])
        shared = f"WITH q AS MATERIALIZED (FROM {inner.sql} AS r)"
        select = f"SELECT x.{inner.columns[0]}, y.{inner.columns[-1]}, count(*) FROM q AS x"
        sql = f"{shared} {select} {join} q AS y ON x.{one} = y.{two} GROUP BY ALL"
        return sql + (f" UNION ALL SELECT {one}, {two}, 1 FROM q" if self.random.random() < 0.5 else "")

    def _name(self) -> str:
        return f"a{next(self._names)}"

    def _some(self, columns: list[str], most: int, least: int = 0) -> list[str]:
        return self.random.sample(columns, min(len(columns), self.random.randint(least, most)))

    def _relation(self, depth: int) -> Relation:
        if depth <= 0:
            return self._leaf()
        kinds = [self._join] * 10 + [self._group] * 3 + [self._set_operation] * 2
        kinds += [self._window, self._distinct, self._limit, self._project, self._project]
        return self.random.choice(kinds)(depth)

    def _leaf(self) -> Relation:
        table, columns = self.random.choice(_TABLES)
        names = [self._name() for _ in columns]
        items = ", ".join(f"{c}::BIGINT AS {n}" for c, n in zip(columns, names, strict=True))
        where = ""
        if self.random.random() < 0.4:
            sign = self.random.choice("<>=")
            where = f" WHERE {self.random.choice(columns)} {sign} {self.random.randint(0, 6)}"
        return Relation(f"(SELECT {items} FROM {table}{where})", names)

    def _join(self, depth: int) -> Relation:
        left = self._relation(depth - 1)
        right = self._relation(depth - 1 if self.random.random() < 0.4 else 0)
        kind = self.random.choice(_JOINS)

        def term(sign: str) -> str:
            return f"{self.random.choice(left.columns)} {sign} {self.random.choice(right.columns)}"

        signs = ["="] * 5 + ["IS NOT DISTINCT FROM"]
        terms = [term(self.random.choice(signs)) for _ in range(self.random.choice([1, 1, 1, 2]))]
        if self.random.random() < 0.2 and kind != "FULL JOIN":
            terms.append(term("<"))
        columns = left.columns + (right.columns if kind not in ("SEMI JOIN", "ANTI JOIN") else [])
        tables = f"{left.sql} AS {self._name()} {kind} {right.sql} AS {self._name()}"
        return Relation(f"(SELECT {', '.join(columns)} FROM {tables} ON {' AND '.join(terms)})", columns)

    def _group(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        keys = self._some(inner.columns, 2)
        calls = [
            self.random.choice(_AGGREGATES).format(*self.random.choices(inner.columns, k=2))
            for _ in range(self.random.randint(1, 2))
        ]
        listed = ", ".join(keys)
        sets = [listed] * 4 + [f"ROLLUP ({listed})", f"CUBE ({listed})", f"GROUPING SETS (({listed}), ({keys[:1]}))"]
        by = f" GROUP BY {self.random.choice(sets)}".replace("['", "").replace("']", "") if keys else ""
        return self._over(inner, keys + calls, by)

    def _window(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        keys = ", ".join(self._some(inner.columns, 2))
        one, two = self.random.choices(inner.columns, k=2)
        values = {"keys": f"PARTITION BY {keys}" if keys else "", "all": ", ".join(inner.columns)}
        return self._over(inner, [*inner.columns, self.random.choice(_WINDOWS).format(one, two, **values)])

    def _distinct(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        columns = self._some(inner.columns, 3, 1)
        return Relation(f"(SELECT DISTINCT {', '.join(columns)} FROM {inner.sql} AS {self._name()})", columns)

    def _limit(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        order = ", ".join(inner.columns)
        return self._over(inner, inner.columns, f" ORDER BY {order} LIMIT {self.random.randint(0, 30)}")

    def _project(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        forms = ["{0}", "{0}", "{0}", "({0} + 1)", "coalesce({0}, 0)", "({0} % 3)"]
        items = [self.random.choice(forms).format(c) for c in inner.columns]
        where = self.random.choice(_WHERE).format(self.random.choice(inner.columns))
        return self._over(inner, items, f" WHERE {where}" if self.random.random() < 0.5 else "")

    def _set_operation(self, depth: int) -> Relation:
        left = self._relation(depth - 1)
        right = self._relation(depth - 1 if self.random.random() < 0.4 else 0)
        width = min(len(left.columns), len(right.columns), 3)
        first = self._over(left, left.columns[:width])
        second = f"(SELECT {', '.join(right.columns[:width])} FROM {right.sql} AS {self._name()})"
        return Relation(f"({first.sql} {self.random.choice(_SETS)} {second})", first.columns)

    def _over(self, inner: Relation, items: list[str], clauses: str = "") -> Relation:
        names = [self._name() for _ in items]
        listed = ", ".join(f"{item} AS {name}" for item, name in zip(items, names, strict=True))
        return Relation(f"(SELECT {listed} FROM {inner.sql} AS {self._name()}{clauses})", names)
