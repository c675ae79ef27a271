"""Questions of a screen about many rows at once: each looks at what it must and at no more.

Ids rise with time, so that a day's first row is found by halving, however many rows there are.
"""

from collections.abc import Collection, Iterable

from .lookups import Lookups, _json, storable
from .rows import Attempt, Delivery, Queued
from .schema import columns

_SMALL = ", ".join(f"delivery.{name}" for name in list(columns(Delivery))[:-1])
_WAITING = f"""
    SELECT {_SMALL}, coalesce(report.specimen, '')
    FROM delivery LEFT JOIN report ON report.id = delivery.report_id
    WHERE delivery.destination = ? AND delivery.state = ? AND delivery.state IN ('queued', 'refused')
    ORDER BY delivery.id LIMIT ? OFFSET ?"""  # noqa: S608 (names of ours)
_SENT = f"""
    SELECT {_SMALL}, coalesce(report.specimen, '')
    FROM delivery LEFT JOIN report ON report.id = delivery.report_id
    WHERE delivery.destination = ? AND delivery.state IN ('delivered', 'cancelled')
    ORDER BY delivery.id DESC LIMIT ? OFFSET ?"""  # noqa: S608 (names of ours)
_COUNTS = """
    SELECT destination, state, count(*), min(at) FROM delivery WHERE state IN ('queued', 'refused') GROUP BY destination, state"""
_BEHIND = """
    SELECT delivery.lane, count(*) FROM delivery WHERE delivery.destination = ? AND delivery.state = 'queued'
    AND delivery.state IN ('queued', 'refused') AND delivery.lane IN (SELECT wanted.value FROM {list}) GROUP BY delivery.lane"""
_LAST = """
    SELECT attempt.* FROM attempt WHERE attempt.id IN (SELECT max(one.id) FROM attempt AS one WHERE one.delivery_id IN
    (SELECT CAST(wanted.value AS bigint) FROM {list}) GROUP BY one.delivery_id) ORDER BY attempt.id"""
_ACCEPTED = """
    SELECT delivery.destination, count(*) FROM attempt JOIN delivery ON delivery.id = attempt.delivery_id
    WHERE attempt.id >= ? AND attempt.id < ? AND substr(attempt.outcome, 1, 8) = 'accepted' GROUP BY delivery.destination"""
_NEXT = "SELECT id, at FROM attempt WHERE id >= ? ORDER BY id LIMIT 1"
_NEAR = "SELECT DISTINCT key FROM report WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"


class Overview(Lookups):
    """What the screens ask beside the look-ups of the road."""

    def waiting_page(self, destination: str, state: str, limit: int, offset: int = 0) -> list[Queued]:
        """Some of the deliveries of a destination that are ``queued`` or ``refused``, the oldest first."""
        rows = self._read(_WAITING, destination, state, limit, offset)
        return [Queued(*(*row[:-1], b"", row[-1])) for row in rows]

    def sent_page(self, destination: str, limit: int, offset: int = 0) -> list[Queued]:
        """Some of the deliveries of a destination that were delivered or cancelled, the newest first."""
        return [Queued(*(*row[:-1], b"", row[-1])) for row in self._read(_SENT, destination, limit, offset)]

    def waiting_counts(self) -> dict[tuple[str, str], tuple[int, int]]:
        """For each destination and state (queued, refused): how many, and the time of the oldest."""
        return {(destination, state): (count, at) for destination, state, count, at in self._read(_COUNTS)}

    def waiting_behind(self, destination: str, lanes: Iterable[str]) -> dict[str, int]:
        """How many deliveries are queued in each of these lanes; one without any is left out."""
        return dict(map(tuple, self._read(_BEHIND, destination, _json(sorted(set(lanes))))))

    def last_attempts(self, deliveries: Collection[int]) -> dict[int, Attempt]:
        """The last answer to each of these deliveries, by its id."""
        found = [Attempt(*row) for row in self._read(_LAST, _json(deliveries))] if deliveries else []
        return {attempt.delivery_id: attempt for attempt in found}

    def first_answer_since(self, at: int) -> int:
        """The id of the first answer that came at this time or later (microseconds); of the next to come if none did."""
        low, high = 1, self.next_answer()
        while low < high:
            middle = (low + high) // 2
            id, when = next(iter(self._read(_NEXT, middle)), (high, at))
            low, high = (id + 1, high) if when < at else (low, middle)
        return low

    def next_answer(self) -> int:
        """The id after that of the newest answer."""
        return next((int(row[0] or 0) for row in self._read("SELECT max(id) FROM attempt")), 0) + 1

    def accepted(self, first: int, end: int) -> dict[str, int]:
        """How many deliveries each destination accepted with the answers from ``first`` up to before ``end``."""
        return dict(map(tuple, self._read(_ACCEPTED, first, end)))

    def last_audit(self) -> int:
        """The id of the newest row of the audit."""
        return next((int(row[0] or 0) for row in self._read("SELECT max(id) FROM audit")), 0)

    def specimens_near(self, specimen: str, limit: int = 8) -> list[str]:
        """Known keys that begin like this one, with as much of it as any key has, but at least three characters."""
        wanted = storable(specimen)
        for length in range(min(len(wanted), 40), 2, -1):
            begin = wanted[:length]
            rows = self._read(_NEAR, begin, begin[:-1] + chr(min(ord(begin[-1]) + 1, 0x10FFFF)), limit)
            if rows:
                return [str(row[0]) for row in rows]
        return []
