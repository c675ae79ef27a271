"""Pictures of every page of the console, in both languages, into docs/images: ``make screenshots``.

A laboratory is started with simulators. First its daemon lives through a day in half a minute, on a clock that runs ahead, so
that there is something to see; then it runs as always, with a hospital that refuses a specimen, a critical value, an unmapped
code. The pages are those that the console's frame knows.
"""

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import pi, sin
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

from playwright.sync_api import Page, expect, sync_playwright

from labbridge.console import app, frame
from tests.browser import CHROMIUM
from tests.console.helpers import SLOW_MS, ConsoleLab
from tests.e2e.helpers import RBC, UNKNOWN, WBC
from tests.support import wait_until

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
DAY_SECONDS, RATE = 30.0, 6.0
MORE = """
[[analyzer]]
name = "c311-1"
profile = "roche-cobas-c311"
listen = "127.0.0.1:{spare3}"
"""
CHANGES = (
    ('name = "Test Laboratory"', 'name = "Central Laboratory"'),
    ('timezone = "Asia/Shanghai"', 'timezone = "UTC"'),
    ('"plain-hl7"', '"coag-1"'),
    ('"plain-astm"', '"gas-1"'),
    ('specimen_pattern = "^[0-9]{8}$"\n', ""),
)
SIMULATED = {"xn-1": ("sysmex-xn", "astm"), "bc-1": ("mindray-bc", "hl7"), "c311-1": ("roche-cobas-c311", "spare3")}
ACCOUNTS = {"accounts": "admin", "audit": "super", "mappings": "it", "unmapped": "it", "queue": "super"}
TOLD, REFUSED, NEW = "26112201", "26112202", "26112203"


def past(config: Path) -> None:
    """The child that lives through yesterday: a daemon with simulators, on a clock that runs ahead, faster by day."""
    from labbridge import daemon
    from labbridge.cli.running import run

    now, begun = time.time(), time.monotonic()

    def clock() -> float:
        part = min(1.0, (time.monotonic() - begun) / DAY_SECONDS)
        return now - 86_400 + 86_000 * (part - 0.06 * sin(4 * pi * part))

    daemon.time = SimpleNamespace(time=clock, monotonic=time.monotonic)  # type: ignore[attr-defined]
    run(config, simulate=True, rate=RATE)


@contextmanager
def laboratory(folder: Path) -> Iterator[ConsoleLab]:
    """A laboratory with a day behind it, and something for everybody to do."""
    lab = ConsoleLab(folder, url=f"sqlite:///{folder}/lab.db", extra=MORE)
    for old, new in CHANGES:
        lab.edit(old, new)
    child = [sys.executable, "-m", "tests.console.screenshots", "past", str(lab.config)]
    with (folder / "past.log").open("wb") as log, subprocess.Popen(child, stdout=log, stderr=log, cwd=ROOT) as before:
        time.sleep(DAY_SECONDS + 3)
        before.terminate()
    simulators = []
    try:
        lab.ward.plans[REFUSED] = lambda message, count: "AR" if count > 9 else "AE"
        lab.ward.start()
        lab.start()
        lab.add_accounts()
        for profile, port in SIMULATED.values():
            command = ["simulate", "analyzer", profile, "--connect", f"127.0.0.1:{lab.ports[port]}", "--rate", "0.5"]
            simulators.append(subprocess.Popen([sys.executable, "-m", "labbridge", *command], stdout=-3, stderr=-3))
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime())
        lab.tell(TOLD, ("6690-2^WBC^LN", "0.30", "10*9/L"), RBC, stamp=stamp)
        lab.tell(REFUSED, WBC, stamp=stamp)
        lab.tell(NEW, WBC, UNKNOWN, stamp=stamp)
        wait_until(lambda: any(row["state"] == "refused" for row in lab.queue()), 30, "the hospital refuses")
        yield lab
    finally:
        for one in simulators:
            one.kill()
            one.wait()
        lab.end()


def pictures(lab: ConsoleLab, page: Page, language: str) -> None:
    """Each page in this language, as who works with it sees it."""
    for one in frame.PAGES.values():
        name = one.title.lower()
        lab.login(page, ACCOUNTS.get(name, "tech"), language, re.sub(r"\{[^}]*\}", TOLD, one.path))
        expect(page.locator(".nicegui-content")).to_be_visible()
        page.wait_for_timeout(2500)  # charts and tables draw themselves
        page.screenshot(path=IMAGES / f"{name}-{language}.png")
        print(f"docs/images/{name}-{language}.png")


def main() -> None:
    """Makes all pictures anew."""
    for name in app.MODULES:
        importlib.import_module(f"labbridge.console.{name}")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        lab = stack.enter_context(laboratory(Path(folder)))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(SLOW_MS)
        wait_until(lambda: lab.console_answers(), 20, "the console answers")
        for language in ("en", "zh"):
            pictures(lab, page, language)


if __name__ == "__main__":
    past(Path(sys.argv[2])) if sys.argv[1:2] == ["past"] else main()
