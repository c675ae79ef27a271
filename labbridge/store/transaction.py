"""What a job may do: append facts, change states, use the spool, and look up what deciding needs.

Rows wait in memory and are written with one statement per table; ids are given at once. A job may run more than once
(when the group it was committed with fails), so it keeps nothing from a run but what it returns.
"""

from collections.abc import Callable, Collection, Iterable
from hashlib import sha256
from itertools import count
from operator import itemgetter
from typing import Any, Protocol

import msgspec

from .ledger import START, WRITER, Link, follow, leaf
from .rows import Delivery, Earlier, Spooled
from .schema import FACTS
from .statements import Statements

Columns = tuple[Any, ...]


class Cursor(Protocol):
    """What the store needs of a driver's cursor (PEP 249)."""

    def execute(self, statement: str, parameters: Columns = ..., /) -> Any:
        """Run a statement once."""

    def executemany(self, statement: str, rows: list[Columns], /) -> Any:
        """Run a statement for every row."""

    def fetchall(self) -> list[Columns]:
        """The rows that were found."""


class Memory:
    """What the one writer knows without asking: the next id of every table and the end of the ledger."""

    def __init__(self) -> None:
        self.ids: list[count[int]] = []
        self.link: Link = START

    def load(self, cursor: Cursor, statements: Statements) -> None:
        """Read it all back from what is committed."""
        self.ids = [count(rows_of(cursor, text)[0][0] + 1) for text in statements.last_ids]
        self.link = next((Link(*row) for row in rows_of(cursor, statements.last_link)), START)


