"""The nouns: what analyzers say and what the laboratory decides, as frozen values.

Everything here is plain data. Numbers stay the decimal text that was sent; times keep their text beside the instant
that was understood. Documents in the store are these structs as JSON (msgspec), defaults left out; a new field of a noun
goes to its end.
"""

from typing import Any, Literal, TypeVar

import msgspec

T = TypeVar("T")

Role = Literal["patient", "qc", "calibration", "test", "unknown"]
Kind = Literal["number", "comparator", "ratio", "coded", "text", "absent", "attachment"]
Action = Literal["release", "hold", "ignore", "superseded", "rejected"]


class Value(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Base of every noun: immutable, compact in JSON, compared by content."""


class Reason(Value, frozen=True):
    """Why something is held: a code with parameters, rendered in any language (``verification.reasons``).

    Parameters never carry patient data; ``why`` may be what a person wrote.
    """

    code: str
    params: dict[str, str] = {}


class RemoteProtocolError(Exception):
    """The peer's bytes cannot be read; carries what the protocol owes it.

    ``supported`` is False when the type or version is not ours (AR/CR), else the message is stored, acknowledged and
    held (AA/CA). ``error_code`` is of HL7 table 0357 (100-103, 200-207).
    """

    def __init__(self, reason: Reason, *, supported: bool = True, error_code: str = "207") -> None:
        super().__init__(reason.code)
        self.reason = reason
        self.supported = supported
        self.error_code = error_code


class Patient(Value, frozen=True):
    """Whom the analyzer believes the specimen to be from; every field as it was sent, empty when it was not."""

    id: str = ""
    family: str = ""
    given: str = ""
    birth: str = ""  # YYYYMMDD, as far as it was sent
    sex: str = ""  # M, F, or empty when unknown
    age: str = ""  # as in limits.csv: 28d, 18y; empty when not sent
    location: str = ""


class Specimen(Value, frozen=True):
    """The tube: its id, and how the analyzer came by it."""

    id: str = ""
    source: str = ""  # barcode, manual, counter; empty when the analyzer does not say
    type: str = ""
    rack: str = ""
    position: str = ""
    collected: str = ""  # as sent
    collected_at: int | None = None  # seconds since 1970, UTC


class Result(Value, frozen=True, array_like=True):
    """One observation as the analyzer sent it. In documents its fields stand in this order, without their names."""

    code: str
    value: str = ""  # the text that was sent, blanks at its ends removed
    kind: Kind = "text"
    number: str = ""  # decimal text of a number or comparator value: no exponent lost, no binary float
    comparator: str = ""  # <, <=, >, >=
    unit: str = ""
    flags: tuple[str, ...] = ()
    status: str = "F"  # HL7 table 0085: F P C X R I D W N ...; N also for "unknown"
    name: str = ""
    reference: str = ""
    measured: str = ""  # as sent
    measured_at: int | None = None  # seconds since 1970, UTC
    alarms: tuple[str, ...] = ()  # the analyzer's alarm codes, undecoded
    run: str = ""
    dilution: str = ""
    operator: str = ""
    edited: bool = False  # changed by hand at the analyzer
    comments: tuple[str, ...] = ()
    problems: tuple[Reason, ...] = ()  # why this result alone must be held


class Report(Value, frozen=True):
    """What one message says of one specimen."""

    specimen: Specimen
    results: tuple[Result, ...] = ()
    role: Role = "patient"
    patient: Patient = Patient()
    problems: tuple[Reason, ...] = ()  # why the whole report must be held
    sent: str = ""
    sent_at: int | None = None
    sender: str = ""
    order: str = ""
    comments: tuple[str, ...] = ()
    control: dict[str, str] = {}  # QC: material, lot, level, expiry, target, sd


class Query(Value, frozen=True):
    """An analyzer asks for orders: for these specimens, or for all."""

    specimens: tuple[str, ...] = ()
    all: bool = False
    echo: tuple[str, ...] = ()  # what the answer must repeat unchanged (sequence, rack, position)
    tests: tuple[str, ...] = ()


class Reading(Value, frozen=True):
    """One message, read: what it says, and what its header says about it."""

    reports: tuple[Report, ...] = ()
    queries: tuple[Query, ...] = ()
    control_id: str = ""  # MSH-10; empty where the protocol has none
    type: str = ""  # ORU^R01, or the ASTM header's processing words
    problems: tuple[Reason, ...] = ()  # why a person must look at the message though nothing in it was a result
    notes: tuple[Reason, ...] = ()  # what is odd about it and holds nothing: for the log


class Verdict(Value, frozen=True, array_like=True):
    """What becomes of one result, and why."""

    action: Action
    reasons: tuple[Reason, ...] = ()


class Decided(Value, frozen=True, array_like=True):
    """One result after mapping and verification: the laboratory's own test, value and unit, and the verdict.

    ``index`` is the result's place in its report's ``results``. In documents without the names, as in Result.
    """

    index: int
    code: str
    verdict: Verdict
    test: str = ""
    value: str = ""  # what is reported: rounded once, comparator included
    unit: str = ""  # UCUM
    print_unit: str = ""
    kind: str = "number"
    flag: str = ""  # computed from the laboratory's limits: L H LL HH, N, or empty when it cannot be told
    reference: str = ""  # the laboratory's, as printed: "3.5-9.5"
    status: str = "F"  # as it is delivered: F, C, P ...
    measured_at: int | None = None


class Decision(Value, frozen=True):
    """Verdicts on some results of a report at a moment, by whom, under which revision."""

    results: tuple[Decided, ...]
    actor: str = "rules"
    comment: str = ""
    kind: str = ""  # what a person did, as the command is called: release, reject, comment, call-back, acknowledge, edit ...
    told: str = ""  # call-back: who was told of these results
    told_at: int | None = None  # call-back: when, seconds since 1970, UTC
    read_back: bool = False  # call-back: whether the listener read it back
    tests: tuple[str, ...] = ()  # what it is about where it has no results of its own; all of them when empty


def encode(document: Any) -> bytes:
    """The JSON bytes of a document: what the store keeps."""
    return _encoder.encode(document)


def decode(data: bytes, kind: type[T]) -> T:
    """A document back from its JSON bytes; raises msgspec.ValidationError."""
    return msgspec.json.decode(data, type=kind)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def named(value: Any) -> Any:
    """What is printed of a document for other programs: nouns as objects with the names of their fields, defaults left out."""
    if isinstance(value, msgspec.Struct):
        every = [(field, getattr(value, field.name)) for field in msgspec.structs.fields(value)]
        return {field.name: named(one) for field, one in every if field.required or one != _default(field)}
    if isinstance(value, dict):
        return {key: named(one) for key, one in value.items()}
    return [named(one) for one in value] if isinstance(value, tuple | list) else value


_encoder = msgspec.json.Encoder()
