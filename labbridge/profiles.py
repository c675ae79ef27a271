"""How one analyzer model speaks: loads ``analyzers/<model>/profile.toml`` into a checked, immutable Profile.

A profile says only what differs from its protocol's defaults (``dialects``, in the same language). It is
data: *rules* say where a text stands in a message, *conditions* say when something holds; ``formats.reading`` turns
both into functions. The words of the language are the nouns of ``model``: ``[result] unit = "OBX-6.1"`` fills
``Result.unit``. An unknown word is an error that names the file, the key, the line, and what was probably meant.
The rules and conditions are compiled in ``language``.
"""

import codecs
import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, Literal, NamedTuple, cast
from zoneinfo import ZoneInfo

import msgspec

from labbridge import language
from labbridge.dialects import DEFAULTS, RECORDS
from labbridge.language import Condition, Part
from labbridge.model import Patient, Role, Specimen

TIMERS = ("answer", "reply", "receive", "busy", "contention", "interrupt")  # seconds; LIS01-A2, and our own answer
_ROLES: tuple[Role, ...] = ("qc", "calibration", "test", "unknown")  # in the order in which they are asked

Section = Mapping[str, Any]  # its rules and conditions, and whatever is neither, by their words
Shape = Mapping[str, Section]  # where everything stands in the messages of one role


class Alarm(msgspec.Struct, frozen=True):
    """What an analyzer's alarm code means, and whether a result that carries it is held."""

    en: str = ""
    zh: str = ""
    hold: bool = True

    @property
    def words(self) -> dict[str, str]:
        """What it means, by language; nothing for a language that the profile does not speak."""
        return {language: text for language, text in (("en", self.en), ("zh", self.zh)) if text}


class Profile(msgspec.Struct, frozen=True, eq=False):
    """One analyzer model, compiled: every path parsed, every pattern compiled, every word checked."""

    name: str
    model: str
    vendor: str
    discipline: str
    sender: Condition  # what the header of this model's messages says; empty where that is not known
    protocol: Literal["hl7v2", "lis02"]
    evidence: Mapping[str, str | bool]
    framing: Literal["mllp", "lis01", "raw"]
    charsets: tuple[str, ...]  # to try, in this order, where the message names none that fits
    timezone: str  # of this model's clock, where every one of them has the same; else empty
    local_escapes: Literal["", "unicode"]  # what the sender's own escapes mean, \\Z..\\ in HL7
    ends_message: Literal["L", "eot"]  # what ends a message on a LIS01 link: its L record, or only EOT
    frame_size: int  # characters of text in a frame that is sent
    checksum: bool
    numbered: bool  # LIS01 frames are numbered in order
    timers: Mapping[str, float]  # seconds, beside the standard's; see TIMERS
    shapes: Mapping[Role, Shape]  # of "patient", which serves every role that has none of its own, and of "qc"
    roles: tuple[tuple[Role, Condition], ...]  # in the order in which they are asked
    statuses: Mapping[str, str]  # the analyzer's word -> HL7 table 0085
    flags: Mapping[str, str]  # the analyzer's word -> HL7 table 0078; what is not in it stays as it was sent
    values: Section  # patterns of what is no result and of what names an attachment, decimal and thousands signs
    time_formats: tuple[str, ...]  # of strptime, beside the standards' own
    null_times: tuple[str, ...]
    alarms: Mapping[str, Alarm]
    no_alarm: tuple[str, ...]  # codes that say "no alarm"
    query: Section  # how the analyzer asks for orders: ``types`` of HL7 message, rules, ``cancel``
    source: bytes  # normalised text, defaults included: what a revision's digest covers


class ProfileError(Exception):
    """A mistake in a profile: which file, which key, which line, what was expected."""

    def __init__(self, file: str, key: str, line: int, message: str) -> None:
        super().__init__(f"{file}:{line}: {key}: {message}" if key else f"{file}:{line}: {message}")
        self.file, self.key, self.line, self.message = file, key, line, message


def names(folders: Iterable[File]) -> list[str]:
    """The names of all profiles in these folders, sorted."""
    return sorted({found.parent.name for folder in folders for found in folder.glob("*/profile.toml")})


def load(name: str, folders: Sequence[File]) -> Profile:
    """Load a profile from the first folder that has it; raises ProfileError."""
    for folder in folders:
        file = folder / name / "profile.toml"
        if file.is_file():
            return parse(name, file.read_text("utf-8"), str(file))
    raise ProfileError(name, "", 0, f"there is no such profile{_meant(name, names(folders))}")


