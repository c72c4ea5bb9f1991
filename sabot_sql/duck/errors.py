"""DuckDB's errors as ours: typed, with the place in the user's own text."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sabot_sql.duck.near_files import near_files
from sabot_sql.errors import (
    FILE_NOT_FOUND,
    BindError,
    InternalError,
    Location,
    QueryCancelled,
    QueryError,
    QueryTimeout,
    ResourceError,
    SabotSQLError,
    SourceError,
    SQLSyntaxError,
    ValueFailure,
)

_MAX_CANDIDATES = 3
_MAX_HINT_LINES = 6

_NAMED_TYPES: dict[str, tuple[type[SabotSQLError], str]] = {
    "Parser": (SQLSyntaxError, "SYNTAX_ERROR"),
    "Syntax": (SQLSyntaxError, "SYNTAX_ERROR"),
    "Binder": (BindError, "BIND_ERROR"),
    "Catalog": (BindError, "CATALOG_ERROR"),
    "Parameter Not Resolved": (BindError, "PARAMETER_TYPE_UNKNOWN"),
    "Parameter Not Allowed": (BindError, "PARAMETER_NOT_ALLOWED"),
    "Conversion": (ValueFailure, "CONVERSION_FAILED"),
    "Out of Range": (ValueFailure, "OUT_OF_RANGE"),
    "Decimal": (ValueFailure, "OUT_OF_RANGE"),
    "Divide by Zero": (ValueFailure, "DIVISION_BY_ZERO"),
    "Mismatch Type": (ValueFailure, "TYPE_MISMATCH"),
    "Invalid Type": (ValueFailure, "TYPE_MISMATCH"),
    "Constraint": (ValueFailure, "CONSTRAINT_VIOLATED"),
    "Invalid Input": (ValueFailure, "INVALID_INPUT"),
    "Invalid": (SourceError, "UNREADABLE_DATA"),
    "IO": (SourceError, "IO_ERROR"),
    "Resource In Use": (SourceError, "DATABASE_IN_USE"),
    "HTTP": (SourceError, "HTTP_ERROR"),
    "Network": (SourceError, "HTTP_ERROR"),
    "Invalid Configuration": (SourceError, "IO_ERROR"),
    "Missing Extension": (SourceError, "EXTENSION_MISSING"),
    "Extension Autoloading": (SourceError, "EXTENSION_MISSING"),
    "Out of Memory": (ResourceError, "OUT_OF_MEMORY"),
    "INTERRUPT": (QueryCancelled, "CANCELLED"),
    "TransactionContext": (QueryError, "TRANSACTION_FAILED"),
    "Transaction": (QueryError, "TRANSACTION_FAILED"),
    "Permission": (QueryError, "PERMISSION_DENIED"),
    "Not Implemented": (QueryError, "NOT_IMPLEMENTED"),
    "Dependency": (QueryError, "DEPENDENCY"),
    "Sequence": (QueryError, "SEQUENCE"),
    "Internal": (InternalError, "INTERNAL_ERROR"),
    "FATAL": (InternalError, "INTERNAL_ERROR"),
}

_ERROR_TYPES = {name.lower(): entry for name, entry in _NAMED_TYPES.items()}

# What a source says about itself, whatever type of exception DuckDB happened to wrap it in.
_SOURCE_MESSAGES: tuple[tuple[str, str], ...] = (
    (r'No files found that match the pattern "(?P<file>.*?)"', FILE_NOT_FOUND),
    (r'Cannot open (?:file|database) "(?P<file>.*?)".*(?:No such file|does not exist)', FILE_NOT_FOUND),
    (r"file \"(?P<file>[^\"]*)\": schema mismatch in glob: column \"(?P<column>.*?)\"", "COLUMN_MISSING_IN_FILE"),
    (r"file \"(?P<file>[^\"]*)\": failed to cast column \"(?P<column>.*?)\"", "COLUMN_TYPE_DIFFERS"),
    (r"In file \"(?P<file>[^\"]*)\" the column \"(?P<column>.*?)\" has type", "COLUMN_TYPE_DIFFERS"),
    (r"No magic bytes found at end of file '(?P<file>.*?)'", "FILE_CORRUPT"),
    (r"Footer length error in file '(?P<file>.*?)'", "FILE_CORRUPT"),
    (r"File '(?P<file>.*?)' too small to be a Parquet file", "FILE_CORRUPT"),
    (r"(?:Failed to read|Error while reading|Malformed JSON in|Error when sniffing) file \"(?P<file>[^\"]*)\"",
     "FILE_CORRUPT"),
    (r"CSV Error on Line: \d+.*Error when converting column \"(?P<column>.*?)\".*\bfile = (?P<file>[^\n]*)",
     "CSV_VALUE"),
    (r"CSV Error on Line: \d+.*\bfile = (?P<file>[^\n]*)", "CSV_MALFORMED"),
    (r"TProtocolException|don't know what type|Invalid file footer", "FILE_CORRUPT"),
    (r'Cannot open file "(?P<file>.*?)"', "FILE_UNREADABLE"),
)  # fmt: skip

_RESOURCE_MESSAGES = (
    (r"No space left|max_temp_directory_size|failed to offload data block", "DISK_FULL"),
    (r"Too many open files", "TOO_MANY_FILES"),
)

_CATALOG_CODES = {
    "Table": "TABLE_NOT_FOUND",
    "Scalar Function": "FUNCTION_NOT_FOUND",
    "Aggregate Function": "FUNCTION_NOT_FOUND",
    "Table Function": "FUNCTION_NOT_FOUND",
    "Macro Function": "FUNCTION_NOT_FOUND",
    "Type": "TYPE_NOT_FOUND",
    "Schema": "SCHEMA_NOT_FOUND",
    "configuration parameter": "SETTING_NOT_FOUND",
}


_UNLIKELY_PROPOSALS = ("TYPE_NOT_FOUND", "NOT_FOUND")
_TYPES = (
    *("BIGINT", "BLOB", "BOOLEAN", "DATE", "DECIMAL", "DOUBLE", "FLOAT", "HUGEINT", "INTEGER", "INTERVAL", "JSON"),
    *("SMALLINT", "TEXT", "TIME", "TIMESTAMP", "TIMESTAMPTZ", "TINYINT", "UBIGINT", "UINTEGER", "UUID", "VARCHAR"),
)

_PAST_LIMIT = "exceeded maximum execution time"


@dataclass(frozen=True, slots=True)
class StatementText:
    """One statement as it was given to DuckDB, and where it stands in the user's text.

    ``prefix_bytes`` is what was put in front of it (``EXPLAIN …``), ``start_bytes`` where it begins in ``text``.
    """

    text: str
    start_bytes: int = 0
    prefix_bytes: int = 0

    def location(self, position: int, length: int) -> Location | None:
        """The place in the user's text of a position in the statement; None inside the prefix."""
        offset = position - self.prefix_bytes
        return Location.of(self.text, self.start_bytes + offset, length) if offset >= 0 else None

    def place_of(self, constant: str) -> Location | None:
        """The place in the user's text of a text constant that stands there once."""
        quoted = ("'" + constant.replace("'", "''") + "'").encode(errors="replace")
        text = self.text.encode(errors="replace")
        found = text.find(quoted, self.start_bytes)
        once = found >= 0 and text.find(quoted, found + 1) < 0
        return Location.of(self.text, found, len(quoted)) if once else None


