"""Bad input on every port: never a crash, never a silent loss, never a guess; journaled, answered, shown to a person."""

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.helpers import WBC, Lab, fresh, observations
from tests.support import ACK, END, ENQ, ETX, NAK, START, STX, astm, field, frame, oru, wait_until

Own = Callable[..., Lab]
MIB = 1 << 20


@pytest.fixture(autouse=True)
def the_daemon_goes_on(shared: Lab) -> Iterator[None]:
    """After every test a good message of either protocol passes, and no reader has failed."""
    yield
    hl7, other = fresh(), fresh()
    shared.tell(hl7)
    with shared.astm_client() as client:
        assert client.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
    shared.ward.wait(hl7)
    shared.ward.wait(other)
    log = shared.log.read_text()
    assert "reader failed" not in log
    assert "Traceback" not in log
    assert "not stored" not in log


def _raw(port: int, data: bytes) -> None:
    """Sends bytes and hangs up; the daemon may have hung up before, where it was too much."""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5) as client:
        client.settimeout(60)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass


def _one_more(lab: Lab, kind: str, do: Callable[[], object]) -> dict[str, object]:
    """The message of this kind that waits for a person after something was done, and did not before."""
    before = {row["id"] for row in lab.messages(kind)}
    do()
    found = wait_until(lambda: [row for row in lab.messages(kind) if row["id"] not in before], 10, f"{kind} shown by pending")
    assert len(found) == 1
    return dict(found[0])


def _memory(lab: Lab) -> int:
    """The daemon's memory in bytes."""
    assert lab.process is not None
    pages = Path(f"/proc/{lab.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.parametrize("port", ["hl7", "astm", "plain_hl7", "plain_astm"])
@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\x00" * 5000, b"\xff\xfe"]
)
def test_garbage_is_journaled_once_per_connection_and_shown(shared: Lab, port: str, garbage: bytes) -> None:
    row = _one_more(shared, "stray", lambda: _raw(getattr(shared, port), garbage))
    [note] = row["note"]
    assert note["params"]["bytes"] == str(len(garbage))
    assert f"#{row['id']}" in shared.well("pending", "--limit", "1000")


def test_half_an_hl7_message_is_shown_until_it_comes_whole(shared: Lab) -> None:
    specimen = fresh()
    message = oru(specimen, 1, [WBC])
    row = _one_more(shared, "incomplete", lambda: _raw(shared.hl7, START + message[:120]))
    assert not shared.ward.of(specimen)
    shared.tell(specimen)
    shared.ward.wait(specimen)
    wait_until(lambda: row["id"] not in {one["id"] for one in shared.messages("incomplete")}, 5, "it settled itself")


def _frames_without_end(lab: Lab, records: list[str]) -> None:
    with lab.astm_client() as client:
        assert client.raw(ENQ) == ACK
        for number, record in enumerate(records, 1):
            assert client.raw(frame(number, record.encode() + b"\r")) == ACK


def test_half_an_astm_message_is_shown_until_it_comes_whole(shared: Lab) -> None:
    specimen = fresh()
    records = astm(specimen, [("WBC", "6.10", "10*3/uL"), ("RBC", "4.10", "10*6/uL")])
    row = _one_more(shared, "incomplete", lambda: _frames_without_end(shared, records[:4]))
    assert not shared.ward.of(specimen)
    with shared.astm_client() as client:
        assert client.send(records)
    shared.ward.wait(specimen)
    wait_until(lambda: row["id"] not in {one["id"] for one in shared.messages("incomplete")}, 5, "it settled itself")


def test_half_an_astm_message_survives_a_restart_and_settles_when_it_comes_whole(own: Own) -> None:
    """Frames acknowledged before kill -9 are shown after it (promise 1), and settle when the message comes whole."""
    lab = own()
    specimen = fresh()
    records = astm(specimen, [("WBC", "6.10", "10*3/uL"), ("RBC", "4.10", "10*6/uL")])
    client = lab.astm_client()
    with client as line:
        assert line.raw(ENQ) == ACK
        for number, record in enumerate(records[:4], 1):
            assert line.raw(frame(number, record.encode() + b"\r")) == ACK
        lab.kill()
    lab.start()
    [row] = lab.messages("incomplete")
    assert row["size"] == sum(len(record) + 1 for record in records[:4])
    with lab.astm_client() as line:
        assert line.send(records)
    lab.ward.wait(specimen)
    wait_until(lambda: not lab.messages("incomplete"), 5, "it settled itself")
    assert "as written" in lab.well("verify")


