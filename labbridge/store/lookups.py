"""What can be asked of a store, by the writer's jobs and by readers: every SELECT, with its text where it is used.

In a text ``?`` is a parameter, and ``{list}`` a JSON array that is one parameter, as the rows ``wanted.value``. The
driver runs the texts itself, so that a batch pays for its rows and not for building statements. ``ORDER BY +id`` keeps
SQLite from reading a whole table in its order, where an index of the few rows that matter is at hand.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import msgspec

from .erasure import erased
from .rows import Account, Delivery, Earlier, Message, Proposal, Row, Spooled
from .schema import columns

R = TypeVar("R", bound=Row)

HISTORY = 200  # so many earlier reports of one key are looked at, the newest

_REPORTS = """
    SELECT chosen.*, decision.document FROM ({chosen}) AS chosen
    LEFT JOIN decision ON decision.report_id = chosen.id ORDER BY chosen.id, decision.id"""

_HISTORY = """
    SELECT report.* FROM {list} JOIN report ON report.key = wanted.value AND report.id >= coalesce(
        (SELECT id FROM report WHERE key = wanted.value ORDER BY id DESC LIMIT 1 OFFSET ?), 0)"""

# Each half has an index of its own.
_REPORTS_OF = """
    SELECT * FROM report WHERE key = ? UNION ALL SELECT * FROM report WHERE specimen = ? AND specimen != key
    ORDER BY id DESC LIMIT ?"""

_ROWS = "SELECT {columns} FROM {table} {condition}"
_LISTED = "WHERE {column} IN (SELECT CAST(wanted.value AS bigint) FROM {{list}}) ORDER BY {key}"


class Lookups(ABC):
    """The questions; a transaction sees what earlier jobs of it wrote, a reader what is committed."""

    _sqlite: bool

    @abstractmethod
    def _read(self, statement: str, *parameters: Any) -> Sequence[Any]:
        """The rows that a statement finds."""

    def history(self, keys: Collection[str]) -> dict[str, list[Earlier]]:
        """For each identity key its earlier reports, newest last, at most ``HISTORY`` of them; not those that were erased."""
        found: dict[str, list[Earlier]] = {key: [] for key in keys}
        stored = {storable(key): reports for key, reports in found.items()}
        for earlier in self._reports(_HISTORY, _json(stored), HISTORY - 1):
            if not erased(earlier.document):
                stored[earlier.key].append(earlier)
        return found

    def reports_of(self, specimen: str) -> list[Earlier]:
        """The reports known by this specimen id or key, newest last, at most ``HISTORY`` of them."""
        return self._reports(_REPORTS_OF, storable(specimen), storable(specimen), HISTORY)

    def reports(self, ids: Iterable[int]) -> list[Earlier]:
        """These reports, in order of id."""
        return self._reports("SELECT report.* FROM {list} JOIN report ON report.id = CAST(wanted.value AS bigint)", _json(ids))

    def held_reports(self, limit: int = 2**31) -> list[Earlier]:
        """The reports that are held, the oldest first."""
        return self._reports("SELECT * FROM report WHERE state = 'held' ORDER BY id LIMIT ?", limit)

    def find_delivery(self, id: int) -> Delivery | None:
        """One delivery with its payload."""
        return next(iter(self._of(Delivery, "id", [id])), None)

    def deliveries_of(self, report_id: int) -> list[Delivery]:
        """The deliveries made of a report, with their payloads."""
        return self._of(Delivery, "report_id", [report_id])

    def waiting_deliveries(self) -> list[Delivery]:
        """The deliveries that are queued or refused, in the order in which they were queued, without their payloads."""
        return self._select(Delivery, "WHERE state IN ('queued', 'refused') ORDER BY +id", large=False)

    def payloads(self, ids: Collection[int]) -> dict[int, bytes]:
        """What to send for each of these deliveries."""
        return {delivery.id: delivery.payload for delivery in self._of(Delivery, "id", ids)}

    def message_state(self, id: int) -> str:
        """The state of a message; empty when there is no such message."""
        return next((message.state for message in self._of(Message, "id", [id], large=False)), "")

    def message_body(self, id: int) -> bytes:
        """What came, byte for byte; empty when there is no such message or retention has deleted its body."""
        return next((message.body for message in self._of(Message, "id", [id]) if not erased(message.body)), b"")

    def open_incomplete(self, analyzer: str) -> list[tuple[int, bytes]]:
        """Id and body of the transmissions of an analyzer that broke off and are not settled."""
        broken = "WHERE state = 'open' AND analyzer = ? AND kind = 'incomplete' ORDER BY id"
        return [(message.id, message.body) for message in self._select(Message, broken, analyzer)]

    def account(self, name: str) -> Account | None:
        """The account of this name."""
        return next(iter(self._select(Account, "WHERE name = ?", storable(name))), None)

    def accounts(self) -> list[Account]:
        """Every account in order of name, without the hash of its password."""
        return self._select(Account, "ORDER BY name", large=False)

    def proposals(self) -> list[Proposal]:
        """The corrected specimen ids that wait for a second person."""
        return self._select(Proposal, "WHERE state = 'open' ORDER BY id")

    def moved(self) -> list[Proposal]:
        """The corrected specimen ids of which something may still be on its way under the wrong one."""
        return self._select(Proposal, "WHERE state = 'moved' ORDER BY id")

    def proposal(self, id: int) -> Proposal | None:
        """One of them, whatever became of it."""
        return next(iter(self._of(Proposal, "id", [id])), None)

    def spooled(self) -> list[Spooled]:
        """The transmissions in the spool, each with its parts joined, in the order in which they began."""
        sessions: dict[str, list[Spooled]] = {}
        for part in self._select(Spooled, "ORDER BY id"):
            sessions.setdefault(part.session, []).append(part)
        return [msgspec.structs.replace(parts[0], body=_joined(parts)) for parts in sessions.values()]

    def spooled_body(self, session: str) -> bytes:
        """The parts of one transmission, joined."""
        return _joined(self._select(Spooled, "WHERE session = ? ORDER BY id", session))

    def _select(self, row: type[R], condition: str, *parameters: Any, large: bool = True) -> list[R]:
        """The rows of a table under a condition; without their last column unless ``large``."""
        names = list(columns(row))
        text = _ROWS.format(columns=", ".join(names if large else names[:-1]), table=row.table, condition=condition)
        return [row(*found) for found in self._read(text, *parameters)]

    def _of(self, row: type[R], column: str, values: Iterable[int], *, large: bool = True) -> list[R]:
        """The rows of a table where a column has one of these values, in order of id."""
        return self._select(row, _LISTED.format(column=column, key=next(iter(columns(row)))), _json(values), large=large)

    def _reports(self, chosen: str, *parameters: Any) -> list[Earlier]:
        """Reports with their decisions, in order of id."""
        rows = self._read(_REPORTS.replace("{chosen}", chosen), *parameters)
        return [
            Earlier(*(*first[:-1], tuple(row[-1] for row in (first, *rest) if row[-1] is not None)))
            for _, (first, *rest) in groupby(rows, itemgetter(0))
        ]


@cache
def spoken(statement: str, sqlite: bool) -> str:
    """A statement as the database's driver takes it."""
    if sqlite:
        return statement.replace("{list}", "json_each(?) AS wanted")
    return statement.replace("{list}", "json_array_elements_text(CAST(? AS json)) AS wanted(value)").replace("?", "%s")


def storable(text: str) -> str:
    """The text as every database can hold it: NUL and lone surrogates as backslash escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _json(values: Iterable[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _joined(parts: Iterable[Spooled]) -> bytes:
    return b"".join(part.body for part in parts)
