"""The rows of Pending: held reports, unreadable messages, deliveries that are stuck, and what they have in common. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from labbridge import model
from labbridge.model import Decided, Reason, Report
from labbridge.pipeline import standing
from labbridge.store.erasure import erased
from labbridge.store.rows import Earlier, Message, Queued
from labbridge.verification.ages import age_in_days
from labbridge.verification.callback import called_back, is_critical

What = Literal["held", "message", "refused", "waiting"]
Key = tuple[What, int]

_REASONS = 8  # of a row; how many more there are is counted
_LAST = ("held-with", "auto-release-off", "manual")  # say little beside another reason
_VARYING = frozenset({"value", "before", "measured", "bytes", "sha256", "word"})  # differ from specimen to specimen
_BY_TEST = frozenset({"critical", "absurd", "manual", "twice-in-message", "repeat"})


class Why(msgspec.Struct, frozen=True, gc=False):
    """One reason, and the tests that it holds; none where it holds the whole report."""

    reason: Reason
    tests: tuple[str, ...] = ()


class Cause(msgspec.Struct, frozen=True, gc=False):
    """What rows have in common that one look and one act may settle; rows of one cause share the object."""

    key: str
    analyzer: str
    whys: tuple[Why, ...]
    critical: bool = False


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line of the list."""

    id: int  # of the report, message or delivery
    what: What
    at: int
    specimen: str
    analyzer: str  # or the destination
    cause: Cause
    whys: tuple[Why, ...] = ()
    more: int = 0  # further reasons
    kept_back: int = 0  # results that are held only with another
    missing: tuple[str, ...] = ()
    critical: bool = False
    told: bool = False  # a critical value of it was called back, or its signal acknowledged
    age: int | None = None  # days
    sex: str = ""
    ward: str = ""
    rack: str = ""
    position: str = ""
    tests: tuple[str, ...] = ()  # all that are held
    opens: str = ""  # what opens it: what identifies the specimen, or a message's number; nothing where its id is not known
    said: str = ""  # the hospital's answer

    @property
    def key(self) -> Key:
        """What tells rows apart."""
        return self.what, self.id

    @property
    def urgency(self) -> tuple[bool, bool, int]:
        """What is critical first, then what the hospital refused, then the oldest."""
        return not self.critical, self.what != "refused", self.at


def row_of(earlier: Earlier, zone: ZoneInfo, missing: Callable[[str, set[str]], tuple[str, ...]] = lambda *_: ()) -> Row:
    """The row of a held report; ``missing`` tells what an analyzer has not sent beside these tests."""
    if erased(earlier.document):
        cause = cause_of(earlier.analyzer, ())
        return Row(earlier.report_id, "held", earlier.at, earlier.specimen, earlier.analyzer, cause, opens=earlier.key)
    report = model.decode(earlier.document, Report)
    decisions = [model.decode(document, model.Decision) for document in earlier.decisions if not erased(document)]
    decided = standing(decisions)
    held = [one for one in decided if one.verdict.action == "hold"]
    whys = whys_of(report, held)
    critical = {one.index for one in held if is_critical(one)}
    told = critical <= called_back(decisions) or any(decision.kind == "acknowledge" for decision in decisions)
    tests = tuple(dict.fromkeys(one.test or one.code for one in held))
    return Row(
        earlier.report_id,
        "held",
        earlier.at,
        earlier.specimen,
        earlier.analyzer,
        cause_of(earlier.analyzer, whys),
        whys[:_REASONS],
        more=max(0, len(whys) - _REASONS),
        kept_back=sum(all(reason.code == "held-with" for reason in one.verdict.reasons) for one in held),
        missing=missing(earlier.analyzer, {one.test or one.code for one in decided if one.value}),
        critical=bool(critical),
        told=bool(critical) and told,
        age=age_in_days(report.patient, earlier.at / 1e6, zone),
        sex=report.patient.sex,
        ward=report.patient.location,
        rack=report.specimen.rack,
        position=report.specimen.position,
        tests=_tests.setdefault(tests, tests),
        opens=earlier.key,
    )


