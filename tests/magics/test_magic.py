"""The magics in a real shell, on a real session."""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import threading
import time

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sabot_sql
from tests.magics.conftest import Notebook


def test_a_small_cell_shows_its_rows_and_one_quiet_line(notebook: Notebook) -> None:
    ran = notebook.sabot("SELECT 42 AS answer, NULL AS nothing")
    assert len(ran.displays) == 1
    assert "<td>42</td>" in ran.html
    assert "<i>NULL</i>" in ran.html
    assert "1 row × 2 columns" in ran.html
    assert "sabot-plan" not in ran.html
    assert "agent" not in ran.html + ran.text
    assert ran.text.splitlines()[-1].startswith("1 row × 2 columns · ")
    assert ran.rows == [["42", "NULL"]]
    assert ran.out == ran.err == ""


def test_sql_is_left_alone(notebook: Notebook) -> None:
    notebook.names["x"] = "wrong"
    ran = notebook.sabot("SELECT '{x} $x :x %x -1 --explain' AS a, -1 AS b, 7 % 2 AS c -- $x 'open\n", "kept <<")
    assert notebook.names["kept"].fetchall() == [("{x} $x :x %x -1 --explain", -1, 1)]
    assert ran.text == "kept: 1 row × 3 columns"


def test_the_line_form_takes_no_options(notebook: Notebook) -> None:
    assert notebook.run("%sabot SELECT -1 AS minus --agents 4").rows == [["-1"]]
    assert notebook.run("%sabot SELECT '--x' AS text").rows == [["--x"]]


def test_a_line_in_a_function_sees_its_variables(notebook: Notebook) -> None:
    notebook.names["pa"] = pa
    lines = ["wanted = 5", "rows = pa.table({'a': [1, 5]})", "r = %sabot SELECT count(*) FROM rows WHERE a = $wanted"]
    ran = notebook.run("def f():\n    " + "\n    ".join([*lines, "return r"]) + "\nf()")
    assert ran.error is None, ran.out
    assert ran.rows == [["1"]]


def test_statements_run_in_order_and_the_last_shows(notebook: Notebook) -> None:
    ran = notebook.sabot(
        "CREATE TABLE t AS SELECT range AS i FROM range(5);\nINSERT INTO t VALUES (100);\nSELECT sum(i) AS s FROM t"
    )
    assert ran.rows == [["110"]]
    assert notebook.sabot("SELECT count(*) AS n FROM t").rows == [["6"]]


@pytest.mark.parametrize("first_line", ["kept <<", "-o kept", "--out kept"])
def test_a_kept_result_is_not_shown(notebook: Notebook, first_line: str) -> None:
    ran = notebook.sabot("SELECT 42 AS answer", first_line)
    assert ran.text == "kept: 1 row × 1 column"
    assert ran.html == ""
    kept = notebook.names["kept"]
    assert isinstance(kept, sabot_sql.Result)
    assert kept.fetchall() == [(42,)]


def test_display_can_be_asked_for_and_turned_off(notebook: Notebook) -> None:
    assert "<td>42</td>" in notebook.sabot("SELECT 42", "kept << --show").html
    assert notebook.sabot("SELECT 42", "kept << -q").displays == []
    assert notebook.sabot("SELECT 42", "--no-display").displays == []


def test_limit_changes_the_display_only(notebook: Notebook) -> None:
    ran = notebook.sabot("SELECT range AS i FROM range(100) ORDER BY i", "kept << --show -n 4")
    assert ran.html.count("<tr><td>") == 4
    assert "4 of 100 rows" in ran.text
    assert len(notebook.names["kept"]) == 100
    assert "20 of 100 rows" in notebook.sabot("SELECT range AS i FROM range(100)").text


def test_max_rows_says_that_it_cut(notebook: Notebook) -> None:
    ran = notebook.sabot("SELECT range AS i FROM range(100000)", "kept << --show --max-rows 50")
    assert "TRUNCATED at 50" in ran.text
    assert "TRUNCATED at 50" in ran.html
    assert len(notebook.names["kept"]) == 50


