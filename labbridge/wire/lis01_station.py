"""A LIS01-A2 station: its settings, its state, and the actions that the transition table names.

Actions do and report; when they are due, ``lis01_table`` says, and ``lis01`` sees to it.
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from labbridge.wire.events import Abandoned, Close, Event, Failed, LocalProtocolError, Note, Overdue, Part, Received, Sent, Write
from labbridge.wire.excess import Excess
from labbridge.wire.lis01_frames import ENQ, FRAME_LIMIT, Frame, FrameReader

RECORD_BYTES = 256  # how much of the last record ends_message is shown

_ACK, _NAK, _ENQ, _EOT = Write(b"\x06"), Write(b"\x15"), Write(b"\x05"), Write(b"\x04")

# What waits for settle: a frame, the frame that ends its message, or a message whose frames are all acknowledged.
# A frame whose message was abandoned meanwhile is settled without effect.
_PART, _LAST, _WHOLE, _DETACHED = "part", "last", "whole", "detached"


def is_terminator(record: bytes) -> bool:
    """Whether a record is the L record, which ends a message (LIS02-A2, ASTM E1394)."""
    return record[:1] in (b"L", b"l") and not record[1:2].isalnum()


class Lis01Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one connection speaks; times in seconds, defaults those of LIS01-A2."""

    role: Literal["host", "instrument"] = "host"
    frame_size: int = 240  # text characters per frame sent, 1 to 63,993
    checksum: bool = True  # sent and demanded
    numbered: bool = True  # frame numbers must follow each other; some analyzers number as they please
    refusals: int = 6  # of one frame, or of one bid, before the message fails
    reply_time: float = 15.0  # we wait for the reply to our ENQ or frame
    receive_time: float = 30.0  # we wait for the sender's next frame or EOT
    busy_time: float = 10.0  # no bid after a NAK to ENQ
    interrupt_time: float = 15.0  # no bid after an EOT in reply to a frame
    contention_time: float | None = None  # None: 20 for a host, 1 for an instrument
    answer_time: float | None = 12.0  # the store's time to settle before the link refuses; None: no limit
    max_message: int = 16 * 1024 * 1024  # bytes
    ends_message: Callable[[bytes], bool] = is_terminator  # given the last record so far, its first 256 bytes

    def __post_init__(self) -> None:
        if not 1 <= self.frame_size <= FRAME_LIMIT:
            raise LocalProtocolError(f"frame_size must be 1 to {FRAME_LIMIT}, not {self.frame_size}")


class Outgoing:
    """A message to send: its frames, and which of them is to be acknowledged next."""

    __slots__ = ("at", "frames", "token")

    def __init__(self, token: int, frames: list[bytes]) -> None:
        self.token = token
        self.frames = frames
        self.at = 0


