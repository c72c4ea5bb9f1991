"""Why a task failed, from the exception it failed with."""

from __future__ import annotations

import sabot_native
from sabot_sql.agent.runner import InputLost
from sabot_sql.duck.errors import translate
from sabot_sql.errors import (
    BindError,
    InternalError,
    QueryCancelled,
    QueryError,
    QueryTimeout,
    ResourceError,
    SabotSQLError,
    SourceError,
    SQLSyntaxError,
)
from sabot_sql.protocol.task_spec import FailureKind

Reason = tuple[FailureKind, SabotSQLError]


def reason_of(error: BaseException, *, cancelled: bool) -> Reason:
    """The kind of failure and the error to show. ``cancelled``: somebody asked the task to stop."""
    if cancelled or isinstance(error, sabot_native.Cancelled):
        return FailureKind.CANCELLED, QueryCancelled("the query was cancelled")
    match error:
        case sabot_native.DeadlineExceeded():
            return FailureKind.DEADLINE, QueryTimeout("the query ran past its deadline")
        case sabot_native.SpillQuotaExceeded():
            return FailureKind.RESOURCE, ResourceError(str(error), code="DISK_FULL")
        case InputLost() | sabot_native.CorruptSegment():
            return FailureKind.LOST_INPUT, InternalError(str(error), code="INPUT_LOST")
        case sabot_native.NativeError() if not isinstance(error, sabot_native.StreamError):
            return FailureKind.INTERNAL, InternalError(str(error))
        case MemoryError():
            return FailureKind.RESOURCE, ResourceError("out of memory", code="OUT_OF_MEMORY")
    translated = translate(error)
    match translated:
        case QueryCancelled():
            return FailureKind.CANCELLED, translated
        case ResourceError():
            return FailureKind.RESOURCE, translated
        case SQLSyntaxError() | BindError():
            # The user's own text was bound before; what does not bind here is text that we wrote.
            return FailureKind.INTERNAL, translated
        case QueryError() | SourceError():
            return FailureKind.USER, translated
        case _:
            return FailureKind.INTERNAL, translated
