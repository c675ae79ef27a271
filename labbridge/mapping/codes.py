"""One analyzer model's codes: what each becomes in the laboratory, from ``<model>.csv`` and ``<model>.values.csv``.

A line is found by code and unit, never by position. A code without a line is unmapped; a code whose lines are for other
units is held; nothing is guessed. A number is converted exactly and rounded once, half up, to the test's decimals; a
``<`` or ``>`` value is rounded away from the number it excludes, so that what is said stays true.
"""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Literal

import msgspec

from labbridge.mapping.catalogue import Catalogue, Test
from labbridge.mapping.tables import NO_DRAFTS, Drafts, Row, Table, check, read_table
from labbridge.mapping.units import by_powers, conversion, is_pure_number, is_share_of_count, ucum
from labbridge.model import Reason, Result

Action = Literal["report", "ignore", "hold", "attach", "unmapped", "unreadable"]

CODES = ("code", "analyzer_unit", "specimen", "test", "action", "factor", "offset", "reads_as", "comment")
WORDS = ("code", "value", "means", "kind")
_ANY = "*"

_EXACT = Context(prec=50, traps=[InvalidOperation, Inexact])
_ROUND = Context(prec=50, traps=[InvalidOperation])
_ROUNDING = {"": ROUND_HALF_UP, "<": ROUND_CEILING, "<=": ROUND_CEILING, ">": ROUND_FLOOR, ">=": ROUND_FLOOR}
ZERO, ONE = Decimal(0), Decimal(1)
_RETRACTED = frozenset("ACDWX")  # HL7 table 0085: something sent before is changed or taken back
_SHORT = 64  # longer texts are not worth remembering
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """What one result becomes.

    ``report`` has test and value; ``attach`` belongs to the report as a file; ``ignore`` is known and not reported;
    ``hold``, ``unmapped`` and ``unreadable`` are for a person, and have reasons; ``hold`` may name the test that it is about.
    """

    action: Action
    test: Test | None = None
    value: str = ""  # as reported, the comparator in front
    unit: str = ""  # UCUM
    print_unit: str = ""
    kind: str = ""
    reasons: tuple[Reason, ...] = ()


Words = Mapping[str, Mapped]  # by case-folded value
_NONE: Words = {}


class Rule:
    """One line of a code map, compiled: what a result becomes by its value, or ``settled`` whatever its value."""

    def __init__(
        self, test: Test, factor: Decimal = ONE, offset: Decimal = ZERO, words: Words = _NONE, settled: Mapped | None = None
    ) -> None:
        self.test, self.words, self.settled = test, words, settled
        self._factor, self._offset = factor, offset
        self._converts = factor != 1 or offset != 0
        self._quantum = ONE.scaleb(-test.decimals)
        self._canonical = re.compile(r"(?:0|[1-9]\d{0,20})" + (rf"\.\d{{{test.decimals}}}" if test.decimals else ""), re.ASCII)
        self._numbers = lru_cache(maxsize=512)(self._reported_number)  # the same ones come again and again

    def number(self, text: str, comparator: str = "") -> str | None:
        """A number in the test's unit, rounded; None where it cannot be read or has more digits than any number."""
        if not self._converts and self._canonical.fullmatch(text):  # nearly always: it is written as it would be
            return text
        if _NUMBER.fullmatch(text) is None:
            return None
        try:
            value = Decimal(text)
            if self._converts:
                value = _EXACT.add(_EXACT.multiply(value, self._factor), self._offset)
            value = value.quantize(self._quantum, _ROUNDING[comparator], _ROUND)
        except ArithmeticError:
            return None
        return format(value or abs(value), "f")  # no negative zero

    def map(self, result: Result) -> Mapped:
        """What a result of this code and unit becomes."""
        test, kind = self.test, result.kind
        if self.settled is not None:
            return self.settled
        if self.words and (word := self.words.get(result.value.casefold())):
            return word
        if test.kind == "number" and kind in ("number", "comparator"):
            text = result.number or result.value
            work_out = self._numbers if self._converts and len(text) <= _SHORT else self._reported_number
            mapped = work_out(kind, text, result.comparator)
            if mapped is not None:
                return mapped
        if kind == "attachment":
            return Mapped("attach", test)
        if kind == "absent" or not result.value:
            return self._held("hold", "no-result", {"code": result.code, "word": result.value})
        if test.kind == "text":
            return _reported(test, result.value)
        if test.kind == "coded":
            return self._held("hold", "unknown-word", {"code": result.code})
        return self._held("unreadable", "not-a-number", {"code": result.code})

    def _reported_number(self, kind: str, text: str, comparator: str) -> Mapped | None:
        number, test = self.number(text, comparator), self.test
        return None if number is None else Mapped("report", test, comparator + number, test.unit, test.print_unit, kind)

    def _held(self, action: Action, reason: str, params: dict[str, str]) -> Mapped:
        return Mapped(action, self.test, "", self.test.unit, self.test.print_unit, "", (Reason(reason, params),))


