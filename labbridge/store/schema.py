"""The tables: facts, which are appended and never changed, their derived states, and the spool.

Every time is an integer of microseconds since 1970 UTC; every id is given by the one writer, rising. ``state`` columns
are derived and may change; all other columns of a fact are immutable and covered by the ledger. Large columns come
last, so that the small ones are read without them. There are no foreign keys: one writer makes every reference, and
the ledger's verification finds what is missing.
"""

from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text

HEAD = "0001"  # the newest migration: what it leads to is what stands below

# SQLite's row id is an INTEGER PRIMARY KEY and nothing else.
_Whole = BigInteger().with_variant(Integer(), "sqlite")


def _key(name: str = "id") -> Column[Any]:
    return Column(name, _Whole, primary_key=True, autoincrement=False)


def _whole(name: str) -> Column[Any]:
    return Column(name, _Whole, nullable=False)


def _text(name: str) -> Column[Any]:
    return Column(name, Text, nullable=False)


def _bytes(name: str) -> Column[Any]:
    return Column(name, LargeBinary, nullable=False)


metadata = MetaData()

message = Table(
    "message",
    metadata,
    _key(),
    _whole("at"),
    _text("direction"),  # in, out
    _text("analyzer"),
    _text("link"),
    _text("kind"),  # stored, unreadable, incomplete, oversize, duplicate, stray, query ...
    _text("control_id"),
    _bytes("digest"),  # SHA-256 of body
    _whole("size"),  # bytes on the wire; body may be only their beginning
    _text("note"),  # reasons, as JSON
    _text("state"),  # empty, open (a person must look), settled
    _bytes("body"),
)

report = Table(
    "report",
    metadata,
    _key(),
    _whole("message_id"),
    _whole("at"),
    _text("analyzer"),
    _text("key"),  # what identifies the specimen at this analyzer; usually the specimen's id
    _text("specimen"),
    _text("patient"),
    _text("role"),
    _bytes("digest"),  # of the message
    _bytes("content"),  # SHA-256 of what the report says
    _text("state"),  # released, held, rejected, superseded, kept
    _bytes("document"),
)

decision = Table(
    "decision", metadata, _key(), _whole("report_id"), _whole("at"), _text("actor"), _whole("revision"), _bytes("document")
)

delivery = Table(
    "delivery",
    metadata,
    _key(),
    _whole("at"),
    _text("destination"),
    _text("lane"),
    _whole("report_id"),
    _whole("decision_id"),
    _text("control_id"),
    _whole("due"),  # not to be sent before; 0: at once
    _text("state"),  # queued, delivered, refused, cancelled, superseded
    _bytes("payload"),
)

attempt = Table("attempt", metadata, _key(), _whole("delivery_id"), _whole("at"), _text("outcome"), _bytes("reply"))

revision = Table("revision", metadata, _key(), _whole("at"), _bytes("digest"), _bytes("body"))

audit = Table(
    "audit",
    metadata,
    _key(),
    _whole("at"),
    _text("actor"),
    _text("action"),
    _text("subject"),
    _text("reason"),
    _text("old"),
    _text("new"),
)

ledger = Table(
    "ledger", metadata, _key("sequence"), _text("writer"), _whole("at"), _bytes("previous"), _bytes("hash"), _bytes("facts")
)

spool = Table("spool", metadata, _key(), _text("session"), _text("analyzer"), _whole("at"), _bytes("body"))


def _partial(name: str, where: str, *columns: Column[Any]) -> None:
    """An index of the few rows that matter; it serves only queries that repeat the condition word by word."""
    Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


# No index on digests: they are random, and a tree of them slows with every message that is stored.
_partial("message_open", "state = 'open'", message.c.analyzer, message.c.id)
Index("report_key", report.c.key, report.c.id)
_partial("report_specimen", "specimen != key", report.c.specimen, report.c.id)
_partial("report_patient", "patient != ''", report.c.patient, report.c.id)
_partial("report_held", "state = 'held'", report.c.id)
Index("decision_report", decision.c.report_id)
_partial("delivery_waiting", "state IN ('queued', 'refused')", delivery.c.destination, delivery.c.state, delivery.c.id)
Index("delivery_report", delivery.c.report_id)
Index("attempt_delivery", attempt.c.delivery_id)
Index("revision_digest", revision.c.digest, unique=True)
Index("spool_session", spool.c.session)


class Fact(NamedTuple):
    """A table of facts: its number in the ledger, and the columns that the ledger covers, in order."""

    code: int
    table: Table
    columns: tuple[str, ...]


def _fact(code: int, table: Table, *outside: str) -> Fact:
    return Fact(code, table, tuple(column.name for column in table.columns if column.name not in outside))


# The ledger's format: codes and columns stay as they are for ever. A message's body is covered through its digest.
FACTS = (
    _fact(1, message, "state", "body"),
    _fact(2, report, "state"),
    _fact(3, decision),
    _fact(4, delivery, "state"),
    _fact(5, attempt),
    _fact(6, revision),
    _fact(7, audit),
)
