"""A specimen's results, test by test: runs, earlier values, changes, alarms; whatever was stored."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from labbridge import model
from labbridge.model import Decided, Decision, Patient, Reason, Report, Result, Specimen, Verdict
from labbridge.profiles import Alarm
from labbridge.store.rows import Earlier
from labbridge.views.sheet import Sheet, bars, number, sheet_of
from tests.small_lab import tables

DOE = Patient(id="P1", family="DOE", birth="19800101", sex="M")


def stored(
    *results: tuple[str, str, str],
    number: int = 1,
    specimen: str = "S1",
    patient: Patient = DOE,
    alarms: tuple[str, ...] = (),
    dilution: str = "",
    more: tuple[Decision, ...] = (),
) -> Earlier:
    report = Report(
        Specimen(specimen), tuple(Result(t.lower(), v, alarms=alarms, dilution=dilution) for t, v, _ in results), patient=patient
    )
    decided = tuple(
        Decided(index, test.lower(), Verdict(action, (Reason("critical"),) if action == "hold" else ()), test, value)
        for index, (test, value, action) in enumerate(results)
    )
    documents = tuple(map(model.encode, (Decision(decided), *more)))
    at = number * 10_000_000
    return Earlier(number, 1, at, "a-1", specimen, specimen, "P1", "patient", b"", b"", "held", model.encode(report), documents)


def sheet(*reports: Earlier, before: tuple[Earlier, ...] = ()) -> Sheet:
    return sheet_of("S1", reports, before, tables()[0], lambda _, code: {"ISE": Alarm("ISE alarm", "ISE 报警")}.get(code))


def test_runs_stand_side_by_side_the_held_one_first_then_the_newest() -> None:
    found = sheet(
        stored(("K", "7.1", "hold"), number=1, dilution="1:10"),
        stored(("K", "7.2", "release"), number=2),
        stored(("K", "7.3", "release"), number=3),
    )
    [line] = found.lines
    assert [(run.value, run.result.dilution) for run in line.runs] == [("7.1", "1:10"), ("7.3", ""), ("7.2", "")]
    assert line.now.critical
    assert found.held == (line,)


def test_alarms_are_decoded_and_unknown_ones_stay() -> None:
    [line] = sheet(stored(("K", "7.1", "hold"), alarms=("ISE", "ISE", "??"))).lines
    assert [(code, alarm and alarm.zh) for code, alarm in line.now.alarms] == [("ISE", "ISE 报警"), ("??", None)]


def test_earlier_values_are_the_same_patients_released_ones() -> None:
    before = (
        stored(("K", "4.0", "release"), number=1, specimen="OLD1"),
        stored(("K", "5.0", "release"), number=2, specimen="OLD2"),
        stored(("K", "9.0", "hold"), number=3, specimen="OLD3"),
        stored(("K", "8.0", "release"), number=4, specimen="OLD4", patient=Patient(id="P1", birth="20200101")),
        stored(("K", "6.0", "release"), number=5, specimen="S1"),
    )
    [line] = sheet(stored(("K", "6.0", "hold"), number=9), before=before).lines
    assert [(point.specimen, point.value) for point in line.earlier] == [("OLD1", "4.0"), ("OLD2", "5.0")]
    assert (line.change, line.trend) == ("+1.0 (+20 %)", "▁▄█")


def test_what_is_no_number_has_no_change_and_no_trend() -> None:
    before = (stored(("K", "<4.0", "release"), specimen="OLD1"),)
    [line] = sheet(stored(("K", "6.0", "hold"), number=9), before=before).lines
    assert (line.change, line.trend) == ("", "")


def test_a_value_that_a_person_entered_has_no_result_of_the_analyzer() -> None:
    entered = Decision((Decided(7, "NA", Verdict("release"), "NA", "140"),), "anna", kind="edit")
    found = sheet(stored(("K", "7.1", "hold"), more=(entered,)))
    assert [(line.test, line.now.value) for line in found.lines] == [("K", "7.1"), ("NA", "140")]
    assert [note.kind for note in found.notes] == ["edit"]


def test_two_patients_under_one_specimen_are_told() -> None:
    other = stored(("K", "5.0", "hold"), number=2, patient=Patient(id="P2"))
    assert sheet(stored(("K", "7.1", "hold")), other).several
    assert not sheet(stored(("K", "7.1", "hold")), stored(("K", "5.0", "hold"), number=2, patient=Patient())).several


def test_a_call_back_names_its_tests() -> None:
    told = Decision((), "anna", kind="call-back", told="Dr Wu", read_back=True, tests=("K",))
    found = sheet(stored(("K", "7.1", "hold"), ("NA", "110", "hold"), more=(told,)))
    assert {line.test: line.now.told for line in found.lines} == {"K": True, "NA": False}


@given(st.text(max_size=25))
def test_a_number_is_read_or_none(text: str) -> None:
    found = number(text)
    assert found is None or found.is_finite()


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9), max_size=9))
def test_bars_rise_as_the_values_do(values: list[Decimal]) -> None:
    drawn = bars(values)
    assert len(drawn) == (len(values) if len(values) > 1 else 0)
    for (one, low), (other, high) in zip(zip(values, drawn, strict=False), zip(values[1:], drawn[1:], strict=False), strict=False):
        assert (one > other) <= (low >= high)
