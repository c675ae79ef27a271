"""Whose results they are: what the hospital is told under the wrong id and under the right one, and who may say so."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from labbridge.commands.identity import still_moving, withdraw_late
from labbridge.formats import oru
from tests.commands.bench import CALLED, Bench
from tests.small_lab import ZONE, analyzer, result, revision

WRONG = "withdrawn, reported under a wrong specimen id: because"


def test_two_persons_move_what_was_delivered(bench: Bench) -> None:
    bench.comes(result("K", "4"), result("GLU", "5"), result("PNG", "x"))
    bench.delivers()
    said = bench.does("correct-id", "S1", to="S2").said
    assert not bench.waiting()
    assert "proposal 1: another person" in said[-1]
    assert "your own" in bench.refuses("confirm-id", proposal=1)
    assert "already" in bench.refuses("correct-id", "S1", to="S3")
    assert [one.actor for one in bench.reader.proposals()] == ["tech"]
    bench.does("confirm-id", actor="super", proposal=1, reason="")
    assert "no open proposal" in bench.refuses("confirm-id", actor="super", proposal=1)
    assert not bench.reader.proposals()
    assert bench.states() == ["rejected", "released"]
    old, new = bench.delivers()
    assert old == [("K", "", "W", WRONG), ("GLU", "", "W", WRONG)]
    assert new == [("K", "4.00", "F", ""), ("GLU", "5.00", "F", "")]
    assert set(bench.now) == {("S2", "K"), ("S2", "GLU")}
    assert bench.report(2).specimen.id == "S2"
    assert [row.message_id for row in bench.rows("report")] == [1, 1]
    assert bench.standing(1) == {"K": ("rejected", "4.00"), "GLU": ("rejected", "5.00"), "PNG": ("ignore", "")}
    told = [(row.actor, row.subject, row.old, row.new) for row in bench.rows("audit")]
    assert told[0] == ("tech", "report 1", "specimen S1", "proposal 1: specimen S2")
    assert ("super", "proposal 1", "open, by tech", "done") in told
    assert ("super", "report 2", "specimen S1, report 1", "specimen S2: released") in told
    assert "no report whose specimen" in bench.refuses("correct-id", reports=[1], to="S3")
    assert "cannot be corrected" in bench.refuses("correct-id", text='[{"report": 1, "to": "S3"}]')
    assert "cannot be sent again" in bench.refuses("send-again", deliveries=[1])


def test_what_waits_under_the_wrong_id_is_cancelled_and_not_withdrawn(bench: Bench) -> None:
    bench.comes(result("K", "4"))
    bench.comes(result("GLU", "5"), specimen="S9")
    bench.delivers("AE", lane="S9")
    bench.moves("S2", 1, 2)
    assert [row.state for row in bench.rows("delivery")] == ["cancelled", "cancelled", "queued", "queued"]
    assert bench.delivers() == [[("K", "4.00", "F", "")], [("GLU", "5.00", "F", "")]]
    assert set(bench.now) == {("S2", "K"), ("S2", "GLU")}


def test_a_shifted_batch_moves_at_once_in_a_circle(bench: Bench) -> None:
    for number, value in enumerate(("3.6", "4.2", "5.1"), 1):
        bench.comes(result("K", value), specimen=f"S{number}")
    bench.delivers()
    pairs = [{"report": 1, "to": "S2"}, {"report": 2, "to": "S3"}, {"report": 3, "to": "S1"}]
    proposal = bench.does("correct-id", text=json.dumps(pairs)).answer["proposal"]
    bench.does("confirm-id", actor="super", proposal=proposal)
    assert bench.states() == ["rejected"] * 3 + ["released"] * 3
    bench.delivers()
    assert {key: value for key, (value, _) in bench.now.items()} == {("S2", "K"): "3.60", ("S3", "K"): "4.20", ("S1", "K"): "5.10"}


def test_what_the_wrong_result_had_replaced_holds_again(bench: Bench) -> None:
    """The specimen's own K was corrected by another tube's: it is sent again, and not withdrawn."""
    bench.comes(result("K", "4", at=-900))
    bench.comes(result("K", "6", at=-600), result("NA", "140"))
    bench.delivers()
    bench.does("release", "S1")
    bench.delivers()
    bench.moves("S2", 2)
    told = bench.delivers()
    assert [("NA", "", "W", WRONG)] in told
    assert [("K", "4.00", "C", "")] in told
    assert [("K", "6.00", "F", ""), ("NA", "140", "F", "")] in told
    assert bench.states() == ["released", "rejected", "released"]


def test_what_was_sent_rightly_since_is_not_withdrawn(bench: Bench) -> None:
    bench.comes(result("K", "6", at=-900))
    bench.comes(result("K", "4", at=-600))
    bench.does("release", "S1")
    bench.delivers()
    bench.moves("S2", 1)
    assert bench.delivers() == [[("K", "6.00", "F", "")]]
    assert bench.now["S1", "K"][0] == "4.00"


def test_the_right_specimens_own_results_may_hold_what_comes(bench: Bench) -> None:
    """Also what a person had released: it is another specimen now."""
    bench.comes(result("K", "4"), result("ABO", "A"))
    bench.comes(result("K", "5", at=-300), specimen="S2")
    bench.does("release", "S1")
    bench.delivers()
    bench.moves("S2", 1)
    assert bench.standing(3) == {"K": ("hold", "4.00"), "ABO": ("release", "A")}
    assert [told[0][:3] for told in bench.delivers()] == [("K", "", "W"), ("ABO", "A", "F")]
    assert "superseded" in bench.does("release", "S2").said[0]  # measured before the other
    assert bench.now["S2", "K"][0] == "5.00"


def test_what_a_person_gave_goes_with_the_report(bench: Bench) -> None:
    bench.comes(result("K", "7.10"), result("GLU", "5"), result("NA", "140"), result("HGB", "150"))
    bench.does("release", "S1", **CALLED)
    bench.does("edit", "S1", tests=["GLU"], value="5.5")
    bench.does("edit", "S1", tests=["TSH"], value="1.2")
    bench.does("not-reportable", "S1", tests=["NA"])
    bench.delivers()
    bench.moves("S2", 1)
    assert bench.standing(2) == {
        "K": ("hold", "7.10"),  # critical: the wrong ward was told
        "GLU": ("release", "5.50"), "NA": ("release", ""), "HGB": ("release", "150"), "TSH": ("release", "1.200"),
    }  # fmt: skip
    withdrawn, sent = bench.delivers()
    assert [row[2] for row in withdrawn] == ["W"] * 5
    assert {row[:3] for row in sent} == {("GLU", "5.50", "F"), ("HGB", "150", "F"), ("NA", "", "X"), ("TSH", "1.200", "F")}
    assert {(test, value) for (_, test), (value, _) in bench.now.items()} == {
        ("GLU", "5.50"), ("HGB", "150"), ("NA", "X"), ("TSH", "1.200"),
    }  # fmt: skip
    assert "K is critical" in bench.refuses("release", "S2")
    bench.does("release", "S2", **CALLED)
    assert bench.delivers() == [[("K", "7.10", "F", "")]]


def test_a_report_without_an_id_gets_one(bench: Bench) -> None:
    bench.comes(result("K", "4"), specimen="")
    assert "name the specimen" in bench.refuses("correct-id", to="S2")
    bench.moves("S2", 1)
    assert bench.delivers() == [[("K", "4.00", "F", "")]]
    assert bench.states() == ["rejected", "released"]


def test_what_was_rejected_stays_so_and_what_was_held_is_judged_anew(bench: Bench) -> None:
    bench.comes(result("K", "4", at=-900))
    bench.comes(result("K", "5", at=-600), result("ABO", "A"))
    bench.does("reject", "S1", tests=["ABO"])
    bench.moves("S2", 2)
    assert bench.standing(3) == {"K": ("release", "5.00"), "ABO": ("rejected", "A")}


def test_a_proposal_can_be_dropped_and_shown_before(bench: Bench) -> None:
    bench.comes(result("K", "4"))
    bench.delivers()
    shown = bench.does("correct-id", "S1", to="S2", preview=True).answer["leaves"]
    assert [one["specimen"] for one in shown] == ["S1", "S2"]
    assert "|W|" in shown[0]["text"]
    bench.does("correct-id", "S1", to="S2")
    shown = bench.does("confirm-id", actor="super", proposal=1, preview=True).answer["leaves"]
    assert len(shown) == 2
    bench.does("withdraw-id", proposal=1)
    assert bench.rows("audit")[-1].subject == "report 1"
    assert "no open proposal" in bench.refuses("confirm-id", actor="super", proposal=1)
    assert not bench.waiting()
    bench.does("correct-id", "S1", to="S2")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"reports": [1], "to": "S1"}, "is specimen S1 already"),
        ({"reports": [1], "to": "QC1"}, "a control"),
        ({"reports": [1], "to": "X1"}, "does not look like a barcode"),
        ({"reports": [1], "to": " "}, "printable"),
        ({"reports": [1], "to": "S2\n"}, "printable"),
        ({"reports": [1], "to": "S" * 200}, "printable"),
        ({"reports": [7], "to": "S2"}, "there is no report 7"),
        ({"text": '[{"report": 7, "to": "S2"}]'}, "there is no report 7"),
        ({"text": '[{"report": 1, "to": "S2"}, {"report": 1, "to": "S3"}]'}, "each once"),
        ({"text": '[{"report": 1}]'}, "not a list"),
        ({"text": "[]"}, "no report whose"),
        ({"reports": [1], "to": "S2", "reason": ""}, "a reason"),
    ],
)
def test_what_cannot_be_proposed(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    bench = Bench(tmp_path, analyzer(pattern="^(S|QC)", qc_ids=("^QC",)))
    bench.comes(result("K", "4"))
    assert why in bench.refuses("correct-id", **fields)
    bench.close()


@pytest.fixture
def cumulative(tmp_path: Path) -> Iterator[Bench]:
    rules = analyzer()
    one = Bench(tmp_path, rules, revision(rules, resend="cumulative"))
    yield one
    one.proven()
    one.close()


def test_where_every_message_repeats_all_the_wrong_results_leave_no_trace(cumulative: Bench) -> None:
    cumulative.comes(result("K", "4"))
    cumulative.comes(result("NA", "140"))
    cumulative.delivers()
    cumulative.comes(result("GLU", "5"))
    cumulative.moves("S2", 1)
    cumulative.delivers()
    assert set(cumulative.now) == {("S2", "K"), ("S1", "NA"), ("S1", "GLU")}


def test_what_arrives_though_it_was_cancelled_is_withdrawn_too(bench: Bench) -> None:
    """It flew when its report was moved: the hospital took it after all."""
    bench.comes(result("K", "4"))
    flying = bench.rows("delivery")[0].id
    bench.moves("S2", 1)
    assert bench.takes(flying) == [("K", "4.00", "F", "")]
    late = bench.store.call(lambda tx: withdraw_late(tx, bench.revision, bench.moment(), flying))
    assert [one.lane for one in late.queued] == ["S1"]
    assert not bench.store.call(lambda tx: withdraw_late(tx, bench.revision, bench.moment(), 99)).queued
    bench.delivers()
    assert set(bench.now) == {("S2", "K")}


def test_what_may_have_arrived_before_a_crash_is_withdrawn_once(bench: Bench) -> None:
    """It was sent and not answered when its report was moved; whether it had been sent is forgotten, twice."""
    bench.comes(result("K", "4"))
    bench.moves("S2", 1)
    assert bench.store.call(still_moving) == {1: [1]}
    bench.now["S1", "K"] = "4.00", ""  # the hospital took it, and its answer was lost
    for crash in range(2):
        parts = bench.store.call(still_moving)[1]
        late = [bench.store.call(lambda tx, one=one: withdraw_late(tx, bench.revision, bench.moment(), one)) for one in parts]
        assert [len(one.queued) for one in late] == [1 - crash]
    bench.delivers()
    assert set(bench.now) == {("S2", "K")}


def test_what_was_cancelled_by_hand_before_it_was_answered_may_have_arrived(bench: Bench) -> None:
    """Its specimen id is corrected later on."""
    bench.comes(result("K", "4"))
    bench.does("cancel", deliveries=[1])
    for _ in range(2):
        assert not bench.store.call(lambda tx: withdraw_late(tx, bench.revision, bench.moment(), 1)).queued
    assert [row.outcome for row in bench.rows("attempt")] == ["unanswered"]
    bench.now["S1", "K"] = "4.00", ""
    bench.moves("S2", 1)
    bench.delivers()
    assert set(bench.now) == {("S2", "K")}


def test_what_may_have_arrived_is_withdrawn_by_the_code_that_the_hospital_has_now(bench: Bench) -> None:
    """Its code was changed meanwhile."""
    bench.comes(result("K", "4"))
    bench.moves("S2", 1)
    his = bench.revision.outlets["his"]
    codes = {code: oru.Coded(f"{code}2") for code in bench.revision.catalogue.tests}
    renamed = replace(his, writer=oru.compile(his.writer.form, codes, zone=ZONE))
    now = replace(bench.revision, outlets={"his": renamed})
    [late] = bench.store.call(lambda tx: withdraw_late(tx, now, bench.moment(), 1)).queued
    assert b"|K2^" in late.payload
    assert b"|W|" in late.payload


def test_what_may_have_arrived_is_withdrawn_though_the_hospital_cannot_read_why(tmp_path: Path) -> None:
    rules = analyzer()
    bench = Bench(tmp_path, rules, revision(rules, charset="ISO-8859-1"))
    bench.comes(result("K", "4"))
    proposal = bench.does("correct-id", "S1", to="S2").answer["proposal"]
    bench.does("confirm-id", actor="super", proposal=proposal, reason="S1 → S2")
    [late] = bench.store.call(lambda tx: withdraw_late(tx, bench.revision, bench.moment(), 1)).queued
    assert b"|W|" in late.payload
    bench.close()


def test_nothing_is_on_its_way_of_what_was_delivered_before(bench: Bench) -> None:
    bench.comes(result("K", "4"))
    bench.delivers()
    bench.moves("S2", 1)
    assert bench.store.call(still_moving) == {}


def test_a_cancelled_delivery_of_nobody_elses_is_not_withdrawn(bench: Bench) -> None:
    bench.comes(result("K", "4"))
    bench.does("cancel", deliveries=[1])
    bench.takes(1)
    assert not bench.store.call(lambda tx: withdraw_late(tx, bench.revision, bench.moment(), 1)).queued


def test_what_a_withdrawn_report_left_at_the_hospital_is_withdrawn_with_the_next(bench: Bench) -> None:
    """The first report's K was to be overwritten by what waits; that is another specimen's as well, and never leaves."""
    bench.comes(result("K", "4", at=-900))
    bench.delivers()
    bench.comes(result("K", "5", at=-600))
    bench.does("release", "S1")
    bench.moves("S2", 1)
    bench.moves("S3", 2)
    bench.delivers()
    assert {key: value for key, (value, _) in bench.now.items()} == {("S2", "K"): "4.00", ("S3", "K"): "5.00"}
