"""Reading, deciding and settling: identity, versions, order, lanes, what leaves and what waits."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import pipeline, settling
from labbridge.context import PAST, Context, Past
from labbridge.formats.oru import UnwritableError
from labbridge.model import Decided, Decision, Patient, Reason, RemoteProtocolError, Report, Result, Specimen, Verdict
from labbridge.pipeline import AnalyzerRules, Moment, Outcome, Revision
from labbridge.routing import Route

from .small_lab import ADULT, NOW, ZONE, actions, analyzer, codes, moment, observations, report, result, revision

PLAIN = analyzer()


def hl7(*segments: str, control_id: str = "1", mode: str = "P") -> bytes:
    header = f"MSH|^~\\&|A|B|||20261121101500||ORU^R01|{control_id}|{mode}|2.3.1"
    return ("\r".join([header, "PID|1||P1||DOE^JO||19800101|M", *segments]) + "\r").encode()


def obr(specimen: str) -> str:
    return f"OBR|1||{specimen}|CBC|||20261121101000"


def obx(code: str, value: str, unit: str = "mmol/L", flags: str = "N", kind: str = "NM") -> str:
    return f"OBX|1|{kind}|{code}||{value}|{unit}||{flags}|||F|||20261121101000"


class Lab:
    """Decides one report after the other, as intake does, and keeps what came of it."""

    def __init__(self, rules: AnalyzerRules = PLAIN, compiled: Revision | None = None) -> None:
        self.rules = rules
        self.revision = compiled or revision(rules)
        self.context = Context()
        self.outcomes: list[Outcome] = []
        self.seconds = 0.0

    def take(self, said: Report, *, digest: bytes = b"", numbered: bool = False) -> Outcome | None:
        """One report of a message with this digest; None for a duplicate."""
        self.seconds += 1
        now, digest = moment(self.seconds), digest or str(self.seconds).encode()
        key = pipeline.key_of(said, self.rules, now)
        content = b"" if numbered else pipeline.content_of(said)
        if pipeline.is_duplicate(said, content, digest, self.context.past(key), self.rules, now):
            return None
        outcome = pipeline.decide(said, key, content, digest, self.context, self.rules, self.revision, now)
        self.outcomes.append(outcome)
        return outcome

    def decided(self, *results: Result, **more: Any) -> Outcome:
        """The outcome of one report that is no duplicate."""
        outcome = self.take(report(*results, **more))
        assert outcome is not None
        return outcome

    def settle(self, number: int, action: Any, *wanted: str, rules: AnalyzerRules | None = None, **more: Any) -> Outcome | None:
        """A person's word on the report of this number; it joins what is known."""
        self.seconds += 1
        outcome, mine = self.outcomes[number], rules or self.rules
        past = [self._now(one) for one in self.outcomes]
        settled = settling.settle(
            outcome.report,
            past[number].decided,
            action,
            frozenset(wanted),
            Decision((), "tech", "seen"),
            outcome.key,
            Context({outcome.key: [one for one, its in zip(past, self.outcomes, strict=True) if its.key == outcome.key]}),
            mine,
            revision(mine) if rules else self.revision,
            moment(self.seconds),
            **more,
        )
        if settled is not None:
            both = pipeline.standing((outcome.decision, settled.decision))
            decision = msgspec.structs.replace(outcome.decision, results=both)
            self.outcomes[number] = msgspec.structs.replace(outcome, decision=decision, state=settled.state)
            self.context = Context({})
            for one in self.outcomes:
                self.context.add(one.key, self._now(one))
        return settled

    def _now(self, one: Outcome) -> Past:
        return Past(self.rules.name, NOW, b"", one.content, one.report, one.decision.results)


def sent(outcome: Outcome | None) -> list[tuple[str, str, str]]:
    assert outcome is not None
    return [row for out in outcome.outgoing for row in observations(out.payload)]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_two_specimens_one_message() -> None:
    """Every result is its own specimen's, in HL7 and in ASTM."""
    message = hl7(obr("S1"), obx("K", "4.1"), obr("S2"), obx("K", "5.2"), obx("GLU", "6.3"))
    records = ["H|\\^&|||a", "P|1", "O|1|S1||^^^K", "R|1|^^^K|4.1|mmol/L||N||F", "O|2|S2||^^^K", "R|1|^^^K|5.2|mmol/L||N||F"]
    astm = ("\r".join([*records, "R|2|^^^GLU|6.3|mmol/L||N||F", "L|1|N"]) + "\r").encode()
    for reading in (pipeline.read(message, PLAIN), pipeline.read(astm, analyzer(profile="generic-astm"))):
        found = [(one.specimen.id, [(r.code, r.value) for r in one.results]) for one in reading.reports]
        assert found == [("S1", [("K", "4.1")]), ("S2", [("K", "5.2"), ("GLU", "6.3")])]


