"""Every error that sabot_sql raises on purpose.

``SabotSQLError``
├── ``QueryError``          the statement is wrong, or its values are
│   ├── ``SQLSyntaxError``  it cannot be parsed
│   ├── ``BindError``       a table, column, function, type or parameter that does not exist or does not fit
│   ├── ``ValueFailure``    a cast, overflow or constraint failed while rows were read
│   └── ``OperatorError``   an operator of a job graph failed: a Python function raised, or changed its columns
├── ``SourceError``         a file or another source is missing, unreadable or differs in type
├── ``ResourceError``       memory, disk or a quota ran out
├── ``AgentError``          an agent died or failed
├── ``QueryCancelled``
├── ``QueryTimeout``
├── ``SessionClosed``
├── ``UsageError``          a call does not fit the interface: an argument of a wrong type, a method at a wrong time
│   ├── ``ConfigError``     an option has a wrong name, type or value
│   └── ``JobError``        a job graph cannot be run as it is
└── ``InternalError``       a defect of sabot_sql or of what it builds on

``code`` is stable and meant for programs, the message for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sabot_sql.printable import printable

_EXCERPT_CHARACTERS = 120
_SHOWN_CHARACTERS = 1000
"""More of a message is there for programs, but nobody reads it: a name in it may be a whole file."""

OUT_OF_MEMORY = "OUT_OF_MEMORY"
"""Code of a ``ResourceError``: DuckDB's memory, not a disk."""

FRAGMENT_FAILED = "FRAGMENT_FAILED"
"""Code of an ``AgentError`` whose agent lives: the fragment failed there for a reason that is not the user's."""


FILE_NOT_FOUND = "FILE_NOT_FOUND"
"""Code of a ``SourceError``: nothing lies where the name or the pattern points."""

