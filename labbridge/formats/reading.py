"""What both readers share: results read by a profile's rules, and reports put together from them.

``reader_for`` compiles a profile once per set of delimiters. A reader splits a message, keeps a scope of what is in
force, and hands each order with its results to an ``Assembly``, which makes one report of one specimen. Whatever
disagrees is told in the report's problems, so that it is held: nothing is guessed. The order of segments is none of
this file's business: that is ``hl7v2``'s and ``lis02``'s part.
"""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from labbridge.formats import values
from labbridge.formats.er7 import Delimiters
from labbridge.formats.rules import Fields, Rules, Scope
from labbridge.formats.values import Clock, Memo, Understand, Understood
from labbridge.model import Patient, Query, Reading, Reason, Report, Result, Role, Specimen
from labbridge.profiles import Profile, Rule, Shape

A = TypeVar("A")
Item = tuple[Fields, list[Fields]]  # a result's own record, and the notes or comments that belong to it


_BLANKS = [""] * 100


class Dialect(msgspec.Struct, frozen=True, eq=False):
    """What tells the two encodings apart once a record is split into fields."""

    shift: int  # fields[n - shift] is field n: LIS02 counts the record's letter as field 1
    note: str  # the segment that comments on the one before it
    unescape: Callable[[str, Delimiters], str]
    typed: Mapping[str, Callable[[str, Delimiters, Understand], Understood]]  # what OBX-2 says of OBX-5


class Reader:
    """A profile compiled for one set of delimiters."""

    def __init__(self, profile: Profile, delimiters: Delimiters, dialect: Dialect) -> None:
        rules = Rules(delimiters, lambda text: dialect.unescape(text, delimiters), dialect.shift)
        self.widths = profile.widths
        self.roles = [(role, rules.condition(condition)) for role, condition in profile.roles]
        self.plain = ShapeReader(profile, profile.shapes["patient"], rules, delimiters, dialect)
        self.shapes: dict[Role, ShapeReader] = {
            role: ShapeReader(profile, shape, rules, delimiters, dialect)
            for role, shape in profile.shapes.items()
            if role != "patient"
        }
        self.sent = rules.text(profile.shapes["patient"].report.get("sent", ()))
        self.sender = rules.text(profile.shapes["patient"].report.get("sender", ()))
        self._specimens, self._tests, self._echo = (
            rules.texts(profile.query.rules.get(key, ())) for key in ("specimens", "tests", "echo")
        )
        self._cancels = rules.condition(profile.query.cancel)

    def role(self, scope: Scope) -> Role:
        """Whose results these are: the first role whose marks are there."""
        for role, holds in self.roles:
            if holds(scope):
                return role
        return "patient"

    def fitted(self, name: str, fields: Fields) -> Fields:
        """The fields, made at least as many as any rule reads of this segment."""
        missing = self.widths.get(name, 0) - len(fields)
        if missing > 0:
            fields += _BLANKS[:missing]
        return fields

    def query(self, scope: Scope) -> Query | None:
        """What is asked for here; None when the analyzer takes its last query back."""
        if self._cancels(scope):
            return None
        specimens = self._specimens(scope)
        every = not specimens or any(each.upper() == "ALL" for each in specimens)
        return Query(() if every else specimens, every, self._echo(scope), self._tests(scope))


@lru_cache(maxsize=256)
def reader_for(profile: Profile, delimiters: Delimiters, dialect: Dialect) -> Reader:
    """The compiled reader of a profile, made once."""
    return Reader(profile, delimiters, dialect)


class ShapeReader:
    """Reads specimens, patients and results where the messages of one role have them."""

    def __init__(self, profile: Profile, shape: Shape, rules: Rules, delimiters: Delimiters, dialect: Dialect) -> None:
        self.record = shape.record
        self._sources = shape.sources
        self._null = profile.null_times
        self._note = dialect.note
        self._specimen = {key: rules.text(rule) for key, rule in shape.specimen.items() if key != "agree"}
        self._agree = rules.texts(shape.specimen.get("agree", ()))
        self._patient = {key: rules.text(rule) for key, rule in shape.patient.items()}
        self._control = {key: rules.text(rule) for key, rule in shape.control.items()}
        self.order = rules.text(shape.report.get("order", ()))
        self._comments = rules.texts(shape.report.get("comments", ()))
        self.result = _result_reader(profile, shape, rules, delimiters, dialect)

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
        found: list[str] = []
        for fields in notes:
            scope[self._note] = fields
            found += self._comments(scope)
        scope.pop(self._note, None)
        return found


