"""The story of a specimen: every fact is an event, in order and in words; nothing hostile breaks or overflows it."""

import hashlib
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import model
from labbridge.model import Decided, Patient, Reason, Report, Result, Specimen, Verdict
from labbridge.store.erasure import mark
from labbridge.store.rows import Attempt, Audit, Decision, Delivery, Earlier, Message, Trace
from labbridge.views.story import Event, Known, story

T0 = 1_780_000_000_000_000


def at(seconds: int) -> int:
    return T0 + seconds * 1_000_000


def decided(index: int, code: str, action: Any, test: str = "", *why: Reason, **more: Any) -> Decided:
    return Decided(index, code, Verdict(action, why), test, **more)


def decision(id: int, seconds: int, *results: Decided, actor: str = "rules", **more: Any) -> Decision:
    document = model.encode(model.Decision(results, actor, **more))
    return Decision(id, 1, at(seconds), actor, 1, document)


def report(*decisions: Decision, said: Report | None = None, state: str = "held") -> Earlier:
    said = said or Report(
        Specimen(id="70001"),
        (Result("WBC", "5.5", "number", unit="10*9/L"), Result("NEW", "1", unit="g")),
        patient=Patient(id="P1"),
    )
    documents = tuple(one.document for one in decisions)
    return Earlier(1, 1, at(0), "xn-1", "70001", "70001", "P1", "patient", b"", b"", state, model.encode(said), documents)


def traced(*decisions: Decision, said: Report | None = None, **more: Any) -> Trace:
    message = Message(1, at(0), "in", "xn-1", "xn-1/1", "stored", "7", hashlib.sha256(b"").digest(), 333, "[]", "")
    parts = {"deliveries": [], "attempts": [], **more}
    return Trace([message], [report(*decisions, said=said)], list(decisions), **parts)


RULES = decision(
    1,
    0,
    decided(0, "WBC", "release", "WBC", value="5.50", flag="N"),
    decided(1, "NEW", "hold", "", Reason("unmapped", {"code": "NEW"})),
)
SENT = Delivery(1, at(0), "his", "70001", 1, 1, "C1", 0, "delivered")


def told(trace: Trace, audits: Sequence[Audit] = ()) -> list[Event]:
    return story(Known(trace, tuple(audits)))


def words(events: list[Event]) -> list[str]:
    return [event.title for event in events]


def test_a_delivered_result_from_the_message_to_the_answer() -> None:
    reply = b"MSH|^~\\&|H||||1||ACK|9|P|2.5.1\rMSA|AA|C1\r"
    events = told(traced(RULES, deliveries=[SENT], attempts=[Attempt(1, 1, at(2), "accepted AA", reply)]))
    assert [event.what for event in events] == ["message", "reading", "mapping", "verdict", "delivery", "answer"]
    assert words(events) == [
        "Message 1 from xn-1",
        "Read as report 1: 2 results",
        "1 of 2 results mapped",
        "1 released · 1 held",
        "Delivery 1 for his: delivered",
        "his accepted delivery 1 (AA)",
    ]
    assert events[2].lines == ("Not mapped: NEW",)
    assert events[2].table[1] == ("WBC", "5.5 10*9/L", "WBC", "5.50")
    assert events[3].tone == "wait"
    assert "NEW" in events[3].lines[0]
    assert (events[4].opens, events[4].again, events[5].opens) == (("delivery", 1), 1, ("attempt", 1))


def test_the_hospitals_own_words_are_told() -> None:
    reply = b"MSH|^~\\&|H||||1||ACK|9|P|2.5.1\rMSA|AE|C1\rERR||PID^1|204|E||||Patient not admitted\r"
    events = told(traced(RULES, attempts=[Attempt(1, 1, at(2), "refused AE", reply)]))
    assert events[-1].lines == ("Patient not admitted · 204",)
    assert events[-1].tone == "bad"


