"""One configured analyzer at work: its listener or connector, the wire settings of its profile, its counters."""

from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import asdict

from labbridge import capture
from labbridge.batch import files_of, refusal
from labbridge.config import Analyzer, Settings
from labbridge.links.folder import Folder, FolderLink
from labbridge.links.serial import LineSettings, SerialLine
from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Connector, Listener
from labbridge.links.tls import SecurityError
from labbridge.outages import Outage
from labbridge.pipeline import Moment
from labbridge.security import security_of
from labbridge.wire.events import Event
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.lis01_frames import is_terminator
from labbridge.wire.mllp import MllpLink, MllpSettings
from labbridge.wire.raw import RawLink, RawSettings

if TYPE_CHECKING:
    from labbridge.daemon import Daemon
    from labbridge.destinations import Connections
    from labbridge.profiles import Profile

log = structlog.get_logger()
TELL_AGAIN = 60.0
ASK_AGAIN = 0.1
_TIMES = {  # the timers that each kind of machine has
    "mllp": ("answer_time", "reply_time"),
    "lis01": ("answer_time", "reply_time", "receive_time", "busy_time", "contention_time", "interrupt_time"),
    "raw": ("receive_time",),
}
_OF_LINKS = (  # what cannot change while a link is open
    *("profile", "listen", "connect", "serial", "folder", "settle", "allow", "max_connections", "max_message"),
    *("idle_timeout", "framing", "mllp_release", "tls", "frames", "timers"),
)


