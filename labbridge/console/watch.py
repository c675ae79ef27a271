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
from nicegui import Client, context

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
        self.hours = Hours(reader)  # results and deliveries of the last 24 hours
        self.usual: dict[str, float] = {}  # the longest silence of each analyzer that is usual at this hour, seconds
        self.revision = ""
        self.ready = asyncio.Event()
        self._heard = time.monotonic()
        self._figures = Figures(reader)
        self._catalogue: tuple[str, mapping.Catalogue] | None = None
        self._changed: set[What] = set()
        self._listeners: dict[What, list[tuple[Client, Callable[[], Any]]]] = defaultdict(list)
        self._open: set[tuple[str, str, str]] = set()  # page, specimen, account

    @property
    def daemon_silent_s(self) -> float:
        """Seconds since the daemon answered; 0 while it does."""
        return 0.0 if self.status else time.monotonic() - self._heard

    def catalogue(self) -> mapping.Catalogue:
        """The laboratory's catalogue under the revision in force."""
        if self._catalogue is None or self._catalogue[0] != self.revision:
            self._catalogue = self.revision, mapping.load_catalogue(revision.folders(self.settings, "mappings"))
        return self._catalogue[1]

    def on_change(self, what: What, callback: Callable[[], Any]) -> None:
        """Calls back, in the page at hand, after each change of this, and when a lost connection is back; ends with the page."""
        client, listeners = context.client, self._listeners[what]
        listener = client, callback
        listeners.append(listener)
        client.on_connect(callback)  # what changed before the browser was there
        client.on_delete(lambda: listeners.remove(listener))

    @property
    def present(self) -> dict[str, set[str]]:
        """The specimens that somebody has open, and who."""
        found = defaultdict(set)
        for _page, specimen, account in self._open:
            found[specimen].add(account)
        return found

    def enter(self, specimen: str) -> None:
        """This page's user has the specimen open, until ``leave`` or the page's end."""
        key = context.client.id, specimen, session.user().account
        self._open.add(key)
        context.client.on_delete(lambda: self._open.discard(key))

    def leave(self, specimen: str) -> None:
        """This page's user has it open no longer, here."""
        self._open.discard((context.client.id, specimen, session.user().account))

    async def run(self) -> None:
        """Makes the picture anew, once a second, for ever."""
        counted = -MINUTE
        while True:
            began = time.monotonic()
            await self._made(self._refresh)
            self.ready.set()
            if began - counted >= MINUTE:
                counted = began
                await self._made(self._count)
            await asyncio.sleep(max(0.1, PERIOD - (time.monotonic() - began)))

    async def _made(self, part: Callable[[], None]) -> None:
        """Makes a part of the picture in a thread, and tells who listens; while the store cannot be read the old one stays."""
        try:
            await asyncio.to_thread(part)
        except StoreError as error:
            log.warning("the store cannot be read", why=str(error))
        for what in self._changed:
            for client, callback in list(self._listeners[what]):
                if client.has_socket_connection:
                    client.safe_invoke(callback)
        self._changed.clear()

    def _refresh(self) -> None:
        try:
            status = session.ask_daemon(Request("status"), 5.0).get("status", {})
            self._heard = time.monotonic()
        except session.Silent:
            status = {}
        if status != self.status:
            self.status = status
            self._changed.add("status")
        if status and status["revision"] != self.revision:
            self._follow(status["revision"])
        before = self.held.version
        for news in self._figures.news():
            self.held.take(news.reports, news.messages, news.gone)
            self._changed.add("queue")
        self.held.look(self.reader, time.time())
        if self.held.version != before:
            self._changed.add("held")

    def _follow(self, in_force: str) -> None:
        """Another revision is in force: the configuration is read again, and the catalogue when it is asked for."""
        try:
            self.settings = config.load(self.path)
        except config.ConfigError:
            log.warning("the configuration is wrong, the old one stays on the screens")
        self.revision = in_force
        self._changed.add("held")  # what was unmapped may be mapped

    def _count(self) -> None:
        now = time.time_ns() // 1000
        self.hours.refresh(now)
        self.usual = self.hours.usual(now)
        self._changed.add("status")


_the: list[Watch] = []


def watch() -> Watch:
    """The picture of this process."""
    return _the[0]


def start(made: Watch) -> None:
    """Makes this the picture of the process."""
    _the[:] = [made]
