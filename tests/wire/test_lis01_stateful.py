"""A host and an instrument on a line that loses and damages what they send: nothing is lost, doubled or altered.

Whatever is on the line arrives, or is lost, before time goes on: a protocol whose only memory of a reply is a timer
cannot bear replies that come after it.
"""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from labbridge.wire import Lis01Link, Lis01Settings
from labbridge.wire.events import Abandoned, Answer, Event, Failed, Oversize, Part, Received, Sent, Write
from tests.wire.replay import segments

HOST, INSTRUMENT = 0, 1
stations = st.sampled_from([HOST, INSTRUMENT])


class Line(RuleBasedStateMachine):
    """Two stations; what each has sent, what each was told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.tokens = 0
        self.on_the_way: dict[int, list[bytes]] = {HOST: [], INSTRUMENT: []}  # by receiver
        self.waiting: list[tuple[Lis01Link, int, Part | Received]] = []
        self.attempts: dict[int, tuple[int, bytes]] = {}  # token -> sender and payload, neither Sent nor Failed yet
        self.attempted: Counter[bytes] = Counter()
        self.stored: Counter[bytes] = Counter()
        self.sent: Counter[bytes] = Counter()
        self.spool: dict[int, list[bytes]] = {HOST: [], INSTRUMENT: []}
        self.connect()

    def connect(self) -> None:
        self.links = {
            HOST: Lis01Link(Lis01Settings(role="host", frame_size=20)),
            INSTRUMENT: Lis01Link(Lis01Settings(role="instrument", frame_size=12)),
        }

    def tell(self, station: int, events: list[Event]) -> None:
        """Do what a link tells, as the adapter and the store would."""
        link = self.links[station]
        for event in events:
            match event:
                case Write(data):
                    self.on_the_way[1 - station].append(data)
                case Part() | Received():
                    if isinstance(event, Received):
                        assert event.payload in self.attempted, "altered"
                    self.waiting.append((link, station, event))
                case Sent(token):
                    _, payload = self.attempts.pop(token)
                    self.sent[payload] += 1
                    assert self.stored[payload], "sent, but not stored"
                case Failed(token):
                    self.attempt(*self.attempts.pop(token))
                case Abandoned():
                    self.spool[station].clear()
                case Oversize():
                    raise AssertionError("nothing here is oversize")

    def attempt(self, station: int, payload: bytes) -> None:
        self.tokens += 1
        self.attempts[self.tokens] = station, payload
        self.attempted[payload] += 1
        self.tell(station, self.links[station].send(self.tokens, payload, self.now))

    @rule(station=stations, values=st.lists(st.integers(0, 10**9), min_size=1, max_size=4))
    def send(self, station: int, values: list[int]) -> None:
        records = [b"R|%d|%d\r" % numbered for numbered in enumerate(values, 1)]
        self.attempt(station, b"H|\\^&|%d\r" % self.tokens + b"".join(records) + b"L|1|N\r")

    @precondition(lambda self: any(self.on_the_way.values()))
    @rule(station=stations, size=st.integers(0, 9))
    def deliver(self, station: int, size: int) -> None:
        for data in self.take(station):
            for segment in segments(data, size):
                self.tell(station, self.links[station].receive(segment, self.now))

    @rule(steps=st.integers(1, 12))
    def go_on(self, steps: int) -> None:
        """For a while all goes well."""
        for _ in range(steps):
            if self.waiting:
                self.settle(True)
            else:
                self.deliver(INSTRUMENT if self.on_the_way[INSTRUMENT] else HOST, 0)

    @precondition(lambda self: any(self.on_the_way.values()))
    @rule(station=stations)
    def lose(self, station: int) -> None:
        self.take(station)

    @precondition(lambda self: any(self.on_the_way.values()))
    @rule(station=stations, at=st.integers(0, 30), drop=st.booleans())
    def damage(self, station: int, at: int, drop: bool) -> None:
        for data in self.take(station):
            if len(data) > 1:
                at %= len(data)
                letter = b"" if drop else b"~" if 1 < at < len(data) - 6 else data[at : at + 1]
                data = data[:at] + letter + data[at + 1 :]
            self.tell(station, self.links[station].receive(data, self.now))

    def take(self, station: int) -> list[bytes]:
        data = self.on_the_way[station][:1]
        del self.on_the_way[station][:1]
        return data

    @precondition(lambda self: self.waiting)
    @rule(accepted=st.sampled_from([True, True, True, False]))
    def settle(self, accepted: bool) -> None:
        link, station, event = self.waiting.pop(0)
        if accepted and isinstance(event, Received):
            self.stored[event.payload] += 1
        told = link.settle(event.token, Answer(accepted), self.now)
        if link is self.links[station]:
            self.tell(station, told)

    @precondition(lambda self: not any(self.on_the_way.values()))
    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 12.0, 15.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time goes on, but stops at what is due first, and at whatever is sent then."""
        due = [link.deadline for link in self.links.values() if link.deadline is not None]
        self.now = min([self.now + seconds, *(max(deadline, self.now) for deadline in due)])
        for station, link in self.links.items():
            self.tell(station, link.tick(self.now))

    @precondition(lambda self: self.attempts)
    @rule()
    def reconnect(self) -> None:
        for data in self.on_the_way.values():
            data.clear()
        old, failed = self.links, []
        for link in old.values():
            failed += [event for event in link.closed(self.now) if isinstance(event, Failed)]
        self.connect()
        self.tell(HOST, list(failed))

    @invariant()
    def nothing_is_stored_more_often_than_it_was_tried(self) -> None:
        for payload, count in self.stored.items():
            assert count <= self.attempted[payload]

    @invariant()
    def no_deadline_is_overlooked(self) -> None:
        for link in self.links.values():
            assert link.deadline is None or link.deadline > self.now - 1e-9

    def teardown(self) -> None:
        """On a line that is whole again everything arrives."""
        for _ in range(5000):
            if not self.attempts and not self.waiting:
                break
            if self.waiting:
                self.settle(True)
            elif any(self.on_the_way.values()):
                self.deliver(HOST, 0)
                self.deliver(INSTRUMENT, 0)
            else:
                self.wait(100.0)
        assert not self.attempts
        for payload in self.attempted:
            assert self.sent[payload] == 1
            assert 1 <= self.stored[payload] <= self.attempted[payload]


Line.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
test_what_is_sent_arrives_once = Line.TestCase
