"""Which destinations a report goes to."""

from collections.abc import Sequence
from functools import lru_cache

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
    for to, tests in _wanted(tuple(routes), analyzer):
        wanted = list(decided) if tests is None else [one for one in decided if one.test in tests]
        if wanted:
            found[to] = wanted
    return found


@lru_cache(maxsize=256)
def _wanted(routes: tuple[Route, ...], analyzer: str) -> list[tuple[str, frozenset[str] | None]]:
    """The tests that each destination wants of an analyzer; None for all of them."""
    found: list[tuple[str, frozenset[str] | None]] = []
    for to in dict.fromkeys(route.to for route in routes):
        filters = [route.tests for route in routes if route.to == to and (not route.analyzers or analyzer in route.analyzers)]
        found.append((to, frozenset[str]().union(*filters) if all(filters) else None))
    return found
