"""The daemon's life: start, reload, stop, restart; what is wrong is told before anything listens."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labbridge import revision
from tests.e2e.helpers import UNKNOWN, WBC, Lab, fresh, observations, taken
from tests.e2e.test_traps import store_locked
from tests.store.postgres import Server
from tests.support import ACK, END, ENQ, NAK, PATIENCE, START, MllpClient, astm, field, frame, only, oru, wait_until

Own = Callable[..., Lab]
CONFIGURATION = 78


def _reload(lab: Lab, word: str = "reloaded") -> None:
    """SIGHUP, and waits until the daemon says this."""
    count = lab.log.read_text().count(word)
    lab.signal(signal.SIGHUP)
    wait_until(lambda: lab.log.read_text().count(word) > count, 10, word)


def _own_map(lab: Lab, name: str) -> Path:
    """A copy of a packaged map in the laboratory's own folder."""
    folder = lab.folder / "mappings"
    folder.mkdir(exist_ok=True)
    return Path(shutil.copy(revision.packaged("mappings") / f"{name}.csv", folder))


def _refused(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 60):
        return False
    return True


# -- reload


def test_a_reload_keeps_connections_and_takes_a_changed_map(own: Own) -> None:
    """SIGHUP: a row added to a map counts from then on, an open connection stays, what was held can leave."""
    lab = own(started=False, extra='[library]\nmappings = "mappings"\n')
    code_map = _own_map(lab, "mindray-bc")
    lab.start()
    held, later = fresh(), fresh()
    with lab.hl7_client() as client, lab.astm_client() as line:
        assert line.raw(ENQ) == ACK
        assert line.raw(frame(1, b"H|\\^&|||XN-1000\r")) == ACK
        assert field(client.send(oru(held, 1, [WBC, UNKNOWN])), b"MSA", 1) == "AA"
        lab.ward.wait(held)
        assert lab.reasons(held) == {"unmapped"}
        code_map.write_text(code_map.read_text().rstrip("\n") + "\n99999,g,,PLT,,,,10*9/L,\n")
        _reload(lab)
        assert field(client.send(oru(later, 2, [WBC, ("99999^NEW^99MRC", "210", "g")])), b"MSA", 1) == "AA"
        assert line.raw(frame(2, b"L|1|N\r")) == ACK
        line.end()
    [(_, message)] = lab.ward.wait(later)
    assert len(observations(message)) == 2
    assert not lab.rows("pending") or [row["specimen"] for row in lab.rows("pending") if "specimen" in row] == [held]
    shown = lab.well("queue", "release-mapped")
    assert f"{held}: 99999 -> PLT" in shown
    assert len(lab.ward.of(held)) == 1, "shown, not released"
    lab.well("queue", "release-mapped", "--yes")
    wait_until(lambda: len(lab.ward.of(held)) == 2 or lab.reasons(held) not in ({"unmapped"}, set()), 5, "mapped now")
    assert "unmapped" not in lab.reasons(held)


def test_a_wrong_configuration_on_reload_changes_nothing(own: Own) -> None:
    lab = own()
    with lab.hl7_client() as client:
        lab.edit("max_connections = 64", "max_connektions = 64")
        _reload(lab, "the old one stays in force")
        assert f"{lab.config}:" in lab.log.read_text()
        assert field(client.send(oru(fresh(), 1, [WBC])), b"MSA", 1) == "AA"
        lab.edit("max_connektions = 64", "max_connections = 64")
        lab.edit('profile = "generic-hl7"', 'profile = "generic-nothing"')
        _reload(lab, "the old one stays in force")
        assert field(client.send(oru(fresh(), 2, [WBC])), b"MSA", 1) == "AA"
        lab.edit('profile = "generic-nothing"', 'profile = "generic-hl7"')
        lab.edit("{url}", "sqlite:///other.db")
        _reload(lab, "restart labbridge")
        lab.edit("sqlite:///other.db", "{url}")
        _reload(lab)
        assert field(client.send(oru(fresh(), 3, [WBC])), b"MSA", 1) == "AA"
    assert not _refused(lab.plain_hl7)


