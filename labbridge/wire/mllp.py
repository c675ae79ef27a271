"""MLLP (HL7's minimal lower layer protocol), release 1 and 2, both directions, sans-IO. Theory of operation.

A block is SB (0x0B), data, EB (0x1C), CR. Bytes and the present time come in, events go out; one MllpLink is one
connection.

Reading. TRANSITIONS is the reader's table: TRANSITIONS[state][input] = (action, next state). What is forgiven:

- EB followed by SB: the CR is missing, the block has ended. EB followed by anything else is data.
- SB before "MSH" inside a block: the block has no EB. If it ends with CR or LF, the peer is of those that leave EB out,
  and the block is whole; else it broke off, and comes up as a Part that is Abandoned.
- Nothing more for ``silence_time`` after an EB without CR, or after a block's CR when this peer has left EB out before:
  the block is whole. (Such a peer may wait for its answer, or for the next specimen; its message must not wait.)
- CR, LF and EB between blocks. Other bytes between blocks are Stray.

A block beyond ``max_message`` is kept as its first 64 KiB, length and SHA-256, and comes up as Oversize when it ends; at
four times the limit at once, with Close.

Answering. Whatever comes up under a token takes a place in the line of answers, and answers leave in that order, whatever
the order in which they are settled. A token that is not settled within ``answer_time`` is Overdue: the link answers in
its place (``refusal``; in release 2 the negative commit acknowledgement), and the place is given up. The token lives on:
the same bytes, come again before it is settled, are not a new message but a new place for the old token. Without a
``refusal`` the place is kept, and the answer leaves whenever it comes.

Sending. Release 1: written is Sent; the peer's answer is a Received like any other. Release 2: one message at a time is
out until the peer's commit acknowledgement; Failed when that is negative. When it does not come, the link asks to be
closed: a late one could be taken for the next message's.
"""

import hashlib
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
    Part,
    Received,
    Sent,
    Write,
)
from labbridge.wire.excess import FLOOD_FACTOR, Excess
from labbridge.wire.mllp_blocks import CR, EB, END, RESTART, SB, START, BlockReader, block

COMMIT_ACK, COMMIT_NAK = b"\x06", b"\x15"  # the whole data of a commit acknowledgement (release 2)

# States of the reader and what it meets
OUTSIDE, INSIDE, SKIPPING, CLOSED = "outside a block", "inside a block", "inside an oversize block", "closed"
LIMIT = "more than max_message"
FLOOD = "four times max_message"
SILENCE = "silence after a likely end"
GONE = "connection closed"

TRANSITIONS: dict[str, dict[str, tuple[str, str]]] = {
    OUTSIDE: {START: ("begin", INSIDE), GONE: ("close", CLOSED)},
    INSIDE: {
        END: ("deliver", OUTSIDE),
        RESTART: ("break_off", INSIDE),
        LIMIT: ("skip", SKIPPING),
        SILENCE: ("deliver_unended", OUTSIDE),
        GONE: ("close_inside", CLOSED),
    },
    SKIPPING: {
        END: ("report_excess", OUTSIDE),
        RESTART: ("report_excess", INSIDE),
        FLOOD: ("cut_off", CLOSED),
        GONE: ("close_skipping", CLOSED),
    },
    CLOSED: {},
}

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
    refusal: Callable[[bytes], bytes] | None = None  # makes the AE for a payload that was not settled in time
    reply_time: float = 30.0  # release 2: we wait for the peer's commit acknowledgement
    silence_time: float = 3.0  # after a likely end of block


class _Place:
    """A place in the line of answers; ``deadline`` is _NEVER once it is settled, or when nothing is to be done then."""

    __slots__ = ("answer", "deadline", "digest", "payload", "token")

    def __init__(self, token: int, payload: bytes, digest: bytes, deadline: float) -> None:
        self.token = token
        self.payload = payload
        self.digest = digest
        self.deadline = deadline
        self.answer: Answer | None = None


