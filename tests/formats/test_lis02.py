"""LIS02 records: the header says how to read them, a result keeps to its order, an end that is none is told."""

from datetime import UTC
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labbridge import profiles
from labbridge.formats import lis02
from labbridge.formats.er7 import Delimiters
from labbridge.model import Reading, Reason, RemoteProtocolError, Report, Result
from labbridge.profiles import Profile

ANALYZERS = Path(__file__).parents[2] / "analyzers"
BARE = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "lis02"\n'
GENERIC = profiles.load("generic-astm", [ANALYZERS])
H = "H|\\^&|M7||An^1|||||LIS||P|LIS2-A2|20261117141503"
P = "P|1|P1|||Doe^Jo||19900102|F"
O = "O|1|S1||^^^GLU|R|20261117133000|||||N||||S"  # noqa: E741
R = "R|1|^^^GLU|5.6|mmol/L|3.9 - 6.1|N||F||op1|20261117140000|20261117141201"
NA = "R|2|^^^NA|139|mmol/L||N||F"
L = "L|1|N"
STANDARD = Delimiters(field="|", component="^", repeat="\\", escape="&", sub="")


def profile(more: str) -> Profile:
    return profiles.parse("m", BARE + more)


def payload(*records: str) -> bytes:
    return "\r".join(records).encode() + b"\r"


def read(*records: str, of: Profile = GENERIC) -> Reading:
    return lis02.read(payload(*records), of, UTC)


def report(*records: str, of: Profile = GENERIC) -> Report:
    (only,) = read(*records, of=of).reports
    return only


def result(record: str, of: Profile = GENERIC) -> Result:
    return report(H, P, O, record, L, of=of).results[0]


def values(found: Report) -> list[tuple[str, str]]:
    return [(each.code, each.value) for each in found.results]


def problems(found: Report | Reading) -> list[str]:
    return [reason.code for reason in found.problems]


def test_the_time_of_collection_is_read_by_the_analyzers_clock() -> None:
    """# conformance: D17."""
    drawn = {"20261117133000": 1794922200, "18991230": None, "": None, "20261117": None}
    for sent, at in drawn.items():
        found = report(H, P, f"O|1|S1||^^^GLU|R|20261117133000|{sent}||||N", R, L)
        assert (found.specimen.collected_at, found.problems) == (at, ())
    assert problems(report(H, P, "O|1|S1||^^^GLU|R||soon||||N", R, L)) == ["bad-time"]


def test_a_result_is_read_whole() -> None:
    reading = read(H, P, O, R, "C|1|I|haemolytic|G", L)
    (found,) = reading.reports
    assert (reading.control_id, reading.type, reading.problems) == ("M7", "P", ())
    assert (found.specimen.id, found.specimen.type, found.role, found.sender) == ("S1", "S", "patient", "An")
    assert (found.sent, found.sent_at) == ("20261117141503", 1794924903)
    assert (found.patient.id, found.patient.family, found.patient.given) == ("P1", "Doe", "Jo")
    assert (found.patient.birth, found.patient.sex) == ("19900102", "F")
    assert found.results == (
        Result(
            code="GLU",
            value="5.6",
            kind="number",
            number="5.6",
            unit="mmol/L",
            flags=("N",),
            reference="3.9 - 6.1",
            measured="20261117141201",
            measured_at=1794924721,
            operator="op1",
            comments=("haemolytic",),
        ),
    )


@pytest.mark.parametrize("header", ["H|\\^&", "H|@^\\|x|An|||||||P", "H!~$%", "h|\\^&|", "H|\\^&|||||||||||||||||||extra"])
def test_delimiters_come_from_the_header(header: str) -> None:
    """# conformance: B01, B02, B06."""
    bar, repeat, component, escape = tuple(header[1:5])
    mark = f"{escape}F{escape}"
    records = [f"o{bar}1{bar}S1{bar * 9}N", f"r{bar}1{bar}{component * 3}GLU{bar}a{mark}b{bar * 3}H{repeat}A{bar * 2}F", f"l{bar}1"]
    found = report(header, f"p{bar}1", *records)
    assert found.results[0] == Result(code="GLU", value=f"a{bar}b", kind="text", flags=("H", "A"))
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a&F&b&S&c&R&d&E&e", "a|b^c\\d&e"),
        ("&X0D0A&", "\r\n"),
        ("&XB5&g", "µg"),
        ("&XB&", ""),
        ("&Z&", ""),
        ("&Z12&x", "x"),
        ("salt & pepper", "salt & pepper"),
        ("a&b&c", "a&b&c"),
        ("&", "&"),
        ("&F", "&F"),
    ],
)
def test_escapes(text: str, plain: str) -> None:
    """# conformance: B04."""
    assert lis02.unescape(text, STANDARD) == plain


