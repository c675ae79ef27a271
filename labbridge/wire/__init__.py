"""Bytes to whole messages and back, sans-IO: framing, checksums, timers and acknowledgement of MLLP and LIS01-A2.

Bytes and the present time (seconds, any monotonic clock) come in, events go out. Nothing here opens a socket, reads a
clock, knows what a message says, or keeps more than a bounded part of it.
"""

from labbridge.wire.events import (
    Abandoned,
    Answer,
    Close,
    Event,
    Failed,
    LocalProtocolError,
    Note,
    Overdue,
    Oversize,
    Part,
    Received,
    Sent,
    Stray,
    Write,
)
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

__all__ = [
    "Abandoned",
    "Answer",
    "Close",
    "Event",
    "Failed",
    "Lis01Link",
    "Lis01Settings",
    "LocalProtocolError",
    "MllpLink",
    "MllpSettings",
    "Note",
    "Overdue",
    "Oversize",
    "Part",
    "Received",
    "Sent",
    "Stray",
    "Write",
]