def test_half_a_message_that_never_comes_again_is_settled_by_a_person(shared: Lab) -> None:
    row = _one_more(shared, "incomplete", lambda: _frames_without_end(shared, astm(fresh(), [])[:2]))
    status, said = shared.cli("reject", f"#{row['id']}")
    assert (status, "reason" in said) == (1, True)
    shared.well("reject", f"#{row['id']}", "--reason", "measured again")
    assert row["id"] not in {one["id"] for one in shared.messages("incomplete")}


@pytest.mark.parametrize("protocol", ["hl7", "astm"])
def test_twenty_mebibytes_without_an_end_are_kept_in_part(shared: Lab, protocol: str) -> None:
    before = _memory(shared)
    if protocol == "hl7":
        data = START + b"MSH|^~\\&|X|Y|||20261121||ORU^R01|1|P|2.3.1\rOBX|1|ED|" + b"A" * (20 * MIB)
    else:
        data = ENQ + STX + b"1H|\\^&\rR|1|" + b"A" * (20 * MIB)
    row = _one_more(shared, "oversize", lambda: _raw(getattr(shared, protocol), data))
    [note] = row["note"]
    assert int(note["params"]["bytes"]) > 16 * MIB  # where the rest is cut off at the latest
    assert len(note["params"]["sha256"]) == 64
    assert _memory(shared) - before < 64 * MIB


def test_an_hl7_message_of_twenty_mebibytes_is_refused_for_good_and_the_next_is_taken(shared: Lab) -> None:
    big = oru(fresh(), 77, [("1^x^y", "A" * (20 * MIB), "")])
    specimen = fresh()
    with shared.hl7_client() as client:
        answer = client.send(big)
        assert (field(answer, b"MSA", 1), field(answer, b"MSA", 2)) == ("AR", "77")
        assert field(client.send(oru(specimen, 78, [WBC])), b"MSA", 1) == "AA"
    shared.ward.wait(specimen)


def test_a_flood_without_end_is_cut_off(shared: Lab) -> None:
    before = _memory(shared)

    def flood() -> None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", shared.hl7), 5) as client:
            client.settimeout(60)
            client.sendall(START + b"MSH|^~\\&|")
            for _ in range(100):
                client.sendall(b"A" * MIB)
            raise AssertionError("100 MiB were taken")

    _one_more(shared, "oversize", flood)
    assert _memory(shared) - before < 64 * MIB


def test_a_frame_with_a_wrong_checksum_is_refused_and_taken_when_it_comes_right(shared: Lab) -> None:
    specimen = fresh()
    records = astm(specimen, [("WBC", "5.40", "10*3/uL")])
    with shared.astm_client() as client:
        assert client.raw(ENQ) == ACK
        for number, record in enumerate(records, 1):
            good = frame(number, record.encode() + b"\r")
            assert client.raw(good.replace(b"5.40", b"9.40")) == (NAK if b"5.40" in good else ACK)
            if b"5.40" in good:
                assert client.raw(good) == ACK
        client.end()
    [(_, message)] = shared.ward.wait(specimen)
    assert observations(message)["H001"][5] == "5.40"


