"""Whatever is given to the public interface, it raises errors of this package, in words that a terminal can show."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sabot_sql
from sabot_sql import ConfigError, Plan, SabotSQLError, Session, SourceError, UsageError, cli, dbapi
from sabot_sql.config import MAX_PARTITIONS, MAX_THREADS


class NoText:
    """Its own text cannot be asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __fspath__(self) -> str:
        raise RuntimeError("no path")


BAD: dict[str, Any] = {
    "None": None,
    "bytes": b"select 1",
    "lone surrogate": "\ud800",
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "nan": math.nan,
    "-1": -1,
    "0": 0,
    "5": 5,
    "NUL": "a\0b",
    "list": [1],
    "dict": {"a": [1]},
    "dict of numbers": {5: 5},
    "set": {1},
    "tuple": (),
    "true": True,
    "fraction": 1.5,
    "complex": 1j,
    "large": 2**63,
    "huge": 10**400,
    "many digits": "9" * 5000,
    "object": object(),
    "class": int,
    "no text": NoText(),
    "empty": "",
    "long": "x" * 100_000,
    "control": "\x1b[2J",
}
CONNECT = [
    *("database", "agents", "isolation", "read_only", "memory_limit", "threads"),
    *("partitions", "adaptive", "spill_directory", "broadcast_limit", "config"),
    *("cluster", "token_file", "tls_ca", "lease_seconds"),
]
QUERY = ("agents", "isolation", "timeout", "max_rows", "scope", "observer")
COUNT = "SELECT count(*) FROM range(1000) t(a) WHERE a > 3"


def surface(session: Session) -> dict[str, Callable[[Any], object]]:
    """Every place of the public interface that takes a value."""
    result = session.query("SELECT 42 AS a, 'b' AS b")
    cursor = dbapi.Connection(session).cursor()

    def arraysize(value: Any) -> object:
        cursor.execute("SELECT 1")
        cursor.arraysize = value
        return cursor.fetchmany()

    def executed(method: str) -> Callable[[Any], object]:
        return lambda value: getattr(cursor.execute("SELECT 1"), method)(value)

    places: dict[str, Callable[[Any], object]] = {
        f"connect({option})": lambda value, option=option: sabot_sql.connect(**{option: value}).close()
        for option in CONNECT
    }
    places |= {
        "connect(config: threads)": lambda value: sabot_sql.connect(config={"threads": value}).close(),
        "connect(config: order)": lambda value: sabot_sql.connect(config={"default_order": value}).close(),
        "dbapi.connect": lambda value: dbapi.connect(value).close(),
        "query": session.query,
        "query(params)": lambda value: session.query("SELECT ?", value),
        "query(params, none taken)": lambda value: session.query("SELECT 1", value),
        "query(one parameter)": lambda value: session.query("SELECT ?", [value]),
        "query(named parameter)": lambda value: session.query("SELECT $a", {"a": value}),
        "sabot_sql.query": sabot_sql.query,
        "explain": session.explain,
        "plan": session.plan,
        "run_job": session.run_job,
        "explain(params)": lambda value: session.explain("SELECT ?", value),
        "cancel": session.cancel,
        "register(name)": lambda value: session.register(value, result.to_arrow_table()),
        "register(table)": lambda value: session.register("t", value),
        "unregister": session.unregister,
        "execute": cursor.execute,
        "execute(params)": lambda value: cursor.execute("SELECT ?", value),
        "executemany": lambda value: cursor.executemany("SELECT ?", value if value != BAD["long"] else [value]),
        "cursor.fetchmany": executed("fetchmany"),
        "fetch_record_batch": executed("fetch_record_batch"),
        "arraysize": arraysize,
        "to_text(max_width)": lambda value: result.to_text(5, max_width=value),
        "Plan": Plan,
        "Plan.text(width)": lambda value: result.plan.text(width=value),
        "Plan.html(opened)": lambda value: result.plan.html(opened=value),
    }
    places |= {
        f"query({option})": lambda value, option=option: session.query(COUNT, **{option: value}) for option in QUERY
    }
    places |= {
        f"explain({option})": lambda value, option=option: session.explain(COUNT, **{option: value})
        for option in ("agents", "isolation", "scope")
    }
    places |= {
        f"Result.{method}": getattr(result, method)
        for method in ("to_arrow_reader", "fetchmany", "to_parquet", "to_csv", "show", "to_text", "to_html")
    }
    return places


@pytest.fixture(scope="module", params=["auto", 2], ids=lambda agents: f"agents {agents}")
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with sabot_sql.connect(agents=request.param, memory_limit="1GiB") as opened:
        yield opened


with sabot_sql.connect() as _opened:
    PLACES = sorted(surface(_opened))


