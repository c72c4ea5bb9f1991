"""The first line of a cell."""

from __future__ import annotations

import pytest

from sabot_magics.options import HELP, OPTION_NAMES, CellOptions, parse_options, split_words
from sabot_sql import ConfigError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", CellOptions()),
        ("top <<", CellOptions(name="top")),
        ("  top<<  --agents 4 ", CellOptions(name="top", agents=4)),
        ("größe << -q", CellOptions(name="größe", display=False)),
        ("-o top --show", CellOptions(name="top", display=True)),
        ("--out=top", CellOptions(name="top")),
        ("-n 5 --max-rows 100", CellOptions(limit=5, max_rows=100)),
        ("--no-display --profile", CellOptions(display=False, profile=True)),
        ("--agents auto --timeout 1.5 --progress off", CellOptions(agents="auto", timeout_seconds=1.5, progress="off")),
        ("--explain", CellOptions(explain="html")),
        ("--explain text", CellOptions(explain="text")),
        ("--explain=svg", CellOptions(explain="svg")),
        ("--explain --agents 2", CellOptions(explain="html", agents=2)),
        ("-c other", CellOptions(connection="other")),
        ("-p values", CellOptions(params=("values",))),
        ("-p x=1 -p y='a b' --params z=f(1, 2)", CellOptions(params=("x=1", "y='a b'", "z=f(1, 2)"))),
        ("--params=x=-1", CellOptions(params=("x=-1",))),
        ("-p {'a': -1}", CellOptions(params=("{'a': -1}",))),
        ("-p x=-1", CellOptions(params=("x=-1",))),
        ("--help", CellOptions(action="help")),
        ("--status", CellOptions(action="status")),
        ("--cancel", CellOptions(action="cancel")),
        ("--cancel q-1", CellOptions(action="cancel", query_id="q-1")),
    ],
)
def test_parse(line: str, options: CellOptions) -> None:
    assert parse_options(line) == options


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--agent 4", "no option --agent\n  did you mean: --agents"),
        ("SELECT 1", "'SELECT' is no option\n  the first line of %%sabot takes options only"),
        ("--agents", "--agents needs a number, or auto"),
        ("--agents --profile", "--agents needs a number, or auto"),
        ("--agents 0", "--agents '0' must be a whole number of at least 1"),
        ("--agents -1", "--agents needs a number"),
        ("--agents 4.5", "--agents '4.5' must be a whole number"),
        ("-n zehn", "-n 'zehn' must be a whole number of at least 1"),
        ("--timeout nan", "--timeout 'nan' must be a number of seconds above 0"),
        ("--timeout 0", "--timeout '0' must be"),
        ("--progress widget", "--progress 'widget' must be auto, text or off"),
        ("--explain xml", "--explain 'xml' must be text, json or svg"),
        ("-o 1a", "-o '1a' is not the name of a variable"),
        ("a << -o b", "two names for one result: a and b"),
        ("-p", "-p needs a variable, or NAME=EXPRESSION"),
        ("-p x='a", "the first line lacks a closing '"),
        ("-p x=(1", "the first line lacks a closing )"),
    ],
)
def test_mistakes_say_what_is_wrong(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(line)
    assert str(caught.value).startswith(f"[CONFIG_ERROR] {message}")


def test_words_keep_quotes_and_brackets_together() -> None:
    assert split_words(""" a  b="c d" e='f "g' h[1, (2)] """) == ["a", 'b="c d"', "e='f \"g'", "h[1, (2)]"]


def test_help_lists_every_option_and_no_other() -> None:
    documented = {word.strip("[],|") for word in HELP.split() if word.startswith("--")}
    assert documented == set(OPTION_NAMES)
