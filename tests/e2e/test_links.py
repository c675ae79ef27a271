"""Every kind of link with real sockets, devices and folders: TLS, serial lines, watched folders, raw records."""

import contextlib
import os
import pty
import select
import signal
import socket
import ssl
import tempfile
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labbridge.store import Reader
from tests.e2e.helpers import WBC, Lab, fresh
from tests.e2e.test_traps import store_locked
from tests.links.authority import Authority
from tests.support import ACK, END, ENQ, EOT, NAK, START, astm, frame, free_ports, only, oru, wait_until

Own = Callable[..., Lab]


def analyzer(name: str, profile: str, *lines: str) -> str:
    return "\n".join(["[[analyzer]]", f'name = "{name}"', f'profile = "{profile}"', *lines]) + "\n"


COUNT = ("WBC", "5.50", "10*9/L")


# -- serial lines ----------------------------------------------------------------------------------------------------


class Cable:
    """A pseudo-terminal pair: the laboratory's end has a name that stays, ours is a file."""

    def __init__(self, device: Path) -> None:
        self.device = device
        self.end = -1

    def plug(self) -> None:
        self.end, other = pty.openpty()
        tty.setraw(other)
        self.device.symlink_to(os.ttyname(other))
        self._other = other

    def pull(self) -> None:
        self.device.unlink()
        os.close(self._other)
        os.close(self.end)
        self.end = -1

    def say(self, data: bytes) -> bytes:
        """Writes, and returns the next byte."""
        os.write(self.end, data)
        wait_until(lambda: self.waiting(), 10, "the host answers")
        return os.read(self.end, 1)

    def waiting(self) -> bool:
        return bool(select.select([self.end], [], [], 0)[0])

    def send(self, records: list[str]) -> None:
        """A whole LIS01 session, one record a frame."""
        assert self.say(ENQ) == ACK
        for number, record in enumerate(records, 1):
            assert self.say(frame(number, record.encode() + b"\r")) == ACK
        os.write(self.end, EOT)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    made = Cable(tmp_path / "ttyLAB")
    yield made
    if made.end >= 0:
        made.pull()


@only("sqlite", "a link knows no database")
def test_a_serial_line_carries_messages_and_comes_back_after_it_was_pulled(own: Own, cable: Cable) -> None:
    """Bytes through a terminal reach the hospital; an adapter that is away is one line in the log, and is found again."""
    # conformance: A27
    lab = own(started=False, extra=analyzer("line", "sysmex-xn", f'serial = "{cable.device}"'))
    lab.start()
    wait_until(lambda: "is not there" in lab.log.read_text(), 10, "told")
    cable.plug()
    wait_until(
        lambda: "connected" in [*(said for said in lab.log.read_text().splitlines() if "analyzer=line" in said)][-1], 10, "opened"
    )
    settings = termios.tcgetattr(cable._other)
    assert (settings[4], settings[5]) == (termios.B9600, termios.B9600)
    assert settings[2] & (termios.CSIZE | termios.PARENB | termios.CSTOPB) == termios.CS8
    first, second = fresh(), fresh()
    cable.send(astm(first, [COUNT]))
    lab.ward.wait(first)
    cable.pull()
    wait_until(lambda: lab.status()["analyzers"][-1]["links"] == 0, 10, "noticed")
    cable.plug()
    wait_until(lambda: lab.status()["analyzers"][-1]["links"] == 1, 10, "opened again")
    cable.send(astm(second, [COUNT]))
    lab.ward.wait(second)
    assert lab.log.read_text().count("analyzer is down") == 2
    assert lab.status()["analyzers"][-1]["address"] == str(cable.device)


