"""What both readers share: results read by a profile's rules, and reports put together from them.

A ``Reader`` is a profile compiled for one set of delimiters. A reader of messages splits one, and opens the levels of an
``Assembly`` (patient, specimen, order), which makes one report of one specimen. Whatever disagrees is told in the
report's problems, so that it is held: nothing is guessed. The order of segments is none of this file's business: that
is ``hl7v2``'s and ``lis02``'s part.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from operator import itemgetter
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from labbridge.formats.rules import Fields, Rules, Scope
from labbridge.formats.values import TYPED, Clock, Memo, classifier, clock_for
from labbridge.model import Patient, Query, Reading, Reason, Report, Result, Role, Specimen
from labbridge.profiles import Profile, Rule, Section, Shape

Item = tuple[Fields, list[Fields]]  # a result's own record, and the notes or comments that belong to it

NO_RESULTS = Reason("no-results")
SPECIMEN_CONFLICT = Reason("specimen-conflict")
_NO_SPECIMEN = Reason("no-specimen")
_PATIENT_CONFLICT = Reason("patient-conflict")
_NO_CODE = Reason("no-code")
_BAD_TIME = Reason("bad-time")
_SEXES = {"M": "M", "F": "F", "MALE": "M", "FEMALE": "F", "男": "M", "女": "F"}
_BIRTH = re.compile("[0-9]{4}(?:[0-9]{2}){0,2}")
_IDENTITY = ("id", "family", "given", "birth", "sex")


class Reader:
    """A profile compiled for the delimiters of ``rules``; ``note`` is the segment that comments on the one before it.

    ``widths`` has the segments that are read, and how many of their fields.
    """

    def __init__(self, profile: Profile, rules: Rules, note: str) -> None:
        self.profile = profile
        self.roles = [(role, rules.condition(condition)) for role, condition in profile.roles]
        self.shapes = {role: ShapeReader(profile, shape, rules, note) for role, shape in profile.shapes.items()}
        self.plain = self.shapes["patient"]
        self._specimens, self._tests, self._echo = (
            rules.texts(profile.query.get(key, ())) for key in ("specimens", "tests", "echo")
        )
        self._cancelled = rules.text(profile.query.get("cancel", ()))
        self.widths = rules.widths
        self._separator = rules.delimiters.field

    def fields(self, name: str, line: str) -> Fields:
        """The fields of a segment, made as many as any rule reads of it."""
        fields = line.split(self._separator)
        missing = self.widths.get(name, 0) + 1 - len(fields)
        return fields + [""] * missing if missing > 0 else fields

    def query(self, scope: Scope) -> tuple[Query, ...]:
        """What is asked for here; nothing when the analyzer takes its last query back."""
        if self._cancelled(scope):
            return ()
        specimens = self._specimens(scope)
        every = not specimens or any(each.upper() == "ALL" for each in specimens)
        return (Query(() if every else specimens, every, self._echo(scope), self._tests(scope)),)


class ShapeReader:
    """Reads specimens, patients and results where the messages of one role have them."""

    def __init__(self, profile: Profile, shape: Shape, rules: Rules, note: str) -> None:
        def texts_of(section: str) -> dict[str, Callable[[Scope], str]]:
            return {key: rules.text(rule) for key, rule in shape[section].items() if key not in ("agree", "sources")}

        self.record: str = shape["result"]["record"]
        self.result = _result_reader(profile, shape["result"], rules, note)
        self.order, self.sent, self.sender = (rules.text(shape["report"].get(key, ())) for key in ("order", "sent", "sender"))
        self._sources = shape["specimen"].get("sources", {})
        self._null = profile.null_times
        self._note = note
        self._specimen, self._patient, self._control = map(texts_of, ("specimen", "patient", "control"))
        self._agree = rules.texts(shape["specimen"].get("agree", ()))
        self._comments = rules.texts(shape["report"].get("comments", ()))

    def specimen(self, scope: Scope) -> tuple[Specimen, bool]:
        """The specimen, and whether no other place that should name it names another."""
        found = {key: get(scope) for key, get in self._specimen.items()}
        word = found.get("source", "")
        found["source"] = self._sources.get(word, self._sources.get("*", "") if word else "")
        specimen = Specimen(**found)
        return specimen, not specimen.id or all(text == specimen.id for text in self._agree(scope))

    def patient(self, scope: Scope) -> Patient:
        """The patient, as the analyzer knows them."""
        found = {key: get(scope) for key, get in self._patient.items()}
        birth = _BIRTH.match(found.get("birth", ""))
        found["birth"] = birth[0] if birth and birth[0] not in self._null else ""
        found["sex"] = _SEXES.get(found.get("sex", "").upper(), "")
        return Patient(**found)

    def control(self, scope: Scope) -> dict[str, str]:
        """What is said of the control material."""
        return {key: text for key, get in self._control.items() if (text := get(scope))}

    def comments(self, scope: Scope, notes: Iterable[Fields]) -> list[str]:
        """What the notes of a patient or an order say."""
        return [text for fields in notes for text in self._comments(Scope({**scope, self._note: fields}))]


def _result_reader(
    profile: Profile, section: Section, rules: Rules, note: str
) -> Callable[[Scope, Clock, Sequence[Item]], list[Result]]:
    """The hot path: the records of one order, each with its notes, to Results.

    What reads only the record's own fields, and none of those that hold value and time, is worked out once for the texts
    that stand there (code, unit, flags …), since these come again and again.
    """
    record = section["record"]
    finders, places = _finders(profile, section, rules, note)
    find_value, find_measured = finders.pop("value"), finders.pop("measured")
    varying = places.pop("value") | places.pop("measured")
    once = [word for word, read in places.items() if not read & varying and (not read or any(where == record for where, _ in read))]
    others = [(word, find) for word, find in finders.items() if word not in once]
    known_by = set().union(*(places[word] for word in once))
    own = sorted({0, 2 if record == "OBX" else 1}.union(field for segment, field in known_by if segment == record))
    outer = [place for place in sorted(known_by) if place[0] != record]
    pick = itemgetter(*own)
    understood = Memo(classifier(profile.values))
    finish = _finisher(profile, section, rules, note)

    def work_out(texts: tuple[str, ...]) -> tuple[Result, Any]:
        scope = Scope()
        for (segment, field), text in zip([*((record, field) for field in own), *outer], texts, strict=True):
            scope.setdefault(segment, [""] * 100)[field] = text
        known = Result(**{"code": "", **{word: finders[word](scope) for word in once}})
        return known, TYPED.get(scope[record][2]) if record == "OBX" else None

    worked_out = Memo(work_out)

    def read(scope: Scope, clock: Clock, items: Sequence[Item]) -> list[Result]:
        results = []
        around = tuple(scope[segment][field] for segment, field in outer)
        for fields, notes in items:
            scope[record] = fields
            known, typed = worked_out[pick(fields) + around]
            if typed:
                value, kind, number, comparator = typed(fields[5], rules.delimiters, understood.__getitem__)
            else:
                value, kind, number, comparator = understood[find_value(scope)]
            measured = find_measured(scope)
            at, bad = clock[measured]
            result = replace(known, value=value, kind=kind, number=number, comparator=comparator, measured=measured, measured_at=at)
            if others:
                result = replace(result, **{word: find(scope) for word, find in others})
            if notes or bad or result.comments or result.alarms or not result.code:
                result = finish(result, bad, scope, notes)
            results.append(result)
        return results

    return read


_LISTS = ("flags", "alarms", "comments")


def _finders(
    profile: Profile, section: Section, rules: Rules, note: str
) -> tuple[dict[str, Callable[[Scope], Any]], dict[str, set[tuple[str, int]]]]:
    """What finds each word of a Result, notes left aside, and the segments and fields that it reads."""
    finders: dict[str, Callable[[Scope], Any]] = {}
    places = {}
    for word, rule in section.items():
        if word != "record":
            own = _of_notes(rule, note, False)
            finders[word] = rules.texts(own) if word in _LISTS else rules.text(own)
            places[word] = {path[:2] for each in own for path in each.paths}
    status, edited = finders["status"], finders.get("edited")
    finders["status"] = lambda scope: profile.statuses.get(status(scope), "N")
    if edited:
        finders["edited"] = lambda scope: edited(scope) != ""
    return finders, places


def _of_notes(rule: Rule, note: str, wanted: bool) -> Rule:
    """The alternatives that read the notes, or those that do not."""
    return tuple(each for each in rule if any(path.segment == note for path in each.paths) == wanted)


def _finisher(
    profile: Profile, section: Section, rules: Rules, note: str
) -> Callable[[Result, bool, Scope, Sequence[Fields]], Result]:
    """Adds what the notes after a result say (one that tells an alarm is no comment), and what is wrong with it."""
    find_alarms, find_comments = (rules.texts(_of_notes(section.get(word, ()), note, True)) for word in ("alarms", "comments"))

    def finish(result: Result, bad_time: bool, scope: Scope, notes: Sequence[Fields]) -> Result:
        alarms = list(result.alarms)
        comments = [text for text in result.comments if text != result.value]
        for fields in notes:
            scope[note] = fields
            told = find_alarms(scope)
            alarms += told
            comments += () if told else find_comments(scope)
        scope.pop(note, None)
        return replace(
            result,
            alarms=tuple(alarm for alarm in alarms if alarm not in profile.no_alarm),
            comments=tuple(comments),
            problems=(*([] if result.code else [_NO_CODE]), *([_BAD_TIME] if bad_time else [])),
        )

    return finish


PATIENT, SPECIMEN, ORDER = 1, 2, 3  # how deep a level lies; the header's is 0


class Level(msgspec.Struct, gc=True):
    """What is open in a message: the segments in force there, the notes about it, and, of an order, its results."""

    depth: int
    scope: Scope
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
        self._sent = reader.plain.sent(header)
        self._clock = clock_for(reader.profile, zone, self._sent)
        self._drafts: dict[object, _Draft] = {}

    def begin(self, depth: int, name: str, fields: Fields) -> None:
        """A patient, a specimen or an order begins: what is open at its depth and below is whole."""
        self.finish(depth)
        above = self.level
        self.level = Level(depth, Scope({**above.scope, name: fields}), above.notes.copy())
        self.notes = self.level.notes
        self._levels.append(self.level)

    def result(self, fields: Fields) -> None:
        """A result of the order that is open."""
        if self.level.depth < ORDER:
            self.begin(ORDER, "", [])
        self.notes = []
        self.level.items.append((fields, self.notes))

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
        header = self.level.scope
        sender, sent_at = self._reader.plain.sender(header), self._clock[self._sent].at
        return tuple(
            Report(
                draft.specimen,
                tuple(draft.results),
                draft.role,
                draft.patient,
                distinct([*draft.problems, *([] if draft.results else [NO_RESULTS]), *self.problems]),
                self._sent,
                sent_at,
                sender,
                draft.order,
                tuple(draft.comments),
                draft.control,
            )
            for draft in self._drafts.values()
        )

    def _add(self, order: Level) -> None:
        """Orders of one specimen and role join in one report, unless they name different control materials.

        What names no specimen stays by itself.
        """
        scope, plain = order.scope, self._reader.plain
        role: Role = next((role for role, holds in self._reader.roles if holds(scope)), "patient")
        shape = self._reader.shapes.get(role, plain)
        specimen, agreed = shape.specimen(scope)
        patient, control = shape.patient(scope), shape.control(scope) if role != "patient" else {}
        key = (specimen.id, role, *sorted(control.items())) if specimen.id else object()
        draft = self._drafts.get(key)
        if draft is None:
            draft = self._drafts[key] = _Draft(specimen, role, patient, shape.order(scope), control)
        elif draft.patient != patient:  # it must be the same one, as far as either is told
            known, told = asdict(draft.patient), asdict(patient)
            if any(known[name] and told[name] and known[name] != told[name] for name in _IDENTITY):
                draft.problems.append(_PATIENT_CONFLICT)
            draft.patient = Patient(**{name: text or told[name] for name, text in known.items()})
        draft.problems += order.doubts
        if not specimen.id:
            draft.problems.append(_NO_SPECIMEN)
        if not agreed:
            draft.problems.append(SPECIMEN_CONFLICT)
        draft.comments += shape.comments(scope, order.notes)
        if order.items:
            draft.results += (shape if shape.record == plain.record else plain).result(scope, self._clock, order.items)
        elif shape.record != plain.record:
            draft.results += shape.result(scope, self._clock, [(scope[shape.record], [])])


def distinct(reasons: Iterable[Reason]) -> tuple[Reason, ...]:
    """The reasons, each once."""
    found: list[Reason] = []
    for reason in reasons:
        if reason not in found:
            found.append(reason)
    return tuple(found)


def joined(readings: Sequence[Reading], further: Iterable[Reason] = ()) -> Reading:
    """Several messages of one payload as one reading, under the first one's type and control id."""
    return Reading(
        tuple(report for reading in readings for report in reading.reports),
        tuple(query for reading in readings for query in reading.queries),
        readings[0].control_id if readings else "",
        readings[0].type if readings else "",
        distinct([*(problem for reading in readings for problem in reading.problems), *further]),
    )
