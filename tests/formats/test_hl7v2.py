"""HL7 v2 results: each keeps to its own specimen, patient and code, and what cannot be trusted says so."""

import base64
from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbridge import profiles
from labbridge.formats import hl7v2
from labbridge.model import Reading, Reason, RemoteProtocolError, Report, Result
from labbridge.profiles import Profile

ANALYZERS = Path(__file__).parents[2] / "analyzers"
BARE = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "hl7v2"\n'
GENERIC = profiles.load("generic-hl7", [ANALYZERS])
MSH = "MSH|^~\\&|LAB^X|A|||20261117141503||ORU^R01|7|P|2.5.1"
UNREADABLE = (Reason("unreadable-value"),)
PID = "PID|1||P1||Doe^Jo||19900102|F"
OBR = "OBR|1|ORD1|S1|T"
GLU = "OBX|1|NM|GLU^Glucose||5.6|mmol/L|3.9-6.1|N|||F|||20261117141201"
NA = "OBX|2|NM|NA^Sodium||139|mmol/L|135-145|N|||F|||20261117141201"


def profile(more: str) -> Profile:
    return profiles.parse("m", BARE + more)


def payload(*segments: str) -> bytes:
    return "\r".join(segments).encode() + b"\r"


def read(*segments: str, of: Profile = GENERIC) -> Reading:
    return hl7v2.read(payload(*segments), of, UTC)


def report(*segments: str, of: Profile = GENERIC) -> Report:
    (only,) = read(*segments, of=of).reports
    return only


def result(obx: str, of: Profile = GENERIC) -> Result:
    return report(MSH, OBR, obx, of=of).results[0]


def values(found: Report) -> list[tuple[str, str]]:
    return [(each.code, each.value) for each in found.results]


def problems(found: Report | Reading) -> list[str]:
    return [reason.code for reason in found.problems]


def refused(*segments: str) -> RemoteProtocolError:
    with pytest.raises(RemoteProtocolError) as caught:
        read(*segments)
    return caught.value


def test_a_result_is_read_whole() -> None:
    reading = read(MSH, PID, "PV1|1|I|ICU^3", "ORC|RE|ORD1", OBR, GLU + "||op7", "NTE|1|L|haemolytic \\T\\ lipaemic")
    (found,) = reading.reports
    assert (reading.control_id, reading.type, reading.problems) == ("7", "ORU^R01", ())
    assert (found.specimen.id, found.role, found.order, found.sender) == ("S1", "patient", "ORD1", "LAB")
    assert (found.sent, found.sent_at) == ("20261117141503", 1794924903)
    assert found.patient.id == "P1"
    assert (found.patient.family, found.patient.given, found.patient.birth) == ("Doe", "Jo", "19900102")
    assert (found.patient.sex, found.patient.location) == ("F", "ICU")
    assert found.results == (
        Result(
            code="GLU",
            value="5.6",
            kind="number",
            number="5.6",
            unit="mmol/L",
            flags=("N",),
            name="Glucose",
            reference="3.9-6.1",
            measured="20261117141201",
            measured_at=1794924721,
            operator="op7",
            comments=("haemolytic & lipaemic",),
        ),
    )


def test_two_specimens_one_message() -> None:
    found = read(MSH, PID, OBR, GLU, "OBR|2|ORD2|S2|T", NA).reports
    assert [(each.specimen.id, values(each)) for each in found] == [("S1", [("GLU", "5.6")]), ("S2", [("NA", "139")])]


def test_orders_of_one_specimen_are_one_report() -> None:
    found = report(MSH, PID, OBR, GLU, "OBR|2|ORD2|S1|T2", NA)
    assert values(found) == [("GLU", "5.6"), ("NA", "139")]
    assert found.order == "ORD1"


def test_rerun_same_test() -> None:
    """# conformance: B22, D20."""
    found = report(MSH, OBR, GLU.replace("||5.6", "|1|5.6"), GLU.replace("||5.6", "|2|5.9"))
    assert [(each.run, each.value) for each in found.results] == [("1", "5.6"), ("2", "5.9")]


def test_inserted_obx_no_shift() -> None:
    inserted = report(MSH, OBR, GLU, "OBX|9|ST|NEW||odd", "ZZZ|1|x", NA)
    assert {code: value for code, value in values(inserted) if code != "NEW"} == dict(values(report(MSH, OBR, GLU, NA)))


def test_parse_error_no_neighbour_value() -> None:
    found = report(MSH, OBR, GLU, "OBX|2|NM|K|", "OBX", "OBX|4|NM", NA)
    assert values(found) == [("GLU", "5.6"), ("K", ""), ("", ""), ("", ""), ("NA", "139")]
    assert [each.kind for each in found.results[1:4]] == ["absent"] * 3
    assert found.results[2].problems == (Reason("no-code"),)


def test_unknown_flag_value() -> None:
    assert result("OBX|1|NM|GLU||5.6|||H~??~~A^x").flags == ("H", "??", "A")


@pytest.mark.parametrize(("sent", "status"), [*((code, code) for code in "CDFINOPRSUWX"), ("", "N"), ("Y?", "N"), ("f", "N")])
def test_a_status_is_never_taken_for_final(sent: str, status: str) -> None:
    """# conformance: D19, E24."""
    assert result(f"OBX|1|NM|GLU||5.6||||||{sent}").status == status


