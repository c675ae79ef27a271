"""The LIS01-A2 (ASTM E1381) data link, host or instrument, sans-IO.

Bytes and the present time come in; events go out. What may happen when is the table in ``lis01_table``, with the theory
of operation; ``lis01_frames`` finds and cuts the frames. Here every input is named, looked up, and acted upon. One
Lis01Link is one connection: after ``closed`` make a new one.
"""

from collections import deque
from collections.abc import Callable
from typing import Literal

import msgspec

from labbridge.wire import lis01_table as table
from labbridge.wire.events import Abandoned, Answer, Event, Failed, LocalProtocolError, Note, Overdue, Part, Received, Sent, Write
from labbridge.wire.excess import FLOODED, Excess
from labbridge.wire.lis01_frames import FRAME_LIMIT, Frame, FrameReader, begins_record, cut, has_forbidden, is_terminator
from labbridge.wire.lis01_table import ACK, BAD, BIDDING, CLOSED, ENQ, EOT, IDLE, NAK, NOISE, RECEIVING, SENDING, SETTLING, TOO_LONG

RECORD_BYTES = 256  # how much of the last record ends_message is shown

_ACK, _NAK, _ENQ, _EOT = Write(b"\x06"), Write(b"\x15"), Write(b"\x05"), Write(b"\x04")

# What is up and waits for settle: a frame, the frame that ends its message, a message all acknowledged, one too large.
_PART, _LAST, _WHOLE, _OVERSIZE = "part", "last", "whole", "oversize"


