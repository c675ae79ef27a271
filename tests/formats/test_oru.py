"""ORU^R01 as each hospital wants it: valid for its version, every value what was decided, every character escaped."""

from zoneinfo import ZoneInfo

import hl7
import msgspec
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge.formats import oru
from labbridge.formats.er7 import Segment, parse
from labbridge.formats.oru import Coded, OruForm, UnwritableError
from labbridge.formats.templates import FormError
from labbridge.model import Decided, Patient, Report, Result, Specimen, Verdict

CATALOGUE = {
    "WBC": Coded("H001", "White cells", "6690-2", "CBC", "Blood count"),
    "PLT": Coded("H002", "Platelets", "777-3", "CBC", "Blood count"),
    "CRP": Coded("H100", "C-reactive protein"),
}
REPORT = Report(
    Specimen("S0001", type="BLD", collected="20261121195800", collected_at=1795262280),
    (Result("6690-2", flags=("H", "A&")), Result("777-3"), Result("CRP")),
    patient=Patient("P1", "MORGAN", "ALEX", "19740312", "M"),
    sender="xn-1",
)
RELEASE = Verdict("release")
WBC = Decided(0, "6690-2", RELEASE, "WBC", "7.32", "10*9/L", "×10⁹/L", flag="H", reference="3.5-9.5", measured_at=1795000000)
PLT = Decided(1, "777-3", RELEASE, "PLT", "<5", "10*9/L", "×10⁹/L", kind="comparator", flag="LL", status="P")
CRP = Decided(2, "CRP", RELEASE, "CRP", "1:128", kind="ratio", status="C")
SHANGHAI = ZoneInfo("Asia/Shanghai")


def write(form: OruForm, decided: list[Decided], report: Report = REPORT, **more: str) -> bytes:
    writer = oru.compile(form, CATALOGUE, zone=SHANGHAI)
    return writer.write(report, decided, control_id="0123456789", stamp="20261121201530+0800", **more)


def segments(name: str, payload: bytes) -> list[Segment]:
    return parse(payload.decode()).all(name)


def one(name: str, payload: bytes) -> Segment:
    (segment,) = segments(name, payload)
    return segment


def test_results_of_one_second_keep_each_the_precision_of_their_times() -> None:
    """An instant is known to the second; what was sent may say less, or more."""
    sent = ("20261118190600", "202611181906", "20261118190600.5", "20261118190600.7", "20261118190600")
    about = msgspec.structs.replace(REPORT, results=tuple(Result("6690-2", measured=text) for text in sent))
    decided = [msgspec.structs.replace(WBC, index=n, measured_at=1794999960) for n in range(len(sent))]
    assert [each.field(14) for each in segments("OBX", write(OruForm(), decided, about))] == [f"{text}+0800" for text in sent]


def test_a_report_has_exactly_these_bytes() -> None:
    assert write(OruForm(), [WBC, PLT, CRP]).decode().split("\r") == [
        "MSH|^~\\&|labbridge||||20261121201530+0800||ORU^R01^ORU_R01|0123456789|P|2.5.1||||||UNICODE UTF-8",
        "PID|1||P1||MORGAN^ALEX||19740312|M",
        "OBR|1||S0001|CBC^Blood count^L|||20261121195800+0800|||||||||||||||20261121201530+0800|||P",
        "OBX|1|NM|H001^White cells^L^6690-2^^LN||7.32|10*9/L^^UCUM|3.5-9.5|H|||F|||20261118190640+0800||||xn-1",
        "OBX|2|SN|H002^Platelets^L^777-3^^LN||<^5|10*9/L^^UCUM||LL|||P|||||||xn-1",
        "SPM|1|S0001||BLD|||||||||||||20261121195800+0800",
        "OBR|2||S0001|H100^C-reactive protein^L|||20261121195800+0800|||||||||||||||20261121201530+0800|||C",
        "OBX|1|SN|H100^C-reactive protein^L||^1^:^128||||||C|||||||xn-1",
        "SPM|1|S0001||BLD|||||||||||||20261121195800+0800",
        "",
    ]


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
@pytest.mark.parametrize("obr", ["panel", "test", "specimen"])
def test_hl7apy_finds_every_report_valid(version: oru.Version, obr: str) -> None:  # conformance: F02
    form = msgspec.convert({"version": version, "obr": obr, "segments": ["ZLB|{specimen.id}"]}, OruForm)
    with_visit = msgspec.structs.replace(form, fields={"PV1-2": "I", "ORC-2": "{order.id}", "ORC-7": "^^^^^R"})
    bare = Report(Specimen("S1"), REPORT.results)
    for one_form in (form, with_visit):
        for report in (REPORT, bare, Report(bare.specimen, bare.results, patient=Patient("P1"))):
            message = parse_message(write(one_form, [WBC, PLT, CRP], report).decode(), find_groups=True)
            assert message.validate()
            assert message.name == "ORU_R01"


