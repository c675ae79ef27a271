"""A new message of a sample reads back as the new specimen with the new values, and as the sample in all else."""

import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from simulators_support import ASTM, ORU, ZONE, astm_profile, hl7_profile, reader

from labbridge import profiles
from labbridge.mapping import load_catalogue, load_code_map
from labbridge.model import Report, Result
from labbridge.simulators.analyzer import templates
from labbridge.simulators.vary import Fresh, Range, Template, ranges_of

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 21, 8, 30, 0, tzinfo=ZONE)
HL7, LIS = reader(hl7_profile()), reader(astm_profile())


def fresh(*specimens: str, seed: int = 1, outside: float = 0.0, critical: float = 0.0) -> Fresh:
    return Fresh(specimens, NOW, Random(seed), outside, critical)


def numbers(reports: tuple[Report, ...]) -> list[str]:
    return [result.number for report in reports for result in report.results if result.kind == "number"]


def shape(text: str) -> str:
    return re.sub("[0-9]+", "9", text.partition(".")[0]) + "." + "9" * len(text.partition(".")[2])


def same_but_for_what_varies(old: Result, new: Result) -> None:
    if old.kind != "number":
        assert new.value == old.value
    for field in ("code", "kind", "unit", "flags", "status", "name", "reference"):
        assert getattr(new, field) == getattr(old, field)


@given(st.integers(), st.from_regex("[0-9A-Z]{1,15}", fullmatch=True), st.sampled_from([(ORU, HL7), (ASTM, LIS)]))
@settings(max_examples=60, deadline=None)
def test_reads_back_with_the_new_specimen_and_values(seed, specimen, case):
    sample, read = case
    payload = Template(sample, read).write(fresh(specimen, seed=seed, outside=0.3, critical=0.3))
    (old,), (new,) = read(sample).reports, read(payload).reports
    assert new.specimen.id == specimen
    assert new.patient == old.patient
    assert not new.problems
    for before, after in zip(old.results, new.results, strict=True):
        same_but_for_what_varies(before, after)
        assert shape(after.number) == shape(before.number)


def test_same_dice_give_the_same_message():
    template = Template(ORU, HL7)
    assert template.write(fresh("1", seed=7)) == template.write(fresh("1", seed=7))
    assert template.write(fresh("1", seed=7)) != template.write(fresh("1", seed=8))


def test_only_the_places_that_are_read_change():
    """An id, a number or a date that stands elsewhere for something else is left alone."""
    lines = Template(ASTM, LIS).write(fresh("123")).split(b"\r")
    assert lines[0] == b"H|\\^&|17||Counter^1.0^900100200300|||||||P|1|20261121083000"
    assert lines[1] == ASTM.split(b"\r")[1]
    segments = Template(ORU, HL7).write(fresh("123")).split(b"\r")
    assert b"|19800101000000|" in segments[1]
    assert b"|4-10|" in segments[3]
    assert b"|3.80 - 5.10|" in segments[4]
    assert b"|20271231235959" in segments[5]


def test_blanks_that_pad_a_field_are_kept():
    payload = Template(ASTM, LIS).write(fresh("123"))
    assert b"|2^1^            123^B|" in payload
    assert re.search(rb"WBC\|  [0-9],[0-9]\|", payload)
    assert b"|2^1^1234567890123456789^B|" in Template(ASTM, LIS).write(fresh("1234567890123456789"))


def test_times_keep_their_distance_and_end_now():
    payload = Template(ORU, HL7).write(fresh("1"))
    assert b"|20261121083000||ORU" in payload
    assert b"|20261121081458|20261121082953\r" in payload
    assert HL7(payload).reports[0].results[0].measured == "20261121082953"


def test_an_offset_of_the_sample_becomes_that_of_now():
    sample = ORU.replace(b"20260301101502||", b"20260301021502+0000||").replace(b"20260301101455", b"20260301021455")
    assert b"|20261121083000+0800||ORU" in Template(sample, HL7).write(fresh("1"))


def test_each_message_has_its_own_control_id():
    template, dice = Template(ORU, HL7), Random(3)
    ids = {HL7(template.write(Fresh(["1"], NOW, dice))).control_id for _ in range(100)}
    assert len(ids) == 100
    assert all(0 < len(control_id) <= 20 for control_id in ids)


def test_two_specimens_one_message_stay_two():
    second = b"OBR|2||42|00001\rOBX|1|NM|6690-2^WBC^LN||9.1|10*9/L|||||F\r"
    template = Template(ORU + second, HL7)
    assert template.specimens == ("900100200300", "42")
    reports = HL7(template.write(fresh("A1", "B2"))).reports
    assert [report.specimen.id for report in reports] == ["A1", "B2"]
    assert len(numbers(reports)) == 4


def test_an_id_that_is_said_twice_changes_in_both_places():
    sample = ORU.replace(b"OBX|1", b"SPM|1|900100200300\rOBX|1").replace(b"|2.3.1|", b"|2.5.1|")
    assert HL7(sample).reports[0].specimen.id
    (report,) = HL7(Template(sample, HL7).write(fresh("55"))).reports
    assert (report.specimen.id, report.problems) == ("55", ())


def test_an_id_that_looks_like_other_things_is_found_where_it_is_read():
    sample = ORU.replace(b"|900100200300|", b"|7|")
    segments = Template(sample, HL7).write(fresh("S99")).split(b"\r")
    assert segments[2].startswith(b"OBR|1||S99|")
    assert re.match(rb"OBX\|1\|NM\|6690-2\^WBC\^LN\|\|7\|", segments[3])


