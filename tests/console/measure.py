"""What Pending takes on a large store, as a person waits for it in a browser.

    python -m tests.console.measure [--reports 1000000] [--held 20000] [--times 5] [--folder DIR]

A released and a held report that a daemon made are written again and again by SQL, under other numbers (the ledger does not
know of them; the console does not ask it). Prints JSON lines, all in seconds: ``filled``, ``ready`` (the console has the
picture of what is held), ``open`` (Pending, until its rows can be seen), ``scan`` (until the specimen's results can be seen),
``new`` (from the acknowledgement of a held specimen until it is counted on an open page); then the console's memory in MB.
"""

import argparse
import json
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from playwright.sync_api import Page, expect, sync_playwright

from tests.console.helpers import CHROMIUM, ConsoleLab, console_lab
from tests.e2e.helpers import UNKNOWN, WBC, fresh
from tests.support import wait_until

PARTS = 50_000  # rows of one transaction
PATIENT = ("718-7^HGB^LN", "131", "g/L")
TIMEOUT_MS = 60_000


def filled(file: Path, specimen: str, state: str, first: int, count: int) -> None:
    """Copies a specimen's report with its decision under so many other numbers."""
    base = sqlite3.connect(file)
    [report] = base.execute("SELECT * FROM report WHERE specimen = ?", (specimen,)).fetchall()
    [decision] = base.execute("SELECT * FROM decision WHERE report_id = ? ORDER BY id LIMIT 1", (report[0],)).fetchall()
    names = [row[1] for row in base.execute("PRAGMA table_info(report)")]
    said = dict(zip(names, report, strict=True))
    [(reports,)] = base.execute("SELECT max(id) FROM report").fetchall()
    [(decisions,)] = base.execute("SELECT max(id) FROM decision").fetchall()
    for start in range(0, count, PARTS):
        rows, decided = [], []
        for n in range(start, min(start + PARTS, count)):
            number = f"{first + n:08}"
            document = said["document"].replace(specimen.encode(), number.encode()).replace(b'"P1"', b'"P%08d"' % (first + n))
            other = {"id": reports + 1 + n, "key": number, "specimen": number, "patient": f"P{first + n:08}"}
            changed = said | other | {"at": said["at"] - n, "state": state, "document": document}
            rows.append(tuple(changed[name] for name in names))
            decided.append((decisions + 1 + n, reports + 1 + n, *decision[2:]))
        with base:
            base.executemany(f"INSERT INTO report VALUES ({', '.join('?' * len(names))})", rows)
            base.executemany(f"INSERT INTO decision VALUES ({', '.join('?' * len(decision))})", decided)
    base.close()


def told(what: str, seconds: list[float]) -> None:
    print(json.dumps({"what": what, "median_s": round(median(seconds), 3), "worst_s": round(max(seconds), 3)}), flush=True)


def timed(times: int, call: Callable[[int], None]) -> list[float]:
    found = []
    for n in range(times):
        began = time.monotonic()
        call(n)
        found.append(time.monotonic() - began)
    return found


def looked(lab: ConsoleLab, page: Page, held: int, times: int) -> None:
    """The three questions."""
    page.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    lab.login(page, "tech", path="/pending")
    began = time.monotonic()
    while f"{held:,}" not in page.get_by_role("status").inner_text():
        page.reload()
        page.get_by_role("status").wait_for()
    told("ready", [time.monotonic() - began])

    def opened(_: int) -> None:
        page.goto(f"{lab.url_of_console}/pending", wait_until="commit")
        page.locator("tr.cursor-pointer").first.wait_for()

    told("open", timed(times, opened))

    def scanned(n: int) -> None:
        number = f"{20_000_000 + n * 37 % held:08}"
        page.keyboard.type(number)
        page.keyboard.press("Enter")
        page.locator(".lb-side .text-2xl").get_by_text(number).wait_for()
        page.locator(".lb-side .lb-results").wait_for()

    told("scan", timed(times, scanned))

    def new(n: int) -> None:
        lab.tell(fresh(), UNKNOWN)
        page.get_by_role("button", name=re.compile(f"^{n + 1} new$")).wait_for()

    told("new", timed(times, new))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--reports", type=int, default=1_000_000)
    options.add_argument("--held", type=int, default=20_000)
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--folder", type=Path)
    args = options.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        with console_lab(folder) as lab, sync_playwright() as playwright:
            released, held = fresh(), fresh()
            lab.tell(released, WBC, PATIENT)
            lab.tell(held, WBC, PATIENT, UNKNOWN)
            lab.ward.wait(released)
            lab.stop()
            began = time.monotonic()
            filled(folder / "lab.db", released, "released", 30_000_000, args.reports)
            filled(folder / "lab.db", held, "held", 20_000_000, args.held)
            told("filled", [time.monotonic() - began])
            lab.start()
            wait_until(lab.console_answers, 60, "the console answers")
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            looked(lab, browser.new_page(viewport={"width": 1366, "height": 768}), args.held + 1, args.times)
            browser.close()
            for process in Path("/proc").glob("[0-9]*"):
                command = (process / "cmdline").read_bytes() if (process / "cmdline").exists() else b""
                if b"labbridge.console" in command and str(folder).encode() in command:
                    memory = re.search(r"VmRSS:\s*(\d+)", (process / "status").read_text())
                    print(json.dumps({"what": "memory", "mb": int(memory[1]) // 1024 if memory else 0}), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
