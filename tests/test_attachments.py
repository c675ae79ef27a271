"""Attachments: who gets them, with which message, and that they are what was sent."""

import base64
import random
import time
from collections.abc import Sequence

import msgspec
import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import amending, pipeline, settling
from labbridge.attachments import Attachments
from labbridge.context import Context, Past
from labbridge.formats import er7, oru
from labbridge.formats.er7 import DEFAULT, Delimiters
from labbridge.model import Decision, Reason, Report, encode
from labbridge.pipeline import AnalyzerRules, Outcome, Revision
from labbridge.routing import Route

from .small_lab import NOW, ZONE, analyzer, moment, revision

MAP = "IMG,*,,attach\nPIC,*,WBC,attach\nSEEN,*,,ignore\n"
RULES = analyzer(more_codes=MAP)
ASKS = revision(RULES, attachments=True, others=("plain",), routes=(Route("his"), Route("plain")))
IMAGE = "^Image^BMP^Base64^Qk2A+/=="


def hl7(*segments: str, marks: str = "|^~\\&", mode: str = "P", charset: str = "") -> bytes:
    header = f"MSH{marks}|A|B|||20261121101500||ORU^R01|1|{mode}|2.3.1||||||{charset}"
    lines = [header, "PID|1||P1||DOE^JO||19800101|M", *segments]
    return ("\r".join(lines) + "\r").encode()


def order(specimen: str = "S1") -> str:
    return f"OBR|1||{specimen}|CBC|||20261121101000"


def number(code: str, value: str) -> str:
    return f"OBX|1|NM|{code}||{value}|mmol/L||N|||F|||20261121101000"


def image(code: str = "IMG", content: str = IMAGE, kind: str = "ED", status: str = "F") -> str:
    return f"OBX|1|{kind}|{code}^Picture||{content}||||||{status}|||20261121101000"


def attached(message: bytes, rules: AnalyzerRules = RULES) -> Attachments:
    return Attachments(lambda: message, rules.profile, rules.zone, rules.codes)


def decided(message: bytes, rules: AnalyzerRules = RULES, compiled: Revision = ASKS) -> list[Outcome]:
    """What becomes of the reports of a message, as intake does it."""
    context, all_of_it = Context(), attached(message, rules)
    reports = pipeline.read(message, rules).reports
    return [pipeline.decide(one, one.specimen.id, b"", b"", context, rules, compiled, moment(), all_of_it) for one in reports]


def settled(outcome: Outcome, compiled: Revision, source: Attachments, together: frozenset[str] = frozenset()) -> Outcome:
    """A person releases what is held of it, as it was stored."""
    report = msgspec.json.decode(encode(outcome.report), type=Report)
    before, who = outcome.decision.results, Decision((), "tech", "seen")
    context = Context({"S1": [Past("a-1", NOW, b"", b"", report, before)]})
    more = who, "S1", context, RULES, compiled, moment(60)
    found = settling.settle(report, before, "release", frozenset(), *more, together=together, attachments=source)
    assert found is not None
    return found


def files(outcomes: Sequence[Outcome], destination: str = "his") -> list[list[list[str]]]:
    """For each message to a destination the fields of the OBX of its attachments."""
    payloads = [out.payload.decode() for one in outcomes for out in one.outgoing if out.destination == destination]
    rows = [[line.split("|") for line in payload.split("\r") if line.startswith("OBX")] for payload in payloads]
    return [[row for row in each if row[2] in ("ED", "RP")] for each in rows]


def test_who_asks_gets_them_and_nobody_else() -> None:
    outcomes = decided(hl7(order(), number("K", "4.1"), image()))
    [[row]] = files(outcomes)
    assert row[:6] == ["OBX", "2", "ED", "IMG^Picture^L", "", IMAGE]
    assert row[11] == "F"
    assert row[14] == "20261121101000+0800"
    assert files(outcomes, "plain") == [[]]
    assert files(decided(hl7(order(), number("K", "4.1"), image()), compiled=revision(RULES))) == [[]]


