"""Checks of what a caller gives: the value, or an error that says what it was and what is wanted."""

from __future__ import annotations

import importlib
import math
import operator
import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from sabot_sql.errors import ConfigError, UsageError
from sabot_sql.printable import printable

MAX_INTEGER = 2**63 - 1
MAX_SECONDS = 100 * 366 * 86_400
_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """``value`` in a message: short, printable, and whatever its own ``repr`` does."""
    try:
        text = reprlib.Repr().repr(value)
    except Exception:  # noqa: BLE001  code of the caller's
        text = f"<{type(value).__qualname__}>"
    text = printable(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def text(argument: str, value: object) -> str:
    """A text that UTF-8 can hold.

    Raises:
        UsageError: it is none.
    """
    if not isinstance(value, str):
        raise UsageError(f"{argument} must be text, not {_of_type(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{argument} has a lone surrogate at character {error.start + 1}, which is no text") from None
    return value


def name(argument: str, value: object) -> str:
    """A name for a table.

    Raises:
        UsageError: it is none.
    """
    found = text(argument, value)
    if not found or "\0" in found:
        raise UsageError(f"{argument}={shown(found)} is no name for a table")
    return found


def path(argument: str, value: object) -> str:
    """The name of a file or directory.

    Raises:
        ConfigError: it is none.
    """
    try:
        found: object = os.fspath(value)  # type: ignore[call-overload]  # that is what is asked
    except Exception:  # noqa: BLE001  code of the caller's
        raise ConfigError(f"{argument} must be a path, not {_of_type(value)}") from None
    if not isinstance(found, str):
        raise ConfigError(
            f"{argument} must be a path as text, not {_of_type(found)}", hint="os.fsdecode makes text of bytes"
        )
    if not found or "\0" in found:
        raise ConfigError(f"{argument}={shown(found)} is no path")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{argument}={shown(found)} is no path: DuckDB's are UTF-8") from None
    return found


def whole(argument: str, value: object, *, least: int = 0, most: int = MAX_INTEGER) -> int:
    """A whole number from ``least`` to ``most``.

    Raises:
        ConfigError: it is none.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is not None and least <= number <= most:
        return number
    bounds = f"of at least {least}" if most == MAX_INTEGER else f"from {least} to {most}"
    raise ConfigError(f"{argument}={shown(value)} must be a whole number {bounds}")


def seconds(argument: str, value: object) -> float:
    """A time above 0 that ends.

    Raises:
        ConfigError: it is none.
    """
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if 0 < number <= MAX_SECONDS:
        return float(number)
    hint = "None is no limit" if number > MAX_SECONDS else None
    raise ConfigError(f"{argument}={shown(value)} must be a number of seconds above 0 and below 100 years", hint=hint)


def flag(argument: str, value: object) -> bool:
    """True or False.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(value, bool):
        return value
    raise ConfigError(f"{argument}={shown(value)} must be True or False")


def mapping(argument: str, value: object) -> Mapping[str, Any]:
    """A mapping whose keys are text.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{argument}={shown(value)} must be a mapping, such as a dict")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{argument} has the key {shown(key)}, which is no text")
    return value


def parameters(value: object) -> Sequence[Any] | Mapping[str, Any] | None:
    """The values of a statement's parameters.

    Raises:
        UsageError: neither a sequence nor a mapping of names.
    """
    if value is None or (isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)):
        return value
    if isinstance(value, Mapping):
        for key in value:
            text("the name of a parameter", key)
        return value
    raise UsageError(
        f"params={shown(value)} must be a list of values for ? and $1, or a dict of values for $name",
        hint="one value is given as [value]",
    )


def needed(module: str) -> Any:
    """A module that is not needed for anything else.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"{module} cannot be imported: {error}", code="MODULE_MISSING") from None


def _of_type(value: object) -> str:
    return f"{shown(value)}, which is of type {type(value).__qualname__}"
