"""A simulated hospital: receives results over MLLP, keeps what it got, and answers as it is told to.

It acknowledges each message with AA, or refuses, rejects, hangs and drops connections in the shares that it is given,
which may be changed at any time. Beside what came it counts what a hospital must never see: one MSH-10 with two
contents, and the messages of one specimen out of their order.
"""

import base64
import hashlib
import json
import random
import time
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO

from labbridge.formats import charset, er7
from labbridge.formats.acknowledgement import Code, acknowledge
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Listener
from labbridge.model import RemoteProtocolError
from labbridge.wire.events import Answer, Event, Received
from labbridge.wire.mllp import MllpLink, MllpSettings

Fate = Literal["accepted", "refused", "rejected", "hung", "dropped"]

_CODES: dict[Fate, Code] = {"accepted": "A", "refused": "E", "rejected": "R"}  # HL7 table 0008
_AILMENTS: tuple[Fate, ...] = ("hung", "dropped", "refused", "rejected")


class Hospital:
    """One hospital system at one address; with ``port`` 0 the system chooses one when it starts.

    ``answer_delay`` in seconds; ``refuse`` (AE), ``reject`` (AR), ``hang`` (no answer ever) and ``drop`` (the connection
    is dropped instead) are shares of the messages, 0 to 1; ``down_for`` is how many seconds pass before it listens.
    ``keep`` names a file that gets a JSON object a line for each message, flushed before the answer leaves: at (seconds
    since 1970), control_id, fate, message.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        *,
        answer_delay: float = 0.0,
        refuse: float = 0.0,
        reject: float = 0.0,
        hang: float = 0.0,
        drop: float = 0.0,
        down_for: float = 0.0,
        keep: Path | None = None,
        seed: int | None = None,
    ) -> None:
        self.answer_delay = answer_delay
        self.refuse, self.reject, self.hang, self.drop = refuse, reject, hang, drop
        self.down_for = down_for
        self.keep = keep
        self.received = 0
        self.answers: Counter[Fate] = Counter()
        self.unreadable = 0  # no message at all: always rejected
        self.repeated = 0  # an MSH-10 came again
        self.changed = 0  # ... with other bytes
        self.disordered = 0  # a message came after a newer one of its specimen
        self._seen: dict[str, bytes] = {}  # MSH-10 -> digest
        self._newest: dict[str, tuple[str, int, str]] = {}  # specimen -> MSH-7, the time in MSH-10, MSH-10
        self._reactor = reactor
        self._dice = random.Random(seed)  # noqa: S311 (a game, no secret)
        self._file: TextIO | None = None
        self._opening: Any = None
        machine = partial(MllpLink, MllpSettings(answer_time=None))
        self._listener = Listener(reactor, host, port, machine, self, max_connections=256)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._listener.port

    @property
    def distinct(self) -> int:
        """How many different MSH-10 came."""
        return len(self._seen)

    def start(self) -> None:
        """Listens, once ``down_for`` is over; raises ListenError when the address cannot be had."""
        if self.keep is not None:
            self._file = self.keep.open("a", encoding="utf-8")
        if self.down_for > 0:
            self._opening = self._reactor.callLater(self.down_for, self._listener.start)
        else:
            self._listener.start()

    def stop(self) -> Any:
        """Goes down and drops its connections; a Deferred that fires when the port is free. It may start again."""
        if self._opening is not None and self._opening.active():
            self._opening.cancel()
        for link in list(self._listener.links):
            link.drop("the hospital goes down")
        if self._file is not None:
            self._file.close()
            self._file = None
        return self._listener.stop()

    # -- what the listener calls -----------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """A sender is there."""

    def closed(self, link: WireProtocol, why: str) -> None:
        """A sender is gone."""

    def refused(self, peer: str, why: str) -> None:
        """A peer was turned away."""

    def event(self, link: WireProtocol, event: Event) -> None:
        """Keeps and counts a message, then answers it."""
        if not isinstance(event, Received):
            return
        self.received += 1
        text, _ = charset.decode(event.payload, ("UTF-8",))
        try:
            message = er7.parse(text)
        except RemoteProtocolError:
            self.unreadable += 1
            fate: Fate = "rejected"
        else:
            fate = self._fate()
            self._take(message, text, event.payload, fate)
        self.answers[fate] += 1
        if fate == "dropped":
            link.drop("simulated")
        elif self.answer_delay > 0:
            self._reactor.callLater(self.answer_delay, link.settle, event.token, self._answer(event.payload, fate))
        else:
            link.settle(event.token, self._answer(event.payload, fate))

    # -- what it does with a message -------------------------------------------------------------------------------

    def _fate(self) -> Fate:
        chance = self._dice.random()
        for fate, share in zip(_AILMENTS, (self.hang, self.drop, self.refuse, self.reject), strict=True):
            if chance < share:
                return fate
            chance -= share
        return "accepted"

    def _take(self, message: er7.Message, text: str, payload: bytes, fate: Fate) -> None:
        header, order = message.segments[0], message.first("OBR")
        control_id, specimen = header.component(10), order.component(3) if order else ""
        if self._file is not None:
            line = {"at": time.time(), "control_id": control_id, "fate": fate, "message": text}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        digest = hashlib.sha256(payload).digest()
        known = self._seen.setdefault(control_id, digest)
        made = (header.component(7)[:14], _made_ms(control_id), control_id)
        newest = self._newest.setdefault(specimen, made)
        if known is not digest:
            self.repeated += 1
            self.changed += known != digest
            self.disordered += newest[2] != control_id
        elif made[:2] < newest[:2]:
            self.disordered += 1
        else:
            self._newest[specimen] = made

    def _answer(self, payload: bytes, fate: Fate) -> Answer:
        if fate not in _CODES:
            return Answer(True)
        stamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S%z")
        return Answer(True, acknowledge(payload, _CODES[fate], stamp=stamp, control_id=str(self.received)))


def _made_ms(control_id: str) -> int:
    """The time in the first 48 bits of labbridge's MSH-10 (20 characters of base32); 0 in any other."""
    try:
        return int.from_bytes(base64.b32decode(control_id + "====")[:6], "big") if len(control_id) == 20 else 0
    except ValueError:
        return 0
