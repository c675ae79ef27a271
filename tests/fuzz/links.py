"""The links under a fuzzer: whatever the peer sends and whenever, whatever the store says and when.

The input is a script, of a byte that chooses the settings and then steps of two bytes, what and how much: bytes of the
peer (behind the two), text that it frames without a fault, time, the store's answers, something to send, busy, the end.
"""

from collections.abc import Callable

from labbridge.formats.acknowledgement import acknowledge
from labbridge.wire import Lis01Link, Lis01Settings, MllpLink, MllpSettings, RawLink, RawSettings
from labbridge.wire.events import Abandoned, Answer, Event, Failed, LocalProtocolError, Oversize, Part, Received, Sent, Write

Link = MllpLink | Lis01Link | RawLink
Make = Callable[[], Link]

SMALL, LARGE = 300, 1 << 20  # max_message
RECEIVE, TICK, SETTLE, OTHER, FRAME = range(5)
PAYLOAD = b"H|\\^&|||us\rQ|1|^4711\rL|1|N\r"
MLLP_PAYLOAD = b"MSH|^~\\&|A|B|C|D|2026||ACK|7|P|2.5.1\rMSA|AA|7\r"


def refusal(payload: bytes) -> bytes:
    replies = acknowledge(payload, "E", stamp="20261121101500", control_id="ABC", error_code="207", text="late")
    return b"\x1c\r\x0b".join(replies)


MLLP: list[Make] = [
    lambda: MllpLink(MllpSettings(max_message=LARGE, refusal=refusal)),
    lambda: MllpLink(MllpSettings(max_message=SMALL, refusal=refusal)),
    lambda: MllpLink(MllpSettings(max_message=LARGE, release=2)),
    lambda: MllpLink(MllpSettings(max_message=SMALL, release=2, answer_time=None)),
]
LIS01: list[Make] = [
    lambda: Lis01Link(Lis01Settings(max_message=LARGE)),
    lambda: Lis01Link(Lis01Settings(max_message=SMALL)),
    lambda: Lis01Link(Lis01Settings(max_message=LARGE, role="instrument", frame_size=7)),
    lambda: Lis01Link(Lis01Settings(max_message=LARGE, checksum=False, numbered=False)),
    lambda: Lis01Link(Lis01Settings(max_message=LARGE, answer_time=None, ends_message=lambda record: False)),
    lambda: Lis01Link(Lis01Settings(max_message=SMALL, role="instrument", refusals=1, contention_time=0.5)),
]
RAW: list[Make] = [
    lambda: RawLink(RawSettings(max_message=LARGE)),
    lambda: RawLink(RawSettings(max_message=SMALL)),
    lambda: RawLink(RawSettings(max_message=LARGE, ends_message=None)),
]


def script(stream: bytes, size: int) -> bytes:
    """A script that plays a stream in segments of ``size`` bytes, at most 255, and settles all that comes up."""
    steps = b""
    for at in range(0, len(stream), size):
        piece = stream[at : at + size]
        steps += bytes([RECEIVE, len(piece)]) + piece + bytes([SETTLE, 1])
    return steps


def framed(payload: bytes) -> bytes:
    """A script in which the peer bids, sends a message a record at a time, settled at once, and ends its session."""
    steps = bytes([RECEIVE, 1]) + b"\x05"
    for record in payload.replace(b"\n", b"\r").split(b"\r"):
        if 0 < len(record) < 255:
            steps += bytes([FRAME, len(record) + 1]) + record + b"\r" + bytes([SETTLE, 1])
    return steps + bytes([RECEIVE, 1]) + b"\x04"


def check_mllp(data: bytes) -> None:
    """An MllpLink under a script."""
    Play(MLLP[(data or b"\0")[0] % len(MLLP)](), MLLP_PAYLOAD).run(data[1:])


def check_lis01(data: bytes) -> None:
    """A Lis01Link under a script."""
    Play(LIS01[(data or b"\0")[0] % len(LIS01)](), PAYLOAD).run(data[1:])


def check_raw(data: bytes) -> None:
    """A RawLink under a script."""
    Play(RAW[(data or b"\0")[0] % len(RAW)](), PAYLOAD).run(data[1:])