def _reported(test: Test, word: str) -> Mapped:
    return Mapped("report", test, word, test.unit, test.print_unit, "text" if test.kind == "text" else "coded")


def _absent(result: Result) -> Mapped | None:
    """What an empty value becomes that nobody remarked on, whatever its code: the test was not run."""
    if result.alarms or result.comments or result.status in _RETRACTED or not {"", "N"}.issuperset(result.flags):
        return None
    return Mapped("ignore", reasons=(Reason("absent", {"code": result.code}),))


class CodeMap:
    """One analyzer model's codes; immutable. ``source`` is its normalised bytes, for the revision."""

    def __init__(self, rules: Mapping[tuple[str, str, str], Rule], tables: Sequence[Table] = ()) -> None:
        self.source = b"".join(table.source for table in tables)
        self.notices = tuple(notice for table in tables for notice in table.notices)
        self._rules = dict(rules)
        self._specimens: dict[str, set[str]] = {}  # by code; empty is any
        for (code, unit, specimen), rule in rules.items():
            self._specimens.setdefault(code, set()).add(specimen)
            self._rules.setdefault((code, ucum(unit), specimen), rule)  # another spelling of the unit finds the line too
        self._find = lru_cache(4096)(self._look_up)

    @property
    def tests(self) -> frozenset[str]:
        """The tests that it reports."""
        return frozenset(rule.test.code for rule in self._rules.values() if rule.settled is None)

    def knows(self, code: str) -> bool:
        """Tells whether any line is for this code, whatever the unit."""
        return code in self._specimens

    def map(self, result: Result, specimen_type: str = "") -> Mapped:
        """Maps one result by its code, unit and the type of its specimen, and converts and rounds its value."""
        find = self._find if len(result.code) + len(result.unit) + len(specimen_type) <= 2 * _SHORT else self._look_up
        rule = find(result.code, result.unit, specimen_type)
        mapped = rule.map(result) if rule is not None else self._without_rule(result, specimen_type)
        if not result.value and mapped.action not in ("ignore", "attach"):
            return _absent(result) or mapped
        return mapped

    def _look_up(self, code: str, unit: str, specimen_type: str) -> Rule | None:
        meant = ucum(unit) if len(unit) <= _SHORT else unit
        keys = ((code, known, kind) for known in (unit, meant, _ANY) for kind in (specimen_type.casefold(), ""))
        return next((self._rules[key] for key in keys if key in self._rules), None)

    def _without_rule(self, result: Result, specimen_type: str) -> Mapped:
        code, unit = result.code, result.unit
        if code not in self._specimens:
            return Mapped("unmapped", reasons=(Reason("unmapped", {"code": code, "unit": unit}),))
        if self._specimens[code].isdisjoint(("", specimen_type.casefold())):
            return Mapped("hold", reasons=(Reason("specimen-unknown", {"code": code, "specimen": specimen_type}),))
        return Mapped("hold", reasons=(Reason("unit-unknown", {"code": code, "unit": unit}),))


