"""Every fault happens as its name says, and but for it the simulator is a correct peer."""

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulators_support import ASTM, ORU, ZONE, astm_profile, hl7_profile, sample_folder
from test_simulators_loopback import LOCAL, Host, Sender
from typer.testing import CliRunner

from labbridge.cli import app
from labbridge.formats.acknowledgement import acknowledge
from labbridge.links import retry
from labbridge.simulators import AnalyzerSimulator, Hospital, analyzer, hospital
from labbridge.simulators.faults import FAULTS, SIDES, Faults, of, parse
from labbridge.simulators.faulty import FaultyLis01, FaultyMllp, Reset, pieces, spoil
from labbridge.wire import Answer, Lis01Link, Lis01Settings, MllpLink, MllpSettings, Part, Received
from labbridge.wire.events import Abandoned, Close, Failed, Sent, Stray, Write
from tests.loop import Loop

NAMES = (
    "lost-ack,bad-checksum,split,glue,enq-restart,contention,stall,reset,duplicate,"
    "late-ack,wrong-ack,no-ack,reject,garbage,oversize,slow,wrong-charset,truncate"
)
HL7, LIS = hl7_profile(), astm_profile()


class Pair:
    """A faulty sender and a host, on one clock that jumps from deadline to deadline."""

    def __init__(self, sender: Any, host: Any, silent: bool = False) -> None:
        self.sender, self.host, self.now, self.silent = sender, host, 0.0, silent
        self.said: list[Any] = []  # by the sender's machine, but for bytes
        self.heard: list[Any] = []  # by the host's
        self.wire: list[tuple[str, bytes]] = []

    def send(self, token: int, payload: bytes) -> None:
        self._pass("sender", self.sender.send(token, payload, self.now))

    def run(self, seconds: float) -> "Pair":
        end = self.now + seconds
        while dues := [due for due in (self.sender.deadline, self.host.deadline) if due is not None and due <= end]:
            self.now = max(self.now, min(dues))
            self._pass("sender", self.sender.tick(self.now))
            self._pass("host", self.host.tick(self.now))
        self.now = end
        return self

    def _pass(self, side: str, events: list[Any]) -> None:
        mine, other = (self.sender, self.host) if side == "sender" else (self.host, self.sender)
        for event in events:
            if isinstance(event, Write):
                self.wire.append((side, event.data))
                if not (self.silent and side == "host"):
                    self._pass("host" if side == "sender" else "sender", other.receive(event.data, self.now))
                continue
            (self.said if side == "sender" else self.heard).append(event)
            if isinstance(event, Part | Received):
                code = (
                    ()
                    if isinstance(mine, Lis01Link | FaultyLis01)
                    else acknowledge(event.data if isinstance(event, Part) else event.payload, "A", stamp="1", control_id="1")
                )
                self._pass(side, mine.settle(event.token, Answer(True, code), self.now))

    def got(self) -> list[bytes]:
        """The whole messages that the host has."""
        return [event.payload for event in self.heard if isinstance(event, Received)]

    def frames(self) -> list[bytes]:
        """Everything that left the sender."""
        return [data for side, data in self.wire if side == "sender"]


def lis01(fault: str, *, seed: int = 1, silent: bool = False, excess: int = 3000) -> Pair:
    """One message under a fault, over LIS01, to a host that takes 2,000 bytes."""
    faults = Faults(dice=random.Random(seed), excess=excess)
    sender = FaultyLis01(lambda: Lis01Link(Lis01Settings(role="instrument")), faults)
    pair = Pair(sender, Lis01Link(Lis01Settings(role="host", max_message=2000)), silent)
    sender.arm(fault)
    pair.send(1, ASTM)
    return pair


def mllp(fault: str, *, seed: int = 1, silent: bool = False) -> Pair:
    """One message under a fault, over MLLP."""
    sender = FaultyMllp(lambda: MllpLink(MllpSettings(answer_time=None)), Faults(dice=random.Random(seed), excess=3000))
    pair = Pair(sender, MllpLink(MllpSettings(max_message=2000)), silent)
    sender.arm(fault, owes=True)
    pair.send(1, ORU)
    return pair


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "uniform", lambda low, high: 0.01)
    monkeypatch.setattr(analyzer, "AGAIN_S", 0.02)
    monkeypatch.setattr(analyzer, "ANSWER_S", 0.5)