def test_a_result_before_any_specimen_is_held() -> None:
    found = read(MSH, PID, NA, OBR, GLU).reports
    assert [(each.specimen.id, problems(each)) for each in found] == [("", ["no-specimen"]), ("S1", [])]


def test_orders_without_a_specimen_stay_apart() -> None:
    found = read(MSH, PID, "OBR|1|||T", GLU, "OBR|2|||T", NA).reports
    assert [(values(each), problems(each)) for each in found] == [
        ([("GLU", "5.6")], ["no-specimen"]),
        ([("NA", "139")], ["no-specimen"]),
    ]


@pytest.mark.parametrize("other", ["P2||Doe^Jo||19900102|F", "P1||Roe^Jo", "P1||Doe^Al", "P1||||19900103", "P1|||||M"])
def test_one_specimen_of_two_patients_is_held(other: str) -> None:
    assert problems(report(MSH, PID, OBR, GLU, f"PID|2||{other}", OBR, NA)) == ["patient-conflict"]


def test_a_patient_told_in_part_is_the_same_one() -> None:
    found = report(MSH, "PID|1||||Doe", OBR, GLU, "PID|1||P1", OBR, NA)
    assert (found.problems, found.patient.id, found.patient.family) == ((), "P1", "Doe")


def test_two_patients_of_one_message_keep_their_own_specimens() -> None:
    found = read(MSH, PID, OBR, GLU, "PID|2||P2||Roe^Al", "OBR|1||S2", NA).reports
    assert [(each.specimen.id, each.patient.id, each.problems) for each in found] == [("S1", "P1", ()), ("S2", "P2", ())]


def test_a_specimen_segment_that_says_otherwise_holds_the_report() -> None:
    assert problems(report(MSH, "SPM|1|S2&LAB^S9", OBR, GLU)) == ["specimen-conflict"]
    assert problems(report(MSH, "SPM|1|S1&LAB", OBR, GLU)) == []
    assert problems(report(MSH, "SPM|1|S2", "OBR|1", GLU)) == ["no-specimen"]


SPM = profile('[specimen]\nid = "SPM-2.1.1"\n')


def test_the_specimen_may_come_first_or_last() -> None:
    """# conformance: F06."""
    first = read(MSH.replace("ORU^R01", "OUL^R22"), PID, "SPM|1|S1", OBR, GLU, "SPM|2|S2", "OBR|2", NA, of=SPM)
    last = read(MSH, PID, OBR, GLU, "SPM|1|S1", "OBR|2", NA, "SPM|1|S2", of=SPM)
    between = read(MSH.replace("ORU^R01", "OUL^R24"), PID, OBR, "SPM|1|S1", GLU, "OBR|2", "ORC|RE", "SPM|1|S2", NA, of=SPM)
    expected = [("S1", [("GLU", "5.6")]), ("S2", [("NA", "139")])]
    for reading in (first, last, between):
        assert [(each.specimen.id, values(each)) for each in reading.reports] == expected


def test_one_specimen_serves_all_its_orders() -> None:
    found = report(MSH.replace("ORU^R01", "OUL^R22"), "SPM|1|S1^||SER", "SAC|||S1|||||||R4|7", OBR, GLU, "OBR|2", NA, of=SPM)
    assert values(found) == [("GLU", "5.6"), ("NA", "139")]
    assert (found.specimen.type, found.specimen.rack, found.specimen.position) == ("SER", "R4", "7")


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("SPM|1|S1||SER|||||||||||||20261121080000", "SPM|2|S1||UR", ["specimen-conflict"]),
        ("SPM|1|S1|||||||||||||||20261121080000", "SPM|2|S1|||||||||||||||20261121090000", ["bad-time"]),
        ("SPM|1|S1|||||||||||||||20261121080000", "SPM|2|S1|||||||||||||||20261121", ["bad-time"]),
        ("SPM|1|S1||SER|||||||||||||20261121080000", "SPM|2|S1||SER|||||||||||||20261121080000", []),
        ("SPM|1|S1", "SPM|2|S1||SER|||||||||||||20261121080000", []),
        ("SPM|1|S1||SER", "SPM|2|S1|||||||||||||||20261121080000", []),
    ],
)
def test_orders_of_one_specimen_agree_on_what_it_is(first: str, second: str, found: list[str]) -> None:
    """What one order says of its tube's type and of the time when it was drawn holds for the other order's results."""
    said = report(MSH, OBR, GLU, first, "OBR|2", NA, second, of=SPM)
    assert problems(said) == found
    dated = found != ["bad-time"]
    assert (said.specimen.type, said.specimen.collected) == (("SER", "20261121080000") if dated else ("", ""))
    assert (said.specimen.collected_at is None) != dated


def test_times_of_collection_that_disagree_are_not_told() -> None:
    """Also where a third order agrees with one of them."""
    times = ("20261121080000", "20261121090000", "", "20261121080000", "20261121100000")
    orders = [line for time in times for line in (OBR, GLU, f"SPM|1|S1|||||||||||||||{time}")]
    said = report(MSH, *orders, of=SPM)
    assert (said.specimen.collected, said.specimen.collected_at, problems(said)) == ("", None, ["bad-time"])


def test_two_specimens_for_one_order_hold_the_report() -> None:
    assert problems(report(MSH, OBR, GLU, "SPM|1|S1", "SPM|2|S2", of=SPM)) == ["specimen-conflict"]