def test_the_report_itself_only_describes_them() -> None:
    large = "^Image^PNG^Base64^" + "A" * 400_000
    [outcome] = decided(hl7(order(), number("K", "4.1"), image(content=large)))
    assert large in outcome.outgoing[0].payload.decode()
    assert len(encode(outcome.report)) < 1000
    assert len(encode(outcome.decision)) < 1000


def test_an_image_is_named_by_the_hospitals_code_where_the_map_names_a_test_and_stands_in_its_panel() -> None:
    blood = "OBX|2|NM|WBC||5.5|10*9/L||N|||F|||20261121101000"
    chemistry_first = msgspec.structs.replace(ASKS, outlets={"his": panelled()})
    chemistry_first = msgspec.structs.replace(chemistry_first, routes=(Route("his"),))
    [outcome] = decided(hl7(order(), number("K", "4"), blood, image("PIC"), image("PIC"), image()), compiled=chemistry_first)
    lines = outcome.outgoing[0].payload.decode().split("\r")
    told = [(row[0], row[1], row[2], row[3].split("^")[0], row[4]) for row in (f"{line}||||".split("|") for line in lines)]
    assert [row for row in told if row[0] in ("OBR", "OBX")] == [
        ("OBR", "1", "", "S1", "CHEM^Chemistry^L"),
        ("OBX", "1", "NM", "K", ""),
        ("OBX", "2", "ED", "IMG", ""),
        ("OBR", "2", "", "S1", "CBC^Blood count^L"),
        ("OBX", "1", "NM", "H-WBC", ""),
        ("OBX", "2", "ED", "H-WBC", "2"),
        ("OBX", "3", "ED", "H-WBC", "3"),
    ]


def panelled() -> pipeline.Outlet:
    view = {"K": oru.Coded("K", panel="CHEM", panel_name="Chemistry")}
    view["WBC"] = oru.Coded("H-WBC", panel="CBC", panel_name="Blood count")
    return pipeline.Outlet("his", oru.compile(oru.OruForm(), view, zone=ZONE), attachments=True)


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        (image(content="//pc/1.png?a\\T\\b^app^image^png", kind="RP"), ("RP", "//pc/1.png?a\\T\\b^app^image^png")),
        (image(content="APP&x^Image^BMP^Hex^FF\\F\\00\\.br\\"), ("ED", "APP&x^Image^BMP^Hex^FF\\F\\00\\.br\\")),
        (image(content="C:\\E\\pictures\\E\\1.png", kind="ST"), ("RP", "C:\\E\\pictures\\E\\1.png")),
        (image(content="\\X4142\\", kind="RP"), ("RP", "AB")),
    ],
)
def test_content_is_as_it_was_sent(segment: str, expected: tuple[str, str]) -> None:
    [[row]] = files(decided(hl7(order(), number("K", "4.1"), segment)))
    assert (row[2], row[5]) == expected


def test_content_is_escaped_for_our_delimiters() -> None:
    marks = "!*@/+"
    segments = [order(), number("K", "4.1"), "OBX|1|ED|IMG||app+x*Image*BMP*Base64*a^b&c~d\\/F/|||||F"]
    message = hl7(*segments, marks="!*@/+").replace(b"|", b"!")
    message = message.replace(b"MSH!*@/+!", b"MSH" + marks.encode() + b"!").replace(b"ORU^R01", b"ORU*R01")
    [[row]] = files(decided(message))
    assert row[5] == "app&x^Image^BMP^Base64^a\\S\\b\\T\\c\\R\\d\\E\\!"


@given(
    st.lists(st.text("ab^~&\\|*!\r\n0", max_size=6), min_size=1, max_size=6),
    st.sampled_from([DEFAULT, Delimiters("!", "*", "@", "/", "+")]),
)
@settings(max_examples=150, deadline=None)
def test_a_rewritten_field_says_the_same(parts: list[str], marks: Delimiters) -> None:
    raw = marks.component.join(er7.escape(part, marks) for part in parts)
    written = er7.rewritten(raw, marks, lambda text: er7.unescape(text, marks))
    assert not set("|\r\n\x0b\x1c") & set(written)
    plain = [part for part in parts if "\\" not in part]  # what looks like an escape may be one
    if plain == parts:
        assert [er7.unescape(part) for part in written.split("^")] == parts


