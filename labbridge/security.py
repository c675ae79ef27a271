"""What a configuration says of safety on the wire: certificates as they must be, and results in clear text."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from labbridge.config import Analyzer, Destination, Settings, place
from labbridge.links.tls import Security, SecurityError


def security_of(one: Analyzer | Destination) -> Security | None:
    """TLS as an analyzer's or a destination's entry wants it, or None. Raises SecurityError."""
    tls = one.tls
    if isinstance(one, Analyzer) and one.listen is not None:
        return Security(tls.certificate, tls.key, tls.ca) if tls.certificate else None
    if one.connect is None or tls.ca is None:
        return None
    return Security(tls.certificate, tls.key, tls.ca, name=tls.name or one.connect.host)


def mistakes(settings: Settings, path: Path) -> Iterator[str]:
    """Every certificate and key that cannot be used, with its place in the file of the settings."""
    entries: list[tuple[str, int, Analyzer | Destination]] = [("analyzer", *each) for each in enumerate(settings.analyzers)]
    entries += [("destination", *each) for each in enumerate(settings.destinations)]
    for section, number, one in entries:
        try:
            security_of(one)
        except SecurityError as error:
            yield place(path, section, number, "tls", error.key) + str(error)
    try:
        Security(settings.console.tls.certificate, settings.console.tls.key, None)
    except SecurityError as error:
        yield place(path, "console", "tls", error.key) + str(error)


def notices(settings: Settings) -> Iterator[str]:
    """What crosses a network for everybody to read."""
    for analyzer in settings.analyzers:
        admits = any(not ipaddress.ip_network(network).is_loopback for network in analyzer.allow)
        address = analyzer.connect or (analyzer.listen if admits else None)
        if address is not None and not (analyzer.tls.certificate or analyzer.tls.ca) and not _here(address.host):
            yield f'analyzer "{analyzer.name}": results cross the network in clear text; [analyzer.tls] encrypts them'
    for destination in settings.destinations:
        if not destination.tls.ca and not _here(destination.connect.host):
            yield f'destination "{destination.name}": results cross the network in clear text; [destination.tls] encrypts them'
    console = settings.console
    if console.listen is not None and not console.tls.certificate and not _here(console.listen.host):
        yield "console: passwords and results cross the network in clear text; [console.tls] encrypts them"


def _here(host: str) -> bool:
    """Whether an address stays within this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
