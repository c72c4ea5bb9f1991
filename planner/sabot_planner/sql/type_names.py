"""Type names in exported SQL, kept as text."""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from sabot_planner.errors import Undistributable


def data_type(text: str) -> exp.DataType:
    """The node of the DuckDB type that is written as ``text``."""
    return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=text)


def read_type(tokens: Sequence[str], position: int) -> tuple[str, int]:
    """The text of the type that starts at ``position``, and the position after it.

    Spacing is DuckDB's own: ``DECIMAL(18,3)``, ``STRUCT(a INTEGER, b VARCHAR[])``, ``ENUM('x', 'y')``.
    """
    text = tokens[position]
    if not (text[:1].isalpha() or text[:1] in ('"', "_")):
        raise Undistributable(f"the exported plan has a form that is not read: a type at {text!r}")
    position += 1
    while tokens[position] == ".":
        text = f"{text}.{tokens[position + 1]}"
        position += 2
    if tokens[position] == "(":
        parameters, position = _parameters(tokens, position + 1, named=text in ("STRUCT", "UNION"))
        text = f"{text}({(',' if text == 'DECIMAL' else ', ').join(parameters)})"
    while tokens[position] == "[":
        length = "" if tokens[position + 1] == "]" else tokens[position + 1]
        text = f"{text}[{length}]"
        position += 3 if length else 2
    return text, position


def _parameters(tokens: Sequence[str], position: int, named: bool) -> tuple[list[str], int]:
    parameters: list[str] = []
    while tokens[position] != ")":
        name = ""
        if named:
            name = tokens[position] + " "
            position += 1
        token = tokens[position]
        if token[:1] == "'" or token.isdigit():
            parameter, position = token, position + 1
        else:
            parameter, position = read_type(tokens, position)
        parameters.append(name + parameter)
        if tokens[position] == ",":
            position += 1
        elif tokens[position] != ")":
            raise Undistributable(f"the exported plan has a form that is not read: a type at {tokens[position]!r}")
    return parameters, position + 1
