"""What must fit together in a configuration that is well formed: names, addresses, targets, folders."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from itertools import combinations

import msgspec

from labbridge.config.reading import KeyPath, Mistake
from labbridge.config.settings import Address, Analyzer, Destination, Named, Settings

_SOCKET_PATH_BYTES = 107  # sun_path of Linux without its end


def mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every mistake that takes more than one value to see."""
    yield from _names("analyzer", settings.analyzers)
    yield from _names("destination", settings.destinations)
    for index, analyzer in enumerate(settings.analyzers):
        yield from _analyzer(analyzer, ("analyzer", index))
    for index, destination in enumerate(settings.destinations):
        yield from _destination(destination, ("destination", index))
    yield from _routes(settings)
    yield from _ports(settings)
    yield from _folders(settings)


def _names(section: str, items: Sequence[Named]) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        at: KeyPath = (section, index, "name")
        if not re.fullmatch(r"[\w.-]{1,40}", item.name):
            yield at, f'"{item.name}" is no name', "use letters, digits, and . _ - between them, at most 40"
        elif item.name in seen:
            yield at, f'there is another {section} "{item.name}"', "give each its own name"
        seen.add(item.name)


def _analyzer(analyzer: Analyzer, at: KeyPath) -> Iterator[Mistake]:
    if analyzer.listen and analyzer.connect:
        yield (*at, "connect"), "both listen and connect", "keep listen when the analyzer connects to us, else connect"
    if not analyzer.listen and not analyzer.connect:
        yield (at, "neither listen nor connect", 'add listen = "127.0.0.1:5001" when the analyzer connects to us, else connect')
    for name, seconds in msgspec.structs.asdict(analyzer.timers).items():
        if seconds == 0:
            yield (*at, "timers", name), "a timer of no length", 'write e.g. "15s"'


def _destination(destination: Destination, at: KeyPath) -> Iterator[Mistake]:
    if destination.timeout == 0:
        yield (*at, "timeout"), "a time-out of no length", 'write e.g. "30s"'
    for field in destination.oru.fields:
        if not re.fullmatch(r"[A-Z][A-Z0-9]{2}-[1-9][0-9]?(\.[1-9][0-9]?){0,2}", field):
            yield (*at, "oru", "fields", field), "not a field of HL7", 'write e.g. "OBR-3" or "PID-3.1"'
    for index, segment in enumerate(destination.oru.segments):
        if not re.match(r"[A-Z][A-Z0-9]{2}\|", segment):
            yield (*at, "oru", "segments", index), "not a segment of HL7", 'write e.g. "ZLB|{specimen.id}"'


def _routes(settings: Settings) -> Iterator[Mistake]:
    destinations = [destination.name for destination in settings.destinations]
    analyzers = [analyzer.name for analyzer in settings.analyzers]
    for index, route in enumerate(settings.routes):
        if route.to not in destinations:
            yield ("route", index, "to"), f'no destination "{route.to}"', _one_of(destinations, "[[destination]]")
        for number, name in enumerate(route.analyzers):
            if name not in analyzers:
                yield (("route", index, "analyzers", number), f'no analyzer "{name}"', _one_of(analyzers, "[[analyzer]]"))


def _one_of(names: Sequence[str], heading: str) -> str:
    return "there are: " + ", ".join(names) if names else f"add a {heading} of this name"


def _ports(settings: Settings) -> Iterator[Mistake]:
    taken: list[tuple[KeyPath, Address]] = []
    for index, analyzer in enumerate(settings.analyzers):
        if analyzer.listen:
            taken.append((("analyzer", index, "listen"), analyzer.listen))
    if settings.http.listen:
        taken.append((("http", "listen"), settings.http.listen))
    for (first, one), (second, other) in combinations(taken, 2):
        if one.port == other.port and _meet(one.host, other.host):
            name = settings.analyzers[int(first[1])].name
            yield second, f'port {other.port} is taken by analyzer "{name}"', "choose another port"


def _meet(one: str, other: str) -> bool:
    """Two hosts are the same interface, or one of them is all interfaces."""
    hosts = {"127.0.0.1" if host == "localhost" else host for host in (one, other)}
    return len(hosts) == 1 or any(_is_everywhere(host) for host in hosts)


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _folders(settings: Settings) -> Iterator[Mistake]:
    for key in ("analyzers", "mappings"):
        folder = getattr(settings.library, key)
        if folder and not folder.is_dir():
            yield ("library", key), f"no folder {folder}", "make the folder, or take the line out"
    if settings.store.file and not settings.store.file.parent.is_dir():
        yield ("store", "url"), f"no folder {settings.store.file.parent}", "make the folder, or correct the path"
    socket = settings.control.path
    if len(bytes(socket)) > _SOCKET_PATH_BYTES:
        yield (
            ("control", "path"),
            f"longer than the {_SOCKET_PATH_BYTES} bytes of a socket's path",
            'add [control] path = "/run/labbridge.sock"',
        )
    elif not socket.parent.is_dir():
        yield ("control", "path"), f"no folder {socket.parent}", "make the folder, or correct the path"
