"""What a person does with results, what the hospital is told of it, and what stays behind for the auditor."""

import json

import pytest

from tests.commands.bench import CALLED, Bench
from tests.small_lab import result

CRITICAL = "7.10"


def test_a_critical_value_leaves_only_with_a_call_back(bench: Bench) -> None:
    bench.comes(result("K", CRITICAL), result("GLU", "5"))
    bench.delivers()
    assert "K is critical" in bench.refuses("release", "S1")
    assert "K is critical" in bench.refuses("release", "S1", told="Dr. Li")  # nobody heard it back
    assert "date, time and zone" in bench.refuses("release", "S1", **CALLED, told_at="2026-11-21T10:00:00")
    assert "a time to come" in bench.refuses("release", "S1", **CALLED, told_at="2026-11-21T23:00:00+08:00")
    assert not bench.waiting()
    bench.does("release", "S1", **CALLED, told_at="2026-11-21T10:14:00+08:00")
    assert bench.delivers() == [[("K", CRITICAL, "F", "")]]
    audit = bench.rows("audit")[-1]
    assert json.loads(audit.new) == {
        "K": "release", "told": "Dr. Li", "told at": "2026-11-21T10:14:00+08:00", "read back": "yes",
    }  # fmt: skip


def test_an_earlier_call_back_counts_for_the_value_that_was_told(bench: Bench) -> None:
    bench.comes(result("K", CRITICAL), result("HGB", "40"))
    bench.does("call-back", "S1", **CALLED, tests=["K"])
    assert "HGB is critical" in bench.refuses("release", "S1")
    bench.does("release", "S1", tests=["K"])
    assert "no such result" in bench.refuses("call-back", "S1", **CALLED, tests=["NA"])
    assert "who was told" in bench.refuses("call-back", "S1")
    bench.does("call-back", "S1", told="Dr. Li")  # not read back: kept, and it does not count
    assert "HGB is critical" in bench.refuses("release", "S1")
    bench.does("call-back", "S1", **CALLED)
    bench.does("edit", "S1", tests=["HGB"], value="41", **CALLED)
    assert bench.delivers()[-1] == [("HGB", "41", "F", "")]
    assert "HGB is critical" in bench.refuses("edit", "S1", tests=["HGB"], value="42")


@pytest.mark.parametrize(
    ("command", "note"),
    [("not-reportable", "not reportable: hemolysed"), ("recollect", "please collect and send a new specimen: hemolysed")],
)
def test_no_result_can_be_had(bench: Bench, command: str, note: str) -> None:
    """Of what is held, and of what is named though it was delivered; the hospital is told so, and why."""
    bench.comes(result("K", CRITICAL), result("GLU", "5"), result("NA", "140"))
    assert bench.delivers() == [[("GLU", "5.00", "F", ""), ("NA", "140", "F", "")]]
    assert "a reason is needed" in bench.refuses(command, "S1", reason=" ")
    shown = bench.does(command, "S1", reason="hemolysed", preview=True).answer["leaves"]
    assert [(one["destination"], one["specimen"]) for one in shown] == [("his", "S1")]
    assert f"\nNTE|1|L|{note}\n" in shown[0]["text"]
    assert not bench.waiting()
    bench.does(command, "S1", reason="hemolysed")
    assert bench.delivers() == [[("K", "", "X", note)]]
    bench.does(command, "S1", reason="hemolysed", tests=["GLU"])
    assert bench.delivers() == [[("GLU", "", "X", note)]]
    assert bench.now == {("S1", "K"): ("X", bench.now["S1", "K"][1]), **{key: bench.now[key] for key in bench.now if key[1] != "K"}}
    assert "nothing to tell" in bench.refuses(command, "S1")
    assert bench.states() == ["released"]
    bench.comes(result("K", "4", at=-60))  # measured again: a person looks at it
    assert bench.states() == ["released", "held"]
    bench.does("release", "S1")
    assert bench.delivers() == [[("K", "4.00", "C", "")]]


def test_all_of_a_specimen_may_be_not_reportable(bench: Bench) -> None:
    bench.comes(result("K", CRITICAL), result("GLU", "5"))
    bench.does("recollect", "S1", everything=True)
    assert [row[:3] for row in bench.delivers()[-1]] == [("K", "", "X"), ("GLU", "", "X")]


def test_of_a_test_in_several_reports_the_last_measured_tells_it_once(bench: Bench) -> None:
    bench.comes(result("K", "4", at=-900))
    bench.comes(result("K", "5", at=-600))
    bench.comes(result("K", "4.5", at=-700))
    assert bench.states() == ["released", "held", "held"]
    bench.delivers()
    bench.does("release", "S1", reports=[2])
    bench.delivers()
    bench.does("not-reportable", "S1", tests=["K"])
    assert bench.delivers() == [[("K", "", "X", "not reportable: because")]]
    assert bench.states() == ["released", "released", "superseded"]


