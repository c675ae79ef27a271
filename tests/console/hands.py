"""Hands at Pending: what a technician does with keyboard, mouse and scanner, for the tests of the list and of the deeds."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.console.helpers import SLOW_MS, ConsoleLab
from tests.e2e.helpers import fresh
from tests.support import wait_until

HELD_MS = 3 * SLOW_MS

expect.set_options(timeout=SLOW_MS)


def pending(lab: ConsoleLab, page: Page, account: str, language: str = "en") -> None:
    """Opens the list."""
    lab.login(page, account, language, "/pending")
    expect(scan(page)).to_be_focused()


def scan(page: Page) -> Any:
    return page.locator(".lb-scan input")


def type_fast(page: Page, text: str) -> None:
    """What a scanner does: every character at once, then Enter."""
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def opened(page: Page, specimen: str) -> None:
    """Scans a specimen and sees it beside the list."""
    type_fast(page, specimen)
    expect(side(page).locator(".text-2xl")).to_have_text(specimen)


def row(page: Page, specimen: str) -> Any:
    return page.locator("tr.cursor-pointer").filter(has_text=specimen)


def listed(page: Page, specimen: str) -> Any:
    """The specimen's row, which may be among what is new."""
    found, new = row(page, specimen), page.locator(".lb-new")
    expect(found.or_(new).first).to_be_visible(timeout=HELD_MS)
    if found.count() == 0:
        new.click()
    expect(found).to_be_visible()
    return found


def side(page: Page) -> Any:
    return page.locator(".lb-side")


def dialog(page: Page) -> Any:
    return page.locator(".q-dialog .q-card")


def confirm(page: Page) -> None:
    """Goes on once all is entered."""
    expect(page.locator(".q-dialog .lb-confirm")).to_be_enabled()
    page.keyboard.press("Control+Enter")
    expect(dialog(page)).to_have_count(0)


def tell_held(lab: ConsoleLab, *results: tuple[str, str, str]) -> str:
    """A specimen with these results, of which something is held."""
    specimen = fresh()
    lab.tell(specimen, *results)
    wait_until(lambda: lab.held(specimen), 10, "it is held")
    return specimen
