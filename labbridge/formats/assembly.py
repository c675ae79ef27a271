"""Reports put together from the segments of a message, one of each specimen.

A reader of messages opens the levels of an ``Assembly`` (patient, specimen, order) and gives it their results and
notes. Whatever disagrees is told in the report's problems. The order of segments is none of this file's business: that
is ``hl7v2``'s and ``lis02``'s part; nor is what stands in them: that is ``reading``'s.
"""

from collections.abc import Iterable, Sequence
from datetime import tzinfo
from itertools import repeat

import msgspec
from msgspec.structs import asdict

from labbridge.formats.reading import SPECIMEN_CONFLICT, Reader
from labbridge.formats.records import BAD_TIME, Item
from labbridge.formats.rules import Fields, Scope
from labbridge.formats.values import clock_for
from labbridge.model import Patient, Reading, Reason, Report, Result, Role, Specimen

NO_RESULTS = Reason("no-results")
_NO_SPECIMEN = Reason("no-specimen")
_PATIENT_CONFLICT = Reason("patient-conflict")
_IDENTITY = ("id", "family", "given", "birth", "sex")
PATIENT, SPECIMEN, ORDER = 1, 2, 3  # how deep a level lies; the header's is 0


class Level(msgspec.Struct):
    """What is open in a message: the segments in force there, the notes about it, and, of an order, its results."""

    depth: int
    scope: Scope
    above: "Level | None" = None
    notes: list[Fields] = []
    items: list[Item] = []
    doubts: list[Reason] = []


class _Draft(msgspec.Struct):
    """A report in the making."""

    specimen: Specimen
    role: Role
    patient: Patient
    order: str
    control: dict[str, str]
    drawn: set[str] = set()  # when its specimen was drawn, as its orders say
    noted: dict[int, Level] = {}  # the levels whose notes it has
    results: list[Result] = []
    comments: list[str] = []
    problems: list[Reason] = []


class Assembly:
    """Makes one report of each specimen of a message; ``problems`` are added to them all."""

    def __init__(self, reader: Reader, header: Scope, zone: tzinfo, problems: Iterable[Reason]) -> None:
        self.problems = list(problems)
        self.level = Level(0, header)
        self.notes: list[Fields] = []  # about the record before
        self._reader = reader
        self._levels = [self.level]
        self._sent, self._sender = reader.plain.sent(header), reader.plain.sender(header)
        self._clock = clock_for(reader.profile, zone, self._sent)
        self._drafts: dict[object, _Draft] = {}

    def begin(self, depth: int, name: str, fields: Fields) -> None:
        """A patient, a specimen or an order begins: what is open at its depth and below is whole."""
        self.finish(depth)
        above = self.level
        self.level = Level(depth, Scope(above.scope), above)
        self.level.scope[name] = fields
        self.notes = self.level.notes
        self._levels.append(self.level)

    def results(self, lines: Iterable[str]) -> None:
        """Results of the order that is open, one after the other."""
        if self.level.depth < ORDER:
            self.begin(ORDER, "", [])
        self.notes = []
        *before, last = lines
        self.level.items += zip(before, repeat(()))
        self.level.items.append((last, self.notes))

    def finish(self, depth: int) -> None:
        """Closes what is open at this depth and below. An order joins the report of its specimen."""
        while self.level.depth >= depth:
            order = self._levels.pop()
            self.level = self._levels[-1]
            if order.depth == ORDER:
                self._add(order)

    def reports(self) -> tuple[Report, ...]:
        """The reports, in the order in which their specimens came."""
        self.finish(PATIENT)
        return tuple([self._report(draft) for draft in self._drafts.values()])

    def _report(self, draft: _Draft) -> Report:
        return Report(
            draft.specimen,
            tuple(draft.results),
            draft.role,
            draft.patient,
            distinct([*draft.problems, *([] if draft.results else [NO_RESULTS]), *self.problems]),
            self._sent,
            self._clock[self._sent].at,
            self._sender,
            draft.order,
            tuple(draft.comments),
            draft.control,
        )

    def _add(self, order: Level) -> None:
        """Orders of one specimen and role join in one report, unless they name different control materials.

        What names no specimen stays by itself.
        """
        scope, plain = order.scope, self._reader.plain
        role = self._reader.role(scope)
        shape = self._reader.shapes.get(role, plain)
        specimen, doubts = shape.specimen(scope, self._clock)
        results, items = shape.results, order.items
        if results.record != plain.results.record:  # the order itself is the result, unless results were sent with it
            own = self._reader.separator.join(scope[results.record])
            results, items = (plain.results, items) if items else (results, [(own, [])])
        patient = shape.patient(scope)
        control = shape.control(scope, results, items) if role != "patient" else {}
        key = (specimen.id, role, *sorted(control.items())) if specimen.id else object()
        draft = self._drafts.get(key)
        if draft is None:
            draft = self._drafts[key] = _Draft(specimen, role, patient, shape.order(scope), control)
        elif draft.patient != patient:  # it must be the same one, as far as either is told
            known, told = asdict(draft.patient), asdict(patient)
            if any(known[name] and told[name] and known[name] != told[name] for name in _IDENTITY):
                draft.problems.append(_PATIENT_CONFLICT)
            draft.patient = Patient(**{name: text or told[name] for name, text in known.items()})
        if draft.specimen != specimen:
            _join(draft, specimen)
        draft.problems += order.doubts
        if not specimen.id:
            draft.problems.append(_NO_SPECIMEN)
        draft.problems += doubts
        level: Level | None = order
        fresh = []
        while level is not None and id(level) not in draft.noted:  # what is said of a patient is said once
            draft.noted[id(level)] = level
            fresh.append(level.notes)
            level = level.above
        draft.comments += shape.comments(scope, [note for notes in reversed(fresh) for note in notes])
        found, problems = results.order(scope, self._clock, items)
        draft.results += found
        draft.problems += problems


def _join(draft: _Draft, specimen: Specimen) -> None:
    """Adds what another order says of the same specimen: its source and type are one, and it was drawn once."""
    known, told = asdict(draft.specimen), asdict(specimen)
    if any(known[name] and told[name] and known[name] != told[name] for name in ("source", "type")):
        draft.problems.append(SPECIMEN_CONFLICT)
    whole = {name: text or told[name] for name, text in known.items()}
    draft.drawn |= {known["collected"], told["collected"]} - {""}
    if len(draft.drawn) > 1:
        draft.problems.append(BAD_TIME)
        whole.update(collected="", collected_at=None)
    draft.specimen = Specimen(**whole)


def distinct(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The reasons, each once."""
    return tuple({(reason.code, *sorted(reason.params.items())): reason for reason in reasons}.values())


def joined(readings: Sequence[Reading], further: Iterable[Reason] = ()) -> Reading:
    """Several messages of one payload as one reading, under the first one's type and control id."""
    return Reading(
        tuple(report for reading in readings for report in reading.reports),
        tuple(query for reading in readings for query in reading.queries),
        readings[0].control_id if readings else "",
        readings[0].type if readings else "",
        distinct([*(problem for reading in readings for problem in reading.problems), *further]),
        distinct(note for reading in readings for note in reading.notes),
    )