@pytest.mark.parametrize(
    "order",
    [
        ("ORC|RE|A", "OBR|1||S1", GLU, "ORC|RE|B", "OBR|2||S2", NA),
        ("OBR|1||S1", "ORC|RE|A", GLU, "OBR|2||S2", "ORC|RE|B", NA),
        ("OBR|1||S1", "ORC|RE|A", GLU, "ORC|RE|B", "OBR|2||S2", NA),
    ],
)
def test_an_orc_before_or_after_its_obr_moves_no_order(order: tuple[str, ...]) -> None:
    """# conformance: F09."""
    found = read(MSH, PID, *order).reports
    assert [(each.specimen.id, each.order, values(each)[0][0]) for each in found] == [("S1", "A", "GLU"), ("S2", "B", "NA")]


@pytest.mark.parametrize(
    ("msh11", "spm11", "role"),
    [
        ("P", "", "patient"),
        ("P^T", "P", "patient"),
        ("", "", "patient"),
        ("Q", "", "qc"),
        ("P", "Q", "qc"),
        ("P", "C", "calibration"),
        ("T", "", "test"),
        ("D", "", "test"),
        ("X", "", "unknown"),
    ],
)
def test_only_a_patients_results_are_a_patients(msh11: str, spm11: str, role: str) -> None:
    """# conformance: B21, E19."""
    assert report(MSH.replace("|7|P|", f"|7|{msh11}|"), OBR, GLU, f"SPM|1{10 * '|'}{spm11}").role == role


def test_a_profile_overrides_what_marks_a_role() -> None:
    live = profile('[roles]\ntest = { "MSH-11.1" = "D" }\nunknown = { "MSH-11.1" = "[^PT]" }\n')
    assert report(MSH.replace("|7|P|", "|7|T|"), OBR, GLU, of=live).role == "patient"


def test_controls_may_stand_in_an_order_without_results() -> None:
    bs = profiles.load("mindray-bs", [ANALYZERS])
    head = "MSH|^~\\&|||||20261118071544||ORU^R01|3|P|2.3.1||||2||ASCII"
    row = "|^|Serum|20261118070100|20261118065500|20261118071210|||1|1|CTRL|L1|20270630||M|{}|0.2|{}|mmol/L"
    found = read(head, "OBR|1|101|GLU" + row.format("5.5", "5.6"), "OBR|2|102|UREA" + row.format("7.1", "***"), of=bs).reports
    assert [(each.specimen.id, each.role, values(each), each.control["target"]) for each in found] == [
        ("CTRL/L1", "qc", [("GLU", "5.6")], "5.5"),
        ("CTRL/L1", "qc", [("UREA", "***")], "7.1"),
    ]
    (with_results,) = read(head, "OBR|1|101|GLU" + row.format("5.5", "5.6"), GLU, of=bs).reports
    assert (with_results.role, values(with_results)) == ("qc", [("GLU", "5.6")])


def test_the_code_is_in_obx4_only_where_the_profile_says_so() -> None:
    nameless = "OBX|1|NM||ALT1|5.6"
    assert result(nameless).problems == (Reason("no-code"),)
    assert result(nameless, profile('[result]\ncode = ["OBX-3.1", "OBX-4.1"]\n')).code == "ALT1"


def test_a_time_that_is_none_holds_its_result() -> None:
    found = result("OBX|1|NM|GLU||5.6||||||F|||17.11.2026")
    assert (found.measured, found.measured_at, found.problems) == ("17.11.2026", None, (Reason("bad-time"),))


def test_times_take_the_headers_offset_else_the_senders_zone() -> None:
    """# conformance: D17."""
    zone = ZoneInfo("Asia/Tokyo")
    local = hl7v2.read(payload(MSH, OBR, GLU), GENERIC, zone).reports[0]
    offset = hl7v2.read(payload(MSH.replace("141503", "141503+0000"), OBR, GLU), GENERIC, zone).reports[0]
    assert local.results[0].measured_at == 1794924721 - 9 * 3600
    assert offset.results[0].measured_at == 1794924721
    assert offset.sent_at == 1794924903


def test_values_are_read_by_their_type() -> None:
    """# conformance: D16, D21."""
    found = report(
        *(MSH, OBR, "OBX|1|SN|A||<^20", "OBX|2|CWE|B||N^Neg^L", "OBX|3|NM|C||>=32", "OBX|4|ST|D||a\\F\\b", "OBX|5|RP|E||//x^a"),
        *("OBX|6|FT|F||one~two", "OBX|7||G||2.35", 'OBX|8|NM|H||""'),
    )
    assert [(each.value, each.kind) for each in found.results] == [
        *(("<20", "comparator"), ("N", "coded"), (">=32", "comparator"), ("a|b", "text"), ("//x", "attachment")),
        *(("one~two", "text"), ("2.35", "number"), ('""', "absent")),
    ]


def test_a_comment_that_is_the_value_is_not_told_twice() -> None:
    beside = profile('[result]\nvalue = ["OBX-5.2", "OBX-5.1"]\ncomments = ["OBX-5.1", "NTE-3"]\n')
    assert (result("OBX|1|ST|A||-1^0.3", beside).value, result("OBX|1|ST|A||-1^0.3", beside).comments) == ("0.3", ("-1",))
    assert (result("OBX|1|ST|A||NEG^", beside).value, result("OBX|1|ST|A||NEG^", beside).comments) == ("NEG", ())


