"""Parameters in SQL text."""

from __future__ import annotations

import pytest

from sabot_magics.sql_text import parameter_names

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select $a, $b_1, $a", ["a", "b_1"]),
        ("select $größe", ["größe"]),
        ("select '$a', \"$b\", $c", ["c"]),
        ("select 'it''s $a', $b", ["b"]),
        ("select 'a\\', $b", ["b"]),
        ("select E'a\\' $a', $b", ["b"]),
        ("select 1 -- $a\n, $b", ["b"]),
        ("select /* $a /* $b */ $c */ $d", ["d"]),
        ("select /* $a", []),
        ("select $$ $a $$, $b", ["b"]),
        ("select $tag$ $a $$ $tag$, $b", ["b"]),
        ("select $$ $a", []),
        ("select 'open $a", []),
        ("select $1, ?, :name, {x}, a$b, 1e5", []),
        ("select x[$i:$j], {'k': $v}", ["i", "j", "v"]),
        ("select a->'$.b', $c", ["c"]),
        ("", []),
    ],
)
def test_parameter_names(sql: str, names: list[str]) -> None:
    assert parameter_names(sql) == names
