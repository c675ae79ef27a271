"""What the store gives back: frozen rows; times in microseconds since 1970 UTC, documents as the bytes stored."""

import msgspec


class Earlier(msgspec.Struct, frozen=True, gc=False):
    """A report that is stored, with the documents of its decisions, oldest first."""

    report_id: int
    message_id: int
    at: int
    analyzer: str
    key: str
    specimen: str
    patient: str
    role: str
    digest: bytes
    content: bytes
    state: str
    document: bytes
    decisions: tuple[bytes, ...] = ()


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A payload for a lane; in lists ``payload`` is left out (empty)."""

    id: int
    at: int
    destination: str
    lane: str
    report_id: int
    decision_id: int
    control_id: str
    due: int
    state: str
    payload: bytes = b""


class Queued(msgspec.Struct, frozen=True, gc=False):
    """What a sender must know of a delivery that waits; ``state`` is queued or refused."""

    id: int
    at: int
    destination: str
    lane: str
    state: str
    control_id: str
    report_id: int
    specimen: str


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One answer of a destination."""

    id: int
    delivery_id: int
    at: int
    outcome: str
    reply: bytes


class Message(msgspec.Struct, frozen=True, gc=False):
    """A transmission; in lists ``body`` is left out (empty)."""

    id: int
    at: int
    direction: str
    analyzer: str
    link: str
    kind: str
    control_id: str
    digest: bytes
    size: int
    note: str
    state: str
    body: bytes = b""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """Verdicts on a report, by whom, under which revision."""

    id: int
    report_id: int
    at: int
    actor: str
    revision: int
    document: bytes


class Revision(msgspec.Struct, frozen=True, gc=False):
    """The profiles, mappings and rules in force at a time."""

    id: int
    at: int
    digest: bytes
    body: bytes


class AuditEntry(msgspec.Struct, frozen=True, gc=False):
    """What a person changed."""

    id: int
    at: int
    actor: str
    action: str
    subject: str
    reason: str
    old: str
    new: str


class Spooled(msgspec.Struct, frozen=True, gc=False):
    """The frames of a transmission that was not whole when the store was last closed."""

    session: str
    analyzer: str
    at: int
    body: bytes


class Trace(msgspec.Struct, frozen=True, gc=False):
    """Everything about one specimen, each list in order of id."""

    messages: list[Message]
    reports: list[Earlier]
    decisions: list[Decision]
    deliveries: list[Delivery]
    attempts: list[Attempt]


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """How many deliveries of a destination wait in one state, and since when the oldest does."""

    destination: str
    state: str
    count: int
    oldest: int


class Counts(msgspec.Struct, frozen=True, gc=False):
    """How much is stored: facts by the highest id given (a failed transaction leaves a gap), and what waits."""

    messages: int
    reports: int
    decisions: int
    deliveries: int
    held: int
    open: int
    waiting: list[Waiting]
