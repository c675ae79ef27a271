"""The laboratory's catalogue: its tests, their limits, its panels, from ``tests.csv``, ``limits.csv``, ``panels.csv``.

The first folder that has a file wins, file by file, so that a laboratory keeps only what it changes. Columns of
tests.csv that are not known here hold hospitals' codes: a destination names its column.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from labbridge.mapping.limits import EVER, LEAST, MOST, Interval, LimitRow, Limits, LimitTable, age_in_days
from labbridge.mapping.tables import NO_DRAFTS, Drafts, Row, Table, check, read_table
from labbridge.mapping.units import by_powers, is_valid, ucum

TestKind = Literal["number", "coded", "text"]

_NAMES = ("name", "name_zh", "short", "loinc", "specimen", "unit")
_TESTS = ("test", *_NAMES, "print_unit", "decimals", "kind", "release", "sort")
_LIMITS = ("test", "kind", "sex", "age_from", "age_to", "specimen", "low", "high", "text", "source", "approved_by")
_PANELS = ("panel", "name", "name_zh", "test", "sort")
COLUMNS = {"tests.csv": _TESTS, "limits.csv": _LIMITS, "panels.csv": _PANELS}


class Test(msgspec.Struct, frozen=True):
    """One test of the laboratory, as tests.csv describes it."""

    __test__: ClassVar[bool] = False  # pytest: no test case

    code: str
    name: str = ""
    name_zh: str = ""
    short: str = ""
    loinc: str = ""  # empty where none is known
    specimen: str = ""
    unit: str = ""  # UCUM
    print_unit: str = ""
    decimals: int = 0
    kind: TestKind = "number"
    release: Literal["auto", "manual"] = "auto"
    sort: int = 0
    codes: dict[str, str] = {}  # a hospital's code, by the name of its column


class Panel(msgspec.Struct, frozen=True):
    """Tests that belong together, in the order in which they are printed."""

    code: str
    name: str
    name_zh: str
    tests: tuple[str, ...]


class Catalogue:
    """Tests by code, panels by code, and the limits; immutable.

    ``source`` is the normalised bytes of all three files, for the revision; ``notices`` is what a person should be told
    of the files though they could be read.
    """

    def __init__(
        self, tests: dict[str, Test], limits: Mapping[str, list[LimitRow]], panels: dict[str, Panel], tables: Sequence[Table] = ()
    ) -> None:
        self.tests = tests
        self.panels = panels
        self.source = b"".join(table.source for table in tables)
        self.notices = tuple(notice for table in tables for notice in table.notices)
        self._limits = {test: LimitTable(rows) for test, rows in limits.items()}
        self._ages = sorted({0}.union(*(table.ages for table in self._limits.values())))
        self._specimens = frozenset[str]().union(*(table.specimens for table in self._limits.values()))
        # For a sex, age and specimen type: the limits of every test that was asked for.
        self._patients = lru_cache(maxsize=256)(lambda *patient: cache(lambda test: self.limits(test, *patient)))
        self._panels_of = {test: tuple(name for name, panel in panels.items() if test in panel.tests) for test in tests}

    def limits(self, test: str, sex: str, age_days: int | None, specimen: str = "") -> Limits | None:
        """What limits a test has for a patient's sex (M, F, else unknown), age in days and specimen type."""
        found = self._limits.get(test)
        return found.at(sex, age_days, specimen) if found is not None else None

    def limits_for(self, sex: str, age_days: int | None, specimen: str = "") -> Callable[[str], Limits | None]:
        """``limits`` of any test for one patient and specimen: looked up once, however many results there are."""
        if age_days is not None and age_days >= 0:  # the youngest of an age between two limits stands for all
            age_days = self._ages[bisect_right(self._ages, age_days) - 1]
        folded = specimen and specimen.casefold()
        return self._patients(sex, age_days, folded if folded in self._specimens else "")  # a sender may write anything

    def panels_of(self, test: str) -> tuple[str, ...]:
        """The codes of the panels that a test belongs to."""
        return self._panels_of.get(test, ())


def load_catalogue(folders: Sequence[Path], drafts: Drafts = NO_DRAFTS) -> Catalogue:
    """Loads tests.csv, limits.csv and panels.csv, each from the first folder that has it.

    Raises MappingError with every mistake. A missing limits.csv or panels.csv is but a notice.
    """
    table = read_table("tests.csv", folders, _TESTS, ("test", "name", "kind"), extra=True, drafts=drafts)
    tests = _tests(table)
    if not tests:
        check(table)
    others = [
        read_table("limits.csv", folders, _LIMITS, ("test", "kind"), optional=True, drafts=drafts),
        read_table("panels.csv", folders, _PANELS, ("panel", "test"), optional=True, drafts=drafts),
    ]
    limits, panels = _limits(others[0], tests), _panels(others[1], tests)
    check(table, *others)
    return Catalogue(tests, limits, panels, (table, *others))


def _tests(table: Table) -> dict[str, Test]:
    tests: dict[str, Test] = {}
    by_loinc: dict[str, Test] = {}
    hospitals = [column for column in table.columns if column not in _TESTS]
    for row in table.rows:
        test = _test(row, hospitals)
        if tests.setdefault(test.code, test) is not test:
            row.wrong("test", f"{test.code} is already in another line; delete one of the two")
        twin = by_loinc.setdefault(test.loinc, test)
        if test.loinc and twin.unit != test.unit and by_powers(twin.unit, test.unit) is None:
            message = f"{test.loinc} is also that of {twin.code}, in {twin.unit or 'no unit'}: a share and a count, a mass and"
            row.wrong("loinc", f"{message} an amount of substance have their own codes; correct one, or leave it empty")
    return tests