@only("sqlite", "a link knows no database")
def test_two_links_of_one_analyzer_share_no_state(own: Own) -> None:
    """Two connections send at the same time, frame by frame in turn: each message stays its own."""
    lab = own()
    specimens = fresh(), fresh()
    with lab.astm_client() as one, lab.astm_client() as other:
        lines = list(zip((one, other), [astm(specimen, [COUNT]) for specimen in specimens], strict=True))
        assert [line.raw(ENQ) for line, _ in lines] == [ACK, ACK]
        for number in range(5):
            for line, records in lines:
                assert line.raw(frame(number + 1, records[number].encode() + b"\r")) == ACK
        other.raw(EOT + ENQ)  # a session of its own begins on one of them alone
        one.end()
    for specimen in specimens:
        assert len(lab.ward.wait(specimen)) == 1


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    made = tmp_path / "inbox"
    made.mkdir()
    return made


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


SHORT_WINDOW = (("[verification]\n", '[verification]\nduplicate_window = "1s"\n'),)
HL7_FOLDER = analyzer("box", "mindray-bc", 'folder = "{inbox}"', 'settle = "{settle}"', 'max_message = "64KiB"')


def watched(inbox: Path, settle: str = "300ms") -> str:
    return HL7_FOLDER.replace("{inbox}", str(inbox)).replace("{settle}", settle)


def folder_lab(own: Own, inbox: Path, settle: str = "300ms") -> Lab:
    return own(extra=watched(inbox, settle))