def test_a_reload_changes_listeners_that_changed_and_no_other(own: Own) -> None:
    """An analyzer is added, one is removed, and one keeps its port with other peers allowed."""
    lab = own()
    specimen = fresh()
    with lab.hl7_client() as client, lab.hl7_client(lab.plain_hl7) as doomed, lab.astm_client() as restricted:
        lab.edit("max_connections = 64", 'max_connections = 64\nallow = ["10.99.0.0/16"]')
        lab.edit(f"127.0.0.1:{lab.plain_hl7}", "127.0.0.1:{spare3}")
        _reload(lab)
        assert field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AA"
        with pytest.raises(ConnectionError):
            doomed.send(oru(fresh(), 1, [WBC]))
        with pytest.raises(ConnectionError):
            restricted.raw(ENQ)
    wait_until(lambda: _refused(lab.plain_hl7), 5, "the old port is closed")
    with lab.hl7_client(lab.ports["spare3"]) as moved:
        assert field(moved.send(oru(fresh(), 1, [WBC])), b"MSA", 1) == "AA"
    wait_until(lambda: not _refused(lab.astm), 5, "the port is listened on again")
    with contextlib.closing(socket.create_connection(("127.0.0.1", lab.astm), 60)) as stranger:
        stranger.settimeout(60)
        assert stranger.recv(1) == b"", "promise 9: nobody connects from an address that is not allowed"
    assert 'labbridge_peers_refused_total{analyzer="xn-1"} ' in lab.get("/metrics").decode()
    lab.edit('allow = ["10.99.0.0/16"]', "")
    _reload(lab)
    other = fresh()
    with lab.astm_client() as line:
        assert line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
    lab.ward.wait(other)


def test_a_reload_that_cannot_have_a_port_is_mended_by_the_next(own: Own) -> None:
    lab = own()
    with contextlib.closing(socket.socket()) as thief:
        thief.bind(("127.0.0.1", lab.ports["spare3"]))
        thief.listen()
        lab.edit(f"127.0.0.1:{lab.plain_hl7}", "127.0.0.1:{spare3}")
        _reload(lab, "cannot listen on")
        lab.tell(fresh())
        lab.edit('qc_ids = ["^99[0-9]{4}$"]', 'max_connections = 3\nqc_ids = ["^99[0-9]{4}$"]')
        _reload(lab, "cannot listen on")
    _reload(lab)
    with lab.hl7_client(lab.ports["spare3"]) as client:
        assert field(client.send(oru(fresh(), 1, [WBC])), b"MSA", 1) == "AA"


def test_a_reload_takes_the_queue_of_a_changed_destination_along(own: Own) -> None:
    """The hospital moves: what was queued for the old address goes to the new one, in order, a broken frame is no matter."""
    lab = own(repeat="latest-measured", hospital=False)
    specimen, other = fresh(), fresh()
    for version in range(1, 6):
        lab.tell(specimen, ("6690-2^WBC^LN", f"{version}.50", "10*9/L"), stamp=f"2026112110150{version}")
    records = astm(other, [("WBC", "5.00", "10*3/uL")])
    with lab.astm_client() as line:
        assert line.raw(ENQ) == ACK
        for number, record in enumerate(records, 1):
            if number == 3:
                lab.ward.port = lab.ports["spare3"]
                lab.ward.start()
                lab.edit(f"127.0.0.1:{lab.his}", "127.0.0.1:{spare3}")
                _reload(lab)
            assert line.raw(frame(number, record.encode() + b"\r")) == ACK
        line.end()
    arrived = lab.ward.wait(specimen, 5)
    assert [observations(message)["H001"][5] for _, message in arrived] == ["1.50", "2.50", "3.50", "4.50", "5.50"]
    lab.ward.wait(other)
    assert not lab.messages("incomplete"), "a transmission under way is not touched"


# -- stop


