"""The rows of every table: what a field is called here, its column is called there, in the same order.

Times are microseconds since 1970 UTC; every id is given by the one writer, rising. ``state`` is derived and may change;
all other columns of a fact are immutable and covered by the ledger. Large columns come last, so that the small ones are
read without them: in lists a message has no body and a delivery no payload (they are empty).
"""

from typing import ClassVar

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row of ``table``; the first column is its key."""

    table: ClassVar[str]


class Message(Row, frozen=True):
    """A transmission, byte for byte; where ``size`` is more than the body's, the body is only its beginning."""

    table: ClassVar[str] = "message"
    id: int
    at: int
    direction: str  # in, out
    analyzer: str
    link: str
    kind: str  # stored, unreadable, incomplete, oversize, duplicate, stray, resent ...
    control_id: str
    digest: bytes  # SHA-256 of the body, which the ledger covers only through it
    size: int
    note: str  # reasons, as JSON
    state: str  # empty, open (a person must look), settled
    body: bytes = b""


class Earlier(Row, frozen=True):
    """A report, with the documents of its decisions, oldest first."""

    table: ClassVar[str] = "report"
    report_id: int = msgspec.field(name="id")
    message_id: int
    at: int
    analyzer: str
    key: str  # what identifies the specimen at this analyzer; usually the specimen's id
    specimen: str
    patient: str
    role: str
    digest: bytes  # of the message
    content: bytes  # SHA-256 of what the report says
    state: str  # released, held, rejected, superseded, kept
    document: bytes
    decisions: tuple[bytes, ...] = ()  # no column


class Decision(Row, frozen=True):
    """Verdicts on a report, by whom, under which revision."""

    table: ClassVar[str] = "decision"
    id: int
    report_id: int
    at: int
    actor: str
    revision: int
    document: bytes


class Delivery(Row, frozen=True):
    """A payload for a lane, not to be sent before ``due`` (0: at once)."""

    table: ClassVar[str] = "delivery"
    id: int
    at: int
    destination: str
    lane: str
    report_id: int
    decision_id: int
    control_id: str
    due: int
    state: str  # queued, delivered, refused, cancelled, superseded
    payload: bytes = b""


class Queued(Delivery, frozen=True):
    """A delivery that waits or was refused, and its specimen."""

    specimen: str = ""  # no column


class Attempt(Row, frozen=True):
    """One answer of a destination."""

    table: ClassVar[str] = "attempt"
    id: int
    delivery_id: int
    at: int
    outcome: str
    reply: bytes = b""


class Revision(Row, frozen=True):
    """The profiles, mappings and rules in force at a time."""

    table: ClassVar[str] = "revision"
    id: int
    at: int
    digest: bytes
    body: bytes = b""


class Audit(Row, frozen=True):
    """What a person changed."""

    table: ClassVar[str] = "audit"
    id: int
    at: int
    actor: str
    action: str
    subject: str
    reason: str
    old: str
    new: str


class Account(Row, frozen=True):
    """Who may use the console; no fact: the audit tells what became of it."""

    table: ClassVar[str] = "account"
    id: int
    name: str
    role: str
    language: str
    state: str  # active, disabled
    hash: str = ""  # argon2id, in its usual text form


class Proposal(Row, frozen=True):
    """A corrected specimen id that waits for a second person; no fact: the audit tells what became of it."""

    table: ClassVar[str] = "proposal"
    id: int
    at: int
    actor: str
    state: str  # open, moved (what was cancelled for it may still arrive), done, withdrawn
    reason: str
    document: bytes  # which reports become whose, as JSON


class Entry(Row, frozen=True):
    """One transaction in the ledger; ``hash`` covers all other columns."""

    table: ClassVar[str] = "ledger"
    sequence: int
    writer: str
    at: int
    previous: bytes
    hash: bytes
    facts: bytes


class Spooled(Row, frozen=True):
    """A frame of a transmission that is not whole yet, or all of them joined."""

    table: ClassVar[str] = "spool"
    id: int
    session: str
    analyzer: str
    at: int
    body: bytes


class Trace(msgspec.Struct, frozen=True):
    """Everything about one specimen, each list in order of id."""

    messages: list[Message]
    reports: list[Earlier]
    decisions: list[Decision]
    deliveries: list[Delivery]
    attempts: list[Attempt]
    erased: dict[int, int] = {}  # when retention deleted, by the id of its audit row
