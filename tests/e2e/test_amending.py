"""What a person changes, through the real daemon to a hospital that listens: another value, no value, another specimen."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from labbridge import commands, config, revision
from labbridge.commands import Request
from labbridge.formats.validity import validity
from labbridge.pipeline import Moment
from labbridge.store import Reader, Store
from tests import passport
from tests.e2e.helpers import RBC, WBC, Lab, fresh, observations
from tests.support import wait_until

Own = Callable[..., Lab]
CRITICAL = ("6690-2^WBC^LN", "0.20", "10*9/L")


def _said(message: bytes) -> list[tuple[str, str, str]]:
    """Code, value and OBX-11 of each result, and the notes."""
    lines = [line.split("|") for line in message.decode().split("\r")]
    return [
        (line[3].split("^")[0], line[5], line[11]) if line[0] == "OBX" else ("NTE", line[3], "")
        for line in lines
        if line[0] in ("OBX", "NTE")
    ]


def _valid(message: bytes) -> bool:
    return validity(message) == "valid"


def test_an_edited_value_is_a_correction_and_an_entered_one_is_new(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, WBC, RBC)
    shared.ward.wait(specimen)
    shown = shared.well("edit", specimen, "WBC", "6.126", "--reason", "counted by hand", "--preview")
    assert f"his would receive for {specimen}:" in shown
    assert "|6.13|" in shown
    assert len(shared.ward.of(specimen)) == 1
    shared.well("edit", specimen, "WBC", "6.126", "--reason", "counted by hand")
    second = shared.ward.wait(specimen, 2)[-1][1]
    assert [(fields[5], fields[11]) for fields in observations(second).values()] == [("6.13", "C")]
    status, said = shared.cli("edit", specimen, "WBC", "0.2", "--reason", "counted again")
    assert (status, "WBC is critical" in said) == (1, True)
    status, said = shared.cli("edit", specimen, "K", "-4", "--reason", "a negative value is a value")
    assert (status, "K -4.00 mmol/L is not compatible with life" in said) == (1, True)
    shared.well("edit", specimen, "PLT", "210", "--reason", "counted by hand")
    assert _said(shared.ward.wait(specimen, 3)[-1][1]) == [("H032", "210", "F")]
    told = shared.well("trace", specimen)
    for words in ("edited a result", "counted by hand", "changed by hand from 5.50", "entered by hand"):
        assert words in told
    assert all(_valid(message) for _, message in shared.ward.of(specimen))


def test_the_hospital_reads_why_there_is_no_result(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL, RBC)
    shared.ward.wait(specimen)
    shared.well("not-reportable", specimen, "--reason", "clot | in the tube")
    assert _said(shared.ward.wait(specimen, 2)[-1][1]) == [
        ("H001", "", "X"), ("NTE", r"not reportable: clot \F\ in the tube", ""),
    ]  # fmt: skip
    shared.well("recollect", specimen, "--test", "RBC", "--reason", "clotted")
    last = shared.ward.wait(specimen, 3)[-1][1]
    assert _said(last) == [("H024", "", "X"), ("NTE", "please collect and send a new specimen: clotted", "")]
    assert _valid(last)
    assert not shared.held(specimen)
    assert "as written" in shared.well("verify")


def test_who_was_told_is_kept_and_lets_a_critical_value_leave(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, CRITICAL)
    wait_until(lambda: shared.held(specimen), 5, "held")
    shared.well("acknowledge", specimen)
    shared.well("comment", specimen, "smear ordered")
    shared.well("viewed", specimen)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    shared.well("call-back", specimen, "--told", "Dr. Li", "--told-at", at, "--read-back")
    shared.well("release", specimen, "--reason", "confirmed by smear")
    shared.ward.wait(specimen)
    kinds = [row.get("kind", "") for row in shared.story(specimen, "decision")]
    assert kinds == ["", "acknowledge", "comment", "call-back", "release"]
    told = shared.well("trace", specimen)
    for words in ("smear ordered", "Told Dr. Li at", ", read back"):
        assert words in told


def _proposed(lab: Lab, specimen: str, to: str) -> int:
    """The proposal of a colleague: nobody may confirm their own, and here all run as one user."""
    compiled, _ = revision.build(config.load(lab.config), lab.config)
    moment = Moment.of(time.time(), compiled.zone, os.urandom)
    request = Request("correct-id", specimen=specimen, to=to, reason="tubes swapped")
    with closing(Store(lab.url)) as store:
        store.open()
        store.wait_ready(60)
        done = store.call(lambda tx: commands.COMMANDS["correct-id"](tx, compiled, moment, request, "colleague"))
    return int(done.answer["proposal"])


@pytest.fixture
def proven(own: Own) -> Iterator[Lab]:
    """A laboratory whose store is proven at the end."""
    lab = own()
    yield lab
    assert "as written" in lab.well("verify")


def test_a_specimen_id_is_corrected_after_delivery(proven: Lab) -> None:
    lab, wrong, right = proven, fresh(), fresh()
    lab.tell(wrong, WBC, RBC)
    lab.tell(right, ("777-3^PLT^LN", "210", "10*9/L"))
    lab.ward.wait(wrong)
    lab.ward.wait(right)
    wait_until(lambda: not lab.queue(), 5, "all answered")
    assert lab.stop() == 0
    number = _proposed(lab, wrong, right)
    assert f"proposal {number}" in lab.well("confirm-id")
    lab.start()
    shown = lab.well("confirm-id", str(number), "--preview")
    assert [shown.count(f"would receive for {one}:") for one in (wrong, right)] == [1, 1]
    lab.well("confirm-id", str(number), "--reason", "checked at the rack")
    taken_back = lab.ward.wait(wrong, 2)[-1][1]
    why = "withdrawn, reported under a wrong specimen id: checked at the rack"
    assert _said(taken_back) == [("H001", "", "W"), ("NTE", why, ""), ("H024", "", "W"), ("NTE", why, "")]
    assert _said(lab.ward.wait(right, 2)[-1][1]) == [("H001", "5.50", "F"), ("H024", "4.50", "F")]
    assert _valid(taken_back)
    assert [row["state"] for row in lab.story(wrong, "report")] == ["rejected"]
    assert [row["state"] for row in lab.story(right, "report")] == ["released", "released"]
    assert "belongs to another specimen" in lab.well("trace", wrong)
    assert "came under another specimen id" in lab.well("trace", right)
    assert "nothing is proposed" in lab.well("confirm-id")
    wait_until(lambda: not lab.queue(), 5, "all answered")
    for specimen in (wrong, right):
        document = lab.well("trace", specimen, "--export")
        assert passport.verify(document) > 5
        assert "confirm-id" in {one["columns"].get("action") for one in json.loads(document)["facts"]}


class Flying(NamedTuple):
    """A delivery under a wrong specimen id, which the hospital has, and did not answer."""

    lab: Lab
    wrong: str
    right: str
    proposal: int

    def is_undone(self) -> None:
        """It is withdrawn at the hospital, which has it under the right id, and nothing else is to come."""
        ward = self.lab.ward
        assert [one[2] for one in _said(ward.wait(self.wrong, 2)[-1][1])] == ["W", ""]
        assert _said(ward.wait(self.right)[-1][1]) == [("H001", "5.50", "F")]
        wait_until(lambda: not self.lab.queue(), 5, "all answered")
        with closing(Reader(self.lab.url)) as reader:
            wait_until(lambda: not reader.moved(), 10, "the correction is settled")

    def reload(self) -> None:
        """Another destination has its name: other connections, another outbox."""
        before = self.lab.log.read_text().count("reloaded")
        self.lab.edit('timeout = "30s"', 'timeout = "20s"')
        self.lab.signal(signal.SIGHUP)
        wait_until(lambda: self.lab.log.read_text().count("reloaded") > before, 10, "reloaded")


@pytest.fixture
def flying(proven: Lab) -> Flying:
    lab, wrong, right = proven, fresh(), fresh()
    lab.ward.stop()
    lab.tell(wrong)
    wait_until(lambda: lab.queue(wrong), 5, "queued")
    assert lab.stop() == 0
    number = _proposed(lab, wrong, right)
    lab.ward.plans[wrong] = lambda message, before: None if before == 0 else "AA"
    lab.start()
    lab.ward.start()
    lab.ward.wait(wrong)
    return Flying(lab, wrong, right, number)


def test_what_flew_under_the_wrong_id_is_withdrawn_when_it_has_arrived(flying: Flying) -> None:
    """The hospital takes its time with the answer, and is told meanwhile that it was another's."""
    flying.lab.well("confirm-id", str(flying.proposal))
    flying.lab.ward.stop()
    flying.lab.ward.start()
    flying.is_undone()


