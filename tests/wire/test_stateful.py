"""A Lis01Link against a model peer made from the standard's rules: whatever the line, the store and the clock do.

What is on the line arrives, or is lost, before time goes on (see ``test_lis01_stateful``), and a bid arrives at once while
the store has not answered: a receiver cannot know that the station it acknowledges has begun anew meanwhile.
"""

from collections import Counter
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire.events import Abandoned, Answer, Close, Event, Failed, Overdue, Oversize, Part, Received, Sent, Stray, Write
from tests.wire.replay import HEADER, LAST, SIZES, frame, only, payloads, play, segments, written
from tests.wire.stations import ACK, BIDDING, ENQ, NAK, SENDING, Message, Station, held

every_size = pytest.mark.parametrize("size", SIZES)

SECONDS = st.sampled_from([0.5, 1.0, 4.0, 9.0, 12.0, 30.0])
WELL = ["well"] * 14
FATES = st.lists(
    st.sampled_from([*WELL, "lost", "twice", "damaged", "damaged", "refused", "late", "restart"]), min_size=1, max_size=30
)
LETTERS = st.sampled_from([b"", b"~", b"\x04", b"\x05", b"\x15", b"\r"])
STEPS = settings(max_examples=100, stateful_step_count=50, deadline=None)
MAX_MESSAGE = 2000


