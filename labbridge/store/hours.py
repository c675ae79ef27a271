"""Figures of a day for a screen, each at a cost that does not grow with the store.

Ids rise with time, so the rows of a span are found by halving, and of a span with many rows one of every n is looked at.
Times are microseconds since 1970. What is long over is asked once and kept.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from random import Random
from statistics import median
from typing import Any

import msgspec

from .erasure import erased
from .reader import Reader

HOUR = 3_600_000_000
HOURS = 24
SAMPLE = 400  # rows of an hour that are looked at
NEIGHBOURS = 2000  # messages one after the other, between which silences are measured
DAYS = 7

_REPORTS = "SELECT report.analyzer, report.document FROM {list} JOIN report ON report.id = CAST(wanted.value AS bigint)"
_ANSWERS = """
    SELECT delivery.destination, attempt.outcome FROM {list} JOIN attempt ON attempt.id = CAST(wanted.value AS bigint)
    JOIN delivery ON delivery.id = attempt.delivery_id"""
_MESSAGES = "SELECT analyzer, at FROM message WHERE id >= ? AND id < ? AND direction = 'in' ORDER BY id"
_NEXT = "SELECT id, at FROM {table} WHERE id >= ? ORDER BY id LIMIT 1"
_ENDS = "SELECT (SELECT min(id) FROM {table}), (SELECT max(id) FROM {table})"  # each from the index


class _Length(msgspec.Struct):
    """Of a report's document, only how many results it has."""

    results: list[msgspec.Raw] = []


class Hours:
    """Of one store; for one thread. ``results`` and ``delivered``: of each name 24 numbers, the last of this hour."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: dict[tuple[str, int], Counter[str]] = {}
        self._usual: tuple[int, dict[str, float]] = (-1, {})
        self.results: dict[str, list[int]] = {}
        self.delivered: dict[str, list[int]] = {}
        self.last: dict[str, int] = {}  # the last message of each analyzer, among the newest

    def refresh(self, now: int) -> None:
        """Counts this hour anew, and those before it that were not counted yet. Raises StoreError."""
        this = now - now % HOUR
        hours = [this - back * HOUR for back in reversed(range(HOURS))]
        for kind, count in (("report", self._results), ("attempt", self._accepted)):
            for start in hours:
                if (kind, start) not in self._kept or start >= this - HOUR:
                    self._kept[kind, start] = count(start, start + HOUR)
        self._kept = {key: counted for key, counted in self._kept.items() if key[1] >= hours[0]}
        high = self._first("message", now + HOUR)
        self.last = dict(self._reader.stream(_MESSAGES, high - NEIGHBOURS, high))
        self.results = self._by_name("report", hours)
        self.delivered = self._by_name("attempt", hours)

    def usual(self, now: int) -> dict[str, float]:
        """The longest silence of each analyzer at this time of day, in seconds: the median of the last days that had any message.

        Raises StoreError.
        """
        hour = now // HOUR
        if self._usual[0] != hour:
            self._usual = hour, self._usual_silences(now)
        return self._usual[1]

    def _by_name(self, kind: str, hours: Sequence[int]) -> dict[str, list[int]]:
        found = [self._kept[kind, start] for start in hours]
        return {name: [counted[name] for counted in found] for name in {name for counted in found for name in counted}}

    def _results(self, start: int, end: int) -> Counter[str]:
        counted: Counter[str] = Counter()
        ids, each = self._sample("report", start, end)
        for analyzer, document in self._of(_REPORTS, ids):
            counted[analyzer] += 0 if erased(document) else len(msgspec.json.decode(document, type=_Length).results)
        return Counter({name: round(number * each) for name, number in counted.items()})

    def _accepted(self, start: int, end: int) -> Counter[str]:
        ids, each = self._sample("attempt", start, end)
        counted = Counter(name for name, outcome in self._of(_ANSWERS, ids) if outcome.startswith("accepted"))
        return Counter({name: round(number * each) for name, number in counted.items()})

    def _of(self, statement: str, ids: Sequence[int]) -> list[Any]:
        return list(self._reader.stream(statement, msgspec.json.encode(ids).decode())) if ids else []

    def _sample(self, table: str, start: int, end: int) -> tuple[Sequence[int], float]:
        """Ids of a span of time, and for how many rows each of them stands."""
        first, last = self._first(table, start), self._first(table, end)
        step = max(1, -(-(last - first) // SAMPLE))
        chance = Random(first)  # noqa: S311 (no secret): a step alone would fall in with analyzers that take turns
        ids = [min(last - 1, start + chance.randrange(step)) for start in range(first, last, step)]
        return ids, (last - first) / max(1, len(ids))

    def _first(self, table: str, at: int) -> int:
        """The first id of a table that is not before this time; the one after the last where all are."""
        [(low, high)] = self._reader.stream(_ENDS.format(table=table))
        if low is None:
            return 0
        high += 1
        while low < high:
            middle = (low + high) // 2
            [(found, when)] = self._reader.stream(_NEXT.format(table=table), middle)
            if when < at:
                low = found + 1
            else:
                high = middle
        return int(low)

    def _usual_silences(self, now: int) -> dict[str, float]:
        longest: defaultdict[str, list[float]] = defaultdict(list)
        for day in range(1, DAYS + 1):
            middle = now - day * 24 * HOUR
            for name, seconds in self._silences(middle - HOUR // 2, middle + HOUR // 2).items():
                longest[name].append(seconds)
        return {name: median(seconds) for name, seconds in longest.items()}

    def _silences(self, start: int, end: int) -> dict[str, float]:
        """The longest silence of each analyzer in a span; where very many messages came, in a part of it."""
        first, last = self._first("message", start), self._first("message", end)
        if last - first > NEIGHBOURS:
            first = (first + last - NEIGHBOURS) // 2
            last = first + NEIGHBOURS
        seen: dict[str, int] = {}
        longest: dict[str, int] = {}
        for name, at in self._reader.stream(_MESSAGES, first, last):
            if name in seen:
                longest[name] = max(longest.get(name, 0), at - seen[name])
            seen[name] = at
        return {name: microseconds / 1e6 for name, microseconds in longest.items()}
