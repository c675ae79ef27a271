"""How one analyzer model speaks: loads ``analyzers/<model>/profile.toml`` into a checked, immutable Profile.

A profile says only what differs from its protocol's defaults (``dialects``, in the same language). It is
data: *rules* say where a text stands in a message, *conditions* say when something holds; ``formats.reading`` turns
both into functions. The words of the language are the nouns of ``model``: ``[result] unit = "OBX-6.1"`` fills
``Result.unit``. An unknown word is an error that names the file, the key, the line, and what was probably meant.

A rule is a path, a template, a table, or a list of these, of which the first that finds a text wins::

    "R-3.5"                      component 5 of field 3 of the R record, numbered as in the standard (R-1 is the R)
    "{R-3.4}/{R-3.11}"           both, and the slash only between two texts that are there
    {from = "O-4.3", pattern = "QC-(.*)", strip = "0", when = {"O-12" = "Q"}}

A condition is a table of paths and the patterns that must fit them whole; in a list of tables any one suffices.
"""

import codecs
import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path as File
from typing import Any, Literal, NamedTuple, NoReturn, TypedDict, cast
from zoneinfo import ZoneInfo

import msgspec

from labbridge.dialects import ALWAYS_ABSENT, DEFAULTS, EVERYWHERE, OTHER, RULES, SHAPE
from labbridge.model import Role

TIMERS = ("answer", "reply", "receive", "busy", "contention", "interrupt")  # seconds; LIS01-A2, and our own answer

Protocol = Literal["hl7v2", "lis02"]
Framing = Literal["mllp", "lis01"]
Ending = Literal["L", "eot"]


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
    strip: str = ""
    pattern: re.Pattern[str] | None = None
    when: Condition = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        """The places that it reads."""
        return tuple(part for part in self.parts if isinstance(part, Path))


Rule = tuple[Alternative, ...]


class Alarm(msgspec.Struct, frozen=True):
    """What an analyzer's alarm code means, and whether a result that carries it is held."""

    en: str = ""
    zh: str = ""
    hold: bool = True


class Shape(msgspec.Struct, frozen=True, eq=False):
    """Where everything stands in the messages of one role: rules by the names of the fields of ``model``."""

    record: str  # the segment or record that is one result
    specimen: Mapping[str, Rule]
    sources: Mapping[str, str]  # the analyzer's word -> Specimen.source; "*" is any other word
    patient: Mapping[str, Rule]
    report: Mapping[str, Rule]
    result: Mapping[str, Rule]
    edited: Condition
    control: Mapping[str, Rule]


class Values(msgspec.Struct, frozen=True, eq=False):
    """What is a number, what is no result at all, and what is only a file's name."""

    absent: tuple[re.Pattern[str], ...]
    attachment: tuple[re.Pattern[str], ...]
    decimal: str
    thousands: str


class QueryRules(msgspec.Struct, frozen=True, eq=False):
    """How the analyzer asks for orders: HL7 message types, and rules by the names of ``model.Query``."""

    types: frozenset[str]
    rules: Mapping[str, Rule]
    cancel: Condition


class Profile(msgspec.Struct, frozen=True, eq=False):
    """One analyzer model, compiled: every path parsed, every pattern compiled, every word checked."""

    name: str
    model: str
    vendor: str
    discipline: str
    protocol: Protocol
    evidence: Mapping[str, str | bool]
    framing: Framing
    charsets: tuple[str, ...]  # to try, in this order, where the message names none that fits
    timezone: str  # of this model's clock, where every one of them has the same; else empty
    ends_message: Ending  # what ends a message on a LIS01 link: its L record, or only EOT
    frame_size: int  # characters of text in a frame that is sent
    checksum: bool
    timers: Mapping[str, float]  # seconds, beside the standard's; see TIMERS
    shapes: Mapping[Role, Shape]  # "patient" is there always and serves every role that has none of its own
    roles: tuple[tuple[Role, Condition], ...]  # in the order in which they are asked
    statuses: Mapping[str, str]  # the analyzer's word -> HL7 table 0085
    values: Values
    time_formats: tuple[str, ...]  # of strptime, beside the standards' own
    null_times: frozenset[str]
    alarms: Mapping[str, Alarm]
    no_alarm: frozenset[str]  # codes that say "no alarm"
    query: QueryRules
    widths: Mapping[str, int]  # the segments that any rule reads, and how many fields of each
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
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ProfileError(file, "", int(line[1]) if line else text.count("\n") + 1, str(error)) from None
    return _Compiler(file, text).profile(name, document)


_PATH = re.compile(r"([A-Z][A-Z0-9]{0,2})-(\d{1,2})(?:\.(\d{1,2})(?:\.(\d{1,2}))?)?")


class _Link(TypedDict):
    framing: Framing
    charsets: tuple[str, ...]
    timezone: str
    ends_message: Ending
    frame_size: int
    checksum: bool
    timers: Mapping[str, float]


