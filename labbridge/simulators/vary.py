"""Fresh messages from a sample: another specimen, this moment's times, other values, the same shape.

A ``Template`` is a sample with slots. Where a slot is, the reader itself tells: a text is changed in one place of the
sample, and that place is a slot if the specimen id, or exactly one value, reads differently then. So whatever a profile
can say about ids and values holds here too, without being said again. Pure: samples, reader, time and dice come in as
arguments; the same dice give the same message.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random

import msgspec

from labbridge.mapping import Catalogue, CodeMap, Interval
from labbridge.model import Reading, RemoteProtocolError, Report, Result
from labbridge.verification.ages import age_in_days

Read = Callable[[bytes], Reading]

OUTSIDE, CRITICAL = 0.05, 0.01  # shares of the values


class Range(msgspec.Struct, frozen=True):
    """The limits between which a number lies as a rule, in the analyzer's own unit; None where there is none."""

    low: float | None = None
    high: float | None = None
    critical_low: float | None = None
    critical_high: float | None = None

    def draw(self, dice: Random, outside: float, critical: float) -> float:
        """A number: around the middle, or in these shares of the draws beyond the reference or the critical limits."""
        low = self.low or 0.0
        high = self.high if self.high is not None else low + abs(low) or 1.0
        up = not self.low or (self.high is not None and dice.random() < 0.5)
        edge, limit, sign = (high, self.critical_high, 1) if up else (low, self.critical_low, -1)
        limit = edge + sign * abs(edge) / 2 if limit is None else limit
        middle, beyond = (high - low) * 0.4, limit + sign * abs(limit) / 10
        spans = (((low + high) / 2 - middle, (low + high) / 2 + middle), (edge, limit), (limit, beyond))
        return dice.uniform(*dice.choices(spans, (1 - outside - critical, outside, critical))[0])


Ranges = Callable[[Report, Result], Range | None]

_LARGE = "1000000000"  # so large that rounding to a test's decimals does not show
_GROWN_DAYS = 40 * 365


def ranges_of(catalogue: Catalogue, codes: CodeMap, now: float) -> Ranges:
    """The laboratory's own limits as the analyzer's numbers; ``now`` (seconds since 1970) is for the patients' ages.

    Where sex or age is unknown, those of a grown woman.
    """

    def ranges(report: Report, result: Result) -> Range | None:
        kind, patient, age = report.specimen.type, report.patient, age_in_days(report.patient, now)
        zero, large = (codes.map(msgspec.structs.replace(result, value=n, number=n), kind) for n in ("0", _LARGE))
        if zero.test is None or zero.kind != "number" or large.kind != "number":
            return None
        limits = catalogue.limits(zero.test.code, patient.sex or "F", _GROWN_DAYS if age is None else age, kind)
        if limits is None or limits.reference is None:
            return None
        reference, critical, offset = limits.reference, limits.critical or Interval(), float(zero.value)
        factor = (float(large.value) - offset) / float(_LARGE)
        ends = (reference.low, reference.high, critical.low, critical.high)
        return Range(*(None if end.is_infinite() else (float(end) - offset) / factor for end in ends))

    return ranges


class Fresh(msgspec.Struct, frozen=True):
    """What one new message is made of."""

    specimens: Sequence[str]  # one for each of the template's
    now: datetime  # aware, in the analyzer's zone
    dice: Random
    outside: float = OUTSIDE
    critical: float = CRITICAL


Slot = tuple[int, int, Callable[[Fresh], str]]  # a place in a sample, from and to, and what writes it anew


class Template:
    """A sample of patients' results, ready to be played again and again."""

    def __init__(self, sample: bytes, read: Read, ranges: Ranges | None = None) -> None:
        """Finds the slots of ``sample``, a whole message as ``read`` takes it.

        ``ranges`` tells the limits of a result; where it knows none, the sample's own value is taken for a usual one.
        Raises ValueError where the sample is no message of patients' results, or its specimen id has no place of its
        own.
        """
        self._text = text = sample.decode("latin-1")  # a character a byte: the places are the same
        base = _read(read, sample)
        if base is None or not base.reports or not all(map(_is_patients, base.reports)):
            raise ValueError("not a sample of patients' results")
        self.specimens = tuple(dict.fromkeys(report.specimen.id for report in base.reports))
        slots = [*_read_slots(text, base, self.specimens, ranges, read), *_time_slots(text, base)]
        slots += ((*match.span(2), lambda fresh: f"{fresh.dice.getrandbits(64):016x}") for match in _CONTROL_ID.finditer(text))
        self._slots: list[Slot] = []
        for slot in sorted(slots, key=lambda slot: slot[0]):  # stable: the specimen goes before value and time
            if not self._slots or slot[0] >= self._slots[-1][1]:
                self._slots.append(slot)
        self._delimiters = frozenset(text[3:8] if text.startswith("MSH") else text[1:5]) | {"\r", "\n"}
        others = {specimen: _bumped(specimen) for specimen in self.specimens}
        reading = _read(read, self.write(Fresh(tuple(others.values()), datetime.now(UTC), Random(0))))  # noqa: S311
        if reading is None or _ids(reading) != [(others[id_], problems) for id_, problems in _ids(base)]:
            raise ValueError("the sample's specimen id has no place of its own")

    def write(self, fresh: Fresh) -> bytes:
        """Writes a new message; raises ValueError for a specimen id that its delimiters would cut."""
        if not self._delimiters.isdisjoint("".join(fresh.specimens)):
            raise ValueError("a specimen id must not hold a delimiter of the message")
        pieces: list[str] = []
        done = 0
        for start, end, write in self._slots:
            pieces += self._text[done:start], write(fresh)
            done = end
        return "".join((*pieces, self._text[done:])).encode("latin-1")


