"""A table of DuckDB's types and of values at their ends, for tests of every way that values go."""

from __future__ import annotations

EXTREMES: dict[str, tuple[str, ...]] = {
    "BOOLEAN": ("true", "false"),
    "UBIGINT": ("18446744073709551615::UBIGINT",),
    "HUGEINT": ("170141183460469231731687303715884105727", "'-170141183460469231731687303715884105728'::HUGEINT"),
    "UHUGEINT": ("340282366920938463463374607431768211455::UHUGEINT", "0::UHUGEINT"),
    "BIGNUM": (f"'{'1234567890' * 9}'::BIGNUM", f"'-{'1234567890' * 9}'::BIGNUM", "0::BIGNUM"),
    "DECIMAL(38, 37)": (f"'9.{'9' * 37}'::DECIMAL(38, 37)", f"'-9.{'9' * 37}'::DECIMAL(38, 37)"),
    "DECIMAL(38, 0)": (f"'{'9' * 38}'::DECIMAL(38, 0)", f"'-{'9' * 38}'::DECIMAL(38, 0)"),
    "DECIMAL(4, 4)": ("'0.0001'::DECIMAL(4, 4)", "'-0.9999'::DECIMAL(4, 4)"),
    "FLOAT": ("'nan'::FLOAT", "'inf'::FLOAT", "1e-45::FLOAT"),
    "DOUBLE": ("'nan'::DOUBLE", "'-inf'::DOUBLE", "5e-324::DOUBLE", "1.7976931348623157e308::DOUBLE"),
    "DATE": (
        "'infinity'::DATE",
        "'-infinity'::DATE",
        "'5877642-06-25 (BC)'::DATE",
        "'5881580-07-10'::DATE",
        "'0044-03-15 (BC)'::DATE",
    ),
    "TIME": ("'24:00:00'::TIME", "'00:00:00'::TIME", "'23:59:59.999999'::TIME"),
    "TIME_NS": ("'24:00:00'::TIME_NS", "'23:59:59.999999999'::TIME_NS"),
    "TIMETZ": ("'24:00:00-15:59:59'::TIMETZ", "'00:00:00+15:59:59'::TIMETZ", "'10:00:00+02'::TIMETZ"),
    "TIMESTAMP": (
        "'infinity'::TIMESTAMP",
        "'-infinity'::TIMESTAMP",
        "'290309-12-22 (BC) 00:00:00'::TIMESTAMP",
        "'294247-01-10 04:00:54.775806'::TIMESTAMP",
    ),
    "TIMESTAMP_S": ("'infinity'::TIMESTAMP_S", "'290309-12-22 (BC) 00:00:00'::TIMESTAMP_S"),
    "TIMESTAMP_MS": ("'infinity'::TIMESTAMP_MS", "'-infinity'::TIMESTAMP_MS"),
    "TIMESTAMP_NS": (
        "'infinity'::TIMESTAMP_NS",
        "'-infinity'::TIMESTAMP_NS",
        "'1677-09-22 00:00:00'::TIMESTAMP_NS",
        "'2262-04-11 23:47:16.854775806'::TIMESTAMP_NS",
    ),
    "TIMESTAMPTZ": (
        "'infinity'::TIMESTAMPTZ",
        "'-infinity'::TIMESTAMPTZ",
        "'290309-12-22 (BC) 00:00:00+00'::TIMESTAMPTZ",
    ),
    "INTERVAL": (
        "to_hours(3000000)",
        "to_hours(-3000000)",
        "to_microseconds(9223372036854775807)",
        "to_microseconds(-9223372036854775807) - to_microseconds(1)",
        "to_months(2147483647)",
        "to_days(-2147483648)",
        "to_months(13) - to_days(45) - to_microseconds(59999999)",
    ),
    "VARCHAR": ("chr(0) || 'a' || chr(0)", "''", "'🦆' || chr(0)"),
    "BLOB": ("'\\x00\\xFF'::BLOB", "''::BLOB"),
    "BIT": ("'0101'::BIT", "'1'::BIT", "'000000000'::BIT"),
    "UUID": ("'ffffffff-ffff-ffff-ffff-ffffffffffff'::UUID", "'00000000-0000-0000-0000-000000000000'::UUID"),
    "ENUM": ("'b'::ENUM('b', 'a', '')", "'a'::ENUM('b', 'a', '')", "''::ENUM('b', 'a', '')"),
    "JSON": ("'{\"a\": null}'::JSON", "'null'::JSON"),
    "GEOMETRY": ("'POINT(1 2)'::GEOMETRY", "'POINT EMPTY'::GEOMETRY"),
    "VARIANT": (
        "5::UTINYINT::VARIANT",
        "to_hours(3000000)::VARIANT",
        "'0101'::BIT::VARIANT",
        "'10:00:00+02'::TIMETZ::VARIANT",
        "18446744073709551615::UBIGINT::VARIANT",
        "170141183460469231731687303715884105727::VARIANT",
        "{'a': [to_hours(3000000)], 'b': 1}::VARIANT",
    ),
}

NESTED = {
    "bare": "{}",
    "list": "[{}, NULL]",
    "struct": "{{'f': {}}}",
    "map": "MAP {{'k': {}}}",
    "union": "union_value(u := {})",
    "array": "array_value({0}, {0})",
}
"""Each type that can have another inside."""


def table_of(type_name: str, nested: str) -> str:
    """CREATE TABLE of values of the type, each three times, and a NULL: ``id`` is unique, ``k`` repeats."""
    values = EXTREMES[type_name] * 3
    rows = [f"SELECT {i} AS id, {i % 3} AS k, {NESTED[nested].format(v)} AS x" for i, v in enumerate(values)]
    return f"CREATE OR REPLACE TABLE extremes AS {' UNION ALL '.join(rows)} UNION ALL SELECT 99, 1, NULL"
