"""What tests of the whole daemon share: a configuration, the process, patient analyzers, a hospital that remembers."""

import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

STARTED: list[subprocess.Popen[bytes]] = []  # every daemon of this session
START, END = b"\x0b", b"\x1c\x0d"
ENQ, ACK, NAK, EOT, STX, ETX = b"\x05", b"\x06", b"\x15", b"\x04", b"\x02", b"\x03"

CONFIG = """
[site]
name = "Test Laboratory"
timezone = "Asia/Shanghai"

[store]
url = "{url}"

[[analyzer]]
name = "xn-1"
profile = "sysmex-xn"
listen = "127.0.0.1:{astm}"
max_connections = 64

[[analyzer]]
name = "bc-1"
profile = "mindray-bc"
listen = "127.0.0.1:{hl7}"
max_connections = 64

[[destination]]
name = "his"
protocol = "hl7v2"
connect = "127.0.0.1:{his}"
connections = 4
codes = "his"
timeout = "{timeout}"

[[route]]
to = "his"

[http]
listen = "127.0.0.1:{http}"

[verification]
auto_release = true
hold = "result"
repeat = "{repeat}"
stale = "876000h"
"""


def only(database: str, why: str) -> pytest.MarkDecorator:
    """The test runs on this database alone, for a reason that its name tells."""
    marks = [pytest.mark.postgresql] if database == "postgresql" else []
    return pytest.mark.parametrize("database", [pytest.param(database, marks=marks, id=f"{database}: {why}")], indirect=True)


FIRST_PORT, LAST_PORT, SLICE = 10_000, 32_000, 100  # below what the system gives to outgoing connections
PATIENCE = 6  # a machine that is busy with other things takes so many times as long


def _own_ports() -> Iterator[int]:
    """Ports that no other process of ours takes meanwhile: whoever has bound the first of a slice has the others too."""
    slices = list(range(FIRST_PORT, LAST_PORT, SLICE))
    random.SystemRandom().shuffle(slices)
    for first in slices:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        claim.detach()  # stays bound until this process ends, however it ends
        yield from range(first + 1, first + SLICE)
    raise AssertionError("no port is free")


