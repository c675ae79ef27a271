"""The simulated analyzer and the simulated hospital over real loopback sockets."""

import json
import random
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulators_support import ZONE, astm_profile, hl7_profile, reader, sample_folder

from labbridge.formats.acknowledgement import acknowledge, read_answer
from labbridge.links import retry
from labbridge.links.stream import WireProtocol
from labbridge.links.tcp import Connector, Listener, ListenError
from labbridge.profiles import Profile
from labbridge.simulators import AnalyzerSimulator, Hospital, analyzer
from labbridge.simulators.faults import Faults
from labbridge.wire import Answer, Event, Lis01Link, Lis01Settings, MllpLink, MllpSettings, Part, Received
from tests.loop import Loop
from tests.support import free_ports

LOCAL = "127.0.0.1"
HL7, LIS = hl7_profile(), astm_profile()


class Host:
    """Takes what analyzers send; ``says`` answers the n-th message: True, False, or None for silence."""

    def __init__(self, loop: Loop, profile: Profile, says: Callable[[int], bool | None] = lambda n: True) -> None:
        self.messages: list[bytes] = []
        self.links: list[WireProtocol] = []
        self.says, self.profile = says, profile
        lis01 = partial(Lis01Link, Lis01Settings(role="host"))
        machine = lis01 if profile.framing == "lis01" else partial(MllpLink, MllpSettings(answer_time=None))
        self.listener = Listener(loop, LOCAL, 0, machine, self)
        self.listener.start()

    def opened(self, link: WireProtocol) -> None:
        self.links.append(link)

    def closed(self, link: WireProtocol, why: str) -> None:
        self.links.remove(link)

    def refused(self, peer: str, why: str) -> None:
        raise AssertionError(why)

    def event(self, link: WireProtocol, event: Event) -> None:
        if isinstance(event, Part):
            link.settle(event.token, Answer(True))
        elif isinstance(event, Received):
            self.messages.append(event.payload)
            said = self.says(len(self.messages))
            if said is not None:
                code = "A" if said else "E"
                mllp = self.profile.framing == "mllp"
                replies = acknowledge(event.payload, code, stamp="20260101", control_id="1") if mllp else ()
                link.settle(event.token, Answer(said, replies))


class Sender:
    """Sends messages to a hospital over one connection; ``codes`` are the answers."""

    def __init__(self, loop: Loop, port: int) -> None:
        self.loop, self.codes, self.lost = loop, [], 0
        self.link: WireProtocol | None = None
        machine = partial(MllpLink, MllpSettings(answer_time=None))
        self.connector = Connector(loop, LOCAL, port, machine, self, lambda state: None)
        self.connector.start()
        loop.until(lambda: self.link)

    def opened(self, link: WireProtocol) -> None:
        self.link = link

    def closed(self, link: WireProtocol, why: str) -> None:
        self.link = None
        self.lost += 1

    def event(self, link: WireProtocol, event: Event) -> None:
        if isinstance(event, Received):
            answer = read_answer(event.payload)
            self.codes.append((answer.code, answer.control_id))
            link.settle(event.token, Answer(True))

    def send(self, control_id: str, specimen: str = "S1", stamp: str = "20260301101502", value: str = "7") -> None:
        message = f"MSH|^~\\&|L|L|H|H|{stamp}||ORU^R01|{control_id}|P|2.5.1\rOBR|1||{specimen}|CBC\rOBX|1|NM|W||{value}\r"
        assert self.link is not None
        self.link.send(1, message.encode())

    def ask(self, *message: str, **more: str) -> str:
        """Sends a message and returns the code of its answer."""
        before = len(self.codes)
        self.send(*message, **more)
        self.loop.until(lambda: len(self.codes) > before)
        return self.codes[-1][0]


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return sample_folder(tmp_path)