@pytest.mark.parametrize(
    ("obr", "requests"), [("panel", ["CBC", "H100"]), ("test", ["H001", "H002", "H100"]), ("specimen", ["11502-2"])]
)
def test_an_obr_is_a_panel_a_test_or_the_specimen(obr: str, requests: list[str]) -> None:
    payload = write(msgspec.convert({"obr": obr}, OruForm), [WBC, PLT, CRP] if obr == "test" else [WBC, CRP, PLT])
    assert [segment.component(4) for segment in segments("OBR", payload)] == requests
    assert [segment.field(1) for segment in segments("OBR", payload)] == [str(n + 1) for n in range(len(requests))]
    assert {segment.component(3) for segment in segments("OBR", payload)} == {"S0001"}


def test_the_specimen_stands_in_spm_from_version_2_5() -> None:
    assert segments("SPM", write(OruForm(version="2.4"), [WBC])) == []
    assert one("OBR", write(OruForm(version="2.4"), [WBC])).component(15) == "BLD"
    payload = write(OruForm(version="2.5"), [WBC], Report(Specimen("S&1"), REPORT.results))
    assert (one("SPM", payload).component(2), one("SPM", payload).component(4, 2)) == ("S&1", "unspecified")


def test_the_observation_time_is_the_collection_or_the_first_measurement() -> None:
    later = msgspec.structs.replace(PLT, measured_at=1795000060)
    measured = "20261118190640+0800"
    for collected, at, shown in (
        ("", None, measured),
        ("21/11/2026", None, measured),
        ("20261399", None, measured),
        ("20261121", None, "20261121"),
        ("20261121195800", 1795262280, "20261121195800+0800"),
        ("202611211158+0000", 1795262280, "202611211958+0800"),
        ("21/11/2026 19:58", 1795262280, "20261121195800+0800"),
    ):
        report = Report(Specimen("S1", collected=collected, collected_at=at), REPORT.results)
        payload = write(OruForm(), [later, WBC], report)
        assert one("OBR", payload).field(7) == shown
        assert {segment.field(17) for segment in segments("SPM", payload)} == {"" if shown == measured else shown}
    assert one("OBR", write(OruForm(), [CRP], Report(Specimen("S1"), REPORT.results))).field(7) == ""


@pytest.mark.parametrize(
    ("kind", "value", "sent"),
    [
        ("number", "7.30", "NM|7.30"),
        ("number", "-0.5", "NM|-0.5"),
        ("number", "<0.01", "SN|<^0.01"),
        ("comparator", ">=90", "SN|>=^90"),
        ("comparator", "< 20", "SN|<^20"),
        ("ratio", "1:128", "SN|^1^:^128"),
        ("ratio", "<1/10", "SN|<^1^/^10"),
        ("number", "6.73E+01", "ST|6.73E+01"),
        ("number", "***", "ST|***"),
        ("coded", "3+", "ST|3+"),
        ("text", "1:128", "ST|1:128"),
        ("text", "a|b^c&d~e\\f\rg", "ST|a\\F\\b\\S\\c\\T\\d\\R\\e\\E\\f\\X0D\\g"),
        ("absent", "", "ST|"),
    ],
)
def test_each_value_has_its_type(kind: str, value: str, sent: str) -> None:  # conformance: D15, D16
    decided = msgspec.structs.replace(WBC, kind=kind, value=value)
    obx = one("OBX", write(OruForm(), [decided]))
    assert f"{obx.field(2)}|{obx.field(5)}" == sent