def test_unknown_flag_value() -> None:
    """A flag that nobody knows is kept beside its result and stops nothing; the computed flag is the laboratory's."""
    reading = pipeline.read(hl7(obr("S1"), obx("K", "5.9", flags="?~ZZZ~@"), obx("GLU", "5")), PLAIN)
    assert reading.reports[0].results[0].flags == ("?", "ZZZ", "@")
    outcome = Lab().decided(*reading.reports[0].results)
    assert outcome.state == "released"
    assert [one.flag for one in outcome.decision.results] == ["H", ""]


@pytest.mark.parametrize("broken", ["", "4,1,1", "ERROR 17", "^^^", "4.1.1", "--"])
def test_parse_error_no_neighbour_value(broken: str) -> None:
    """A value that cannot be read is that result's alone: no neighbour gives it its value, none takes its own."""
    message = hl7(obr("S1"), obx("GLU", "5.1"), obx("K", broken), obx("NA", "140"), "OBX|4|NM|||7.7|mmol/L|||||F")
    outcome = Lab().decided(*pipeline.read(message, PLAIN).reports[0].results)
    assert sent(outcome) == [("GLU", "5.10", "F"), ("NA", "140", "F")]
    assert {one.code: one.value for one in outcome.decision.results} == {"GLU": "5.10", "K": "", "NA": "140", "": ""}


def test_what_cannot_be_read_is_raised() -> None:
    with pytest.raises(RemoteProtocolError):
        pipeline.read(b"no message", PLAIN)


@pytest.mark.parametrize("mode", ["P", "Q", "T", "X"])
def test_an_id_of_a_control_makes_a_control_whatever_the_analyzer_says(mode: str) -> None:
    rules = analyzer(qc_ids=("^QC", "^99[0-9]{4}$"))
    reading = pipeline.read(hl7(obr("QC-1"), obx("K", "4"), mode=mode), rules)
    assert [one.role for one in reading.reports] == ["qc"]
    assert pipeline.read(hl7(obr("S1"), obx("K", "4")), rules).reports[0].role == "patient"


def test_where_the_patient_is_the_identity_no_specimen_id_is_missed() -> None:
    rules = analyzer(identity="patient")
    reading = pipeline.read(hl7(obr(""), obx("K", "4")), rules)
    assert reading.reports[0].problems == ()
    outcome = Lab(rules).take(reading.reports[0])
    assert outcome is not None
    assert (outcome.key, outcome.state) == ("patient/P1", "released")
    assert [out.lane for out in outcome.outgoing] == ["patient/P1"]
    assert pipeline.read(hl7(obr(""), obx("K", "4")), PLAIN).reports[0].problems == (Reason("no-specimen"),)


# -- identity --------------------------------------------------------------------------------------------------------


def test_a_sample_number_is_one_of_its_analyzer_and_the_day_it_was_measured() -> None:
    rules = analyzer(identity="sample-number")
    late = report(result("K", "4", at=-36000), specimen="4")  # 00:15
    earlier = report(result("NA", "140", at=None), result("K", "4", at=-37800), specimen="4")  # the day before
    untimed = report(result("K", "4", at=None), specimen="4")
    keys = [pipeline.key_of(one, rules, moment()) for one in (late, earlier, untimed)]
    assert keys == ["a-1/20261121/4", "a-1/20261120/4", "a-1/20261121/4"]


@pytest.mark.parametrize("identity", ["barcode", "sample-number", "patient"])
def test_a_report_without_identity_has_no_key_and_is_held(identity: str) -> None:
    rules = analyzer(identity=identity)
    said = report(result("K", "4"), specimen="", patient=Patient())
    assert pipeline.key_of(said, rules, moment()) == ""
    lab = Lab(rules)
    for _ in range(2):  # the same again is neither lost nor taken for a duplicate
        outcome = lab.take(said, digest=b"d")
        assert outcome is not None
        assert (outcome.state, outcome.outgoing) == ("held", ())
        assert codes(outcome.decision.results) == ["no-patient" if identity == "patient" else "no-specimen"]
    assert lab.settle(0, "release") is None
    rejected = lab.settle(0, "reject")
    assert rejected is not None
    assert rejected.state == "rejected"


def test_a_specimen_id_must_look_like_the_laboratorys() -> None:
    outcome = Lab(analyzer(pattern="^[0-9]{8,14}$")).decided(result("K", "4"), specimen="LOT77")
    assert codes(outcome.decision.results) == ["specimen-pattern"]
    assert Lab(analyzer(pattern="^[0-9]{8,14}$")).decided(result("K", "4"), specimen="12345678").state == "released"


def test_a_counted_number_is_no_barcode() -> None:
    """Such numbers come back every day: they identify a specimen only with their analyzer and day."""
    said = msgspec.structs.replace(report(result("K", "4")), specimen=Specimen(id="17", source="counter"))
    for identity, reasons in (("barcode", ["specimen-counted"]), ("sample-number", [])):
        outcome = Lab(analyzer(identity=identity)).take(said)
        assert outcome is not None
        assert codes(outcome.decision.results) == reasons


