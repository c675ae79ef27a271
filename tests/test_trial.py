"""Captures: messages out of files, and what the real pipeline makes of them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from labbridge import capture, config, profiles, revision
from labbridge.cli import app, trying
from labbridge.trial import Trial, cases, trial_settings, try_file

from .small_lab import ANALYZERS, NOW, observations
from .support import oru

EXAMPLE = Path(__file__).parents[1] / "config.example.toml"
START, END = b"\x0b", b"\x1c\r"
MESSAGE = b"MSH|^~\\&|A|B|||20261121101500||ORU^R01|1|P|2.3.1\rOBR|1||S1\rOBX|1|NM|2823-3||4.1|mmol/L|||||F|||20261121101000\r"
RECORDS = b"H|\\^&\rP|1\rO|1|S1\rR|1|^^^K|4.1|mmol/L||N||F||||20261121101000\rL|1|N\r"


def frames(text: bytes, *, size: int = 240, spoilt: int = 0) -> bytes:
    """The frames of a text as on the wire; ``spoilt`` is the number of one whose checksum is wrong."""
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    sent = b""
    for n, piece in enumerate(pieces, 1):
        body = b"%d" % (n % 8) + piece + (b"\x03" if n == len(pieces) else b"\x17")
        sent += b"\x02" + body + b"%02X\r\n" % ((sum(body) + (n == spoilt)) & 255)
    return sent


# -- captures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected", "odd"),
    [
        (MESSAGE, [MESSAGE], []),
        (START + MESSAGE + END, [MESSAGE], []),
        ((START + MESSAGE + END) * 2 + b"\r\n", [MESSAGE, MESSAGE], []),
        (b"noise" + (START + MESSAGE + END) * 2 + b"\r\n", [MESSAGE, MESSAGE], ["bytes outside"]),
        (START + MESSAGE + END + b"noise" + START + MESSAGE + END, [MESSAGE, MESSAGE], ["bytes outside"]),
        (START + MESSAGE, [MESSAGE], ["a block without its end"]),
        (START + MESSAGE + END + START + MESSAGE, [MESSAGE, MESSAGE], ["a block without its end"]),
        (START + MESSAGE + START + MESSAGE + END + b"x", [MESSAGE, MESSAGE], ["a block without its end", "bytes outside"]),
    ],
)
def test_hl7_messages_come_out_framed_or_bare(data: bytes, expected: list[bytes], odd: list[str]) -> None:
    """A block without its end and bytes that belong to no block are told."""
    found, notes = capture.messages(data, "mllp")
    assert found == expected
    assert [note.split(" blocks" if "the blocks" in note else " (")[0].removesuffix(" the") for note in notes] == odd


@pytest.mark.parametrize(
    "data",
    [
        RECORDS,
        b"\x05" + RECORDS + b"\x04",
        frames(RECORDS),
        b"\x05" + frames(RECORDS) + b"\x04",
        b"\x05" + frames(RECORDS, size=20) + b"\x04",
        b"\x05\x04\x05" + frames(RECORDS, size=7) + b"\x04",
    ],
)
def test_records_come_out_framed_or_bare(data: bytes) -> None:
    assert capture.messages(data, "lis01") == ([RECORDS], [])


def test_several_transmissions_are_several_messages() -> None:
    one = b"\x05" + frames(RECORDS) + b"\x04"
    assert capture.messages(one * 3, "lis01") == ([RECORDS] * 3, [])


@pytest.mark.parametrize("spoilt", [1, 2])
def test_a_capture_with_a_wrong_checksum_is_read_whole_and_that_is_told(spoilt: int) -> None:
    """Also when it is the second of two messages, or a frame in the middle of one."""
    good = b"\x05" + frames(RECORDS) + b"\x04"
    bad = b"\x05" + frames(RECORDS, size=30, spoilt=spoilt) + b"\x04"
    found, notes = capture.messages(good + bad, "lis01")
    assert found == [RECORDS, RECORDS]
    assert len(notes) == 1


@given(st.binary(max_size=60), st.sampled_from(["mllp", "lis01"]))
@settings(max_examples=60, deadline=None)
def test_any_file_is_taken(data: bytes, framing: str) -> None:
    capture.messages(data + b"\x02" * (len(data) % 2), framing)


# -- trials ----------------------------------------------------------------------------------------------------------


def trial(profile: str = "generic-hl7", **more: str) -> Trial:
    return Trial(*trial_settings(None, profile, more.get("mapping", "")))


def test_a_capture_is_read_mapped_judged_and_written() -> None:
    found = try_file(trial(), START + MESSAGE + END, NOW)
    (outcome,) = found.outcomes
    assert (outcome.state, found.error, found.notes) == ("released", "", [])
    assert observations(outcome.outgoing[0].payload) == [("K", "4.10", "F")]
    assert found.as_json("a.hl7") == {
        "file": "a.hl7",
        "reports": [
            {
                "specimen": "S1",
                "role": "patient",
                "state": "released",
                "reasons": (),
                "results": [
                    {
                        "code": "2823-3",
                        "value": "4.1",
                        "unit": "mmol/L",
                        "flags": [],
                        "status": "F",
                        "test": "K",
                        "reported": "4.10",
                        "verdict": "release",
                        "reasons": (),
                    }
                ],
            }
        ],
        "queries": [],
    }


def test_an_old_capture_is_not_stale_on_trial() -> None:
    assert try_file(trial(), MESSAGE.replace(b"2026", b"1999"), NOW).outcomes[0].state == "released"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "no header: this is no message"),
        (b"no message at all", "no header: this is no message"),
        (START + b"MSH|^~\\&|A|B|||1||ADT^A01|1|P|2.3.1\r" + END, "messages of type ADT^A01 are not supported"),
    ],
)
def test_what_cannot_be_read_is_told_in_words(data: bytes, error: str) -> None:
    found = try_file(trial(), data, NOW)
    assert found.as_json("x") == {"file": "x", "error": error}


def test_an_empty_transmission_is_no_message() -> None:
    """Whether its frame was refused, or is none."""
    for data in (b"\x05\x02\x04", b"\x05\x04\x02"):
        found = try_file(trial("generic-astm"), data, NOW)
        assert found.as_json("x") == {"file": "x", "error": found.notes[0] if found.notes else "no message in it"}


def test_one_bad_message_does_not_hide_the_others() -> None:
    found = try_file(trial(), START + b"MSH|^~\\&|A|B|||1||ADT^A01|1|P|2.3.1\r" + END + START + MESSAGE + END, NOW)
    assert found.error
    assert [one["specimen"] for one in found.as_json("x")["reports"]] == ["S1"]


def test_a_query_is_shown() -> None:
    found = try_file(trial("generic-astm"), b"H|\\^&\rQ|1|^S7\rQ|2|ALL\rL|1|N\r", NOW)
    assert found.as_json("q")["queries"] == [{"specimen": ["S7"], "all": False}, {"specimen": "", "all": True}]


def test_a_configured_analyzer_is_tried_as_it_is_configured() -> None:
    configured = config.load(EXAMPLE)
    chosen, name = trial_settings(configured, "bc-1", "")
    assert (name, [one.profile for one in chosen.analyzers]) == ("bc-1", ["mindray-bc"])
    assert chosen.verification == configured.verification
    chosen, name = trial_settings(configured, "generic-hl7", "mindray-bc")
    assert (name, chosen.analyzers[0].code_map) == ("try", "mindray-bc")
    assert chosen.verification == configured.verification


def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    with pytest.raises(LookupError, match=r"no profile and no configured analyzer is called nosuch; profiles: .*generic-hl7"):
        trial_settings(None, "nosuch", "")


def test_a_mapping_of_another_name_is_used() -> None:
    with pytest.raises(revision.RevisionError, match="nosuch"):
        trial(mapping="nosuch")


# -- what `labbridge try` prints -------------------------------------------------------------------------------------

Screen = Callable[..., list[str]]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """The lines that the command prints, in whole."""

    def shown(profile: str, file: Path, *, width: int = 180, terminal: bool = True, settings: Path = Path("/none")) -> list[str]:
        printed = io.StringIO()
        console = Console(
            file=printed, width=width, height=50, force_terminal=terminal, color_system=None, highlight=False, soft_wrap=True
        )
        monkeypatch.setattr(trying, "console", console)
        monkeypatch.setattr(trying, "time", SimpleNamespace(time=lambda: NOW))
        assert CliRunner().invoke(app, ["try", profile, str(file), "-c", str(settings)]).exit_code == 0
        return printed.getvalue().splitlines()

    return shown


def sample(profile: str, name: str) -> Path:
    return ANALYZERS / profile / "samples" / name


def sent(profile: str, file: Path) -> list[str]:
    """All segments that would be sent, in their order."""
    outcomes = try_file(trial(profile), file.read_bytes(), NOW).outcomes
    payloads = [out.payload.decode() for outcome in outcomes for out in outcome.outgoing]
    return [segment for payload in payloads for segment in payload.removesuffix("\r").split("\r")]


COUNT = sample("sysmex-xn", "patient_cbc_diff.astm")
CHEMISTRY = sample("generic-astm", "patient_chem.astm")  # its potassium is held


def test_a_full_count_is_explained_on_one_screen(screen: Screen) -> None:
    """Each result has its own bytes beside it, in the order in which they are sent."""
    lines = screen("sysmex-xn", COUNT)
    segments = sent("sysmex-xn", COUNT)
    assert len(lines) <= 42
    assert max(map(len, lines)) <= 180
    shown = [line for line in lines if any(line.endswith(segment) for segment in segments)]
    assert [line[-len(segment) :] for line, segment in zip(shown, segments, strict=True)] == segments
    for line, segment in zip(shown, segments, strict=True):
        beside = line.removesuffix(segment).split()
        if segment.startswith("OBX"):
            assert segment.split("|")[3].startswith(f"{beside[0]}^")
            assert beside[-1] == "release"
        else:
            assert beside == []
    assert [line for line in lines if "Left_Shift?" in line] == [
        line for line in lines if line.startswith("ignored: Left_Shift? 0, ")
    ]


def test_a_result_that_was_edited_by_hand_is_shown_as_such(screen: Screen, tmp_path: Path) -> None:
    file = tmp_path / "edited.hl7"
    count = sample("mindray-bc", "patient_cbc_diff.hl7").read_text("utf-8")
    first = next(line for line in count.splitlines() if line.startswith("OBX|5|"))
    file.write_text(count.replace(first, f"{first}||E"), "utf-8")
    marked = [line for line in screen("mindray-bc", file, terminal=False) if " edited " in line]
    assert [line.split()[0] for line in marked] == ["6690-2"]
    (report,) = try_file(trial("mindray-bc"), file.read_bytes(), NOW).as_json("")["reports"]
    assert [result["code"] for result in report["results"] if result.get("edited")] == ["6690-2"]


def test_an_alarm_is_shown_with_what_the_profile_knows_of_it(screen: Screen) -> None:
    shown = " ".join(screen("abbott-architect", sample("abbott-architect", "odd_expired_and_failed.astm"), width=250))
    assert "alarm EXP of the analyzer (reagent expired)" in shown


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [20, 100, 180])
@pytest.mark.parametrize(
    ("profile", "file"),
    [
        ("sysmex-xn", "patient_cbc_diff.astm"),
        ("generic-astm", "patient_chem.astm"),
        ("generic-astm", "two_patients.astm"),
        ("mindray-bc", "patient_cbc_diff.hl7"),
    ],
)
def test_every_segment_is_one_whole_line(screen: Screen, profile: str, file: str, width: int, terminal: bool) -> None:
    """No width folds or crops what is sent: the terminal itself goes on in its next line."""
    lines = screen(profile, sample(profile, file), width=width, terminal=terminal)
    segments = sent(profile, sample(profile, file))
    ends = [line for line in lines if line.endswith(tuple(segments))]
    assert len(ends) == len(segments) > 0
    assert all(line.endswith(segment) for line, segment in zip(ends, segments, strict=True))
    assert (ends == segments) is (width < 180 or not terminal)


@pytest.mark.parametrize("width", [100, 180])
def test_a_held_result_has_a_reason_and_no_bytes(screen: Screen, width: int) -> None:
    [line] = [line for line in screen("generic-astm", CHEMISTRY, width=width) if line.startswith("K ")]
    assert line.endswith("hold    6.90 mmol/L is critical")


def test_a_reason_that_all_results_share_is_told_once(screen: Screen) -> None:
    lines = screen("sysmex-xn", sample("sysmex-xn", "odd_no_result.astm"))
    assert "\n".join(lines).count("the specimen id is a counted number, not a barcode") == 1
    reasons = {line.split()[0]: line.partition("hold")[2].strip() for line in lines if " hold" in line}
    beyond = "alarm > of the analyzer (beyond the assured linearity)"
    assert (reasons["WBC"], reasons["RBC"]) == (f"the analyzer gave no result: ++++; {beyond}", "")


def test_columns_that_are_empty_throughout_are_left_out(screen: Screen) -> None:
    lines = screen("generic-astm", sample("generic-astm", "qc_o12.astm"))
    assert [line.split() for line in lines if "code" in line] == [["code", "value", "unit", "test", "reported", "verdict"]]


def test_what_two_destinations_get_stands_below_the_results(screen: Screen, tmp_path: Path) -> None:
    more = '[[destination]]\nname = "ward"\nprotocol = "hl7v2"\nconnect = "127.0.0.1:6662"\noru = {version = "2.3.1"}\n'
    more += '[[route]]\nto = "ward"\n'
    (tmp_path / "two.toml").write_text(EXAMPLE.read_text("utf-8") + more, "utf-8")
    (tmp_path / "a.hl7").write_bytes(MESSAGE)
    lines = screen("generic-hl7", tmp_path / "a.hl7", settings=tmp_path / "two.toml", width=250)
    titles = [n for n, line in enumerate(lines) if line.startswith(("to his: ", "to ward: "))]
    assert [line[:3] for line in lines[titles[0] :]] == ["to ", "MSH", "OBR", "OBX", "SPM", "to ", "MSH", "OBR", "OBX"]
    for n, version in zip(titles, ("2.5.1", "2.3.1"), strict=True):
        assert f"|P|{version}" in lines[n + 1]
    [row] = [line for line in lines[: titles[0]] if line.startswith("2823-3 ")]
    assert row.rstrip().endswith("release")


@pytest.mark.parametrize("width", [80, 2000])
def test_an_attachment_is_shown_by_its_ends(screen: Screen, tmp_path: Path, width: int) -> None:
    """Where the destination asks for it; whatever else is long is shown whole."""
    asks = EXAMPLE.read_text("utf-8").replace("attachments = false", "attachments = true")
    (tmp_path / "asks.toml").write_text(asks, "utf-8")
    picture = f"OBX|9|ED|15000^WBC Histogram. BMP^99MRC||^Image^BMP^Base64^{'A' * 5000}ZZ||||||F\r"
    message = oru("60017734", 1, [("6690-2^WBC^LN", "5.50", "10*9/L")]) + picture.encode()
    (tmp_path / "a.hl7").write_bytes(message)
    told = "\n".join(screen("mindray-bc", tmp_path / "a.hl7", settings=tmp_path / "asks.toml", width=width))
    assert "|ED|15000^WBC Histogram. BMP^L||^Image^BMP^Base64^AAAA" in told
    assert "AAZZ||||||F" in told
    assert " characters … " in told
    assert "A" * 300 not in told
    plain = "\n".join(screen("mindray-bc", tmp_path / "a.hl7", width=width))
    assert "|ED|" not in plain


@pytest.mark.parametrize("width", [80, 180])
def test_bytes_are_shown_as_they_are(screen: Screen, tmp_path: Path, width: int) -> None:
    """Control characters are visible, the character set is the destination's, nothing is taken for markup."""
    fields = 'charset = "GBK"\nfields = {"MSH-4" = "a\\u001b[2J:cd: [bold]\\u3000王"}'
    settings = EXAMPLE.read_text("utf-8").replace('charset = "UTF-8"', fields, 1)
    (tmp_path / "gbk.toml").write_text(settings, "utf-8")
    (tmp_path / "a.hl7").write_bytes(MESSAGE)
    told = "\n".join(screen("generic-hl7", tmp_path / "a.hl7", settings=tmp_path / "gbk.toml", width=width))
    assert "MSH|^~\\&|labbridge|a\\x1b[2J:cd: [bold]\\u3000王|||" in told
    assert " bytes of gbk, CR after each segment; hl7apy: valid" in told


