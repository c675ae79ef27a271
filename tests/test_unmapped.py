"""What no map knows: counted per code and unit, with examples that tell of no patient, and the tests that may be meant."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbridge import mapping, pipeline
from labbridge.context import Context, Past
from labbridge.model import Patient, Report
from labbridge.unmapped import EXAMPLES, Seen, Suggester, seen, waiting

from .small_lab import ANALYZERS, NOW, analyzer, moment, report, result, revision

RULES = analyzer()
MAPS = {"a-1": RULES.codes}


def decided(said: Report, at: float = 0.0) -> Past:
    """The report as it is held, ``at`` seconds from now."""
    outcome = pipeline.decide(said, said.specimen.id, b"", b"", Context(), RULES, revision(RULES), moment())
    return Past("a-1", NOW + at, b"", b"", said, outcome.decision.results)


def new(value: str, **more: object) -> Report:
    return report(result("NEW", value, unit="g/L", name="New assay"), result("K", "4"), **more)  # type: ignore[arg-type]


def test_codes_are_counted_by_report_with_their_examples_and_the_newest_time() -> None:
    held = [
        decided(new("1", specimen="S1"), -60),
        decided(report(result("NEW", "2", unit="g/L"), result("NEW", "3", unit="g/L"), specimen="S2"), -30),
        decided(report(result("NEW", "<0.5", unit="mg/L", kind="comparator"), specimen="S3")),
        decided(report(result("GLU", "90", unit="mg/dL"), result("HIV", "ODD", kind="coded"), specimen="S4")),
    ]
    found = seen(held, MAPS)
    assert [(one.code, one.unit, one.why, one.reports, one.examples, one.mapped) for one in found] == [
        ("NEW", "g/L", "unmapped", 2, ("1", "2", "3"), False),
        ("GLU", "mg/dL", "unit-unknown", 1, ("90",), False),
        ("HIV", "", "unknown-word", 1, ("ODD",), False),
        ("NEW", "mg/L", "unmapped", 1, ("<0.5",), False),
    ]
    assert (found[0].name, found[0].last) == ("New assay", NOW - 30)


def test_what_is_mapped_or_released_is_not_unmapped() -> None:
    assert seen([decided(report(result("K", "4"), result("LOOK", "1")))], MAPS) == []


def test_a_code_that_has_its_line_by_now_says_so() -> None:
    held = [decided(new("1"))]
    assert [one.mapped for one in seen(held, MAPS)] == [False]
    assert [one.mapped for one in seen(held, {"a-1": analyzer(more_codes="NEW,g/L,K,ignore\n").codes})] == [True]
    assert [one.mapped for one in seen(held, {})] == [False]  # the analyzer is gone


PATIENT = Patient(id="4711", family="O'DOE", given="JANE MARY", birth="19800101", location="WARD 7")


@pytest.mark.parametrize("value", ["Jane", "see doe", "born 19800101", "id 4711", "S1 haemolysed", "ward 7", "x" * 60])
def test_promise_10_an_example_never_tells_of_the_patient(value: str) -> None:
    assert [one.examples for one in seen([decided(new(value, patient=PATIENT))], MAPS)] == [()]


def test_words_that_tell_of_nobody_are_examples_and_there_are_only_some() -> None:
    held = [decided(new(value, patient=PATIENT, specimen=f"S{value}")) for value in ["Positive", *map(str, range(9))]]
    [one] = seen(held, MAPS)
    assert one.examples == ("Positive", "0", "1", "2", "3")
    assert len(one.examples) == EXAMPLES


@pytest.fixture(scope="module")
def suggester() -> Suggester:
    return Suggester(mapping.load_catalogue([ANALYZERS.parent / "mappings"]))


@pytest.mark.parametrize(
    ("code", "name", "unit", "test", "by"),
    [
        ("GLU", "", "mmol/L", "GLU", "code"),
        ("2345", "Glucose", "mmol/L", "GLU", "name"),
        ("X-71", "白细胞计数", "10*9/L", "WBC", "name"),
        ("6690-2", "", "10*3/uL", "WBC", "loinc"),
        ("99", "Leucocytes", "10*9/L", "WBC", "similar"),
        ("NEUT%", "", "%", "NEUT%", "code"),
    ],
)
def test_the_test_that_is_meant_comes_first(suggester: Suggester, code: str, name: str, unit: str, test: str, by: str) -> None:
    first = suggester.suggest(code, name, unit)[0]
    assert (first.test, first.by) == (test, by)


def test_a_share_is_never_suggested_for_a_count_and_nonsense_gets_nothing(suggester: Suggester) -> None:
    assert "NEUT%" not in {one.test for one in suggester.suggest("NEUT", "Neutrophils", "10*9/L")}
    assert suggester.suggest("q9#zzkw", "", "furlong") == ()
    assert suggester.suggest("", "", "") == ()


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=20))
def test_no_code_is_too_odd(suggester: Suggester, code: str, name: str, unit: str) -> None:
    found = suggester.suggest(code, name, unit)
    assert len(found) <= 3
    assert all(0 < one.score <= 1 for one in found)


def test_what_is_kept_of_a_report_tells_the_same() -> None:
    past = decided(report(result("K", "4"), result("NEW", "1", unit="g/L"), result("GLU", "9", unit="mg/dL"), comments=("long",)))
    assert seen([waiting(past)], MAPS) == seen([past], MAPS)
    assert [one.code for one in waiting(past).report.results] == ["NEW", "GLU"]


def test_a_line_of_the_list_is_plain_data(tmp_path: Path) -> None:
    [one] = seen([decided(new("1"))], MAPS)
    assert one == Seen("a-1", "NEW", "g/L", "", "unmapped", "New assay", 1, NOW, ("1",), False)
