"""Captures: messages out of files, and what the real pipeline makes of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labbridge import capture, config, profiles, revision
from labbridge.trial import Trial, cases, trial_settings, try_file

from .small_lab import ANALYZERS, NOW, observations

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
    ("data", "expected"),
    [
        (MESSAGE, [MESSAGE]),
        (START + MESSAGE + END, [MESSAGE]),
        (b"noise" + (START + MESSAGE + END) * 2 + b"\r\n", [MESSAGE, MESSAGE]),
        (START + MESSAGE, [MESSAGE]),  # cut off before its end
        (START + MESSAGE + END + START + MESSAGE, [MESSAGE, MESSAGE]),
    ],
)
def test_hl7_messages_come_out_framed_or_bare(data: bytes, expected: list[bytes]) -> None:
    assert capture.messages(data, "mllp") == (expected, [])


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