@pytest.mark.parametrize("place", PLACES)
def test_bad_arguments_raise_errors_of_ours(
    session: Session, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    call = surface(session)[place]
    for name, value in BAD.items():
        error: SabotSQLError | None = None
        try:
            with redirect_stdout(io.StringIO()):
                call(value)
        except SabotSQLError as raised:
            error = raised
        if error is not None:
            text = str(error)
            assert "exception_type" not in text, name
            assert error.code != "INTERNAL_ERROR", name
            assert all(character.isprintable() or character == "\n" for character in text), name
            assert len(text) < 5000, name
    assert not (tmp_path / "a").exists()  # what stands before a NUL is no file's name
    assert session.query("SELECT 42").fetchall() == [(42,)]


WANTED: list[tuple[str, list[str]]] = [
    ("query", ["None", "bytes", "lone surrogate", "5", "list", "object", "true", "no text"]),
    ("query(params)", ["5", "-1", "nan", "object", "bytes", "long", "set", "dict of numbers", "no text"]),
    ("query(timeout)", ["infinity", "nan", "-1", "0", "list", "bytes", "huge", "true", "object"]),
    ("query(max_rows)", ["infinity", "-1", "list", "fraction", "huge", "large", "true", "NUL"]),
    ("query(agents)", ["-1", "0", "huge", "list", "bytes", "true", "no text"]),
    ("query(scope)", ["5", "list", "dict of numbers", "bytes", "object"]),
    ("query(observer)", ["5", "list", "bytes", "object", "true"]),
    ("connect(database)", ["None", "bytes", "lone surrogate", "NUL", "5", "list", "empty", "no text"]),
    ("connect(cluster)", ["bytes", "lone surrogate", "NUL", "5", "list", "empty", "no text", "object"]),
    ("connect(token_file)", ["bytes", "5", "list", "object", "empty", "long"]),
    ("plan", ["None", "5", "bytes", "empty", "long"]),
    ("run_job", ["None", "5", "bytes", "empty", "object"]),
    ("connect(threads)", ["-1", "0", "huge", "large", "fraction", "true", "list", "infinity"]),
    ("connect(partitions)", ["-1", "0", "huge", "large", "true"]),
    ("connect(memory_limit)", ["-1", "huge", "large", "many digits", "infinity", "list", "true", "0", "5"]),
    ("connect(read_only)", ["None", "5", "0", "bytes", "list"]),
    ("connect(adaptive)", ["None", "5", "bytes", "list", "object"]),
    ("connect(spill_directory)", ["bytes", "NUL", "5", "lone surrogate", "list", "no text", "empty"]),
    ("connect(config)", ["5", "0", "list", "tuple", "bytes", "dict of numbers", "empty"]),
    ("connect(config: threads)", ["-1", "large", "huge", "no text"]),
    ("register(name)", ["None", "5", "bytes", "lone surrogate", "empty", "NUL", "list"]),
    ("register(table)", ["None", "5", "list", "dict", "object", "class"]),
    ("explain", ["None", "5", "bytes", "empty"]),
    ("cancel", ["5", "bytes", "list"]),
    ("execute", ["None", "5", "bytes"]),
    ("executemany", ["None", "5", "bytes", "long"]),
    ("cursor.fetchmany", ["-1", "bytes", "fraction", "huge", "list"]),
    ("Result.to_arrow_reader", ["0", "-1", "None", "bytes", "huge"]),
    ("Result.to_parquet", ["None", "5", "bytes", "NUL", "lone surrogate", "no text"]),
    ("Result.to_csv", ["None", "5", "bytes", "NUL", "empty"]),
    ("Result.show", ["None", "-1", "infinity", "bytes", "huge"]),
]


@pytest.mark.parametrize(("place", "values"), WANTED, ids=[place for place, _ in WANTED])
def test_misuse_is_a_usage_error(session: Session, place: str, values: list[str]) -> None:
    call = surface(session)[place]
    for name in values:
        try:
            call(BAD[name])
        except UsageError:
            continue
        pytest.fail(f"{name} was taken")


def test_large_but_sensible_values_are_taken() -> None:
    options: dict[str, Any] = {"threads": MAX_THREADS, "partitions": MAX_PARTITIONS, "memory_limit": "1TiB"}
    for option, value in options.items():
        sabot_sql.connect(**{option: value}).close()
    with sabot_sql.connect(agents=2) as session:
        assert session.query(COUNT, timeout=365 * 86_400, max_rows=2**62).fetchall() == [(996,)]


def test_threads_and_partitions_are_bounded() -> None:
    for option, most in (("threads", MAX_THREADS), ("partitions", MAX_PARTITIONS)):
        with pytest.raises(ConfigError, match=f"from 1 to {most}"):
            sabot_sql.connect(**{option: most + 1})  # type: ignore[arg-type]


def test_an_infinite_timeout_is_refused_in_words(session: Session) -> None:
    with pytest.raises(ConfigError, match="None is no limit"):
        session.query("SELECT 1", timeout=math.inf)


def test_an_observer_that_raises_ends_its_query_alone() -> None:
    def observer(_: object) -> None:
        raise ValueError("my own")

    with sabot_sql.connect(agents=2, memory_limit="1GiB") as session:
        with pytest.raises(UsageError, match="the observer raised ValueError: my own") as caught:
            session.query("SELECT a % 7, count(*) FROM range(100_000) t(a) GROUP BY ALL", observer=observer)
        assert isinstance(caught.value.__cause__, ValueError)
        assert session.running() == ()
        assert session.query(COUNT).fetchall() == [(996,)]


def test_a_scope_whose_lookup_raises(session: Session) -> None:
    class Scope(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            raise OSError("no lookup")

    with pytest.raises(SabotSQLError, match="no lookup"):
        session.query("SELECT * FROM unknown", scope=Scope())


def test_a_package_that_is_not_installed_is_named(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    result = session.query("SELECT 1")
    for package, export in (("pandas", result.df), ("polars", result.pl)):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ConfigError, match=package):
                export()


# ------------------------------------------------------------------------------------------------- command line

LINES = [
    ["query", "SELECT 1", "--timeout", "inf"],
    ["query", "SELECT 1", "--timeout", "nan"],
    ["query", "SELECT 1", "--agents", "0"],
    ["query", "SELECT 1", "--agents", "999999999999"],
    ["query", "SELECT 1", "--memory-limit", "lots"],
    ["query", "SELECT 1", "--memory-limit", "9" * 400],
    ["query", "SELECT 1", "--database", ""],
    ["query", "SELECT 1", "--database", "a\0b"],
    ["query", "SELECT \ud800"],
    ["query", "--file", "no\0file"],
    ["query", "--file", "/no/such/file"],
    ["query", "SELECT 1", "--output", "/no/such/directory/file"],
    ["query", "SELECT 1", "--format", "json", "--output", "/no/such/directory/file"],
    ["query", "SELECT 1", "--format", "csv", "--output", "/no/such/directory/file"],
    ["query", "SELECT 1", "--format", "parquet", "--output", "/no/such/directory/file"],
    ["query", "SELECT 1", "--format", "parquet", "--output", ""],
    ["query", "SELECT '\x1b[31m' || no_such_column"],
    ["explain", "SET threads = 1"],
    ["explain", ""],
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line)[:40].encode("unicode_escape").decode())
def test_the_command_line_fails_in_words(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("SabotSQLError [")
    assert "exception_type" not in captured.err
    assert all(character.isprintable() or character == "\n" for character in captured.err)


def test_the_command_line_repeats_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    for line in (["\x1b[2J"], ["query", "SELECT 1", "--agents", "\x1b[2J"], ["query", "1", "\x1b[2J"]):
        with pytest.raises(SystemExit):
            cli.main(line)
        assert "\x1b" not in capsys.readouterr().err


def test_a_terminal_of_another_encoding() -> None:
    command = [sys.executable, "-m", "sabot_sql.cli", "query", "SELECT 'ü 🦆' AS \"naïve\""]
    ran = subprocess.run(command, env={"PYTHONIOENCODING": "ascii", **environment()}, capture_output=True, timeout=60)
    assert ran.returncode == 0
    assert b"Traceback" not in ran.stderr
    assert b"na\\xefve" in ran.stdout


def environment() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}


# ---------------------------------------------------------------------------------------------- control characters

CONTROL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"


def test_control_characters_reach_no_terminal(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quoted = CONTROL.replace("'", "''")
    shown: list[str] = []
    for sql in (
        f'SELECT "{CONTROL}"',
        f"SELECT * FROM '{tmp_path}/{quoted}.parquet'",
        f"SELECT error('{quoted}')",
        f"SELECT CAST('{quoted}' || range AS INTEGER) FROM range(10)",
        f"{CONTROL} SELECT",
        f"SET {CONTROL} = 1",
        f"SELECT 1 /* {CONTROL} */ + no_such_column",
    ):
        with pytest.raises(SabotSQLError) as caught:
            session.query(sql)
        shown += [str(caught.value), repr(caught.value)]
    name = f"{tmp_path}/{CONTROL}.parquet".replace("'", "''")
    session.execute(f"COPY (SELECT range AS a FROM range(5000)) TO '{name}'")
    sql = f"SELECT a % 3 AS \"{CONTROL}\", '{quoted}' || count(*) AS t FROM '{name}' GROUP BY ALL"
    result = session.query(sql)
    result.show()
    plan = result.plan
    shown += [
        capsys.readouterr().out,
        repr(result),
        result.to_text(),
        plan.text(),
        str(plan),
        repr(plan),
        plan.status(),
    ]
    shown += [session.explain(sql).text(), repr(session)]
    for text in shown:
        assert not set(text) & set(CONTROL) - set("title02J31m;[]"), text
    assert any("\\x1b" in text for text in shown)


def test_carets_stand_under_the_place_also_after_what_is_escaped(session: Session) -> None:
    with pytest.raises(SabotSQLError) as caught:
        session.query("SELECT '\x1b\x1b' || nope FROM range(3)")
    _, excerpt, carets = str(caught.value).splitlines()[:3]
    assert carets[excerpt.index("nope") :].startswith("^^^^ ")


# ------------------------------------------------------------------------------------------- one database file twice


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "twice.duckdb")
    with duckdb.connect(path) as made:
        made.execute("CREATE TABLE t AS SELECT range AS a FROM range(1000)")
    return path


def test_sessions_that_read_share_a_database_file(database: str) -> None:
    read: dict[str, Any] = {"read_only": True, "memory_limit": "1GiB"}
    with (
        sabot_sql.connect(database, **read) as one,
        sabot_sql.connect(database, agents=2, **read) as two,
        sabot_sql.connect(database, agents=2, isolation="process", **read) as three,
        duckdb.connect(database, read_only=True) as plain,
    ):
        for opened in (one, two, three):
            assert opened.query("SELECT count(*), sum(a) FROM t").fetchall() == [(1000, 499500)]
            assert opened.query("SELECT current_database(), current_schema()").fetchall() == [("twice", "main")]
            with pytest.raises(SabotSQLError, match="read-only"):
                opened.query("CREATE TABLE u AS SELECT 1")
        assert plain.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]
    with duckdb.connect(database, read_only=True), sabot_sql.connect(database, **read) as after:
        assert after.query("SELECT count(*) FROM t").fetchall() == [(1000,)]