def test_results_that_read_alike_each_have_a_segment_of_their_own(tmp_path: Path) -> None:
    """Also when the hospital has one code for both, and its own words in OBX."""
    fields = 'units = "ucum"\nfields = {"OBX-3" = "CODE", "OBX-4" = "{specimen.id}-{message.time}"}'
    (tmp_path / "one.toml").write_text(EXAMPLE.read_text("utf-8").replace('units = "ucum"', fields, 1), "utf-8")
    tried = Trial(*trial_settings(config.load(tmp_path / "one.toml"), "generic-hl7", ""))
    more = b"OBX|2|NM|14749-6||4.1|mmol/L|||||F|||20261121101000\r"
    [outcome] = try_file(tried, MESSAGE + more, NOW).outcomes
    [out] = outcome.outgoing
    codec, segments = tried.segments(outcome, out)
    assert "".join(f"{segment}\r" for segment, _ in segments).encode(codec) == out.payload
    assert [one and one.test for segment, one in segments] == [None, None, "K", None, None, "GLU", None]


# -- cases beside profiles -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", profiles.names([ANALYZERS]))
def test_every_packaged_sample_reads_as_written_beside_it(name: str) -> None:
    ran = cases(name, [ANALYZERS])
    assert ran
    assert [(sample, differences) for sample, differences in ran if differences] == []


def test_a_sample_that_reads_otherwise_is_told(tmp_path: Path) -> None:
    samples = tmp_path / "plain" / "samples"
    samples.mkdir(parents=True)
    (tmp_path / "plain" / "profile.toml").write_text('[profile]\nmodel = "A"\nvendor = "B"\nprotocol = "hl7v2"\n', "utf-8")
    (samples / "a.hl7").write_bytes(MESSAGE)
    (samples / "a.json").write_text(json.dumps({"reports": [], "queries": []}), "utf-8")
    (samples / "b.json").write_text("{}", "utf-8")
    ran = dict(cases("plain", [tmp_path, ANALYZERS]))
    assert len(ran["a.hl7"]) == 1
    assert ran["a.hl7"][0].startswith("reports: expected []")
    assert ran["b.json"] == ["no sample beside it"]


def test_a_trial_leaves_the_configuration_as_it_is() -> None:
    configured = config.load(EXAMPLE)
    before = str(configured)
    Trial(*trial_settings(configured, "generic-hl7", ""))
    assert str(configured) == before