def test_alarms_and_edits_are_where_the_profile_says() -> None:
    told = profile(
        '[result]\nalarms = ["OBX-18.1", "NTE-4"]\nedited = { from = "OBX-13", pattern = "E" }\n[alarms]\nnone = ["0"]\n'
    )
    notes = ("NTE|1|L||9", "NTE|2|L|free", "NTE|3||free|0")
    found = report(MSH, OBR, f"{GLU}||||A~0~B", *notes, "OBX|2|NM|K||4||||||F||E", of=told)
    assert (found.results[0].alarms, found.results[0].comments) == (("A", "B", "9"), ("free",))
    assert [each.edited for each in found.results] == [False, True]


def test_notes_belong_to_what_is_before_them() -> None:
    found = report(MSH, PID, "NTE|1|L|patient", OBR, "NTE|1|L|order", GLU, "NTE|1|L|result", NA)
    assert found.comments == ("patient", "order")
    assert [each.comments for each in found.results] == [("result",), ()]


def test_an_order_without_results_is_shown() -> None:
    assert problems(report(MSH, PID, OBR)) == ["no-results"]
    reading = read(MSH, PID)
    assert (reading.reports, problems(reading)) == ((), ["no-results"])


def test_no_msh9() -> None:
    error = refused(MSH.replace("ORU^R01", ""), OBR, GLU)
    assert (error.reason.code, error.supported, error.error_code) == ("no-message-type", True, "101")


@pytest.mark.parametrize(
    ("header", "code", "supported", "error_code"),
    [
        (MSH.replace("ORU^R01", "ADT^A01"), "unsupported-type", False, "200"),
        (MSH.replace("ORU^R01", "ORU^R03"), "unsupported-type", False, "201"),
        (MSH.replace("ORU^R01", "ACK"), "unsupported-type", False, "200"),
        (MSH.replace("ORU^R01", "ORM^O01"), "unsupported-type", False, "200"),
        (MSH.replace("2.5.1", "2.1"), "unsupported-version", False, "203"),
        (MSH.replace("2.5.1", "3.0"), "unsupported-version", False, "203"),
        (MSH.replace("|2.5.1", ""), "no-version", True, "101"),
        (MSH.replace("MSH", "PID"), "no-header", True, "100"),
        ("MSH|^~", "unusable-delimiters", True, "102"),
        ("", "no-header", True, "100"),
    ],
)
def test_what_is_not_ours_is_told_apart_from_what_cannot_be_read(header: str, code: str, supported: bool, error_code: str) -> None:
    """# conformance: C14, C15."""
    error = refused(header, OBR, GLU)
    assert (error.reason.code, error.supported, error.error_code) == (code, supported, error_code)


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.5^ISO"])
@pytest.mark.parametrize("kind", ["ORU^R01", "ORU^R30", "ORU^R31", "ORU^R32^ORU_R30", "OUL^R21", "OUL^R23", "ORU"])
def test_all_that_carry_results_read_the_same(version: str, kind: str) -> None:
    """# conformance: F05, F06."""
    assert values(report(MSH.replace("ORU^R01", kind).replace("2.5.1", version), PID, OBR, GLU)) == [("GLU", "5.6")]


@pytest.mark.parametrize("kind", ["SSU^U03", "ESU^U01", "QCN^J01"])
def test_events_of_the_device_are_read_as_nothing(kind: str) -> None:
    """# conformance: F07, F08."""
    reading = read(MSH.replace("ORU^R01", kind), "EQU|1")
    assert (reading.reports, reading.queries, reading.problems, reading.type) == ((), (), (), kind)


def test_utf8_name_default_charset() -> None:
    found = report(MSH, "PID|1||P1||王^小明", OBR, GLU)
    assert (found.patient.family, found.problems) == ("王", ())


def test_latin1_byte() -> None:
    """# conformance: D10."""
    reading = hl7v2.read(payload(MSH, OBR, GLU).replace(b"mmol/L", b"\xb5mol/L"), GENERIC, UTC)
    assert problems(reading) == problems(reading.reports[0]) == ["undecodable"]
    assert reading.reports[0].results[0].unit == "<B5>mol/L"
    latin = profile('[link]\ncharset = ["UTF-8", "ISO-8859-1"]\n')
    assert hl7v2.read(payload(MSH, OBR, GLU).replace(b"mmol/L", b"\xb5mol/L"), latin, UTC).reports[0].results[0].unit == "µmol/L"


@pytest.mark.parametrize(
    ("msh18", "escaped", "unit"),
    [("", "\\XC2B5\\g", "µg"), ("8859/1", "\\XB5\\g", "µg"), ("NONSENSE", "\\XC2B5\\g", "µg"), ("", "\\Z03BC\\g", "\\Z03BC\\g")],
)
def test_escaped_bytes_are_of_the_messages_character_set(msh18: str, escaped: str, unit: str) -> None:
    """# conformance: D03, D05."""
    assert report(f"{MSH}||||||{msh18}", OBR, f"OBX|1|NM|A||1|{escaped}").results[0].unit == unit


def test_delimiters_come_from_the_header() -> None:
    """# conformance: D01."""
    found = report("MSH!#*/+!LAB!!!!20261117141503!!ORU#R01!7!P!2.5", "OBR!1!!S1", "OBX!1!ST!G#Glu!!a/F/b*c!u+v!!H*L!!!F")
    assert (found.results[0].code, found.results[0].value, found.results[0].flags) == ("G", "a!b*c", ("H", "L"))