def test_sigterm_under_load_settles_and_exits_within_ten_seconds(own: Own) -> None:
    lab = own(repeat="latest-measured")
    acknowledged: list[str] = []
    stop = threading.Event()

    def hl7() -> None:
        with contextlib.suppress(OSError), lab.hl7_client() as client:
            while not stop.is_set():
                specimen = fresh()
                if field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AA":
                    acknowledged.append(specimen)

    def lis01() -> None:
        with contextlib.suppress(OSError), lab.astm_client() as line:
            while not stop.is_set():
                specimen = fresh()
                if line.send(astm(specimen, [("WBC", "5.00", "10*3/uL")])):
                    acknowledged.append(specimen)

    senders = [threading.Thread(target=target) for target in (hl7, lis01) * 4]
    for sender in senders:
        sender.start()
    wait_until(lambda: len(acknowledged) > 50, 10, "load")
    began = time.monotonic()
    assert lab.stop() == 0
    took = time.monotonic() - began
    stop.set()
    for sender in senders:
        sender.join()
    assert took < 10 * PATIENCE
    assert "Traceback" not in lab.log.read_text()
    lab.start()
    wait_until(lambda: lab.status()["destinations"][0]["queue"] == 0, 20, "drained")
    arrived = {row[1].split(b"\rOBR|1||")[1].split(b"|")[0].decode() for row in lab.ward.got()}
    assert set(acknowledged) <= arrived


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly_and_a_second_run_goes_on(own: Own, number: int) -> None:
    lab = own()
    assert lab.process is not None
    specimen = fresh()
    lab.tell(specimen)
    lab.signal(number)
    assert lab.process.wait(10 * PATIENCE) == 0
    assert "Traceback" not in lab.log.read_text()
    assert not (lab.folder / "labbridge.sock").exists()
    lab.start()
    again = fresh()
    lab.tell(again)
    lab.ward.wait(again)
    assert lab.story(specimen, "delivery")


def test_a_hospital_that_hangs_does_not_keep_it_from_stopping(own: Own) -> None:
    lab = own(timeout="200s")
    specimen = fresh()
    lab.ward.plans[specimen] = lambda message, before: None
    lab.tell(specimen)
    lab.ward.wait(specimen)
    began = time.monotonic()
    assert lab.stop() == 0
    assert time.monotonic() - began < 10 * PATIENCE


# -- one at a time


def test_a_second_instance_on_the_same_store_is_refused_with_a_clear_message(own: Own) -> None:
    first = own()
    second = own(url=first.url, started=False)
    process = second.launch()
    assert process.wait(20 * PATIENCE) == 1
    said = second.log.read_text()
    assert "Traceback" not in said
    assert re.search(rf"in use by \w+ {first.process.pid if first.process else 0}\b", said)
    assert "stop that one first" in said
    same_socket = own(url=first.url, started=False, extra=f'[control]\npath = "{first.folder}/labbridge.sock"\n')
    assert same_socket.launch().wait(20 * PATIENCE) in (1, CONFIGURATION)
    assert "stop" in same_socket.log.read_text()
    specimen, held = fresh(), fresh()
    first.tell(specimen)
    first.ward.wait(specimen)
    first.tell(held, UNKNOWN)
    first.well("reject", held, "--reason", "the control socket is still the first one's")
    assert first.story(held, "decision")[-1]["actor"] != "rules"
    if first.url.startswith("sqlite"):  # on PostgreSQL it would wait for a killed daemon's lock to go
        status, said = second.cli("release", held, "--reason", "from elsewhere")
        assert (status, "is in use by" in said) == (1, True)


# -- what is wrong


def _line_of(lab: Lab, text: str) -> int:
    lines = lab.config.read_text().split("\n")
    return next(number for number, line in enumerate(lines, 1) if text in line)


WRONG = {
    "unknown key": (("max_connections = 64", "max_connektions = 64"), "max_connektions", "max_connections"),
    "wrong type": (("connections = 4", 'connections = "many"'), "connections", ""),
    "missing folder": (("{url}", "sqlite:////nowhere/lab.db"), "store.url", "/nowhere"),
    "malformed URL": (("{url}", "mysql://u:secret@h/x"), "store.url", "sqlite:///"),
    "port in the URL": (("{url}", "postgresql+psycopg://u:secret@h:x/y"), "store.url", "postgresql"),
    "no destination": (('to = "his"', 'to = "hos"'), "route[0].to", "his"),
    "duration": (('stale = "876000h"', 'stale = "soon"'), "stale", ""),
}