_ALONE = r"(?<![0-9A-Za-z.\x80-\xff]){}(?![0-9A-Za-z.\x80-\xff])"
_STAMP = re.compile(_ALONE.format(r"([0-9]{12}(?:[0-9]{2})?)(?:\.[0-9]{1,4})?([+-][0-9]{4})?"))
_LAYOUTS = {12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_RECENT = timedelta(days=31)
_CONTROL_ID = re.compile(r"(?:^|(?<=\r))MSH(.)(?:(?:(?!\1)[^\r])*\1){8}((?:(?!\1)[^\r])+)")  # MSH-10


def _is_patients(report: Report) -> bool:
    return report.role == "patient" and bool(report.specimen.id and report.results) and not report.problems


def _read(read: Read, payload: bytes) -> Reading | None:
    try:
        return read(payload)
    except RemoteProtocolError:
        return None


def _ids(reading: Reading) -> list[tuple[str, object]]:
    return [(report.specimen.id, report.problems) for report in reading.reports]


def _results(reading: Reading) -> list[tuple[Report, Result]]:
    return [(report, result) for report in reading.reports for result in report.results]


def _bumped(text: str) -> str:
    """Another text of the same shape: a pattern of the profile that takes the one takes the other."""
    bumped = re.sub("[0-9]", lambda digit: str(int(digit[0]) % 9 + 1), text)
    return bumped if bumped != text else text[::-1] + "X"


def _fitted(new: str, old: str) -> str:
    """``new`` padded with blanks to the width of ``old``, on the side where ``old`` is."""
    if old.startswith(" "):
        new = new.rjust(len(old.rstrip(" ")))
    return new.ljust(len(old)) if old.endswith(" ") else new


def _read_slots(text: str, base: Reading, specimens: Sequence[str], ranges: Ranges | None, read: Read) -> Iterator[Slot]:
    """The places of the specimen ids (a message may say one twice) and of the values that are numbers.

    The same text elsewhere, where changing it changes neither, stands for something else and is left alone.
    """
    before, values = _results(base), {*specimens, *(result.value for _, result in _results(base) if result.kind == "number")}
    words = "|".join(re.escape(word) for word in sorted(values, key=len, reverse=True))
    for match in re.finditer(_ALONE.format(f" *({words}) *"), text):
        other = text[: match.start(1)] + _bumped(match[1]) + text[match.end(1) :]
        reading = _read(read, other.encode("latin-1"))
        if reading is None or _ids(reading) != _ids(base):
            if match[1] in specimens:
                yield *match.span(), partial(_specimen, specimens.index(match[1]), match[0])
            continue
        after = _results(reading)
        changed = [old for old, new in zip(before, after, strict=False) if old[1].value != new[1].value]
        if len(before) == len(after) and len(changed) == 1 and changed[0][1].kind == "number":
            usual = ranges(*changed[0]) if ranges else None
            yield *match.span(), partial(_value, match, float(changed[0][1].number), usual)


def _specimen(index: int, old: str, fresh: Fresh) -> str:
    return _fitted(fresh.specimens[index], old)


def _value(sent: re.Match[str], number: float, usual: Range | None, fresh: Fresh) -> str:
    size, text = abs(number), sent[1].replace(",", ".")
    around = usual or Range(number - size / 20, number + size / 20, number - size * 2 / 3, number + size * 2)
    scale = float(text) / number if number else 1.0
    new = f"{around.draw(fresh.dice, fresh.outside, fresh.critical) * scale:z.{len(text.partition('.')[2])}f}"
    return _fitted(new.replace(".", ",") if "," in sent[1] else new, sent[0])


def _time_slots(text: str, base: Reading) -> Iterator[Slot]:
    """The times of the last month before the newest one that was read, which becomes now; births and expiries stay."""
    said = [report.sent for report in base.reports] + [result.measured for _, result in _results(base)]
    newest = max((time for stamp in said if (match := _STAMP.match(stamp)) and (time := _time(match))), default=None)
    for match in _STAMP.finditer(text):
        time = _time(match)
        if newest and time and abs(time - newest) <= _RECENT:
            layout = _LAYOUTS[len(match[1])] + ("%z" if match[2] else "")
            yield *match.span(), partial(_moved, time - newest, layout)


def _moved(offset: timedelta, layout: str, fresh: Fresh) -> str:
    return (fresh.now + offset).strftime(layout)


def _time(match: re.Match[str]) -> datetime | None:
    try:
        return datetime.strptime(match[1], _LAYOUTS[len(match[1])])  # the sample's own zone is beside the point
    except ValueError:
        return None
