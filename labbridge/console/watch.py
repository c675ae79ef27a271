"""The one picture of the laboratory that all pages share, made anew once a second by one thread.

However many look at it, the daemon is asked once a second, and the store is read only when the ledger has grown: of the
held reports those alone on which something was decided since.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog
from nicegui import Client, background_tasks, context

from labbridge import config, mapping, revision
from labbridge.commands import Request
from labbridge.config import Settings
from labbridge.console import session
from labbridge.store import Reader, StoreError
from labbridge.store.figures import Figures
from labbridge.store.hours import Hours
from labbridge.views.held import Held

What = Literal["status", "held", "queue"]
PERIOD = 1.0
MINUTE = 60.0
log = structlog.get_logger()


class Watch:
    """One for the process: read by every page, changed by its own thread alone."""

    def __init__(self, settings: Settings, path: Path, reader: Reader) -> None:
        self.settings = settings
        self.path = path
        self.reader = reader
        self.status: dict[str, Any] = {}
        self.held = Held(settings, self.catalogue)
        self.present: dict[str, set[str]] = defaultdict(set)
        self._open: set[tuple[str, str, str]] = set()  # page, specimen, account
        self.revision = ""
        self.ready = asyncio.Event()
        self._heard = time.monotonic()
        self._figures = Figures(reader)
        self._catalogue: tuple[str, mapping.Catalogue] | None = None
        self._listeners: dict[What, dict[int, tuple[Client, Callable[[], Any]]]] = {"status": {}, "held": {}, "queue": {}}
        self._number = 0
        self.hours = Hours(reader)  # results and deliveries of the last 24 hours
        self.usual: dict[str, float] = {}  # the longest silence of each analyzer that is usual at this hour, seconds

    @property
    def daemon_silent_s(self) -> float:
        """Seconds since the daemon answered; 0 while it does."""
        return 0.0 if self.status else time.monotonic() - self._heard

    def catalogue(self) -> mapping.Catalogue:
        """The laboratory's catalogue under the revision in force."""
        if self._catalogue is None or self._catalogue[0] != self.revision:
            self._catalogue = self.revision, mapping.load_catalogue(revision.folders(self.settings, "mappings"))
        return self._catalogue[1]

    # -- who looks -------------------------------------------------------------------------------------------------

    def on_change(self, what: What, callback: Callable[[], Any]) -> None:
        """Calls back, in the page at hand, after each change of this, and when a lost connection is back; ends with the page."""
        client, listeners = context.client, self._listeners[what]
        self._number += 1
        number = self._number
        listeners[number] = client, callback
        client.on_connect(callback)  # what changed before the browser was there
        client.on_delete(lambda: listeners.pop(number, None))

    def enter(self, specimen: str) -> None:
        """This page's user has the specimen open, until ``leave`` or the page's end."""
        account, client = session.user().account, context.client
        key = client.id, specimen, account
        self._open.add(key)
        self.present[specimen].add(account)
        client.on_delete(lambda: self._left(key))

    def leave(self, specimen: str) -> None:
        """This page's user has it open no longer, here."""
        self._left((context.client.id, specimen, session.user().account))

    def _left(self, key: tuple[str, str, str]) -> None:
        self._open.discard(key)
        _, specimen, account = key
        if not any(one[1:] == key[1:] for one in self._open):
            self.present[specimen].discard(account)
        if not self.present[specimen]:
            del self.present[specimen]

    # -- the picture -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Makes the picture anew, once a second, for ever."""
        counted = 0.0
        while True:
            began = time.monotonic()
            for what in await self._made(self._refresh):
                self._tell(what)
            self.ready.set()
            if self.status.get("revision", "") != self.revision:
                await self._made(self._follow)
            if began - counted >= MINUTE:
                counted = began
                await self._made(self._count)
                self._tell("status")
            await asyncio.sleep(max(0.1, PERIOD - (time.monotonic() - began)))

    async def _made(self, part: Callable[[], list[What]]) -> list[What]:
        """A part of the picture, made in a thread; while the store cannot be read the old one stays."""
        try:
            return await asyncio.to_thread(part)
        except StoreError as error:
            log.warning("the store cannot be read", why=str(error))
            return []

    def _follow(self) -> list[What]:
        """Another revision is in force: the configuration is read again, and the catalogue when it is asked for."""
        try:
            self.settings = config.load(self.path)
        except config.ConfigError:
            log.warning("the configuration is wrong, the old one stays on the screens")
        self.revision = self.status.get("revision", "")
        return []

    def _count(self) -> list[What]:
        now = time.time_ns() // 1000
        self.hours.refresh(now)
        self.usual = self.hours.usual(now)
        return []

    def _tell(self, what: What) -> None:
        for client, callback in list(self._listeners[what].values()):
            if client.has_socket_connection:
                background_tasks.create(_called(callback), name=f"{what} changed", context=client)

    def _refresh(self) -> list[What]:
        changed: list[What] = []
        try:
            status = session.ask_daemon(Request("status"), 5.0).get("status", {})
        except session.Silent:
            status = {}
        if status:
            self._heard = time.monotonic()
        if status != self.status:
            self.status = status
            changed.append("status")
        before = self.held.version
        for news in self._figures.news():
            self.held.take(news.reports, news.messages, news.gone)
            if "queue" not in changed:
                changed.append("queue")
        self.held.look(self.reader, time.time())
        if self.held.version != before:
            changed.append("held")
        return changed


async def _called(callback: Callable[[], Any]) -> None:
    made = callback()
    if asyncio.iscoroutine(made):
        await made


_the: list[Watch] = []


def watch() -> Watch:
    """The picture of this process."""
    return _the[0]


def start(made: Watch) -> None:
    """Makes this the picture of the process."""
    _the[:] = [made]
