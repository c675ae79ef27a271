"""Every row that the standards demand has a test that cites it, or a word on why not; the page says the same."""

import ast
import os
import re
from pathlib import Path

import pytest

from tests.conformance.plugin import PAGE, table

TESTS = Path(__file__).parent
CITATION = re.compile(r"conformance: ([A-Z]\d\d(?:, ?[A-Z]\d\d)*)")


def citations() -> dict[str, set[str]]:
    """Row to the tests (file::name) that cite it."""
    found: dict[str, set[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        text = file.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
                source = "\n".join(text.splitlines()[first - 1 : node.end_lineno])
                for row in (row.strip() for rows in CITATION.findall(source) for row in rows.split(",")):
                    found.setdefault(row, set()).add(f"{file.relative_to(TESTS)}::{node.name}")
    return found


def test_every_row_is_proven_or_explained() -> None:
    proven, departures, rows = citations(), table("departures.csv"), table("rows.csv")
    assert [row for row in rows if row not in proven and row not in departures] == []
    assert departures.keys() <= rows.keys()
    assert [row for row in departures if row in proven] == []
    assert len(departures) <= 5


def test_the_page_is_of_the_tests_that_are_there() -> None:
    """`make conformance` writes it anew."""
    proven = citations()
    lines = [line.split(" | ") for line in PAGE.read_text("utf-8").splitlines() if re.match(r"\| [A-Z]\d\d \|", line)]
    assert [line[0].strip("| ") for line in lines] == list(table("rows.csv"))
    for line in lines:
        row, result = line[0].strip("| "), line[-1].strip("| ")
        assert set(re.findall(r"`([\w/]+\.py::\w+)`", line[-2])) == proven.get(row, set()), row
        assert result == ("passed" if row in proven else "explained"), row


@pytest.mark.skipif("LABBRIDGE_FIELD_NOTES" not in os.environ, reason="LABBRIDGE_FIELD_NOTES names no file")
def test_every_trap_is_a_test_by_its_name() -> None:
    notes = Path(os.environ["LABBRIDGE_FIELD_NOTES"]).read_text("utf-8").split("## 2.")[1].split("\n## ")[0]
    names = [name.strip() for row in re.findall(r"^\| ([a-z0-9_ /]+) \|", notes, re.MULTILINE) for name in row.split("/")]
    tests = {name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text("utf-8"))}
    later = {"result_before_order_registered"}  # with orders
    assert len(names) > 30
    assert [name for name in names if f"test_{name}" not in tests and name not in later and name != "test"] == []
