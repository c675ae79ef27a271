"""What a text says: the kind of a value, and the instant of a time. Texts come in and stay as they are.

No number passes through a binary float, and nothing is guessed: what is no number whole is a text, what is no time has
no instant. The words and patterns that a model uses come from its profile.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from labbridge.formats.er7 import Delimiters
from labbridge.model import Kind
from labbridge.profiles import Profile, Values

V = TypeVar("V")

_REMEMBERED, _LONGEST = 4096, 200


class Memo(dict[str, V], Generic[V]):
    """What was worked out for a text before; forgets everything when it is full, and never keeps a long text."""

    def __init__(self, work_out: Callable[[str], V]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, text: str) -> V:
        found = self._work_out(text)
        if len(self) >= _REMEMBERED:
            self.clear()
        if len(text) <= _LONGEST:
            self[text] = found
        return found


Understood = tuple[str, Kind, str, str]  # a value: its text, kind, the decimal text of its number, the comparator
Understand = Callable[[str], Understood]

_COMPARATORS = {None: "", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">="}
_COMPARATOR = r"(?:([<>]=?|=[<>]|[≤≥])\s*)?"
_RATIO = re.compile(_COMPARATOR + r"[0-9]+\s*:\s*[0-9]+")


def classifier(values: Values) -> Understand:
    """Make the function that understands the texts of one model's values.

    Every digit stays; a decimal comma becomes a point in ``number`` and separators of thousands go. ``+1`` and ``1+``
    are grades and therefore text; so is a number with anything else beside it.
    """
    point, comma = re.escape(values.decimal), re.escape(values.thousands)
    whole = rf"(?:[0-9]{{1,3}}(?:{comma}[0-9]{{3}})+|[0-9]+)" if comma else "[0-9]+"
    number = re.compile(rf"{_COMPARATOR}(-?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?)")
    plain = values.decimal == "." and not comma

    def understand(text: str) -> Understood:
        match = number.fullmatch(text)
        if match:
            comparator, digits = match.groups()
            if not plain:
                digits = digits.replace(values.thousands, "").replace(values.decimal, ".")
            if comparator is None:
                return text, "number", digits, ""
            return text, "comparator", digits, _COMPARATORS.get(comparator, comparator)
        if not text or any(pattern.fullmatch(text) for pattern in values.absent):
            return text, "absent", "", ""
        ratio = _RATIO.fullmatch(text)
        if ratio:
            return text, "ratio", "", _COMPARATORS.get(ratio[1], ratio[1])
        if any(pattern.fullmatch(text) for pattern in values.attachment):
            return text, "attachment", "", ""
        return text, "text", "", ""

    return understand


def structured(raw: str, delimiters: Delimiters, understand: Understand) -> Understood:
    """A structured numeric (HL7 SN: comparator, number, separator, number): ``<^20`` is ``<20``, ``^1^:^128`` 1:128."""
    return understand("".join(part.strip() for part in raw.split(delimiters.component)))


def coded(raw: str, delimiters: Delimiters, understand: Understand) -> Understood:
    """A coded entry (HL7 CE, CWE, CNE): its identifier, or its text where it has none."""
    texts = [part.strip() for part in raw.split(delimiters.repeat)[0].split(delimiters.component)[:2]]
    found = understand(next(filter(None, texts), ""))
    return found if found[1] == "absent" else (found[0], "coded", "", "")


def encapsulated(raw: str, delimiters: Delimiters, understand: Understand) -> Understood:
    """Encapsulated data (HL7 ED: source, type, subtype, encoding, data), described; the journal has the bytes."""
    _, kind, subtype, encoding, data = (raw.split(delimiters.component, 4) + [""] * 5)[:5]
    data = data.strip()
    size = len(data)
    if encoding.strip().lower() == "base64":
        size = size * 3 // 4 - len(data[-2:]) + len(data[-2:].rstrip("="))
    described = "/".join(filter(None, (kind.strip().lower(), subtype.strip().lower()))) or "data"
    return f"{described} {size} bytes", "attachment", "", ""


def pointer(raw: str, delimiters: Delimiters, understand: Understand) -> Understood:
    """A reference pointer (HL7 RP): where the attachment lies."""
    return raw.partition(delimiters.component)[0].strip(), "attachment", "", ""


class Instant(NamedTuple):
    """Seconds since 1970 in UTC, or None where the text has no time of day; ``bad`` where it is no time at all."""

    at: int | None
    bad: bool = False


_TIME = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\.[0-9]*)?)?)?)?([+-][0-9]{4})?")
_OFFSET = re.compile(r"[+-][0-9]{4}")


class Clock(Memo[Instant]):
    """Texts to instants, for one zone; a time that occurs twice is its first, one that never was is moved on.

    HL7 TS and LIS02 dates (YYYYMMDD[HH[MM[SS[.S…]]]][+ZZZZ]), and whatever further formats the profile names.
    """

    def __init__(self, zone: tzinfo, formats: Sequence[str] = (), nulls: Iterable[str] = ()) -> None:
        super().__init__(self._understand)
        self._zone = zone
        self._formats = formats
        self._nulls = frozenset(nulls)

    def _understand(self, text: str) -> Instant:
        if not text or text in self._nulls:
            return Instant(None)
        try:
            return Instant(self._seconds(text))
        except ValueError:
            return Instant(None, bad=True)

    def _seconds(self, text: str) -> int | None:
        match = _TIME.fullmatch(text)
        if match is None:
            return self._otherwise(text)
        year, month, day, hour, minute, second = (int(digits or 0) for digits in match.groups()[:6])
        zone = _zone(match[7]) if match[7] else self._zone
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
        return None if match[4] is None else int(moment.timestamp())

    def _otherwise(self, text: str) -> int:
        for form in self._formats:
            try:
                return int(datetime.strptime(text, form).replace(tzinfo=self._zone).timestamp())
            except ValueError:
                continue
        raise ValueError


def clock_for(profile: Profile, zone: tzinfo, sent: str) -> Clock:
    """The clock of one message: its zone is the offset that the header's time carries, else the sender's."""
    offset = sent[-5:]
    if _OFFSET.fullmatch(offset) and offset[1:3] < "24":
        zone = _zone(offset)
    return _clock(profile, zone)


@lru_cache(maxsize=64)
def _clock(profile: Profile, zone: tzinfo) -> Clock:
    return Clock(zone, profile.time_formats, profile.null_times)


def _zone(offset: str) -> timezone:
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
