"""What analyzers send and no map knows: seen codes with examples, and the laboratory's tests that may be meant. Pure.

In come held reports with their verdicts; out comes a line for each code and unit of each analyzer. Examples are values
alone; a text that tells anything of its patient is none.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import msgspec
from msgspec.structs import replace

from labbridge.context import Past, identity_of
from labbridge.mapping import Catalogue, CodeMap, Test
from labbridge.mapping.units import by_powers, is_share_of_count, ucum
from labbridge.model import Decided, Report, Result

REASONS = ("unmapped", "unit-unknown", "specimen-unknown", "unknown-word")
KEYS = ("code", "analyzer_unit", "specimen")  # what tells two lines of a map apart
EXAMPLES, LONGEST = 5, 40  # of one code; characters of one
_COMPARED = 60  # characters of a code or a name
_ALIKE = 0.55
_FEW = 3
_NUMBERS = ("number", "comparator", "ratio")


class Seen(msgspec.Struct, frozen=True):
    """One code of one analyzer, in one unit, that cannot be mapped; ``why`` is the code of the reason."""

    analyzer: str
    code: str
    unit: str
    specimen: str  # its type, where the map has the code for other types alone
    why: str
    name: str  # as sent
    reports: int  # held for it
    last: float  # when the newest came, seconds since 1970
    examples: tuple[str, ...]
    mapped: bool  # the map in force knows it by now: what is held for it may be released


class Suggestion(msgspec.Struct, frozen=True):
    """A test that may be meant: how sure (0 to 1), and by what (``code``, ``loinc``, ``name``, ``similar``)."""

    test: str
    score: float
    by: str


def seen(held: Iterable[Past], maps: Mapping[str, CodeMap]) -> list[Seen]:
    """What is held for want of a line in a map, by how much is held for it; ``maps`` are those in force, by analyzer."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for past in held:
        counted: set[tuple[str, ...]] = set()
        for one in past.decided:
            why = _why(one)
            if why and one.index < len(past.report.results):
                result = past.report.results[one.index]
                specimen = past.report.specimen.type if why == "specimen-unknown" else ""
                key = (past.analyzer, result.code, result.unit, specimen, why)
                about = found.setdefault(key, {"reports": 0, "last": 0.0, "name": "", "examples": {}, "result": result})
                about["reports"] += key not in counted
                counted.add(key)
                _take(about, past, result)
    lines = [_line(key, about, maps.get(key[0])) for key, about in found.items()]
    return sorted(lines, key=lambda one: (one.mapped, -one.reports, one.analyzer, one.code, one.unit))


def waiting(past: Past) -> Past:
    """What of a report waits for a mapping, without the rest: little to keep in memory."""
    found = [one for one in past.decided if _why(one) and one.index < len(past.report.results)]
    results = tuple(past.report.results[one.index] for one in found)
    decided = tuple(replace(one, index=number) for number, one in enumerate(found))
    return replace(past, report=replace(past.report, results=results, comments=(), control={}), decided=decided)


def _why(one: Decided) -> str:
    if one.verdict.action != "hold":
        return ""
    return next((reason.code for reason in one.verdict.reasons if reason.code in REASONS), "")


def _take(about: dict[str, Any], past: Past, result: Result) -> None:
    if past.at >= about["last"]:
        about["last"] = past.at
        about["name"] = result.name or about["name"]
    if len(about["examples"]) < EXAMPLES and (example := _example(result, past.report)):
        about["examples"][example] = None


def _example(result: Result, report: Report) -> str:
    """A value as an example; empty where it may say who the patient is."""
    value = result.value
    if not value or len(value) > LONGEST or result.kind == "attachment":
        return ""
    if result.kind not in _NUMBERS:
        folded = value.casefold()
        told = (*identity_of(report.patient), report.specimen.id, report.patient.location)
        if any(len(part) > 1 and part.casefold() in folded for text in told for part in (text, *re.split(r"\W+", text))):
            return ""
    return value


def _line(key: tuple[str, ...], about: Mapping[str, Any], codes: CodeMap | None) -> Seen:
    analyzer, code, unit, specimen, why = key
    mapped = codes is not None and _why_now(codes, about["result"], specimen) not in REASONS
    told = about["name"], about["reports"], about["last"], tuple(about["examples"])
    return Seen(analyzer, code, unit, specimen, why, *told, mapped)


def _why_now(codes: CodeMap, result: Result, specimen: str) -> str:
    reasons = codes.map(result, specimen).reasons
    return reasons[0].code if reasons else ""


class Suggester:
    """Finds the tests of a catalogue that a code may mean; remembers what it found."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._tests = list(catalogue.tests.values())
        self.suggest = lru_cache(maxsize=2048)(self._suggest)

    def _suggest(self, code: str, name: str, unit: str) -> tuple[Suggestion, ...]:
        """The likeliest tests for a code, its name and its unit as sent; the best first, none where nothing is alike."""
        meant = ucum(unit[:_COMPARED])
        words = _folded(code), _folded(name)
        parts = {part for text in (code, name) for part in re.findall(r"\d+-\d", text[:_COMPARED])}
        found = []
        for test in self._tests:
            if is_share_of_count(meant, test.unit):
                continue
            score, by = _alike(test, words, parts)
            if score >= _ALIKE:
                found.append(Suggestion(test.code, round(min(1.0, score + _by_unit(meant, test)), 3), by))
        return tuple(sorted(found, key=lambda one: (-one.score, one.test))[:_FEW])


def _alike(test: Test, words: Sequence[str], loincs: set[str]) -> tuple[float, str]:
    if test.loinc in loincs:
        return 0.9, "loinc"
    codes = {_folded(text) for text in (test.code, test.short, *test.codes.values())} - {""}
    if words[0] in codes:
        return 0.9, "code"
    names = {_folded(text) for text in (test.name, test.name_zh)} - {""}
    if words[1] in names | codes or words[0] in names:
        return 0.85, "name"
    best = max((_ratio(word, text) for word in words if len(word) > 2 for text in codes | names), default=0.0)
    return best * 0.8, "similar"


def _ratio(one: str, other: str) -> float:
    within = 0.75 if min(len(one), len(other)) > 2 and (one in other or other in one) else 0.0
    match, least = SequenceMatcher(None, one, other, autojunk=False), _ALIKE / 0.8
    if match.real_quick_ratio() < least or match.quick_ratio() < least:
        return within
    return max(within, match.ratio())


def _by_unit(unit: str, test: Test) -> float:
    """What the unit says for or against a test."""
    if unit == test.unit:
        return 0.1
    if by_powers(unit, test.unit) is not None:
        return 0.05
    return -0.15 if unit and test.unit else 0.0


def _folded(text: str) -> str:
    """A text as it is compared: no case, no blanks, no marks but those that tell two tests apart."""
    return re.sub(r"[^\w#%+]|_", "", text[:_COMPARED].casefold())