@only("sqlite", "no store is opened")
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_configuration_stops_before_anything_listens(own: Own, mistake: str) -> None:
    """Exit status 78, with file, line, key path and remedy; `check` says the same."""
    change, key, remedy = WRONG[mistake]
    lab = own(started=False, hospital=False, changes=[change])
    assert lab.launch().wait(20 * PATIENCE) == CONFIGURATION
    said = lab.log.read_text()
    assert f"{lab.config}:{_line_of(lab, change[1])}" in said
    assert key in said
    assert remedy in said
    assert "secret" not in said
    assert "listening" not in said
    status, checked = lab.cli("check")
    assert (status, checked.strip()) == (CONFIGURATION, said.strip())


@pytest.mark.parametrize("port", ["astm", "http"])
def test_a_taken_port_stops_it_with_a_clear_message(own: Own, port: str) -> None:
    lab = own(started=False, hospital=False)
    with contextlib.closing(socket.socket()) as thief:
        thief.bind(("127.0.0.1", lab.ports[port]))
        thief.listen()
        assert lab.launch().wait(20 * PATIENCE) == CONFIGURATION
    said = lab.log.read_text()
    assert "Traceback" not in said
    assert f"cannot listen on 127.0.0.1:{lab.ports[port]}" in said
    assert f"{lab.config}:{_line_of(lab, str(lab.ports[port]))}: " in said
    assert ".listen" in said
    assert "choose" in said
    lab.start()


@only("sqlite", "no store is opened")
def test_a_profile_or_map_that_is_not_there_stops_it(own: Own) -> None:
    for change in (('"sysmex-xn"', '"sysmex-zz"'), ('profile = "generic-hl7"', 'profile = "generic-hl7"\nmapping = "nix"')):
        lab = own(started=False, hospital=False, changes=[change])
        assert lab.launch().wait(20 * PATIENCE) == CONFIGURATION
        said = lab.log.read_text()
        assert "Traceback" not in said
        assert ("sysmex-zz" in said) or ("nix" in said)


@only("sqlite", "no store is opened")
def test_a_mistake_in_a_map_is_told_with_file_and_line(own: Own) -> None:
    lab = own(started=False, hospital=False, extra='[library]\nmappings = "mappings"\n')
    code_map = _own_map(lab, "mindray-bc")
    code_map.write_text(code_map.read_text().rstrip("\n") + "\n99999,g,,NOSUCHTEST,,,,,\n")
    lines = code_map.read_text().count("\n")
    assert lab.launch().wait(20 * PATIENCE) == CONFIGURATION
    assert f"mindray-bc.csv:{lines}" in lab.log.read_text()
    assert "NOSUCHTEST" in lab.log.read_text()


# -- a database that is not there


@only("postgresql", "its server is stopped")
def test_with_the_database_down_at_start_it_listens_refuses_and_works_when_it_comes(own: Own, postgresql_server: Server) -> None:
    lab = own(started=False)
    specimen, other = fresh(), fresh()
    postgresql_server.stop()
    try:
        lab.launch()
        wait_until(lambda: not _refused(lab.hl7), 20, "listening")
        with lab.hl7_client() as client, lab.astm_client() as line:
            assert field(client.send(oru(specimen, 1, [WBC])), b"MSA", 1) == "AE"
            assert line.raw(ENQ) in (ACK, NAK)
            assert line.raw(frame(1, b"H|\\^&|||XN-1000\r")) == NAK
        assert b" 503 " in lab.get("/healthz")[:64]
    finally:
        postgresql_server.start()
    wait_until(lab.accepting, 15, "accepting")
    lab.tell(specimen)
    with lab.astm_client() as line:
        assert line.send(astm(other, [("WBC", "5.00", "10*3/uL")]))
    lab.ward.wait(specimen)
    lab.ward.wait(other)
    wait_until(lambda: lab.status()["destinations"][0]["connections"] == 4, 5, "four connections, no more")
    assert lab.stop() == 0


@only("postgresql", "its server is not there")
def test_with_the_database_down_it_stops_all_the_same(own: Own) -> None:
    nowhere = ("{url}", "postgresql+psycopg://nobody@127.0.0.1:{spare3}/none")
    lab = own(started=False, hospital=False, changes=[nowhere])
    lab.launch()
    wait_until(lambda: "store unavailable" in lab.log.read_text(), 20, "the store is tried in vain")
    assert lab.stop() == 0


