"""Which profiles fit a captured message: the right one comes first, a stranger's is said to be none of ours."""

import json
import os
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from labbridge import identify, language, profiles
from labbridge.cli import app
from labbridge.identify import LIMIT, Identified, Identifier

from .small_lab import ANALYZERS
from .test_corpus import profile_of
from .test_trial import frames

CORPUS = os.environ.get("LABBRIDGE_CORPUS", "")
SAMPLES = sorted(file for file in ANALYZERS.glob("*/samples/*") if file.suffix in (".hl7", ".astm"))
STRANGER = b"H|\\^&|||Wonder 9000^1.0|||||||P||20261118\rP|1\rO|1|8826110042\rR|1|^^^GLU|5.1|mmol/L||N||F\rL|1|N\r"


@cache
def identifier() -> Identifier:
    return Identifier(None)


def identified(data: bytes) -> Identified:
    return identifier().identify(data)


def names(found: Identified) -> list[str]:
    return [one.profile for one in found.candidates]


def sample(name: str) -> bytes:
    return (ANALYZERS / name).read_bytes()


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: f"{file.parent.parent.name}/{file.stem}")
def test_the_profile_of_a_sample_comes_first(file: Path) -> None:
    found = identified(file.read_bytes())
    assert names(found)[0] == file.parent.parent.name
    assert len(found.candidates) <= 5
    assert found.candidates[0].generic == file.parent.parent.name.startswith("generic-")


def test_every_profile_but_the_generic_ones_knows_its_header() -> None:
    unsaid = [name for name in profiles.names([ANALYZERS]) if not profiles.load(name, [ANALYZERS]).sender]
    assert unsaid == ["generic-astm", "generic-hl7"]


def test_a_sender_is_looked_for_in_the_header_alone() -> None:
    about = '[profile]\nmodel = "W"\nvendor = "W"\nprotocol = "lis02"\nsender = {{ "{}" = "x" }}\n'
    assert profiles.parse("w", about.format("H-5.1")).sender
    with pytest.raises(profiles.ProfileError, match=r"profile\.sender: no O is in force here"):
        profiles.parse("w", about.format("O-3"))


@pytest.mark.skipif(not CORPUS, reason="LABBRIDGE_CORPUS names no folder")
def test_the_right_profile_comes_first_for_nearly_every_captured_message() -> None:
    expected = map(json.loads, (Path(CORPUS) / "expected.jsonl").read_text("utf-8").splitlines())
    files = [Path(CORPUS) / each["file"] for each in expected if each["profiled"]]
    wrong = [file for file in files if names(identified(file.read_bytes()))[:1] != [profile_of(file)]]
    print(f"{len(files) - len(wrong)} of {len(files)} first")
    assert len(files) >= 70
    assert len(wrong) <= 3, wrong


def test_what_was_seen_is_told_without_any_profile() -> None:
    seen = identified(frames(sample("sysmex-xn/samples/patient_cbc_diff.astm"))).seen
    assert (seen.framing, seen.protocol, seen.version, seen.delimiters) == ("LIS01 frames", "ASTM", "E1394-97", "|\\^&")
    assert (seen.sender, seen.messages, seen.cut) == ("XN-1000^00-22^11042^^^^QA204417", 1, False)
    seen = identified(b"\x0b" + sample("mindray-bc/samples/patient_cbc_diff.hl7") + b"\x1c\r").seen
    assert (seen.framing, seen.protocol, seen.version, seen.delimiters) == ("MLLP", "HL7 v2", "ORU^R01 2.3.1", "|^~\\&")
    assert seen.sender == "BC-6000|Mindray"


def test_a_fitting_profile_says_what_it_knows_and_what_would_be_held() -> None:
    one = identified(sample("mindray-bs/samples/patient_chem.hl7")).candidates[0]
    assert (one.fits, one.sender, one.known, one.codes, one.specimen) == (True, "like", 5, 5, "8826110071")
    assert (one.roles, one.results, one.held, one.because) == (("patient",), 5, 1, ("alarm SLP of the analyzer",))


def test_a_header_that_names_somebody_else_fits_no_profile() -> None:
    found = identified(STRANGER)
    assert not found.fits
    assert "generic-astm" in names(found)
    assert {one.sender for one in found.candidates} <= {"other", "unsaid"}


def test_a_header_that_names_nobody_is_known_by_its_codes() -> None:
    nameless = sample("sysmex-xn/samples/patient_cbc_diff.astm").replace(b"XN-1000^00-22^11042^^^^QA204417", b"")
    found = identified(nameless)
    assert names(found)[0] == "sysmex-xn"
    assert found.fits
    assert found.candidates[0].sender == "unsaid"


