"""Release or hold: limits, flags, status, alarms, repeats, what a held result keeps back; ages; reasons in words."""

import re
import string
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import verification
from labbridge.model import Decided, Patient, Reason, Result
from labbridge.verification import Known, Rules, Verifier, _twice_in_report
from labbridge.verification.ages import age_in_days
from labbridge.verification.reasons import IN_CHINESE, TEXTS, render, render_all

from .small_lab import NOW, ZONE, actions, codes, report, result, tables, verifier


def verdicts(
    *results: Result, released: dict[str, Known] | None = None, also: tuple[Reason, ...] = (), rules: Any = None, **said: Any
) -> tuple[Decided, ...]:
    """The verdicts on a report, with what a held result keeps back."""
    one = rules or verifier()
    about = report(*results, **said)
    mapped = [tables()[1].map(each) for each in results]
    return one.keep_back(one.verify(about, mapped, released or {}, NOW, also))


def verdict(*results: Result, **more: Any) -> tuple[str, list[str]]:
    """What became of the first result, and why."""
    first = verdicts(*results, **more)[0]
    return first.verdict.action, codes([first])


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "flag", "why"),
    [
        ("4.1", "N", []),
        ("5.304", "N", []),  # reported as 5.30: the limits judge what is reported
        ("5.305", "H", []),
        ("3.49", "L", []),
        ("2.496", "L", []),  # 2.50
        ("2.494", "LL", ["critical"]),
        ("6.51", "HH", ["critical"]),
        ("<2.6", "L", ["critical"]),
        ("12.01", "HH", ["absurd"]),
        ("0.5", "LL", ["absurd"]),
    ],
)
def test_limits_judge_the_reported_value(value: str, flag: str, why: list[str]) -> None:
    kind: dict[str, Any] = {"kind": "comparator", "comparator": "<", "number": "2.6"} if value[0] == "<" else {}
    (decided,) = verdicts(result("K", value, **kind))
    assert (decided.flag, codes([decided]), decided.reference) == (flag, why, "3.5-5.3")
    assert decided.verdict.action == ("hold" if why else "release")


def test_a_critical_word_is_held_like_a_critical_number() -> None:
    positive, negative = verdicts(result("HIV", "POS")), verdicts(result("HIV", "NEG"))
    assert (positive[0].value, positive[0].flag, codes(positive)) == ("Positive", "A", ["critical"])
    assert (negative[0].value, negative[0].flag, codes(negative)) == ("Negative", "N", [])


@pytest.mark.parametrize(
    ("value", "patient", "flag", "reference", "why"),
    [
        ("140", Patient(sex="M", birth="19800101"), "N", "130-175", []),
        ("120", Patient(sex="M", birth="19800101"), "L", "130-175", []),
        ("120", Patient(sex="F", birth="19800101"), "N", "115-150", []),
        ("120", Patient(birth="19800101"), "", "", []),  # the sexes differ: no flag
        ("120", Patient(sex="M"), "", "", []),  # the ages differ: no flag
        ("120", Patient(sex="X", birth="1980"), "", "", []),
        ("80", Patient(), "", "", ["critical"]),  # it would be, in a newborn
        ("80", Patient(sex="M", age="40y"), "L", "130-175", []),
        ("80", Patient(sex="M", birth="20261101"), "LL", "145-225", ["critical"]),
        ("80", Patient(sex="F", age="20d"), "LL", "145-225", ["critical"]),
    ],
)
def test_sex_or_age_unknown(value: str, patient: Patient, flag: str, reference: str, why: list[str]) -> None:
    """Where the lines differ nothing is flagged, and what any of them would call critical is held."""
    (decided,) = verdicts(result("HGB", value), patient=patient)
    assert (decided.flag, decided.reference, codes([decided])) == (flag, reference, why)


def test_what_is_not_reported_is_not_judged() -> None:
    (decided,) = verdicts(result("LOOK", "99", unit=""))
    assert (decided.test, decided.flag, codes([decided])) == ("K", "", ["held-by-map"])


