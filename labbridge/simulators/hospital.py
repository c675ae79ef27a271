"""A simulated hospital: receives results over MLLP, keeps what it got, and answers as it is told to.

It acknowledges each message with AA, but for the faults that befall the answers in their shares.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labbridge.formats import charset, er7
from labbridge.formats.acknowledgement import Code, acknowledge
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Listener
from labbridge.model import RemoteProtocolError
from labbridge.simulators.faults import Faults
from labbridge.simulators.faulty import FaultyMllp, Reset, spoil
from labbridge.wire.events import Answer, Event, Received
from labbridge.wire.mllp import MllpLink, MllpSettings

LATE_S = 45.0

_CODES: dict[str, Code] = {"refuse": "E", "reject": "R"}  # HL7 table 0008; else A
NOT_TAKEN = ("refuse", "reject", "wrong-ack")


@dataclass(eq=False)
class Hospital:
    """One hospital system at one address; with ``port`` 0 the system chooses one when it starts.

    ``answer_delay`` in seconds; ``down_for`` is how many seconds pass before it listens; ``faults`` befall its answers.
    ``keep`` names a file that gets a JSON object a line for each message, before the answer leaves: at (seconds since
    1970), control_id, fate, message. A fate is "accept" or a fault; by those of NOT_TAKEN the hospital did not take the
    message. ``told`` hears of each message and its fate; ``fates`` counts them, ``repeated`` the MSH-10 that came again.
    """

    reactor: Any
    host: str
    port: int
    answer_delay: float = 0.0
    down_for: float = 0.0
    keep: Path | None = None
    faults: Faults = field(default_factory=Faults)
    told: Callable[[bytes, str], object] = lambda message, fate: None

    def __post_init__(self) -> None:
        self.received = self.distinct = self.repeated = 0
        self.fates: Counter[str] = Counter()
        self._seen: set[str] = set()
        self._last, self._another = "", "0"  # the last MSH-10, and that of another message before it
        self._listener = Listener(self.reactor, self.host, self.port, self._machine, self, max_connections=256)

    def _machine(self) -> Any:
        return FaultyMllp(lambda: MllpLink(MllpSettings(answer_time=None)), self.faults)

    def start(self) -> None:
        """Listens, once ``down_for`` is over; raises ListenError when the address cannot be had."""
        if self.down_for > 0:
            self.reactor.callLater(self.down_for, self._listener.start)
        else:
            self._listener.start()
            self.port = self._listener.port

    def opened(self, link: WireProtocol) -> None:
        """A sender is there."""

    def closed(self, link: WireProtocol, why: str) -> None:
        """A sender is gone."""

    def refused(self, host: str, why: str) -> None:
        """A peer was turned away."""

    def event(self, link: WireProtocol, event: Event | Reset) -> None:
        """Keeps and counts a message, then answers it."""
        if isinstance(event, Reset):
            link.drop("simulated")
        if not isinstance(event, Received):
            return
        self.received += 1
        fate = self._taken(event.payload)
        self.fates[fate] += 1
        self.told(event.payload, fate)
        stamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S%z")
        replies = acknowledge(event.payload, _CODES.get(fate, "A"), stamp=stamp, control_id=str(self.received))
        if fate == "wrong-ack":
            another = rb"\g<1>" + self._another.encode()
            replies = tuple(re.sub(rb"(\rMSA\|A.\|)[^|\r]*", another, reply) for reply in replies)
        delay = self.faults.seconds(LATE_S) if fate == "late-ack" else self.answer_delay
        self.reactor.callLater(delay, self._answer, link, event.token, fate, replies)

    def _answer(self, link: WireProtocol, token: int, fate: str, replies: tuple[bytes, ...]) -> None:
        dice: Any = self.faults.dice
        if fate == "reset" and dice.random() < 0.5:
            link.drop("simulated")
            return
        if fate == "late-ack" and link not in self._listener.links and self._listener.links:
            other = dice.choice(sorted(self._listener.links, key=id))
            for reply in replies:
                other.send(0, reply)
            return
        if fate == "no-ack":
            replies = ()
        elif fate == "wrong-charset":
            replies = tuple(map(spoil, replies))
        elif fate == "truncate":  # within MSA, or before it
            replies = tuple(reply[: dice.randint(1, reply.find(b"\rMSA|") + 5)] for reply in replies)
        elif fate == "oversize":
            replies = tuple(reply + b"ZZZ|" + b"A" * self.faults.excess for reply in replies)
        else:
            machine: Any = link.machine
            machine.arm(fate)
        link.settle(token, Answer(True, replies))

    def _taken(self, payload: bytes) -> str:
        """Keeps a message; returns its fate. What is none is rejected."""
        text, _ = charset.decode(payload, ("UTF-8",))
        try:
            control_id = er7.parse(text).segments[0].component(10)
        except RemoteProtocolError:
            return "reject"
        fate = self.faults.draw() or "accept"
        if control_id != self._last:
            self._another, self._last = self._last or "0", control_id
        self.repeated += control_id in self._seen
        self._seen.add(control_id)
        self.distinct = len(self._seen)
        if self.keep is not None:
            line = {"at": time.time(), "control_id": control_id, "fate": fate, "message": text}
            with self.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return fate