def test_what_people_did_is_told_once_with_what_it_changed() -> None:
    released = decision(2, 60, decided(1, "NEW", "release", "GLU", value="1"), actor="tech", kind="release", comment="looked at it")
    called = decision(3, 90, actor="tech", kind="call-back", told="Dr. Li", told_at=T0 // 1_000_000, read_back=True, tests=("WBC",))
    gone = decision(4, 99, decided(0, "WBC", "release", "WBC", status="W"), actor="super", kind="confirm-id")
    audits = [
        Audit(1, at(60), "tech", "release", "report 1", "looked at it", "held", "released"),
        Audit(2, at(70), "it", "cancel", "delivery 1", "wrong ward", "queued", "cancelled"),
    ]
    events = told(traced(RULES, released, called, gone), audits)[4:]
    assert words(events) == [
        "tech released results",
        "it: cancel, delivery 1",
        "tech called a result back",
        "super confirmed another specimen id",
    ]
    assert events[0].lines[0] == "looked at it"
    assert events[1].lines == ("wrong ward", "queued → cancelled")
    assert events[2].lines[0] == "WBC"
    assert "Told Dr. Li" in events[2].lines[1]
    assert events[2].lines[1].endswith("read back")
    assert "1 withdrawn" in events[3].lines[0]


def test_who_looked_is_told_once_an_hour() -> None:
    looks = [Audit(n, at(n * 60), who, "viewed", "specimen 70001", "", "", "") for n, who in enumerate(("a", "a", "b", "a"), 1)]
    events = [event for event in told(traced(RULES), looks) if event.what == "audit"]
    assert words(events) == ["a looked at it", "b looked at it"]
    assert events[0].lines[0].startswith("3 times, last at ")


def test_what_was_superseded_or_deleted_is_still_there() -> None:
    again = decision(2, 5, decided(0, "WBC", "superseded", "WBC"), actor="tech", kind="retry")
    cancelled = Delivery(1, at(0), "his", "70001", 1, 1, "C1", 0, "superseded")
    events = told(traced(RULES, again, deliveries=[cancelled]))
    assert "Delivery 1 for his: superseded" in words(events)
    assert events[-1].lines[0] == "1 superseded"
    body = mark(7, bytes(32))
    row = Earlier(1, 1, at(0), "xn-1", "70001", "70001", "", "patient", b"", b"", "released", body, (body,))
    trace = Trace([], [row], [Decision(1, 1, at(1), "rules", 1, body)], [], [], {7: at(99)})
    assert [event.what for event in told(trace)] == ["reading", "verdict"]
    assert "deleted" in told(trace)[0].title


hostile = (
    st.text(st.characters(exclude_categories=()), max_size=30)
    | st.just("<script>alert(1)</script>")
    | st.just("\x1b[31m" + "x" * 5000)
)


@given(hostile, hostile, hostile, st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_whatever_it_says_each_text_is_one_short_printable_line(one: str, two: str, three: str, reply: bytes) -> None:
    one, two, three = (text.encode("utf-8", "replace").decode() for text in (one, two, three))
    result = Result(one, two, unit=three, name=two, alarms=(one, two), edited=True)
    said = Report(Specimen(id=one), (result,), comments=(three,), problems=(Reason(one or "x", {"a": two}),))
    rules = decision(1, 0, decided(0, one, "hold", "", Reason("unmapped", {"code": three}), value=two, print_unit=three))
    person = decision(2, 1, decided(0, one, "release", two), actor=one, kind="release", comment=three, told=two, tests=(one,))
    audits = [Audit(1, at(3), one, two, three, one, two, three)]
    attempts = [Attempt(1, 1, at(2), f"again {one}", reply)]
    events = told(traced(rules, person, said=said, attempts=attempts), audits)
    texts = [text for event in events for text in (event.title, *event.lines, *(cell for row in event.table for cell in row))]
    assert all(text.isprintable() and len(text) <= 4200 for text in texts)
