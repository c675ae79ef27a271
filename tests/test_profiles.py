"""A profile is data that is checked before it is believed."""

from pathlib import Path

import msgspec
import pytest

from labbridge import profiles
from labbridge.formats import charset
from labbridge.profiles import ProfileError
from labbridge.trial import Trial, trial_settings, try_file
from labbridge.verification.reasons import render_all

ANALYZERS = Path(__file__).parent.parent / "analyzers"
PLAIN = '[profile]\nmodel = "M"\nvendor = "V"\nprotocol = "hl7v2"\n'
DOUBTED = (
    b"H|\\^&|||XN-550^00||||||||E1394-97\rP|1\rO|1||^^26118801^B|||||||N||||||||||||||F\r"
    b"R|1|^^^^HGB^1|12.9|g/dL||W||F\rR|2|^^^^WBC^1|25.3|10*3/uL||>||F\rR|3|^^^^PLT^1|210|10*3/uL||N||F\r"
    b"R|4|^^^^Anemia||||A||F\rL|1|N\r"
)
PART = '[[result.parts]]\ncode = "OBX-3"\nvalue = "OBX-5"\n'
RECORDS = PLAIN.replace("hl7v2", "lis02")


def mistake(text: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        profiles.parse("m", text, "m/profile.toml")
    return caught.value


@pytest.mark.parametrize("name", profiles.names([ANALYZERS]))
def test_every_packaged_profile_loads(name: str) -> None:
    profile = profiles.load(name, [ANALYZERS])
    assert profile.name == name
    assert {charset.codec(each) for each in profile.charsets}


def test_a_plain_profile_is_under_twenty_lines() -> None:
    for name in ("generic-hl7", "generic-astm"):
        lines = (ANALYZERS / name / "profile.toml").read_text("utf-8").splitlines()
        assert len([line for line in lines if line and not line.startswith("#")]) < 20


def test_what_a_profile_does_not_say_its_protocol_says() -> None:
    hl7, records = profiles.parse("m", PLAIN), profiles.parse("m", RECORDS)
    assert (hl7.framing, hl7.charsets, hl7.ends_message, hl7.checksum) == ("mllp", ("UTF-8",), "L", True)
    assert (records.framing, records.frame_size, dict(records.timers), records.timezone) == ("lis01", 240, {}, "")
    assert hl7.shapes["patient"]["result"]["record"] == "OBX"
    assert records.statuses["W"] == "R"


def test_a_profile_states_its_link() -> None:
    link = 'framing = "lis01"\ncharset = ["GB18030"]\nends_message = "eot"\ntimezone = "UTC"\nframe_size = 1024\nchecksum = false'
    profile = profiles.parse("m", f"{RECORDS}[link]\n{link}\n[link.timers]\nreceive = 15\nanswer = 2.5\n")
    assert (profile.charsets, profile.ends_message, profile.timezone) == (("GB18030",), "eot", "UTC")
    assert (profile.frame_size, profile.checksum, profile.timers) == (1024, False, {"receive": 15.0, "answer": 2.5})


def test_an_alarm_holds_unless_the_profile_says_that_it_does_not() -> None:
    codes = '[alarms.codes]\n12 = { en = "reagent low", zh = "试剂不足", do = "release" }\n13 = { en = "clot" }\n'
    alarms = profiles.parse("m", RECORDS + codes).alarms
    assert (alarms["12"].hold, alarms["12"].zh, alarms["13"].hold) == (False, "试剂不足", True)


def test_the_laboratorys_own_folder_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "sysmex-xn"
    own.mkdir()
    (own / "profile.toml").write_text(RECORDS, "utf-8")
    folders = [tmp_path, ANALYZERS]
    assert profiles.load("sysmex-xn", folders).model == "M"
    assert profiles.load("sysmex-xp", folders).vendor == "Sysmex"
    assert profiles.names(folders) == profiles.names([ANALYZERS])


def test_an_unknown_profile_names_the_one_that_was_meant() -> None:
    with pytest.raises(ProfileError, match="did you mean 'sysmex-x"):
        profiles.load("sysmex-xm", [ANALYZERS])


def test_an_unknown_key_names_file_key_line_and_what_was_meant() -> None:
    error = mistake(PLAIN + '\n[result]\nunit = "OBX-6.1"\nstatsu = "OBX-11"\n')
    assert (error.file, error.key, error.line) == ("m/profile.toml", "result.statsu", 8)
    assert str(error) == "m/profile.toml:8: result.statsu: there is no such key; did you mean 'status'?"


@pytest.mark.parametrize(
    ("text", "key", "line", "message"),
    [
        (PLAIN + '[resutl]\ncode = "OBX-3"', "resutl", 5, "did you mean 'result'"),
        (PLAIN + '[qc.result]\ncod = "OBR-3"', "qc.result.cod", 6, "did you mean 'code'"),
        (PLAIN + "[qc.link]\ncharset = []", "qc.link", 5, "no such key"),
        ("qc = 1\n" + PLAIN, "qc", 1, "a table is expected"),
        (PLAIN.replace("hl7v2", "hl7"), "profile.protocol", 4, "did you mean 'hl7v2'"),
        (PLAIN.replace('vendor = "V"\n', ""), "profile.vendor", 1, "missing"),
        (PLAIN + '[result]\ncode = "OBX3"', "result.code", 6, "'OBX3'"),
        (PLAIN + '[result]\ncode = "OBX-0"', "result.code", 6, "a path"),
        (PLAIN + '[result]\ncode = "{OBX-3}{OBX-4}"', "result.code", 6, "a template"),
        (PLAIN + '[result]\ncode = { form = "OBX-3" }', "result.code", 6, "from ="),
        (PLAIN + "[result]\ncode = 3", "result.code", 6, "a path"),
        (PLAIN + '[specimen]\nid = { from = "OBR-3", pattern = "(" }', "specimen.id", 6, "regular expression"),
        (PLAIN + '[roles]\nqc = "Q"', "roles.qc", 6, "a condition"),
        (PLAIN + "[roles]\nqc = [{}]", "roles.qc", 6, "a condition"),
        (PLAIN + "[status]\nF = 1", "status.F", 6, "a text"),
        (PLAIN + '[value]\ndecimal = ";"', "value.decimal", 6, "one of"),
        (PLAIN + '[value]\nthousands = "."', "value.thousands", 6, "the decimal sign too"),
        (PLAIN + '[value]\ndecimal = ","\nthousands = ","', "value.thousands", 7, "the decimal sign too"),
        (PLAIN + '[value]\nabsent = "--"', "value.absent", 6, "a list"),
        (PLAIN + '[link]\ncharset = ["UTF-9"]', "link.charset", 6, "'UTF-9' is not known"),
        (PLAIN + '[link]\ntimezone = "Asia/Beijing"', "link.timezone", 6, "not known"),
        (PLAIN + "[link]\nframe_size = 0", "link.frame_size", 6, "number above 0"),
        (PLAIN + '[link]\nchecksum = "no"', "link.checksum", 6, "one of True, False"),
        (PLAIN + "[link.timers]\nrecieve = 3", "link.timers.recieve", 6, "did you mean 'receive'"),
        (PLAIN + "[link.timers]\nreceive = 0", "link.timers.receive", 6, "number above 0"),
        (PLAIN + "[link]\ntimers = 3", "link.timers", 6, "a table"),
        (PLAIN + '[alarms.codes]\n12 = { text = "x" }', "alarms.codes.12.text", 6, "no such key"),
        (PLAIN + '[alarms.codes]\n12 = { do = "shout" }', "alarms.codes.12.do", 6, "'hold', 'release'"),
        (PLAIN + "[roles\n", "", 5, "Expected"),
        (PLAIN + '[result]\ncode = "OBX-3.*"', "result.code", 6, "only where a list is read"),
        (PLAIN + '[result]\nflags = "{OBX-8.*}/{OBX-9}"', "result.flags", 6, "stands alone"),
        (PLAIN + '[roles]\nqc = { "OBR-13.*" = "QC" }', "roles.qc", 6, "stands alone"),
        (PLAIN + '[result]\nflags = "OBX-8.*.1"', "result.flags", 6, "a path"),
        (PLAIN + '[result]\ncode = "{OBX-3}/}"', "result.code", 6, "a template"),
        (PLAIN + '[result]\ncode = "grade/{}"', "result.code", 6, "a path"),
        (PLAIN + "[result]\nkeep = []", "result.keep", 6, "never hold"),
        (PLAIN + '[result]\nvalid = "OBX-5"', "result.valid", 6, "a condition"),
        (PLAIN + '[result]\nmeasured_once = "yes"', "result.measured_once", 6, "one of True, False"),
        (PLAIN + '[link]\nlocal_escapes = "hex"', "link.local_escapes", 6, "'unicode'"),
        (PLAIN + '[patient]\nage_unit = "years"', "patient.age_unit", 6, "'d', 'w', 'm', 'y'"),
        (PLAIN + '[patient.sexes]\nX = "U"', "patient.sexes.X", 6, "'M', 'F'"),
        (PLAIN + '[result]\nparts = { code = "OBX-3" }', "result.parts", 6, "[[result.parts]]"),
        (PLAIN + '[result]\nparts = [{ code = "OBX-3" }]', "result.parts[1]", 6, "its value is missing"),
        (PLAIN + PART + '[[result.parts]]\nvalue = "OBX-5"', "result.parts[2]", 8, "its code is missing"),
        (PLAIN + PART + PART + 'unti = "OBX-6"', "result.parts[2].unti", 11, "did you mean 'unit'"),
        (PLAIN + PART + 'when = { "OBX3" = "x" }', "result.parts[1].when", 8, "a path"),
    ],
)
def test_a_mistake_is_found_where_it_stands(text: str, key: str, line: int, message: str) -> None:
    error = mistake(text)
    assert (error.key, error.line) == (key, line)
    assert message in error.message


@pytest.mark.parametrize(
    ("text", "key", "line", "segment"),
    [
        (PLAIN + '[specimen]\nid = "OBX-3"', "specimen.id", 6, "OBX"),
        (PLAIN + '[specimen]\nid = { from = "OBR-3", when = { "OBX-2" = "ST" } }', "specimen.id", 6, "OBX"),
        (PLAIN + '[result]\ncode = ["OBX-3", "{OBX-3}/{NTE-3}"]', "result.code", 6, "NTE"),
        (PLAIN + '[result]\nkeep = { "NTE-3" = "x" }', "result.keep", 6, "NTE"),
        (PLAIN + PART + '[[result.parts]]\ncode = "NTE-3"\nvalue = "OBX-5"', "result.parts", 5, "NTE"),
        (PLAIN + '[roles]\nqc = { "OBX-2" = "Q" }', "roles.qc", 6, "OBX"),
        (PLAIN + '[report]\nsent = "OBR-7"', "report.sent", 6, "OBR"),
        (PLAIN + '[qc.result]\nrecord = "OBR"\nunit = "OBX-6"', "qc.result.unit", 7, "OBX"),
        (RECORDS + '[patient]\nid = "R-3"', "patient.id", 6, "R"),
        (RECORDS + '[result]\nunit = "C-4"', "result.unit", 6, "C"),
        (RECORDS + '[result]\nunit = "M-4"', "result.unit", 6, "M"),
        (RECORDS + '[control]\nlot = "C-4"', "control.lot", 6, "C"),
        (RECORDS + '[qc.specimen]\nid = "R-3"', "qc.specimen.id", 6, "R"),
        (RECORDS + '[query]\ntests = "O-5"', "query.tests", 6, "O"),
    ],
)
def test_a_path_that_leads_nowhere_is_a_mistake(text: str, key: str, line: int, segment: str) -> None:
    error = mistake(text)
    assert (error.key, error.line) == (key, line)
    assert f"no {segment} is in force here" in error.message


@pytest.mark.parametrize(
    "text",
    [
        RECORDS + '[control]\nlot = "R-3.10"\n[result]\nalarms = "C-4.*"\n[query]\ntests = "Q-5"\n',
        PLAIN + '[control]\nlot = "OBX-17"\n[report]\ncomments = "NTE-3"\n[query]\ntests = "ZZZ-5"\n',
        PLAIN + '[qc.result]\nrecord = "OBR"\nunit = "OBR-19"\n[qc.control]\nlot = "OBR-14"\n',
    ],
)
def test_a_path_may_lead_to_whatever_is_in_force(text: str) -> None:
    assert profiles.parse("m", text).shapes["qc"]["control"]["lot"]


def test_parts_belong_to_the_source_and_to_the_revision() -> None:
    plain, apart = profiles.parse("m", PLAIN), profiles.parse("m", PLAIN + PART)
    assert [part.code[0].parts for part in apart.shapes["patient"]["result"]["parts"]] == [(("OBX", 3, 0, 0),)]
    assert b'"parts"' in apart.source
    assert b'"parts"' not in plain.source


def test_the_source_is_the_same_however_it_is_written() -> None:
    written = profiles.parse("m", PLAIN + '[result]\nunit = "OBX-6.2"\ncode = "OBX-4"\n')
    rewritten = profiles.parse("m", '[result] # later\ncode   = "OBX-4"\nunit = "OBX-6.2"\n' + PLAIN)
    assert written.source == rewritten.source
    assert written.source != profiles.parse("m", PLAIN).source


def test_the_source_covers_the_defaults() -> None:
    assert b"OBX-14" in profiles.parse("m", PLAIN).source


def test_a_count_that_the_analyzer_doubts_is_held_with_the_reason_in_words() -> None:
    (found,) = try_file(Trial(*trial_settings(None, "sysmex-xn", "")), DOUBTED, 0.0).outcomes
    told = {one.code: (one.verdict.action, render_all(one.verdict.reasons)) for one in found.decision.results}
    assert told == {
        "HGB": ("hold", "alarm W of the analyzer (low reliability)"),
        "WBC": ("hold", "alarm > of the analyzer (beyond the assured linearity)"),
        "PLT": ("release", ""),
        "Anemia": ("ignore", ""),
    }


def test_a_profile_cannot_be_changed() -> None:
    profile, field = profiles.parse("m", PLAIN), "charsets"
    with pytest.raises(AttributeError):
        setattr(profile, field, ("GBK",))
    assert msgspec.structs.replace(profile, charsets=("GBK",)).charsets == ("GBK",)