def translate(error: BaseException, statement: StatementText | None = None) -> SabotSQLError:
    """The error of this package that says what ``error`` says.

    Works for DuckDB's exceptions and for those of Arrow readers that drained a DuckDB stream: both carry DuckDB's JSON
    when ``errors_as_json`` is set. Without ``statement`` the places DuckDB names are left out.
    """
    if isinstance(error, SabotSQLError):
        return error
    fields = _fields(error)
    message = fields["exception_message"]
    translated: SabotSQLError | None
    translated = _resource_error(message) or _source_error(fields["exception_type"], message)
    if translated is None:
        error_type, code = _ERROR_TYPES.get(fields["exception_type"].lower(), (QueryError, "QUERY_ERROR"))
        code = _catalog_code(fields, code)
        if code == "PARAMETER_MISSING":
            error_type = BindError
        if code == "CANCELLED" and _PAST_LIMIT in message:
            error_type, code = QueryTimeout, QueryTimeout.code
        text, hint = _split_message(message)
        if code == "PARAMETER_MISSING":
            hint = "give them with the statement: a list for ? and $1, a dict for $name"
        translated = error_type(text, code=code, hint=hint, candidates=_candidates(fields, code))
    if statement is not None:
        translated.location = _location(fields, statement)
        if translated.code == FILE_NOT_FOUND and isinstance(translated, SourceError) and translated.file:
            translated.location = statement.place_of(translated.file) or translated.location
            translated.candidates = tuple(near_files(translated.file))
    return translated


def unforeseen(error: Exception) -> SabotSQLError:
    """The error of this package for one that nobody foresaw; what DuckDB says keeps its words."""
    text = str(error)
    if isinstance(error, MemoryError):
        return ResourceError("memory ran out", code="OUT_OF_MEMORY")
    if '{"exception_type"' in text or type(error).__module__ in ("duckdb", "_duckdb"):
        return translate(error)
    return InternalError(f"{type(error).__name__}: {text}")