class Lis01Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How one connection speaks; times in seconds, defaults those of LIS01-A2."""

    role: Literal["host", "instrument"] = "host"
    frame_size: int = 240  # text characters per frame sent, 1 to 63,993
    checksum: bool = True  # sent and demanded
    numbered: bool = True  # frame numbers must follow each other; some analyzers number as they please
    refusals: int = 6  # of one frame, before the message fails
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


class Lis01Link:
    """One station of a LIS01-A2 line; ``deadline`` says when to call ``tick`` next, or is None."""

    def __init__(self, settings: Lis01Settings) -> None:
        self.settings = settings
        self.deadline: float | None = None
        self._state = IDLE
        self._paused = False
        self._timers = {state: getattr(settings, name) for state, name in table.TIMERS.items()}
        self._reader = FrameReader(check=settings.checksum, limit=settings.max_message)
        # The session, and the message being received: its frames that are durable
        self._last: Frame | None = None  # the last frame accepted in this session
        self._doubt = False  # something was refused since the last ACK
        self._refusing = False  # this session's message was too large
        self._confirmed_at = 0.0  # when the last ACK left
        self._parts: list[bytes] = []
        self._room = settings.max_message  # how many bytes it may still have
        self._open = b""  # its last record, if not ended yet, as far as ends_message sees it
        # What is up: the frame in hand, its text as it joins the parts, and what waits for settle
        self._frame = Frame(0, b"", False)
        self._data = self._record = b""
        self._up = ""
        self._token: int | None = None
        self._tokens = 0
        self._late = False  # the link has refused it, for want of time
        self._flagged = False  # the peer was seen to send what no frame may carry
        # Sending
        self._queue: deque[tuple[int, deque[bytes]]] = deque()  # tokens, and their frames not yet acknowledged
        self._quiet_until = self._yielded_until = float("-inf")
        self._tries = 0
        self._noise = self._interrupted = False

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, in any segmentation; never raises on them."""
        events: list[Event] = []
        if self._state is not CLOSED:
            self._reader.feed(data)
        if self._state is SETTLING:
            if len(self._reader) > self.settings.max_message:
                self._step(TOO_LONG, now, events)
            elif (self._late or self.deadline is None) and data.strip(b"\r\n\x04"):
                self._start_timer(now)  # the peer awaits a reply again
        else:
            self._read(now, events)
            if self._state is RECEIVING and self._reader:
                self._start_timer(now)
        return self._finish(now, events)

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        """Take the store's answer to a Part, Received or Oversize.

        Raises LocalProtocolError for a token that does not wait, and for replies: LIS01 has none, they are sent.
        """
        if answer.replies:
            raise LocalProtocolError("LIS01 carries no replies: send them")
        if token != self._token:
            raise LocalProtocolError(f"token {token} does not wait to be settled")
        events: list[Event] = []
        self._token = None
        self._step(table.ACCEPTED if answer.accepted else table.REJECTED, now, events)
        self._late = False
        self._read(now, events)
        return self._finish(now, events)

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Queue a message, its records separated by CR; Sent or Failed will say the outcome.

        Raises LocalProtocolError for a payload that frames cannot carry (LIS01-A2: no control character but CR).
        """
        frames = cut(payload, self.settings.frame_size, check=self.settings.checksum)
        if self._state is CLOSED:
            return [Failed(token, "the connection closed")]
        self._queue.append((token, deque(frames)))
        return self._finish(now, [])

    def tick(self, now: float) -> list[Event]:
        """Let time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        if self.deadline is not None and now >= self.deadline:
            self._step(table.TIMER, now, events)
            self._finish(now, events)
        return events

    def closed(self, now: float) -> list[Event]:
        """Say that the connection is gone; only ``settle`` has a meaning after it."""
        events: list[Event] = []
        self._step(table.GONE, now, events)
        return events

    def pause(self) -> list[Event]:
        """Refuse new sessions (NAK to ENQ) until ``resume``; one that is open goes on."""
        self._paused = True
        return []

    def resume(self) -> list[Event]:
        """Accept sessions again."""
        self._paused = False
        return []

    # What an input is, and what it leads to

    def _read(self, now: float, events: list[Event]) -> None:
        """Take what is unread, as far as nothing waits to be settled."""
        while (state := self._state) is not SETTLING and state is not CLOSED:
            item = self._reader.next(state is RECEIVING)
            self._reader.strays.note(events)
            if item is None:
                break
            self._step(self._judge(item, events) if isinstance(item, Frame) else self._interpret(item, now), now, events)

    def _step(self, item: str, now: float, events: list[Event]) -> None:
        row = table.TRANSITIONS[self._state].get(item)
        if row is not None:  # else nothing waits for it
            action, self._state = row
            self._start_timer(now)
            getattr(self, f"_{action}")(now, events)

    def _start_timer(self, now: float) -> None:
        seconds = self._timers.get(self._state)
        self.deadline = None if seconds is None else now + seconds

    def _finish(self, now: float, events: list[Event]) -> list[Event]:
        """With the line idle, bid for it if there is something to send."""
        if self._state is IDLE and self._queue:
            quiet_until = max(self._quiet_until, self._yielded_until)
            if now >= quiet_until:
                self._step(table.BID, now, events)
            else:
                self.deadline = quiet_until
        return events

    def _interpret(self, item: str, now: float) -> str:
        """The input that a control character, noise, or a bad frame is in this state."""
        if self._state is SENDING:
            noise, self._noise = self._noise, item is NOISE
            if item is ACK or item is EOT:
                self._interrupted |= item is EOT
                return ACK if len(self._queue[0][1]) > 1 else table.ACK_LAST
            if item is NAK or (item is NOISE and not noise):  # a burst of noise counts once
                self._tries += 1
                return table.REFUSED if self._tries >= self.settings.refusals else NAK
        elif item is ENQ and self._paused and self._state is not BIDDING:
            return table.ENQ_BUSY
        elif item is EOT and self._parts and self._last and self._last.final and not self._doubt:
            prompt = max(1.0, self.settings.reply_time - (self.settings.answer_time or 0.0))
            if now - self._confirmed_at < prompt:
                return table.EOT_WHOLE
        return item

    def _judge(self, frame: Frame, events: list[Event]) -> str:
        """The input that a good frame is, by its number and by what came before it."""
        last, data = self._last, frame.text
        if self._refusing:
            self._reader.fault = "too large"
            return BAD
        if frame.number != (1 if last is None else last.number + 1 & 7):
            if frame == last:
                return table.REPEAT
            if self.settings.numbered:
                if last is None or self._doubt or frame.number != last.number:
                    self._reader.refuse_number(frame)
                    return BAD
                events.append(Note("warning", "frame number used twice for different frames: both kept"))
        if not self._flagged and has_forbidden(data):
            self._flagged = True
            events.append(Note("warning", "frames with control characters that the standard forbids"))
        self._frame, self._data = frame, data
        if self._parts and last:
            ended = not self._open
            if not ended and last.final and begins_record(data, self._parts[0][1:2]):
                ended, self._data = True, b"\r" + data  # the frame before ended its record without the CR
            if ended and data[:1] in (b"H", b"h") and not data[1:2].isalnum():
                return table.HEADER
        return table.FRAME if len(data) <= self._room else table.EXCESS

    # The session

    def _open_session(self, now: float, events: list[Event]) -> None:
        self._abandon("the sender began a new session", events)
        self._last = None
        self._doubt = self._refusing = False
        self._yielded_until = float("-inf")
        self._reply(_ACK, events)

    def _refuse_session(self, now: float, events: list[Event]) -> None:
        self._abandon("the sender began a new session", events)
        self._reply(_NAK, events)

    def _end_session(self, now: float, events: list[Event]) -> None:
        self._abandon("the session ended before the message did", events)

    def _give_up(self, now: float, events: list[Event]) -> None:
        events.append(Note("warning", "no frame or EOT in time: session closed"))
        self._reader.drop()
        self._abandon("no frame or EOT in time", events)

    def _close(self, now: float, events: list[Event]) -> None:
        self._reader.drop()
        if self._token is None or self._up is _PART:  # else it is for settle to decide
            self._abandon("the connection closed", events)
        while self._queue:
            events.append(Failed(self._dequeue(), "the connection closed"))
        self._reader.strays.report(events)

    def _cut_off(self, now: float, events: list[Event]) -> None:
        if self._token is None:
            self._pass_up_excess(now, events, self._reader.spill(Excess(*self._parts)))
        self._close(now, events)
        events.append(FLOODED)

    def _reply(self, reply: Write, events: list[Event]) -> None:
        """Answer the peer, unless it has bid since: it would take this for the answer to its bid."""
        if not self._reader.ends_with_bid():
            events.append(reply)

    def _acknowledge(self, now: float, events: list[Event]) -> None:
        self._reader.strays.accept(self._last)
        if self._owes_reply():
            self._doubt = False
            self._confirmed_at = now
            self._reply(_ACK, events)

    def _refuse(self, events: list[Event]) -> None:
        self._doubt = True
        self._reply(_NAK, events)

    def _refuse_frame(self, now: float, events: list[Event]) -> None:
        self._refuse(events)
        events.append(Note("warning", f"frame refused: {self._reader.fault}"))

    def _abandon(self, why: str, events: list[Event]) -> None:
        if broken := bool(self._parts) or (self._token is not None and self._up is _PART):
            events.append(Abandoned(why))
        self._reader.strays.end(well=not broken and not self._refusing)
        self._clear()

    def _clear(self) -> None:
        self._parts.clear()
        self._open = b""
        self._room = self.settings.max_message

    # What goes up, and what was settled

    def _new_token(self, up: str) -> int:
        self._up = up
        self._tokens = self._token = token = self._tokens + 1
        return token

    def _pass_up(self, now: float, events: list[Event]) -> None:
        data = self._data
        body = data.removesuffix(b"\r")
        start = body.rfind(b"\r") + 1
        self._record = ((b"" if start else self._open) + body[start : start + RECORD_BYTES])[:RECORD_BYTES]
        if self._frame.final and self.settings.ends_message(self._record):
            events.append(Received(self._new_token(_LAST), b"".join((*self._parts, data))))
        else:
            events.append(Part(self._new_token(_PART), data))

    def _pass_up_before(self, now: float, events: list[Event]) -> None:
        """The message before this frame is whole; the frame waits until that is settled."""
        self._reader.put_back(self._frame)
        events.append(Received(self._new_token(_WHOLE), b"".join(self._parts)))

    def _pass_up_ended(self, now: float, events: list[Event]) -> None:
        self._pass_up_before(now, events)
        self._reader.put_back(EOT)
        self.deadline = None  # the peer awaits nothing

    def _pass_up_excess(self, now: float, events: list[Event], excess: Excess | None = None) -> None:
        events.append((excess or Excess(*self._parts, self._data)).event(self._new_token(_OVERSIZE)))
        self._clear()
        self._refusing = True

    def _keep(self, now: float, events: list[Event]) -> None:
        """It is durable."""
        if self._up is _OVERSIZE:
            self._reject(now, events)
            return
        if self._up is _PART:
            self._parts.append(self._data)
            self._room -= len(self._data)
            self._open = b"" if self._data.endswith(b"\r") else self._record
        else:
            self._clear()
        if self._up is not _WHOLE:
            self._last = self._frame
            self._acknowledge(now, events)

    def _reject(self, now: float, events: list[Event]) -> None:
        """It is not stored: a frame comes again, a message whose frames are confirmed does not."""
        if self._up is _WHOLE:
            self._lose(now, events)
        elif self._owes_reply():
            self._refuse(events)

    def _lose(self, now: float, events: list[Event]) -> None:
        self._abandon("the message could not be stored", events)

    def _refuse_late(self, now: float, events: list[Event]) -> None:
        self._reader.take()  # refused as well: it comes again
        self._refuse(events)
        self._late = True
        self.deadline = None  # until the peer sends again
        events.append(Overdue(self._tokens))

    def _owes_reply(self) -> bool:
        """Whether the frame awaits its reply: not when it was refused meanwhile, or has come again, which gets one."""
        following = self._reader.next(True)
        self._reader.put_back(following)
        return following != self._frame and not self._late

    # Sending

    def _bid(self, now: float, events: list[Event]) -> None:
        events.append(_ENQ)

    def _transmit(self, now: float, events: list[Event]) -> None:
        self._reader.drop()  # what came before the frame left cannot answer it
        events.append(Write(self._queue[0][1][0]))

    def _advance(self, now: float, events: list[Event]) -> None:
        self._queue[0][1].popleft()
        self._tries = 0
        self._transmit(now, events)

    def _complete(self, now: float, events: list[Event]) -> None:
        if self._interrupted:
            self._quiet_until = now + self.settings.interrupt_time
        events += (_EOT, Sent(self._dequeue()))

    def _hold_off(self, now: float, events: list[Event]) -> None:
        self._quiet_until = now + self.settings.busy_time

    def _yield_line(self, now: float, events: list[Event]) -> None:
        events.append(Note("info", "contention: both sides bid for the line"))
        seconds = self.settings.contention_time
        self._yielded_until = now + ((20.0 if self.settings.role == "host" else 1.0) if seconds is None else seconds)

    def _yield_session(self, now: float, events: list[Event]) -> None:
        events.append(Failed(self._dequeue(), "the peer began a session of its own"))
        self._open_session(now, events)

    def _fail(self, now: float, events: list[Event]) -> None:
        refused = self._tries >= self.settings.refusals
        events += (_EOT, Failed(self._dequeue(), "the peer refused a frame too often" if refused else "no reply in time"))

    def _dequeue(self) -> int:
        self._tries = 0
        self._interrupted = False
        return self._queue.popleft()[0]
