"""python-hl7's `mllp_send` and its client as the analyzer: what it was told is stored is delivered, once."""

import subprocess
import sys
from pathlib import Path

from hl7.client import MLLPClient

from tests.e2e.helpers import RBC, WBC, Lab, fresh, observations
from tests.support import field, oru, wait_until


def mllp_send(lab: Lab, file: Path, *options: str) -> str:
    """The published command, as a process; what it prints are the answers."""
    command = [str(Path(sys.executable).with_name("mllp_send")), *options, "-p", str(lab.hl7), "-f", str(file), "127.0.0.1"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.replace("\r", "\n")


def test_mllp_send_is_answered_message_by_message(lab: Lab, tmp_path: Path) -> None:
    """A file of blocks, as it was captured."""
    specimens = [fresh() for _ in range(20)]
    file = tmp_path / "blocks.hl7"
    file.write_bytes(b"".join(b"\x0b" + oru(each, number, [WBC, RBC]) + b"\x1c\r" for number, each in enumerate(specimens)))
    told = mllp_send(lab, file)
    assert [line.split("|")[1:3] for line in told.splitlines() if line.startswith("MSA|")] == [["AA", str(n)] for n in range(20)]
    for specimen in specimens:
        [(_, message)] = lab.ward.wait(specimen)
        assert [fields[5] for fields in observations(message).values()] == ["5.50", "4.50"]


def test_mllp_send_of_a_loose_file(lab: Lab, tmp_path: Path) -> None:
    """Text with line feeds, which it turns into segments but for what is between messages."""
    specimens = [fresh() for _ in range(5)]
    file = tmp_path / "loose.txt"
    file.write_bytes(b"\r\n".join(oru(each, number, [WBC]).replace(b"\r", b"\r\n") for number, each in enumerate(specimens)))
    assert mllp_send(lab, file, "--loose").count("MSA|AA|") == 5
    for specimen in specimens:
        assert len(lab.ward.wait(specimen)) == 1


def test_mllp_send_of_the_same_file_again(lab: Lab, tmp_path: Path) -> None:
    """Nobody can know that it was stored who did not read the answers: all of it again is delivered once."""
    specimens = [fresh() for _ in range(5)]
    file = tmp_path / "again.hl7"
    file.write_bytes(b"".join(b"\x0b" + oru(each, 1, [WBC]) + b"\x1c\r" for each in specimens))
    for _ in range(3):
        assert mllp_send(lab, file).count("MSA|AA|") == 5
    for specimen in specimens:
        lab.ward.wait(specimen)
    wait_until(lambda: not lab.queue(), 5, "nothing more waits")
    assert [len(lab.ward.of(specimen)) for specimen in specimens] == [1] * 5


def test_a_client_that_does_not_wait_for_its_answer(lab: Lab) -> None:
    """It hangs up behind its message: that is stored and delivered all the same."""
    specimens = [fresh() for _ in range(10)]
    for number, specimen in enumerate(specimens):
        with MLLPClient("127.0.0.1", lab.hl7) as client:
            client.socket.send(b"\x0b" + oru(specimen, number, [WBC]) + b"\x1c\r")
    for specimen in specimens:
        assert len(lab.ward.wait(specimen)) == 1


def test_a_client_that_reads_no_more_than_its_buffer(lab: Lab) -> None:
    """Its one `recv` of 4 KiB has each answer whole, in UTF-8 too."""
    specimen = fresh()
    with MLLPClient("127.0.0.1", lab.hl7) as client:
        for number in range(3):
            answer = client.send_message(oru(specimen, number, [WBC]).decode().replace("DOE^JO", "王^小明"))
            assert answer.startswith(b"\x0b")
            assert answer.endswith(b"\x1c\r")
            assert (field(answer[1:-2], b"MSA", 1), field(answer[1:-2], b"MSA", 2)) == ("AA", str(number))
