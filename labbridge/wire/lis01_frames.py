"""LIS01-A2 frames: cut for sending, found and checked in a stream. Knows nothing of sessions or timers.

A frame is STX, a digit, text, ETX (ETB when the text goes on in the next frame), two hex digits of checksum, CR LF.
The reader finds frames and control characters in any segmentation. It looks at each byte once: of an unfinished frame
it remembers how far it has searched; what belongs to no frame is dropped at once, remembered only by ``strays``.

What it forgives: bytes before STX and after the checksum; CR or LF missing; lower-case hex; any length up to the
limit; no checksum at all, if so configured (then whatever follows ETX is ignored). An STX inside a frame begins the
frame anew. An EOT or ENQ inside a frame makes it a bad one, because line noise can make either out of a letter; the EOT
is heard after it, the ENQ is not: see ``lis01_table``.
"""

import re
import zlib

import msgspec

from labbridge.wire.events import Event, LocalProtocolError
from labbridge.wire.excess import Excess, Kept, Strays
from labbridge.wire.lis01_table import ACK, BAD, ENQ, EOT, NAK, NOISE, TOO_LONG

STX, ETX, ETB = 0x02, 0x03, 0x17
NOISE_BYTES = 1024  # behind a bid that is unread
NEAR_BYTES = 1024  # most frames end within so many bytes
FAR_BYTES = 64 * 1024  # beyond, so many are searched at a time
FRAME_LIMIT = 63_993  # text characters of the largest frame that LIS01-A2 allows (64,000 with its overhead)

_CONTROLS = {0x04: EOT, 0x05: ENQ, 0x06: ACK, 0x15: NAK}
_CONTROL = re.compile(rb"[\x04\x05\x06\x15]")
_BETWEEN = re.compile(rb"[\x02\x04\x05]")  # what may follow a frame
_INSIDE = re.compile(rb"[\x02-\x05\x17]")  # what ends or breaks a frame
_BID = re.compile(rb"\x05[^\x02-\x05\x17]*\Z")
_FORBIDDEN = b"\x01\x02\x03\x04\x05\x06\x0a\x10\x11\x12\x13\x14\x15\x16\x17"  # SOH to ACK, LF, DLE to ETB (LIS01-A2)


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One good frame: its number 0 to 7, its text, and whether ETX ended it (else ETB)."""

    number: int
    text: bytes
    final: bool

    def written(self, check: bool) -> bytes:
        """The frame as it stands on the line, up to its line end."""
        body = b"%d%b%b" % (self.number, self.text, b"\x03" if self.final else b"\x17")
        return b"\x02%b%b" % (body, b"%02X" % checksum(body) if check else b"")


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
            frame = Frame((len(frames) + 1) % 8, record[at : at + size], at + size >= len(record))
            frames.append(frame.written(check) + b"\r\n")
    return frames


def begins_record(text: bytes, delimiter: bytes) -> bool:
    """Whether text looks like the beginning of a record: a header, or a letter and its sequence number."""
    third = text[2:3]
    if text[1:2] != delimiter or not text[:1].isalpha():
        return False
    return third.isdigit() or (text[:1] in (b"H", b"h") and third != delimiter and not third.isalnum())


def is_terminator(record: bytes) -> bool:
    """Whether a record is the L record, which ends a message (LIS02-A2, ASTM E1394)."""
    return record[:1] in (b"L", b"l") and not record[1:2].isalnum()


def _end_of_frame(data: bytearray, start: int) -> int:
    """Where the frame ends or is broken; -1 when it goes on. Far away a search for each control is the faster one."""
    found = _INSIDE.search(data, start, start + NEAR_BYTES)
    if found is not None:
        return found.start()
    for at in range(start + NEAR_BYTES, len(data), FAR_BYTES):
        end = limit = min(at + FAR_BYTES, len(data))
        for control in b"\x03\x17\x02\x04\x05":
            nearer = data.find(control, at, end)
            end = nearer if nearer >= 0 else end
        if end < limit:
            return end
    return -1


class FrameStrays(Strays):
    """The bytes of one connection that belong to no message; those of refused frames apart, until it is known what became of them.

    A refused frame came right when a frame was accepted under its own number, or under the one that was awaited (its
    own may be what the line damaged), and no message of the transmission broke off.
    """

    def __init__(self, expected: bytes) -> None:
        super().__init__(expected)
        self._refused, self._righted = Kept(), Kept()
        self._refusing = False  # the run under way is a refused frame, or came behind it
        self._missing: set[tuple[int, ...]] = set()  # for each refused frame the numbers under which it may come
        self._next = 1

    def add(self, data: bytes | bytearray) -> None:
        """Take bytes found outside any message."""
        if self.running and self._refusing:
            self._refused.add(data)
        else:
            self._refusing = False
            super().add(data)

    def refuse(self, data: bytes, *numbers: int) -> None:
        """Take a frame that is refused, and ``numbers`` under which it may come right; none: what is awaited, and its own."""
        self.running = self._refusing = True
        self._refused.add(data)
        self._missing.add(numbers or (self._next, data[1] - 0x30 if len(data) > 1 else self._next))

    def accept(self, frame: Frame | None) -> None:
        """Say which frame is accepted, or has come again."""
        if frame is not None:
            self._next = frame.number + 1 & 7
            if self._missing:
                self._missing = {numbers for numbers in self._missing if frame.number not in numbers}

    def end(self, *, well: bool) -> None:
        """Say that the transmission is over, and whether no message of it broke off."""
        (self._righted if well and not self._missing else self._kept).move(self._refused)
        self._refusing = False
        self._missing.clear()
        self._next = 1

    def report(self, events: list[Event]) -> None:
        """Say what there was, at the connection's end; what is not known to have come right did not."""
        self.end(well=False)
        super().report(events)
        self._righted.report(events, resent=True)


