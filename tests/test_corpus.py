"""Real messages of these models are read right: no value, unit, code or specimen is wrong.

The messages are not ours to keep: they are read from the folder that LABBRIDGE_CORPUS names.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

from labbridge.trial import Trial, trial_settings, try_file

CORPUS = os.environ.get("LABBRIDGE_CORPUS", "")

PROFILES: dict[str, str | dict[str, str]] = {
    "Sysmex-XN-": "sysmex-xn",
    "Sysmex-XP-": "sysmex-xp",
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
    assert len(files) >= 30
    readings = tmp_path / "readings.jsonl"
    readings.write_bytes(b"\n".join(map(reading, files)))
    compared = subprocess.run([sys.executable, f"{CORPUS}/compare.py", str(readings)], capture_output=True, text=True, check=False)
    print(compared.stdout, compared.stderr)
    assert [line for line in compared.stdout.splitlines() if line.startswith("wrong")] == []
    assert compared.returncode == 0
