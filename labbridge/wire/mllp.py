"""MLLP (HL7's minimal lower layer protocol), release 1 and 2, both directions, sans-IO. Theory of operation.

A block is SB (0x0B), data, EB (0x1C), CR. Bytes and the present time come in, events go out; one MllpLink is one
connection.

Reading. TRANSITIONS is the reader's table: TRANSITIONS[state][input] = (action, next state). What is forgiven:

- EB followed by SB: the CR is missing, the block has ended. EB followed by anything else is data.
- SB before "MSH" inside a block: the block has no EB. If it does not end with CR or LF, or when this peer has ended a
  block with EB before, it broke off, and comes up as a Part that is Abandoned. Else the next block tells, and this one
  waits for it: with EB, it broke off; without, the peer is of those that leave EB out, and both are whole (of two that
  begin alike the longer: the other was begun anew).
- Nothing more for ``silence_time``, or the close, after an EB without CR, or after a line end when this peer has left EB
  out before: the block is whole. (Such a peer may wait for its answer; its message must not wait.)
- CR, LF and EB between blocks. Other bytes between blocks are Stray.

A block beyond ``max_message`` is kept as its first 64 KiB, length and SHA-256, and comes up as Oversize when it ends; at
four times the limit at once, with Close.

Answering. Whatever comes up under a token takes a place in the line of answers, and answers leave in that order, whatever
the order in which they are settled. A token that is not settled within ``answer_time`` is Overdue: the link answers in
its place (``refusal``; in release 2 the negative commit acknowledgement), and the place is given up. The token lives on:
the same bytes, come again before it is settled, are not a new message but a new place for the old token.

Sending. Release 1: written is Sent; the peer's answer is a Received like any other. Release 2: one message at a time is
out until the peer's commit acknowledgement; Failed when that is negative. When it does not come, the link asks to be
closed: a late one could be taken for the next message's.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from labbridge.wire.events import (
    Abandoned,
    Answer,
    Close,
    Event,
    Failed,
    LocalProtocolError,
    Note,
    Overdue,
    Oversize,
    Part,
    Received,
    Sent,
    Write,
)
from labbridge.wire.excess import FLOODED, Excess
from labbridge.wire.mllp_blocks import CR, EB, END, RESTART, SB, START, BlockReader, block

COMMIT_ACK, COMMIT_NAK = b"\x06", b"\x15"  # the whole data of a commit acknowledgement (release 2)

# States of the reader, and what it meets besides what the block reader finds
OUTSIDE, INSIDE, CLOSED = "outside a block", "inside a block", "closed"
FLOOD = "four times max_message"
SILENCE = "silence after a likely end"
GONE = "connection closed"

TRANSITIONS: dict[str, dict[str, tuple[str, str]]] = {
    OUTSIDE: {START: ("begin", INSIDE), GONE: ("close", CLOSED)},
    INSIDE: {
        END: ("deliver", OUTSIDE),
        RESTART: ("break_off", INSIDE),
        SILENCE: ("take_rest", OUTSIDE),
        FLOOD: ("cut_off", CLOSED),
        GONE: ("close", CLOSED),
    },
    CLOSED: {},
}

FLOOD_FACTOR = 4  # a block that grows beyond this many times max_message is cut off
_LINE_ENDS = (b"\r", b"\n")
_NEVER = float("inf")


def transitions() -> Iterator[tuple[str, str, str, str]]:
    """Every row of the reader's table: state, input, action, next state, for the documentation's diagram."""
    for state, rows in TRANSITIONS.items():
        for item, (action, target) in rows.items():
            yield state, item, action, target


class MllpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one connection speaks; times in seconds."""

    release: Literal[1, 2] = 1
    max_message: int = 16 * 1024 * 1024  # bytes
    answer_time: float | None = 10.0  # the store's time to settle; None: no limit
    refusal: Callable[[bytes], bytes] | None = None  # makes the AE for what was not settled in time; None: no answer
    reply_time: float = 30.0  # release 2: we wait for the peer's commit acknowledgement
    silence_time: float = 3.0  # after a likely end of block


class _Place(msgspec.Struct):
    """A place in the line of answers: what the refusal is made from, and what tells that it comes again."""

    token: int
    payload: bytes
    key: bytes
    deadline: float
    answer: Answer | None = None


