"""The LIS01-A2 (ASTM E1381) data link, host or instrument, sans-IO.

Bytes and the present time come in; events go out. What may happen when is the table in ``lis01_table``, with the theory
of operation; what is then done is in ``lis01_station``; ``lis01_frames`` finds and cuts the frames. Here every input is
named and looked up. One Lis01Link is one connection: after ``closed`` make a new one.
"""

from labbridge.wire import lis01_table as table
from labbridge.wire.events import Answer, Event, Failed, LocalProtocolError, Note
from labbridge.wire.lis01_frames import ACK, BAD, ENQ, EOT, FLOOD, NAK, NOISE, Frame, begins_record, cut, has_forbidden
from labbridge.wire.lis01_station import Lis01Settings, Outgoing, Station
from labbridge.wire.lis01_table import BIDDING, CLOSED, ENQ_BUSY, FRAMED, HOLDING, IDLE, LATE, RECEIVING, SENDING

__all__ = ["Lis01Link", "Lis01Settings"]


class Lis01Link(Station):
    """One station of a LIS01-A2 line; ``deadline`` says when to call ``tick`` next, or is None."""

    def __init__(self, settings: Lis01Settings) -> None:
        super().__init__(settings)
        self.deadline: float | None = None
        self._state = IDLE
        self._paused = False
        self._timers = {state: getattr(settings, name) for state, name in table.TIMERS.items()}
        if settings.contention_time is None:
            self._timers[table.CONTENTION] = 20.0 if settings.role == "host" else 1.0
        self._prompt = max(1.0, settings.reply_time - (settings.answer_time or 0.0))

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, in any segmentation; never raises on them."""
        if self._state in HOLDING:
            return self._hold(data, now)
        events: list[Event] = []
        reader = self._reader
        reader.feed(data)
        self._read(now, events)
        if self._state in FRAMED and reader.unfinished():
            self.deadline = now + self.settings.receive_time
        return self._finish(now, events)

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        """Take the store's answer to a Part, Received or Oversize.

        Raises LocalProtocolError for a token that does not wait, and for replies: LIS01 has none, they are sent.
        """
        if answer.replies:
            raise LocalProtocolError("LIS01 carries no replies: send them")
        events: list[Event] = []
        if token != self._token:
            if token not in self._loose:
                raise LocalProtocolError(f"token {token} does not wait to be settled")
            self._loose.discard(token)
            return events
        self._token = None
        self._step(table.ACCEPTED if answer.accepted else table.REJECTED, now, events)
        self._read(now, events, held=True)
        return self._finish(now, events)

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Queue a message, its records separated by CR; Sent or Failed will say the outcome.

        Raises LocalProtocolError for a payload that frames cannot carry (LIS01-A2: no control character but CR).
        """
        frames = cut(payload, self.settings.frame_size, check=self.settings.checksum)
        if self._state is CLOSED:
            return [Failed(token, "the connection closed")]
        self._queue.append(Outgoing(token, frames))
        return self._finish(now, [])

    def tick(self, now: float) -> list[Event]:
        """Let time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        if self.deadline is not None and now >= self.deadline:
            if self._state is not IDLE:
                self._step(table.TIMER, now, events)
                self._read(now, events)
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

    def _hold(self, data: bytes, now: float) -> list[Event]:
        """What comes before the answer that is owed waits for it, except a bid: then the sender has started afresh."""
        events: list[Event] = []
        if self._state is CLOSED:
            return events
        reader = self._reader
        if reader.begins_afresh(data):
            reader.drop()
            self._step(ENQ, now, events)
        else:
            reader.feed(data)
            if len(reader) > self.settings.max_message:
                self._step(FLOOD, now, events)
        return events

    def _read(self, now: float, events: list[Event], *, held: bool = False) -> None:
        """Take what is unread; ``held``: it arrived before the answer that was just given."""
        reader = self._reader
        while (state := self._state) not in HOLDING:
            item = reader.next(state in FRAMED)
            reader.strays.note(events)
            if item is None:
                break
            if isinstance(item, Frame):
                self._step(self._judge(item, held, events), now, events)
            else:
                self._step(self._interpret(item, now), now, events)

    def _step(self, item: str, now: float, events: list[Event]) -> None:
        row = _TABLE[self._state].get(item)
        if row is None:
            return  # nothing waits for it: ignored
        action, state = row
        self._state = state
        seconds = self._timers.get(state)
        self.deadline = None if seconds is None else now + seconds
        action(self, now, events)

    def _finish(self, now: float, events: list[Event]) -> list[Event]:
        """With the line idle and nothing unread, bid for it if there is something to send."""
        if self._state is IDLE and self._queue:
            if now >= self._quiet_until:
                self._step(table.BID, now, events)
            else:
                self.deadline = self._quiet_until
        return events

    def _interpret(self, item: str, now: float) -> str:
        """The input that a control character, or noise, is in this state."""
        state = self._state
        if state is SENDING or state is BIDDING:
            return self._interpret_reply(item)
        if item is ENQ and self._paused and ENQ_BUSY in _TABLE[state]:
            return ENQ_BUSY
        if item is EOT and state is RECEIVING and self._parts and not self._doubt:
            assert self._last is not None
            if self._last.final and now - self._confirmed_at < self._prompt:
                return table.EOT_WHOLE
        return item

    def _interpret_reply(self, item: str) -> str:
        """The input that something is which may be a reply to what we sent."""
        sending = self._state is SENDING
        noise, self._noise = self._noise, item is NOISE
        if item is NAK or (item is NOISE and sending and not noise):  # a burst of noise counts once
            self._tries += 1
            return table.REFUSED if self._tries >= self.settings.refusals else NAK
        if sending and (item is ACK or item is EOT):
            self._interrupted |= item is EOT
            outgoing = self._queue[0]
            return table.ACK_LAST if outgoing.at + 1 == len(outgoing.frames) else ACK
        return item

    def _judge(self, frame: Frame, held: bool, events: list[Event]) -> str:
        """The input that a good frame is, by its number and by what came before it."""
        if self._state is LATE and frame == self._frame:
            return table.OWED
        if self._state is not RECEIVING:
            self._reader.fault = "not expected now"
            return BAD
        last = self._last
        if frame.number != (1 if last is None else last.number + 1 & 7):
            if last is not None and frame == last:
                return table.REPEAT_HELD if held else table.REPEAT
            if self.settings.numbered:
                if last is None or self._gap or frame.number != last.number:
                    self._gap = True
                    self._reader.fault = "frame number out of order"
                    return BAD
                events.append(Note("warning", "frame number used twice for different frames: both kept"))
        self._frame = frame
        self._data = data = frame.text
        if not self._flagged and has_forbidden(data):
            self._flagged = True
            events.append(Note("warning", "frames with control characters that the standard forbids"))
        if self._parts and last is not None:
            boundary = self._boundary
            if not boundary and last.final and begins_record(data, self._parts[0][1:2]):
                self._data = b"\r" + data  # the frame before ended its record without the CR
                boundary = True
            if boundary and data[:1] in (b"H", b"h") and not data[1:2].isalnum():
                return table.HEADER
        return table.FRAME if len(data) <= self._room else table.EXCESS


_TABLE = {
    state: {item: (getattr(Lis01Link, f"_{action}"), target) for item, (action, target) in rows.items()}
    for state, rows in table.TRANSITIONS.items()
}
