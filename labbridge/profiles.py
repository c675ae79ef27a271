"""How one analyzer model speaks: loads ``analyzers/<model>/profile.toml`` into a checked, immutable Profile.

A profile says only what differs from its protocol's defaults (``dialects``, in the same language). It is
data: *rules* say where a text stands in a message, *conditions* say when something holds; ``formats.reading`` turns
both into functions. The words of the language are the nouns of ``model``: ``[result] unit = "OBX-6.1"`` fills
``Result.unit``. An unknown word is an error that names the file, the key, the line, and what was probably meant.

A rule is a path, a template, a table, or a list of these, of which the first that finds a text wins::

    "R-3.5"                      component 5 of field 3 of the R record, numbered as in the standard (R-1 is the R)
    "{R-3.4}/{R-3.11}"           both, and the slash only between two texts that are there
    {from = "O-4.3", pattern = "QC-(.*)", when = {"O-12" = "Q"}}

A condition is a table of paths and the patterns that must fit them whole; in a list of tables any one suffices.
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

from labbridge.dialects import DEFAULTS
from labbridge.model import Patient, Role, Specimen

TIMERS = ("answer", "reply", "receive", "busy", "contention", "interrupt")  # seconds; LIS01-A2, and our own answer
_ROLES: tuple[Role, ...] = ("qc", "calibration", "test", "unknown")  # in the order in which they are asked


class Path(NamedTuple):
    """A place in a message: segment or record, field, component, subcomponent; 0 means the whole of the one above."""

    segment: str
    field: int
    component: int = 0
    sub: int = 0


class Test(NamedTuple):
    """One line of a condition: the text at this place fits this pattern whole."""

    path: Path
    pattern: re.Pattern[str]


Condition = tuple[tuple[Test, ...], ...]  # any of these, each all of those


class Alternative(NamedTuple):
    """One way to find a text: the parts of a template (a plain path is a template of one part), and what to keep."""

    parts: tuple[Path | str, ...]
    pattern: re.Pattern[str] | None = None
    when: Condition = ()

    @property
    def paths(self) -> list[Path]:
        """The places that it reads, those of its condition included."""
        tests = [test.path for table in self.when for test in table]
        return [part for part in self.parts if isinstance(part, Path)] + tests


Rule = tuple[Alternative, ...]


Section = Mapping[str, Any]  # its rules and conditions, and whatever is neither, by their words
Shape = Mapping[str, Section]  # where everything stands in the messages of one role


class Alarm(msgspec.Struct, frozen=True):
    """What an analyzer's alarm code means, and whether a result that carries it is held."""

    en: str = ""
    zh: str = ""
    hold: bool = True


class Profile(msgspec.Struct, frozen=True, eq=False):
    """One analyzer model, compiled: every path parsed, every pattern compiled, every word checked."""

    name: str
    model: str
    vendor: str
    discipline: str
    protocol: Literal["hl7v2", "lis02"]
    evidence: Mapping[str, str | bool]
    framing: Literal["mllp", "lis01"]
    charsets: tuple[str, ...]  # to try, in this order, where the message names none that fits
    timezone: str  # of this model's clock, where every one of them has the same; else empty
    ends_message: Literal["L", "eot"]  # what ends a message on a LIS01 link: its L record, or only EOT
    frame_size: int  # characters of text in a frame that is sent
    checksum: bool
    numbered: bool  # LIS01 frames are numbered in order
    timers: Mapping[str, float]  # seconds, beside the standard's; see TIMERS
    shapes: Mapping[Role, Shape]  # of "patient", which serves every role that has none of its own, and of "qc"
    roles: tuple[tuple[Role, Condition], ...]  # in the order in which they are asked
    statuses: Mapping[str, str]  # the analyzer's word -> HL7 table 0085
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
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ProfileError(file, "", int(line[1]) if line else text.count("\n") + 1, str(error)) from None
    except _Mistake as mistake:
        key, message = mistake.args
        raise ProfileError(file, key, _line(text, key), message) from None
    defaults = DEFAULTS["any"], DEFAULTS[told["profile"]["protocol"]]
    whole = _merged(*(_compiled(each, _WORDS) for each in defaults), told)
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
Words = Mapping[str, "Compile | Words"]


def _compiled(given: Any, words: "Compile | Words", key: str = "") -> Any:
    """What stands under a key, a table word by word, checked and compiled; raises _Mistake."""
    if callable(words):
        try:
            return words(given)
        except ValueError as error:
            raise _Mistake(key, str(error)) from None
    if not isinstance(given, dict):
        raise _Mistake(key, "a table is expected")
    found = {}
    for word, content in given.items():
        inside = f"{key}.{word}" if key else word
        meant = words.get(word) or words.get("*")
        if meant is None:
            raise _Mistake(inside, f"there is no such key{_meant(word, words)}")
        found[word] = _compiled(content, meant, inside)
    return found


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("a text is expected")
    return given


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
        look_up(_text(given))
    except (LookupError, ValueError):
        raise ValueError(f"{given!r} is not known") from None
    return cast(str, given)