@pytest.fixture(autouse=True)
def _quick_and_nothing_left(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(retry, "uniform", lambda low, high: 0.01)
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before


def simulator(loop: Loop, profile: Profile, samples: Path, port: int, **more: Any) -> AnalyzerSimulator:
    made = AnalyzerSimulator(loop, profile, samples, LOCAL, port, zone=ZONE, **{"rate": 0, "seed": 3} | more)
    made.start()
    return made


@pytest.mark.parametrize("profile", [HL7, LIS], ids=["hl7v2", "lis02"])
def test_each_message_is_another_specimen_and_is_sent_once(loop: Loop, samples: Path, profile: Profile) -> None:
    host, ends = Host(loop, profile), []
    sender = simulator(loop, profile, samples, host.listener.port, count=20, finished=lambda: ends.append(1))
    loop.until(lambda: ends)
    assert (sender.sent, sender.acknowledged, sender.refused, sender.done) == (20, 20, 0, True)
    reports = [reader(profile)(message).reports[0] for message in host.messages]
    ids = [report.specimen.id for report in reports]
    assert len(set(ids)) == 20
    assert all(len(id_) == 12 for id_ in ids)
    assert {report.role for report in reports} == {"patient"}


@pytest.mark.parametrize("profile", [HL7, LIS], ids=["hl7v2", "lis02"])
def test_what_is_refused_is_sent_again_unchanged(loop: Loop, samples: Path, profile: Profile, monkeypatch: Any) -> None:
    monkeypatch.setattr(analyzer, "AGAIN_S", 0.02)
    refusals = 2 if profile is HL7 else 6  # the LIS01 link itself sends a frame six times
    host = Host(loop, profile, lambda n: n > refusals)
    sender = simulator(loop, profile, samples, host.listener.port, count=1)
    loop.until(lambda: sender.done)
    assert len(set(host.messages)) == 1
    assert len(host.messages) == refusals + 1
    assert (sender.acknowledged, sender.refused) == (1, sender.sent - 1)


def test_what_is_not_answered_is_sent_again_unchanged(loop: Loop, samples: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(analyzer, "AGAIN_S", 0.02)
    monkeypatch.setattr(analyzer, "ANSWER_S", 0.1)
    replies = iter([None, True])
    host = Host(loop, HL7, lambda n: next(replies))
    host.profile = HL7
    sender = simulator(loop, HL7, samples, host.listener.port, count=1)
    loop.until(lambda: len(host.messages) == 2)
    assert len(set(host.messages)) == 1
    assert sender.refused == 1


@pytest.mark.parametrize("profile", [HL7, LIS], ids=["hl7v2", "lis02"])
def test_a_broken_connection_is_made_again_and_nothing_is_lost(loop: Loop, samples: Path, profile: Profile) -> None:
    host = Host(loop, profile, lambda n: host.links[0].drop("") if n == 1 else True)
    sender = simulator(loop, profile, samples, host.listener.port, count=3)
    loop.until(lambda: sender.done)
    assert host.messages[0] == host.messages[1]
    assert len(set(host.messages)) == 3
    assert (sender.sent, sender.acknowledged, sender.refused) == (4, 3, 1)


def test_the_rate_is_kept(loop: Loop, samples: Path) -> None:
    host = Host(loop, HL7)
    began = loop.seconds()
    sender = simulator(loop, HL7, samples, host.listener.port, rate=50.0, count=11)
    loop.until(lambda: sender.done)
    assert loop.seconds() - began > 0.19


def test_a_message_that_wants_no_answer_is_not_waited_for(loop: Loop, samples: Path) -> None:
    sample = samples / "patient.hl7"
    sample.write_bytes(sample.read_bytes().replace(b"||||||UNICODE", b"|||NE|NE||UNICODE"))
    host = Host(loop, HL7)
    sender = simulator(loop, HL7, samples, host.listener.port, count=3)
    loop.until(lambda: sender.done and len(host.messages) == 3)


def test_a_host_that_speaks_first_is_heard(loop: Loop, samples: Path) -> None:
    """An order for the analyzer is taken; it is not an answer."""
    host, sent = Host(loop, LIS), []
    host.opened = lambda link: (host.links.append(link), link.send(1, b"H|\\^&\rL|1|N\r"))
    host.event = lambda link, event, take=host.event: (sent.append(type(event).__name__), take(link, event))
    sender = simulator(loop, LIS, samples, host.listener.port, count=2)
    loop.until(lambda: sender.done and "Sent" in sent)


def test_a_folder_without_patients_samples_is_refused(loop: Loop, samples: Path) -> None:
    for name in ("patient.hl7", "patient.astm", "odd.hl7"):
        (samples / name).unlink()
    with pytest.raises(ValueError, match="no file there"):
        AnalyzerSimulator(loop, HL7, samples, LOCAL, 1, zone=ZONE)


def test_analyzer_to_hospital(loop: Loop, samples: Path, monkeypatch: Any) -> None:
    """A hospital that resets connections, refuses and rejects gets every message in the end."""
    hospital = Hospital(loop, LOCAL, 0, faults=Faults({"reset": 0.1, "refuse": 0.15, "reject": 0.15}, random.Random(5)))
    hospital.start()
    monkeypatch.setattr(analyzer, "AGAIN_S", 0.01)
    sender = simulator(loop, HL7, samples, hospital.port, count=15)
    loop.until(lambda: sender.done, 30)
    assert hospital.distinct == 15
    assert hospital.fates["accept"] == 15
    assert hospital.received == sender.sent == 15 + hospital.repeated
    assert min(hospital.fates[fate] for fate in ("reset", "refuse", "reject")) > 0


def test_every_message_is_acknowledged_by_its_own_id(loop: Loop) -> None:
    hospital = Hospital(loop, LOCAL, 0)
    hospital.start()
    sender = Sender(loop, hospital.port)
    assert [sender.ask(control_id) for control_id in ("A1", "A2")] == ["AA", "AA"]
    assert [control_id for _, control_id in sender.codes] == ["A1", "A2"]
    assert (hospital.received, hospital.distinct, hospital.repeated) == (2, 2, 0)


def test_fates_are_set_at_run_time(loop: Loop) -> None:
    hospital = Hospital(loop, LOCAL, 0, faults=Faults({"refuse": 1.0}))
    hospital.start()
    sender = Sender(loop, hospital.port)
    assert sender.ask("1") == "AE"
    hospital.faults.rates = {"reject": 1.0}
    assert sender.ask("1") == "AR"
    hospital.faults.rates = {"no-ack": 1.0}
    sender.send("1")
    loop.until(lambda: hospital.fates["no-ack"])
    hospital.faults.rates = {}
    assert sender.ask("2") == "AA"  # the one that gets no answer does not block the next
    hospital.faults.rates = {"reset": 1.0}
    sender.send("3")
    loop.until(lambda: sender.lost)
    assert dict(hospital.fates) == {"refuse": 1, "reject": 1, "no-ack": 1, "accept": 1, "reset": 1}


def test_an_answer_is_delayed(loop: Loop) -> None:
    hospital = Hospital(loop, LOCAL, 0, answer_delay=0.2)
    hospital.start()
    sender = Sender(loop, hospital.port)
    began = loop.seconds()
    assert sender.ask("1") == "AA"
    assert loop.seconds() - began >= 0.19


def test_repeats_are_counted(loop: Loop) -> None:
    hospital = Hospital(loop, LOCAL, 0)
    hospital.start()
    sender = Sender(loop, hospital.port)
    for control_id in ("1", "1", "2"):
        sender.ask(control_id)
    assert (hospital.received, hospital.distinct, hospital.repeated) == (3, 2, 1)


def test_what_is_kept_is_in_the_file_before_the_answer(loop: Loop, tmp_path: Path) -> None:
    keep = tmp_path / "kept.jsonl"
    hospital = Hospital(loop, LOCAL, 0, keep=keep, faults=Faults({"refuse": 1.0}))
    hospital.start()
    sender = Sender(loop, hospital.port)
    sender.ask("7", value="é")
    (line,) = map(json.loads, keep.read_text().splitlines())
    assert (line["control_id"], line["fate"]) == ("7", "refuse")
    assert line["message"].endswith("|é\r")
    assert line["at"] > 1.7e9


def test_what_is_no_message_is_rejected(loop: Loop) -> None:
    hospital = Hospital(loop, LOCAL, 0)
    hospital.start()
    sender = Sender(loop, hospital.port)
    assert sender.link is not None
    sender.link.send(1, b"no message")
    loop.until(lambda: sender.codes)
    assert sender.codes == [("AR", "")]
    assert (hospital.fates["reject"], hospital.distinct) == (1, 0)


def test_a_hospital_is_down_for_a_while(loop: Loop) -> None:
    [port] = free_ports(1)
    hospital = Hospital(loop, LOCAL, port, down_for=0.1)
    hospital.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((LOCAL, port), 1)
    sender = Sender(loop, port)
    assert sender.ask("1") == "AA"


def test_a_taken_port_is_told(loop: Loop) -> None:
    with socket.socket() as taken:
        taken.bind((LOCAL, 0))
        taken.listen()
        with pytest.raises(ListenError):
            Hospital(loop, LOCAL, taken.getsockname()[1]).start()