def test_units_and_flags_are_as_the_form_says() -> None:
    obx = one("OBX", write(OruForm(), [WBC]))
    assert (obx.field(6), obx.field(8)) == ("10*9/L^^UCUM", "H")
    obx = one("OBX", write(OruForm(units="print", flags="analyzer"), [WBC]))
    assert (obx.field(6), obx.field(8)) == ("×10⁹/L", "H~A\\T\\")
    assert one("OBX", write(OruForm(), [CRP])).field(6) == ""


def test_the_analyzer_is_named_from_version_2_4() -> None:
    assert one("OBX", write(OruForm(version="2.3.1"), [WBC])).field(18) == ""
    assert one("OBX", write(OruForm(), [WBC])).field(18) == "xn-1"
    assert one("OBX", write(OruForm(), [WBC], analyzer="left|bench")).component(18) == "left|bench"


def test_the_same_test_twice_is_told_apart_in_obx4() -> None:  # conformance: D20
    assert [segment.field(4) for segment in segments("OBX", write(OruForm(), [WBC, PLT, WBC]))] == ["", "", "2"]
    assert [segment.field(4) for segment in segments("OBX", write(OruForm(version="2.3.1"), [WBC, WBC]))] == ["1", "2"]


@pytest.mark.parametrize(
    ("statuses", "status"), [("FF", "F"), ("FP", "P"), ("CP", "C"), ("FC", "C"), ("FI", "P"), ("XX", "X"), ("XF", "F")]
)
def test_obr25_says_the_status_of_the_whole(statuses: str, status: str) -> None:  # conformance: F02
    decided = [msgspec.structs.replace(WBC, status=letter) for letter in statuses]
    assert one("OBR", write(OruForm(), decided)).field(25) == status


def test_a_patient_is_named_only_with_an_id() -> None:
    assert segments("PID", write(OruForm(), [WBC], Report(Specimen("S1"), REPORT.results, patient=Patient(family="X")))) == []
    unnamed = one("PID", write(OruForm(), [WBC], Report(Specimen("S1"), REPORT.results, patient=Patient("P^1"))))
    assert (unnamed.component(3), unnamed.field(5)) == ("P^1", "^^^^^^U")


def test_a_test_that_the_catalogue_lacks_goes_by_its_own_name() -> None:
    payload = write(OruForm(), [msgspec.structs.replace(WBC, test="K^1")])
    assert (one("OBX", payload).field(3), one("OBR", payload).field(4)) == ("K\\S\\1^^L", "K\\S\\1^^L")


def test_templates_fill_fields_and_segments() -> None:
    form = OruForm(
        fields={
            "MSH-3": "LAB^1.2.3^ISO",
            "MSH-4": "{site.name}",
            "OBR-2": "{order.id}^{analyzer.name}",
            "OBR-40": "x",
            "OBX-8": "",
            "OBX-23": "{site.name}",
            "PV1-3": "{patient.location}",
        },
        segments=[
            "ZLB|{specimen.id}|{run.number}|{specimen.rack}{specimen.position}{specimen.type}",
            "ZID|{patient.id}{message.id}{message.time}",
        ],
    )
    report = Report(
        Specimen("S|1", rack="7", position="2", type="SER"),
        (Result("6690-2", run="42"),),
        patient=Patient("P1", location="W7"),
        order="O1",
    )
    payload = write(form, [WBC], report, site="Lab & Co", analyzer="xn-1")
    msh, obr, obx = one("MSH", payload), one("OBR", payload), one("OBX", payload)
    assert (msh.field(3), msh.field(4), msh.field(10)) == ("LAB^1.2.3^ISO", "Lab \\T\\ Co", "0123456789")
    assert (obr.field(2), obr.field(40), obx.field(8), obx.field(23)) == ("O1^xn-1", "x", "", "Lab \\T\\ Co")
    assert one("PV1", payload).raw == "PV1|1|U|W7"
    assert payload.decode().split("\r")[-3:] == ["ZLB|S\\F\\1|42|72SER", "ZID|P1012345678920261121201530+0800", ""]


