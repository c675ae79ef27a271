"""One configured analyzer at work: its listener or connector, the wire settings of its profile, its counters."""

from typing import TYPE_CHECKING, Any

import structlog
from msgspec.structs import asdict

from labbridge.batch import refusal
from labbridge.config import Analyzer, Settings
from labbridge.links.stream import Machine, WireProtocol
from labbridge.links.tcp import Connector, Listener, State
from labbridge.pipeline import Moment
from labbridge.wire.events import Event
from labbridge.wire.lis01 import Lis01Link, Lis01Settings
from labbridge.wire.mllp import MllpLink, MllpSettings

if TYPE_CHECKING:
    from labbridge.daemon import Daemon

log = structlog.get_logger()
TELL_AGAIN = 60.0


class Station:
    """The links of one analyzer, and what they hand to intake."""

    def __init__(self, analyzer: Analyzer, daemon: "Daemon") -> None:
        self.analyzer = analyzer
        self.daemon = daemon
        self._told: dict[str, float] = {}
        address = analyzer.listen or analyzer.connect
        assert address is not None
        link = (daemon.reactor, address.host, address.port, self._machine, self)
        self._source: Listener | Connector
        if analyzer.listen:
            self._source = Listener(*link, allow=analyzer.allow, max_connections=analyzer.max_connections)
        else:
            self._source = Connector(*link, self._changed)

    def start(self) -> None:
        """Listens or connects. Raises ListenError."""
        self._source.start()

    def quiet(self) -> None:
        """Takes no more connections and reads no more; answers in flight still leave."""
        self._source.stop()
        for link in list(self._source.links):
            link.hold()

    def stop(self, why: str) -> None:
        """Closes everything."""
        self._source.stop()
        for link in list(self._source.links):
            link.close(why)

    def adapt(self, settings: Settings) -> bool:
        """Takes a changed configuration on without touching the links; False when the links must change."""
        new = next(a for a in settings.analyzers if a.name == self.analyzer.name)
        of_links = ("profile", "listen", "connect", "allow", "max_connections", "mllp_release", "timers")
        if any(getattr(new, name) != getattr(self.analyzer, name) for name in of_links):
            return False
        self.analyzer = new
        return True

    def _machine(self) -> Machine:
        profile = self.daemon.revision.analyzers[self.analyzer.name].profile
        own = {name: seconds for name, seconds in asdict(self.analyzer.timers).items() if seconds is not None}
        times: dict[str, Any] = {f"{name}_time": seconds for name, seconds in {**profile.timers, **own}.items()}
        if profile.framing == "mllp":
            times = {name: seconds for name, seconds in times.items() if name in ("answer_time", "reply_time")}
            return MllpLink(MllpSettings(release=self.analyzer.mllp_release, refusal=self._refusal, **times))
        if profile.ends_message == "eot":
            times["ends_message"] = lambda record: False  # no record does: EOT does
        frames: dict[str, Any] = {"frame_size": profile.frame_size, "checksum": profile.checksum, "numbered": profile.numbered}
        return Lis01Link(Lis01Settings(role="host", **frames, **times))

    def _refusal(self, payload: bytes) -> bytes:
        compiled, clock = self.daemon.revision, self.daemon.clock
        replies = refusal(payload, Moment.of(clock(), compiled.zone, self.daemon.intake.entropy))
        return b"\x1c\r\x0b".join(replies)  # each in a block of its own

    # -- what the links say --------------------------------------------------------------------------------------

    def opened(self, link: WireProtocol) -> None:
        """A connection is there."""
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

    def _changed(self, state: State) -> None:
        if not state.connected and state.failures == 1:
            log.warning("analyzer cannot be reached, trying again", analyzer=self.analyzer.name, why=state.why)

    def status(self) -> dict[str, Any]:
        """How this analyzer stands."""
        tally = self.daemon.intake.tally[self.analyzer.name]
        return {
            "name": self.analyzer.name,
            "profile": self.analyzer.profile,
            "address": str(self.analyzer.listen or self.analyzer.connect),
            "links": len(self._source.links),
            "messages": tally["message"],
            "reports": tally["report"],
            "held": tally["held"],
            "last": tally["last"],
        }
