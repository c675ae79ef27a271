"""LIS01-A2 frames: cut for sending, found and checked in a stream. Knows nothing of sessions, timers or records.

A frame is STX, a digit, text, ETX (ETB when the text goes on in the next frame), two hex digits of checksum, CR LF.
The reader finds frames and control characters in any segmentation. It looks at each byte once: of an unfinished frame
it remembers how far it has searched; what belongs to no frame is dropped at once, remembered only by ``strays``.

What it forgives: bytes before STX and after the checksum; CR or LF missing; lower-case hex; any length up to the
limit; no checksum at all, if so configured (then whatever follows ETX is ignored). An STX inside a frame begins the
frame anew. EOT or ENQ inside a frame are told apart from the same between frames, because line noise can make one
out of a letter: see ``lis01_table``.
"""

import re
import zlib

import msgspec

from labbridge.wire.events import LocalProtocolError
from labbridge.wire.excess import FLOOD_FACTOR, Excess, Strays

STX, ETX, EOT_BYTE, ENQ_BYTE, ACK_BYTE, NAK_BYTE, ETB = 0x02, 0x03, 0x04, 0x05, 0x06, 0x15, 0x17

# What the reader finds besides frames: names that are inputs of the transition table.
ENQ, EOT, ACK, NAK = "ENQ", "EOT", "ACK", "NAK"
NOISE = "other bytes"
BAD = "bad frame"
ENQ_INSIDE = "ENQ inside a frame"
EOT_INSIDE = "EOT inside a frame"
TOO_LONG = "frame grows beyond the limit"
TOO_LONG_END = "end of an oversize frame"
FLOOD = "oversize frame without end"

FRAME_LIMIT = 63_993  # text characters of the largest frame that LIS01-A2 allows (64,000 with its overhead)

