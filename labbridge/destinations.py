"""One configured destination at work: its connections, and what is told of its outages."""

from typing import Any

from labbridge.config import Destination
from labbridge.delivery import Outbox
from labbridge.links.tcp import Connector
from labbridge.outages import Outage
from labbridge.security import security_of
from labbridge.wire.mllp import MllpLink, MllpSettings


class Connections:
    """The connections to one destination, one for each courier of its outbox. Raises SecurityError."""

    def __init__(self, destination: Destination, outbox: Outbox, reactor: Any) -> None:
        self.destination = destination
        host, port = destination.connect.host, destination.connect.port
        settings = MllpSettings(release=destination.mllp_release, answer_time=None, max_message=destination.max_message)
        changed = Outage("destination", destination.name, reactor).changed
        security = security_of(destination)
        self._connectors = [
            Connector(reactor, host, port, lambda: MllpLink(settings), courier, changed, security=security)
            for courier in outbox.couriers
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

    def renew(self) -> None:
        """Reads the certificates again, for the connections to come. Raises SecurityError."""
        security = security_of(self.destination)
        for connector in self._connectors:
            connector.security = security
