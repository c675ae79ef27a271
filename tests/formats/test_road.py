"""From the analyzer's bytes to the hospital's: digits, flags, statuses, times and names arrive as they were sent, or are held."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import pipeline, profiles
from labbridge.context import Context
from labbridge.formats import hl7v2, oru
from labbridge.formats.er7 import Segment, parse
from labbridge.formats.oru import OruForm
from labbridge.mapping.catalogue import Test
from labbridge.mapping.codes import CodeMap, Rule
from labbridge.pipeline import AnalyzerRules, Outcome, Outlet
from tests.small_lab import ZONE, analyzer, codes, moment, revision

BARE = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "{}"\n'
PROTOCOLS = ("hl7v2", "lis02")
HEADER = "MSH|^~\\&|LAB|A|||20261117141503||ORU^R01|7|P|2.5.1"
FOREVER = 1e12  # seconds: nothing is too old


def rules_of(protocol: str, more: str = "", rule: Rule | None = None) -> AnalyzerRules:
    """An analyzer that speaks this protocol, with these lines in its profile; it sends one test, A, without a unit."""
    test_map = CodeMap({("A", "", ""): rule or Rule(Test("A", decimals=1))})
    profile = profiles.parse("m", BARE.format(protocol) + more)
    return msgspec.structs.replace(analyzer(stale=FOREVER), profile=profile, codes=test_map)


def message(protocol: str, value: str, *, flags: str = "", status: str = "F", time: str = "", family: str = "Doe") -> bytes:
    if protocol == "hl7v2":
        obx = f"OBX|1|NM|A||{value}|||{flags}|||{status}|||{time}"
        return f"{HEADER}\rPID|1||P1||{family}\rOBR|1||S1\r{obx}\r".encode()
    record = f"R|1|^^^A|{value}|||{flags}||{status}||||{time}"
    return f"H|\\^&|||An\rP|1|P1|||{family}\rO|1|S1\r{record}\rL|1|N\r".encode()


def decided(payload: bytes, rules: AnalyzerRules, form: OruForm | None = None) -> Outcome:
    (report,) = pipeline.read(payload, rules).reports
    writer = oru.compile(form or OruForm(), {}, zone=ZONE)
    compiled = msgspec.structs.replace(revision(rules), outlets={"his": Outlet("his", writer)})
    return pipeline.decide(report, "S1", b"", b"", Context(), rules, compiled, moment())


def delivered(outcome: Outcome, name: str = "OBX", charset: str = "utf-8") -> Segment:
    """The one segment of this name in the one message that leaves."""
    (outgoing,) = outcome.outgoing
    (segment,) = parse(outgoing.payload.decode(charset)).all(name)
    return segment


@given(st.integers(0, 10**15), st.integers(0, 12), st.sampled_from(("", "-")), st.sampled_from(PROTOCOLS))
@settings(max_examples=150)
def test_digits_arrive_as_they_were_sent(digits: int, decimals: int, sign: str, protocol: str) -> None:
    """# conformance: D15."""
    text = sign + f"{Decimal(digits).scaleb(-decimals):f}" if digits else "0" + "." * bool(decimals) + "0" * decimals
    outcome = decided(message(protocol, text), rules_of(protocol, rule=Rule(Test("A", decimals=decimals))))
    assert (outcome.report.results[0].number, delivered(outcome).field(5)) == (text, text)


@given(
    st.decimals("-1e9", "1e9", places=7),
    st.decimals("0.00001", "100000", places=5),
    st.decimals("-100", "100", places=2),
    st.integers(0, 4),
    st.sampled_from(PROTOCOLS),
)
@settings(max_examples=150)
def test_a_converted_number_is_rounded_once(value: Decimal, factor: Decimal, offset: Decimal, decimals: int, protocol: str) -> None:
    """# conformance: D15."""
    outcome = decided(message(protocol, f"{value:f}"), rules_of(protocol, rule=Rule(Test("A", decimals=decimals), factor, offset)))
    exact = (Fraction(value) * Fraction(factor) + Fraction(offset)) * 10**decimals
    half_up = int(abs(exact) + Fraction(1, 2)) * (-1 if exact < 0 else 1)
    sent = delivered(outcome).field(5)
    assert Fraction(sent) * 10**decimals == half_up
    assert len(sent.partition(".")[2]) == decimals
    assert outcome.report.results[0].value == f"{value:f}", "the text that was sent stays beside it"


