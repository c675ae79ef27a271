"""Real messages of these models are read right: no value, unit, code or specimen is wrong.

The messages are not ours to keep: they are read from the folder that LABBRIDGE_CORPUS names.
"""

import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

from labbridge import capture, pipeline
from labbridge.model import Reading, RemoteProtocolError
from labbridge.trial import Trial, trial_settings, try_file
from labbridge.wire import Lis01Link, MllpLink
from labbridge.wire.events import Event
from labbridge.wire.lis01 import Lis01Settings
from labbridge.wire.lis01_frames import cut
from labbridge.wire.mllp import MllpSettings
from tests.wire.replay import ENQ, EOT, payloads, play, settled

CORPUS = os.environ.get("LABBRIDGE_CORPUS", "")

PROFILES: dict[str, str | dict[str, str]] = {
    "77_Elektronika-LabUMat": "77-elektronika-labumat",
    "77_Elektronika-UriSed": "77-elektronika-urised-mini",
    "Abbott-ARCHITECT": "abbott-architect",
    "Abbott-Alinity_m": "abbott-alinity-m",
    "Abbott-m2000": "abbott-m2000",
    "BRAHMS_Thermo-KRYPTOR": "brahms-kryptor",
    "Beckman_Coulter-Access": "beckman-access",
    "Bio-Rad-D-10": "bio-rad-d-10",
    "Bio-Rad-IH-1000": "bio-rad-ih-1000",
    "BioSystems-BA": "biosystems-ba",
    "Boditech-ichroma": "boditech-ichroma",
    "Euroimmun-Analyzer": "euroimmun-analyzer",
    "Hologic-Panther": "hologic-panther",
    "Horiba-ABX_Pentra": "horiba-pentra",
    "Immucor-": "immucor-galileo",
    "Ortho-VISION": "ortho-vision",
    "PixCell-HemoScreen": "pixcell-hemoscreen",
    "Radiometer-ABL80": "radiometer-abl80",
    "Roche-COBAS_TaqMan": "roche-cobas-taqman",
    "Roche-Urisys": "roche-urisys-1100",
    "Roche-cobas_5800": "roche-cobas-5800-6800",
    "Roche-cobas_6800": "roche-cobas-5800-6800",
    "Roche-cobas_u_411": "roche-cobas-u411",
    "Siemens-ADVIA_Centaur": "siemens-centaur-cp",
    "Siemens-DCA_Vantage": "siemens-dca",
    "Snibe-Maglumi": "snibe-maglumi",
    "Stago-STA_Satellite": "stago-satellite",
    "Sysmex-CS-": "sysmex-cs",
    "Sysmex-U-WAM": "sysmex-uwam",
    "Sysmex-XN-": "sysmex-xn",
    "Sysmex-XP-": "sysmex-xp",
    "Thermo-Phadia": "thermo-phadia",
    "Transasia_Erba-EM-200": "erba-em200",
    "URIT-8031": "urit-8031",
    "Mindray-BC": "mindray-bc",
    "Mindray-BS": "mindray-bs",
    "Roche-cobas_c111": "roche-cobas-c111",
    "Roche-cobas_c311": "roche-cobas-c311",
    "Roche_Hitachi-7600": "roche-cobas-c311",
    "Roche-cobas_e411": "roche-cobas-e411",
    "Cepheid-GeneXpert": {".astm": "cepheid-genexpert", ".hl7": "cepheid-genexpert-hl7"},
    "Horiba-Yumizen": "horiba-yumizen",
    "Siemens-CLINITEK_Status": "siemens-clinitek",
    "generic-": {".astm": "generic-astm", ".hl7": "generic-hl7"},
    "synthetic-": {".astm": "generic-astm"},
}


def profile_of(file: Path) -> str:
    """The profile that reads a file of the corpus; empty for models and formats that have none."""
    for prefix, known in PROFILES.items():
        if file.parent.name.startswith(prefix) and file.suffix in (".astm", ".hl7"):
            return known if isinstance(known, str) else known.get(file.suffix, "")
    return ""


@cache
def trial(profile: str) -> Trial:
    return Trial(*trial_settings(None, profile, ""))


def reading(file: Path) -> bytes:
    found = try_file(trial(profile_of(file)), file.read_bytes(), 0.0)
    return msgspec.json.encode(found.as_json(f"{file.parent.name}/{file.name}"))


@pytest.mark.skipif(not CORPUS, reason="LABBRIDGE_CORPUS names no folder")
def test_nothing_in_the_corpus_is_read_wrong(tmp_path: Path) -> None:
    files = [file for file in sorted(Path(CORPUS).glob("*/*")) if profile_of(file)]
    assert len(files) >= 75
    readings = tmp_path / "readings.jsonl"
    readings.write_bytes(b"\n".join(map(reading, files)))
    compared = subprocess.run([sys.executable, f"{CORPUS}/compare.py", str(readings)], capture_output=True, text=True, check=False)
    print(compared.stdout, compared.stderr)
    assert [line for line in compared.stdout.splitlines() if line.startswith("wrong")] == []
    assert compared.returncode == 0


@pytest.mark.skipif(not CORPUS, reason="LABBRIDGE_CORPUS names no folder")
def test_every_message_reads_the_same_framed_and_cut_anywhere() -> None:
    """Framed anew by us; then whole, byte by byte, and cut at random, the same readings come of it."""
    places, messages = random.Random(1), 0
    for file in (file for file in sorted(Path(CORPUS).glob("*/*")) if profile_of(file)):
        rules = trial(profile_of(file)).rules
        for payload in capture.messages(file.read_bytes(), rules.profile.framing)[0]:
            text = payload.replace(b"\r\n", b"\r").replace(b"\n", b"\r")
            if rules.profile.protocol == "lis02" and not text.lstrip().startswith((b"H", b"h")):
                continue  # a capture that begins in the middle
            expected = _reading(text, file)
            cuts = [0, 1, places.randint(2, 300)]
            if rules.profile.framing == "mllp":
                found = [play(MllpLink(MllpSettings(answer_time=None)), b"\x0b" + text + b"\x1c\r", size) for size in cuts]
            else:
                found = [_by_frames(text, size) for size in cuts]
            for events in found:
                assert [_reading(one, file) for one in payloads(events)] == [expected], file
            messages += 1
    assert messages >= 75


def _by_frames(text: bytes, size: int) -> list[Event]:
    """What a host tells of a message in frames of 240 characters, each sent when the last was answered."""
    link = Lis01Link(Lis01Settings(role="host", answer_time=None, ends_message=lambda text: False))
    events = play(link, ENQ, size)
    for frame in cut(text.strip(b"\r\n") + b"\r", 240):
        events += play(link, frame, size)
    return events + settled(link, link.receive(EOT, 0.0))


def _reading(payload: bytes, file: Path) -> Reading | str:
    try:
        return pipeline.read(payload, trial(profile_of(file)).rules)
    except RemoteProtocolError as error:
        return error.reason.code
