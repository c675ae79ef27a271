"""Bytes to whole messages and back, sans-IO: framing, checksums, timers and acknowledgement of MLLP and LIS01-A2.

Bytes and the present time (seconds, any monotonic clock) come in, events go out. Nothing here opens a socket, reads a
clock, knows what a message says, or keeps more than a bounded part of it. All events are in ``labbridge.wire.events``.
"""

from labbridge.wire.events import Answer, Event, Part, Received
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings
from labbridge.wire.raw import RawLink, RawSettings

__all__ = [
    "Answer",
    "Event",
    "Lis01Link",
    "Lis01Settings",
    "MllpLink",
    "MllpSettings",
    "Part",
    "RawLink",
    "RawSettings",
    "Received",
]
