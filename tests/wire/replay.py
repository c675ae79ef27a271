"""What the tests of wire share: playing a stream in any segmentation, and LIS01 frames made by hand."""

from collections.abc import Iterable

from labbridge.wire import Lis01Link, MllpLink
from labbridge.wire.events import Answer, Event, Oversize, Part, Received, Write

SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9)  # bytes per segment; 0: all in one
ENQ, ACK, NAK, EOT = b"\x05", b"\x06", b"\x15", b"\x04"
YES, NO = Answer(True), Answer(False)

Link = Lis01Link | MllpLink


def segments(data: bytes, size: int) -> Iterable[bytes]:
    """The stream cut in pieces of ``size`` bytes."""
    return [data] if not size else [data[at : at + size] for at in range(0, len(data), size)]


def settled(link: Link, events: list[Event], answer: Answer = YES, now: float = 0.0) -> list[Event]:
    """The events, each that asks for it settled at once, with what came of that behind it."""
    told: list[Event] = []
    for event in events:
        told.append(event)
        if isinstance(event, Part | Received | Oversize):
            told += settled(link, link.settle(event.token, answer, now), answer, now)
    return told


def play(link: Link, data: bytes, size: int = 0, answer: Answer = YES, now: float = 0.0) -> list[Event]:
    """Everything a link tells of a stream whose messages are settled at once."""
    told: list[Event] = []
    for segment in segments(data, size):
        told += settled(link, link.receive(segment, now), answer, now)
    return told


def written(events: Iterable[Event]) -> bytes:
    """The bytes that went to the peer."""
    return b"".join(event.data for event in events if isinstance(event, Write))


def payloads(events: Iterable[Event]) -> list[bytes]:
    """The messages that were received."""
    return [event.payload for event in events if isinstance(event, Received)]


def only(kind: type, events: Iterable[Event]) -> list[Event]:
    """The events of one kind."""
    return [event for event in events if type(event) is kind]


def frame(number: int, text: bytes, end: bytes = b"\x03", tail: bytes = b"\r\n") -> bytes:
    """A LIS01 frame, its checksum added the plain way."""
    body = b"%d" % (number % 8) + text + end
    return b"\x02" + body + b"%02X" % (sum(body) % 256) + tail


def session(*texts: bytes, start: int = 1) -> bytes:
    """ENQ, one ETX frame per text, EOT."""
    return ENQ + b"".join(frame(start + at, text) for at, text in enumerate(texts)) + EOT


HEADER, PATIENT, RESULT, LAST = b"H|\\^&|||XA^1\r", b"P|1||4711\r", b"R|1|^^^GLU|5.4|mmol/L\r", b"L|1|N\r"
MESSAGE = HEADER + PATIENT + RESULT + LAST
