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
    for to in dict.fromkeys(route.to for route in routes):
        filters = [route.tests for route in routes if route.to == to and (not route.analyzers or analyzer in route.analyzers)]
        tests = frozenset[str]().union(*filters)
        wanted = [one for one in decided if one.test in tests] if all(filters) else list(decided)
        if wanted:
            found[to] = wanted
    return found
