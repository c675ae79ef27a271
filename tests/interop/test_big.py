"""What is large costs what it weighs: images in linear time, and what has no end a bounded part of memory."""

import base64
import contextlib
import os
import random
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import pytest

from labbridge import profiles
from labbridge.formats import hl7v2
from labbridge.formats.acknowledgement import acknowledge
from labbridge.model import Result
from labbridge.wire import MllpLink, MllpSettings
from labbridge.wire.events import Received
from tests.e2e.helpers import WBC, Lab, Ward, fresh, laboratory, observations
from tests.support import ACK, END, ENQ, NAK, START, STX, MllpClient, field, frame, oru, wait_until

MIB = 1 << 20
MOST = 64 * MIB  # of memory, whatever comes
LINEAR = 12.0  # ten times as much takes at most so many times as long
ANALYZERS = Path(__file__).parents[2] / "analyzers"


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A daemon of the test's own: what it has used of memory is what this test has cost."""
    with laboratory(tmp_path) as lab:
        lab.tell(fresh())
        yield lab
        assert lab.stop() == 0


def memory(lab: Lab, what: str) -> int:
    """VmRSS or VmHWM of the daemon, in bytes."""
    assert lab.process is not None
    found = re.search(rf"{what}:\s+(\d+) kB", Path(f"/proc/{lab.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def offer(port: int, head: bytes, size: int) -> int:
    """Sends a beginning and then so many bytes, as fast as they are taken; how many were, when the daemon hung up."""
    piece = b"A" * MIB
    sent = 0
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 60) as client:
        client.settimeout(60)
        client.sendall(head)
        while sent < size:
            client.sendall(piece)
            sent += len(piece)
    return sent


def still_serves(lab: Lab) -> None:
    """Another analyzer is served as ever."""
    specimen = fresh()
    lab.tell(specimen)
    lab.ward.wait(specimen)


def oversize(lab: Lab) -> dict[str, str]:
    """What is told of the one transmission that was too large."""
    [row] = wait_until(lambda: lab.messages("oversize"), 10, "it is shown to a person")
    [note] = row["note"]
    params: dict[str, str] = note["params"]
    return params


@pytest.mark.parametrize(
    ("protocol", "head", "most"),
    [("hl7", START + b"MSH|^~\\&|X|Y|||20261121||ORU^R01|1|P|2.3.1\rOBX|1|ED|", 64), ("astm", ENQ + STX + b"1H|\\^&\rR|1|", 16)],
)
def test_a_gibibyte_without_an_end_is_refused_and_costs_little(lab: Lab, protocol: str, head: bytes, most: int) -> None:
    """Of a block without its end 64 MiB are taken, four times what a message may have; of a frame 16 MiB."""
    before = memory(lab, "VmRSS")
    sent = offer(getattr(lab, protocol), head, 1024 * MIB)
    assert sent <= (most + 16) * MIB, "beyond what the daemon reads, only the sockets' buffers are filled"
    assert 16 * MIB < int(oversize(lab)["bytes"]) <= (most + 1) * MIB
    assert memory(lab, "VmHWM") - before < MOST
    still_serves(lab)


def test_frames_without_an_end_of_their_message_are_refused_and_cost_little(lab: Lab) -> None:
    """Every frame is a good one: those beyond 16 MiB are not acknowledged, whatever their number."""
    before = memory(lab, "VmRSS")
    replies: list[bytes] = []
    with lab.astm_client() as client:
        assert client.raw(ENQ) == ACK
        number = 0
        while replies.count(NAK) < 200:
            number += replies[-1:] != [NAK]
            text = b"H|\\^&\r" if number == 1 else b"R|%d|^^^^WBC^1|%b\r" % (number, b"5" * 60_000)
            replies.append(client.raw(frame(number, text)))
        client.end()
    kept = replies.count(ACK)
    assert replies == [ACK] * kept + [NAK] * 200
    assert 15 * MIB < (kept - 1) * 60_000 < 16 * MIB
    assert int(oversize(lab)["bytes"]) > 16 * MIB
    assert memory(lab, "VmHWM") - before < MOST
    still_serves(lab)


def pictures(count: int, size: int, specimen: str = "70000001", number: int = 1) -> bytes:
    """An ORU with one result and so many images of so many bytes, in base64, no two alike."""
    lines = []
    for index in range(9, 9 + count):
        image = base64.b64encode(random.Random(size + index).randbytes(size)).decode()
        lines.append(f"OBX|{index}|ED|15000^WBC Histogram. BMP^99MRC||^Image^BMP^Base64^{image}||||||F\r")
    return oru(specimen, number, [WBC]) + "".join(lines).encode()


def test_ten_megabytes_of_images_are_stored_and_kept(lab: Lab) -> None:
    """The result is delivered, the images are told of it, and the journal has every byte."""
    specimen = fresh()
    message = pictures(5, 1_500_000, specimen)
    assert len(message) > 10_000_000
    before = memory(lab, "VmRSS")
    with lab.hl7_client() as client:
        assert field(client.send(message), b"MSA", 1) == "AA"
    [(_, sent)] = lab.ward.wait(specimen)
    assert [fields[5] for fields in observations(sent).values()] == ["5.50"]
    with contextlib.closing(sqlite3.connect(f"file:{lab.folder}/lab.db?mode=ro", uri=True)) as store:
        [(body,)] = store.execute("SELECT body FROM message WHERE size = ?", (len(message),)).fetchall()
        [(document,)] = store.execute("SELECT document FROM report WHERE specimen = ?", (specimen,)).fetchall()
    assert body == message
    assert document.count(b"image/bmp 1500000 bytes") == 5
    assert len(document) < 10_000
    assert memory(lab, "VmHWM") - before < 12 * len(message)


ASKS = """
[[destination]]
name = "pictures"
connect = "127.0.0.1:{port}"
[destination.oru]
attachments = true
[[route]]
to = "pictures"
"""


def test_ten_megabytes_of_images_leave_for_a_destination_that_asks(lab: Lab) -> None:
    """Every byte of them, within a bounded part of memory."""
    specimen = fresh()
    message = pictures(5, 1_500_000, specimen)
    lab.config.write_text(lab.config.read_text() + ASKS.format(port=lab.ports["spare3"]))
    assert lab.stop() == 0
    asks = Ward(lab.ports["spare3"])
    lab.start()
    with asks, lab.hl7_client() as client:
        lab.tell(fresh())
        before = memory(lab, "VmRSS")
        assert field(client.send(message), b"MSA", 1) == "AA"
        [(_, sent)] = asks.wait(specimen, seconds=30)
        contents = [[line.split(b"|")[5] for line in one.split(b"\r") if b"|ED|" in line] for one in (message, sent)]
        assert contents[0] == contents[1]
        assert memory(lab, "VmHWM") - before < 12 * len(message)
        wait_until(lambda: not lab.queue(), 10, "all is delivered")


def best(work: Callable[[bytes], object], message: bytes) -> float:
    """The least CPU time of five runs."""

    def once() -> float:
        began = time.process_time()
        work(message)
        return time.process_time() - began

    return min(once() for _ in range(5))


def receive_and_read(message: bytes) -> tuple[Result, ...]:
    """The pure road in: from a socket's segments to results, and the acknowledgement."""
    link, block = MllpLink(MllpSettings()), START + message + END
    events = [event for at in range(0, len(block), 65536) for event in link.receive(block[at : at + 65536], 0.0)]
    [received] = events
    assert isinstance(received, Received)
    [report] = hl7v2.read(received.payload, profiles.load("mindray-bc", [ANALYZERS]), UTC).reports
    acknowledge(received.payload, "A", stamp="20261121101500", control_id="1")
    return report.results


@pytest.mark.parametrize("larger", [(5, 1_500_000), (50, 150_000)], ids=["larger images", "more images"])
def test_ten_times_as_much_takes_at_most_twelve_times_as_long(larger: tuple[int, int]) -> None:
    small, large = pictures(5, 150_000), pictures(*larger)
    assert len(large) > 9.9 * len(small)
    assert len(receive_and_read(large)) == 1 + larger[0]
    ratios = []
    for _ in range(4):  # a busy machine may spoil one
        ratios.append(best(receive_and_read, large) / best(receive_and_read, small))
        if ratios[-1] <= LINEAR:
            break
    assert min(ratios) <= LINEAR, ratios


def cpu(lab: Lab) -> float:
    """The CPU seconds of the daemon, its threads included."""
    assert lab.process is not None
    fields = Path(f"/proc/{lab.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_daemon_takes_a_large_message_in_linear_time(lab: Lab) -> None:
    """From the socket to the disk and back: CPU time a message, of several."""

    def each(count: int, size: int) -> float:
        messages = [pictures(5, size, fresh(), number) for number in range(count)]
        before = cpu(lab)
        with contextlib.closing(MllpClient(lab.hl7)) as client:
            for message in messages:
                assert field(client.send(message), b"MSA", 1) == "AA"
        return (cpu(lab) - before) / count

    ratios = []
    for _ in range(4):
        small, large = each(20, 150_000), each(4, 1_500_000)
        ratios.append(large / small)
        if ratios[-1] <= LINEAR:
            break
    assert min(ratios) <= LINEAR, ratios