def test_escapes_are_those_of_the_header() -> None:
    """# conformance: B04."""
    own = Delimiters("|", component="^", repeat="@", escape="\\", sub="")
    assert lis02.unescape("a\\F\\b\\S\\c\\R\\d\\E\\e&F&", own) == "a|b^c@d\\e&F&"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0", exclude_categories=("Cs", "Cc", "Zs")), min_size=1))
def test_what_was_escaped_is_what_is_read(text: str) -> None:
    """# conformance: B05."""
    letters = {"|": "F", "^": "S", "\\": "R", "&": "E"}
    escaped = "".join(f"&{letters[c]}&" if c in letters else c for c in text)
    assert result(f"R|1|^^^X|{escaped}|||||F").value == text.strip()


def test_an_escaped_delimiter_cuts_nothing() -> None:
    """# conformance: B05."""
    found = result("R|1|^^^A&S&B^x|PNG&R&1&R&2.PNG|||||F")
    assert (found.code, found.value) == ("A^B", "PNG\\1\\2.PNG")


@pytest.mark.parametrize(
    ("field", "code"),
    [("^^^10^", "10"), ("^^^10", "10"), ("^^^^WBC^1", "WBC"), ("ABO", "ABO"), ("718-7^^^HGB", "HGB"), ("^^^ K ", "K"), ("^^^", "")],
)
def test_the_fourth_component_is_the_makers_code(field: str, code: str) -> None:
    """# conformance: B08."""
    assert result(f"R|1|{field}|1|||||F").code == code


def test_a_result_without_a_code_is_held() -> None:
    assert result("R|1||5.6|||||F").problems == (Reason("no-code"),)
    assert result("R").problems == (Reason("no-code"),)


def test_delimiters_that_the_records_do_not_use_are_not_guessed() -> None:
    found = report("H|@#$|||T", "P|1", "O|1|S1||^^^WBC", "R|1|^^^WBC|6.0|10*3/uL||N||F", L)
    assert values(found) == [("^^^WBC", "6.0")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        *((code, code) for code in "CPFXIN"),
        *(("R", "F"), ("V", "F"), ("Q", "F"), ("S", "P"), ("W", "R"), ("", "N"), ("Z", "N"), ("M", "N")),
    ],
)
def test_the_letters_of_a_status_are_lis02s_own(sent: str, status: str) -> None:
    """# conformance: B13."""
    assert result(f"R|1|^^^X|1|||N||{sent}").status == status


def test_a_profile_says_what_no_status_means() -> None:
    assert result("R|1|^^^X|1", profile('[status]\n"" = "F"\n')).status == "F"


@pytest.mark.parametrize(
    ("h12", "o12", "role"),
    [("P", "N", "patient"), ("", "", "patient"), ("P", "Q", "qc"), ("Q", "N", "qc"), ("T", "N", "test"), ("D", "N", "test")],
)
def test_only_a_patients_results_are_a_patients(h12: str, o12: str, role: str) -> None:
    """# conformance: B10, B21."""
    assert report(H.replace("|P|", f"|{h12}|"), P, O.replace("|N|", f"|{o12}|"), R, L).role == role


def test_two_specimens_one_message() -> None:
    found = read(H, P, O, R, "O|2|S2", NA, "P|2|P2", "O|1|S3", R, L).reports
    assert [(each.specimen.id, each.patient.id, [code for code, _ in values(each)]) for each in found] == [
        *(("S1", "P1", ["GLU"]), ("S2", "P1", ["NA"]), ("S3", "P2", ["GLU"]))
    ]


def test_rerun_same_test() -> None:
    """# conformance: B22."""
    assert values(report(H, P, O, R, R.replace("5.6", "5.9"), L)) == [("GLU", "5.6"), ("GLU", "5.9")]


def test_a_result_before_any_order_is_held() -> None:
    found = read(H, P, R, O, NA, L).reports
    assert [(each.specimen.id, problems(each)) for each in found] == [("", ["no-specimen"]), ("S1", [])]
    assert problems(report(H, R, L)) == ["no-specimen"]


