"""TLS: which files are refused and how that is told; why a peer is refused; what is written through it."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from authority import Authority
from links_support import Handler, Script
from OpenSSL import SSL

from labbridge.links import retry, stream
from labbridge.links.retry import State
from labbridge.links.tcp import Connector, Listener
from labbridge.links.tls import Security, SecurityError
from tests.loop import Loop


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


def client(authority: Authority, *own: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.check_hostname = False
    if own:
        context.load_cert_chain(*own)
    return context


@contextlib.contextmanager
def door(loop: Loop, handler: Handler, security: Security, **more: object) -> Iterator[Listener]:
    made = Listener(loop, "127.0.0.1", 0, Script, handler, security=security, **more)  # type: ignore[arg-type]
    made.start()
    yield made
    made.stop()


def talk(loop: Loop, port: int, context: ssl.SSLContext, says: list[bytes]) -> bytes:
    """A peer of Python's own ssl in a thread: what it heard until as much came as it said, or how it ended."""
    heard = bytearray()

    def run() -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as bare, context.wrap_socket(bare) as secure:
                for data in says:
                    secure.sendall(data)
                while len(heard) < sum(map(len, says)) and (data := secure.recv(65536)):
                    heard.extend(data)
        except OSError as error:
            heard.extend(str(error).encode())

    thread = threading.Thread(target=run)
    thread.start()
    loop.until(lambda: not thread.is_alive(), 20)
    thread.join()
    return bytes(heard)


def echo(link: stream.WireProtocol, event: object) -> None:
    if payload := getattr(event, "payload", b""):
        link.send(1, payload)


def test_bytes_pass_in_both_directions_and_in_order(loop: Loop, authority: Authority) -> None:
    """Small and large pieces: three megabytes are not reordered, and the link knows its peer."""
    handler = Handler(echo)
    pieces = [bytes([number]) * size for number, size in enumerate([1, 1_500_000, 3, 70_000, 5, 1_500_000])]
    with door(loop, handler, Security(*authority.issue("lab", "localhost"))) as listener:
        assert talk(loop, listener.port, client(authority), pieces) == b"".join(pieces)
        loop.until(lambda: not listener.links)
    assert handler.calls[0] == ("opened",)
    assert handler.links[0].peer.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("nobody", "did not return a certificate"),
        ("expired", "the peer's certificate has expired"),
        ("foreign", "the peer's certificate is signed by one who is not among the trusted"),
        ("early", "the peer's certificate is not valid yet"),
    ],
)
def test_a_peer_without_a_good_certificate_is_never_opened(
    loop: Loop, authority: Authority, tmp_path: Path, who: str, why: str
) -> None:
    """The handler hears of a refusal with its reason, and of nothing else."""
    own = {
        "nobody": (),
        "expired": authority.issue("x", days=(-9, -1)),
        "early": authority.issue("y", days=(2, 9)),
        "foreign": Authority(tmp_path / "other", "Another").issue("z"),
    }[who]
    handler = Handler()
    with door(loop, handler, Security(*authority.issue("lab", "localhost"), authority.file)) as listener:
        talk(loop, listener.port, client(authority, *own), [b"MSH|"])
        loop.until(lambda: handler.calls)
        loop.until(lambda: not listener.links)
    [(what, host, told)] = handler.calls
    assert (what, host) == ("refused", "127.0.0.1")
    assert why in told


def test_clear_text_and_old_tls_are_refused(loop: Loop, authority: Authority) -> None:
    handler = Handler()
    with door(loop, handler, Security(*authority.issue("lab", "localhost"))) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as peer:
            peer.sendall(b"\x0bMSH|^~\\&|\x1c\r")
            loop.until(lambda: handler.calls)
        old = client(authority)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        talk(loop, listener.port, old, [b"MSH|"])
        loop.until(lambda: len(handler.calls) == 2)
    assert [call[0] for call in handler.calls] == ["refused", "refused"]
    assert all(call[2].startswith("TLS: ") for call in handler.calls)


