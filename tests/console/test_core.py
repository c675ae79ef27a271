"""Logging in, the guard at the door, the frame, and the line: with the real daemon, console and store."""

import http.client
import re
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Page, expect

from tests.console.helpers import PASSWORD, SLOW_MS, ConsoleLab, serious_faults
from tests.e2e.helpers import UNKNOWN, fresh

HANDSHAKE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
HANDSHAKE |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
CRITICAL = ("6690-2^WBC^LN", "0.30", "10*9/L")


def post(lab: ConsoleLab, path: str, fields: dict[str, str], **headers: str) -> http.client.HTTPResponse:
    """A form as a browser posts it, but for these headers."""
    client = http.client.HTTPConnection("127.0.0.1", lab.console, timeout=60)
    told = {"Origin": lab.url_of_console, "Content-Type": "application/x-www-form-urlencoded", **headers}
    client.request("POST", path, urllib.parse.urlencode(fields), told)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer


def get(lab: ConsoleLab, path: str, **headers: str) -> http.client.HTTPResponse:
    client = http.client.HTTPConnection("127.0.0.1", lab.console, timeout=60)
    client.request("GET", path, headers=headers)
    answer = client.getresponse()
    answer.read()
    client.close()
    return answer


def body(lab: ConsoleLab, path: str, cookie: str) -> str:
    asked = urllib.request.Request(lab.url_of_console + path, headers={"Cookie": cookie})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return str(answer.read().decode())


def session_of(lab: ConsoleLab, account: str = "viewer") -> str:
    answer = post(lab, "/login", {"account": account, "password": PASSWORD})
    assert answer.status == 303
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


# -- the door ---------------------------------------------------------------------------------------------------------


def test_nobody_sees_a_page_who_is_not_logged_in(lab: ConsoleLab) -> None:
    for path in ("/", "/pending", "/specimen/1", "/signal.wav", "/no-such-page"):
        answer = get(lab, path)
        assert (answer.status, answer.getheader("Location")) == (303, "/login?next=" + urllib.parse.quote(path, safe=""))
    assert get(lab, "/", Cookie="labbridge_session=made-up").status == 303


def test_the_cookie_is_for_this_site_and_no_script(lab: ConsoleLab) -> None:
    answer = post(lab, "/login", {"account": "viewer", "password": PASSWORD, "next": "/queue"})
    words = {word.strip().lower() for word in (answer.getheader("Set-Cookie") or "").split(";")[1:]}
    assert {"httponly", "samesite=strict", "path=/"} <= words
    assert answer.getheader("Location") == "/queue"


def test_a_wrong_password_tells_nothing_about_the_account(lab: ConsoleLab) -> None:
    wrong = [post(lab, "/login", {"account": account, "password": "wrong"}) for account in ("it", "nobody-at-all")]
    assert [(answer.status, answer.getheader("Set-Cookie")) for answer in wrong] == [(403, None), (403, None)]


