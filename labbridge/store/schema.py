"""The tables, made from their rows, and their indices. The newest migration must lead to exactly this.

There are no foreign keys: one writer makes every reference, and the ledger's verification finds what is missing.
"""

from functools import cache
from operator import itemgetter
from typing import Any

from msgspec.structs import fields
from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.types import TypeEngine

from .rows import Account, Attempt, Audit, Decision, Delivery, Earlier, Entry, Message, Proposal, Revision, Row, Spooled

HEAD = "0002"  # the newest migration

metadata = MetaData()

_INSERT = "INSERT INTO {} VALUES ({})"

# SQLite's row id is an INTEGER PRIMARY KEY and nothing else.
_KINDS: dict[type, TypeEngine[Any]] = {int: BigInteger().with_variant(Integer(), "sqlite"), str: Text(), bytes: LargeBinary()}


@cache
def columns(row: type[Row]) -> dict[str, TypeEngine[Any]]:
    """The names and types of a table's columns."""
    return {field.encode_name: _KINDS[field.type] for field in fields(row) if field.type in _KINDS}


def _table(row: type[Row]) -> Table:
    (key, kind), *others = columns(row).items()
    first: Column[Any] = Column(key, kind, primary_key=True, autoincrement=False)
    return Table(row.table, metadata, first, *(Column(name, kind, nullable=False) for name, kind in others))


def _index(name: str, table: Table, names: str, where: str = "", unique: bool = False) -> None:
    """An index; one with a condition serves only queries that repeat the condition word by word."""
    partial = text(where) if where else None
    Index(name, *(table.c[one] for one in names.split()), unique=unique, sqlite_where=partial, postgresql_where=partial)


def insert(row: type[Row]) -> str:
    """The statement that adds a row, every column a parameter."""
    return _INSERT.format(row.table, ", ".join("?" * len(columns(row))))


class Fact:
    """A table of facts: its number in the ledger, and the columns that the ledger covers, in order.

    ``body`` tells whether the last column is covered through its SHA-256, so that retention may delete it.
    """

    def __init__(self, code: int, row: type[Row], *outside: str, body: bool = False) -> None:
        self.code = code
        self.name = row.table
        self.table = _table(row)
        self.insert = insert(row)
        self.body = body
        *names, last = columns(row)
        self.columns = [name for name in (*names, *(() if body else (last,))) if name not in outside]
        self.covered = itemgetter(*(list(columns(row)).index(name) for name in self.columns))


# The ledger's format: codes and columns stay as they are for ever.
MESSAGE = Fact(1, Message, "state", "body")
REPORT = Fact(2, Earlier, "state", body=True)
DECISION = Fact(3, Decision, body=True)
DELIVERY = Fact(4, Delivery, "state", body=True)
ATTEMPT = Fact(5, Attempt, body=True)
REVISION = Fact(6, Revision)
AUDIT = Fact(7, Audit)
FACTS = (MESSAGE, REPORT, DECISION, DELIVERY, ATTEMPT, REVISION, AUDIT)
ledger = _table(Entry)
spool = _table(Spooled)
account = _table(Account)
proposal = _table(Proposal)

# No index on random digests: a tree of them slows with every message that is stored.
_index("message_open", MESSAGE.table, "analyzer id", "state = 'open'")
_index("report_key", REPORT.table, "key id")
_index("report_specimen", REPORT.table, "specimen id", "specimen != key")
_index("report_patient", REPORT.table, "patient id", "patient != ''")
_index("report_held", REPORT.table, "id", "state = 'held'")
_index("decision_report", DECISION.table, "report_id")
_index("delivery_waiting", DELIVERY.table, "destination state id", "state IN ('queued', 'refused')")
_index("delivery_report", DELIVERY.table, "report_id")
_index("attempt_delivery", ATTEMPT.table, "delivery_id")
_index("revision_digest", REVISION.table, "digest", unique=True)
_index("spool_session", spool, "session")
_index("account_name", account, "name", unique=True)
_index("proposal_open", proposal, "id", "state = 'open'")