def test_one_specimen_of_two_patients_is_held() -> None:
    assert problems(report(H, P, O, R, "P|1|P2", O, NA, L)) == ["patient-conflict"]


def test_a_comment_belongs_to_the_record_before_it() -> None:
    """# conformance: B19."""
    comment = "C|1|I|{}|G"
    found = report(
        *(H, comment.format("header"), P, comment.format("patient"), O, comment.format("order"), R, comment.format("one")),
        *(comment.format("two"), "M|1|RAW|1", comment.format("raw"), NA, comment.format("three"), "S|1", comment.format("s"), L),
    )
    assert found.comments == ("patient", "order")
    assert [each.comments for each in found.results] == [("one", "two"), ("three",)]


def test_alarms_are_in_comments_where_the_profile_says_so() -> None:
    told = profile('[result]\nalarms = { from = "C-4.1", when = { "C-5" = "I" } }\n[alarms]\nnone = ["0"]\n')
    found = report(H, P, O, R, "C|1|I|43|I", "C|2|I|0|I", "C|3|I||I", NA, "C|1|L|free text|G", L, of=told)
    assert [(each.alarms, each.comments) for each in found.results] == [(("43",), ()), ((), ("free text",))]


def test_each_record_belongs_to_the_last_one_above_it() -> None:
    """Sequence numbers begin again below each parent, and comments stand at every level. # conformance: B03."""
    one, two = "O|1|S1||^^^GLU|R||||||N||||S", "O|2|S2||^^^NA|R||||||N||||S"
    found = read(
        H, P, "C|1|I|of the patient|G", one, "C|1|I|of the order|G", R, "C|1|I|of the result|G", two, NA.replace("R|2", "R|1"), L
    )
    assert [(each.specimen.id, [result.code for result in each.results]) for each in found.reports] == [
        ("S1", ["GLU"]),
        ("S2", ["NA"]),
    ]
    assert found.reports[0].comments == ("of the patient", "of the order")
    assert found.reports[0].results[0].comments == ("of the result",)
    assert found.reports[1].results[0].comments == ()


def test_a_value_that_depends_on_its_order_is_read_anew_for_each_order() -> None:
    of = profile('[result]\nvalue = [{from = "R-4", when = {"O-16" = "URINE"}}, "R-4.2"]')
    rows = ["R|1|^^^A|7^8|u||N||F||||20261117", "R|2|^^^B|7^8|u||N||F||||20261117"]
    found = {}
    for kind in ("URINE", "BLOOD", "URINE"):
        reading = read(H, P, f"O|1|S1||^^^GLU|R||||||||||{kind}", *rows, L, of=of)
        found[kind] = [result.value for result in reading.reports[0].results]
    assert found == {"URINE": ["7^8", "7^8"], "BLOOD": ["8", "8"]}


def test_what_is_said_of_a_patient_is_in_a_report_once() -> None:
    """However many orders follow: time and memory stay linear."""
    orders = [line for _ in range(1000) for line in (O, R)]
    (found,) = read(H, P, *["C|1|I|clotted|G"] * 1000, *orders, L).reports
    assert (len(found.comments), len(found.results)) == (1000, 1000)


def test_an_order_without_results_is_shown() -> None:
    assert problems(report(H, P, O, L)) == ["no-results"]
    reading = read(H, P, L)
    assert (reading.reports, problems(reading)) == ((), ["no-results"])


def test_a_header_and_an_end_are_nothing_to_look_at() -> None:
    assert read(H, L) == Reading(control_id="M7", type="P")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        *((L, None), ("L|1", None), ("L", None), ("L|1|F", None), ("L|1|I", None), ("L|1|T", "L record: sender aborted")),
        *(("L|1|R", "L record: receiver aborted"), ("L|1|E", "L record: error"), ("L|1|Y", "L record: unknown code")),
        ("C|1", "no L record"),
    ],
)
def test_a_message_that_did_not_end_well_is_held(end: str, why: str | None) -> None:
    """# conformance: B16."""
    expected = (Reason("incomplete", {"why": why}),) if why else ()
    reading = read(H, P, O, R, end)
    assert reading.reports[0].problems == reading.problems == expected


def test_an_analyzer_that_never_sends_l_is_complete_without() -> None:
    assert report(H, P, O, R, of=profile('[link]\nends_message = "eot"\n')).problems == ()


