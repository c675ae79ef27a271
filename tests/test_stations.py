"""What is set for one analyzer reaches its links, and no other's."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock

from labbridge import config, revision, security
from labbridge.commands import Request
from labbridge.daemon import Daemon
from labbridge.links.folder import Folder
from labbridge.links.serial import SerialLine
from labbridge.links.tcp import Connector, Listener
from labbridge.stations import Station
from labbridge.wire import Lis01Link, MllpLink, RawLink
from labbridge.wire.events import Write
from labbridge.wire.lis01 import Lis01Settings
from tests.links.authority import Authority
from tests.support import ENQ, EOT, astm, frame

TEXT = """
[site]
name = "Lab"
timezone = "Asia/Shanghai"

[[analyzer]]
name = "plain"
profile = "generic-astm"
listen = "127.0.0.1:5001"
"""


def stations(folder: Path, *entries: str) -> list[Station]:
    """A station for the plain analyzer, and one for each entry."""
    text = TEXT
    for number, entry in enumerate(entries):
        text += f'\n[[analyzer]]\nname = "a{number}"\n{entry}\n'
    file = folder / "labbridge.toml"
    file.write_text(text)
    settings = config.load(file)
    compiled, _ = revision.build(settings, file)
    daemon: Any = SimpleNamespace(reactor=MemoryReactorClock(), revision=compiled)
    return [Station(analyzer, daemon) for analyzer in settings.analyzers]


ASTM = 'profile = "generic-astm"\nlisten = "127.0.0.1:5002"\n'
PAYLOAD = b"H|\\^&\rC|1||" + b"x" * 60 + b"\rL|1|N\r"


def written(link: Lis01Link, said: bytes, now: float = 0.0) -> bytes:
    return b"".join(event.data for event in link.receive(said, now) if isinstance(event, Write))


@pytest.mark.parametrize(("size", "checksum", "refusals"), [*itertools.product((20, 240, 1024), (True, False), (1, 3, 6))])
def test_frames_are_set_for_one_connection_and_for_no_other(tmp_path: Path, size: int, checksum: bool, refusals: int) -> None:
    """Frame size, checksum and refusals: what leaves has them; the analyzer beside it has the standard's."""
    # conformance: A26
    frames = f"[analyzer.frames]\nsize = {size}\nchecksum = {str(checksum).lower()}\nrefusals = {refusals}"
    plain, one = stations(tmp_path, ASTM + frames)
    machine = one._machine()
    assert isinstance(machine, Lis01Link)
    machine.send(1, PAYLOAD, 0.0)
    frame = written(machine, b"\x06")
    for _ in range(2):
        assert frame[-2:] == b"\r\n"
        text = frame[2:-5] if checksum else frame[2:-3]
        assert len(text) <= size
        frame = written(machine, b"\x06")
    tries = 1
    while written(machine, b"\x15").startswith(b"\x02"):
        tries += 1
    assert tries == refusals
    assert written(Lis01Link(machine.settings), b"\x05\x021H|\\^&\r\x03\r\n") == (b"\x06\x15" if checksum else b"\x06")
    beside = plain._machine()
    assert isinstance(beside, Lis01Link)
    assert (beside.settings.frame_size, beside.settings.checksum, beside.settings.refusals) == (240, True, 6)


def test_timers_are_set_for_one_connection_and_for_no_other(tmp_path: Path) -> None:
    """Each timer of the table reaches the machine; what is not written is the standard's."""
    # conformance: A26
    names = ("answer", "reply", "receive", "busy", "contention", "interrupt")
    lines = "\n".join(f'{name} = "{number}s"' for number, name in enumerate(names, 1))
    plain, one = stations(tmp_path, f"{ASTM}[analyzer.timers]\n{lines}")
    found = [[getattr(each._machine().settings, f"{name}_time") for name in names] for each in (one, plain)]
    standard = Lis01Settings()
    assert found == [[1, 2, 3, 4, 5, 6], [getattr(standard, f"{name}_time") for name in names]]
    machine = one._machine()
    machine.send(1, PAYLOAD, 0.0)
    assert machine.deadline == 2.0
    assert machine.tick(1.9) == []
    assert machine.tick(2.0)


def test_releases_and_framings_are_set_for_one_connection(tmp_path: Path) -> None:
    """MLLP 1 or 2, LIS01 or records alone, with the limit of each."""
    # conformance: C05
    hl7 = 'profile = "generic-hl7"\nlisten = "127.0.0.1:50%d"\n'
    made = stations(
        tmp_path,
        hl7 % 10,
        hl7 % 11 + 'mllp_release = 2\nmax_message = "2MiB"\ntimers = {answer = "3s", reply = "4s"}',
        ASTM + 'framing = "raw"\nmax_message = "1MiB"\ntimers = {receive = "9s"}',
    )
    _, first, second, raw = [station._machine() for station in made]
    assert isinstance(first, MllpLink)
    assert isinstance(second, MllpLink)
    assert isinstance(raw, RawLink)
    assert (first.settings.release, first.settings.max_message, first.settings.answer_time) == (1, 16 << 20, 10.0)
    kept = second.settings
    assert (kept.release, kept.max_message, kept.answer_time, kept.reply_time) == (2, 2 << 20, 3.0, 4.0)
    assert (raw.settings.max_message, raw.settings.receive_time) == (1 << 20, 9.0)


