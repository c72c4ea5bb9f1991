"""What a user declares of one operator of a job graph."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sabot_planner.job.operators import OperatorType
from sabot_sql import arguments
from sabot_sql.errors import ConfigError, JobError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_PARALLELISM = 1 << 14
"""What the shuffle can number."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,48}\Z")
_JOIN_KINDS = ("inner", "left", "right", "full", "semi", "anti")

_BASE = {
    OperatorType.SELECT: OperatorType.MAP,
    OperatorType.AGGREGATE: OperatorType.GROUP_BY,
    OperatorType.REDUCE: OperatorType.GROUP_BY,
    OperatorType.DISTINCT: OperatorType.GROUP_BY,
    OperatorType.HASH_JOIN: OperatorType.JOIN,
    OperatorType.ASOF_JOIN: OperatorType.JOIN,
    OperatorType.INTERVAL_JOIN: OperatorType.JOIN,
    OperatorType.TUMBLING_WINDOW: OperatorType.WINDOW,
    OperatorType.SLIDING_WINDOW: OperatorType.WINDOW,
    OperatorType.SESSION_WINDOW: OperatorType.WINDOW,
    OperatorType.SET: OperatorType.UNION,
}

_T = OperatorType
_TIMED = frozenset({_T.TUMBLING_WINDOW, _T.SLIDING_WINDOW, _T.SESSION_WINDOW})
_GROUPS = frozenset({_T.GROUP_BY, _T.AGGREGATE, _T.REDUCE})
_ROW_WISE = frozenset({_T.MAP, _T.SELECT, _T.FILTER, _T.FLAT_MAP})
_EVERY = frozenset(OperatorType)
_MEANT_FOR: Mapping[str, frozenset[OperatorType]] = {
    "key_by": _EVERY - {_T.SOURCE},
    "stateful": _EVERY - {_T.SOURCE},
    "sql": _EVERY - {_T.SORT, _T.UNION, _T.SET, _T.DISTINCT},
    "where": frozenset({_T.FILTER}),
    "aggregates": _GROUPS | _TIMED,
    "order_by": frozenset({_T.SORT}),
    "how": frozenset({_T.JOIN, _T.HASH_JOIN}),
    "time_column": _TIMED | {_T.ASOF_JOIN},
    "size": frozenset({_T.TUMBLING_WINDOW, _T.SLIDING_WINDOW}),
    "slide": frozenset({_T.SLIDING_WINDOW}),
    "gap": frozenset({_T.SESSION_WINDOW}),
    "function": _ROW_WISE - {_T.SELECT},
    "schema": (_ROW_WISE - {_T.SELECT}) | {_T.SOURCE},
    "source": frozenset({_T.SOURCE}),
    "sink": frozenset({_T.SINK}),
    "tables": _EVERY - {_T.SORT, _T.UNION, _T.SET, _T.DISTINCT},
}
"""For which types an option says something; anywhere else it is refused, since it would be ignored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamOperatorNode:
    """One operator of a job graph; what it does is said by ``sql``, by a Python ``function``, or follows from its type.

    ``sql`` is one SELECT over ``input``, which is the rows of one task; where there are several inputs they are
    ``input_1``, ``input_2`` and so on in the order of ``connect``, or as ``connect`` names them. ``tables`` are small
    tables by name, of which every task has all rows. ``function`` takes an Arrow batch and gives one (MAP, FLAT_MAP) or
    the rows to keep (FILTER: a boolean array, or a batch).

    ``key_by``: rows with equal keys meet in one task. ``stateful``: the operator keeps something between rows, so that
    it needs keys or one task. ``max_parallelism`` is the number of parts that keyed rows are split into, which bounds
    ``parallelism``. ``memory_mb`` and ``cpu_cores`` are what a task needs: the job is refused where agents have less.

    Raises:
        JobError: an option has a wrong value, or means nothing for this type of operator.
    """

    operator_type: OperatorType
    operator_id: str = ""
    parallelism: int = 1
    max_parallelism: int | None = None
    stateful: bool = False
    key_by: Sequence[str] = ()
    sql: str = ""
    where: str = ""
    aggregates: Mapping[str, str] = field(default_factory=dict)
    order_by: Sequence[str] = ()
    how: str = "inner"
    time_column: str = ""
    size: str = ""
    slide: str = ""
    gap: str = ""
    function: Callable[..., Any] | None = None
    schema: pa.Schema | None = None
    source: object = None
    sink: object = None
    tables: Mapping[str, object] = field(default_factory=dict)
    memory_mb: int | None = None
    cpu_cores: float | None = None
    label: str = ""

    def __post_init__(self) -> None:
        self._set("operator_type", self._known_type())
        if isinstance(self.operator_id, str) and not self.operator_id:
            self._set("operator_id", f"{self.operator_type.value}-{uuid.uuid4().hex[:8]}")
        if not isinstance(self.operator_id, str) or not _ID.match(self.operator_id):
            raise JobError(
                f"operator_id={arguments.shown(self.operator_id)} must match [A-Za-z0-9_-]{{1,48}}", code="OPERATOR_ID"
            )
        self._check_parallelism()
        for name in ("key_by", "order_by"):
            self._set(name, self._names(name))
        self._check_types()
        for name, types in _MEANT_FOR.items():
            if self._given(name) and self.operator_type not in types:
                raise self._error(f"{name} means nothing for {self.operator_type.name}", "OPTION_NOT_MEANT")
        self._check_combinations()
        for name in ("memory_mb", "cpu_cores"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and 0 < value < math.inf):
                raise self._error(f"{name}={arguments.shown(value)} must be a number above 0", "RESOURCES")

    @property
    def base_type(self) -> OperatorType:
        """The type that this one is a kind of: MAP of SELECT, GROUP_BY of DISTINCT, and so on."""
        return _BASE.get(self.operator_type, self.operator_type)

    @property
    def key_partitions(self) -> int:
        """Into how many parts keyed rows are split before the tasks share them."""
        return self.max_parallelism or self.parallelism

    @property
    def sort_order(self) -> tuple[str, ...]:
        """What SORT sorts by."""
        return tuple(self.order_by) or tuple(self.key_by)

    def _known_type(self) -> OperatorType:
        try:
            return OperatorType(self.operator_type)
        except Exception:  # noqa: BLE001  code of the caller's
            names = ", ".join(kind.name for kind in OperatorType)
            raise JobError(
                f"operator_type={arguments.shown(self.operator_type)} is none of {names}", code="OPERATOR_TYPE"
            ) from None

    def _check_parallelism(self) -> None:
        for name in ("parallelism", "max_parallelism"):
            value = getattr(self, name)
            if name == "max_parallelism" and value is None:
                continue
            try:
                self._set(name, arguments.whole(name, value, least=1, most=MAX_PARALLELISM))
            except ConfigError as error:
                raise self._error(error.message, "PARALLELISM") from None
        if self.max_parallelism is not None and self.parallelism > self.max_parallelism:
            reason = f"parallelism={self.parallelism} is above max_parallelism={self.max_parallelism}"
            raise self._error(reason, "PARALLELISM")

    def _names(self, option: str) -> tuple[str, ...]:
        value = getattr(self, option)
        known = isinstance(value, Sequence) and not isinstance(value, bytes)
        names = () if not known else (value,) if isinstance(value, str) else tuple(value)
        if not known or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise self._error(f"{option}={arguments.shown(value)} must be different names of columns", "KEYS")
        return names

    def _check_types(self) -> None:
        for name in ("sql", "where", "how", "time_column", "size", "slide", "gap", "label"):
            if not isinstance(getattr(self, name), str):
                raise self._error(f"{name}={arguments.shown(getattr(self, name))} is no text", "OPTION_TYPE")
        if not isinstance(self.stateful, bool):
            raise self._error(f"stateful={arguments.shown(self.stateful)} is neither True nor False", "OPTION_TYPE")
        if self.schema is not None and not _is_schema(self.schema):
            raise self._error(f"schema is a {type(self.schema).__name__}, and no pyarrow.Schema", "OPTION_TYPE")
        if self.how not in _JOIN_KINDS:
            raise self._error(f"how={arguments.shown(self.how)} is none of {', '.join(_JOIN_KINDS)}", "JOIN_KIND")
        if self.function is not None and not callable(self.function):
            raise self._error(f"function={arguments.shown(self.function)} cannot be called", "OPTION_TYPE")
        for name in ("aggregates", "tables"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
                raise self._error(f"{name} must be a dict with names", "OPTION_TYPE")

    def _check_combinations(self) -> None:
        given = [n for n in ("sql", "where", "aggregates", "function") if self._given(n)]
        timed = self.operator_type in _TIMED
        if len(given) > 1:
            raise self._error(f"{' and '.join(given)} both say what it does: give one", "OPTIONS_EXCLUDE")
        if self.operator_type is OperatorType.SOURCE and self.sql and self.source is not None:
            raise self._error("source and sql both say what it reads: give one", "OPTIONS_EXCLUDE")
        if self.order_by and self.key_by:
            raise self._error("order_by and key_by both say what it sorts by: give one", "OPTIONS_EXCLUDE")
        if self.how != "inner" and self.sql:
            raise self._error("how means nothing beside sql, which says how it joins", "OPTIONS_EXCLUDE")
        if self.function is not None and self.tables:
            raise self._error("tables are read by sql, and a function has none", "OPTIONS_EXCLUDE")
        if timed and not self.time_column:
            raise self._error(f"{self.operator_type.name} needs time_column", "OPTION_MISSING")
        wanted = {
            OperatorType.TUMBLING_WINDOW: ("size",),
            OperatorType.SLIDING_WINDOW: ("size", "slide"),
            OperatorType.SESSION_WINDOW: ("gap",),
        }
        for name in wanted.get(self.operator_type, ()):
            if not getattr(self, name):
                raise self._error(f"{self.operator_type.name} needs {name}, such as '10 minutes'", "OPTION_MISSING")

    def _given(self, name: str) -> bool:
        value = getattr(self, name)
        if name in ("source", "sink", "function", "schema"):
            return value is not None  # objects of the user's, which may not be comparable
        return bool(value) and not (name == "how" and value == "inner")

    def _error(self, reason: str, code: str) -> JobError:
        operator_id = self.operator_id if isinstance(self.operator_id, str) else ""
        return JobError(f"operator {operator_id or self.operator_type}: {reason}", code=code, operator=operator_id)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _is_schema(value: object) -> bool:
    import pyarrow as pa  # only jobs with Python functions name schemas

    return isinstance(value, pa.Schema)
