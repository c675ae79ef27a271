"""A simulated analyzer: plays the samples of its profile over a real connection, each time as another specimen.

It connects, sends one message, waits for its answer, and sends the same bytes again, as an analyzer does, when it was
refused or not answered, or when the connection broke. Nothing is made before the last message is acknowledged.
"""

import itertools
import random
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Literal

from labbridge.formats import er7, hl7v2, lis02
from labbridge.formats.acknowledgement import acknowledge, read_answer
from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Connector
from labbridge.model import Reading
from labbridge.profiles import Profile
from labbridge.simulators.vary import CRITICAL, OUTSIDE, Fresh, Ranges, Template
from labbridge.wire.events import Answer, Event, Failed, Part, Received, Sent
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

AGAIN_S = 1.0  # it waits so long before it sends the same bytes again
ANSWER_S = 15.0  # it waits so long for an HL7 acknowledgement
BEHIND_S = 5.0  # what was not sent in time is caught up for so long

Happening = Literal["connected", "disconnected", "acknowledged", "refused"]


def templates(profile: Profile, samples: Path, zone: tzinfo, ranges: Ranges | None = None) -> list[Template]:
    """The samples of a folder (``*.hl7``, ``*.astm``) that are patients' results; raises ValueError without any.

    Those named ``patient*`` are the usual ones; where there are none, all are tried.
    """
    reader = hl7v2.read if profile.protocol == "hl7v2" else lis02.read

    def read(payload: bytes) -> Reading:
        return reader(payload, profile, zone)

    found = []
    for file in sorted(samples.glob("patient*")) or sorted(samples.glob("*")):
        if file.suffix in (".hl7", ".astm"):
            try:
                found.append(Template(b"".join(line + b"\r" for line in file.read_bytes().splitlines()), read, ranges))
            except ValueError:  # quality control, a query, a mistake that the profile must see: not to be played
                continue
    if not found:
        raise ValueError(f"{samples}: no file there is a message of patients' results for the profile {profile.name}")
    return found


class AnalyzerSimulator:
    """One analyzer that connects to ``host`` and ``port`` and sends results.

    ``rate`` is in messages a second, 0 for as fast as they are acknowledged; after ``count`` messages it is done.
    ``specimen`` makes the specimen ids: a function, or the digits or letters with which 12-digit ids begin. The same
    ``seed`` gives the same messages but for their times; ``zone`` is that of the analyzer's clock. ``on_event`` hears
    what happens, with the message that it happened to; ``finished`` is called when it is done.
    """

    def __init__(
        self,
        reactor: Any,
        profile: Profile,
        samples: Path,
        host: str,
        port: int,
        *,
        zone: tzinfo,
        ranges: Ranges | None = None,
        rate: float = 1.0,
        count: int | None = None,
        seed: int | None = None,
        specimen: str | Callable[[], str] = "",
        outside: float = OUTSIDE,
        critical: float = CRITICAL,
        on_event: Callable[[Happening, bytes], None] = lambda happening, payload: None,
        finished: Callable[[], object] = lambda: None,
    ) -> None:
        self.profile = profile
        self.rate = rate
        self.count = count
        self.outside, self.critical = outside, critical
        self.sent = 0  # transmissions, repeats included: each is acknowledged or refused in the end
        self.acknowledged = 0
        self.refused = 0  # or not answered
        self._reactor = reactor
        self._templates = templates(profile, samples, zone, ranges)
        self._zone = zone
        self._dice = random.Random(seed)  # noqa: S311 (a game, no secret)
        self._specimen = specimen if callable(specimen) else _numbered(specimen, self._dice)
        self._on_event = on_event
        self._finished = finished
        self._connector = Connector(reactor, host, port, self._machine, self, lambda state: None)
        self._link: WireProtocol | None = None
        self._message = b""  # what is not yet acknowledged
        self._control_id = ""
        self._awaits_reply = False  # a message answers ours; else the link itself tells
        self._in_flight = False
        self._call: Any = None  # the next message is due, or the answer to this one
        self._due = 0.0  # when the next message is to be sent, by the reactor's clock

    @property
    def done(self) -> bool:
        """Whether all of ``count`` messages are acknowledged."""
        return self.count is not None and self.acknowledged >= self.count

    def start(self) -> None:
        """Connects, and goes on trying until it is stopped."""
        self._due = self._reactor.seconds()
        self._connector.start()

    def stop(self) -> None:
        """Sends nothing more and closes its connection; it cannot start again."""
        self._connector.stop()
        self._wait(None)
        self._link = None
        self._connector.close("the simulator stops")

    # -- what the connection calls ---------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """Goes on where the last connection ended."""
        self._link = link
        self._on_event("connected", self._message)
        self._go()

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
            if answer.code and answer.control_id == self._control_id:  # else it is a late one, of an earlier message
                self._answered(answer.code in ("AA", "CA"))

    def closed(self, link: WireProtocol, why: str) -> None:
        """Keeps its message for the next connection."""
        self._link = None
        self._answered(False)
        self._wait(None)
        self._on_event("disconnected", self._message)

    # -- what it does ----------------------------------------------------------------------------------------------

    def _go(self) -> None:
        """Sends what is to be sent now: the message that was not acknowledged, or a new one that is due."""
        self._call = None
        if self._link is None or self.done:
            return
        now = self._reactor.seconds()
        if not self._message:
            if now < self._due:
                self._wait(self._due - now, self._go)
                return
            self._due = max(self._due, now - BEHIND_S) + (1 / self.rate if self.rate else 0.0)
            self._make()
        self._in_flight = True
        self.sent += 1
        if self._awaits_reply:
            self._wait(ANSWER_S, self._answered, False)
        self._link.send(self.sent, self._message)

    def _make(self) -> None:
        template = self._dice.choice(self._templates)
        specimens = [self._specimen() for _ in template.specimens]
        now = datetime.now(self._zone)
        self._message = template.write(Fresh(specimens, now, self._dice, self.outside, self.critical))
        if self.profile.framing == "mllp":
            self._control_id = er7.parse(self._message.decode("latin-1")).segments[0].component(10)
            self._awaits_reply = acknowledge(self._message, "A", stamp="", control_id="") != ()

    def _answered(self, accepted: bool) -> None:
        """One transmission has its answer, or will never have it; nothing where none is in flight."""
        if not self._in_flight:
            return
        self._in_flight = False
        message = self._message
        if accepted:
            self.acknowledged += 1
            self._message = b""
            self._wait(0.0, self._go)  # not from within the link's own event
            self._on_event("acknowledged", message)
            if self.done:
                self._finished()
        else:
            self.refused += 1
            self._wait(AGAIN_S, self._go)
            self._on_event("refused", message)

    def _wait(self, seconds: float | None, call: Callable[..., None] | None = None, *arguments: Any) -> None:
        """Does this next, after so many seconds, and nothing else before it."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._reactor.callLater(seconds, call, *arguments) if call is not None else None

    def _machine(self) -> Machine:
        profile = self.profile
        if profile.framing == "mllp":
            return MllpLink(MllpSettings(answer_time=None))
        settings = Lis01Settings(role="instrument", frame_size=profile.frame_size, checksum=profile.checksum)
        return Lis01Link(settings)


def _numbered(prefix: str, dice: random.Random) -> Callable[[], str]:
    """Specimen ids in a row from a random one on: two runs hardly ever meet."""
    digits = max(4, 12 - len(prefix))
    numbers = itertools.count(dice.randrange(10**digits))
    return lambda: f"{prefix}{next(numbers) % 10**digits:0{digits}d}"