def test_parameters_are_bound(notebook: Notebook) -> None:
    notebook.names.update(low=2, name="it's; DROP TABLE t --", day=dt.date(2024, 2, 29), values={"a": 1, "b": None})
    notebook.sabot("SELECT $name, $low + 1, $day, $nothing", "kept << -p nothing=None")
    assert notebook.names["kept"].fetchall() == [("it's; DROP TABLE t --", 3, dt.date(2024, 2, 29), None)]
    notebook.sabot("SELECT $a, $b", "kept << -p values")
    assert notebook.names["kept"].fetchall() == [(1, None)]
    notebook.sabot("SELECT ?, ?", "kept << --params [low, 'x']")
    assert notebook.names["kept"].fetchall() == [(2, "x")]


def test_a_parameter_without_a_scalar_is_an_error(notebook: Notebook) -> None:
    notebook.names["many"] = [1, 2]
    ran = notebook.run("%%sabot\nSELECT $many")
    assert isinstance(ran.error, sabot_sql.ConfigError)
    assert "$many is a list; only single values are taken from the notebook" in ran.out


def test_frames_of_the_notebook_are_tables(notebook: Notebook) -> None:
    notebook.names["people"] = pd.DataFrame({"name": ["a", "b"], "age": [30, 40]})
    notebook.names["arrow"] = pa.table({"name": ["a"], "city": ["Zürich"]})
    notebook.sabot("SELECT city, age FROM people JOIN arrow USING (name)", "kept <<")
    assert notebook.names["kept"].fetchall() == [("Zürich", 30)]
    notebook.sabot("SELECT count(*) FROM kept", "again <<")
    assert notebook.names["again"].fetchall() == [(1,)]


def test_python_sees_the_same_tables(notebook: Notebook) -> None:
    notebook.sabot("CREATE TABLE shared AS SELECT 5 AS a")
    assert sabot_sql.query("FROM shared").fetchall() == [(5,)]
    sabot_sql.default_session().register("registered", pa.table({"b": [6]}))
    assert notebook.sabot("SELECT a + b AS c FROM shared, registered").rows == [["11"]]
    sabot_sql.default_session().close()
    assert isinstance(notebook.run("%%sabot\nFROM shared").error, sabot_sql.BindError)


def test_another_session(notebook: Notebook) -> None:
    with sabot_sql.connect() as other:
        notebook.names["other"] = other
        notebook.sabot("CREATE TABLE only_there AS SELECT 1 AS a", "-c other")
        assert notebook.sabot("FROM only_there", "--conn other").rows == [["1"]]
        assert isinstance(notebook.run("%%sabot\nFROM only_there").error, sabot_sql.BindError)
    ran = notebook.run("%%sabot -c nowhere\nSELECT 1")
    assert "--conn nowhere: no Session of that name" in ran.out


def test_a_mistake_in_sql_shows_no_traceback(notebook: Notebook) -> None:
    notebook.sabot("CREATE TABLE orders AS SELECT 1 AS o_orderkey")
    ran = notebook.run("%%sabot\nSELECT 1,\n       o_orderkeyy FROM orders")
    assert isinstance(ran.error, sabot_sql.BindError)
    lines = ran.out.splitlines()
    assert lines[0].startswith("SabotSQLError [")
    assert lines[1] == "  2 |        o_orderkeyy FROM orders"
    assert lines[2] == "    |        ^^^^^^^^^^^   Line 2, Col: 8"
    assert "did you mean: o_orderkey" in lines[3]
    assert "Traceback" not in ran.out


def test_short_errors_can_be_turned_off(notebook: Notebook) -> None:
    assert notebook.run("%config SabotMagic.short_errors = False").error is None
    ran = notebook.run("%%sabot\nSELECT nope")
    assert "Traceback" in ran.out
    assert "session.py" in ran.out
    assert isinstance(ran.error, sabot_sql.BindError)


def test_errors_of_python_code_are_short_too_and_others_are_as_before(notebook: Notebook) -> None:
    ran = notebook.run("import sabot_sql\nsabot_sql.query('SELECT nope')")
    assert ran.out.startswith("SabotSQLError [COLUMN_NOT_FOUND]")
    assert "Traceback" not in ran.out
    assert "Traceback" in notebook.run("1 / 0").out
    assert notebook.run("%unload_ext sabot_sql").error is None
    assert "Traceback" in notebook.run("sabot_sql.query('SELECT nope')").out
    assert notebook.run("%load_ext sabot_sql").error is None


