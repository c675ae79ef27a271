"""A simulated analyzer: plays the samples of its profile over a real connection, each time as another specimen.

It connects, sends one message, waits for its answer, and sends the same bytes again, as an analyzer does, when it was
refused or not answered, or when the connection broke. Nothing is made before the last message is acknowledged. The faults
of ``faults`` befall it as told; it knows what was acknowledged to it.
"""

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from labbridge.formats import hl7v2, lis02
from labbridge.formats.acknowledgement import acknowledge, read_answer
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Connector
from labbridge.profiles import Profile
from labbridge.simulators.faults import Faults
from labbridge.simulators.faulty import ANSWER_S, FaultyLis01, FaultyMllp, Reset, spoil
from labbridge.simulators.vary import CRITICAL, Fresh, Ranges, Template
from labbridge.wire.events import Answer, Event, Failed, Part, Received, Sent
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

AGAIN_S = 1.0  # it waits so long before it sends the same bytes again


def templates(profile: Profile, samples: Path, zone: tzinfo, ranges: Ranges | None = None) -> list[Template]:
    """The samples of a folder (``*.hl7``, ``*.astm``) that are patients' results; raises ValueError without any.

    Those named ``patient*`` are the usual ones; where there are none, all are tried.
    """
    reader = hl7v2.read if profile.protocol == "hl7v2" else lis02.read
    found = []
    for file in sorted(samples.glob("patient*")) or sorted(samples.glob("*")):
        if file.suffix in (".hl7", ".astm"):
            sample = b"".join(line + b"\r" for line in file.read_bytes().splitlines())
            with suppress(ValueError):  # quality control, a query, a mistake that the profile must see: not to be played
                found.append(Template(sample, lambda payload: reader(payload, profile, zone), ranges))
    if not found:
        raise ValueError(f"{samples}: no file there is a message of patients' results for the profile {profile.name}")
    return found


