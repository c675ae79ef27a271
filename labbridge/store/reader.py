"""Reading for the console, the command line and the senders: short snapshots that never block the writer."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Executable, Select, Table, select, text
from sqlalchemy.exc import DBAPIError

from .engine import display, explain, parse, reading
from .rows import Attempt, AuditEntry, Counts, Decision, Delivery, Earlier, Message, Queued, Revision, Trace, Waiting
from .schema import attempt, audit, decision, delivery, message, report, revision
from .statements import EARLIER, reports_of

_QUEUED = text("""
    SELECT d.id, d.at, d.destination, d.lane, d.state, d.control_id, d.report_id, coalesce(r.specimen, '')
    FROM delivery d LEFT JOIN report r ON r.id = d.report_id
    WHERE d.state IN ('queued', 'refused') AND (:every OR d.destination = :destination) ORDER BY d.id""")

_COUNTS = text("""
    SELECT (SELECT coalesce(max(id), 0) FROM message), (SELECT coalesce(max(id), 0) FROM report),
        (SELECT coalesce(max(id), 0) FROM decision), (SELECT coalesce(max(id), 0) FROM delivery),
        (SELECT count(*) FROM report WHERE state = 'held'), (SELECT count(*) FROM message WHERE state = 'open')""")

_WAITING = text("""
    SELECT w.destination, w.state, w.count, d.at FROM delivery d JOIN (
        SELECT destination, state, count(*) AS count, min(id) AS oldest FROM delivery
        WHERE state IN ('queued', 'refused') GROUP BY destination, state) AS w ON d.id = w.oldest
    ORDER BY w.destination, w.state""")


class Reader:
    """A store, for reading; raises StoreError when there is none, StoreUnavailable when it cannot be reached.

    Safe in several threads. Lists are in order of id; in them messages have no body and deliveries no payload.
    """

    def __init__(self, url: str) -> None:
        self._url = parse(url)
        self.name = display(self._url)
        self._engine = reading(self._url)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def counts(self) -> Counts:
        """How much is stored and what waits, at a cost that does not grow with what is settled."""
        with self.snapshot() as snapshot:
            waiting = [Waiting(*row) for row in snapshot.execute(_WAITING)]
            return Counts(*[*snapshot.execute(_COUNTS).one(), waiting])

    def pending(self, limit: int = 100) -> list[Earlier]:
        """The oldest held reports."""
        with self.snapshot() as snapshot:
            held = select(*EARLIER).where(text("state = 'held'")).order_by(report.c.id).limit(limit)
            return _with_decisions(snapshot, snapshot.execute(held).all())

    def unsettled(self, limit: int = 100) -> list[Message]:
        """The oldest messages that a person must look at: unreadable, incomplete, oversize ..."""
        found = select(*_small(message)).where(text("state = 'open'")).order_by(message.c.id).limit(limit)
        return [Message(*row) for row in self._rows(found)]

    def queued(self, destination: str | None = None) -> list[Queued]:
        """The deliveries that wait or were refused, of one destination or of all."""
        every = destination is None
        return [Queued(*row) for row in self._rows(_QUEUED, every=every, destination=destination or "")]

    def payloads(self, ids: Collection[int]) -> dict[int, bytes]:
        """What to send for each of these deliveries; for some hundreds at once."""
        found = select(delivery.c.id, delivery.c.payload).where(delivery.c.id.in_(ids))
        return {row[0]: row[1] for row in self._rows(found)}

    def attempts(self, delivery_id: int) -> list[Attempt]:
        """The answers to one delivery."""
        return [Attempt(*row) for row in self._rows(_of(attempt, "delivery_id", [delivery_id]))]

    def message(self, id: int) -> Message | None:
        """One message with its body."""
        return next((Message(*row) for row in self._rows(_of(message, "id", [id]))), None)

    def revision(self, id: int) -> Revision | None:
        """The profiles, mappings and rules that decided, as they were."""
        return next((Revision(*row) for row in self._rows(_of(revision, "id", [id]))), None)

    def audit(self, limit: int = 100) -> list[AuditEntry]:
        """The latest changes by people."""
        found = self._rows(select(audit).order_by(audit.c.id.desc()).limit(limit))
        return [AuditEntry(*row) for row in found[::-1]]

    def trace(self, specimen: str) -> Trace:
        """Everything about one specimen, by its id or its key; at most ``HISTORY`` reports, the newest."""
        with self.snapshot() as snapshot:
            execute = snapshot.execute
            newest = execute(text(reports_of(":specimen")), {"specimen": specimen}).all()
            reports = _with_decisions(snapshot, newest[::-1])
            ids = [earlier.report_id for earlier in reports]
            origins = {earlier.message_id for earlier in reports}
            deliveries = [Delivery(*row) for row in execute(_of(delivery, "report_id", ids, small=True))]
            sent = [delivery.id for delivery in deliveries]
            return Trace(
                messages=[Message(*row) for row in execute(_of(message, "id", origins, small=True))],
                reports=reports,
                decisions=[Decision(*row) for row in execute(_of(decision, "report_id", ids))],
                deliveries=deliveries,
                attempts=[Attempt(*row) for row in execute(_of(attempt, "delivery_id", sent))],
            )

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees one state of the store; to be kept for a moment only."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except DBAPIError as error:
            raise explain(error, self._url) from None

    def _rows(self, statement: Executable, **parameters: Any) -> Sequence[Any]:
        with self.snapshot() as snapshot:
            return snapshot.execute(statement, parameters).all()


def _of(table: Table, column: str, values: Collection[int], *, small: bool = False) -> Select[Any]:
    """The rows of a table where a column has one of these values."""
    return select(*(_small(table) if small else table.c)).where(table.c[column].in_(values)).order_by(table.c.id)


def _small(table: Table) -> list[Column[Any]]:
    """The columns of a table without its last, the large one."""
    return list(table.c)[:-1]


def _with_decisions(snapshot: Connection, found: Sequence[Any]) -> list[Earlier]:
    decisions = defaultdict[int, tuple[bytes, ...]](tuple)
    for row in snapshot.execute(_of(decision, "report_id", [row.id for row in found])):
        decisions[row.report_id] += (row.document,)
    return [Earlier(*(*row, decisions[row.id])) for row in found]