# -- names, sides, shares ------------------------------------------------------------------------------------------------


def test_every_named_fault_is_there_and_makes_sense_somewhere() -> None:
    assert set(NAMES.split(",")) <= FAULTS.keys()
    assert all(fault.sides and fault.what.endswith(".") and fault.what.count(". ") == 0 for fault in FAULTS.values())


def test_shares_are_read_and_have_a_default() -> None:
    assert parse(["reset", "stall:0.25"], "hl7") == {"reset": 0.1, "stall": 0.25}


@pytest.mark.parametrize(
    ("text", "why"),
    [("contention", "makes no sense for an analyzer over HL7"), ("nope", "no fault"), ("reset:2", "0 to 1"), ("reset:x", "0 to 1")],
)
def test_what_makes_no_sense_is_told_with_what_does(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        parse([text], "hl7")
    if "sense" in why:
        assert all(name in str(caught.value) for name in of("hl7"))


def test_faults_befall_their_shares_and_the_same_seed_draws_the_same() -> None:
    one, other = (Faults({"split": 0.2, "reset": 0.1}, random.Random(3)) for _ in range(2))
    drawn = [one.draw() for _ in range(2000)]
    assert drawn == [other.draw() for _ in range(2000)]
    assert 350 < drawn.count("split") < 450
    assert 150 < drawn.count("reset") < 250
    assert one.drawn == {"split": drawn.count("split"), "reset": drawn.count("reset")}


def test_shares_beyond_all_messages_are_taken_in_proportion() -> None:
    faults = Faults({"split": 1.0, "reset": 1.0}, random.Random(3))
    assert {faults.draw() for _ in range(50)} == {"split", "reset"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["analyzer", "generic-hl7", "--fault", "bad-checksum"], "makes no sense for an analyzer over HL7"),
        (["analyzer", "generic-astm", "--fault", "no-ack:0.5"], "makes no sense for an analyzer over ASTM"),
        (["hospital", "--fault", "enq-restart"], "makes no sense for the hospital"),
    ],
)
def test_a_fault_that_makes_no_sense_is_wrong_usage(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["simulate", *arguments])
    assert result.exit_code == 2
    assert says in result.output
    assert "reset" in result.output


def test_list_faults_explains_each_and_says_for_whom() -> None:
    result = CliRunner().invoke(app, ["simulate", "--list-faults"], env={"COLUMNS": "250"})
    assert result.exit_code == 0
    for name, fault in FAULTS.items():
        line = next(line for line in result.output.splitlines() if line.startswith(f"{name} "))
        assert fault.what in line
        assert all((SIDES[side] in line) == (side in fault.sides) for side in SIDES)


def test_the_table_of_the_page_is_that_of_the_faults() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 5}
    for name, fault in FAULTS.items():
        assert table[name] == [*("yes" if side in fault.sides else "" for side in SIDES), fault.what]


# -- over LIS01, on a fake clock -----------------------------------------------------------------------------------------