def test_a_record_that_is_none_holds_the_message() -> None:
    found = report(H, P, O, R, "9|what", NA, L)
    assert (problems(found), values(found)) == (["unknown-record"], [("GLU", "5.6"), ("NA", "139")])


def test_lines_may_end_with_lf() -> None:
    assert lis02.read(payload(H, P, O, R, L).replace(b"\r", b"\r\n"), GENERIC, UTC) == read(H, P, O, R, L)


def test_several_messages_are_read_one_by_one() -> None:
    reading = read(H, P, O, R, L, H.replace("M7", "M8"), P, O, NA, "L|1|T")
    assert [(each.specimen.id, values(each), problems(each)) for each in reading.reports] == [
        ("S1", [("GLU", "5.6")], []),
        ("S1", [("NA", "139")], ["incomplete"]),
    ]
    assert (reading.control_id, problems(reading)) == ("M7", ["incomplete"])


@pytest.mark.parametrize("first", ["", "P|1", "\x05", "foo|1\r", "H", "HH|\\^&", "O|1|S1\r" + H])
def test_without_a_header_nothing_is_read(first: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        lis02.read(payload(first), GENERIC, UTC)
    assert (caught.value.reason.code, caught.value.supported, caught.value.error_code) == ("no-header", True, "100")


@pytest.mark.parametrize("header", ["H|||||An", "H|\\\\&|", "H|ABC|x", "H|\\|x||An"])
def test_a_header_without_delimiters_is_unusable(header: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read(header, P, O, R, L)
    assert caught.value.reason.code == "unusable-delimiters"


def test_times_are_the_senders_own() -> None:
    """# conformance: B20."""
    found = lis02.read(payload(H, P, O, R, L), GENERIC, ZoneInfo("Asia/Shanghai")).reports[0]
    assert found.results[0].measured_at == 1794924721 - 8 * 3600
    assert result("R|1|^^^X|1|||||F||||17/11/26").problems == (Reason("bad-time"),)
    assert result("R|1|^^^X|1|||||F|||20261117140000").measured == "20261117140000"


def test_an_undecodable_byte_holds_the_report() -> None:
    """# conformance: D10."""
    reading = lis02.read(payload(H, P, O, R.replace("mmol", "ummol"), L).replace(b"umm", b"\xb5m"), GENERIC, UTC)
    assert problems(reading) == problems(reading.reports[0]) == ["undecodable"]


@pytest.mark.parametrize(
    ("record", "specimens", "every"),
    [
        ("Q|1|P1^S1||ALL||||||||O", ("S1",), False),
        ("Q|1|^S1\\^S2||^^^GLU", ("S1", "S2"), False),
        ("Q|1|S1", ("S1",), False),
        ("Q|1|ALL||ALL", (), True),
        ("Q|1", (), True),
    ],
)
def test_queries_name_their_specimens(record: str, specimens: tuple[str, ...], every: bool) -> None:
    """# conformance: B14."""
    (query,) = read(H, record, L).queries
    assert (query.specimens, query.all) == (specimens, every)


def test_a_query_keeps_what_the_answer_must_repeat() -> None:
    """# conformance: B17."""
    e411 = profiles.load("roche-cobas-e411", [ANALYZERS])
    (query,) = read(H, "Q|1|^^8826110123^203^0^3^^S1^SC||ALL||||||||A", L, of=e411).queries
    assert (query.specimens, query.echo, query.tests) == (("8826110123",), ("^^8826110123^203^0^3^^S1^SC",), ("ALL",))


def test_a_query_taken_back_is_none() -> None:
    """# conformance: B14."""
    reading = read(H, "Q|1|^S1||ALL||||||||A", L)
    assert (reading.queries, reading.reports, reading.problems) == ((), (), ())


def test_no_order_is_said_in_the_querys_own_delimiters() -> None:
    asked = payload(H, "Q|1|^S1||ALL", L)
    answer = lis02.write_no_order(read(H, "Q|1|^S1", L).queries, asked, GENERIC, stamp="20261117141504")
    assert answer == b"H|\\^&|||LIS|||||An^1||P|LIS2-A2|20261117141504\rL|1|I\r"
    own = "H!~$%!!!An"
    answer = lis02.write_no_order(read(own, "Q!1!$S1", "L!1").queries, payload(own, "Q!1!$S1"), GENERIC, stamp="20261117141504")
    assert answer == b"H!~$%!!!!!!!!An!!P!LIS2-A2!20261117141504\rL!1!I\r"
    assert read(*answer.decode().splitlines()).reports == ()
    assert lis02.write_no_order((), asked, GENERIC, stamp="20261117141504") == b""


WHOLE = payload(H, P, "C|1||x", O, R, "C|1|I|43|I", NA, "M|1|RAW", "O|2|S2", R, "Q|1|^S9", L)


@settings(max_examples=200)
@given(st.data())
def test_no_bytes_stop_the_reader(data: st.DataObject) -> None:
    """# conformance: K17."""
    start, cut = data.draw(st.integers(0, len(WHOLE))), data.draw(st.integers(0, 9))
    piece = data.draw(st.binary(max_size=6) | st.sampled_from([b"\r", b"\rO|1|S3|", b"\rP|9", b"\rL|1|E", b"\\", b"&"]))
    mutated = WHOLE[:start] + piece + WHOLE[start + cut :]
    for of in (GENERIC, profiles.load("roche-cobas-c311", [ANALYZERS])):
        try:
            reading = lis02.read(mutated, of, UTC)
        except RemoteProtocolError:
            continue
        for found in reading.reports:
            assert found.specimen.id or "no-specimen" in problems(found)
            assert all(each.kind != "number" or each.number for each in found.results)


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.lists(st.integers(0, 999), min_size=1, max_size=4)), min_size=1, max_size=6))
def test_every_result_stays_with_its_specimen(orders: list[tuple[str, list[int]]]) -> None:
    records, expected = [H, "P|1"], dict[str, list[tuple[str, str]]]()
    for specimen, numbers in orders:
        records.append(f"O|1|{specimen}")
        records += [f"R|1|^^^{specimen}{number}|{number}|||||F" for number in numbers]
        expected.setdefault(specimen, []).extend((f"{specimen}{number}", str(number)) for number in numbers)
    assert {each.specimen.id: values(each) for each in read(*records, L).reports} == expected


