"""Pending in a browser, with the real daemon, console, store and a hospital: found by scan, called back, released, audited."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.console.hands import HELD_MS, confirm, dialog, listed, pending, row, scan, side, tell_held, type_fast
from tests.console.helpers import ConsoleLab, serious_faults
from tests.e2e.helpers import UNKNOWN, WBC, fresh, observations
from tests.support import wait_until

LOW = ("718-7^HGB^LN", "41", "g/L")


def test_a_held_critical_value_is_found_by_scan_called_back_released_delivered_and_audited(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    pending(lab, page, "tech")
    type_fast(page, specimen)
    expect(side(page).get_by_text("critically low")).to_be_visible()
    expect(side(page).get_by_text("41 g/L is critical")).to_be_visible()
    page.keyboard.press("F9")
    dialog(page).get_by_label("Who was told").fill("Dr Wu, ICU")
    dialog(page).get_by_text("The value was read back to me").click()
    confirm(page)
    expect(side(page).get_by_text("held · called back")).to_be_visible()
    expect(side(page).get_by_text("told Dr Wu, ICU")).to_be_visible()
    page.keyboard.press("F2")
    expect(dialog(page).get_by_text("H025 Hemoglobin 41 g/L LL [F]")).to_be_visible()
    dialog(page).get_by_role("button", name="agrees with earlier values").click()
    confirm(page)
    expect(side(page).get_by_text("released · called back")).to_be_visible()
    [(_, message)] = lab.ward.wait(specimen)
    assert observations(message)["H025"][5] == "41"
    [report] = lab.story(specimen, "report")
    done = {(one.actor, one.action) for one in audits(lab, specimen, report["report_id"])}
    assert done >= {("tech", "viewed"), ("tech", "call-back"), ("tech", "release")}


def audits(lab: ConsoleLab, specimen: str, report: int) -> list[Any]:
    from labbridge.store import Reader

    reader = Reader(lab.url)
    try:
        return reader.audits([f"report {report}", f"specimen {specimen}"])
    finally:
        reader.close()


def test_no_critical_value_leaves_without_a_call(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    pending(lab, page, "tech")
    type_fast(page, specimen)
    expect(side(page).get_by_text("critically low")).to_be_visible()
    page.keyboard.press("F2")
    dialog(page).get_by_label("Reason").fill("checked")
    expect(dialog(page).get_by_text("What the hospital will receive")).to_be_visible()
    expect(dialog(page).get_by_role("button", name="Release")).to_be_disabled()
    page.keyboard.press("Control+Enter")  # nobody was told: nothing happens
    expect(dialog(page)).to_be_visible()
    dialog(page).get_by_label("Who was told").fill("Dr Wu")
    dialog(page).get_by_text("The value was read back to me").click()
    confirm(page)
    assert lab.ward.wait(specimen)


def test_rows_stay_where_they_are_and_what_is_new_is_counted(lab: ConsoleLab, page: Page) -> None:
    first = tell_held(lab, UNKNOWN)
    pending(lab, page, "tech")
    listed(page, first)
    before = page.locator("tr.cursor-pointer").all_inner_texts()
    second = tell_held(lab, LOW)  # more urgent than all others: it belongs to the top
    new = page.get_by_role("button", name="1 new")
    expect(new).to_be_visible(timeout=HELD_MS)
    names = [text.split()[0] for text in before]
    assert [text.split()[0] for text in page.locator("tr.cursor-pointer").all_inner_texts()] == names
    lab.well("reject", first, "--reason", "x")
    expect(row(page, first).get_by_text("settled")).to_be_visible(timeout=HELD_MS)
    new.click()
    expect(row(page, second)).to_be_visible()
    expect(row(page, first)).to_have_count(0)
    lab.well("reject", second, "--reason", "x")


def test_a_group_that_one_has_opened_is_settled_by_one_act(lab: ConsoleLab, page: Page) -> None:
    code = ("77701^ODD^99MRC", "1", "g")
    specimens = [tell_held(lab, code, WBC) for _ in range(4)]
    pending(lab, page, "super")
    listed(page, specimens[-1])
    page.get_by_text("By cause").click()
    group = row(page, "code 77701 (g) is not mapped").filter(has_text="oldest")
    expect(group).to_contain_text("4")
    group.click()
    for specimen in specimens:
        expect(row(page, specimen)).to_be_visible()
    page.get_by_role("button", name="Reject: all 4").click()
    for specimen in specimens:
        expect(dialog(page).get_by_text(specimen)).to_be_visible()
    dialog(page).get_by_label("Reason").fill("a blank run")
    confirm(page)
    expect(page.get_by_text("4 specimens: Reject")).to_be_visible()
    assert not any(lab.held(specimen) for specimen in specimens)
    for specimen in specimens:
        expect(row(page, specimen).get_by_text("settled")).to_be_visible(timeout=HELD_MS)


# A scanner that sends a function key before its characters.
_PREFIXED = """() => { for (const key of ['F2', '7'])
    document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true})) }"""


def test_a_scan_opens_a_specimen_and_never_does_anything_else(lab: ConsoleLab, page: Page) -> None:
    first, second = tell_held(lab, LOW), tell_held(lab, LOW)
    pending(lab, page, "tech")
    type_fast(page, first)
    expect(side(page).get_by_text("critically low")).to_be_visible()
    page.evaluate(_PREFIXED)
    type_fast(page, second)
    expect(side(page).locator(".text-2xl")).to_have_text(second)
    expect(dialog(page)).to_have_count(0)
    page.keyboard.press("F8")
    dialog(page).get_by_label("Comment").fill("hm")
    dialog(page).get_by_role("button", name="Comment").focus()
    page.keyboard.type(first)
    page.keyboard.press("Enter")  # into a button: swallowed
    expect(dialog(page)).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    side(page).locator(".text-2xl").click()  # the cursor is nowhere: what is typed goes into the barcode field
    type_fast(page, first)
    expect(side(page).locator(".text-2xl")).to_have_text(first)
    assert lab.held(first)
    assert lab.held(second)


def test_everything_by_keyboard_alone(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW, WBC)
    pending(lab, page, "tech")
    listed(page, specimen)
    expect(scan(page)).to_be_focused()
    place = [specimen in text for text in page.locator("tr.cursor-pointer").all_inner_texts()].index(True)
    for _ in range(place):
        page.keyboard.press("ArrowDown")
    expect(row(page, specimen)).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(side(page).locator(".text-2xl")).to_have_text(specimen)
    page.keyboard.press("F4")
    expect(dialog(page).get_by_label("Reason, for the hospital")).to_be_focused()
    page.keyboard.type("haemolysed", delay=60)
    expect(dialog(page).get_by_text(re.compile("— .*haemolysed"))).to_be_visible()
    expect(dialog(page).locator(".lb-confirm")).to_be_enabled()
    page.keyboard.press("Tab")
    for _ in range(12):
        if dialog(page).get_by_role("button", name="Not reportable").evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter", delay=10)
    expect(dialog(page)).to_have_count(0)
    messages = lab.ward.wait(specimen, 2)
    assert [observations(message)["H025"][11] for _, message in messages if "H025" in observations(message)] == ["X"]


def test_a_value_is_entered_by_hand_and_leaves(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, WBC, UNKNOWN)
    lab.ward.wait(specimen)
    pending(lab, page, "tech")
    type_fast(page, specimen)
    expect(side(page).locator(".text-2xl")).to_have_text(specimen)
    page.keyboard.press("F7")
    test = dialog(page).get_by_label("Test")
    test.fill("NEUT%")
    page.locator(".q-menu").get_by_text("NEUT% ·").click()
    dialog(page).get_by_label("Value").fill("61")
    dialog(page).get_by_role("button", name="counted by hand").click()
    expect(dialog(page).get_by_text("61.0 %")).to_be_visible()
    confirm(page)
    expect(side(page).get_by_text("Neutrophils")).to_be_visible()
    assert len(lab.ward.wait(specimen, 2)) == 2


def test_a_specimen_id_is_corrected_by_two_persons_after_delivery(lab: ConsoleLab, page: Page) -> None:
    wrong, right = fresh(), fresh()
    lab.tell(wrong, WBC)
    lab.ward.wait(wrong)
    pending(lab, page, "tech")
    type_fast(page, wrong)
    expect(side(page).locator(".text-2xl")).to_have_text(wrong)
    page.get_by_role("button", name="Correct the id").click()
    dialog(page).get_by_label("The right specimen id").fill(right)
    dialog(page).get_by_label("Reason").fill("tubes exchanged")
    expect(dialog(page).get_by_text("[W]")).to_be_visible()
    confirm(page)
    expect(page.get_by_text(f"{wrong} → {right}")).to_be_visible(timeout=HELD_MS)
    expect(page.get_by_role("button", name="Confirm the id")).to_have_count(0)
    pending(lab, page, "super")
    page.get_by_role("button", name="Confirm the id").click()
    dialog(page).get_by_label("Reason").fill("seen both tubes")
    expect(dialog(page).get_by_text("[W]")).to_be_visible()
    confirm(page)
    [_, (_, withdrawn)] = lab.ward.wait(wrong, 2)
    assert observations(withdrawn)["H001"][11] == "W"
    [(_, moved)] = lab.ward.wait(right)
    assert observations(moved)["H001"][5] == "5.50"
    expect(page.get_by_text(f"{wrong} → {right}")).to_have_count(0, timeout=HELD_MS)


def test_a_viewer_sees_and_may_do_nothing(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    pending(lab, page, "viewer")
    type_fast(page, specimen)
    expect(side(page).get_by_text("critically low")).to_be_visible()
    expect(side(page).get_by_role("button")).to_have_count(0)
    page.keyboard.press("F2")
    expect(page.get_by_text("Your role may not do this: Release.")).to_be_visible()
    expect(dialog(page)).to_have_count(0)


def test_in_chinese(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    pending(lab, page, "tech", "zh")
    type_fast(page, specimen)
    expect(side(page).get_by_text("危急偏低")).to_be_visible()
    expect(side(page).get_by_text("危急值 41 g/L")).to_be_visible()
    page.keyboard.press("F2")
    expect(dialog(page).get_by_text("医院将收到")).to_be_visible()
    dialog(page).get_by_label("原因").fill("核对" * 501)
    expect(dialog(page).get_by_text("原因最多 1000 个字符")).to_be_visible()


def test_who_has_a_specimen_open_is_shown_to_others(lab: ConsoleLab, page: Page) -> None:
    specimen = tell_held(lab, LOW)
    other = page.context.browser.new_context().new_page()
    pending(lab, other, "super")
    type_fast(other, specimen)
    expect(side(other).get_by_text("critically low")).to_be_visible()
    pending(lab, page, "tech")
    listed(page, specimen)
    expect(row(page, specimen).get_by_text("super has this open")).to_be_visible(timeout=HELD_MS)
    other.context.close()
    expect(row(page, specimen).get_by_text("super has this open")).to_have_count(0, timeout=HELD_MS)


HOSTILE = "<img src=x onerror=alert(1)>{{7*7}}"


def test_whatever_an_analyzer_writes_is_shown_as_text(lab: ConsoleLab, page: Page) -> None:
    alerts: list[str] = []
    page.on("dialog", lambda one: (alerts.append(one.message), one.dismiss()))
    specimen = f"<b>{fresh()}</b>"
    long = "N" * 100_000
    segments = [
        f"MSH|^~\\&|{HOSTILE}|Mindray|||20261121101500||ORU^R01|{HOSTILE}|P|2.3.1||||||UNICODE",
        f"PID|1||{HOSTILE}^^^^MR||{HOSTILE}^{long}||19800101|Male",
        f"PV1|1|I|{HOSTILE}",
        f"OBR|1||{specimen}|00001^{HOSTILE}^99MRC||20261121101500|20261121101500|||||||||||||||||HM||||||||",
        f"OBX|1|NM|718-7^HGB^LN||{HOSTILE}|{HOSTILE}||{HOSTILE}|||F|||20261121101500||{HOSTILE}",
        f"OBX|2|NM|{HOSTILE}^{HOSTILE}^{HOSTILE}||1\x1b[31m\u202e|g||N|||F|||20261121101500||",
        f"NTE|1||{HOSTILE}",
    ]
    with lab.hl7_client() as client:
        client.send("".join(segment + "\r" for segment in segments).encode())
    wait_until(lambda: lab.held(specimen), 10, "it is held")
    pending(lab, page, "tech")
    listed(page, specimen)
    row(page, specimen).click()
    expect(side(page).locator(".text-2xl")).to_have_text(specimen)
    expect(side(page).get_by_text("{{7*7}}").first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
    assert "49" not in side(page).inner_text()
    assert "\u202e" not in side(page).inner_text()
    page.keyboard.press("F8")
    dialog(page).get_by_label("Comment").fill(HOSTILE)
    confirm(page)
    expect(side(page).get_by_text(f"Comment · {HOSTILE}")).to_be_visible()
    page.get_by_text("By cause").click()
    expect(page.locator("tr.cursor-pointer").filter(has_text="onerror").first).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
    assert alerts == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nobody_is_kept_out(lab: ConsoleLab, page: Page, dark: bool) -> None:
    specimen = tell_held(lab, LOW, UNKNOWN)
    page.emulate_media(color_scheme="dark" if dark else "light")
    pending(lab, page, "tech")
    type_fast(page, specimen)
    expect(side(page).get_by_text("critically low")).to_be_visible()
    page.wait_for_load_state("networkidle")
    faults = serious_faults(page)
    assert not faults, faults
    page.keyboard.press("F2")
    expect(dialog(page).get_by_text("What the hospital will receive")).to_be_visible()
    expect(dialog(page).locator(".lb-confirm")).to_be_disabled()
    faults = serious_faults(page, ".q-dialog")
    assert not faults, faults
