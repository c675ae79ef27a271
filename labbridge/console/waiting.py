"""What waits for the hospitals, as figures and pages of a list; read in a few short statements. No screen here."""

from collections.abc import Callable
from datetime import datetime, time
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


class Line(msgspec.Struct, frozen=True):
    """One delivery of the list."""

    delivery: Queued
    behind: int
    last: Attempt | None


class Picture(msgspec.Struct, frozen=True):
    """What is shown: the counts of all destinations, and one page of one of them."""

    counts: dict[tuple[str, str], tuple[int, int]] = {}
    today: dict[str, int] = {}
    lines: tuple[Line, ...] = ()


def picture(reader: Reader, accepted: Accepted, destination: str, state: State, offset: int) -> Picture:
    """Reads it all, in a few short statements."""
    if state == "sent":
        rows = reader.sent_page(destination, PAGE, offset)
    else:
        rows = reader.waiting_page(destination, state, PAGE, offset)
    behind = reader.waiting_behind(destination, [row.lane for row in rows]) if state == "refused" else {}
    last = reader.last_attempts([row.id for row in rows])
    lines = tuple(Line(row, behind.get(row.lane, 0), last.get(row.id)) for row in rows)
    return Picture(reader.waiting_counts(), accepted.counts(), lines)
