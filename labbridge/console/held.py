"""What waits for a person, as rows of a list: held reports, unreadable messages, deliveries that are stuck. No screen here.

``Held`` is a picture in memory, of which another thread publishes a new version where anything changed; only what is new
is decoded.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from labbridge import mapping, model, revision
from labbridge.config import Settings
from labbridge.mapping import Catalogue, MappingError
from labbridge.model import Decided, Reason, Report
from labbridge.pipeline import standing
from labbridge.store import Reader
from labbridge.store.erasure import erased
from labbridge.store.rows import Attempt, Earlier, Message, Queued
from labbridge.verification.ages import age_in_days

What = Literal["held", "message", "refused", "waiting"]
Key = tuple[What, int]

MOST = 2000  # stuck deliveries to one destination that are listed
LATE_S = 60.0  # a delivery that waits longer is shown
RARE_S = 3.0  # deliveries are looked at so often
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
    said: str = ""  # the hospital's answer

    @property
    def name(self) -> str:
        """What opens it: the specimen, or a message's number."""
        return self.specimen if self.what != "message" else f"#{self.id}"

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
        return Row(earlier.report_id, "held", earlier.at, earlier.specimen, earlier.analyzer, Cause("", earlier.analyzer, ()))
    report = model.decode(earlier.document, Report)
    decisions = [model.decode(document, model.Decision) for document in earlier.decisions if not erased(document)]
    decided = standing(decisions)
    held = [one for one in decided if one.verdict.action == "hold"]
    own = [one for one in held if any(reason.code != "held-with" for reason in one.verdict.reasons)]
    whys = whys_of(report, held)
    kinds = {decision.kind for decision in decisions}
    present = {one.test or one.code for one in decided if one.value}
    return Row(
        earlier.report_id,
        "held",
        earlier.at,
        earlier.specimen,
        earlier.analyzer,
        cause_of(earlier.analyzer, whys),
        whys[:_REASONS],
        max(0, len(whys) - _REASONS),
        len(held) - len(own),
        missing(earlier.analyzer, present),
        any(why.reason.code == "critical" for why in whys),
        bool(kinds & {"call-back", "acknowledge"}),
        age_in_days(report.patient, earlier.at / 1e6, zone),
        report.patient.sex,
        report.patient.location,
        report.specimen.rack,
        report.specimen.position,
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


_causes: dict[str, Cause] = {}  # Held forgets those that no row has any more


def message_row(message: Message) -> Row:
    """The row of a message that a person must look at."""
    try:
        reasons = msgspec.json.decode(message.note or "[]", type=list[Reason])
    except msgspec.MsgspecError:
        reasons = []
    whys = tuple(Why(reason) for reason in reasons or [Reason(message.kind)])
    return Row(message.id, "message", message.at, "", message.analyzer, cause_of(message.analyzer, whys), whys)


def delivery_row(delivery: Queued, said: str) -> Row:
    """The row of a delivery that the hospital refused, or that waits long."""
    what: What = "refused" if delivery.state == "refused" else "waiting"
    why = Why(Reason(what, {"destination": delivery.destination}))
    cause = cause_of(delivery.destination, (why,))
    return Row(delivery.id, what, delivery.at, delivery.specimen, delivery.destination, cause, (why,), said=said)


class Panels:
    """What belongs to a panel and has not come: where half of the tests that an analyzer measures of it have."""

    def __init__(self, catalogue: Catalogue, measured: Callable[[str], Iterable[str]]) -> None:
        self._catalogue, self._measured = catalogue, measured
        self._of: dict[str, tuple[frozenset[str], ...]] = {}

    def missing(self, analyzer: str, present: set[str]) -> tuple[str, ...]:
        """The tests of begun panels that are not among the ``present``, in the panels' order."""
        found: dict[str, None] = {}
        for panel in self._panels(analyzer):
            here = len(panel & present)
            if 2 * here >= len(panel) and here < len(panel):
                found.update(dict.fromkeys(test for test in sorted(panel, key=self._sort) if test not in present))
        return tuple(found)

    def _panels(self, analyzer: str) -> tuple[frozenset[str], ...]:
        if analyzer not in self._of:
            measured = frozenset(self._measured(analyzer))
            panels = (measured & set(panel.tests) for panel in self._catalogue.panels.values())
            self._of[analyzer] = tuple(panel for panel in panels if len(panel) > 1)
        return self._of[analyzer]

    def _sort(self, test: str) -> tuple[int, str]:
        return self._catalogue.tests[test].sort, test


def panels_of(settings: Settings, catalogue: Catalogue) -> Panels:
    """The panels as the configured analyzers measure them; an analyzer whose map cannot be read has none."""
    maps = {analyzer.name: analyzer.code_map for analyzer in settings.analyzers}

    def measured(analyzer: str) -> Iterable[str]:
        try:
            return mapping.load_code_map(maps[analyzer], revision.folders(settings, "mappings"), catalogue).tests
        except (KeyError, MappingError):
            return ()

    return Panels(catalogue, measured)


class Held:
    """Every row, kept up to date by one thread; what it publishes is never changed and may be read in any."""

    def __init__(self, settings: Settings, catalogue: Callable[[], Catalogue]) -> None:
        self.rows: dict[int, Row] = {}  # held reports by their ids, open messages by their ids' negatives
        self.deliveries: dict[int, Row] = {}  # stuck ones, by their ids
        self.version = 0  # changes with the rows
        self._settings, self._catalogue = settings, catalogue
        self._zone = ZoneInfo(settings.site.timezone)
        self._panels: tuple[Catalogue, Panels] | None = None
        self._looked = 0.0  # when deliveries were
        self._states: dict[int, str] = {}  # theirs
        self._keyed: tuple[int, dict[Key, Row]] = (-1, {})

    def take(self, reports: Iterable[Earlier], messages: Iterable[Message], gone: Collection[int]) -> None:
        """Takes what is new or changed, and drops what is no longer held (keys of ``rows``)."""
        rows = {number: row for number, row in self.rows.items() if number not in gone} if gone else dict(self.rows)
        rows.update((one.report_id, row_of(one, self._zone, self._missing)) for one in reports)
        rows.update((-one.id, message_row(one)) for one in messages)
        if rows != self.rows:
            self.rows = rows
            self.version += 1
        if len(_causes) > 2 * len(rows) + MOST:
            _causes.clear()

    def look(self, reader: Reader, now: float) -> None:
        """Looks for stuck deliveries, every few seconds; ``now`` is in seconds since 1970. Raises StoreError."""
        if 0 <= now - self._looked < RARE_S:
            return
        self._looked, late = now, int((now - LATE_S) * 1e6)
        found: list[Queued] = []
        for destination in self._settings.destinations:
            found += reader.stuck(destination.name, "refused", MOST)
            found += [one for one in reader.stuck(destination.name, "queued", MOST) if one.at < late]
        states = {one.id: one.state for one in found}
        if states != self._states:
            refused = [one.id for one in found if one.state == "refused"]
            said = {one.delivery_id: one.outcome for one in reader.rows(Attempt, "delivery_id", refused, large=False)}
            self.deliveries = {one.id: delivery_row(one, said.get(one.id, "")) for one in found}
            self._states = states
            self.version += 1

    def ordered(self) -> dict[Key, Row]:
        """All rows by what tells them apart, the most urgent first, then the oldest."""
        version, rows = self._keyed
        if version != self.version:
            version = self.version
            every = sorted((*self.rows.values(), *self.deliveries.values()), key=lambda row: row.urgency)
            rows = {row.key: row for row in every}
            self._keyed = version, rows
        return rows

    def _missing(self, analyzer: str, present: set[str]) -> tuple[str, ...]:
        catalogue = self._catalogue()
        if self._panels is None or self._panels[0] is not catalogue:
            self._panels = catalogue, panels_of(self._settings, catalogue)
        return self._panels[1].missing(analyzer, present)
