"""Reading for the console and the command line: short snapshots that never block the writer."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from .engine import explain, is_sqlite, parse, reading
from .erasure import erased
from .ledger import START, Link
from .lookups import R, spoken, storable
from .overview import Overview
from .rows import Attempt, Audit, Decision, Delivery, Earlier, Message, Queued, Trace
from .schema import columns

_QUEUED = """
    SELECT {columns}, coalesce(report.specimen, '')
    FROM delivery LEFT JOIN report ON report.id = delivery.report_id
    WHERE delivery.state IN ('queued', 'refused') ORDER BY +delivery.id"""

LOOKED = 20_000

_LATEST = """
    SELECT message_id, at, specimen FROM report
    WHERE id > (SELECT coalesce(max(id), 0) FROM report) - ? AND analyzer = ? ORDER BY id DESC LIMIT ?"""


class Reader(Overview):
    """A store, for reading; raises StoreError when there is none, StoreUnavailable when it cannot be reached.

    Safe in several threads. Every statement has a snapshot of its own; lists are in order of id.
    """

    def __init__(self, url: str) -> None:
        self._url = parse(url)
        self.file = Path(str(self._url.database)) if is_sqlite(self._url) else None
        self._engine = reading(self._url)
        self._sqlite = is_sqlite(self._url)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def pending(self, limit: int = 100) -> list[Earlier]:
        """The oldest held reports."""
        return self.held_reports(limit)

    def unsettled(self, limit: int = 100) -> list[Message]:
        """The oldest messages that a person must look at: unreadable, incomplete, oversize ..."""
        return self._select(Message, "WHERE state = 'open' ORDER BY +id LIMIT ?", limit, large=False)

    def message(self, id: int) -> Message | None:
        """One message with its body."""
        return next(iter(self._of(Message, "id", [id])), None)

    def queued(self, destination: str | None = None) -> list[Queued]:
        """The deliveries that wait or were refused, of one destination or of all."""
        small = ", ".join(f"delivery.{name}" for name in list(columns(Delivery))[:-1])
        rows = [Queued(*(*row[:-1], b"", row[-1])) for row in self._read(_QUEUED.format(columns=small))]
        return [row for row in rows if destination in (None, row.destination)]

    def latest(self, analyzer: str, limit: int) -> list[tuple[int, int, str]]:
        """An analyzer's newest reports: message, time and specimen; among the last ``LOOKED`` of all, newest first."""
        return [(row[0], row[1], row[2]) for row in self._read(_LATEST, LOOKED, analyzer, limit)]

    def reports_of_patient(self, patient: str, before: int, limit: int) -> list[Earlier]:
        """The newest reports on a patient, by the id that was sent, older than the report ``before``, oldest first."""
        chosen = "SELECT * FROM report WHERE patient = ? AND patient != '' AND id < ? ORDER BY id DESC LIMIT ?"
        return self._reports(chosen, storable(patient), before, limit)

    def attempts(self, delivery_id: int) -> list[Attempt]:
        """The answers to one delivery."""
        return self._of(Attempt, "delivery_id", [delivery_id])

    def trace(self, specimen: str) -> Trace:
        """Everything about one specimen, by its id or its key; at most ``HISTORY`` reports, the newest."""
        reports = self.reports_of(specimen)
        ids = [report.report_id for report in reports]
        deliveries = self._of(Delivery, "report_id", ids, large=False)
        gone = {mark.audit_id for report in reports if (mark := erased(report.document))}
        return Trace(
            messages=self._of(Message, "id", {report.message_id for report in reports}, large=False),
            reports=reports,
            decisions=self._of(Decision, "report_id", ids),
            deliveries=deliveries,
            attempts=self._of(Attempt, "delivery_id", [delivery.id for delivery in deliveries]),
            erased={audit.id: audit.at for audit in self._of(Audit, "id", gone)},
        )

    def rows(self, kind: type[R], column: str, values: Iterable[int], *, large: bool = True) -> list[R]:
        """The rows of a table where a column has one of these numbers, in order of id; ``large``: with their bodies."""
        return self._of(kind, column, values, large=large)

    def audits(self, subjects: Iterable[str], after: int = 0) -> list[Audit]:
        """What was done to these subjects, in order of id; looks through all of the audit that comes after this id."""
        listed = msgspec.json.encode(sorted(subjects)).decode()
        return self._select(Audit, "WHERE id > ? AND subject IN (SELECT wanted.value FROM {list}) ORDER BY id", after, listed)

    def audit_trail(
        self, *, before: int = 2**62, limit: int = 100, since: int = 0, until: int = 2**62, **values: str
    ) -> list[Audit]:
        """What was done, the newest first: of ids below ``before``, at times from ``since`` and below ``until``.

        ``values`` are those that columns must have (actor, action, subject); an empty one lets everything pass.
        """
        wanted = {column: value for column, value in values.items() if value and column in columns(Audit)}
        condition = "".join(f" AND {column} = ?" for column in wanted)
        condition = f"WHERE id < ? AND at >= ? AND at < ?{condition} ORDER BY id DESC LIMIT ?"
        return self._select(Audit, condition, before, since, until, *map(storable, wanted.values()), limit)

    def head(self) -> Link:
        """The end of the ledger."""
        return next((Link(*row) for row in self._read("SELECT sequence, hash FROM ledger ORDER BY sequence DESC LIMIT 1")), START)

    @contextmanager
    def snapshot(self) -> Generator[Connection, None, None]:
        """A connection that sees one state of the store; to be kept for a moment only."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except Exception as error:
            raise explain(error, self._url) from None

    @contextmanager
    def still(self) -> Generator["Reader", None, None]:
        """A reader of which all statements see the same state of the store; to be kept for a moment only."""
        with self.snapshot() as snapshot:
            yield _Still(self, snapshot)

    def stream(self, statement: str, *parameters: Any) -> Generator[Any, None, None]:
        """The rows that a statement finds, fetched a few at a time since they may be large."""
        options = {"stream_results": True, "max_row_buffer": 20}
        spelled = spoken(statement, self._sqlite)
        with self.snapshot() as snapshot, snapshot.exec_driver_sql(spelled, parameters, execution_options=options) as found:
            yield from found

    def page(self, statement: str, size: int, *parameters: Any) -> list[Any]:
        """The first of the rows that a statement finds: all, or as many as have ``size`` bytes in their last columns."""
        rows = []
        with closing(self.stream(statement, *parameters)) as found:
            for row in found:
                rows.append(row)
                size -= len(row[-1]) if isinstance(row[-1], bytes | str) else 0
                if size < 0:
                    break
        return rows

    def _read(self, statement: str, *parameters: Any) -> Sequence[Any]:
        return list(self.stream(statement, *parameters))


class _Still(Reader):
    """A reader in one transaction."""

    def __init__(self, reader: Reader, connection: Connection) -> None:
        self.__dict__.update(reader.__dict__)
        self._connection = connection

    @contextmanager
    def snapshot(self) -> Generator[Connection, None, None]:
        """The one connection."""
        try:
            yield self._connection
        except Exception as error:
            raise explain(error, self._url) from None
