"""One analyzer model's codes: what each becomes in the laboratory, from ``<model>.csv`` and ``<model>.values.csv``.

A line is found by code and unit, never by position. A code without a line is unmapped; a code whose lines are for other
units is held; nothing is guessed. A number is converted exactly and rounded once, half up, to the test's decimals; a
``<`` or ``>`` value is rounded away from the number it excludes, so that what is said stays true.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation
from pathlib import Path
from typing import Literal, cast

import msgspec

from labbridge.mapping.catalogue import Catalogue, Test
from labbridge.mapping.tables import MappingError, Row, Table, check, find, read_table
from labbridge.mapping.units import by_powers, conversion, is_pure_number, is_share_of_count, ucum
from labbridge.model import Reason, Result

Action = Literal["report", "ignore", "hold", "attach", "unmapped", "unreadable"]

_COLUMNS = ("code", "analyzer_unit", "specimen", "test", "action", "factor", "offset", "reads_as", "comment")
_VALUES = ("code", "value", "means", "kind")
_WORD_KINDS = ("skip", "number", "comparator", "coded", "text")
_ANY = "*"

_EXACT = Context(prec=50, traps=[InvalidOperation, Inexact])
_ROUND = Context(prec=50, traps=[InvalidOperation])
_ROUNDING = {"": ROUND_HALF_UP, "<": ROUND_CEILING, "<=": ROUND_CEILING, ">": ROUND_FLOOR, ">=": ROUND_FLOOR}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,2})?", re.ASCII)
_COMPARED = re.compile(r"([<>]=?) ?(.+)")
_NOTHING_ODD = frozenset(("", "N"))


class Mapped(msgspec.Struct, frozen=True, gc=False):
    """What one result becomes.

    ``report`` has test and value; ``attach`` belongs to the report as a file; ``ignore`` is known and not reported;
    ``hold``, ``unmapped`` and ``unreadable`` are for a person, and have reasons.
    """

    action: Action
    test: Test | None = None
    value: str = ""  # as reported, the comparator in front
    unit: str = ""  # UCUM
    print_unit: str = ""
    kind: str = ""
    reasons: tuple[Reason, ...] = ()


class _Rule(msgspec.Struct, frozen=True):
    """One line of a code map, compiled."""

    settled: Mapped | None  # what every result becomes, where its value does not matter
    test: Test
    quantum: Decimal
    exact: Callable[[str], object]  # tells whether a number's text needs no rounding
    factor: Decimal
    offset: Decimal
    converts: bool
    words: dict[str, Mapped]  # by folded value
    plain: bool  # a number's value needs no look at the words

    def number(self, text: str, comparator: str = "") -> str | None:
        """A number in the test's unit, rounded; None where it cannot be read or has more digits than any number."""
        if _NUMBER.fullmatch(text) is None:
            return None
        try:
            value = Decimal(text)
            if self.converts:
                value = _EXACT.add(_EXACT.multiply(value, self.factor), self.offset)
            value = value.quantize(self.quantum, _ROUNDING[comparator], _ROUND)
        except ArithmeticError:
            return None
        return format(value or abs(value), "f")  # no negative zero

    def reported(self, value: str, kind: str) -> Mapped:
        return Mapped("report", self.test, value, self.test.unit, self.test.print_unit, kind)