def _pattern(given: Any) -> re.Pattern[str]:
    try:
        return re.compile(_text(given))
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None


def _patterns(given: Any) -> tuple[re.Pattern[str], ...]:
    return tuple(map(_pattern, _texts(given)))


_PATH = re.compile(r"([A-Z][A-Z0-9]{0,2})-([1-9][0-9]?)(?:\.(\d{1,2})(?:\.(\d{1,2}))?)?")


def _path(text: str) -> Path:
    match = _PATH.fullmatch(text)
    if match is None:
        raise ValueError(f'a path such as "OBX-3.1" is expected, not {text!r}')
    return Path(match[1], int(match[2]), int(match[3] or 0), int(match[4] or 0))


def _template(text: str) -> tuple[Path | str, ...]:
    if "{" not in text:
        return (_path(text),)
    pieces = re.split(r"\{([^{}]*)\}", text)
    if pieces[0] or pieces[-1] or not all(pieces[2:-1:2]):
        raise ValueError(f'a template is "{{path}}", text, "{{path}}" …: {text!r}')
    return tuple(_path(piece) if odd % 2 else piece for odd, piece in enumerate(pieces) if piece)


def _rule(given: Any) -> Rule:
    return tuple(_alternative(each) for each in (given if isinstance(given, list) else [given]) if each != "")


def _alternative(given: Any) -> Alternative:
    table = {"from": given} if isinstance(given, str) else given
    if not isinstance(table, dict) or not {"from"} <= set(table) <= {"from", "pattern", "when"}:
        raise ValueError('a path such as "OBX-3.1" is expected, or {from = …, pattern = …, when = …}')
    pattern = _pattern(table["pattern"]) if "pattern" in table else None
    return Alternative(_template(_text(table["from"])), pattern, _condition(table.get("when", [])))


def _condition(given: Any) -> Condition:
    tables = given if isinstance(given, list) else [given]
    if not all(isinstance(table, dict) and table for table in tables):
        raise ValueError('a condition is expected: {"O-12" = "Q"}')
    return tuple(tuple(Test(_path(path), _pattern(pattern)) for path, pattern in table.items()) for table in tables)


def _rules(*words: str) -> dict[str, Compile]:
    return dict.fromkeys(words, _rule)


_RESULT = (
    *("code", "value", "unit", "flags", "status", "name", "reference", "measured"),
    *("alarms", "run", "dilution", "operator", "edited", "comments"),
)
_SHAPE: Mapping[str, Words] = {  # the sections that a role may have of its own
    "specimen": {**_rules("agree", *Specimen.__struct_fields__), "sources": {"*": _text}},
    "patient": _rules(*Patient.__struct_fields__),
    "report": _rules("order", "sender", "sent", "comments"),
    "result": {**_rules(*_RESULT), "record": _text},
    "control": _rules("material", "lot", "level", "expiry", "target", "sd"),
}
_WORDS: Words = {
    **_SHAPE,
    "profile": {"model": _text, "vendor": _text, "discipline": _text, "protocol": _one_of("hl7v2", "lis02")},
    "evidence": {"*": lambda free: free},
    "link": {
        "framing": _one_of("mllp", "lis01"),
        "charset": lambda given: tuple(_known(codecs.lookup, name) for name in _texts(given)),
        "timezone": lambda given: given and _known(ZoneInfo, given),
        "ends_message": _one_of("L", "eot"),
        "frame_size": _above_zero(int),
        "checksum": _one_of(True, False),
        "numbered": _one_of(True, False),
        "timers": dict.fromkeys(TIMERS, _above_zero(int, float)),
    },
    "qc": _SHAPE,
    "roles": dict.fromkeys(_ROLES, _condition),
    "status": {"*": _text},
    "value": {
        "absent": _patterns,
        "attachment": _patterns,
        "decimal": _one_of(".", ","),
        "thousands": _one_of("", ",", ".", " ", "'"),
    },
    "times": {"formats": _texts, "null": _texts},
    "alarms": {"none": _texts, "codes": {"*": {"en": _text, "zh": _text, "do": _one_of("hold", "release")}}},
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
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        word = re.match(r"\s*\"?([^\"=\s#]+)\"?\s*=", line)
        if header:
            section = header[1]
        found = section if header else f"{section}.{word[1]}" if word else ""
        if found and (key == found or key.startswith(found + ".")) and len(found) > depth:
            best, depth = number, len(found)
    return best