class MllpLink:
    """One MLLP connection."""

    def __init__(self, settings: MllpSettings) -> None:
        self.settings = settings
        self._answer_time = _NEVER if settings.answer_time is None else settings.answer_time
        # Reading
        self._state = OUTSIDE
        self._reader = BlockReader()
        self._excess: Excess | None = None  # the beginning of a block beyond max_message
        self._omits_eb = False  # this peer has left out the end of a block
        self._sends_eb = False  # it has sent it
        self._doubtful = b""  # the first block without EB, until the next one ends
        self._silent_at = _NEVER
        # Answering
        self._tokens = 0
        self._line: deque[_Place] = deque()  # the first is not settled, and the first to be overdue
        self._live: dict[int, list[_Place]] = {}  # tokens not settled, and their places in the line
        self._late: dict[bytes, int] = {}  # those overdue, by the key of their places
        # Sending, release 2
        self._queue: deque[tuple[int, bytes]] = deque()  # the first is out
        self._reply_at = _NEVER

    @property
    def deadline(self) -> float | None:
        """When to call ``tick`` next, or None."""
        first = min(self._due(), self._silent_at, self._reply_at)
        return None if first == _NEVER else first

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, in any segmentation; never raises on them."""
        events: list[Event] = []
        if self._state is OUTSIDE and self._is_one_block(data):  # nearly always
            self._sends_eb = True
            self._take_message(data[1:-2], now, events)
        elif self._state is not CLOSED:
            self._reader.feed(data)
            self._read(now, events)
        return events

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        """Take the store's answer to a Received or Oversize (or to a Part, without effect), and its replies.

        In release 1 a token that is settled without replies is not answered at all. Raises LocalProtocolError for a
        token that does not wait.
        """
        places = self._live.pop(token, None)
        if places is None:
            raise LocalProtocolError(f"token {token} does not wait to be settled")
        for place in places:
            place.answer = answer
        self._late = {key: late for key, late in self._late.items() if late != token}
        events: list[Event] = []
        self._answer(events)
        return events

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Send a message. Raises LocalProtocolError when it is empty or holds SB or EB, which no block may carry."""
        if not payload or SB in payload or EB in payload:
            raise LocalProtocolError("the payload is empty or holds a block character")
        if self._state is CLOSED:
            return [Failed(token, "the connection closed")]
        if self.settings.release == 1:
            return [Write(block(payload)), Sent(token)]
        events: list[Event] = []
        self._queue.append((token, payload))
        if len(self._queue) == 1:
            self._send_next(now, events)
        return events

    def tick(self, now: float) -> list[Event]:
        """Let time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        while self._due() <= now:
            self._expire(events)
        if self._silent_at <= now:
            self._silent_at = _NEVER
            self._step(SILENCE, now, events)
        if self._reply_at <= now:
            events.append(Failed(self._queue.popleft()[0], "no commit acknowledgement in time"))
            self._step(GONE, now, events)
            events.append(Close("no commit acknowledgement in time"))
        return events

    def closed(self, now: float) -> list[Event]:
        """Say that the connection is gone; only ``settle`` may follow, without effect."""
        events: list[Event] = []
        if self._state is not CLOSED:
            self._step(GONE, now, events)
        return events

    def pause(self) -> list[Event]:
        """The adapter stops reading: MLLP has no word for busy."""
        return []

    def resume(self) -> list[Event]:
        """The adapter reads again."""
        return []

    # Reading

    def _is_one_block(self, data: bytes) -> bool:
        return data.find(EB) == len(data) - 2 <= self.settings.max_message and data.rfind(SB) == 0 and data[-1] == CR

    def _read(self, now: float, events: list[Event]) -> None:
        while self._reader and (item := self._next()) is not None:
            self._step(item, now, events)
        self._reader.strays.note(events)
        likely = self._state is INSIDE and self._reader.has_likely_end(self._omits_eb or bool(self._doubtful))
        self._silent_at = now + self.settings.silence_time if likely else _NEVER

    def _next(self) -> str | None:
        """What the stream brings next, or None when more bytes are needed."""
        reader, limit = self._reader, self.settings.max_message
        if self._state is OUTSIDE:
            return reader.find_start()
        item = reader.find_end()
        if item is None and (self._excess or len(reader) > limit):
            self._excess = self._excess or Excess()
            reader.pass_by(self._excess)
            return FLOOD if self._excess.length > FLOOD_FACTOR * limit else None
        return item

    def _step(self, item: str, now: float, events: list[Event]) -> None:
        action, self._state = TRANSITIONS[self._state][item]
        getattr(self, f"_{action}")(now, events)

    def _begin(self, now: float, events: list[Event]) -> None:
        self._reader.strays.note(events)

    def _deliver(self, now: float, events: list[Event]) -> None:
        self._sends_eb = True
        self._decide(False, b"", now, events)
        self._take_message(self._reader.take(), now, events)

    def _break_off(self, now: float, events: list[Event]) -> None:
        data = self._reader.take()
        likely = data.endswith(_LINE_ENDS)
        if likely and not (self._omits_eb or self._sends_eb or self._doubtful or self._excess):
            self._doubtful = data
            return
        self._decide(likely, data, now, events)
        self._take_unended(data, likely and self._omits_eb, "a new block began inside it", now, events)

    def _take_rest(self, now: float, events: list[Event]) -> None:
        whole, data = self._reader.has_likely_end(self._omits_eb or bool(self._doubtful)), self._reader.take_all()
        self._decide(whole and not data.rstrip(b"\r\n").endswith(b"\x1c"), data, now, events)
        self._take_unended(data, whole, "the connection closed inside a block", now, events)

    def _decide(self, bare: bool, following: bytes, now: float, events: list[Event]) -> None:
        """Say what the doubtful block was, now that the next has ended, ``bare`` as well or not."""
        data, self._doubtful = self._doubtful, b""
        if data:
            if bare:
                self._omits_eb = True
                events.append(Note("warning", "blocks without their end"))
            excess, self._excess = self._excess, None
            anew = following != data and following.startswith(data)
            self._take_unended(data, bare and not anew, "a new block began inside it", now, events)
            self._excess = excess

    def _cut_off(self, now: float, events: list[Event]) -> None:
        self._close(now, events)
        events.append(FLOODED)

    def _close(self, now: float, events: list[Event]) -> None:
        self._take_rest(now, events)
        self._line.clear()
        self._silent_at = self._reply_at = _NEVER
        events += [Failed(token, "the connection closed") for token, _ in self._queue]
        self._queue.clear()
        self._reader.strays.report(events)

    def _take_unended(self, data: bytes, whole: bool, why: str, now: float, events: list[Event]) -> None:
        """A block that lacks only its CR is whole; one that lacks EB as well if so said, else it is incomplete."""
        bare = data.rstrip(b"\r\n")
        if bare.endswith(b"\x1c"):
            self._take_message(bare[:-1], now, events)
        elif whole or self._excess or len(data) > self.settings.max_message:
            self._take_message(data, now, events)
        elif data:
            self._tokens += 1
            self._live[self._tokens] = []
            events += (Part(self._tokens, data), Abandoned(why))

    def _take_message(self, data: bytes, now: float, events: list[Event]) -> None:
        """The data of a whole block, or the last of it when it began with ``_excess``."""
        excess, self._excess = self._excess, None
        if excess or len(data) > self.settings.max_message:
            excess = excess or Excess()
            excess.add(data)
            event = excess.event(self._tokens + 1)
            self._stand(event, event.head, event.digest, now, events)
        elif self.settings.release == 2 and data in (COMMIT_ACK, COMMIT_NAK):
            self._committed(data == COMMIT_ACK, now, events)
        elif data:
            self._stand(Received(self._tokens + 1, data), data, data, now, events)

    # Answering

    def _stand(self, event: Received | Oversize, payload: bytes, key: bytes, now: float, events: list[Event]) -> None:
        """Take a place in the line: for a new token, or for the overdue one of the same key."""
        token = self._late.get(key, event.token) if self._late else event.token
        if token == event.token:
            self._tokens = token
            self._live[token] = []
            events.append(event)
        place = _Place(token, payload, key, now + self._answer_time)
        self._live[token].append(place)
        self._line.append(place)

    def _due(self) -> float:
        return self._line[0].deadline if self._line else _NEVER

    def _answer(self, events: list[Event]) -> None:
        """Write what is settled at the head of the line."""
        line, data = self._line, []
        while line and (answer := line[0].answer) is not None:
            line.popleft()
            if self.settings.release == 2:
                data.append(block(COMMIT_ACK if answer.accepted else COMMIT_NAK))
            data += map(block, answer.replies)
        if data:
            events.append(Write(b"".join(data)))

    def _expire(self, events: list[Event]) -> None:
        """The head of the line was not settled in time: refuse it."""
        place = self._line.popleft()
        self._live[place.token].pop(0)
        self._late[place.key] = place.token
        events.append(Overdue(place.token))
        if self.settings.release == 2:
            events.append(Write(block(COMMIT_NAK)))
        elif self.settings.refusal and (refusal := self.settings.refusal(place.payload)):
            events.append(Write(block(refusal)))
        self._answer(events)

    # Sending, release 2

    def _send_next(self, now: float, events: list[Event]) -> None:
        if self._queue:
            events.append(Write(block(self._queue[0][1])))
            self._reply_at = now + self.settings.reply_time

    def _committed(self, positive: bool, now: float, events: list[Event]) -> None:
        if not self._queue:
            events.append(Note("warning", "a commit acknowledgement that nothing waits for"))
            return
        token, _ = self._queue.popleft()
        self._reply_at = _NEVER
        events.append(Sent(token) if positive else Failed(token, "the peer refused it"))
        self._send_next(now, events)