class FrameReader:
    """Finds frames and control characters in a stream, of which it keeps what is unread."""

    def __init__(self, *, check: bool, limit: int) -> None:
        self.fault = ""  # what was wrong with the last bad frame
        self.strays = FrameStrays(b"\r\n" if check else b"\r\n0123456789ABCDEFabcdef")
        self._check = check
        self._limit = limit
        self._data = bytearray()
        self._searched = 0  # how far the frame at the beginning has been searched for its end
        self._returned: Frame | str | None = None

    def __len__(self) -> int:
        """How many bytes are unread."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._data += data

    def put_back(self, item: Frame | str | None) -> None:
        """Make this, which ``next`` gave, the next thing in the stream."""
        self._returned = item

    def ends_with_bid(self) -> bool:
        """Whether an ENQ is unread, and nothing behind it but line ends and noise."""
        if not self._data:
            return self._returned is ENQ
        tail = self._data[-NOISE_BYTES:]
        return _BID.search(tail) is not None or (self._returned is ENQ and _INSIDE.search(tail) is None)

    def spill(self, excess: Excess) -> Excess:
        """Move the text of a frame that is too long to ``excess``, without a copy of it."""
        with memoryview(self._data) as view:
            excess.add(view[2:])
        del self._data[:]
        self._searched = 0
        return excess

    def take(self) -> bytes:
        """All that is unread."""
        taken = bytes(self._data)
        del self._data[:]
        self._searched = 0
        self._returned = None
        return taken

    def drop(self) -> None:
        """Forget what is unread; but for control characters it counts as stray."""
        self.strays.add(self.take().strip(b"\r\n\x04\x05\x06\x15"))

    def next(self, framed: bool) -> Frame | str | None:
        """The next thing in the stream, or None when more bytes are needed.

        With ``framed``: a Frame, ENQ, EOT, BAD or TOO_LONG. Without: a control character, or NOISE.
        """
        if self._returned is not None:
            item, self._returned = self._returned, None
            return item
        data = self._data
        while data:
            if data[0] != STX or not framed:
                found = (_BETWEEN if framed else _CONTROL).search(data)
                noise = self._pass_by(found.start() if found else len(data))
                if noise and not framed:
                    return NOISE
                if not data or data[0] == STX:
                    continue
                self.strays.running = False
                name = _CONTROLS[data[0]]
                del data[:1]
                return name
            end = _end_of_frame(data, self._searched or 1)
            if end < 0:
                self._searched = len(data)
                return TOO_LONG if len(data) - 2 > self._limit else None
            if data[end] in (ETX, ETB):
                return self._checked(data, end)
            control = data[end]
            self._refuse(end + (control == 0x05))  # the ENQ is inside the frame
            if control == STX:
                continue
            self.fault = "broken off"
            return BAD
        return None

    def _pass_by(self, end: int) -> bytes:
        """Drop the first bytes, which belong to no frame; what they are but for line ends."""
        passed = bytes(self._data[:end])
        self.strays.add(passed)
        del self._data[:end]
        self._searched = 0
        return passed.strip(b"\r\n")

    def _refuse(self, end: int) -> None:
        """Drop the first bytes, which are a bad frame."""
        self.strays.refuse(bytes(self._data[:end]))
        del self._data[:end]
        self._searched = 0

    def refuse_number(self, frame: Frame) -> None:
        """Say that a good frame, which ``next`` gave, has a number that cannot be."""
        self.fault = "frame number out of order"
        self.strays.refuse(frame.written(self._check), frame.number)

    def _checked(self, data: bytearray, end: int) -> Frame | str | None:
        """The frame that ETX or ETB ends at ``end``, when its checksum has come."""
        body = bytes(data[1 : end + 1])
        size = end + 1
        self.fault = "" if 0x30 <= body[0] <= 0x37 else "no frame number"
        if self._check:
            digits = bytes(data[size : size + 2]).upper()
            if len(digits) < 2:
                self._searched = end
                return None
            if digits == b"%02X" % checksum(body):
                size += 2
            else:
                self.fault = "wrong checksum" if digits.isalnum() else "no checksum"
                size += digits.find(b"\x05") + 1  # an ENQ there is inside the frame as well
        if self.fault:
            self._refuse(size)
            return BAD
        del data[:size]
        self._searched = 0
        self.strays.running = False
        return Frame(body[0] - 0x30, body[1:-1], body[-1] == ETX)