@only("sqlite", "a link knows no database")
def test_files_are_read_whole_and_once_and_leave_when_they_are_stored(own: Own, inbox: Path) -> None:
    """Whole files, framed or bare, leave for done/; what is being written, hidden, a link or a folder is left alone."""
    lab = folder_lab(own, inbox, settle="3s")  # ten times as long as it takes to go on writing
    bare, blocks, renamed, slow = fresh(), [fresh(), fresh()], fresh(), fresh()
    (inbox / "bare.hl7").write_bytes(oru(bare, 1, [WBC]))
    (inbox / "blocks.hl7").write_bytes(b"".join(START + oru(one, 2, [WBC]) + END for one in blocks))
    (inbox / "renamed.tmp").write_bytes(oru(renamed, 3, [WBC]))
    (inbox / ".hidden").write_bytes(oru(fresh(), 4, [WBC]))
    (inbox / "link.hl7").symlink_to(inbox / ".hidden")
    (inbox / "sub").mkdir()
    message = oru(slow, 5, [WBC])
    for at in range(0, len(message), len(message) // 8):
        with (inbox / "slow.hl7").open("ab") as file:
            file.write(message[at : at + len(message) // 8])
        time.sleep(0.2)
    for one in (bare, *blocks, slow):
        lab.ward.wait(one)
    (inbox / "renamed.tmp").rename(inbox / "renamed.hl7")
    lab.ward.wait(renamed)
    wait_until(lambda: len(names(inbox / "done")) == 4, 10, "moved")
    assert names(inbox / "done") == ["bare.hl7", "blocks.hl7", "renamed.hl7", "slow.hl7"]
    assert names(inbox) == [".hidden", "done", "failed", "link.hl7", "sub"]
    assert (inbox / "done" / "slow.hl7").read_bytes() == message
    assert not lab.messages("unreadable")


@only("sqlite", "a link knows no database")
def test_a_name_that_is_taken_gets_a_number_and_an_oversize_file_fails(own: Own, inbox: Path) -> None:
    lab = folder_lab(own, inbox)
    for number in range(3):
        one = fresh()
        (inbox / "result.hl7").write_bytes(oru(one, number, [WBC]))
        lab.ward.wait(one)
        wait_until(lambda: not (inbox / "result.hl7").exists(), 10, "moved")
    assert len(names(inbox / "done")) == 3
    (inbox / "big.hl7").write_bytes(b"MSH|" + bytes(70_000))
    wait_until(lambda: names(inbox / "failed") == ["big.hl7"], 10, "failed")
    assert (inbox / "failed" / "big.hl7").stat().st_size == 70_004
    [row] = lab.messages("oversize")
    assert row["analyzer"] == "box"


@pytest.fixture
def elsewhere(inbox: Path) -> Iterator[Path]:
    """done/ is on another disk, as if mounted wrongly: nothing can be moved there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        made = inbox / "done"
        made.symlink_to(folder)
        assert made.stat().st_dev != inbox.stat().st_dev
        yield made


@only("sqlite", "a link knows no database")
def test_a_file_is_read_once_though_a_crash_comes_between_commit_and_move(own: Own, inbox: Path, elsewhere: Path) -> None:
    """kill -9 after the commit: however long the daemon is down, the very file is only moved; dropped anew, it is read."""
    lab = own(started=False, extra=watched(inbox), changes=SHORT_WINDOW)
    lab.start()
    one, both = fresh(), fresh()
    message = oru(one, 1, [WBC])
    (inbox / "one.hl7").write_bytes(message)
    (inbox / "both.hl7").write_bytes(START + oru(both, 2, [WBC]) + END + START + oru(both, 3, [WBC], "20261121111500") + END)
    wait_until(lambda: lab.log.read_text().count("cannot be moved") == 2, 10, "stored and not moved")
    lab.kill()
    elsewhere.unlink()
    time.sleep(1.5)  # beyond duplicate_window
    lab.start()
    wait_until(lambda: not list(inbox.glob("*.hl7")), 10, "moved")
    assert names(inbox / "done") == ["both.hl7", "one.hl7"]
    lab.ward.wait(one)
    assert b'labbridge_messages_total{analyzer="box"' not in lab.get("/metrics"), "nothing was read"
    assert [len(lab.story(specimen, "message")) for specimen in (one, both)] == [1, 2]
    assert len({control_id for control_id, _ in lab.ward.of(one)}) == 1, "perhaps repeated after the crash, but one message"
    (inbox / "one.hl7").write_bytes(message)
    wait_until(lambda: len(names(inbox / "done")) == 3, 10, "read")
    assert len(lab.story(one, "message")) == 2


@only("sqlite", "a link knows no database")
def test_a_reload_reads_no_stored_file_again(own: Own, inbox: Path, elsewhere: Path) -> None:
    """Another settle time is another watch of the same folder: it knows what the one before has stored."""
    lab = own(started=False, extra=watched(inbox), changes=SHORT_WINDOW)
    lab.start()
    one = fresh()
    (inbox / "one.hl7").write_bytes(oru(one, 1, [WBC]))
    wait_until(lambda: "cannot be moved" in lab.log.read_text(), 10, "stored and not moved")
    time.sleep(1.5)  # beyond duplicate_window
    lab.edit('settle = "300ms"', 'settle = "200ms"')
    lab.signal(signal.SIGHUP)
    wait_until(lambda: "reloaded" in lab.log.read_text(), 10, "reloaded")
    wait_until(lambda: lab.status()["analyzers"][-1]["links"] == 1, 10, "looked at again")
    time.sleep(1.5)
    elsewhere.unlink()
    wait_until(lambda: (inbox / "done" / "one.hl7").exists(), 10, "moved")
    assert len(lab.story(one, "message")) == 1


@only("sqlite", "a link knows no database")
def test_a_file_waits_for_a_store_that_is_away(own: Own, inbox: Path) -> None:
    """Nobody sends a file again: it stays until it is stored, and so do the results of a raw line."""
    port = free_ports(1)[0]
    raw = analyzer("raw", "sysmex-xn", f'listen = "127.0.0.1:{port}"', 'framing = "raw"')
    lab = own(extra=watched(inbox) + raw)
    first, file, line = fresh(), fresh(), fresh()
    lab.tell(first)
    lab.ward.wait(first)
    wait_until(lambda: (inbox / "done").exists(), 10, "watched")
    with store_locked(lab):
        (inbox / "waits.hl7").write_bytes(oru(file, 1, [WBC]))
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall("\r".join([*astm(line, [COUNT]), ""]).encode())
        wait_until(lambda: "not stored" in lab.log.read_text(), 30, "the store fails")
        assert names(inbox / "done") == []
    lab.ward.wait(file, seconds=30)
    lab.ward.wait(line, seconds=30)
    wait_until(lambda: names(inbox / "done") == ["waits.hl7"], 10, "moved")


# -- raw records -----------------------------------------------------------------------------------------------------


@only("sqlite", "a link knows no database")
def test_records_without_frames_are_messages_and_are_not_answered(own: Own) -> None:
    """H to L is a message, whatever the segments; one cut short waits for a person; nothing is said."""
    port = free_ports(1)[0]
    lab = own(extra=analyzer("raw", "sysmex-xn", f'listen = "127.0.0.1:{port}"', 'framing = "raw"'))
    first, second, third = fresh(), fresh(), fresh()
    with socket.create_connection(("127.0.0.1", port)) as peer:
        for one in (first, second):
            data = "\r\n".join([*astm(one, [COUNT]), ""]).encode()
            for at in range(0, len(data), 7):
                peer.sendall(data[at : at + 7])
        lab.ward.wait(first)
        lab.ward.wait(second)
        assert not select.select([peer], [], [], 0.2)[0]
        peer.sendall("\r".join(astm(third, [COUNT])[:-1]).encode())
    wait_until(lambda: lab.messages("incomplete"), 10, "shown")
    assert not lab.ward.of(third)


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def client(authority: Authority, own: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(*own)
    return context


def tls_lines(certificate: tuple[Path, Path], ca: Path | None) -> list[str]:
    lines = ["[analyzer.tls]", f'certificate = "{certificate[0]}"', f'key = "{certificate[1]}"']
    return [*lines, *([f'ca = "{ca}"'] if ca else [])]


def exchange(port: int, context: ssl.SSLContext, message: bytes) -> bytes:
    """Sends an HL7 message over TLS; the answer."""
    with (
        socket.create_connection(("127.0.0.1", port), 60) as bare,
        context.wrap_socket(bare, server_hostname="localhost") as secure,
    ):
        secure.sendall(START + message + END)
        answer = b""
        while END not in answer:
            data = secure.recv(65536)
            if not data:
                raise ConnectionError
            answer += data
        return answer


@only("sqlite", "a link knows no database")
def test_an_analyzer_over_tls_with_its_own_certificate(own: Own, authority: Authority, tmp_path: Path) -> None:
    """With it a result arrives; without, with another's, expired, or in clear text nothing does, and the log says why once."""
    port = free_ports(1)[0]
    server = authority.issue("lab", "localhost")
    lines = tls_lines(server, authority.file)
    lab = own(extra=analyzer("safe", "mindray-bc", f'listen = "127.0.0.1:{port}"', *lines))
    good, old = authority.issue("bc"), authority.issue("old", days=(-9, -1))
    foreign = Authority(tmp_path / "other", "Other CA").issue("bc")
    one = fresh()
    assert b"\rMSA|AA|" in exchange(port, client(authority, good), oru(one, 1, [WBC]))
    lab.ward.wait(one)
    big = fresh()
    message = oru(big, 2, [WBC]) + b"NTE|1||" + b"x" * 2_000_000 + b"\r"
    assert b"\rMSA|AA|" in exchange(port, client(authority, good), message)
    for context in (client(authority), client(authority, old), client(authority, foreign)):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            exchange(port, context, oru(fresh(), 3, [WBC]))
    lines_said = [line for line in lab.log.read_text().splitlines() if "connection refused" in line]
    assert len(lines_said) == 1, "told once a minute and address"
    assert "certificate" in lines_said[0]
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as bare:
        bare.sendall(START + oru(fresh(), 4, [WBC]) + END)
        bare.settimeout(60)
        with contextlib.suppress(ConnectionResetError):
            while bare.recv(1000):
                pass
    context = client(authority, good)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(port, context, oru(fresh(), 5, [WBC]))


@only("sqlite", "a link knows no database")
def test_certificates_are_read_again_and_open_connections_stay(own: Own, authority: Authority) -> None:
    """SIGHUP: who connects from then on sees the new certificate; a wrong one changes nothing; no link is dropped."""
    port = free_ports(1)[0]
    server = authority.issue("lab", "localhost")
    lab = own(extra=analyzer("safe", "mindray-bc", f'listen = "127.0.0.1:{port}"', *tls_lines(server, None)))

    def serial_number() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), 60) as bare,
            client(authority).wrap_socket(bare, server_hostname="localhost") as secure,
        ):
            return str(secure.getpeercert()["serialNumber"])  # type: ignore[index]

    before = serial_number()
    with (
        socket.create_connection(("127.0.0.1", port), 60) as bare,
        client(authority).wrap_socket(bare, server_hostname="localhost") as stays,
    ):
        authority.issue("lab", "localhost", days=(-9, -1))
        lab.signal(signal.SIGHUP)
        wait_until(lambda: "expired on" in lab.log.read_text(), 10, "told")
        assert serial_number() == before
        authority.issue("lab", "localhost")
        lab.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in lab.log.read_text(), 10, "reloaded")
        assert serial_number() != before
        stays.sendall(START + oru(fresh(), 1, [WBC]) + END)
        assert b"\rMSA|AA|" in stays.recv(65536)


