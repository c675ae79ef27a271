"""The paper has what stands released, once a test, and names what is not verified without its value."""

from labbridge import model
from labbridge.console.printing import paper
from labbridge.model import Patient, Report, Result, Specimen
from labbridge.store.rows import Decision, Earlier, Message, Trace
from tests.console.test_story import at, decided, decision
from tests.small_lab import tables

K = Result("K", "4.1", "number")
GLU = Result("GLU", "5.5", "number")


def row(id: int, *results: Result, patient: str = "P1", state: str = "released") -> Earlier:
    document = model.encode(Report(Specimen(id="S1", type="SER"), results, patient=Patient(id=patient)))
    return Earlier(id, id, at(id), "a-1", "S1", "S1", "P1", "patient", b"", b"", state, document)


def of(report: int, one: Decision) -> Decision:
    return Decision(one.id, report, one.at, one.actor, one.revision, one.document)


def traced(rows: list[Earlier], *decisions: Decision) -> Trace:
    messages: list[Message] = []
    return Trace(messages, rows, list(decisions), [], [])


def test_what_is_released_stands_with_who_released_it_and_what_is_held_has_no_value() -> None:
    rules = decision(1, 0, decided(0, "K", "hold", "K", value="6.6"), decided(1, "GLU", "release", "GLU", value="5.50", flag="H"))
    one = paper(traced([row(1, K, GLU)], rules), tables()[0])
    assert [(line.test, line.value, line.flag) for line in one.lines] == [("GLU Glucose", "5.50", "↑ H")]
    assert one.lines[0].released.startswith("automatic 自动 ")
    assert one.waiting == ("K Potassium",)
    assert "6.6" not in repr(one)
    by_hand = decision(2, 9, decided(0, "K", "release", "K", value="6.6"), actor="tech", kind="release")
    two = paper(traced([row(1, K, GLU)], rules, by_hand), tables()[0])
    assert (two.waiting, two.lines[0].value, two.lines[0].released[:5]) == ((), "6.6", "tech ")


def test_the_newest_of_a_test_stands_and_what_was_withdrawn_does_not() -> None:
    first = of(1, decision(1, 0, decided(0, "K", "release", "K", value="4.1"), decided(1, "GLU", "release", "GLU", value="5.5")))
    second = of(2, decision(2, 5, decided(0, "K", "release", "K", value="4.3", status="C")))
    gone = of(1, decision(3, 9, decided(1, "GLU", "release", "GLU", status="W"), actor="super", kind="confirm-id"))
    rejected = of(3, decision(4, 10, decided(0, "NA", "rejected", "NA", value="140"), actor="tech", kind="reject"))
    rows = [row(1, K, GLU), row(2, K), row(3, K, state="rejected"), row(4, K, state="kept")]
    found = paper(traced(rows, first, second, gone, rejected), tables()[0])
    assert [(line.test, line.value) for line in found.lines] == [("K Potassium", "4.3")]


def test_two_patients_are_both_told() -> None:
    found = paper(traced([row(1, K), row(2, K, patient="P2")]), tables()[0])
    assert [patient.id for patient in found.patients] == ["P1", "P2"]