@pytest.mark.parametrize("goal", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:1"])
def test_the_login_leads_to_no_other_site(lab: ConsoleLab, goal: str) -> None:
    answer = post(lab, "/login", {"account": "viewer", "password": PASSWORD, "next": goal})
    assert answer.getheader("Location") == "/"


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", ""])
def test_a_forged_form_is_refused(lab: ConsoleLab, origin: str) -> None:
    cookie = session_of(lab)
    assert post(lab, "/login", {"account": "viewer", "password": PASSWORD}, Origin=origin).status == 403
    assert post(lab, "/logout", {}, Origin=origin, Cookie=cookie).status == 403
    assert get(lab, "/", Cookie=cookie).status == 200  # still logged in


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", ""])
def test_a_forged_websocket_is_refused(lab: ConsoleLab, origin: str) -> None:
    cookie = session_of(lab)
    handshake, path = HANDSHAKE | {"Cookie": cookie}, SOCKET
    assert get(lab, path, **handshake, Origin=origin).status == 403
    assert get(lab, path, **(handshake | {"Cookie": ""}), Origin=lab.url_of_console).status == 403
    assert get(lab, path, **handshake, Origin=lab.url_of_console).status == 101
    assert get(lab, path.replace("websocket", "polling"), Cookie=cookie).status == 403


def test_nobody_takes_over_another_sessions_page(lab: ConsoleLab) -> None:
    mine, others = session_of(lab, "viewer"), session_of(lab, "super")
    [page] = {found[1] for found in re.finditer(r"client_id\W+([0-9a-f-]{36})", body(lab, "/", others))}
    [own] = {found[1] for found in re.finditer(r"client_id\W+([0-9a-f-]{36})", body(lab, "/", mine))}
    told = HANDSHAKE | {"Origin": lab.url_of_console}
    for query in (f"client_id={page}", f"client_id={page}&client_id={own}", f"client_id=&client_id={page}"):
        assert get(lab, f"{SOCKET}&{query}", **told, Cookie=mine).status == 403
    assert get(lab, f"{SOCKET}&client_id={own}", **told, Cookie=mine).status == 101


def test_the_browser_is_told_to_run_nothing_but_ours(lab: ConsoleLab) -> None:
    answer = get(lab, "/", Cookie=session_of(lab))
    policy = answer.getheader("Content-Security-Policy") or ""
    script = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe-inline" not in script
    assert "'nonce-" in script
    assert "frame-ancestors 'none'" in policy
    assert answer.getheader("X-Frame-Options") == "DENY"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"


# -- the frame ----------------------------------------------------------------------------------------------------------


def test_login_and_logout(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "tech")
    expect(page.get_by_text("tech · technician")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{lab.url_of_console}/login")
    page.goto(lab.url_of_console)
    expect(page).to_have_url(re.compile("/login"))


def test_a_wrong_password_says_so(lab: ConsoleLab, page: Page) -> None:
    page.goto(f"{lab.url_of_console}/login")
    page.locator("input[name=account]").fill("super")
    page.locator("input[name=password]").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    assert serious_faults(page) == []


def test_the_language_is_the_users_own(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "viewer")
    page.get_by_role("button", name="中文").click()
    expect(page.get_by_role("link", name="生产线")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    assert get(lab, "/", Cookie=session_of(lab)).status == 200
    page.reload()
    expect(page.get_by_role("button", name="退出")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("link", name="Line")).to_be_visible()


def test_light_and_dark_are_remembered(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "viewer")
    expect(page.locator("body")).to_have_class(re.compile("body--light"))
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))


def test_a_session_that_nobody_uses_leads_to_the_login(
    make_lab: Callable[..., AbstractContextManager[ConsoleLab]], page: Page
) -> None:
    with make_lab(idle="4s") as short:
        short.login(page, "tech")
        expect(page).to_have_url(re.compile(r"/login\?over=1"), timeout=SLOW_MS)
        expect(page.get_by_role("alert")).to_contain_text("log in again")
        lab_cookie = page.context.cookies()[0]
        assert get(short, "/", Cookie=f"{lab_cookie['name']}={lab_cookie['value']}").status == 303


# -- the line -----------------------------------------------------------------------------------------------------------


def test_the_line_shows_what_happens(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "super")
    card = page.get_by_role("article", name="bc-1")
    expect(card).to_contain_text("Listening")
    expect(card).to_contain_text("no message yet")
    lab.tell(fresh())
    expect(card).to_contain_text("now")
    with lab.hl7_client():
        expect(card).to_contain_text("Connected")
    lab.tell(fresh(), UNKNOWN)
    expect(card.locator("div", has_text=re.compile("^Unmapped1$")).first).to_be_visible()
    his = page.get_by_role("article", name="his")
    expect(his).to_contain_text("Connected")
    expect(page.get_by_text("no quality control yet")).to_be_visible()
    assert serious_faults(page) == []


def test_a_critical_value_sounds_until_somebody_acknowledges(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "tech")
    expect(page.get_by_role("article", name="bc-1")).to_be_visible()
    specimen = fresh()
    lab.tell(specimen, CRITICAL)
    line = page.locator(".lb-critical")
    expect(line).to_contain_text(specimen)
    page.wait_for_function("[...document.querySelectorAll('audio')].some(one => !one.paused)")
    assert serious_faults(page) == []
    line.get_by_role("button", name="Acknowledge").click()
    expect(line).to_have_count(0)
    page.wait_for_function("[...document.querySelectorAll('audio')].every(one => one.paused)")
    acknowledged = lab.rows("trace", specimen)
    assert any(event.get("actor") == "tech" for event in acknowledged)


def test_a_viewer_hears_nothing_and_cannot_acknowledge(lab: ConsoleLab, page: Page) -> None:
    specimen = fresh()
    lab.tell(specimen, CRITICAL)
    lab.login(page, "viewer")
    expect(page.locator(".lb-critical")).to_contain_text(specimen)
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    expect(page.locator("audio")).to_have_count(0)


def test_a_destination_that_is_down_is_a_fault(lab: ConsoleLab, page: Page) -> None:
    lab.login(page, "it", language="zh")
    lab.ward.stop()
    try:
        expect(page.locator(".lb-fault")).to_contain_text("his", timeout=SLOW_MS)
        expect(page.locator(".lb-fault").first).to_contain_text("故障")
        assert serious_faults(page) == []
    finally:
        lab.ward.start()
