"""What a durable query reads of its session goes along: under any name, in any order, of any type."""

from __future__ import annotations

import duckdb
import pytest

import sabot_sql
from sabot_sql.catalog.mentioned_names import MentionedNames
from sabot_sql.detached.state_directory import StateDirectory

_ROWS = "AS SELECT unnest([1, 2, 3]) AS i"


@pytest.mark.parametrize(
    ("setup", "sql"),
    [
        (f"CREATE TABLE t {_ROWS}", """SELECT '"' AS quote, i FROM t WHERE 'x' <> '"'"""),
        (f'CREATE TABLE "a""" {_ROWS}', 'FROM "a"""'),
        (f"CREATE TABLE t$1 {_ROWS}", "FROM t$1"),
        (f"CREATE TABLE 🦆 {_ROWS}", "FROM 🦆"),
        (f'CREATE TABLE "a-b" {_ROWS}', "FROM query_table('a-b')"),
        (f"CREATE TABLE ab {_ROWS}; SET VARIABLE q = 'FROM a'", "FROM query(getvariable('q') || 'b')"),
        (f"CREATE TABLE t {_ROWS}; CREATE MACRO m$m() AS (SELECT max(i) FROM t)", "SELECT m$m() AS m"),
    ],
    ids=["quotes in text", "quote", "dollar", "emoji", "query_table", "query", "macro"],
)
def test_a_table_of_any_name_is_copied(shared_state: StateDirectory, setup: str, sql: str) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query(setup)
        rows = sorted(session.query(sql, scope={}).fetchall())
        assert rows
        assert sorted(session.submit(sql, scope={}).result(60).fetchall()) == rows


@pytest.mark.parametrize(
    ("text", "named", "unnamed"),
    [
        ("SELECT * FROM T, Other", ["t", "OTHER"], ["o", "the"]),
        ('SELECT 1 FROM "my ""table"""', ['my "table"'], ["tab"]),
        ("SELECT * FROM v", ["v", "inner_table"], ["w_table"]),
        ("FROM query('a' || 'b')", ["ab"], []),
        ("FROM indirect", ["anything"], []),
    ],
)
def test_names_are_found_in_texts_and_in_what_they_name(text: str, named: list[str], unnamed: list[str]) -> None:
    bodies = [
        ("w", "SELECT * FROM w_table"),
        ("u", "SELECT * FROM inner_table"),
        ("v", "SELECT * FROM u"),
        ("indirect", "FROM query('x')"),
    ]
    names = MentionedNames(text, bodies)
    assert all(name in names for name in named)
    assert not any(name in names for name in unnamed)


def test_objects_that_need_others_are_made_after_them(shared_state: StateDirectory) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query(
            """
            CREATE TABLE z_parent (i INTEGER PRIMARY KEY); CREATE TABLE child (j INTEGER REFERENCES z_parent (i));
            INSERT INTO z_parent VALUES (1), (2); INSERT INTO child VALUES (1), (1);
            CREATE TEMP TABLE t AS SELECT 2 AS i; CREATE TEMP VIEW v AS FROM t; CREATE TEMP VIEW a AS FROM v;
            CREATE TEMP MACRO twice(x) AS x * 2, (x, y) AS x * y; CREATE TEMP MACRO again(x) AS twice(x) + 1;
            CREATE TEMP TYPE mood AS ENUM ('sad', 'ok'); CREATE SEQUENCE s;
            ATTACH ':memory:' AS "x/y"; CREATE TABLE "x/y".far AS SELECT 7 AS f;
            """
        )
        sql = """
            SELECT j, a.i, twice(2) AS two, twice(3, 4) AS both, again(1) AS nested, 'ok'::mood AS m, f
            FROM child, a, "x/y".far
        """
        expected = session.query(sql).fetchall()
        assert len(expected) == 2
        assert session.submit(sql).result(60).fetchall() == expected


def test_variables_of_any_type_go_along(shared_state: StateDirectory) -> None:
    values = {
        "n": "NULL",
        "i": "NULL::INTEGER",
        "t": "'NULL'",
        "u": "union_value(k := 5)",
        "v": "5::VARIANT",
        "l": """[{'a': ['x''y', NULL, 'NULL', '"']}]""",
        "e": "'b''c'::ENUM ('a', 'b''c')",
        "b": r"'\x00\xAA'::BLOB",
        "d": "1.50::DECIMAL(38, 10)",
    }
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query("; ".join(f"SET VARIABLE {name} = {value}" for name, value in values.items()))
        sql = "SELECT " + ", ".join(f"getvariable('{name}') AS {name}" for name in values)
        expected, found = session.query(sql), session.submit(sql).result(60)
        assert (found.fetchall(), found.types) == (expected.fetchall(), expected.types)


@pytest.mark.parametrize("sql", ["SELECT nextval('s')", "SELECT rowid, i FROM t"])
def test_what_would_be_another_in_a_copy_is_refused(shared_state: StateDirectory, sql: str) -> None:
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query(f"CREATE SEQUENCE s; CREATE TABLE t {_ROWS}; DELETE FROM t WHERE i = 1")
        before = sorted(shared_state.queries.iterdir())
        with pytest.raises(sabot_sql.UsageError) as refused:
            session.submit(sql)
        assert refused.value.code == "NOT_DURABLE"
        assert sorted(shared_state.queries.iterdir()) == before


def test_tables_that_are_not_read_are_not_there(shared_state: StateDirectory) -> None:
    """One that was overlooked would give an error: an empty one in its place would give rows that are wrong."""
    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        session.query(
            f"""
            CREATE TABLE parent (i INTEGER PRIMARY KEY); CREATE TABLE child (i INTEGER REFERENCES parent (i));
            CREATE TABLE read {_ROWS}; CREATE TABLE other {_ROWS}; CREATE VIEW over_other AS FROM other;
            CREATE MACRO of_other() AS (SELECT max(i) FROM other);
            CREATE TEMP MACRO of_other_too() AS (SELECT max(i) FROM other);
            """
        )
        handle = session.submit("SELECT count(*) FROM read", scope={})
        assert handle.result(60).fetchall() == [(3,)]
    (file,) = shared_state.query(handle.query_id).rglob("memory.duckdb")
    with duckdb.connect(str(file), read_only=True) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("read",)]