@pytest.mark.parametrize(
    "sample",
    [
        b"garbage",
        ORU.replace(b"|17|P|", b"|17|Q|"),
        ORU.replace(b"900100200300", b""),
        ORU.split(b"OBX")[0],
        ORU.replace(b"^R01", b"^X99"),
    ],
)
def test_what_is_no_patients_result_is_no_template(sample):
    with pytest.raises(ValueError, match="not a sample"):
        Template(sample, HL7)


def test_an_id_without_a_place_of_its_own_is_no_template():
    pieces = reader(profiles.parse("x", '[profile]\nmodel="x"\nvendor="x"\nprotocol="hl7v2"\n[specimen]\nid="{OBR-2}/{OBR-3}"\n'))
    with pytest.raises(ValueError, match="no place of its own"):
        Template(ORU.replace(b"OBR|1||900", b"OBR|1|9|900"), pieces)


@pytest.mark.parametrize("specimen", ["A|B", "A^B", "A\rB"])
def test_a_delimiter_in_a_specimen_id_is_refused(specimen):
    with pytest.raises(ValueError, match="delimiter"):
        Template(ORU, HL7).write(fresh(specimen))


@given(st.integers(), st.sampled_from([Range(4, 10, 2, 30), Range(4, 10), Range(None, 5), Range(4, None), Range(-2, 3, -10, 10)]))
@settings(max_examples=100, deadline=None)
def test_a_number_is_drawn_inside_the_range_or_beyond_it(seed, limits):
    low = limits.low if limits.low is not None else 0.0
    high = limits.high if limits.high is not None else 8.0
    inside = limits.draw(Random(seed), 0.0, 0.0)
    outside = limits.draw(Random(seed), 1.0, 0.0)
    critical = limits.draw(Random(seed), 0.0, 1.0)
    assert low < inside < high
    assert not low < outside < high
    assert not (limits.critical_low or low) <= critical <= (limits.critical_high or high)


def test_most_values_are_inside_and_a_few_outside():
    template = Template(ORU, HL7, lambda report, result: Range(4, 10, 1, 50))
    dice = Random(5)
    drawn = [float(n) for _ in range(1000) for n in numbers(HL7(template.write(Fresh(["1"], NOW, dice))).reports)]
    assert 0.03 < sum(not 4 <= value <= 10 for value in drawn) / len(drawn) < 0.09
    assert 0.002 < sum(not 1 <= value <= 50 for value in drawn) / len(drawn) < 0.02


def test_ranges_are_the_laboratorys_in_the_analyzers_unit(tmp_path):
    (tmp_path / "tests.csv").write_text(
        "test,name,unit,decimals,kind,release\nHCT,Hematocrit,L/L,3,number,auto\nCOL,Colour,,,coded,auto\nK,Potassium,mmol/L,1,number,auto\n"
    )
    (tmp_path / "limits.csv").write_text(
        "test,kind,sex,age_from,age_to,low,high\n"
        "HCT,reference,F,18y,,0.35,0.45\nHCT,reference,M,18y,,0.40,0.50\nHCT,critical,,,,0.20,0.60\nK,critical,,,,2.5,6.2\n"
    )
    (tmp_path / "map.csv").write_text("code,analyzer_unit,test,action\nHCT,%,HCT,\nCOL,,COL,\nPNG,*,,ignore\nK,mmol/L,K,\n")
    catalogue = load_catalogue([tmp_path])
    ranges = ranges_of(catalogue, load_code_map("map", [tmp_path], catalogue), NOW.timestamp())
    report = HL7(ORU).reports[0]
    found = ranges(report, Result("HCT", "41", "number", "41", unit="%"))
    assert found is not None
    ends = (found.low, found.high, found.critical_low, found.critical_high)
    assert [round(Decimal(end or 0), 6) for end in ends] == [35, 45, 20, 60]
    for code in ("COL", "PNG", "K", "X"):
        assert ranges(report, Result(code, "5", "number", "5", unit="mmol/L" if code == "K" else "")) is None


SAMPLES = sorted(file for file in ROOT.glob("analyzers/*/samples/*") if file.suffix in (".hl7", ".astm"))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: f"{file.parts[-3]}-{file.stem}")
@given(seed=st.integers(), number=st.integers(0, 10**12 - 1))
@settings(max_examples=5, deadline=None)
def test_every_packaged_sample_of_patients_reads_back_as_others(file, seed, number):
    profile = profiles.load(file.parts[-3], [ROOT / "analyzers"])
    read = reader(profile)
    sample = b"".join(line + b"\r" for line in file.read_bytes().splitlines())
    try:
        template = Template(sample, read)
    except ValueError:
        assert not file.stem.startswith("patient")
        return
    told = {old: f"{(number + n) % 10**12:012d}" for n, old in enumerate(template.specimens)}
    reports = read(template.write(fresh(*told.values(), seed=seed, outside=0.5))).reports
    before = read(sample).reports
    assert [report.specimen.id for report in reports] == [told[report.specimen.id] for report in before]
    for old, new in zip(before, reports, strict=True):
        named = old.patient if old.patient.id != old.specimen.id else replace(old.patient, id=new.specimen.id)
        assert (new.patient, new.problems) == (named, ())
        for was, now in zip(old.results, new.results, strict=True):
            same_but_for_what_varies(was, now)
            assert now.measured_at is None or 0 <= NOW.timestamp() - now.measured_at < 86400


@pytest.mark.parametrize("name", profiles.names([ROOT / "analyzers"]))
def test_every_packaged_profile_can_be_played(name):
    profile = profiles.load(name, [ROOT / "analyzers"])
    assert templates(profile, ROOT / "analyzers" / name / "samples", ZONE)
