"""Every sample beside a profile reads as the file beside it says."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from labbridge import profiles
from labbridge.formats import hl7v2, lis02
from labbridge.model import Reading
from labbridge.trial import cases

ANALYZERS = Path(__file__).parent.parent / "analyzers"
SAMPLES = sorted(file for file in ANALYZERS.glob("*/samples/*") if file.suffix in (".hl7", ".astm"))
ZONE = ZoneInfo("Asia/Shanghai")


def read(file: Path) -> Reading:
    profile = profiles.load(file.parent.parent.name, [ANALYZERS])
    reader = hl7v2.read if profile.protocol == "hl7v2" else lis02.read
    return reader(file.read_bytes(), profile, ZONE)


@pytest.mark.parametrize("name", profiles.names([ANALYZERS]))
def test_samples_read_as_written_beside_them(name: str) -> None:
    ran = cases(name, [ANALYZERS])
    assert len(ran) == len([file for file in SAMPLES if file.parent.parent.name == name])
    assert [(sample, differences) for sample, differences in ran if differences] == []


@pytest.mark.parametrize("name", profiles.names([ANALYZERS]))
def test_every_profile_has_a_sample_of_a_patient(name: str) -> None:
    readings = [read(file) for file in SAMPLES if file.parent.parent.name == name]
    assert any(report.role == "patient" and not report.problems for reading in readings for report in reading.reports)


@pytest.mark.parametrize("file", [file for file in SAMPLES if file.stem.startswith("qc")], ids=lambda file: file.stem)
def test_controls_are_never_read_as_patients(file: Path) -> None:
    """# conformance: B10, B21, E19."""
    assert {report.role for report in read(file).reports} == {"qc"}


@pytest.mark.parametrize("name", profiles.names([ANALYZERS]))
def test_every_profile_names_its_evidence(name: str) -> None:
    evidence = profiles.load(name, [ANALYZERS]).evidence
    assert evidence["verified_on_hardware"] is False
    assert len(evidence) > 1
