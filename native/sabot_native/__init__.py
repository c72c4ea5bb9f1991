"""The native shuffle: Arrow streams in, partitions out, without Python or the GIL per batch."""

from __future__ import annotations

# Loaded first: the Flight extension links against the libarrow and libarrow_flight that these bring.
from pyarrow import flight as _arrow_flight  # noqa: F401

from sabot_native._native import (
    CancelToken,
    Heartbeat,
    LiveStream,
    Manifest,
    PartitionStream,
    Scheme,
    ShuffleManager,
    check_stream,
    distinct_count,
)
from sabot_native.errors import (
    Cancelled,
    CorruptSegment,
    DeadlineExceeded,
    InvalidTicket,
    NativeError,
    SegmentLost,
    SpillQuotaExceeded,
    StreamError,
    UnsupportedType,
)
from sabot_native.output import Output

__all__ = [
    "CancelToken",
    "Cancelled",
    "CorruptSegment",
    "DeadlineExceeded",
    "Heartbeat",
    "InvalidTicket",
    "LiveStream",
    "Manifest",
    "NativeError",
    "Output",
    "PartitionStream",
    "Scheme",
    "SegmentLost",
    "ShuffleManager",
    "SpillQuotaExceeded",
    "StreamError",
    "UnsupportedType",
    "check_stream",
    "distinct_count",
]