def test_ed_70k() -> None:
    """# conformance: D21."""
    data = base64.b64encode(bytes(70_123)).decode()
    found = report(MSH, OBR, GLU, f"OBX|2|ED|IMG||S^Image^BMP^Base64^{data}", NA)
    assert values(found) == [("GLU", "5.6"), ("IMG", "image/bmp 70123 bytes"), ("NA", "139")]


@pytest.mark.parametrize(
    ("query", "of", "specimens", "every"),
    [
        (("QRY^Q02", "QRD|20261118|R|D|3|||RD|S1^|OTH"), GENERIC, ("S1",), False),
        (("QRY^Q02", "QRD|20261118|R|D|3|||RD||OTH", "QRF||2026"), GENERIC, (), True),
        (("QBP^Q11", "QPD|WOS^Work Order Step^IHELAW|t1|S1", "RCP|I"), GENERIC, ("S1",), False),
        (("QBP^Q11", "QPD|WOS_ALL^Work Order Step All^IHELAW|t1", "RCP|I"), GENERIC, (), True),
        (("ORM^O01", "ORC|RF||S1||IP"), profiles.load("mindray-bc", [ANALYZERS]), ("S1",), False),
    ],
)
def test_queries_name_their_specimens(query: tuple[str, ...], of: Profile, specimens: tuple[str, ...], every: bool) -> None:
    """# conformance: E05, E07, F04."""
    kind, *segments = query
    (asked,) = read(MSH.replace("ORU^R01", kind), *segments, "ZZZ|1", of=of).queries
    assert (asked.specimens, asked.all) == (specimens, every)
    assert asked.echo


def test_a_batch_is_read_message_by_message() -> None:
    """# conformance: C23."""
    other = MSH.replace("|7|", "|8|")
    reading = read("FHS|^~\\&", "BHS|^~\\&", MSH, OBR, GLU, other, "OBR|1||S2", NA, "BTS|2", "FTS|1")
    assert [each.specimen.id for each in reading.reports] == ["S1", "S2"]
    assert (reading.control_id, reading.type, reading.problems) == ("7", "ORU^R01", ())


def test_a_batch_of_none_is_legal() -> None:
    reading = read("FHS|^~\\&", "BHS|^~\\&", "BTS|0", "FTS|1")
    assert (reading.reports, reading.problems) == ((), ())


def test_a_batch_that_counts_wrong_is_refused_whole() -> None:
    assert refused("FHS|^~\\&", "BHS|^~\\&", MSH, OBR, GLU, "BTS|2", "FTS|1").reason.code == "batch-count"


def test_one_bad_message_of_a_batch_costs_no_other() -> None:
    bad = MSH.replace("ORU^R01", "")
    reading = read("FHS|^~\\&", MSH, OBR, GLU, bad, OBR, NA, bad, OBR, NA)
    assert [values(each) for each in reading.reports] == [[("GLU", "5.6")]]
    assert problems(reading) == ["no-message-type"]
    assert refused("FHS|^~\\&", bad, OBR, bad, OBR).reason.code == "no-message-type"


ORDER = ("ORC|RE|O", OBR, GLU, "NTE|1||m", NA, "SPM|1|S1")
WHOLE = payload(MSH, PID, "NTE|1||n", *ORDER, "OBR|2||S2", "OBX|1|SN|A||^1^:^8", "OBX|2|ED|I||^^^^")


@settings(max_examples=200)
@given(st.data())
def test_no_bytes_stop_the_reader(data: st.DataObject) -> None:
    """# conformance: K17."""
    start = data.draw(st.integers(0, len(WHOLE)))
    cut = data.draw(st.integers(0, 9))
    piece = data.draw(st.binary(max_size=6) | st.sampled_from([b"\r", b"|", b"\rPID|", b"\rOBR|||S3|"]))
    mutated = WHOLE[:start] + piece + WHOLE[start + cut :]
    for of in (GENERIC, SPM, profiles.load("mindray-bs", [ANALYZERS])):
        try:
            reading = hl7v2.read(mutated, of, UTC)
        except RemoteProtocolError:
            continue
        for found in reading.reports:
            assert found.specimen.id or "no-specimen" in problems(found)
            assert all(each.kind != "number" or each.number for each in found.results)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.lists(st.integers(0, 999), min_size=1, max_size=4)), min_size=1, max_size=6))
def test_every_result_stays_with_its_specimen(orders: list[tuple[str, list[int]]]) -> None:
    segments, expected = [MSH], dict[str, list[tuple[str, str]]]()
    for specimen, numbers in orders:
        segments.append(f"OBR|1||{specimen}")
        segments += [f"OBX|1|NM|{specimen}{number}||{number}||||||F" for number in numbers]
        expected.setdefault(specimen, []).extend((f"{specimen}{number}", str(number)) for number in numbers)
    assert {each.specimen.id: values(each) for each in read(*segments).reports} == expected


def timed(value: str, time: str) -> list[str]:
    return ["1", "NM", "GLU", "", value, *[""] * 8, time]


TEXT = st.sampled_from(["", "1", "NM", "SN", "20261117", "20261118", "20261117141201", "<^20261117"])


