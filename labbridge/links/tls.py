"""TLS 1.2 and later on TCP links: our certificate, whom we trust, and in words why a certificate was refused.

Files are PEM. They are read and proven when a ``Security`` is made; a link keeps the one with which it began, so that
new certificates need no connection to end. OpenSSL does the rest, through Twisted.
"""

import os
import stat
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import directlyProvides

_VERIFY = {  # OpenSSL's X509_V_ERR_…
    9: "is not valid yet",
    10: "has expired",
    18: "is signed by itself and not among the trusted",
    19: "is signed by one who is not among the trusted",
    20: "is signed by one who is not among the trusted",
    21: "is signed by one who is not among the trusted",
    24: "is signed by one who may not sign",
    26: "is not made for this purpose",
}


class SecurityError(Exception):
    """A certificate or key cannot be used: ``key`` names the setting, the text the file and the remedy."""

    def __init__(self, key: str, file: Path, wrong: str, remedy: str) -> None:
        super().__init__(f"{file}: {wrong} - {remedy}")
        self.key = key


class Security:
    """One side of TLS: of a listener, or of a connector that verifies ``name``, its peer's host name or address.

    ``certificate`` may be followed in its file by those between it and the root. With ``ca`` the peer's certificate is
    verified, and demanded unless ``anonymous``. Raises SecurityError for a file that is missing, readable by others, no
    PEM, out of date, or does not fit the rest.
    """

    def __init__(
        self,
        certificate: Path | None = None,
        key: Path | None = None,
        ca: Path | None = None,
        *,
        name: str = "",
        anonymous: bool = False,
    ) -> None:
        self._name = name
        self._demand = ca is not None and not anonymous
        chain = _certificates("certificate", certificate) if certificate else []
        own: dict[str, Any] = {}
        if certificate and key:
            own = {"privateKey": _private_key(key, chain[0]), "certificate": chain[0], "extraCertChain": chain[1:]}
        self._options = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2, **own)
        context = self._options.getContext()
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        for trusted in _certificates("ca", ca) if ca else []:
            context.get_cert_store().add_cert(crypto.X509.from_cryptography(trusted))
        creator = IOpenSSLClientConnectionCreator if name else IOpenSSLServerConnectionCreator
        directlyProvides(self, creator)

    def wrap(self, inner: Any, reactor: Any) -> Any:
        """A protocol of Twisted's with TLS below it; ``inner.handshakeCompleted`` is called when it is established."""
        directlyProvides(inner, IHandshakeListener)
        factory = TLSMemoryBIOFactory(self, bool(self._name), Factory(), reactor)
        return factory.protocol(factory, inner)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:  # noqa: N802 (Twisted's name)
        """OpenSSL's side of one connection."""
        said: list[str] = []  # why the peer's certificate was refused
        protocol.said = said
        connection = SSL.Connection(self._options.getContext())
        if self._name and not _is_ip(self._name):
            connection.set_tlsext_host_name(self._name.encode("idna"))
        if self._demand:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, partial(self._verify, said))
        return connection

    clientConnectionForTLS = serverConnectionForTLS  # noqa: N815

    def _verify(
        self, said: list[str], connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int
    ) -> bool:
        """Asked by OpenSSL for every certificate of the peer's chain; nothing may be raised."""
        if not good:
            said.append(f"the peer's certificate {_VERIFY.get(error, f'was refused (OpenSSL error {error})')}")
        elif depth == 0 and self._name:
            try:
                name = (IPAddress_ID if _is_ip(self._name) else DNS_ID)(self._name)
                verify_service_identity(extract_patterns(certificate), [name], [])
            except Exception:  # of this kind or that: it is not proven
                said.append(f"the peer's certificate is not for {self._name}")
        return not said


def secured(transport: Any) -> bool:
    """Whether a transport is one of ours with TLS."""
    return isinstance(transport, TLSMemoryBIOProtocol)


def why_lost(transport: Any, reason: Any) -> str:
    """Why a TLS connection ended, in words."""
    if transport.said:
        return str(transport.said[0])
    if reason.check(SSL.Error) and reason.value.args and reason.value.args[0]:
        return "TLS: " + "; ".join(error[-1] for error in reason.value.args[0])
    return str(reason.getErrorMessage())


def _is_ip(name: str) -> bool:
    return bool(isIPAddress(name) or isIPv6Address(name))


def _read(key: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SecurityError(
            key, file, f"cannot be read: {error.strerror}", "correct the path, or whom the file belongs to"
        ) from None


def _certificates(key: str, file: Path) -> list[x509.Certificate]:
    """The certificates of a file; the first, or of the trusted at least one, must be valid now."""
    try:
        found = x509.load_pem_x509_certificates(_read(key, file))
    except ValueError:
        raise SecurityError(key, file, "holds no certificate", "write certificates in PEM: -----BEGIN CERTIFICATE-----") from None
    now = datetime.now(UTC)
    valid = [one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in found]
    if not (valid[0] if key == "certificate" else any(valid)):
        first = found[0]
        wrong = "expired on" if now > first.not_valid_after_utc else "is not valid before"
        when = first.not_valid_after_utc if now > first.not_valid_after_utc else first.not_valid_before_utc
        raise SecurityError(key, file, f"{wrong} {when:%Y-%m-%d %H:%M} UTC", "put a new one in its place, or set the clock")
    return found


def _private_key(file: Path, certificate: x509.Certificate) -> Any:
    """The key of a file that nobody else may read, and that fits the certificate."""
    data = _read("key", file)
    about = file.stat()
    foreign = stat.S_IRWXO | (stat.S_IWGRP if about.st_uid == 0 else stat.S_IRWXG)  # root may share with a group
    if about.st_mode & foreign or about.st_uid not in (0, os.geteuid()):
        owner = f"chown {os.geteuid()} {file}; " if about.st_uid not in (0, os.geteuid()) else ""
        raise SecurityError("key", file, "others may read it", f"{owner}chmod 600 {file}")
    try:
        key: Any = load_pem_private_key(data, None)
    except TypeError:
        raise SecurityError("key", file, "has a password", "write it without: openssl pkey -in OLD -out NEW") from None
    except Exception:  # whatever the file holds, it is no key
        raise SecurityError("key", file, "holds no private key", "write it in PEM: -----BEGIN PRIVATE KEY-----") from None
    if key.public_key() != certificate.public_key():
        raise SecurityError("key", file, "does not belong to the certificate", "use the key with which it was requested")
    return key