class MllpLink:
    """One MLLP connection."""

    def __init__(self, settings: MllpSettings) -> None:
        self.settings = settings
        self._answer_time = _NEVER if settings.answer_time is None else settings.answer_time
        # Reading
        self._state = OUTSIDE
        self._reader = BlockReader()
        self._excess = Excess()
        self._omits_eb = False  # this peer has left out the end of a block
        self._silent_at = _NEVER
        # Answering
        self._tokens = 0
        self._places: deque[_Place] = deque()
        self._due = _NEVER  # the first deadline of a place
        self._live: dict[int, bytes] = {}  # tokens not settled: the payload's digest if it was overdue
        self._late: dict[bytes, int] = {}  # and the way back
        # Sending, release 2
        self._queue: deque[tuple[int, bytes]] = deque()  # the first is out
        self._reply_at = _NEVER

    @property
    def deadline(self) -> float | None:
        """When to call ``tick`` next, or None."""
        first = min(self._due, self._silent_at, self._reply_at)
        return None if first == _NEVER else first

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the peer, in any segmentation; never raises on them."""
        events: list[Event] = []
        if self._state is OUTSIDE and self._is_one_block(data):  # nearly always
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
        digest = self._live.pop(token, None)
        if digest is None:
            raise LocalProtocolError(f"token {token} does not wait to be settled")
        self._late.pop(digest, None)
        for place in self._places:
            if place.token == token:
                place.answer = answer
                place.deadline = _NEVER
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
        while self._due <= now:
            self._expire(now, events)
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
        while self._reader:
            item = self._next()
            self._reader.strays.note(events)
            if item is None:
                break
            self._step(item, now, events)
        likely = self._state is INSIDE and self._reader.has_likely_end(self._omits_eb)
        self._silent_at = now + self.settings.silence_time if likely else _NEVER

    def _next(self) -> str | None:
        """What the stream brings next, or None when more bytes are needed."""
        reader, limit = self._reader, self.settings.max_message
        if self._state is OUTSIDE:
            return reader.find_start()
        item = reader.find_end()
        if item is None and self._state is SKIPPING:
            reader.pass_by(self._excess)
            return FLOOD if self._excess.length > FLOOD_FACTOR * limit else None
        return LIMIT if item is None and len(reader) > limit else item

    def _step(self, item: str, now: float, events: list[Event]) -> None:
        action, self._state = _TABLE[self._state][item]
        action(self, now, events)

    def _begin(self, now: float, events: list[Event]) -> None:
        """A block begins."""

    def _deliver(self, now: float, events: list[Event]) -> None:
        self._take_message(self._reader.take(), now, events)

    def _deliver_unended(self, now: float, events: list[Event]) -> None:
        data = self._reader.take_all()
        unframed = data.rstrip(b"\r\n")
        self._take_message(unframed[:-1] if unframed.endswith(b"\x1c") else data, now, events)

    def _break_off(self, now: float, events: list[Event]) -> None:
        data = self._reader.take()
        if len(data) > self.settings.max_message:
            self._take_excess(Excess(data), now, events)
        elif data.endswith((b"\r", b"\n")):
            if not self._omits_eb:
                self._omits_eb = True
                events.append(Note("warning", "blocks without their end"))
            self._take_message(data, now, events)
        elif data:
            self._abandon(data, "a new block began inside it", events)

    def _skip(self, now: float, events: list[Event]) -> None:
        self._excess = Excess()

    def _report_excess(self, now: float, events: list[Event]) -> None:
        self._excess.add(self._reader.take())
        self._take_excess(self._excess, now, events)

    def _cut_off(self, now: float, events: list[Event]) -> None:
        self._close_skipping(now, events)
        events.append(Close("a block without end"))

    def _close_skipping(self, now: float, events: list[Event]) -> None:
        self._excess.add(self._reader.take_all())
        self._take_excess(self._excess, now, events)
        self._close(now, events)

    def _close_inside(self, now: float, events: list[Event]) -> None:
        if self._reader.has_likely_end(self._omits_eb):
            self._deliver_unended(now, events)
        elif self._reader:
            self._abandon(self._reader.take_all(), "the connection closed inside a block", events)
        self._close(now, events)

    def _close(self, now: float, events: list[Event]) -> None:
        self._places.clear()
        self._due = self._silent_at = self._reply_at = _NEVER
        events += [Failed(token, "the connection closed") for token, _ in self._queue]
        self._queue.clear()
        self._reader.strays.report(events)

    # Answering

    def _take_message(self, payload: bytes, now: float, events: list[Event]) -> None:
        if len(payload) > self.settings.max_message:
            self._take_excess(Excess(payload), now, events)
        elif self.settings.release == 2 and payload in (COMMIT_ACK, COMMIT_NAK):
            self._committed(payload == COMMIT_ACK, now, events)
        elif not payload:
            events.append(Note("info", "empty block"))
        else:
            token = self._late.get(hashlib.sha256(payload).digest()) if self._late else None
            if token is None:
                token = self._new_token()
                events.append(Received(token, payload))
            self._stand(_Place(token, payload, b"", now + self._answer_time))

    def _take_excess(self, excess: Excess, now: float, events: list[Event]) -> None:
        event = excess.event(self._tokens + 1)
        token = self._late.get(event.digest)
        if token is None:
            token = self._new_token()
            events.append(event)
        self._stand(_Place(token, event.head, event.digest, now + self._answer_time))

    def _abandon(self, data: bytes, why: str, events: list[Event]) -> None:
        events += (Part(self._new_token(), data), Abandoned(why))

    def _new_token(self) -> int:
        self._tokens += 1
        self._live[self._tokens] = b""
        return self._tokens

    def _stand(self, place: _Place) -> None:
        self._places.append(place)
        self._due = min(self._due, place.deadline)

    def _answer(self, events: list[Event]) -> None:
        """Write what is settled at the head of the line."""
        places = self._places
        data = []
        while places and (answer := places[0].answer) is not None:
            places.popleft()
            if self.settings.release == 2:
                data.append(block(COMMIT_ACK if answer.accepted else COMMIT_NAK))
            data += map(block, answer.replies)
        if data:
            events.append(Write(b"".join(data)))
        self._set_due()

    def _set_due(self) -> None:
        for place in self._places:
            if place.deadline < _NEVER:
                self._due = place.deadline
                return
        self._due = _NEVER

    def _expire(self, now: float, events: list[Event]) -> None:
        """The place that is due was not settled in time."""
        place = next(place for place in self._places if place.deadline == self._due)
        place.deadline = _NEVER
        events.append(Overdue(place.token))
        self._live[place.token] = digest = place.digest or hashlib.sha256(place.payload).digest()
        self._late[digest] = place.token
        refusal = self._refusal(place.payload)
        place.payload = b""
        if refusal is not None:
            self._places.remove(place)  # the head of the line: those before it were due before
            if refusal:
                events.append(Write(block(refusal)))
        self._answer(events)

    def _refusal(self, payload: bytes) -> bytes | None:
        if self.settings.release == 2:
            return COMMIT_NAK
        return None if self.settings.refusal is None else self.settings.refusal(payload)

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


_TABLE = {
    state: {item: (getattr(MllpLink, f"_{action}"), target) for item, (action, target) in rows.items()}
    for state, rows in TRANSITIONS.items()
}
