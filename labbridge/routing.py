"""Which destinations a report goes to."""

from collections.abc import Sequence

import msgspec

from labbridge.model import Decided


class Route(msgspec.Struct, frozen=True):
    """``[[route]]``: a destination and, when they are named, the analyzers and tests it is for."""

    to: str
    analyzers: frozenset[str] = frozenset()
    tests: frozenset[str] = frozenset()


def destinations(routes: Sequence[Route], analyzer: str, decided: Sequence[Decided]) -> dict[str, list[Decided]]:
    """The results each destination gets; several routes to one destination add up, none sends a result twice."""
    found: dict[str, list[Decided]] = {}
    for route in routes:
        if route.analyzers and analyzer not in route.analyzers:
            continue
        wanted = [d for d in decided if d.test in route.tests] if route.tests else list(decided)
        if not wanted:
            continue
        known = found.get(route.to)
        if known is None:
            found[route.to] = wanted
        else:
            indices = {d.index for d in known}
            known.extend(d for d in wanted if d.index not in indices)
            known.sort(key=lambda d: d.index)
    return found