_CONTROLS = {EOT_BYTE: EOT, ENQ_BYTE: ENQ, ACK_BYTE: ACK, NAK_BYTE: NAK}
_CONTROL = re.compile(rb"[\x04\x05\x06\x15]")
_BETWEEN = re.compile(rb"[\x02\x04\x05]")  # what may follow a frame
_INSIDE = re.compile(rb"[\x02-\x05\x17]")  # what ends or breaks a frame
_FORBIDDEN = b"\x01\x02\x03\x04\x05\x06\x0a\x10\x11\x12\x13\x14\x15\x16\x17"  # SOH to ACK, LF, DLE to ETB (LIS01-A2)
_ENDS = frozenset((ETX, ETB))
_HEX = [b"%02X" % n for n in range(256)]


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One good frame: its number 0 to 7, its text, and whether ETX ended it (else ETB)."""

    number: int
    text: bytes
    final: bool


def checksum(data: bytes) -> int:
    """The sum modulo 256 of a frame from its number through ETX or ETB (LIS01-A2, ASTM E1381)."""
    # Adler-32's low half is one more than the plain sum as long as that is below 65,521: exact for 256 bytes, and ten
    # times as fast as adding in Python.
    if len(data) <= 256:
        return zlib.adler32(data) - 1 & 0xFF
    return sum(zlib.adler32(data[at : at + 256]) - 1 & 0xFF for at in range(0, len(data), 256)) & 0xFF


def has_forbidden(text: bytes) -> bool:
    """Whether text holds a control character that no frame may carry."""
    return len(text.translate(None, _FORBIDDEN)) < len(text)


def cut(payload: bytes, size: int, *, check: bool = True) -> list[bytes]:
    """A message as frames of at most ``size`` text characters, one record per frame, numbered from 1.

    A longer record goes on over ETB frames; its last frame, like that of every record, ends with ETX. Raises
    LocalProtocolError for text that LIS01-A2 forbids in a frame.
    """
    if has_forbidden(payload):
        raise LocalProtocolError("the payload holds a control character that no frame may carry")
    records = [record + b"\r" for record in payload.split(b"\r") if record]
    if not records:
        raise LocalProtocolError("the payload holds no record")
    frames: list[bytes] = []
    for record in records:
        for at in range(0, len(record), size):
            end = b"\x03" if at + size >= len(record) else b"\x17"
            body = b"%d%b%b" % ((len(frames) + 1) % 8, record[at : at + size], end)
            frames.append(b"\x02%b%b\r\n" % (body, _HEX[checksum(body)] if check else b""))
    return frames


def begins_record(text: bytes, delimiter: bytes) -> bool:
    """Whether text looks like the beginning of a record: a header, or a letter and its sequence number."""
    third = text[2:3]
    if text[1:2] != delimiter or not text[:1].isalpha():
        return False
    return third.isdigit() or (text[:1] in (b"H", b"h") and third != delimiter and not third.isalnum())


class FrameReader:
    """Finds frames and control characters in a stream; a frame of more than ``limit`` characters is not kept."""

    def __init__(self, *, check: bool, limit: int) -> None:
        self._check = check
        self._limit = limit
        self._data = bytearray()
        self._searched = 0
        self.fault = ""  # what was wrong with the last bad frame
        self.excess: Excess | None = None
        self._returned: Frame | str | None = None
        self.strays = Strays(b"\r\n" if check else b"\r\n0123456789ABCDEFabcdef")

    def __len__(self) -> int:
        """How many bytes are unread."""
        return len(self._data)

    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended."""
        return self.excess is not None or bool(self._data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._data += data

    def begins_afresh(self, data: bytes) -> bool:
        """Whether ``data``, after nothing else that is still unread, is just an ENQ, perhaps after an EOT."""
        return data.strip(b"\r\n\x04") == b"\x05" and not self._data.strip(b"\r\n\x04\x05")

    def put_back(self, item: Frame | str | None) -> None:
        """Make this the next thing in the stream; None takes it away again."""
        self._returned = item

    def drop(self) -> None:
        """Forget what is unread; but for control characters it counts as stray."""
        self._returned = None
        self.strays.add(self._data.strip(b"\r\n\x04\x05\x06\x15"))
        self._data.clear()
        self._searched = 0

    def next(self, framed: bool) -> Frame | str | None:
        """The next thing in the stream, or None when more bytes are needed.

        With ``framed``: a Frame, ENQ, EOT, or one of the faults. Without: a control character, or NOISE.
        """
        if self._returned is not None:
            item, self._returned = self._returned, None
            return item
        data = self._data
        if not data:
            return None
        if not framed:
            return self._control(data)
        if self.excess is not None:
            return self._skip(data, self.excess)
        while True:
            if data[0] != STX:
                found = _BETWEEN.search(data)
                self._stray(found.start() if found else len(data))
                if not found:
                    return None
                if data[0] != STX:
                    return self._take_control()
            found = _INSIDE.search(data, self._searched or 1)
            if found is None:
                self._searched = len(data)
                return None if self._searched - 2 <= self._limit else TOO_LONG
            end = found.start()
            mark = data[end]
            if mark in _ENDS:
                return self._checked(data, end)
            self._stray(end)
            if mark != STX:
                return ENQ_INSIDE if self._take_control() is ENQ else EOT_INSIDE

    def skip(self, excess: Excess) -> None:
        """After TOO_LONG: let the frame pass into ``excess`` without keeping it."""
        excess.add(self._data[2:])
        self._data.clear()
        self._searched = 0
        self.excess = excess

    def _skip(self, data: bytearray, excess: Excess) -> str | None:
        found = _INSIDE.search(data)
        end = found.start() if found else len(data)
        excess.add(data[:end])
        if found is None:
            data.clear()
            return FLOOD if excess.length > FLOOD_FACTOR * self._limit else None
        del data[: end + (data[end] in _ENDS)]
        return TOO_LONG_END

    def _control(self, data: bytearray) -> str | None:
        found = _CONTROL.search(data)
        end = found.start() if found else len(data)
        noise = data[:end].strip(b"\r\n")
        self._stray(end)
        if noise:
            return NOISE
        return self._take_control() if found else None

    def _take_control(self) -> str:
        self.strays.running = False
        name = _CONTROLS[self._data[0]]
        del self._data[:1]
        return name

    def _stray(self, end: int) -> None:
        """Drop the first bytes: they belong to no frame."""
        if end:
            self.strays.add(self._data[:end])
            del self._data[:end]
        self._searched = 0

    def _checked(self, data: bytearray, end: int) -> Frame | str | None:
        """The frame that ETX or ETB ends at ``end``, when its checksum has come."""
        body = bytes(data[1 : end + 1])
        fault = "" if 0x30 <= body[0] <= 0x37 else "no frame number"
        size = end + 1
        if self._check:
            digits = data[size : size + 2]
            if len(digits) < 2:
                self._searched = end
                return None
            right = _HEX[checksum(body)]
            if digits == right or digits.upper() == right:
                size += 2
            else:
                fault = "wrong checksum" if digits.isalnum() else "no checksum"
        if fault:
            self._stray(size)
            self.fault = fault
            return BAD
        del data[:size]
        self._searched = 0
        self.strays.running = False
        return Frame(body[0] - 0x30, body[1:-1], body[-1] == ETX)
