"""Random queries over tables of any types: joins, groups, windows, sets, subqueries, CTEs, nested.

But for the order of its rows an answer is determined, save where a column is marked as not usable: nothing that counts
rows reads it, it is only shown. What DuckDB leaves open all the same is for the oracle to find out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random

JOINS = ["JOIN"] * 4 + ["LEFT JOIN"] * 2 + ["RIGHT JOIN", "FULL JOIN", "SEMI JOIN", "ANTI JOIN"]
SETS = ["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT", "EXCEPT ALL", "INTERSECT ALL"]
COMPARISONS = ["=", "=", "=", "<", "<=", ">", "<>", "IS DISTINCT FROM", "IS NOT DISTINCT FROM"]
MOST_ROWS_JOINED = 3_000_000
"""A join that may have more is not made: DuckDB would see in time that it is empty, or run for long."""
NUMBERS = ("int", "decimal", "float")
SIMPLE = (*NUMBERS, "text", "time", "bool")

LITERALS: dict[str, list[str]] = {
    "int": ["0", "1", "2", "3", "-5", "100", "NULL::INTEGER"],
    "decimal": ["1.00", "2.5", "-0.01", "0.0"],
    "float": ["1.5::DOUBLE", "0.0::DOUBLE", "'nan'::DOUBLE", "-2.25::DOUBLE"],
    "text": ["'a'", "''", "'A'", "'b'", "'é'", "NULL::VARCHAR"],
    "time": ["DATE '2024-03-01'", "TIMESTAMP '2024-02-29 12:00:00.000001'", "DATE '1970-01-01'"],
    "clock": ["TIME '12:00:00.5'", "TIME '00:00:00'"],
    "interval": ["INTERVAL 1 MONTH", "INTERVAL 30 DAY", "INTERVAL 0 DAY"],
    "bool": ["true", "false"],
}
# Forms by kind: what a column becomes, and the kind of that.
FORMS: dict[str, list[tuple[str, str]]] = {
    "int": [
        ("({0}::HUGEINT % 3)", "int"),
        ("({0} % 10)", "int"),
        ("(try_cast({0} AS INTEGER) + 1::BIGINT)", "int"),
        ("({0} / 2)", "number"),
        ("({0} // 2)", "int"),
        ("coalesce({0}, 0)", "int"),
        ("nullif({0}, 1)", "int"),
        ("greatest({0}, 2)", "int"),
        ("({0})::VARCHAR", "text"),
        ("try_cast({0} AS DECIMAL(12, 2))", "decimal"),
        ("try_cast({0} AS TINYINT)", "int"),
        ("({0})::DOUBLE", "float"),
        ("CASE WHEN {0} > 1 THEN 'x' WHEN {0} IS NULL THEN NULL ELSE 'y' END", "text"),
        ("sign({0})", "int"),
        ("({0} BETWEEN 1 AND 3)", "bool"),
        ("(DATE '2024-01-31' + (try_cast({0} AS INTEGER) % 100))", "time"),
    ],
    "decimal": [
        ("round({0}, 1)", "decimal"),
        ("floor({0})", "decimal"),
        ("({0})::VARCHAR", "text"),
        ("({0})::DOUBLE", "float"),
        ("coalesce({0}, 1.5)", "decimal"),
        ("try_cast({0} AS INTEGER)", "int"),
        ("(try_cast({0} AS DECIMAL(12, 2)) + 10000)", "decimal"),
    ],
    "float": [
        ("coalesce({0}, 0.5)", "float"),
        ("isnan({0})", "bool"),
        ("try_cast({0} AS INTEGER)", "int"),
        ("abs({0})", "float"),
        ("({0} > 0.5)", "bool"),
        ("nullif({0}, 1.5)", "float"),
    ],
    "text": [
        ("upper({0})", "text"),
        ("lower({0})", "text"),
        ("length({0})", "int"),
        ("substring({0}, 1, 1)", "text"),
        ("({0} || 'z')", "text"),
        ("concat({0}, '-')", "text"),
        ("coalesce({0}, 'none')", "text"),
        ("({0} LIKE 'a%')", "bool"),
        ("({0} ILIKE '%B')", "bool"),
        ("regexp_matches({0}, '^[a-z]+$')", "bool"),
        ("starts_with({0}, 'a')", "bool"),
        ("try_cast({0} AS INTEGER)", "int"),
        ("string_split({0}, 'a')", "other VARCHAR[]"),
        ("md5({0})", "text"),
        ("reverse({0})", "text"),
        ("CASE {0} WHEN 'a' THEN 1 WHEN 'b' THEN 2 END", "int"),
    ],
    "time": [
        ("year({0})", "int"),
        ("date_trunc('month', {0})", "time"),
        ("({0})::VARCHAR", "text"),
        ("extract(dow FROM {0})", "int"),
        ("({0} > DATE '2000-01-01')", "bool"),
        ("coalesce({0}, DATE '2024-03-01')", "time"),
    ],
    "clock": [("extract(hour FROM {0})", "int"), ("({0})::VARCHAR", "text")],
    "interval": [("({0} > INTERVAL 1 DAY)", "bool")],
    "bool": [("(NOT {0})", "bool"), ("({0})::INTEGER", "int"), ("coalesce({0}, true)", "bool")],
}
# Without mode: of values that are as frequent DuckDB gives now one and now another, with one thread too.
AGGREGATES: dict[str, list[tuple[str, str]]] = {
    "any": [("count(*)", "int"), ("count({0})", "int"), ("count(DISTINCT {0})", "int")],
    "ordered": [("min({0})", "same"), ("max({0})", "same"), ("min({0})", "same"), ("max({0})", "same")],
    "int": [
        ("sum({0}::DECIMAL(38, 0)) FILTER (abs({0}::DOUBLE) < 1e18)", "decimal"),
        ("sum({0}) FILTER ({0} < 100000)", "int"),
        ("sum(try_cast({0} AS INTEGER))", "int"),
        ("sum(DISTINCT try_cast({0} AS INTEGER))", "int"),
        ("avg(try_cast({0} AS INTEGER))", "shown"),
        ("median(try_cast({0} AS INTEGER))", "float"),
        ("quantile_disc({0}, 0.25)", "int"),
        ("quantile_cont(try_cast({0} AS INTEGER), [0.1, 0.5])", "shown"),
        ("bit_xor({0})", "int"),
        ("bit_or({0})", "int"),
        ("stddev(try_cast({0} AS INTEGER))", "shown"),
        ("approx_count_distinct({0})", "shown"),
        ("list({0} ORDER BY {0})", "other"),
        ("list_sort(list(DISTINCT {0}))", "other"),
        ("max({0}, 2)", "other"),
        ("histogram({0})", "shown"),
        ("var_pop(try_cast({0} AS INTEGER))", "shown"),
        ("arg_max({0}, {0})", "int"),
        ("entropy({0})", "shown"),
    ],
    "decimal": [
        ("sum(try_cast({0} AS DECIMAL(12, 2)))", "decimal"),
        ("avg(try_cast({0} AS DECIMAL(12, 2)))", "shown"),
        ("median({0})", "decimal"),
        ("sum(DISTINCT try_cast({0} AS DECIMAL(12, 2)))", "decimal"),
        ("arg_min({0}, {0})", "decimal"),
    ],
    "float": [
        ("sum({0})", "shown"),
        ("avg({0})", "shown"),
        ("fsum({0})", "shown"),
        ("median({0})", "shown"),
        ("arg_max({0}, {0})", "float"),
    ],
    "text": [
        ("string_agg({0}, '|' ORDER BY {0})", "text"),
        ("string_agg(DISTINCT {0}, '|' ORDER BY {0})", "text"),
        ("list({0} ORDER BY {0} DESC NULLS LAST)", "other"),
        ("approx_count_distinct({0})", "shown"),
        ("first({0})", "shown"),
        ("any_value({0})", "shown"),
    ],
    "bool": [("bool_and({0})", "bool"), ("bool_or({0})", "bool"), ("count_if({0})", "int")],
    "time": [("list({0} ORDER BY {0})", "other"), ("arg_min({0}, {0})", "time")],
}


def kind_of(type_name: str) -> str:
    """The kind of a DuckDB type: values of one kind compare, and have the same forms."""
    head = type_name.split("(")[0]
    if type_name.endswith("]") or head in ("STRUCT", "MAP", "ENUM", "UNION"):
        return f"other {type_name}"
    if head.endswith("INT") or head in ("INTEGER", "UINTEGER"):
        return "int"
    names = {"DECIMAL": "decimal", "DOUBLE": "float", "FLOAT": "float", "VARCHAR": "text", "BOOLEAN": "bool"}
    names |= {"DATE": "time", "TIME": "clock", "INTERVAL": "interval", "TIMESTAMP": "time"}
    names |= {"TIMESTAMP_S": "time", "TIMESTAMP_MS": "time", "TIMESTAMP WITH TIME ZONE": "time"}
    return names.get(head, f"other {type_name}")


@dataclass(frozen=True, slots=True)
class Item:
    """A column of a relation; one that is not ``usable`` may be shown and nothing else."""

    name: str
    kind: str
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Relation:
    """A parenthesised query, its columns, and about how many rows it may have."""

    sql: str
    items: tuple[Item, ...]
    rows: int

    @property
    def usable(self) -> tuple[Item, ...]:
        return tuple(item for item in self.items if item.usable)


@dataclass(frozen=True, slots=True)
class Source:
    """A table that queries may read: its name, its columns and how many rows it has."""

    name: str
    items: tuple[Item, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Query:
    """A query and the values of its named parameters, as SQL; ``ordered`` where its tables' order is promised."""

    sql: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    ordered: bool = False