@pytest.mark.parametrize(("data", "error"), [(b"", "neither"), (b"a;b\r1;2\r", "neither"), (b"Hello\r", "neither")])
def test_what_is_no_message_has_no_profile(data: bytes, error: str) -> None:
    found = identified(data)
    assert (found.candidates, found.fits, found.seen.protocol) == ([], False, "")
    assert error in found.error


def test_a_type_that_nobody_reads_is_named() -> None:
    found = identified(b"MSH|^~\\&|A|B|||20261121101500||OML^O33^OML_O33|1|P|2.5.1\rPID|1\r")
    assert (found.seen.protocol, found.candidates) == ("HL7 v2", [])
    assert "OML^O33" in found.error


@pytest.mark.parametrize("framed", [False, True])
def test_only_the_beginning_of_a_large_capture_is_looked_at(framed: bool) -> None:
    message = sample("sysmex-xn/samples/patient_cbc_diff.astm")
    data = (frames(message) if framed else message) * (4 * 1024 * 1024 // len(message))
    begin = time.process_time()
    found = identified(data)
    assert time.process_time() - begin < 5
    assert (names(found)[0], found.fits, found.seen.cut) == ("sysmex-xn", True, True)
    assert found.candidates[0].results <= LIMIT / 20


@given(st.binary(max_size=300), st.sampled_from(SAMPLES), st.integers(0, 4000))
@settings(max_examples=25)
def test_no_bytes_make_it_fail(junk: bytes, file: Path, at: int) -> None:
    data = file.read_bytes()
    for bad in (junk, data[:at] + junk, data[:at] + junk + data[at:]):
        assert len(identified(bad).candidates) <= 5


def header(line: str) -> identify.Header:
    found = identify._header(line.encode())
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("line", "condition", "fits"),
    [
        ("H|\\^&|||XN-550^00-24", {"H-5.1": "XN-.*"}, True),
        ("H|\\^&|||XN-550^00-24", {"H-5": "XN-.*", "H-12": "P"}, False),
        ("H|`^&||||||||||P", {"H-2": "`\\^&"}, True),
        ("H|@^\\|1||PC^GeneXpert^6", {"H-5.2": "GeneXpert"}, True),
        ("MSH|^~\\&|BA200|Bio", {"MSH-3": "BA200", "MSH-1": "\\|"}, True),
        ("MSH|^~\\&|A^B~C^D|Bio", {"MSH-3.2": "B"}, True),
        ("MSH|^~\\&|A", {"MSH-21": ""}, True),
        ("MSH|^~\\&|A", {"PID-3": ""}, False),
        ("MSH|^~\\&|A", {"H-3": "A"}, False),
    ],
)
def test_a_header_is_held_against_a_condition(line: str, condition: dict[str, str], fits: bool) -> None:
    assert header(line).fits(language.condition(condition)) is fits


# -- the command -------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["identify", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_the_command_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, output = run(str(ANALYZERS / "sysmex-xn/samples/patient_cbc_diff.astm"))
    assert status == 0
    assert "the header names this model" in output
    assert "33 of 33" in output


def test_the_command_fails_where_only_a_generic_dialect_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.astm").write_bytes(STRANGER)
    status, output = run("stranger.astm")
    assert status == 1
    assert "generic-astm" in output
    assert run("nowhere.astm")[0] == 1


def test_the_command_prints_json_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stranger.astm").write_bytes(STRANGER)
    status, output = run("--json", str(ANALYZERS / "urit-8031/samples/patient_chem.hl7"), "stranger.astm")
    first, second = map(json.loads, output.splitlines())
    assert status == 1
    assert (first["fits"], first["profiles"][0]["profile"], first["seen"]["sender"]) == (True, "urit-8031", "urit|8030")
    assert second["fits"] is False


def test_the_laboratorys_own_profiles_are_asked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "analyzers" / "wonder").mkdir(parents=True)
    about = 'model = "Wonder"\nvendor = "W"\nprotocol = "lis02"\nsender = { "H-5.1" = "Wonder.*" }\n'
    (tmp_path / "analyzers" / "wonder" / "profile.toml").write_text(f"[profile]\n{about}")
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "wonder.csv").write_text("code,analyzer_unit,test\nGLU,mmol/L,GLU\n")
    text = '[site]\nname = "Lab"\ntimezone = "UTC"\n[library]\nanalyzers = "analyzers"\nmappings = "mappings"\n'
    (tmp_path / "labbridge.toml").write_text(text)
    (tmp_path / "stranger.astm").write_bytes(STRANGER)
    status, output = run("stranger.astm")
    assert status == 0
    assert "wonder" in output