def test_what_flew_under_the_wrong_id_is_withdrawn_though_the_daemon_was_killed(flying: Flying) -> None:
    """Nobody knows any more that it had left."""
    flying.lab.well("confirm-id", str(flying.proposal))
    flying.lab.kill()
    flying.lab.start()
    flying.is_undone()


def test_what_flew_under_the_wrong_id_is_withdrawn_though_the_destination_changed(flying: Flying) -> None:
    flying.lab.well("confirm-id", str(flying.proposal))
    flying.reload()
    flying.is_undone()


def test_what_flew_before_the_destination_changed_is_withdrawn_when_it_is_corrected(flying: Flying) -> None:
    flying.lab.ward.stop()
    flying.reload()
    flying.lab.well("confirm-id", str(flying.proposal))
    flying.lab.ward.start()
    flying.is_undone()


def test_the_daemon_starts_though_what_may_have_arrived_cannot_be_withdrawn(flying: Flying) -> None:
    """The destination is gone: the ward must be told by telephone, and all else goes on."""
    lab = flying.lab
    lab.well("confirm-id", str(flying.proposal))
    lab.kill()
    lab.edit('name = "his"\nprotocol', 'name = "other"\nprotocol')
    lab.edit('to = "his"', 'to = "other"')
    lab.start()
    assert "could not be withdrawn: tell the ward" in lab.log.read_text()
    with closing(Reader(lab.url)) as reader:
        assert any("no longer configured" in row.reason for row in reader.audit_trail(subject="report 1"))