def test_a_value_is_changed_as_any_value_is_made(bench: Bench) -> None:
    """Rounded, flagged, judged by the limits; a correction where it was released before; the analyzer's own text stays."""
    number = bench.comes(result("K", "4.123"), result("HIV", "NEG"))
    bench.does("edit", "S1", tests=["K"], value=" 5.455 ")
    (line,) = [line for line in bench.rows("delivery")[-1].payload.decode().split("\r") if line.startswith("OBX")]
    assert line.split("|")[5:12] == ["5.46", "mmol/L^^UCUM", "3.5-5.3", "H", "", "", "C"]
    assert bench.report(number).results[0].value == "4.123"
    audit = bench.rows("audit")[-1]
    assert (json.loads(audit.old), json.loads(audit.new)) == ({"K": "release 4.12"}, {"K": "release 5.46"})
    bench.does("edit", "S1", tests=["HIV"], value="Negative")
    assert [row[1:3] for row in bench.delivers()[-1]] == [("Negative", "C")]
    for value, why in [("high", "not a number"), ("", "characters"), ("x" * 300, "characters"), ("0.2", "compatible with life")]:
        assert why in bench.refuses("edit", "S1", tests=["K"], value=value)
    for value in ("7.5", "<2"):
        assert "K is critical" in bench.refuses("edit", "S1", tests=["K"], value=value)
    bench.does("edit", "S1", tests=["K"], value="7.5", **CALLED)
    assert bench.delivers() == [[("K", "7.50", "C", "")]]
    assert "no test of the catalogue" in bench.refuses("edit", "S1", tests=["XYZ"], value="1")
    assert "name one test" in bench.refuses("edit", "S1", value="1")
    assert "nothing is known" in bench.refuses("edit", "S2", tests=["K"], value="1")


def test_a_value_is_entered_where_no_report_has_one(bench: Bench) -> None:
    number = bench.comes(result("WBC", "5.5"), result("NEU", "manual"))
    bench.delivers()
    bench.does("edit", "S1", tests=["TSH"], value="1.2345")
    assert bench.delivers() == [[("TSH", "1.235", "F", "")]]
    assert [one.code for one in bench.report(number).results] == ["WBC", "NEU"]
    bench.does("edit", "S1", tests=["TSH"], value="2")
    bench.does("not-reportable", "S1", tests=["TSH"])
    assert bench.delivers() == [[("TSH", "2.000", "C", "")], [("TSH", "", "X", "not reportable: because")]]
    assert bench.states() == ["held"]  # the unmapped one
    bench.comes(result("TSH", "3", at=-5))
    assert bench.standing(2)["TSH"][0] == "hold"


def test_an_older_value_does_not_follow_a_newer_one(bench: Bench) -> None:
    bench.comes(result("K", "4", at=-900))
    bench.comes(result("K", "5", at=-600))
    assert "reports 1, 2" in bench.refuses("edit", "S1", tests=["K"], value="4.5")
    bench.does("release", "S1")
    assert "later measurement" in bench.refuses("edit", "S1", tests=["K"], value="4.5", reports=[1])
    bench.does("edit", "S1", tests=["K"], value="4.5", reports=[2])
    assert [told[0][1:3] for told in bench.delivers()] == [("4.00", "F"), ("5.00", "C"), ("4.50", "C")]
    bench.does("edit", "S1", tests=["K"], value="4.4", reports=[1], correction=True)
    with pytest.raises(AssertionError, match=r"K 4\.40 of S1 overwrites a newer one"):  # as the person wanted it
        bench.delivers()


def test_what_is_nobodys_cannot_be_changed(bench: Bench) -> None:
    bench.comes(result("K", "4"), specimen="")
    for command in ("release", "not-reportable", "edit"):
        assert "not certain" in bench.refuses(command, "", tests=["K"], value="4")


def test_notes_leave_nothing_and_stay(bench: Bench) -> None:
    bench.comes(result("K", CRITICAL))
    bench.does("acknowledge", "S1")
    bench.does("comment", "S1", note="clot in the tube, 有凝块")
    bench.does("viewed", "S1")
    assert not bench.waiting()
    decisions = [json.loads(row.document) for row in bench.rows("decision")[1:]]
    assert [one["kind"] for one in decisions] == ["acknowledge", "comment"]
    assert (decisions[0]["tests"], decisions[1]["comment"]) == (["K"], "clot in the tube, 有凝块")
    assert [(row.action, row.subject) for row in bench.rows("audit")] == [
        ("acknowledge", "report 1"), ("comment", "report 1"), ("viewed", "specimen S1"),
    ]  # fmt: skip
    assert "characters" in bench.refuses("comment", "S1", note="x" * 5000)
    assert "nothing is known" in bench.refuses("viewed", "S2")
    bench.does("release", "S1", **CALLED)
    assert "nothing critical" in bench.refuses("acknowledge", "S1")


def test_what_was_delivered_is_sent_once_more_as_a_new_delivery(bench: Bench) -> None:
    bench.comes(result("K", "4"))
    assert "was not delivered" in bench.refuses("send-again", deliveries=[1])
    bench.delivers()
    bench.does("send-again", deliveries=[1])
    first, second = bench.rows("delivery")
    assert first.control_id != second.control_id
    assert first.payload.replace(first.control_id.encode(), second.control_id.encode()) == second.payload
    bench.delivers()
    bench.does("edit", "S1", tests=["K"], value="5")
    assert "K left again" in bench.refuses("send-again", deliveries=[1])
    assert "name the deliveries" in bench.refuses("send-again")
