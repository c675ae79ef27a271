"""A wire machine on a faulty line, sans-IO: what it wants written is damaged, delayed or cut as its owner armed it.

``FaultyMllp`` and ``FaultyLis01`` have the members of the links in ``wire``, so that one adapter serves them. Inside is
a correct machine, whose clock stands still while bytes are held back. They also measure how long the peer takes to
answer: ``slowest`` in seconds, and ``missed``, how often it was longer than the protocol allows.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from labbridge.simulators.faults import Faults
from labbridge.wire.events import Answer, Event, Failed, Received, Sent, Write
from labbridge.wire.lis01_frames import cut
from labbridge.wire.mllp_blocks import block

ANSWER_S = 15.0  # the peer has so long to answer: a frame or a bid by LIS01-A2, and here an HL7 message as well
STALL_S, SLOW_S, REPEAT_S = 40.0, 5.0, 1.0
SESSION_S = 29.0  # a host may close a session that was silent for 30 s (LIS01-A2), and then owes no answer
ASKS_S = 3.0  # so long it waits for the host's bid

_ENQ, _EOT, _ACK, _NAK, _STX = b"\x05", b"\x04", b"\x06", b"\x15", b"\x02"
_QUERY = -1  # the token of a query
_HUGE = b"MSH|^~\\&|X|X|||1||ORU^R01|oversize|P|2.3.1\rOBX|1|ED|"
_NOISE = bytes({*range(0x20, 0x7F), *range(0xA0, 0x100)})

Piece = tuple[float, bytes | None]  # seconds after the one before; no bytes: the connection is reset


class Reset(msgspec.Struct, frozen=True):
    """The connection is to be reset."""


def spoil(message: bytes) -> bytes:
    """A message with a name, or an answer with a text, in GBK whatever it declares; as it is where there is no such field."""
    return re.sub(rb"(\rPI?D?\|(?:[^|\r]*\|){4}|\rMSA\|[^\r]*)", _gbk, message, count=1)


def _gbk(found: re.Match[bytes]) -> bytes:
    return found[0] + (b"|" if found[0].startswith(b"\rMSA") else b"") + "王小".encode("gbk")


def pieces(fault: str, data: bytes, faults: Faults) -> list[Piece]:
    """How data leaves under a fault that is the same for every protocol."""
    dice = faults.dice
    at = dice.randrange(1, len(data)) if len(data) > 1 else 0
    if fault == "split":
        sizes = _sizes(len(data), dice)
        return [(0.001, data[start:end]) for start, end in zip(sizes, [*sizes[1:], len(data)], strict=True)]
    if fault == "slow":
        step = max(1, len(data) // 20)
        return [(SLOW_S / 20 * faults.pace, data[start : start + step]) for start in range(0, len(data), step)]
    if fault == "stall":
        return [(0.0, data[:at]), (faults.seconds(STALL_S), data[at:])]
    if fault == "reset":
        return [(0.0, data[:at]), (0.001, None)]
    if fault == "garbage":
        return [(0.0, bytes(dice.choices(_NOISE, k=dice.randint(1, 200))) + data)]
    if fault == "duplicate":
        return [(0.0, data + data)]
    return [(0.0, data)]


def _sizes(length: int, dice: Random) -> list[int]:
    """Where pieces of a few bytes begin; not more than about a hundred."""
    starts, largest = [0], max(9, length // 50)
    while (following := starts[-1] + dice.randint(1, largest)) < length:
        starts.append(following)
    return starts


class _FaultyLink(ABC):
    """What both kinds share: the inner machine with a clock of its own, the bytes held back, the measuring."""

    _patience = float("inf")  # after so many silent seconds the peer owes nothing, until it is bid anew

    def __init__(self, make: Callable[[], Any], faults: Faults) -> None:
        self.faults = faults
        self.slowest = 0.0
        self.missed = 0
        self._make = make
        self._inner = make()
        self._held: deque[tuple[float, Event, bool]] = deque()  # when it leaves, and whether an answer is owed to it
        self._lag = 0.0  # by how much the inner clock is behind
        self._since = 0.0  # when bytes began to be held back
        self._owed: deque[float] = deque()
        self._spoke = 0.0  # when the last bytes left
        self._given_up = False  # the peer may have

    @property
    def deadline(self) -> float | None:
        """When to call ``tick`` next, or None."""
        if self._held:
            return self._held[0][0]
        return None if self._inner.deadline is None else self._inner.deadline + self._lag

    @property
    def busy(self) -> bool:
        """Whether bytes are held back."""
        return bool(self._held)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes bytes of the peer."""
        return self._told(self._inner.receive(data, self._time(now)), now)

    def settle(self, token: int, answer: Answer, now: float) -> list[Event]:
        """Takes its owner's answer to what came up."""
        return self._told(self._inner.settle(token, answer, self._time(now)), now)

    def tick(self, now: float) -> list[Event]:
        """Lets time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        while self._held and self._held[0][0] <= now:
            _, event, owes = self._held.popleft()
            events.append(event)
            self._left(event, now, int(owes))
            if not self._held:
                self._lag += now - self._since
        return events if self._held else events + self._told(self._inner.tick(self._time(now)), now)

    def closed(self, now: float) -> list[Event]:
        """Says that the connection is gone."""
        self._held.clear()
        for since in self._owed:
            self._answered(since, now, lost=True)
        self._owed.clear()
        return list(self._inner.closed(self._time(now)))

    def _time(self, now: float) -> float:
        return (self._since if self._held else now) - self._lag

    def _told(self, events: list[Event], now: float) -> list[Event]:
        """What the inner machine said, its bytes as they leave."""
        passed: list[Event] = []
        for event in events:
            passed += self._write(event.data, now) if isinstance(event, Write) else self._heard(event, now)
        return passed

    @abstractmethod
    def _write(self, data: bytes, now: float) -> list[Event]:
        """Writes as the kind does, under the fault that is armed."""

    def _heard(self, event: Event, now: float) -> list[Event]:
        return [event]

    def _leave(self, parts: list[Piece], now: float, owed: int = 0) -> list[Event]:
        """Lets pieces go, each in its time and none before what is held back; the last is owed so many answers."""
        events: list[Event] = []
        at = self._held[-1][0] if self._held else now
        for number, (seconds, data) in enumerate(parts, 1):
            at += seconds
            event: Any = Reset() if data is None else Write(data)
            last = number == len(parts)
            if at > now or self._held:
                self._since = self._since if self._held else now
                self._held += [(at, event, last and owed > 0)]
            else:
                events.append(event)
                self._left(event, now, owed if last else 0)
        return events

    def _left(self, event: Event, now: float, owed: int) -> None:
        """Notes that bytes have left, and how many answers they are owed."""
        bid = isinstance(event, Write) and event.data.endswith(_ENQ)
        self._given_up = not bid and (self._given_up or now - self._spoke >= self._patience)
        self._spoke = now
        self._owed += [now] * (0 if self._given_up else owed)

    def _owe_nothing(self) -> None:
        """The answer is there before the last bytes have left: these tell the peer nothing new."""
        if self._held:
            at, rest, _ = self._held.pop()
            self._held.append((at, rest, False))

    def _answered(self, since: float, now: float, lost: bool = False) -> None:
        """Measures an answer, or that there was none until the connection was lost."""
        if not lost:
            self.slowest = max(self.slowest, now - since)
        self.missed += now - since > ANSWER_S


class FaultyMllp(_FaultyLink):
    """An MLLP link on a faulty line: ``arm`` says what befalls the next bytes that it writes."""

    _fault, _count, _owes = "", 1, False
    _kept = b""

    def arm(self, fault: str, *, count: int = 1, owes: bool = False) -> None:
        """The next ``count`` blocks leave in one piece, under this fault; ``owes``: each is owed an answer."""
        self._fault, self._count, self._owes, self._kept = fault, count, owes, b""

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Sends a message."""
        return self._told(self._inner.send(token, payload, self._time(now)), now)

    def _write(self, data: bytes, now: float) -> list[Event]:
        self._count -= 1
        self._kept += data
        if self._count > 0:
            return []
        data, fault, owes = self._kept, self._fault, self._owes
        blocks = data.count(b"\x0b") * owes
        self.arm("")
        if fault == "oversize":
            data, blocks = block(_HUGE + b"A" * self.faults.excess) + data, blocks + owes
        elif fault == "truncate":
            data = data[: self.faults.dice.randrange(1, len(data) - 2)] + data
        elif fault == "duplicate":
            blocks = 2 * blocks
        return self._leave(pieces(fault, data, self.faults), now, blocks)

    def _heard(self, event: Event, now: float) -> list[Event]:
        if isinstance(event, Received) and self._owed:
            self._answered(self._owed.popleft(), now)
        elif isinstance(event, Received):
            self._owe_nothing()
        return [event]