def _fields(error: BaseException) -> dict[str, Any]:
    text = str(error)
    begin = text.find('{"exception_type"')
    if begin >= 0:
        try:
            fields = json.JSONDecoder().raw_decode(text, begin)[0]
        except json.JSONDecodeError:
            fields = None
        if isinstance(fields, dict) and "exception_message" in fields:
            return fields
    kind, separator, message = text.partition(" Error: ")
    if separator and kind.lower() in _ERROR_TYPES:
        return {"exception_type": kind, "exception_message": message}
    if "interrupted" in text.lower():
        return {"exception_type": "INTERRUPT", "exception_message": text}
    return {"exception_type": type(error).__name__.removesuffix("Exception"), "exception_message": text}


def _resource_error(message: str) -> ResourceError | None:
    for pattern, code in _RESOURCE_MESSAGES:
        if re.search(pattern, message):
            text, hint = _split_message(message)
            return ResourceError(text, code=code, hint=hint)
    return None


def _source_error(kind: str, message: str) -> SourceError | None:
    if kind in ("Parser", "Binder", "Catalog"):
        return None
    for pattern, code in _SOURCE_MESSAGES:
        match = re.search(pattern, message, re.DOTALL)
        if match:
            groups = match.groupdict()
            text, hint = _split_message(message)
            if code.startswith("CSV"):
                lines = message.splitlines()
                text, hint = f"{lines[0]}: {' '.join(lines[2:3])}", "\n  ".join(line for line in lines[4:8] if line)
            file = groups.get("file")
            return SourceError(
                text,
                code=code,
                hint=hint,
                file=file.strip() if file else None,
                column_name=groups.get("column"),
            )
    return None


def _catalog_code(fields: dict[str, Any], code: str) -> str:
    subtype = fields.get("error_subtype")
    if subtype == "MISSING_ENTRY":
        return _CATALOG_CODES.get(str(fields.get("type")), "NOT_FOUND")
    if subtype == "ENTRY_ALREADY_EXISTS":
        return "ALREADY_EXISTS"
    message = fields["exception_message"]
    if fields["exception_type"] == "Binder" and re.match(r'Table ".*" does not have a column named', message):
        return "COLUMN_NOT_FOUND"
    if message.startswith("Values were not provided for the following"):
        return "PARAMETER_MISSING"
    return str(subtype) if subtype else code


def _split_message(message: str) -> tuple[str, str | None]:
    """The first paragraph without lists of candidates, and the rest as a hint."""
    lines = [line.strip() for line in message.strip().splitlines()]
    lines = [line for line in lines if line and not line.startswith(("Did you mean", "Candidate bindings"))]
    if not lines:
        return message.strip(), None
    hint = "\n  ".join(lines[1 : _MAX_HINT_LINES + 1]) if len(lines) > 1 else None
    return lines[0].removesuffix("!"), hint


def _candidates(fields: dict[str, Any], code: str) -> list[str]:
    message = fields["exception_message"]
    found: list[str] = []
    for line in message.splitlines():
        if line.startswith(("Did you mean", "Candidate bindings")):
            found += [name.replace('""', '"') for name in re.findall(r'"((?:[^"]|"")+)"', line)]
    name = str(fields.get("name", ""))
    # DuckDB proposes tables of the system where it knows no others.
    found = [candidate for candidate in found if not candidate.startswith(("pg_", "duckdb_", "sqlite_"))]
    if name and code in _UNLIKELY_PROPOSALS:
        # DuckDB proposes something at any price, and of types not even the nearest one.
        found = _alike(name, [*found, *(_TYPES if code == "TYPE_NOT_FOUND" else ())], 0.7)
    elif len(found) > 1 and name:
        # DuckDB lists all columns in sight; the likeliest ones are worth reading.
        found = _alike(name, found) or found
    return list(dict.fromkeys(found))[:_MAX_CANDIDATES]


def _alike(name: str, known: Sequence[str], cutoff: float = 0.5) -> list[str]:
    """Those of ``known`` that are like ``name``, in whatever case, the likeliest one first."""
    spelled = {word.lower(): word for word in known}
    return [
        spelled[word] for word in difflib.get_close_matches(name.lower(), spelled, n=_MAX_CANDIDATES, cutoff=cutoff)
    ]


def _location(fields: dict[str, Any], statement: StatementText) -> Location | None:
    match = re.fullmatch(r"\[(\d+),(\d+)\]", str(fields.get("location", "")))
    if match:
        return statement.location(int(match.group(1)), int(match.group(2)))
    if str(fields.get("position", "")).isdecimal():
        return statement.location(int(fields["position"]), 1)
    return None