_SEXES = {"M": "M", "F": "F", "MALE": "M", "FEMALE": "F", "男": "M", "女": "F"}
_BIRTH = re.compile("[0-9]{4}(?:[0-9]{2}){0,2}")
_NO_CODE = Reason("no-code")
_BAD_TIME = Reason("bad-time")


def _result_reader(
    profile: Profile, shape: Shape, rules: Rules, delimiters: Delimiters, dialect: Dialect
) -> Callable[[Scope, Clock, Sequence[Fields]], Result]:
    """The hot path: one record of a scope, with its notes, to one Result.

    A rule that reads one field of the record is a look-up of that field's text; the few others are called afterwards.
    """
    record = shape.record
    understand = values.classifier(profile.values)
    meanings: dict[str, Callable[[Any], object]] = {
        "value": understand,
        "status": lambda text: profile.statuses.get(text, "N"),
        "alarms": lambda codes: tuple(code for code in codes if code not in profile.no_alarm),
    }
    looked_up: list[tuple[int, Memo[Any]]] = []
    called: list[tuple[int, Callable[[Scope], object]]] = []
    for number, name in enumerate(_READ):
        rule, means = _own(shape.result.get(name, ()), dialect.note), meanings.get(name)
        find, find_anywhere, nothing = (rules.repeats, rules.texts, ()) if name in _LISTS else (rules.field, rules.text, "")
        index, get = find(rule, record) or (0, lambda text, nothing=nothing: nothing)
        looked_up.append((index, Memo(_then(get, means))))
        if rule and not index:
            called.append((number, _then(find_anywhere(rule), means)))
    edited = rules.condition(shape.edited) if shape.edited else None
    typed = {kind: _typed(how, delimiters, understand) for kind, how in dialect.typed.items()} if record == "OBX" else {}
    with_notes = _note_reader(shape, rules, dialect.note, profile.no_alarm)

    def read(scope: Scope, clock: Clock, notes: Sequence[Fields]) -> Result:
        fields = scope[record]
        found = [memo[fields[index]] for index, memo in looked_up]
        for number, get in called:
            found[number] = get(scope)
        code, understood, unit, flags, status, name, reference, measured, alarms, run, dilution, operator, comments = found
        if typed and fields[2] in typed:
            understood = typed[fields[2]](fields[5])
        value, kind, decimal, comparator = understood
        instant, bad = clock[measured]
        if comments:
            comments = tuple(text for text in comments if text != value)
        if notes:
            alarms, comments = with_notes(scope, notes, alarms, comments)
        return Result(
            code,
            value,
            kind,
            decimal,
            comparator,
            unit,
            flags,
            status,
            name,
            reference,
            measured,
            instant,
            alarms,
            run,
            dilution,
            operator,
            edited is not None and edited(scope),
            comments,
            () if code and not bad else tuple(reason for reason, so in ((_NO_CODE, not code), (_BAD_TIME, bad)) if so),
        )

    return read


_READ = (
    *("code", "value", "unit", "flags", "status", "name", "reference", "measured"),
    *("alarms", "run", "dilution", "operator", "comments"),
)
_LISTS = ("flags", "alarms", "comments")


def _then(get: Callable[[A], Any], means: Callable[[str], object] | None) -> Callable[[A], object]:
    """First find the text, then understand it."""
    return get if means is None else lambda source: means(get(source))


def _own(rule: Rule, note: str) -> Rule:
    """The alternatives that do not read the notes."""
    return tuple(each for each in rule if all(path.segment != note for path in each.paths))