def test_who_never_shakes_hands_is_dropped_and_counts_meanwhile(
    loop: Loop, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A silent peer takes one of the connections, for as long as a handshake may last."""
    monkeypatch.setattr(stream, "HANDSHAKE_TIME_S", 0.1)
    handler = Handler()
    with door(loop, handler, Security(*authority.issue("lab", "localhost")), max_connections=1) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)), socket.create_connection(("127.0.0.1", listener.port)):
            loop.until(lambda: len(handler.calls) == 2)
        assert handler.calls == [
            ("refused", "127.0.0.1", "too many connections"),
            ("refused", "127.0.0.1", "no TLS handshake in time"),
        ]
        assert not listener.links


@pytest.mark.parametrize(("names", "name", "good"), [
    (["localhost"], "localhost", True),
    (["127.0.0.1"], "127.0.0.1", True),
    (["localhost"], "his.hospital", False),
    (["localhost"], "127.0.0.1", False),
    ([], "localhost", False),
])  # fmt: skip
def test_what_we_connect_to_must_have_its_name(
    loop: Loop, authority: Authority, monkeypatch: pytest.MonkeyPatch, names: list[str], name: str, good: bool
) -> None:
    """Connected is said only when the certificate is verified; else why not."""
    monkeypatch.setattr(retry, "uniform", lambda low, high: 60.0)
    here, states = Handler(), list[State]()
    with door(loop, Handler(echo), Security(*authority.issue("his", *names))) as listener:
        security = Security(ca=authority.file, name=name)
        connector = Connector(loop, "127.0.0.1", listener.port, Script, here, states.append, security=security)
        connector.start()
        loop.until(lambda: states)
        if good:
            here.links[0].send(1, b"result")
            loop.until(lambda: here.received == b"result")
        connector.stop()
    assert states[0] == (State(True, 0) if good else State(False, 1, f"the peer's certificate is not for {name}"))
    assert bool(here.links) == good


def test_nothing_below_tls_1_2_is_spoken(authority: Authority) -> None:
    """The older versions are switched off, whatever the system's OpenSSL would still do."""
    for security in (Security(*authority.issue("lab")), Security(ca=authority.file, name="localhost")):
        options = security._options.getContext().set_options(0)
        for old in (SSL.OP_NO_SSLv3, SSL.OP_NO_TLSv1, SSL.OP_NO_TLSv1_1):
            assert options & old
        assert not options & (SSL.OP_NO_TLSv1_2 | SSL.OP_NO_TLSv1_3)


# -- files -----------------------------------------------------------------------------------------------------------


def refused(*arguments: Path | None) -> tuple[str, str]:
    with pytest.raises(SecurityError) as caught:
        Security(*arguments)
    return caught.value.key, str(caught.value)


def test_files_that_cannot_be_used_are_told_with_their_remedy(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("lab")
    other = authority.issue("other")[1]
    old, old_key = authority.issue("old", days=(-9, -1))
    early, early_key = authority.issue("early", days=(1, 9))
    missing, text = tmp_path / "missing.pem", tmp_path / "text.pem"
    text.write_text("-----BEGIN CERTIFICATE-----\nnothing\n")
    text.chmod(0o600)
    when = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    assert refused(missing, key)[1].startswith(f"{missing}: cannot be read: No such file or directory - ")
    assert refused(text, key) == (
        "certificate",
        f"{text}: holds no certificate - write certificates in PEM: -----BEGIN CERTIFICATE-----",
    )
    assert refused(old, old_key)[1].startswith(f"{old}: expired on {when}")
    assert "is not valid before" in refused(early, early_key)[1]
    assert refused(certificate, other) == (
        "key",
        f"{other}: does not belong to the certificate - use the key with which it was requested",
    )
    assert refused(certificate, text)[1] == f"{text}: holds no private key - write it in PEM: -----BEGIN PRIVATE KEY-----"
    assert refused(certificate, key, text)[0] == "ca"
    for mode in (0o604, 0o666, 0o660):
        key.chmod(mode)
        assert refused(certificate, key) == ("key", f"{key}: others may read it - chmod 600 {key}")
    key.chmod(0o600)
    Security(certificate, key, authority.file)
