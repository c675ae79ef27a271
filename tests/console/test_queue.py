"""Queue in the browser: what was refused and why, and every act that sets it going again, by those who may."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.console.helpers import ConsoleLab, serious_faults
from tests.e2e.helpers import RBC, WBC, fresh
from tests.support import END, START, field, his_ack, wait_until

REFUSING = ("[[route]]", '[destination.answers]\nAR = "refuse"\n\n[[route]]')
WORDS = "<b>Patient not admitted</b>"


@pytest.fixture(scope="module")
def strict(make_lab: Callable[..., AbstractContextManager[ConsoleLab]]) -> Iterator[ConsoleLab]:
    """A laboratory in which a rejection by the hospital is final."""
    with make_lab(changes=[REFUSING]) as lab:
        yield lab


def refuse(message: bytes, before: int) -> str | bytes:
    """The hospital rejects a message when it comes first, with its own words, and takes it then."""
    if before:
        return "AA"
    return START + his_ack("AR", field(message, b"MSH", 9), f"ERR||PID^1|204|E||||{WORDS}\r") + END


def card(page: Page) -> Locator:
    return page.get_by_role("region", name="his")


def row(page: Page, specimen: str) -> Locator:
    return page.locator(".lb-queue tbody tr", has_text=specimen)


def refused(lab: ConsoleLab, *results: tuple[str, str, str]) -> str:
    """A specimen of which the hospital refused the first result."""
    specimen = fresh()
    lab.ward.plans[specimen] = refuse
    for number, result in enumerate(results or (WBC,)):
        lab.tell(specimen, result, stamp=f"202611211015{number:02d}")
    lab.ward.wait(specimen)
    return specimen


def sent(lab: ConsoleLab, page: Page, specimen: str) -> None:
    """Both deliveries of a specimen stand under what was sent, once they are delivered."""
    wait_until(lambda: [one["state"] for one in lab.story(specimen, "delivery")] == ["delivered"] * 2, 10, "delivered")
    page.goto(f"{lab.url_of_console}/queue")
    page.get_by_role("button", name="Sent", exact=True).click()
    expect(row(page, specimen)).to_have_count(2)


def test_a_refused_delivery_is_sent_again(strict: ConsoleLab, page: Page) -> None:
    specimen = refused(strict, WBC, RBC)
    strict.login(page, "tech", path="/queue")
    line = row(page, specimen)
    expect(line).to_contain_text(f"AR — {WORDS} · 204")
    expect(line.get_by_role("cell").nth(3)).to_have_text("1")
    expect(card(page)).to_contain_text("AR 204")
    assert serious_faults(page) == []
    line.get_by_role("button", name="Retry").click()
    expect(line).to_have_count(0)
    (first, _), (again, _), (behind, _) = strict.ward.wait(specimen, 3)
    assert first == again != behind
    sent(strict, page, specimen)
    strict.login(page, "tech", path=f"/specimen/{specimen}")
    for what in ("his refused delivery", "tech: retry, delivery", "his accepted delivery"):
        expect(page.locator(".lb-event", has_text=what).first).to_be_visible()
    expect(page.locator(".lb-event", has_text="his refused delivery")).to_contain_text(WORDS)


def test_all_that_was_refused_is_sent_again_at_once(strict: ConsoleLab, page: Page) -> None:
    specimens = [refused(strict) for _ in range(2)]
    strict.login(page, "it", path="/queue")
    for specimen in specimens:
        expect(row(page, specimen)).to_be_visible()
    card(page).get_by_role("button", name="Retry all refused").click()
    page.get_by_role("dialog").get_by_role("button", name="Retry all refused").click()
    expect(page.get_by_text("Nothing was refused.")).to_be_visible()
    for specimen in specimens:
        strict.ward.wait(specimen, 2)


def test_what_was_delivered_is_sent_once_more_as_a_new_message(strict: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    strict.tell(specimen, WBC)
    [(control_id, _)] = strict.ward.wait(specimen)
    strict.login(page, "super", path="/queue")
    page.get_by_role("button", name="Sent", exact=True).click()
    row(page, specimen).get_by_role("button", name="Send again").click()
    page.get_by_role("textbox", name="Reason").fill("the ward lost it")
    page.get_by_role("dialog").get_by_role("button", name="Send delivery").click()
    _, (another, _) = strict.ward.wait(specimen, 2)
    assert another != control_id
    sent(strict, page, specimen)


def test_a_delivery_is_cancelled_with_a_reason_and_its_lane_goes_on(strict: ConsoleLab, page: Page) -> None:
    specimen = refused(strict, WBC, RBC)
    strict.login(page, "super", path="/queue")
    row(page, specimen).get_by_role("button", name="Cancel").click()
    page.get_by_role("textbox", name="Reason").fill("entered by hand")
    page.get_by_role("dialog").get_by_role("button", name="Cancel delivery").click()
    expect(row(page, specimen)).to_have_count(0)
    strict.ward.wait(specimen, 2)
    [cancelled] = [one for one in strict.story(specimen, "delivery") if one["state"] == "cancelled"]
    strict.login(page, "super", path=f"/specimen/{specimen}")
    told = page.locator(".lb-event", has_text=f"super: cancel, delivery {cancelled['id']}")
    expect(told).to_contain_text("entered by hand")


def test_a_destination_is_paused_and_resumed(strict: ConsoleLab, page: Page) -> None:
    strict.login(page, "it", path="/queue")
    his = card(page)
    expect(his).to_contain_text("connected")
    his.get_by_role("button", name="Pause").click()
    page.get_by_role("textbox", name="Reason").fill("they change their system")
    page.get_by_role("dialog").get_by_role("button", name="Pause his").click()
    expect(his).to_contain_text("paused")
    specimen = fresh()
    strict.tell(specimen, WBC)
    page.get_by_role("button", name="Waiting", exact=True).click()
    expect(row(page, specimen)).to_be_visible()
    assert strict.ward.of(specimen) == []
    his.get_by_role("button", name="Resume").click()
    strict.ward.wait(specimen)
    expect(his).to_contain_text("connected")


def test_who_may_do_nothing_sees_no_button_and_an_administrator_no_patient(strict: ConsoleLab, page: Page) -> None:
    specimen = refused(strict)
    strict.login(page, "viewer", path="/queue")
    expect(row(page, specimen)).to_contain_text(WORDS)
    for name in ("Retry", "Cancel", "Pause", "Retry all refused"):
        expect(page.get_by_role("main").get_by_role("button", name=name, exact=True)).to_have_count(0)
    strict.login(page, "admin", path="/queue")
    expect(page.locator(".lb-queue tbody tr").first).to_contain_text("AR")
    assert specimen not in page.content()
    assert "not admitted" not in page.content()


def test_in_chinese(strict: ConsoleLab, page: Page) -> None:
    specimen = refused(strict)
    strict.login(page, "super", language="zh", path="/queue")
    expect(card(page)).to_contain_text("今日已送达")
    row(page, specimen).get_by_role("button", name="重试").click()
    expect(row(page, specimen)).to_have_count(0)
