"""Real captures go through the links whole and in pieces, with the same outcome."""

import os
from pathlib import Path

import pytest

from labbridge.wire import Lis01Link, Lis01Settings, MllpLink, MllpSettings
from labbridge.wire.events import Event
from tests.wire.replay import ENQ, EOT, payloads, play

CORPUS = Path(os.environ.get("LABBRIDGE_CORPUS", "/nowhere"))
FRAMED = {
    path: data
    for path in sorted(CORPUS.glob("*/*"))
    if path.suffix in (".astm", ".hl7") and (data := path.read_bytes()) and (b"\x02" in data or b"\x0b" in data)
}

pytestmark = pytest.mark.skipif(not FRAMED, reason="LABBRIDGE_CORPUS names no folder of captures")


def outcome(path: Path, size: int) -> list[Event]:
    data = FRAMED[path]
    link: Lis01Link | MllpLink
    if path.suffix == ".hl7":
        link = MllpLink(MllpSettings())
    else:
        link = Lis01Link(Lis01Settings())
        if ENQ not in data:
            data = ENQ + data[data.index(b"\x02") :]
        if not data.rstrip().endswith(EOT):
            data += EOT
    return play(link, data, size) + link.closed(0.0)


@pytest.mark.parametrize("path", FRAMED or [CORPUS], ids=lambda path: path.name)
def test_a_capture_reads_the_same_in_any_segmentation(path: Path) -> None:
    # conformance: A07 C02
    whole = outcome(path, 0)
    for size in range(1, 10):
        assert outcome(path, size) == whole


def test_captures_whose_frames_are_sound_are_received() -> None:
    # conformance: A07 C01
    lacking = {path.name for path in FRAMED if not payloads(outcome(path, 0))}
    unsound = {"bhcg_diluted_1_15.astm", "bhcg_over_range.astm", "qc_with_matrices.astm", "multiframe_7tests.astm"}
    assert lacking <= unsound  # by the note of the corpus: wrong checksums, frames left out


def test_two_records_under_one_frame_number_are_both_kept() -> None:
    (capture,) = [path for path in FRAMED if path.name == "qc_QC-82151403.astm"]
    (payload,) = payloads(outcome(capture, 0))
    assert payload.count(b"R|29|") == 2
    assert payload.count(b"\r") == 40
