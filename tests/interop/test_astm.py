"""python-astm as the analyzer and as the host (see ``astm_peer``): nothing is lost, doubled or mixed, whatever its ways."""

import contextlib
import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.e2e.helpers import Lab, fresh, observations
from tests.support import astm, free_ports, wait_until

WBC, RBC, HGB = ("WBC", "6.10", "10*3/uL"), ("RBC", "4.50", "10*6/uL"), ("HGB", "140", "g/L")
PEER = [sys.executable, "-m", "tests.interop.astm_peer"]
ROOT = Path(__file__).parents[2]


def send(tmp_path: Path, port: int, specimen: str, *size: str) -> list[list[Any]]:
    """The foreign analyzer sends one message in one connection; each record and whether it was told that it is stored."""
    file = tmp_path / "message.astm"
    file.write_text("\n".join(astm(specimen, [WBC, RBC, HGB])))
    ran = subprocess.run(
        [*PEER, "send", str(port), str(file), *size], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@contextlib.contextmanager
def noisy(port: int, damage: Callable[[bytes], bytes]) -> Iterator[int]:
    """A line to this port that damages what the analyzer sends; the port of its other end."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port), 60) as onward:
                back = threading.Thread(target=pump, args=(onward, self.request, bytes))
                back.start()
                pump(self.request, onward, damage)
                back.join(10)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join(10)


def pump(source: socket.socket, target: socket.socket, change: Callable[[bytes], bytes]) -> None:
    """Passes on what comes, until it ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(change(data))
        target.shutdown(socket.SHUT_WR)


def delivered(lab: Lab, specimen: str) -> dict[str, str]:
    """The values that reached the hospital for a specimen, in its one message."""
    [(_, message)] = lab.ward.wait(specimen)
    return {code: fields[5] for code, fields in observations(message).items()}


def test_python_astm_sends_a_frame_a_record(lab: Lab, tmp_path: Path) -> None:
    """After its EOT it bids again at once, and ends that session without a frame: no error."""
    specimen = fresh()
    assert send(tmp_path, lab.astm, specimen) == [[letter, True] for letter in "HPORRRL"]
    assert delivered(lab, specimen).keys() >= {"H001", "H024"}
    assert lab.messages("incomplete") == []


def test_python_astm_splits_records_over_frames(lab: Lab, tmp_path: Path) -> None:
    for size in ("20", "47", "100"):
        specimen = fresh()
        assert all(accepted for _, accepted in send(tmp_path, lab.astm, specimen, size))
        assert delivered(lab, specimen)["H001"] == "6.10"
    assert lab.messages("incomplete") == []


def test_python_astm_goes_on_to_the_next_record_after_nak(lab: Lab, tmp_path: Path) -> None:
    """The frame that noise has spoiled never comes again in its session: none of the message is reported, until it is whole."""
    specimen = fresh()
    with noisy(lab.astm, lambda data: data.replace(b"|6.10|", b"|9.10|")) as port:
        told = send(tmp_path, port, specimen)
    assert told == [["H", True], ["P", True], ["O", True], ["R", False], ["R", False], ["R", False], ["L", False]]
    [row] = wait_until(lambda: lab.messages("incomplete"), 10, "the broken transmission is shown")
    assert lab.ward.of(specimen) == []
    assert send(tmp_path, lab.astm, specimen)[-1] == ["L", True]
    assert delivered(lab, specimen)["H001"] == "6.10"
    wait_until(lambda: not lab.messages("incomplete"), 5, f"#{row['id']} has settled itself")


def test_python_astm_hangs_up_in_the_middle(lab: Lab, tmp_path: Path) -> None:
    """What it was told is stored is shown, and the rest comes with the whole message."""
    specimen = fresh()
    frames = 0

    def cut(data: bytes) -> bytes:
        nonlocal frames
        frames += data.startswith(b"\x02")
        if frames == 4:
            raise OSError("the cable is out")
        return data

    with noisy(lab.astm, cut) as port:
        told = send(tmp_path, port, specimen)
    assert told == [["H", True], ["P", True], ["O", True]]
    wait_until(lambda: lab.messages("incomplete"), 10, "shown")
    send(tmp_path, lab.astm, specimen)
    assert delivered(lab, specimen)["H001"] == "6.10"
    wait_until(lambda: not lab.messages("incomplete"), 5, "settled")


def test_python_astm_sends_it_all_again(lab: Lab, tmp_path: Path) -> None:
    """The same message once more is taken, and delivered once."""
    specimen = fresh()
    for _ in range(3):
        assert send(tmp_path, lab.astm, specimen)[-1] == ["L", True]
    delivered(lab, specimen)
    wait_until(lambda: not lab.queue(), 5, "nothing more waits")
    assert len(lab.ward.of(specimen)) == 1


def test_python_astm_takes_what_our_analyzer_sends(tmp_path: Path) -> None:
    """Our instrument's end of the line against python-astm's server: every record arrives, once and in order."""
    [port] = free_ports(1)
    with subprocess.Popen([*PEER, "serve", str(port)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as host:
        try:
            assert host.stdout is not None
            assert json.loads(host.stdout.readline()) == "ready"
            ours = [sys.executable, "-m", "labbridge", "simulate", "analyzer", "generic-astm", "--connect", f"127.0.0.1:{port}"]
            ran = subprocess.run(
                [*ours, "--rate", "0", "--count", "6", "--seed", "7"], capture_output=True, text=True, timeout=200, check=False
            )
            assert "sent 6 acknowledged 6 refused 0" in ran.stdout, ran.stdout + ran.stderr
        finally:
            host.terminate()
        records = [json.loads(line) for line in host.stdout.read().splitlines()]
    letters = "".join(record[0] for record in records)
    assert letters.count("H") == letters.count("L") == 6
    assert all(message.startswith("HP") and message.count("O") == 1 for message in letters.split("L")[:-1])
    results = [record for record in records if record[0] == "R"]
    assert len(results) >= 6
    assert all(record[3] for record in results)