def test_without_a_fault_a_message_goes_through_at_once() -> None:
    pair = lis01("")
    assert (pair.got(), pair.said, pair.now) == ([ASTM], [Sent(1)], 0.0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fault", ["lost-ack", "bad-checksum", "split", "enq-restart", "contention", "slow", "garbage"])
def test_the_message_arrives_once_and_whole_in_spite_of(fault: str, seed: int) -> None:
    pair = lis01(fault, seed=seed).run(40)
    assert [message for message in pair.got() if b"Q|1|" not in message] == [ASTM]
    assert [event for event in pair.said if isinstance(event, Sent | Failed)] == [Sent(1)]
    assert pair.sender.missed == 0


def test_lost_ack_repeats_the_very_same_frame() -> None:
    frames = lis01("lost-ack").run(5).frames()
    repeated = [frame for number, frame in enumerate(frames) if frame in frames[:number]]
    assert len(repeated) == 1
    assert repeated[0][:1] == b"\x02"


def test_bad_checksum_is_refused_once_and_resent_rightly() -> None:
    pair = lis01("bad-checksum").run(1)
    refused = pair.wire.index(("host", b"\x15"))
    wrong, right = pair.wire[refused - 1][1], pair.wire[refused + 1][1]
    assert (wrong[:-4], wrong == right) == (right[:-4], False)


def test_split_leaves_in_pieces_of_a_few_bytes() -> None:
    assert max(map(len, lis01("split").run(5).frames())) <= 9


def test_enq_restart_begins_anew_from_the_first_frame() -> None:
    frames = lis01("enq-restart").frames()
    assert frames.count(b"\x05") == 2
    assert frames[frames.index(b"\x05", 1) + 1][:2] == b"\x021"


def test_contention_is_a_bid_against_the_hosts_bid() -> None:
    pair = lis01("contention")
    assert any(isinstance(event, Received) and b"Q|1|0^0^0" in event.payload for event in pair.heard)
    pair._pass("host", pair.host.send(1, ASTM, 0.0))  # the answer to the query
    assert ("host", b"\x05") in pair.wire
    assert pair.wire[pair.wire.index(("host", b"\x05")) + 1] == ("sender", b"\x05")  # and no ACK
    pair.run(30)
    assert pair.got()[1:] == [ASTM]
    assert [event.payload for event in pair.said if isinstance(event, Received)] == [ASTM]  # the host had its turn


def test_a_short_stall_is_waited_for_and_a_long_one_costs_the_session() -> None:
    short = next(pair for seed in range(50) if (pair := lis01("stall", seed=seed)).sender.deadline < 10).run(60)
    assert (short.got(), short.said) == ([ASTM], [Sent(1)])
    long = next(pair for seed in range(50) if (pair := lis01("stall", seed=seed)).sender.deadline > 35).run(60)
    assert long.got() == []
    assert Failed(1, "no reply in time") in long.said
    assert long.sender.missed == 0  # a host that has closed the session owes nothing


def test_reset_comes_in_the_middle_of_a_frame() -> None:
    pair = lis01("reset").run(1)
    assert pair.said == [Reset()]
    assert not pair.frames()[-1].endswith(b"\r\n")


def test_truncate_ends_the_session_inside_a_frame() -> None:
    pair = lis01("truncate", seed=2).run(1)
    assert pair.frames()[-1].endswith(b"\x04")
    assert pair.got() == []
    assert [type(event) for event in pair.said] == [Failed]
    assert any(isinstance(event, Abandoned) for event in pair.heard)
    pair.send(2, ASTM)
    assert pair.got() == [ASTM]


def test_oversize_is_a_frame_without_an_end() -> None:
    assert any(isinstance(event, Close) for event in lis01("oversize").run(1).heard)


def test_glue_sends_the_next_bid_with_the_end_of_the_session() -> None:
    sender = FaultyLis01(lambda: Lis01Link(Lis01Settings(role="instrument")), Faults())
    pair = Pair(sender, Lis01Link(Lis01Settings(role="host")), silent=True)
    another = ASTM.replace(b"900", b"901")
    pair.send(1, ASTM)
    pair.send(2, another)
    pair.silent = False
    pair._pass("sender", sender.receive(b"\x06", 0.0))
    assert b"\x04\x05" in pair.frames()
    assert pair.got() == [ASTM, another]


@pytest.mark.parametrize("make", [lis01, mllp])
def test_the_time_of_the_answer_is_measured_and_a_missing_one_counted(make: Any) -> None:
    pair = make("", silent=True)
    pair.now = 14.0
    pair.silent = False
    pair._pass("sender", pair.sender.receive(pair.wire[-1][1], pair.now))
    assert (pair.sender.slowest, pair.sender.missed) == (14.0, 0)
    pair = make("", silent=True)
    pair.sender.closed(14.0)
    assert pair.sender.missed == 0
    pair = make("", silent=True)
    pair.sender.closed(16.0)
    assert pair.sender.missed == 1
    pair = make("", silent=True)
    pair._pass("sender", pair.sender.receive(pair.wire[-1][1], 16.0))
    assert pair.sender.missed == 1


@pytest.mark.parametrize("short_of", [1, 2])
def test_an_acknowledgement_before_the_line_end_is_no_missing_one(short_of: int) -> None:
    """A host that takes a frame without its CR LF for whole has answered before these leave, and nothing answers EOT."""
    sender = FaultyLis01(lambda: Lis01Link(Lis01Settings(role="instrument")), Faults({"stall": 1.0}))
    sender.faults.dice.randrange = lambda low, high=0: high - short_of if high else low - 1  # the last frame, its end
    sender.faults.dice.uniform = lambda low, high: high / 2
    sender.arm("stall")
    pair = Pair(sender, Lis01Link(Lis01Settings(role="host")))
    pair.send(1, ASTM)
    pair.run(60)
    assert (pair.got(), pair.said) == ([ASTM], [Sent(1)])
    sender.closed(pair.now)
    assert sender.missed == 0


def test_a_frame_behind_a_long_stall_is_owed_nothing_either() -> None:
    """The stalled frame lacked its line end alone, and was acknowledged; the session was closed while the next one waited."""
    sender = FaultyLis01(lambda: Lis01Link(Lis01Settings(role="instrument")), Faults({"stall": 1.0}))
    sender.faults.dice.randrange = lambda low, high=0: high - 1 if high else 0  # the first frame, its end
    sender.faults.dice.uniform = lambda low, high: high
    sender.arm("stall")
    pair = Pair(sender, Lis01Link(Lis01Settings(role="host")))
    pair.send(1, ASTM)
    pair.run(60)
    assert (pair.got(), pair.said) == ([], [Failed(1, "no reply in time")])
    sender.closed(pair.now)
    assert sender.missed == 0


# -- over MLLP, on a fake clock ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("fault", "times"), [("split", 1), ("stall", 1), ("garbage", 1), ("slow", 1), ("duplicate", 2), ("truncate", 1)]
)
def test_over_mllp_the_message_arrives_whole_in_spite_of(fault: str, times: int, seed: int) -> None:
    pair = mllp(fault, seed=seed).run(60)
    assert pair.got() == [ORU] * times
    assert pair.sender.missed == 0
    assert len([event for event in pair.said if isinstance(event, Received)]) == times
    assert any(isinstance(event, Stray) for event in pair.heard + pair.host.closed(pair.now)) == (fault == "garbage")