def test_a_handler_that_the_user_has_set_goes_on(notebook: Notebook) -> None:
    assert notebook.run("%unload_ext sabot_sql").error is None
    notebook.run(
        "def mine(shell, kind, error, traceback, tb_offset=None):\n    print('mine:', error)\n"
        "get_ipython().set_custom_exc((ZeroDivisionError,), mine)"
    )
    shell = notebook.shell
    before = shell.custom_exceptions, shell.CustomTB
    assert notebook.run("%load_ext sabot_sql").error is None
    assert "mine: division" in notebook.run("1 / 0").out
    assert notebook.run("%sabot SELECT nope").out.startswith("SabotSQLError [COLUMN_NOT_FOUND]")
    assert notebook.run("%unload_ext sabot_sql").error is None
    assert (shell.custom_exceptions, shell.CustomTB) == before
    assert "mine: division" in notebook.run("1 / 0").out
    shell.set_custom_exc((), None)
    assert notebook.run("%load_ext sabot_sql").error is None


def test_a_mistake_in_the_first_line(notebook: Notebook) -> None:
    ran = notebook.run("%%sabot --agent 4\nSELECT 1")
    assert "no option --agent" in ran.out
    assert "did you mean: --agents?" in ran.out
    assert "the cell has no SQL below its first line" in notebook.run("%%sabot\n\n").out


def test_a_result_whose_rows_have_gone_is_shown_as_that(notebook: Notebook) -> None:
    notebook.run("%sabot SELECT 1 AS a")
    ran = notebook.run("closed = %sabot SELECT 1 AS a\nclosed.close()\nclosed")
    assert ran.error is None
    assert ran.text == "<closed Result: 1 row × 1 column>"
    assert "Traceback" not in ran.out
    ran = notebook.run(
        "import sabot_sql\nwith sabot_sql.connect(memory_limit='256MiB') as s:\n"
        "    large = s.query(\"SELECT range AS a, repeat('x', 100) AS b FROM range(600000)\")\n"
        "assert large.stats['on_disk']\nlarge"
    )
    assert ran.text == "<closed Result: 600,000 rows × 2 columns>"
    assert "Traceback" not in ran.out


@pytest.mark.parametrize("line", ["--agents 2 SELECT 1", "-n 5 SELECT 1", "-- SELECT 1", "--halp"])
def test_a_line_magic_that_would_be_a_comment_is_refused(notebook: Notebook, line: str) -> None:
    ran = notebook.run(f"%sabot {line}")
    assert isinstance(ran.error, sabot_sql.ConfigError)
    assert "%sabot takes one line of SQL and no options" in ran.out
    assert ("did you mean: --help?" in ran.out) == (line == "--halp")


def test_help_and_status(notebook: Notebook) -> None:
    assert "--explain [text|json|svg]" in notebook.run("%sabot --help").out
    assert notebook.run("%sabot").out == notebook.run("%%sabot --help\n ").out
    assert notebook.run("%sabot --status").out == "no session yet: the first query starts one\n"
    notebook.sabot("SELECT 1")
    assert notebook.run("%sabot --status").out == "agents: auto · isolation: thread · running: nothing\n"
    assert notebook.run("%sabot --cancel").out == "cancelled: nothing, no query is running\n"
    assert "no query q-1 is running" in notebook.run("%sabot --cancel q-1").out


def test_configuration(notebook: Notebook) -> None:
    assert notebook.run("%config SabotMagic.limit = 3").error is None
    assert "3 of 9 rows" in notebook.sabot("SELECT range FROM range(9)").text
    assert "5 of 9 rows" in notebook.sabot("SELECT range FROM range(9)", "-n 5").text
    listed = notebook.run("%config SabotMagic").out
    for name in ("agents", "limit", "max_rows", "timeout_seconds", "progress", "short_errors"):
        assert f"SabotMagic.{name}" in listed
    notebook.run("%config SabotMagic.max_rows = 4")
    assert "TRUNCATED at 4" in notebook.sabot("SELECT range FROM range(9)").text


def test_a_query_gives_up_in_time(notebook: Notebook) -> None:
    start = time.monotonic()
    ran = notebook.run(
        "%%sabot --timeout 0.3\nSELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7"
    )
    assert isinstance(ran.error, sabot_sql.QueryTimeout)
    assert time.monotonic() - start < 5
    assert notebook.sabot("SELECT 1").rows == [["1"]]


