"""Peers written from the standards' rules and not from our code: a LIS01-A2 station, and an MLLP sender's view of answers."""

from collections.abc import Iterable
from typing import Any, Literal

STX, ETX, ETB, EOT, ENQ, ACK, NAK = b"\x02", b"\x03", b"\x17", b"\x04", b"\x05", b"\x06", b"\x15"
SB, EB_CR = b"\x0b", b"\x1c\r"

IDLE, BIDDING, SENDING, RECEIVING = "idle", "bidding", "sending", "receiving"


class Message:
    """Something to send: its frames' texts, and how each ends."""

    def __init__(self, payload: bytes, size: int) -> None:
        """A record a frame, each ended with ETX; or, with a size, pieces of it that end with ETB but for the last."""
        self.payload = payload
        if size:
            pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
            self.frames = [(piece, ETB) for piece in pieces[:-1]] + [(pieces[-1], ETX)]
        else:
            self.frames = [(record + b"\r", ETX) for record in payload.split(b"\r")[:-1]]

    def frame(self, number: int) -> bytes:
        """The frame of this number, from 1."""
        text, end = self.frames[number - 1]
        body = b"%d" % (number % 8) + text + end
        return STX + body + b"%02X" % (sum(body) % 256) + b"\r\n"

    def until(self, number: int) -> bytes:
        """The text of the frames up to this one."""
        return b"".join(text for text, _ in self.frames[:number])


class Station:
    """One end of a LIS01-A2 line (E1381 6.3 to 6.5): it bids, sends, receives, and knows its timers."""

    def __init__(self, role: Literal["host", "instrument"]) -> None:
        self.contention = 20.0 if role == "host" else 1.0
        self.state = IDLE
        self.out: list[bytes] = []  # what it wants on the line
        self.queue: list[Message] = []
        self.number = 0  # of the frame that awaits its reply
        self.tries = 0
        self.quiet = self.deadline = 0.0
        self.sent: list[bytes] = []  # every frame of them acknowledged
        self.attempts: list[bytes] = []  # what was transmitted to its last frame
        self.taken: list[bytes] = []  # whole messages received
        self.text = b""
        self.last = 0  # number of the last frame accepted

    def go_on(self, now: float) -> None:
        """Bid for the line when there is something to send and nothing forbids it."""
        if self.state == IDLE and self.queue and now >= self.quiet:
            self._enter(BIDDING, now + 15, ENQ)

    def due(self) -> float | None:
        """When its timer ends, or it may bid again."""
        if self.state == IDLE:
            return self.quiet if self.queue else None
        return self.deadline

    def tick(self, now: float) -> None:
        """15 s for a reply, 30 s for a frame."""
        if self.state in (BIDDING, SENDING) and now >= self.deadline:
            self._enter(IDLE, 0, EOT)
        elif self.state == RECEIVING and now >= self.deadline:
            self._enter(IDLE, 0)

    def restart(self, now: float) -> None:
        """It forgets what it was doing, and needs two seconds to come back."""
        self._enter(IDLE, 0)
        self.quiet = now + 2

    def hear(self, unit: bytes, now: float) -> None:
        """One control character, frame, or what became of it on the line."""
        if self.state == BIDDING:
            self._hear_bidding(unit, now)
        elif self.state == SENDING:
            self._hear_sending(unit, now)
        elif unit == ENQ:
            self.text, self.last = b"", 0
            self._enter(RECEIVING, now + 30, ACK)
        elif self.state == RECEIVING:
            self._hear_receiving(unit, now)

    def _hear_bidding(self, unit: bytes, now: float) -> None:
        if unit == ACK:
            self.number, self.tries = 1, 0
            self._transmit(now)
        elif unit == NAK:
            self.quiet = now + 10
            self._enter(IDLE, 0)
        elif unit == ENQ:
            self.quiet = now + self.contention
            self._enter(IDLE, 0)

    def _hear_sending(self, unit: bytes, now: float) -> None:
        message = self.queue[0]
        if unit in (ACK, EOT):
            if self.number == len(message.frames):
                self.sent.append(self.queue.pop(0).payload)
                self._enter(IDLE, 0, EOT)
                self.quiet = now + 15 if unit == EOT else self.quiet
            else:
                self.number, self.tries = self.number + 1, 0
                self._transmit(now)
        else:
            self.tries += 1
            if self.tries >= 6:
                self._enter(IDLE, 0, EOT)
            else:
                self._transmit(now)

    def _transmit(self, now: float) -> None:
        message = self.queue[0]
        if self.number == len(message.frames):
            self.attempts.append(message.payload)
        self._enter(SENDING, now + 15, message.frame(self.number))

    def _hear_receiving(self, unit: bytes, now: float) -> None:
        if unit == EOT:
            self._enter(IDLE, 0)
        elif unit[:1] == STX and unit[-1:] == b"\n":
            self.deadline = now + 30
            number, text = unit[1:2], unit[2:-5]
            if b"%02X" % (sum(unit[1:-4]) % 256) != unit[-4:-2]:
                self.out.append(NAK)
            elif number == b"%d" % ((self.last + 1) % 8):
                self.text += text
                self.last += 1
                self.out.append(ACK)
                if unit[-5:-4] == ETX and self.text.split(b"\r")[-2][:1] == b"L":  # the message is whole, EOT or not
                    self.taken.append(self.text)
                    self.text = b""
            elif self.last and number == b"%d" % (self.last % 8):
                self.out.append(ACK)
            else:
                self.out.append(NAK)

    def _enter(self, state: str, deadline: float, *out: bytes) -> None:
        self.state, self.deadline = state, deadline
        self.out += out


def blocks(stream: bytes) -> tuple[list[bytes], bytes]:
    """The whole MLLP blocks of a stream of which nothing is left out, and what is left over."""
    *whole, rest = stream.split(EB_CR)
    assert all(block.startswith(SB) for block in whole)
    return [block[1:] for block in whole], rest


def held(*roots: object) -> int:
    """How many bytes of data are kept alive by these: each object counts once."""
    seen: set[int] = set()
    waiting: list[Any] = list(roots)
    size = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, bytes | bytearray):
            size += len(one)
        else:
            waiting += parts(one)
    return size


def parts(one: Any) -> Iterable[Any]:
    """What an object is made of."""
    if isinstance(one, dict):
        return [*one.keys(), *one.values()]
    if isinstance(one, str | int | float | type | None) or callable(one):
        return ()
    if hasattr(one, "__struct_fields__"):
        return [getattr(one, name) for name in one.__struct_fields__]
    if hasattr(one, "__dict__"):
        return list(vars(one).values())
    return list(one) if hasattr(one, "__iter__") else ()