class Play:
    """One link, its clock, its store, and what must be true of it whatever happens."""

    def __init__(self, link: Link, payload: bytes) -> None:
        self.link = link
        self.payload = payload  # what we send
        self.now = 0.0
        self.heard = b""
        self.number = 0  # of the peer's last frame
        self.open: list[int] = []  # tokens that the store has not settled
        self.parts = b""
        self.pending: dict[int, bytes] = {}  # tokens of parts
        self.sending: set[int] = set()
        self.ended = False

    def run(self, steps: bytes) -> None:
        """Play a script, then end the connection and settle what is left: it has no effect any more."""
        at, count = 0, 0
        while at + 1 < len(steps) and not self.ended:
            what, much = steps[at] % 5, steps[at + 1]
            at += 2
            count += 1
            if what in (RECEIVE, FRAME):
                data = steps[at : at + much]
                self.receive(self.framed(data, steps[at - 2]) if what == FRAME else data)
                at += much
            elif what == TICK:
                self.pass_time(much / 4)
            elif what == SETTLE:
                self.settle(much & 1 == 1, last=much & 2 == 2)
            else:
                self.other(much, count)
        self.end()
        for token in self.open:
            events = self.link.settle(token, Answer(True), self.now)
            assert not any(isinstance(event, Write | Part | Received | Oversize) for event in events)
            refuses(self.link, token, self.now)
        assert not self.sending, "neither sent nor failed"

    def receive(self, data: bytes) -> None:
        self.number = 0 if data.endswith(b"\x05") else self.number
        self.heard += data
        self.tell(self.link.receive(data, self.now))

    def framed(self, text: bytes, how: int) -> bytes:
        """A text as the peer frames it, so that the fuzzer gets past the checksum; sometimes it comes again, or goes on."""
        if not isinstance(self.link, Lis01Link):
            return b"\x0b%b\x1c\r" % text
        self.number += how < 200
        body = b"%d%b%b" % (self.number % 8, text, b"\x17" if how % 3 == 0 else b"\x03")
        return b"\x02%b%02X\r\n" % (body, sum(body) % 256)

    def pass_time(self, seconds: float) -> None:
        """Time goes on, and stops at each deadline; a deadline that has been kept is over."""
        end = self.now + seconds
        while (deadline := self.link.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.tell(self.link.tick(self.now))
            after = self.link.deadline
            assert after is None or after > self.now, "a deadline that never passes"
        self.now = end
        assert self.tell(self.link.tick(end)) == [], "a timer before its deadline"

    def settle(self, accepted: bool, last: bool) -> None:
        if self.open:
            token = self.open.pop(-1 if last else 0)
            part = self.pending.pop(token, None)
            if accepted:
                self.parts = b"" if part is None else self.parts + part
            replies = (MLLP_PAYLOAD,) if isinstance(self.link, MllpLink) else ()
            self.tell(self.link.settle(token, Answer(accepted, replies), self.now))
            refuses(self.link, token, self.now)

    def other(self, much: int, count: int) -> None:
        if much % 4 == 0:
            self.sending.add(count)
            self.tell(self.link.send(count, self.payload, self.now))
        elif much % 4 == 1:
            self.tell(self.link.pause())
        elif much % 4 == 2:
            self.tell(self.link.resume())
        elif much == 255:
            self.end()

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.tell(self.link.closed(self.now))
            assert self.link.deadline is None
            assert self.link.receive(b"\x05\x0bMSH|\x1c\r", self.now) == []

    def tell(self, events: list[Event]) -> list[Event]:
        for event in events:
            match event:
                case Part(token, data):
                    assert data.removeprefix(b"\r") in self.heard, "bytes that the peer never sent"
                    self.open.append(token)
                    if isinstance(self.link, Lis01Link):
                        self.pending[token] = data
                case Received(token, payload):
                    self.received(payload)
                    self.open.append(token)
                case Oversize(token, head, length, _):
                    assert len(head) <= min(length, 65536)
                    self.open.append(token)
                    self.parts = b""
                case Abandoned():
                    self.parts = b""
                case Sent(token) | Failed(token):
                    self.sending.remove(token)
        assert len(set(self.open)) == len(self.open), "a token twice"
        return events

    def received(self, payload: bytes) -> None:
        """A message is what the peer sent: of LIS01, it begins with the parts that were settled."""
        if not isinstance(self.link, Lis01Link):
            assert payload in self.heard, "bytes that the peer never sent"
            return
        assert len(payload) <= self.link.settings.max_message
        assert payload.startswith(self.parts), "not what came up in parts"


def refuses(link: Link, token: int, now: float) -> None:
    """A token is settled once."""
    try:
        link.settle(token, Answer(True), now)
    except LocalProtocolError:
        return
    raise AssertionError("a token was settled twice")


def check_segmentation(data: bytes) -> None:
    """A stream means the same whole, in small segments, and byte by byte; its messages are settled at once."""
    for make in (MLLP[0], LIS01[0], LIS01[3], RAW[0], RAW[2]):
        whole = heard(make(), data, len(data) or 1)
        for size in (1, 3, 7):
            assert heard(make(), data, size) == whole


def heard(link: Link, data: bytes, size: int) -> list[Event]:
    """What comes up of a stream in segments of this size."""
    told: list[Event] = []

    def settle(events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Part | Received | Oversize):
                told.append(event)
                settle(link.settle(event.token, Answer(True), 0.0))
            elif isinstance(event, Abandoned):
                told.append(event)

    for at in range(0, len(data), size):
        settle(link.receive(data[at : at + size], 0.0))
    settle(link.closed(0.0))
    return told
