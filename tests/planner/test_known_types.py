"""Types that the planner knows without asking are those that DuckDB gives."""

from __future__ import annotations

from itertools import product

import duckdb
import pytest

from sabot_planner.sql.duck_type import BIGINT, duck_type
from sabot_planner.sql.known_types import _RULES, known_type

pytestmark = pytest.mark.fast

TYPES = [
    *(
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "HUGEINT",
        "UHUGEINT",
    ),
    *(
        "FLOAT",
        "DOUBLE",
        "DECIMAL(4,1)",
        "DECIMAL(18,3)",
        "DECIMAL(38,10)",
        "BOOLEAN",
        "VARCHAR",
        "BLOB",
        "BIT",
        "UUID",
    ),
    *("DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "INTERVAL", "INTEGER[]", '"NULL"'),
]


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@pytest.mark.parametrize("name", [*_RULES, "count", "count_star"])
@pytest.mark.parametrize("arity", [0, 1, 2, 3])
def test_known_types_are_duckdbs(connection: duckdb.DuckDBPyConnection, name: str, arity: int) -> None:
    types = TYPES if arity < 3 else ["VARCHAR", "BIGINT", "INTEGER"]
    known = {a: t for a in product(types, repeat=arity) if (t := known_type(name, list(map(duck_type, a)))) is not None}
    for arguments, expected in known.items():
        casts = ", ".join(f"CAST(NULL AS {t})" for t in arguments)
        over = " OVER ()" if name in ("row_number", "rank", "dense_rank") else ""
        try:
            rows = connection.execute(f'DESCRIBE SELECT "system".main."{name}"({casts}){over}').fetchall()
        except duckdb.BinderException:
            continue  # the exporter never prints a call that does not bind
        assert duck_type(rows[0][1]) == expected, arguments


def test_what_is_not_known_is_asked() -> None:
    assert known_type("sum", [duck_type("INTERVAL")]) is None
    assert known_type("+", [duck_type("DECIMAL(4,1)")] * 2) is None
    assert known_type("+", [duck_type("INTEGER"), BIGINT]) is None
    assert known_type("no such function", []) is None