def test_explain_runs_nothing(notebook: Notebook) -> None:
    sql = "SELECT error('it ran') AS a FROM range(3)"
    for form in ("", "text", "json", "svg"):
        assert notebook.run(f"%%sabot --explain {form}\n{sql}").error is None
    assert "text/html" in notebook.run(f"%%sabot --explain\n{sql}").displays[0]
    assert "single" in notebook.run(f"%%sabot --explain text\n{sql}").out
    bundle = notebook.run(f"%%sabot --explain json\n{sql}").displays[0]
    assert bundle["application/json"]["mode"] == "single"
    assert json.loads(bundle["text/plain"]) == bundle["application/json"]
    assert notebook.run(f"%%sabot --explain svg\n{sql}").displays[0]["image/svg+xml"].startswith("<svg")


@pytest.mark.parametrize(
    "hostile", ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "javascript:alert(1)"]
)
def test_hostile_text_stays_text(notebook: Notebook, hostile: str) -> None:
    quoted = hostile.replace("'", "''")
    ran = notebook.sabot(f"SELECT '{quoted}' AS \"{hostile}\"", "--profile")
    assert "<img" not in ran.html
    assert "<script" not in ran.html
    assert not re.search("(href|src|action|on[a-z]+) *=", re.sub(">[^<]*<", "><", ran.html))
    error = notebook.run(f'%%sabot\nSELECT "{hostile}"')
    assert hostile in error.out
    assert error.displays == []


@pytest.fixture
def sales(notebook: Notebook) -> str:
    """A Parquet file that several agents can share."""
    rows = 40_000
    table = pa.table({"k": [i % 7 for i in range(rows)], "v": list(range(rows))})
    pq.write_table(table, "sales.parquet", row_group_size=5_000)
    return "SELECT k, sum(v) AS total FROM 'sales.parquet' GROUP BY k ORDER BY k"


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_agents_share_a_query_and_the_plan_shows_it(notebook: Notebook, sales: str, isolation: str) -> None:
    with sabot_sql.connect(agents=1, isolation=isolation) as session:
        notebook.names["session"] = session
        alone = notebook.sabot(sales, "-c session").rows
        ran = notebook.sabot(sales, "-c session --agents 2")
        profile = notebook.sabot(sales, "-c session --agents 2 --profile")
    assert ran.rows == alone
    assert len(alone) == 7
    assert "<svg" in ran.html
    assert ">HASH</tspan>" in ran.html
    assert '<b class="mode">distributed</b> 2 agents' in ran.html
    assert "━━ HASH" in profile.text
    assert "<details open>" in profile.html


def test_explain_shows_the_edges(notebook: Notebook, sales: str) -> None:
    ran = notebook.run(f"%%sabot --explain json --agents 2\n{sales}")
    document = ran.displays[0]["application/json"]
    assert document["mode"] == "distributed"
    assert document["state"] == "planned"
    assert {edge["type"] for edge in document["edges"]} >= {"HASH"}
    assert all(edge["rows"] is None for edge in document["edges"])


def test_interrupting_the_cell_cancels_the_query(notebook: Notebook) -> None:
    timer = threading.Timer(0.5, signal.raise_signal, [signal.SIGINT])
    timer.start()
    start = time.monotonic()
    ran = notebook.run("%%sabot\nSELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7")
    timer.join()
    assert isinstance(ran.error, sabot_sql.QueryCancelled)
    assert time.monotonic() - start < 5
    assert ran.out.startswith("SabotSQLError [CANCELLED] interrupted")
    assert notebook.run("%sabot --status").out.endswith("running: nothing\n")
    assert notebook.sabot("SELECT 1").rows == [["1"]]


def test_loading_twice_is_loading_once(notebook: Notebook) -> None:
    matchers = list(notebook.shell.Completer.custom_matchers)
    assert notebook.run("%reload_ext sabot_sql").error is None
    assert len(notebook.shell.Completer.custom_matchers) == len(matchers)