UNREADABLE = {
    "no_msh9": (b"|ORU^R01|", b"||", "AA", "no-message-type"),
    "no version": (b"|P|2.3.1", b"|P|", "AA", "no-version"),
    "unknown type": (b"|ORU^R01|", b"|ADT^A01|", "AR", "unsupported-type"),
    "unknown event": (b"|ORU^R01|", b"|ORU^R99|", "AR", "unsupported-type"),
    "unknown version": (b"|P|2.3.1", b"|P|9.9", "AR", "unsupported-version"),
    "unusable delimiters": (b"MSH|^~\\&|", b"MSH|||||", "AA", "unusable-delimiters"),
    "no MSH": (b"MSH|", b"XXX|", "AA", "no-header"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_hl7_message_that_cannot_be_read_is_kept_acknowledged_and_shown(shared: Lab, what: str) -> None:
    old, new, code, reason = UNREADABLE[what]
    message = oru(fresh(), 31, [WBC]).replace(old, new, 1)
    answers = []

    def send() -> None:
        with shared.hl7_client() as client:
            answers.append(client.send(message))

    row = _one_more(shared, "unreadable", send)
    assert field(answers[0], b"MSA", 1) == code
    assert [note["code"] for note in row["note"]] == [reason]


@pytest.mark.parametrize("header", ["HA^&|||X", "H", "H||||X", "X|\\^&|||X"])
def test_an_astm_message_without_a_usable_header_is_kept_acknowledged_and_shown(shared: Lab, header: str) -> None:
    def send() -> None:
        with shared.astm_client() as client:
            assert client.send([header, *astm(fresh(), [("WBC", "5.40", "10*3/uL")])[1:]])

    row = _one_more(shared, "unreadable", send)
    assert [note["code"] for note in row["note"]] in (["unusable-delimiters"], ["no-header"])


def test_results_without_a_specimen_are_held_and_cannot_be_released(shared: Lab) -> None:
    before = {row.get("report_id") for row in shared.rows("pending", "--limit", "1000")}
    with shared.hl7_client() as client:
        assert field(client.send(oru("", 1, [WBC])), b"MSA", 1) == "AA"
    rows = [row for row in shared.rows("pending", "--limit", "1000") if "report_id" in row and row["report_id"] not in before]
    rows = [row for row in rows if not row.get("specimen")]
    assert rows
    assert "no-specimen" in {reason["code"] for row in rows for reason in row["reasons"]}
    assert shared.cli("release", "", "--reason", "x")[0] == 1
    assert not shared.ward.of("")


def test_two_specimens_that_disagree_are_held(shared: Lab) -> None:
    specimen, other = fresh(), fresh()
    message = oru(specimen, 1, [WBC]).replace(b"2.3.1", b"2.5.1") + f"SPM|1|{other}||BLD\r".encode()
    with shared.hl7_client(shared.plain_hl7) as client:
        assert field(client.send(message), b"MSA", 1) == "AA"
    wait_until(lambda: "specimen-conflict" in shared.reasons(specimen), 5, "held")
    status, said = shared.cli("release", specimen, "--reason", "sure")
    assert (status, "cannot be released" in said) == (1, True)
    shared.well("reject", specimen, "--reason", "measured again")
    assert not shared.ward.of(specimen)
    assert not shared.ward.of(other)


def test_an_id_that_is_no_barcode_of_the_laboratory_is_held(shared: Lab) -> None:
    records = ["H|\\^&|||Analyzer", "P|1", "O|1|4711||^^^WBC|R||||||N", "R|1|^^^WBC|5.00|10*3/uL||N||F", "L|1|N"]
    with shared.astm_client(shared.plain_astm) as client:
        assert client.send(records)
    wait_until(lambda: "specimen-pattern" in shared.reasons("4711"), 5, "held")
    assert not shared.ward.of("4711")


def test_text_where_a_number_belongs_is_held_and_never_zero(shared: Lab) -> None:
    specimen = fresh()
    shared.tell(specimen, WBC, ("789-8^RBC^LN", "INDETERMINATE", "10*12/L"))
    [(_, message)] = shared.ward.wait(specimen)
    assert sorted(observations(message)) == ["H001"]
    assert shared.reasons(specimen) == {"not-a-number"}
    status, said = shared.cli("release", specimen, "--reason", "x")
    assert (status, "nothing held was settled" in said) == (1, True)


@pytest.mark.parametrize(
    "damage", [b"\x00", b"\xed\xa0\x80", b"\xff\xff", b"\\X00\\", b"\\Xd800\\", b"\x85", "\u2028".encode(), b"\x7f"]
)
def test_odd_bytes_anywhere_are_stored_and_answered(shared: Lab, damage: bytes) -> None:
    """In the id, the name, a code, a unit and a value: kept, acknowledged, and either delivered or shown."""
    for place in (b"DOE", b"6690-2", b"10*9/L", b"5.50", b"UNICODE", b"BC-6800", b"SPECIMEN"):
        message = oru("SPECIMEN", 1, [WBC]).replace(place, place + damage)
        specimen = fresh().encode()
        message = message.replace(b"SPECIMEN", specimen)
        with shared.hl7_client() as client:
            answer = client.send(message)
        assert field(answer, b"MSA", 1) in ("AA", "AR")
    shared.well("pending", "--limit", "1000")
    assert "as written" in shared.well("verify")


def test_strange_blocks_harm_nobody(shared: Lab) -> None:
    specimen = fresh()
    with shared.hl7_client() as client:
        client.raw(START + END + START + b"\r" + END)
        answer = client.answer()
        assert field(answer, b"MSA", 1) == "AA"
        client.raw(START + oru(specimen, 9, [WBC]) + b"\x1c" + START + b"MSH|^~\\&|||||||ACK|1|P|2.3.1\rMSA|AA|1\r" + END)
        assert field(client.answer(), b"MSA", 2) == "9"
    shared.ward.wait(specimen)


def test_whatever_is_damaged_everything_is_answered_and_stored(shared: Lab) -> None:
    """Three hundred messages with bytes changed, lost, doubled and cut: each is answered and in the journal."""
    chance = random.Random(20261121)

    def stored() -> int:
        lines = shared.get("/metrics").decode().split("\n")
        return sum(int(float(line.split()[-1])) for line in lines if line.startswith('labbridge_messages_total{analyzer="bc-1"'))

    before, sent = stored(), 0
    with shared.hl7_client() as client:
        for number in range(300):
            message = bytearray(oru(fresh(), number, [WBC, ("789-8^RBC^LN", "4.5", "10*12/L")]))
            for _ in range(chance.randrange(1, 12)):
                at = chance.randrange(len(message))
                how = chance.randrange(4)
                if how == 0:
                    message[at] = chance.randrange(256)
                elif how == 1:
                    del message[at : at + chance.randrange(1, 30)]
                elif how == 2:
                    message[at:at] = bytes(chance.choices(b"|^~\\&\r\n0A\xff\xe4\x00", k=chance.randrange(1, 9)))
                else:
                    message[at:at] = message[chance.randrange(len(message)) :][:60]
            body = bytes(message).replace(b"\x0b", b"").replace(b"\x1c", b"") or b"\r"
            sent += 2
            client.raw(START + body + END + START + oru("", 0, []).replace(b"ORU^R01|0", b"ADT^A01|LAST") + END)
            while field(client.answer(), b"MSA", 2) != "LAST":
                pass
    wait_until(lambda: stored() - before == sent, 5, "all are in the journal")
    shared.well("pending", "--limit", "1000")


def test_frames_of_nonsense_are_refused_and_the_line_stays_usable(shared: Lab) -> None:
    specimen = fresh()
    with shared.astm_client() as client:
        assert client.raw(ENQ) == ACK
        for nonsense in (STX + ETX + b"00\r\n", STX + b"9x" + ETX + b"00\r\n", STX + b"1" + ETX + b"ZZ\r\n", frame(5, b"H|\\^&\r")):
            assert client.raw(nonsense) == NAK
        client.end()
        assert client.send(astm(specimen, [("WBC", "5.00", "10*3/uL")]))
    shared.ward.wait(specimen)


def test_a_message_of_ten_thousand_results_is_read(shared: Lab) -> None:
    """The last of this file, since `pending` lists them all from then on."""
    specimen = fresh()
    results = [(f"X{number}^x^y", "1", "g") for number in range(10_000)]
    shared.tell(specimen, WBC, *results)
    shared.ward.wait(specimen)
    [held] = shared.held(specimen)
    assert len(held["results"]) == 10_000
