"""What a text says: the kind of a value, and the instant of a time. Texts come in and stay as they are.

No number passes through a binary float, and nothing is guessed: what is no number whole is a text, what is no time has
no instant. The words and patterns that a model uses come from its profile.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache, partial
from typing import Generic, NamedTuple, TypeVar

from labbridge.formats.er7 import Delimiters, rewritten
from labbridge.model import Kind
from labbridge.profiles import Profile, Section

K = TypeVar("K", bound=str | tuple[str, ...])
V = TypeVar("V")
_REMEMBERED, _LONGEST = 4096, 500


class Memo(dict[K, V], Generic[K, V]):
    """What was worked out for texts before; forgets everything when it is full, and never keeps long texts."""

    def __init__(self, work_out: Callable[[K], V]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, texts: K) -> V:
        found = self._work_out(texts)
        if len(self) >= _REMEMBERED:
            self.clear()
        if (len(texts) if isinstance(texts, str) else sum(map(len, texts))) <= _LONGEST:
            self[texts] = found
        return found


Understood = tuple[str, Kind, str, str]  # a value: its text, kind, the decimal text of its number, the comparator
Understand = Callable[[str], Understood]
Resolve = Callable[[str], str]  # a component that was cut out -> its text without escapes

NULL = '""'  # "there is none any more", where an empty field says nothing (HL7 2.5, 2.5.3; LIS02-A2, 5.4)
# Asterisks, or two dashes and more; one dash is a grade on a urine strip.
_ABSENT = re.compile(r"\*+(\.\**)?|-{2,}(\.-*)?|" + NULL)
_COMPARATORS = {None: "", "=<": "<=", "=>": ">=", "≤": "<=", "≥": ">="}
_BEFORE_NUMBER = {"", "<", "<=", ">", ">=", "=", "<>", *filter(None, _COMPARATORS), NULL}  # HL7 2.5, 2.A.71.1
_COMPARATOR = r"(?:([<>]=?|=[<>]|[≤≥])\s*)?"
_RATIO = re.compile(_COMPARATOR + r"[0-9]+\s*:\s*[0-9]+")


def classifier(values: Section) -> Understand:
    """Make the function that understands the texts of one model's values.

    Every digit stays; a decimal comma becomes a point in ``number`` and separators of thousands go. ``+1`` and ``1+``
    are grades and therefore text; so is a number with anything else beside it.
    """
    decimal, thousands = values["decimal"], values["thousands"]
    point, comma = re.escape(decimal), re.escape(thousands)
    absent = (_ABSENT, *values["absent"])
    whole = rf"(?:[0-9]{{1,3}}(?:{comma}[0-9]{{3}})+|[0-9]+)" if comma else "[0-9]+"
    number = re.compile(rf"{_COMPARATOR}(-?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?)")

    def understand(text: str) -> Understood:
        match = number.fullmatch(text)
        if match:
            digits = match[2].replace(thousands or " ", "").replace(decimal, ".")
            return text, "comparator" if match[1] else "number", digits, _COMPARATORS.get(match[1], match[1])
        if not text or any(pattern.fullmatch(text) for pattern in absent):
            return text, "absent", "", ""
        ratio = _RATIO.fullmatch(text)
        if ratio:
            return text, "ratio", "", _COMPARATORS.get(ratio[1], ratio[1])
        if any(pattern.fullmatch(text) for pattern in values["attachment"]):
            return text, "attachment", "", ""
        return text, "text", "", ""

    return understand


def structured(raw: str, delimiters: Delimiters, understand: Understand, resolve: Resolve) -> Understood:
    """A structured numeric (HL7 SN: comparator, number, separator, number): ``<^20`` is ``<20``, ``^1^:^128`` 1:128.

    What is none, and two numbers that would be read as one, stays whole: a text.
    """
    parts = [resolve(part.strip()) for part in raw.split(delimiters.component)]
    found = understand("".join(parts))
    plain = len(parts) == 1 or parts[0] in _BEFORE_NUMBER
    if not plain or any(parts[4:]) or (found[2] and any(parts[2:])):
        return resolve(raw.strip()), "text", "", ""
    return found


def coded(raw: str, delimiters: Delimiters, understand: Understand, resolve: Resolve) -> Understood:
    """A coded entry (HL7 CE, CWE, CNE): its identifier, or its text where it has none.

    Several repeats, and one that speaks in other components only, stay whole: a text that no map knows.
    """
    blank = "".join(delimiters[1:]) + " "
    repeats = [repeat for repeat in raw.split(delimiters.repeat) if repeat.strip(blank)]
    parts = [part.strip() for part in (repeats or [""])[0].split(delimiters.component)] + [""] * 9
    found = understand(resolve(next(filter(None, parts[:2]), "")))
    if len(repeats) > 1 or (not found[0] and any(parts[n] for n in (3, 4, 8))):  # alternate identifier, its text, original text
        return resolve(raw.strip()), "text", "", ""
    return found if found[1] == "absent" else (found[0], "coded", "", "")


def encapsulated(raw: str, delimiters: Delimiters, understand: Understand, resolve: Resolve) -> Understood:
    """Encapsulated data (HL7 ED: source, type, subtype, encoding, data), described; the journal has the bytes."""
    if raw == NULL:
        return understand(raw)
    _, kind, subtype, encoding, data = (raw.split(delimiters.component, 4) + [""] * 5)[:5]
    data = data.strip()
    size = len(data)
    if encoding.strip().lower() == "base64":
        size = size * 3 // 4 - len(data[-2:]) + len(data[-2:].rstrip("="))
    described = "/".join(filter(None, (kind.strip().lower(), subtype.strip().lower()))) or "data"
    return f"{described} {size} bytes", "attachment", "", ""


def pointer(raw: str, delimiters: Delimiters, understand: Understand, resolve: Resolve) -> Understood:
    """A reference pointer (HL7 RP): where the attachment lies."""
    return understand(raw) if raw == NULL else (resolve(raw.partition(delimiters.component)[0].strip()), "attachment", "", "")


def _content(kind: str, raw: str, delimiters: Delimiters, understand: Understand, resolve: Resolve) -> Understood:
    """An attachment whole: OBX-5 for the usual delimiters, and in the place of a number its OBX-2."""
    return understand(raw) if raw == NULL else (rewritten(raw, delimiters, resolve), "attachment", kind, "")


# What OBX-2 says of OBX-5; all other types are texts that are understood as they are.
TYPED = {"SN": structured, "CE": coded, "CWE": coded, "CNE": coded, "ED": encapsulated, "RP": pointer}
WHOLE = {**TYPED, **{kind: partial(_content, kind) for kind in ("ED", "RP")}}  # where the attachments themselves are asked for


class Instant(NamedTuple):
    """Seconds since 1970 in UTC, or None where the text has no time of day; ``bad`` where it is no time at all."""

    at: int | None
    bad: bool = False


# No analyzer has measured in another century: a year that is none tells a text in another order.
_YEAR = "(?:19|20)[0-9]{2}"
_OF_DAY = "(?:([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(?:\\.[0-9]*)?)?)?)?"
_TIME = re.compile(f"({_YEAR})([0-9]{{2}})([0-9]{{2}}){_OF_DAY}([+-][0-9]{{4}})?")
_MONTH = re.compile(f"{_YEAR}(?:0[1-9]|1[0-2])?(?:[+-][0-9]{{4}})?")
_BIRTH = re.compile(f"(?:18[0-9]{{2}}|{_YEAR})(?:[0-9]{{2}}){{0,2}}")
_TELLS_TIME = re.compile("%[HIcX]")
_OFFSET = re.compile("[+-](?:[01][0-9]|2[0-3])[0-5][0-9]")


class Clock(Memo[str, Instant]):
    """Texts to instants, for one zone; a time that occurs twice is its first, one that never was is moved on.

    HL7 TS and LIS02 dates (YYYY[MM[DD[HH[MM[SS[.S…]]]]]][+ZZZZ]), and whatever further formats the profile names. The
    text itself is kept beside its instant: it alone says how precise it was.
    """

    def __init__(self, zone: tzinfo, formats: Sequence[str] = (), nulls: Iterable[str] = ()) -> None:
        super().__init__(self._understand)
        self._zone, self._formats, self._nulls = zone, formats, {"", *nulls}

    def _understand(self, text: str) -> Instant:
        if text in self._nulls:
            return Instant(None)
        match = _TIME.fullmatch(text)
        with suppress(ValueError):
            if match:
                year, month, day, hour, minute, second = [int(digits or 0) for digits in match.groups()[:6]]
                zone = _zone(match[7]) if match[7] else self._zone
                at = int(datetime(year, month, day, hour, minute, second, tzinfo=zone).timestamp())
                return Instant(at if match[4] else None)
        if _MONTH.fullmatch(text):
            return Instant(None)
        for form in self._formats:
            with suppress(ValueError):
                found = datetime.strptime(text, form)
                if re.fullmatch(_YEAR, str(found.year)):
                    at = int((found if found.tzinfo else found.replace(tzinfo=self._zone)).timestamp())
                    return Instant(at if _TELLS_TIME.search(form) else None)
        return Instant(None, bad=True)


def birth_date(text: str, profile: Profile) -> str:
    """A birth date as YYYYMMDD, or as far as it was sent; empty where it cannot be told, the century included."""
    if text in profile.null_times:
        return ""
    match = _BIRTH.match(text)
    if match:
        return "" if match[0] in profile.null_times else match[0]
    for form in profile.time_formats:
        with suppress(ValueError):
            if "%Y" in form:
                return datetime.strptime(text, form).strftime("%Y%m%d")
    return ""


def clock_for(profile: Profile, zone: tzinfo, sent: str) -> Clock:
    """The clock of one message: its zone is the offset that the header's time carries, else the sender's."""
    return _clocks(profile)(_zone(sent[-5:]) if _OFFSET.fullmatch(sent[-5:]) else zone)


@lru_cache(maxsize=256)
def _clocks(profile: Profile) -> Callable[[tzinfo], Clock]:
    """The last few clocks of a profile: each remembers much, and it is the sender who names the offset."""
    return lru_cache(maxsize=4)(lambda zone: Clock(zone, profile.time_formats, profile.null_times))


@lru_cache(maxsize=64)
def _zone(offset: str) -> timezone:
    minutes = int(offset[1:3]) * 60 + int(offset[3:5])
    return timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes))
