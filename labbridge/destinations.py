"""One configured destination at work: its connections, and what is told of its outages."""

from typing import Any

import structlog

from labbridge.config import Destination
from labbridge.delivery import Outbox
from labbridge.links.tcp import Connector, State
from labbridge.wire.mllp import MllpLink, MllpSettings

log = structlog.get_logger()

REMIND_SECONDS = 900.0


class Connections:
    """The connections to one destination, one for each courier of its outbox.

    One log line for an outage, a reminder while it lasts, one when it ends.
    """

    def __init__(self, destination: Destination, outbox: Outbox, reactor: Any) -> None:
        self.name = destination.name
        self._reactor = reactor
        self._down_since: float | None = None
        self._told = 0.0
        host, port = destination.connect.host, destination.connect.port
        settings = MllpSettings(release=destination.mllp_release, answer_time=None)
        self._connectors = [
            Connector(reactor, host, port, lambda: MllpLink(settings), courier, self._changed) for courier in outbox.couriers
        ]

    def start(self) -> None:
        """Connects, and goes on trying."""
        for connector in self._connectors:
            connector.start()

    def quiet(self) -> None:
        """Makes no more connections; what is in flight is still answered."""
        for connector in self._connectors:
            connector.stop()

    def stop(self, why: str) -> None:
        """Closes everything."""
        self.quiet()
        for link in [link for connector in self._connectors for link in connector.links]:
            link.close(why)

    def _changed(self, state: State) -> None:
        """Hears from each of the connectors."""
        now = self._reactor.seconds()
        if state.connected:
            if self._down_since is not None:
                log.info("destination is back", destination=self.name, seconds=round(now - self._down_since))
            self._down_since = None
        elif self._down_since is None or now - self._told >= REMIND_SECONDS:
            if self._down_since is None:
                self._down_since = now
            self._told = now
            seconds = round(now - self._down_since)
            log.warning("destination is down, trying again and again", destination=self.name, why=state.why, seconds=seconds)