# -- reasons of a result's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "action", "delivered"),
    [
        ("F", "release", "F"),
        ("P", "release", "P"),
        ("C", "release", "C"),
        ("A", "release", "C"),
        ("U", "release", "F"),
        *((status, "hold", status) for status in ("R", "I", "S", "W", "D", "X", "N", "O", "B", "V", "")),
    ],
)
def test_the_status_decides_whether_a_result_is_final(status: str, action: str, delivered: str) -> None:
    """# conformance: B13, D19."""
    (decided,) = verdicts(result("K", "4", status=status))
    assert (decided.verdict.action, decided.status) == (action, delivered)
    assert codes([decided]) == (["status"] if action == "hold" else [])


def test_an_alarm_holds_unless_the_profile_calls_it_harmless() -> None:
    assert verdict(result("K", "4", alarms=("E1", "I2"))) == ("hold", ["alarm", "alarm"])
    assert verdict(result("K", "4", alarms=("E1",) * 100_000)) == ("hold", ["alarm"])
    assert verdict(result("K", "4", alarms=("I2",)), rules=verifier(harmless=("I2",))) == ("release", [])


@pytest.mark.parametrize(("age", "action"), [(3599.0, "release"), (3601.0, "hold"), (-3600.0, "release"), (None, "release")])
def test_what_was_measured_long_ago_is_held(age: float | None, action: str) -> None:
    said = result("K", "4", at=None if age is None else -age)
    assert verdict(said, rules=verifier(stale=3600.0)) == (action, ["stale"] if action == "hold" else [])


def test_a_manual_test_is_always_held() -> None:
    assert verdict(result("ABO", "A")) == ("hold", ["manual"])


def test_a_results_own_problem_holds_that_result_alone() -> None:
    decided = verdicts(result("K", "4", problems=(Reason("bad-time"),)), result("GLU", "5"))
    assert actions(decided) == {"K": "hold", "GLU": "release"}
    assert codes(decided) == ["bad-time"]


def test_a_reports_problems_hold_every_result() -> None:
    said = result("K", "4"), result("XYZ", "1"), result("PNG", "")
    decided = verdicts(*said, problems=(Reason("specimen-conflict"),), also=(Reason("no-specimen"),))
    assert actions(decided) == {"K": "hold", "XYZ": "hold", "PNG": "ignore"}
    assert codes(decided) == ["specimen-conflict", "no-specimen"] * 2 + ["unmapped"]


def test_with_automatic_release_off_every_result_waits() -> None:
    assert verdict(result("K", "4"), rules=verifier(auto_release=False)) == ("hold", ["auto-release-off"])


def test_a_test_that_comes_twice_in_one_message_is_held_twice() -> None:
    decided = verdicts(result("K", "4.1"), result("GLU", "5"), result("K", "4.2"), result("XYZ", "1"), result("XYZ", "2"))
    assert codes(decided) == ["twice-in-message", "twice-in-message", "unmapped", "unmapped"]


def test_counting_tests_takes_time_in_proportion_to_their_number() -> None:
    mapped = [tables()[1].map(result("K", "4"))] * 50_000
    assert _twice_in_report(mapped) == {"K"}


# -- the same test again -----------------------------------------------------------------------------------------------

BEFORE, AT = int(NOW) - 1200, int(NOW) - 600
LATER = int(NOW) - 60


@pytest.mark.parametrize(
    ("policy", "status", "before", "expected"),
    [
        ("hold", "F", Known("4", BEFORE), ("hold", ["repeat"], "C")),
        ("hold", "C", Known("4", BEFORE), ("hold", ["repeat"], "C")),
        ("hold", "F", Known("4", LATER), ("hold", ["repeat"], "C")),
        ("first", "F", Known("4", BEFORE), ("superseded", ["repeat-first"], "C")),
        ("first", "C", Known("4", BEFORE), ("hold", ["repeat"], "C")),  # the analyzer corrects itself
        ("latest-measured", "F", Known("4", BEFORE), ("release", [], "C")),
        ("latest-measured", "F", Known("4", AT), ("release", [], "C")),
        ("latest-measured", "F", Known("4", LATER), ("superseded", ["older-measurement"], "C")),
        ("latest-measured", "F", Known("4", None), ("hold", ["repeat"], "C")),  # which is the later one?
        ("hold", "F", Known("4", BEFORE, final=False), ("release", [], "F")),
        ("hold", "P", Known("4", BEFORE, final=False), ("release", [], "P")),
        ("first", "F", Known("4", None, final=False), ("release", [], "F")),
        ("latest-measured", "F", Known("4", LATER, final=False), ("superseded", ["older-measurement"], "F")),
    ],
)
def test_the_same_test_again(policy: Any, status: str, before: Known, expected: tuple[str, list[str], str]) -> None:
    (decided,) = verdicts(result("K", "4.2", status=status), released={"K": before}, rules=verifier(repeat=policy))
    assert (decided.verdict.action, codes([decided]), decided.status) == expected