class Transaction:
    """One job's view of the store, inside a transaction that may hold other jobs too.

    Times are microseconds since 1970 UTC and default to the beginning of the transaction. Text that a database cannot
    hold (NUL, lone surrogates) is kept with backslash escapes.
    """

    def __init__(self, cursor: Cursor, statements: Statements, memory: Memory, at: int) -> None:
        self.at = at
        self.size = 0  # bytes of bodies and documents so far
        self._cursor = cursor
        self._sql = statements
        self._memory = memory
        self._broken: Exception | None = None
        self._facts: list[bytes] = []
        self._rows: tuple[list[Columns], ...] = tuple([] for _ in FACTS)
        (self._messages, self._reports, self._decisions, self._deliveries) = self._rows[:4]
        (self._attempts, self._revisions, self._audits) = self._rows[4:]
        (self._next_message, self._next_report, self._next_decision, self._next_delivery) = memory.ids[:4]
        (self._next_attempt, self._next_revision, self._next_audit, self._next_spool) = memory.ids[4:]
        self._spool: list[Columns] = []
        self._cleared: list[Columns] = []
        self._states: dict[str, list[Columns]] = {}

    # Facts

    def message(
        self,
        *,
        direction: str,
        analyzer: str,
        kind: str,
        body: bytes,
        link: str = "",
        control_id: str = "",
        digest: bytes = b"",
        size: int = -1,
        note: str = "",
        state: str = "",
        at: int = 0,
    ) -> int:
        """Append a transmission; ``digest`` is SHA-256 of ``body`` and ``size`` its length when not given.

        ``size`` differs where ``body`` is only the beginning of what was sent.
        """
        id = next(self._next_message)
        self.size += len(body)
        digest = digest or sha256(body).digest()
        if size < 0:
            size = len(body)
        control_id, note = storable(control_id), storable(note)
        self._messages.append((id, at or self.at, direction, analyzer, link, kind, control_id, digest, size, note, state, body))
        return id

    def report(
        self,
        *,
        message_id: int,
        analyzer: str,
        key: str,
        specimen: str,
        role: str,
        state: str,
        digest: bytes,
        content: bytes,
        document: bytes,
        patient: str = "",
        at: int = 0,
    ) -> int:
        """Append what a message says of one specimen."""
        id = next(self._next_report)
        self.size += len(document)
        key, specimen, patient = storable(key), storable(specimen), storable(patient)
        at = at or self.at
        self._reports.append((id, message_id, at, analyzer, key, specimen, patient, role, digest, content, state, document))
        return id

    def decision(self, *, report_id: int, actor: str, revision: int, document: bytes, at: int = 0) -> int:
        """Append verdicts on a report; ``revision`` is the id that ``revision()`` gave."""
        id = next(self._next_decision)
        self.size += len(document)
        self._decisions.append((id, report_id, at or self.at, storable(actor), revision, document))
        return id

    def delivery(
        self,
        *,
        destination: str,
        lane: str,
        report_id: int,
        decision_id: int,
        control_id: str,
        payload: bytes,
        due: int = 0,
        state: str = "queued",
        at: int = 0,
    ) -> int:
        """Append a payload for a lane, not to be sent before ``due``."""
        id = next(self._next_delivery)
        self.size += len(payload)
        at, lane = at or self.at, storable(lane)
        self._deliveries.append((id, at, destination, lane, report_id, decision_id, control_id, due, state, payload))
        return id

    def attempt(self, *, delivery_id: int, outcome: str, reply: bytes = b"", at: int = 0) -> int:
        """Append an answer of a destination."""
        id = next(self._next_attempt)
        self._attempts.append((id, delivery_id, at or self.at, storable(outcome), reply))
        return id

    def audit(self, *, actor: str, action: str, subject: str, reason: str = "", old: str = "", new: str = "", at: int = 0) -> int:
        """Append what a person changed."""
        id = next(self._next_audit)
        words = (storable(word) for word in (actor, action, subject, reason, old, new))
        self._audits.append((id, at or self.at, *words))
        return id

    def revision(self, digest: bytes, body: bytes) -> int:
        """The id of the revision with this digest, appended if it is new."""
        for row in self._read(self._sql.revision, digest):
            return int(row[0])
        id = next(self._next_revision)
        self._revisions.append((id, self.at, digest, body))
        return id

    # States: derived, not covered by the ledger

    def set_message_state(self, id: int, state: str) -> None:
        """Change whether a person must look at a message: open, settled."""
        self._set(self._sql.set_message, id, state)

    def set_report_state(self, id: int, state: str) -> None:
        """Change what became of a report: released, held, rejected, superseded, kept."""
        self._set(self._sql.set_report, id, state)

    def set_delivery_state(self, id: int, state: str) -> None:
        """Change what became of a delivery: queued, delivered, refused, cancelled, superseded."""
        self._set(self._sql.set_delivery, id, state)

    # The spool

    def spool(self, session: str, analyzer: str, body: bytes) -> int:
        """Keep a part of a message that is not whole yet."""
        id = next(self._next_spool)
        self.size += len(body)
        self._spool.append((id, session, analyzer, self.at, body))
        return id

    def clear_spool(self, session: str) -> None:
        """Forget the parts of a transmission."""
        self._spool = [row for row in self._spool if row[1] != session]
        self._cleared.append((session,))

    def spooled(self) -> list[Spooled]:
        """The transmissions in the spool, each with its parts joined, in the order in which they began."""
        sessions: dict[str, list[Columns]] = {}
        for row in self._read(self._sql.spooled):
            sessions.setdefault(row[0], []).append(row)
        return [Spooled(session, rows[0][1], rows[0][2], b"".join(row[3] for row in rows)) for session, rows in sessions.items()]

    # Look-ups: what earlier jobs of the same transaction wrote is seen

    def history(self, keys: Collection[str]) -> dict[str, list[Earlier]]:
        """For each identity key its earlier reports, newest last, at most ``HISTORY`` of them."""
        found: dict[str, list[Earlier]] = {key: [] for key in keys}
        stored = {storable(key): reports for key, reports in found.items()}
        for earlier in self._with_decisions(self._read(self._sql.history, self._list(stored))):
            stored[earlier.key].append(earlier)
        return found

    def find_report(self, id: int) -> Earlier | None:
        """One report with its decisions."""
        return next(iter(self._with_decisions(self._read(self._sql.report, id))), None)

    def reports_of(self, specimen: str) -> list[Earlier]:
        """The reports known by this specimen id or key, newest last, at most ``HISTORY`` of them."""
        specimen = storable(specimen)
        return self._with_decisions(self._read(self._sql.reports_of, specimen, specimen)[::-1])

    def find_delivery(self, id: int) -> Delivery | None:
        """One delivery with its payload."""
        return next((Delivery(*row) for row in self._read(self._sql.delivery, id)), None)

    def deliveries_of(self, report_id: int) -> list[Delivery]:
        """The deliveries made of a report, with their payloads."""
        return [Delivery(*row) for row in self._read(self._sql.deliveries_of, report_id)]

    def waiting_deliveries(self) -> list[Delivery]:
        """The deliveries that are queued or refused, in the order in which they were queued, without their payloads."""
        return [Delivery(*row) for row in self._read(self._sql.waiting)]

    def payloads(self, ids: Collection[int]) -> dict[int, bytes]:
        """What to send for each of these deliveries."""
        return {row[0]: row[1] for row in self._read(self._sql.payloads, self._list(ids))}

    def held_reports(self) -> list[Earlier]:
        """All reports that are held, the oldest first."""
        return self._with_decisions(self._read(self._sql.held))

    def message_state(self, id: int) -> str:
        """The state of a message; empty when there is no such message."""
        return next((row[0] for row in self._read(self._sql.message_state, id)), "")

    def spooled_body(self, session: str) -> bytes:
        """The parts of one transmission, joined."""
        return b"".join(row[0] for row in self._read(self._sql.spooled_body, session))

    def open_incomplete(self, analyzer: str) -> list[tuple[int, bytes]]:
        """Id and body of the transmissions of an analyzer that broke off and are not settled."""
        return [(row[0], row[1]) for row in self._read(self._sql.incomplete, analyzer)]

    # Writing it down

    def flush(self) -> None:
        """Write the rows that wait, each table at once."""
        for fact, pick, insert, rows in zip(FACTS, _COVERED, self._sql.inserts, self._rows, strict=True):
            if rows:
                leaves = [leaf(fact.code, pick(row)) for row in rows]
                self._write(insert, rows)
                self._facts += leaves
                rows.clear()
        if self._states:
            for statement, rows in self._states.items():
                self._write(statement, rows)
            self._states.clear()
        if self._cleared:
            self._write(self._sql.clear_spool, self._cleared)
            self._cleared.clear()
        if self._spool:
            self._write(self._sql.insert_spool, self._spool)
            self._spool.clear()

    def finish(self) -> Link:
        """Write everything down, the ledger last; gives the end of the chain as it is once this is committed.

        Raises what went wrong before, since a job may have passed over an error that undid the work of others.
        """
        if self._broken:
            raise self._broken
        self.flush()
        link = self._memory.link
        if not self._facts:
            return link
        facts = b"".join(self._facts)
        following = follow(link, WRITER, self.at, facts)
        row = (following.sequence, WRITER, self.at, link.hash, following.hash, facts)
        self._write(self._sql.insert_ledger, [row])
        return following

    def _set(self, statement: str, id: int, state: str) -> None:
        self._states.setdefault(statement, []).append((state, id))

    def _write(self, statement: str, rows: list[Columns]) -> None:
        try:
            self._cursor.executemany(statement, rows)
        except Exception as error:
            self._broken = error
            raise

    def _read(self, statement: str, *parameters: Any) -> list[Columns]:
        self.flush()
        try:
            return rows_of(self._cursor, statement, *parameters)
        except Exception as error:
            self._broken = error
            raise

    def _list(self, values: Iterable[Any]) -> Any:
        return msgspec.json.encode(list(values)).decode() if self._sql.lists_are_json else list(values)

    def _with_decisions(self, rows: list[Columns]) -> list[Earlier]:
        if not rows:
            return []
        decisions: dict[int, tuple[bytes, ...]] = {}
        for report_id, document in self._read(self._sql.decisions, self._list(row[0] for row in rows)):
            decisions[report_id] = (*decisions.get(report_id, ()), document)
        return [Earlier(*(*row, decisions.get(row[0], ()))) for row in rows]


def storable(text: str) -> str:
    """The text as every database can hold it: NUL and lone surrogates as backslash escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def rows_of(cursor: Cursor, statement: str, *parameters: Any) -> list[Columns]:
    """What a statement finds."""
    cursor.execute(statement, parameters)
    return cursor.fetchall()


_COVERED: tuple[Callable[[Columns], Columns], ...] = tuple(
    itemgetter(*(fact.table.columns.keys().index(name) for name in fact.columns)) for fact in FACTS
)
