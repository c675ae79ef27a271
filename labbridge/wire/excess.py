"""Bounded memory of bytes that are too many or belong nowhere."""

import hashlib

from labbridge.wire.events import Close, Event, Note, Oversize, Stray

HEAD_BYTES = 64 * 1024
STRAY_BYTES = 4 * 1024

FLOODED = Close("the peer sends without end")


class Excess:
    """An oversize transmission as it passes: its head, length and SHA-256. Cost: linear, memory: 64 KiB."""

    def __init__(self, *pieces: bytes | bytearray) -> None:
        self._head = bytearray()
        self.length = 0
        self._hash = hashlib.sha256()
        for piece in pieces:
            self.add(piece)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self.length += len(data)
        self._hash.update(data)

    def event(self, token: int) -> Oversize:
        """What is reported of it."""
        return Oversize(token, bytes(self._head), self.length, self._hash.digest())


class Kept:
    """The beginning of some bytes, and how many there were."""

    def __init__(self) -> None:
        self.head = bytearray()
        self.count = 0

    def add(self, data: bytes | bytearray) -> None:
        """Take the next bytes."""
        self.head += data[: STRAY_BYTES - len(self.head)]
        self.count += len(data)

    def move(self, other: "Kept") -> None:
        """Take all that another has, and leave it empty."""
        self.add(other.head)
        self.count += other.count - len(other.head)
        other.head.clear()
        other.count = 0

    def report(self, events: list[Event], *, resent: bool = False) -> None:
        """Say what there was."""
        if self.count:
            events.append(Stray(bytes(self.head), self.count, resent))


class Strays:
    """The bytes of one connection that belong to no message.

    A run of them begins with a byte that is not ``expected`` there, and goes on until ``running`` is set to False.
    """

    def __init__(self, expected: bytes) -> None:
        self.running = False
        self._expected = expected
        self._kept = Kept()
        self._noted = False

    def add(self, data: bytes | bytearray) -> None:
        """Take bytes found outside any message."""
        if not self.running:
            data = data.lstrip(self._expected)
            self.running = bool(data)
        self._kept.add(data)

    def note(self, events: list[Event]) -> None:
        """Say, the first time only, that there were any."""
        if self._kept.count and not self._noted:
            self._noted = True
            events.append(Note("warning", "bytes outside any message"))

    def report(self, events: list[Event]) -> None:
        """Say what there was, at the connection's end."""
        self._kept.report(events)
