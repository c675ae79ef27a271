"""An MllpLink against a model peer made from the standard's rules: whatever it sends, the store says, and the clock does."""

from collections import Counter
from typing import Literal

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from labbridge.wire import MllpLink, MllpSettings
from labbridge.wire.events import Answer, Close, Event, Failed, Overdue, Oversize, Part, Received, Sent, Write
from tests.wire.replay import only, segments
from tests.wire.stations import blocks, held

SECONDS = st.sampled_from([0.5, 1.0, 4.0, 9.0, 12.0, 30.0])
MAX_MESSAGE, ANSWER_TIME = 2000, 10.0


class Place(msgspec.Struct):
    """One transmission of a message that the peer awaits an answer to."""

    number: int
    token: int
    at: float  # when its block was whole


def refusal(payload: bytes) -> bytes:
    return b"MSA|AE|" + payload.split(b"|")[9]


class MllpAgainstASender(RuleBasedStateMachine):
    """An MllpLink of either release, its store, and a peer that sends without waiting, again, in pieces, and hangs up."""

    @initialize(release=st.sampled_from([1, 2]))
    def begin(self, release: Literal[1, 2]) -> None:
        self.release = release
        self.now = 0.0
        self.messages: list[bytes] = []
        self.up: Counter[int] = Counter()  # how often each came up, was stored, was transmitted
        self.stored: Counter[int] = Counter()
        self.transmitted: Counter[int] = Counter()
        self.accepted: set[int] = set()  # by a positive answer
        self.ours = 0
        self.outcomes: Counter[str] = Counter()
        self.connect()

    def connect(self) -> None:
        settings = MllpSettings(release=self.release, max_message=MAX_MESSAGE, refusal=refusal, answer_time=ANSWER_TIME)
        self.link = MllpLink(settings)
        self.line: list[tuple[bytes, int | None]] = []  # what is on its way: bytes, and which message is whole with them
        self.places: list[Place] = []
        self.open: dict[int, int | None] = {}  # tokens to settle: the message, None for a part of one
        self.late: dict[int, int] = {}  # tokens overdue, by message
        self.settled: dict[int, bool] = {}
        self.arrived: list[int] = []
        self.unconfirmed: list[bytes] = []  # release 2: what we sent and the peer has not answered
        self.closing = False

    # what the link says

    def tell(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Received(token, payload):
                    self.receive(token, payload)
                case Part(token, data):
                    assert any(message.startswith(data.partition(b"\x0b")[0]) for message in (*self.messages, b"\x06", b"\x15"))
                    self.open[token] = None
                case Write(data):
                    whole, rest = blocks(data)
                    assert rest == b"", "half a block"
                    for block in whole:
                        self.hear(block)
                case Overdue(token):
                    place = self.places[0]
                    assert place.token == token, "not the oldest"
                    assert self.now >= place.at + ANSWER_TIME, "too early"
                    self.late[place.number] = token
                case Sent() | Failed():
                    self.outcomes[type(event).__name__] += 1
                case Close():
                    self.closing = True
                case Oversize():
                    raise AssertionError("nothing here is oversize")
        for number in self.arrived:  # those that did not come up are the same again of what is late
            self.stand(number, self.late[number])
        self.arrived.clear()

    def receive(self, token: int, payload: bytes) -> None:
        while self.messages[number := self.arrived.pop(0)] != payload:
            self.stand(number, self.late[number])
        assert number not in self.late, "what waits to be settled came up again"
        self.up[number] += 1
        self.open[token] = number
        self.stand(number, token)

    def stand(self, number: int, token: int) -> None:
        self.places.append(Place(number, token, self.now))

    def hear(self, block: bytes) -> None:
        """The peer hears: an answer must be that to its oldest transmission, and be true."""
        if block.startswith(b"ZUS|"):
            self.unconfirmed.append(block)
        elif self.release == 1:
            _, code, number = block.split(b"|")
            self.answered(code == b"AA", int(number))
        elif block in (b"\x06", b"\x15"):
            self.answered(block == b"\x06", self.places[0].number)
        else:
            assert block.startswith(b"MSA|AA|")
            assert int(block.split(b"|")[2]) in self.accepted, "the answer before its commit acknowledgement"

    def answered(self, positive: bool, number: int) -> None:
        place = self.places.pop(0)
        assert number == place.number, "out of order"
        assert self.now <= place.at + ANSWER_TIME, "too late"
        assert positive == self.settled.get(place.token, False), "not what the store said"
        if positive:
            assert self.stored[number], "accepted before it was stored"
            self.accepted.add(number)

    # the peer

    def transmit(self, number: int) -> None:
        self.transmitted[number] += 1
        self.line.append((b"\x0b" + self.messages[number] + b"\x1c\r", number))

    @rule(body=st.binary(max_size=60).map(lambda body: body.translate(None, b"\x0b\x1c|")))
    def send(self, body: bytes) -> None:
        self.messages.append(b"MSH|^~\\&|A|B|||2026||ORU^R01|%d|P|2.5.1\rZXX|%b\r" % (len(self.messages), body))
        self.transmit(len(self.messages) - 1)

    @precondition(lambda self: self.messages)
    @rule(which=st.integers(0, 5))
    def send_again(self, which: int) -> None:
        self.transmit(max(0, len(self.messages) - 1 - which))

    @precondition(lambda self: self.messages)
    @rule(cut=st.integers(1, 40))
    def break_off(self, cut: int) -> None:
        """It begins a message, and begins anew before its end."""
        piece = self.messages[-1][:cut].rstrip(b"\r\n")
        self.line.append((b"\x0b" + piece, None))
        self.transmit(len(self.messages) - 1)

    @rule(noise=st.sampled_from([b"\r\n", b"\r", b"hello", b"\x00" * 3000, b"\x1c\r"]))
    def make_noise(self, noise: bytes) -> None:
        if not self.line or self.line[-1][1] is not None:
            self.line.append((noise, None))

    @precondition(lambda self: self.line)
    @rule(size=st.one_of(st.integers(1, 9), st.integers(10, 500)))
    def deliver(self, size: int) -> None:
        data = b""
        while self.line and size > 0:
            piece, number = self.line.pop(0)
            taken = piece[:size].removesuffix(b"\x1c") if len(piece) > size else piece  # EB and CR come together
            data += taken
            if taken != piece:
                self.line.insert(0, (piece[len(taken) :], number))
            elif number is not None:
                self.arrived.append(number)
            size -= len(piece)
        self.tell(self.link.receive(data, self.now))
        self.perhaps_close()

    @precondition(lambda self: self.unconfirmed and self.release == 2)
    @rule(positive=st.booleans())
    def confirm(self, positive: bool) -> None:
        """Release 2: the peer commits to what we sent, or does not."""
        if not self.line or self.line[-1][1] is not None:
            self.unconfirmed.pop(0)
            self.line.append((b"\x0b\x06\x1c\r" if positive else b"\x0b\x15\x1c\r", None))

    # the store, the clock, the connection

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 30), accepted=st.sampled_from([True, True, False]))
    def settle(self, which: int, accepted: bool) -> None:
        token = list(self.open)[which % len(self.open)]
        number = self.open.pop(token)
        replies: tuple[bytes, ...] = ()
        if number is not None:
            self.stored[number] += accepted
            self.settled[token] = accepted
            self.late = {late: waiting for late, waiting in self.late.items() if waiting != token}
            replies = (b"MSA|A%b|%d" % (b"A" if accepted else b"E", number),)
        self.tell(self.link.settle(token, Answer(accepted, replies if accepted or self.release == 1 else ()), self.now))

    @rule(size=st.integers(1, 300))
    def we_send(self, size: int) -> None:
        self.ours += 1
        self.tell(self.link.send(self.ours, b"ZUS|" + b"x" * size, self.now))

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        """Time goes on, but stops at what is due first."""
        due = self.link.deadline
        self.now = self.now + seconds if due is None else min(self.now + seconds, max(due, self.now))
        self.tell(self.link.tick(self.now))
        after = self.link.deadline
        assert after is None or after > self.now, "a deadline that never passes"
        self.perhaps_close()

    def perhaps_close(self) -> None:
        if self.closing:
            self.reconnect()

    @rule()
    def reconnect(self) -> None:
        """The connection is lost: what has no answer comes again on the next one."""
        old = self.link
        waiting = list(dict.fromkeys(place.number for place in self.places))
        self.places.clear()
        self.tell(old.closed(self.now))
        for token, number in self.open.items():
            self.stored[number if number is not None else -1] += number is not None
            assert old.settle(token, Answer(True, (b"MSA|AA|0",)), self.now) == []
        assert old.deadline is None
        lost = [number for _, number in self.line if number is not None]
        self.connect()
        for number in (*waiting, *lost):
            self.transmit(number)

    # what is always true

    @invariant()
    def every_answer_is_in_time(self) -> None:
        assert not self.places or self.now < self.places[0].at + ANSWER_TIME

    @invariant()
    def nothing_comes_up_that_was_not_transmitted(self) -> None:
        assert all(count <= self.transmitted[number] for number, count in self.up.items())

    @invariant()
    def what_is_accepted_is_stored(self) -> None:
        assert all(self.stored[number] for number in self.accepted)

    @invariant()
    def little_is_remembered(self) -> None:
        waiting = sum(2 * len(self.messages[place.number]) + 100 for place in self.places)
        late = sum(len(self.messages[number]) for number in self.late)
        assert held(self.link) <= 4096 + 2 * MAX_MESSAGE + waiting + late + 400 * self.ours

    def teardown(self) -> None:
        """In the end every message is stored and answered, and of every one of ours the outcome is known."""
        if not hasattr(self, "link"):
            return
        for _ in range(3000):
            if self.line:
                self.deliver(500)
            elif self.open:
                self.settle(0, True)
            elif missing := sorted(set(range(len(self.messages))) - self.accepted):
                assert not self.places, "settled, and not answered"
                self.transmit(missing[0])
            else:
                break
        assert self.accepted == set(range(len(self.messages)))
        self.reconnect()
        assert self.outcomes.total() == self.ours


MllpAgainstASender.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
test_mllp_against_a_sender = MllpAgainstASender.TestCase


@pytest.mark.parametrize("release", [1, 2])
def test_an_mllp_link_remembers_nothing_of_what_is_settled(release: Literal[1, 2]) -> None:
    """Settled in time, or refused for want of time and settled later."""
    link = MllpLink(MllpSettings(release=release, refusal=refusal))
    for number in range(500):
        message = b"\x0bMSH|^~\\&|A|B|||2026||ORU^R01|%d|P|2.5.1\r%b\x1c\r" % (number, b"x" * 100)
        events = [event for piece in segments(message, 40) for event in link.receive(piece, 60.0 * number)]
        [up] = only(Received, events)
        assert isinstance(up, Received)
        if number % 3 == 0:
            link.tick(60.0 * number + 30.0)
        link.settle(up.token, Answer(True, (b"MSA|AA|1",)), 60.0 * number + 31.0)
    assert held(link) < 500
