"""Messages as JSON values and raw bytes, driven by the types of frozen dataclasses.

Only the types that the declarations name can come out of a message; anything else is a ``MalformedMessage``.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from sabot_sql.errors import SabotSQLError, error_from_dict

T = TypeVar("T")
Blobs = list[bytes]
Decoder = Callable[[Any, Blobs], Any]


class MalformedMessage(ValueError):
    """A peer sent something that is no message of this version."""


def encode(value: object, blobs: Blobs) -> Any:
    """``value`` as JSON; bytes are appended to ``blobs`` and their number stands in their place."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        blobs.append(value)
        return len(blobs) - 1
    if isinstance(value, tuple | list):
        return [encode(item, blobs) for item in value]
    if isinstance(value, SabotSQLError):
        return value.to_dict()
    if isinstance(value, Mapping):
        if value:
            raise TypeError(f"objects of this process cannot travel: {sorted(value)}")
        return {}
    if is_dataclass(value):
        return {f.name: encode(getattr(value, f.name), blobs) for f in fields(value) if f.init}
    raise TypeError(f"a {type(value).__name__} cannot travel")


def decode(of_type: type[T], value: Any, blobs: Blobs) -> T:
    """The ``of_type`` that :func:`encode` described.

    Raises:
        MalformedMessage: a field is missing, unknown or of another type.
    """
    return cast("T", _decoder(cast("Hashable", of_type))(value, blobs))


@cache
def _decoder(hint: Any) -> Decoder:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"{hint} is ambiguous on the wire")
        return _optional(_decoder(inner[0]))
    if origin is tuple:
        args = typing.get_args(hint)
        if len(args) == 2 and args[1] is Ellipsis:
            return _sequence(_decoder(args[0]))
        return _fixed(tuple(_decoder(arg) for arg in args))
    if origin is not None and issubclass(origin, Mapping):
        return _empty_mapping
    if hint is bytes:
        return _blob
    if isinstance(hint, type):
        if issubclass(hint, StrEnum):
            return _enum(hint)
        if issubclass(hint, SabotSQLError):
            return _error
        if is_dataclass(hint):
            return _record(hint)
        if hint in (str, int, bool, float):
            return _scalar(hint)
    raise TypeError(f"{hint} cannot travel")


def _scalar(kind: type) -> Decoder:
    accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)

    def decoder(value: Any, _: Blobs) -> Any:
        if type(value) not in accepted:
            raise MalformedMessage(f"{kind.__name__} expected, not {type(value).__name__}")
        return value

    return decoder


def _blob(value: Any, blobs: Blobs) -> bytes:
    if type(value) is not int or not 0 <= value < len(blobs):
        raise MalformedMessage(f"no bytes number {value!r} among {len(blobs)}")
    return blobs[value]


def _error(value: Any, _: Blobs) -> SabotSQLError:
    if not isinstance(value, dict):
        raise MalformedMessage("an error expected")
    try:
        return error_from_dict(value)
    except ValueError as reason:
        raise MalformedMessage(str(reason)) from None


def _empty_mapping(value: Any, _: Blobs) -> dict[str, object]:
    if value != {}:
        raise MalformedMessage("objects cannot travel")
    return {}


def _enum(kind: type[StrEnum]) -> Decoder:
    def decoder(value: Any, _: Blobs) -> StrEnum:
        try:
            return kind(value)
        except ValueError:
            raise MalformedMessage(f"no {kind.__name__} {value!r}") from None

    return decoder


def _optional(inner: Decoder) -> Decoder:
    return lambda value, blobs: None if value is None else inner(value, blobs)


def _sequence(inner: Decoder) -> Decoder:
    def decoder(value: Any, blobs: Blobs) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise MalformedMessage("a list expected")
        return tuple(inner(item, blobs) for item in value)

    return decoder


def _fixed(inner: tuple[Decoder, ...]) -> Decoder:
    def decoder(value: Any, blobs: Blobs) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(inner):
            raise MalformedMessage(f"a list of {len(inner)} expected")
        return tuple(decode_item(item, blobs) for decode_item, item in zip(inner, value, strict=True))

    return decoder


def _record(kind: type) -> Decoder:
    hints = typing.get_type_hints(kind)
    # Looked up at first use: a fragment holds fragments.
    names = tuple(f.name for f in fields(kind) if f.init)

    def decoder(value: Any, blobs: Blobs) -> Any:
        if not isinstance(value, dict) or set(value) != set(names):
            raise MalformedMessage(f"a {kind.__name__} has exactly the fields {', '.join(names)}")
        return kind(**{name: _decoder(hints[name])(value[name], blobs) for name in names})

    return decoder