def load_code_map(name: str, folders: Sequence[Path], catalogue: Catalogue, drafts: Drafts = NO_DRAFTS) -> CodeMap:
    """Loads ``<name>.csv`` from the first folder that has it, and the ``<name>.values.csv`` that may be beside it.

    Raises MappingError with every mistake.
    """
    table = read_table(f"{name}.csv", folders, CODES, ("code",), drafts=drafts)
    tables, beside = [table], Path(table.file).with_suffix(".values.csv")
    if beside in drafts or beside.is_file():
        tables.append(read_table(f"{name}.values.csv", [Path(table.file).parent], WORDS, ("code", "value"), drafts=drafts))
    words = _words(tables[1:], {row["code"] for row in table.rows})
    rules: dict[tuple[str, str, str], Rule] = {}
    lines: dict[tuple[str, str, str], int] = {}
    for row in table.rows:
        key = (row["code"], row["analyzer_unit"], row["specimen"].casefold())
        if key in rules:
            row.wrong("code", f"the same code, unit and specimen as line {lines[key]}; delete one of the two")
        rules[key], lines[key] = _rule(row, catalogue, words), row.line
    check(*tables)
    return CodeMap(rules, tables)


def _rule(row: Row, catalogue: Catalogue, words: Mapping[str, Mapping[str, Row]]) -> Rule:
    """Compiles one line."""
    code, action = row["code"], row.choice("action", "report", "ignore", "hold", "attach")
    known = catalogue.tests.get(row["test"])
    test = known or Test("")
    if known is None and (row["test"] or action == "report"):
        row.wrong("test", f"{row['test']!r} is not in tests.csv; correct it, add it there, or set action to ignore or hold")
    converts = row["factor"] or row["offset"] or row["reads_as"]
    if action != "report":
        if converts:
            row.wrong("action", "converts nothing; delete factor, offset and reads_as, or set action to report")
        reasons = (Reason("held-by-map", {"code": code}),) if action == "hold" else ()
        return Rule(test, settled=Mapped(action, known, reasons=reasons))
    if test.kind != "number" and converts:
        row.wrong("test", f"{test.code} has words, no numbers; delete factor, offset and reads_as")
    factor = _factor(row, test) if known and test.kind == "number" else ONE
    mapped: dict[str, Mapped] = {}
    for scope in (_ANY, code):
        for folded, word in words.get(scope, {}).items():
            if word["kind"] == "skip":
                mapped[folded] = Mapped("ignore", test)
            elif test.kind != "number" or scope == code:  # a word for every code is no word for a number
                mapped[folded] = _reported(test, word["means"])
    return Rule(test, factor, row.number("offset") or ZERO, mapped)


def _factor(row: Row, test: Test) -> Decimal:
    """What a line's numbers are multiplied with; a conversion that nobody can know is a mistake (H08)."""
    given, named = row.number("factor"), row["reads_as"] or row["analyzer_unit"]
    unit, is_named = ucum(named), named not in ("", _ANY)
    if given is not None and given <= 0:
        row.wrong("factor", "must be greater than 0")
    elif not is_named and given is None and not is_pure_number(test.unit):
        row.wrong("reads_as", f"the unit is not told by the analyzer: say here which it is ({test.unit} if no other)")
    elif is_named and is_share_of_count(unit, test.unit):
        row.wrong("test", f"{named} and {test.unit} are a share and an amount, never one test: choose the test for {named}")
    elif is_named and given is None:
        given = conversion(unit, test.unit)
        if given is None:
            message = f"no factor from {named} to {test.unit} ({test.code}) holds for every test: write it here"
            row.wrong("factor", f"{message}, or name the real unit in reads_as")
    elif is_named and given is not None and (known := by_powers(unit, test.unit)) and not known / 2 < given < known * 2:
        row.wrong("factor", f"is {given}, but from {named} to {test.unit} it is {known:f}; correct or delete it")
    return given or ONE


def _words(values: Sequence[Table], codes: set[str]) -> dict[str, dict[str, Row]]:
    """The lines of a values file, if there is one, by code and folded value."""
    found: dict[str, dict[str, Row]] = {}
    for row in (row for table in values for row in table.rows):
        code, value, kind = row["code"], row["value"], row.choice("kind", "coded", "skip")
        if code != _ANY and code not in codes:
            row.wrong("code", f"{code!r} has no line in the code map; correct it, or write * for every code")
        if bool(row["means"]) == (kind == "skip"):
            row.wrong("means", "is what is reported: empty for skip, given for coded")
        twin = found.setdefault(code, {}).setdefault(value.casefold(), row)
        if twin is not row:
            row.wrong("value", f"{value!r} is already in line {twin.line} (case does not matter); delete one")
    return found
