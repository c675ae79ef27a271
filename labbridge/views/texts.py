"""Words, times and numbers in the user's language: English is the message itself, Chinese stands in ``locale/zh.po``.

Times are those of the laboratory's own clock, always with 24 hours.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Literal, cast
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from labbridge.model import Reason
from labbridge.verification import reasons

Language = Literal["en", "zh"]

_site: dict[str, str] = {"zone": "UTC", "language": "en"}
_speaks: list[Callable[[], str]] = []
_AGES = ((86400.0, "{n} d"), (3600.0, "{n} h"), (60.0, "{n} min"), (1.0, "{n} s"))


def configure(zone: str, language: str, *speaks: Callable[[], str]) -> None:
    """Takes the laboratory's time zone and language, and who tells the user's where there is one (else nothing)."""
    _site.update(zone=zone, language=language)
    _speaks[:] = speaks


def language() -> Language:
    """The language of the user, or of the laboratory where nobody is logged in."""
    return cast(Language, next(filter(None, (speaks() for speaks in _speaks)), _site["language"]))


def _(message: str, /, **values: object) -> str:
    """The message in the user's language, with its values in place of ``{names}``."""
    text = _chinese().get(message, message) if language() == "zh" else message
    return text.format(**values) if values else text


def in_both(message: str, **values: object) -> str:
    """The message in English and in Chinese, for a paper that anybody may read."""
    return f"{message} {_chinese().get(message, message)}".format(**values)


@cache
def _chinese() -> dict[str, str]:
    with resources.files("labbridge.views").joinpath("locale/zh.po").open("rb") as file:
        return {str(one.id): str(one.string) for one in read_po(file, locale="zh") if one.id and one.string}


def _local(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, ZoneInfo(_site["zone"]))


def _formatted(us: int, english: str, chinese: str) -> str:
    zh = language() == "zh"
    return format_datetime(_local(us), chinese if zh else english, locale="zh" if zh else "en")


def time_text(us: int) -> str:
    """Date and time, to the minute, of microseconds since 1970; without the year where it is this one."""
    year = "" if _local(us).year == datetime.now(ZoneInfo(_site["zone"])).year else "y "
    return _formatted(us, f"d MMM {year}HH:mm", f"{'y年' if year else ''}M月d日 HH:mm")


def paper_time(us: int) -> str:
    """Date and time as every language reads them."""
    return _local(us).strftime("%Y-%m-%d %H:%M")


def day_text(us: int) -> str:
    """The date."""
    return _formatted(us, "d MMM y", "y年M月d日")


def clock_text(us: int) -> str:
    """The time of day, to the second."""
    return _formatted(us, "HH:mm:ss", "HH:mm:ss")


def age_text(seconds: float) -> str:
    """How long: the largest whole unit, as in "4 min"."""
    for size, text in _AGES:
        if abs(seconds) >= size:
            return _(text, n=int(abs(seconds) // size))
    return _("{n} s", n=0)


def number_text(number: Any) -> str:
    """A number with the marks of the language."""
    return format_decimal(number, locale="zh" if language() == "zh" else "en")


def reason_text(given: Sequence[Reason]) -> str:
    """Reasons in the user's language, in one line."""
    return reasons.render_all(given, language())