@pytest.mark.parametrize("flag", ["L", "H", "LL", "HH", "<", ">", "N", "A", "U", "D", "B", "W"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_analyzers_flags_are_those_of_table_0078(protocol: str, flag: str) -> None:
    """# conformance: B12."""
    outcome = decided(message(protocol, "1.0", flags=flag), rules_of(protocol), OruForm(flags="analyzer"))
    assert outcome.report.results[0].flags == (flag,)
    assert delivered(outcome).field(8) == flag
    assert delivered(decided(message(protocol, "1.0", flags=flag), rules_of(protocol))).field(8) == "", "the lab has no limits here"


@pytest.mark.parametrize(("protocol", "repeat"), [("hl7v2", "~"), ("lis02", "\\")])
def test_a_profile_says_what_a_flag_of_its_own_means(protocol: str, repeat: str) -> None:
    """# conformance: B12."""
    rules = rules_of(protocol, '[flags]\n"+" = "H"\nW = "A"\n"*" = ""\n')
    outcome = decided(message(protocol, "1.0", flags=repeat.join("+W*?")), rules, OruForm(flags="analyzer"))
    assert outcome.report.results[0].flags == ("H", "A", "?")
    assert delivered(outcome).field(8) == "H~A~?"


LEAVES = {
    "hl7v2": {"F": "F", "P": "P", "C": "C", "A": "C", "U": "F"},
    "lis02": {"F": "F", "P": "P", "C": "C", "R": "F", "V": "F", "Q": "F", "S": "P"},
}


@pytest.mark.parametrize("status", [*"ABCDFIMNOPQRSUVWXZ", "", "FINAL"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_not_known_to_be_valid_never_leaves_by_itself(protocol: str, status: str) -> None:
    """R is "not verified" in HL7 and "sent before" in ASTM; W and what is no status hold in both. # conformance: B13, D19."""
    outcome = decided(message(protocol, "1.0", status=status), rules_of(protocol))
    expected = LEAVES[protocol].get(status)
    if expected:
        assert (outcome.state, delivered(outcome).field(11)) == ("released", expected)
    else:
        assert (outcome.state, outcome.outgoing, codes(outcome.decision.results)) == ("held", (), ["status"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_profile_overrides_what_a_status_means(protocol: str) -> None:
    """# conformance: B13, D19."""
    rules = rules_of(protocol, '[status]\nR = "P"\n"" = "F"\nF = "R"\n')
    assert [decided(message(protocol, "1", status=status), rules).state for status in ("R", "", "F", "C")] == [
        *("released", "released", "held", "released")
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_value_that_was_deleted_is_no_value_that_was_not_sent(protocol: str) -> None:
    """Nothing at all is no news; "there is none any more" is for a person. # conformance: B07, D13."""
    empty = decided(message(protocol, "", status=""), rules_of(protocol))
    assert [one.verdict.action for one in empty.decision.results] == ["ignore"]
    deleted = decided(message(protocol, '""'), rules_of(protocol))
    assert (deleted.report.results[0].value, deleted.report.results[0].kind) == ('""', "absent")
    assert (deleted.state, deleted.outgoing, codes(deleted.decision.results)) == ("held", (), ["no-result"])


@pytest.mark.parametrize("kind", ["NM", "SN", "ST", "CE", "CWE", "ED", "RP", ""])
def test_a_deleted_value_is_one_in_every_type(kind: str) -> None:
    """# conformance: D13."""
    result = decided(message("hl7v2", '""').replace(b"|NM|", f"|{kind}|".encode()), rules_of("hl7v2")).report.results[0]
    assert (result.value, result.kind) == ('""', "absent")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_that_was_deleted_is_not_filled_in(protocol: str) -> None:
    """# conformance: B07, D13."""
    outcome = decided(message(protocol, "1.0", family='""'), rules_of(protocol))
    assert outcome.report.patient.family == ""
    assert '""' not in delivered(outcome, "PID").field(5)


times = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31))


@given(times, st.sampled_from((12, 14, 16, 19)), st.sampled_from(PROTOCOLS))
@settings(max_examples=100)
def test_a_time_is_written_as_it_was_read(moment_: datetime, length: int, protocol: str) -> None:
    """No second is made up, and none is lost. # conformance: B20, D17."""
    text = f"{moment_:%Y%m%d%H%M%S.%f}"[:length]
    outcome = decided(message(protocol, "1.0", time=text), rules_of(protocol))
    assert outcome.report.results[0].measured == text
    assert (delivered(outcome).field(14), delivered(outcome, "OBR").field(7)) == (f"{text}+0800", f"{text}+0800")


@given(times, st.integers(-12 * 60, 14 * 60))
@settings(max_examples=60)
def test_an_offset_moves_no_instant(moment_: datetime, minutes: int) -> None:
    """# conformance: D17."""
    there = moment_.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=minutes)))
    outcome = decided(message("hl7v2", "1.0", time=f"{there:%Y%m%d%H%M%S%z}"), rules_of("hl7v2"))
    assert datetime.strptime(delivered(outcome).field(14), "%Y%m%d%H%M%S%z") == there


@pytest.mark.parametrize("time", ["2026", "202611", "20261117"])
def test_a_day_is_not_made_midnight(time: str) -> None:
    """# conformance: B20, D17."""
    outcome = decided(message("hl7v2", "1.0", time=time), rules_of("hl7v2"))
    assert (outcome.state, outcome.report.results[0].measured, delivered(outcome).field(14)) == ("released", time, "")


@pytest.mark.parametrize(("sent", "written"), [("UTF-8", "GB 18030-2000"), ("GB18030", "UTF-8"), ("GB18030", "GB18030")])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_rare_names_arrive_whatever_the_sets(protocol: str, sent: str, written: str) -> None:
    """# conformance: D11."""
    rules = rules_of(protocol, f'[link]\ncharset = ["{sent}"]\n')
    payload = message(protocol, "1.0", family="㐂𠮷").decode().encode(sent)
    outcome = decided(payload, rules, OruForm(charset=written))
    (outgoing,) = outcome.outgoing
    ((report,),) = [hl7v2.read(outgoing.payload, rules_of("hl7v2").profile, UTC).reports]
    assert (report.patient.family, report.problems) == ("㐂𠮷", ())


def test_japanese_is_written_as_it_is_read() -> None:
    """Kanji of whose bytes one is the escape character. # conformance: D08."""
    form = OruForm(charset="ISO-2022-JP", fields={"MSH-20": "ISO 2022-1994"})
    outcome = decided(message("hl7v2", "1.0", family="山本").decode().encode("iso2022_jp"), rules_of("hl7v2"), form)
    assert outcome.report.patient.family == "山本"
    (outgoing,) = outcome.outgoing
    header, patient = outgoing.payload.split(b"\r")[:2]
    assert header.split(b"|")[17:] == [b"~ISO IR87", b"", b"ISO 2022-1994"]
    assert patient.endswith(b"|\x1b$B;3K\\\x1b(B")
    assert decided(outgoing.payload, rules_of("hl7v2")).report.patient == outcome.report.patient


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_undecodable_byte_keeps_everything_back(protocol: str) -> None:
    """# conformance: D10."""
    payload = message(protocol, "1.0", family="M_LLER").replace(b"_", b"\xdc")
    outcome = decided(payload, rules_of(protocol))
    assert (outcome.state, outcome.outgoing, codes(outcome.decision.results)) == ("held", (), ["undecodable"])
    assert outcome.report.patient.family == "M<DC>LLER"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_undecodable_byte_of_a_specimen_makes_no_other_specimen(protocol: str) -> None:
    """It is shown as no protocol would cut it. # conformance: D10."""
    payload = message(protocol, "1.0").replace(b"|S1", b"|S1\xdc2")
    (report,) = pipeline.read(payload, rules_of(protocol)).reports
    assert (report.specimen.id, [reason.code for reason in report.problems]) == ("S1<DC>2", ["undecodable"])


@pytest.mark.parametrize(("protocol", "escaped"), [("hl7v2", "\\XC4E3\\"), ("lis02", "&XC4E3&")])
def test_bytes_in_hexadecimal_are_of_the_links_own_set(protocol: str, escaped: str) -> None:
    """# conformance: B04, D03."""
    rules = rules_of(protocol, '[link]\ncharset = ["UTF-8", "GB18030"]\n')
    assert decided(message(protocol, "1.0", family=escaped), rules).report.patient.family == "你"