@example([timed("20261117", "20261117"), timed("5", "20261118"), timed("20261118", "20261117")])
@settings(max_examples=300)
@given(st.lists(st.lists(TEXT, min_size=3, max_size=20), min_size=1, max_size=8))
def test_a_record_reads_the_same_whatever_was_read_before_it(records: list[list[str]]) -> None:
    lines = ["|".join(["OBX", *fields]) for fields in records]
    together = report(MSH, OBR, *lines).results
    again = report(MSH, OBR, *lines[::-1]).results
    alone = []
    for line in lines:
        hl7v2._readers.cache_clear()
        alone += report(MSH, OBR, line).results
    assert [*together] == alone == [*again][::-1]


# -- what a profile says of whole records ----------------------------------------------------------------------------

GROUP = """
[[result.parts]]
when = { "OBX-3.1" = "ABORH" }
code = "{OBX-3.1}/ABO"
value = { from = "OBX-5.1", pattern = "(A|B|AB|O) (?:Pos|Neg)" }

[[result.parts]]
when = { "OBX-3.1" = "ABORH" }
code = "{OBX-3.1}/RhD"
value = { from = "OBX-5.1", pattern = "(?:A|B|AB|O) (Pos|Neg)" }
unit = ""
"""


def test_a_record_with_several_answers_becomes_as_many_results() -> None:
    of = profile(GROUP)
    found = report(MSH, OBR, GLU, "OBX|2|CE|ABORH||A Pos^x|u||H|||P|||20261117141201", "NTE|1||seen", NA, of=of).results
    assert [(each.code, each.value, each.unit) for each in found[1:3]] == [("ABORH/ABO", "A", "u"), ("ABORH/RhD", "Pos", "")]
    assert {(each.flags, each.status, each.measured_at, each.comments, each.problems) for each in found[1:3]} == {
        (("H",), "P", 1794924721, ("seen",), ())
    }
    assert [each.code for each in found] == ["GLU", "ABORH/ABO", "ABORH/RhD", "NA"]


def test_a_record_without_any_of_its_answers_stays_whole() -> None:
    assert values(report(MSH, OBR, "OBX|1|ST|ABORH||weak D", of=profile(GROUP))) == [("ABORH", "weak D")]


def test_a_part_whose_pattern_does_not_fit_is_held_beside_one_that_was_read() -> None:
    of = profile(GROUP.replace("(?:A|B|AB|O) (Pos|Neg)", "(?:A|B|AB|O) (Pos)"))
    first, second = report(MSH, OBR, "OBX|1|ST|ABORH||O Neg", of=of).results
    assert (first.code, first.value, first.problems) == ("ABORH/ABO", "O", ())
    assert (second.code, second.value, second.kind, second.problems) == ("ABORH/RhD", "O Neg", "text", UNREADABLE)
    plain = profile(GROUP + '[result]\nvalue = { from = "OBX-5", pattern = "[0-9]+" }\n')
    assert [each.problems for each in report(MSH, OBR, "OBX|1|ST|ABORH||O Neg", of=plain).results] == [(), ()]
    (whole,) = report(MSH, OBR, "OBX|1|ST|ABORH||weak D", of=plain).results
    assert (whole.value, whole.problems) == ("weak D", UNREADABLE)


@pytest.mark.parametrize(
    ("rule", "sent", "value", "problems"),
    [
        ('{ from = "OBX-5", pattern = "([0-9.]+) mg" }', "5.6 mg", "5.6", ()),
        ('{ from = "OBX-5", pattern = "([0-9.]+) mg" }', "5.6 g", "5.6 g", UNREADABLE),
        ('{ from = "OBX-5", pattern = "([0-9.]*)mg" }', "mg", "mg", UNREADABLE),
        ('[{ from = "OBX-5", pattern = "[0-9]+" }, { from = "OBX-7", pattern = "[0-9]+" }]', "x|u|9", "9", ()),
        ('[{ from = "OBX-5", pattern = "[0-9]+" }, { from = "OBX-7", pattern = "[0-9]+" }]', "x|u|y", "x", UNREADABLE),
        ('{ from = "OBX-5.1", pattern = "[0-9]+" }', "^x", "", ()),
        ('{ from = "OBX-5", pattern = "[0-9]+" }', "", "", ()),
        ('{ from = "OBX-5", pattern = "[0-9]+" }', '""', '""', ()),
        ('{ from = "OBX-5", pattern = "[0-9]+", when = { "OBX-5" = "[^x].*" } }', "x", "", ()),
    ],
)
def test_a_value_that_the_profile_cannot_read_is_held_as_it_was_sent(
    rule: str, sent: str, value: str, problems: tuple[Reason, ...]
) -> None:
    of = profile(f"[result]\nvalue = {rule}\n")
    timed = "OBX|1|ST|GLU||" + "|".join([*sent.split("|"), *[""] * 9][:9]) + "|20261117141201"
    for line in (f"OBX|1|ST|GLU||{sent}", f"OBX|1|ST|GLU||{sent}", timed, timed):
        found = result(line, of)
        assert (found.value, found.problems) == (value, problems)
        assert not problems or found.kind == "text"


def test_what_else_is_wrong_with_a_value_that_cannot_be_read_is_told_beside_it() -> None:
    of = profile('[result]\nvalue = { from = "OBX-5", pattern = "[0-9]+" }\n')
    found = report(MSH, OBR, "OBX|1|ST|||x|||||||||20261399", "NTE|1||why", of=of).results[0]
    assert [problem.code for problem in found.problems] == ["unreadable-value", "no-code", "bad-time"]
    assert found.comments == ("why",)


