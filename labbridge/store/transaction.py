"""What a job may do: append facts, change states, use the spool, and look up what deciding needs.

Rows wait in memory and are written with one statement per table; ids are given at once. A job may run more than once
(when the group it was committed with fails), so it keeps nothing from a run but what it returns.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec.structs import astuple

from .ledger import WRITER, Link, follow, leaf
from .lookups import Lookups, R, spoken, storable
from .rows import Account, Entry, Proposal, Spooled
from .schema import ATTEMPT, AUDIT, DECISION, DELIVERY, FACTS, MESSAGE, REPORT, REVISION, Fact, insert

Columns = tuple[Any, ...]

_MESSAGE_STATE = "UPDATE message SET state = ? WHERE id = ?"
_REPORT_STATE = "UPDATE report SET state = ? WHERE id = ?"
_DELIVERY_STATE = "UPDATE delivery SET state = ? WHERE id = ?"
_TAKE_OUT = "DELETE FROM {} WHERE id = ?"
_CLEAR = "DELETE FROM spool WHERE session = ?"
_PROPOSAL_STATE = "UPDATE proposal SET state = ? WHERE id = ?"
_SPOOL, _LEDGER, _PROPOSE = insert(Spooled), insert(Entry), insert(Proposal)
_STATES = (_MESSAGE_STATE, _REPORT_STATE, _DELIVERY_STATE)
_ORDER = (*(fact.insert for fact in FACTS), *_STATES, _PROPOSE, _PROPOSAL_STATE, _CLEAR, _SPOOL, _LEDGER)


class Transaction(Lookups):
    """One job's view of the store, inside a transaction that may hold other jobs too.

    ``at`` is its beginning, in microseconds since 1970 UTC, and the time of whatever it appends. Text that a database
    cannot hold (NUL, lone surrogates) is kept with backslash escapes.
    """

    def __init__(self, cursor: Any, sqlite: bool, ids: Mapping[str, Iterator[int]], link: Link, at: int) -> None:
        self.at = at
        self.size = 0  # bytes of bodies and documents so far
        self._cursor = cursor
        self._sqlite = sqlite
        self._ids = ids  # the next one of every table
        self._link = link  # the end of the ledger
        self._broken: Exception | None = None
        self._pending: dict[str, list[Columns]] = {statement: [] for statement in _ORDER}  # rows to be written
        self._leaves: list[bytes] = []

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
    ) -> int:
        """Append a transmission; ``digest`` is SHA-256 of ``body`` and ``size`` its length when not given.

        ``size`` differs where ``body`` is only the beginning of what was sent.
        """
        digest, size = digest or sha256(body).digest(), len(body) if size < 0 else size
        control_id, note = storable(control_id), storable(note)
        return self._append(MESSAGE, self.at, direction, analyzer, link, kind, control_id, digest, size, note, state, body)

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
    ) -> int:
        """Append what a message says of one specimen."""
        key, specimen, patient = storable(key), storable(specimen), storable(patient)
        identity = (analyzer, key, specimen, patient, role)
        return self._append(REPORT, message_id, self.at, *identity, digest, content, state, document)

    def decision(self, *, report_id: int, actor: str, revision: int, document: bytes) -> int:
        """Append verdicts on a report; ``revision`` is the id that ``revision()`` gave."""
        return self._append(DECISION, report_id, self.at, storable(actor), revision, document)

    def delivery(
        self, *, destination: str, lane: str, report_id: int, decision_id: int, control_id: str, payload: bytes, due: int = 0
    ) -> int:
        """Append a payload for a lane, not to be sent before ``due``."""
        ids = (report_id, decision_id, control_id)
        return self._append(DELIVERY, self.at, destination, storable(lane), *ids, due, "queued", payload)

    def attempt(self, *, delivery_id: int, outcome: str, reply: bytes = b"") -> int:
        """Append an answer of a destination."""
        return self._append(ATTEMPT, delivery_id, self.at, storable(outcome), reply)

    def audit(self, *, actor: str, action: str, subject: str, reason: str = "", old: str = "", new: str = "") -> int:
        """Append what a person changed."""
        return self._append(AUDIT, self.at, *map(storable, (actor, action, subject, reason, old, new)))

    def revision(self, digest: bytes, body: bytes) -> int:
        """The id of the revision with this digest, appended if it is new."""
        for row in self._read("SELECT id FROM revision WHERE digest = ?", digest):
            return int(row[0])
        return self._append(REVISION, self.at, digest, body)

    # States: derived, not covered by the ledger

    def set_message_state(self, id: int, state: str) -> None:
        """Change whether a person must look at a message: open, settled."""
        self._pending[_MESSAGE_STATE].append((state, id))

    def set_report_state(self, id: int, state: str) -> None:
        """Change what became of a report: released, held, rejected, superseded, kept."""
        self._pending[_REPORT_STATE].append((state, id))

    def set_delivery_state(self, id: int, state: str) -> None:
        """Change what became of a delivery: queued, delivered, refused, cancelled, superseded."""
        self._pending[_DELIVERY_STATE].append((state, id))

    # Accounts: no facts

    def keep_account(self, account: Account) -> None:
        """Add an account (its id is 0), or change the one with its id."""
        number = account.id or next(self._ids["account"])
        self._execute(_TAKE_OUT.format("account"), (number,))
        self._execute(insert(Account), (number, *astuple(account)[1:]))

    # The workbench: what waits for a second person

    def propose(self, actor: str, reason: str, document: bytes) -> int:
        """Keep a corrected specimen id until a second person confirms it."""
        [(last,)] = self._read("SELECT coalesce(max(id), 0) FROM proposal")
        self._pending[_PROPOSE].append((last + 1, self.at, storable(actor), "open", storable(reason), document))
        return int(last) + 1

    def set_proposal_state(self, id: int, state: str) -> None:
        """Change what became of a proposal: moved, done, withdrawn."""
        self._pending[_PROPOSAL_STATE].append((state, id))

    # The spool

    def spool(self, session: str, analyzer: str, body: bytes) -> None:
        """Keep a part of a message that is not whole yet."""
        self.size += len(body)
        self._pending[_SPOOL].append((next(self._ids["spool"]), session, analyzer, self.at, body))

    def clear_spool(self, session: str) -> None:
        """Forget the parts of a transmission."""
        self._pending[_SPOOL] = [row for row in self._pending[_SPOOL] if row[1] != session]
        self._pending[_CLEAR].append((session,))

    # Retention

    def rows_of(self, statement: str, *parameters: Any) -> list[Columns]:
        """What a statement finds, what was appended here included."""
        return self._read(statement, *parameters)

    def found(self, row: type[R], column: str, values: Iterable[int]) -> list[R]:
        """The rows of a table where a column has one of these numbers, in order of id."""
        return self._of(row, column, values)

    def put_again(self, fact: Fact, rows: Sequence[Columns]) -> None:
        """Take rows out and put them back with other bodies."""
        self.flush()
        if rows:
            self._run(self._cursor.executemany, _TAKE_OUT.format(fact.name), [row[:1] for row in rows])
            self._run(self._cursor.executemany, fact.insert, rows)

    # Writing it down

    def flush(self) -> None:
        """Write the rows that wait, each table at once."""
        for statement, rows in self._pending.items():
            if rows:
                self._run(self._cursor.executemany, statement, rows)
                rows.clear()

    def finish(self) -> Link:
        """Write everything down, the ledger too; gives the end of the chain as it is once this is committed.

        Raises what went wrong before, since a job may have passed over an error that undid the work of others.
        """
        if self._broken:
            raise self._broken
        before = link = self._link
        if self._leaves:
            facts = b"".join(self._leaves)
            link = follow(before, WRITER, self.at, facts)
            self._pending[_LEDGER].append((link.sequence, WRITER, self.at, before.hash, link.hash, facts))
        self.flush()
        return link

    def _append(self, fact: Fact, *columns: Any) -> int:
        id = next(self._ids[fact.name])
        row = (id, *columns)
        self.size += len(columns[-1])
        self._pending[fact.insert].append(row)
        self._leaves.append(leaf(fact, row))
        return id

    def _read(self, statement: str, *parameters: Any) -> list[Columns]:
        self.flush()
        self._run(self._cursor.execute, statement, parameters)
        found: list[Columns] = self._cursor.fetchall()
        return found

    def _execute(self, statement: str, values: Columns) -> None:
        self.flush()
        self._run(self._cursor.execute, statement, values)

    def _run(self, run: Callable[[str, Any], Any], statement: str, values: Any) -> None:
        try:
            run(spoken(statement, self._sqlite), values)
        except Exception as error:
            self._broken = error
            raise