class Station:
    """What one end of the line knows and can do."""

    def __init__(self, settings: Lis01Settings) -> None:
        self.settings = settings
        self._reader = FrameReader(check=settings.checksum, limit=settings.max_message)
        # The message being received: its frames that are durable
        self._parts: list[bytes] = []
        self._room = settings.max_message  # how many bytes it may still have
        self._record = b""  # its last record, as far as ends_message sees it
        self._boundary = True  # its last record is ended by CR
        self._last: Frame | None = None  # the last frame accepted in this session
        self._doubt = False  # something was refused since the last ACK
        self._gap = False  # a frame number was passed over since
        self._confirmed_at = 0.0  # when the last ACK left
        # The frame in hand, its text as it joins the parts, and what waits for settle
        self._frame = Frame(0, b"", False)
        self._data = b""
        self._kind = ""
        self._token: int | None = None
        self._tokens = 0
        self._flagged = False  # the peer was seen to send what no frame may carry
        self._loose: set[int] = set()  # tokens of oversize transmissions: nothing waits for their answer
        # Sending
        self._queue: deque[Outgoing] = deque()
        self._quiet_until = float("-inf")
        self._tries = 0
        self._noise = False
        self._interrupted = False

    # The session

    def _open_session(self, now: float, events: list[Event]) -> None:
        self._last = None
        self._doubt = self._gap = False
        events.append(_ACK)

    def _restart_session(self, now: float, events: list[Event]) -> None:
        self._abandon("the sender began a new session", events)
        self._open_session(now, events)

    def _refuse_restart(self, now: float, events: list[Event]) -> None:
        self._abandon("the sender began a new session", events)
        self._refuse(now, events)

    def _end_session(self, now: float, events: list[Event]) -> None:
        if self._doubt and not self._parts:
            events.append(Note("warning", "the sender gave up a frame that was refused"))
        self._abandon("the session ended before the message did", events)

    def _leave_session(self, now: float, events: list[Event]) -> None:
        self._abandon("the session ended before its frame was stored", events)

    def _hold_bid(self, now: float, events: list[Event]) -> None:
        self._leave_session(now, events)
        self._reader.put_back(ENQ)

    def _give_up(self, now: float, events: list[Event]) -> None:
        events.append(Note("warning", "no frame or EOT in time: session closed"))
        self._break_off("no frame or EOT in time", events)

    def _close(self, now: float, events: list[Event]) -> None:
        self._break_off("the connection closed", events)
        while self._queue:
            self._fail("the connection closed", events)
        self._reader.strays.report(events)

    def _cut_off(self, now: float, events: list[Event]) -> None:
        self._close(now, events)
        events.append(Close("the peer sends without end"))

    # Frames

    def _pass_up(self, now: float, events: list[Event]) -> None:
        data = self._data
        body = data[:-1] if data.endswith(b"\r") else data
        start = body.rfind(b"\r") + 1
        if start or self._boundary:
            self._record = body[start : start + RECORD_BYTES]
        else:
            self._record = (self._record + body)[:RECORD_BYTES]
        self._tokens = self._token = token = self._tokens + 1
        if self._frame.final and self.settings.ends_message(self._record):
            self._kind = _LAST
            events.append(Received(token, b"".join((*self._parts, data))))
        else:
            self._kind = _PART
            events.append(Part(token, data))

    def _pass_up_whole(self, now: float, events: list[Event]) -> None:
        self._tokens = self._token = self._tokens + 1
        self._kind = _WHOLE
        events.append(Received(self._token, b"".join(self._parts)))

    def _pass_up_before(self, now: float, events: list[Event]) -> None:
        """The message before this frame is whole; the frame waits until that is settled."""
        self._reader.put_back(self._frame)
        self._pass_up_whole(now, events)

    def _wait_again(self, now: float, events: list[Event]) -> None:
        """A frame that is up already, and was refused for want of time, does not go up a second time."""
        if self._kind is _WHOLE:
            self._reader.put_back(self._frame)

    def _absorb(self, now: float, events: list[Event]) -> None:
        """The answer just given is the answer to this repeat, too."""

    def _refuse(self, now: float, events: list[Event]) -> None:
        self._doubt = True
        events.append(_NAK)

    def _refuse_frame(self, now: float, events: list[Event]) -> None:
        self._refuse(now, events)
        events.append(Note("warning", f"frame refused: {self._reader.fault}"))

    def _skip_frame(self, now: float, events: list[Event]) -> None:
        self._reader.skip(Excess(*self._parts))

    def _report_excess(self, now: float, events: list[Event]) -> None:
        self._refuse(now, events)
        self._oversize(self._reader.excess or Excess(*self._parts, self._data), events)

    def _refuse_excess(self, now: float, events: list[Event]) -> None:
        self._reader.excess = None
        self._refuse(now, events)

    # What was settled

    def _confirm(self, now: float, events: list[Event]) -> None:
        """It is durable; a message without end was confirmed frame by frame."""
        whole = self._kind is _WHOLE
        self._keep(now, events)
        if not whole:
            self._confirm_again(now, events)

    def _confirm_again(self, now: float, events: list[Event]) -> None:
        self._doubt = self._gap = False
        self._confirmed_at = now
        events.append(_ACK)

    def _keep(self, now: float, events: list[Event]) -> None:
        kind, self._kind = self._kind, ""
        if kind is _DETACHED:
            return
        if kind is _PART:
            data = self._data
            self._parts.append(data)
            self._room -= len(data)
            if data:
                self._boundary = data.endswith(b"\r")
        else:
            self._clear()
        if kind is not _WHOLE:
            self._last = self._frame

    def _reject(self, now: float, events: list[Event]) -> None:
        if self._kind is not _WHOLE:
            self._refuse(now, events)
        self._let_go(now, events)

    def _let_go(self, now: float, events: list[Event]) -> None:
        """It is not stored: a frame comes again, a message whose frames are confirmed does not."""
        kind, self._kind = self._kind, ""
        if kind is _WHOLE:
            self._abandon("the message could not be stored", events)

    def _lose(self, now: float, events: list[Event]) -> None:
        """It is not stored, and its session is over: what of it was confirmed will not come again."""
        kind, self._kind = self._kind, ""
        if kind is not _DETACHED:
            self._abandon("the message could not be stored", events)

    def _refuse_late(self, now: float, events: list[Event]) -> None:
        self._reader.put_back(None)
        self._refuse(now, events)
        assert self._token is not None
        events.append(Overdue(self._token))

    # The end of a message

    def _abandon(self, why: str, events: list[Event]) -> None:
        """The session leaves its message; what is up as a whole message is for ``settle`` to decide."""
        if self._kind is _PART:
            self._kind = _DETACHED
        elif self._kind or not self._parts:
            return
        events.append(Abandoned(why))
        self._clear()

    def _break_off(self, why: str, events: list[Event]) -> None:
        if self._reader.excess:
            self._oversize(self._reader.excess, events)
        self._reader.drop()
        self._abandon(why, events)

    def _oversize(self, excess: Excess, events: list[Event]) -> None:
        self._tokens += 1
        self._loose.add(self._tokens)
        events.append(excess.event(self._tokens))
        self._reader.excess = None
        self._clear()

    def _clear(self) -> None:
        self._parts.clear()
        self._boundary = True
        self._room = self.settings.max_message

    # Sending

    def _bid(self, now: float, events: list[Event]) -> None:
        events.append(_ENQ)

    def _begin(self, now: float, events: list[Event]) -> None:
        self._tries = 0
        self._transmit(now, events)

    def _advance(self, now: float, events: list[Event]) -> None:
        self._queue[0].at += 1
        self._begin(now, events)

    def _transmit(self, now: float, events: list[Event]) -> None:
        self._reader.drop()  # what came before the frame left cannot answer it
        outgoing = self._queue[0]
        events.append(Write(outgoing.frames[outgoing.at]))

    def _complete(self, now: float, events: list[Event]) -> None:
        events += (_EOT, Sent(self._queue.popleft().token))
        self._tries = 0
        if self._interrupted:
            self._interrupted = False
            self._quiet_until = now + self.settings.interrupt_time

    def _hold_off(self, now: float, events: list[Event]) -> None:
        self._quiet_until = now + self.settings.busy_time

    def _yield_line(self, now: float, events: list[Event]) -> None:
        events.append(Note("info", "contention: both sides bid for the line"))

    def _end_contention(self, now: float, events: list[Event]) -> None:
        """The line is free again."""

    def _yield_session(self, now: float, events: list[Event]) -> None:
        self._fail("the peer began a session of its own", events)
        self._open_session(now, events)

    def _fail_busy(self, now: float, events: list[Event]) -> None:
        self._hold_off(now, events)
        self._fail("the peer is busy", events)

    def _fail_refused(self, now: float, events: list[Event]) -> None:
        events.append(_EOT)
        self._fail("the peer refused a frame too often", events)

    def _fail_unanswered(self, now: float, events: list[Event]) -> None:
        events.append(_EOT)
        self._fail("no reply in time", events)

    def _fail(self, reason: str, events: list[Event]) -> None:
        events.append(Failed(self._queue.popleft().token, reason))
        self._tries = 0
        self._interrupted = False