@dataclass(eq=False)
class AnalyzerSimulator:
    """One analyzer that connects to ``host`` and ``port`` and sends results, until the reactor stops.

    ``rate`` is in messages a second, 0 for as fast as they are acknowledged; after ``count`` messages it is done, and
    calls ``finished``. The same ``seed`` gives the same messages but for their times; ``zone`` is that of the analyzer's
    clock; ``critical`` is the share of values beyond the critical limits. ``source`` makes the messages instead of the
    samples. ``told`` hears of each message that is "acknowledged". Raises ValueError without samples.
    """

    reactor: Any
    profile: Profile
    samples: Path
    host: str
    port: int
    zone: tzinfo
    ranges: Ranges | None = None
    rate: float = 1.0
    count: int | None = None
    seed: int | None = None
    critical: float = CRITICAL
    finished: Callable[[], object] = lambda: None
    faults: Faults = field(default_factory=Faults)
    source: Callable[[], bytes] | None = None
    told: Callable[[bytes, str], object] = lambda message, fate: None

    def __post_init__(self) -> None:
        self.sent = 0  # transmissions, repeats included: each is acknowledged or refused in the end
        self.acknowledged = 0
        self.refused = 0  # or not answered
        self.stopping = False  # nothing new is made any more
        self.slowest = 0.0  # the longest time that the host took to answer, seconds
        self.missed = 0  # how often it was longer than the protocol allows
        self._templates = templates(self.profile, self.samples, self.zone, self.ranges) if self.source is None else []
        self._dice = random.Random(self.seed)  # noqa: S311 (a game, no secret)
        self._numbers = itertools.count(self._dice.randrange(10**12))  # two runs hardly ever meet
        self._connector = Connector(self.reactor, self.host, self.port, self._machine, self, lambda state: None)
        self._mllp = self.profile.framing == "mllp"
        self._line: Any = None  # the machine of the present connection
        self._messages: list[bytes] = []  # what is not yet acknowledged
        self._flying: dict[str, bytes] = {}  # of these what awaits its answer, by MSH-10 or by token
        self._awaits_reply = False
        self._deaf = False  # the next answer gets lost
        self._call: Any = None  # the next message is due, or the answer to this one
        self._due = 0.0  # when the next message is to be sent, by the reactor's clock

    @property
    def done(self) -> bool:
        """Whether all of ``count`` messages are acknowledged, or all that was made when it was to stop."""
        return (self.count is not None and self.acknowledged >= self.count) or (self.stopping and not self._messages)

    @property
    def connected(self) -> bool:
        """Whether its connection is open: what it measured on that counts when it has closed."""
        return bool(self._connector.links)

    def start(self) -> None:
        """Connects, and goes on trying."""
        self._connector.start()

    def stop(self) -> None:
        """Hangs up and connects no more."""
        self._connector.stop()
        for link in list(self._connector.links):
            link.close("stopped")

    def _machine(self) -> Any:
        profile = self.profile
        if self._mllp:
            self._line = FaultyMllp(lambda: MllpLink(MllpSettings(answer_time=None)), self.faults)
        else:
            settings = Lis01Settings(role="instrument", frame_size=profile.frame_size, checksum=profile.checksum)
            self._line = FaultyLis01(lambda: Lis01Link(settings), self.faults)
        return self._line

    # -- what the connection calls ---------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """Goes on where the last connection ended."""
        self._wait(0.0, self._go)

    def event(self, link: WireProtocol, event: Event | Reset) -> None:
        """Hears the answers to its messages; whatever else the host sends, it takes and passes over."""
        if isinstance(event, Reset):
            link.drop("simulated")
        if isinstance(event, Part | Received):
            link.settle(event.token, Answer(True))
        if isinstance(event, Sent | Failed) and not self._awaits_reply:
            self._answered(str(event.token), isinstance(event, Sent))
            if isinstance(event, Failed) and event.reason == "no reply in time":
                link.drop(event.reason)
        elif isinstance(event, Received) and self._awaits_reply:
            answer = read_answer(event.payload)
            if self._deaf and answer.control_id in self._flying:
                link.drop("simulated")
            elif answer.code:  # one that nothing awaits is a late one, of an earlier message
                self._answered(answer.control_id, answer.code in ("AA", "CA"))

    def closed(self, link: WireProtocol, why: str) -> None:
        """Keeps what is not acknowledged for the next connection."""
        self.slowest = max(self.slowest, self._line.slowest)
        self.missed += self._line.missed
        for name in list(self._flying):
            self._answered(name, False)

    # -- what it does ----------------------------------------------------------------------------------------------

    def _go(self) -> None:
        """Sends what is to be sent now: what was not acknowledged, or something new that is due."""
        link, now = next(iter(self._connector.links), None), self.reactor.seconds()
        if link is None or self.done:
            return
        if not self._messages and now < self._due:
            self._wait(self._due - now, self._go)
            return
        fault = self.faults.draw()
        if not self._messages:
            most = 3 if self.count is None else self.count - self.acknowledged
            count = min(self.faults.dice.randint(2, 3), most) if fault == "glue" else 1
            self._due = now + (count / self.rate if self.rate else 0.0)
            self._messages = [self._made(fault) for _ in range(count)]
        self._transmit(link, fault)

    def _made(self, fault: str) -> bytes:
        if self.source is not None:
            message = self.source()
        else:
            template = self._dice.choice(self._templates)
            specimens = [f"{next(self._numbers) % 10**12:012d}" for _ in template.specimens]
            message = template.write(Fresh(specimens, datetime.now(self.zone), self._dice, critical=self.critical))
        return spoil(message) if fault == "wrong-charset" else message

    def _transmit(self, link: WireProtocol, fault: str) -> None:
        awaits = self._mllp and acknowledge(self._messages[0], "A", stamp="", control_id="") != ()
        self._awaits_reply = awaits  # a message answers ours; else the link itself tells
        self._deaf = fault == "lost-ack"
        self._line.arm(fault, count=len(self._messages) if fault == "glue" else 1, owes=awaits)
        tokens = {self.sent + number: message for number, message in enumerate(self._messages, 1)}
        names = map(_control_id, self._messages) if awaits else map(str, tokens)
        self._flying = dict(zip(names, self._messages, strict=True))
        self.sent += len(tokens)
        if awaits:
            self._wait(ANSWER_S, self._unanswered, link)
        for token, message in tokens.items():
            link.send(token, message)
        if fault == "duplicate" and not self._mllp:
            link.send(0, self._messages[0])

    def _unanswered(self, link: WireProtocol) -> None:
        """It waits no longer and connects anew, unless it has not said everything itself."""
        if self._line.busy:
            self._wait(ANSWER_S, self._unanswered, link)
        else:
            link.drop("no answer in time")

    def _answered(self, name: str, accepted: bool) -> None:
        """One transmission has its answer, or will never have it; nothing where none by this name is in flight."""
        message = self._flying.pop(name, None)
        if message is None:
            return
        if accepted:
            self._messages.remove(message)
            self.acknowledged += 1
            self.told(message, "acknowledged")
        else:
            self.refused += 1
        if not self._flying:
            self._wait(AGAIN_S if self._messages else 0.0, self._go)  # not from within the link's own event
        if accepted and self.done:
            self.finished()

    def _wait(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Does this next, after so many seconds, and nothing else before it."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self.reactor.callLater(seconds, call, *arguments)


def _control_id(message: bytes) -> str:
    """MSH-10, as the answer will name it."""
    return (message.partition(b"\r")[0].split(message[3:4]) + [b""] * 10)[9].decode("latin-1")