def test_lines_of_base64_stay_lines() -> None:
    [[row]] = files(decided(hl7(order(), number("K", "4.1"), image(content="^Image^BMP^Base64^QUJD\nREVG"))))
    assert row[5] == "^Image^BMP^Base64^QUJD\\X0A\\REVG"


def test_a_file_named_in_astm_leaves_as_a_pointer() -> None:
    rules = analyzer(profile="sysmex-xn", more_codes="SCAT,*,,attach\n")
    records = ["H|\\^&|||XN-20^00-01^1^^^^BD634545||||||||E1394-97", "P|1", "O|1||^^S1^B|^^^^WBC|||||||N"]
    records += ["R|1|^^^^WBC^1|5.5|10*9/L||N||F||||20261121101000"]
    records += ["R|2|^^^^SCAT^1|PNG&R&20261121&R&S1.PNG|||N||F||||20261121101000", "L|1|N"]
    outcomes = decided(("\r".join(records) + "\r").encode(), rules, msgspec.structs.replace(ASKS, analyzers={"a-1": rules}))
    [[row]] = files(outcomes)
    assert row[2] == "RP"
    assert row[5] == er7.escape(outcomes[0].report.results[1].value)


@pytest.mark.parametrize(
    "segment",
    [image("SEEN"), image("IMG", '""'), image("IMG", ""), *(image(status=word) for word in "DWX"), image("NEW"), image("LOOK")],
)
def test_what_is_ignored_held_unmapped_taken_back_or_empty_does_not_leave(segment: str) -> None:
    assert files(decided(hl7(order(), number("K", "4.1"), segment))) == [[]]


def test_an_attachment_alone_does_not_leave() -> None:
    """Nor before the results of its report, when all of them are held, nor with a control's."""
    assert decided(hl7(order(), image()))[0].outgoing == ()
    assert decided(hl7(order(), number("K", "9"), image()))[0].outgoing == ()  # critical
    assert decided(hl7(order(), number("K", "4"), image()), analyzer(more_codes=MAP, qc_ids=("S1",)))[0].outgoing == ()
    assert decided(hl7(order(), number("K", "4"), image()), analyzer(more_codes=MAP, auto_release=False))[0].outgoing == ()


def test_they_leave_with_the_first_message_of_their_report_and_not_again() -> None:
    message = hl7(order(), number("K", "9"), number("GLU", "5"), image())
    [outcome] = decided(message)
    assert [len(rows) for rows in files([outcome])] == [1]
    assert [len(rows) for rows in files([settled(outcome, ASKS, attached(message))])] == [0]


def test_a_later_release_reads_them_from_the_journal() -> None:
    message = hl7(order(), number("K", "9"), image())
    [outcome] = decided(message)
    source = attached(message)
    later = settled(outcome, ASKS, source)
    assert [row[5] for [row] in files([later])] == [IMAGE]
    assert files([later], "plain") == [[]]
    assert not source.left_out


@pytest.mark.parametrize("body", [b"", b"no message", hl7(order("S2"), number("K", "9"), image()), hl7(order(), image())])
def test_without_the_same_message_it_leaves_without_them_and_says_so(body: bytes) -> None:
    [outcome] = decided(hl7(order(), number("K", "9"), image()))
    source = attached(body)
    assert files([settled(outcome, ASKS, source)]) == [[]]
    assert source.left_out


def test_nothing_is_read_where_nothing_is_attached() -> None:
    def gone() -> bytes:
        raise AssertionError

    source = Attachments(gone, RULES.profile, RULES.zone, RULES.codes)
    [report] = pipeline.read(hl7(order(), number("K", "4")), RULES).reports
    assert pipeline.decide(report, "S1", b"", b"", Context(), RULES, ASKS, moment(), source).outgoing
    assert not source.left_out


def test_each_specimen_of_a_message_has_its_own() -> None:
    second = IMAGE.replace("Qk2", "R0l")
    message = hl7(order(), number("K", "4"), image(), order("S2"), number("K", "4"), image(content=second))
    assert [[row[5] for row in rows] for rows in files(decided(message))] == [[IMAGE], [second]]


