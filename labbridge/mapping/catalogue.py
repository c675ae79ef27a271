"""The laboratory's catalogue: its tests, their limits, its panels, from ``tests.csv``, ``limits.csv``, ``panels.csv``.

The first folder that has a file wins, file by file, so that a laboratory keeps only what it changes. Columns of
tests.csv that are not known here hold hospitals' codes: a destination names its column.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, cast

import msgspec

from labbridge.mapping.limits import Interval, LimitKind, LimitRow, Limits, LimitTable, age_in_days, limit_row, overlapping
from labbridge.mapping.tables import MappingError, Row, Table, check, find, read_table
from labbridge.mapping.units import by_powers, is_valid, ucum

TestKind = Literal["number", "coded", "text"]

_NAMES = ("test", "name", "name_zh", "short", "loinc", "specimen", "unit", "print_unit")
_TESTS = (*_NAMES, "decimals", "kind", "release", "sort")
_LIMITS = ("test", "kind", "sex", "age_from", "age_to", "specimen", "low", "high", "text", "source", "approved_by")
_PANELS = ("panel", "name", "name_zh", "test", "sort")
_LOINC = re.compile(r"(\d{1,7})-(\d)", re.ASCII)


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
        self,
        tests: Mapping[str, Test],
        limits: Mapping[str, Sequence[LimitRow]],
        panels: Mapping[str, Panel],
        source: bytes = b"",
        notices: tuple[str, ...] = (),
    ) -> None:
        self.tests = dict(tests)
        self.panels = dict(panels)
        self.source = source
        self.notices = notices
        self._limits = {test: LimitTable(rows) for test, rows in limits.items()}
        self._panels_of = {test: tuple(name for name, panel in panels.items() if test in panel.tests) for test in self.tests}

    def limits(self, test: str, sex: str, age_days: int | None, specimen: str = "") -> Limits | None:
        """What limits a test has for a patient's sex (M, F, else unknown), age in days and specimen type."""
        found = self._limits.get(test)
        return found.at(sex, age_days, specimen) if found is not None else None

    def panels_of(self, test: str) -> tuple[str, ...]:
        """The codes of the panels that a test belongs to."""
        return self._panels_of.get(test, ())


def load_catalogue(folders: Sequence[Path]) -> Catalogue:
    """Loads tests.csv, limits.csv and panels.csv, each from the first folder that has it.

    Raises MappingError with every mistake. A missing limits.csv or panels.csv is but a notice.
    """
    where = ", ".join(map(str, folders))
    path = find("tests.csv", folders)
    if path is None:
        raise MappingError("tests.csv", 0, "", f"is in none of the mapping folders ({where}); copy the packaged one there")
    table = read_table(path, _TESTS, ("test", "name", "kind"), extra=True)
    tables, notices = [table], []
    tests = _tests(table)
    limits: dict[str, list[LimitRow]] = {}
    panels: dict[str, Panel] = {}
    for name, columns, required in (("limits.csv", _LIMITS, _LIMITS[:2]), ("panels.csv", _PANELS, ("panel", "test"))):
        path = find(name, folders)
        if path is None:
            notices.append(f"{name} is in none of the mapping folders ({where}): there are no {name[:-4]}")
            continue
        tables.append(read_table(path, columns, required))
        if name == "limits.csv":
            limits = _limits(tables[-1], tests)
        else:
            panels = _panels(tables[-1], tests)
    check(*tables)
    source = b"".join(Path(t.file).name.encode() + b"\n" + t.source for t in tables)
    return Catalogue(tests, limits, panels, source, (*(n for t in tables for n in t.notices), *notices))


def _tests(table: Table) -> dict[str, Test]:
    tests: dict[str, Test] = {}
    by_loinc: dict[str, Test] = {}
    hospitals = [column for column in table.columns if column not in _TESTS]
    for row in table.unique("test"):
        test = _test(table, row, hospitals)
        tests[test.code] = test
        if test.loinc:
            twin = by_loinc.setdefault(test.loinc, test)
            if twin.unit != test.unit and by_powers(twin.unit, test.unit) is None:
                table.wrong(
                    row.line,
                    "loinc",
                    f"{test.loinc} is also that of {twin.code}, in {twin.unit or 'no unit'}: a share and a count, a"
                    " mass and an amount of substance have their own codes; correct one of the two, or leave it empty",
                )
    return tests


def _test(table: Table, row: Row, hospitals: Sequence[str]) -> Test:
    kind = cast(TestKind, table.choice(row, "kind", ("number", "coded", "text"), "number"))
    loinc, unit, decimals = row["loinc"], row["unit"], row["decimals"]
    if loinc and (message := loinc_mistake(loinc)):
        table.wrong(row.line, "loinc", message)
    if unit != ucum(unit):
        table.wrong(row.line, "unit", f"{unit!r} is not UCUM; write {ucum(unit)} (print_unit may keep {unit!r})")
    elif not is_valid(unit):
        table.wrong(row.line, "unit", f"{unit!r} is not UCUM (case matters); see ucum.org")
    if kind == "number" and not (len(decimals) == 1 and decimals in "0123456789"):
        table.wrong(row.line, "decimals", "a number needs its decimals; write a digit from 0 to 9")
        decimals = "0"
    sort = table.number(row, "sort")
    return Test(
        row["test"],
        row["name"],
        row["name_zh"],
        row["short"] or row["test"],
        loinc,
        row["specimen"],
        unit,
        row["print_unit"] or unit,
        int(decimals) if kind == "number" else 0,
        kind,
        "manual" if table.choice(row, "release", ("auto", "manual"), "manual") == "manual" else "auto",
        int(sort or 0),
        {column: row[column] for column in hospitals if row[column]},
    )