def test_each_way_of_connecting_has_its_source(tmp_path: Path) -> None:
    """And every connection a machine of its own."""
    profile = 'profile = "generic-astm"\n'
    ways = ('connect = "10.0.0.7:5100"', 'serial = "/dev/ttyUSB0"', 'folder = "inbox"')
    made = stations(tmp_path, *(profile + way for way in ways))
    assert [type(station._source) for station in made] == [Listener, Connector, SerialLine, Folder]
    assert [station.analyzer.place for station in made[1:]] == ["10.0.0.7:5100", "/dev/ttyUSB0", f"{tmp_path}/inbox"]
    assert made[0]._machine() is not made[0]._machine()


def test_hl7_is_carried_by_mllp_alone(tmp_path: Path) -> None:
    for framing in ("raw", "lis01"):
        with pytest.raises(revision.RevisionError, match=r"framing: .* HL7 v2 goes over MLLP alone"):
            stations(tmp_path, f'profile = "generic-hl7"\nlisten = "127.0.0.1:5002"\nframing = "{framing}"')


FRAMES = [frame(number, record.encode() + b"\r") for number, record in enumerate(astm("S1", [("WBC", "5.5", "10*9/L")]), 1)]


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (ENQ + b"".join(FRAMES) + EOT, True),
        (ENQ + b"".join(FRAMES)[:-20], False),
        (ENQ + b"".join(FRAMES).replace(b"5.5", b"9.5") + EOT, False),
        (b"H|\\^&\rL|1|N\r", True),
    ],
    ids=["framed", "cut off", "a wrong checksum", "bare"],
)
def test_a_file_whose_frames_are_not_in_order_is_not_read(tmp_path: Path, data: bytes, whole: bool) -> None:
    """What would be refused on a wire must not pass in a file: all of it goes up as it is, for a person to see."""
    [_, station] = stations(tmp_path, 'profile = "generic-astm"\nfolder = "inbox"')
    messages, odd = station._unframed(data)
    assert bool(odd) is not whole
    assert (messages == [data]) is (not whole or data.startswith(b"H"))
    assert all(message.startswith(b"H|") for message in messages) is whole


@pytest.mark.parametrize(
    ("data", "whole"),
    [(b"\x0bMSH|1\r\x1c\r", True), (b"\x0bMSH|1\r", False), (b"\x0bMSH|1\r\x1c\rOBX|1\r", False)],
    ids=["framed", "without its end", "bytes outside"],
)
def test_a_file_whose_blocks_are_not_in_order_is_not_read(tmp_path: Path, data: bytes, whole: bool) -> None:
    """What is cut off or lies outside goes up with all the rest as one, for a person to see."""
    [_, station] = stations(tmp_path, 'profile = "generic-hl7"\nfolder = "inbox"')
    messages, odd = station._unframed(data)
    assert messages == ([b"MSH|1\r"] if whole else [data])
    assert bool(odd) is not whole


def test_a_link_is_kept_only_when_nothing_of_it_changed(tmp_path: Path) -> None:
    """Every setting that shapes a link has its station made anew; the others do not touch it."""
    [before, *after] = (
        'qc_ids = ["^QC"]', 'framing = "raw"', 'max_message = "1MiB"', 'idle_timeout = "1h"', "frames = {size = 100}",
        'timers = {reply = "3s"}', 'allow = ["10.0.0.0/8"]',
    )  # fmt: skip
    [_, station] = stations(tmp_path, ASTM)
    kept = []
    for entry in (before, *after):
        stations(tmp_path, ASTM + entry)
        kept.append(station.adapt(config.load(tmp_path / "labbridge.toml")))
        [_, station] = stations(tmp_path, ASTM)
    assert kept == [True, *[False] * 6]


