"""Which functions tell of a connection, or do something beside giving rows: those are the session's own to run."""

from __future__ import annotations

from sabot_sql.catalog.relation_text import FunctionCall

SAME_ANYWHERE = frozenset(
    {
        "generate_series", "glob", "icu_calendar_names", "json_each", "json_tree", "parquet_bloom_probe",
        "parquet_file_metadata", "parquet_full_metadata", "parquet_kv_metadata", "parquet_metadata",
        "parquet_page_index", "parquet_schema", "pg_timezone_names", "range", "read_duckdb", "repeat", "repeat_row",
        "sniff_csv", "test_all_types", "test_vector_types", "unnest",
    }
)  # fmt: skip
"""Table functions, beside those that read files, that give every connection of an instance the same rows."""

TELL_OF_CONNECTION = frozenset(
    {
        "current_database", "current_schema", "current_schemas", "current_setting", "getvariable", "in_search_path",
        "txid_current",
    }
)  # fmt: skip
"""Scalar functions that give another connection another value; DuckDB folds them where their arguments are constant."""

_REJECTS = ("store_rejects", "rejects_table", "rejects_scan")


def session_reason(call: FunctionCall, reads_files: bool) -> str | None:
    """Why a table function runs on the session's own connection; None where any connection will do.

    What is not known is not tried elsewhere.
    """
    if reads_files:
        kept = any(call.option(name) is not None for name in _REJECTS)
        return f"{call.name}() keeps rejected rows in tables of the session's connection" if kept else None
    if call.name in SAME_ANYWHERE:
        return None
    return f"{call.name}() is asked of the session's own connection"
