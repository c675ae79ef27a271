"""Real messages of these models are read right: no value, unit, code or specimen is wrong.

The messages are not ours to keep: they are read from the folder that LABBRIDGE_CORPUS names.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from labbridge import profiles
from labbridge.formats import hl7v2, lis02
from labbridge.model import RemoteProtocolError
from labbridge.profiles import Profile
from tests.test_samples import as_json

CORPUS = os.environ.get("LABBRIDGE_CORPUS", "")
ANALYZERS = Path(__file__).parent.parent / "analyzers"

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


def profile_of(file: Path) -> str | None:
    """The profile that reads a file of the corpus; None for models and formats that have none."""
    for prefix, known in PROFILES.items():
        if file.parent.name.startswith(prefix) and file.suffix in (".astm", ".hl7"):
            return known if isinstance(known, str) else known.get(file.suffix)
    return None


def unframed(data: bytes, protocol: str) -> list[bytes]:
    """The messages of a capture, its framing taken off; checksums are the link's business."""
    if protocol == "hl7v2":
        return [message for message in re.split(b"[\x0b\x1c]", data) if message.strip()]
    if b"\x02" not in data:
        return [data]
    frames = re.findall(rb"\x02[0-7](.*?)([\x03\x17])", data, re.DOTALL)
    return [b"".join(text if end == b"\x17" else text.rstrip(b"\r") + b"\r" for text, end in frames)]


def read_all(file: Path, profile: Profile) -> dict[str, Any]:
    read = hl7v2.read if profile.protocol == "hl7v2" else lis02.read
    try:
        readings = [read(message, profile, ZoneInfo("UTC")) for message in unframed(file.read_bytes(), profile.protocol)]
    except RemoteProtocolError as error:
        return {"error": error.reason.code}
    found = as_json(*readings)
    for query in found["queries"]:
        query["specimen"] = query["specimen"] or ""  # compare.py's word for "all of them"
    return found


@pytest.mark.skipif(not CORPUS, reason="LABBRIDGE_CORPUS names no folder")
def test_nothing_in_the_corpus_is_read_wrong(tmp_path: Path) -> None:
    files = [file for file in sorted(Path(CORPUS).glob("*/*")) if profile_of(file)]
    assert len(files) >= 30
    loaded = {name: profiles.load(name, [ANALYZERS]) for name in {str(profile_of(file)) for file in files}}
    lines = [
        json.dumps({"file": f"{file.parent.name}/{file.name}", **read_all(file, loaded[str(profile_of(file))])}) for file in files
    ]
    readings = tmp_path / "readings.jsonl"
    readings.write_text("\n".join(lines), "utf-8")
    compared = subprocess.run([sys.executable, f"{CORPUS}/compare.py", str(readings)], capture_output=True, text=True, check=False)
    print(compared.stdout, compared.stderr)
    assert [line for line in compared.stdout.splitlines() if line.startswith("wrong")] == []
    assert compared.returncode == 0