class Station:
    """The links of one analyzer, and what they hand to intake. Raises SecurityError."""

    def __init__(self, analyzer: Analyzer, daemon: "Daemon") -> None:
        self.analyzer = analyzer
        self.daemon = daemon
        self._told: dict[str, float] = {}
        self._outage = Outage("analyzer", analyzer.name, daemon.reactor)
        self._source = self._made()
        self._left: float | None = None  # when the last connection that was made to us was gone

    def start(self) -> None:
        """Listens, connects, opens or looks. Raises ListenError."""
        if isinstance(self._source, Folder):
            self._begin(self._source)
        else:
            self._source.start()

    def _begin(self, folder: Folder) -> None:
        """Looks as soon as the store has told which files it knows, all that came of them earlier included."""
        daemon, name = self.daemon, self.analyzer.name
        if daemon.intake.accepting and not daemon.intake.unsettled[name]:
            daemon.store.submit(lambda tx: files_of(tx, name), folder.start, lambda error: self._begin_later(folder))
        else:
            self._begin_later(folder)

    def _begin_later(self, folder: Folder) -> None:
        if not folder.stopped:
            self.daemon.reactor.callLater(ASK_AGAIN, self._begin, folder)

    def quiet(self) -> None:
        """Takes no more connections and reads no more; answers in flight still leave."""
        self._source.stop()
        for link in self._links:
            link.hold()

    def stop(self, why: str) -> None:
        """Closes everything."""
        self._source.stop()
        for link in self._links:
            link.close(why)

    def adapt(self, settings: Settings) -> bool:
        """Takes a changed configuration on without touching the links; False when the links must change."""
        new = next(a for a in settings.analyzers if a.name == self.analyzer.name)
        if any(getattr(new, name) != getattr(self.analyzer, name) for name in _OF_LINKS):
            return False
        self.analyzer = new
        return True

    @property
    def _links(self) -> list[WireProtocol | FolderLink]:
        return list(self._source.links)

    def renew(self) -> None:
        """Reads the certificates again, for the connections to come. Raises SecurityError."""
        if isinstance(self._source, Listener | Connector):
            self._source.security = security_of(self.analyzer)

    def _made(self) -> Listener | Connector | SerialLine | Folder:
        """Where this analyzer's links come from."""
        one, reactor, changed = self.analyzer, self.daemon.reactor, self._outage.changed
        common: dict[str, Any] = {"idle_time": one.idle_timeout}
        if one.listen is not None:
            common |= {"security": security_of(one), "allow": one.allow, "max_connections": one.max_connections}
            return Listener(reactor, one.listen.host, one.listen.port, self._machine, self, **common)
        if one.connect is not None:
            common |= {"security": security_of(one)}
            return Connector(reactor, one.connect.host, one.connect.port, self._machine, self, changed, **common)
        if one.serial.device is not None:
            line = LineSettings(one.serial.baud, one.serial.bytesize, one.serial.parity, one.serial.stopbits, one.serial.flow)
            return SerialLine(reactor, one.serial.device, line, self._machine, self, changed, **common)
        assert one.folder is not None
        limits: dict[str, Any] = {"settle_time": one.settle, "max_message": one.max_message}
        return Folder(reactor, one.folder, self._unframed, self, changed, **limits)

    @property
    def _profile(self) -> "Profile":
        return self.daemon.revision.analyzers[self.analyzer.name].profile

    def _machine(self) -> Machine:
        profile, one = self._profile, self.analyzer
        framing = one.framing or profile.framing
        own = {name: seconds for name, seconds in asdict(one.timers).items() if seconds is not None}
        times = {f"{name}_time": seconds for name, seconds in {**profile.timers, **own}.items()}
        common: dict[str, Any] = {name: times[name] for name in _TIMES[framing] if name in times}
        common["max_message"] = one.max_message
        if framing == "mllp":
            return MllpLink(MllpSettings(release=one.mllp_release, refusal=self._refusal, **common))
        if framing == "raw":
            return RawLink(RawSettings(ends_message=None if profile.ends_message == "eot" else is_terminator, **common))
        if profile.ends_message == "eot":
            common["ends_message"] = lambda record: False  # no record does: EOT does
        frames: dict[str, Any] = {"frame_size": profile.frame_size, "checksum": profile.checksum, "numbered": profile.numbered}
        own_frames = {"frame_size" if name == "size" else name: value for name, value in asdict(one.frames).items()}
        frames |= {name: value for name, value in own_frames.items() if value is not None}
        return Lis01Link(Lis01Settings(role="host", **frames, **common))

    def _unframed(self, data: bytes) -> tuple[list[bytes], list[str]]:
        """The messages of a file; where its frames are not in order all of it is one, which will be shown to a person."""
        found, odd = capture.messages(data, "mllp" if self._profile.protocol == "hl7v2" else "lis01")
        return ([data], odd) if odd else (found, [])

    def _refusal(self, payload: bytes) -> bytes:
        compiled, clock = self.daemon.revision, self.daemon.clock
        replies = refusal(payload, Moment.of(clock(), compiled.zone, self.daemon.intake.entropy))
        return b"\x1c\r\x0b".join(replies)  # each in a block of its own

    # -- what the links say --------------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """A connection is there."""
        self._left = None
        self.daemon.metrics.links.labels(self.analyzer.name).inc()
        log.info("connected", analyzer=self.analyzer.name, peer=link.peer)
        self.daemon.intake.opened(self.analyzer.name, link)

    def event(self, link: WireProtocol, event: Event) -> None:
        """Everything that arrives is intake's."""
        self.daemon.intake.event(link, event)

    def closed(self, link: WireProtocol, why: str) -> None:
        """The connection is gone."""
        self.daemon.metrics.links.labels(self.analyzer.name).dec()
        log.info("disconnected", analyzer=self.analyzer.name, peer=link.peer, why=why)
        self._left = self.daemon.reactor.seconds()
        self.daemon.intake.closed(link)

    def refused(self, peer: str, why: str) -> None:
        """A peer was turned away: told once a minute and address."""
        self.daemon.metrics.refused_peers.labels(self.analyzer.name).inc()
        now = self.daemon.reactor.seconds()
        if now - self._told.get(peer, -TELL_AGAIN) >= TELL_AGAIN:
            if len(self._told) > 1000:
                self._told.clear()
            self._told[peer] = now
            log.warning("connection refused", analyzer=self.analyzer.name, peer=peer, why=why)

    def _down_seconds(self) -> int:
        """For how long it has been unreachable, or has not been connected to us any more; 0 where it is, or never was."""
        if self.analyzer.listen is None:
            return self._outage.seconds
        if self._left is None or any(link.peer for link in self._links):
            return 0
        return max(1, int(self.daemon.reactor.seconds() - self._left))

    def status(self) -> dict[str, Any]:
        """How this analyzer stands: times in seconds, ``last`` since 1970, ``down`` and ``skew`` as spans."""
        tally = self.daemon.intake.tally[self.analyzer.name]
        return {
            "name": self.analyzer.name,
            "profile": self.analyzer.profile,
            "address": self.analyzer.place,
            "listens": self.analyzer.listen is not None,
            "links": sum(bool(link.peer) for link in self._links),
            "down": self._down_seconds(),
            "why": self._outage.why,
            "messages": tally["message"],
            "reports": tally["report"],
            "held": tally["held"],
            "last": tally["last"],
            "skew": tally["skew"],
        }


def renewed(*named: "tuple[str, Station | Connections]") -> list[str]:
    """Reads all certificates again; returns what went wrong, and there the old ones go on."""
    problems = []
    for name, each in named:
        try:
            each.renew()
        except SecurityError as error:
            problems.append(f"{name}: {error}")
    return problems