def parse(name: str, text: str, file: str = "profile.toml") -> Profile:
    """Compile the text of a profile; raises ProfileError."""
    try:
        document = tomllib.loads(text)
        told = _compiled(document, _WORDS)
        for key in ("model", "vendor", "protocol"):
            if key not in told.get("profile", {}):
                raise _Mistake(f"profile.{key}", "it is missing")
        _prove_reach(told)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ProfileError(file, "", int(line[1]) if line else text.count("\n") + 1, str(error)) from None
    except _Mistake as mistake:
        key, message = mistake.args
        raise ProfileError(file, key, _line(text, key), message) from None
    defaults = DEFAULTS["any"], DEFAULTS[told["profile"]["protocol"]]
    whole = _merged(*(_compiled(each, _WORDS) for each in defaults), told)
    if whole["value"]["decimal"] == whole["value"]["thousands"]:  # 1.234 would be 1234
        key = "value.thousands"
        raise ProfileError(file, key, _line(text, key), "it is the decimal sign too: another one is expected")
    plain = {section: whole.get(section, {}) for section in _SHAPE}
    alarms = {
        code: Alarm(words.get("en", ""), words.get("zh", ""), words.get("do") != "release")
        for code, words in whole["alarms"]["codes"].items()
    }
    return Profile(
        name=name,
        **whole["profile"],
        evidence=whole["evidence"],
        charsets=whole["link"].pop("charset"),
        **whole["link"],
        shapes={"patient": plain, "qc": _merged(plain, whole.get("qc", {}))},
        roles=tuple((role, whole["roles"][role]) for role in _ROLES if role in whole["roles"]),
        statuses=whole["status"],
        flags=whole["flags"],
        values=whole["value"],
        time_formats=whole["times"]["formats"],
        null_times=whole["times"]["null"],
        alarms=alarms,
        no_alarm=whole["alarms"]["none"],
        query=whole["query"],
        source=json.dumps(_merged(*defaults, document), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(),
    )


class _Mistake(Exception):
    """The key of something wrong, and what was expected."""


Compile = Callable[[Any], Any]  # what stands in the file -> what is meant by it; raises ValueError
Words = Mapping[str, "Compile | Words | _Tables"]


class _Tables(NamedTuple):
    """A list of tables, such as [[result.parts]]: the words of each, which of them it must have, and what it becomes."""

    words: Words
    needed: tuple[str, ...]
    make: Callable[..., Any]


def _compiled(given: Any, words: "Compile | Words | _Tables", key: str = "") -> Any:
    """What stands under a key, a table word by word, checked and compiled; raises _Mistake."""
    if isinstance(words, _Tables):
        if not isinstance(given, list):
            raise _Mistake(key, f"a list of tables is expected: [[{key}]]")
        rows = [(f"{key}[{number}]", row) for number, row in enumerate(given, 1)]
        found = [(inside, _compiled(row, words.words, inside)) for inside, row in rows]
        for inside, row in found:
            if missing := [word for word in words.needed if word not in row]:
                raise _Mistake(inside, f"its {missing[0]} is missing")
        return tuple(words.make(**row) for _, row in found)
    if callable(words):
        try:
            return words(given)
        except ValueError as error:
            raise _Mistake(key, str(error)) from None
    if not isinstance(given, dict):
        raise _Mistake(key, "a table is expected")
    table = {}
    for word, content in given.items():
        inside = f"{key}.{word}" if key else word
        meant = words.get(word) or words.get("*")
        if meant is None:
            raise _Mistake(inside, f"there is no such key{_meant(word, words)}")
        table[word] = _compiled(content, meant, inside)
    return table


def _prove_reach(told: Mapping[str, Any]) -> None:
    """Whatever a profile reads must be able to be in force where it is read; raises _Mistake."""
    protocol = told["profile"]["protocol"]
    header, note, record, levels = RECORDS[protocol]
    record = told.get("result", {}).get("record", record)
    for prefix, sections in (("", told), ("qc.", told.get("qc", {}))):
        own = sections.get("result", {}).get("record", record)
        read = {"profile.sender": sections.get("profile", {}).get("sender", ())} | {
            f"{section}.{word}": content
            for section in (*_SHAPE, "roles", "query")
            for word, content in sections.get(section, {}).items()
        }
        for key, content in read.items():
            section, _, word = key.partition(".")
            for segment in language.segments(content):
                if section == "query":
                    reached = not levels or segment in (header, "Q")
                elif key in ("profile.sender", "report.sent", "report.sender"):
                    reached = segment == header
                elif segment == note:
                    reached = word == "comments" or key == "result.alarms"
                elif segment == record:
                    reached = section == "control" or (section == "result" and own == record)
                else:
                    reached = not levels or segment in levels
                if not reached:
                    raise _Mistake(prefix + key, f"no {segment} is in force here: nothing would ever be found")


def _texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ValueError("a list of texts is expected")
    return tuple(given)


def _one_of(*allowed: object) -> Compile:
    def choice(given: Any) -> Any:
        if given not in allowed:
            meant = _meant(str(given), map(str, allowed))
            raise ValueError(f"one of {', '.join(map(repr, allowed))} is expected{meant}")
        return given

    return choice


def _above_zero(*kinds: type) -> Compile:
    def number(given: Any) -> Any:
        if type(given) not in kinds or given <= 0:
            raise ValueError("a number above 0 is expected")
        return given

    return number


def _known(look_up: Callable[[str], object], given: Any) -> str:
    try:
        look_up(language.text(given))
    except (LookupError, ValueError):
        raise ValueError(f"{given!r} is not known") from None
    return cast(str, given)


def _patterns(given: Any) -> tuple[re.Pattern[str], ...]:
    return tuple(map(language.pattern, _texts(given)))


def _rules(*words: str) -> dict[str, Compile]:
    return {word: language.texts if word in LISTS else language.rule for word in words}


LISTS = ("flags", "alarms", "comments", "agree", "specimens", "tests", "echo")  # all texts are taken, not only the first
RESULT = (
    *("code", "value", "unit", "flags", "status", "name", "reference", "measured"),
    *("alarms", "run", "dilution", "operator", "edited", "comments"),
)
_PART = {**_rules("code", "value", "unit"), "when": language.demand}
_SHAPE: Mapping[str, Words] = {  # the sections that a role may have of its own
    "specimen": {
        **_rules("agree", *(name for name in Specimen.__struct_fields__ if name != "collected_at")),
        "sources": {"*": language.text},
    },
    "patient": {
        **_rules(*Patient.__struct_fields__),
        "age_unit": _one_of("", "d", "w", "m", "y"),
        "sexes": {"*": _one_of("M", "F")},
    },
    "report": _rules("order", "sender", "sent", "comments"),
    "result": {
        **_rules(*RESULT),
        "record": language.text,
        **dict.fromkeys(("keep", "valid", "complete"), language.demand),
        "measured_once": _one_of(True, False),
        "parts": _Tables(_PART, ("code", "value"), Part),
    },
    "control": _rules("material", "lot", "level", "expiry", "target", "sd"),
}
_WORDS: Words = {
    **_SHAPE,
    "profile": {
        "model": language.text,
        "vendor": language.text,
        "discipline": language.text,
        "sender": language.condition,
        "protocol": _one_of("hl7v2", "lis02"),
    },
    "evidence": {"*": lambda free: free},
    "link": {
        "framing": _one_of("mllp", "lis01", "raw"),
        "charset": lambda given: tuple(_known(codecs.lookup, name) for name in _texts(given)),
        "timezone": lambda given: given and _known(ZoneInfo, given),
        "local_escapes": _one_of("", "unicode"),
        "ends_message": _one_of("L", "eot"),
        "frame_size": _above_zero(int),
        "checksum": _one_of(True, False),
        "numbered": _one_of(True, False),
        "timers": dict.fromkeys(TIMERS, _above_zero(int, float)),
    },
    "qc": _SHAPE,
    "roles": dict.fromkeys(_ROLES, language.condition),
    "status": {"*": language.text},
    "flags": {"*": language.text},
    "value": {
        "absent": _patterns,
        "attachment": _patterns,
        "decimal": _one_of(".", ","),
        "thousands": _one_of("", ",", ".", " ", "'"),
    },
    "times": {"formats": _texts, "null": _texts},
    "alarms": {"none": _texts, "codes": {"*": {"en": language.text, "zh": language.text, "do": _one_of("hold", "release")}}},
    "query": {**_rules("specimens", "tests", "echo", "cancel"), "types": _texts},
}


def _merged(*documents: Mapping[str, Section]) -> dict[str, dict[str, Any]]:
    """Sections merged key by key; the last word wins."""
    whole: dict[str, dict[str, Any]] = {}
    for document in documents:
        for section, content in document.items():
            whole[section] = {**whole.get(section, {}), **content}
    return whole


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _line(text: str, key: str) -> int:
    """The line where a dotted key stands, or the nearest thing above it that can be found."""
    section, best, depth = "", 1, 0
    rows: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        word = re.match(r"\s*\"?([^\"=\s#]+)\"?\s*=", line)
        if header:
            section = header[1]
            if line.lstrip().startswith("[["):
                rows[section] = rows.get(section, 0) + 1
                section = f"{section}[{rows[section]}]"
        found = section if header else f"{section}.{word[1]}" if word else ""
        inside = key == found or key.startswith((f"{found}.", f"{found}["))
        if found and len(found) > depth and (inside or (header and found.startswith(f"{key}["))):
            best, depth = number, len(found)
    return best
