"""Who is looking: the account of the page that is built or the event that is handled, as the daemon tells it.

The console keeps no session of its own, only what the daemon said of a token some seconds ago: when it was killed and
comes back, everybody is still logged in.
"""

import asyncio
import contextlib
import time
from collections.abc import MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from nicegui import Client
from nicegui.slot import Slot

from labbridge import roles
from labbridge.asking import ask
from labbridge.commands import Request

COOKIE = "labbridge_session"
KEY = "labbridge.user"  # in the scope of a request
CACHE_SECONDS = 2.0
MOST_KEPT = 10_000


class User(msgspec.Struct, frozen=True):
    """An account that is logged in."""

    account: str
    role: str
    language: str
    session: str  # the token


class Silent(Exception):
    """The daemon does not answer."""


asked: ContextVar[MutableMapping[str, Any] | None] = ContextVar("asked", default=None)  # the scope of the request at hand
_known: dict[str, tuple[float, User | None]] = {}
_sockets: list[Path] = []


def configure(socket: Path) -> None:
    """Takes the path of the daemon's control socket."""
    _sockets[:] = [socket]


def ask_daemon(request: Request, timeout: float = 60.0) -> dict[str, Any]:
    """Asks the daemon and waits: not on the loop's thread. Raises Silent."""
    try:
        return ask(_sockets[0], request, timeout)
    except (OSError, msgspec.MsgspecError) as error:
        raise Silent(str(error)) from error


def user() -> User:
    """The user of the page being built or the event being handled; raises LookupError outside of both."""
    found: User | None = scope().get(KEY)
    if found is None:
        raise LookupError("nobody is logged in here")
    return found


def scope() -> MutableMapping[str, Any]:
    """What belongs to the page at hand, or to the request where there is no page yet."""
    stack = Slot.get_stack()
    return stack[-1].parent.client.request.scope if stack else asked.get() or {}


def language() -> str:
    """The language of the user; nothing where nobody is logged in."""
    found: User | None = scope().get(KEY)
    return found.language if found else ""


def can(action: str) -> bool:
    """Whether this user's role may do this."""
    return roles.may(user().role, action)


async def send(request: Request, timeout: float = 60.0) -> dict[str, Any]:
    """Asks the daemon, in a thread. Raises Silent."""
    return await asyncio.to_thread(ask_daemon, request, timeout)


async def whose(token: str, seconds: float = CACHE_SECONDS) -> User | None:
    """The user of a token, as the daemon said at most so many seconds ago; None when its session is over. Raises Silent."""
    if not token:
        return None
    if token in _known and time.monotonic() - _known[token][0] < seconds:
        return _known[token][1]
    answer = await send(Request("whoami", session=token), 5.0)
    told = answer.get("answer", {})
    found = User(told["account"], told["role"], told["language"], token) if answer.get("ok") else None
    if len(_known) >= MOST_KEPT:
        _known.clear()
    _known[token] = (time.monotonic(), found)
    return found


def forget(token: str) -> None:
    """Asks the daemon anew the next time: a logout, a changed language."""
    _known.pop(token, None)


async def alive() -> None:
    """Tells the daemon that this user is there."""
    with contextlib.suppress(Silent, LookupError):
        await send(Request("alive", session=user().session), 5.0)


async def look(seconds: float) -> None:
    """Asks after the session of every open page, where that was longer ago; one that is over gives way to the login."""
    for client in list(Client.instances.values()):
        before: User | None = client.request.scope.get(KEY)
        if before is None:
            continue
        try:
            now = await whose(before.session, seconds)
        except Silent:
            return
        client.request.scope[KEY] = now or before
        if now is None:
            path = quote(client.request.scope["path"])
            client.open(f"/login?over=1&next={quote(path, safe='')}")
