"""Audit and Accounts in a browser: what was done is found, proven and exported; an administrator makes and changes accounts."""

import asyncio
import csv
import io
import re
import sqlite3
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from labbridge import roles
from labbridge.console.proof import proof, verify
from labbridge.views.ledger import Proof, Result, verdict
from labbridge.views.trail import cell, told
from tests.console.helpers import PASSWORD, SLOW_MS, ConsoleLab, serious_faults

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J=1+1"


@pytest.fixture(scope="module", autouse=True)
def history(lab: ConsoleLab) -> None:
    """More rows than a page has, and some to look for."""
    for number in range(130):
        lab.ask("language", account="viewer", language="en" if number % 2 else "zh")
    lab.ask("pause", destination="his", reason=HOSTILE)
    lab.ask("resume", destination="his", reason="again")


def test_a_change_is_told_by_what_differs() -> None:
    assert told('{"role":"viewer","state":"active"}', '{"role":"supervisor","state":"active"}') == "role viewer"
    assert told('{"role":"viewer","state":"active"}', "") == "role viewer, state active"
    assert (told("queued", ""), told("[1]", ""), told("", "{}")) == ("queued", "[1]", "")


PROBLEMS = ["transaction 7 is not as it was written"]
VERDICTS = (
    (Proof(), "help", "not verified"),
    (Proof(share=0.5), "hourglass_empty", "50 %"),
    (Proof(error="no store"), "error", "could not be verified: no store"),
    (Proof(result=Result(3, [])), "verified", "3 facts are as they were written"),
    (Proof(result=Result(3, PROBLEMS)), "error", "CHANGED"),
    (Proof(share=0.5, result=Result(3, PROBLEMS)), "hourglass_empty", "50 %"),
)


@pytest.mark.parametrize(("stands", "icon", "words"), VERDICTS)
def test_a_verdict_is_told_by_icon_and_words(stands: Proof, icon: str, words: str) -> None:
    shown = verdict(stands)
    assert shown[0] == icon
    assert words in shown[2]


def test_what_cannot_be_verified_is_not_said_to_be_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "error", "")
    asyncio.run(verify(tmp_path / "nothing.toml"))
    assert (proof.share, proof.result) == (None, None)
    assert verdict(proof)[0] == "error"


def rows(page: Page) -> list[list[str]]:
    return [[cell.inner_text() for cell in row.locator("td").all()] for row in page.locator(".lb-audit tbody tr").all()]


