"""A simulated hospital: receives results over MLLP, keeps what it got, and answers as it is told to.

It acknowledges each message with AA, or refuses, rejects, hangs and drops connections in the shares that it is given,
which may be changed at any time.
"""

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from labbridge.formats import charset, er7
from labbridge.formats.acknowledgement import Code, acknowledge
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Listener
from labbridge.model import RemoteProtocolError
from labbridge.wire.events import Answer, Event, Received
from labbridge.wire.mllp import MllpLink, MllpSettings

_CODES: dict[str, Code] = {"accept": "A", "refuse": "E", "reject": "R"}  # HL7 table 0008


@dataclass(eq=False)
class Hospital:
    """One hospital system at one address; with ``port`` 0 the system chooses one when it starts.

    ``answer_delay`` in seconds; ``refuse`` (AE), ``reject`` (AR), ``hang`` (no answer ever) and ``drop`` (the connection
    is dropped instead) are shares of the messages, 0 to 1; ``down_for`` is how many seconds pass before it listens.
    ``keep`` names a file that gets a JSON object a line for each message, before the answer leaves: at (seconds since
    1970), control_id, fate, message. ``fates`` counts what became of the messages, ``repeated`` the MSH-10 that came again.
    """

    reactor: Any
    host: str
    port: int
    answer_delay: float = 0.0
    refuse: float = 0.0
    reject: float = 0.0
    hang: float = 0.0
    drop: float = 0.0
    down_for: float = 0.0
    keep: Path | None = None

    def __post_init__(self) -> None:
        self.received = self.distinct = self.repeated = 0
        self.fates: Counter[str] = Counter()
        self._seen: set[str] = set()
        machine = partial(MllpLink, MllpSettings(answer_time=None))
        self._listener = Listener(self.reactor, self.host, self.port, machine, self, max_connections=256)

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

    def event(self, link: WireProtocol, event: Event) -> None:
        """Keeps and counts a message, then answers it."""
        if not isinstance(event, Received):
            return
        self.received += 1
        fate = self._taken(event.payload)
        self.fates[fate] += 1
        if fate == "drop":
            link.drop("simulated")
            return
        stamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S%z")
        replies = acknowledge(event.payload, _CODES[fate], stamp=stamp, control_id=str(self.received)) if fate in _CODES else ()
        self.reactor.callLater(self.answer_delay, link.settle, event.token, Answer(True, replies))

    def _taken(self, payload: bytes) -> str:
        """Keeps a message; returns its fate. What is none is rejected."""
        text, _ = charset.decode(payload, ("UTF-8",))
        try:
            control_id = er7.parse(text).segments[0].component(10)
        except RemoteProtocolError:
            return "reject"
        fates = ("hang", "drop", "refuse", "reject", "accept")
        shares = (self.hang, self.drop, self.refuse, self.reject)
        fate = random.choices(fates, (*shares, max(0.0, 1 - sum(shares))))[0]  # noqa: S311 (a game, no secret)
        self.repeated += control_id in self._seen
        self._seen.add(control_id)
        self.distinct = len(self._seen)
        if self.keep is not None:
            line = {"at": time.time(), "control_id": control_id, "fate": fate, "message": text}
            with self.keep.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return fate