def test_an_answer_before_the_last_byte_is_no_missing_one() -> None:
    """A host that takes a block without its CR for whole has answered before the CR leaves."""
    pair = mllp("")
    pair.sender.faults.dice.randrange = lambda low, high: high - 1
    pair.sender.faults.dice.uniform = lambda low, high: high
    pair.sender.arm("stall", owes=True)
    pair.send(2, ORU.replace(b"|17|", b"|18|"))
    pair.run(60)
    assert len(pair.got()) == 2
    pair.sender.closed(pair.now)
    assert pair.sender.missed == 0


def test_over_mllp_glued_messages_leave_in_one_piece() -> None:
    pair = mllp("")
    pair.sender.arm("glue", count=3, owes=True)
    for number in (2, 3, 4):
        pair.send(number, ORU.replace(b"|17|", b"|%d|" % number))
    assert len(pair.frames()) == 2
    assert len(pair.got()) == 4
    assert len(pair.sender._owed) == 0  # each has its answer


def test_over_mllp_oversize_comes_before_the_message() -> None:
    pair = mllp("oversize").run(1)
    assert pair.got() == [ORU]
    assert len(pair.frames()[0]) > 3000


def test_what_is_cut_into_pieces_is_all_there() -> None:
    for fault in ("split", "slow", "stall"):
        for size in (1, 2, 9, 3000):
            data = random.Random(size).randbytes(size)
            assert b"".join(part or b"" for _, part in pieces(fault, data, Faults(dice=random.Random(4)))) == data


def test_a_spoiled_text_is_no_utf8() -> None:
    for message in (ORU, ASTM, b"MSH|^~\\&|\rMSA|AA|1\r"):
        assert message.isascii()
        with pytest.raises(UnicodeDecodeError):
            spoil(message).decode()
        assert len(spoil(message)) in (len(message) + 4, len(message) + 5)