def test_another_patient_for_the_same_specimen_is_held() -> None:
    lab = Lab()
    lab.decided(result("K", "4"))
    other = msgspec.structs.replace(ADULT, id="P2", family="ROE")
    assert codes(lab.decided(result("GLU", "5"), patient=other).decision.results) == ["patient-changed"]
    assert codes(lab.decided(result("NA", "140")).decision.results) == ["patient-changed"]  # whose it is must be settled
    assert Lab().decided(result("K", "4"), patient=Patient(id="P2")).state == "released"


def test_what_was_rejected_says_nothing_of_the_patient() -> None:
    lab = Lab()
    lab.decided(result("K", "7"))
    assert lab.settle(0, "reject") is not None
    assert lab.decided(result("GLU", "5"), patient=Patient(id="P2")).state == "released"


# -- duplicates and versions -----------------------------------------------------------------------------------------


def test_value_a_b_a() -> None:
    """A correction back to the first value is a version of its own; only the same again is a duplicate."""
    lab = Lab(analyzer(repeat="latest-measured"))
    a, b = report(result("K", "4.1")), report(result("K", "4.2"))
    taken = [lab.take(said, digest=str(said).encode()) for said in (a, a, b, b, a, a)]
    assert [sent(one) if one else None for one in taken] == [
        [("K", "4.10", "F")],
        None,
        [("K", "4.20", "C")],
        None,
        [("K", "4.10", "C")],
        None,
    ]