TERMINATED_AT_ONCE = """
import os, signal, sys
from labbridge.cli import app
from labbridge.daemon import Daemon
start = Daemon.start
def started(daemon):
    start(daemon)
    os.kill(os.getpid(), signal.SIGTERM)
Daemon.start = started
app(["run", "-c", sys.argv[1]])
"""


def test_a_signal_the_instant_it_listens_ends_it_cleanly(own: Own) -> None:
    lab = own(started=False, hospital=False)
    ended = subprocess.run(
        [sys.executable, "-c", TERMINATED_AT_ONCE, str(lab.config)], capture_output=True, timeout=30 * PATIENCE, check=False
    )
    assert ended.returncode == 0
    assert b"stopped" in ended.stderr


def test_promise_5_an_analyzer_is_answered_in_time_while_the_store_is_slow(own: Own) -> None:
    """AE and NAK come from the link itself; the message sent again is stored once and acknowledged."""
    timers = '\n[analyzer.timers]\nanswer = "400ms"\n\n[['
    lab = own(
        changes=[
            ("max_connections = 64\n\n[[analyzer", f"max_connections = 64{timers}analyzer"),
            ("max_connections = 64\n\n[[dest", f"max_connections = 64{timers}dest"),
        ]
    )
    specimen, other = fresh(), fresh()
    records = astm(other, [("WBC", "5.00", "10*3/uL")])
    first = frame(1, records[0].encode() + b"\r")
    with lab.hl7_client() as client, lab.astm_client() as line:
        assert line.raw(ENQ) == ACK
        with store_locked(lab):
            client.raw(START + oru(specimen, 1, [WBC]) + END)
            line.write(first)
            assert field(client.answer(), b"MSA", 1) == "AE"
            assert line.read() == NAK
            wait_until(lambda: lab.log.read_text().count("answer overdue") >= 2, 5, "both came from the links")
            client.raw(START + oru(specimen, 1, [WBC]) + END)
            line.write(first)
        taken(client, oru(specimen, 1, [WBC]))
        while (answer := line.read()) == NAK:
            line.write(first)
        assert answer == ACK
        for number, record in enumerate(records[1:], 2):
            assert line.raw(frame(number, record.encode() + b"\r")) == ACK
        line.end()
    lab.ward.wait(specimen)
    lab.ward.wait(other)
    kinds = [row["kind"] for row in lab.story(specimen, "message")]
    assert [kind for kind in kinds if kind != "duplicate"] == ["stored"]
    assert not lab.rows("pending")


def test_no_more_connections_than_allowed_and_the_control_socket_is_the_owners(own: Own) -> None:
    lab = own(changes=[("max_connections = 64", "max_connections = 2")])
    with lab.astm_client() as one, lab.astm_client() as two:
        assert one.raw(ENQ) == two.raw(ENQ) == ACK
        with contextlib.closing(socket.create_connection(("127.0.0.1", lab.astm), 60)) as third:
            third.settimeout(60)
            assert third.recv(1) == b""
    mode = os.stat(lab.folder / "labbridge.sock").st_mode & 0o777
    assert mode == 0o600
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as control:
        control.connect(str(lab.folder / "labbridge.sock"))
        control.settimeout(60)
        control.sendall(b'garbage\n{"command": "nothing"}\n{"command": "status", "more": 1}\n')
        said = b""
        while said.count(b"\n") < 3:
            said += control.recv(65536)
    assert said.count(b'"ok":false') == 3
    lab.tell(fresh())


def test_a_burst_on_sixty_connections_is_answered_and_delivered(own: Own) -> None:
    lab = own(changes=[("connections = 4", "connections = 8")])
    clients = [MllpClient(lab.hl7) for _ in range(60)]
    specimens = []
    for _ in range(5):
        for client in clients:
            specimens.append(fresh())
            client.raw(START + oru(specimens[-1], 1, [WBC]) + END)
    for client in clients:
        for _ in range(5):
            assert field(client.answer(), b"MSA", 1) == "AA"
        client.close()
    wait_until(lambda: len(lab.ward.got()) == 300, 20, "all delivered")
    assert sorted(message.split(b"\rOBR|1||")[1].split(b"|")[0].decode() for _, message in lab.ward.got()) == sorted(specimens)
