"""What the tests of the console share: a laboratory with its console, its accounts, and a look with a browser's eyes."""

import contextlib
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from labbridge.asking import ask
from labbridge.commands import Request
from tests.browser import CHINESE, CHROMIUM
from tests.e2e.helpers import Lab
from tests.support import PATIENCE, free_ports, wait_until

PASSWORD = "a password of the tests"
ROLES = {"viewer": "viewer", "tech": "technician", "super": "supervisor", "it": "lab-it", "admin": "administrator"}
CONSOLE = """
[console]
listen = "127.0.0.1:{port}"
idle = "{idle}"
"""
SLOW_MS = 10_000 * PATIENCE

__all__ = ["CHINESE", "CHROMIUM", "PASSWORD", "SLOW_MS", "ConsoleLab", "console_lab", "serious_faults"]


class ConsoleLab(Lab):
    """A laboratory whose daemon runs its console."""

    def __init__(self, folder: Path, *, idle: str = "1h", extra: str = "", **options: Any) -> None:
        [self.console] = free_ports(1)
        super().__init__(folder, extra=CONSOLE.format(port=self.console, idle=idle) + extra, **options)
        self.url_of_console = f"http://127.0.0.1:{self.console}"

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """A command as the command line gives it, which must succeed."""
        answer = ask(self.folder / "labbridge.sock", Request(command, **fields))
        assert answer["ok"], answer
        return answer

    def add_accounts(self) -> None:
        """One account for each role, by the short names of ``ROLES``."""
        for account, role in ROLES.items():
            self.ask("account-add", account=account, role=role, password=PASSWORD)

    def console_answers(self) -> bool:
        """Whether the login page is there."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url_of_console}/login", timeout=5) as answer:
            return b"<form" in answer.read()
        return False

    def login(self, page: Page, account: str, language: str = "en", path: str = "/") -> None:
        """Logs in with the form and opens a page."""
        self.ask("account-change", account=account, language=language)
        page.context.clear_cookies()
        page.goto(f"{self.url_of_console}/login?next={path}")
        page.locator("input[name=account]").fill(account)
        page.locator("input[name=password]").fill(PASSWORD)
        page.locator("form button").click()
        expect(page).not_to_have_url(re.compile("/login"))
        expect(page.get_by_role("banner")).to_be_visible(timeout=SLOW_MS)


@contextlib.contextmanager
def console_lab(folder: Path, **options: Any) -> Iterator[ConsoleLab]:
    """A laboratory with a hospital, the daemon, its console, and the accounts."""
    lab = ConsoleLab(folder, url=f"sqlite:///{folder}/lab.db", **options)
    try:
        lab.ward.start()
        lab.start()
        lab.add_accounts()
        wait_until(lab.console_answers, 20, "the console answers")
        yield lab
        assert lab.stop() == 0, lab.log.read_text()[-3000:]
    finally:
        lab.end()


_AT_REST = """
    () => document.getAnimations().every(
        one => one.playState !== "running" || one.effect.getComputedTiming().endTime === Infinity)
"""


def serious_faults(page: Page, within: str = "html") -> list[str]:
    """What axe finds that keeps somebody out: serious and critical violations, with where they are.

    What fades in or out just now has no contrast of its own: the pointer leaves what it hovers, and everything comes to rest.
    """
    page.mouse.move(0, 0)
    page.wait_for_function(_AT_REST)
    found = Axe().run(page, within).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:200] + node['failureSummary'] for node in one['nodes']][:3]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