def test_a_measurement_without_a_time_is_not_taken_for_the_latest() -> None:
    said = verdict(result("K", "4.2", at=None), released={"K": Known("4", AT)}, rules=verifier(repeat="latest-measured"))
    assert said == ("hold", ["repeat"])


@pytest.mark.parametrize("policy", ["hold", "first", "latest-measured"])
def test_a_repeat_that_a_person_must_see_is_held_not_superseded(policy: Any) -> None:
    action, why = verdict(result("K", "7"), released={"K": Known("4", LATER)}, rules=verifier(repeat=policy))
    assert action == "hold"
    assert why[0] == "critical"
    assert len(why) == 2


# -- what a held result keeps back -------------------------------------------------------------------------------------

CHEMISTRY = (result("K", "7"), result("GLU", "5"), result("HGB", "140"), result("TSH", "1.2"), result("PNG", ""))


@pytest.mark.parametrize(("hold", "kept_back"), [("result", set()), ("panel", {"GLU"}), ("report", {"GLU", "HGB", "TSH"})])
def test_a_held_result_keeps_back_itself_its_panels_or_its_report(hold: str, kept_back: set[str]) -> None:
    decided = verdicts(*CHEMISTRY, rules=verifier(hold=hold))
    assert {one.code for one in decided if codes([one]) == ["held-with"]} == kept_back
    assert {one.verdict.reasons[0].params["test"] for one in decided if one.code in kept_back} <= {"K"}
    assert actions(decided)["PNG"] == "ignore"


def test_an_unmapped_result_may_belong_to_any_panel() -> None:
    """What has no test keeps back every panel of its report, and nothing that stands alone."""
    said = (result("GLU", "5"), result("HGB", "140"), result("TSH", "1.2"), result("K", "4", unit="mg/dL"))
    decided = verdicts(*said, rules=verifier(hold="panel"))
    assert actions(decided) == {"GLU": "hold", "HGB": "hold", "TSH": "release", "K": "hold"}
    assert codes(decided) == ["held-with", "held-with", "unit-unknown"]
    assert actions(verdicts(*said, rules=verifier(hold="result")))["GLU"] == "release"
    report_wide = verdicts(*said, rules=verifier(hold="report"))
    assert actions(report_wide)["TSH"] == "hold"
    assert report_wide[2].verdict.reasons == (Reason("held-with", {"test": "K"}),)


def test_a_held_result_of_no_panel_keeps_nothing_back() -> None:
    decided = verdicts(result("ABO", "A"), result("GLU", "5"), rules=verifier(hold="panel"))
    assert actions(decided) == {"ABO": "hold", "GLU": "release"}


@given(
    st.lists(st.tuples(st.sampled_from(["K", "GLU", "HGB", "TSH", "XYZ", "PNG"]), st.sampled_from(["4", "7", "200"])), max_size=7),
    st.sampled_from(["result", "panel", "report"]),
)
@settings(max_examples=60, deadline=None)
def test_keeping_back_releases_nothing_and_has_an_end(said: list[tuple[str, str]], hold: str) -> None:
    rules = verifier(hold=hold)
    alone = verdicts(*(result(*one) for one in said), rules=verifier())
    kept = rules.keep_back(alone)
    assert rules.keep_back(kept) == kept
    for before, after in zip(alone, kept, strict=True):
        assert before.verdict == after.verdict or (before.verdict.action, after.verdict.action) == ("release", "hold")
    if hold == "report" and any(one.verdict.action == "hold" for one in alone):
        assert all(one.verdict.action != "release" for one in kept)


