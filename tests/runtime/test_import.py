from __future__ import annotations

import subprocess
import sys

import pyarrow as pa

import sabot_sql


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_import_loads_nothing_heavy() -> None:
    heavy = (
        "duckdb",
        "pyarrow",
        "numpy",
        "pandas",
        "polars",
        "sqlglot",
        "IPython",
        "dbos",
        "sabot_planner",
        "sabot_native",
    )
    out = python(f"import sys, sabot_sql; print([name for name in {heavy!r} if name in sys.modules])")
    assert out.strip() == "[]"


def test_a_query_on_one_agent_loads_no_planner() -> None:
    heavy = ("pandas", "polars", "sqlglot", "IPython", "dbos", "sabot_native")
    code = f"sabot_sql.query('SELECT 1').fetchall(); print([name for name in {heavy!r} if name in sys.modules])"
    assert python(f"import sys, sabot_sql; {code}").strip() == "[]"


def test_the_default_session_is_shared_and_finds_frames() -> None:
    frame = pa.table({"a": [1, 2]})
    sabot_sql.query("CREATE OR REPLACE TABLE kept AS FROM frame")
    assert sabot_sql.query("SELECT sum(a) FROM kept").fetchall() == [(3,)]
    sabot_sql.query("DROP TABLE kept")
    assert frame.num_rows == 2