def test_unloading_restores_what_was_there(notebook: Notebook) -> None:
    shell = notebook.shell
    assert notebook.run("%unload_ext sabot_sql").error is None

    def own(line: str) -> None:
        print("mine", line)

    configurables, matchers = list(shell.configurables), list(shell.Completer.custom_matchers)
    shell.register_magic_function(own, "line", "sabot")
    found = {kind: dict(magics) for kind, magics in shell.magics_manager.magics.items()}
    notebook.run("%load_ext sabot_sql")
    notebook.sabot("SELECT 1")
    notebook.run("%config SabotMagic.limit = 3")
    assert shell.magics_manager.magics["line"]["sabot"] is not found["line"]["sabot"]
    notebook.run("%unload_ext sabot_sql")
    assert shell.magics_manager.magics == found
    assert shell.configurables == configurables
    assert shell.Completer.custom_matchers == matchers
    assert "SabotMagic" not in shell.config
    assert notebook.run("%sabot hello").out == "mine hello\n"
    del shell.magics_manager.magics["line"]["sabot"]
    notebook.run("%load_ext sabot_sql")


@pytest.mark.bench
def test_the_magic_adds_less_than_ten_milliseconds(notebook: Notebook) -> None:
    notebook.names.update(x=1, frame=pd.DataFrame({"a": range(1000)}))
    notebook.sabot("SELECT 1", "kept <<")
    with sabot_sql.connect() as session:
        notebook.names["other"] = session
        sql = "SELECT $x AS x, range AS i FROM range(1000)"
        plain, magic = [], []
        for _ in range(15):
            start = time.perf_counter()
            session.query(sql, {"x": 1})
            middle = time.perf_counter()
            ran = notebook.run(f"%%sabot -c other\n{sql}")
            end = time.perf_counter()
            assert ran.error is None
            plain.append(middle - start)
            magic.append(end - middle)
    # With everything that is shown: table, plan, parameters from the notebook.
    assert min(magic) - min(plain) < 0.010


SLOW = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 7"


def test_a_line_gives_its_result_and_shows_it_only_where_nobody_takes_it(notebook: Notebook) -> None:
    taken = notebook.run("x = %sabot select 42")
    assert taken.displays == []
    assert notebook.names["x"].fetchall() == [(42,)]
    shown = notebook.run("%sabot select 43")
    assert shown.rows == [["43"]]
    assert notebook.run("_.fetchall()").error is None
    assert notebook.run("%sabot select 44;").rows == [["44"]]
    assert notebook.names["_"].fetchall() == [(44,)]


def test_a_cell_is_shown_once_and_is_what_underscore_is(notebook: Notebook) -> None:
    assert len(notebook.sabot("SELECT 45;\n").displays) == 1
    assert notebook.names["_"].fetchall() == [(45,)]
    notebook.sabot("SELECT 46", "kept <<")
    assert notebook.names["_"] is notebook.names["kept"]
    notebook.sabot("SELECT 47", "-q")
    assert notebook.names["_"].fetchall() == [(47,)]


def test_a_result_is_shown_again_as_its_cell_said(notebook: Notebook) -> None:
    notebook.sabot("SELECT range AS i FROM range(100)", "kept << -n 4")
    assert "4 of 100 rows" in notebook.run("kept").text
    assert "4 of 100 rows" in notebook.run("kept").html
    assert "20 of 50 rows" in notebook.run("import sabot_sql\nsabot_sql.query('from range(50)')").text


def test_a_terminal_shows_the_box_once(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(notebook.shell, "kernel")
    ran = notebook.run("%%sabot\nSELECT 48 AS a")
    assert len(ran.displays) == 1
    assert ran.rows == [["48"]]
    assert ran.out == ran.err == ""
    assert notebook.names["_"].fetchall() == [(48,)]


def test_options_as_people_type_them(notebook: Notebook) -> None:
    sql = "SELECT range AS i FROM range(100)"
    assert "5 of 100 rows" in notebook.sabot(sql, "-n5").text
    assert notebook.sabot(sql, "--agents 1 big <<").text == "big: 100 rows × 1 column"
    assert len(notebook.names["big"]) == 100


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("undefined", "--params undefined: NameError: name 'undefined' is not defined"),
        ("x=1/0", "--params x=1/0: ZeroDivisionError: division by zero"),
        ("x=1+", "--params x=1+: not a Python expression: invalid syntax"),
    ],
)
def test_a_parameter_that_python_refuses_is_a_message(notebook: Notebook, params: str, message: str) -> None:
    ran = notebook.run(f"%%sabot -p {params}\nSELECT $x")
    assert isinstance(ran.error, sabot_sql.ConfigError)
    assert ran.out.splitlines()[0] == f"SabotSQLError [CONFIG_ERROR] {message}"
    assert "Traceback" not in ran.out