@pytest.mark.parametrize(
    ("line", "value", "kind"),
    [
        (r"OBX|1|CE|GLU||A\T\B^x^L", "A&B", "coded"),
        (r"OBX|1|CWE|GLU||\X4142\^x^L", "AB", "coded"),
        (r"OBX|1|SN|GLU||\X3E\^7", ">7", "comparator"),
        (r"OBX|1|ST|GLU||5\.br\6", r"5\.br\6", "text"),
    ],
)
def test_escapes_in_a_typed_value_are_resolved_component_by_component(line: str, value: str, kind: str) -> None:
    """# conformance: B05, D02, D03, D05."""
    found = result(line)
    assert (found.value, found.kind, found.problems) == (value, kind, ())


@pytest.mark.parametrize(
    "line", ["OBX|1|CE|GLU||A\\XFF\\^x", "OBX|1|CE|GLU||A~\\XFF\\", "OBX|1|ST|GLU||A\\XFF\\", "OBX|1|SN|GLU||^5\\XFF\\"]
)
def test_a_value_whose_bytes_are_of_no_set_is_held(line: str) -> None:
    """# conformance: D10."""
    found = result(line)
    assert (found.value.endswith("\\XFF\\"), found.kind != "number", found.problems) == (True, True, UNREADABLE)


@pytest.mark.parametrize(
    ("line", "notes"),
    [
        (r"OBX|1|ST|GLU||5 \ 3", ["lone-escape"]),
        (r"OBX|1|ST|GLU||C:\x|u\v", ["lone-escape"]),
        (r"OBX|1|ST|GLU||5 \T\ 3\.br\\H\x\N\\X41\\Zq\|", []),
        (r"OBX|1|ST|GLU||5 \X4\ 3", ["lone-escape"]),
        ("OBX|1|ST|GLU||5", []),
    ],
)
def test_a_lone_escape_character_is_kept_as_text_and_noted(line: str, notes: list[str]) -> None:
    """# conformance: D06."""
    reading = read(MSH, OBR, line)
    assert [note.code for note in reading.notes] == notes
    assert reading.problems == reading.reports[0].problems == reading.reports[0].results[0].problems == ()
    batch = hl7v2.read(payload(MSH, OBR, line, MSH, OBR, line), GENERIC, UTC)
    assert [note.code for note in batch.notes] == notes


@pytest.mark.parametrize(
    ("sent", "collected", "at"),
    [
        ("20261117133000", "20261117133000", 1794922200),
        ("202611171330+0800", "202611171330+0800", 1794893400),
        ("17/11/2026 13:30", "17/11/2026 13:30", 1794922200),
        ("20261117", "20261117", None),
        ("18991230", "", None),
        ("", "", None),
    ],
)
def test_the_time_of_collection_is_read_by_the_analyzers_clock(sent: str, collected: str, at: int | None) -> None:
    """# conformance: D17."""
    of = profile('[times]\nformats = ["%d/%m/%Y %H:%M"]\n')
    found = report(MSH, OBR, f"SPM|1|S1|||||||||||||||{sent}", GLU, of=of)
    assert (found.specimen.collected, found.specimen.collected_at, found.problems) == (collected, at, ())


def test_a_time_of_collection_takes_the_headers_offset_else_the_senders_zone() -> None:
    """# conformance: D17, D18."""
    new_york, spm = ZoneInfo("America/New_York"), "SPM|1|S1|||||||||||||||{}"
    for sent, at in (("20261101013000", 1793511000), ("20260308023000", 1772955000)):  # of the fold the first; in the gap
        (found,) = hl7v2.read(payload(MSH, OBR, spm.format(sent), GLU), GENERIC, new_york).reports
        assert found.specimen.collected_at == at
    offset = MSH.replace("20261117141503", "20261117141503+0800")
    assert report(offset, OBR, spm.format("20261117133000"), GLU).specimen.collected_at == 1794893400


def test_a_time_of_collection_that_is_none_holds_the_report() -> None:
    found = report(MSH, OBR, "SPM|1|S1|||||||||||||||yesterday", GLU)
    assert (found.specimen.collected, found.specimen.collected_at, problems(found)) == ("yesterday", None, ["bad-time"])


def test_a_part_that_has_no_code_is_held_and_one_with_its_own_is_not() -> None:
    bare = profile('[[result.parts]]\ncode = "OBX-4"\nvalue = "OBX-5.1"\n[[result.parts]]\ncode = "OBX-3.2"\nvalue = "OBX-5.2"\n')
    first, second = report(MSH, OBR, "OBX|1|ST|^N|4|7^<8", of=bare).results
    assert (first.code, first.kind, first.number, first.problems) == ("4", "number", "7", ())
    assert (second.code, second.kind, second.comparator) == ("N", "comparator", "<")
    (nameless,) = report(MSH, OBR, "OBX|1|ST|X||7", of=bare).results
    assert (nameless.value, nameless.problems) == ("7", (Reason("no-code"),))