def loinc_mistake(loinc: str) -> str:
    """What is wrong with a LOINC code's form or check digit (mod 10); empty when nothing is."""
    match = _LOINC.fullmatch(loinc)
    if match is None:
        return f"{loinc!r} is not a LOINC code; write it as 718-7, or leave it empty"
    total = 0
    for place, digit in enumerate(reversed(match[1])):
        doubled = int(digit) * (2 - place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    if int(match[2]) == -total % 10:
        return ""
    return f"the check digit of {loinc} is wrong (of {match[1]} it is {-total % 10}); look the code up, or leave it empty"


def _limits(table: Table, tests: Mapping[str, Test]) -> dict[str, list[LimitRow]]:
    found: dict[str, list[LimitRow]] = {}
    lines: dict[str, list[int]] = {}
    for row in table.rows:
        test = _known_test(table, row, tests)
        limit = _limit(table, row, test) if test is not None else None
        if test is not None and limit is not None:
            found.setdefault(test.code, []).append(limit)
            lines.setdefault(test.code, []).append(row.line)
    for code, rows in found.items():
        for earlier, later in overlapping(rows):
            message = f"some patients fall under this line and line {lines[code][earlier]}; part them by sex, age or specimen"
            table.wrong(lines[code][later], "test", message)
    return found


def _limit(table: Table, row: Row, test: Test) -> LimitRow | None:
    if not row["kind"]:
        table.wrong(row.line, "kind", "is empty; write reference, critical or absurd")
    kind = cast(LimitKind, table.choice(row, "kind", ("reference", "critical", "absurd"), "reference"))
    sex = table.choice(row, "sex", ("M", "F"), "")
    low, high, text = table.number(row, "low"), table.number(row, "high"), row["text"]
    young, old = (_age(table, row, column) for column in ("age_from", "age_to"))
    words: frozenset[str] = frozenset()
    if test.kind == "number":
        if low is None and high is None:
            table.wrong(row.line, "low", "a number's limits need low, high or both")
        elif low is not None and high is not None and low > high:
            table.wrong(row.line, "low", "is greater than high; exchange the two")
        text = text or _printed(row["low"], row["high"])
    else:
        words = frozenset(word for part in text.split("|") if (word := part.strip()))
        text = text.split("|")[0].strip()
        if not words or row["low"] or row["high"] or kind == "absurd":
            message = f"{test.code} has words, no numbers: write a reference's or a critical's in text, parted by |"
            table.wrong(row.line, "text", message)
    if young is not None and old is not None and young >= old:
        table.wrong(row.line, "age_to", "must be greater than age_from (it is the first age that no longer counts)")
    return limit_row(kind, sex, young, old, row["specimen"], Interval(low, high, words, text, row["source"]))


def _printed(low: str, high: str) -> str:
    """HL7 v2 OBX-7: both limits, ``<`` the upper one, or ``>`` the lower one."""
    return f"{low}-{high}" if low and high else f"<{high}" if high else f">{low}"


def _age(table: Table, row: Row, column: str) -> int | None:
    text = row[column]
    days = age_in_days(text) if text else None
    if text and days is None:
        table.wrong(row.line, column, f"{text!r} is not an age; write days, weeks, months or years as 28d, 6w, 3m, 18y")
    return days


def _known_test(table: Table, row: Row, tests: Mapping[str, Test]) -> Test | None:
    test = tests.get(row["test"])
    if test is None:
        table.wrong(row.line, "test", f"{row['test']!r} is not in tests.csv; correct it, or add it there")
    return test


def _panels(table: Table, tests: Mapping[str, Test]) -> dict[str, Panel]:
    """Each panel's first line names it."""
    members: dict[str, dict[str, int]] = {}
    names: dict[str, tuple[str, str]] = {}
    for row in table.rows:
        code, test = row["panel"], _known_test(table, row, tests)
        if not code:
            table.wrong(row.line, "panel", "is empty; give it a name or delete the line")
        if test is not None and test.code in members.get(code, ()):
            table.wrong(row.line, "test", f"{test.code} is already in panel {code}; delete one of the two lines")
        names.setdefault(code, (row["name"], row["name_zh"]))
        members.setdefault(code, {})[row["test"]] = int(table.number(row, "sort") or 0)
    return {code: Panel(code, *names[code], tuple(sorted(found, key=found.__getitem__))) for code, found in members.items()}
