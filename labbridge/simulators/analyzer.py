"""A simulated analyzer: plays the samples of its profile over a real connection, each time as another specimen.

It connects, sends one message, waits for its answer, and sends the same bytes again, as an analyzer does, when it was
refused or not answered, or when the connection broke. Nothing is made before the last message is acknowledged.
"""

import itertools
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from labbridge.formats import hl7v2, lis02
from labbridge.formats.acknowledgement import acknowledge, read_answer
from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Connector
from labbridge.profiles import Profile
from labbridge.simulators.vary import CRITICAL, Fresh, Ranges, Template
from labbridge.wire.events import Answer, Event, Failed, Part, Received, Sent
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

AGAIN_S = 1.0  # it waits so long before it sends the same bytes again
ANSWER_S = 15.0  # it waits so long for an HL7 acknowledgement


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
    clock; ``critical`` is the share of values beyond the critical limits. Raises ValueError without samples.
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

    def __post_init__(self) -> None:
        self.sent = 0  # transmissions, repeats included: each is acknowledged or refused in the end
        self.acknowledged = 0
        self.refused = 0  # or not answered
        self._templates = templates(self.profile, self.samples, self.zone, self.ranges)
        self._dice = random.Random(self.seed)  # noqa: S311 (a game, no secret)
        self._numbers = itertools.count(self._dice.randrange(10**12))  # two runs hardly ever meet
        self._connector = Connector(self.reactor, self.host, self.port, self._machine, self, lambda state: None)
        self._message = b""  # what is not yet acknowledged
        self._awaits_reply = False  # a message answers ours; else the link itself tells
        self._in_flight = False
        self._call: Any = None  # the next message is due, or the answer to this one
        self._due = 0.0  # when the next message is to be sent, by the reactor's clock

    @property
    def done(self) -> bool:
        """Whether all of ``count`` messages are acknowledged."""
        return self.count is not None and self.acknowledged >= self.count

    def start(self) -> None:
        """Connects, and goes on trying."""
        self._connector.start()

    def _machine(self) -> Machine:
        profile = self.profile
        if profile.framing == "mllp":
            return MllpLink(MllpSettings(answer_time=None))
        return Lis01Link(Lis01Settings(role="instrument", frame_size=profile.frame_size, checksum=profile.checksum))

    # -- what the connection calls ---------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """Goes on where the last connection ended."""
        self._wait(0.0, self._go)

    def event(self, link: WireProtocol, event: Event) -> None:
        """Hears the answer to its message; whatever else the host sends, it takes and passes over."""
        if isinstance(event, Part | Received):
            link.settle(event.token, Answer(True))
        if isinstance(event, Failed):
            self._answered(False)
        elif isinstance(event, Sent) and not self._awaits_reply:
            self._answered(True)
        elif isinstance(event, Received) and self._awaits_reply:
            answer = read_answer(event.payload)
            if answer.code and answer.control_id.encode() in self._message:  # else it is a late one, of an earlier message
                self._answered(answer.code in ("AA", "CA"))

    def closed(self, link: WireProtocol, why: str) -> None:
        """Keeps its message for the next connection."""
        self._answered(False)

    # -- what it does ----------------------------------------------------------------------------------------------

    def _go(self) -> None:
        """Sends what is to be sent now: the message that was not acknowledged, or a new one that is due."""
        link, now = next(iter(self._connector.links), None), self.reactor.seconds()
        if link is None or self.done:
            return
        if not self._message:
            if now < self._due:
                self._wait(self._due - now, self._go)
                return
            self._due = now + (1 / self.rate if self.rate else 0.0)
            template = self._dice.choice(self._templates)
            specimens = [f"{next(self._numbers) % 10**12:012d}" for _ in template.specimens]
            self._message = template.write(Fresh(specimens, datetime.now(self.zone), self._dice, critical=self.critical))
            mllp = self.profile.framing == "mllp"
            self._awaits_reply = mllp and acknowledge(self._message, "A", stamp="", control_id="") != ()
        self._in_flight = True
        self.sent += 1
        if self._awaits_reply:
            self._wait(ANSWER_S, self._answered, False)
        link.send(self.sent, self._message)

    def _answered(self, accepted: bool) -> None:
        """One transmission has its answer, or will never have it; nothing where none is in flight."""
        if not self._in_flight:
            return
        self._in_flight = False
        self._wait(0.0 if accepted else AGAIN_S, self._go)  # not from within the link's own event
        if accepted:
            self._message = b""
            self.acknowledged += 1
            if self.done:
                self.finished()
        else:
            self.refused += 1

    def _wait(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Does this next, after so many seconds, and nothing else before it."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self.reactor.callLater(seconds, call, *arguments)