def test_a_record_that_was_cut_off_holds_its_whole_report_and_no_other() -> None:
    of = profile('[result]\ncomplete = { "OBX-14" = "[0-9]{14}" }')
    cut, whole = read(MSH, OBR, GLU, NA[:-4], "OBR|2||S2", NA, of=of).reports
    assert (values(cut), values(whole)) == ([("GLU", "5.6"), ("NA", "139")], [("NA", "139")])
    assert cut.problems == (Reason("incomplete", {"why": "a result is cut off"}),)
    assert whole.problems == ()


VALID = """
[result]
keep = { "OBX-3.1" = "(?!Valid$).*" }
valid = [{ "OBX-3.1" = "(?!Valid$).*" }, { "OBX-5" = "yes" }]
"""


@pytest.mark.parametrize(("word", "reasons"), [("yes", ()), ("no", (Reason("not-valid"),)), ("", (Reason("not-valid"),))])
def test_a_record_that_is_no_result_may_judge_those_of_its_order(word: str, reasons: tuple[Reason, ...]) -> None:
    found = report(MSH, OBR, GLU, f"OBX|2|ST|Valid||{word}", NA, "OBR|2||S1", NA, of=profile(VALID))
    assert values(found) == [("GLU", "5.6"), ("NA", "139"), ("NA", "139")]
    assert [each.problems for each in found.results] == [reasons, reasons, ()]
    assert found.problems == ()


def test_an_order_that_is_not_valid_and_has_no_result_holds_its_report() -> None:
    found = report(MSH, OBR, "OBX|2|ST|Valid||no", "OBR|2||S1", NA, of=profile(VALID))
    assert (values(found), problems(found)) == ([("NA", "139")], ["not-valid"])


def test_a_record_that_is_no_result_is_not_read() -> None:
    of = profile('[result]\nkeep = { "OBX-3.1" = "(?!RLU$).*" }')
    assert values(report(MSH, OBR, GLU, "OBX|2|NM|RLU||9||||||F|||never", NA, of=of)) == [("GLU", "5.6"), ("NA", "139")]
    assert problems(report(MSH, OBR, "OBX|2|NM|RLU||9", of=of)) == ["no-results"]


def test_the_first_time_of_an_order_is_that_of_all_its_results() -> None:
    of, later = profile("[result]\nmeasured_once = true"), NA.replace("141201", "150000")
    found = report(MSH, OBR, "OBX|1|NM|K||4", GLU, "OBX|3|NM|CL||100", later, "OBR|2||S1", "OBX|1|NM|CA||2", of=of).results
    assert [each.measured_at for each in found] == [1794924721, 1794924721, 1794924721, 1794927600, None]
    assert found[2].measured == "20261117141201"
    bad = report(MSH, OBR, GLU.replace("20261117141201", "yesterday"), "OBX|2|NM|K||4", of=of).results
    assert [(each.measured_at, each.problems) for each in bad] == [(None, (Reason("bad-time"),))] * 2


def test_words_for_sex_and_an_age_in_bare_numbers_are_the_profiles_to_declare() -> None:
    of = profile('[patient]\nbirth = ""\nage = "PID-7"\nage_unit = "y"\n[patient.sexes]\nFemenino = "F"\nHomme = "M"\n')
    patients = [report(MSH, f"PID|||P1||||{age}|{sex}", OBR, GLU, of=of).patient for age, sex in (("47", "FEMENINO"), ("3m", "m"))]
    assert [(each.age, each.sex) for each in patients] == [("47y", "F"), ("3m", "M")]
    assert report(MSH, "PID|||P1|||||Femenino", OBR, GLU).patient.sex == ""


def test_what_a_result_says_of_the_control_is_that_of_its_order() -> None:
    of = profile('[control]\nmaterial = "SPM-2.1.1"\nlot = "OBX-17.1"')
    control = [MSH, "SPM|1|QC1|||||||||Q", OBR, GLU + "|||LOT7", NA + "|||LOT8"]
    assert report(*control, of=of).control == {"material": "QC1", "lot": "LOT7"}
    assert report(MSH, "SPM|1|QC1", OBR, GLU + "|||LOT7", of=of).control == {}


def test_local_escapes_are_read_where_the_profile_says_so() -> None:
    obx = "OBX|1|NM|FER||48|\\Z03BC\\g/L^x"
    assert result(obx).unit == "\\Z03BC\\g/L"
    assert result(obx, profile('[link]\nlocal_escapes = "unicode"')).unit == "μg/L"


def test_the_packaged_sample_of_a_message_cut_off_is_held_whole() -> None:
    of = profiles.load("biosystems-ba", [ANALYZERS])
    sample = (ANALYZERS / "biosystems-ba" / "samples" / "odd_cut_off.hl7").read_bytes()
    assert [problems(each) for each in hl7v2.read(sample, of, UTC).reports] == [["incomplete"]]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["A Pos", "O Neg", "weak", ""]), st.sampled_from(["Valid", "ABORH", "K"])), max_size=6))
def test_no_record_is_lost_or_moved_by_what_is_said_of_records(rows: list[tuple[str, str]]) -> None:
    of = profile(VALID + GROUP)
    (found,) = read(MSH, OBR, *(f"OBX|1|ST|{code}||{value}" for value, code in rows), of=of).reports or (None,)
    expected = [
        part
        for value, code in rows
        if code != "Valid"
        for part in (
            [("ABORH/ABO", value.split()[0]), ("ABORH/RhD", value.split()[1])]
            if code == "ABORH" and " " in value
            else [(code, value)]
        )
    ]
    assert (values(found) if found else []) == expected
