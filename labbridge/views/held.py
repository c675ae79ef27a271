"""What waits for a person, as a picture in memory: rows of Pending, of which only what is new is decoded."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from zoneinfo import ZoneInfo

import msgspec

from labbridge import mapping, revision
from labbridge.config import Settings
from labbridge.mapping import Catalogue, MappingError
from labbridge.model import Reason
from labbridge.store import Reader
from labbridge.store.rows import Attempt, Earlier, Message, Queued
from labbridge.views.rows import Key, Row, delivery_row, forget, message_row, row_of, without_words

MOST = 2000  # stuck deliveries to one destination that are listed
LATE_S = 60.0  # a delivery that waits longer is shown
RARE_S = 2.0  # deliveries and proposals are looked at so often
_MOVABLE = ("held", "released", "superseded")  # states of a report whose specimen's id may be corrected


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


class Choices(msgspec.Struct, frozen=True):
    """What rows can be chosen by: analyzers, reasons without what differs, tests."""

    analyzers: Sequence[str]
    reasons: Sequence[Reason]
    tests: Sequence[str]


class Proposed(msgspec.Struct, frozen=True):
    """A correction of specimen ids that waits for a second person."""

    id: int
    at: int
    actor: str
    reason: str
    pairs: tuple[tuple[str, str], ...]  # the wrong id and the right one


def proposed(reader: Reader) -> tuple[Proposed, ...]:
    """The open proposals."""
    rows = [(row, msgspec.json.decode(row.document, type=list[dict[str, int | str]])) for row in reader.proposals()]
    numbers = [int(pair["report"]) for _, pairs in rows for pair in pairs]
    names = {report.report_id: report.specimen for report in (reader.reports(numbers) if numbers else ())}
    return tuple(
        Proposed(row.id, row.at, row.actor, row.reason, tuple((names.get(int(p["report"]), ""), str(p["to"])) for p in pairs))
        for row, pairs in rows
    )


def pairs_of(reader: Reader, ids: str) -> tuple[str, list[str]]:
    """Wrong and right ids by turns as ``correct-id`` takes them, by the reports of the wrong ones; and which are not known."""
    words = re.findall(r"[^\s,;→]+", ids)
    known = {wrong: [row for row in reader.reports_of(wrong) if row.state in _MOVABLE] for wrong in words[::2]}
    pairs = [
        {"report": row.report_id, "to": to} for wrong, to in zip(words[::2], words[1::2], strict=False) for row in known[wrong]
    ]
    missing = [wrong for wrong, rows in known.items() if not rows] + (words[-1:] if len(words) % 2 else [])
    return msgspec.json.encode(pairs).decode(), missing


class Held:
    """Every row, kept up to date by one thread; what it publishes is never changed and may be read in any."""

    def __init__(self, settings: Settings, catalogue: Callable[[], Catalogue]) -> None:
        self.rows: dict[int, Row] = {}  # held reports by their ids, open messages by their ids' negatives
        self.deliveries: dict[int, Row] = {}  # stuck ones, by their ids
        self.proposals: tuple[Proposed, ...] = ()
        self.version = 0  # changes with all of this
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
        forget(2 * len(rows) + MOST)

    def look(self, reader: Reader, now: float) -> None:
        """Looks for stuck deliveries and open proposals, every few seconds; ``now`` is in seconds since 1970. Raises StoreError."""
        if 0 <= now - self._looked < RARE_S:
            return
        self._looked, late = now, int((now - LATE_S) * 1e6)
        found: list[Queued] = []
        for destination in self._settings.destinations:
            found += reader.waiting_page(destination.name, "refused", MOST)
            found += [one for one in reader.waiting_page(destination.name, "queued", MOST) if one.at < late]
        if (proposals := proposed(reader)) != self.proposals:
            self.proposals = proposals
            self.version += 1
        states = {one.id: one.state for one in found}
        if states != self._states:
            refused = [one.id for one in found if one.state == "refused"]
            said = {one.delivery_id: one.outcome for one in reader.rows(Attempt, "delivery_id", refused, large=False)}
            self.deliveries = {one.id: delivery_row(one, said.get(one.id, "")) for one in found}
            self._states = states
            self.version += 1

    def ordered(self) -> dict[Key, Row]:
        """All rows by what tells them apart, the most urgent first, then the oldest."""
        version = self.version
        if version != self._keyed[0]:
            every = sorted((*self.rows.values(), *self.deliveries.values()), key=lambda row: row.urgency)
            self._keyed = version, {row.key: row for row in every}
        return self._keyed[1]

    def choices(self) -> Choices:
        """What the rows can be chosen by."""
        rows = self.ordered().values()
        causes = {row.cause.key: row.cause for row in rows}.values()
        reasons = {why.reason.code: without_words(why.reason) for cause in causes for why in cause.whys}
        tests = {test for tests in {row.tests for row in rows} for test in tests}
        return Choices(sorted({row.analyzer for row in rows}), list(reasons.values()), sorted(tests))

    def _missing(self, analyzer: str, present: set[str]) -> tuple[str, ...]:
        catalogue = self._catalogue()
        if self._panels is None or self._panels[0] is not catalogue:
            self._panels = catalogue, panels_of(self._settings, catalogue)
        return self._panels[1].missing(analyzer, present)
