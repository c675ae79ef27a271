"""Limits of one test: reference, critical and absurd intervals by sex, age and specimen, and the judgement of a value.

The limits themselves still lie inside: a value is beyond them when it is less than ``low`` or greater than ``high``.
Where sex or age is unknown and the rows differ, the reference cannot be told, and the tightest critical interval holds.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple

import msgspec

LimitKind = Literal["reference", "critical", "absurd"]
Flag = Literal["", "N", "L", "H", "LL", "HH", "A"]

_AGE = re.compile(r"(\d{1,3})([dwmy])", re.ASCII)
_DAYS = {"d": 1.0, "w": 7.0, "m": 30.4375, "y": 365.25}
_EVER = 10**6  # days: older than anybody


class Interval(msgspec.Struct, frozen=True):
    """What lies within: from ``low`` to ``high``, both included, None for no bound; or one of some ``words``."""

    low: Decimal | None = None
    high: Decimal | None = None
    words: frozenset[str] = frozenset()
    text: str = ""  # as printed
    source: str = ""


class LimitRow(msgspec.Struct, frozen=True):
    """One line of limits.csv; ``old`` and ``young`` are ages in days, from ``young`` to before ``old``."""

    kind: LimitKind
    sex: str
    young: int
    old: int
    specimen: str
    interval: Interval

    def overlaps(self, other: "LimitRow") -> bool:
        """Tells whether some patient would fall under both lines."""
        return (
            (self.kind, self.specimen) == (other.kind, other.specimen)
            and (not self.sex or not other.sex or self.sex == other.sex)
            and self.young < other.old
            and other.young < self.old
        )


class Judgement(NamedTuple):
    """What the limits say of a value; ``flag`` is of HL7 table 0078, empty when it cannot be told."""

    flag: Flag
    absurd: bool
    critical: bool


class Limits(msgspec.Struct, frozen=True):
    """The intervals that hold for one patient and specimen.

    ``sure`` is False where the rows differ and sex or age is unknown: then nothing is flagged, and what any row would
    call critical is critical.
    """

    reference: Interval | None = None
    critical: Interval | None = None
    absurd: Interval | None = None
    sure: bool = True

    @property
    def printed(self) -> str:
        """The reference as printed: ``3.5-9.5``, ``<5.2``, ``Negative``; empty when it cannot be told."""
        return self.reference.text if self.reference is not None else ""

    def judge(self, value: str, comparator: str = "") -> Judgement:
        """Judges a reported value: digits, a comparator in front or apart, or a word.

        A value known only as ``<0.01`` or ``>100`` is flagged when every number that it may stand for would be, and is
        critical when one of them would be.
        """
        reference, critical, absurd = self.reference, self.critical, self.absurd
        if (reference is not None and reference.words) or (critical is not None and critical.words):
            return self._judge_word(value)
        if value[:1] in ("<", ">"):
            comparator = value[:2] if value[1:2] == "=" else value[0]
            value = value[len(comparator) :]
        try:
            number = Decimal(value)
        except InvalidOperation:
            return Judgement("", False, False)
        beyond = "N" if critical is None else _side(critical, number, comparator)
        flag = "" if reference is None else _side(reference, number, comparator)
        if self.sure and beyond in ("L", "H"):
            flag = "LL" if beyond == "L" else "HH"
        return Judgement(flag, absurd is not None and _side(absurd, number, comparator) in ("L", "H"), beyond != "N")

    def _judge_word(self, word: str) -> Judgement:
        flag: Flag = ""
        if self.reference is not None and self.reference.words:
            flag = "N" if word in self.reference.words else "A"
        return Judgement(flag, False, self.critical is not None and word in self.critical.words)


def _side(interval: Interval, number: Decimal, comparator: str) -> Flag:
    """On which side of an interval a value certainly lies: L, N for inside, H; empty when it may be several."""
    low, high = interval.low, interval.high
    if not comparator:
        if low is not None and number < low:
            return "L"
        return "H" if high is not None and number > high else "N"
    if comparator[0] == "<":
        if low is not None:
            return "L" if number < low or (number == low and comparator == "<") else ""
        return "N" if high is None or number <= high else ""
    if high is not None:
        return "H" if number > high or (number == high and comparator == ">") else ""
    return "N" if low is None or number >= low else ""


def age_in_days(text: str) -> int | None:
    """The days of an age as limits.csv writes it: ``28d``, ``6m``, ``18y``; None when it is written otherwise."""
    match = _AGE.fullmatch(text)
    return int(int(match[1]) * _DAYS[match[2]]) if match else None


def limit_row(kind: LimitKind, sex: str, young: int | None, old: int | None, specimen: str, interval: Interval) -> LimitRow:
    """One line, with the ages that were not given filled in."""
    return LimitRow(kind, sex, young or 0, _EVER if old is None else old, specimen.casefold(), interval)


class LimitTable:
    """All limits of one test; what holds for a patient is worked out once per sex, age bracket and specimen type."""

    def __init__(self, rows: Sequence[LimitRow]) -> None:
        self._rows = rows
        self._ages = sorted({0, *(row.young for row in rows), *(row.old for row in rows if row.old < _EVER)})
        self._specimens = {row.specimen for row in rows}
        self._found: dict[tuple[str, int, str], Limits] = {}

    def at(self, sex: str, age_days: int | None, specimen: str) -> Limits:
        """The limits for a patient; sex other than M and F, and no age or a negative one, are unknown."""
        bracket = -1 if age_days is None or age_days < 0 else bisect_right(self._ages, age_days) - 1
        folded = specimen.casefold()
        key = (sex if sex in ("M", "F") else "", bracket, folded if folded in self._specimens else "")
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = self._work_out(*key)
        return found

    def _work_out(self, sex: str, bracket: int, specimen: str) -> Limits:
        def possible(kind: LimitKind) -> list[Interval | None]:
            ages = self._ages if bracket < 0 else (self._ages[bracket],)
            return [self._one(kind, s, age, specimen) for s in ((sex,) if sex else ("M", "F")) for age in ages]

        reference, critical = possible("reference"), possible("critical")
        alike = len(set(reference)) == 1
        sure = alike and len(set(critical)) == 1
        return Limits(reference[0] if alike else None, _tightest(critical), _tightest(possible("absurd")), sure)

    def _one(self, kind: LimitKind, sex: str, age: int, specimen: str) -> Interval | None:
        """The line that holds for one kind of patient; a line for the specimen type goes before one for any."""
        fitting = [row for row in self._rows if row.kind == kind and row.sex in ("", sex) and row.young <= age < row.old]
        wanted = (row for name in (specimen, "") for row in fitting if row.specimen == name)
        row = next(wanted, None)
        return row.interval if row else None


def _tightest(intervals: Iterable[Interval | None]) -> Interval | None:
    """What lies within every one of some intervals."""
    given = list(dict.fromkeys(interval for interval in intervals if interval is not None))
    if len(given) <= 1:
        return given[0] if given else None
    lows = [interval.low for interval in given if interval.low is not None]
    highs = [interval.high for interval in given if interval.high is not None]
    words = frozenset[str]().union(*(interval.words for interval in given))
    return Interval(max(lows, default=None), min(highs, default=None), words)


def overlapping(rows: Sequence[LimitRow]) -> Iterator[tuple[int, int]]:
    """The pairs of places in ``rows`` of which one patient would fall under both."""
    for later, row in enumerate(rows):
        for earlier in range(later):
            if row.overlaps(rows[earlier]):
                yield earlier, later
