"""Errors of the native shuffle.

NativeError
├─ Cancelled             the caller's cancel token was set
├─ DeadlineExceeded      the caller's deadline passed
├─ SpillQuotaExceeded    the disk quota is used up, or the disk is full
├─ CorruptSegment        committed data is damaged: its producer must run again
│  └─ SegmentLost        committed data is gone, or its owner cannot be reached: likewise
├─ InvalidTicket         a ticket is malformed, forged, or of another query
├─ UnsupportedType       an Arrow type that cannot be shuffled
└─ StreamError           the producing Arrow stream failed; the message is the producer's
"""

from __future__ import annotations


class NativeError(Exception):
    """Any failure of the native shuffle; itself raised for wrong arguments and failures of the system."""


class Cancelled(NativeError):
    """The cancel token was set."""


class DeadlineExceeded(NativeError):
    """The deadline passed."""


class SpillQuotaExceeded(NativeError):
    """The disk quota is used up, or the disk is full."""


class CorruptSegment(NativeError):
    """Committed data fails its checks."""


class SegmentLost(CorruptSegment):
    """Committed data was released, or its owner cannot be reached."""


class InvalidTicket(NativeError):
    """A ticket is malformed, forged, or of another query."""


class UnsupportedType(NativeError):
    """An Arrow type that the shuffle cannot carry."""


class StreamError(NativeError):
    """The producing Arrow stream reported an error; the message is its own."""