@given(st.lists(st.sampled_from("ABC"), max_size=12), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_change_is_a_version_and_nothing_else_is(versions: Sequence[str], numbered: bool) -> None:
    """# conformance: C17."""
    lab = Lab(analyzer(repeat="latest-measured"))
    said = {name: report(result("K", str(value))) for value, name in enumerate("ABC", 4)}
    taken = [lab.take(said[name], digest=name.encode(), numbered=numbered) is not None for name in versions]
    assert taken == [n == 0 or versions[n - 1] != name for n, name in enumerate(versions)]


def test_second_test_same_specimen() -> None:
    """Another test of the same specimen, even with the same value at the same time, is no duplicate and no repeat."""
    lab = Lab()
    for code in ("K", "GLU"):
        assert sent(lab.take(report(result(code, "4.1")))) == [(code, "4.10", "F")]


def test_rerun_same_test() -> None:
    """The same test measured again, even with the same value, is no duplicate: it is a repeat."""
    lab = Lab()
    lab.decided(result("K", "4.1", at=-900))
    again = lab.decided(result("K", "4.1", at=-300))
    assert codes(again.decision.results) == ["repeat"]


def test_a_resend_of_one_test_is_known_behind_a_report_on_another() -> None:
    lab = Lab()
    wbc = report(result("WBC", "5"))
    assert lab.take(wbc) is not None
    assert lab.take(report(result("K", "4"))) is not None
    assert lab.take(wbc) is None


def test_the_same_bytes_are_a_duplicate_only_within_the_window() -> None:
    lab, said = Lab(analyzer(duplicate_window=60.0)), report(result("K", "4"))
    assert lab.take(said, digest=b"d", numbered=True) is not None
    assert lab.take(said, digest=b"d", numbered=True) is None
    assert lab.take(said, digest=b"e", numbered=True) is not None
    lab.seconds += 120
    assert lab.take(said, digest=b"e", numbered=True) is not None


def test_another_analyzers_same_words_are_no_duplicate() -> None:
    lab = Lab()
    lab.decided(result("K", "4"))
    lab.rules = msgspec.structs.replace(lab.rules, name="a-2")
    assert lab.take(report(result("K", "4"))) is not None


def test_without_any_time_the_same_value_may_be_another_run() -> None:
    lab, said = Lab(), report(result("K", "7", at=None))
    assert pipeline.content_of(said) == b""
    assert lab.take(said) is not None
    assert lab.take(said) is not None


def test_the_time_of_sending_counts_only_where_no_result_tells_its_own() -> None:
    timed, untimed = report(result("K", "4"), sent="1"), report(result("K", "4", at=None), sent="1")
    later = [msgspec.structs.replace(said, sent="2", sent_at=2) for said in (timed, untimed)]
    assert pipeline.content_of(timed) == pipeline.content_of(later[0])
    assert pipeline.content_of(untimed) != pipeline.content_of(later[1])


def test_a_corrected_patient_is_no_duplicate() -> None:
    lab = Lab()
    lab.decided(result("K", "4"))
    assert lab.take(report(result("K", "4"), patient=msgspec.structs.replace(ADULT, id="P2"))) is not None


def test_reports_without_results_are_duplicates_of_each_other() -> None:
    lab, empty = Lab(), report(problems=(Reason("no-results"),))
    first = lab.take(empty, digest=b"d")
    assert first is not None
    assert first.state == "held"
    assert lab.take(empty, digest=b"d") is None
    assert lab.take(report(result("K", "4")), digest=b"d") is not None


# -- deciding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["qc", "calibration", "test"])
def test_what_is_no_patients_stays_apart(role: Any) -> None:
    """# conformance: B10."""
    lab = Lab()
    outcome = lab.decided(result("K", "4.1"), result("XYZ", "1"), role=role)
    assert (outcome.state, outcome.outgoing) == ("kept", ())
    assert [(one.test, one.value) for one in outcome.decision.results] == [("K", "4.10"), ("", "")]
    assert codes(outcome.decision.results) == ["not-a-patient"] * 2
    assert sent(lab.take(report(result("K", "4.2")))) == [("K", "4.20", "F")]  # no repeat of the control's
    assert lab.settle(0, "release") is None


def test_a_role_that_nobody_understands_is_held_not_kept() -> None:
    outcome = Lab().decided(result("K", "4.1"), role="unknown")
    assert outcome.state == "held"
    assert codes(outcome.decision.results) == ["role-unknown"]


def test_a_report_of_nothing_but_problems_is_held_until_a_person_settles_it() -> None:
    for action, state in (("release", "released"), ("reject", "rejected")):
        lab = Lab()
        assert lab.decided(problems=(Reason("no-results"),)).state == "held"
        assert lab.settle(0, "remap") is None
        settled = lab.settle(0, action)
        assert settled is not None
        assert (settled.state, settled.outgoing) == (state, ())


@pytest.mark.parametrize(("action", "state"), [("release", "released"), ("reject", "rejected")])
def test_a_report_with_problems_is_held_though_all_of_it_is_ignored(action: Any, state: str) -> None:
    lab = Lab()
    outcome = lab.decided(result("PNG", "x"), problems=(Reason("incomplete", {"why": "no L record"}),))
    assert ([one.verdict.action for one in outcome.decision.results], outcome.state) == (["ignore"], "held")
    assert lab.settle(0, "remap") is None
    settled = lab.settle(0, action)
    assert settled is not None
    assert (settled.state, settled.outgoing) == (state, ())


def test_a_report_whose_results_are_all_ignored_is_released_with_nothing_to_send() -> None:
    outcome = Lab().decided(result("PNG", "x"), result("K", ""))
    assert (outcome.state, outcome.outgoing) == ("released", ())


def test_the_state_follows_the_verdicts() -> None:
    lab = Lab(analyzer(repeat="first"))
    assert lab.decided(result("K", "4", at=-900)).state == "released"
    assert lab.decided(result("K", "4.2")).state == "superseded"
    assert lab.decided(result("K", "9"), result("GLU", "5")).state == "held"
    assert lab.settle(2, "reject") is not None
    assert lab.outcomes[2].state == "released"  # the glucose of it


def test_what_the_hospitals_character_set_cannot_write_is_held() -> None:
    lab = Lab(PLAIN, revision(PLAIN, charset="ASCII"))
    outcome = lab.decided(result("K", "4"), result("XYZ", "1"), patient=Patient(id="P1", family="王"))
    assert (outcome.state, outcome.outgoing) == ("held", ())
    assert codes(outcome.decision.results) == ["unwritable-charset", "unmapped"]


def test_a_route_takes_what_it_names() -> None:
    routes = (Route("his"), Route("icu", tests=frozenset({"K"})), Route("other", analyzers=frozenset({"b-2"})))
    lab = Lab(PLAIN, revision(PLAIN, routes=routes, others=("icu", "other")))
    outcome = lab.decided(result("K", "4"), result("GLU", "5"))
    found = {out.destination: [test for test, _, _ in observations(out.payload)] for out in outcome.outgoing}
    assert found == {"his": ["K", "GLU"], "icu": ["K"]}
    assert len({out.control_id for out in outcome.outgoing}) == 1  # of a moment without randomness; else they differ


# -- order -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-60, -1), st.booleans()), min_size=1, max_size=10), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_older_measurement_never_follows_a_newer_one(arrivals: list[tuple[int, bool]], twins: bool) -> None:
    """Whatever arrives in whatever order, and whenever a person releases what was held."""
    lab = Lab(analyzer(repeat="latest-measured"))
    delivered: list[int] = []

    def leaves(outcome: Outcome | None) -> None:
        if outcome is not None and outcome.outgoing:
            delivered.extend(int(one.measured_at or 0) for one in outcome.decision.results if one.verdict.action == "release")

    for n, (minute, critical) in enumerate(arrivals):
        value = f"{7 if critical else 4}.{n % 10}"
        results = [result("K", value, at=minute * 60)]
        if twins and not n % 2:
            results.append(result("K", "4.9", at=minute * 60 + 30))
        leaves(lab.take(report(*results)))
        if n % 3 == 2:
            for number in range(len(lab.outcomes)):
                leaves(lab.settle(number, "release"))
    assert delivered == sorted(delivered)


def test_a_later_measurement_supersedes_what_a_person_releases_unless_it_is_a_correction() -> None:
    for correction, expected in ((False, []), (True, [("K", "7.00", "C")])):
        lab = Lab(analyzer(repeat="latest-measured"))
        lab.decided(result("K", "7", at=-900))
        lab.decided(result("K", "4.1", at=-300))
        settled = lab.settle(0, "release", correction=correction)
        assert sent(settled) == expected
        assert lab.outcomes[0].state == ("released" if correction else "superseded")


def test_of_two_measurements_in_one_message_the_later_one_is_released() -> None:
    lab = Lab()
    lab.decided(result("K", "4.1", at=-300), result("K", "4.2", at=-900), result("GLU", "5"))
    assert sent(lab.outcomes[0]) == [("GLU", "5.00", "F")]
    assert sent(lab.settle(0, "release")) == [("K", "4.10", "F")]
    assert [one.verdict.action for one in lab.outcomes[0].decision.results] == ["release", "superseded", "release"]


def test_the_last_measured_of_what_was_released_is_what_is_known() -> None:
    context = Context()

    def was_released(value: str, at: int | None, status: str = "F") -> None:
        one = Decided(0, "K", Verdict("release"), test="K", value=value, status=status, measured_at=at)
        context.add("S1", Past("a-1", NOW, b"", b"", report(), (one,)))

    was_released("1", 100, "P")
    assert not context.released("S1")["K"].final
    was_released("2", 300, "P")
    was_released("3", 200, "F")
    was_released("4", None, "P")
    known = context.released("S1")["K"]
    assert (known.value, known.measured_at, known.final) == ("2", 300, True)
    assert context.released("S2") == {}


_VERDICTS = st.sampled_from(["release", "hold", "ignore", "superseded"])
_TOLD = st.tuples(
    st.tuples(*[st.sampled_from(["", "A", "B"])] * 5),  # id, family, given, birth, sex
    st.lists(
        st.tuples(st.sampled_from(["K", "NA"]), _VERDICTS, st.sampled_from("PF"), st.sampled_from([None, 1, 2, 3])), max_size=3
    ),
)


@given(st.lists(_TOLD, max_size=8), st.tuples(*[st.sampled_from(["", "A", "B"])] * 5), st.sets(st.integers(0, 7)))
def test_what_is_summed_up_of_a_specimen_is_what_its_reports_say(told: list[Any], asked: tuple[str, ...], gone: set[int]) -> None:
    """However they came: told with the store's, added one by one, or taken out again."""
    past = []
    for patient, results in told:
        decided = tuple(
            Decided(index, test, Verdict(action), test, str(index), status=status, measured_at=at)
            for index, (test, action, status, at) in enumerate(results)
        )
        past.append(Past("a-1", NOW, b"", b"", msgspec.structs.replace(report(), patient=Patient(*patient)), decided))
    context = Context({"S1": past[:2]})
    for one in past[2:]:
        context.add("S1", one)
    context.forget([one.report for index, one in enumerate(past) if index in gone])
    left = [one for index, one in enumerate(past) if index not in gone]

    assert list(context.past("S1")) == left
    released = [one for each in left for one in each.decided if one.verdict.action == "release"]
    for test in {"K", "NA"}:
        of_test = sorted((one for one in released if one.test == test), key=lambda one: one.measured_at or 0)
        known = context.released("S1").get(test)
        if of_test:
            assert (known.value, known.measured_at) == (of_test[-1].value, of_test[-1].measured_at)
            assert known.final == any(one.status != "P" for one in of_test)
        else:
            assert known is None
    counting = [one for one in left if {each.verdict.action for each in one.decided} & {"release", "hold"}]
    names = [
        (one.report.patient.id, *[getattr(one.report.patient, n) for n in ("family", "given", "birth", "sex")]) for one in counting
    ]
    another = any(mine and theirs and mine != theirs for each in names for mine, theirs in zip(asked, each, strict=True))
    assert context.names_another("S1", Patient(*asked)) == another


def test_of_a_specimen_with_thousands_of_reports_the_newest_are_looked_at_and_all_are_counted() -> None:
    context = Context()
    for number in range(1, 1001):
        one = Decided(0, "K", Verdict("release"), f"T{number}", str(number), measured_at=number)
        context.add("S1", Past("a-1", NOW, b"", b"", report(), (one,)))
    assert len(context.past("S1")) == PAST
    assert context.past("S1")[-1].decided[0].value == "1000"
    assert len(context.released("S1")) == 1000


# -- what leaves -----------------------------------------------------------------------------------------------------


def test_only_what_is_new_leaves_or_all_of_it() -> None:
    for resend, expected in (("changed", ["GLU"]), ("cumulative", ["GLU", "K", "NA"])):
        lab = Lab(PLAIN, revision(PLAIN, resend=resend))
        lab.decided(result("K", "4"), result("NA", "140"), result("HGB", "10"))
        assert [test for test, _, _ in sent(lab.decided(result("GLU", "5")))] == expected


def test_all_of_it_is_the_last_of_each_test_and_what_its_route_lets_pass() -> None:
    rules = analyzer(repeat="latest-measured")
    routes = (Route("his", tests=frozenset({"K", "GLU"})),)
    lab = Lab(rules, revision(rules, resend="cumulative", routes=routes))
    lab.decided(result("K", "4", at=-900), result("NA", "140"))
    lab.decided(result("K", "4.5", at=-600))
    assert sent(lab.decided(result("GLU", "5"))) == [("GLU", "5.00", "F"), ("K", "4.50", "C")]


def test_all_of_it_is_never_another_patients() -> None:
    lab = Lab(PLAIN, revision(PLAIN, resend="cumulative"))
    lab.decided(result("K", "4"))
    lab.decided(result("GLU", "5"), patient=Patient(id="P2"))
    assert sent(lab.settle(1, "release")) == [("GLU", "5.00", "F")]


def test_a_part_waits_for_what_is_held() -> None:
    lab = Lab(PLAIN, revision(PLAIN, wait=1800.0))
    first = lab.decided(result("K", "7"), result("GLU", "5"), result("NA", "99.9"))
    assert [(out.wait, observations(out.payload)) for out in first.outgoing] == [
        (1800.0, [("GLU", "5.00", "F"), ("NA", "100", "F")])
    ]
    whole = lab.settle(0, "release", together=frozenset({"his", "gone"}))
    assert sent(whole) == [("K", "7.00", "F"), ("GLU", "5.00", "F"), ("NA", "100", "F")]
    assert whole is not None
    assert [out.wait for out in whole.outgoing] == [0.0]
    assert [out.wait for out in lab.decided(result("TSH", "1.2")).outgoing] == [0.0]


def test_a_part_that_waits_for_something_rejected_leaves_at_once() -> None:
    lab = Lab(PLAIN, revision(PLAIN, wait=1800.0))
    lab.decided(result("K", "7"), result("GLU", "5"), result("ABO", "A"))
    assert sent(lab.settle(0, "reject", "K", together=frozenset({"his"}))) == []  # the blood group is still held
    last = lab.settle(0, "reject", together=frozenset({"his"}))
    assert sent(last) == [("GLU", "5.00", "F")]
    assert last is not None
    assert [out.wait for out in last.outgoing] == [0.0]


# -- a code that the map holds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["remap", "release"])
def test_what_the_map_held_leaves_when_the_map_reports_it(action: Any) -> None:
    """The line named its test all the time."""
    lab = Lab(analyzer(more_codes="LOOK,mmol/L,K,hold\n"))
    held = lab.decided(result("LOOK", "4.1", unit="mmol/L"))
    assert [(one.test, one.value, one.verdict.action) for one in held.decision.results] == [("K", "", "hold")]
    assert lab.settle(0, action) is None
    assert sent(lab.settle(0, action, rules=analyzer(more_codes="LOOK,mmol/L,K,\n"))) == [("K", "4.10", "F")]


def test_a_line_that_holds_keeps_back_the_panels_of_its_test_alone() -> None:
    said = (result("LOOK", "4.1", unit=""), result("GLU", "5"), result("HGB", "140"))
    outcome = Lab(analyzer(hold="panel")).decided(*said)
    assert actions(outcome.decision.results) == {"LOOK": "hold", "GLU": "hold", "HGB": "release"}
    assert codes(outcome.decision.results) == ["held-by-map", "held-with"]


# -- a person's word -------------------------------------------------------------------------------------------------


def test_a_person_releases_all_or_what_is_named() -> None:
    lab = Lab()
    lab.decided(result("K", "7"), result("ABO", "A"), result("GLU", "5"))
    assert lab.settle(0, "release", "GLU") is None
    named = lab.settle(0, "release", "K")
    assert named is not None
    assert sent(named) == [("K", "7.00", "F")]
    assert (named.state, named.decision.actor, named.decision.comment) == ("held", "tech", "seen")
    assert codes(named.decision.results) == ["critical"]  # why it was held stays with it
    assert sent(lab.settle(0, "release")) == [("ABO", "A", "F")]
    assert lab.outcomes[0].state == "released"
    assert lab.settle(0, "release") is None


def test_what_has_no_value_or_was_taken_back_cannot_be_released() -> None:
    lab = Lab()
    lab.decided(result("K", "hemolysed"), result("XYZ", "1"), *(result("NA", "140", status=status) for status in "DWX"))
    assert lab.settle(0, "release") is None
    settled = lab.settle(0, "reject")
    assert settled is not None
    assert settled.state == "rejected"


@pytest.mark.parametrize(("status", "delivered"), [("R", "F"), ("P", "P"), ("C", "C"), ("I", "F")])
def test_a_released_result_has_a_status_that_the_hospital_knows(status: str, delivered: str) -> None:
    """# conformance: D19, F02."""
    lab = Lab()
    lab.decided(result("K", "7", status=status))
    assert sent(lab.settle(0, "release")) == [("K", "7.00", delivered)]


def test_a_test_that_was_final_before_is_released_as_a_correction() -> None:
    lab = Lab()
    lab.decided(result("K", "4", at=-900))
    lab.decided(result("K", "4.2"))
    assert sent(lab.settle(1, "release")) == [("K", "4.20", "C")]


def test_a_release_that_cannot_be_written_is_refused() -> None:
    lab = Lab(PLAIN, revision(PLAIN, charset="ASCII"))
    lab.decided(result("K", "7"), patient=Patient(id="P1", family="王"))
    with pytest.raises(UnwritableError):
        lab.settle(0, "release")


# -- mapped afterwards -----------------------------------------------------------------------------------------------

MORE = "XYZ,mmol/L,NA,\nOLD,,,ignore\n"


def test_what_has_a_mapping_now_is_verified_anew_with_what_it_kept_back() -> None:
    rules = analyzer(hold="panel")
    lab = Lab(rules)
    first = lab.decided(result("K", "4"), result("XYZ", "140"), result("TSH", "1.2"), result("OLD", "1"))
    assert actions(first.decision.results) == {"K": "hold", "XYZ": "hold", "TSH": "release", "OLD": "hold"}
    assert lab.settle(0, "remap") is None  # still unmapped
    settled = lab.settle(0, "remap", rules=analyzer(hold="panel", more_codes=MORE))
    assert sent(settled) == [("K", "4.00", "F"), ("NA", "140", "F")]
    assert settled is not None
    assert actions(settled.decision.results) == {"K": "release", "XYZ": "release", "OLD": "ignore"}
    assert settled.state == "released"


def test_what_is_still_held_keeps_back_what_it_kept_back() -> None:
    lab = Lab(analyzer(hold="panel"))
    lab.decided(result("K", "7"), result("GLU", "5"), result("XYZ", "140"), result("ABC", "1"))
    settled = lab.settle(0, "remap", rules=analyzer(hold="panel", more_codes=MORE))
    assert settled is not None
    assert (settled.state, settled.outgoing) == ("held", ())
    assert [(one.test, one.verdict.reasons[0].code) for one in settled.decision.results] == [("NA", "held-with")]


def test_what_was_released_of_a_report_is_no_repeat_of_itself() -> None:
    lab = Lab(analyzer(hold="panel"))
    lab.decided(result("K", "7"), result("XYZ", "140"), result("GLU", "5"))
    assert sent(lab.settle(0, "release", "K", "GLU")) == [("K", "7.00", "F"), ("GLU", "5.00", "F")]
    assert sent(lab.settle(0, "remap", rules=analyzer(hold="panel", more_codes=MORE))) == [("NA", "140", "F")]


def test_a_mapping_that_took_days_makes_nothing_stale() -> None:
    lab = Lab(analyzer(stale=3600.0))
    lab.decided(result("XYZ", "140"))
    lab.seconds += 7 * 86400
    assert sent(lab.settle(0, "remap", rules=analyzer(stale=3600.0, more_codes=MORE))) == [("NA", "140", "F")]


def test_what_another_report_released_meanwhile_is_a_repeat() -> None:
    lab = Lab()
    lab.decided(result("XYZ", "140", at=-900))
    lab.decided(result("NA", "141"))
    settled = lab.settle(0, "remap", rules=analyzer(more_codes=MORE))
    assert settled is not None
    assert codes(settled.decision.results) == ["repeat"]


def test_a_person_may_release_what_has_a_mapping_by_now() -> None:
    lab = Lab()
    lab.decided(result("XYZ", "140"), result("OLD", "1"), result("ABC", "1"))
    settled = lab.settle(0, "release", rules=analyzer(more_codes=MORE))
    assert sent(settled) == [("NA", "140", "F")]
    assert settled is not None
    assert actions(settled.decision.results) == {"XYZ": "release", "OLD": "ignore"}
    assert settled.state == "held"


def test_a_mapped_result_that_cannot_be_written_is_held() -> None:
    lab = Lab()
    lab.decided(result("XYZ", "140"), patient=Patient(id="P1", family="王"))
    lab.revision = revision(PLAIN, charset="ASCII")
    rules = analyzer(more_codes=MORE)
    outcome = lab.outcomes[0]
    context = Context({"S1": [lab._now(outcome)]})
    settled = settling.settle(
        outcome.report,
        outcome.decision.results,
        "remap",
        frozenset(),
        Decision((), "tech"),
        "S1",
        context,
        rules,
        revision(rules, charset="ASCII"),
        moment(),
    )
    assert settled is not None
    assert (settled.state, settled.outgoing, settled.decision.results[0].test) == ("held", (), "NA")
    assert codes(settled.decision.results) == ["unwritable-charset"]


LAST = 250e9  # a moment near the end of the calendar


# -- MSH-10 ----------------------------------------------------------------------------------------------------------


@given(st.floats(0, LAST), st.floats(0.001, 1e9), st.binary(min_size=14, max_size=14))
@settings(max_examples=200)
def test_a_control_id_is_twenty_characters_and_later_ones_sort_after_earlier(at: float, later: float, bits: bytes) -> None:
    at = min(at, LAST - later)
    first = Moment.of(at, ZONE, lambda n: bits[:n]).control_id()
    second = Moment.of(at + later, ZONE, lambda n: bits[n:]).control_id()
    assert len(first) == len(second) == 20
    assert (first + second).isalnum()
    assert (first + second).isascii()
    if int((at + later) * 1000) > int(at * 1000):
        assert first < second
    if bits[:7] == bits[7:] and int(at * 1000) == int((at + later) * 1000):
        assert first == second


def test_control_ids_of_one_moment_differ() -> None:
    numbers = iter(range(1, 3000))
    now = Moment.of(NOW, ZONE, lambda n: next(numbers).to_bytes(n, "big"))
    assert len({now.control_id() for _ in range(2000)}) == 2000


def test_a_moment_is_stamped_in_the_sites_zone() -> None:
    assert Moment.of(NOW, ZONE, bytes).stamp == "20261121101500+0800"
    assert Moment.of(NOW, ZoneInfo("UTC"), bytes).stamp == "20261121021500+0000"


# -- everything ------------------------------------------------------------------------------------------------------

ANY_RESULT = st.builds(
    result,
    st.sampled_from(["K", "GLU", "HGB", "HIV", "ABO", "TSH", "PNG", "LOOK", "XYZ", ""]),
    st.sampled_from(["4.1", "7", "99999", "", "***", "POS", "NEG", "<0.1", "A", "1e400", "nan"]),
    at=st.sampled_from([None, -600.0, -60.0, -9e6]),
    status=st.sampled_from(["F", "P", "C", "R", "X", "W", ""]),
    alarms=st.sampled_from([(), ("E1",)]),
    problems=st.sampled_from([(), (Reason("bad-time"),)]),
)
ANY_REPORT = st.builds(
    Report,
    st.builds(Specimen, id=st.sampled_from(["", "S1", "S1", "S2", "QC-1"])),
    st.lists(ANY_RESULT, max_size=5).map(tuple),
    st.sampled_from(["patient", "patient", "patient", "qc", "calibration", "test", "unknown"]),
    st.builds(Patient, id=st.sampled_from(["", "P1", "P2"]), sex=st.sampled_from(["", "M", "F"])),
    st.sampled_from([(), (), (Reason("specimen-conflict"),)]),
)


@given(
    st.lists(ANY_REPORT, max_size=6),
    st.sampled_from(["barcode", "sample-number", "patient"]),
    st.sampled_from(["result", "panel", "report"]),
    st.sampled_from(["hold", "latest-measured", "first"]),
    st.sampled_from(["changed", "cumulative"]),
)
@settings(max_examples=80, deadline=None)
def test_nothing_is_lost_or_sent_that_may_not_be(reports: list[Report], identity: str, hold: str, repeat: str, resend: str) -> None:
    """Every result has one verdict, in its place; a payload has what was released and belongs to a patient with an identity."""
    rules = analyzer(identity=identity, hold=hold, repeat=repeat)
    lab = Lab(rules, revision(rules, resend=resend))
    for said in reports:
        outcome = lab.take(said)
        if outcome is None:
            continue
        decided = outcome.decision.results
        assert [one.index for one in decided] == list(range(len(said.results)))
        released = [one for one in decided if one.verdict.action == "release"]
        assert all(one.test and one.value and one.status in ("F", "C", "P") for one in released)
        assert bool(outcome.outgoing) == bool(released)
        assert not released or (said.role == "patient" and outcome.key and not said.problems)
        seen = {*actions(decided).values()}
        assert ("hold" in seen or (bool(said.problems) and seen <= {"ignore"})) >= (outcome.state == "held")
        for out in outcome.outgoing:
            rows = observations(out.payload)
            assert out.lane == outcome.key
            assert {(one.test, one.value, one.status) for one in released} <= set(rows)
            assert resend == "cumulative" or len(rows) == len(released)


def test_a_cumulative_message_repeats_of_a_test_what_was_measured_last() -> None:
    """Also when a person releases the rest of an older report."""
    rules = analyzer(repeat="latest-measured")
    lab = Lab(rules, revision(rules, resend="cumulative"))
    lab.decided(result("K", "4.1", at=-900), result("ABO", "A", at=-900))
    lab.decided(result("K", "4.4", at=-300))
    assert sent(lab.settle(0, "release")) == [("ABO", "A", "F"), ("K", "4.40", "C")]