@pytest.mark.parametrize(
    ("form", "key", "says"),
    [
        ({"fields": {"OBR-3": "{specimen.barcode}"}}, "fields.OBR-3", "known are site.name"),
        ({"segments": ["ZLB|{x}"]}, "segments[0]", "unknown placeholder {x}"),
        ({"segments": ["zlb"]}, "segments[0]", "expected a segment"),
        ({"segments": ["ZLB|a\rOBX|1"]}, "segments[0]", "ends with its line"),
        ({"fields": {"OBR-3": "{specimen.id"}}, "fields.OBR-3", "brace"),
        ({"fields": {"NTE-3": "x"}}, "fields.NTE-3", "expected a field such as OBR-3"),
        ({"fields": {"OBR-3.1": "x"}}, "fields.OBR-3.1", "expected a field"),
        ({"fields": {"OBX-5": "x"}}, "fields.OBX-5", "cannot be changed"),
        ({"charset": "KLINGON"}, "charset", "KLINGON"),
        ({"charset": "KLINGON", "msh18": "X"}, "charset", "KLINGON"),
    ],
)
def test_a_wrong_form_is_refused_with_its_key(form: dict[str, object], key: str, says: str) -> None:
    with pytest.raises(FormError, match=key.replace("[", r"\[")) as caught:
        oru.compile(msgspec.convert(form, OruForm), CATALOGUE)
    assert caught.value.key == key
    assert says in caught.value.message


def test_the_character_set_is_the_forms() -> None:
    report = Report(Specimen("S1"), REPORT.results, patient=Patient("P1", "王", "镕"))
    payload = write(OruForm(charset="GBK"), [WBC], report)
    assert "|GB 18030-2000\r" in payload.decode("gbk")
    assert "王^镕" in payload.decode("gbk")
    assert b"||UTF-8\r" in write(OruForm(msh18="UTF-8"), [WBC], report)
    with pytest.raises(UnwritableError) as caught:
        write(OruForm(charset="8859/1"), [WBC], report)
    assert caught.value.reason.code == "unwritable-charset"
    assert caught.value.__cause__ is None
    assert "王" not in repr((caught.value, caught.value.reason))


texts = st.text(st.characters(codec="utf-8"), max_size=8)


@given(texts, texts, texts, texts)
@settings(max_examples=80)
def test_every_text_comes_back_as_it_was(specimen: str, name: str, value: str, unit: str) -> None:
    report = Report(Specimen(specimen, type=name), REPORT.results, patient=Patient("P1" + name, name, value))
    decided = msgspec.structs.replace(WBC, kind="text", value=value, unit=unit, print_unit=unit, reference=name)
    payload = write(OruForm(units="print"), [decided, WBC], report, analyzer=unit)
    assert len(hl7.parse(payload.decode())) == 6
    obx, pid = segments("OBX", payload)[0], one("PID", payload)
    assert (obx.component(5), obx.component(6), obx.component(7), obx.component(18)) == (value, unit, name, unit or "")
    assert (pid.component(3), one("OBR", payload).component(3), one("SPM", payload).component(2)) == (
        "P1" + name,
        specimen,
        specimen,
    )
    assert (pid.component(5), pid.component(5, 2)) == (name, value)
