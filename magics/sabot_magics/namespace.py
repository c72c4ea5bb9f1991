"""What a cell takes from the notebook: values for its parameters, and frames that are tables."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sabot_magics.sql_text import parameter_names
from sabot_sql import ConfigError

_SCALARS = (bool, int, float, str, bytes, Decimal, dt.date, dt.time, dt.timedelta, uuid.UUID, type(None))
Parameters = dict[str, Any] | list[Any] | None


def bind_parameters(
    sql: str, given: Sequence[str], namespace: Mapping[str, Any], evaluate: Callable[[str], Any]
) -> Parameters:
    """The values to bind for ``sql``: those of ``--params`` first, the notebook's scalars for the other ``$name``.

    ``given`` are the values of ``--params``: ``NAME=EXPRESSION``, or an expression that is a dict or a list.

    Raises:
        ConfigError: an expression has no value, a value is neither, or a ``$name`` is nowhere, or it is not a scalar.
    """
    named: dict[str, Any] = {}
    for text in given:
        name, equals, expression = text.partition("=")
        if equals and name.strip().isidentifier() and not expression.startswith("="):
            named[name.strip()] = _value(expression, text, evaluate)
            continue
        value = _value(text, text, evaluate)
        if isinstance(value, list | tuple):
            if len(given) > 1:
                raise ConfigError("--params: a list of values cannot be mixed with other parameters")
            return list(value)
        if not isinstance(value, Mapping):
            raise ConfigError(
                f"--params {text}: a dict or a list is needed, not {type(value).__name__}",
                hint=f"to bind one value: --params NAME={text}",
            )
        named |= {str(key): item for key, item in value.items()}
    for name in parameter_names(sql):
        if name not in named:
            named[name] = _scalar(name, namespace)
    return named or None


def _value(expression: str, text: str, evaluate: Callable[[str], Any]) -> Any:
    """The value of what the user wrote; whatever Python says against it is the user's to read, without a traceback."""
    try:
        return evaluate(expression)
    except SyntaxError as error:
        raise ConfigError(f"--params {text}: not a Python expression: {error.msg}") from None
    except Exception as error:  # noqa: BLE001  the expression is the user's, and so is what it raises
        raise ConfigError(f"--params {text}: {type(error).__name__}: {error}") from None


def _scalar(name: str, namespace: Mapping[str, Any]) -> Any:
    if name not in namespace:
        raise ConfigError(f"${name} has no value", hint=f"set {name} in the notebook, or give --params {name}=VALUE")
    value = namespace[name]
    # A scalar of NumPy, with a date or time in it or not, knows the Python value that it stands for.
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        value = value.item()
    if not isinstance(value, _SCALARS):
        raise ConfigError(
            f"${name} is {_article(type(value).__name__)}; only single values are taken from the notebook",
            hint=f"to bind it all the same: --params {name}={name}",
        )
    return value


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1] in "aeiouAEIOU" else f"a {noun}"


def is_frame(value: object) -> bool:
    """Whether ``value`` is a table: a pandas or polars frame, an Arrow table, or anything that streams Arrow data."""
    if isinstance(value, type):
        return False
    kind = type(value)
    return hasattr(kind, "__arrow_c_stream__") or (
        kind.__module__.partition(".")[0] in ("pandas", "polars") and kind.__name__ in ("DataFrame", "LazyFrame")
    )


def frame_columns(value: Any) -> list[str]:
    """The column names of a frame, as far as they are known without computing anything."""
    if type(value).__name__ == "LazyFrame":
        return []
    for attribute in ("column_names", "columns"):
        names = getattr(value, attribute, None)
        if names is not None and not callable(names):
            return [str(name) for name in names]
    names = getattr(getattr(value, "schema", None), "names", None)
    return [] if names is None or callable(names) else [str(name) for name in names]