def timed(value: str, time: str) -> list[str]:
    return ["1", "^^^GLU", value, *[""] * 8, time]


TEXT = st.sampled_from(["", "1", "^^^1", "20261117", "20261118", "20261117141201", "^^^20261117", "<20261117"])


@example([timed("20261117", "20261117"), timed("5", "20261118"), timed("20261118", "20261117")])
@settings(max_examples=300)
@given(st.lists(st.lists(TEXT, min_size=3, max_size=14), min_size=1, max_size=8))
def test_a_record_reads_the_same_whatever_was_read_before_it(records: list[list[str]]) -> None:
    lines = ["|".join(["R", *fields]) for fields in records]
    together = read(H, P, O, *lines, L).reports[0].results
    again = read(H, P, O, *lines[::-1], L).reports[0].results
    alone = []
    for line in lines:
        lis02._readers.cache_clear()
        alone += read(H, P, O, line, L).reports[0].results
    assert [*together] == alone == [*again][::-1]


# -- what a profile says of whole records ----------------------------------------------------------------------------


def parts(*words: str) -> str:
    return "".join(
        f'[[result.parts]]\nwhen = {{ "R-3.4" = "Result" }}\ncode = "{{R-3.5}}/{word}"\nvalue = "R-4.{number}"\nunit = ""\n'
        for number, word in enumerate(words, 1)
    )


def test_each_component_may_be_an_answer_of_its_own_and_an_empty_one_is_none() -> None:
    of = profile(parts("ABO", "RHD", "SCREEN", "RH"))
    found = report(H, P, O, "R|1|^^^Result^MO10|A^NEG^^ccee|C|||||P", "C|1|I|seen", "R|2|^^^AntiA|40|C", L, of=of)
    assert values(found) == [("MO10/ABO", "A"), ("MO10/RHD", "NEG"), ("MO10/RH", "ccee"), ("AntiA", "40")]
    assert [(each.unit, each.comments) for each in found.results] == [("", ("seen",))] * 3 + [("C", ())]
    assert values(report(H, P, O, "R|1|^^^Result|^^^^K", L, of=of)) == [("Result", "^^^^K")]


def test_every_component_of_a_field_may_be_a_flag_and_an_alarm() -> None:
    of = profile('[result]\nflags = "R-7.*"\nalarms = ["R-7.*", "C-4.*"]\n[alarms]\nnone = ["<"]')
    found = report(H, P, O, "R|1|^^^GLU|5.6|||EXP^<\\LL", "C|1|I|CLOT^^43|I", "C|2|I|", L, of=of).results[0]
    assert (found.flags, found.alarms) == (("EXP", "<", "LL"), ("EXP", "LL", "CLOT", "43"))