FILE_CHANGED = "FILE_CHANGED"
RESULT_LOST = "RESULT_LOST"
"""Code of a ``SourceError``: a file was changed between planning a query and the end of its tasks."""


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the user's own text; ``line`` and ``column`` count from 1, in characters."""

    line: int
    column: int
    length: int
    text: str
    """The whole source line."""

    @classmethod
    def of(cls, sql: str, byte_offset: int, byte_length: int = 1) -> Location:
        """The place ``byte_offset`` bytes into the UTF-8 text ``sql``, clipped to the end of its line."""
        encoded = sql.encode()
        byte_offset = max(0, min(byte_offset, len(encoded)))
        offset = len(encoded[:byte_offset].decode(errors="ignore"))
        length = len(encoded[byte_offset : byte_offset + byte_length].decode(errors="ignore"))
        begin = sql.rfind("\n", 0, offset) + 1
        end = sql.find("\n", offset)
        text = sql[begin : end if end >= 0 else len(sql)].rstrip("\r")
        column = offset - begin + 1
        length = max(1, min(length, len(text) - column + 1))
        return cls(sql.count("\n", 0, offset) + 1, column, length, text)

    def render(self) -> list[str]:
        """The source line and a line of carets under the place, long lines cut on both sides."""
        first = max(0, min(self.column - 1 - _EXCERPT_CHARACTERS // 2, len(self.text) - _EXCERPT_CHARACTERS))
        excerpt = self.text[first : first + _EXCERPT_CHARACTERS].replace("\t", " ")
        begin = self.column - 1 - first
        # What is escaped is wider than what it stands for.
        before, marked = printable(excerpt[:begin]), printable(excerpt[begin : begin + self.length])
        carets = "^" * max(1, len(marked))
        number = str(self.line)
        margin = " " * len(before)
        excerpt = before + marked + printable(excerpt[begin + self.length :])
        return [
            f"  {number} | {excerpt}",
            f"  {' ' * len(number)} | {margin}{carets}   Line {self.line}, Col: {self.column}",
        ]


class SabotSQLError(Exception):
    """Base of all errors; ``str(error)`` shows code, message, place and candidates."""

    code: str = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        location: Location | None = None,
        candidates: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint
        self.location = location
        self.candidates = tuple(candidates)

    @property
    def line(self) -> int | None:
        """Line in the user's text, from 1."""
        return self.location.line if self.location else None

    @property
    def column(self) -> int | None:
        """Column in that line in characters, from 1."""
        return self.location.column if self.location else None

    def __str__(self) -> str:
        lines = [f"[{self.code}] {_clipped(self.message)}"]
        if self.location:
            lines += self.location.render()
        if self.candidates:
            lines.append(f"  did you mean: {', '.join(map(_clipped, self.candidates))}?")
        if self.hint:
            lines.append(f"  {_clipped(self.hint)}")
        return printable("\n".join(lines), keep="\n")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return error_from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; :func:`error_from_dict` makes the same error of them in another process."""
        fields = {name: value for name, value in vars(self).items() if not name.startswith("_") and value is not None}
        fields["candidates"] = list(self.candidates)
        if self.location:
            fields["location"] = asdict(self.location)
        return {"type": type(self).__name__, **fields}


class QueryError(SabotSQLError):
    """The statement is wrong; running it again gives the same error."""

    code = "QUERY_ERROR"


class SQLSyntaxError(QueryError):
    """The statement cannot be parsed."""

    code = "SYNTAX_ERROR"


class BindError(QueryError):
    """The statement names something that does not exist, twice, or with types that do not fit."""

    code = "BIND_ERROR"


class ValueFailure(QueryError):
    """A value made the statement fail: a cast, an overflow, a constraint, ``error(…)``."""

    code = "VALUE_ERROR"


class OperatorError(QueryError):
    """An operator of a job graph failed on its rows; the same again whenever it runs.

    ``batch`` counts from 0 within the ``task``; ``key`` are the keys of the batch's first row, where it has keys.
    """

    code = "OPERATOR_FAILED"

    def __init__(
        self,
        message: str,
        *,
        operator: str | None = None,
        task: int | None = None,
        batch: int | None = None,
        key: str | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.operator = operator
        self.task = task
        self.batch = batch
        self.key = key


class SourceError(SabotSQLError):
    """A source is missing, unreadable or not what it was bound as."""

    code = "SOURCE_ERROR"

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        column_name: str | None = None,
        row_group: int | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.file = file
        self.column_name = column_name
        self.row_group = row_group


class ResourceError(SabotSQLError):
    """Memory, disk or a quota ran out; the session stays usable."""

    code = "OUT_OF_RESOURCES"


class AgentError(SabotSQLError):
    """A task failed on an agent for a reason that is not the user's: the agent died, or failed inside.

    ``remote_message`` is what the agent said, or None where it could say nothing any more.
    """

    code = "AGENT_FAILED"

    def __init__(
        self,
        message: str,
        *,
        agent: str | None = None,
        stage: str | None = None,
        task: int | None = None,
        attempt: int | None = None,
        remote_message: str | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.agent = agent
        self.stage = stage
        self.task = task
        self.attempt = attempt
        self.remote_message = remote_message

    def __str__(self) -> str:
        places = (("agent", self.agent), ("stage", self.stage), ("task", self.task), ("attempt", self.attempt))
        place = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        lines = [super().__str__()]
        if place:
            lines.append(f"  at {place}")
        if self.remote_message:
            lines.append(f"  the agent said: {_clipped(self.remote_message)}")
        return printable("\n".join(lines), keep="\n")


class QueryCancelled(SabotSQLError):
    """The query was cancelled; nothing of it is left running."""

    code = "CANCELLED"


class QueryTimeout(SabotSQLError):
    """The query, or a wait inside it, ran past its deadline."""

    code = "TIMEOUT"


class SessionClosed(SabotSQLError):
    """The session, or the result, was closed and cannot be used again."""

    code = "CLOSED"


class UsageError(SabotSQLError):
    """A call does not fit the interface; nothing was run."""

    code = "USAGE_ERROR"


class ConfigError(UsageError):
    """An option has a wrong name, type or value."""

    code = "CONFIG_ERROR"


class JobError(UsageError):
    """A job graph cannot be run as it is; nothing was run. ``operator`` is the one that is wrong, if it is one."""

    code = "JOB_ERROR"

    def __init__(self, message: str, *, operator: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.operator = operator


class InternalError(SabotSQLError):
    """A defect; please report the message."""

    code = "INTERNAL_ERROR"


def error_from_dict(fields: Mapping[str, Any]) -> SabotSQLError:
    """The error that :meth:`SabotSQLError.to_dict` described.

    Raises:
        ValueError: the description names no error of this module or fields that it does not have.
    """
    arguments = dict(fields)
    name = arguments.pop("type", None)
    error_type = _error_types(SabotSQLError).get(str(name))
    if error_type is None:
        raise ValueError(f"no error type {name!r}")
    try:
        if "location" in arguments:
            arguments["location"] = Location(**arguments["location"])
        error: SabotSQLError = error_type(arguments.pop("message"), **arguments)
    except (TypeError, KeyError) as reason:
        raise ValueError(f"malformed description of a {name}: {reason}") from None
    return error


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _error_types(base: type[SabotSQLError]) -> dict[str, type[SabotSQLError]]:
    types = {base.__name__: base}
    for derived in base.__subclasses__():
        types |= _error_types(derived)
    return types


def reason_in_short(error: SabotSQLError) -> str:
    """One line of what went wrong, an agent's own words first."""
    said = getattr(error, "remote_message", None) or error.message
    return f"{said.splitlines()[0]}"
