"""What both readers share: specimens, patients, results and queries, read by a profile's rules.

A ``Reader`` is a profile compiled for one set of delimiters. Whatever disagrees is told in the problems, so that it is
held: nothing is guessed. Which segments are in force where is ``assembly``'s part.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from labbridge.formats.records import BAD_TIME, NO_CODE, UNREADABLE, Item, Records
from labbridge.formats.rules import Fields, Rules, Scope, padded, reading_of
from labbridge.formats.values import NULL, TYPED, WHOLE, Clock, Memo, Understood, birth_date, classifier
from labbridge.language import Rule
from labbridge.model import Patient, Query, Reason, Result, Role, Specimen
from labbridge.profiles import LISTS, RESULT, Profile, Section, Shape

SPECIMEN_CONFLICT = Reason("specimen-conflict")
_REMEMBERED, _LONGEST, _PLACES = 8192, 300, 256  # records, the characters of one, and the places where they stand
_CUT = "\r"  # ends every record, so that none has it
_NONE: dict[str, Result] = {}
_SEXES = {"M": "M", "F": "F", "MALE": "M", "FEMALE": "F", "男": "M", "女": "F"}


class Reader:
    """A profile compiled for the delimiters of ``rules``; ``note`` is the segment that comments on the one before it.

    ``widths`` has the segments that are read, and how many of their fields.
    """

    def __init__(self, profile: Profile, rules: Rules, note: str, whole: bool = False) -> None:
        self.profile = profile
        self.roles = [(role, rules.condition(condition)) for role, condition in profile.roles]
        self.shapes = {role: ShapeReader(profile, shape, rules, note, whole) for role, shape in profile.shapes.items()}
        self.plain = self.shapes["patient"]
        self._specimens, self._tests, self._echo = (
            rules.texts(profile.query.get(key, ())) for key in ("specimens", "tests", "echo")
        )
        self._cancelled = rules.text(profile.query.get("cancel", ()))
        self.widths = rules.widths
        self.separator = rules.delimiters.field

    def fields(self, name: str, line: str) -> Fields:
        """The fields of a segment, made as many as any rule reads of it."""
        return padded(line.split(self.separator), self.widths.get(name, 0))

    def role(self, scope: Scope) -> Role:
        """Whose results an order has: a patient's, unless the profile says otherwise."""
        for role, holds in self.roles:
            if holds(scope):
                return role
        return "patient"

    def query(self, scope: Scope) -> tuple[Query, ...]:
        """What is asked for here; nothing when the analyzer takes its last query back."""
        if self._cancelled(scope):
            return ()
        specimens = self._specimens(scope)
        every = not specimens or any(each.upper() == "ALL" for each in specimens)
        return (Query(() if every else specimens, every, self._echo(scope), self._tests(scope)),)


class ShapeReader:
    """Reads specimens, patients and results where the messages of one role have them."""

    def __init__(self, profile: Profile, shape: Shape, rules: Rules, note: str, whole: bool = False) -> None:
        def texts_of(section: str) -> dict[str, Callable[[Scope], str]]:
            return {key: rules.text(rule) for key, rule in shape[section].items() if isinstance(rule, tuple) and key != "agree"}

        self.results = ResultReader(profile, shape["result"], rules, note, whole)
        self.order, self.sent, self.sender = (rules.text(shape["report"].get(key, ())) for key in ("order", "sent", "sender"))
        self._sources = shape["specimen"].get("sources", {})
        self._profile = profile
        self._note = note
        self._specimen, of_patient, self._control = map(texts_of, ("specimen", "patient", "control"))
        self._patient = [of_patient.get(word, rules.text(())) for word in Patient.__struct_fields__]
        self._agree = rules.texts(shape["specimen"].get("agree", ()))
        patient = shape["patient"]
        self._age_unit = patient.get("age_unit", "")
        self._sexes = _SEXES | {word.upper(): sex for word, sex in patient.get("sexes", {}).items()}
        self._comments = rules.texts(shape["report"].get("comments", ()))

    def specimen(self, scope: Scope, clock: Clock) -> tuple[Specimen, list[Reason]]:
        """The specimen, and what holds its report: a time that is none, another place that names another specimen."""
        found = {key: get(scope) for key, get in self._specimen.items()}
        word = found.get("source", "")
        found["source"] = self._sources.get(word, self._sources.get("*", "") if word else "")
        if found.get("collected") in self._profile.null_times:
            found["collected"] = ""
        at, bad = clock[found.get("collected", "")]
        specimen = Specimen(**found, collected_at=at)
        agreed = not specimen.id or all(text == specimen.id for text in self._agree(scope))
        return specimen, [*([BAD_TIME] if bad else []), *([] if agreed else [SPECIMEN_CONFLICT])]

    def patient(self, scope: Scope) -> Patient:
        """The patient, as the analyzer knows them."""
        name, family, given, birth, sex, age, location = [get(scope) for get in self._patient]
        if self._age_unit and age.isdecimal():
            age += self._age_unit
        sex = self._sexes.get(sex.upper(), "")
        return Patient(name, family, given, birth and birth_date(birth, self._profile), sex, age, location)

    def control(self, scope: Scope, results: "ResultReader", items: Sequence[Item]) -> dict[str, str]:
        """What an order, or the first of its results, says of the control material."""
        if items:
            scope = Scope({**scope, results.record: results.fields(items[0][0])})
        return {key: text for key, get in self._control.items() if (text := get(scope))}

    def comments(self, scope: Scope, notes: Iterable[Fields]) -> list[str]:
        """What the notes of a patient or an order say."""
        return [text for fields in notes for text in self._comments(Scope({**scope, self._note: fields}))]