def whys_of(report: Report, held: Sequence[Decided]) -> tuple[Why, ...]:
    """Why a report is held, the weightiest first: each reason once, with the tests that it holds."""
    found: dict[bytes, tuple[Reason, list[str]]] = {}
    for problem in report.problems:
        found.setdefault(model.encode(problem), (problem, []))
    for one in held:
        for reason in one.verdict.reasons:
            if reason.code != "held-with":
                found.setdefault(model.encode(reason), (reason, []))[1].append(one.test or one.code)
    whys = []
    for reason, tests in found.values():
        whole = reason in report.problems or reason.code == "unmapped" or (len(tests) == len(held) and len(held) > 1)
        whys.append(Why(reason, () if whole else tuple(dict.fromkeys(tests))))
    return tuple(sorted(whys, key=lambda why: _weight(why.reason.code)))


def _weight(code: str) -> int:
    first = ("critical", "absurd")
    return first.index(code) if code in first else 2 + (_LAST.index(code) + 1 if code in _LAST else 0)


def cause_of(analyzer: str, whys: Sequence[Why]) -> Cause:
    """What a row has in common with others: its reasons without what differs from specimen to specimen."""
    telling = [why for why in whys if why.reason.code not in _LAST] or list(whys[:1])
    common = []
    for why in telling:
        reason = why.reason
        if _VARYING & reason.params.keys():
            params = {name: "…" if name in _VARYING else value for name, value in reason.params.items()}
            reason = Reason(reason.code, params)
        common.append(Why(reason, why.tests if reason.code in _BY_TEST else ()))
    parts = sorted({msgspec.json.encode(why): why for why in common}.items())
    key = msgspec.json.encode([analyzer, [part.decode() for part, _ in parts]]).decode()
    whole = tuple(sorted((why for _, why in parts), key=lambda why: _weight(why.reason.code)))
    return _causes.setdefault(key, Cause(key, analyzer, whole, any(why.reason.code == "critical" for why in whole)))


_causes: dict[str, Cause] = {}  # shared by rows, until ``forget``
_tests: dict[tuple[str, ...], tuple[str, ...]] = {}


def forget(most: int) -> None:
    """Shares anew, where more than so many causes or lists of tests are kept."""
    for shared in (_causes, _tests):
        if len(shared) > most:
            shared.clear()


def message_row(message: Message) -> Row:
    """The row of a message that a person must look at."""
    reasons = msgspec.json.decode(message.note or "[]", type=list[Reason])
    whys = tuple(map(Why, reasons or [Reason(message.kind)]))
    cause = cause_of(message.analyzer, whys)
    return Row(message.id, "message", message.at, "", message.analyzer, cause, whys, opens=f"#{message.id}")


def delivery_row(delivery: Queued, said: str) -> Row:
    """The row of a delivery that the hospital refused, or that waits long."""
    what: What = "refused" if delivery.state == "refused" else "waiting"
    why = Why(Reason(what, {"destination": delivery.destination}))
    cause = cause_of(delivery.destination, (why,))
    specimen, lane = delivery.specimen, delivery.lane
    return Row(delivery.id, what, delivery.at, specimen, delivery.destination, cause, (why,), opens=lane, said=said)


class Filter(msgspec.Struct):
    """Which rows are wanted; nothing given is no filter."""

    what: str = ""
    analyzer: str = ""
    reason: str = ""  # a code
    test: str = ""
    text: str = ""  # in the specimen's id, the ward, the rack, the hospital's answer
    cause: str = ""  # a key

    def passes(self, row: Row) -> bool:
        """Tells whether a row is wanted."""
        if (self.what and row.what != self.what) or (self.analyzer and row.analyzer != self.analyzer):
            return False
        if (self.test and self.test not in row.tests) or (self.cause and row.cause.key != self.cause):
            return False
        if self.reason and all(why.reason.code != self.reason for why in row.cause.whys):
            return False
        text = self.text.casefold()
        return not text or any(text in part.casefold() for part in (row.specimen, row.opens, row.ward, row.rack, row.said))


class Group(msgspec.Struct, frozen=True):
    """Rows that have a cause in common."""

    cause: Cause
    rows: tuple[Row, ...]


def groups_of(rows: Iterable[Row]) -> list[Group]:
    """Rows by their causes: what is critical first, then the largest."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.cause.key, []).append(row)
    made = [Group(some[0].cause, tuple(some)) for some in found.values()]
    return sorted(made, key=lambda group: (not group.cause.critical, -len(group.rows)))


def without_words(reason: Reason) -> Reason:
    """The reason as a kind: with an ellipsis in the place of every parameter."""
    return Reason(reason.code, {name: "…" for name in reason.params if name not in ("en", "zh")})