def test_every_form_of_an_output_is_capped_and_says_so(notebook: Notebook) -> None:
    ran = notebook.sabot("SELECT range AS i, repeat('x', 150) AS t FROM range(100000)", "-n 100000")
    for form in ("text/plain", "text/html"):
        assert len(ran.displays[0][form].encode()) <= 100_000
        assert "of 100,000 rows" in ran.displays[0][form]
        assert "shown is what fits 100 kB" in ran.displays[0][form]
    wide = ", ".join(f"{i} AS a_rather_long_name_{i}" for i in range(3000))
    text = f"SELECT {wide} FROM range(9)"
    explained = notebook.run(f"%%sabot --explain json\n{text}").displays[0]
    assert max(len(json.dumps(explained["application/json"])), len(explained["text/plain"])) < 60_000
    assert explained["application/json"]["note"].startswith("SQL is cut")
    error = notebook.run("%%sabot\nSELECT error(repeat('x', 1000000))")
    assert len(error.out) < 20_000
    assert "…" in error.out


@pytest.mark.parametrize("prefix", ["EXPLAIN", "EXPLAIN ANALYZE"])
def test_explain_is_the_tree_that_it_is(notebook: Notebook, prefix: str) -> None:
    ran = notebook.sabot(f"{prefix} SELECT count(*) FROM range(10) WHERE range > 3")
    assert "\\n" not in ran.text + ran.html
    assert len(ran.text.splitlines()) > 5
    assert "<pre" in ran.html
    assert re.search("aggregate", ran.text, re.IGNORECASE)


def test_explain_of_one_agent_shows_operators_and_estimates(notebook: Notebook) -> None:
    notebook.sabot("CREATE TABLE a AS SELECT range AS i FROM range(1000); CREATE TABLE b AS FROM a")
    ran = notebook.run("%%sabot --explain\nSELECT count(*) FROM a JOIN b USING (i) WHERE a.i > 4")
    for form in (ran.text, ran.html):
        assert "hash join" in form
        assert re.search(r"~[\d,]+ rows", form)
        assert "waiting" not in form
        assert "1 stage" not in form
    assert "└─ " in ran.text
    picture = notebook.run("%%sabot --explain svg\nSELECT count(*) FROM a JOIN b USING (i)").displays[0]
    assert "hash join" in picture["image/svg+xml"]


def test_where_several_agents_were_wanted_one_says_why(notebook: Notebook) -> None:
    assert "EXPLAIN is not a query" not in notebook.sabot("EXPLAIN SELECT 1").text
    assert notebook.sabot("EXPLAIN SELECT 1", "--agents 2").text.endswith("one agent: EXPLAIN is not a query")


def test_one_agent_tells_how_far_it_is_and_then_shows_the_rows_in_the_same_place(notebook: Notebook) -> None:
    sql = "SELECT count(*) AS n FROM range(25000) a, range(25000) b WHERE a.range * b.range % 7 = 3"
    ran = notebook.sabot(sql)
    assert len(ran.displays) == 1
    assert ran.updates[0] >= 1
    assert "rows × 1 column" in ran.html.replace("1 row ×", "rows ×")
    assert "running" not in ran.html


@pytest.mark.parametrize("agents", [1, 2])
def test_a_time_out_is_called_one(notebook: Notebook, agents: int) -> None:
    ran = notebook.run(f"%%sabot --timeout 1.5 --agents {agents}\n{SLOW}")
    assert isinstance(ran.error, sabot_sql.QueryTimeout)
    assert len(ran.displays) == 1
    words = re.sub("<style>.*?</style>|<[^>]*>", "\n", ran.html, flags=re.DOTALL).splitlines()
    assert sum("timed out" in line for line in words) >= agents
    assert not {"failed", "running"} & set(words), "a stage that has stopped does not run"


def test_duckdb_draws_no_bar_of_its_own(notebook: Notebook) -> None:
    setting = notebook.sabot("SELECT current_setting('enable_progress_bar_print') AS s")
    assert setting.rows == [["false"]]
