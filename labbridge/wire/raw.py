"""ASTM records (LIS02) without a data link: no frames, no checksums, no acknowledgement; sans-IO.

A message begins with a record whose first letter is H. A record ends with CR or LF, a message with the record that
``ends_message`` names (by default L). EOT, ENQ, another H, a silence of ``receive_time`` or the close end one too: for a
sender whose last record is not told apart (``ends_message`` None) it is whole then, if its last record is. What stops
before its last record, or within a record, is a Part that is Abandoned: a value cut short must not pass for another.
What begins with any other letter is Stray, up to the next message; control characters and blanks between messages are
nothing, unless what is Stray follows.

Nobody sends a message again that is not acknowledged, so whoever owns the link keeps what comes up until it is stored.
Each byte is looked at once. Memory: ``max_message``; beyond it 64 KiB, and at four times the limit Close.
"""

import re
from collections.abc import Callable

import msgspec

from labbridge.wire.events import Abandoned, Answer, Event, Failed, LocalProtocolError, Part, Received, Sent, Write
from labbridge.wire.excess import FLOODED, Excess, Strays
from labbridge.wire.lis01_frames import is_terminator

RECORD_BYTES = 256  # how much of a record ends_message is shown
BLANK_BYTES = 64  # so much of what may turn out to belong to a Stray is kept
FLOOD_FACTOR = 4
_BETWEEN = bytes(range(0x21))  # control characters and the blank
_END = re.compile(rb"[\r\n\x04\x05]")  # of a record; EOT and ENQ end the transmission as well


class RawSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one connection speaks; times in seconds."""

    receive_time: float = 30.0  # the longest silence within a message
    max_message: int = 16 * 1024 * 1024  # bytes
    ends_message: Callable[[bytes], bool] | None = is_terminator  # given a record, its first 256 bytes; None: none does


class RawLink:
    """One connection; ``deadline`` says when to call ``tick`` next, or is None."""

    def __init__(self, settings: RawSettings) -> None:
        self.settings = settings
        self.deadline: float | None = None
        self._closed = self._inside = False
        self._paused = self._resumed = False  # paused; was paused, and its silence begins anew
        self._heard_at = 0.0
        self._data = bytearray()  # the message so far
        self._record = bytearray()  # the beginning of its last record, while that has not ended
        self._excess: Excess | None = None  # in place of _data, beyond max_message
        self._strays = Strays(b"")
        self._blanks = bytearray()  # came outside any message, and nothing else since
        self._odd = False  # the line under way is Stray
        self._tokens = 0
        self._live: set[int] = set()

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, in any segmentation; never raises on them."""
        events: list[Event] = []
        at = 0
        for end in _END.finditer(data):
            self._take(data[at : end.start()], events)
            self._end_record(end[0], events)
            at = end.end()
        self._take(data[at:], events)
        self._strays.note(events)
        self._resumed, self._heard_at = False, now
        self.deadline = now + self.settings.receive_time if self._inside and not self._paused else None
        return events

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        """Take the store's answer; nobody is told. Raises LocalProtocolError for a token that does not wait, and for replies."""
        if token not in self._live or answer.replies:
            raise LocalProtocolError(f"token {token} does not wait to be settled, or has replies")
        self._live.remove(token)
        return []

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Send records as they are; written is Sent."""
        return [Failed(token, "the connection closed")] if self._closed else [Write(payload), Sent(token)]

    def tick(self, now: float) -> list[Event]:
        """Let time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        if self.deadline is None or now < self.deadline:
            return events
        if self._resumed:
            self._resumed, self.deadline = False, now + self.settings.receive_time
        else:
            self._stop("silence within the message", events)
        return events

    def closed(self, now: float) -> list[Event]:
        """Say that the connection is gone."""
        events: list[Event] = []
        if not self._closed:
            self._stop("the connection closed within the message", events)
            self._strays.report(events)
            self._closed = True
        return events

    def pause(self) -> list[Event]:
        """The adapter stops reading: there is no word for busy, and the silence is ours."""
        self._paused, self.deadline = True, None
        return []

    def resume(self) -> list[Event]:
        """The adapter reads again: a ``tick`` is due at once, from which the silence counts."""
        if self._paused:
            self._paused, self._resumed = False, self._inside
            self.deadline = self._heard_at if self._inside else None
        return []

    def _take(self, text: bytes, events: list[Event]) -> None:
        """Text of one record, or a piece of it."""
        if not text or self._closed:
            return
        begun = text if self._inside else text.lstrip(_BETWEEN)
        if not self._record and not self._odd and begun.startswith(b"H"):
            self._stop("another message began", events)
            self._inside, self._strays.running = True, False
            self._blanks.clear()
            text = begun
        if not self._inside:
            self._odd = self._odd or bool(begun)
            self._outside(text)
            return
        self._record += text[: RECORD_BYTES - len(self._record)]
        self._add(text, events)

    def _outside(self, data: bytes) -> None:
        if self._odd or self._strays.running:
            self._strays.add(self._blanks + data)
            self._blanks.clear()
        else:
            self._blanks += data[-BLANK_BYTES:]
            del self._blanks[:-BLANK_BYTES]

    def _end_record(self, end: bytes, events: list[Event]) -> None:
        if not self._inside:
            self._outside(end)
            self._odd = False
        elif end in b"\x04\x05":
            if self.settings.ends_message is None and end == b"\x04":  # then it ends the record; ENQ cuts it short
                self._record.clear()
            self._stop("the transmission ended within the message", events)
        else:
            last, ends = bytes(self._record), self.settings.ends_message
            self._record.clear()
            self._add(end, events)
            if self._inside and last and ends is not None and ends(last):
                self._deliver(events)

    def _add(self, text: bytes, events: list[Event]) -> None:
        limit = self.settings.max_message
        if self._excess is None and len(self._data) + len(text) > limit:
            self._excess = Excess(self._data)
            self._data.clear()
        if self._excess is None:
            self._data += text
            return
        self._excess.add(text)
        if self._excess.length > FLOOD_FACTOR * limit:
            self._deliver(events)
            self._strays.report(events)
            events.append(FLOODED)
            self._closed = True

    def _stop(self, why: str, events: list[Event]) -> None:
        """The message ends otherwise than with its last record."""
        ends = self.settings.ends_message
        whole = ends(bytes(self._record)) if self._record and ends is not None else ends is None and not self._record
        if not self._inside:
            return
        if whole or self._excess is not None:
            self._deliver(events)
        else:
            token = self._next_token()
            events += (Part(token, bytes(self._data)), Abandoned(why))
            self._begin_anew()

    def _deliver(self, events: list[Event]) -> None:
        token = self._next_token()
        events.append(self._excess.event(token) if self._excess else Received(token, bytes(self._data)))
        self._begin_anew()

    def _next_token(self) -> int:
        self._tokens += 1
        self._live.add(self._tokens)
        return self._tokens

    def _begin_anew(self) -> None:
        self._data.clear()
        self._record.clear()
        self._excess = self.deadline = None
        self._inside = False
