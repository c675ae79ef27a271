"""The console's application: pages, guard, the shared picture, and the sign of life for who watches this process."""

import asyncio
import contextlib
import os
import signal
import stat
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

from nicegui import app, ui

from labbridge.config import Settings
from labbridge.console import frame, login, session, watch
from labbridge.console.guard import Guard
from labbridge.store import Reader
from labbridge.views import texts

MODULES = ("line", "pending", "specimen", "queue", "unmapped", "mappings", "audit", "accounts")  # in the order of the navigation
ALIVE_SECONDS = 1.0
END_SECONDS = 5.0


def run(settings: Settings, path: Path) -> None:
    """Serves until it is told to stop, or until who started it is gone."""
    assert settings.console.listen is not None
    session.configure(settings.control.path)
    texts.configure(settings.site.timezone, settings.site.language, session.language)
    watch.start(watch.Watch(settings, path, Reader(settings.store.url)))
    for name in MODULES:
        import_module(f"labbridge.console.{name}")
    login.register()
    ui.add_css(Path(__file__).with_name("style.css").read_text("utf-8"), shared=True)
    ui.add_head_html(frame.head(settings.console.idle), shared=True)
    app.add_middleware(Guard)
    app.config.socket_io_js_transports = ["websocket"]
    app.on_startup(_start)
    tls = settings.console.tls
    ui.run(
        host=settings.console.listen.host,
        port=settings.console.listen.port,
        title=settings.site.name,
        favicon="🧪",
        dark=None,
        reload=False,
        show=False,
        show_welcome_message=False,
        binding_refresh_interval=None,
        reconnect_timeout=10.0,
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        timeout_graceful_shutdown=2,
    )


def _start() -> None:
    loop = asyncio.get_running_loop()
    for endless in (watch.watch().run(), _check_sessions(), _live()):
        _tasks.append(loop.create_task(endless))
    threading.Thread(target=_end_with_parent, daemon=True).start()


_tasks: list[asyncio.Task[None]] = []


async def _check_sessions() -> None:
    pause = max(0.5, min(10.0, watch.watch().settings.console.idle / 4))
    while True:
        await asyncio.sleep(pause)
        await session.look(pause / 2)


async def _live() -> None:
    """A byte a second to who watches, from the loop itself: where it hangs, or a task of ours has failed, none comes."""
    kind = os.fstat(1).st_mode
    while (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)) and not any(task.done() for task in _tasks):
        with contextlib.suppress(OSError):  # the pipe is full; or nobody watches any more, which the standard input tells
            os.write(1, b".")
        await asyncio.sleep(ALIVE_SECONDS)


def _end_with_parent() -> None:
    """Ends when the standard input does, which is a pipe of who started this process."""
    with contextlib.suppress(OSError, ValueError):
        while sys.stdin.buffer.read(4096):
            pass
    signal.raise_signal(signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)
