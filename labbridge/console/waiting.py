"""What waits for the hospitals, as figures and pages of a list; read in a few short statements. No screen here."""

from collections.abc import Callable
from datetime import datetime, time
from threading import Lock
from time import monotonic
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from labbridge.store import Reader
from labbridge.store.rows import Attempt, Queued

PAGE = 50  # deliveries at once
State = Literal["refused", "queued", "sent"]


class Accepted:
    """How many deliveries each destination accepted today; counts on from where it was."""

    def __init__(self, reader: Reader, zone: ZoneInfo, clock: Callable[[ZoneInfo], datetime] = datetime.now) -> None:
        self._reader, self._zone, self._clock = reader, zone, clock
        self._day: datetime | None = None
        self._next = 0
        self._counts: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        """By destination; reads what was answered since the last call, and no more."""
        day = datetime.combine(self._clock(self._zone).date(), time(), self._zone)
        if day != self._day:
            self._day, self._counts = day, {}
            self._next = self._reader.first_answer_since(int(day.timestamp() * 1e6))
        end = self._reader.next_answer()
        for destination, count in self._reader.accepted(self._next, end).items() if end > self._next else ():
            self._counts[destination] = self._counts.get(destination, 0) + count
        self._next = max(end, self._next)
        return dict(self._counts)


Counts = dict[tuple[str, str], tuple[int, int]]


class Figures:
    """The counts of all destinations, for all pages: read at most once a second, by one thread at a time."""

    def __init__(self, reader: Reader, accepted: Accepted, clock: Callable[[], float] = monotonic) -> None:
        self._reader, self._accepted, self._clock = reader, accepted, clock
        self._lock = Lock()
        self._at = float("-inf")
        self._read: tuple[Counts, dict[str, int]] = {}, {}

    def read(self, fresh: bool = False) -> tuple[Counts, dict[str, int]]:
        """What waits or was refused, and what was delivered today; ``fresh`` after a change of one's own."""
        with self._lock:
            if fresh or self._clock() - self._at >= 1.0:
                self._read = self._reader.waiting_counts(), self._accepted.counts()
                self._at = self._clock()
            return self._read


class Line(msgspec.Struct, frozen=True):
    """One delivery of the list."""

    delivery: Queued
    behind: int
    last: Attempt | None


class Picture(msgspec.Struct, frozen=True):
    """What is shown: the counts of all destinations, and one page of one of them."""

    counts: Counts = {}
    today: dict[str, int] = {}
    lines: tuple[Line, ...] = ()


def picture(reader: Reader, figures: Figures, destination: str, state: State, offset: int, fresh: bool = False) -> Picture:
    """Reads it all, in a few short statements."""
    if state == "sent":
        rows = reader.sent_page(destination, PAGE, offset)
    else:
        rows = reader.waiting_page(destination, state, PAGE, offset)
    behind = reader.waiting_behind(destination, [row.lane for row in rows]) if state == "refused" else {}
    last = reader.last_attempts([row.id for row in rows])
    lines = tuple(Line(row, behind.get(row.lane, 0), last.get(row.id)) for row in rows)
    return Picture(*figures.read(fresh), lines)