# -- ages --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("birth", "age", "days"),
    [
        ("20261121", "", 0),
        ("20261120", "", 1),
        ("20251121", "", 365),
        ("19800101101500", "", 17126),
        ("20261122", "", None),  # tomorrow
        ("18800101", "", None),
        ("20260230", "", None),
        ("1980", "", None),
        ("198001", "", None),
        ("1980", "46y", 16801),
        ("20261122", "3 d", 3),
        ("", "28d", 28),
        ("", "6 W", 42),
        ("", "2months", 60),
        ("", "18Y", 6574),
        ("", "45", None),
        ("", "٣d", None),
        ("", "", None),
    ],
)
def test_an_age_is_told_or_it_is_unknown(birth: str, age: str, days: int | None) -> None:
    assert age_in_days(Patient(birth=birth, age=age), NOW, ZONE) == days


def test_a_child_born_today_is_born_today_where_the_laboratory_is() -> None:
    early = datetime(2026, 11, 21, 1, 30, tzinfo=ZONE).timestamp()  # still the twentieth in UTC
    assert age_in_days(Patient(birth="20261121"), early, ZONE) == 0
    assert age_in_days(Patient(birth="20261121"), early) is None


# -- reasons in words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(TEXTS))
def test_every_reason_has_words_in_both_languages_with_the_same_parameters(code: str) -> None:
    names = [{field for _, field, _, _ in string.Formatter().parse(text) if field} for text in TEXTS[code]]
    assert names[0] == names[1]
    assert all(text.strip() for text in TEXTS[code])
    params = {name: f"<{name}>" for name in names[0]}
    assert all(value in render(Reason(code, params), language) for value in params.values() for language in ("en", "zh"))


def test_reasons_are_rendered_in_the_language_asked_for() -> None:
    critical = Reason("critical", {"value": "7.00", "unit": "mmol/L"})
    assert render(critical) == "7.00 mmol/L is critical"
    assert render(critical, "zh") == "危急值 7.00 mmol/L"
    assert render(Reason("critical", {"value": "Positive", "unit": ""})) == "Positive is critical"
    assert render_all([critical, Reason("manual"), critical]) == "7.00 mmol/L is critical; this test is always released by a person"
    assert render_all([critical, Reason("manual")], "zh") == "危急值 7.00 mmol/L；该项目须人工审核"


def test_whatever_broke_a_transmission_off_is_told_in_chinese_too() -> None:
    """Each text that the code gives for it has its words, and none has words that the code does not give."""
    given = re.compile(r"""(?:\bAbandoned\(|_abandon\(|self\._stop\(|_take_unended\([^"\n]*|"why": )"([^"]+)\"""")
    package = Path(verification.__file__).parents[1]
    whys = {why for file in package.rglob("*.py") for why in given.findall(file.read_text("utf-8"))}
    ends = {f"L record: {end}" for end in ("error", "receiver aborted", "sender aborted", "unknown code")}
    assert {"a result is cut off", "the connection closed", "the connection closed inside a block"} < whys
    assert IN_CHINESE["why"].keys() == whys | ends | {"no L record"}
    assert render(Reason("incomplete", {"why": "no L record"}), "zh") == "传输中断：缺少结束记录（L）"
    assert render(Reason("incomplete", {"why": "no L record"})) == "the transmission broke off: no L record"


def test_an_alarm_is_shown_with_the_profiles_words() -> None:
    """In the language asked for, or in the one that there is; a decision of old, without them, as it was."""
    rules = Verifier(Rules(auto_release=True), tables()[0], lambda alarm: True, alarm_words={"43": {"en": "clot", "zh": "凝块"}})
    decided = rules.verify(report(result("K", "4", alarms=("43", "9"))), [tables()[1].map(result("K", "4"))], {}, NOW)
    told, plain = decided[0].verdict.reasons
    assert (render(told), render(told, "zh")) == ("alarm 43 of the analyzer (clot)", "仪器报警 43（凝块）")
    assert (render(plain), render(plain, "zh")) == ("alarm 9 of the analyzer", "仪器报警 9")
    assert render(Reason("alarm", {"alarm": "43", "en": "clot"}), "zh") == "仪器报警 43（clot）"
    assert render(Reason("alarm", {"alarm": "43", "zh": "凝块"})) == "alarm 43 of the analyzer (凝块)"


def test_a_reason_without_words_or_parameters_is_still_shown() -> None:
    assert render(Reason("hook-says-so", {"a": "1"})) == "hook-says-so a=1"
    assert render(Reason("alarm")) == "alarm ? of the analyzer"
