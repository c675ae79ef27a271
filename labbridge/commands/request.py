"""A command as it comes, and what it did: what the control socket, the command line and the console share."""

from collections.abc import Callable
from typing import Any

import msgspec

from labbridge.lanes import Queued
from labbridge.pipeline import Moment, Revision
from labbridge.said import Refusal
from labbridge.store import Transaction


class CommandError(Refusal):
    """The command cannot be carried out; the text says why and what to do."""


class Done(msgspec.Struct):
    """What a command did: lines for the person, an answer for a program, deliveries that were queued, put back or withdrawn."""

    said: list[str] = []
    answer: dict[str, Any] = {}
    queued: list[Queued] = []
    again: list[int] = []
    removed: list[int] = []


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """A command as it comes over the control socket (JSON)."""

    command: str
    specimen: str = ""
    tests: list[str] = []
    deliveries: list[int] = []
    destination: str = ""
    reason: str = ""
    correction: bool = False
    everything: bool = False
    preview: bool = False
    session: str = ""  # of an account that logged in; without one the peer's own user acts
    reports: list[int] = []  # the reports meant, where they are not all of the specimen's
    value: str = ""  # of a result that is edited or entered
    note: str = ""  # a comment
    told: str = ""  # call-back: who was told
    told_at: str = ""  # call-back: when, ISO 8601 with zone; now when empty
    read_back: bool = False  # call-back: whether the listener read it back
    to: str = ""  # the right specimen id
    proposal: int = 0  # a proposed correction of specimen ids
    file: str = ""  # a table of the mappings, without its folder: "sysmex-xn.csv"
    text: str = ""  # its new text
    known: str = ""  # SHA-256 (hex) of the file that was edited, byte for byte
    account: str = ""
    password: str = ""
    role: str = ""
    language: str = ""


Command = Callable[[Transaction, Revision, Moment, Request, str], Done]