class CodeMap:
    """One analyzer model's codes; immutable. ``source`` is its normalised bytes, for the revision."""

    def __init__(
        self, name: str, rules: Mapping[tuple[str, str, str], _Rule], source: bytes = b"", notices: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.source = source
        self.notices = notices
        self._specimens: dict[str, set[str]] = {}  # by code; empty is any
        for code, _, specimen in rules:
            self._specimens.setdefault(code, set()).add(specimen)
        self._by_specimen = {key: rule for key, rule in rules.items() if key[2]}
        self._rules = {(code, unit): rule for (code, unit, specimen), rule in rules.items() if not specimen}
        for (code, unit, specimen), rule in rules.items():  # other spellings of the same unit, after those in the file
            if specimen:
                self._by_specimen.setdefault((code, ucum(unit), specimen), rule)
            else:
                self._rules.setdefault((code, ucum(unit)), rule)

    def map(self, result: Result, specimen_type: str = "") -> Mapped:
        """Maps one result by its code, unit and the type of its specimen, and converts and rounds its value."""
        rule = None if self._by_specimen else self._rules.get((result.code, result.unit))
        if rule is None:
            rule = self._find(result.code, result.unit, specimen_type)
            if rule is None:
                return self._without_rule(result, specimen_type)
        if rule.settled is not None:
            return rule.settled
        if rule.plain and result.kind == "number":
            text = result.number or result.value
            if not rule.converts and rule.exact(text):
                test = rule.test
                return Mapped("report", test, text, test.unit, test.print_unit, "number")
            value = rule.number(text)
            if value is not None:
                return rule.reported(value, "number")
        return _mapped_word(rule, result)

    def _find(self, code: str, unit: str, specimen_type: str) -> _Rule | None:
        specimen = specimen_type.casefold()
        for known in (unit, ucum(unit), _ANY):
            rule = self._by_specimen.get((code, known, specimen)) if self._by_specimen else None
            rule = rule or self._rules.get((code, known))
            if rule is not None:
                return rule
        return None

    def _without_rule(self, result: Result, specimen_type: str) -> Mapped:
        code, unit = result.code, result.unit
        if code not in self._specimens:
            return Mapped("unmapped", reasons=(Reason("unmapped", {"code": code, "unit": unit}),))
        if self._specimens[code].isdisjoint(("", specimen_type.casefold())):
            return Mapped("hold", reasons=(Reason("specimen-unknown", {"code": code, "specimen": specimen_type}),))
        if not result.value and _NOTHING_ODD.issuperset(result.flags):
            return _absent(code)
        return Mapped("hold", reasons=(Reason("unit-unknown", {"code": code, "unit": unit}),))


def _mapped_word(rule: _Rule, result: Result) -> Mapped:
    """A result whose value is no plain number: a word, a comparator, a ratio, a file, or nothing."""
    value, kind, test = result.value, result.kind, rule.test
    word = rule.words.get(value.casefold())
    if word is not None and value:
        return word
    if kind == "attachment":
        return Mapped("attach", test)
    if kind == "absent" or not value:
        if not value and not result.alarms and _NOTHING_ODD.issuperset(result.flags):
            return _absent(result.code)
        return _held(test, "hold", "no-result", {"code": result.code, "word": value})
    if test.kind == "text":
        return rule.reported(value, "text")
    if test.kind == "coded":
        return _held(test, "hold", "unknown-word", {"code": result.code})
    if kind in ("number", "comparator"):
        number = rule.number(result.number or value.lstrip("<>= "), result.comparator)
        if number is not None:
            return rule.reported(result.comparator + number, kind)
    return _held(test, "unreadable", "not-a-number", {"code": result.code})


def _absent(code: str) -> Mapped:
    """An empty value that nobody remarked on: the test was not run."""
    return Mapped("ignore", reasons=(Reason("absent", {"code": code}),))


def _held(test: Test, action: Action, reason: str, params: dict[str, str]) -> Mapped:
    return Mapped(action, test, "", test.unit, test.print_unit, "", (Reason(reason, params),))


def load_code_map(name: str, folders: Sequence[Path], catalogue: Catalogue) -> CodeMap:
    """Loads ``<name>.csv`` from the first folder that has it, and the ``<name>.values.csv`` that may be beside it.

    Raises MappingError with every mistake.
    """
    path = find(f"{name}.csv", folders)
    if path is None:
        where = ", ".join(map(str, folders))
        raise MappingError(f"{name}.csv", 0, "", f"is in none of the mapping folders ({where}); correct the name, or add it")
    table = read_table(path, _COLUMNS, ("code", "test"))
    tables = [table]
    values = path.with_name(f"{name}.values.csv")
    words: dict[str, dict[str, Row]] = {}
    if values.is_file():
        tables.append(read_table(values, _VALUES, ("code", "value")))
        words = _words(tables[-1], {row["code"] for row in table.rows})
    rules: dict[tuple[str, str, str], _Rule] = {}
    lines: dict[tuple[str, str, str], int] = {}
    for row in table.rows:
        key = (row["code"], row["analyzer_unit"], row["specimen"].casefold())
        if key in lines:
            table.wrong(row.line, "code", f"the same code, unit and specimen as line {lines[key]}; delete one of the two")
        lines.setdefault(key, row.line)
        rule = _rule(table, row, catalogue, words, tables[-1])
        if rule is not None:
            rules.setdefault(key, rule)
    check(*tables)
    source = b"".join(Path(t.file).name.encode() + b"\n" + t.source for t in tables)
    return CodeMap(name, rules, source, tuple(notice for t in tables for notice in t.notices))


def _rule(table: Table, row: Row, catalogue: Catalogue, words: Mapping[str, Mapping[str, Row]], values: Table) -> _Rule | None:
    """Compiles one line; None after a mistake."""
    code, before = row["code"], len(table.errors)
    action = table.choice(row, "action", ("report", "ignore", "hold", "attach"), "report")
    test = catalogue.tests.get(row["test"])
    if not code:
        table.wrong(row.line, "code", "is empty; write the analyzer's code, or delete the line")
    if test is None and (row["test"] or action == "report"):
        remedy = "correct it, or add it there" if row["test"] else "name the test, or set action to ignore or hold"
        table.wrong(row.line, "test", f"{row['test']!r} is not in tests.csv; {remedy}")
    factor, offset = Decimal(1), table.number(row, "offset") or Decimal(0)
    if test is not None and action == "report":
        factor = _factor(table, row, test)
    elif row["factor"] or row["offset"] or row["reads_as"]:
        table.wrong(row.line, "action", "converts nothing; delete factor, offset and reads_as, or set action to report")
    if len(table.errors) > before:
        return None
    reasons = (Reason("held-by-map", {"code": code}),) if action == "hold" else ()
    settled = None if action == "report" else Mapped(cast(Action, action), test, reasons=reasons)
    test = test or Test("")
    digits = rf"\.\d{{{test.decimals}}}" if test.decimals else ""
    rule = _Rule(
        settled,
        test,
        Decimal(1).scaleb(-test.decimals),
        re.compile(rf"(?:0|[1-9]\d*){digits}", re.ASCII).fullmatch,
        factor,
        offset,
        factor != 1 or offset != 0,
        {},
        test.kind == "number" and not any(_NUMBER.fullmatch(word) for scope in (_ANY, code) for word in words.get(scope, ())),
    )
    if settled is None:
        for scope in (_ANY, code):
            for folded, line in words.get(scope, {}).items():
                if (word := _word(values, line, rule, scope)) is not None:
                    rule.words[folded] = word
    return rule


def _factor(table: Table, row: Row, test: Test) -> Decimal:
    """What a line's numbers are multiplied with; a conversion that nobody can know is a mistake (H08)."""
    given = table.number(row, "factor")
    if test.kind != "number":
        if row["factor"] or row["offset"] or row["reads_as"]:
            table.wrong(row.line, "test", f"{test.code} has words, no numbers; delete factor, offset and reads_as")
        return Decimal(1)
    if given is not None and given <= 0:
        table.wrong(row.line, "factor", "must be greater than 0")
        return Decimal(1)
    named = row["reads_as"] or row["analyzer_unit"]
    if named in ("", _ANY):
        if given is None and not is_pure_number(test.unit):
            table.wrong(
                row.line, "reads_as", f"the unit is not told by the analyzer: say here which it is ({test.unit} if no other)"
            )
        return given or Decimal(1)
    unit = ucum(named)
    if is_share_of_count(unit, test.unit):
        message = f"{named} and {test.unit} are a share and an amount, never one test: choose the test for {named}"
        table.wrong(row.line, "test", message)
        return Decimal(1)
    if given is None:
        given = conversion(unit, test.unit)
        if given is None:
            message = f"no factor from {named} to {test.unit} ({test.code}) holds for every test: write it here"
            table.wrong(row.line, "factor", f"{message}, or name the real unit in reads_as")
        return given or Decimal(1)
    known = by_powers(unit, test.unit)
    if known is not None and not known / 2 < given < known * 2:
        table.wrong(row.line, "factor", f"is {given}, but from {named} to {test.unit} it is {known:f}; correct or delete it")
    return given


def _words(table: Table, codes: set[str]) -> dict[str, dict[str, Row]]:
    """The lines of a values file by code and folded value."""
    found: dict[str, dict[str, Row]] = {}
    for row in table.rows:
        code, value, means = row["code"], row["value"], row["means"]
        kind = table.choice(row, "kind", _WORD_KINDS, "coded")
        if code != _ANY and code not in codes:
            table.wrong(row.line, "code", f"{code!r} has no line in the code map; correct it, or write * for every code")
        if not value:
            table.wrong(row.line, "value", "is empty; an empty value is never reported and needs no line")
        if bool(means) == (kind == "skip"):
            table.wrong(row.line, "means", "is what is reported: empty for skip, given for every other kind")
        number = _COMPARED.sub(r"\2", means) if kind == "comparator" else means
        if kind in ("number", "comparator") and not (_NUMBER.fullmatch(number) and (number != means) == (kind == "comparator")):
            table.wrong(row.line, "means", f"{means!r} is not a {kind}; write {'<20' if kind == 'comparator' else '20'}, say")
        twin = found.setdefault(code, {}).setdefault(value.casefold(), row)
        if twin is not row:
            table.wrong(row.line, "value", f"{value!r} is already in line {twin.line} (case does not matter); delete one")
    return found


def _word(values: Table, line: Row, rule: _Rule, scope: str) -> Mapped | None:
    """What a word of the values file becomes under one rule; None where it does not apply to that rule."""
    means, kind, test = line["means"], line["kind"] or "coded", rule.test
    if kind == "skip":
        return Mapped("ignore", test)
    if test.kind == "number" and kind in ("coded", "text") and scope == _ANY:
        return None  # a word for every code is no word for a number
    if kind in ("number", "comparator"):
        if test.kind != "number":
            if scope != _ANY:
                values.wrong(line.line, "kind", f"{test.code} has words, no numbers; write coded")
            return None
        compared = _COMPARED.fullmatch(means)
        comparator, number = (compared[1], compared[2]) if compared else ("", means)
        quantized = msgspec.structs.replace(rule, converts=False).number(number, comparator)
        return rule.reported(comparator + (quantized or number), kind)
    return rule.reported(means, kind)
