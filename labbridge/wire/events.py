"""What a link reports, and what it is told: frozen values, compared by content.

A token is the link's own number for something received, or the caller's for something to send. Whatever came up with
a token (Part, Received, Oversize) is answered by one ``settle(token, Answer(...))``.
"""

from typing import Literal, TypeAlias

import msgspec


class LocalProtocolError(Exception):
    """Our own side asked for what the protocol forbids; the peer's bytes never cause it."""


class Write(msgspec.Struct, frozen=True, gc=False):
    """Send these bytes to the peer."""

    data: bytes


class Part(msgspec.Struct, frozen=True, gc=False):
    """A piece of a message that is not whole yet: keep it, then settle it.

    The parts of one message, joined, are the beginning of its payload.
    """

    token: int
    data: bytes


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a message stood: the very file, and which part of it. Store both with the message, until ``Left``."""

    file: str
    part: str


class Received(msgspec.Struct, frozen=True):
    """A whole message, its earlier parts included: store it, then settle it."""

    token: int
    payload: bytes
    place: Place | None = None


class Oversize(msgspec.Struct, frozen=True):
    """A transmission above ``max_message``: its first 64 KiB, its length and its SHA-256; settled like a Received."""

    token: int
    head: bytes
    length: int
    digest: bytes
    place: Place | None = None


class Left(msgspec.Struct, frozen=True, gc=False):
    """The file is where it will not be read: the places in it may be forgotten."""

    file: str


class Sent(msgspec.Struct, frozen=True, gc=False):
    """What ``send`` was given is with the peer, as far as this protocol can tell."""

    token: int


class Failed(msgspec.Struct, frozen=True, gc=False):
    """What ``send`` was given did not get through; it is the caller's again."""

    token: int
    reason: str


class Overdue(msgspec.Struct, frozen=True, gc=False):
    """The answer to this token came not in time, so the link refused in its place; the token stays alive."""

    token: int


class Abandoned(msgspec.Struct, frozen=True, gc=False):
    """The message whose parts came up will not become whole."""

    why: str


class Stray(msgspec.Struct, frozen=True, gc=False):
    """Bytes that belong to no message: the first 4 KiB of a connection's, and how many there were.

    ``resent``: they were refused, and what they should have been came right afterwards.
    """

    data: bytes
    count: int
    resent: bool = False


class Note(msgspec.Struct, frozen=True, gc=False):
    """Something worth a log line; never holds the peer's bytes."""

    level: Literal["info", "warning"]
    what: str


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the connection: it cannot be used safely any more."""

    why: str


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The store's word on a token: whether it is durable, and the messages that answer it (MLLP only)."""

    accepted: bool
    replies: tuple[bytes, ...] = ()


Event: TypeAlias = Write | Part | Received | Oversize | Left | Sent | Failed | Overdue | Abandoned | Stray | Note | Close