_ports: dict[int, Iterator[int]] = {}  # by process: a forked one takes a slice of its own


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now, none given twice: a hospital that is down for a while must find its port again."""
    found: list[int] = []
    ports = _ports.setdefault(os.getpid(), _own_ports())
    while len(found) < count:
        port = next(ports)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Waits for a truth; ``seconds`` is more than it takes where nothing else runs, and ``PATIENCE`` times that is waited."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


class Laboratory:
    """A configuration in a folder, and the daemon that runs it as a process of its own."""

    def __init__(
        self,
        folder: Path,
        url: str = "sqlite:///lab.db",
        *,
        repeat: str = "hold",
        timeout: str = "30s",
        changes: Sequence[tuple[str, str]] = (),
        extra: str = "",
    ) -> None:
        self.folder = folder
        self.url = url
        self.ports = dict(zip(("astm", "hl7", "his", "http", "spare1", "spare2", "spare3"), free_ports(7), strict=True))
        self.astm, self.hl7, self.his, self.http = list(self.ports.values())[:4]
        self.config = folder / "labbridge.toml"
        text = CONFIG.format(url=url, astm=self.astm, hl7=self.hl7, his=self.his, http=self.http, repeat=repeat, timeout=timeout)
        self.config.write_text(text + self._filled(extra))
        for old, new in changes:
            self.edit(old, new)
        self.process: subprocess.Popen[bytes] | None = None
        self.options: list[str] = []  # of `labbridge run`
        self.log = folder / "daemon.log"

    def edit(self, old: str, new: str) -> None:
        """Changes the configuration file, once; ``{url}``, ``{astm}`` and the other ports may stand in both texts."""
        text, old, new = self.config.read_text(), self._filled(old), self._filled(new)
        assert old in text, f"not in the configuration: {old}"
        self.config.write_text(text.replace(old, new, 1))

    def _filled(self, text: str) -> str:
        for name, value in {"url": self.url, **self.ports}.items():
            text = text.replace(f"{{{name}}}", str(value))
        return text

    def launch(self, *before: str) -> subprocess.Popen[bytes]:
        """Starts the daemon and does not wait; ``before`` is a command that runs it (prlimit)."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "labbridge", "run", *self.options, "-c", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={name: text for name, text in os.environ.items() if name != "PYTEST_CURRENT_TEST"},  # NiceGUI looks at it
            )
        STARTED.append(self.process)
        return self.process

    def start(self, *before: str) -> float:
        """Starts the daemon; returns the seconds until it listened and accepted."""
        began = time.monotonic()
        self.launch(*before)
        try:
            wait_until(self.accepting, 30, "the daemon accepts")
        except AssertionError:
            raise AssertionError(self.log.read_text()[-3000:]) from None
        return time.monotonic() - began

    def accepting(self) -> bool:
        """Whether /healthz says that the store is ready; fails when the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return b" 200 " in self.get("/healthz")[:64]

    def get(self, page: str) -> bytes:
        """A page of the HTTP port with its header; empty while nobody answers."""
        whole = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.http), 60) as client:
            client.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            while data := client.recv(65536):
                whole += data
        return whole

    def status(self) -> Any:
        """What /healthz tells."""
        return json.loads(self.get("/healthz").partition(b"\r\n\r\n")[2])

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def signal(self, number: int) -> None:
        """Sends the daemon a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15 * PATIENCE)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One labbridge command with this configuration, as a process."""
        return subprocess.run(
            [sys.executable, "-m", "labbridge", *arguments, "-c", str(self.config)],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env={**os.environ, "COLUMNS": "250"},
        )


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[Laboratory]:
    """A laboratory whose daemon runs, and surely ends."""
    laboratory = Laboratory(folder, **options)
    laboratory.start()
    try:
        yield laboratory
    finally:
        if laboratory.process is not None and laboratory.process.poll() is None:
            laboratory.process.kill()
            laboratory.process.wait()


def his_ack(code: str, control_id: str, rest: str = "") -> bytes:
    """A hospital's acknowledgement of the message with this control id; ``rest`` are further segments."""
    return f"MSH|^~\\&|HIS|H|LAB|L|20261121||ACK^R01^ACK|A{control_id}|P|2.5.1\rMSA|{code}|{control_id}\r{rest}".encode()