@only("sqlite", "a link knows no database")
def test_a_certificate_that_cannot_be_used_is_refused_at_the_start(own: Own, authority: Authority) -> None:
    """Exit status 78, with file, line, key and remedy; labbridge check says the same."""
    certificate, key = authority.issue("lab", "localhost")
    lab = own(
        started=False, extra=analyzer("safe", "mindray-bc", 'listen = "127.0.0.1:{spare3}"', *tls_lines((certificate, key), None))
    )
    key.chmod(0o644)
    for arguments in (("check",), ("run",)):
        ended = lab.run(*arguments)
        assert ended.returncode == 78
        assert f"tls.key: {key}: others may read it - chmod 600 {key}" in ended.stderr


@only("sqlite", "a link knows no database")
def test_a_hospital_over_tls_is_verified_by_its_name(own: Own, authority: Authority) -> None:
    """The right certificate gets the results, one for another host does not; the log says so in one line."""
    right, wrong = authority.issue("his", "127.0.0.1"), authority.issue("wrong", "his.elsewhere")
    lab = own(hospital=False, started=False)
    lab.edit('timeout = "30s"\n', f'timeout = "30s"\n[destination.tls]\nca = "{authority.file}"\n')
    with secured_hospital(lab, wrong) as choose:
        lab.start()
        one = fresh()
        lab.tell(one)
        wait_until(lambda: "not for 127.0.0.1" in lab.log.read_text(), 10, "told")
        time.sleep(2)
        assert lab.log.read_text().count("destination is down") == 1
        assert not lab.ward.of(one)
        choose(right)
        lab.ward.wait(one, seconds=40)


