from __future__ import annotations

import pickle

import pytest

from sabot_sql import errors
from sabot_sql.errors import AgentError, BindError, Location, SabotSQLError, SourceError, error_from_dict

pytestmark = pytest.mark.fast


def test_a_sql_mistake_reads_like_a_compiler_message() -> None:
    sql = "-- orders\nselect o_orderkeyy\nfrom orders"
    error = BindError(
        'Referenced column "o_orderkeyy" not found',
        code="COLUMN_NOT_FOUND",
        location=Location.of(sql, sql.index("o_orderkeyy"), 11),
        candidates=["o_orderkey"],
    )
    assert str(error).splitlines() == [
        '[COLUMN_NOT_FOUND] Referenced column "o_orderkeyy" not found',
        "  2 | select o_orderkeyy",
        "    |        ^^^^^^^^^^^   Line 2, Col: 8",
        "  did you mean: o_orderkey?",
    ]
    assert (error.line, error.column) == (2, 8)


def test_offsets_count_bytes_and_columns_count_characters() -> None:
    sql = "select 'é', qq"
    location = Location.of(sql, sql.encode().index(b"qq"), 2)
    assert (location.column, location.length) == (13, 2)


@pytest.mark.parametrize("offset", [0, 5, 10_000])
def test_places_outside_the_text_are_clipped(offset: int) -> None:
    location = Location.of("a\r\nb", offset, 50)
    assert location.length == 1
    assert location.line in (1, 2)


def test_a_long_line_is_cut_around_the_place() -> None:
    sql = "select " + ", ".join(f"c{i}" for i in range(1000))
    source, carets = Location.of(sql, sql.index("c500"), 4).render()
    assert len(source) < 140
    assert source[carets.index("^") : carets.index("^") + 4] == "c500"


@pytest.mark.parametrize(
    "error",
    [
        BindError("no", location=Location(1, 2, 3, "abcdef"), candidates=["x"], hint="h"),
        SourceError("gone", code="FILE_NOT_FOUND", file="a.parquet", column_name="c", row_group=3),
        AgentError("died", agent="agent-1", stage="s1", task=2, attempt=1, remote_message="boom"),
    ],
)
def test_errors_cross_processes_unchanged(error: SabotSQLError) -> None:
    for copy in (error_from_dict(error.to_dict()), pickle.loads(pickle.dumps(error))):
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert copy.to_dict() == error.to_dict()


@pytest.mark.parametrize("fields", [{}, {"type": "Location"}, {"type": "os"}, {"type": "BindError", "x": 1}])
def test_a_malformed_description_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="type|malformed"):
        error_from_dict(fields)


def test_an_agent_failure_names_its_place() -> None:
    text = str(AgentError("the agent died", agent="agent-1", stage="join", task=3, attempt=2, remote_message="killed"))
    assert "agent agent-1, stage join, task 3, attempt 2" in text
    assert "the agent said: killed" in text


def test_every_error_has_a_code_and_stands_in_the_tree() -> None:
    assert errors.__doc__
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, SabotSQLError):
            assert value.code.isupper()
            assert f"``{value.__name__}``" in errors.__doc__