class _Compiler:
    """Checks one document and builds its Profile; knows where to point when something is wrong."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self.text = text
        self.paths: list[Path] = []

    def profile(self, name: str, document: Mapping[str, Any]) -> Profile:
        self._check_words(document)
        protocol = self._choice("profile.protocol", document.get("profile", {}).get("protocol"), tuple(DEFAULTS))
        whole = _merged(EVERYWHERE, DEFAULTS[protocol], document)
        about, value, times, alarms, query = (whole[key] for key in ("profile", "value", "times", "alarms", "query"))
        for key in ("model", "vendor"):
            self._text(f"profile.{key}", about.get(key))
        plain = {key: whole.get(key, {}) for key in SHAPE}
        shapes: dict[Role, Shape] = {"patient": self._shape("", plain)}
        if "qc" in whole:
            shapes["qc"] = self._shape("qc.", _merged(plain, whole["qc"]))
        roles = tuple(
            (cast(Role, role), self._condition(f"roles.{role}", whole["roles"][role]))
            for role in OTHER["roles"]
            if role in whole["roles"]
        )
        return Profile(
            name=name,
            model=about["model"],
            vendor=about["vendor"],
            discipline=self._text("profile.discipline", about["discipline"]),
            protocol=cast(Protocol, protocol),
            evidence=dict(document.get("evidence", {})),
            **self._link(whole["link"]),
            shapes=shapes,
            roles=roles,
            statuses=self._words("status", whole["status"]),
            values=Values(
                absent=self._patterns("value.absent", [*ALWAYS_ABSENT, *self._list("value.absent", value["absent"])]),
                attachment=self._patterns("value.attachment", value["attachment"]),
                decimal=self._choice("value.decimal", value["decimal"], (".", ",")),
                thousands=self._choice("value.thousands", value["thousands"], ("", ",", ".", " ", "'")),
            ),
            time_formats=self._list("times.formats", times["formats"]),
            null_times=frozenset(self._list("times.null", times["null"])),
            alarms=self._alarms(alarms["codes"]),
            no_alarm=frozenset(self._list("alarms.none", alarms["none"])),
            query=QueryRules(
                frozenset(self._list("query.types", query.get("types", []))),
                self._rules("query", "query", query),
                self._condition("query.cancel", query.get("cancel", [])),
            ),
            widths=self._widths(),
            source=json.dumps(whole, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(),
        )

    def _check_words(self, document: Mapping[str, Any], inside: str = "") -> None:
        allowed = SHAPE if inside else tuple(OTHER)
        for section, content in document.items():
            if section not in allowed:
                self._fail(inside + section, f"there is no such section{_meant(section, allowed)}")
            if section == "qc":
                self._check_words(self._table("qc", content), "qc.")
                continue
            known = (*RULES.get(section, ()), *OTHER[section])
            for key in self._table(inside + section, content):
                if known and key not in known:
                    self._fail(f"{inside}{section}.{key}", f"there is no such key{_meant(key, known)}")

    def _shape(self, inside: str, sections: Mapping[str, Any]) -> Shape:
        rules = {name: self._rules(inside + name, name, sections[name]) for name in SHAPE}
        result = sections["result"]
        return Shape(
            record=self._text(f"{inside}result.record", result.get("record")),
            sources=self._words(f"{inside}specimen.sources", sections["specimen"].get("sources", {})),
            edited=self._condition(f"{inside}result.edited", result.get("edited", [])),
            **rules,
        )

    def _link(self, link: Mapping[str, Any]) -> _Link:
        if not isinstance(link["frame_size"], int) or link["frame_size"] < 1:
            self._fail("link.frame_size", "a number of characters is expected")
        if not isinstance(link["checksum"], bool):
            self._fail("link.checksum", "true or false is expected")
        return {
            "framing": cast(Framing, self._choice("link.framing", link["framing"], ("mllp", "lis01"))),
            "charsets": self._known("link.charset", self._list("link.charset", link["charset"]), codecs.lookup),
            "timezone": self._known("link.timezone", (self._text("link.timezone", link["timezone"]),), _zone)[0],
            "ends_message": cast(Ending, self._choice("link.ends_message", link["ends_message"], ("L", "eot"))),
            "frame_size": link["frame_size"],
            "checksum": link["checksum"],
            "timers": self._timers(link["timers"]),
        }

    def _timers(self, timers: Mapping[str, Any]) -> dict[str, float]:
        for key, seconds in self._table("link.timers", timers).items():
            if key not in TIMERS:
                self._fail(f"link.timers.{key}", f"there is no such timer{_meant(key, TIMERS)}")
            if not isinstance(seconds, int | float) or seconds <= 0:
                self._fail(f"link.timers.{key}", "seconds are expected")
        return {key: float(seconds) for key, seconds in timers.items()}

    def _alarms(self, codes: Mapping[str, Any]) -> dict[str, Alarm]:
        alarms = {}
        for code, given in self._table("alarms.codes", codes).items():
            key = f"alarms.codes.{code}"
            words = self._words(key, given)
            if set(words) - {"en", "zh", "do"}:
                self._fail(key, 'a table is expected: {en = "…", zh = "…", do = "hold"}')
            do = self._choice(key, words.get("do", "hold"), ("hold", "release"))
            alarms[code] = Alarm(words.get("en", ""), words.get("zh", ""), do == "hold")
        return alarms

    def _rules(self, where: str, section: str, content: Mapping[str, Any]) -> dict[str, Rule]:
        return {key: self._rule(f"{where}.{key}", content[key]) for key in RULES[section] if key in content}

    def _rule(self, key: str, rule: Any) -> Rule:
        alternatives = rule if isinstance(rule, list) else [rule]
        return tuple(self._alternative(key, each) for each in alternatives if each != "")

    def _alternative(self, key: str, given: Any) -> Alternative:
        if isinstance(given, str):
            return Alternative(self._template(key, given))
        if not isinstance(given, dict) or set(given) - {"from", "strip", "pattern", "when"} or "from" not in given:
            self._fail(key, 'a path such as "OBX-3.1" is expected, or {from = …, pattern = …, strip = …, when = …}')
        pattern = given.get("pattern")
        return Alternative(
            self._template(key, self._text(key, given["from"])),
            self._text(key, given.get("strip", "")),
            None if pattern is None else self._patterns(key, [pattern])[0],
            self._condition(key, given.get("when", [])),
        )

    def _template(self, key: str, text: str) -> tuple[Path | str, ...]:
        if "{" not in text:
            return (self._path(key, text),)
        pieces = re.split(r"\{([^{}]*)\}", text)
        if pieces[0] or pieces[-1] or any(not piece for piece in pieces[2:-1:2]):
            self._fail(key, f'a template is "{{path}}", text, "{{path}}" …: {text!r}')
        return tuple(self._path(key, piece) if odd % 2 else piece for odd, piece in enumerate(pieces) if piece)

    def _path(self, key: str, text: str) -> Path:
        match = _PATH.fullmatch(text)
        if match is None or match[2] in ("0", "00"):
            self._fail(key, f'a path such as "OBX-3.1" is expected, not {text!r}')
        path = Path(match[1], int(match[2]), int(match[3] or 0), int(match[4] or 0))
        self.paths.append(path)
        return path

    def _condition(self, key: str, given: Any) -> Condition:
        tables = given if isinstance(given, list) else [given]
        if not all(isinstance(table, dict) and table for table in tables):
            self._fail(key, 'a condition is expected: {"O-12" = "Q"}')
        return tuple(
            tuple(Test(self._path(key, path), self._patterns(key, [pattern])[0]) for path, pattern in table.items())
            for table in tables
        )

    def _patterns(self, key: str, given: Any) -> tuple[re.Pattern[str], ...]:
        try:
            return tuple(re.compile(pattern) for pattern in self._list(key, given))
        except re.error as error:
            self._fail(key, f"not a regular expression: {error}")

    def _widths(self) -> dict[str, int]:
        widths = {"MSH": 13, "H": 15, "OBX": 6}  # what the readers themselves look at
        for path in self.paths:
            widths[path.segment] = max(widths.get(path.segment, 0), path.field + 1)
        return widths

    def _known(self, key: str, given: tuple[str, ...], look_up: Callable[[str], object]) -> tuple[str, ...]:
        for name in given:
            try:
                look_up(name)
            except (LookupError, ValueError):
                self._fail(key, f"{name!r} is not known")
        return given

    def _words(self, key: str, given: Any) -> dict[str, str]:
        if not isinstance(given, dict) or not all(isinstance(word, str) for word in given.values()):
            self._fail(key, "a table of words is expected")
        return given

    def _table(self, key: str, given: Any) -> Mapping[str, Any]:
        if not isinstance(given, dict):
            self._fail(key, "a table is expected")
        return given

    def _list(self, key: str, given: Any) -> tuple[str, ...]:
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            self._fail(key, "a list of texts is expected")
        return tuple(given)

    def _text(self, key: str, given: Any) -> str:
        if not isinstance(given, str):
            self._fail(key, "a text is expected" if given is not None else "it is missing")
        return given

    def _choice(self, key: str, given: Any, allowed: tuple[str, ...]) -> str:
        if given not in allowed:
            self._fail(key, f"one of {', '.join(map(repr, allowed))} is expected{_meant(str(given), allowed)}")
        return cast(str, given)

    def _fail(self, key: str, message: str) -> NoReturn:
        raise ProfileError(self.file, key, _line(self.text, key), message)


def _merged(*documents: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections merged key by key; the last word wins."""
    whole: dict[str, dict[str, Any]] = {}
    for document in documents:
        for section, content in document.items():
            whole[section] = {**whole.get(section, {}), **content}
    return whole


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _zone(name: str) -> object:
    return name and ZoneInfo(name)


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
