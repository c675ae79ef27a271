"""What must fit together in a configuration that is well formed: names, addresses, targets, folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from labbridge.config.reading import KeyPath, Mistake
from labbridge.config.settings import Address, Analyzer, AnalyzerTls, Destination, Settings, Tls

SHORTEST_KEEP = 86_400.0
_SOCKET_PATH_BYTES = 107  # sun_path of Linux without its end
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 (not bound here)


def mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every mistake that takes more than one value to see."""
    yield from _names("analyzer", settings.analyzers)
    yield from _names("destination", settings.destinations)
    for index, analyzer in enumerate(settings.analyzers):
        yield from _connection(("analyzer", index), analyzer)
    for index, destination in enumerate(settings.destinations):
        yield from _tls(("destination", index, "tls"), destination.tls, connects=True)
    yield from _console(settings)
    yield from _routes(settings)
    yield from _ports(settings)
    yield from _devices(settings)
    yield from _folders(settings)
    yield from _keep(settings)


def _connection(at: KeyPath, analyzer: Analyzer) -> Iterator[Mistake]:
    ways = {"listen": analyzer.listen, "connect": analyzer.connect, "serial": analyzer.serial.device, "folder": analyzer.folder}
    given = [way for way, value in ways.items() if value is not None]
    if len(given) != 1:
        what = f"{' and '.join(given)} together" if given else "not connected"
        remedy = 'write listen = "127.0.0.1:5001" if the analyzer connects to us, or else connect, serial or folder'
        yield at, f"{what} - {remedy}"
        return
    tls = analyzer.tls
    if tls != AnalyzerTls() and given[0] not in ("listen", "connect"):
        yield (*at, "tls"), f"there is no TLS with {given[0]} - remove it"
    elif given == ["listen"]:
        yield from _tls((*at, "tls"), tls, connects=False)
        if tls.clients == "required" and tls.ca is None:
            yield (*at, "tls", "clients"), "nobody is trusted - add ca, the file with who signs the clients' certificates"
        if tls.clients == "none" and tls.ca is not None:
            yield (*at, "tls", "clients"), "ca is for the clients' certificates - remove one of the two"
        if tls.name:
            yield (*at, "tls", "name"), "only what we connect to has a name to be verified - remove it"
    else:
        yield from _tls((*at, "tls"), tls, connects=True)
        if tls.clients is not None:
            yield (*at, "tls", "clients"), "only a listener has clients - remove it"


def _tls(at: KeyPath, tls: Tls, *, connects: bool) -> Iterator[Mistake]:
    if (tls.certificate is None) != (tls.key is None):
        missing = "key" if tls.key is None else "certificate"
        yield at, f"certificate and key go together - add {missing}"
    elif tls != type(tls)() and not connects and tls.certificate is None:
        yield at, "a listener needs a certificate - add certificate and key"
    elif tls != type(tls)() and connects and tls.ca is None:
        yield at, "nobody is trusted - add ca, the file with who signs the other side's certificate"


def _console(settings: Settings) -> Iterator[Mistake]:
    tls = settings.console.tls
    if (tls.certificate is None) != (tls.key is None):
        missing = "key" if tls.key is None else "certificate"
        yield ("console", "tls"), f"certificate and key go together - add {missing}"


def _names(section: str, items: Sequence[Analyzer] | Sequence[Destination]) -> Iterator[Mistake]:
    names = [item.name for item in items]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (section, index, "name"), f'there is another {section} "{name}" - give each its own name'


def _routes(settings: Settings) -> Iterator[Mistake]:
    destinations = [destination.name for destination in settings.destinations]
    analyzers = [analyzer.name for analyzer in settings.analyzers]
    for index, route in enumerate(settings.routes):
        if route.to not in destinations:
            yield ("route", index, "to"), f'no destination "{route.to}" - there are: {", ".join(destinations) or "none"}'
        for number, name in enumerate(route.analyzers):
            if name not in analyzers:
                what = f'no analyzer "{name}" - there are: {", ".join(analyzers) or "none"}'
                yield ("route", index, "analyzers", number), what


def _ports(settings: Settings) -> Iterator[Mistake]:
    analyzers = ((("analyzer", index, "listen"), analyzer.listen) for index, analyzer in enumerate(settings.analyzers))
    taken: list[Address] = []
    ours = ((("http", "listen"), settings.http.listen), (("console", "listen"), settings.console.listen))
    for at, address in (*analyzers, *ours):
        if address is not None:
            for other in taken:
                if address.port == other.port and (address.host == other.host or _EVERYWHERE & {address.host, other.host}):
                    yield at, f"{other} is taken already - choose another port"
            taken.append(address)


def _devices(settings: Settings) -> Iterator[Mistake]:
    """No two analyzers may share a serial line or a folder."""
    taken: dict[Path, str] = {}
    for index, analyzer in enumerate(settings.analyzers):
        for key, path in (("serial", analyzer.serial.device), ("folder", analyzer.folder)):
            if path is not None and path in taken:
                yield ("analyzer", index, key), f"{path} is that of {taken[path]} - give each analyzer its own"
            elif path is not None:
                taken[path] = analyzer.name


def _folders(settings: Settings) -> Iterator[Mistake]:
    file, socket = settings.store.file, settings.control.path
    folders = {
        ("library", "analyzers"): settings.library.analyzers,
        ("library", "mappings"): settings.library.mappings,
        ("store", "url"): file and file.parent,
        ("control", "path"): socket.parent,
    }
    for at, folder in folders.items():
        if folder is not None and not folder.is_dir():
            yield at, f"no folder {folder} - make it, or correct the path"
    if len(bytes(socket)) > _SOCKET_PATH_BYTES:
        what = f"longer than the {_SOCKET_PATH_BYTES} bytes of a socket's path"
        yield ("control", "path"), f'{what} - add [control] path = "/run/labbridge.sock"'


def _keep(settings: Settings) -> Iterator[Mistake]:
    """What verification still looks back upon must not be deleted."""
    keep, rules = settings.store.keep, settings.verification
    if keep is not None and keep <= max(SHORTEST_KEEP, rules.stale, rules.duplicate_window):
        what = "shorter than what is still needed: a day, [verification] stale and duplicate_window"
        yield ("store", "keep"), f'{what} - write keep = "730d", or leave it out to keep everything'
