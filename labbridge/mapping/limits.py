"""Limits of one test: reference, critical and absurd intervals by sex, age and specimen, and the judgement of a value.

The limits themselves still lie inside: a value is beyond them when it is less than ``low`` or greater than ``high``.
Where sex or age is unknown and the rows differ, the reference cannot be told, and the tightest critical interval holds.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

LimitKind = Literal["reference", "critical", "absurd"]
Flag = Literal["", "N", "L", "H", "LL", "HH", "A"]

_AGE = re.compile(r"(\d{1,3})([dwmy])", re.ASCII)
_DAYS = {"d": 1.0, "w": 7.0, "m": 30.4375, "y": 365.25}
_LONGEST = 64  # characters of a value that is worth remembering
EVER = 10**6  # days: older than anybody
LEAST, MOST = Decimal("-Infinity"), Decimal("Infinity")


class Interval(msgspec.Struct, frozen=True):
    """What lies within: from ``low`` to ``high``, both included; or one of some ``words``."""

    low: Decimal = LEAST
    high: Decimal = MOST
    words: frozenset[str] = frozenset()
    text: str = ""  # as printed
    source: str = ""


class LimitRow(msgspec.Struct, frozen=True):
    """One line of limits.csv; ``young`` and ``old`` are ages in days, from ``young`` to before ``old``."""

    kind: LimitKind
    sex: str
    young: int
    old: int
    specimen: str  # case-folded
    interval: Interval
    line: int = 0

    def overlaps(self, other: "LimitRow") -> bool:
        """Tells whether some patient would fall under both lines."""
        same = (self.kind, self.specimen) == (other.kind, other.specimen) and (self.sex or other.sex) == (other.sex or self.sex)
        return same and self.young < other.old and other.young < self.old


class Judgement(NamedTuple):
    """What the limits say of a value; ``flag`` is of HL7 table 0078, empty when it cannot be told."""

    flag: Flag
    absurd: bool
    critical: bool


class Limits(msgspec.Struct, frozen=True, eq=False):
    """The intervals that hold for one patient and specimen.

    ``sure`` is False where the rows differ and sex or age is unknown: then nothing is flagged, and what any row would
    call critical is critical.
    """

    reference: Interval | None = None
    critical: Interval | None = None
    absurd: Interval | None = None
    sure: bool = True
    printed: str = ""  # the reference: ``3.5-9.5``, ``<5.2``, ``Negative``; empty when it cannot be told

    def judge(self, value: str) -> Judgement:
        """Judges a reported value: digits, perhaps with a comparator in front, or a word.

        A value known only as ``<0.01`` or ``>100`` is flagged when every number that it may stand for would be, and is
        critical when one of them would be.
        """
        return self._judged(value) if len(value) <= _LONGEST else self._judged.__wrapped__(self, value)

    @lru_cache(maxsize=4096)  # noqa: B019 (limits live as long as the catalogue; the same values come all day)
    def _judged(self, value: str) -> Judgement:
        reference, critical = self.reference, self.critical
        if (reference is not None and reference.words) or (critical is not None and critical.words):
            flag: Flag = "" if reference is None or not reference.words else "N" if value in reference.words else "A"
            return Judgement(flag, False, critical is not None and value in critical.words)
        try:
            least = most = Decimal(value.lstrip("<>="))
        except InvalidOperation:
            return Judgement("", False, False)
        if value[0] == "<":
            least, most = LEAST, most if value[1] == "=" else most.next_minus()
        elif value[0] == ">":
            least, most = least if value[1] == "=" else least.next_plus(), MOST
        beyond = "N" if critical is None else _side(critical, least, most)
        flag = "" if reference is None else _side(reference, least, most)
        if self.sure and beyond in ("L", "H"):
            flag = "LL" if beyond == "L" else "HH"
        return Judgement(flag, self.absurd is not None and _side(self.absurd, least, most) in ("L", "H"), beyond != "N")


def _side(interval: Interval, least: Decimal, most: Decimal) -> Flag:
    """On which side of an interval a value certainly lies: L, N for inside, H; empty when it may be several."""
    if interval.low <= least and most <= interval.high:
        return "N"
    return "L" if most < interval.low else "H" if least > interval.high else ""


def age_in_days(text: str) -> int | None:
    """The days of an age as limits.csv writes it: ``28d``, ``6m``, ``18y``; None when it is written otherwise."""
    match = _AGE.fullmatch(text)
    return int(int(match[1]) * _DAYS[match[2]]) if match else None


class LimitTable:
    """All limits of one test; what holds for a patient is worked out once per sex, age bracket and specimen type."""

    def __init__(self, rows: Sequence[LimitRow]) -> None:
        self._rows = rows
        self.ages = sorted({0, *(row.young for row in rows), *(row.old for row in rows if row.old < EVER)})
        self.specimens = {row.specimen for row in rows}
        self._limits = lru_cache(maxsize=None)(self._work_out)

    def at(self, sex: str, age_days: int | None, specimen: str) -> Limits:
        """The limits for a patient; sex other than M and F, and no age or a negative one, are unknown."""
        bracket = -1 if age_days is None or age_days < 0 else bisect_right(self.ages, age_days) - 1
        folded = specimen.casefold()
        return self._limits(sex if sex in ("M", "F") else "", bracket, folded if folded in self.specimens else "")

    def _work_out(self, sex: str, bracket: int, specimen: str) -> Limits:
        ages = self.ages if bracket < 0 else [self.ages[bracket]]

        def possible(kind: LimitKind) -> list[Interval | None]:
            return [self._one(kind, one, age, specimen) for one in sex or "MF" for age in ages]

        reference, critical = possible("reference"), possible("critical")
        alike = len(set(reference)) == 1
        sure = alike and len(set(critical)) == 1
        known = reference[0] if alike else None
        printed = known.text if known is not None else ""
        return Limits(known, _tightest(critical), _tightest(possible("absurd")), sure, printed)

    def _one(self, kind: LimitKind, sex: str, age: int, specimen: str) -> Interval | None:
        """The line that holds for one kind of patient; a line for the specimen type goes before one for any."""
        fitting = [row for row in self._rows if row.kind == kind and row.sex in ("", sex) and row.young <= age < row.old]
        return next((row.interval for name in (specimen, "") for row in fitting if row.specimen == name), None)


def _tightest(intervals: Iterable[Interval | None]) -> Interval | None:
    """What lies within every one of some intervals."""
    given = list(dict.fromkeys(interval for interval in intervals if interval is not None))
    if len(given) <= 1:
        return given[0] if given else None
    words = frozenset[str]().union(*(one.words for one in given))
    return Interval(max(one.low for one in given), min(one.high for one in given), words)