@contextlib.contextmanager
def secured_hospital(lab: Lab, certificate: tuple[Path, Path]) -> Iterator[Callable[[tuple[Path, Path]], None]]:
    """The laboratory's hospital behind TLS; what is yielded changes its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    inside = free_ports(1)[0]
    lab.ward.port = inside
    lab.ward.start()
    door = socket.create_server(("127.0.0.1", lab.his))
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                bare, _ = door.accept()
                threading.Thread(target=carry, args=(bare,), daemon=True).start()

    def carry(bare: socket.socket) -> None:
        with contextlib.suppress(OSError):
            bare.settimeout(30)
            with context.wrap_socket(bare, server_side=True) as secure, socket.create_connection(("127.0.0.1", inside)) as plain:
                while data := secure.recv(65536):
                    plain.sendall(data)
                    secure.sendall(plain.recv(65536))

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield lambda other: context.load_cert_chain(*other)
    finally:
        over.set()
        door.close()


# -- half-closed -----------------------------------------------------------------------------------------------------


def said_once(port: int, data: bytes) -> bytes:
    """What ``nc -N`` gets: all is said, this side is shut down, and then the other is heard to its end."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), 60) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        while part := peer.recv(65536):
            answer += part
    return answer


@only("sqlite", "a link knows no database")
def test_a_sender_that_half_closes_is_answered(own: Own) -> None:
    """MLLP and LIS01: what is stored is acknowledged, a block cut short is not; then the connection ends."""
    lab = own()
    block, session, cut = fresh(), fresh(), fresh()
    answer = said_once(lab.hl7, START + oru(block, 1, [WBC]) + END)
    assert b"\rMSA|AA|" in answer
    assert answer.endswith(END)
    records = astm(session, [COUNT])
    frames = b"".join(frame(number, record.encode() + b"\r") for number, record in enumerate(records, 1))
    assert said_once(lab.astm, ENQ + frames + EOT) == ACK * (len(records) + 1)
    lab.ward.wait(block)
    lab.ward.wait(session)
    assert said_once(lab.hl7, START + oru(cut, 2, [WBC])[:150]) == b""
    wait_until(lambda: lab.messages("incomplete"), 10, "shown")
    assert [row["kind"] for row in lab.rows("pending")] == ["incomplete"]
    assert not lab.ward.of(cut)