def test_reports_that_only_their_images_tell_apart_leave_without() -> None:
    """In a batch nothing else says whose image it is."""
    batch = hl7(order(), number("K", "9"), image()) + hl7(order(), number("K", "9"), image(content=IMAGE.replace("Qk2", "R0l")))
    source = attached(batch)
    assert files([settled(decided(batch)[0], ASKS, source)]) == [[]]
    assert source.left_out


def test_a_character_that_the_hospital_lacks_keeps_no_result_back() -> None:
    latin = revision(RULES, charset="ISO-8859-1", attachments=True)
    message = hl7(order(), number("K", "4"), image(content="图.png", kind="RP"), charset="UNICODE UTF-8")
    source = attached(message)
    [report] = pipeline.read(message, RULES).reports
    outcome = pipeline.decide(report, "S1", b"", b"", Context(), RULES, latin, moment(), source)
    assert files([outcome]) == [[]]
    assert source.left_out


def test_waiting_parts_and_their_rest_leave_together_with_them() -> None:
    """A part that still waits for the rest is replaced by the whole, attachments included."""
    message = hl7(order(), number("K", "9"), number("GLU", "5"), image())
    [outcome] = decided(message)
    later = settled(outcome, ASKS, attached(message), together=frozenset(("his",)))
    assert [len(rows) for rows in files([later])] == [1]


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6"])
def test_hl7apy_finds_a_report_with_attachments_valid(version: str) -> None:  # conformance: F02
    form = msgspec.convert({"version": version}, oru.OruForm)
    outlet = pipeline.Outlet("his", oru.compile(form, {}, zone=ZONE), attachments=True)
    compiled = msgspec.structs.replace(ASKS, outlets={"his": outlet}, routes=(Route("his"),))
    pointer = image("PIC", "a.png^app^image^png", "RP")
    [outcome] = decided(hl7(order(), number("K", "4"), image(), pointer), compiled=compiled)
    assert len(files([outcome])[0]) == 2
    assert parse_message(outcome.outgoing[0].payload.decode(), find_groups=True).validate()


def test_ten_times_the_images_take_at_most_twelve_times_as_long() -> None:
    def message(size: int) -> bytes:
        text = base64.b64encode(random.Random(size).randbytes(size)).decode()
        text = text.replace("MSH", "msh")  # by chance, once in 262 kB: then the payload is looked through for a batch
        return hl7(order(), number("K", "4"), *[image(content=f"^Image^BMP^Base64^{text}")] * 5)

    def least(payload: bytes) -> float:
        times = []
        for _ in range(4):
            began = time.process_time()
            [outcome] = decided(payload)
            times.append(time.process_time() - began)
            assert len(outcome.outgoing[0].payload) > len(payload)
        return min(times)

    small, large = message(150_000), message(1_500_000)
    ratios = []
    for _ in range(4):
        ratios.append(least(large) / least(small))
        if ratios[-1] <= 12:
            break
    assert min(ratios) <= 12, ratios


def test_an_image_goes_with_its_report_to_the_right_specimen() -> None:
    """A person has corrected the id: it is found by what else the message says of the report, where that is but one."""
    message = hl7(order(), number("K", "4.1"), image(), order("S2"), number("K", "4.2"), image(content="^Image^BMP^Base64^AAAA"))
    [one, _] = decided(message)
    moved, source = amending.under(one.report, "S9"), attached(message)
    case = amending.Case(moved, one.decision.results, "S9", Context(), RULES, ASKS, moment(60), attachments=source)
    told = Reason("id-corrected", {"report": "1"})
    outcome = amending.moved(case, frozenset(), NOW, Decision((), "tech", "", "confirm-id"), told)
    assert [[row[5] for row in rows] for rows in files([outcome])] == [[IMAGE]]
    alike = hl7(order(), number("K", "4.1"), image(), order("S2"), number("K", "4.1"), image(content="^Image^BMP^Base64^AAAA"))
    source = attached(alike)
    amending.moved(msgspec.structs.replace(case, attachments=source), frozenset(), NOW, Decision((), "tech"), told)
    assert source.left_out