class Hospital:
    """Acknowledges every message and remembers it, in order of arrival.

    ``answer`` decides: a code; None is silence; bytes are sent as they are; an OSError drops the connection.
    """

    def __init__(self, port: int, answer: Callable[[bytes], str | bytes | None] = lambda message: "AA") -> None:
        self.port = port
        self.answer = answer
        self.greeting = b""  # sent to whoever connects
        self.messages: list[tuple[str, bytes]] = []
        self.lock = threading.Lock()
        self._server: socketserver.ThreadingTCPServer | None = None
        self._open: set[socket.socket] = set()

    def start(self) -> "Hospital":
        """Listens."""
        hospital = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                hospital._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        connection.sendall(self.greeting)
        buffer = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                buffer += data
                while END in buffer:
                    block, buffer = buffer.split(END, 1)
                    self._take(connection, block[block.find(START) + 1 :])
        self._open.discard(connection)

    def _take(self, connection: socket.socket, message: bytes) -> None:
        control_id = message.split(b"\r", 1)[0].split(b"|")[9].decode()
        with self.lock:
            self.messages.append((control_id, message))
        answer = self.answer(message)
        if answer is not None:
            connection.sendall(answer if isinstance(answer, bytes) else START + his_ack(answer, control_id) + END)

    def stop(self) -> None:
        """Closes the port and every connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()

    def __enter__(self) -> "Hospital":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def got(self) -> list[tuple[str, bytes]]:
        """What has arrived so far."""
        with self.lock:
            return list(self.messages)


def field(message: bytes, segment: bytes, number: int) -> str:
    """A field of the first such segment of a message we sent."""
    found = re.search(rb"(?:^|\r)" + segment + rb"\|([^\r]*)", message)
    if found is None:
        return ""
    fields = found[1].split(b"|")
    return fields[number - 1].decode("utf-8", "backslashreplace") if len(fields) >= number else ""


def oru(specimen: str, number: int, results: list[tuple[str, str, str]], stamp: str = "20261121101500") -> bytes:
    """An ORU^R01 in the shape of a Mindray blood counter: (code, value, unit) of each result."""
    lines = [
        f"MSH|^~\\&|BC-6800|Mindray|||{stamp}||ORU^R01|{number}|P|2.3.1||||||UNICODE",
        "PID|1||P1^^^^MR||DOE^JO||19800101|Male",
        f"OBR|1||{specimen}|00001^Automated Count^99MRC||{stamp}|{stamp}|||||||||||||||||HM||||||||",
    ]
    for index, (code, value, unit) in enumerate(results, 1):
        lines.append(f"OBX|{index}|NM|{code}||{value}|{unit}||N|||F|||{stamp}||")
    return ("\r".join(lines) + "\r").encode()


def astm(specimen: str, results: list[tuple[str, str, str]], stamp: str = "20261121101500") -> list[str]:
    """The records of a message in the shape of a Sysmex XN: (code, value, unit) of each result."""
    records = [
        "H|\\^&|||XN-1000^00-22^11001^^^^AB123456||||||||E1394-97",
        "P|1|||P1|DOE^JO||19800101|M",
        f"O|1||2^1^{specimen:>22}^B|^^^^WBC\\^^^^RBC|||||||N||||||||||||||F",
    ]
    for index, (code, value, unit) in enumerate(results, 1):
        records.append(f"R|{index}|^^^^{code}^1|{value}|{unit}||N||F||||{stamp}")
    return [*records, "L|1|N"]


def frame(number: int, text: bytes, end: bytes = ETX) -> bytes:
    """One LIS01 frame."""
    body = b"%d" % (number % 8) + text + end
    return STX + body + b"%02X\r\n" % (sum(body) & 255)


class MllpClient:
    """An analyzer that speaks HL7 and waits for each answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self._buffer = b""

    def send(self, message: bytes) -> bytes:
        """Sends a message and returns the answer; raises OSError when the connection is lost."""
        self._socket.sendall(START + message + END)
        return self.answer()

    def raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def answer(self) -> bytes:
        """The next whole answer."""
        while END not in self._buffer:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("closed")
            self._buffer += data
        block, self._buffer = self._buffer.split(END, 1)
        return block[block.find(START) + 1 :]

    def waiting(self) -> bool:
        """Whether anything has come that was not taken."""
        return bool(self._buffer or select.select([self._socket], [], [], 0)[0])

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


class AstmClient:
    """An analyzer that speaks LIS01, one record a frame, and resends a frame that is refused."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 60)
        self.acknowledged = 0  # frames of the present message

    def raw(self, data: bytes) -> bytes:
        """Sends bytes as they are and returns the next byte of the host."""
        self.write(data)
        return self.read()

    def write(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def waiting(self) -> bool:
        """Whether the host has said anything."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def send(self, records: list[str]) -> bool:
        """Sends a message; whether its last frame was acknowledged."""
        self.acknowledged = 0
        if self.raw(ENQ) != ACK:
            return False
        for number, record in enumerate(records, 1):
            data = frame(number, record.encode() + b"\r")
            if not any(self.raw(data) == ACK for _ in range(6)):
                self._socket.sendall(EOT)
                return False
            self.acknowledged += 1
        self._socket.sendall(EOT)
        return True

    def end(self) -> None:
        """Ends the session: nothing answers EOT."""
        self._socket.sendall(EOT)

    def receive(self) -> list[str]:
        """Takes one message of the host's own, frame by frame; returns its records."""
        text = b""
        assert self.read() == ENQ
        self._socket.sendall(ACK)
        while (first := self.read()) == STX:
            body = b""
            while not body.endswith(b"\r\n"):
                body += self.read()
            text += body[1:-5]
            self._socket.sendall(ACK)
        assert first == EOT
        return text.decode().split("\r")[:-1]

    def read(self) -> bytes:
        """The next byte of the host; raises ConnectionError at the end."""
        data = self._socket.recv(1)
        if not data:
            raise ConnectionError("closed")
        return data

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()
