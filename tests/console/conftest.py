"""The console's tests: one laboratory with its console for each file, and a page of the system's Chromium for each test.

Without a Chromium the tests that want a page are left out, which `make test` says; in continuous integration that is a
mistake (``tests.browser``).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser import CHROMIUM
from tests.console.helpers import SLOW_MS, ConsoleLab, console_lab


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what needs a browser where there is none."""
    if not CHROMIUM:
        left_out = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module")
def make_lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[ConsoleLab]]:
    """Makes laboratories with options of a test's own."""

    def make(**options: Any) -> AbstractContextManager[ConsoleLab]:
        folder: Path = tmp_path_factory.mktemp("console")
        return console_lab(folder, **options)

    return make


@pytest.fixture(scope="module")
def lab(make_lab: Callable[..., AbstractContextManager[ConsoleLab]]) -> Iterator[ConsoleLab]:
    """A daemon with its console, a hospital that accepts, and an account for each role."""
    with make_lab() as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a person of its own; no script of it may fail."""
    context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-GB")
    context.set_default_timeout(SLOW_MS)
    opened = context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("console", lambda said: faults.append(said.text) if _forbidden(said.text) else None)
    yield opened
    context.close()
    assert faults == []


def _forbidden(text: str) -> bool:
    return "Content Security Policy" in text or "Vue warn" in text