def _test(row: Row, hospitals: Sequence[str]) -> Test:
    kind, loinc, unit, decimals = row.choice("kind", "number", "coded", "text"), row["loinc"], row["unit"], row["decimals"]
    if loinc and (message := loinc_mistake(loinc)):
        row.wrong("loinc", message)
    if unit != ucum(unit):
        row.wrong("unit", f"{unit!r} is not UCUM; write {ucum(unit)} (print_unit may keep {unit!r})")
    elif not is_valid(unit):
        row.wrong("unit", f"{unit!r} is not UCUM (case matters); see ucum.org")
    if kind != "number" or not re.fullmatch("[0-9]", decimals):
        if kind == "number":
            row.wrong("decimals", "a number needs its decimals; write a digit from 0 to 9")
        decimals = "0"
    names: dict[str, Any] = {name: row[name] for name in _NAMES}
    return Test(
        row["test"],
        **names,
        print_unit=row["print_unit"] or unit,
        decimals=int(decimals),
        kind=kind,
        release=row.choice("release", "manual", "auto"),
        sort=int(row.number("sort") or 0),
        codes={column: row[column] for column in hospitals if row[column]},
    )


def loinc_mistake(loinc: str) -> str:
    """What is wrong with a LOINC code's form or check digit (mod 10); empty when nothing is."""
    match = re.fullmatch(r"(\d{1,7})-(\d)", loinc, re.ASCII)
    if match is None:
        return f"{loinc!r} is not a LOINC code; write it as 718-7, or leave it empty"
    digits = (int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(match[1])))
    right = -sum(sum(divmod(digit, 10)) for digit in digits) % 10
    if int(match[2]) == right:
        return ""
    return f"the check digit of {loinc} is wrong (of {match[1]} it is {right}); look the code up, or leave it empty"


def _limits(table: Table, tests: Mapping[str, Test]) -> dict[str, list[LimitRow]]:
    found: dict[str, list[LimitRow]] = {}
    for row in table.rows:
        if test := _known_test(row, tests):
            limit, others = _limit(row, test), found.setdefault(test.code, [])
            for other in filter(limit.overlaps, others):
                row.wrong("test", f"some patients fall under this line and line {other.line}; part them by sex, age or specimen")
            others.append(limit)
    return found


def _limit(row: Row, test: Test) -> LimitRow:
    kind, sex = row.choice("kind", "reference", "critical", "absurd"), row.choice("sex", "", "M", "F")
    low, high, text = row.number("low"), row.number("high"), row["text"]
    young, old = _age(row, "age_from", 0), _age(row, "age_to", EVER)
    words: frozenset[str] = frozenset()
    if test.kind == "number":
        if low is None and high is None:
            row.wrong("low", "a number's limits need low, high or both")
        elif low is not None and high is not None and low > high:
            row.wrong("low", "is greater than high; exchange the two")
        if not text:  # as HL7 v2 OBX-7 has it
            ends = row["low"], row["high"]
            text = "-".join(ends) if all(ends) else f"<{ends[1]}" if ends[1] else f">{ends[0]}"
    else:
        words = frozenset(filter(None, map(str.strip, text.split("|"))))
        text = text.split("|")[0].strip()
        if not words or row["low"] or row["high"] or kind == "absurd":
            row.wrong("text", f"{test.code} has words, no numbers: write a reference's or a critical's in text, parted by |")
    if young >= old:
        row.wrong("age_to", "must be greater than age_from (it is the first age that no longer counts)")
    interval = Interval(LEAST if low is None else low, MOST if high is None else high, words, text, row["source"])
    return LimitRow(kind, sex, young, old, row["specimen"].casefold(), interval, row.line)


def _age(row: Row, column: str, default: int) -> int:
    days = age_in_days(row[column]) if row[column] else default
    if days is None:
        row.wrong(column, f"{row[column]!r} is not an age; write days, weeks, months or years as 28d, 6w, 3m, 18y")
    return default if days is None else days


def _known_test(row: Row, tests: Mapping[str, Test]) -> Test | None:
    if row["test"] and row["test"] not in tests:
        row.wrong("test", f"{row['test']!r} is not in tests.csv; correct it, or add it there")
    return tests.get(row["test"])


def _panels(table: Table, tests: Mapping[str, Test]) -> dict[str, Panel]:
    """Each panel's first line names it."""
    members: dict[str, dict[str, Row]] = {}
    for row in table.rows:
        _known_test(row, tests)
        if members.setdefault(row["panel"], {}).setdefault(row["test"], row) is not row:
            row.wrong("test", f"{row['test']} is already in panel {row['panel']}; delete one of the two lines")
    panels = {}
    for code, found in members.items():
        first = next(iter(found.values()))
        order = {test: row.number("sort") or 0 for test, row in found.items()}
        panels[code] = Panel(code, first["name"], first["name_zh"], tuple(sorted(order, key=order.__getitem__)))
    return panels