def test_a_database_that_is_written_elsewhere_is_refused_in_words(database: str) -> None:
    openers: list[Callable[[], Any]] = [lambda: sabot_sql.connect(database), lambda: duckdb.connect(database)]
    for first in openers:
        with first():
            for read_only in (False, True):
                with pytest.raises(ConfigError, match="in use") as caught:
                    sabot_sql.connect(database, read_only=read_only)
                assert caught.value.code == "DATABASE_IN_USE"
    with sabot_sql.connect(database, read_only=True), pytest.raises(ConfigError, match="in use"):
        sabot_sql.connect(database)
    sabot_sql.connect(database).close()


def test_a_database_that_another_process_writes_is_refused_in_words(database: str) -> None:
    program = f"import duckdb, sys; held = duckdb.connect({database!r}); print('up', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        for read_only in (False, True):
            with pytest.raises(ConfigError, match="in use"):
                sabot_sql.connect(database, read_only=read_only)
        other.stdin.close()


@pytest.mark.parametrize("name", ["memory.duckdb", "temp.duckdb", 'it\'s "odd".duckdb', "system.db"])
def test_a_database_of_an_awkward_name_can_be_read(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    with duckdb.connect() as made:
        made.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS x")
        made.execute("CREATE TABLE x.t AS SELECT 42 AS a")
    with duckdb.connect() as plain:
        plain.execute("SELECT 1")
    try:
        expected: object = duckdb.connect(path, read_only=True).sql("SELECT a FROM t").fetchall()
    except duckdb.Error:
        expected = None
    if expected is None:
        with pytest.raises(SabotSQLError):
            sabot_sql.connect(path, read_only=True)
    else:
        with sabot_sql.connect(path, read_only=True) as session:
            assert session.query("SELECT a FROM t").fetchall() == expected


@pytest.mark.parametrize(
    "statement", ["ATTACH '{f}' AS x (READ_ONLY)", "ATTACH '{d}/no/f.duckdb'", "CONNECT '{f}'", "USE '{f}'"]
)
def test_no_file_is_made_where_there_was_none(session: Session, tmp_path: Path, statement: str) -> None:
    with pytest.raises(SabotSQLError) as caught:
        session.query(statement.format(d=tmp_path, f=tmp_path / "f.duckdb"))
    assert caught.value.code != "INTERNAL_ERROR"
    with pytest.raises(SourceError):
        sabot_sql.connect(tmp_path / "f.duckdb", read_only=True)
    assert list(tmp_path.iterdir()) == []