class ResultReader:
    """The hot path: the records of one order, each with its notes, to Results.

    What reads of the record neither value nor time is worked out once for the texts that stand where it looks (code,
    unit, flags …), since these come again and again. And so do whole records, but for their time: what was made of one is
    found by its text with the time cut out, where no rule looks at the time for anything else.
    """

    def __init__(self, profile: Profile, section: Section, rules: Rules, note: str, whole: bool = False) -> None:
        self._typed = WHOLE if whole else TYPED
        self._profile, self._delimiters, self._note = profile, rules.delimiters, note
        self._widths = rules.widths
        self.record = record = section["record"]
        own = {word: reading_of(note, rule, False) for word, rule in section.items() if word in RESULT}
        places = {word: {path[:2] for each in rule for path in each.paths} for word, rule in own.items()}
        finders = {word: self._finder(word, rule, rules) for word, rule in own.items()}
        self._value, self._measured = finders.pop("value"), finders.pop("measured")
        self._refused, self._unresolved, self._resolve = rules.refused(own["value"]), rules.unresolved, rules.resolve
        self._values, self._blank = sorted(places["value"]), "".join(rules.delimiters[1:]) + " "
        varying = places["value"] | places["measured"]
        self._once = {
            word: find
            for word, find in finders.items()
            if not places[word] & varying and (not places[word] or record in dict(places[word]))
        }
        self._others = {word: find for word, find in finders.items() if word not in self._once}
        read = {place for word in self._once for place in places[word]}
        read |= {place for place in places["value"] if place[0] != record}
        # Of the record at least two fields, OBX-2 among them, so that itemgetter gives a tuple.
        self._inner = sorted({(record, 0), (record, 2 if record == "OBX" else 1)} | {each for each in read if each[0] == record})
        self._outer = sorted(read.difference(self._inner))
        self._pick = itemgetter(*(field for _, field in self._inner))
        times = [] if self._others or places["value"] & places["measured"] else places["measured"]
        self._times = [field for segment, field in times if segment == record]
        self._stands = _all_of([field for segment, field in sorted(places["measured"]) if segment == record])
        # By the place of the time and what stands around a record; then by the record, but for its time.
        self._seen: dict[tuple[int, tuple[str, ...]], dict[str, Result]] = {}
        self._kept = 0
        self._known = Memo(self._work_out)
        understand = classifier(profile.values)
        self._understood = Memo(understand)
        # Where one place of the record has the value, as nearly always, its field is understood at once.
        place = rules.plain(own["value"])
        self._field = place.field if place and place.segment == record else 0
        cut = rules.cut(place) if place else str
        self._told: Memo[str, Understood] = Memo(lambda raw: understand(cut(raw)))
        self._records = Records(section, rules, self.fields, self._understood.__getitem__)
        self._find_alarms, self._find_comments = (
            rules.texts(reading_of(note, section.get(word, ()), True)) for word in ("alarms", "comments")
        )

    def _finder(self, word: str, rule: Rule, rules: Rules) -> Callable[[Scope], Any]:
        if word in LISTS:
            find_all, meant = rules.texts(rule), self._profile.flags
            if word != "flags" or not meant:
                return find_all
            return lambda scope: tuple(filter(None, (meant.get(flag, flag) for flag in find_all(scope))))
        find, statuses = rules.text(rule), self._profile.statuses
        if word == "status":
            return lambda scope: statuses.get(find(scope), "N")
        return (lambda scope: find(scope) != "") if word == "edited" else find

    def _work_out(self, texts: tuple[str, ...]) -> tuple[Result, Any]:
        """A result without value and time, and how OBX-2 wants the value to be read."""
        scope = Scope()
        for (segment, field), text in zip((*self._inner, *self._outer), texts, strict=True):
            scope.setdefault(segment, [""] * 100)[field] = text
        known = Result(**{"code": "", **{word: find(scope) for word, find in self._once.items()}})
        return known, self._typed.get(scope[self.record][2]) if self.record == "OBX" else None

    def order(self, scope: Scope, clock: Clock, items: Sequence[Item]) -> tuple[list[Result], Sequence[Reason]]:
        """The results of the order that a scope is of, and what holds its whole report."""
        if self._records.used:
            return self._records.results(lambda kept: self.read(scope, clock, kept), scope, items)
        return self.read(scope, clock, items), ()

    def read(self, scope: Scope, clock: Clock, items: Sequence[Item]) -> list[Result]:
        """The results of an order, one of each record."""
        around = tuple([scope[segment][field] for segment, field in self._outer])
        seen, stood = _NONE, None  # what the record before said of its time: nearly always what this one says
        written, measured, at, bad = "", "", None, False
        results = []
        for line, notes in items:
            known = seen.get(line.replace(written, _CUT)) if written else None
            if known is None or notes:
                scope[self.record] = fields = self.fields(line)
                stands = self._stands(fields)
                if stands != stood:
                    stood, measured = stands, self._measured(scope)
                    at, bad = clock[measured]
                    times = [field for field in self._times if fields[field]]
                    written = fields[times[0]] if len(times) == 1 and not bad else ""
                    seen = self._seen_in(times[0], around) if written else _NONE
                known = self._read(scope, around)
                if self._others:
                    known = replace(known, **{word: find(scope) for word, find in self._others.items()})
                if notes or bad or known.comments or known.alarms or not known.code:
                    known = self._finish(known, bad, scope, notes)
                if written and not notes:
                    self._remember(seen, known, line.replace(written, _CUT))
            results.append(replace(known, measured=measured, measured_at=at))
        return results

    def fields(self, line: str) -> Fields:
        """The fields of a record, made as many as any rule reads of it."""
        return padded(line.split(self._delimiters.field), self._widths[self.record])

    def _read(self, scope: Scope, around: tuple[str, ...]) -> Result:
        """The result of a record, but for its time."""
        fields = scope[self.record]
        known, typed = self._known[self._pick(fields) + around]
        if typed:
            value, kind, number, comparator = typed(fields[5], self._delimiters, self._understood.__getitem__, self._resolve)
        else:
            value, kind, number, comparator = (
                self._told[fields[self._field]] if self._field else self._understood[self._value(scope)]
            )
        result = replace(known, value=value, kind=kind, number=number, comparator=comparator)
        return result if number else self._proved(result, scope, typed is None)

    def _proved(self, result: Result, scope: Scope, by_rule: bool) -> Result:
        """A result without a number: a value that was deleted, or that cannot be read, is none that was left empty."""
        if result.value:
            return replace(result, problems=(UNREADABLE,)) if self._unresolved(result.value) else result
        if by_rule and (sent := self._refused(scope)):
            return replace(result, value=sent, kind="text", problems=(UNREADABLE,))
        if by_rule and any(scope[segment][field].strip(self._blank) == NULL for segment, field in self._values):
            return replace(result, value=NULL)
        return result

    def _seen_in(self, time: int, around: tuple[str, ...]) -> dict[str, Result]:
        """The records that are remembered with their time in this field and these texts around them."""
        if sum(map(len, around)) > _LONGEST:
            return {}
        if (time, around) not in self._seen and len(self._seen) >= _PLACES:
            self._seen.clear()
            self._kept = 0
        return self._seen.setdefault((time, around), {})

    def _remember(self, seen: dict[str, Result], result: Result, key: str) -> None:
        """Keeps what was made of a record, found by its text with a mark in place of its time, the whole of a field.

        No record has the mark: one that becomes the same text says the same, and its own time in the same place.
        """
        if key.count(_CUT) == 1 and len(key) <= _LONGEST:
            self._kept += 1
            if self._kept > _REMEMBERED:
                self._kept = 1
                for each in self._seen.values():
                    each.clear()
            seen[key] = result

    def _finish(self, result: Result, bad_time: bool, scope: Scope, notes: Sequence[Fields]) -> Result:
        """Adds what the notes say (one that tells an alarm is no comment), and what is wrong with the result."""
        alarms = list(result.alarms)
        comments = [text for text in result.comments if text != result.value]
        for fields in notes:
            scope[self._note] = fields
            told = self._find_alarms(scope)
            alarms += told
            comments += () if told else self._find_comments(scope)
        scope.pop(self._note, None)
        return replace(
            result,
            alarms=tuple(alarm for alarm in alarms if alarm not in self._profile.no_alarm),
            comments=tuple(comments),
            problems=(*result.problems, *([] if result.code else [NO_CODE]), *([BAD_TIME] if bad_time else [])),
        )


def _all_of(places: Sequence[int]) -> Callable[[Fields], object]:
    """What gives the fields at these places."""
    return itemgetter(*places) if places else lambda fields: ()
