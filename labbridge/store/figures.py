"""What a screen asks again and again, each answer at a cost that does not grow with the store.

``news`` follows what is held by the decisions that came since: nothing changes a report's state without one.
"""

import time
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from .reader import Reader
from .rows import Earlier, Message

_LAST = "SELECT coalesce(max(id), 0) FROM decision"
_DECIDED = "SELECT DISTINCT report_id FROM decision WHERE id > ?"
_HELD = "SELECT id FROM report WHERE state = 'held'"
_STILL = "SELECT report.id FROM {list} JOIN report ON report.id = CAST(wanted.value AS bigint) WHERE report.state = 'held'"
_OPEN = "SELECT id FROM message WHERE state = 'open'"
AT_ONCE = 500  # reports that are read in one statement
WHOLE_SECONDS = 60.0  # so often all that is held is looked through, whatever the decisions say


class News(msgspec.Struct, frozen=True):
    """What became held or changed, and what is held no longer: reports by their ids, messages by their ids' negatives."""

    reports: list[Earlier] = []
    messages: list[Message] = []
    gone: Collection[int] = ()


class Figures:
    """Follows one store; for one thread."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._head = -1
        self._decision = 0
        self._whole = -WHOLE_SECONDS
        self._held: set[int] = set()

    def news(self) -> Iterator[News]:
        """What changed since the last call, a part at a time; nothing where the ledger has not grown."""
        if self._reader.head().sequence == self._head:
            return
        began = time.monotonic()
        whole = began - self._whole >= WHOLE_SECONDS
        with self._reader.still() as still:
            head, last = still.head().sequence, _one(still, _LAST)
            gone, now = self._changed(still, whole)
            opened = {-id for id in _ids(still, _OPEN)}
        gone |= {id for id in self._held if id < 0} - opened
        fresh = opened - self._held
        yield News(messages=self._reader.rows(Message, "id", [-id for id in fresh], large=False), gone=gone)
        self._held = (self._held | fresh) - gone
        for part in _parts(sorted(now)):
            yield News(self._reader.reports(part))
            self._held.update(part)
        self._head, self._decision = head, last
        self._whole = began if whole else self._whole

    def _changed(self, still: Reader, whole: bool) -> tuple[set[int], set[int]]:
        """The reports that were held and are no longer, and those held ones that are new or were decided on."""
        mine = {id for id in self._held if id > 0}
        decided = set(_ids(still, _DECIDED, self._decision)) if self._head >= 0 else set()
        if whole:
            held = set(_ids(still, _HELD))
            return mine - held, held - (mine - decided)
        held = set(_ids(still, _STILL, msgspec.json.encode(list(decided)).decode()))
        return (decided & mine) - held, held


def _ids(reader: Reader, statement: str, *parameters: Any) -> list[int]:
    return [row[0] for row in reader.stream(statement, *parameters)]


def _one(reader: Reader, statement: str) -> int:
    return _ids(reader, statement)[0]


def _parts(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), AT_ONCE):
        yield numbers[start : start + AT_ONCE]
