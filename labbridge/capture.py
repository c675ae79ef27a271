"""Messages out of a captured file: framed as on the wire (MLLP, LIS01) or bare, one or several."""

from labbridge.wire.events import Answer, Event, Part, Received, Write
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

STX, ENQ, EOT, NAK, SB = b"\x02", b"\x05", b"\x04", b"\x15", b"\x0b"
EB_CR, BETWEEN = b"\x1c\r", b"\r\n\x1c"


def messages(data: bytes, framing: str) -> tuple[list[bytes], list[str]]:
    """The messages of a capture, and what was odd about its framing.

    ``framing`` is the profile's: mllp or lis01. A capture whose frames have wrong checksums is read without them, and
    that is told. Bare text is one message.
    """
    if framing == "mllp":
        return (_mllp(data), _oddities(data)) if SB in data else ([data], [])
    if STX not in data:
        return [data.strip(ENQ + EOT)], []
    found, refused = _lis01(data, checksum=True)
    if not refused:
        return found, []
    return _lis01(data, checksum=False)[0], ["frames with wrong checksums: on the wire they would be refused (NAK) and sent again"]


def _mllp(data: bytes) -> list[bytes]:
    link = MllpLink(MllpSettings(answer_time=None, max_message=len(data)))
    found = _blocks(link.receive(data, 0.0))
    if data.count(SB) > len(found):  # a last block without its end
        found += _blocks(link.receive(EB_CR, 0.0))
    return found


def _blocks(events: list[Event]) -> list[bytes]:
    """Whole blocks, and those that broke off: a person who looks at a capture wants to see them too."""
    return [event.payload if isinstance(event, Received) else event.data for event in events if isinstance(event, Received | Part)]


def _oddities(data: bytes) -> list[str]:
    """What is not in order about MLLP blocks: one without its end, bytes that belong to none."""
    before, *blocks = data.split(SB)
    parts = [block.partition(EB_CR) for block in blocks]
    odd = [] if all(end for _, end, _ in parts) else ["a block without its end (FS CR): what came may not be all of it"]
    if any(outside.strip(BETWEEN) for outside in (before, *(after for _, _, after in parts))):
        odd.append("bytes outside the blocks: on the wire they would be no part of a message")
    return odd


def _lis01(data: bytes, *, checksum: bool) -> tuple[list[bytes], bool]:
    """Plays the capture to a host link, a frame at a time; gives the messages, and whether a frame was refused."""
    link = Lis01Link(Lis01Settings(role="host", checksum=checksum, numbered=False, answer_time=None, max_message=len(data)))
    found: list[bytes] = []
    refused = False

    def settle(events: list[Event]) -> None:
        nonlocal refused
        for event in events:
            refused |= isinstance(event, Write) and event.data == NAK
            if isinstance(event, Received):
                found.append(event.payload)
            token = getattr(event, "token", None)
            if token is not None:
                settle(link.settle(token, Answer(True), 0.0))

    start = data.find(ENQ)
    first = data.find(STX)
    if start < 0 or start > first:
        data = ENQ + data[first:]
    head, *frames = data.split(STX)
    for piece in (head, *(STX + frame for frame in frames)):  # the next frame comes only after the last was answered
        settle(link.receive(piece, 0.0))
    settle(link.receive(EOT, 0.0))
    return found, refused