@pytest.mark.parametrize(
    ("entry", "noted"),
    [
        ('listen = "127.0.0.1:5002"\nallow = ["10.0.0.0/8"]', False),
        ('listen = "0.0.0.0:5002"', False),
        ('listen = "0.0.0.0:5002"\nallow = ["10.0.0.0/8"]', True),
        ('listen = "0.0.0.0:5002"\nallow = ["10.0.0.0/8"]\ntls = {certificate = "a.pem", key = "a.key"}', False),
        ('connect = "localhost:5002"', False),
        ('connect = "analyzer.hospital:5002"', True),
        ('connect = "10.0.0.7:5002"\ntls = {ca = "ca.pem"}', False),
        ('serial = "/dev/ttyUSB0"', False),
    ],
)
def test_clear_text_on_a_network_is_noted(tmp_path: Path, entry: str, noted: bool) -> None:
    """Wherever somebody else than this machine may read along."""
    file = tmp_path / "labbridge.toml"
    file.write_text(f'{TEXT}\n[[analyzer]]\nname = "one"\nprofile = "generic-astm"\n{entry}\n')
    said = list(security.notices(config.load(file)))
    assert said == ['analyzer "one": results cross the network in clear text; [analyzer.tls] encrypts them'] * noted


def test_clear_text_to_a_hospital_is_noted(tmp_path: Path) -> None:
    file = tmp_path / "labbridge.toml"
    for tls, count in (("", 1), ('\ntls = {ca = "ca.pem"}', 0)):
        file.write_text(f'{TEXT}\n[[destination]]\nname = "his"\nconnect = "his.hospital:6661"{tls}\n')
        assert len(list(security.notices(config.load(file)))) == count


@pytest.mark.parametrize(
    ("entry", "noted"),
    [
        ("", False),
        ('listen = "127.0.0.1:8080"', False),
        ('listen = "[::1]:8080"', False),
        ('listen = "0.0.0.0:8080"', True),
        ('listen = "lab.hospital:8080"', True),
        ('listen = "0.0.0.0:8080"\ntls = {certificate = "a.pem", key = "a.key"}', False),
    ],
)
def test_passwords_in_clear_text_are_noted(tmp_path: Path, entry: str, noted: bool) -> None:
    file = tmp_path / "labbridge.toml"
    file.write_text(f"{TEXT}\n[console]\n{entry}\n")
    said = list(security.notices(config.load(file)))
    assert said == ["console: passwords and results cross the network in clear text; [console.tls] encrypts them"] * noted


def test_a_certificate_of_the_console_is_proven(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "tls").issue("lab", "localhost")
    file = tmp_path / "labbridge.toml"
    file.write_text(f'{TEXT}\n[console]\nlisten = "127.0.0.1:8080"\n[console.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    assert list(security.mistakes(config.load(file), file)) == []
    key.chmod(0o644)
    [told] = security.mistakes(config.load(file), file)
    assert "console.tls.key: " in told
    assert "chmod 600" in told


SAFE = 'listen = "127.0.0.1:5003"\ntls = {{certificate = "{0}", key = "{1}"}}\n'


@pytest.mark.parametrize("where", ["renewed", "new", "destination", "fault"])
def test_a_reload_is_never_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A file that is spoilt after it was proven: the rest takes effect, or nothing; the client is told, and may try again."""
    pair = Authority(tmp_path / "tls").issue("lab", "localhost")
    good = pair[0].read_bytes()
    safe = '[[analyzer]]\nname = "safe"\nprofile = "generic-astm"\n' + SAFE.format(*pair)
    to = f'[[destination]]\nname = "his"\nconnect = "127.0.0.1:6661"\ntls = {{ca = "{pair[0]}"}}\n'
    file = tmp_path / "labbridge.toml"
    file.write_text(TEXT + (safe if where == "renewed" else ""))
    reactor: Any = MemoryReactorClock()
    reactor.callFromThread = lambda what, *given: reactor.callLater(0, what, *given)
    daemon = Daemon(config.load(file), file, reactor, lambda: 0.0)
    daemon._start_stations([])
    before = daemon.settings
    prove = security.mistakes

    def spoil(settings: config.Settings, path: Path) -> Iterator[str]:
        assert not list(prove(settings, path))
        if where == "fault":
            raise ZeroDivisionError
        pair[0].write_text("spoilt")
        return iter(())

    monkeypatch.setattr(security, "mistakes", spoil)
    file.write_text(TEXT.replace("5001", "5009") + (to if where == "destination" else safe))
    replies: list[Any] = []
    request = Request(command="reload")
    daemon.execute(request, "test", replies.append)
    reactor.advance(1)
    assert [reply["ok"] for reply in replies] == [False]
    assert ("ZeroDivisionError" if where == "fault" else str(pair[0])) in replies[0]["error"]
    assert (daemon.settings is before) is (where in ("destination", "fault"))
    ports = {place[0] for place in reactor.tcpServers}
    assert (5009 in ports) is (where in ("renewed", "new"))
    assert set(daemon.stations) == ({"plain", "safe"} if where == "renewed" else {"plain"})
    monkeypatch.setattr(security, "mistakes", prove)
    pair[0].write_bytes(good)
    file.write_text(TEXT + safe)
    daemon.execute(request, "test", replies.append)
    reactor.advance(1)
    assert replies[1:] == [{"ok": True, "said": ["reloaded"], "error": ""}]
    assert set(daemon.stations) == {"plain", "safe"}
