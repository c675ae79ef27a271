"""What must fit together in a configuration that is well formed: names, addresses, targets, folders."""

from collections.abc import Iterator, Sequence

from labbridge.config.reading import Mistake
from labbridge.config.settings import Address, Analyzer, Destination, Settings

_SOCKET_PATH_BYTES = 107  # sun_path of Linux without its end
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 (not bound here)


def mistakes(settings: Settings) -> Iterator[Mistake]:
    """Every mistake that takes more than one value to see."""
    yield from _names("analyzer", settings.analyzers)
    yield from _names("destination", settings.destinations)
    for index, analyzer in enumerate(settings.analyzers):
        if bool(analyzer.listen) == bool(analyzer.connect):
            what = "both listen and connect" if analyzer.listen else "neither listen nor connect"
            yield ("analyzer", index), f'{what} - write listen = "127.0.0.1:5001" if the analyzer connects to us, else connect'
    yield from _routes(settings)
    yield from _ports(settings)
    yield from _folders(settings)


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
    for at, address in (*analyzers, (("http", "listen"), settings.http.listen)):
        if address is not None:
            for other in taken:
                if address.port == other.port and (address.host == other.host or _EVERYWHERE & {address.host, other.host}):
                    yield at, f"{other} is taken by another analyzer - choose another port"
            taken.append(address)


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