# -- over sockets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "fault"),
    [(LIS, name) for name in of("astm")] + [(HL7, name) for name in of("hl7")],
    ids=lambda one: getattr(one, "protocol", one),
)
def test_what_an_analyzer_was_told_is_what_the_host_has(loop: Loop, tmp_path: Path, profile: Any, fault: str) -> None:
    """Under every fault all messages are acknowledged in the end, and a repeat is the very same message."""
    host, told = Host(loop, profile), []
    faults = Faults({fault: 0.3 if fault == "oversize" else 0.5}, random.Random(2), pace=0.01, excess=17 << 20)
    sender = AnalyzerSimulator(
        loop,
        profile,
        sample_folder(tmp_path),
        LOCAL,
        host.listener.port,
        ZONE,
        rate=0,
        seed=3,
        count=16,
        faults=faults,
        told=lambda message, fate: told.append((message, fate)),
    )
    sender.start()
    loop.until(lambda: sender.done, 30)
    assert faults.drawn[fault] > 0
    assert {fate for _, fate in told} == {"acknowledged"}
    assert sender.acknowledged == len(told) == len({message for message, _ in told})
    results = [message for message in host.messages if b"\rQ|1|" not in message]
    assert {message for message, _ in told} == set(results)
    assert sender.missed == 0
    sender.stop()
    loop.until(lambda: not host.links)


def hospital_with(loop: Loop, fault: str, told: list[str], **more: Any) -> Hospital:
    faults = Faults({fault: 1.0}, random.Random(1), pace=0.005, excess=17 << 20)
    made = Hospital(loop, LOCAL, 0, faults=faults, told=lambda message, fate: told.append(fate), **more)
    made.start()
    return made


@pytest.mark.parametrize("fault", ["split", "stall", "garbage", "slow", "wrong-charset"])
def test_the_hospitals_answer_is_right_in_spite_of(loop: Loop, fault: str) -> None:
    told: list[str] = []
    sender = Sender(loop, hospital_with(loop, fault, told).port)
    assert sender.ask("A1") == "AA"
    assert sender.codes == [("AA", "A1")]
    assert told == [fault]


def test_the_hospital_answers_twice(loop: Loop) -> None:
    sender = Sender(loop, hospital_with(loop, "duplicate", []).port)
    sender.send("A1")
    loop.until(lambda: sender.codes == [("AA", "A1")] * 2)


@pytest.mark.parametrize("fault", ["truncate", "wrong-ack"])
def test_an_answer_does_not_name_the_message(loop: Loop, fault: str) -> None:
    sender = Sender(loop, hospital_with(loop, fault, []).port)
    for number in ("A1", "A2", "A2"):
        sender.ask(number)
        assert sender.codes[-1][1] != number
    if fault == "wrong-ack":
        assert sender.codes == [("AA", "0"), ("AA", "A1"), ("AA", "A1")]


def test_a_late_answer_finds_another_connection(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hospital, "LATE_S", 40.0)
    one = hospital_with(loop, "late-ack", [])
    sender, other = Sender(loop, one.port), Sender(loop, one.port)
    sender.send("A1")
    loop.until(lambda: one.received)
    sender.connector.stop()
    assert sender.link is not None
    sender.link.drop("")
    loop.until(lambda: other.codes)
    assert other.codes == [("AA", "A1")]


def test_an_oversize_answer_is_no_answer(loop: Loop) -> None:
    sender = Sender(loop, hospital_with(loop, "oversize", []).port)
    seen: list[str] = []
    sender.event = lambda link, said, take=sender.event: (seen.append(type(said).__name__), take(link, said))
    sender.send("A1")
    loop.until(lambda: "Oversize" in seen)
    assert sender.codes == []


def test_a_simulated_analyzer_writes_down_what_was_acknowledged(tmp_path: Path, loop: Loop) -> None:
    """The command, as a process of its own."""
    profile = Path(__file__).parents[2] / "analyzers" / "generic-hl7"
    assert profile.is_dir()
    host, keep = Host(loop, HL7), tmp_path / "kept.jsonl"
    told = ["--count", "4", "--rate", "0", "--seed", "7", "--fault", "duplicate:1", "--keep", str(keep)]
    command = [
        sys.executable,
        "-m",
        "labbridge",
        "simulate",
        "analyzer",
        "generic-hl7",
        "--connect",
        f"{LOCAL}:{host.listener.port}",
    ]
    with subprocess.Popen([*command, *told], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            loop.until(partial(_ended, process), 20)
        finally:
            process.kill()
    kept = [json.loads(line) for line in keep.read_text().splitlines()]
    assert [line["fate"] for line in kept] == ["acknowledged"] * 4
    assert {line["message"].encode() for line in kept} == set(host.messages)
    assert len(host.messages) > 4


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None