class Lis01AgainstAStation(RuleBasedStateMachine):
    """A Lis01Link, its store, the line, and a station at the other end; both send and receive."""

    @initialize(role=st.sampled_from(["host", "instrument"]))
    def begin(self, role: Literal["host", "instrument"]) -> None:
        self.role = role
        self.peer = Station("host" if role == "instrument" else "instrument")
        self.now = 0.0
        self.tokens = 0
        self.texts: Counter[bytes] = Counter()  # every payload of the peer's, and how often the store has it
        self.tried: Counter[bytes] = Counter()  # ours
        self.ours: dict[int, bytes] = {}  # neither Sent nor Failed
        self.sent: list[bytes] = []
        self.overdue = 0
        self.connect()

    def connect(self) -> None:
        self.link = Lis01Link(Lis01Settings(role=self.role, frame_size=16, max_message=MAX_MESSAGE))
        self.to_us: list[bytes] = []
        self.to_peer: list[bytes] = []
        self.open: list[Part | Received] = []
        self.whole = self.spool = b""  # of this session: whole messages, and parts, that the store has
        self.in_session = False
        self.awaits: float | None = None  # since when the peer waits for a reply that it must get

    # what a link says, and what a station says

    def tell(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Write(data):
                    self.write(data)
                case Part() | Received():
                    assert not self.open, "two at a time"
                    self.open.append(event)
                    if isinstance(event, Received):
                        assert event.payload in self.texts, "altered"
                        assert event.payload.startswith(self.spool), "not what came up in parts"
                case Abandoned():
                    self.spool = b""
                case Sent(token):
                    payload = self.ours.pop(token)
                    assert self.to_peer == [b"\x04"], "the session is closed behind it"
                    self.sent.append(payload)
                case Failed(token):
                    self.attempt(self.ours.pop(token))
                case Overdue(token):
                    assert token == self.open[0].token
                    self.overdue += 1
                case Oversize() | Close():
                    raise AssertionError("nothing here is too much")

    def write(self, data: bytes) -> None:
        self.to_peer.append(data)
        if data not in (ACK, NAK):
            return
        self.awaits = None
        if data == ACK and self.peer.state == SENDING:
            confirmed = self.peer.queue[0].until(self.peer.number)
            assert self.whole + self.spool == confirmed, "acknowledged before it was stored"
        elif data == ACK and self.peer.state == BIDDING:
            self.whole = b""
            assert not self.spool, "a session that broke off was not abandoned"

    def from_peer(self) -> None:
        """Puts on the line what the station wants to say."""
        self.peer.go_on(self.now)
        self.to_us += self.peer.out
        self.peer.out.clear()
        if self.open and ENQ in self.to_us:
            self.deliver_all()

    def attempt(self, payload: bytes) -> None:
        self.tokens += 1
        self.ours[self.tokens] = payload
        self.tried[payload] += 1
        self.tell(self.link.send(self.tokens, payload, self.now))

    # the stations want something

    @rule(values=st.lists(st.integers(0, 10**6), min_size=1, max_size=5), size=st.sampled_from([0, 0, 7, 30]))
    def peer_sends(self, values: list[int], size: int) -> None:
        payload = self.message(values)
        self.texts[payload] = 0
        self.peer.queue.append(Message(payload, size))
        self.from_peer()

    @rule(values=st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
    def we_send(self, values: list[int]) -> None:
        self.attempt(self.message(values))

    def message(self, values: list[int]) -> bytes:
        self.tokens += 1
        results = b"".join(b"R|%d|%d\r" % numbered for numbered in enumerate(values, 1))
        return b"H|\\^&|%d\r" % self.tokens + results + b"L|1|N\r"

    # the line

    @rule(fates=FATES, size=st.integers(0, 9), at=st.integers(0, 40), letter=LETTERS)
    def go_on(self, fates: list[str], size: int, at: int, letter: bytes) -> None:
        """The store answers, and what is on the line arrives, whole or in pieces; each has its fate. Else time passes."""
        for number, fate in enumerate(fates):
            if fate == "restart" and not (self.to_us or self.to_peer):
                self.begin_anew(False)
                self.wait(2.0)
            elif self.open and fate != "late":
                self.settle(fate != "refused")
            elif self.to_us:
                self.carry(self.to_us.pop(0), fate, size, at + number, letter)
            elif self.to_peer:
                self.answer(fate, at + number)
            else:
                self.wait(12.0)

    def carry(self, unit: bytes, fate: str, size: int, at: int, letter: bytes) -> None:
        """What the peer said arrives, unless it is lost; comes twice while we did not read; or a letter of it is wrong.

        An ENQ in the place of STX, CR or LF is a bid to any receiver, so that letter is spared.
        """
        if fate == "damaged":
            self.in_session &= letter != b"\x04"  # heard as the end of the session: the peer's timer will end it too
            at %= len(unit)
            spoiled = unit[:at] + (letter if 1 <= at < len(unit) - 2 else b"~") + unit[at + 1 :]
            self.awaits = None
            self.tell(self.link.receive(spoiled, self.now))
            self.from_peer()
        elif fate == "twice" and unit != b"\x04":
            self.hear(unit + unit, 0)
        elif fate != "lost":
            self.hear(unit, size)

    def hear(self, unit: bytes, size: int) -> None:
        idle = not self.to_peer or self.to_peer[-1] in (ACK, NAK, b"\x04")
        self.in_session |= unit == ENQ
        if unit != b"\x04" and self.in_session and idle and not self.ours and self.peer.state in (BIDDING, SENDING):
            self.awaits = self.now
        for segment in segments(unit, size):
            self.tell(self.link.receive(segment, self.now))
        self.from_peer()

    def answer(self, fate: str = "", at: int = 0) -> None:
        """What we said arrives at the peer, unless it is lost or damaged."""
        unit = self.to_peer.pop(0)
        at %= len(unit)
        if fate != "lost":
            self.peer.hear(unit[:at] + b"~" + unit[at + 1 :] if fate == "damaged" else unit, self.now)
            self.from_peer()

    def deliver_all(self) -> None:
        while self.to_us:
            self.hear(self.to_us.pop(0), 0)

    @precondition(lambda self: not self.to_us and not self.to_peer)
    @rule(noise=st.sampled_from([b"\r\n", b"~~", b"\x00\xff", b"x" * 500]))
    def make_noise(self, noise: bytes) -> None:
        self.awaits = None
        self.tell(self.link.receive(noise, self.now))

    # the store, the clock, the connection

    @precondition(lambda self: self.open)
    @rule(accepted=st.sampled_from([True, True, True, False]))
    def settle(self, accepted: bool) -> None:
        event = self.open.pop()
        if accepted and isinstance(event, Part):
            self.spool += event.data
        elif accepted:
            self.texts[event.payload] += 1
            self.whole, self.spool = self.whole + event.payload, b""
        self.tell(self.link.settle(event.token, Answer(accepted), self.now))

    @precondition(lambda self: not self.to_us and not self.to_peer)
    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Time goes on, but stops at what is due first."""
        due = [at for at in (self.link.deadline, self.peer.due()) if at is not None]
        self.now = min([self.now + seconds, *(max(at, self.now) for at in due)])
        self.tell(self.link.tick(self.now))
        after = self.link.deadline
        assert after is None or after > self.now, "a deadline that never passes"
        self.peer.tick(self.now)
        self.from_peer()

    @rule(busy=st.sampled_from([False, False, False, True]))
    def be_busy(self, busy: bool) -> None:
        self.tell(self.link.pause() if busy else self.link.resume())

    @precondition(lambda self: not self.to_us and not self.to_peer)
    @rule(all_of_it=st.booleans())
    def begin_anew(self, all_of_it: bool) -> None:
        """The peer restarts, or the connection is made anew."""
        self.awaits = None
        if all_of_it:
            self.reconnect()
        self.peer.restart(self.now)

    def reconnect(self) -> None:
        old, failed = self.link, []
        for event in old.closed(self.now):
            assert isinstance(event, Failed | Abandoned | Stray)
            failed += [event] if isinstance(event, Failed) else []
        for waiting in self.open:
            assert not any(isinstance(event, Write) for event in old.settle(waiting.token, Answer(False), self.now))
        assert old.deadline is None
        self.connect()
        self.tell(list(failed))

    # what is always true

    @invariant()
    def the_peer_is_answered_in_time(self) -> None:
        assert self.awaits is None or self.now <= self.awaits + 12.0

    @invariant()
    def nothing_is_stored_that_was_not_sent(self) -> None:
        attempts = Counter(self.peer.attempts)
        for payload, count in self.texts.items():
            assert count <= attempts[payload]

    @invariant()
    def what_is_acknowledged_is_stored(self) -> None:
        assert all(self.texts[payload] for payload in self.peer.sent)

    @invariant()
    def little_is_remembered(self) -> None:
        own = sum(2 * len(payload) + 9 * len(payload) for payload in self.ours.values())
        assert held(self.link) <= 4096 + 4 * MAX_MESSAGE + own

    def teardown(self) -> None:
        """On a line that is whole again everything arrives, byte for byte, and what was said to be sent was."""
        if not hasattr(self, "link"):
            return
        self.be_busy(False)
        for _ in range(5000):
            if not (self.peer.queue or self.ours or self.open or self.to_us or self.to_peer):
                break
            if self.open:
                self.settle(True)
            elif self.to_us:
                self.deliver_all()
            elif self.to_peer:
                self.answer()
            else:
                self.wait(100.0)
        assert not self.peer.queue
        assert not self.ours
        self.what_is_acknowledged_is_stored()
        self.nothing_is_stored_that_was_not_sent()
        assert len(self.peer.sent) == len(self.texts)
        taken = Counter(self.peer.taken)
        for payload, times in self.tried.items():
            assert self.sent.count(payload) == 1
            assert 1 <= taken[payload] <= times


Lis01AgainstAStation.TestCase.settings = STEPS
test_lis01_against_a_station = Lis01AgainstAStation.TestCase


# What these machines have found, once and for all


@every_size
def test_an_enq_for_a_digit_of_the_checksum_is_refused_with_its_frame(size: int) -> None:
    """An ACK for it would be taken for the frame's."""
    # conformance: A12
    for place in (-4, -3):
        link = Lis01Link(Lis01Settings())
        damaged = bytearray(frame(1, HEADER))
        damaged[place] = 5
        assert written(play(link, ENQ, size)) == ACK
        assert written(play(link, bytes(damaged), size)) == NAK
        assert payloads(play(link, frame(1, HEADER) + frame(2, LAST), size)) == [HEADER + LAST]


def test_no_reply_leaves_while_a_bid_and_line_ends_are_unread() -> None:
    """The sender that began anew would take it for its bid's, and the bid's for its first frame's."""
    for behind in (b"", b"\r\n", b"\r\n\r\n", b"~~", b"\x00" * 500):
        link = Lis01Link(Lis01Settings())
        (_, up) = link.receive(ENQ + frame(1, HEADER), 0.0)
        assert isinstance(up, Part)
        assert link.receive(ENQ + behind, 1.0) == []
        assert only(Write, link.settle(up.token, Answer(True), 2.0)) == [Write(ACK)]


def test_a_lis01_link_remembers_nothing_of_what_is_settled() -> None:
    """Nor of what it has sent."""
    link, told = Lis01Link(Lis01Settings()), 0
    for number in range(500):
        data = ENQ + frame(1, HEADER) + frame(2, b"R|1|%d|%b\r" % (number, b"5" * 100)) + frame(3, LAST) + b"\x04"
        told += len(payloads(play(link, data, 40)))
        link.send(number, HEADER + LAST, 0.0)
        told += len(only(Sent, play(link, ACK * 3, 1)))
    assert told == 1000
    assert held(link) < 500