class _Message(msgspec.Struct):
    """One message on its way over a LIS01 line, and the frame that its fault befalls."""

    token: int
    payload: bytes
    fault: str
    at: int


class FaultyLis01(_FaultyLink):
    """A LIS01 instrument on a faulty line: ``send`` takes the fault that is to befall the message."""

    _patience = SESSION_S

    def __init__(self, make: Callable[[], Any], faults: Faults) -> None:
        super().__init__(make, faults)
        self._fault = ""
        self._bids_at = 0.0
        self._queue: deque[_Message] = deque()  # the first is out
        self._rivals: list[_Message] = []  # what waits for the host's bid, to collide with it
        self._frame = 0
        self._last = b""  # the last frame, whole
        self._deaf = False  # the next reply is not heard

    @property
    def deadline(self) -> float | None:
        """When to call ``tick`` next, or None."""
        first = super().deadline
        return min(first or self._bids_at, self._bids_at) if self._rivals else first

    def arm(self, fault: str, *, count: int = 1, owes: bool = False) -> None:
        """The next message gets this fault."""
        self._fault = fault

    def send(self, token: int, payload: bytes, now: float) -> list[Event]:
        """Sends a message; Sent or Failed will say the outcome."""
        fault, self._fault = self._fault, ""
        frames = len(cut(payload, self._inner.settings.frame_size)) if fault else 1
        message = _Message(token, payload, fault, self.faults.dice.randrange(frames))
        if fault != "contention":
            return self._begin(message, now)
        self._rivals.append(message)
        self._bids_at = now + ASKS_S * self.faults.pace
        header, field, component = payload.partition(b"\r")[0], payload[1:2], payload[3:4]
        query = [header, field.join((b"Q", b"1", component.join((b"0", b"0", b"0")), b"", b"ALL")), field.join((b"L", b"1", b"N"))]
        return self._begin(_Message(_QUERY, b"".join(record + b"\r" for record in query), "", 0), now)

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Takes bytes of the peer, but for an acknowledgement that gets lost."""
        while self._owed:
            self._answered(self._owed.popleft(), now)
        if self._deaf and data[:1] in (_ACK, _NAK):
            self._deaf = False
            data = data[1:]
            self._since = self._since if self._held else now
            self._held.append((now + self.faults.seconds(REPEAT_S), Write(self._last), True))
        elif data[:1] in (_ACK, _NAK):
            self._owe_nothing()
        events: list[Event] = []
        if self._rivals and _ENQ in data:
            events = self._begin(self._rivals.pop(), now)  # it bids before it has heard the host's bid
        return events + super().receive(data, now)

    def tick(self, now: float) -> list[Event]:
        """Lets time pass; does nothing before ``deadline``."""
        events: list[Event] = []
        if self._rivals and self._bids_at <= now:  # the host does not answer queries
            events = self._begin(self._rivals.pop(), now)
        return events + super().tick(now)

    def closed(self, now: float) -> list[Event]:
        """Says that the connection is gone; what waited has failed as well."""
        waited: list[Event] = [Failed(message.token, "the connection closed") for message in self._rivals]
        self._rivals.clear()
        return super().closed(now) + waited

    def _begin(self, message: _Message, now: float) -> list[Event]:
        self._queue.append(message)
        return self._told(self._inner.send(message.token, message.payload, self._time(now)), now)

    def _heard(self, event: Event, now: float) -> list[Event]:
        if isinstance(event, Sent | Failed):
            if self._queue:
                self._queue.popleft()
            self._frame = 0
            return [] if event.token == _QUERY else [event]
        return [event]

    def _told(self, events: list[Event], now: float) -> list[Event]:
        """The next bid leaves together with the end of the session before it, where there is one at once."""
        ends = [number for number, event in enumerate(events) if event == Write(_EOT)]
        if ends and events[-1] == Write(_ENQ):
            events = [*events[: ends[-1]], *events[ends[-1] + 1 : -1], Write(_EOT + _ENQ)]
        return super()._told(events, now)

    def _write(self, data: bytes, now: float) -> list[Event]:
        if data[-1:] == _ENQ:
            self._frame = 0
        if data[:1] != _STX:
            return self._leave([(0.0, data)], now, int(data[-1:] == _ENQ))
        self._last, number = data, self._frame
        self._frame += 1
        message = self._queue[0]
        if message.fault == "split":
            return self._leave(pieces("split", data, self.faults), now, 1)
        if not message.fault or number < message.at:
            return self._leave([(0.0, data)], now, 1)
        fault, message.fault = message.fault, ""
        special = _SPECIAL.get(fault)
        if special:
            return special(self, data, now)
        return self._leave(pieces(fault, data, self.faults), now, int(fault != "reset"))

    def _damage(self, data: bytes, now: float) -> list[Event]:
        if self._inner.settings.checksum:
            wrong = int(data[-4:-2], 16) ^ self.faults.dice.randint(1, 255)
            data = b"%b%02X\r\n" % (data[:-4], wrong)
        return self._leave([(0.0, data)], now, 1)

    def _deafen(self, data: bytes, now: float) -> list[Event]:
        self._deaf = True
        return self._leave([(0.0, data)], now, 1)

    def _restart(self, data: bytes, now: float) -> list[Event]:
        self._inner = self._make()
        events: list[Event] = []
        for message in self._queue:
            events += self._inner.send(message.token, message.payload, self._time(now))
        return self._told(events, now)

    def _break_off(self, data: bytes, now: float) -> list[Event]:
        events = self._leave([(0.0, data[: self.faults.dice.randrange(1, len(data) - 6)] + _EOT)], now)
        failed = self._inner.closed(self._time(now))
        self._inner = self._make()
        return events + self._told(failed, now)

    def _exceed(self, data: bytes, now: float) -> list[Event]:
        return self._leave([(0.0, data[:2] + b"A" * self.faults.excess)], now)


# What befalls a frame, where it is more than a matter of when its bytes leave
_SPECIAL: dict[str, Callable[[FaultyLis01, bytes, float], list[Event]]] = {
    "bad-checksum": FaultyLis01._damage,
    "lost-ack": FaultyLis01._deafen,
    "enq-restart": FaultyLis01._restart,
    "truncate": FaultyLis01._break_off,
    "oversize": FaultyLis01._exceed,
}