def test_what_was_done_is_found_newest_first(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "super", path="/audit")
    expect(page.locator(".lb-audit tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Older").click()
    expect(page.get_by_role("button", name="Newer")).to_be_enabled()
    first = rows(page)[0]
    page.get_by_role("button", name="Newer").click()
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()
    assert rows(page)[0] != first
    page.get_by_label("On what").fill("destination his")
    expect(page.locator(".lb-audit tbody tr")).to_have_count(2)
    [resumed, paused] = rows(page)
    assert resumed[2:7] == ["resume a destination", "destination his", "again", "paused", "running"]
    assert paused[4].startswith("<img src=x onerror=alert(1)>\\x1b[2J")
    page.locator(".lb-audit tbody tr").nth(1).get_by_role("button").press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("<img src=x onerror=alert(1)>\\x1b[2J=1+1")
    page.keyboard.press("Escape")
    page.get_by_label("From").fill("2031-01-01")
    expect(page.get_by_text("Nothing was done like this.")).to_be_visible()
    page.get_by_label("From").fill("2021-01-01")
    expect(page.locator(".lb-audit tbody tr")).to_have_count(2)
    with page.expect_download() as coming:
        page.get_by_role("link", name="Export as CSV").click()
    exported = list(csv.DictReader(io.StringIO(coming.value.path().read_text("utf-8-sig"))))
    assert [(one["action"], one["subject"], one["reason"]) for one in exported] == [
        ("resume", "destination his", "again"),
        ("pause", "destination his", "<img src=x onerror=alert(1)>\\x1b[2J=1+1"),
    ]
    assert serious_faults(page) == []


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x"])
def test_no_cell_of_an_export_is_a_formula(text: str) -> None:
    assert cell(text) == f"'{text}"


def test_the_export_has_every_row_and_is_for_those_who_may(lab: ConsoleLab, page: Page) -> None:
    with sqlite3.connect(lab.folder / "lab.db") as store:
        [count] = store.execute("SELECT count(*) FROM audit").fetchone()
    for account, status in (("it", 200), ("viewer", 403)):
        lab.login(page, account)
        answer = page.request.get(f"{lab.url_of_console}/audit.csv")
        assert answer.status == status
        assert len(answer.text().splitlines()) >= count or status == 403
    with urllib.request.urlopen(f"{lab.url_of_console}/audit.csv") as answer:
        assert answer.url.startswith(f"{lab.url_of_console}/login")


def test_the_ledger_is_verified_on_demand(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "super", path="/audit")
    ledger = page.get_by_label("The ledger", exact=True)
    expect(ledger.get_by_text(re.compile(r"It ends at \d+:[0-9a-f]{64}"))).to_be_visible()
    ledger.get_by_role("button", name="Verify now").click()
    expect(ledger.get_by_text("facts are as they were written")).to_be_visible(timeout=SLOW_MS)
    lab.login(page, "super", language="zh", path="/audit")
    expect(page.get_by_text("条记录与写入时一致")).to_be_visible()
    expect(page.get_by_text("恢复发送目标").first).to_be_visible()


def test_an_administrator_makes_and_changes_accounts(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "admin", path="/accounts")
    page.get_by_role("button", name="Add an account").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Carla")
    dialog.get_by_label("New password").fill("short")
    dialog.get_by_label("The same again").fill("short")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(dialog.get_by_role("alert")).to_have_text("8 to 256 characters")
    dialog.get_by_label("New password").fill("correct horse")
    dialog.get_by_label("The same again").fill("another horse")
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("The two passwords differ.")).to_be_visible()
    dialog.get_by_label("The same again").fill("correct horse")
    dialog.get_by_label("The same again").press("Enter")
    mine = page.get_by_role("row", name=re.compile("carla"))
    expect(mine).to_contain_text("technician")
    expect(mine).to_contain_text("active")
    assert lab.ask("login", account="carla", password="correct horse")["answer"]["role"] == "technician"
    page.get_by_role("button", name="Role: carla").click()
    dialog.get_by_label("Role").click()
    page.get_by_role("option", name="supervisor").click()
    dialog.get_by_label("Reason").fill("promoted")
    dialog.get_by_role("button", name="Change").click()
    expect(mine).to_contain_text("supervisor")
    page.get_by_role("button", name="New password: carla").click()
    dialog.get_by_label("New password").fill("battery staple")
    dialog.get_by_label("The same again").fill("battery staple")
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_have_count(0)
    assert lab.ask("login", account="carla", password="battery staple")["ok"]
    page.get_by_role("button", name="Disable: carla").click()
    dialog.get_by_label("Reason").fill("left")
    dialog.get_by_role("button", name=re.compile("Disable")).click()
    expect(mine).to_contain_text("disabled")
    page.get_by_role("button", name="Enable: carla").click()
    dialog.get_by_label("Reason").fill("is back")
    dialog.get_by_role("button", name=re.compile("Enable")).click()
    expect(mine).to_contain_text("active")
    page.reload()  # what is told fades in and out
    expect(mine).to_contain_text("active")
    assert serious_faults(page) == []
    page.get_by_role("button", name="Disable: admin").click()
    dialog.get_by_label("Reason").fill("all of us left")
    dialog.get_by_role("button", name=re.compile("Disable")).click()
    expect(page.get_by_text("admin is the last administrator")).to_be_visible()


def test_the_table_of_roles_is_shown(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "admin", path="/accounts")
    table = page.locator(".lb-table").nth(1)
    row = table.get_by_role("row", name=re.compile("confirm another specimen id"))
    expect(row.get_by_role("cell")).to_have_text(["yes" if one == "supervisor" else "–" for one in roles.ROLES])
    expect(table.locator("tbody tr")).to_have_count(len(roles.ACTIONS))


@pytest.mark.parametrize("path", ["/audit", "/accounts"])
def test_who_may_not_sees_neither_page_nor_link(lab: ConsoleLab, page: Page, path: str) -> None:
    lab.login(page, "tech", path=path)
    expect(page.get_by_text("Your role may not see this page.")).to_be_visible()
    expect(page.get_by_role("link", name="Accounts")).to_have_count(0)


def test_ones_own_password_is_changed_with_the_old_one(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "it")
    page.get_by_role("button", name="it · lab-it").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("The old password").fill("wrong wrong")
    for label in ("New password", "The same again"):
        dialog.get_by_label(label).fill("another password")
    dialog.get_by_role("button", name="Change").click()
    expect(page.get_by_text("the name or the password is wrong")).to_be_visible()
    dialog.get_by_label("The old password").fill(PASSWORD)
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_have_count(0)
    assert lab.ask("login", account="it", password="another password")["ok"]
    lab.ask("account-change", account="it", password=PASSWORD)