def test_a_fixed_text_makes_two_codes_of_one() -> None:
    of = profile('[result]\ncode = [{ from = "{R-3.4}/grade", when = { "R-4" = "-|\\\\++" } }, "R-3.4"]')
    assert values(report(H, P, O, "R|1|^^^RBC|8.2", "R|2|^^^RBC|++", L, of=of)) == [("RBC", "8.2"), ("RBC/grade", "++")]


@pytest.mark.parametrize(("word", "reasons"), [("Valid", ()), ("Invalid", (Reason("not-valid"),))])
def test_a_record_that_is_no_result_may_judge_those_of_its_order(word: str, reasons: tuple[Reason, ...]) -> None:
    judge = '{ "R-3.4" = "(?!ResultValid$).*" }'
    of = profile(f'[result]\nkeep = {judge}\nvalid = [{judge}, {{ "R-4" = "Valid" }}]')
    found = report(H, P, O, R, f"R|2|^^^ResultValid|{word}", NA, "O|2|S1", R, L, of=of)
    assert [(each.code, each.problems) for each in found.results] == [("GLU", reasons), ("NA", reasons), ("GLU", ())]


def test_a_record_that_was_cut_off_holds_its_whole_report() -> None:
    found = report(H, P, O, R, NA, L, of=profile('[result]\ncomplete = { "R-13" = ".+" }'))
    assert (len(found.results), problems(found)) == (2, ["incomplete"])


def test_the_first_time_of_an_order_is_that_of_all_its_results() -> None:
    found = report(H, P, O, R, NA, "O|2|S1", NA, L, of=profile("[result]\nmeasured_once = true")).results
    assert [each.measured_at for each in found] == [1794924721, 1794924721, None]


def test_words_for_sex_and_an_age_in_bare_numbers_are_the_profiles_to_declare() -> None:
    of = profile('[patient]\nage = "P-15"\nage_unit = "m"\nsexes = { w = "F" }')
    patient = report(H, "P|1||||||20260101|W||||||7", O, R, L, of=of).patient
    assert (patient.age, patient.sex, patient.birth) == ("7m", "F", "20260101")


def test_what_a_result_says_of_the_control_is_that_of_its_order() -> None:
    of = profile('[control]\nlot = "R-3.5"')
    orders = [("O|1|QC1|||||||||Q", "L1"), ("O|2|QC1|||||||||Q", "L2"), ("O|3|S1", "L3")]
    records = [record for order, lot in orders for record in (order, f"R|1|^^^GLU^{lot}|5", "R|2|^^^K^L9|4")]
    found = read(H, P, *records, L, of=of).reports
    assert [(each.specimen.id, each.role, each.control) for each in found] == [
        ("QC1", "qc", {"lot": "L1"}),
        ("QC1", "qc", {"lot": "L2"}),  # another lot is another report
        ("S1", "patient", {}),
    ]
    assert read(H, P, "O|1|QC1|||||||||Q", L, of=of).reports[0].control == {}


def test_local_escapes_are_read_where_the_profile_says_so() -> None:
    record = "R|1|^^^FER|48|&Z03BC&g/L"
    assert result(record).unit == "g/L"
    assert result(record, profile('[link]\nlocal_escapes = "unicode"')).unit == "μg/L"


def test_the_packaged_sample_of_a_run_that_is_not_valid_is_held() -> None:
    of = profiles.load("hologic-panther", [ANALYZERS])
    sample = (ANALYZERS / "hologic-panther" / "samples" / "odd_invalid_and_hpv.astm").read_bytes()
    invalid, valid = lis02.read(sample, of, UTC).reports
    assert [each.problems for each in invalid.results] == [(Reason("not-valid"),)] * 3
    assert [each.problems for each in valid.results] == [()] * 6


def test_the_packaged_samples_tell_their_lot_and_their_time_in_the_first_record() -> None:
    def sample(name: str, file: str) -> Report:
        text = (ANALYZERS / name / "samples" / file).read_bytes()
        return lis02.read(text, profiles.load(name, [ANALYZERS]), UTC).reports[0]

    assert sample("abbott-architect", "qc_level_2.astm").control == {"material": "MCC-L2", "lot": "77123"}
    assert len({each.measured_at for each in sample("radiometer-abl80", "patient_arterial.astm").results}) == 1
