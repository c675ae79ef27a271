"""Runs the tests that cite rows, and writes docs/conformance.md from the run: ``make conformance``."""

import csv
import inspect
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "conformance.md"
_CITATION = re.compile(r"conformance: ([A-Z]\d\d(?:, ?[A-Z]\d\d)*)")
_PARTS = {
    "A": "LIS01-A2, ASTM E1381: frames",
    "B": "LIS02-A2, ASTM E1394: records",
    "C": "MLLP, acknowledgements, batches",
    "D": "HL7 v2: encoding, character sets, numbers, times",
    "F": "HL7 v2: laboratory messages",
}
_HEAD = """\
# What the standards demand, and what proves it

Each row is a statement of a standard (or, where no standard speaks, of labbridge itself), and the tests that fail when it
breaks. `make conformance` runs these tests and writes this page from the run. Rows about orders and queries (B14, B15, B17,
B18, the download side of B10, F03 to F05, F08) come with orders; C21 and C22, the sequence protocol, are not required.
"""


def table(name: str) -> dict[str, str]:
    """A table of this folder: row to text."""
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return dict(list(csv.reader(file))[1:])  # type: ignore[arg-type]


def cited(test: Any) -> list[str]:
    """The rows that a test function cites."""
    return [row for found in _CITATION.findall(inspect.getsource(test)) for row in found.replace(" ", "").split(",")]


def page(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """The page: of each row the tests (file::name) and how they ended."""
    departures, lines, part = table("departures.csv"), [_HEAD], ""
    for row, statement in table("rows.csv").items():
        if row[0] != part:
            part = row[0]
            lines.append(f"## {part}. {_PARTS[part]}\n\n| row | statement | proven by | result |\n|---|---|---|---|")
        tests = outcomes.get(row, {})
        result = "explained" if not tests else "passed" if proven(tests) else "**failed**"
        proof = "<br>".join(f"`{test}`" for test in sorted(tests)) or departures.get(row, "**nothing**")
        lines.append(f"| {row} | {_cell(statement)} | {proof} | {result} |")
        if row == _last_of(part):
            lines.append("")
    return "\n".join(lines)


def proven(tests: Mapping[str, str]) -> bool:
    """Whether some test of a row passed and none failed; one that needs captures is skipped where there are none."""
    return "passed" in tests.values() and "failed" not in tests.values()


def _last_of(part: str) -> str:
    return max(row for row in table("rows.csv") if row[0] == part)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


class Conformance:
    """The plugin: picks the tests, takes down how they end, writes the page."""

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leaves the tests that cite rows, and gives each its rows to carry."""
        rows, chosen = table("rows.csv"), []
        for item in items:
            found = [row for row in cited(getattr(item, "function", type(item))) if row in rows]
            if found:
                item.user_properties.append(("conformance", " ".join(found)))
                chosen.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes down the worst end of each test."""
        test = re.sub(r"^tests/|\[.*", "", report.nodeid)
        for row in dict(report.user_properties).get("conformance", "").split():
            if not report.passed:
                self.outcomes[row][test] = report.outcome
            elif report.when == "call":
                self.outcomes[row].setdefault(test, "passed")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Writes the page; a row with no test and no departure, or a test that did not pass, fails the run."""
        if hasattr(session.config, "workerinput"):
            return
        PAGE.write_text(page(self.outcomes), "utf-8")
        rows, departures = table("rows.csv"), table("departures.csv")
        wrong = [row for row, tests in self.outcomes.items() if not proven(tests)]
        missing = [row for row in rows if row not in self.outcomes and row not in departures]
        right = len(set(self.outcomes) - set(wrong))
        print(f"\n{len(rows)} rows: {right} proven, {len(set(departures) - set(self.outcomes))} explained", end="")
        print(f", {_listed('not proven', missing)}{_listed('failed', wrong)}written to {PAGE.name}")
        if missing or wrong:
            session.exitstatus = 1


def _listed(what: str, rows: Iterable[str]) -> str:
    return f"{what}: {' '.join(sorted(rows))}, " if rows else ""


def pytest_configure(config: pytest.Config) -> None:
    """Registers the plugin, in every process of the run."""
    config.pluginmanager.register(Conformance(), "conformance-page")


if __name__ == "__main__":
    sys.exit(pytest.main(["-p", "tests.conformance.plugin", "-q", *sys.argv[1:]]))