@dataclass(slots=True)
class Queries:
    """A source of queries over tables: the same ones for the same seed."""

    random: Random
    sources: Sequence[Source]
    _names: count[int] = field(default_factory=lambda: count(1))
    _shared: list[Source] = field(default_factory=list)
    _parameters: dict[str, str] = field(default_factory=dict)
    _with_parameters: bool = False

    # --- whole queries

    def query(self) -> Query:
        """One query."""
        self._shared, self._parameters = [], {}
        self._with_parameters = self._happens(0.15)
        clause = self._common_tables() if self._happens(0.3) else ""
        relation = self._relation(self.random.choice([1, 2, 2, 3, 3, 4]))
        sql = clause + self._whole(relation)
        named = set(re.findall(r"\$(p\d+)", sql))  # some were made for what was not chosen then
        return Query(sql, {name: text for name, text in self._parameters.items() if name in named})

    def ordered_query(self) -> Query:
        """A query without ORDER BY whose rows come in the order of its tables."""
        self._shared, self._parameters, self._with_parameters = [], {}, False
        clause = ""
        if self._happens(0.3):
            shared = self._in_order(self.random.randint(0, 1))
            name = self._name()
            clause = f"WITH {name} AS {shared.sql} "
            self._shared.append(Source(name, shared.items, shared.rows))
        return Query(clause + self._in_order(self.random.randint(1, 3)).sql[1:-1], ordered=True)

    def _in_order(self, depth: int) -> Relation:
        if depth <= 0:
            return self._leaf()
        inner = self._in_order(depth - 1)
        match self.random.choice(["union", "union", "cut", "filter", "project", "number"]):
            case "union":
                other = self._in_order(self.random.randint(0, depth - 1))
                first, second, items = self._paired(inner, other)
                if items:
                    text = f"SELECT {first} FROM {inner.sql} AS {self._name()} UNION ALL"
                    text += f" SELECT {second} FROM {other.sql} AS {self._name()}"
                    return Relation(f"({text})", items, inner.rows + other.rows)
            case "cut":
                end = self.random.choice(["LIMIT 5", "LIMIT 40", "OFFSET 3", "LIMIT 100 OFFSET 7", "LIMIT 2000"])
                return Relation(f"(SELECT * FROM {inner.sql} AS {self._name()} {end})", inner.items, inner.rows)
            case "filter" if inner.usable:
                condition = self._condition(inner.usable, 0)
                return Relation(
                    f"(SELECT * FROM {inner.sql} AS {self._name()} WHERE {condition})", inner.items, inner.rows
                )
            case "number":
                number = ("row_number() OVER ()", Item(self._name(), "int"))
                chosen = [(item.name, replace(item, name=self._name())) for item in inner.items]
                return self._over(inner, [*chosen, number], "", inner.rows)
        chosen = [self._form(item) if item.usable else (item.name, item) for item in inner.items]
        return self._over(inner, chosen, "", inner.rows)

    def rows_of(self, kinds: Sequence[str], *, depth: int = 2) -> str | None:
        """A parenthesised query whose columns ``x0``, ``x1``, … have these kinds, each row once, or None."""
        self._shared, self._parameters, self._with_parameters = [], {}, False
        relation = self._relation(self.random.randint(0, depth))
        chosen = []
        for number, kind in enumerate(kinds):
            fitting = [item.name for item in relation.usable if item.kind == kind]
            if not fitting:
                return None
            chosen.append(f"{self.random.choice(fitting)} AS x{number}")
        return f"(SELECT DISTINCT {', '.join(chosen)} FROM {relation.sql} AS {self._name()})"

    def _whole(self, relation: Relation) -> str:
        usable = [item.name for item in relation.usable]
        sql = relation.sql[1:-1] if self._happens(0.4) else f"SELECT * FROM {relation.sql} AS {self._name()}"
        if not usable or self._happens(0.5) or sql.startswith(("PIVOT", "UNPIVOT")):
            return sql
        inner = f"SELECT * FROM {relation.sql} AS {self._name()}"
        if self._happens(0.5):
            keys = self.random.sample(usable, self.random.randint(1, min(3, len(usable))))
            return f"{inner} ORDER BY {', '.join(key + self._direction() for key in keys)}"
        listed = ", ".join(usable)
        order = ", ".join(name + self._direction() for name in usable)
        end = self.random.choice(
            ["LIMIT 3", "LIMIT 10", "LIMIT 1000", "LIMIT 5 OFFSET 2", "OFFSET 7", "LIMIT 20 %", "LIMIT 0"]
        )
        return f"SELECT {listed} FROM {relation.sql} AS {self._name()} ORDER BY {order} {end}"

    def _common_tables(self) -> str:
        made = []
        for _ in range(self.random.randint(1, 2)):
            name = self._name()
            if self._happens(0.2):
                made.append(self._recursive(name))
                continue
            relation = self._only_usable(self._relation(self.random.randint(0, 2)))
            hint = self.random.choice(["", "", "MATERIALIZED ", "NOT MATERIALIZED "])
            made.append(f"{name} AS {hint}{relation.sql}")
            self._shared.append(Source(name, relation.items, relation.rows))
        recursive = "RECURSIVE " if any("UNION" in text and " RECURSION " in text for text in made) else ""
        return f"WITH {recursive}{', '.join(made).replace(' RECURSION ', ' ')} "

    def _recursive(self, name: str) -> str:
        number, step = self._name(), self.random.choice(["UNION", "UNION ALL"])
        base = self._only_usable(self._leaf())
        keys = [item for item in base.items if item.kind == "int"]
        start = f"SELECT DISTINCT {keys[0].name} % 5 FROM {base.sql} AS {self._name()}" if keys else "SELECT 0"
        start = (
            f"SELECT coalesce(min(x), 0)::BIGINT FROM ({start}) AS {self._name()}(x)" if self._happens(0.5) else start
        )
        item = Item(number, "int")
        again = f"SELECT {number} + 1 FROM {name} WHERE {number} < {self.random.randint(0, 6)}"
        other = self._leaf()
        more = [column.name for column in other.usable if column.kind == "int"]
        if more and step == "UNION" and other.rows <= 1000 and self._happens(0.5):
            again = (
                f"SELECT ({more[-1]}::HUGEINT % 20)::BIGINT FROM {name} JOIN {other.sql} AS {self._name()}"
                f" ON {more[0]} = {number} + 1"
            )
        self._shared.append(Source(name, (item,), 100))
        first = f"SELECT ({number})::BIGINT FROM ({start}) AS {self._name()}({number})"
        return f"{name}({number}) AS RECURSION ({first} {step} {again})"

    # --- relations

    def _relation(self, depth: int) -> Relation:
        if depth <= 0:
            return self._leaf()
        kinds: list[Callable[[int], Relation | None]] = [self._join] * 8 + [self._group] * 4 + [self._window] * 3
        kinds += [self._set_operation] * 2 + [self._project] * 3 + [self._filter] * 3
        kinds += [self._distinct, self._limit, self._asof, self._lateral, self._pivot, self._unnest, self._distinct_on]
        return self.random.choice(kinds)(depth) or self._project(depth)

    def _leaf(self) -> Relation:
        if self._happens(0.05):
            return self._made()
        source = self.random.choice([*self.sources, *self._shared, *self._shared])
        items = list(source.items)
        if len(items) > 6 and self._happens(0.8):
            items = self.random.sample(items, 6)
        renamed = tuple(Item(self._name(), item.kind, item.usable) for item in items)
        listed = ", ".join(f"{old.name} AS {new.name}" for old, new in zip(items, renamed, strict=True))
        where = ""
        if self._happens(0.3):
            where = f" WHERE {self._condition([Item(item.name, item.kind) for item in items if item.usable], 0)}"
        return Relation(f"(SELECT {listed} FROM {source.name}{where})", renamed, source.rows)

    def _made(self) -> Relation:
        one, two = self._name(), self._name()
        rows = self.random.choice([0, 1, 10, 1000])
        if self._happens(0.5):
            text = f"(SELECT i AS {one}, i % 3 AS {two} FROM range({rows}) AS {self._name()}(i))"
            return Relation(text, (Item(one, "int"), Item(two, "int")), rows)
        values = ", ".join(
            f"({self.random.randint(0, 4)}, {self._literal('text')})" for _ in range(self.random.randint(1, 4))
        )
        return Relation(
            f"(SELECT * FROM (VALUES {values}) AS {self._name()}({one}, {two}))",
            (Item(one, "int"), Item(two, "text")),
            4,
        )

    def _join(self, depth: int) -> Relation | None:
        left = self._relation(depth - 1)
        right = self._relation(depth - 1 if self._happens(0.4) else 0)
        if _joined_rows(left, right) > MOST_ROWS_JOINED:
            return None
        kind = self.random.choice(JOINS)
        if self._happens(0.05) and left.rows * right.rows <= 100_000:
            terms = ""
            kind = self.random.choice(["CROSS JOIN", "JOIN"])
            if kind == "JOIN":
                terms = f" ON {self._condition([*left.usable, *right.usable], 1)}"
            return self._joined(left, right, f"{kind} {right.sql} AS {self._name()}{terms}", left.items + right.items)
        pairs = [(a, b) for a in left.usable for b in right.usable if self._comparable(a, b)]
        if not pairs:
            return None
        terms = " AND ".join(
            self._term(*self.random.choice(pairs), equal=True) for _ in range(self.random.choice([1, 1, 1, 2]))
        )
        if self._happens(0.25):
            terms += f" AND {self._term(*self.random.choice(pairs), equal=False)}"
        if self._happens(0.1) and kind in ("JOIN", "LEFT JOIN") and left.rows * right.rows < 1_000_000:
            terms = f"({terms} OR {self._term(*self.random.choice(pairs), equal=True)})"
        items = left.items if kind in ("SEMI JOIN", "ANTI JOIN") else left.items + right.items
        return self._joined(left, right, f"{kind} {right.sql} AS {self._name()} ON {terms}", items)

    def _joined(self, left: Relation, right: Relation, join: str, items: tuple[Item, ...]) -> Relation:
        if len(items) > 10:
            items = tuple(self.random.sample(items, 10))
        listed = ", ".join(item.name for item in items)
        text = f"(SELECT {listed} FROM {left.sql} AS {self._name()} {join})"
        return Relation(text, items, _joined_rows(left, right))

    def _term(self, one: Item, two: Item, *, equal: bool) -> str:
        sign = (
            self.random.choice(["="] * 6 + ["IS NOT DISTINCT FROM"])
            if equal
            else self.random.choice(["<", ">=", "<>", "<"])
        )
        left, right = one.name, two.name
        if self._happens(0.15) and one.kind == two.kind == "int":
            left = f"({left} % 10)"
        if self._happens(0.1) and one.kind == two.kind == "text":
            right = f"lower({right})"
        return f"{left} {sign} {right}"

    def _asof(self, depth: int) -> Relation | None:
        left, right = self._relation(depth - 1), self._relation(0)
        pairs = [
            (a, b)
            for a in left.usable
            for b in right.usable
            if self._comparable(a, b) and a.kind in ("int", "time", "decimal")
        ]
        if not pairs:
            return None
        (one, two), (key, other) = self.random.choice(pairs), self.random.choice(pairs)
        if other is two:
            keys, equal = two.name, ""
        else:
            keys, equal = f"{two.name}, {other.name}", f"{key.name} = {other.name} AND "
        unique = f"(SELECT {keys} FROM {right.sql} AS {self._name()} GROUP BY ALL)"
        kind = self.random.choice(["ASOF JOIN", "ASOF LEFT JOIN"])
        sign = self.random.choice([">=", ">", "<=", "<"])
        join = f"{kind} {unique} AS {self._name()} ON {equal}{one.name} {sign} {two.name}"
        items = (*left.items, two) if other is two else (*left.items, two, other)
        return self._joined(left, replace(right, rows=1), join, items)

    def _lateral(self, depth: int) -> Relation | None:
        left, right = self._relation(depth - 1), self._relation(0)
        pairs = [(a, b) for a in left.usable for b in right.usable if self._comparable(a, b)]
        if not pairs or left.rows > 3000:
            return None
        one, two = self.random.choice(pairs)
        call, item = self._aggregate(right.usable)
        inner = f"(SELECT {call} AS {item.name} FROM {right.sql} AS {self._name()} WHERE {two.name} = {one.name})"
        join = self.random.choice(
            [f", LATERAL {inner} AS {self._name()}", f"LEFT JOIN LATERAL {inner} AS {self._name()} ON true"]
        )
        return self._joined(left, replace(right, rows=1), join, (*left.items, item))

    def _group(self, depth: int) -> Relation | None:
        inner = self._relation(depth - 1)
        if not inner.usable:
            return None
        keys = self.random.sample(inner.usable, min(len(inner.usable), self.random.choice([0, 1, 1, 1, 2, 2, 3])))
        calls = [self._aggregate(inner.usable) for _ in range(self.random.randint(1, 3))]
        names = [key.name for key in keys]
        listed = ", ".join(names)
        by = ""
        if keys:
            sets = [listed] * 5 + [
                f"ROLLUP ({listed})",
                f"CUBE ({listed})",
                f"GROUPING SETS (({listed}), ({names[0]}), ())",
            ]
            by = f" GROUP BY {self.random.choice(sets)}"
            if "(" in by and self._happens(0.5):
                calls.append((f"GROUPING({listed})", Item(self._name(), "int")))
        if keys and self._happens(0.2):
            form = self.random.choice(
                ["count(*) > 1", f"min({self.random.choice(inner.usable).name}) IS NOT NULL", "count(*) < 3"]
            )
            by += f" HAVING {form}"
        chosen = [(name, Item(self._name(), key.kind)) for name, key in zip(names, keys, strict=True)]
        return self._over(inner, [*chosen, *calls], by, inner.rows if keys else 1)

    def _aggregate(self, items: Sequence[Item]) -> tuple[str, Item]:
        """A call and the column that it makes."""
        item = self.random.choice(items)
        forms = [*AGGREGATES["any"], *(AGGREGATES["ordered"] * 2), *AGGREGATES.get(item.kind, [])]
        form, kind = self.random.choice(forms)
        call = form.format(item.name)
        if self._happens(0.15) and "FILTER" not in call:
            call += f" FILTER (WHERE {self._condition(items, 0)})"
        return call, self._result(item.kind, kind)

    def _result(self, of: str, kind: str) -> Item:
        kind = of if kind == "same" else kind
        if kind in ("other", "shown", "number"):
            return Item(self._name(), f"other {self._name()}", kind != "shown")
        return Item(self._name(), kind)

    def _window(self, depth: int) -> Relation | None:
        inner = self._only_usable(self._relation(depth - 1))
        if not inner.items or inner.rows > 200_000:
            return None
        calls = [self._window_call(inner.items, rows=True)]
        if self._happens(0.33):
            # Rows that are equal in every column stand in an order that DuckDB leaves open: of two calls that each tell
            # such rows apart it would be open which values meet in one row.
            calls.append(self._window_call(inner.items, rows=False))
        chosen = [(item.name, Item(self._name(), item.kind)) for item in inner.items]
        ending = ""
        if self._happens(0.15):
            names = ", ".join(item.name for item in inner.items)
            number = f"row_number() OVER ({self._partition(inner.items)} ORDER BY {names})"
            ending = f" QUALIFY {number} <= {self.random.randint(1, 3)}"
            calls = []  # which of several equal rows is kept is open, and another window may have numbered them
        return self._over(inner, [*chosen, *calls], ending, inner.rows)

    def _partition(self, items: Sequence[Item]) -> str:
        keys = self.random.sample(items, min(len(items), self.random.choice([0, 1, 1, 2])))
        return f"PARTITION BY {', '.join(key.name for key in keys)}" if keys else ""

    def _window_call(self, items: Sequence[Item], *, rows: bool) -> tuple[str, Item]:
        """A call and what it gives; with ``rows`` perhaps one that tells rows apart that are equal in its order."""
        by, item = self._partition(items), self.random.choice(items)
        names = [one.name for one in items]
        self.random.shuffle(names)
        total = ", ".join(name + self._direction() for name in names)
        one = item.name + self._direction()
        low, high = self.random.randint(0, 3), self.random.randint(0, 60)
        frames = [f"BETWEEN {low} PRECEDING AND CURRENT ROW", f"BETWEEN {high} PRECEDING AND {low} FOLLOWING"]
        frames += ["BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING", f"BETWEEN {low} FOLLOWING AND UNBOUNDED FOLLOWING"]
        frame = self.random.choice(frames)
        call, made = self._aggregate(items)
        if " ORDER BY " in call or "list" in call or "quantile" in call or made.kind == "float":
            call, made = f"count({item.name})", Item(self._name(), "int")
        exclude = self.random.choice(["", "", "", " EXCLUDE CURRENT ROW"])
        ignore = self.random.choice(["", "", " IGNORE NULLS"])
        number, same = Item(self._name(), "int"), Item(self._name(), item.kind)
        positions = ["row_number()", f"ntile({self.random.randint(1, 7)})"]
        ranks = ["rank()", "dense_rank()", "rank()"]
        forms = [
            (f"{call} OVER ({by})", made),
            (f"{call} OVER ({by} ORDER BY {one})", made),
            (f"{call} OVER ({by} ORDER BY {one} GROUPS {frame})", made),
            (f"{self.random.choice(ranks)} OVER ({by} ORDER BY {one})", number),
            (f"percent_rank() OVER ({by} ORDER BY {one})", replace(number, usable=False)),
            (f"cume_dist() OVER ({by} ORDER BY {one})", replace(number, usable=False)),
        ]
        if rows:
            forms += [
                (f"{call} OVER ({by} ORDER BY {total} ROWS {frame}{exclude})", made),
                (f"{self.random.choice(positions)} OVER ({by} ORDER BY {total})", number),
                (f"lag({item.name}, {self.random.choice([1, 2, -1])}{ignore}) OVER ({by} ORDER BY {total})", same),
                (f"lead({item.name}{ignore}) OVER ({by} ORDER BY {total})", same),
                (f"first_value({item.name}{ignore}) OVER ({by} ORDER BY {total} ROWS {frame})", same),
                (f"last_value({item.name}) OVER ({by} ORDER BY {total})", same),
                (f"nth_value({item.name}, {low + 1}) OVER ({by} ORDER BY {total} ROWS {frame})", same),
            ]
        if item.kind in ("int", "decimal"):
            distance = f"RANGE BETWEEN {low} PRECEDING AND {high} FOLLOWING"
            forms += [(f"{call} OVER ({by} ORDER BY try_cast({item.name} AS INTEGER)::BIGINT {distance})", made)] * 2
        return self.random.choice(forms)

    def _set_operation(self, depth: int) -> Relation | None:
        left = self._relation(depth - 1)
        right = self._relation(depth - 1 if self._happens(0.4) else 0)
        first, second, items = self._paired(left, right)
        if not items:
            return None
        operation = self.random.choice(SETS)
        if operation.startswith("UNION") and self._happens(0.2):
            operation += " BY NAME"
        text = f"SELECT {first} FROM {left.sql} AS {self._name()} {operation}"
        text += f" SELECT {second} FROM {right.sql} AS {self._name()}"
        return Relation(f"({text})", items, left.rows + right.rows)

    def _paired(self, left: Relation, right: Relation) -> tuple[str, str, tuple[Item, ...]]:
        """Select lists of columns of the same kinds, and what they are called."""
        pairs, free = [], list(right.usable)
        for one in left.usable:
            same = [two for two in free if two.kind == one.kind]
            if same and len(pairs) < 3:
                pairs.append((one, self.random.choice(same)))
                free.remove(pairs[-1][1])
        items = tuple(Item(self._name(), one.kind) for one, _ in pairs)
        first = ", ".join(f"{one.name} AS {item.name}" for (one, _), item in zip(pairs, items, strict=True))
        second = ", ".join(f"{two.name} AS {item.name}" for (_, two), item in zip(pairs, items, strict=True))
        return first, second, items

    def _distinct(self, depth: int) -> Relation | None:
        inner = self._relation(depth - 1)
        if not inner.usable:
            return None
        items = tuple(self.random.sample(inner.usable, self.random.randint(1, min(3, len(inner.usable)))))
        listed = ", ".join(item.name for item in items)
        return Relation(f"(SELECT DISTINCT {listed} FROM {inner.sql} AS {self._name()})", items, inner.rows)

    def _distinct_on(self, depth: int) -> Relation | None:
        inner = self._only_usable(self._relation(depth - 1))
        if not inner.items:
            return None
        key = self.random.choice(inner.items)
        order = ", ".join([key.name, *(item.name + self._direction() for item in inner.items if item is not key)])
        text = f"(SELECT DISTINCT ON ({key.name}) * FROM {inner.sql} AS {self._name()} ORDER BY {order})"
        return Relation(text, inner.items, inner.rows)

    def _limit(self, depth: int) -> Relation | None:
        inner = self._only_usable(self._relation(depth - 1))
        if not inner.items:
            return None
        order = ", ".join(item.name + self._direction() for item in inner.items)
        limit = self.random.choice(
            ["LIMIT 1", "LIMIT 30", "LIMIT 3 OFFSET 1", "LIMIT 50 %", "LIMIT (SELECT 5)", "OFFSET 2"]
        )
        return Relation(
            f"(SELECT * FROM {inner.sql} AS {self._name()} ORDER BY {order} {limit})", inner.items, min(inner.rows, 50)
        )

    def _project(self, depth: int) -> Relation:
        inner = self._relation(depth - 1)
        chosen = [
            self._scalar(item, inner) if item.usable else (item.name, Item(self._name(), item.kind, False))
            for item in inner.items
        ]
        return self._over(inner, chosen, "", inner.rows)

    def _scalar(self, item: Item, inner: Relation) -> tuple[str, Item]:
        if self._happens(0.4):
            return item.name, Item(self._name(), item.kind)
        if self._happens(0.1) and inner.rows <= 3000:
            return self._scalar_subquery(inner.usable)
        if self._happens(0.08) and item.kind in LITERALS:
            condition = self._condition(inner.usable, 1)
            return f"CASE WHEN {condition} THEN {item.name} END", Item(self._name(), item.kind)
        return self._form(item)

    def _form(self, item: Item) -> tuple[str, Item]:
        form, kind = self.random.choice(FORMS.get(item.kind, [("{0}", "same"), ("({0} IS NULL)", "bool")]))
        return form.format(item.name), self._result(item.kind, kind)

    def _scalar_subquery(self, outer: Sequence[Item]) -> tuple[str, Item]:
        inner = self._relation(self.random.choice([0, 0, 1]))
        if not inner.usable:
            return "1", Item(self._name(), "int")
        call, item = self._aggregate(inner.usable)
        return f"(SELECT {call} FROM {inner.sql} AS {self._name()}{self._correlation(outer, inner)})", item

    def _correlation(self, outer: Sequence[Item], inner: Relation) -> str:
        pairs = [(a, b) for a in outer for b in inner.usable if self._comparable(a, b)]
        if not pairs or self._happens(0.4):
            return ""
        one, two = self.random.choice(pairs)
        return f" WHERE {two.name} {self.random.choice(['=', '=', '=', 'IS NOT DISTINCT FROM'])} {one.name}"

    def _filter(self, depth: int) -> Relation | None:
        inner = self._relation(depth - 1)
        if not inner.usable:
            return None
        condition = self._condition(inner.usable, 2)
        listed = ", ".join(item.name for item in inner.items)
        return Relation(
            f"(SELECT {listed} FROM {inner.sql} AS {self._name()} WHERE {condition})", inner.items, inner.rows
        )

    def _pivot(self, depth: int) -> Relation | None:
        inner = self._relation(depth - 1)
        ints = [item for item in inner.usable if item.kind == "int"]
        if len(ints) < 2:
            return None
        on, value = self.random.sample(ints, 2)
        group = self.random.choice([item for item in inner.usable if item is not on])
        names = [self._name() for _ in range(3)]
        listed = f"{group.name} AS {names[0]}, {on.name} AS {names[1]}, {value.name} AS {names[2]}"
        rows = f"(SELECT {listed} FROM {inner.sql} AS {self._name()})"
        values = self.random.choice(["(0, 1, 2)", "(1)", "(1, 3)"])
        call = self.random.choice([f"count({names[2]})", f"max({names[2]})"])
        return Relation(
            f"(PIVOT {rows} ON {names[1]} IN {values} USING {call} GROUP BY {names[0]})",
            (Item(names[0], group.kind), Item('"1"', "int")),
            inner.rows,
        )

    def _unnest(self, depth: int) -> Relation | None:
        inner = self._relation(depth - 1)
        if inner.rows > 10_000:
            return None
        name = self._name()
        ints = [item for item in inner.usable if item.kind == "int"]
        if ints and self._happens(0.6):
            values = f"range(coalesce(try_cast({self.random.choice(ints).name} AS INTEGER), 0) % 4)"
        else:
            values = "[1, 2, NULL]"
        item = Item(name, "int")
        return self._over(
            inner,
            [*((one.name, replace(one, name=self._name())) for one in inner.items), (f"unnest({values})", item)],
            "",
            inner.rows * 3,
        )

    # --- conditions

    def _condition(self, items: Sequence[Item], depth: int) -> str:
        if not items:
            return "true"
        if depth > 0 and self._happens(0.3):
            joint = self.random.choice(["AND", "AND", "OR"])
            return f"({self._condition(items, depth - 1)} {joint} {self._condition(items, depth - 1)})"
        if depth > 0 and self._happens(0.1):
            return f"(NOT {self._condition(items, depth - 1)})"
        if depth > 0 and self._happens(0.45):
            return self._asking(items)
        item = self.random.choice(items)
        forms = [f"{item.name} IS NULL", f"{item.name} IS NOT NULL"]
        if item.kind in LITERALS:
            one, two = self._literal(item.kind), self._literal(item.kind)
            forms += [f"{item.name} {self.random.choice(COMPARISONS)} {one}"] * 4
            forms += [
                f"{item.name} IN ({one}, {two})",
                f"{item.name} NOT IN ({one}, {two})",
                f"{item.name} BETWEEN {one} AND {two}",
            ]
        others = [other for other in items if other is not item and self._comparable(item, other)]
        if others:
            forms += [f"{item.name} {self.random.choice(COMPARISONS)} {self.random.choice(others).name}"] * 2
        if item.kind == "bool":
            forms += [item.name, f"({item.name} IS NOT TRUE)"]
        return self.random.choice(forms)

    def _asking(self, items: Sequence[Item]) -> str:
        """A condition with a subquery, correlated or not."""
        inner = self._relation(self.random.choice([0, 0, 0, 1]))
        pairs = [(a, b) for a in items for b in inner.usable if self._comparable(a, b)]
        if not pairs or inner.rows > 20_000:
            return f"{items[0].name} IS NOT NULL"
        one, two = self.random.choice(pairs)
        source = f"{inner.sql} AS {self._name()}"
        correlated = self._correlation(items, inner)
        word = self.random.choice(["", "", "NOT "])
        sign = self.random.choice(["<", ">", ">=", "="])
        forms = [
            f"{word}EXISTS (SELECT 1 FROM {source} WHERE {two.name} = {one.name})",
            f"{one.name} {word}IN (SELECT {two.name} FROM {source})",
            f"{one.name} {word}IN (SELECT {two.name} FROM {source}{correlated})",
            f"{one.name} {sign} (SELECT {self.random.choice(['min', 'max'])}({two.name}) FROM {source}{correlated})",
            f"{one.name} {sign} {self.random.choice(['ANY', 'ALL'])} (SELECT {two.name} FROM {source})",
            f"(SELECT count(*) FROM {source}{correlated}) {sign} {self.random.randint(0, 3)}",
        ]
        return self.random.choice(forms)

    def _literal(self, kind: str) -> str:
        text = self.random.choice(LITERALS[kind])
        if (
            self._with_parameters
            and self._happens(0.3)
            and kind in ("int", "text", "bool", "time")
            and "NULL" not in text
        ):
            name = f"p{len(self._parameters) + 1}"
            self._parameters[name] = text
            return f"${name}"
        return text

    # --- small parts

    def _comparable(self, one: Item, two: Item) -> bool:
        return one.kind == two.kind or (one.kind in NUMBERS and two.kind in NUMBERS)

    def _only_usable(self, relation: Relation) -> Relation:
        if len(relation.usable) == len(relation.items):
            return relation
        if not relation.usable:
            name = self._name()
            return Relation(
                f"(SELECT 1 AS {name} FROM {relation.sql} AS {self._name()})", (Item(name, "int"),), relation.rows
            )
        listed = ", ".join(item.name for item in relation.usable)
        return Relation(f"(SELECT {listed} FROM {relation.sql} AS {self._name()})", relation.usable, relation.rows)

    def _over(self, inner: Relation, chosen: Sequence[tuple[str, Item]], clauses: str, rows: int) -> Relation:
        listed = ", ".join(f"{text} AS {item.name}" for text, item in chosen)
        return Relation(
            f"(SELECT {listed} FROM {inner.sql} AS {self._name()}{clauses})", tuple(item for _, item in chosen), rows
        )

    def _direction(self) -> str:
        return self.random.choice(["", "", " DESC"]) + self.random.choice(["", "", " NULLS FIRST", " NULLS LAST"])

    def _name(self) -> str:
        return f"a{next(self._names)}"

    def _happens(self, chance: float) -> bool:
        return self.random.random() < chance


def _joined_rows(left: Relation, right: Relation) -> int:
    """How many rows a join may have where most keys are one: a tenth of all pairs."""
    return max(left.rows, right.rows) * (1 + min(left.rows, right.rows) // 10)


def sources_of(described: Mapping[str, tuple[Sequence[tuple[str, str]], int]]) -> list[Source]:
    """What queries may read, from the columns (name, DuckDB type) and numbers of rows of tables."""
    return [
        Source(name, tuple(Item(column, kind_of(kind)) for column, kind in columns), rows)
        for name, (columns, rows) in described.items()
    ]