@only("sqlite", "a link knows no database")
def test_a_frame_that_was_refused_and_came_right_is_journaled_for_nobody(own: Own) -> None:
    """A noisy line leaves nothing for a person to look at; a frame that never came right does."""
    lab = own()
    specimen = fresh()
    records = [record.encode() + b"\r" for record in astm(specimen, [COUNT])]
    bad = frame(1, records[0]).replace(b"XN-1000", b"XN-1001")
    with lab.astm_client() as line:
        assert [line.raw(ENQ), line.raw(bad)] == [ACK, NAK]
        assert {line.raw(frame(number, record)) for number, record in enumerate(records, 1)} == {ACK}
        line.end()
    lab.ward.wait(specimen)
    with lab.astm_client() as line:
        assert [line.raw(ENQ), line.raw(bad)] == [ACK, NAK]
        line.end()
    wait_until(lambda: lab.messages("stray"), 10, "shown")
    with contextlib.closing(Reader(lab.url)) as reader:
        strays = list(reader.stream("SELECT kind, state, body FROM message WHERE kind IN ('stray', 'resent') ORDER BY id"))
    assert [(kind, state, bytes(body)) for kind, state, body in strays] == [("resent", "", bad), ("stray", "open", bad)]
    assert [row["kind"] for row in lab.rows("pending")] == ["stray"]


# -- idle ------------------------------------------------------------------------------------------------------------


@only("sqlite", "a link knows no database")
def test_an_idle_link_is_closed_and_the_next_one_works(own: Own) -> None:
    """Ours closes on an idle analyzer; a hospital that closes when idle gets the next result over a new connection."""
    # conformance: C06
    port = free_ports(1)[0]
    lab = own(extra=analyzer("quiet", "mindray-bc", f'listen = "127.0.0.1:{port}"', 'idle_timeout = "3s"'))
    with socket.create_connection(("127.0.0.1", port), 60) as peer:
        assert peer.recv(1) == b""
    first, second = fresh(), fresh()
    with lab.hl7_client(port) as again:
        assert b"\rMSA|AA|" in again.send(oru(first, 1, [WBC]))
    lab.ward.wait(first)
    lab.ward.stop()
    lab.ward.start()
    lab.tell(second)
    lab.ward.wait(second)
    assert "why=idle" in lab.log.read_text()
