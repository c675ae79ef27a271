"""A small HTTP port for monitoring: /metrics (Prometheus) and /healthz. Off unless ``[http] listen`` is given."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from twisted.internet.error import CannotListenError
from twisted.web.resource import Resource
from twisted.web.server import Site

from labbridge.config import Address
from labbridge.links.tcp import ListenError

if TYPE_CHECKING:
    from labbridge.daemon import Daemon


class Page(Resource):
    """One page, made anew for each request."""

    isLeaf = True  # noqa: N815 (Twisted's name)

    def __init__(self, render: Callable[[Any], bytes]) -> None:
        Resource.__init__(self)
        self._render = render

    def render_GET(self, request: Any) -> bytes:  # noqa: N802 (Twisted's name)
        """The page."""
        return self._render(request)


def listen(reactor: Any, address: Address, daemon: "Daemon") -> Any:
    """Opens the port: all counters in Prometheus' text format, and 200 while the store commits (else 503).

    Raises ListenError.
    """

    def metrics(request: Any) -> bytes:
        for outbox in daemon.destinations.outboxes.values():
            daemon.metrics.queue.labels(outbox.name).set(outbox.depth)
            daemon.metrics.oldest.labels(outbox.name).set(outbox.oldest())
        request.setHeader(b"content-type", CONTENT_TYPE_LATEST.encode())
        return generate_latest(daemon.metrics.registry)

    def health(request: Any) -> bytes:
        status = daemon.status()
        well = status["store"] == "ready" and daemon.intake.accepting and not daemon.intake.failing
        request.setResponseCode(200 if well else 503)
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(status).encode()

    root: Any = Resource()
    root.putChild(b"metrics", Page(metrics))
    root.putChild(b"healthz", Page(health))
    site: Any = Site(root)
    site.noisy = False
    try:
        return reactor.listenTCP(address.port, site, interface=address.host)
    except CannotListenError as error:
        why = error.socketError.strerror or str(error.socketError)
        raise ListenError(f"cannot listen on {address}: {why.lower()} - choose another port") from error