def _note_reader(
    shape: Shape, rules: Rules, note: str, no_alarm: Container[str]
) -> Callable[[Scope, Sequence[Fields], tuple[str, ...], tuple[str, ...]], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Adds what the notes after a result say to its alarms or its comments: a note that tells an alarm is no comment."""
    alarms_of, comments_of = (
        rules.texts(tuple(each for each in shape.result.get(name, ()) if each not in _own((each,), note)))
        for name in ("alarms", "comments")
    )

    def read(
        scope: Scope, notes: Sequence[Fields], alarms: tuple[str, ...], comments: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        for fields in notes:
            scope[note] = fields
            told = alarms_of(scope)
            alarms += tuple(alarm for alarm in told if alarm not in no_alarm)
            comments += () if told else comments_of(scope)
        del scope[note]
        return alarms, comments

    return read


def _typed(how: Callable[[str, Delimiters, Understand], Understood], delimiters: Delimiters, understand: Understand) -> Understand:
    return lambda raw: how(raw, delimiters, understand)


NO_SPECIMEN = Reason("no-specimen")
NO_RESULTS = Reason("no-results")
SPECIMEN_CONFLICT = Reason("specimen-conflict")
PATIENT_CONFLICT = Reason("patient-conflict")
_IDENTITY = ("id", "family", "given", "birth", "sex")


class _Draft:
    """A report in the making."""

    __slots__ = ("comments", "control", "order", "patient", "problems", "results", "role", "specimen")

    def __init__(self, specimen: Specimen, role: Role, patient: Patient, order: str, control: dict[str, str]) -> None:
        self.specimen = specimen
        self.role = role
        self.patient = patient
        self.order = order
        self.control = control
        self.results: list[Result] = []
        self.comments: list[str] = []
        self.problems: list[Reason] = [] if specimen.id else [NO_SPECIMEN]

    def doubt(self, reason: Reason) -> None:
        """Adds a reason to hold the report, once."""
        if reason not in self.problems:
            self.problems.append(reason)

    def meet(self, patient: Patient) -> None:
        """The same specimen again: its patient must be the same one, as far as either is told."""
        known, told = msgspec.structs.asdict(self.patient), msgspec.structs.asdict(patient)
        if any(known[name] and told[name] and known[name] != told[name] for name in _IDENTITY):
            self.doubt(PATIENT_CONFLICT)
        self.patient = Patient(**{name: text or told[name] for name, text in known.items()})


class Assembly:
    """Makes one report of each specimen of a message; ``problems`` are added to them all."""

    def __init__(self, reader: Reader, clock: Clock, problems: Iterable[Reason] = ()) -> None:
        self.problems = list(problems)
        self._reader = reader
        self._clock = clock
        self._drafts: dict[object, _Draft] = {}

    def add(self, scope: Scope, items: Sequence[Item], notes: Iterable[Fields] = (), doubts: Sequence[Reason] = ()) -> None:
        """Adds an order with its results and notes to its specimen's report.

        Orders of one specimen and role join in one report, unless they name different control materials. What names no
        specimen stays by itself.
        """
        role = self._reader.role(scope)
        shape = self._reader.shapes.get(role, self._reader.plain)
        specimen, agreed = shape.specimen(scope)
        patient, control = shape.patient(scope), shape.control(scope) if role != "patient" else {}
        key = (specimen.id, role, *sorted(control.items())) if specimen.id else object()
        draft = self._drafts.get(key)
        if draft is None:
            draft = self._drafts[key] = _Draft(specimen, role, patient, shape.order(scope), control)
        elif draft.patient != patient:
            draft.meet(patient)
        for doubt in (*doubts, *([] if agreed else [SPECIMEN_CONFLICT])):
            draft.doubt(doubt)
        draft.comments += shape.comments(scope, notes)
        draft.results += self._results(shape, scope, items)

    def reports(self, header: Scope) -> tuple[Report, ...]:
        """The reports, in the order in which their specimens came."""
        sent, sender = self._reader.sent(header), self._reader.sender(header)
        sent_at = self._clock[sent].at
        made = []
        for draft in self._drafts.values():
            if not draft.results:
                draft.doubt(NO_RESULTS)
            made.append(
                Report(
                    draft.specimen,
                    tuple(draft.results),
                    draft.role,
                    draft.patient,
                    (*draft.problems, *self.problems),
                    sent,
                    sent_at,
                    sender,
                    draft.order,
                    tuple(draft.comments),
                    draft.control,
                )
            )
        return tuple(made)

    def _results(self, shape: ShapeReader, scope: Scope, items: Sequence[Item]) -> list[Result]:
        plain, clock = self._reader.plain, self._clock
        if not items:
            return [shape.result(scope, clock, ())] if shape.record != plain.record else []
        read, record = (shape if shape.record == plain.record else plain).result, plain.record
        results = []
        for fields, notes in items:
            scope[record] = fields
            results.append(read(scope, clock, notes))
        return results


def joined(readings: Sequence[Reading], further: Iterable[Reason] = ()) -> Reading:
    """Several messages of one payload as one reading, under the first one's type and control id."""
    problems: list[Reason] = []
    for problem in (*(problem for reading in readings for problem in reading.problems), *further):
        if problem not in problems:
            problems.append(problem)
    return Reading(
        tuple(report for reading in readings for report in reading.reports),
        tuple(query for reading in readings for query in reading.queries),
        readings[0].control_id if readings else "",
        readings[0].type if readings else "",
        tuple(problems),
    )
